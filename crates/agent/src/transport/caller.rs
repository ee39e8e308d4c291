//! A member as its certificate proves it. The API's own notion of who asks is [`crate::api::Caller`].

use model::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// What a member of the cluster may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerRole {
    /// A server that runs modules.
    #[default]
    Node,
    /// The third machine that grants epochs: is asked, and may ask for nothing but the configuration in force.
    Witness,
}

/// Request extension: the member behind a TLS connection, proven by its certificate and listed in the applied
/// configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Its name in `cluster.xml`.
    pub name: NodeName,
    /// What it may do.
    pub role: PeerRole,
}
