//! The bytes of files: open, read, write, sync, allocate, copy.

use super::caller::in_group;
use super::{Call, Front, Sent, input, is_nameless};
use crate::abi;
use crate::nodes::Node;
use crate::outlet::{Completion, Part};
use crate::session::Reply;
use crate::store::{self, Answer};
use model::orders::AckPolicy;
use replica::op::Op;
use rustix::fs::{self, FallocateFlags, OFlags, Stat};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::IntoBytes;

impl Front {
    pub(super) fn open(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::OpenIn>(call)?;
        let node = self.node(call.head.nodeid)?;
        let answer = self.open_node(call, &node, ask.flags)?.as_bytes().to_vec();
        self.truncate_at_open(call, &node, ask.flags, ask.open_flags, answer)
    }

    /// Opens the lower file. The kernel has checked permission, orders appends and asks for syncs itself, so
    /// only the direction remains of the flags.
    pub(super) fn open_node(&self, call: &Call<'_, '_>, node: &Arc<Node>, flags: u32) -> Answer<abi::OpenOut> {
        let direction = match flags & libc::O_ACCMODE as u32 {
            f if f == libc::O_RDONLY as u32 && flags & libc::O_TRUNC as u32 == 0 => OFlags::RDONLY,
            _ => OFlags::RDWR,
        };
        let fh = self.open_once(call, node, direction | OFlags::NOCTTY)?;
        // Who only reads has nothing to wait for at `close`. (Older kernels do not know the flag and ask.)
        let reads = if direction == OFlags::RDONLY { abi::FOPEN_NOFLUSH } else { 0 };
        Ok(abi::OpenOut { fh, open_flags: abi::FOPEN_KEEP_CACHE | reads, padding: 0 })
    }

    /// `O_TRUNC` is part of `open` (`ATOMIC_O_TRUNC`: only where an earlier program agreed on it): a change like any other,
    /// answered with `body`.
    pub(super) fn truncate_at_open(
        &self,
        call: &mut Call<'_, '_>,
        node: &Arc<Node>,
        flags: u32,
        open_flags: u32,
        body: Vec<u8>,
    ) -> Answer<Sent> {
        if flags & libc::O_TRUNC as u32 == 0 {
            return Ok(Sent::Now(body));
        }
        let _order = self.enter()?;
        self.touch(node, Part::Data { offset: 0, len: u64::MAX })?;
        fs::ftruncate(store::reopen(node.fd(), OFlags::WRONLY)?, 0)?;
        let killed = self.kill_if(open_flags & abi::OPEN_KILL_SUIDGID != 0, call, node)?;
        let stat = stat_after(node);
        if self.forest.is_local(node) || is_nameless(&stat) {
            return Ok(Sent::Now(body));
        }
        let mtime = Some(store::mtime(&stat));
        let op = Op::SetAttr { id: node.id, mode: killed, uid: None, gid: None, size: Some(0), atime: None, mtime };
        Ok(self.submit(call, op, body))
    }

    /// Takes suid and sgid away if the kernel says that this caller's change does (`HANDLE_KILLPRIV_V2`).
    fn kill_if(&self, asked: bool, call: &Call<'_, '_>, node: &Node) -> Answer<Option<u32>> {
        if asked { store::kill_suid_sgid(node.fd(), |gid| in_group(&call.head, gid)) } else { Ok(None) }
    }

    pub(super) fn read(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::ReadIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        let buffer = call.scratch.payload(ask.size as usize);
        let length = store::read_at(&handle.fd, buffer, ask.offset)?;
        if let Some(reply) = call.reply.take() {
            reply.ok(&buffer[..length]);
        }
        Ok(Sent::Already)
    }

    pub(super) fn write(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::WriteIn>(call)?;
        let data = rest.get(..ask.size as usize).ok_or(Errno::INVAL)?;
        let handle = self.handles.get(ask.fh)?;
        let node = &handle.node;
        let order = self.enter()?;
        self.touch(node, Part::Data { offset: ask.offset, len: data.len() as u64 })?;
        // Before the data, as the kernel does it: a suid program must not be rewritten and still be suid.
        let killed = self.kill_if(ask.write_flags & abi::WRITE_KILL_SUIDGID != 0, call, node)?;
        let written = store::write_at(&handle.fd, data, ask.offset);
        if killed.is_some() || written.is_err() {
            let stat = stat_after(node);
            let replicated = !self.forest.is_local(node) && !is_nameless(&stat);
            if replicated && let Some(mode) = killed {
                self.submit_part(Op::SetAttr {
                    id: node.id,
                    mode: Some(mode),
                    uid: None,
                    gid: None,
                    size: None,
                    atime: None,
                    mtime: None,
                });
            }
            if written.is_err() && replicated {
                self.tell_failed(node, &stat);
            }
            if let (Err(e), true) = (&written, ask.write_flags & abi::WRITE_CACHE != 0) {
                self.lost_in_a_mapping(call, node, *e);
            }
        }
        let written = written?;
        let body = abi::WriteOut { size: written as u32, padding: 0 }.as_bytes().to_vec();
        if self.forest.is_local(node) || node.is_nameless() {
            return Ok(Sent::Now(body));
        }
        // A file whose time was asked for gets another one with its next write, which makes that dear (Linux 6.13 and newer).
        let op = || {
            let stat = stat_after(node);
            let (id, offset, data, mtime) = (node.id, ask.offset, &data[..written], store::mtime(&stat));
            (!is_nameless(&stat)).then_some(Op::Write { id, offset, data, mtime })
        };
        if self.ack == AckPolicy::Commit && ask.flags & libc::O_DIRECT as u32 != 0 {
            // Who goes around the cache wants to know that it left.
            let _nobodys = self.forest.outlet().submit_if_heard(&op, Completion::none());
            drop(order);
            return Ok(self.deliver(call, body));
        }
        Ok(self.submit_if_heard(call, &op, body))
    }

    /// Answers when the peer has everything submitted so far. Without the order lock.
    fn deliver(&self, call: &mut Call<'_, '_>, body: Vec<u8>) -> Sent {
        let Some(reply) = call.reply.take() else { return Sent::Already };
        let done = move |result: Answer<()>| match result {
            Ok(()) => reply.ok(&body),
            Err(errno) => reply.err(errno),
        };
        self.forest.outlet().delivered(Completion::new(done));
        Sent::Already
    }

    pub(super) fn fallocate(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::FallocateIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        let node = &handle.node;
        let mode = FallocateFlags::from_bits(ask.mode).ok_or(Errno::OPNOTSUPP)?;
        let _order = self.enter()?;
        self.touch(node, Part::Data { offset: ask.offset, len: ask.length })?;
        let done = fs::fallocate(&handle.fd, mode, ask.offset, ask.length);
        let stat = stat_after(node);
        let mtime = store::mtime(&stat);
        let replicated = !self.forest.is_local(node) && !is_nameless(&stat);
        if done.is_err() && replicated {
            self.tell_failed(node, &stat);
        }
        let clears = mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
        if clears && replicated && matches!(done, Err(Errno::NOSPC | Errno::DQUOT | Errno::IO)) {
            // Or cleared in part: the peer gets the range as it is now.
            let hole = (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE).bits();
            let end = ask.offset.saturating_add(ask.length);
            self.submit_part(Op::Fallocate { id: node.id, mode: hole, offset: ask.offset, len: ask.length, mtime });
            self.tell_content(node, ask.offset, end)?;
        }
        done?;
        if !replicated {
            return Ok(Sent::Now(Vec::new()));
        }
        let op = Op::Fallocate { id: node.id, mode: ask.mode, offset: ask.offset, len: ask.length, mtime };
        Ok(self.submit(call, op, Vec::new()))
    }

    /// A change that failed can leave the file with another time, or half done: longer, but not as long as asked.
    fn tell_failed(&self, node: &Node, stat: &Stat) {
        let (size, mtime) = (Some(stat.st_size as u64), Some(store::mtime(stat)));
        self.submit_part(Op::SetAttr { id: node.id, mode: None, uid: None, gid: None, size, atime: None, mtime });
    }

    /// Replicated as the data it is: the peer may not have the source, and applies no read of its own.
    pub(super) fn copy_file_range(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::CopyFileRangeIn>(call)?;
        let (from, to) = (self.handles.get(ask.fh_in)?, self.handles.get(ask.fh_out)?);
        let node = &to.node;
        // Short copies are allowed: the caller comes again for the rest.
        let length = usize::try_from(ask.len).unwrap_or(usize::MAX).min(abi::MAX_WRITE);
        let _order = self.enter()?;
        let buffer = call.scratch.payload(length);
        let length = store::read_at(&from.fd, buffer, ask.off_in)?;
        let data = &buffer[..length];
        self.touch(node, Part::Data { offset: ask.off_out, len: length as u64 })?;
        let written = store::write_at(&to.fd, data, ask.off_out);
        let stat = stat_after(node);
        let replicated = !self.forest.is_local(node) && !is_nameless(&stat);
        if written.is_err() && replicated {
            self.tell_failed(node, &stat);
        }
        let written = written?;
        let body = abi::WriteOut { size: written as u32, padding: 0 }.as_bytes().to_vec();
        if written == 0 || !replicated {
            return Ok(Sent::Now(body));
        }
        // Taken apart, because the data lies in the call's own buffer.
        let Some(reply) = call.reply.take() else { return Ok(Sent::Already) };
        let done = Completion::new(move |result| match result {
            Ok(()) => reply.ok(&body),
            Err(errno) => reply.err(errno),
        });
        let op = Op::Write { id: node.id, offset: ask.off_out, data: &data[..written], mtime: store::mtime(&stat) };
        Ok(self.forest.outlet().submit(op, done).map_or(Sent::Already, Sent::Met))
    }

    pub(super) fn lseek(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::LseekIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        let to = match ask.whence {
            w if w == libc::SEEK_DATA as u32 => fs::SeekFrom::Data(ask.offset),
            w if w == libc::SEEK_HOLE as u32 => fs::SeekFrom::Hole(ask.offset),
            _ => return Err(Errno::INVAL),
        };
        let offset = fs::seek(&handle.fd, to)?;
        Ok(Sent::Now(abi::LseekOut { offset }.as_bytes().to_vec()))
    }

    /// Local disk and peer at the same time; the answer needs both.
    pub(super) fn fsync(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::FsyncIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        let Some(reply) = call.reply.take() else { return Ok(Sent::Already) };
        let data_only = ask.fsync_flags & abi::FSYNC_FDATASYNC != 0;
        let join = Join::new(reply);
        let other = join.clone();
        if self.forest.nodes().scope(&handle.node).is_local() {
            join.half(Ok(()));
        } else {
            let done = Completion::new(move |r| other.half(r));
            self.forest.outlet().barrier(Some(handle.node.id), data_only, done);
        }
        let local = if data_only { fs::fdatasync(&handle.fd) } else { fs::fsync(&handle.fd) };
        if let Err(errno) = local {
            // Final: after a failed fsync nobody knows what is on the disk.
            self.forest.outlet().disk_answered(errno);
            (self.faults)(format!("fsync of {}: {errno}; the application was told", self.label(&handle.node)));
            join.half(Err(Errno::IO));
        } else {
            join.half(Ok(()));
        }
        Ok(Sent::Already)
    }

    /// `close`: with `ack="commit"` it waits until the peer has it all; otherwise every write already did.
    pub(super) fn flush(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        if self.ack == AckPolicy::Write {
            return Err(Errno::NOSYS);
        }
        let (ask, _) = input::<abi::FlushIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        if self.forest.nodes().scope(&handle.node).is_local() {
            return Ok(Sent::Now(Vec::new()));
        }
        Ok(self.deliver(call, Vec::new()))
    }

    /// For messages.
    pub(super) fn label(&self, node: &Node) -> String {
        let root = &self.forest.roots()[node.root()].dir.path;
        match self.forest.path_of(node.id) {
            Some((_, path)) => format!("{root}/{}", String::from_utf8_lossy(&path)),
            None => format!("a deleted file of {root}"),
        }
    }
}

/// As `entries::mtime_after`: no way back, and no way to fail but a broken kernel.
pub(super) fn stat_after(node: &Node) -> Stat {
    store::stat(node.fd()).expect("fstat of an open inode")
}

/// An answer that needs two halves.
#[derive(Clone)]
struct Join(Arc<Mutex<Halves>>);

struct Halves {
    left: u8,
    result: Answer<()>,
    reply: Option<Reply>,
}

impl Join {
    fn new(reply: Reply) -> Self {
        Self(Arc::new(Mutex::new(Halves { left: 2, result: Ok(()), reply: Some(reply) })))
    }

    fn half(&self, result: Answer<()>) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.left -= 1;
        halves.result = halves.result.and(result);
        if halves.left > 0 {
            return;
        }
        let (result, reply) = (halves.result, halves.reply.take());
        drop(halves);
        match (result, reply) {
            (Ok(()), Some(reply)) => reply.ok(&[]),
            (Err(errno), Some(reply)) => reply.err(errno),
            (_, None) => {}
        }
    }
}
