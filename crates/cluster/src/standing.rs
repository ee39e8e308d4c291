//! What the configuration orders by a clock: `syncat`, a secondary that is brought up to date at certain times, and
//! `syncdelta`, a copy that may serve by itself for a while after both were equal.
//!
//! Pure: what is seen of the module and times come in; what follows is the module's automaton's. **Invariant:** a force is
//! wanted only for a copy that was equal not longer ago than the configuration says, by a clock that did not run back.

use crate::mirror::View;
use alloc::format;
use alloc::string::String;
use model::{ModuleState, Status};

/// The peer must be silent for so long: a node that boots a little later is not forestalled.
pub const SILENCE_MS: u64 = 15_000;
/// A note of equality from so far ahead is of a clock that was set back.
const AHEAD_MS: u64 = 60_000;

/// What is seen of the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// What the automaton shows.
    pub state: ModuleState,
    /// The same.
    pub status: Status,
    /// The copy is complete.
    pub uptodate: bool,
}

impl From<&View> for Seen {
    fn from(view: &View) -> Self {
        Self { state: view.state, status: view.status, uptodate: view.uptodate }
    }
}

impl Seen {
    /// Both copies are equal, as far as this node knows.
    #[must_use]
    pub const fn is_equal(self) -> bool {
        matches!(self.status, Status::Ready)
            && self.uptodate
            && matches!(self.state, ModuleState::Second | ModuleState::Prim)
    }
}

/// When the secondary is to be up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduled {
    is_due: bool,
}

/// A start by an operator or with the node counts as a time.
impl Default for Scheduled {
    fn default() -> Self {
        Self { is_due: true }
    }
}

impl Scheduled {
    /// It is time, or somebody asked.
    pub fn comes(&mut self) {
        self.is_due = true;
    }

    /// `false`: the rule makes it wait. `waits`: it does already.
    pub fn may_run(&mut self, seen: Seen, waits: bool) -> bool {
        match seen.state {
            ModuleState::Second if seen.is_equal() => {
                self.is_due = false;
                false
            }
            // Stopped by a person: the next start brings it up to date.
            ModuleState::Stop if !waits && seen.status == Status::NotReady => {
                self.is_due = true;
                true
            }
            ModuleState::Alone | ModuleState::Prim => true,
            _ => self.is_due,
        }
    }
}

/// Why a copy may serve by itself (`syncdelta`); `None`: it may not. Times in milliseconds, `equal` and `now` by the wall clock.
#[must_use]
pub fn force(delta_ms: u64, equal_ms: Option<u64>, now_ms: u64, silent_ms: u64) -> Option<String> {
    let equal_ms = equal_ms.filter(|equal| *equal <= now_ms.saturating_add(AHEAD_MS))?;
    let age_ms = now_ms.saturating_sub(equal_ms);
    (delta_ms > 0 && age_ms <= delta_ms && silent_ms >= SILENCE_MS).then(|| {
        format!(
            "syncdelta: the other node is silent, and both copies were equal {} s ago (at most {} s): this one serves by force",
            age_ms / 1_000,
            delta_ms / 1_000
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_force_needs_a_recent_equality_silence_and_an_honest_clock() {
        let minutes = 60_000;
        let may = |equal, now, silent| force(10 * minutes, equal, now, silent).is_some();
        let now = 1_000 * minutes;
        assert!(may(Some(now - 9 * minutes), now, SILENCE_MS));
        assert!(!may(Some(now - 11 * minutes), now, SILENCE_MS), "too long ago");
        assert!(!may(Some(now - minutes), now, SILENCE_MS - 1), "not silent for long enough");
        assert!(!may(None, now, SILENCE_MS), "nobody knows when");
        assert!(!may(Some(now + 2 * minutes), now, SILENCE_MS), "the clock was set back");
        assert!(force(0, Some(now), now, SILENCE_MS).is_none(), "not configured");
    }

    #[test]
    fn a_secondary_waits_when_it_is_complete_and_runs_when_it_is_time() {
        use ModuleState::{Alone, Second, Stop};
        let seen = |state, status| Seen { state, status, uptodate: status == Status::Ready };
        let mut scheduled = Scheduled::default();
        assert!(scheduled.may_run(seen(Stop, Status::NotReady), false), "a start is a time");
        assert!(scheduled.may_run(seen(Second, Status::Transient), false), "it is being brought up to date");
        assert!(!scheduled.may_run(seen(Second, Status::Ready), false), "complete: it waits");
        assert!(!scheduled.may_run(seen(Stop, Status::NotReady), true), "until it is time");
        assert!(scheduled.may_run(seen(Alone, Status::Ready), false), "who serves never waits");
        scheduled.comes();
        assert!(scheduled.may_run(seen(Stop, Status::NotReady), true));
        assert!(!scheduled.may_run(seen(Second, Status::Ready), false));
        assert!(
            scheduled.may_run(seen(Stop, Status::NotReady), false),
            "stopped by a person: the next start is a time"
        );
    }
}
