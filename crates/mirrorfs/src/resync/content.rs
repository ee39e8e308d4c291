//! Bytes of files: comparing them by zone hashes, sending those that differ, holes as holes.
//!
//! Hashing needs no lock: a hash that was taken before (or in the middle of) a change of the application can
//! only equal the target's if the bytes are equal after that change as well, because the change itself is in
//! the stream. Sending does: a repair must be what the file is at its place in the stream. It is read without the lock
//! all the same, and sent if nobody began to change the file meanwhile; otherwise it is read again, with the lock.

use super::events::Found;
use super::walker::{Held, Walker};
use super::{Check, Resync, Stop, TreePath, unreadable};
use crate::leader::{Gone, Leader};
use crate::outlet::InodeKey;
use crate::sys;
use model::limits::ZONE_BYTES;
use replica::map::Stretch;
use replica::op::{FileId, Op};
use replica::wire::{Difference, Message};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes of one check.
const CHECK_BYTES: u64 = 1 << 20;
/// Bytes sent under one hold of the order lock.
const PIECE_BYTES: u64 = 256 * 1024;
/// Pieces sent under one hold of it that are each shorter than a zone.
const PIECES: usize = 16;
/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH: u32 = 0x02 | 0x01;

/// Which bytes of a file.
#[derive(Clone, Debug)]
pub(super) enum Ranges {
    All,
    /// Ascending; what is not sure begins and ends on zone boundaries.
    These(Vec<Stretch>),
}

/// A file whose content must be compared or sent.
pub(super) enum FileTask {
    Compare { path: TreePath, name: Vec<u8>, ranges: Ranges, open: Option<(Arc<Held>, OwnedFd)>, offset: u64 },
    Send { held: Arc<Held>, open: Option<OwnedFd>, offset: u64 },
}

/// A stretch of a file the target was asked about.
pub(super) struct Span {
    held: Arc<Held>,
    /// Nothing of the file is to be compared after it.
    last: bool,
}

impl FileTask {
    pub fn compare(path: TreePath, name: Vec<u8>, ranges: Ranges) -> Self {
        Self::Compare { path, name, ranges, open: None, offset: 0 }
    }

    /// By which it is asked about, or sent.
    pub fn id(&self) -> Option<FileId> {
        match self {
            Self::Compare { open, .. } => open.as_ref().map(|(held, _)| held.id),
            Self::Send { held, .. } => Some(held.id),
        }
    }

    pub fn send(held: Arc<Held>) -> Self {
        Self::Send { held, open: None, offset: 0 }
    }
}

impl Resync {
    /// One step of one file; what is left of it comes first next time.
    pub(super) fn file(&mut self, task: FileTask) -> Result<(), Stop> {
        match task {
            FileTask::Compare { path, name, ranges, open, offset } => {
                let open = match open {
                    Some(open) => Some(open),
                    None => self.open(&path, &name)?,
                };
                let Some((held, fd)) = open else { return Ok(()) };
                let (asked, next) = self.compare(&held, &fd, &ranges, offset)?;
                self.meter.compared(asked);
                if let Some(offset) = next {
                    self.files.push_front(FileTask::Compare { path, name, ranges, open: Some((held, fd)), offset });
                }
            }
            FileTask::Send { held, open, offset } => {
                let fd = match open {
                    Some(fd) => fd,
                    None => sys::reopen_to_read(&held.fd).map_err(unreadable)?,
                };
                let mut buffer = std::mem::take(&mut self.buffer);
                let outcome = self.walker.send_ahead(&held, &fd, offset, PIECE_BYTES, &mut buffer);
                self.buffer = buffer;
                let sent = outcome?.map_err(piece_failed)?;
                self.meter.sent(sent.bytes);
                if let Some(offset) = sent.next {
                    self.files.push_front(FileTask::Send { held, open: Some(fd), offset });
                } else {
                    self.walker.with_order(|w| w.send_attributes(&held))??;
                    if self.walker.is_current(&held) {
                        self.set_verified(held.key);
                    }
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, path: &TreePath, name: &[u8]) -> Result<Option<(Arc<Held>, OwnedFd)>, Stop> {
        let held = self.walker.with_order(|w| match w.resolve(path)? {
            Some(dir) => w.hold(&dir, path, name),
            None => Ok(None),
        })??;
        match held {
            Some(held) if held.kind == sys::S_IFREG => {
                let fd = sys::reopen_to_read(&held.fd).map_err(unreadable)?;
                Ok(Some((held, fd)))
            }
            _ => Ok(None),
        }
    }

    /// Asks about the next stretch at or after `offset`. Gives the bytes hashed, and where to go on.
    fn compare(
        &mut self,
        held: &Arc<Held>,
        fd: &OwnedFd,
        ranges: &Ranges,
        offset: u64,
    ) -> Result<(u64, Option<u64>), Stop> {
        let size = sys::stat(fd).map_err(unreadable)?.st_size as u64;
        let (offset, limit) = match ranges {
            Ranges::All => (offset, size),
            Ranges::These(list) => match list.get(list.partition_point(|stretch| stretch.end <= offset)) {
                Some(stretch) if stretch.is_sure => return self.send_known(held, fd, list, offset.max(stretch.start)),
                Some(stretch) => (offset.max(stretch.start), size.min(stretch.end)),
                None => return Ok((0, None)),
            },
        };
        if offset >= size {
            return Ok((0, None));
        }
        let data =
            sys::next_data(fd, offset).map_err(unreadable)?.map_or(limit, |d| d / ZONE_BYTES * ZONE_BYTES).min(limit);
        let (message_len, hashed);
        let lsn = if data > offset {
            message_len = data - offset;
            hashed = 0;
            let last = data == size;
            self.walker.emit(&Message::CheckHole { id: held.id, offset, len: message_len, last })?
        } else {
            let end = limit.min(offset + CHECK_BYTES);
            let mut hashes = Vec::with_capacity(32 * (CHECK_BYTES / ZONE_BYTES) as usize);
            self.buffer.resize(ZONE_BYTES as usize, 0);
            let mut at = offset;
            while at < end {
                let want = ZONE_BYTES.min(end - at) as usize;
                let n = sys::read_at(fd, &mut self.buffer[..want], at).map_err(unreadable)?;
                // Cut off meanwhile: the target's answer will not match, and the size is repaired.
                self.buffer[n..want].fill(0);
                hashes.extend_from_slice(blake3::hash(&self.buffer[..want]).as_bytes());
                at += want as u64;
            }
            message_len = end - offset;
            hashed = message_len;
            let last = end == size;
            self.walker.emit(&Message::CheckBlocks { id: held.id, offset, len: message_len, last, hashes: &hashes })?
        };
        let next = offset + message_len;
        let last = match ranges {
            Ranges::All => next >= size,
            Ranges::These(list) => list.last().is_none_or(|last| last.end <= next || next >= size),
        };
        self.plan.sent(lsn, Check::Span(Span { held: held.clone(), last }));
        Ok((hashed, (next < size).then_some(next)))
    }

    /// Blocks that were changed since the copies were equal: nothing is asked, some are sent under one hold of the order
    /// lock. Gives the bytes compared (none), and where to go on.
    fn send_known(
        &mut self,
        held: &Arc<Held>,
        fd: &OwnedFd,
        list: &[Stretch],
        offset: u64,
    ) -> Result<(u64, Option<u64>), Stop> {
        let from = list.partition_point(|stretch| stretch.end <= offset);
        let sure = list[from..].iter().take_while(|stretch| stretch.is_sure);
        let mut buffer = std::mem::take(&mut self.buffer);
        // Nobody waits for the disk: it is asked for all of them first, and they are in memory before the lock is taken.
        sys::will_need(fd, sure.clone().take(PIECES).map(|stretch| (stretch.start, stretch.end - stretch.start)));
        for stretch in sure.clone().take(PIECES) {
            buffer.resize((stretch.end - stretch.start).min(PIECE_BYTES) as usize, 0);
            sys::read_at(fd, &mut buffer, stretch.start).map_err(unreadable)?;
        }
        let outcome = self.walker.with_order(|walker| {
            let (mut at, mut bytes) = (offset, 0);
            for stretch in sure.take(PIECES) {
                at = at.max(stretch.start);
                while at < stretch.end {
                    let sent = walker.send_piece(held, fd, at, stretch.end - at, &mut buffer)?;
                    // What is not there any more was told of when it went.
                    at = sent.next.unwrap_or(stretch.end).min(stretch.end);
                    bytes += sent.bytes;
                }
            }
            Ok((at, bytes))
        });
        self.buffer = buffer;
        let (next, bytes) = outcome?.map_err(piece_failed)?;
        self.meter.sent(bytes);
        let more = list.last().is_some_and(|last| last.end > next);
        if !more {
            self.send_privileges(held)?;
        }
        if !more && self.walker.is_current(held) {
            self.set_verified(held.key);
        }
        Ok((0, more.then_some(next)))
    }

    /// The target compared a stretch: send what differs, as it is now.
    pub(super) fn span_answered(&mut self, span: &Span, found: &[Found]) -> Result<(), Stop> {
        if span.last && self.walker.is_current(&span.held) {
            self.set_verified(span.held.key);
        }
        if found.is_empty() {
            return Ok(());
        }
        let held = &span.held;
        let fd = sys::reopen_to_read(&held.fd).map_err(unreadable)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for f in found {
            match f.what {
                Difference::Blocks | Difference::Hole => {
                    let end = f.offset.saturating_add(f.len);
                    let mut offset = f.offset;
                    while offset < end {
                        let len = PIECE_BYTES.min(end - offset);
                        self.walker.leader.wait_for_half(self.walker.generation)?;
                        let sent = self.walker.send_ahead(held, &fd, offset, len, &mut buffer)?;
                        let sent = sent.map_err(piece_failed)?;
                        self.meter.sent(sent.bytes);
                        match sent.next {
                            Some(next) => offset = next,
                            None => break,
                        }
                    }
                }
                _ => self.walker.with_order(|w| w.send_attributes(held))??,
            }
        }
        self.buffer = buffer;
        self.send_privileges(held)
    }

    /// Whatever was written there took them away.
    fn send_privileges(&mut self, held: &Arc<Held>) -> Result<(), Stop> {
        let is_privilege = |name: &Vec<u8>| name == b"security.capability";
        if sys::xattrs(&held.fd).map_err(unreadable)?.iter().any(|(name, _)| is_privilege(name)) {
            self.walker.with_order(|w| w.send_xattrs(held))??;
        }
        Ok(())
    }
}

/// What was sent of a file.
pub(super) struct Sent {
    pub bytes: u64,
    /// Where to go on; `None`: the file ends here.
    pub next: Option<u64>,
}

/// A stretch of a file, as a frame that only lacks its position.
struct Piece {
    /// `None`: the file does not reach so far.
    frame: Option<Vec<u8>>,
    sent: Sent,
}

impl Walker {
    /// `offset..offset + len` as it is when it is sent. Not under the order lock: the application does not wait while it is
    /// read, unless it changes this very file all the time.
    pub(super) fn send_ahead(
        &mut self,
        held: &Held,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Result<Sent, Result<Gone, Errno>>, Gone> {
        let file = InodeKey { dev: held.key.dev, ino: held.key.ino };
        if !self.leader.is_untouched(file) {
            self.with_order(|w| w.leader.watch(file))?;
        }
        let ahead = piece(held, fd, offset, len, buffer);
        self.with_order(|w| match ahead {
            Ok(piece) if w.leader.is_untouched(file) => w.send(piece).map_err(Ok),
            _ => w.send_piece(held, fd, offset, len, buffer),
        })
    }

    /// Under the order lock: the same, read under it.
    pub(super) fn send_piece(
        &mut self,
        held: &Held,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Sent, Result<Gone, Errno>> {
        let piece = piece(held, fd, offset, len, buffer).map_err(Err)?;
        self.send(piece).map_err(Ok)
    }

    fn send(&self, piece: Piece) -> Result<Sent, Gone> {
        if let Some(frame) = piece.frame {
            self.leader.emit_frame(self.generation, frame)?;
        }
        Ok(piece.sent)
    }
}

fn piece(held: &Held, fd: &OwnedFd, offset: u64, len: u64, buffer: &mut Vec<u8>) -> Result<Piece, Errno> {
    let st = sys::stat(fd)?;
    let (size, mtime) = (st.st_size as u64, sys::mtime(&st));
    if offset >= size {
        return Ok(Piece { frame: None, sent: Sent { bytes: 0, next: None } });
    }
    let end = size.min(offset + len);
    let data = sys::next_data(fd, offset)?.unwrap_or(size);
    if data >= end {
        // A hole: whatever the target has there goes. A whole one at once, however long.
        let hole_end = if len >= PIECE_BYTES { data.min(size) } else { end };
        return Ok(hole(held, offset, hole_end, size, mtime));
    }
    if data > offset {
        return Ok(hole(held, offset, data, size, mtime));
    }
    // A hole is not sent as the zeroes it reads as: the target would give room to them.
    let end = end.min(sys::next_hole(fd, offset)?);
    buffer.resize((end - offset) as usize, 0);
    let n = sys::read_at(fd, buffer, offset)?;
    let op = Op::Write { id: held.id, offset, data: &buffer[..n], mtime };
    let next = offset + n as u64;
    let sent = Sent { bytes: n as u64, next: (n > 0 && next < size).then_some(next) };
    Ok(Piece { frame: Some(Leader::unplaced(&Message::Op(op))), sent })
}

fn hole(held: &Held, offset: u64, end: u64, size: u64, mtime: replica::op::Time) -> Piece {
    let op = Op::Fallocate { id: held.id, mode: PUNCH, offset, len: end - offset, mtime };
    let sent = Sent { bytes: 0, next: (end < size).then_some(end) };
    Piece { frame: Some(Leader::unplaced(&Message::Op(op))), sent }
}

pub(super) fn piece_failed(e: Result<Gone, Errno>) -> Stop {
    match e {
        Ok(gone) => gone.into(),
        Err(errno) => unreadable(errno),
    }
}
