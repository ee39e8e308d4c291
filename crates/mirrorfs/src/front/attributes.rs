//! Attributes: `stat`, `chmod`, `chown`, `truncate`, `utimens`, `statfs`, `readlink`.

use super::caller::{in_group, may_write};
use super::{Call, Front, Sent, input, is_nameless};
use crate::abi::{self, InHeader, fattr};
use crate::nodes::Node;
use crate::outlet::Part;
use crate::store::{self, Answer};
use replica::op::Op;
use rustix::fd::AsFd;
use rustix::fs::{self, AtFlags, OFlags, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// What of a `SETATTR` has been applied.
#[derive(Default)]
struct Applied {
    mode: bool,
    owner: bool,
    size: bool,
    atime: bool,
    mtime: bool,
}

/// Does this change take suid and sgid away? The kernel says so for `truncate` and `chown`; for `fallocate`
/// and a `chown` to nobody it asks for a change of nothing at all, which only a writer or the owner may make.
fn kills(head: &InHeader, ask: &abi::SetattrIn, node: &Node) -> Answer<bool> {
    if ask.valid == 0 {
        return Ok(may_write(head, &store::stat(node.fd())?));
    }
    Ok(ask.valid & fattr::KILL_SUIDGID != 0)
}

impl Front {
    pub(super) fn getattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::GetattrIn>(call)?;
        let stat = if ask.getattr_flags & abi::GETATTR_FH != 0 {
            store::stat(&self.handles.get(ask.fh)?.fd)?
        } else {
            store::stat(self.node(call.head.nodeid)?.fd())?
        };
        Ok(Sent::Now(self.attr_out(&stat)))
    }

    /// `GETATTR` with the time of birth, which is this node's own.
    pub(super) fn statx(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::StatxIn>(call)?;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let known = if ask.getattr_flags & abi::GETATTR_FH != 0 {
            fs::statx(&self.handles.get(ask.fh)?.fd, "", AtFlags::EMPTY_PATH, wanted)?
        } else {
            fs::statx(self.node(call.head.nodeid)?.fd(), "", AtFlags::EMPTY_PATH, wanted)?
        };
        let time = |t: fs::StatxTimestamp| abi::StatxTime { sec: t.tv_sec, nsec: t.tv_nsec, reserved: 0 };
        let answer = abi::StatxOut {
            attr_valid: super::TTL_S,
            mask: known.stx_mask & wanted.bits(),
            blksize: known.stx_blksize,
            nlink: known.stx_nlink,
            uid: known.stx_uid,
            gid: known.stx_gid,
            mode: known.stx_mode,
            ino: known.stx_ino,
            size: known.stx_size,
            blocks: known.stx_blocks,
            atime: time(known.stx_atime),
            btime: time(known.stx_btime),
            ctime: time(known.stx_ctime),
            mtime: time(known.stx_mtime),
            rdev_major: known.stx_rdev_major,
            rdev_minor: known.stx_rdev_minor,
            dev_major: known.stx_dev_major,
            dev_minor: known.stx_dev_minor,
            ..Default::default()
        };
        Ok(Sent::Now(answer.as_bytes().to_vec()))
    }

    pub(super) fn setattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::SetattrIn>(call)?;
        let node = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        if ask.valid & fattr::SIZE != 0 {
            let offset = ask.size.min(store::stat(node.fd())?.st_size as u64);
            self.touch(&node, Part::Data { offset, len: u64::MAX - offset })?;
        }
        self.touch(&node, Part::Attributes)?;
        let mut applied = Applied::default();
        let result = self.apply(&call.head, &ask, &node, &mut applied);
        let stat = store::stat(node.fd()).expect("fstat of an open inode");
        // What was applied before an error is in the tree, so the peer gets it too.
        let anything = applied.mode || applied.owner || applied.size || applied.atime || applied.mtime;
        if self.forest.is_local(&node) || is_nameless(&stat) || !anything {
            return result.map(|()| Sent::Now(self.attr_out(&stat)));
        }
        let symlink = node.kind() == libc::S_IFLNK;
        let op = Op::SetAttr {
            id: node.id,
            // chown clears suid and sgid: say what came of it.
            mode: ((applied.mode || applied.owner) && !symlink).then_some(stat.st_mode & 0o7777),
            uid: applied.owner.then_some(stat.st_uid),
            gid: applied.owner.then_some(stat.st_gid),
            size: applied.size.then_some(stat.st_size as u64),
            atime: applied.atime.then(|| store::atime(&stat)),
            mtime: (applied.mtime || applied.size).then(|| store::mtime(&stat)),
        };
        match result {
            Ok(()) => {
                let body = self.attr_out(&stat);
                Ok(self.submit(call, op, body))
            }
            Err(errno) => {
                self.submit_part(op);
                Err(errno)
            }
        }
    }

    fn apply(&self, head: &InHeader, ask: &abi::SetattrIn, node: &Arc<Node>, applied: &mut Applied) -> Answer<()> {
        let kills = node.kind() == libc::S_IFREG && kills(head, ask, node)?;
        let kill = || Ok(store::kill_suid_sgid(node.fd(), |gid| in_group(head, gid))?.is_some());
        // Before the owner: it is the old group that the caller may be in. After the size: a truncation that
        // fails takes nothing away.
        if kills && ask.valid & fattr::SIZE == 0 {
            applied.mode |= kill()?;
        }
        if ask.valid & (fattr::UID | fattr::GID) != 0 {
            let uid = (ask.valid & fattr::UID != 0).then_some(ask.uid);
            let gid = (ask.valid & fattr::GID != 0).then_some(ask.gid);
            store::set_owner(node.fd(), uid, gid)?;
            applied.owner = true;
        }
        if ask.valid & fattr::MODE != 0 {
            store::set_mode(node.fd(), ask.mode)?;
            applied.mode = true;
        }
        if ask.valid & fattr::SIZE != 0 {
            if ask.valid & fattr::FH != 0 {
                fs::ftruncate(&self.handles.get(ask.fh)?.fd, ask.size)?;
            } else {
                fs::ftruncate(store::reopen(node.fd(), OFlags::WRONLY)?, ask.size)?;
            }
            applied.size = true;
            applied.mode |= kills && kill()?;
        }
        let time = |given: u32, now: u32, sec: u64, nsec: u32| match () {
            () if ask.valid & now != 0 => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
            () if ask.valid & given != 0 => Timespec { tv_sec: sec as i64, tv_nsec: nsec.into() },
            () => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        };
        let (atime, mtime) = (fattr::ATIME | fattr::ATIME_NOW, fattr::MTIME | fattr::MTIME_NOW);
        if ask.valid & (atime | mtime) != 0 {
            let times = Timestamps {
                last_access: time(fattr::ATIME, fattr::ATIME_NOW, ask.atime, ask.atimensec),
                last_modification: time(fattr::MTIME, fattr::MTIME_NOW, ask.mtime, ask.mtimensec),
            };
            store::set_times(node.fd(), &times)?;
            (applied.atime, applied.mtime) = (ask.valid & atime != 0, ask.valid & mtime != 0);
        }
        Ok(())
    }

    pub(super) fn readlink(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let node = self.node(call.head.nodeid)?;
        let target = fs::readlinkat(node.fd(), "", Vec::with_capacity(256))?;
        Ok(Sent::Now(target.into_bytes()))
    }

    pub(super) fn statfs(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let node = self.node(call.head.nodeid)?;
        let here = fs::fstatvfs(node.fd().as_fd())?;
        let peer = self.forest.outlet().peer_space();
        let unit = here.f_frsize.max(1);
        let blocks = |bytes: u64| bytes / unit;
        let answer = abi::StatfsOut {
            blocks: here.f_blocks,
            bfree: peer.map_or(here.f_bfree, |p| here.f_bfree.min(blocks(p.free_bytes))),
            bavail: peer.map_or(here.f_bavail, |p| here.f_bavail.min(blocks(p.available_bytes))),
            files: here.f_files,
            ffree: peer.map_or(here.f_ffree, |p| here.f_ffree.min(p.free_inodes)),
            bsize: u32::try_from(here.f_bsize).map_err(|_| Errno::OVERFLOW)?,
            namelen: u32::try_from(here.f_namemax).map_err(|_| Errno::OVERFLOW)?,
            frsize: u32::try_from(unit).map_err(|_| Errno::OVERFLOW)?,
            ..Default::default()
        };
        Ok(Sent::Now(answer.as_bytes().to_vec()))
    }
}
