//! Nouns of a farm: rules, shares, and one whole picture of who owns which traffic.
//!
//! A *bucket* is one slot of the hash of a client; each has an *owner*. The kernel's filter (`platform::farm`) and its twin in
//! Rust (`cluster::farm::filter`) read the same [`Picture`].

use crate::NodeId;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Hash slots of one group.
pub const BUCKETS: usize = 16_384;
/// A bucket's owner, and as many distinct earlier owners less one.
pub const DEPTH: usize = 4;
/// Groups of one module.
pub const GROUPS_MAX: usize = 8;
/// Nodes of one farm.
pub const MEMBERS_MAX: usize = 64;
/// Virtual IPs of one module on one interface.
pub const VIPS_MAX: usize = 16;
/// Rules of one module.
pub const RULES_MAX: usize = 64;
/// The highest number a node of a farm may have: sets of nodes are told as bits.
pub const NODE_MAX: u16 = 128;
/// Earlier sets of serving nodes that a view remembers: a rolling restart of eight makes nine.
pub const PAST_MAX: usize = 16;
/// Flows of UDP that one interface's filter remembers: a later one takes the place of the one that was silent for longest.
pub const PINS_MAX: usize = 16_384;
/// "Nobody", where a member's index stands.
pub const NOBODY: u8 = 0xff;

/// Nodes of a farm, by number (1 to [`NODE_MAX`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeSet(pub u128);

impl NodeSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    const fn bit(node: NodeId) -> u128 {
        if node.0 >= 1 && node.0 <= NODE_MAX { 1 << (node.0 - 1) } else { 0 }
    }
    /// Is the node in it?
    #[must_use]
    pub const fn has(self, node: NodeId) -> bool {
        self.0 & Self::bit(node) != 0
    }
    /// With this node (one whose number is out of range cannot be).
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Self(self.0 | Self::bit(node))
    }
    /// Without this node.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Self(self.0 & !Self::bit(node))
    }
    /// Nobody?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// In the order of their numbers.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        (1..=NODE_MAX).map(NodeId).filter(move |node| self.has(*node))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl core::fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.nodes().map(|node| node.0)).finish()
    }
}

/// What a node wants of its farm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// No part of it.
    #[default]
    Out,
    /// Its share of the traffic.
    In,
    /// No new connections; those that stand may finish.
    Drain,
}

/// Who is in a farm. The same view gives the same tables on every node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    /// Grows: a node never goes back to a lower one.
    pub counter: u64,
    /// Who made it, and answers for the virtual IPs' hardware address.
    pub director: NodeId,
    /// Random number of the director's start: two views of one number cannot be confused.
    pub instance: u32,
    /// Who serves or drains.
    pub present: NodeSet,
    /// Who serves, then who served before: distinct sets, newest first, at most [`PAST_MAX`].
    pub past: Vec<NodeSet>,
}

impl View {
    /// Who owns traffic.
    #[must_use]
    pub fn serving(&self) -> NodeSet {
        self.past.first().copied().unwrap_or_default()
    }
}

/// What a node says of a farm, in every heartbeat: always the whole of it, so that a lost one does no harm.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Word {
    /// What it wants.
    pub wish: Wish,
    /// The view it acts on.
    pub view: Option<View>,
    /// The highest counter it ever acted on (since it started).
    pub highest: u64,
    /// Whom it hears, in both directions.
    pub hears: NodeSet,
}

/// What chooses the member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The client's address: its sessions stay together.
    OnAddr,
    /// The client's address and port: each session for itself.
    OnPort,
    /// The client's address and the packet's identification (IPv4; IPv6 has none: by address).
    OnIpid,
}

/// Transport of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// Its number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Which traffic, which group's table, and what spreads it. The first rule that matches decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Index of the virtual IP; `None`: all.
    pub vip: Option<u8>,
    /// Port of the virtual IP; `None`: all.
    pub port: Option<u16>,
    /// Transport.
    pub proto: Proto,
    /// What spreads it.
    pub filter: Filter,
    /// Index of the group.
    pub group: u8,
}

/// A member as the others on its network see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Station {
    /// Which node.
    pub node: NodeId,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// Owners of each bucket of a group: indexes into [`Picture::stations`], today's first, then earlier ones, then [`NOBODY`].
pub type Owners = Vec<[u8; DEPTH]>;

/// Everything a filter decides by, under one number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Picture {
    /// Of the view it was made from.
    pub number: u64,
    /// Index of this node.
    pub me: u8,
    /// Index of the member that answers for the virtual IPs' hardware address.
    pub director: u8,
    /// The members, present ones only.
    pub stations: Vec<Station>,
    /// For each member the number of the view in which it came, and did not leave since: a flow of UDP is pinned to it no longer.
    pub since: Vec<u64>,
    /// The virtual IPs.
    pub vips: Vec<IpAddr>,
    /// For each virtual IP the hardware address that no node sends from, so that every member receives what is sent to it
    /// (`vmac_invisible`); `None`: the members' own (`vmac_directed`).
    pub vmacs: Vec<Option<[u8; 6]>>,
    /// How long after its last datagram a flow of UDP stays with its member whoever owns its bucket, in milliseconds; 0: not at all.
    pub pin_ms: u64,
    /// How long after the first part of a packet the others go where that one went, in milliseconds.
    pub part_ms: u64,
    /// In order.
    pub rules: Vec<Rule>,
    /// Group whose table says who answers which client's question for the hardware address; `None`: the director, all.
    pub arp_group: Option<u8>,
    /// One table per group.
    pub tables: Vec<Owners>,
    /// A connection that nobody here has may stand where this node does not see it: its frames are dropped, not answered with a reset.
    pub doubts: bool,
}

impl Picture {
    /// Within the bounds that the kernel's maps have?
    #[must_use]
    pub fn fits(&self) -> bool {
        let count = self.stations.len();
        let is_known = |index: u8| usize::from(index) < count;
        (1..=MEMBERS_MAX).contains(&count)
            && is_known(self.me)
            && (self.director == NOBODY || is_known(self.director))
            && self.since.len() == count
            && self.vips.len() <= VIPS_MAX
            && self.vmacs.len() == self.vips.len()
            && self.rules.len() <= RULES_MAX
            && self.tables.len() <= GROUPS_MAX
            && self.rules.iter().all(|rule| usize::from(rule.group) < self.tables.len())
            && self.arp_group.is_none_or(|group| usize::from(group) < self.tables.len())
            && self.tables.iter().all(|table| {
                table.len() == BUCKETS && table.iter().flatten().all(|index| *index == NOBODY || is_known(*index))
            })
    }
}

/// What became of a frame: indexes the filter's counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Fate {
    /// Kept by this node.
    Accepted,
    /// Passed to the bucket's owner.
    Passed,
    /// A connection that is not this node's: passed to an earlier owner.
    SecondChance,
    /// Dropped: no rule names it.
    NoRule,
    /// Dropped: not sent to this node's hardware address.
    Flooded,
    /// Dropped: cut off or senseless.
    Malformed,
    /// Dropped: the agent has not been heard of for too long.
    Lease,
    /// Dropped: passed on too often.
    Ttl,
    /// Dropped: nobody owns its bucket, or in doubt nobody has its connection.
    Nobody,
    /// This node answers a question for a virtual IP's hardware address.
    Answered,
    /// Another member answers it.
    Silent,
    /// Somebody else claims a virtual IP.
    Conflict,
    /// Dropped: every member received it, and another one owns its bucket (`vmac_invisible`).
    Others,
    /// Dropped: a part of a packet whose first part, the one with the ports, was not seen here.
    Astray,
}

impl Fate {
    /// All, in the order of the counters.
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::Passed,
        Self::SecondChance,
        Self::NoRule,
        Self::Flooded,
        Self::Malformed,
        Self::Lease,
        Self::Ttl,
        Self::Nobody,
        Self::Answered,
        Self::Silent,
        Self::Conflict,
        Self::Others,
        Self::Astray,
    ];
}
