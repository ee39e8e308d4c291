//! What stays local to this node, where the leader's changes meet it.
//!
//! A directory the leader removes, or puts another in place of, is empty there; here it may hold names that are not
//! replicated. They go with it. **Invariant:** nothing that is replicated is removed by this.

use super::removal::remove_tree;
use crate::nodes::Scope;
use crate::sys;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Scopes of the replicated directories, and where these are.
pub(super) struct Locals {
    roots: Vec<(Vec<u8>, Scope)>,
}

impl Locals {
    pub fn new(roots: &[OwnedFd], scopes: &[Scope]) -> Self {
        let path = |root: &OwnedFd| path_of(root.as_fd()).unwrap_or_default();
        Self { roots: roots.iter().map(path).zip(scopes.iter().cloned()).collect() }
    }

    /// Empties the directory `name` of what stays local. `false`: there is something else in it, or nothing at all.
    pub fn clear(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
        let Some(scope) = self.scope(dir)?.map(|scope| scope.child(name)) else { return Ok(false) };
        let fd = sys::open_entry(dir, name)?;
        if scope.hides_nothing() || sys::kind(&sys::stat(&fd)?) != sys::S_IFDIR {
            return Ok(false);
        }
        let names = sys::names(&fd)?;
        if names.is_empty() || names.iter().any(|name| !scope.child(name).is_local()) {
            return Ok(false);
        }
        names.iter().try_for_each(|name| remove_tree(fd.as_fd(), name))?;
        Ok(true)
    }

    /// Scope of a replicated directory's directory.
    fn scope(&self, dir: BorrowedFd<'_>) -> Result<Option<Scope>, Errno> {
        if self.roots.iter().all(|(_, scope)| scope.hides_nothing()) {
            return Ok(None);
        }
        let path = path_of(dir)?;
        Ok(self.roots.iter().find_map(|(root, scope)| {
            let rest = match root.as_slice() {
                b"/" => path.strip_prefix(b"/")?,
                root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest[0] == b'/')?,
            };
            let names = rest.split(|b| *b == b'/').filter(|name| !name.is_empty());
            Some(names.fold(scope.clone(), |scope, name| scope.child(name)))
        }))
    }
}

fn path_of(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlink(sys::proc_path(fd), Vec::new()).map(std::ffi::CString::into_bytes)
}
