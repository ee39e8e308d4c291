//! What the API says of the cluster, and the answers of pairing.

use super::node::NetworkView;
use super::problem::{Diagnostic, Problem};
use crate::ids::{ClusterId, ModuleId, ModuleName, NodeId, NodeName};
use crate::state::{ModuleState, Status};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterView {
    /// Does this node belong to a cluster?
    pub paired: bool,
    /// Which.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// This node.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// Every member, witness included.
    #[serde(default)]
    pub members: Vec<MemberView>,
}

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberView {
    /// Number at pairing.
    pub id: NodeId,
    /// Name in `cluster.xml`.
    pub name: NodeName,
    /// A witness serves no module.
    #[serde(default)]
    pub witness: bool,
    /// Its addresses.
    #[serde(default)]
    pub networks: Vec<NetworkView>,
    /// Heard now (always true for this node).
    #[serde(default)]
    pub seen: bool,
}

/// `POST /v1/cluster/init`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InitAnswer {
    /// The new identity.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeName,
    /// The first join token; its fields stand beside the others, as `cluster token` prints them.
    #[serde(flatten)]
    pub token: TokenAnswer,
}

/// `POST /v1/cluster/token`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// To give to `stead cluster join`.
    pub token: String,
    /// Addresses of this node another one can join at, best first.
    #[serde(default)]
    pub addrs: Vec<String>,
    /// When it stops working.
    pub expires_unix_ms: u64,
}

/// `POST /v1/cluster/join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster joined.
    pub cluster: ClusterId,
    /// This node's name in it.
    pub node: NodeName,
    /// Everybody.
    #[serde(default)]
    pub members: Vec<NodeName>,
    /// Modules installed here on the way.
    #[serde(default)]
    pub modules: Vec<ModuleName>,
    /// What a person should know (clocks far apart).
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// `GET /v1/cluster/config`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The text of `cluster.xml`.
    pub xml: String,
    /// Its signature.
    #[serde(default)]
    pub signature: String,
    /// What the host names in it stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, IpAddr>,
}

/// What a change made on several nodes came to: all or none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ChangeAnswer {
    /// Is it in force? False for a dry run.
    pub applied: bool,
    /// What changed (or would change), one sentence each.
    #[serde(default)]
    pub changes: Vec<String>,
    /// Some of them cannot be taken while the module runs.
    #[serde(default)]
    pub needs_stop: bool,
    /// Per node.
    #[serde(default)]
    pub nodes: Vec<NodeResult>,
    /// Warnings of the configuration; errors come in a [`Problem`].
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
    /// The next command, empty when there is none.
    #[serde(default)]
    pub next: String,
}

/// What one node did of a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeResult {
    /// The node.
    pub node: NodeName,
    /// Signature in force there after the change.
    #[serde(default)]
    pub signature: String,
    /// Why it did not.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// `GET /v1/cluster/confinfo`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfInfo {
    /// Per node.
    pub nodes: Vec<ConfInfoRow>,
}

/// The cluster configuration one node has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfInfoRow {
    /// The node.
    pub node: NodeName,
    /// Signature of its `cluster.xml`.
    #[serde(default)]
    pub signature: String,
    /// When it was applied.
    #[serde(default)]
    pub applied_unix_ms: Option<u64>,
    /// It did not answer.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// `GET /v1/cluster/state`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterState {
    /// One row per node and module; a node without modules has one row without module.
    pub rows: Vec<ClusterStateRow>,
}

/// One module on one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStateRow {
    /// The node.
    pub node: NodeName,
    /// The module.
    #[serde(default)]
    pub module: Option<ModuleName>,
    /// mirror, farm, light.
    #[serde(default)]
    pub mode: String,
    /// Its number.
    #[serde(default)]
    pub id: Option<ModuleId>,
    /// Where it is.
    #[serde(default)]
    pub state: Option<ModuleState>,
    /// How settled.
    #[serde(default)]
    pub status: Option<Status>,
    /// When its configuration was applied.
    #[serde(default)]
    pub applied_unix_ms: Option<u64>,
    /// Signature of the active configuration.
    #[serde(default)]
    pub signature: String,
    /// The node did not answer.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// `GET /v1/modules/getports`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PortList {
    /// By number.
    pub ports: Vec<PortView>,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PortView {
    /// tcp or udp.
    pub protocol: String,
    /// Number.
    pub port: u16,
    /// What for.
    pub purpose: String,
    /// Whose, when it belongs to a module.
    #[serde(default)]
    pub module: Option<ModuleName>,
}
