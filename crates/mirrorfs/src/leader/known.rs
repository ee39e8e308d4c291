//! Which ids the follower knows. Bounded: the least used are taken back.

use replica::op::FileId;
use std::collections::{HashMap, VecDeque};

/// Ids the follower holds a descriptor for, at most.
pub const KNOWN_MAX: usize = 8_192;

/// The ids that were introduced or bound in this session (roots are always known).
#[derive(Default)]
pub(super) struct Known {
    /// Used since the hand of the clock passed it?
    ids: HashMap<FileId, bool>,
    clock: VecDeque<FileId>,
}

impl Known {
    /// Is it known? Counts as a use.
    pub fn has(&mut self, id: FileId) -> bool {
        id < FileId::FIRST || self.ids.get_mut(&id).map(|used| *used = true).is_some()
    }

    /// The same, without counting as a use.
    pub fn peek(&self, id: FileId) -> bool {
        id < FileId::FIRST || self.ids.contains_key(&id)
    }

    /// It is known from here on. `Some`: this one must be unbound to make room.
    pub fn insert(&mut self, id: FileId) -> Option<FileId> {
        if self.ids.insert(id, false).is_none() {
            self.clock.push_back(id);
        }
        if self.ids.len() <= KNOWN_MAX {
            return None;
        }
        for _ in 0..2 * KNOWN_MAX {
            let candidate = self.clock.pop_front()?;
            match self.ids.get_mut(&candidate) {
                Some(used) if *used || candidate == id => {
                    *used = false;
                    self.clock.push_back(candidate);
                }
                Some(_) => {
                    self.ids.remove(&candidate);
                    return Some(candidate);
                }
                None => {}
            }
        }
        None
    }

    /// Not known any more. `true`: it was.
    pub fn remove(&mut self, id: FileId) -> bool {
        self.ids.remove(&id).is_some()
    }

    /// None but the roots.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// A new session, or everything must be bound again.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.clock.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_known_ids_is_bounded_and_used_ones_stay() {
        let mut known = Known::default();
        let mut unbound = 0;
        for i in 0..2 * KNOWN_MAX as u64 {
            unbound += usize::from(known.insert(FileId(2000 + i)).is_some());
            assert!(known.has(FileId(2000)), "in constant use");
        }
        assert_eq!(unbound, KNOWN_MAX);
        assert!(known.peek(FileId::root(0)) && !known.peek(FileId(1_999)));
        assert!(known.clock.len() <= 2 * KNOWN_MAX);
    }
}
