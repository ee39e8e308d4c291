//! From a view to what a filter decides by: the same on every node, but for who it is.

use super::shares::Shares;
use alloc::vec::Vec;
use core::net::IpAddr;
use model::NodeId;
use model::farm::{Picture, Rule, Station, View};

/// What the configuration says of a farm's traffic on one interface. Scores are worked out once.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The virtual IPs.
    pub vips: Vec<IpAddr>,
    /// In order.
    pub rules: Vec<Rule>,
    /// Group that spreads the answers for the hardware address.
    pub arp_group: Option<u8>,
    /// By index of the group.
    pub groups: Vec<Shares>,
}

impl Plan {
    /// The picture of this view on node `me`; `None` when the view does not contain it.
    /// A node whose hardware address is not known yet cannot be passed anything: its buckets go to the next of their lists.
    #[must_use]
    pub fn picture(&self, view: &View, me: NodeId, mac_of: impl Fn(NodeId) -> Option<[u8; 6]>) -> Option<Picture> {
        let stations: Vec<Station> =
            view.present.nodes().filter_map(|node| Some(Station { node, mac: mac_of(node)? })).collect();
        let nodes: Vec<NodeId> = stations.iter().map(|station| station.node).collect();
        let place = |node: NodeId| nodes.binary_search(&node).ok().and_then(|at| u8::try_from(at).ok());
        let past: Vec<Vec<NodeId>> = view.past.iter().map(|set| set.nodes().collect()).collect();
        Some(Picture {
            number: view.counter,
            me: place(me)?,
            director: place(view.director).unwrap_or(model::farm::NOBODY),
            vips: self.vips.clone(),
            rules: self.rules.clone(),
            arp_group: self.arp_group,
            tables: self.groups.iter().map(|shares| shares.table(&nodes, &past)).collect(),
            stations,
        })
    }
}
