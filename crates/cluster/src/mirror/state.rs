//! Where one node's automaton is, and what it remembers. Data only.

use super::action::{Settings, Ticket};
use super::event::{Advert, Event, Proof};
use super::message::{Facts, Wish};
use super::reason::Reason;
use crate::scripts::Why;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use model::marks::Counter;
use model::orders::{Begin, Session};
use model::{DataId, Epoch, Record, Right, Witnesses};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The automaton of one module on one node. Written as a whole into the journal now and then, so that what follows there
/// can be replayed by the program that wrote it. The runtime makes one when the agent starts (or the module is
/// installed), and keeps it: STOP is one of its states.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Mirror {
    pub(super) settings: Names,
    /// As last known to be on disk.
    pub(super) record: Record,
    pub(super) state: State,
    pub(super) why: Reason,
    /// Last number used in this boot.
    pub(super) last: Ticket,
    /// The record being stored, and what follows.
    pub(super) pending: Option<Box<Pending>>,
    pub(super) store_id: StoreId,
    /// What happened while it was being stored.
    pub(super) deferred: Vec<Event>,

    pub(super) peer: Peer,
    /// It said something since it was found silent: it lives, and its heartbeats will tell.
    #[serde(default)]
    pub(super) spoke: bool,
    /// Highest HELLO of the peer that was looked at.
    pub(super) seen: Ticket,
    /// The peer's questions up to here are closed (R12).
    pub(super) floor: Option<Ticket>,
    /// Highest counter of any epoch heard of.
    pub(super) counter: Counter,
    pub(super) hello: Option<Ticket>,
    /// HELLOs without an answer, saturating.
    pub(super) unanswered: u8,
    pub(super) question: Option<Ticket>,
    /// Questions the witness did not answer, saturating.
    pub(super) unheard: u8,
    /// The witness refused since the peer or the witness last changed.
    pub(super) refused: bool,
    pub(super) incarnation: Option<u64>,

    pub(super) window: bool,
    pub(super) proof: Option<Proof>,
    /// A primary's silence has lasted long enough to go alone by proof.
    pub(super) alone_due: bool,
    /// Frozen, and not talked to the peer since (H16).
    pub(super) frozen: bool,
    /// Was a complete secondary until the last session was lost, in this boot.
    pub(super) was_second: bool,
    /// Without a witness: may take over by proof. Begins with a linked session, ends for good with the window (R18).
    pub(super) may_prove: bool,

    pub(super) plane: Plane,
    /// The data plane has lived since it was mirrored.
    pub(super) resumable: bool,
    pub(super) app: AppState,
    /// It could not be started here, and the other node, which let this one serve, is about to be complete: it serves again then.
    #[serde(default)]
    pub(super) giving_up: Option<String>,
    /// An end that was begun while the other node took every write, and that node is gone: it goes on when writes are settled, one way or
    /// another. An application that ends has much to write, and would wait for ever.
    #[serde(default)]
    pub(super) leaves: Option<Goal>,
    pub(super) vip: bool,
    pub(super) loops: u16,

    pub(super) wish: Wish,
    /// When the two last spoke, the peer was in an exchange of roles that somebody asked for.
    pub(super) peer_stepped_aside: bool,
    pub(super) tree_empty: bool,
    pub(super) left_clean: bool,
    pub(super) aside: bool,
    pub(super) map_lost: bool,
    /// `prim fullsync` was asked for, and no resync was through since: no map is good for it.
    #[serde(default)]
    pub(super) compare_all: bool,
    /// What the map will hold everything since, once it is open: stored only then, because a process that dies between
    /// sync and open takes what it folded with it (found by a random walk).
    pub(super) map_base: Option<Epoch>,
    /// What counted before the epoch that is being opened by the peer's consent.
    #[serde(default)]
    pub(super) unopened: Option<Box<Unopened>>,
    /// Not now: a pause before the next try at something a person should look at.
    pub(super) blocked: bool,
    /// The peer could not apply changes: not joined again before the pause is over.
    pub(super) let_go: bool,
    /// Why this node could not start the module: its own files say so.
    #[serde(default)]
    pub(super) unfit: Option<String>,
    /// Another member said that this node is none, and nobody has spoken to it since.
    #[serde(default)]
    pub(super) left_out: bool,
    /// The witness has no memory of this module.
    pub(super) witness_empty: bool,
    /// PRIM: what the secondary was asked to store, and not confirmed yet (R16).
    pub(super) exchange: Option<(Ticket, Witnesses)>,
    /// What the peer's record says of who votes, as far as it is known.
    pub(super) peer_witnesses: Option<Witnesses>,
    /// Nothing is decided from it.
    #[serde(default)]
    pub(super) told: Told,
}

/// An epoch is on disk and nobody has served under it yet: what counts again if this node cannot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Unopened {
    pub(super) before: Record,
    pub(super) map_lost: bool,
}

/// What is remembered for the status only. Left out of the hash.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// The witness has shown that it knows this node, since it last asked it to register.
    pub(super) noted: bool,
    /// What the witness had granted when it last refused for it.
    pub(super) granted: Option<Epoch>,
    /// When, by the witness's clock.
    #[serde(default)]
    pub(super) granted_unix_ms: Option<u64>,
    /// The copy that serves, or would, had lost power, and the witness let it (L2).
    pub(super) crashed: bool,
}

impl Hash for Told {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Settings, shared by all copies of an automaton and left out of its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Names(pub(super) Arc<Settings>);

impl Hash for Names {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'a> Deserialize<'a> for Names {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        Settings::deserialize(deserializer).map(|settings| Self(Arc::new(settings)))
    }
}

impl core::ops::Deref for Names {
    type Target = Settings;
    fn deref(&self) -> &Settings {
        &self.0
    }
}

/// Tells the outcome of the last store from that of one before. Left out of the hash: only one is ever open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoreId(pub(super) u8);

impl Hash for StoreId {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What the detector says of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Peer {
    Unknown,
    Silent,
    Heard(Advert),
}

/// What the data plane was last known to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Plane {
    /// No process, or an order is on its way.
    Moving,
    Idle,
    Holding,
    Open,
}

/// The application, as far as scripts tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum AppState {
    Down,
    /// `prestart` runs: no start before it is through.
    Preparing,
    Starting,
    Up,
    Stopping {
        then_start: bool,
    },
}

/// Where the automaton is. Finer than what is shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum State {
    /// Stopped; still answers HELLOs: it may yield.
    Stop,
    /// The record of this boot is being stored.
    Booting,
    /// `prestart` runs; nothing is mounted, followed or said before it is through.
    Preparing,
    /// Not serving, not following.
    Wait,
    /// The right is there: syncing, then storing the epoch. No HELLO, no question.
    Claim(Claim),
    /// The epoch is on disk, the data plane is told to open.
    Opening,
    /// Open, recording; `join`: a target is being resynchronised.
    Alone { join: Option<Session> },
    /// Resync through: role=primary is being stored, or COMMIT is sent. Never back to Alone (R6).
    Commit { session: Session },
    /// Mirrored (`linked`), or resuming.
    Prim { session: Session, linked: bool },
    /// Mounted, no acknowledgement leaves.
    Hold,
    /// Follows.
    Second { session: Session, linked: bool, target: Option<Box<Lineage>> },
    /// Addresses down, data plane fenced, application killed; then Wait.
    Fencing,
    /// On the way out.
    Leaving(Leaving),
}

/// A claim on its way to disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) right: Right,
    pub(super) epoch: Epoch,
    pub(super) ticket: Ticket,
    /// The claim came from Hold: a failure goes back there.
    pub(super) held: bool,
}

/// What a target becomes with the commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Lineage {
    pub(super) data_id: DataId,
    pub(super) history: Vec<Epoch>,
    pub(super) witnesses: Witnesses,
}

/// Why and how far an orderly end has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Leaving {
    /// The application is stopping; then the data plane.
    Application(Goal),
    /// The data plane is draining.
    Plane(Goal),
    /// The record is stored; `poststop` runs.
    Release(Goal),
}

/// What an orderly end ends in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Goal {
    pub(super) end: End,
    /// Was PRIM or SECOND with a live session: may be followed without loss.
    pub(super) mirrored: bool,
    /// What for; `StopStart`: it starts again then.
    pub(super) why: Why,
}

/// See [`Goal`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum End {
    Stop,
    /// Not drained.
    Force,
    /// Swap: wait, preferring the peer.
    Aside,
}

/// A record being stored.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) record: Record,
    pub(super) then: Then,
}

/// What follows when it is on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Then {
    /// The module's start.
    Booted { adopted: Option<model::orders::Situation>, application: bool },
    /// Nothing; the state stands.
    Nothing,
    /// Answer this HELLO: yielded.
    Yielded { to: Ticket, facts: Box<Facts> },
    /// Answer this HELLO and follow.
    Follow {
        to: Ticket,
        facts: Box<Facts>,
        session: Session,
        begin: Begin,
        target: Option<Box<Lineage>>,
        data_id: DataId,
    },
    /// Open under the new epoch.
    Open { fresh_map: bool, stamp: bool },
    /// Send the commit.
    Commit { session: Session },
    /// Tell the primary (R16).
    Exchanged { to: Ticket },
    /// PRIM: the new witness votes here; the secondary is told.
    Voting,
    /// Confirm the commit.
    Confirm { session: Session },
    /// The orderly end goes on.
    Left,
    /// Writes are open: the end that was begun is gone on with.
    Leave(Goal),
    /// The claim is dropped.
    Dropped { reason: Reason },
}
