//! What clients send.

use super::module::ModuleView;
use crate::ids::{ModuleId, ModuleName, NodeName};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// An operator's verb on a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Start; the automaton decides the role.
    Start,
    /// Orderly stop.
    Stop,
    /// Stop and start scripts, same state.
    Restart,
    /// Full stop, then start: a failover if it was PRIM.
    StopStart,
    /// Exchange the roles.
    Swap,
    /// Start as primary: this copy is the good one.
    Prim,
    /// Start as secondary.
    Second,
    /// Stop now: kill what hangs.
    ForceStop,
    /// Uncover the directories of a stopped module.
    Release,
    /// Stop because the node goes down: whether it starts again with the node stays as it was.
    Shutdown,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::StopStart => "stopstart",
            Self::Swap => "swap",
            Self::Prim => "prim",
            Self::Second => "second",
            Self::ForceStop => "forcestop",
            Self::Release => "release",
            Self::Shutdown => "shutdown",
        })
    }
}

/// `POST /v1/modules/{m}/command`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandRequest {
    /// The verb.
    pub command: Command,
    /// `prim --force`: serve although this copy is not known to be good.
    #[serde(default)]
    pub force: bool,
    /// `prim|second fullsync`: compare everything.
    #[serde(default)]
    pub full: bool,
    /// Wait at most this long for the module to settle before answering ([`super::WAIT_MAX_MS`] at most).
    #[serde(default)]
    pub wait_ms: u64,
    /// A script or a checker of the module that asks, by its name: it stands in the log, and the automatic actions so far are
    /// not forgotten. Empty: a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

impl CommandRequest {
    /// The plain verb.
    #[must_use]
    pub const fn of(command: Command) -> Self {
        Self { command, force: false, full: false, wait_ms: 0, identity: String::new() }
    }
}

/// `POST /v1/modules/{m}/verify`: compares both copies online.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Repair content and attributes that differ.
    #[serde(default)]
    pub repair: bool,
    /// Cap; 0: none.
    #[serde(default)]
    pub bytes_per_s: u64,
}

/// Answer to a command: given only after the automaton has decided on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// What was decided, one sentence.
    pub sentence: String,
    /// Nothing is under way any more.
    #[serde(default)]
    pub settled: bool,
    /// The module after it.
    pub module: ModuleView,
}

/// Query of `GET /v1/modules/{m}/state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StateQuery {
    /// Count a farm's flows: the kernel lists all its sockets for it.
    #[serde(default)]
    pub flows: bool,
}

/// Query of `GET /v1/modules/{m}/log`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogQuery {
    /// At most this many, the newest (default 300).
    #[serde(default)]
    pub lines: Option<u32>,
    /// Levels I and D too.
    #[serde(default)]
    pub verbose: bool,
    /// Only what came after this position (`next` of the last answer).
    #[serde(default)]
    pub after: Option<u64>,
}

/// Query of install and uninstall.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InstallQuery {
    /// This node only.
    #[serde(default)]
    pub local: bool,
    /// Force the module's number (1..=256).
    #[serde(default)]
    pub id: Option<ModuleId>,
    /// Installed already: its files are replaced, what is in force stays.
    #[serde(default)]
    pub replace: bool,
}

/// `POST /v1/modules/{m}/config`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfigRequest {
    /// Macros to change first: `[["NAME","VALUE"], …]`.
    #[serde(default)]
    pub set: Vec<(String, String)>,
    /// Validate everywhere, apply nowhere.
    #[serde(default)]
    pub dry_run: bool,
    /// This node only.
    #[serde(default)]
    pub local: bool,
    /// Take a configuration that was in force before, instead of the editable copy: 1 is the last one.
    #[serde(default)]
    pub restore: Option<u32>,
    /// Take what is in force on this node, instead of the editable copy, and bring it to these nodes (none named: all
    /// others).
    #[serde(default)]
    pub export: Option<Vec<NodeName>>,
}

/// `POST /v1/cluster/init`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InitRequest {
    /// This node's name.
    pub name: NodeName,
    /// Its address on each network: `IP` or `LAN=IP`.
    pub addrs: Vec<String>,
}

/// `POST /v1/cluster/join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Address of a member (`IP` or `IP:PORT`).
    pub addr: String,
    /// From `stead cluster token`.
    pub token: String,
    /// This node's name; `None`: the host name.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Its address on each network; empty: the one it reaches the member from.
    #[serde(default)]
    pub addrs: Vec<String>,
    /// Join as the witness.
    #[serde(default)]
    pub witness: bool,
    /// Take the place of the member of that name (the witness), which is gone for good.
    #[serde(default)]
    pub replace: bool,
}

/// `POST /v1/cluster/config`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterConfigRequest {
    /// The new `cluster.xml`.
    pub xml: String,
    /// Validate everywhere, apply nowhere.
    #[serde(default)]
    pub dry_run: bool,
    /// Members that have left for good: the text has no line of theirs, and their certificates open nothing afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<NodeName>,
}

/// What was installed: name and number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstallAnswer {
    /// The module.
    pub module: ModuleName,
    /// Its number.
    pub id: ModuleId,
    /// Nodes that have it now.
    #[serde(default)]
    pub nodes: Vec<super::cluster::NodeResult>,
    /// Nodes that were not asked, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}
