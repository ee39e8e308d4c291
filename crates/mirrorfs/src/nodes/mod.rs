//! The files the kernel (and the resync) knows: one [`Node`] per inode, numbered for the peer.
//!
//! It owns the numbering, the descriptors and the name hints; it never changes the tree.
//! **Invariant:** a node is in the table exactly as long as somebody counts on it (the kernel's lookups, a
//! pin, or a child whose hint names it), and while it is there its inode number cannot be reused, because the
//! node holds the inode open.

mod table;

pub use table::NodeTable;

use crate::outlet::InodeKey;
use replica::op::FileId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The entry by which a node can be named: `name` in directory `parent`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// The directory.
    pub parent: FileId,
    /// The entry.
    pub name: Box<[u8]>,
}

/// Whether changes of a file are the peer's business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Replicated. The rest of each `notreplicated` path that goes through here.
    Replicated(Arc<[Vec<Box<[u8]>>]>),
    /// Under a `notreplicated` path: stays on this node.
    Local,
}

impl Scope {
    /// Scope of the entry `name` of a directory with this scope.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Scope {
        let Scope::Replicated(paths) = self else {
            return Scope::Local;
        };
        if paths.is_empty() {
            return self.clone();
        }
        let mut rest = Vec::new();
        for path in paths.iter().filter(|p| p.first().is_some_and(|first| **first == *name)) {
            if path.len() == 1 {
                return Scope::Local;
            }
            rest.push(path[1..].to_vec());
        }
        Scope::Replicated(rest.into())
    }

    /// Scope of a replicated directory with these relative paths left out.
    #[must_use]
    pub fn root(notreplicated: &[String]) -> Scope {
        let split = |path: &String| -> Vec<Box<[u8]>> {
            path.split('/').filter(|part| !part.is_empty() && *part != ".").map(|part| part.as_bytes().into()).collect()
        };
        Scope::Replicated(notreplicated.iter().map(split).filter(|path| !path.is_empty()).collect())
    }
}

/// One inode of the local store.
#[derive(Debug)]
pub struct Node {
    /// Number, for the peer and the kernel.
    pub id: FileId,
    /// Identity.
    pub key: InodeKey,
    /// `st_mode & S_IFMT`.
    pub kind: u32,
    /// Index of the replicated directory.
    pub root: usize,
    /// Replicated or not.
    pub scope: Scope,
    fd: OwnedFd,
    hint: Mutex<Option<Hint>>,
    /// Changed only under the lock of the key's shard.
    refs: AtomicU64,
    mutations: AtomicU64,
    nameless: AtomicBool,
}

impl Node {
    /// `O_PATH` descriptor of the inode.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Stays on this node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.scope == Scope::Local
    }

    /// A name it has; `None` when the known one is gone.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.hint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No name leads to it any more, or none yet (`O_TMPFILE`): its changes are nobody else's business.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::Acquire)
    }

    /// Its last name went, or its first one came (order lock held).
    pub fn set_nameless(&self, nameless: bool) {
        self.nameless.store(nameless, Ordering::Release);
    }

    /// Changes of its data since the node was made. Read under the order lock it says whether what was read
    /// without that lock is still true.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.mutations.load(Ordering::Acquire)
    }

    /// Its data is about to change (order lock held).
    pub fn mutated(&self) {
        self.mutations.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_replicated_is_local_from_its_last_part_on() {
        let root = Scope::root(&["a/b".into(), "/tmp/".into(), String::new()]);
        assert_ne!(root, Scope::Local);
        assert_eq!(root.child(b"tmp"), Scope::Local);
        assert_eq!(root.child(b"tmp").child(b"x"), Scope::Local);
        assert_eq!(root.child(b"a").child(b"b").child(b"c"), Scope::Local);
        assert_ne!(root.child(b"a"), Scope::Local);
        assert_ne!(root.child(b"a").child(b"c"), Scope::Local);
        assert_ne!(root.child(b"b"), Scope::Local);
    }
}
