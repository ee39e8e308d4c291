//! What the leader's ids mean here: one descriptor each, opened once, by which everything is done.
//!
//! **Invariant:** an id is bound by (directory descriptor, entry name) only, never by a path, and only to the
//! type of file the leader said it is.

use super::trouble::Trouble;
use crate::sys;
use replica::op::FileId;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// More ids than the leader keeps known at once ([`crate::leader::KNOWN_MAX`]): beyond, it is not our leader.
const IDS_MAX: usize = 2 * crate::leader::KNOWN_MAX;

enum Slot {
    Bound {
        fd: OwnedFd,
        kind: u32,
        writable: bool,
        /// Device and inode, once they were asked for.
        inode: Option<(u64, u64)>,
    },
    /// Told to the leader already; changes to it mean nothing here until it is bound again.
    Absent,
}

/// Id → descriptor.
pub(super) struct Ids {
    slots: HashMap<FileId, Slot>,
}

impl Ids {
    pub fn new(roots: &[OwnedFd]) -> Result<Self, Errno> {
        let mut slots = HashMap::new();
        for (index, root) in roots.iter().enumerate() {
            let fd = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
            slots.insert(FileId::root(index), Slot::Bound { fd, kind: sys::S_IFDIR, writable: false, inode: None });
        }
        Ok(Self { slots })
    }

    pub fn insert(&mut self, id: FileId, fd: OwnedFd, kind: u32, writable: bool) -> Result<(), Trouble> {
        if self.slots.len() >= IDS_MAX {
            // Those that mean nothing are told again if they are used again.
            self.slots.retain(|_, slot| matches!(slot, Slot::Bound { .. }));
        }
        if self.slots.len() >= IDS_MAX {
            return Err(Trouble::fatal("the leader uses more ids than were agreed"));
        }
        self.slots.insert(id, Slot::Bound { fd, kind, writable, inode: None });
        Ok(())
    }

    /// Marks an id as unknown here. `true`: the leader was not told yet.
    /// A root always means something.
    pub fn set_absent(&mut self, id: FileId) -> bool {
        if id < FileId::FIRST {
            return id != FileId(0);
        }
        !matches!(self.slots.insert(id, Slot::Absent), Some(Slot::Absent))
    }

    pub fn remove(&mut self, id: FileId) {
        if id == FileId(0) {
            self.slots.retain(|id, _| *id < FileId::FIRST || id.0 >= 2 * replica::wire::LINKS_FROM);
        }
        if id >= FileId::FIRST {
            self.slots.remove(&id);
        }
    }

    /// The descriptor and the type.
    pub fn get(&self, id: FileId) -> Result<(BorrowedFd<'_>, u32), Trouble> {
        match self.slots.get(&id) {
            Some(Slot::Bound { fd, kind, .. }) => Ok((fd.as_fd(), *kind)),
            Some(Slot::Absent) | None => Err(Trouble::Absent(id)),
        }
    }

    /// Device and inode of what an id means here.
    pub fn inode(&mut self, id: FileId) -> Result<(u64, u64), Trouble> {
        match self.slots.get_mut(&id) {
            Some(Slot::Bound { inode: Some(known), .. }) => Ok(*known),
            Some(Slot::Bound { fd, inode, .. }) => {
                let st = sys::stat(&*fd)?;
                Ok(*inode.insert((st.st_dev, st.st_ino)))
            }
            Some(Slot::Absent) | None => Err(Trouble::Absent(id)),
        }
    }

    /// A directory.
    pub fn dir(&self, id: FileId) -> Result<BorrowedFd<'_>, Trouble> {
        match self.get(id)? {
            (fd, sys::S_IFDIR) => Ok(fd),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// The descriptor to sync a regular file by, if it is open for writing (it was written by it).
    pub fn synced_as(&self, id: FileId) -> Option<BorrowedFd<'_>> {
        match self.slots.get(&id) {
            Some(Slot::Bound { fd, kind: sys::S_IFREG, writable: true, .. }) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// A regular file, open for reading and writing from here on.
    pub fn file(&mut self, id: FileId) -> Result<BorrowedFd<'_>, Trouble> {
        match self.slots.get_mut(&id) {
            Some(Slot::Bound { fd, kind: sys::S_IFREG, writable, .. }) => {
                if !*writable {
                    *fd = sys::reopen(&*fd, OFlags::RDWR)?;
                    *writable = true;
                }
                Ok((*fd).as_fd())
            }
            Some(Slot::Bound { .. }) => Err(Errno::INVAL.into()),
            Some(Slot::Absent) | None => Err(Trouble::Absent(id)),
        }
    }
}
