//! Plays values of resources against rules: `stead rules test`, and the stories of tests/rules.

use super::{Change, Gate, Time, Wanted, Watch};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::resource::{Value, is_name};
use model::rules::{Act, Rule};

/// What may be played.
pub const STEPS: &str =
    "class.name=value (up, down, init, unknown), remote.class.name=value, or wait TIME (500ms, 15s)";

/// Classes of resources that only a checker sets.
const LOOKED_AT: [&str; 8] = ["tcp", "http", "ping", "intf", "ip", "proc", "module", "splitbrain"];

/// A module that does at once what its rules ask.
pub struct Story {
    watch: Watch,
    /// What its checkers look at; `None`: nobody said.
    looked_at: Option<Vec<String>>,
    now: Time,
    is_waiting: bool,
}

impl Story {
    /// With these rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>, handle_time_ms: u64) -> Self {
        Self { watch: Watch::new(rules, handle_time_ms), looked_at: None, now: Time::default(), is_waiting: false }
    }

    /// With the checkers of a module: what they look at is there from the beginning, and not known yet.
    #[must_use]
    pub fn looking_at(mut self, resources: Vec<String>) -> Self {
        for name in &resources {
            self.watch.set(name, Value::Init, "", self.now);
        }
        self.looked_at = Some(resources);
        self
    }

    /// May somebody say that of this resource?
    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        let Some(looked_at) = &self.looked_at else { return Ok(()) };
        let own = name.strip_prefix("remote.").unwrap_or(name);
        let class = own.split('.').next().unwrap_or_default();
        if !LOOKED_AT.contains(&class) {
            return Ok(());
        }
        if !looked_at.iter().any(|known| known == own) {
            let known = if looked_at.is_empty() { "none".to_string() } else { looked_at.join(", ") };
            return Err(format!("no checker of this module sets {own}; what they set: {known}"));
        }
        match value {
            Value::Word(word) => Err(format!("a checker never says '{word}' of {own}: up, down, init or unknown")),
            _ => Ok(()),
        }
    }

    /// One step; what follows from it, a line each.
    ///
    /// # Errors
    /// Why it is no step.
    pub fn play(&mut self, step: &str) -> Result<Vec<String>, String> {
        let step = step.trim();
        let mut said = Vec::new();
        if let Some(time) = step.strip_prefix("wait ") {
            let unit = model::schema::units::Unit::Millisecond;
            let ms = model::schema::units::milliseconds(time, unit).map_err(|end| format!("'{time}' {end}"))?;
            self.now.boot_ms = self.now.boot_ms.saturating_add(ms);
        } else {
            let split = step.split_once('=').or_else(|| step.split_once(' '));
            let (name, value) = split.ok_or_else(|| format!("'{step}' is no step: write {STEPS}"))?;
            let (name, value) = (name.trim(), value.trim());
            let name = name.strip_prefix("local.").filter(|rest| rest.contains('.')).unwrap_or(name);
            let value = Value::new(value).ok_or_else(|| format!("'{value}' is no value: write {STEPS}"))?;
            if !is_name(name) {
                return Err(format!("'{name}' names no resource: write {STEPS}"));
            }
            self.check(name, &value)?;
            said.extend(self.watch.set(name, value, "", self.now).map(told));
        }
        let (changes, wanted) = self.watch.wanted(self.now);
        said.extend(changes.into_iter().map(told));
        if let Some(wanted) = wanted {
            self.is_waiting |= wanted.act == Act::Wait;
            said.push(sentence(&wanted));
            self.watch.done(self.now);
        } else if let Some(held) = self.watch.held(self.now) {
            said.push(format!("held back: {}", sentence(&held)));
        }
        if self.is_waiting && self.watch.gate() == Gate::Open {
            self.is_waiting = false;
            said.push("Action wakeup from failover rule Implicit_wakeup".to_string());
        }
        Ok(said)
    }
}

fn told(change: Change) -> String {
    let from = change.from.unwrap_or(Value::Init);
    let why = if change.why.is_empty() { String::new() } else { format!(" by {}", change.why) };
    format!("Resource {} set to {}{why} (was {from})", change.name, change.to)
}

/// The line of the log.
#[must_use]
pub fn sentence(wanted: &Wanted) -> String {
    format!("Action {} from failover rule {}: {}", wanted.act, wanted.rule, wanted.because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checker_has_not_said_yet_counts_and_only_its_words_are_taken() {
        let rules = model::rules::parse("all: if (tcp.* == down) then stop();").expect("a rule").rules;
        let rules = || rules.iter().map(|(rule, _)| rule.clone()).collect();
        let told = |story: &mut Story, step: &str| story.play(step).map(|said| said.join("; "));
        let stops = |said: Result<String, String>| said.is_ok_and(|said| said.contains("Action stop"));
        let mut alone = Story::new(rules(), 0);
        assert!(stops(told(&mut alone, "tcp.pad=down")), "nobody said that there is another one");
        let mut story = Story::new(rules(), 0).looking_at(["tcp.pad".to_string(), "tcp.vip".to_string()].into());
        assert!(!stops(told(&mut story, "tcp.pad=down")), "the other one is not known yet");
        let refused = told(&mut story, "tcp.vpi=down").unwrap_err();
        assert!(refused.contains("no checker") && refused.contains("tcp.pad, tcp.vip"), "{refused}");
        assert!(told(&mut story, "tcp.pad=sideways").unwrap_err().contains("up, down, init or unknown"));
        assert!(told(&mut story, "custom.mine=green").is_ok() && told(&mut story, "remote.tcp.vip=up").is_ok());
        assert!(stops(told(&mut story, "tcp.vip=down")));
    }
}
