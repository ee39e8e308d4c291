//! Does this node's disk answer with errors, and go on doing so?
//!
//! One look a second, and only after a call failed: nobody asks a disk that is well. It says what each look found; the
//! verdict is made of several, elsewhere. A full disk is no dead one.

use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

/// Written and synced by a look at a disk from which nobody wants anything.
const PROBE: [u8; 4096] = [0x5d; 4096];

/// The disks of the replicated directories and of the change map.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Error of a call since the last look; 0: none.
    failed: AtomicI32,
    /// What the last look found.
    found: AtomicI32,
}

/// Does it say that the disk fails? `EROFS`: its file system has given up writing.
pub(crate) fn is_failure(e: Errno) -> bool {
    matches!(e, Errno::IO | Errno::ROFS | Errno::UCLEAN)
}

impl Disk {
    /// A call failed like this.
    pub fn answered(&self, e: Errno) {
        if is_failure(e) {
            self.failed.store(e.raw_os_error(), Ordering::Release);
        }
    }

    /// Another look is due.
    pub fn is_suspect(&self) -> bool {
        self.failed.load(Ordering::Acquire) != 0 || self.found.load(Ordering::Acquire) != 0
    }

    /// What is found now: a call that failed since the last look, failing that what the disk does with a few bytes.
    /// 0: nothing is wrong. May take as long as the disk.
    pub fn look(&self, roots: &[OwnedFd], state_dir: &Path) -> i32 {
        let found = match self.failed.swap(0, Ordering::AcqRel) {
            0 => probe(roots, state_dir).err().filter(|e| is_failure(*e)).map_or(0, Errno::raw_os_error),
            failed => failed,
        };
        self.found.store(found, Ordering::Release);
        found
    }

    /// Nothing is served from it any more.
    pub fn forget(&self) {
        self.failed.store(0, Ordering::Release);
        self.found.store(0, Ordering::Release);
    }
}

fn probe(roots: &[OwnedFd], state_dir: &Path) -> Result<(), Errno> {
    for root in roots {
        write_probe(&sys::reopen(root, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    write_probe(&rustix::fs::open(state_dir, flags, Mode::empty())?)
}

/// Into a file without a name: nobody sees it, and it is gone with its descriptor.
fn write_probe(dir: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            sys::write_at(&file, &PROBE, 0)?;
            rustix::fs::fdatasync(&file)
        }
        // A file system that makes no such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => rustix::fs::fsync(dir),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_is_one_look_and_a_full_disk_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = [rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()];
        let disk = Disk::default();
        assert!(!disk.is_suspect());
        for not_its_fault in [Errno::NOSPC, Errno::DQUOT, Errno::NOENT, Errno::ACCESS] {
            disk.answered(not_its_fault);
        }
        assert!(!disk.is_suspect());
        disk.answered(Errno::IO);
        assert!(disk.is_suspect());
        assert_eq!(disk.look(&root, dir.path()), libc::EIO);
        assert!(disk.is_suspect(), "it is looked again");
        assert_eq!(disk.look(&root, dir.path()), 0, "by writing");
        assert!(!disk.is_suspect());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        disk.answered(Errno::ROFS);
        disk.forget();
        assert!(!disk.is_suspect());
    }
}
