//! Which blocks of an extent were changed: what the change map knows beyond what it must have on disk.
//!
//! The log names extents, so that a write costs a flush once in 4 MiB; in memory the blocks are known as well, as long as
//! the process lives. **Invariant:** an extent that is here has all its changes here, from the first on.

use super::map::FileKey;
use alloc::collections::BTreeMap;
use model::limits::{BLOCK_BYTES, EXTENT_BYTES, ZONE_BYTES};

/// Zones of an extent.
pub const EXTENT_ZONES: u64 = EXTENT_BYTES / ZONE_BYTES;
/// Blocks of a zone: the bits of a word.
const ZONE_BLOCKS: u64 = ZONE_BYTES / BLOCK_BYTES;
/// Extents known block by block, at most: 256 GiB of places, in 16 MiB of memory. Beyond, an extent counts as a whole.
const EXTENTS_MAX: usize = 65_536;

type Blocks = [u16; EXTENT_ZONES as usize];

const _: () = assert!(ZONE_BLOCKS == u16::BITS as u64);

/// Bytes of a file, and whether all of them are known to be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// First byte.
    pub start: u64,
    /// One past the last; `u64::MAX`: to the end of the file.
    pub end: u64,
    /// Every block of it was written; otherwise something in it may have been.
    pub is_sure: bool,
}

/// See the module's page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fine {
    files: BTreeMap<FileKey, BTreeMap<u64, Blocks>>,
    extents: usize,
}

impl Fine {
    /// From now on this extent is known block by block: nothing of it was changed so far.
    pub fn begin(&mut self, key: FileKey, extent: u64) {
        if self.extents < EXTENTS_MAX && self.files.entry(key).or_default().insert(extent, [0; _]).is_none() {
            self.extents += 1;
        }
    }

    /// These bytes are about to be changed.
    pub fn mark(&mut self, key: FileKey, start: u64, end: u64) {
        let Some(extents) = self.files.get_mut(&key) else { return };
        for (extent, blocks) in extents.range_mut(start / EXTENT_BYTES..end.div_ceil(EXTENT_BYTES)) {
            let base = extent * EXTENT_BYTES;
            let first = start.saturating_sub(base) / BLOCK_BYTES;
            let last = (end - base).min(EXTENT_BYTES).div_ceil(BLOCK_BYTES);
            for (zone, word) in blocks.iter_mut().enumerate() {
                let zone = zone as u64 * ZONE_BLOCKS;
                let from = first.clamp(zone, zone + ZONE_BLOCKS) - zone;
                let until = last.clamp(zone, zone + ZONE_BLOCKS) - zone;
                *word |= ((1u32 << until) - (1u32 << from)) as u16;
            }
        }
    }

    /// What is known of `first..end` (zones) of a file, ascending: `each` gets stretches that do not touch where they are
    /// alike.
    pub fn stretches(&self, key: FileKey, first: u64, end: u64, each: &mut impl FnMut(Stretch)) {
        let bytes = |zone: u64| zone.saturating_mul(ZONE_BYTES);
        let mut open: Option<Stretch> = None;
        let mut add = |next: Stretch| match &mut open {
            Some(open) if open.end == next.start && open.is_sure == next.is_sure => open.end = next.end,
            _ if next.start < next.end => open.replace(next).into_iter().for_each(&mut *each),
            _ => {}
        };
        let mut at = bytes(first);
        for (extent, blocks) in self.known(key, first, end) {
            let base = extent * EXTENT_BYTES;
            add(Stretch { start: at, end: base.max(at), is_sure: false });
            for (zone, word) in blocks.iter().enumerate() {
                let start = base + zone as u64 * ZONE_BYTES;
                if *word == u16::MAX {
                    // Nothing is saved by being sure, and it may be equal (sent before an interruption).
                    add(Stretch { start, end: start + ZONE_BYTES, is_sure: false });
                    continue;
                }
                for block in (0..ZONE_BLOCKS).filter(|block| word & (1 << block) != 0) {
                    let start = start + block * BLOCK_BYTES;
                    add(Stretch { start, end: start + BLOCK_BYTES, is_sure: true });
                }
            }
            at = base + EXTENT_BYTES;
        }
        add(Stretch { start: at, end: bytes(end).max(at), is_sure: false });
        open.into_iter().for_each(each);
    }

    /// Zones in which something changed, of `first..end` of a file.
    pub fn count(&self, key: FileKey, first: u64, end: u64) -> u64 {
        let (mut zones, mut at) = (0, first);
        for (extent, blocks) in self.known(key, first, end) {
            let base = extent * EXTENT_ZONES;
            zones += base.saturating_sub(at) + blocks.iter().filter(|word| **word != 0).count() as u64;
            at = base + EXTENT_ZONES;
        }
        zones + if end == u64::MAX { 1 } else { end.saturating_sub(at) }
    }

    /// Extents that lie in an interval. One that is known is always in it as a whole.
    fn known(&self, key: FileKey, first: u64, end: u64) -> impl Iterator<Item = (u64, &Blocks)> {
        let extents = self.files.get(&key).into_iter();
        let range = first.div_ceil(EXTENT_ZONES)..(end / EXTENT_ZONES).max(first.div_ceil(EXTENT_ZONES));
        extents.flat_map(move |extents| extents.range(range.clone())).map(|(extent, blocks)| (*extent, blocks))
    }
}
