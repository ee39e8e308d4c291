//! Stores into mapped memory that the disk did not take: the kernel keeps such pages as if they were written, and readers would see what is
//! on no disk for as long as it does.
//!
//! They are dropped, so that everybody reads what is there. **Invariant:** never by whoever answers the kernel: it waits for that answer.

use super::{Call, Front};
use crate::nodes::Node;
use crate::session::Notices;
use rustix::io::Errno;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Files whose pages are about to be dropped at once; those of more stay until the kernel forgets them.
const FILES_MAX: usize = 16;

/// Files whose pages are about to be dropped.
#[derive(Default)]
pub(super) struct Lost(Mutex<HashSet<u64>>);

impl Lost {
    /// `true`: nobody is about to do it yet.
    fn begins(&self, node: u64) -> bool {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.len() < FILES_MAX && files.insert(node)
    }

    /// Whatever fails from now on needs another one.
    fn goes(&self, node: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

impl Front {
    /// A page of this file could not be written back.
    pub(super) fn lost_in_a_mapping(&self, call: &Call<'_, '_>, node: &Arc<Node>, why: Errno) {
        let number = call.head.nodeid;
        let Some(notices) = call.reply.as_ref().and_then(|reply| reply.notices()) else { return };
        if !self.lost.begins(number) {
            return;
        }
        let name = node.hint().map_or_else(String::new, |hint| String::from_utf8_lossy(&hint.name).into_owned());
        (self.faults)(format!(
            "what a program stored in the mapped memory of '{name}' could not be written: {why}; it is lost (msync and fsync say so)"
        ));
        let lost = self.lost.clone();
        let dropped =
            std::thread::Builder::new().name("lost".into()).spawn(move || drop_pages(&lost, &notices, number));
        if let Err(e) = dropped {
            tracing::warn!("pages that are on no disk stay in memory: {e}");
            self.lost.goes(number);
        }
    }
}

fn drop_pages(lost: &Lost, notices: &Notices, node: u64) {
    lost.goes(node);
    notices.forget_pages(node);
}
