//! The files the kernel (and the resync) knows: one [`Node`] per inode, numbered for the peer.
//!
//! It owns the numbering, the descriptors and the name hints; it never changes the tree.
//! **Invariant:** a node is in the table exactly as long as somebody counts on it (the kernel's lookups, a
//! pin, or a child whose hint names it), and while it is there its inode number cannot be reused, because the
//! node holds the inode open.

mod name;
mod room;
mod scope;
mod table;

pub use name::Name;
pub use room::Room;
pub use scope::Scope;
pub use table::NodeTable;

use crate::outlet::InodeKey;
use replica::op::FileId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The entry by which a node can be named: `name` in directory `parent`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// The directory.
    pub parent: FileId,
    /// The entry.
    pub name: Name,
}

/// See [`Node::is_nameless`].
const NAMELESS: u8 = 1;
/// See [`Node::is_plain`].
const PLAIN: u8 = 2;

/// One inode of the local store.
#[derive(Debug)]
pub struct Node {
    /// Number, for the peer and the kernel.
    pub id: FileId,
    /// Identity.
    pub key: InodeKey,
    /// Changed only under the lock of the key's shard.
    refs: AtomicU64,
    known: Mutex<Known>,
    fd: OwnedFd,
    root: u16,
    /// The four bits of `S_IFMT`.
    kind: u8,
    /// [`NAMELESS`], [`PLAIN`].
    state: AtomicU8,
}

// A server of files has millions: with its two counts (`Arc`) a node is an allocation of 112 bytes, and one byte more
// makes it 128. What only a few nodes have belongs elsewhere, and so does what the table knows for all of them.
const _: () = assert!(size_of::<Node>() <= 88);

/// What may change about a node.
#[derive(Debug)]
struct Known {
    hint: Option<Hint>,
    /// Replicated or not, as of a number of directories that crossed the edge.
    scope: Scope,
    asof: u32,
    /// It was looked for replicated names of this file, as of that number.
    sought: u32,
}

impl Node {
    /// `O_PATH` descriptor of the inode.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `st_mode & S_IFMT`.
    #[must_use]
    pub fn kind(&self) -> u32 {
        u32::from(self.kind) << 12
    }

    /// Index of the replicated directory.
    #[must_use]
    pub fn root(&self) -> usize {
        self.root.into()
    }

    /// A name it has; `None` when the known one is gone.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.known().hint.clone()
    }

    /// No name leads to it any more, or none yet (`O_TMPFILE`): its changes are nobody else's business.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.state.load(Ordering::Acquire) & NAMELESS != 0
    }

    /// It was made by this process, and nobody gave it an extended attribute since: of all that the kernel may ask for it has
    /// at most what it inherited from its directory, an access list.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.state.load(Ordering::Acquire) & PLAIN != 0
    }

    /// It was made this moment, or is about to get an attribute (order lock held).
    pub fn set_plain(&self, plain: bool) {
        self.set(PLAIN, plain);
    }

    fn set(&self, what: u8, is: bool) {
        if is {
            self.state.fetch_or(what, Ordering::AcqRel);
        } else {
            self.state.fetch_and(!what, Ordering::AcqRel);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
