//! The requests of one mount: decoded here, applied by `store`, handed to the outlet.
//!
//! It owns open handles and the translation between the kernel's language and ours; it has no policy.
//! **Invariant:** a change is touched, applied and submitted under one hold of the order lock, in this order;
//! what was not applied is never submitted, and what was applied always is.

mod attributes;
mod caller;
mod crossing;
mod data;
mod directories;
mod entries;
mod handles;
mod lost;
mod nameless;
mod resent;
mod xattrs;

use crate::abi::{self, InHeader, op};
use crate::estate::Estate;
use crate::forest::{Forest, OrderGuard};
use crate::gate::Gate;
use crate::nodes::Node;
use crate::outlet::{Completion, InodeKey, Part, Touch};
use crate::session::{Buffer, Handler, Reply, Request};
use crate::store::{self, Answer};
use handles::Handles;
use model::orders::AckPolicy;
use replica::op::{FileId, Op};
use rustix::fs::Stat;
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// How long the kernel may keep names and attributes, in seconds. All changes go through it, so: a year.
const TTL_S: u64 = 365 * 86_400;

/// Told of a local disk error that an application was told of.
pub type Faults = Arc<dyn Fn(String) + Send + Sync>;

/// See the module's page.
pub struct Front {
    forest: Arc<Forest>,
    gate: Arc<Gate>,
    root: FileId,
    ack: AckPolicy,
    handles: Arc<Handles>,
    /// What the next process must know of changes that do not show whether they were made.
    estate: Option<Arc<Estate>>,
    faults: Faults,
    lost: Arc<lost::Lost>,
}

/// One request on its way.
struct Call<'r, 'b> {
    head: InHeader,
    body: &'b [u8],
    /// Taken by whoever answers later.
    reply: &'r mut Option<Reply>,
    scratch: &'r mut Buffer,
}

/// How a handler that did not fail ended.
enum Sent {
    /// Answer with this now.
    Now(Vec<u8>),
    /// Nothing is to be waited for: run this, with the order lock given back.
    Met(Completion),
    /// Answered, or handed to a completion.
    Already,
}

impl Front {
    /// For the mount of directory `index`; nothing outlives this process.
    #[must_use]
    pub fn new(forest: Arc<Forest>, index: usize, gate: Arc<Gate>, ack: AckPolicy, faults: Faults) -> Self {
        let handles = Arc::new(Handles::new(None));
        Self { forest, gate, root: FileId::root(index), ack, handles, estate: None, faults, lost: Arc::default() }
    }

    /// The same; what the next process must know is written down in `estate`.
    #[must_use]
    pub fn noting(self, estate: Option<Arc<Estate>>) -> Self {
        Self { handles: Arc::new(Handles::new(estate.clone())), estate, ..self }
    }

    /// The same, with what the process before this one had open.
    #[must_use]
    pub fn inheriting(self, estate: Arc<Estate>) -> Self {
        let root = (self.root.0 - FileId::root(0).0) as usize;
        let handles = Arc::new(Handles::inherit(estate.clone(), &self.forest, root));
        Self { handles, estate: Some(estate), ..self }
    }

    fn dispatch(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        match call.head.opcode {
            op::LOOKUP => self.lookup(call),
            op::GETATTR => self.getattr(call),
            op::SETATTR => self.setattr(call),
            op::READLINK => self.readlink(call),
            op::SYMLINK => self.symlink(call),
            op::MKNOD => self.mknod(call),
            op::MKDIR => self.mkdir(call),
            op::UNLINK => self.remove(call, false),
            op::RMDIR => self.remove(call, true),
            op::RENAME | op::RENAME2 => self.rename(call),
            op::LINK => self.link(call),
            op::OPEN => self.open(call),
            op::READ => self.read(call),
            op::WRITE => self.write(call),
            op::STATFS => self.statfs(call),
            op::FSYNC | op::FSYNCDIR => self.fsync(call),
            op::SETXATTR => self.setxattr(call),
            op::GETXATTR => self.getxattr(call),
            op::LISTXATTR => self.listxattr(call),
            op::REMOVEXATTR => self.removexattr(call),
            op::FLUSH => self.flush(call),
            op::OPENDIR => self.opendir(call),
            op::READDIR => self.readdir(call, false),
            op::READDIRPLUS => self.readdir(call, true),
            op::CREATE => self.create(call),
            op::FALLOCATE => self.fallocate(call),
            op::LSEEK => self.lseek(call),
            op::COPY_FILE_RANGE => self.copy_file_range(call),
            op::TMPFILE => self.tmpfile(call),
            op::STATX => self.statx(call),
            // The kernel remembers ENOSYS and asks no more (locks, interrupts, ioctl, poll, …).
            _ => Err(Errno::NOSYS),
        }
    }

    /// Requests that change nothing and wait for nothing, not even the gate.
    fn housekeeping(&self, request: &Request<'_>) -> Option<Answer<Sent>> {
        match request.head.opcode {
            op::FORGET => {
                if let Some((forget, _)) = abi::take::<abi::ForgetIn>(request.body) {
                    self.forget(request.head.nodeid, forget.nlookup);
                }
            }
            op::BATCH_FORGET => {
                let (count, mut rest) = abi::take::<abi::BatchForgetIn>(request.body)?;
                for _ in 0..count.count {
                    let (one, next) = abi::take::<abi::ForgetOne>(rest)?;
                    rest = next;
                    self.forget(one.nodeid, one.nlookup);
                }
            }
            op::RELEASE | op::RELEASEDIR => {
                if let Some((release, _)) = abi::take::<abi::ReleaseIn>(request.body) {
                    self.handles.close(release.fh);
                }
            }
            op::DESTROY => {}
            op::INTERRUPT => return Some(Err(Errno::NOSYS)),
            _ => return None,
        }
        Some(Ok(Sent::Now(Vec::new())))
    }

    fn forget(&self, nodeid: u64, lookups: u64) {
        // The root is counted by us, not by the kernel.
        if nodeid != abi::ROOT_ID
            && let Some(node) = self.forest.node(FileId(nodeid))
        {
            self.forest.release(&node, lookups);
        }
    }

    fn node(&self, nodeid: u64) -> Answer<Arc<Node>> {
        let id = if nodeid == abi::ROOT_ID { self.root } else { FileId(nodeid) };
        self.forest.node(id).ok_or(Errno::STALE)
    }

    /// The order lock, with the gate open: nothing changes locally while held or fenced.
    fn enter(&self) -> Answer<OrderGuard<'_>> {
        loop {
            self.gate.pass().map_err(|_| Errno::IO)?;
            self.forest.nodes().room().wait();
            let order = self.forest.order();
            if self.gate.is_open() {
                return Ok(order);
            }
        }
    }

    /// The change map knows of it before the disk does.
    fn touch(&self, node: &Arc<Node>, part: Part) -> Answer<()> {
        if node.is_nameless() || self.forest.is_local(node) {
            return Ok(());
        }
        self.touched(&Touch { file: node.id, key: node.key, part, was: None })
    }

    /// The same of an entry that gets another place; it may have no node.
    fn touch_moved(&self, stat: &Stat, from: Option<(InodeKey, &[u8])>, to: InodeKey) -> Answer<()> {
        let key = store::key(stat);
        let file = self.forest.nodes().find(key).map_or(FileId(0), |node| node.id);
        // Which of several names went says little of where the file was.
        let was = from.filter(|_| stat.st_nlink == 1 || store::kind(stat) == libc::S_IFDIR);
        self.touched(&Touch { file, key, part: Part::Moved { to }, was })
    }

    fn touched(&self, touch: &Touch<'_>) -> Answer<()> {
        self.forest.outlet().touch(touch).map_err(|e| {
            (self.faults)(format!(
                "the change map or the activity log could not be written: {e}; the change was refused"
            ));
            if crate::sys::is_full(&e) { Errno::NOSPC } else { Errno::IO }
        })
    }

    /// Hands an applied change over; the answer is `body`, when the policy is met.
    fn submit(&self, call: &mut Call<'_, '_>, op: Op<'_>, body: Vec<u8>) -> Sent {
        let Some(done) = completion(call, body) else { return Sent::Already };
        self.forest.outlet().submit(op, done).map_or(Sent::Already, Sent::Met)
    }

    /// The same of a change that introduces nothing: what costs a look is looked at only if somebody hears of it.
    fn submit_if_heard<'a>(&self, call: &mut Call<'_, '_>, op: &dyn Fn() -> Option<Op<'a>>, body: Vec<u8>) -> Sent {
        let Some(done) = completion(call, body) else { return Sent::Already };
        self.forest.outlet().submit_if_heard(op, done).map_or(Sent::Already, Sent::Met)
    }

    /// Hands over a change that a later one of the same request will answer for.
    fn submit_part(&self, op: Op<'_>) {
        // Nobody waits for it, met or not.
        let _nobodys = self.forest.outlet().submit(op, Completion::none());
    }

    fn attr(&self, stat: &Stat) -> abi::Attr {
        abi::Attr {
            ino: stat.st_ino,
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            atime: stat.st_atime as u64,
            mtime: stat.st_mtime as u64,
            ctime: stat.st_ctime as u64,
            atimensec: stat.st_atime_nsec as u32,
            mtimensec: stat.st_mtime_nsec as u32,
            ctimensec: stat.st_ctime_nsec as u32,
            mode: stat.st_mode,
            nlink: stat.st_nlink as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: kernel_device(stat.st_rdev),
            blksize: stat.st_blksize as u32,
            flags: 0,
        }
    }

    fn entry(&self, node: &Node, stat: &Stat) -> abi::EntryOut {
        let nodeid = if node.id == self.root { abi::ROOT_ID } else { node.id.0 };
        abi::EntryOut { nodeid, entry_valid: TTL_S, attr_valid: TTL_S, attr: self.attr(stat), ..Default::default() }
    }

    fn attr_out(&self, stat: &Stat) -> Vec<u8> {
        abi::AttrOut { attr_valid: TTL_S, attr: self.attr(stat), ..Default::default() }.as_bytes().to_vec()
    }
}

impl Handler for Front {
    fn serve(&self, request: &Request<'_>, reply: Reply, scratch: &mut Buffer) {
        let mut slot = Some(reply);
        let result = match self.housekeeping(request) {
            Some(Ok(_)) => return slot.take().map_or((), |reply| reply.ok_at_once(&[])),
            Some(Err(errno)) => Err(errno),
            None if self.gate.pass().is_err() => Err(Errno::IO),
            None => {
                let mut call = Call { head: request.head, body: request.body, reply: &mut slot, scratch };
                match self.dispatch(&mut call) {
                    // The application goes on while this thread sends.
                    Ok(Sent::Met(done)) => {
                        done.run(Ok(()));
                        self.forest.outlet().push_out();
                        return;
                    }
                    result => {
                        if changes(request.head.opcode) {
                            self.forest.outlet().push_out();
                        }
                        result
                    }
                }
            }
        };
        if let Err(errno) = &result
            && self.gate.is_open()
        {
            self.forest.outlet().disk_answered(*errno);
        }
        match (result, slot) {
            (Ok(Sent::Now(body)), Some(reply)) => reply.ok(&body),
            (Err(errno), Some(reply)) => reply.err(errno),
            _ => {}
        }
    }
}

/// Answers `body` once the policy is met; `None`: somebody answers already.
fn completion(call: &mut Call<'_, '_>, body: Vec<u8>) -> Option<Completion> {
    let reply = call.reply.take()?;
    Some(Completion::new(move |result| match result {
        Ok(()) => reply.ok(&body),
        Err(errno) => reply.err(errno),
    }))
}

/// A request of this kind may have submitted something.
fn changes(opcode: u32) -> bool {
    !matches!(opcode, op::LOOKUP | op::GETATTR | op::READ | op::READLINK | op::GETXATTR | op::LISTXATTR | op::STATFS)
}

/// The fixed part of a request's body, and what follows.
fn input<'b, T: zerocopy::FromBytes>(call: &Call<'_, 'b>) -> Answer<(T, &'b [u8])> {
    abi::take::<T>(call.body).ok_or(Errno::INVAL)
}

fn name_in(bytes: &[u8]) -> Answer<(&[u8], &[u8])> {
    let (name, rest) = abi::take_name(bytes).ok_or(Errno::INVAL)?;
    // The kernel sends no other names; a directory of ours is never left by one.
    if name.is_empty() || name == b".." || name == b"." || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    Ok((name, rest))
}

/// `dev_t` as the kernel packs it into 32 bits (`new_encode_dev`).
fn kernel_device(device: u64) -> u32 {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse (`new_decode_dev`).
fn user_device(device: u32) -> u64 {
    libc::makedev((device & 0x000f_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0x000f_ff00))
}

/// A mode after a change of a file that the peer must see too; nothing for the deleted-but-open.
fn is_nameless(stat: &Stat) -> bool {
    stat.st_nlink == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_kernels_packing() {
        for (major, minor) in [(0, 0), (1, 3), (8, 17), (259, 300_000), (4095, 0xf_ffff)] {
            let device = libc::makedev(major, minor);
            assert_eq!(user_device(kernel_device(device)), device, "{major}:{minor}");
        }
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"no end"] {
            assert!(name_in(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name_in(b"a b\0rest\0").map(|(name, _)| name), Ok(&b"a b"[..]));
    }
}
