//! Message ⇄ bytes. One `match` each way, side by side, so that a difference is seen.

use super::body::{Reader, Writer};
use super::{
    Chunk, Difference, Direction, Entries, Envelope, HEADER_BYTES, Header, Hello, HotPart, Kind, Message, VERSION,
    Welcome, WireError, XattrList,
};
use crate::op::{FileId, Op, TARGET_MAX, Time, XATTR_MAX};
use alloc::vec::Vec;
use model::ids::{Epoch, Lsn, NodeId};

const FIRST: u16 = 1;
const LAST: u16 = 2;
/// On a change: [`Message::Restore`].
const RESTORE: u16 = 4;
/// On a [`Message::Sync`].
const DATA_ONLY: u16 = 1;

/// Appends one frame to `out`. `crc` is CRC-32C, computed where the processor can do it.
pub fn encode(message: &Message<'_>, envelope: &Envelope, crc: fn(&[u8]) -> u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let mut h = Header {
        version: VERSION,
        kind: kind(message),
        flags: 0,
        session: envelope.session,
        epoch: envelope.epoch,
        crc: 0,
        lsn: envelope.lsn,
        id: 0,
        offset: 0,
        length: 0,
        nsec: 0,
        sec: 0,
    };
    put(message, &mut h, &mut Writer(out));
    h.length = (out.len() - start - HEADER_BYTES) as u32;
    debug_assert!(h.length <= super::PAYLOAD_MAX);
    h.crc = crc(&out[start + HEADER_BYTES..]);
    out[start..start + HEADER_BYTES].copy_from_slice(&h.encode());
}

fn kind(message: &Message<'_>) -> Kind {
    match message {
        Message::Op(op) | Message::Restore(op) => match op {
            Op::Bind { .. } => Kind::Bind,
            Op::Unbind { .. } => Kind::Unbind,
            Op::Create { .. } => Kind::Create,
            Op::Mkdir { .. } => Kind::Mkdir,
            Op::Mknod { .. } => Kind::Mknod,
            Op::Symlink { .. } => Kind::Symlink,
            Op::Link { .. } => Kind::Link,
            Op::Unlink { .. } => Kind::Unlink,
            Op::Rmdir { .. } => Kind::Rmdir,
            Op::Rename { .. } => Kind::Rename,
            Op::Write { .. } => Kind::Write,
            Op::SetAttr { .. } => Kind::SetAttr,
            Op::Fallocate { .. } => Kind::Fallocate,
            Op::SetXattr { .. } => Kind::SetXattr,
            Op::RemoveXattr { .. } => Kind::RemoveXattr,
        },
        Message::Sync { .. } => Kind::Sync,
        Message::CheckEntries { .. } => Kind::CheckEntries,
        Message::CheckBlocks { .. } => Kind::CheckBlocks,
        Message::CheckHole { .. } => Kind::CheckHole,
        Message::Purge { .. } => Kind::Purge,
        Message::Xattrs { .. } => Kind::Xattrs,
        Message::Commit => Kind::Commit,
        Message::Heartbeat => Kind::Heartbeat,
        Message::Applied { .. } => Kind::Applied,
        Message::Synced { .. } => Kind::Synced,
        Message::Difference { .. } => Kind::Difference,
        Message::Fault { .. } => Kind::Fault,
        Message::Committed => Kind::Committed,
        Message::Space { .. } => Kind::Space,
        Message::Hot { .. } => Kind::Hot,
        Message::Hello(_) => Kind::Hello,
        Message::Welcome(_) => Kind::Welcome,
    }
}

fn put(message: &Message<'_>, h: &mut Header, w: &mut Writer<'_>) {
    match *message {
        Message::Op(op) => put_op(op, h, w),
        Message::Restore(op) => {
            h.flags = RESTORE;
            put_op(op, h, w);
        }
        Message::Sync { id, data_only } => (h.id, h.flags) = (id.0, if data_only { DATA_ONLY } else { 0 }),
        Message::CheckEntries { dir, part, entries } => {
            h.id = dir.0;
            h.flags = if part.first { FIRST } else { 0 } | if part.last { LAST } else { 0 };
            w.rest(entries.0);
        }
        Message::CheckBlocks { id, offset, len, last, hashes } => {
            (h.id, h.offset, h.flags) = (id.0, offset, if last { LAST } else { 0 });
            w.u64(len);
            w.rest(hashes);
        }
        Message::CheckHole { id, offset, len, last } => {
            (h.id, h.offset, h.flags) = (id.0, offset, if last { LAST } else { 0 });
            w.u64(len);
        }
        Message::Purge { parent, name, parent_mtime } => {
            h.id = parent.0;
            w.time(parent_mtime);
            w.short(name);
        }
        Message::Xattrs { id, list } => {
            h.id = id.0;
            w.rest(list.0);
        }
        Message::Commit | Message::Heartbeat | Message::Committed => {}
        Message::Applied { lsn } | Message::Synced { lsn } => h.offset = lsn.0,
        Message::Difference { lsn, what, id, offset, len, name } => {
            (h.id, h.offset, h.flags) = (id.0, offset, what as u16);
            w.u64(lsn.0);
            w.u64(len);
            w.short(name);
        }
        Message::Fault { lsn, reason } => {
            h.offset = lsn.0;
            w.short(reason);
        }
        Message::Space { available_bytes, free_bytes, free_inodes } => {
            w.u64(available_bytes);
            w.u64(free_bytes);
            w.u64(free_inodes);
        }
        Message::Hot { what, root, offset, len, path } => {
            (h.id, h.offset, h.flags) = (root, offset, what as u16);
            w.u64(len);
            w.rest(path);
        }
        Message::Hello(m) => {
            w.u8(m.versions.0);
            w.u8(m.versions.1);
            w.u64(m.features);
            w.u64(m.epoch.counter);
            w.u16(m.epoch.node.0);
            w.u32(m.epoch.random);
            w.u64(m.session);
            w.u8(match m.direction {
                Direction::Changes => 0,
                Direction::Answers => 1,
            });
            w.u8(u8::from(m.resume));
            w.u64(m.instance);
            w.u64(m.pair);
            w.short(m.module);
        }
        Message::Welcome(m) => {
            w.u8(u8::from(m.accepted));
            w.u8(m.version);
            w.u64(m.features);
            w.u64(m.instance);
            w.u64(m.followed);
            w.u64(m.applied.0);
            w.short(m.reason);
        }
    }
}

fn put_op(op: Op<'_>, h: &mut Header, w: &mut Writer<'_>) {
    match op {
        Op::Bind { id, parent, name, kind } => {
            h.id = id.0;
            w.u64(parent.0);
            w.u32(kind);
            w.short(name);
        }
        Op::Unbind { id } => h.id = id.0,
        Op::Create { id, parent, name, owner, mtime, parent_mtime }
        | Op::Mkdir { id, parent, name, owner, mtime, parent_mtime } => {
            h.id = id.0;
            put_new(w, parent, name, owner, mtime, parent_mtime);
        }
        Op::Mknod { id, parent, name, kind, rdev, owner, mtime, parent_mtime } => {
            h.id = id.0;
            put_new(w, parent, name, owner, mtime, parent_mtime);
            w.u32(kind);
            w.u64(rdev);
        }
        Op::Symlink { id, parent, name, target, owner, mtime, parent_mtime } => {
            h.id = id.0;
            put_new(w, parent, name, owner, mtime, parent_mtime);
            w.short(target);
        }
        Op::Link { id, parent, name, parent_mtime } => {
            h.id = id.0;
            w.u64(parent.0);
            w.time(parent_mtime);
            w.short(name);
        }
        Op::Unlink { parent, name, parent_mtime } | Op::Rmdir { parent, name, parent_mtime } => {
            h.id = parent.0;
            w.time(parent_mtime);
            w.short(name);
        }
        Op::Rename { from, from_name, to, to_name, flags, from_mtime, to_mtime } => {
            h.id = from.0;
            w.u64(to.0);
            w.u32(flags);
            w.time(from_mtime);
            w.time(to_mtime);
            w.short(from_name);
            w.short(to_name);
        }
        Op::Write { id, offset, data, mtime } => {
            (h.id, h.offset, h.sec, h.nsec) = (id.0, offset, mtime.sec, mtime.nsec);
            w.rest(data);
        }
        Op::SetAttr { id, mode, uid, gid, size, atime, mtime } => {
            h.id = id.0;
            w.optional(mode, Writer::u32);
            w.optional(uid, Writer::u32);
            w.optional(gid, Writer::u32);
            w.optional(size, Writer::u64);
            w.optional(atime, Writer::time);
            w.optional(mtime, Writer::time);
        }
        Op::Fallocate { id, mode, offset, len, mtime } => {
            (h.id, h.offset, h.sec, h.nsec) = (id.0, offset, mtime.sec, mtime.nsec);
            w.u32(mode);
            w.u64(len);
        }
        Op::SetXattr { id, name, value } => {
            h.id = id.0;
            w.short(name);
            w.rest(value);
        }
        Op::RemoveXattr { id, name } => {
            h.id = id.0;
            w.short(name);
        }
    }
}

fn put_new(w: &mut Writer<'_>, parent: FileId, name: &[u8], owner: crate::op::Owner, mtime: Time, parent_mtime: Time) {
    w.u64(parent.0);
    w.owner(owner);
    w.time(mtime);
    w.time(parent_mtime);
    w.short(name);
}

/// Reads the payload that came with `h`.
///
/// # Errors
/// Anything the sender could not have meant. Nothing is allocated.
pub fn decode<'a>(h: &Header, payload: &'a [u8], crc: fn(&[u8]) -> u32) -> Result<Message<'a>, WireError> {
    if payload.len() != h.length as usize {
        return Err(WireError::Short);
    }
    if crc(payload) != h.crc {
        return Err(WireError::Checksum);
    }
    let mut r = Reader(payload);
    let message = get(h, &mut r)?;
    r.end()?;
    Ok(message)
}

fn get<'a>(h: &Header, r: &mut Reader<'a>) -> Result<Message<'a>, WireError> {
    let id = FileId(h.id);
    let last = h.flags & LAST != 0;
    Ok(match h.kind {
        Kind::Sync => Message::Sync { id, data_only: h.flags & DATA_ONLY != 0 },
        Kind::CheckEntries => Message::CheckEntries {
            dir: id,
            part: Chunk { first: h.flags & FIRST != 0, last },
            entries: Entries::check(r.rest())?,
        },
        Kind::CheckBlocks => {
            let len = r.u64()?;
            let hashes = r.rest();
            let zone = model::limits::ZONE_BYTES;
            let in_order =
                h.offset.is_multiple_of(zone) && h.offset.checked_add(len).is_some_and(|end| end <= i64::MAX as u64);
            if !in_order || len.div_ceil(zone).checked_mul(32) != Some(hashes.len() as u64) {
                return Err(WireError::Value);
            }
            Message::CheckBlocks { id, offset: h.offset, len, last, hashes }
        }
        Kind::CheckHole => {
            let (offset, len) = range(h.offset, r.u64()?)?;
            Message::CheckHole { id, offset, len, last }
        }
        Kind::Purge => Message::Purge { parent: id, parent_mtime: r.time()?, name: r.name()? },
        Kind::Xattrs => Message::Xattrs { id, list: XattrList::check(r.rest())? },
        Kind::Commit => Message::Commit,
        Kind::Heartbeat => Message::Heartbeat,
        Kind::Applied => Message::Applied { lsn: Lsn(h.offset) },
        Kind::Synced => Message::Synced { lsn: Lsn(h.offset) },
        Kind::Difference => {
            let what = Difference::from_u16(h.flags).ok_or(WireError::Value)?;
            let (lsn, len, name) = (Lsn(r.u64()?), r.u64()?, r.short()?);
            if !name.is_empty() && !crate::op::is_entry_name(name) {
                return Err(WireError::Name);
            }
            Message::Difference { lsn, what, id, offset: h.offset, len, name }
        }
        Kind::Fault => Message::Fault { lsn: Lsn(h.offset), reason: r.short()? },
        Kind::Committed => Message::Committed,
        Kind::Space => Message::Space { available_bytes: r.u64()?, free_bytes: r.u64()?, free_inodes: r.u64()? },
        Kind::Hot => {
            let what = HotPart::from_u16(h.flags).ok_or(WireError::Value)?;
            let (len, path) = (r.u64()?, r.rest());
            h.offset.checked_add(len).ok_or(WireError::Value)?;
            if !path.is_empty() && !path.split(|b| *b == b'/').all(crate::op::is_entry_name) {
                return Err(WireError::Name);
            }
            Message::Hot { what, root: h.id, offset: h.offset, len, path }
        }
        Kind::Hello => Message::Hello(Hello {
            versions: (r.u8()?, r.u8()?),
            features: r.u64()?,
            epoch: Epoch { counter: r.u64()?, node: NodeId(r.u16()?), random: r.u32()? },
            session: r.u64()?,
            direction: match r.u8()? {
                0 => Direction::Changes,
                1 => Direction::Answers,
                _ => return Err(WireError::Value),
            },
            resume: r.u8()? != 0,
            instance: r.u64()?,
            pair: r.u64()?,
            module: r.short()?,
        }),
        Kind::Welcome => Message::Welcome(Welcome {
            accepted: r.u8()? != 0,
            version: r.u8()?,
            features: r.u64()?,
            instance: r.u64()?,
            followed: r.u64()?,
            applied: Lsn(r.u64()?),
            reason: r.short()?,
        }),
        _ if h.flags & RESTORE != 0 => Message::Restore(get_op(h, r)?),
        _ => Message::Op(get_op(h, r)?),
    })
}

fn range(offset: u64, len: u64) -> Result<(u64, u64), WireError> {
    match offset.checked_add(len) {
        Some(end) if end <= i64::MAX as u64 => Ok((offset, len)),
        _ => Err(WireError::Value),
    }
}

fn get_op<'a>(h: &Header, r: &mut Reader<'a>) -> Result<Op<'a>, WireError> {
    let id = FileId(h.id);
    let header_time = Time { sec: h.sec, nsec: h.nsec };
    if h.nsec >= 1_000_000_000 {
        return Err(WireError::Value);
    }
    Ok(match h.kind {
        Kind::Bind => Op::Bind { id, parent: FileId(r.u64()?), kind: r.u32()?, name: r.name()? },
        Kind::Unbind => Op::Unbind { id },
        Kind::Create | Kind::Mkdir | Kind::Mknod | Kind::Symlink => {
            let (parent, owner, mtime, parent_mtime) = (FileId(r.u64()?), r.owner()?, r.time()?, r.time()?);
            let name = r.name()?;
            match h.kind {
                Kind::Create => Op::Create { id, parent, name, owner, mtime, parent_mtime },
                Kind::Mkdir => Op::Mkdir { id, parent, name, owner, mtime, parent_mtime },
                Kind::Mknod => {
                    Op::Mknod { id, parent, name, kind: r.u32()?, rdev: r.u64()?, owner, mtime, parent_mtime }
                }
                _ => {
                    let target = r.short()?;
                    if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                        return Err(WireError::Value);
                    }
                    Op::Symlink { id, parent, name, target, owner, mtime, parent_mtime }
                }
            }
        }
        Kind::Link => Op::Link { id, parent: FileId(r.u64()?), parent_mtime: r.time()?, name: r.name()? },
        Kind::Unlink => Op::Unlink { parent: id, parent_mtime: r.time()?, name: r.name()? },
        Kind::Rmdir => Op::Rmdir { parent: id, parent_mtime: r.time()?, name: r.name()? },
        Kind::Rename => Op::Rename {
            from: id,
            to: FileId(r.u64()?),
            flags: r.u32()?,
            from_mtime: r.time()?,
            to_mtime: r.time()?,
            from_name: r.name()?,
            to_name: r.name()?,
        },
        Kind::Write => {
            let data = r.rest();
            range(h.offset, data.len() as u64)?;
            Op::Write { id, offset: h.offset, data, mtime: header_time }
        }
        Kind::SetAttr => Op::SetAttr {
            id,
            mode: r.optional(Reader::u32)?,
            uid: r.optional(Reader::u32)?,
            gid: r.optional(Reader::u32)?,
            size: r.optional(Reader::u64)?,
            atime: r.optional(Reader::time)?,
            mtime: r.optional(Reader::time)?,
        },
        Kind::Fallocate => {
            let (mode, len) = (r.u32()?, r.u64()?);
            range(h.offset, len)?;
            Op::Fallocate { id, mode, offset: h.offset, len, mtime: header_time }
        }
        Kind::SetXattr => {
            let (name, value) = (r.key()?, r.rest());
            if value.len() > XATTR_MAX {
                return Err(WireError::Value);
            }
            Op::SetXattr { id, name, value }
        }
        Kind::RemoveXattr => Op::RemoveXattr { id, name: r.key()? },
        _ => return Err(WireError::Kind { kind: h.kind as u8 }),
    })
}
