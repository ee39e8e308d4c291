//! The thread that asks the kernel to forget nodes when there are too many ([`crate::nodes::Room`]).
//!
//! Nodes of one shard after the other, so in no order: what is used again is looked up again. Directories only after
//! everything else, because what is below them holds them.

use crate::abi;
use crate::forest::Forest;
use crate::nodes::{Node, NodeTable};
use crate::session::Notices;
use replica::op::FileId;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Ends with [`Pruner::end`].
pub(super) struct Pruner {
    forest: Arc<Forest>,
    thread: Option<JoinHandle<()>>,
}

impl Pruner {
    /// `mounts`: by the number of the replicated directory.
    pub fn start(forest: Arc<Forest>, mounts: Vec<(usize, Notices)>) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name("pruner".into()).spawn({
            let forest = forest.clone();
            move || {
                let mut shard = 0;
                while forest.nodes().room().is_needed() {
                    if !make_room(&forest, &mounts, &mut shard) {
                        forest.nodes().room().rest();
                    }
                }
            }
        })?;
        Ok(Self { forest, thread: Some(thread) })
    }

    /// After the mounts are gone: nothing it says is waited for then.
    pub fn end(mut self) {
        self.forest.nodes().room().close();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which was told.
            let _ = thread.join();
        }
    }
}

/// `false`: everything idle was asked away, and there is not room enough.
fn make_room(forest: &Forest, mounts: &[(usize, Notices)], shard: &mut usize) -> bool {
    for directories in [false, true] {
        let mut asking = Vec::new();
        for _ in 0..NodeTable::SHARDS {
            *shard += 1;
            asking.extend(forest.nodes().idle(*shard, directories));
            if asking.len() >= abi::PRUNE_MAX && ask(forest, mounts, &std::mem::take(&mut asking)) {
                return true;
            }
        }
        if ask(forest, mounts, &asking) {
            return true;
        }
    }
    false
}

fn ask(forest: &Forest, mounts: &[(usize, Notices)], nodes: &[Arc<Node>]) -> bool {
    forest.nodes().room().make(nodes.len(), || {
        for (root, notices) in mounts {
            let here: Vec<_> = nodes.iter().filter(|node| node.root() == *root).collect();
            here.chunks(abi::PRUNE_MAX).for_each(|some| forget(notices, some));
        }
    })
}

fn forget(notices: &Notices, nodes: &[&Arc<Node>]) {
    let numbers: Vec<u64> = nodes.iter().map(|node| node.id.0).collect();
    if notices.forget(&numbers) {
        return;
    }
    for hint in nodes.iter().filter_map(|node| node.hint()) {
        let parent = if hint.parent < FileId::FIRST { abi::ROOT_ID } else { hint.parent.0 };
        notices.forget_name(parent, &hint.name);
    }
}
