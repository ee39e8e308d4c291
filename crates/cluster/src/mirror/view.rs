//! What a mirror module shows: to the command line, the API, the console, the heartbeats.

use alloc::string::String;
use model::orders::Session;
use model::{DataId, DataState, Epoch, ModuleState, Role, Status};
use serde::{Deserialize, Serialize};

use super::event::Advert;

/// Everything a person or a program may want to know of the automaton.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    /// STOP, WAIT, ALONE, PRIM, SECOND.
    pub state: ModuleState,
    /// Settled, on its way, or blocked.
    pub status: Status,
    /// Why it is where it is: one sentence.
    pub reason: String,
    /// The command that ends a wait, when a person is needed.
    pub remedy: Option<String>,
    /// Epoch of the copy.
    pub epoch: Option<Epoch>,
    /// Stamp of the copy.
    pub data_id: DataId,
    /// State of the data.
    pub data: DataState,
    /// Role on disk.
    pub role: Role,
    /// Complete, and not known to be older than the peer's copy.
    pub uptodate: bool,
    /// Gave its word not to serve by itself.
    pub yielded: bool,
    /// What decides who may serve alone.
    pub arbiter: Arbiter,
    /// What the arbiter cannot promise, in words.
    pub cannot_promise: Option<String>,
    /// The session with the peer.
    pub session: Option<Session>,
    /// What the heartbeats say of the peer; `None`: not heard.
    pub peer: Option<Advert>,
    /// The application was started and not stopped.
    pub application: bool,
    /// The virtual IPs are wanted here.
    pub addresses: bool,
}

/// What decides who may serve alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arbiter {
    /// A third machine grants epochs.
    Witness,
    /// Silence, carrier, isolation test and virtual IP.
    Proof,
}
