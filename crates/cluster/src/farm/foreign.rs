//! Nodes that have another configuration of this farm's traffic: they are in no view of this node's, and one of the two sides waits.
//!
//! Pure. Two tables for one address would break connections without anybody being dead. Who serves goes before who does not; of two
//! that serve, the one with the lower director; of two that begin, the lower node. **Invariant:** of two nodes that hear each other, at most
//! one goes before the other.

use super::member::Member;
use alloc::collections::BTreeMap;
use model::NodeId;
use model::farm::{Wish, Word};
use serde::{Deserialize, Serialize};

/// What they say, as long as they are heard.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub(super) struct Foreign {
    said: BTreeMap<NodeId, Word>,
}

impl Foreign {
    /// It has another configuration, and says this.
    pub fn hear(&mut self, node: NodeId, word: Word) {
        self.said.insert(node, word);
    }

    /// It is silent, or has the same one now.
    pub fn forget(&mut self, node: NodeId) {
        self.said.remove(&node);
    }

    /// Has that one another configuration?
    pub fn has(&self, node: NodeId) -> bool {
        self.said.contains_key(&node)
    }

    /// The first that this node lets go before it.
    pub fn first(&self, member: &Member) -> Option<NodeId> {
        let me = member.me();
        let mine = member.view().map(|view| view.director);
        let goes_before = |node: NodeId, word: &Word| match (word.view.as_ref().map(|view| view.director), mine) {
            (Some(theirs), Some(mine)) => theirs < mine,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => word.wish == Wish::In && node < me,
        };
        self.said.iter().find(|(node, word)| goes_before(**node, word)).map(|(node, _)| *node)
    }
}

/// What the membership makes of such a node: it is heard, and wants nothing of this farm.
pub(super) fn nothing(word: &Word) -> Word {
    Word { wish: Wish::Out, view: None, highest: word.highest, hears: word.hears }
}
