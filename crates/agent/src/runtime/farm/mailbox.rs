//! What the heartbeats say to a farm's loop, until the loop has time for it: of each node only what still counts.
//!
//! When 64 nodes come together, each says thousands of words within seconds, and a loop that sets its addresses has no time for a second. A queue
//! would fill up, and a word that is thrown away is missing until its node says another one. **Invariant:** the last word of each node is never
//! lost, nor that it was silent before; there is one entry for each node.

use super::News;
use crate::heartbeat::Said;
use model::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Mailbox {
    waiting: Mutex<All>,
    bell: Notify,
}

/// In this order.
#[derive(Debug, Default)]
struct All {
    was_cut_off: bool,
    of: BTreeMap<NodeId, Waiting>,
}

/// In this order.
#[derive(Debug, Default)]
struct Waiting {
    was_silent: bool,
    is_heard: bool,
    said: Option<Said>,
}

impl Mailbox {
    /// Never waits.
    pub fn put(&self, news: News) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Heard(node) => waiting.of.entry(node).or_default().is_heard = true,
            // What it said before is forgotten with it.
            News::Silent(node) => drop(waiting.of.insert(node, Waiting { was_silent: true, ..Waiting::default() })),
            News::CutOff => *waiting = All { was_cut_off: true, of: BTreeMap::new() },
            News::Said(node, said) => waiting.of.entry(node).or_default().said = Some(said),
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Returns when there is something.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// All that waits.
    pub fn take(&self) -> Vec<News> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let of_one = |(node, it): (NodeId, Waiting)| {
            let silent = it.was_silent.then_some(News::Silent(node));
            let heard = it.is_heard.then_some(News::Heard(node));
            [silent, heard, it.said.map(|said| News::Said(node, said))].into_iter().flatten()
        };
        let all = waiting.was_cut_off.then_some(News::CutOff);
        all.into_iter().chain(waiting.of.into_iter().flat_map(of_one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::farm::{Wish, Word};

    fn word(highest: u64) -> Said {
        Said { word: Word { wish: Wish::In, highest, ..Word::default() }, ..Said::default() }
    }

    const fn of(news: &News) -> NodeId {
        match news {
            News::Heard(node) | News::Silent(node) | News::Said(node, _) => *node,
            News::CutOff => NodeId(0),
        }
    }

    #[tokio::test]
    async fn the_last_word_of_each_of_64_nodes_waits_whatever_else_they_said() {
        let mailbox = Mailbox::default();
        for highest in 0..1_000 {
            for node in (1..=64).map(NodeId) {
                if highest == 500 && node.0 % 2 == 0 {
                    mailbox.put(News::Silent(node));
                    mailbox.put(News::Heard(node));
                }
                mailbox.put(News::Said(node, word(highest)));
            }
        }
        mailbox.rung().await;
        let taken = mailbox.take();
        for node in (1..=64).map(NodeId) {
            let last = News::Said(node, word(999));
            let of_it: Vec<&News> = taken.iter().filter(|news| of(news) == node).collect();
            if node.0 % 2 == 0 {
                assert_eq!(of_it, [&News::Silent(node), &News::Heard(node), &last]);
            } else {
                assert_eq!(of_it, [&last]);
            }
        }
        assert!(mailbox.take().is_empty(), "nothing is told twice");
        mailbox.put(News::Said(NodeId(1), word(1)));
        mailbox.put(News::Silent(NodeId(1)));
        assert_eq!(mailbox.take(), [News::Silent(NodeId(1))], "a silent node has said nothing");
        mailbox.put(News::Said(NodeId(1), word(1)));
        mailbox.put(News::CutOff);
        mailbox.put(News::Heard(NodeId(2)));
        assert_eq!(mailbox.take(), [News::CutOff, News::Heard(NodeId(2))], "nor has any");
    }
}
