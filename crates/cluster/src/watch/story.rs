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

/// A module that does at once what its rules ask.
pub struct Story {
    watch: Watch,
    now: Time,
    is_waiting: bool,
}

impl Story {
    /// With these rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>, handle_time_ms: u64) -> Self {
        Self { watch: Watch::new(rules, handle_time_ms), now: Time::default(), is_waiting: false }
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
