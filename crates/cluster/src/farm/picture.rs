//! From a view to what a filter decides by: the same on every node, but for who it is.

use super::shares::Shares;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use model::NodeId;
use model::farm::{Picture, Rule, Station, View};
use model::limits::{PART_MS, PIN_MS};

/// What the configuration says of a farm's traffic on one interface. Scores are worked out once.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The virtual IPs.
    pub vips: Vec<IpAddr>,
    /// For each the hardware address that no node sends from, if it has one.
    pub vmacs: Vec<Option<[u8; 6]>>,
    /// In order.
    pub rules: Vec<Rule>,
    /// Group that spreads the answers for the hardware address.
    pub arp_group: Option<u8>,
    /// By index of the group.
    pub groups: Vec<Shares>,
}

/// Since when each member has been there without a gap, by the views that this node acted on.
///
/// **Invariant:** a node that left, or that this node knew nothing of for a while, is as new when it comes again: what was pinned to it
/// is not there any more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Presence(BTreeMap<NodeId, u64>);

impl Presence {
    /// This node acts on this view.
    pub fn see(&mut self, view: &View) {
        self.0.retain(|node, _| view.present.has(*node));
        for node in view.present.nodes() {
            self.0.entry(node).or_insert(view.counter);
        }
    }

    /// This node acts on no view.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// The number of the view in which the node came; 0: it is not there.
    #[must_use]
    pub fn since(&self, node: NodeId) -> u64 {
        self.0.get(&node).copied().unwrap_or(0)
    }
}

impl Plan {
    /// The picture of this view on node `me`; `None` when the view does not contain it.
    /// In no doubt. A node whose hardware address is not known yet cannot be passed anything: its buckets go to the next of their lists.
    #[must_use]
    pub fn picture(
        &self,
        view: &View,
        presence: &Presence,
        me: NodeId,
        mac_of: impl Fn(NodeId) -> Option<[u8; 6]>,
    ) -> Option<Picture> {
        let stations: Vec<Station> =
            view.present.nodes().filter_map(|node| Some(Station { node, mac: mac_of(node)? })).collect();
        let nodes: Vec<NodeId> = stations.iter().map(|station| station.node).collect();
        let place = |node: NodeId| nodes.binary_search(&node).ok().and_then(|at| u8::try_from(at).ok());
        let past: Vec<Vec<NodeId>> = view.past.iter().map(|set| set.nodes().collect()).collect();
        Some(Picture {
            number: view.counter,
            me: place(me)?,
            director: place(view.director).unwrap_or(model::farm::NOBODY),
            since: nodes.iter().map(|node| presence.since(*node)).collect(),
            vips: self.vips.clone(),
            vmacs: self.vmacs.clone(),
            pin_ms: PIN_MS,
            part_ms: PART_MS,
            rules: self.rules.clone(),
            arp_group: self.arp_group,
            tables: self.groups.iter().map(|shares| shares.table(&nodes, &past)).collect(),
            stations,
            doubts: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::farm::NodeSet;

    #[test]
    fn who_left_or_was_lost_sight_of_comes_as_a_new_one() {
        let view = |counter, nodes: &[u16]| View {
            counter,
            director: NodeId(1),
            instance: 1,
            present: nodes.iter().copied().map(NodeId).collect::<NodeSet>(),
            past: Vec::new(),
        };
        let mut presence = Presence::default();
        let since = |presence: &Presence| [1, 2, 3].map(|node| presence.since(NodeId(node)));
        presence.see(&view(4, &[1, 2]));
        presence.see(&view(4, &[1, 2]));
        presence.see(&view(5, &[1, 2, 3]));
        assert_eq!(since(&presence), [4, 4, 5]);
        presence.see(&view(6, &[1, 3]));
        presence.see(&view(9, &[1, 2, 3]));
        assert_eq!(since(&presence), [4, 9, 5]);
        presence.forget();
        presence.see(&view(10, &[1]));
        assert_eq!(since(&presence), [10, 0, 0]);
    }
}
