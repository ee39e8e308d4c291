//! When a node cannot know of connections that stand elsewhere: it answers for none that it does not know meanwhile.
//!
//! Pure. A frame of a connection that nobody in a node's view has is answered by that node's kernel, with a reset: right when the node that had it
//! is gone, wrong when it is only out of sight. Nodes that lose each other and meet again learn of each other one heartbeat after the other, and
//! clients' frames may come in anywhere by then. A client whose frame is dropped sends it again, and finds it answered.

use super::member::{Event, Member};
use model::NodeId;
use model::farm::{View, Wish};

/// What a member was before something happened.
pub struct Doubt {
    view: Option<View>,
    /// By itself: whatever follows.
    arises: bool,
}

impl Doubt {
    /// Before the member hears of it.
    #[must_use]
    pub fn before(member: &Member, event: &Event) -> Self {
        let is_back = |node: NodeId| member.peers().any(|(peer, is_alive, _)| peer == node && is_alive == Some(false));
        let arises = match event {
            Event::CutOff => true,
            Event::Heard(node) => is_back(*node),
            Event::Silent(_) | Event::Said { .. } | Event::Wished(_) | Event::Froze => false,
        };
        Self { view: member.view().cloned(), arises }
    }

    /// After it: by itself; or a node that lives and serves is in this one's view no more, since it acts on another one's; or one of its view acts on
    /// that of another director, with somebody in it who is none of this one's: two parts meet.
    #[must_use]
    pub fn arises(&self, member: &Member) -> bool {
        let left = |node: NodeId, mine: &View| {
            !mine.present.has(node) && self.view.as_ref().is_some_and(|before| before.present.has(node))
        };
        let meets = |node: NodeId, theirs: &View, mine: &View| {
            mine.present.has(node)
                && theirs.director != mine.director
                && theirs.present.nodes().any(|other| !mine.present.has(other))
        };
        let mut serving = member.peers().filter_map(|(node, is_alive, word)| {
            let word = word.filter(|word| is_alive == Some(true) && word.wish == Wish::In)?;
            Some((node, word.view.as_ref()))
        });
        self.arises
            || member.view().is_some_and(|mine| {
                serving.any(|(node, theirs)| left(node, mine) || theirs.is_some_and(|it| meets(node, it, mine)))
            })
    }
}
