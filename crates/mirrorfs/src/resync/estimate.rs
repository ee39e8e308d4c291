//! How much there is to compare: counted beside the resync, for its estimate of time only.

use crate::sys;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Deeper trees are estimated without what is deeper: each level holds a descriptor.
const DEPTH_MAX: usize = 256;

/// Bytes below the roots; 0 until they are counted.
#[derive(Clone, Default)]
pub(super) struct Estimate {
    bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Estimate {
    /// Counts in a thread of its own until done or dropped.
    pub fn start(roots: Arc<Vec<OwnedFd>>) -> Self {
        let estimate = Self::default();
        let Self { bytes, stop } = estimate.clone();
        let count = move || {
            let total: u64 = roots.iter().map(|root| count(root, &stop)).sum();
            bytes.store(total, Ordering::Relaxed);
        };
        // Without a thread there is no estimate, and nothing else is missing.
        let _ = std::thread::Builder::new().name("estimate".into()).spawn(count);
        estimate
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What stat says is allocated, each file once; whatever cannot be read counts nothing.
fn count(root: &OwnedFd, stop: &AtomicBool) -> u64 {
    let (Ok(first), Ok(names), Ok(own)) = (rustix::io::fcntl_dupfd_cloexec(root, 3), sys::names(root), sys::stat(root))
    else {
        return 0;
    };
    let mut linked = HashSet::new();
    let mut total = 0u64;
    let mut stack = vec![(first, names)];
    while let Some((dir, names)) = stack.last_mut() {
        if stop.load(Ordering::Relaxed) {
            return 0;
        }
        let Some(name) = names.pop() else {
            stack.pop();
            continue;
        };
        let Ok(Some(st)) = sys::stat_entry(&*dir, &name) else { continue };
        if st.st_dev != own.st_dev {
            continue;
        }
        if sys::kind(&st) == sys::S_IFREG && (st.st_nlink == 1 || linked.insert(st.st_ino)) {
            total += (st.st_size as u64).min(st.st_blocks as u64 * 512);
        } else if sys::kind(&st) == sys::S_IFDIR && stack.len() < DEPTH_MAX {
            let Some((dir, _)) = stack.last() else { break };
            if let Ok(fd) = sys::open_entry(dir, &name)
                && let Ok(names) = sys::names(&fd)
            {
                stack.push((fd, names));
            }
        }
    }
    total
}
