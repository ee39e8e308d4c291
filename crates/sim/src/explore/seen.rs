//! What a search remembers: each situation, and the cheapest ways it was reached.
//!
//! A bound is spent on the way (faults, crashes, retries, epochs). Whoever comes to a situation having spent no less than somebody
//! before in every respect finds nothing new from there: everything that is possible was possible then. **Invariant:** the number of
//! situations does not depend on the order of a search that ends.

use super::Spent;
use crate::fingerprint::AsIs;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// Whether to go on from a situation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    /// Nobody was here.
    New,
    /// Somebody was, having spent more of something.
    Cheaper,
    /// Nothing new.
    Known,
}

/// See the module.
#[derive(Default)]
pub(super) struct Seen {
    /// The first way.
    first: HashMap<u64, u64, BuildHasherDefault<AsIs>>,
    /// The others that cost less in some respect.
    more: HashMap<u64, Vec<u64>, BuildHasherDefault<AsIs>>,
}

impl Seen {
    /// How many situations.
    pub(super) fn situations(&self) -> usize {
        self.first.len()
    }

    /// Comes to a situation.
    pub(super) fn meet(&mut self, situation: u64, spent: &Spent) -> Met {
        let Some(first) = self.first.get_mut(&situation) else {
            self.first.insert(situation, spent.word());
            return Met::New;
        };
        if Spent::of(*first).is_within(spent) {
            return Met::Known;
        }
        if spent.is_within(&Spent::of(*first)) {
            *first = spent.word();
            if let Some(more) = self.more.get_mut(&situation) {
                more.retain(|word| !spent.is_within(&Spent::of(*word)));
            }
            return Met::Cheaper;
        }
        let more = self.more.entry(situation).or_default();
        if more.iter().any(|word| Spent::of(*word).is_within(spent)) {
            return Met::Known;
        }
        more.retain(|word| !spent.is_within(&Spent::of(*word)));
        more.push(spent.word());
        Met::Cheaper
    }
}

impl Spent {
    /// In every respect no more.
    fn is_within(&self, other: &Self) -> bool {
        self.faults <= other.faults
            && self.crashes.iter().zip(other.crashes).all(|(mine, theirs)| *mine <= theirs)
            && self.expiries <= other.expiries
            && self.epochs <= other.epochs
            && self.commands & !other.commands == 0
    }

    const fn word(&self) -> u64 {
        let [a, b, c] = self.crashes;
        u64::from_le_bytes([self.faults, a, b, c, self.expiries, self.commands, self.epochs, 0])
    }

    const fn of(word: u64) -> Self {
        let [faults, a, b, c, expiries, commands, epochs, _] = word.to_le_bytes();
        Self { faults, crashes: [a, b, c], expiries, commands, epochs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_spent_no_less_in_every_respect_finds_nothing_new() {
        let spent = |faults, crashes, epochs| Spent { faults, crashes, epochs, ..Spent::default() };
        let mut seen = Seen::default();
        assert_eq!(seen.meet(7, &spent(2, [2, 0, 0], 1)), Met::New);
        assert_eq!(seen.meet(7, &spent(2, [2, 0, 0], 1)), Met::Known);
        assert_eq!(seen.meet(7, &spent(3, [2, 1, 0], 1)), Met::Known);
        assert_eq!(seen.meet(7, &spent(2, [0, 2, 0], 1)), Met::Cheaper, "the first node has its crashes left");
        assert_eq!(seen.meet(7, &spent(2, [1, 2, 0], 1)), Met::Known);
        assert_eq!(seen.meet(7, &spent(2, [2, 0, 0], 0)), Met::Cheaper, "an epoch is left");
        assert_eq!(seen.meet(7, &spent(0, [0, 0, 0], 0)), Met::Cheaper);
        assert_eq!(seen.meet(7, &spent(2, [0, 2, 0], 0)), Met::Known, "the cheapest of all has come");
        assert_eq!(seen.situations(), 1);
        let all = Spent { faults: 1, crashes: [2, 3, 4], expiries: 5, commands: 6, epochs: 7 };
        assert_eq!(Spent::of(all.word()), all);
    }
}
