//! The files the kernel (and the resync) knows: one [`Node`] per inode, numbered for the peer.
//!
//! It owns the numbering, the descriptors and the name hints; it never changes the tree.
//! **Invariant:** a node is in the table exactly as long as somebody counts on it (the kernel's lookups, a
//! pin, or a child whose hint names it), and while it is there its inode number cannot be reused, because the
//! node holds the inode open.

mod room;
mod scope;
mod table;

pub use room::Room;
pub use scope::Scope;
pub use table::NodeTable;

use crate::estate::Estate;
use crate::outlet::InodeKey;
use replica::op::FileId;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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
    /// Replicated or not, as of a number of directories that crossed the edge.
    scope: Mutex<(u64, Scope)>,
    /// It was looked for replicated names of this file, as of that number (plus one).
    sought: AtomicU64,
    fd: OwnedFd,
    hint: Mutex<Option<Hint>>,
    /// Changed only under the lock of the key's shard.
    refs: AtomicU64,
    mutations: AtomicU64,
    nameless: AtomicBool,
    /// Where it is written down for the next process.
    estate: Option<Arc<Estate>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Before its descriptor is closed, and the number given to something else.
        self.note(Estate::forget);
    }
}

impl Node {
    /// `O_PATH` descriptor of the inode.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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
        self.note(|estate, fd| estate.nameless(fd, nameless));
    }

    fn note(&self, note: impl FnOnce(&Estate, rustix::fd::RawFd)) {
        if let Some(estate) = &self.estate {
            note(estate, self.fd.as_raw_fd());
        }
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
