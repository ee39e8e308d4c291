//! Makes the leader's changes here, by descriptor.
//!
//! A follower whose copy is complete makes each change exactly, or stops. A target (its copy still differs)
//! makes the outcome true if it can — removing what is in the way, into the quarantine — and otherwise says
//! that it could not, so that the entry is compared again. What is made inherits nothing from its directory: the leader says
//! what it has. **Invariant:** nothing outside the replicated
//! directories is touched, whatever the leader sends.

use super::ids::Ids;
use super::local::Locals;
use super::quarantine::Quarantine;
use super::removal::remove_tree;
use super::trouble::Trouble;
use crate::arriving;
use crate::sys;
use replica::op::{FileId, Op, Owner, Time};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Times that were told and are not set yet: every change of a file brings another one.
const UNSET_MAX: usize = 16;

/// So much of a file is gathered before its disk is asked to write it.
const BEHIND_BYTES: u64 = 8 << 20;

/// A leader lets one thing arrive at a time; the others are of renames that a target could not make.
const ARRIVING_MAX: usize = 16;

pub(super) struct Applier {
    pub ids: Ids,
    pub quarantine: Quarantine,
    /// This copy may still differ from the leader's.
    pub target: bool,
    /// What stays local to this node.
    pub locals: Locals,
    /// What is not whole yet: directory and name.
    pub arriving: Vec<(OwnedFd, Vec<u8>)>,
    /// What was written of one file, from front to back, and the disk does not write yet.
    pub behind: Option<(FileId, u64, u64)>,
    /// Times of modification that [`Self::set_unset`] sets, before anything is answered.
    pub unset: Vec<(FileId, Time)>,
}

/// What never got its own name goes with the last session it could have got it in.
impl Drop for Applier {
    fn drop(&mut self) {
        for (dir, name) in self.arriving.drain(..) {
            if let Err(e) = remove_tree(dir.as_fd(), &name) {
                let name = String::from_utf8_lossy(&name).into_owned();
                tracing::warn!("{name}, of which only a part had come, could not be removed: {e}");
            }
        }
    }
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl Applier {
    /// Makes one change.
    pub fn apply(&mut self, op: &Op<'_>) -> Result<(), Trouble> {
        // The others mean ids or attributes that a time may be waiting for.
        if !matches!(op, Op::Create { .. } | Op::Write { .. } | Op::Link { .. } | Op::Unlink { .. }) {
            self.set_unset()?;
        }
        match *op {
            Op::Bind { id, parent, name, kind } => {
                let fd = sys::open_entry(self.ids.dir(parent)?, name)?;
                let here = sys::kind(&sys::stat(&fd)?);
                if here != kind {
                    return Err(if self.target || id.0 >= 2 * replica::wire::LINKS_FROM {
                        Trouble::Absent(id)
                    } else {
                        Trouble::fatal("an entry has another type here")
                    });
                }
                self.ids.insert(id, fd, kind, false)
            }
            Op::Unbind { id } => {
                self.ids.remove(id);
                Ok(())
            }
            Op::Create { id, parent, name, owner, mtime, parent_mtime } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // Root's own is made as it will be; what belongs to others is nobody's before it is theirs.
                let mode = Mode::from_raw_mode(if owner.uid == 0 { owner.mode & 0o777 } else { 0o600 });
                let fd = self.make(parent, name, |dir| rustix::fs::openat(dir, os(name), flags, mode))?;
                sys::disinherit_file(&fd)?;
                if self.target {
                    self.settle(parent, &fd, Some(owner.mode), owner, mtime, parent_mtime)?;
                    return self.ids.insert(id, fd, sys::S_IFREG, true);
                }
                set_owner_and_mode(&fd, owner)?;
                self.ids.insert(id, fd, sys::S_IFREG, true)?;
                self.set_time(id, mtime)?;
                self.set_time(parent, parent_mtime)
            }
            Op::Mkdir { id, parent, name, owner, mtime, parent_mtime } => {
                self.make(parent, name, |dir| rustix::fs::mkdirat(dir, os(name), Mode::from_raw_mode(0o700)))?;
                let fd = sys::open_entry(self.ids.dir(parent)?, name)?;
                sys::disinherit(&fd)?;
                self.settle(parent, &fd, Some(owner.mode), owner, mtime, parent_mtime)?;
                self.ids.insert(id, fd, sys::S_IFDIR, false)
            }
            Op::Mknod { id, parent, name, kind, rdev, owner, mtime, parent_mtime } => {
                let mode = Mode::from_raw_mode(0o600);
                let file_type = FileType::from_raw_mode(kind);
                if !matches!(
                    file_type,
                    FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice
                ) {
                    return Err(Trouble::fatal("a special file of an unknown type"));
                }
                self.make(parent, name, |dir| rustix::fs::mknodat(dir, os(name), file_type, mode, rdev))?;
                let fd = sys::open_entry(self.ids.dir(parent)?, name)?;
                sys::disinherit(&fd)?;
                self.settle(parent, &fd, Some(owner.mode), owner, mtime, parent_mtime)?;
                self.ids.insert(id, fd, kind, false)
            }
            Op::Symlink { id, parent, name, target, owner, mtime, parent_mtime } => {
                self.make(parent, name, |dir| rustix::fs::symlinkat(os(target), dir, os(name)))?;
                let fd = sys::open_entry(self.ids.dir(parent)?, name)?;
                self.settle(parent, &fd, None, owner, mtime, parent_mtime)?;
                self.ids.insert(id, fd, sys::S_IFLNK, false)
            }
            Op::Link { id, parent, name, parent_mtime } => {
                let from = sys::proc_path(self.ids.get(id)?.0);
                self.make(parent, name, |dir| {
                    rustix::fs::linkat(rustix::fs::CWD, &from, dir, os(name), AtFlags::SYMLINK_FOLLOW)
                })?;
                self.dir_time(parent, parent_mtime)
            }
            Op::Unlink { parent, name, parent_mtime } => {
                self.remove(parent, name, AtFlags::empty())?;
                self.dir_time(parent, parent_mtime)
            }
            Op::Rmdir { parent, name, parent_mtime } => {
                self.remove(parent, name, AtFlags::REMOVEDIR)?;
                self.dir_time(parent, parent_mtime)
            }
            Op::Rename { from, from_name, to, to_name, flags, from_mtime, to_mtime } => {
                self.rename((from, from_name), (to, to_name), flags)?;
                self.dir_time(from, from_mtime)?;
                self.dir_time(to, to_mtime)
            }
            Op::Write { id, offset, data, mtime } => {
                self.keep(id)?;
                let fd = self.ids.file(id)?;
                sys::write_at(fd, data, offset)?;
                if self.target {
                    self.write_behind(id, offset, data.len() as u64);
                }
                self.set_time(id, mtime)
            }
            // Of a target: most of it is so already, and a look costs less than four changes.
            Op::SetAttr { id, mode, uid, gid, size, atime: None, mtime } if self.target => {
                let (fd, kind) = self.ids.get(id)?;
                if let Some(size) = size
                    && sys::stat(fd)?.st_size as u64 != size
                {
                    self.keep(id)?;
                    rustix::fs::ftruncate(self.ids.file(id)?, size)?;
                }
                let mode = mode.filter(|_| kind != sys::S_IFLNK);
                let fd = self.ids.get(id)?.0;
                self.quarantine.keep_attributes(fd, |st| Ok(differs(st, (uid, gid), mode, mtime)))?;
                Ok(set_what_differs(fd, (uid, gid), mode, mtime)?)
            }
            Op::SetAttr { id, mode, uid, gid, size, atime, mtime } => {
                if let Some(size) = size {
                    self.keep(id)?;
                    rustix::fs::ftruncate(self.ids.file(id)?, size)?;
                }
                let (fd, kind) = self.ids.get(id)?;
                self.quarantine.keep_attributes(fd, |st| Ok(differs(st, (uid, gid), mode, mtime)))?;
                if uid.is_some() || gid.is_some() {
                    sys::set_owner(fd, uid, gid)?;
                }
                match mode {
                    Some(mode) if kind != sys::S_IFLNK => sys::set_mode(fd, mode)?,
                    _ => {}
                }
                if atime.is_some() || mtime.is_some() {
                    sys::set_times(fd, atime, mtime)?;
                }
                Ok(())
            }
            Op::Fallocate { id, mode, offset, len, mtime } => {
                self.keep(id)?;
                let fd = self.ids.file(id)?;
                rustix::fs::fallocate(fd, FallocateFlags::from_bits_retain(mode), offset, len)?;
                Ok(sys::set_times(fd, None, Some(mtime))?)
            }
            Op::SetXattr { id, name, value } => {
                own(name)?;
                let fd = self.ids.get(id)?.0;
                self.quarantine.keep_attributes(fd, |_| {
                    Ok(!sys::xattrs(fd)?.iter().any(|(there, is)| there.as_slice() == name && is.as_slice() == value))
                })?;
                match sys::fit_xattr(fd, name, value) {
                    // Beside others than the leader's it need not fit: whether it does beside them is found when they are
                    // compared.
                    Err(Errno::NOSPC) if self.target => Err(Trouble::Absent(id)),
                    other => Ok(other?),
                }
            }
            Op::RemoveXattr { id, name } => {
                own(name)?;
                let fd = self.ids.get(id)?.0;
                self.quarantine.keep_attributes(fd, |_| Ok(sys::xattrs(fd)?.iter().any(|(there, _)| there == name)))?;
                Ok(sys::remove_xattr(fd, name)?)
            }
        }
    }

    /// The change itself could not be made here (of a target). The names it made or took lead to something else there
    /// now: what they led to goes, or ids bound by them would mean a file of other names. Times of directories can be
    /// made true.
    pub fn give_up(&mut self, op: &Op<'_>, why: &Trouble) -> Result<(), Trouble> {
        let mut gone = |dir: FileId, name: &[u8]| match self.ids.dir(dir) {
            Ok(fd) => self.quarantine.remove(fd, name),
            // Nothing can be bound below it either, before it is made.
            Err(_) => Ok(()),
        };
        let (dir, mtime) = match *op {
            Op::Create { parent, parent_mtime, .. }
            | Op::Mkdir { parent, parent_mtime, .. }
            | Op::Mknod { parent, parent_mtime, .. }
            | Op::Symlink { parent, parent_mtime, .. }
            | Op::Unlink { parent, parent_mtime, .. }
            | Op::Rmdir { parent, parent_mtime, .. } => (parent, parent_mtime),
            Op::Link { parent, name, parent_mtime, .. } => {
                gone(parent, name)?;
                (parent, parent_mtime)
            }
            Op::Rename { from, from_name, to, to_name, from_mtime, to_mtime, .. } => {
                if !matches!(why, Trouble::Half) {
                    gone(from, from_name)?;
                    gone(to, to_name)?;
                }
                // A directory that is not here gets its time when it is made.
                let _ = self.dir_time(from, from_mtime);
                (to, to_mtime)
            }
            _ => return Ok(()),
        };
        let _ = self.dir_time(dir, mtime);
        Ok(())
    }

    /// What the leader has under the new name was under the old one when the copies were equal: it comes along, if it is here and as it
    /// was, and need not be sent. Only a hint: it is compared whatever becomes of it.
    pub fn comes_along(&mut self, op: &Op<'_>) -> Result<(), Trouble> {
        let Op::Rename { from, from_name, to, to_name, from_mtime: mtime, .. } = *op else {
            return Err(Trouble::fatal("this change cannot be a restoration"));
        };
        let (Ok(from_dir), Ok(to_dir)) = (self.ids.dir(from), self.ids.dir(to)) else { return Ok(()) };
        // What is kept is kept under the name it has here.
        if self.quarantine.is_wanted() {
            return Ok(());
        }
        let Some(here) = sys::stat_entry(from_dir, from_name)? else { return Ok(()) };
        if let Some(there) = sys::stat_entry(to_dir, to_name)? {
            // An earlier resync may have made the move, and something else has the old name by now.
            let is_it = sys::mtime(&there) == mtime || sys::kind(&there) == sys::S_IFDIR;
            if is_it || (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(());
            }
            self.quarantine.remove(to_dir, to_name)?;
        }
        match rustix::fs::renameat_with(from_dir, os(from_name), to_dir, os(to_name), RenameFlags::NOREPLACE) {
            // Into itself, or what a person mounted: it stays where it is.
            Err(Errno::INVAL | Errno::BUSY | Errno::XDEV | Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// An entry that should be there: takes over one of the same type, removes another one.
    pub fn restore(&mut self, op: &Op<'_>) -> Result<(), Trouble> {
        let (id, parent, name, kind, owner, mtime, parent_mtime) = match *op {
            Op::Create { id, parent, name, owner, mtime, parent_mtime } => {
                (id, parent, name, sys::S_IFREG, owner, mtime, parent_mtime)
            }
            Op::Mkdir { id, parent, name, owner, mtime, parent_mtime } => {
                (id, parent, name, sys::S_IFDIR, owner, mtime, parent_mtime)
            }
            Op::Mknod { id, parent, name, kind, owner, mtime, parent_mtime, .. } => {
                (id, parent, name, kind, owner, mtime, parent_mtime)
            }
            Op::Symlink { id, parent, name, owner, mtime, parent_mtime, .. } => {
                (id, parent, name, sys::S_IFLNK, owner, mtime, parent_mtime)
            }
            _ => return Err(Trouble::fatal("this change cannot be a restoration")),
        };
        let dir = self.ids.dir(parent)?;
        let Some(there) = sys::stat_entry(dir, name)? else { return self.apply(op) };
        let same = sys::kind(&there) == kind
            && match *op {
                Op::Mknod { rdev, .. } => there.st_rdev == rdev,
                Op::Symlink { target, .. } => sys::link_target(sys::open_entry(dir, name)?)? == target,
                _ => true,
            };
        if !same {
            return self.apply(op);
        }
        let fd = sys::open_entry(dir, name)?;
        if kind == sys::S_IFREG {
            self.quarantine.keep_content(fd.as_fd())?;
        }
        let mode = (kind != sys::S_IFLNK).then_some(owner.mode);
        // It is the leader's from here on, and so are the extended attributes that follow.
        self.quarantine.keep_attributes(fd.as_fd(), |st| {
            let is_another = differs(st, (Some(owner.uid), Some(owner.gid)), mode, Some(mtime));
            Ok(is_another || !sys::xattrs(&fd)?.is_empty())
        })?;
        self.settle(parent, &fd, mode, owner, mtime, parent_mtime)?;
        self.ids.insert(id, fd, kind, false)
    }

    /// This name belongs to that file, whatever it led to before.
    pub fn relink(&mut self, file: &OwnedFd, parent: FileId, name: &[u8], parent_mtime: Time) -> Result<(), Trouble> {
        let st = sys::stat(file)?;
        let dir = self.ids.dir(parent)?;
        let there = sys::stat_entry(dir, name)?;
        if there.is_none_or(|t| (t.st_dev, t.st_ino) != (st.st_dev, st.st_ino)) {
            self.quarantine.remove(dir, name)?;
            let from = sys::proc_path(file.as_fd());
            rustix::fs::linkat(rustix::fs::CWD, &from, dir, os(name), AtFlags::SYMLINK_FOLLOW)?;
        }
        self.dir_time(parent, parent_mtime)
    }

    /// Exactly these extended attributes.
    pub fn set_xattrs(&mut self, id: FileId, list: replica::wire::XattrList<'_>) -> Result<(), Trouble> {
        let wanted: Vec<_> = list.iter().collect();
        wanted.iter().try_for_each(|(name, _)| own(name))?;
        let fd = self.ids.get(id)?.0;
        self.quarantine.keep_attributes(fd, |_| {
            let now = sys::xattrs(fd)?;
            let is_wanted = |(name, value): &(Vec<u8>, Vec<u8>)| wanted.contains(&(name.as_slice(), value.as_slice()));
            Ok(now.len() != wanted.len() || !now.iter().all(is_wanted))
        })?;
        Ok(sys::replace_xattrs(fd, &wanted)?)
    }

    /// Removes a name and everything below it.
    pub fn purge(&mut self, parent: FileId, name: &[u8], parent_mtime: Time) -> Result<(), Trouble> {
        self.quarantine.remove(self.ids.dir(parent)?, name)?;
        self.dir_time(parent, parent_mtime)
    }

    /// Makes a new entry; a target removes what is in the way.
    fn make<T>(
        &mut self,
        parent: FileId,
        name: &[u8],
        make: impl Fn(std::os::fd::BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Trouble> {
        let dir = self.ids.dir(parent)?;
        if arriving::is_one(name) {
            if self.arriving.len() >= ARRIVING_MAX {
                self.arriving.remove(0);
            }
            self.arriving.push((rustix::io::fcntl_dupfd_cloexec(dir, 3)?, name.to_vec()));
        }
        match make(dir) {
            Err(Errno::EXIST) if self.target => {
                self.quarantine.remove(dir, name)?;
                Ok(make(dir)?)
            }
            other => Ok(other?),
        }
    }

    fn settle(
        &mut self,
        parent: FileId,
        fd: &OwnedFd,
        mode: Option<u32>,
        owner: Owner,
        mtime: Time,
        parent_mtime: Time,
    ) -> Result<(), Trouble> {
        set_what_differs(fd.as_fd(), (Some(owner.uid), Some(owner.gid)), mode, Some(mtime))?;
        if self.target {
            self.quarantine.is_ours(fd.as_fd())?;
        }
        self.dir_time(parent, parent_mtime)
    }

    fn dir_time(&mut self, dir: FileId, mtime: Time) -> Result<(), Trouble> {
        self.ids.dir(dir)?;
        self.set_time(dir, mtime)
    }

    /// The disk writes while the rest of a large file still comes: the sync that ends a resync finds little to do.
    fn write_behind(&mut self, id: FileId, offset: u64, len: u64) {
        let start = match self.behind {
            Some((file, start, end)) if (file, end) == (id, offset) => start,
            _ => offset,
        };
        self.behind = Some((id, start, offset + len));
        if offset + len - start >= BEHIND_BYTES
            && let Ok((fd, _)) = self.ids.get(id)
        {
            sys::begin_writing(fd, start, offset + len - start);
            self.behind = Some((id, offset + len, offset + len));
        }
    }

    /// Told, and set by [`Self::set_unset`]: of many changes of one file that come together, only the last one's time
    /// has to be. A target, which may meet trouble with any of them, sets each at once.
    fn set_time(&mut self, id: FileId, mtime: Time) -> Result<(), Trouble> {
        if self.target {
            return Ok(sys::set_times(self.ids.get(id)?.0, None, Some(mtime))?);
        }
        match self.unset.iter_mut().find(|(unset, _)| *unset == id) {
            Some((_, time)) => *time = mtime,
            None => {
                if self.unset.len() >= UNSET_MAX {
                    self.set_unset()?;
                }
                self.unset.push((id, mtime));
            }
        }
        Ok(())
    }

    /// Sets the times that were told: before anything is answered, synced, compared, or resumed.
    pub fn set_unset(&mut self) -> Result<(), Trouble> {
        for (id, mtime) in self.unset.drain(..) {
            sys::set_times(self.ids.get(id)?.0, None, Some(mtime))?;
        }
        Ok(())
    }

    fn remove(&mut self, parent: FileId, name: &[u8], flags: AtFlags) -> Result<(), Trouble> {
        let dir = self.ids.dir(parent)?;
        if self.target {
            // Other content or another type than the leader's is kept like anything else that is lost.
            return self.quarantine.remove(dir, name);
        }
        match rustix::fs::unlinkat(dir, os(name), flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.locals.clear(dir, name)? => {
                Ok(rustix::fs::unlinkat(dir, os(name), flags)?)
            }
            other => Ok(other?),
        }
    }

    fn rename(&mut self, from: (FileId, &[u8]), to: (FileId, &[u8]), flags: u32) -> Result<(), Trouble> {
        let flags = RenameFlags::from_bits(flags).filter(|f| !f.contains(RenameFlags::WHITEOUT));
        let flags = flags.ok_or_else(|| Trouble::fatal("a rename with unknown flags"))?;
        let (from_dir, to_dir) = (self.ids.dir(from.0)?, self.ids.dir(to.0)?);
        let rename = || rustix::fs::renameat_with(from_dir, os(from.1), to_dir, os(to.1), flags);
        if self.target && flags.contains(RenameFlags::EXCHANGE) {
            // The one that is here comes to where it belongs; the other has to be made.
            let one = match (sys::stat_entry(from_dir, from.1)?, sys::stat_entry(to_dir, to.1)?) {
                (Some(_), None) => [(from_dir, from.1), (to_dir, to.1)],
                (None, Some(_)) => [(to_dir, to.1), (from_dir, from.1)],
                _ => return Ok(rename()?),
            };
            let [(old_dir, old), (new_dir, new)] = one;
            rustix::fs::renameat_with(old_dir, os(old), new_dir, os(new), RenameFlags::NOREPLACE)?;
            return Err(Trouble::Half);
        }
        if self.target {
            let source = sys::stat_entry(from_dir, from.1)?;
            let Some(source) = source else { return Err(Errno::NOENT.into()) };
            // Two names of one file: rename(2) does nothing, and neither do we.
            let same =
                sys::stat_entry(to_dir, to.1)?.is_some_and(|t| (t.st_dev, t.st_ino) == (source.st_dev, source.st_ino));
            if same {
                // Are they one file there, too?
                return Err(Trouble::Half);
            }
            self.quarantine.remove(to_dir, to.1)?;
        }
        match rename() {
            Err(Errno::NOTEMPTY | Errno::EXIST) if flags.is_empty() && self.locals.clear(to_dir, to.1)? => rename()?,
            other => other?,
        }
        if arriving::is_one(from.1) {
            self.arriving.retain(|(_, name)| name != from.1);
        }
        Ok(())
    }

    /// Before the content of a file changes that the leader did not make.
    fn keep(&mut self, id: FileId) -> Result<(), Trouble> {
        if self.target {
            let (fd, _) = self.ids.get(id)?;
            self.quarantine.keep_content(fd)?;
        }
        Ok(())
    }
}

fn own(name: &[u8]) -> Result<(), Trouble> {
    if name.starts_with(sys::LOCAL_XATTRS) { Err(Trouble::fatal("the leader sent a local attribute")) } else { Ok(()) }
}

/// Does an entry of the old copy have another owner or mode, or is it no directory and has another time? (A directory's time says that names in it
/// differ: those are kept themselves.)
fn differs(
    st: &rustix::fs::Stat,
    (uid, gid): (Option<u32>, Option<u32>),
    mode: Option<u32>,
    mtime: Option<Time>,
) -> bool {
    uid.is_some_and(|uid| uid != st.st_uid)
        || gid.is_some_and(|gid| gid != st.st_gid)
        || mode.is_some_and(|mode| st.st_mode & 0o7777 != mode & 0o7777)
        || (sys::kind(st) != sys::S_IFDIR && mtime.is_some_and(|mtime| mtime != sys::mtime(st)))
}

/// Owner, mode and time of modification, as far as they are not so already.
fn set_what_differs(
    fd: BorrowedFd<'_>,
    (uid, gid): (Option<u32>, Option<u32>),
    mode: Option<u32>,
    mtime: Option<Time>,
) -> Result<(), Errno> {
    let st = sys::stat(fd)?;
    // The owner first: changing it clears set-user-id bits.
    let another = uid.is_some_and(|uid| uid != st.st_uid) || gid.is_some_and(|gid| gid != st.st_gid);
    if another {
        sys::set_owner(fd, uid, gid)?;
    }
    if let Some(mode) = mode.filter(|mode| another || st.st_mode & 0o7777 != mode & 0o7777) {
        sys::set_mode(fd, mode)?;
    }
    if mtime.is_some_and(|mtime| another || mtime != sys::mtime(&st)) {
        sys::set_times(fd, None, mtime)?;
    }
    Ok(())
}

/// Of a file that was made a moment ago; what is right already costs only a look.
fn set_owner_and_mode(fd: &OwnedFd, owner: Owner) -> Result<(), Trouble> {
    let st = sys::stat(fd)?;
    // The owner first: changing it clears set-user-id bits.
    let another = (st.st_uid, st.st_gid) != (owner.uid, owner.gid);
    if another {
        sys::set_owner(fd, Some(owner.uid), Some(owner.gid))?;
    }
    if another || st.st_mode & 0o7777 != owner.mode & 0o7777 {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(owner.mode & 0o7777))?;
    }
    Ok(())
}
