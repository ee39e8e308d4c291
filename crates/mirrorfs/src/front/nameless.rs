//! Files without a name: made so (`O_TMPFILE`), and given their first name later.
//!
//! The peer has no part in a file until it has a name; then it is told all of it, in one hold of the order
//! lock. **Invariant:** what `fsync` said of a file before its first name holds on both nodes after it.

use super::caller::as_caller;
use super::data::stat_after;
use super::entries::Made;
use super::{Call, Front, Sent, input};
use crate::abi;
use crate::nodes::Node;
use crate::outlet::Completion;
use crate::store::{self, Answer};
use crate::sys;
use replica::op::{FileId, Op};
use rustix::fd::AsFd;
use rustix::fs::{self, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::IntoBytes;

impl Front {
    pub(super) fn tmpfile(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::CreateIn>(call)?;
        let umask = self.umask(call, ask.umask);
        let parent = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        if let Some(answer) = self.created_before(call)? {
            return Ok(Sent::Now(answer.as_bytes().to_vec()));
        }
        let mode = Mode::from_raw_mode(ask.mode & 0o7777);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = as_caller(&call.head, umask, || fs::openat(parent.fd(), ".", flags, mode))?;
        let (fd, stat) = (store::path_fd(file.as_fd())?, store::stat(&file)?);
        let node = self.forest.nodes().adopt_nameless(fd, store::key(&stat), store::kind(&stat), &parent);
        let entry = self.entry(&node, &stat);
        let fh = self.handles.open(node, file, call.request());
        let open = abi::OpenOut { fh, open_flags: abi::FOPEN_KEEP_CACHE, padding: 0 };
        Ok(Sent::Now(abi::CreateOut { entry, open }.as_bytes().to_vec()))
    }

    /// The first name of a nameless file, in place of a `LINK` (order lock held): the peer gets it as a new
    /// file with all it has become meanwhile.
    pub(super) fn tell_whole(&self, node: &Arc<Node>, parent: FileId, name: &[u8], made: &Made) -> Answer<()> {
        let Made { owner, mtime, parent_mtime, stat, .. } = made;
        let (id, owner, mtime) = (node.id, *owner, *mtime);
        self.submit_part(Op::Create { id, parent, name, owner, mtime, parent_mtime: *parent_mtime });
        self.forest.outlet().is_older(id);
        self.tell_content(node, 0, u64::MAX)?;
        let (mode, size, atime) = (Some(owner.mode), Some(stat.st_size as u64), Some(store::atime(stat)));
        self.submit_part(Op::SetAttr { id, mode, uid: None, gid: None, size, atime, mtime: Some(mtime) });
        self.tell_xattrs(node)
    }

    /// After content, size and owner, each of which takes `security.capability` away (order lock held).
    pub(super) fn tell_xattrs(&self, node: &Arc<Node>) -> Answer<()> {
        for (name, value) in sys::xattrs(node.fd())? {
            self.submit_part(Op::SetXattr { id: node.id, name: &name, value: &value });
        }
        Ok(())
    }

    /// Answers `body` when the peer has the file (`None`: everything) as durably as `fsync` may have promised already.
    /// Without the order lock.
    pub(super) fn settle(&self, call: &mut Call<'_, '_>, file: Option<FileId>, body: Vec<u8>) -> Sent {
        let Some(reply) = call.reply.take() else { return Sent::Already };
        let done = move |result| match result {
            Ok(()) => reply.ok(&body),
            Err(errno) => reply.err(errno),
        };
        self.forest.outlet().barrier(file, false, Completion::new(done));
        Sent::Already
    }

    /// Tells the peer what a part of a file holds now (order lock held, the part touched). Holes are left out:
    /// they must be holes there already.
    pub(super) fn tell_content(&self, node: &Arc<Node>, from: u64, to: u64) -> Answer<()> {
        let file = store::reopen(node.fd(), OFlags::RDONLY)?;
        let mut buffer = vec![0; abi::MAX_WRITE];
        let mut at = from;
        while at < to {
            at = match fs::seek(&file, SeekFrom::Data(at)) {
                Ok(data) => data,
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e),
            };
            let hole = fs::seek(&file, SeekFrom::Hole(at))?.min(to);
            while at < hole {
                let length = usize::try_from(hole - at).unwrap_or(usize::MAX).min(buffer.len());
                let read = store::read_at(&file, &mut buffer[..length], at)?;
                // A file of any size must not pile up for a peer that went away.
                if read == 0 || !self.forest.outlet().listens() {
                    return Ok(());
                }
                let mtime = store::mtime(&stat_after(node));
                self.submit_part(Op::Write { id: node.id, offset: at, data: &buffer[..read], mtime });
                at += read as u64;
            }
        }
        Ok(())
    }
}
