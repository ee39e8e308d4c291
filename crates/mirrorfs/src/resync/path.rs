//! Where something is in the replicated tree: a directory of the configuration and the names below it.
//!
//! Paths of pending work may grow old: whoever renames something during a resync has its new place compared
//! again, so a path that leads nowhere any more is simply done.

use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A directory of the replicated tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct TreePath {
    /// Index in the configuration.
    pub root: usize,
    /// Names from there.
    pub names: Vec<Vec<u8>>,
}

impl TreePath {
    pub fn root(root: usize) -> Self {
        Self { root, names: Vec::new() }
    }

    pub fn join(&self, name: &[u8]) -> Self {
        let mut names = self.names.clone();
        names.push(name.to_vec());
        Self { root: self.root, names }
    }

    /// Directory and name; `None`: it is a replicated directory itself.
    pub fn split(&self) -> Option<(Self, Vec<u8>)> {
        let (name, names) = self.names.split_last()?;
        Some((Self { root: self.root, names: names.to_vec() }, name.clone()))
    }

    /// `O_PATH` descriptor of the directory; every step is confined and must be a directory.
    pub fn open(&self, roots: &[OwnedFd]) -> Result<OwnedFd, Errno> {
        let root = roots.get(self.root).ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut fd = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
        for name in &self.names {
            fd = rustix::fs::openat2(fd.as_fd(), OsStr::from_bytes(name), flags, Mode::empty(), sys::CONFINED)?;
        }
        Ok(fd)
    }

    /// The path of an entry, relative to its root.
    pub fn relative(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.names.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:/{}", self.root, String::from_utf8_lossy(&self.names.join(&b'/')))
    }
}
