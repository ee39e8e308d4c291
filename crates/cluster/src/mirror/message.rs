//! What the two agents say to each other about one module.
//!
//! Carried as JSON over mutual TLS, at most once; may be lost, late, reordered, repeated. **Invariant:** only an
//! answer to the last open HELLO of this boot gives a right, and it was on the sender's disk before it was sent.

use super::action::Ticket;
use super::election::Nobody;
use alloc::boxed::Box;
use alloc::vec::Vec;
use model::orders::Begin;
use model::{DataId, DataState, Epoch, NodeId, Record, Relation, Right, Role, Witnesses};
use serde::{Deserialize, Serialize};

/// Version of these messages.
pub const MESSAGE_VERSION: u32 = 1;

/// Agent to agent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// "This is what I have. If that makes me the leader, say that you consent."
    Hello {
        /// Number of this HELLO; also the number of the session it may begin.
        ticket: Ticket,
        /// What the sender has.
        facts: Box<Facts>,
    },
    /// Answer to a HELLO.
    Welcome {
        /// The HELLO answered.
        to: Ticket,
        /// Last number the sender used: its own HELLOs up to here are void.
        last: Ticket,
        /// What the sender had when it decided.
        facts: Box<Facts>,
        /// What it decided (and has on its disk).
        answer: Answer,
    },
    /// A hint without consequence of its own: "something changed here, say HELLO now".
    Nudge,
    /// An operator asked the secondary for a swap.
    SwapPlease,
    /// PRIM to its SECOND: from now on these vote; store it and say so (R16).
    Witnesses {
        /// Only the answer to the last one counts; an older one is not looked at.
        ticket: Ticket,
        /// To be stored.
        take: Witnesses,
    },
    /// It is on disk.
    WitnessesStored {
        /// What is answered.
        to: Ticket,
        /// What is on disk.
        have: Witnesses,
    },
}

/// What the asked node decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It will not claim by itself (R14): you may store your epoch.
    Yields,
    /// It listens for the session numbered by your HELLO.
    Follows {
        /// How the session begins.
        begin: Begin,
    },
    /// Neither of us may serve now.
    Neither {
        /// Why.
        why: Nobody,
    },
}

/// Is the sender serving?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// Module stopped.
    Stopped,
    /// No.
    No,
    /// Mounted, holding every answer.
    Hold,
    /// Open, under an epoch nobody else is complete in.
    Alone,
}

/// What one node has: a HELLO's content, and the only input of the election.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Whose.
    pub node: NodeId,
    /// Stamp of the copy.
    pub data_id: DataId,
    /// Epoch of the copy.
    pub epoch: Option<Epoch>,
    /// Epochs it descends from.
    pub history: Vec<Epoch>,
    /// Last role on disk.
    pub role: Role,
    /// State of the data.
    pub data: DataState,
    /// Gave its word not to claim by itself.
    pub yielded: bool,
    /// What gave it the right to its epoch.
    pub right: Right,
    /// Is it serving?
    pub serving: Serving,
    /// Its data plane has lived since the last session of this epoch.
    pub resumable: bool,
    /// It left its last session cleanly: nothing is here that is not there.
    pub left_clean: bool,
    /// Its change map began here.
    pub map_since: Option<Epoch>,
    /// Its directories were opened to anybody while it was stopped.
    #[serde(default)]
    pub released: bool,
    /// Its directories are empty.
    pub tree_empty: bool,
    /// It stepped aside: prefers its peer.
    pub aside: bool,
    /// What an operator wishes.
    pub wish: Wish,
    /// Highest ticket it used: with equal epochs, questions up to here are closed (R12).
    pub floor: Ticket,
    /// Who votes, by its record (R16).
    #[serde(default)]
    pub witnesses: Witnesses,
    /// First digits of the signature of its module's configuration; 0: not known.
    #[serde(default)]
    pub configuration: u64,
}

/// What an operator wants of this run of the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nothing special.
    #[default]
    None,
    /// Be primary.
    Prim {
        /// Whatever the copies say.
        force: bool,
    },
    /// Be secondary only.
    Second {
        /// Compare everything.
        full: bool,
    },
}

impl Facts {
    /// How this copy stands to the other (foreign stamps have diverged).
    #[must_use]
    pub fn relation_to(&self, other: &Self) -> Relation {
        match (self.epoch, other.epoch) {
            (Some(_), Some(_)) if self.data_id != other.data_id => Relation::Diverged,
            (Some(mine), Some(theirs)) if mine == theirs => Relation::Equal,
            (Some(mine), Some(_)) if other.history.contains(&mine) => Relation::Older,
            (Some(_), Some(theirs)) if self.history.contains(&theirs) => Relation::Newer,
            (Some(_), Some(_)) => Relation::Diverged,
            _ => Relation::Unrelated,
        }
    }

    /// Whether the module is another one there: two such nodes are no pair. What is not known is no reason.
    #[must_use]
    pub const fn is_configured_otherwise(&self, other: &Self) -> bool {
        self.configuration != 0 && other.configuration != 0 && self.configuration != other.configuration
    }

    /// Complete at least as far as fsync goes.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.epoch.is_some() && matches!(self.data, DataState::Full | DataState::Crashed)
    }

    /// The part that is in the record.
    #[must_use]
    pub fn of_record(node: NodeId, record: &Record) -> Self {
        Self {
            node,
            data_id: record.data_id,
            epoch: record.epoch,
            history: record.history.clone(),
            role: record.role,
            data: record.data,
            yielded: record.yielded,
            right: record.right,
            serving: Serving::No,
            resumable: false,
            left_clean: false,
            map_since: record.map_since,
            released: record.released,
            tree_empty: false,
            aside: false,
            wish: Wish::None,
            floor: Ticket::default(),
            witnesses: record.witnesses,
            configuration: 0,
        }
    }
}
