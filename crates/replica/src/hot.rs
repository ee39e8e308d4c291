//! The activity log: what a crash of this node, now, may leave different from the other copy.
//!
//! A bounded set of hot things, each in the log on disk before it is touched for the first time, and there until
//! both disks have everything that was done to it (protocol.md R5). So after a crash only these are compared. It
//! may say too much, never too little; a log that cannot be read means "compare everything". Pure: this file
//! says what to write, the caller writes it.
//!
//! **Invariant:** what is touched and not hot is in a block the caller was given, and nothing may be changed before
//! that block is durable ([`ActivityLog::written`]).

mod format;
mod made;

pub use format::{BLOCK_BYTES, LOG_BYTES, LogError, UNFLUSHED_MAX};
pub use made::{Cover, Made};

use crate::map::{FileKey, Record};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use model::limits::{EXTENT_BYTES, HOT_TABLE, ZONE_BYTES};

/// Something whose two copies may differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hot {
    /// Extents `first..end` of a file and its attributes; none of them if `first == end`.
    Extents {
        /// File.
        key: FileKey,
        /// First extent.
        first: u32,
        /// One past the last; `u32::MAX`: to the end.
        end: u32,
    },
    /// The entries of a directory, and everything in it that was made at this time or later.
    Entries {
        /// Directory.
        key: FileKey,
        /// Milliseconds since 1970 on this node's clock when it became hot: what is older was there before.
        since_ms: u64,
    },
    /// Everything under this inode, wherever it is now: it was moved.
    Whole {
        /// File or directory.
        key: FileKey,
    },
}

impl Hot {
    /// The file or directory.
    #[must_use]
    pub fn key(&self) -> FileKey {
        match *self {
            Self::Extents { key, .. } | Self::Entries { key, .. } | Self::Whole { key } => key,
        }
    }

    fn id(&self) -> SlotId {
        match *self {
            Self::Whole { key } => (key, 0, 0),
            Self::Entries { key, .. } => (key, 1, 0),
            Self::Extents { key, first, .. } => (key, 2, first),
        }
    }
}

/// The extents a change of `offset..offset + len` touches.
#[must_use]
pub fn extents(key: FileKey, offset: u64, len: u64) -> Hot {
    let bound = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let end = offset.saturating_add(len);
    let end = if end > i64::MAX as u64 { u32::MAX } else { bound(end.div_ceil(EXTENT_BYTES)) };
    let first = bound(offset / EXTENT_BYTES);
    Hot::Extents { key, first, end: if len == 0 { first } else { end.max(first) } }
}

/// What must happen before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Touch {
    /// Nothing: it is hot.
    Hot,
    /// The blocks of [`ActivityLog::blocks`] must be durable first.
    Cold,
    /// There is no room: something must cool first. State unchanged.
    Full,
}

/// A point in time: what was touched before it and not since can cool together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Round {
    number: u64,
    began_ms: u64,
}

type SlotId = (FileKey, u8, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    what: Hot,
    /// Inode of the directory it was found in; 0: unknown.
    dir: u64,
    /// Round in which it was last touched.
    touched: u64,
}

/// The hot set and its log.
#[derive(Clone, Debug)]
pub struct ActivityLog {
    slots: Vec<Option<Slot>>,
    index: BTreeMap<SlotId, u16>,
    free: BTreeSet<u16>,
    /// Slots whose state is not in a block yet.
    changed: BTreeSet<u16>,
    /// The log says "everything": it was lost, or a full resync is under way.
    everything: bool,
    round: u64,
    /// When the last round that ended began: what was made until then is on both disks, and its directory may have
    /// cooled, so no directory covers it any more.
    cooled_ms: Option<u64>,
    /// Number of the next block.
    next: u64,
    /// Blocks up to here are durable (numbers from 1 on).
    durable: u64,
}

impl Default for ActivityLog {
    fn default() -> Self {
        Self {
            slots: alloc::vec![None; HOT_TABLE],
            index: BTreeMap::new(),
            free: (0..HOT_TABLE as u16).collect(),
            changed: BTreeSet::new(),
            everything: false,
            round: 1,
            cooled_ms: None,
            next: 1,
            durable: 0,
        }
    }
}

impl ActivityLog {
    /// Nothing can be told apart: compare everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Must everything be compared?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// What is hot, with the inode of the directory it was found in.
    pub fn items(&self) -> impl Iterator<Item = (Hot, u64)> + '_ {
        self.slots.iter().flatten().map(|slot| (slot.what, slot.dir))
    }

    /// How much is hot.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && !self.everything
    }

    /// Before a change: `limit` is how much may be hot. `dir`: inode of the directory it is found in.
    pub fn touch(&mut self, what: Hot, dir: u64, limit: usize) -> Touch {
        if self.everything {
            return Touch::Hot;
        }
        if let Some(slot) = self.find(what) {
            self.bump(slot);
            return Touch::Hot;
        }
        // The same slot, wider: a range that reaches further, or a directory whose clock was set back.
        if let Some(slot) = self.index.get(&what.id()).copied() {
            let touched = self.round;
            let widened = self.slots[usize::from(slot)].map_or(what, |s| wider(s.what, what));
            self.slots[usize::from(slot)] = Some(Slot { what: widened, dir, touched });
            self.changed.insert(slot);
            return Touch::Cold;
        }
        if self.index.len() >= limit {
            return Touch::Full;
        }
        let Some(slot) = self.free.pop_first() else { return Touch::Full };
        self.slots[usize::from(slot)] = Some(Slot { what, dir, touched: self.round });
        self.index.insert(what.id(), slot);
        self.changed.insert(slot);
        Touch::Cold
    }

    /// Is a change of a file that was made (not before `made_ms`) in this directory covered by the directory? Counts
    /// as a use of it.
    pub fn is_covered(&mut self, dir: FileKey, made_ms: u64) -> bool {
        if self.everything {
            return true;
        }
        if self.cooled_ms.is_some_and(|cooled| made_ms <= cooled) {
            return false;
        }
        let Some(slot) = self.index.get(&(dir, 1, 0)).copied() else { return false };
        let covered = self.slots[usize::from(slot)]
            .is_some_and(|s| matches!(s.what, Hot::Entries { since_ms, .. } if since_ms <= made_ms));
        if covered {
            self.bump(slot);
        }
        covered
    }

    fn bump(&mut self, slot: u16) {
        if let Some(s) = &mut self.slots[usize::from(slot)] {
            s.touched = self.round;
        }
    }

    /// The slot that says at least this.
    fn find(&self, what: Hot) -> Option<u16> {
        let key = what.key();
        let slot_of = |id: &SlotId| self.index.get(id).copied();
        let whole = slot_of(&(key, 0, 0));
        match what {
            Hot::Whole { .. } => whole,
            Hot::Entries { since_ms, .. } => slot_of(&(key, 1, 0)).filter(|slot| {
                self.slots[usize::from(*slot)]
                    .is_some_and(|s| matches!(s.what, Hot::Entries { since_ms: s, .. } if s <= since_ms))
            }),
            Hot::Extents { first, end, .. } => whole.or_else(|| {
                // Attributes alone are said by any slot of the file.
                let upto = if first == end { u32::MAX } else { first };
                let (_, slot) = self.index.range((key, 2, 0)..=(key, 2, upto)).next_back()?;
                self.slots[usize::from(*slot)]
                    .is_some_and(|s| matches!(s.what, Hot::Extents { end: e, .. } if first == end || e >= end))
                    .then_some(*slot)
            }),
        }
    }

    /// A round begins: everything done before is on its way to both disks.
    pub fn begin_round(&mut self, now_ms: u64) -> Round {
        let round = Round { number: self.round, began_ms: now_ms };
        self.round += 1;
        round
    }

    /// Both disks have everything done before the round began: what was not touched since cools. The blocks that
    /// say so need not be durable.
    pub fn end_round(&mut self, round: Round) {
        self.cooled_ms = self.cooled_ms.max(Some(round.began_ms));
        for slot in 0..self.slots.len() as u16 {
            match &mut self.slots[usize::from(slot)] {
                Some(s) if s.touched <= round.number => {
                    let id = s.what.id();
                    self.slots[usize::from(slot)] = None;
                    self.index.remove(&id);
                    self.free.insert(slot);
                    self.changed.insert(slot);
                }
                // What was made before the round began is the same on both sides now.
                Some(Slot { what: Hot::Entries { since_ms, .. }, .. }) if *since_ms < round.began_ms => {
                    *since_ms = round.began_ms;
                    self.changed.insert(slot);
                }
                _ => {}
            }
        }
    }

    /// Goes on in the file of `before`, not in a new one: the next blocks say the whole table.
    pub fn succeed(&mut self, before: &Self) {
        (self.next, self.durable) = (before.next, before.durable);
        self.changed = (0..self.slots.len() as u16).collect();
    }

    /// The same as records of a change map.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let zones = |extent: u32| {
            if extent == u32::MAX { u64::MAX } else { u64::from(extent) * (EXTENT_BYTES / ZONE_BYTES) }
        };
        let items = self.slots.iter().flatten().flat_map(move |slot| match slot.what {
            Hot::Extents { key, first, end } => {
                let zones = (first < end).then(|| Record::Zones { key, first: zones(first), end: zones(end) });
                [Some(Record::Attributes { key }), zones]
            }
            Hot::Whole { key } => [Some(Record::Tree { key }), None],
            Hot::Entries { key, since_ms } => [Some(Record::Entries { key, since_ms }), None],
        });
        self.everything.then_some(Record::Everything).into_iter().chain(items.flatten())
    }
}

fn wider(a: Hot, b: Hot) -> Hot {
    match (a, b) {
        (Hot::Extents { key, first, end }, Hot::Extents { end: e, .. }) => Hot::Extents { key, first, end: end.max(e) },
        (Hot::Entries { key, since_ms }, Hot::Entries { since_ms: s, .. }) => {
            Hot::Entries { key, since_ms: since_ms.min(s) }
        }
        (_, b) => b,
    }
}
