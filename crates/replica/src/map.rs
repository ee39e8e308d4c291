//! The change map: which zones of which files were changed while there was no peer to tell.
//!
//! In memory a set of intervals per file, and the changed blocks within them ([`Stretch`]); on disk an append-only log of
//! fixed records, each with its own checksum, written before the data it speaks of. It may say too much, never too little. **Invariant:** a log
//! that cannot be read as a whole (up to one torn record at its end, which nobody relied on yet) means
//! "compare everything".

use crate::fine::{EXTENT_ZONES, Fine};
use crate::moves::{NAME_BYTES, Origins};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use model::ids::{Epoch, NodeId};
use model::limits::ZONE_BYTES;

pub use crate::fine::Stretch;

/// First bytes of the log.
pub const MAGIC: [u8; 8] = *b"SteadMap";
/// Version of the log.
pub const VERSION: u32 = 1;
/// Size of the log's header.
pub const HEADER_BYTES: usize = 64;
/// Size of one record.
pub const RECORD_BYTES: usize = 40;
/// Intervals of one file before it counts as changed altogether.
pub const INTERVALS_MAX: usize = 4_096;
/// Files and directories before everything counts as changed.
pub const FILES_MAX: usize = 500_000;
/// A file that grows is recorded this many zones ahead at most (4 MiB): one flush each instead of 64.
pub const AHEAD_ZONES_MAX: u64 = 64;

/// A change of more extents than this is not remembered block by block.
const EXTENTS_AT_ONCE: u64 = 1_024;

/// An inode of the node that keeps the map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileKey {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// One line of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// Zones `first..end` of this file.
    Zones {
        /// File.
        key: FileKey,
        /// First zone.
        first: u64,
        /// One past the last; `u64::MAX`: to the end, however far.
        end: u64,
    },
    /// Mode, owner, times or extended attributes.
    Attributes {
        /// File.
        key: FileKey,
    },
    /// Entries of this directory, and everything in it that was made at this time or later: such files need no
    /// record of their own.
    Entries {
        /// Directory.
        key: FileKey,
        /// Milliseconds since 1970 on this node's clock; 0 (and what was written before this field): all of them.
        since_ms: u64,
    },
    /// Everything under this inode, wherever it is: it was moved here (a file: all its bytes; a directory: with
    /// all that is below).
    Tree {
        /// File or directory.
        key: FileKey,
    },
    /// Where what a [`Record::Tree`] names was before it moved for the first time. Only a hint ([`crate::moves`]).
    Origin {
        /// What moved.
        key: FileKey,
        /// Inode of the directory it was in, on the same device.
        dir: u64,
        /// Bytes of its name there: the [`Record::Name`]s say them.
        len: u8,
    },
    /// Some bytes of the name that a [`Record::Origin`] speaks of.
    Name {
        /// What moved.
        key: FileKey,
        /// Which of them, from 0.
        part: u8,
        /// What is too much at the end is 0.
        bytes: [u8; NAME_BYTES],
    },
    /// Everything.
    Everything,
    /// The last word of an orderly end. Means nothing any more, is read for ever.
    Clean,
}

/// Why a log means "compare everything".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// No change map begins like this.
    #[error("the file is not a change map, or its first block is damaged")]
    Header,
    /// Written by another version.
    #[error("the change map has version {0}, this program understands {VERSION}")]
    Version(u32),
    /// A record in the middle is damaged.
    #[error("record {0} of the change map is damaged")]
    Record(usize),
}

/// The zones that `offset..offset + len` touches.
#[must_use]
pub fn zones(offset: u64, len: u64) -> (u64, u64) {
    if len == 0 {
        return (offset / ZONE_BYTES, offset / ZONE_BYTES);
    }
    let end = offset.saturating_add(len);
    (offset / ZONE_BYTES, if end > i64::MAX as u64 { u64::MAX } else { end.div_ceil(ZONE_BYTES) })
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChangeMap {
    everything: bool,
    /// start → end, disjoint and not touching.
    files: BTreeMap<FileKey, BTreeMap<u64, u64>>,
    attributes: BTreeSet<FileKey>,
    /// Since when.
    directories: BTreeMap<FileKey, u64>,
    trees: BTreeSet<FileKey>,
    origins: Origins,
    fine: Fine,
}

impl ChangeMap {
    /// Everything changed.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Takes a change in. `Some`: this must be in the log, durably, before the change is made.
    pub fn mark(&mut self, record: Record) -> Option<Record> {
        if self.everything {
            return None;
        }
        let record = match record {
            Record::Zones { key, first, end } => {
                self.fine.mark(key, first.saturating_mul(ZONE_BYTES), end.saturating_mul(ZONE_BYTES));
                self.mark_zones(key, first, end)?
            }
            Record::Attributes { key } => self.attributes.insert(key).then_some(record)?,
            Record::Entries { key, since_ms } => {
                let news = self.directories.get(&key).is_none_or(|since| *since > since_ms);
                news.then(|| self.directories.insert(key, since_ms))?;
                record
            }
            Record::Tree { key } => self.trees.insert(key).then_some(record)?,
            Record::Origin { key, dir, len } => {
                (self.trees.contains(&key) && self.origins.begin(key, dir, len)).then_some(record)?
            }
            Record::Name { key, part, bytes } => self.origins.go_on(key, part, &bytes).then_some(record)?,
            Record::Everything => record,
            Record::Clean => return None,
        };
        Some(self.bounded(record))
    }

    /// Takes a change of data in, to the block. `Some`: as [`Self::mark`]; what must be in the log is the extent, so that
    /// few writes need that.
    pub fn mark_data(&mut self, key: FileKey, offset: u64, len: u64) -> Option<Record> {
        let (first, end) = zones(offset, len);
        let extents = (first / EXTENT_ZONES, end.div_ceil(EXTENT_ZONES));
        if end == u64::MAX || extents.1 - extents.0 > EXTENTS_AT_ONCE || first >= end || self.everything {
            return self.mark(Record::Zones { key, first, end });
        }
        let known = self.files.get(&key);
        let is_new = |extent: &u64| {
            let (first, end) = (extent * EXTENT_ZONES, (extent + 1) * EXTENT_ZONES);
            let before = known.and_then(|intervals| intervals.range(..end).next_back());
            before.is_none_or(|(_, until)| *until <= first)
        };
        // What is recorded ahead begins as well.
        let new: Vec<u64> = (extents.0..extents.1 + AHEAD_ZONES_MAX / EXTENT_ZONES).filter(is_new).collect();
        let record = self.mark_zones(key, extents.0 * EXTENT_ZONES, extents.1 * EXTENT_ZONES);
        let covered = match record {
            Some(Record::Zones { first, end, .. }) => first / EXTENT_ZONES..end / EXTENT_ZONES,
            _ => 0..0,
        };
        new.into_iter().filter(|extent| covered.contains(extent)).for_each(|extent| self.fine.begin(key, extent));
        self.fine.mark(key, offset, offset + len);
        record.map(|record| self.bounded(record))
    }

    /// What was taken in, or everything if that is too much to remember.
    fn bounded(&mut self, record: Record) -> Record {
        let sizes = [self.files.len(), self.attributes.len(), self.directories.len(), self.trees.len()];
        let full = sizes.into_iter().any(|n| n > FILES_MAX);
        if full || record == Record::Everything {
            *self = Self::everything();
            return Record::Everything;
        }
        record
    }

    fn mark_zones(&mut self, key: FileKey, first: u64, end: u64) -> Option<Record> {
        if first >= end {
            return None;
        }
        let intervals = self.files.entry(key).or_default();
        let before = intervals.range(..=first).next_back().map(|(s, e)| (*s, *e));
        if before.is_some_and(|(_, e)| e >= end) {
            return None;
        }
        // A file that is written from front to back: look ahead as far as it has come.
        let ahead = before.filter(|(_, e)| *e >= first).map_or(0, |(s, e)| (e - s).min(AHEAD_ZONES_MAX));
        let (first, end) =
            if intervals.len() >= INTERVALS_MAX { (0, u64::MAX) } else { (first, end.saturating_add(ahead)) };
        insert(intervals, first, end);
        Some(Record::Zones { key, first, end })
    }

    /// Must everything be compared?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Did this directory's entries change, and from which time on is what was made in it new?
    #[must_use]
    pub fn since(&self, directory: FileKey) -> Option<u64> {
        if self.everything { Some(0) } else { self.directories.get(&directory).copied() }
    }

    /// Did its content change?
    #[must_use]
    pub fn is_changed(&self, key: FileKey) -> bool {
        self.everything || self.files.contains_key(&key) || self.trees.contains(&key)
    }

    /// Was it moved: must everything at its place be compared?
    #[must_use]
    pub fn is_moved(&self, key: FileKey) -> bool {
        self.everything || self.trees.contains(&key)
    }

    /// What was moved: inode of the directory it was in at first (on the same device), and its name there.
    pub fn origins(&self) -> impl Iterator<Item = (FileKey, u64, &[u8])> {
        self.origins.all()
    }

    /// Every file and directory the map names.
    pub fn keys(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.files.keys().chain(&self.attributes).chain(self.directories.keys()).chain(&self.trees).copied()
    }

    /// Bytes of this file that changed, in ascending order.
    #[must_use]
    pub fn stretches_of(&self, key: FileKey) -> Vec<Stretch> {
        let mut all = Vec::new();
        for (first, end) in self.zones_of(key) {
            self.fine.stretches(key, first, end, &mut |stretch| all.push(stretch));
        }
        all
    }

    /// Zones of this file that the log names, as `start..end` in ascending order.
    pub fn zones_of(&self, key: FileKey) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.files.get(&key).into_iter().flat_map(|i| i.iter().map(|(s, e)| (*s, *e)))
    }

    /// Files and directories of which something changed.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let attributes = self.attributes.iter().filter(|key| !self.files.contains_key(key)).count();
        (self.files.len() + attributes + self.directories.len()) as u64
    }

    /// Changed zones altogether (those "to the end" count as one).
    #[must_use]
    pub fn count(&self) -> u64 {
        let of = |(key, intervals): (&FileKey, &BTreeMap<u64, u64>)| -> u64 {
            intervals.iter().map(|(first, end)| self.fine.count(*key, *first, *end)).sum()
        };
        self.files.iter().map(of).sum()
    }

    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.keys().next().is_none()
    }

    /// The shortest log that says the same.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let zones = self
            .files
            .iter()
            .flat_map(|(key, i)| i.iter().map(|(first, end)| Record::Zones { key: *key, first: *first, end: *end }));
        self.everything
            .then_some(Record::Everything)
            .into_iter()
            .chain(zones)
            .chain(self.attributes.iter().map(|key| Record::Attributes { key: *key }))
            .chain(self.directories.iter().map(|(key, since_ms)| Record::Entries { key: *key, since_ms: *since_ms }))
            .chain(self.trees.iter().map(|key| Record::Tree { key: *key }))
            .chain(self.origins.records())
    }

    /// The same map with the zones that changed instead of whole extents, as far as they are known: what an orderly end
    /// writes.
    #[must_use]
    pub fn refined(&self) -> Self {
        let mut refined = Self { files: BTreeMap::new(), fine: Fine::default(), ..self.clone() };
        for (key, intervals) in &self.files {
            let mut zones = BTreeMap::new();
            for stretch in self.stretches_of(*key) {
                let end = if stretch.end == u64::MAX { u64::MAX } else { stretch.end.div_ceil(ZONE_BYTES) };
                insert(&mut zones, stretch.start / ZONE_BYTES, end);
            }
            let zones = if zones.len() > INTERVALS_MAX { intervals.clone() } else { zones };
            // A file that was touched and not changed has none.
            if !zones.is_empty() {
                refined.files.insert(*key, zones);
            }
        }
        refined
    }

    /// Reads a log back.
    ///
    /// # Errors
    /// [`MapError`]: compare everything.
    pub fn recover(log: &[u8], crc: fn(&[u8]) -> u32) -> Result<(Epoch, ChangeMap), MapError> {
        let epoch = decode_header(log, crc)?;
        let body = &log[HEADER_BYTES..];
        let mut map = ChangeMap::default();
        let chunks: Vec<&[u8]> = body.chunks(RECORD_BYTES).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            match decode_record(chunk, crc) {
                Some(record) => map.mark_exactly(record),
                // The end of an append that a power cut tore: nothing was done on its word.
                None if chunks[i..].iter().all(|c| decode_record(c, crc).is_none()) && chunks.len() - i <= 8 => break,
                None => return Err(MapError::Record(i)),
            }
        }
        Ok((epoch, map))
    }

    fn mark_exactly(&mut self, record: Record) {
        match record {
            Record::Zones { key, first, end } => insert(self.files.entry(key).or_default(), first, end),
            other => drop(self.mark(other)),
        }
    }
}

fn insert(intervals: &mut BTreeMap<u64, u64>, mut first: u64, mut end: u64) {
    while let Some((s, e)) = intervals.range(..=end).next_back().map(|(s, e)| (*s, *e)) {
        if e < first {
            break;
        }
        intervals.remove(&s);
        first = first.min(s);
        end = end.max(e);
    }
    intervals.insert(first, end);
}

/// Byte of the header that says that devices are numbered, not as the kernel calls them in this boot.
const NUMBERED: usize = 26;

/// Are the devices of a log that was recovered numbered by the one who wrote it?
#[must_use]
pub fn is_numbered(log: &[u8]) -> bool {
    log.get(NUMBERED) == Some(&1)
}

/// Bytes of a log that [`ChangeMap::recover`] reads: what follows is an append that a power cut tore.
#[must_use]
pub fn sound_bytes(log: &[u8], crc: fn(&[u8]) -> u32) -> usize {
    let body = log.get(HEADER_BYTES..).unwrap_or_default();
    HEADER_BYTES + RECORD_BYTES * body.chunks(RECORD_BYTES).take_while(|c| decode_record(c, crc).is_some()).count()
}

/// The log's first block. `numbered`: see [`is_numbered`].
#[must_use]
pub fn encode_header(epoch: Epoch, numbered: bool, crc: fn(&[u8]) -> u32) -> [u8; HEADER_BYTES] {
    let mut h = [0; HEADER_BYTES];
    h[..8].copy_from_slice(&MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_le_bytes());
    h[12..20].copy_from_slice(&epoch.counter.to_le_bytes());
    h[20..22].copy_from_slice(&epoch.node.0.to_le_bytes());
    h[22..26].copy_from_slice(&epoch.random.to_le_bytes());
    h[NUMBERED] = u8::from(numbered);
    let sum = crc(&h[..60]);
    h[60..].copy_from_slice(&sum.to_le_bytes());
    h
}

fn decode_header(log: &[u8], crc: fn(&[u8]) -> u32) -> Result<Epoch, MapError> {
    let h: &[u8; HEADER_BYTES] = log.first_chunk().ok_or(MapError::Header)?;
    if h[..8] != MAGIC || crc(&h[..60]).to_le_bytes() != h[60..] {
        return Err(MapError::Header);
    }
    let mut r = crate::bytes::Cursor(&h[8..]);
    let version = r.u32();
    if version != VERSION {
        return Err(MapError::Version(version));
    }
    Ok(Epoch { counter: r.u64(), node: NodeId(r.u16()), random: r.u32() })
}

/// One record of the log.
#[must_use]
pub fn encode_record(record: Record, crc: fn(&[u8]) -> u32) -> [u8; RECORD_BYTES] {
    let none = FileKey { dev: 0, ino: 0 };
    let (kind, key, first, end) = match record {
        Record::Zones { key, first, end } => (1u8, key, first, end),
        Record::Attributes { key } => (2, key, 0, 0),
        Record::Entries { key, since_ms } => (3, key, since_ms, 0),
        Record::Everything => (4, none, 0, 0),
        Record::Clean => (5, none, 0, 0),
        Record::Tree { key } => (6, key, 0, 0),
        Record::Origin { key, dir, len } => (7, key, dir, u64::from(len)),
        Record::Name { key, bytes, .. } => {
            let half = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| bytes[at + n]));
            (8, key, half(0), half(8))
        }
    };
    let mut b = [0; RECORD_BYTES];
    b[4] = kind;
    if let Record::Name { part, .. } = record {
        b[5] = part;
    }
    b[8..16].copy_from_slice(&key.dev.to_le_bytes());
    b[16..24].copy_from_slice(&key.ino.to_le_bytes());
    b[24..32].copy_from_slice(&first.to_le_bytes());
    b[32..].copy_from_slice(&end.to_le_bytes());
    let sum = crc(&b[4..]);
    b[..4].copy_from_slice(&sum.to_le_bytes());
    b
}

fn decode_record(b: &[u8], crc: fn(&[u8]) -> u32) -> Option<Record> {
    if b.len() != RECORD_BYTES || crc(&b[4..]).to_le_bytes() != b[..4] {
        return None;
    }
    let mut r = crate::bytes::Cursor(&b[8..]);
    let key = FileKey { dev: r.u64(), ino: r.u64() };
    let (first, end) = (r.u64(), r.u64());
    match b[4] {
        1 if first < end => Some(Record::Zones { key, first, end }),
        2 => Some(Record::Attributes { key }),
        3 => Some(Record::Entries { key, since_ms: first }),
        4 => Some(Record::Everything),
        5 => Some(Record::Clean),
        6 => Some(Record::Tree { key }),
        7 => Some(Record::Origin { key, dir: first, len: u8::try_from(end).ok()? }),
        8 => Some(Record::Name { key, part: b[5], bytes: core::array::from_fn(|n| b[24 + n]) }),
        _ => None,
    }
}
