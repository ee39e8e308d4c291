//! Removes an entry with everything below it: however deep, with two descriptors, without crossing a mount point.

use super::protected::take_off;
use crate::sys;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Device and number of a directory.
pub(super) type Key = (u64, u64);

struct Above {
    key: Key,
    /// What is left to do there.
    names: Vec<Vec<u8>>,
    /// What we came from, to be removed on the way back.
    name: Vec<u8>,
}

pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let Some(mut here) = unlink_or_open(dir, name)? else { return Ok(()) };
    let mut names = sys::names(&here)?;
    let mut above: Vec<Above> = Vec::new();
    loop {
        if let Some(name) = names.pop() {
            if let Some(below) = unlink_or_open(here.as_fd(), &name)? {
                let names = std::mem::replace(&mut names, sys::names(&below)?);
                above.push(Above { key: key(&here)?, names, name });
                here = below;
            }
        } else if let Some(back) = above.pop() {
            here = up(&here, back.key)?;
            names = back.names;
            remove_dir(here.as_fd(), &back.name)?;
        } else {
            return remove_dir(dir, name);
        }
    }
}

fn remove_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let remove = || rustix::fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::REMOVEDIR);
    match remove() {
        Err(Errno::PERM) if take_off(dir)? | take_off(sys::open_entry(dir, name)?.as_fd())? => remove(),
        other => other,
    }
}

/// Gone, or a directory.
fn unlink_or_open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(e @ (Errno::ISDIR | Errno::PERM)) => match open_dir(dir, name) {
            Ok(below) => Ok(Some(below)),
            // A file that `chattr` protects, or its directory.
            Err(Errno::NOTDIR | Errno::LOOP) if e == Errno::PERM => {
                let file = sys::open_entry(dir, name)?;
                if !(take_off(dir)? | take_off(file.as_fd())?) {
                    return Err(e);
                }
                rustix::fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::empty()).map(|()| None)
            }
            Err(other) => Err(other),
        },
        Err(e) => Err(e),
    }
}

pub(super) fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(dir, OsStr::from_bytes(name), DIRECTORY, Mode::empty(), sys::CONFINED)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn key(dir: impl AsFd) -> Result<Key, Errno> {
    sys::stat(dir).map(|st| (st.st_dev, st.st_ino))
}

/// Back to the directory this one was entered from; another one (somebody moved it): an error.
pub(super) fn up(dir: impl AsFd, from: Key) -> Result<OwnedFd, Errno> {
    let parent = rustix::fs::openat(dir, "..", DIRECTORY, Mode::empty())?;
    if key(&parent)? == from { Ok(parent) } else { Err(Errno::STALE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deeper than any path can say.
    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let base = std::fs::File::open(dir.path()).unwrap();
        rustix::fs::mkdirat(&base, "top", Mode::RWXU).unwrap();
        let mut here = open_dir(&base, b"top").unwrap();
        for _ in 0..2_500 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = open_dir(&here, b"d").unwrap();
        }
        remove_tree(base.as_fd(), b"top").unwrap();
        assert_eq!(sys::names(&base).unwrap(), Vec::<Vec<u8>>::new());
    }
}
