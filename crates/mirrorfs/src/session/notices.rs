//! What the kernel is told without having asked.

use super::Channel;
use crate::abi;
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::IntoBytes;

/// One mount's.
pub struct Notices {
    channel: Arc<Channel>,
    /// This kernel knows `NOTIFY_PRUNE`, as far as is known.
    prunes: AtomicBool,
}

impl Notices {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        Self { channel, prunes: AtomicBool::new(true) }
    }

    /// Nodes (at most [`abi::PRUNE_MAX`]) that the kernel should forget, if nobody uses them. `false`: it does not know
    /// how; names then, one by one ([`Self::forget_name`]).
    pub fn forget(&self, nodes: &[u64]) -> bool {
        if !self.prunes.load(Ordering::Relaxed) {
            return false;
        }
        let count = nodes.len() as u64;
        let known = self.channel.notify(abi::NOTIFY_PRUNE, &[[count, 0].as_bytes(), nodes.as_bytes()]);
        if known.is_err_and(|e| e == Errno::INVAL) {
            self.prunes.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// What the kernel has of a file's content is to be read again. Waits for what it is writing back, this very page included: never where
    /// that is answered.
    pub fn forget_pages(&self, node: u64) {
        // ENOENT: it has forgotten it itself.
        let _ = self.channel.notify(abi::NOTIFY_INVAL_INODE, &[[node, 0, 0].as_bytes()]);
    }

    /// A name that the kernel should look up again, and so lets its node go. Waits for whoever changes that directory.
    pub fn forget_name(&self, parent: u64, name: &[u8]) {
        let head = [parent, name.len() as u64];
        // ENOENT: it has forgotten it itself.
        let _ = self.channel.notify(abi::NOTIFY_INVAL_ENTRY, &[head.as_bytes(), name, &[0]]);
    }
}
