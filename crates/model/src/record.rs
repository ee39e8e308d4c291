//! The record of one module on one node: what decides who may serve (protocol.md §2).
//!
//! **Invariant:** "outdated" is never stored; it is computed from two histories.

use crate::ids::{DataId, Epoch, NodeId};
use crate::marks;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Role in which the record was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// No role.
    None,
    /// Followed a primary with a complete copy, or is being resynchronised.
    Second,
    /// Serves; a peer may be complete under this epoch.
    Primary,
    /// Serves; no peer can be complete under this epoch.
    Alone,
}

/// State of the data, apart from the role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataState {
    /// Every change acknowledged while mirrored is in the tree.
    Full,
    /// Complete as far as fsync goes, no further (R1).
    Crashed,
    /// A resync into this copy has begun and not committed.
    Inconsistent,
    /// Nothing is known: first start, unreadable record, foreign directory.
    Unknown,
}

/// What gave this copy the right to its epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// No epoch, or one that came with a resync.
    #[default]
    None,
    /// The witness granted it.
    Witness,
    /// The peer yielded.
    Consent,
    /// The takeover proof.
    Proof,
    /// An operator's `prim`.
    Operator,
    /// An operator's `prim --force`.
    Force,
}

/// Who votes on this pair: which witness must grant an epoch to a node that goes on alone (R16).
///
/// Exchanged by the pair while PRIM and SECOND, so that at any moment the two records name one in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "votes", rename_all = "lowercase")]
pub enum Witnesses {
    /// The one of the configuration: written by a program that knew no exchange, or before the first start.
    #[default]
    Configured,
    /// This one; `None`: there is none, the takeover proof counts.
    One {
        /// Number of the member.
        witness: Option<NodeId>,
    },
    /// Being exchanged: neither votes alone, so this node goes on alone by nobody's vote.
    Exchange {
        /// Voted before.
        old: Option<NodeId>,
        /// Votes afterwards.
        new: Option<NodeId>,
    },
}

/// What is on disk per module and node: checksummed, two alternating copies, fsynced as one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Stamp of the copy; zero until the first `prim` or the first resync.
    pub data_id: DataId,
    /// Number of agent starts: part of every ticket.
    pub boots: u64,
    /// Boot (machine) in which the record was written.
    pub boot_id: u128,
    /// Epoch this copy belongs to; `None` before the first `prim`.
    pub epoch: Option<Epoch>,
    /// Epochs this copy descends from, its own included; only grows.
    pub history: Vec<Epoch>,
    /// Role when it was written.
    pub role: Role,
    /// State of the data.
    pub data: DataState,
    /// May not claim by itself (R14).
    pub yielded: bool,
    /// Set by an orderly stop, cleared before anything else at start.
    pub clean: bool,
    /// Together with `clean`: this copy left its session with nothing that the peer lacks (drained), so that a
    /// resync needs to compare only what the peer's change map names.
    #[serde(default)]
    pub drained: bool,
    /// What gave this node the right to `epoch` (says who wins after a split brain, and tells the story).
    #[serde(default)]
    pub right: Right,
    /// The change map of this node holds everything that changed since both copies were equal under this
    /// epoch; `None`: there is no such map, a resync compares everything.
    #[serde(default)]
    pub map_since: Option<Epoch>,
    /// An operator opened the directories while the module was stopped: anybody may have written there since, and a
    /// resync into this copy keeps what it loses.
    #[serde(default)]
    pub released: bool,
    /// The directories were empty when an operator made this copy primary, and it has had no secondary since: it overwrites
    /// no copy that holds something, unless it is forced to.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub born_empty: bool,
    /// Who votes (R16).
    #[serde(default)]
    pub witnesses: Witnesses,
}

/// Of `boots` and `boot_id` only this means anything: which tickets came before, and whether the machine booted since.
impl core::hash::Hash for Record {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let Self {
            data_id,
            boots,
            boot_id,
            epoch,
            history,
            role,
            data,
            yielded,
            clean,
            drained,
            right,
            map_since,
            released,
            born_empty,
            witnesses,
        } = self;
        state.write_u128(marks::TICKET | u128::from(*boots) << 32);
        state.write_u128(marks::BOOT | (*boot_id & !marks::ALL));
        (data_id, epoch, history, role, data, yielded, clean, drained, right, map_since, released, born_empty)
            .hash(state);
        witnesses.hash(state);
    }
}

/// What two copies' histories say of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Same epoch.
    Equal,
    /// The other descends from mine.
    Older,
    /// Mine descends from the other.
    Newer,
    /// Neither descends from the other: a split brain happened.
    Diverged,
    /// One of the two has no epoch yet.
    Unrelated,
}

impl Record {
    /// A node that never held this module's data.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            data_id: DataId(0),
            boots: 0,
            boot_id: 0,
            epoch: None,
            history: Vec::new(),
            role: Role::None,
            data: DataState::Unknown,
            yielded: false,
            clean: true,
            drained: false,
            right: Right::None,
            map_since: None,
            released: false,
            born_empty: false,
            witnesses: Witnesses::Configured,
        }
    }

    /// May this copy be considered for serving at all?
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        matches!(self.data, DataState::Full | DataState::Crashed) && !self.yielded && self.epoch.is_some()
    }

    /// How my copy stands to another's.
    #[must_use]
    pub fn relation_to(&self, epoch: Option<Epoch>, history: &[Epoch]) -> Relation {
        match (self.epoch, epoch) {
            (Some(mine), Some(theirs)) if mine == theirs => Relation::Equal,
            (Some(mine), Some(theirs)) => match (history.contains(&mine), self.history.contains(&theirs)) {
                (true, _) => Relation::Older,
                (_, true) => Relation::Newer,
                _ => Relation::Diverged,
            },
            _ => Relation::Unrelated,
        }
    }
}
