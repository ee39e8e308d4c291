//! What operators and rules say of checkers: the same for every kind of module.

use super::{Off, Overseer, setter};
use crate::runtime::module::Input;
use crate::runtime::texts;
use cluster::mirror::Command;
use cluster::watch::{Change, Wanted};
use model::api::{LogLevel, WatchRequest};
use model::resource::{Value, is_name};
use model::rules::Act;
use model::schema::module::Boot;
use std::sync::Arc;
use std::time::Duration;

/// A module that starts waits this long for resources that are not known yet, before it lets its peer go on.
pub const HELD: Duration = Duration::from_secs(5);
/// Longest maintenance that ends by itself.
const OFF_MAX_MS: u64 = 366 * 86_400_000;

/// What an operator said was done.
pub enum Done {
    /// In these words; the log names who asked.
    Action(String),
    /// A resource has another value, which the log tells.
    Set(String, Vec<Change>),
}

/// What an action of a rule is to the automaton.
#[must_use]
pub const fn command(act: Act) -> Option<Command> {
    match act {
        Act::Stop => Some(Command::Stop),
        Act::Wait => Some(Command::Wait),
        Act::StopStart => Some(Command::StopStart),
        Act::Swap => Some(Command::Swap),
        Act::Restart => Some(Command::Restart),
        Act::NoAction => None,
    }
}

/// What the log says of it, and the reason that people are given.
#[must_use]
pub fn words(wanted: &Wanted) -> (String, String) {
    match wanted.rule.strip_prefix("errd_") {
        Some(_) => (format!("Action {} called by errd", wanted.act), format!("errd: {}", wanted.because)),
        None => (
            format!("Action {} from failover rule {}", wanted.act, wanted.rule),
            format!("failover rule {}: {}", wanted.rule, wanted.because),
        ),
    }
}

/// `incloop`: the line of the log, and the answer; `Err`: one too many.
pub fn counted(by: &str, loops: u16, most: u16) -> (String, Result<String, String>) {
    let who: String = by.chars().filter(|c| !c.is_control()).take(100).collect();
    let answer = if loops > most {
        Err(format!("{loops} automatic actions in a row, {most} are allowed: do not act again (stead stop)"))
    } else {
        Ok(format!("{loops} of {most} automatic actions in a row"))
    };
    (format!("Action incloop called by {who}: {loops} of {most}"), answer)
}

impl Overseer {
    /// What an operator says of checkers, processes, resources and the boot. `None`: it is not about these.
    pub fn asked(&mut self, request: &WatchRequest, by: &str, boot: Boot) -> Option<Result<Done, String>> {
        Some(match request {
            WatchRequest::Checker(switch) | WatchRequest::Errd(switch) if switch.for_ms > OFF_MAX_MS => {
                Err(format!("{} ms are more than a year", switch.for_ms))
            }
            WatchRequest::Checker(switch) | WatchRequest::Errd(switch) => {
                let until_unix_ms = if switch.for_ms == 0 { 0 } else { platform::clock::wall_ms() + switch.for_ms };
                let reason: String = switch.reason.chars().filter(|c| !c.is_control()).take(200).collect();
                let off = (!switch.on).then(|| Off { until_unix_ms, reason, by: by.into() });
                let (name, place) = if matches!(request, WatchRequest::Checker(_)) {
                    ("checker", &mut self.switches.checker)
                } else {
                    ("errd", &mut self.switches.errd)
                };
                *place = off;
                let time = if until_unix_ms == 0 { String::new() } else { format!(" for {} s", switch.for_ms / 1000) };
                let reason = if switch.reason.is_empty() { String::new() } else { format!(": {}", switch.reason) };
                let said = format!("{name} {}{time}{reason}", if switch.on { "on" } else { "off" });
                self.switches.keep().map(|()| Done::Action(said))
            }
            // One that was enabled, and that the configuration has lost since, can be disabled still.
            WatchRequest::Class { name, on }
                if !self.has_class(name) && (*on || !self.switches.classes.contains(name)) =>
            {
                Err(format!("<errd> has no class '{name}'"))
            }
            WatchRequest::Class { name, on } => {
                let said = format!("errd {} {name}", if *on { "enable" } else { "disable" });
                self.switches.class(name, *on).and_then(|()| self.switches.keep()).map(|()| Done::Action(said))
            }
            WatchRequest::Boot { on: None } => Ok(Done::Set(self.switches.boot_sentence(boot), Vec::new())),
            WatchRequest::Boot { on: Some(on) } => self.switches.choose_boot(boot, *on).map(Done::Action),
            WatchRequest::Set { resource, value, by } => {
                if !is_name(resource) || !["custom.", "user."].iter().any(|class| resource.starts_with(class)) {
                    return Some(Err(format!("{resource} is not anybody's to set: custom.NAME and user.NAME are")));
                }
                if matches!(value, Value::Word(_)) {
                    return Some(Err(format!("{value} is no value of {resource}: up, down, init and unknown are")));
                }
                let by = if by.is_empty() { "an operator" } else { by };
                let why = format!("set by {by}");
                self.said.note(resource, value, &why);
                let changes = self.set(resource, value.clone(), &why);
                Ok(Done::Set(format!("{resource} is {value}"), changes))
            }
            _ => return None,
        })
    }

    /// What an operator said is done: in the log, and the answer.
    pub fn note(&self, done: Done, by: &str, line: impl Fn(LogLevel, &str, &str)) -> String {
        match done {
            Done::Action(said) => {
                line(LogLevel::U, "heart", &format!("Action {said} called by {by}"));
                said
            }
            Done::Set(said, changes) => {
                self.tell(&changes, line);
                said
            }
        }
    }

    /// `restart_services` of the process whose failure asks for this.
    #[must_use]
    pub fn services_for(&self, command: Command, rule: &str) -> Vec<String> {
        match rule.strip_prefix("errd_") {
            Some(process) if command == Command::Restart => self.services_of(process),
            _ => Vec::new(),
        }
    }

    /// In the log, and to the handlers of processes.
    pub fn tell(&self, changes: &[Change], line: impl Fn(LogLevel, &str, &str)) {
        for change in changes {
            let level = if matches!(change.to, Value::Up | Value::Down) { LogLevel::E } else { LogLevel::I };
            let setter = setter(&change.name);
            line(level, setter, &texts::resource(change, setter));
            if change.to == Value::Down
                && let Some(handler) = self.handler_of(&change.name)
            {
                line(LogLevel::E, "errd", &format!("Action {handler} called by errd"));
                let (around, own, resource) = (Arc::clone(&self.around), self.own.clone(), change.name.clone());
                tokio::spawn(async move {
                    let outcome = super::handle(&handler, &resource, &around).await;
                    let _ = own.send(Input::Handled { resource, outcome }).await;
                });
            }
        }
    }
}
