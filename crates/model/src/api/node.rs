//! What the API says of a node.

use crate::ids::{ClusterId, NodeId, NodeName};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// `GET /v1/node`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// Version of the program.
    pub version: String,
    /// `None` before `cluster init` or `cluster join`.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Number at pairing.
    #[serde(default)]
    pub id: Option<NodeId>,
    /// Does it belong to a cluster?
    #[serde(default)]
    pub paired: bool,
    /// Which.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Since the agent started.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Scheduling of the heartbeat thread.
    #[serde(default)]
    pub realtime: RealtimeView,
    /// Networks of `cluster.xml` as this node sees them.
    #[serde(default)]
    pub networks: Vec<NetworkView>,
    /// The other nodes.
    #[serde(default)]
    pub peers: Vec<PeerNodeView>,
    /// The cluster's witnesses, the one that votes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessNodeView>,
    /// What a person should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A witness, from this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WitnessNodeView {
    /// Its name.
    pub node: NodeName,
    /// Its address.
    #[serde(default)]
    pub addr: String,
    /// It answers now.
    #[serde(default)]
    pub answers: bool,
}

/// What the heartbeat thread obtained from the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RealtimeView {
    /// `SCHED_FIFO` and locked memory.
    #[serde(default)]
    pub reached: bool,
    /// What was obtained, and why not more.
    #[serde(default)]
    pub detail: String,
}

/// One network of the cluster, from this node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NetworkView {
    /// Name of the lan.
    pub name: String,
    /// This node's address on it.
    #[serde(default)]
    pub addr: String,
    /// Interface that has the address; empty: none has.
    #[serde(default)]
    pub interface: String,
    /// Carrier of that interface.
    #[serde(default)]
    pub carrier: bool,
}

/// Another node, from this one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerNodeView {
    /// Its name.
    pub node: NodeName,
    /// Its program's version, when heard.
    #[serde(default)]
    pub version: String,
    /// Age of its last heartbeat on any network; `None`: never since this agent started.
    #[serde(default)]
    pub seen_ms_ago: Option<u64>,
    /// Per network.
    #[serde(default)]
    pub links: Vec<LinkView>,
}

/// One direction-aware link.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LinkView {
    /// Name of the lan.
    pub network: String,
    /// We hear the peer.
    #[serde(default)]
    pub heard: bool,
    /// The peer says it hears us.
    #[serde(default)]
    pub hears_us: bool,
    /// Age of the last heartbeat on it.
    #[serde(default)]
    pub seen_ms_ago: Option<u64>,
}
