//! The promises of mirror.md, checked in a world.

use super::plane::Mode;
use super::{Set, Who, World, other};

impl World {
    /// The first promise broken here, in words.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        self.two_histories()
            .or_else(|| self.lost().or_else(|| self.not_a_prefix()))
            .or_else(|| self.half_a_copy())
            .or_else(|| self.vanished())
    }

    /// P2, also of a split brain that an operator made: what the loser acknowledged is kept before it is overwritten.
    fn vanished(&self) -> Option<String> {
        let vanished = self.ghost.vanished;
        (vanished != 0).then(|| format!("P2: {} was overwritten, and is in no quarantine", names(vanished)))
    }

    /// `syncdelta`: what it lets serve is complete.
    fn half_a_copy(&self) -> Option<String> {
        self.ghost.incomplete.then(|| "syncdelta: a copy that was not complete serves".to_string())
    }

    /// Acknowledged writes that may not be missing anywhere that serves.
    #[must_use]
    pub fn owed(&self) -> Set {
        let mut owed = self.ghost.fsynced;
        for write in 0..8 {
            let name = 1 << write;
            let gone = self.ghost.lost_by[write] & self.ghost.held_by[write] == self.ghost.held_by[write];
            if self.ghost.acked & name != 0 && !gone && self.ghost.excused & name == 0 {
                owed |= name;
            }
        }
        owed
    }

    /// Open: acknowledges on its own.
    fn is_open(&self, who: Who) -> bool {
        let node = &self.nodes[who];
        node.on && matches!(self.mode(who), Some(Mode::Alone(..)))
    }

    /// P2.
    fn two_histories(&self) -> Option<String> {
        (!self.ghost.forced && self.is_open(0) && self.is_open(1)).then(|| "P2: both nodes are open alone".to_string())
    }

    /// P1, and P3 with it: a stale copy that serves misses something.
    fn lost(&self) -> Option<String> {
        if self.ghost.forced {
            return None;
        }
        (0..2).find_map(|who| {
            // Mirrored with nobody behind it acknowledges nothing.
            let mirrored = matches!(self.mode(who), Some(Mode::Mirrored(_))) && self.follower(who).is_some();
            let serves = self.is_open(who) || mirrored;
            let missing = self.owed() & !self.nodes[who].tree;
            (serves && missing != 0).then(|| format!("P1: node{} serves without {}", who + 1, names(missing)))
        })
    }

    /// P4: a synchronised secondary shows everything acknowledged, and nothing that the primary does not have.
    fn not_a_prefix(&self) -> Option<String> {
        for who in 0..2 {
            let there = other(who);
            let (
                Some(Mode::Mirrored(session)),
                Some(Mode::Following { session: theirs, complete: true, linked: true, .. }),
            ) = (self.mode(who), self.mode(there))
            else {
                continue;
            };
            if session != theirs || !self.nodes[who].on || !self.nodes[there].on {
                continue;
            }
            let (source, target) = (self.nodes[who].tree, self.nodes[there].tree);
            let unacked = self.nodes[who].plane.as_ref().map_or(0, |plane| plane.unacked);
            if target & !source != 0 {
                return Some(format!("P4: node{} has {}, its primary does not", there + 1, names(target & !source)));
            }
            if source & !target & !unacked != 0 {
                let missing = source & !target & !unacked;
                return Some(format!("P4: node{} is synchronised and lacks {}", there + 1, names(missing)));
            }
        }
        None
    }
}

/// Writes by name.
#[must_use]
pub fn names(writes: Set) -> String {
    let names: Vec<String> =
        (0..8).filter(|write| writes & (1 << write) != 0).map(|write| format!("w{}", write + 1)).collect();
    names.join(", ")
}
