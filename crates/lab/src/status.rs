//! What `stead lab status --json` prints.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// State of a host's power.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Running.
    Up,
    /// Power cut, or its PID 1 died.
    Off,
    /// Processes stopped.
    Frozen,
}

impl std::fmt::Display for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Off => "off",
            Self::Frozen => "frozen",
        })
    }
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Name and hostname.
    pub name: String,
    /// Address per network.
    pub addrs: BTreeMap<String, String>,
    /// PID 1 of the host as the machine sees it; null when off.
    pub pid: Option<i32>,
    /// Power.
    pub state: HostState,
    /// What is wrong with its links, in words; empty when nothing is.
    pub faults: Vec<String>,
    /// Its cgroup on the machine.
    pub cgroup: String,
    /// Output of its PID 1 and its service.
    pub log: String,
}

/// A whole lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Name of the lab.
    pub name: String,
    /// The nodes.
    pub nodes: Vec<HostStatus>,
    /// The client host.
    pub client: HostStatus,
    /// The witness host, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub witness: Option<HostStatus>,
    /// Addresses nobody has: for virtual IPs.
    pub vip_pool: Vec<String>,
    /// The switch's own address per network: answers ARP and ping.
    pub gateways: BTreeMap<String, String>,
}

impl Status {
    /// All hosts: nodes, client, witness.
    pub fn hosts(&self) -> impl Iterator<Item = &HostStatus> {
        self.nodes.iter().chain([&self.client]).chain(&self.witness)
    }
    /// One host by name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostStatus> {
        self.hosts().find(|host| host.name == name)
    }
}
