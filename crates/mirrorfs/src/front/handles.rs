//! Open files and directories of one mount, by the number the kernel shows us with each request.

use crate::estate::{Estate, HandleSlot};
use crate::forest::Forest;
use crate::nodes::Node;
use crate::store::Answer;
use replica::op::FileId;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const SHARDS: usize = 16;

/// One `open` or `opendir`.
pub(super) struct Handle {
    pub node: Arc<Node>,
    pub fd: OwnedFd,
    /// Where a directory's descriptor stands; `None`: somewhere else than the last answer ended.
    pub position: Mutex<Option<u64>>,
}

/// See the module's page.
pub(super) struct Handles {
    shards: Vec<RwLock<HashMap<u64, Arc<Handle>>>>,
    next: AtomicU64,
    /// Where they are written down for the next process.
    estate: Option<Arc<Estate>>,
    /// Opened by the process before this one, by the request that asked for it: the kernel may not have heard.
    before: RwLock<HashMap<u64, u64>>,
}

impl Handles {
    /// None; what is opened is written down in `estate`.
    pub fn new(estate: Option<Arc<Estate>>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
            estate,
            before: RwLock::default(),
        }
    }

    /// What the process before this one had open in the replicated directory `root`.
    pub fn inherit(estate: Arc<Estate>, forest: &Forest, root: usize) -> Self {
        let handles = Self::new(Some(estate.clone()));
        let mut before = HashMap::new();
        for (fd, slot) in estate.handles().filter(|(_, slot)| slot.root == root) {
            // SAFETY: the slot says that this inherited descriptor is an open file, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // What it costs to have lost it is an exec that inherits it.
            let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
            let Some(node) = forest.node(FileId(slot.node)) else {
                // Forgotten by the kernel, so closed: only the word of it was lost.
                estate.forget(fd.as_raw_fd());
                continue;
            };
            handles.next.fetch_max(slot.fh + 1, Ordering::Relaxed);
            before.insert(slot.request, slot.fh);
            // Where it stands is not known.
            handles.insert(slot.fh, Handle { node, fd, position: Mutex::new(None) });
        }
        *handles.before.write().unwrap_or_else(PoisonError::into_inner) = before;
        handles
    }

    /// `request`: which one asked for it.
    pub fn open(&self, node: Arc<Node>, fd: OwnedFd, request: u64) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(estate) = &self.estate {
            estate.handle(fd.as_raw_fd(), &HandleSlot { fh, node: node.id.0, root: node.root(), request });
        }
        self.insert(fh, Handle { node, fd, position: Mutex::new(Some(0)) });
        fh
    }

    /// What the process before this one opened for that very request, without the answer having arrived.
    pub fn opened_before(&self, request: u64) -> Option<(u64, Arc<Handle>)> {
        let number = *self.before.read().unwrap_or_else(PoisonError::into_inner).get(&request)?;
        Some((number, self.get(number).ok()?))
    }

    fn insert(&self, number: u64, handle: Handle) {
        self.shard(number).write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(handle));
    }

    pub fn get(&self, number: u64) -> Answer<Arc<Handle>> {
        self.shard(number).read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned().ok_or(Errno::BADF)
    }

    pub fn close(&self, number: u64) {
        // Dropped after the lock: closing may write.
        let closed = self.shard(number).write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let (Some(estate), Some(handle)) = (&self.estate, &closed) {
            estate.forget(handle.fd.as_raw_fd());
        }
    }

    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Arc<Handle>>> {
        &self.shards[number as usize % SHARDS]
    }
}
