//! The activity log on disk: a ring of blocks of one size in a file of one size.
//!
//! A block says what changed in the table and repeats a part of it, so that the last few blocks always say the
//! whole table and nothing ever needs to be rewritten: one write and one flush for any number of cold touches.
//! **Invariant:** a block that was relied on is named by [`ActivityLog::written`] before another overwrites anything
//! needed; a hole among those means that the log is lost, a hole after them is a write the power cut tore.

use super::{ActivityLog, Hot, Slot};
use crate::map::FileKey;
use alloc::vec::Vec;
use model::limits::HOT_TABLE;

/// Size of one block.
pub const BLOCK_BYTES: usize = 4096;
/// First bytes of a block.
const MAGIC: [u8; 4] = *b"SHot";
/// Version of the log.
pub const VERSION: u16 = 1;
const HEADER_BYTES: usize = 40;
const ITEM_BYTES: usize = 40;
const ITEMS: usize = (BLOCK_BYTES - HEADER_BYTES) / ITEM_BYTES;
/// Slots repeated in every block.
const REPEATED: usize = 32;
const CHANGES: usize = ITEMS - REPEATED;
/// So many blocks in a row say the whole table.
const CYCLE: u64 = (HOT_TABLE / REPEATED) as u64;
/// Blocks of the ring.
const RING: u64 = 4 * CYCLE;
/// Size of the file.
pub const LOG_BYTES: usize = RING as usize * BLOCK_BYTES;
/// Blocks written and not flushed, at most: they overwrite nothing that is needed.
pub const UNFLUSHED_MAX: u64 = 2 * CYCLE;

const _: () = assert!(HOT_TABLE.is_multiple_of(REPEATED) && HOT_TABLE <= u16::MAX as usize);
const _: () = assert!(UNFLUSHED_MAX + CYCLE < RING);

const EVERYTHING: u16 = 1;

/// Why a log means "compare everything".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// Not of the size of an activity log.
    #[error("the activity log has another size than one has")]
    Size,
    /// Written by another version.
    #[error("the activity log has version {0}, this program understands {VERSION}")]
    Version(u16),
    /// Something that was relied on is missing.
    #[error("block {0} of the activity log is damaged")]
    Damaged(u64),
}

struct Block {
    number: u64,
    durable: u64,
    flags: u16,
    items: Vec<(u16, Option<Slot>)>,
}

impl ActivityLog {
    /// The log as a new file, to be made durable before it takes the old one's name. Then [`Self::written`].
    pub fn whole(&mut self, crc: fn(&[u8]) -> u32) -> Vec<u8> {
        self.changed.clear();
        // A full cycle, all of it claimed durable: it is when the file has its name.
        let first = self.next;
        self.durable = first + CYCLE - 1;
        let mut file = alloc::vec![0; LOG_BYTES];
        for _ in 0..CYCLE {
            let (at, block) = self.encode_next(crc);
            file[at as usize..at as usize + BLOCK_BYTES].copy_from_slice(&block);
        }
        file
    }

    /// What must be written, and where: the blocks that say what changed. Empty: nothing did.
    pub fn blocks(&mut self, crc: fn(&[u8]) -> u32) -> Vec<(u64, [u8; BLOCK_BYTES])> {
        let mut out = Vec::new();
        while !self.changed.is_empty() {
            out.push(self.encode_next(crc));
        }
        out
    }

    /// Everything given out so far is durable.
    pub fn written(&mut self) {
        self.durable = self.next - 1;
    }

    /// Must a flush come before the next blocks are given out (although nobody waits for one)?
    #[must_use]
    pub fn must_flush(&self) -> bool {
        self.next - 1 - self.durable > UNFLUSHED_MAX / 2
    }

    fn encode_next(&mut self, crc: fn(&[u8]) -> u32) -> (u64, [u8; BLOCK_BYTES]) {
        let number = self.next;
        self.next += 1;
        let mut changes = Vec::new();
        while changes.len() < CHANGES {
            let Some(slot) = self.changed.pop_first() else { break };
            changes.push(slot);
        }
        let start = (number % CYCLE) as usize * REPEATED;
        let repeated = (start..start + REPEATED).map(|slot| slot as u16);
        let mut b = [0; BLOCK_BYTES];
        b[4..8].copy_from_slice(&MAGIC);
        b[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let flags = if self.everything { EVERYTHING } else { 0 };
        b[10..12].copy_from_slice(&flags.to_le_bytes());
        b[12..14].copy_from_slice(&((changes.len() + REPEATED) as u16).to_le_bytes());
        b[16..24].copy_from_slice(&number.to_le_bytes());
        b[24..32].copy_from_slice(&self.durable.to_le_bytes());
        for (i, slot) in changes.into_iter().chain(repeated).enumerate() {
            let at = HEADER_BYTES + i * ITEM_BYTES;
            encode_item(slot, self.slots[usize::from(slot)], &mut b[at..at + ITEM_BYTES]);
        }
        let sum = crc(&b[4..]);
        b[..4].copy_from_slice(&sum.to_le_bytes());
        (number % RING * BLOCK_BYTES as u64, b)
    }

    /// Reads a log back.
    ///
    /// # Errors
    /// [`LogError`]: compare everything.
    pub fn recover(log: &[u8], crc: fn(&[u8]) -> u32) -> Result<Self, LogError> {
        if log.len() != LOG_BYTES {
            return Err(LogError::Size);
        }
        let mut blocks = Vec::new();
        for (position, bytes) in (0u64..).zip(log.chunks(BLOCK_BYTES)) {
            if let Some(block) = decode(bytes, crc)?
                && block.number % RING == position
            {
                blocks.push(block);
            }
        }
        blocks.sort_unstable_by_key(|block| block.number);
        let newest = blocks.last().map_or(0, |block| block.number);
        let durable = blocks.iter().map(|block| block.durable).max().unwrap_or(0);
        let from = (durable + 1).saturating_sub(CYCLE);
        let mut log = Self::default();
        let mut expected = from;
        for block in blocks.iter().filter(|block| block.number >= from) {
            if block.number != expected && expected <= durable {
                return Err(LogError::Damaged(expected));
            }
            expected = block.number + 1;
            log.everything = block.flags & EVERYTHING != 0;
            for (slot, what) in &block.items {
                log.slots[usize::from(*slot)] = *what;
            }
        }
        if expected <= durable || durable == 0 {
            return Err(LogError::Damaged(expected));
        }
        log.reindex();
        log.next = newest + 1;
        log.durable = durable;
        Ok(log)
    }

    /// A thing that cooled and became hot again behind a hole may be there twice: the wider word counts.
    fn reindex(&mut self) {
        for slot in 0..self.slots.len() as u16 {
            let Some(here) = self.slots[usize::from(slot)] else { continue };
            match self.index.get(&here.what.id()).copied() {
                Some(other) => {
                    self.slots[usize::from(slot)] = None;
                    if let Some(first) = &mut self.slots[usize::from(other)] {
                        first.what = super::wider(first.what, here.what);
                    }
                }
                None => {
                    self.index.insert(here.what.id(), slot);
                    self.free.remove(&slot);
                }
            }
        }
    }
}

fn encode_item(slot: u16, what: Option<Slot>, out: &mut [u8]) {
    out[..2].copy_from_slice(&slot.to_le_bytes());
    let Some(Slot { what, dir, .. }) = what else { return };
    let (kind, first, last) = match what {
        Hot::Whole { .. } => (1u8, 0, 0),
        Hot::Entries { since_ms, .. } => (2, 0, since_ms),
        Hot::Extents { first, end, .. } => (3, first, u64::from(end)),
    };
    let key = what.key();
    out[2] = kind;
    out[4..8].copy_from_slice(&first.to_le_bytes());
    out[8..16].copy_from_slice(&key.dev.to_le_bytes());
    out[16..24].copy_from_slice(&key.ino.to_le_bytes());
    out[24..32].copy_from_slice(&dir.to_le_bytes());
    out[32..40].copy_from_slice(&last.to_le_bytes());
}

/// `None`: not a block, or a torn one.
fn decode(b: &[u8], crc: fn(&[u8]) -> u32) -> Result<Option<Block>, LogError> {
    if b[4..8] != MAGIC || crc(&b[4..]).to_le_bytes() != b[..4] {
        return Ok(None);
    }
    let mut r = crate::bytes::Cursor(&b[8..]);
    let version = r.u16();
    if version != VERSION {
        return Err(LogError::Version(version));
    }
    let (flags, count) = (r.u16(), usize::from(r.u16()));
    let _ = r.u16();
    let (number, durable) = (r.u64(), r.u64());
    // Nobody counts so far, and the next number would be none.
    if number == u64::MAX || durable == u64::MAX {
        return Err(LogError::Damaged(number));
    }
    if count > ITEMS {
        return Ok(None);
    }
    let items = b[HEADER_BYTES..].chunks(ITEM_BYTES).take(count).map(decode_item).collect::<Option<Vec<_>>>();
    Ok(items.map(|items| Block { number, durable, flags, items }))
}

fn decode_item(b: &[u8]) -> Option<(u16, Option<Slot>)> {
    let mut r = crate::bytes::Cursor(b);
    let (slot, kind) = (r.u16(), r.u16());
    let (first, key) = (r.u32(), FileKey { dev: r.u64(), ino: r.u64() });
    let (dir, last) = (r.u64(), r.u64());
    if usize::from(slot) >= HOT_TABLE {
        return None;
    }
    let what = match kind {
        0 => return Some((slot, None)),
        1 => Hot::Whole { key },
        2 => Hot::Entries { key, since_ms: last },
        3 => Hot::Extents { key, first, end: u32::try_from(last).ok()? },
        _ => return None,
    };
    Some((slot, Some(Slot { what, dir, touched: 0 })))
}
