//! Open files and directories of one mount, by the number the kernel shows us with each request.

use crate::nodes::Node;
use crate::store::Answer;
use rustix::fd::OwnedFd;
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
}

impl Default for Handles {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), next: AtomicU64::new(1) }
    }
}

impl Handles {
    pub fn open(&self, node: Arc<Node>, fd: OwnedFd) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle { node, fd, position: Mutex::new(Some(0)) });
        self.shard(number).write().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        number
    }

    pub fn get(&self, number: u64) -> Answer<Arc<Handle>> {
        self.shard(number).read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned().ok_or(Errno::BADF)
    }

    pub fn close(&self, number: u64) {
        // Dropped after the lock: closing may write.
        let _closed = self.shard(number).write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Arc<Handle>>> {
        &self.shards[number as usize % SHARDS]
    }
}
