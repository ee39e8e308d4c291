//! Files with several names: what both sides call each of them.

use super::TreePath;
use crate::kept::Kept;
use replica::map::FileKey;
use replica::wire::LINKS_FROM;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

/// A file with several names.
pub(super) struct Link {
    /// What both sides call it.
    pub number: u64,
    kept: Kept,
    /// The target has it under one name at least.
    pub known: bool,
    /// All its names were compared once more, after every name of the tree had been seen.
    pub done: bool,
    /// Names it was seen under until then.
    pub names: HashSet<(TreePath, Vec<u8>)>,
}

#[derive(Default)]
pub(super) struct Links {
    by_key: HashMap<FileKey, Link>,
    /// Numbers given so far.
    given: u64,
}

impl Links {
    /// This file's, if it has several names or is known from when it had.
    pub fn of(&mut self, key: FileKey, fd: OwnedFd, several: bool) -> Option<&mut Link> {
        if self.by_key.get(&key).is_some_and(|link| !link.kept.is(&fd)) {
            // Another file has its number by now.
            self.by_key.remove(&key);
        }
        if several && !self.by_key.contains_key(&key) {
            let number = LINKS_FROM + self.given;
            self.given += 1;
            let new = Link { number, kept: Kept::of(fd), known: false, done: false, names: HashSet::new() };
            self.by_key.insert(key, new);
        }
        self.by_key.get_mut(&key)
    }

    pub fn contains(&self, key: FileKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub fn get(&self, key: FileKey) -> Option<&Link> {
        self.by_key.get(&key)
    }

    pub fn get_mut(&mut self, key: FileKey) -> Option<&mut Link> {
        self.by_key.get_mut(&key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &FileKey> {
        self.by_key.keys()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&FileKey, &mut Link)> {
        self.by_key.iter_mut()
    }

    pub fn by_number(&mut self, number: u64) -> Option<&mut Link> {
        self.by_key.values_mut().find(|link| link.number == number)
    }
}
