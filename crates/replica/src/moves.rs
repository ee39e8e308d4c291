//! Where things were before they got another name while there was no peer to tell: a target makes the same moves before anything is
//! compared, and what only moved is not sent.
//!
//! Only a hint. **Invariant:** whatever is said here, what a [`crate::map::Record::Tree`] names is compared to the last byte.

use crate::map::{FileKey, Record};
use crate::op::NAME_MAX;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bytes of a name in one record.
pub const NAME_BYTES: usize = 16;

/// A directory, by its names from a replicated one.
pub type Way = Vec<Vec<u8>>;

/// The first place of each thing that moved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Origins(BTreeMap<FileKey, Origin>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    /// Inode of the directory, on the same device.
    dir: u64,
    len: u8,
    /// As much of it as was read.
    name: Vec<u8>,
}

/// What the log says of something that leaves `dir`, where it was called `name`, for another place.
pub fn records(key: FileKey, dir: u64, name: &[u8]) -> impl Iterator<Item = Record> {
    let len = u8::try_from(name.len()).unwrap_or(0);
    let parts = name.chunks(NAME_BYTES).take(NAME_MAX / NAME_BYTES + 1).enumerate().map(move |(part, some)| {
        let mut bytes = [0; NAME_BYTES];
        bytes[..some.len()].copy_from_slice(some);
        Record::Name { key, part: part as u8, bytes }
    });
    let told = (len > 0).then_some(Record::Origin { key, dir, len });
    told.into_iter().chain(parts.filter(move |_| len > 0))
}

impl Origins {
    /// Is it news?
    pub(crate) fn begin(&mut self, key: FileKey, dir: u64, len: u8) -> bool {
        let is_new = len > 0 && !self.0.contains_key(&key);
        if is_new {
            self.0.insert(key, Origin { dir, len, name: Vec::new() });
        }
        is_new
    }

    /// Is it the part that was missing?
    pub(crate) fn go_on(&mut self, key: FileKey, part: u8, bytes: &[u8; NAME_BYTES]) -> bool {
        let Some(origin) = self.0.get_mut(&key) else { return false };
        let (has, len) = (origin.name.len(), usize::from(origin.len));
        let is_next = has < len && has == usize::from(part) * NAME_BYTES;
        if is_next {
            origin.name.extend_from_slice(&bytes[..NAME_BYTES.min(len - has)]);
        }
        is_next
    }

    /// What moved, with the inode of its first directory and its name there.
    pub(crate) fn all(&self) -> impl Iterator<Item = (FileKey, u64, &[u8])> {
        let whole = self.0.iter().filter(|(_, origin)| origin.name.len() == usize::from(origin.len));
        whole.map(|(key, origin)| (*key, origin.dir, &origin.name[..]))
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.all().flat_map(|(key, dir, name)| records(key, dir, name))
    }
}

/// One move that the target shall make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Where the directory it was in is now, and its name there.
    pub from: (Way, Vec<u8>),
    /// Where it is now.
    pub to: (Way, Vec<u8>),
}

/// Their places in an order in which each can be made where the directories are by then: who is in the way goes first, and so do the
/// directories that lead to either place. What is part of a circle, or needs one, is left out (it is sent as if it were new).
#[must_use]
pub fn in_order(moves: &[Move]) -> Vec<usize> {
    let way = |(dir, name): &(Way, Vec<u8>)| -> Way { dir.iter().chain([name]).cloned().collect() };
    let comes: BTreeMap<Way, usize> = moves.iter().enumerate().map(|(n, it)| (way(&it.to), n)).collect();
    let leaves: BTreeMap<Way, usize> = moves.iter().enumerate().map(|(n, it)| (way(&it.from), n)).collect();
    let needs = |n: usize| -> Vec<usize> {
        let it = &moves[n];
        let leads = [&it.from.0, &it.to.0].into_iter().flat_map(|dir| (1..=dir.len()).map(move |to| &dir[..to]));
        let before = leads.filter_map(|dir| comes.get(dir)).chain(leaves.get(&way(&it.to)));
        before.copied().filter(|other| *other != n).collect()
    };
    let mut sorted = Sorted { state: alloc::vec![Seen::Not; moves.len()], order: Vec::new() };
    for n in 0..moves.len() {
        sorted.visit(n, &needs);
    }
    sorted.order
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    /// What it needs is being looked at.
    Open,
    Done,
    /// Needs itself, or what does.
    Circle,
}

struct Sorted {
    state: Vec<Seen>,
    order: Vec<usize>,
}

impl Sorted {
    /// Depth first, without recursion: chains may be long.
    fn visit(&mut self, first: usize, needs: &impl Fn(usize) -> Vec<usize>) {
        if self.state[first] != Seen::Not {
            return;
        }
        self.state[first] = Seen::Open;
        let mut way = alloc::vec![(first, needs(first))];
        while let Some((n, left)) = way.last_mut() {
            let n = *n;
            match left.pop() {
                Some(next) => match self.state[next] {
                    Seen::Not => {
                        self.state[next] = Seen::Open;
                        let more = needs(next);
                        way.push((next, more));
                    }
                    Seen::Open | Seen::Circle => self.state[n] = Seen::Circle,
                    Seen::Done => {}
                },
                None => {
                    way.pop();
                    if self.state[n] == Seen::Open {
                        self.state[n] = Seen::Done;
                        self.order.push(n);
                    } else if let Some((who_needs_it, _)) = way.last() {
                        self.state[*who_needs_it] = Seen::Circle;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn way(path: &str) -> (Way, Vec<u8>) {
        let mut names: Way = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
        let name = names.pop().unwrap();
        (names, name)
    }

    fn ordered(moves: &[(&str, &str)]) -> Vec<String> {
        let all: Vec<Move> = moves.iter().map(|(from, to)| Move { from: way(from), to: way(to) }).collect();
        let said = |(dir, name): &(Way, Vec<u8>)| {
            let names: Vec<_> = dir.iter().chain([name]).map(|name| String::from_utf8_lossy(name)).collect();
            names.join("/")
        };
        in_order(&all).iter().map(|n| alloc::format!("{} {}", said(&all[*n].from), said(&all[*n].to))).collect()
    }

    #[test]
    fn who_is_in_the_way_goes_first() {
        let logs = [("log", "log.1"), ("log.1", "log.2"), ("log.2", "log.3")];
        assert_eq!(ordered(&logs), ["log.2 log.3", "log.1 log.2", "log log.1"]);
    }

    #[test]
    fn directories_come_to_their_places_before_what_came_out_of_or_into_them() {
        // /p/f became /f, and p became /x/p; g went into p after that, and h into what f is.
        let moves = [("x/p/f", "f"), ("p", "x/p"), ("g", "x/p/g"), ("h", "f/h")];
        assert_eq!(ordered(&moves), ["p x/p", "x/p/f f", "g x/p/g", "h f/h"]);
    }

    #[test]
    fn a_circle_is_left_out_and_nothing_else() {
        assert_eq!(ordered(&[("a", "b"), ("b", "a"), ("c", "d")]), ["c d"]);
        // p/f became /f, and p went into it.
        assert!(ordered(&[("f/p/f", "f"), ("p", "f/p"), ("q", "f/p/q")]).is_empty());
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let names: Vec<String> = (0..50_001).map(|n| alloc::format!("{n}")).collect();
        let chain: Vec<(&str, &str)> = names.windows(2).map(|two| (&*two[0], &*two[1])).collect();
        let all = ordered(&chain);
        assert_eq!((all.len(), &*all[0]), (50_000, "49999 50000"));
    }
}
