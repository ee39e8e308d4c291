//! What is new: made since its directory became hot, so that the directory covers it and it needs no word of its own.
//!
//! **Invariant:** a thing counts as new only while the slot that covers it is hot and no round has ended since it was
//! made: then, after a crash, it is found by the time it was made, where it was and where it went.

use super::{ActivityLog, Hot};
use crate::map::FileKey;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Remembered at most; beyond, changes are told of one by one.
const MADE_MAX: usize = 100_000;

/// A directory that covers what was made in it (or below a directory made in it), and a time not after that.
pub type Cover = (FileKey, u64);

/// What was made here, and what covers it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    made: BTreeMap<FileKey, Cover>,
}

impl Made {
    /// Nothing is new.
    pub fn clear(&mut self) {
        self.made.clear();
    }

    /// The entries of `dir` are about to change; gives what covers things made in it. What must be in the log goes
    /// to `out`.
    pub fn entries(&mut self, log: &mut ActivityLog, dir: FileKey, now_ms: u64, out: &mut Vec<Hot>) -> Cover {
        if let Some(cover) = self.cover(log, dir) {
            return cover;
        }
        out.push(Hot::Entries { key: dir, since_ms: now_ms });
        (dir, now_ms)
    }

    /// `moved` is about to get a name in the directory `to`, having been elsewhere before.
    pub fn moves(&mut self, log: &mut ActivityLog, moved: FileKey, to: FileKey, now_ms: u64, out: &mut Vec<Hot>) {
        let there = self.entries(log, to, now_ms, out);
        let new = self.cover(log, moved).and_then(|(_, made_ms)| {
            if there.0 != to {
                return Some(there);
            }
            log.is_covered(to, made_ms).then_some((to, made_ms))
        });
        match new {
            Some(cover) => self.made(moved, cover),
            None => {
                self.made.remove(&moved);
                out.push(Hot::Whole { key: moved });
            }
        }
    }

    /// Bytes or attributes of a file are about to change.
    pub fn data(&mut self, log: &mut ActivityLog, what: Hot, out: &mut Vec<Hot>) {
        if self.cover(log, what.key()).is_none() {
            out.push(what);
        }
    }

    /// It was made, under this cover.
    pub fn made(&mut self, key: FileKey, cover: Cover) {
        if self.made.len() >= MADE_MAX {
            // Not even under the number of something that is gone.
            self.made.clear();
        }
        self.made.insert(key, cover);
    }

    /// What covers it, if it is new. Counts as a use.
    fn cover(&mut self, log: &mut ActivityLog, key: FileKey) -> Option<Cover> {
        let (dir, made_ms) = *self.made.get(&key)?;
        let covered = log.is_covered(dir, made_ms);
        if !covered {
            self.made.remove(&key);
        }
        covered.then_some((dir, made_ms))
    }
}
