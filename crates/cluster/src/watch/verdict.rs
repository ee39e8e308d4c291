//! Findings in a row make a verdict: one lost packet is no absence, one answer is no recovery.

use alloc::string::String;
use model::resource::Value;
use model::schema::checkers::Debounce;

/// Failures in a row that make a verdict when nothing is written and none of them is certain.
pub const DOWN_AFTER: u32 = 3;

/// What one execution of a checker found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Well or not.
    pub outcome: Outcome,
    /// A few words for people: `connection refused`.
    pub why: String,
}

/// Well or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Well.
    Up,
    /// Not well, and there is no doubt: refused, no carrier, no such process.
    Gone,
    /// Not well, as far as one look can tell: no answer in time.
    Silent,
}

/// What one checker has found in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    debounce: Debounce,
    /// Not well before this says nothing, as long as it was never well.
    grace_until_ms: u64,
    value: Value,
    downs: u32,
    ups: u32,
}

impl Verdict {
    /// `since_ms`: when what it looks at was started, as far as anybody knows.
    pub(super) fn new(debounce: Debounce, since_ms: Option<u64>) -> Self {
        let grace_until_ms = since_ms.map_or(0, |since_ms| since_ms.saturating_add(debounce.grace_ms));
        Self { debounce, grace_until_ms, value: Value::Init, downs: 0, ups: 0 }
    }

    /// The verdict, when it changes.
    pub(super) fn found(&mut self, outcome: Outcome, now_ms: u64) -> Option<Value> {
        let value = match outcome {
            Outcome::Up => {
                self.downs = 0;
                self.ups = self.ups.saturating_add(1);
                // The first look at what starts is no recovery.
                let is_enough = self.value == Value::Init || self.ups >= self.debounce.up_after;
                is_enough.then_some(Value::Up)
            }
            Outcome::Gone | Outcome::Silent => {
                self.ups = 0;
                if self.value == Value::Init && now_ms < self.grace_until_ms {
                    return None;
                }
                self.downs = self.downs.saturating_add(1);
                let certain = outcome == Outcome::Gone;
                let needed = self.debounce.down_after.unwrap_or(if certain { 1 } else { DOWN_AFTER });
                (self.downs >= needed).then_some(Value::Down)
            }
        };
        value.filter(|value| *value != self.value).inspect(|value| self.value = value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Gone, Silent, Up};
    use super::*;

    fn play(debounce: Debounce, fresh: bool, found: &[(u64, Outcome)]) -> alloc::string::String {
        let mut verdict = Verdict::new(debounce, fresh.then_some(0));
        found
            .iter()
            .map(|(at, outcome)| match verdict.found(*outcome, *at) {
                Some(Value::Up) => 'u',
                Some(_) => 'd',
                None => '.',
            })
            .collect()
    }

    #[test]
    fn what_is_certain_counts_at_once_and_silence_three_times() {
        let usual = Debounce::DEFAULT;
        assert_eq!(play(usual, false, &[(0, Up), (1, Gone), (2, Gone), (3, Up)]), "ud.u");
        assert_eq!(play(usual, false, &[(0, Up), (1, Silent), (2, Silent), (3, Silent)]), "u..d");
        assert_eq!(
            play(usual, false, &[(0, Up), (1, Silent), (2, Silent), (3, Up), (4, Silent), (5, Silent)]),
            "u....."
        );
    }

    #[test]
    fn what_is_written_holds_for_both() {
        let written = Debounce { down_after: Some(2), up_after: 3, grace_ms: 0 };
        assert_eq!(play(written, false, &[(0, Up), (1, Gone), (2, Silent), (3, Up), (4, Up), (5, Up)]), "u.d..u");
        assert_eq!(play(written, false, &[(0, Gone), (1, Gone)]), ".d", "the first verdict may be that it is down");
    }

    #[test]
    fn what_was_just_started_is_given_its_time_once() {
        let slow = Debounce { grace_ms: 100, ..Debounce::DEFAULT };
        assert_eq!(play(slow, true, &[(0, Gone), (50, Gone), (60, Up), (70, Gone)]), "..ud");
        assert_eq!(play(slow, true, &[(0, Gone), (99, Gone), (100, Gone)]), "..d");
        assert_eq!(play(slow, false, &[(0, Gone)]), "d");
    }

    /// A secondary joins while the application is still starting: the checker begins anew, the application does not.
    #[test]
    fn a_checker_that_begins_again_gives_what_is_left_of_the_time() {
        let slow = Debounce { grace_ms: 100, ..Debounce::DEFAULT };
        let mut again = Verdict::new(slow, Some(1_000));
        assert_eq!(again.found(Gone, 1_099), None);
        assert_eq!(again.found(Gone, 1_100), Some(Value::Down));
        assert_eq!(Verdict::new(slow, Some(1_000)).found(Gone, 5_000), Some(Value::Down));
    }
}
