//! What the API says of a farm module on one node: who is in it, who owns what, what became of the packets.

use crate::farm::{BUCKETS, Fate, Filter, Proto, Wish};
use crate::ids::NodeName;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The farm as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FarmView {
    /// Number of the view this node acts on; 0: of none.
    #[serde(default)]
    pub view: u64,
    /// Who answers for the virtual addresses and makes the next view.
    #[serde(default)]
    pub director: Option<NodeName>,
    /// All nodes of the farm.
    #[serde(default)]
    pub members: Vec<FarmMemberView>,
    /// Tables of shares.
    #[serde(default)]
    pub groups: Vec<FarmGroupView>,
    /// In order: the first that matches decides.
    #[serde(default)]
    pub rules: Vec<FarmRuleView>,
    /// Where the packet filter works.
    #[serde(default)]
    pub interfaces: Vec<FarmInterfaceView>,
    /// Connections to the virtual addresses that stand here; looked at while draining.
    #[serde(default)]
    pub draining: Option<u64>,
    /// What stands on this node; looked at only when it is asked for ([`super::StateQuery`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<FarmFlowsView>,
}

/// How many flows stand on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FarmFlowsView {
    /// Connections of TCP to the virtual addresses; `None`: they cannot be counted now.
    #[serde(default)]
    pub connections: Option<u64>,
    /// Flows of UDP that are remembered, so that they stay with their node: where clients' datagrams arrive first. `None`: as above.
    #[serde(default)]
    pub pinned: Option<u64>,
}

/// One node of a farm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FarmMemberView {
    /// Which.
    pub node: NodeName,
    /// It is heard (or is this one).
    pub heard: bool,
    /// What it wants of the farm.
    pub wish: Wish,
    /// It is in the view.
    pub present: bool,
    /// It owns traffic.
    pub serving: bool,
}

/// Shares of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FarmGroupView {
    /// Its name.
    pub name: String,
    /// Who owns how many of [`BUCKETS`].
    pub shares: Vec<(NodeName, u32)>,
}

impl FarmGroupView {
    /// A node's share in percent, rounded.
    #[must_use]
    pub fn percent(&self, node: &NodeName) -> u32 {
        let buckets = self.shares.iter().find(|(name, _)| name == node).map_or(0, |(_, buckets)| *buckets);
        let all = BUCKETS as u32;
        (buckets * 100 + all / 2) / all
    }
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FarmRuleView {
    /// Virtual address; empty: all.
    #[serde(default)]
    pub addr: String,
    /// Port; `None`: all.
    #[serde(default)]
    pub port: Option<u16>,
    /// `None`: questions for the hardware address.
    #[serde(default)]
    pub proto: Option<Proto>,
    /// What chooses the node.
    pub filter: Filter,
    /// Its group.
    pub group: String,
}

/// The packet filter on one interface.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FarmInterfaceView {
    /// Its name.
    pub interface: String,
    /// Virtual addresses there.
    pub addrs: Vec<String>,
    /// What became of their frames since the filter was loaded.
    #[serde(default)]
    pub counters: Vec<(Fate, u64)>,
    /// The same for each of the last views, newest first: of the frames that came while it was in force.
    #[serde(default)]
    pub generations: Vec<FarmGenerationView>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// What became of frames while one view was in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FarmGenerationView {
    /// Its number; 0: there was none, and nothing was accepted.
    pub view: u64,
    /// All but who claimed a virtual address.
    #[serde(default)]
    pub counters: Vec<(Fate, u64)>,
}
