//! Restarts that follow each other soon wait longer and longer, so that what cannot run does not busy the node until `maxloop`.
//!
//! **Invariant:** the first is never held back, nor is what stops, waits or moves the module.

use model::rules::Act;

/// A restart so long after the one before (and its own wait) is the first again.
const SOON_MS: u64 = 60_000;
/// What the second waits, counted from the first; each next one twice as long.
const STEP_MS: u64 = 1_000;
const STEP_MAX_MS: u64 = 60_000;

/// The restarts in a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Backoff {
    row: u32,
    last_ms: u64,
}

impl Backoff {
    const fn step_ms(self) -> u64 {
        match self.row {
            0 => 0,
            row if row > 6 => STEP_MAX_MS,
            row => STEP_MS << (row - 1),
        }
    }

    /// From when on the next one may be.
    pub const fn due_ms(self, act: Act) -> u64 {
        match act {
            Act::StopStart | Act::Restart => self.last_ms.saturating_add(self.step_ms()),
            Act::Stop | Act::Wait | Act::Swap | Act::NoAction => 0,
        }
    }

    /// Now it is.
    pub const fn acted(&mut self, act: Act, now_ms: u64) {
        if !matches!(act, Act::StopStart | Act::Restart) {
            return;
        }
        let is_soon = self.row > 0 && now_ms <= self.due_ms(act).saturating_add(SOON_MS);
        self.row = if is_soon { self.row.saturating_add(1) } else { 1 };
        self.last_ms = now_ms;
    }

    pub const fn row(self) -> u32 {
        self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_twice_as_long_as_the_one_before_and_a_quiet_minute_ends_it() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.due_ms(Act::StopStart), 0, "the first waits for nothing");
        let mut now = 5_000;
        for step in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            backoff.acted(Act::Restart, now);
            assert_eq!(backoff.due_ms(Act::StopStart), now + step * 1_000);
            assert_eq!(backoff.due_ms(Act::Stop), 0, "what ends it is never held back");
            now = backoff.due_ms(Act::StopStart);
        }
        now += SOON_MS + 1;
        backoff.acted(Act::StopStart, now);
        assert_eq!((backoff.row(), backoff.due_ms(Act::Restart)), (1, now + 1_000));
        backoff.acted(Act::Stop, now + 10);
        assert_eq!(backoff.row(), 1);
    }
}
