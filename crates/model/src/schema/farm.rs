//! What `<farm>` and `<loadbalancing_list>` mean: rhythm, networks, groups and rules of a farm.
//!
//! A rule belongs to the group it stands in; the first rule that matches decides. **Invariant:** the group of every rule exists.

use super::module::Timings;
use super::table::ElementRow;
use super::tree::Element;
use super::typed::Reader;
use crate::farm::{Filter, Proto};
use crate::ids::NodeName;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// A farm as its configuration says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Farm {
    /// Heartbeats, and the silence after which a member is lost.
    pub timings: Timings,
    /// Networks of the farm; empty: all lans of the cluster.
    #[serde(default)]
    pub lans: Vec<String>,
    /// How long connections that stand may finish before a stop goes on.
    pub drain_ms: u64,
    /// The module's scripts open and close the traffic.
    #[serde(default)]
    pub by_script: bool,
    /// Tables of shares, in the order of the file.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// In the order of the file.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl Farm {
    /// Of one node, which shares nothing.
    #[must_use]
    pub const fn of_one(timings: Timings) -> Self {
        Self { timings, lans: Vec::new(), drain_ms: 0, by_script: false, groups: Vec::new(), rules: Vec::new() }
    }
}

/// Rules with one table of shares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its name; its resources are `farm.NAME` and `farm.NAME.NODE`.
    pub name: String,
    /// Weights that are written; a node that is not named has 1.
    #[serde(default)]
    pub powers: Vec<(NodeName, u64)>,
}

impl Group {
    /// The weight of a node.
    #[must_use]
    pub fn power(&self, node: &NodeName) -> u64 {
        self.powers.iter().find(|(name, _)| name == node).map_or(1, |(_, power)| *power)
    }
}

/// Which traffic, and what spreads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// A virtual address; `None`: all.
    #[serde(default)]
    pub addr: Option<IpAddr>,
    /// A port; `None`: all.
    #[serde(default)]
    pub port: Option<u16>,
    /// `None`: who answers the question for the hardware address.
    #[serde(default)]
    pub proto: Option<Proto>,
    /// What chooses the node.
    pub filter: Filter,
    /// Index of the group.
    pub group: u8,
}

fn children<'a>(parent: Reader<'a>, name: &'static str) -> impl Iterator<Item = Reader<'a>> {
    let row: &'static ElementRow = parent.row.child(name).expect("the table has the element the reader asks for");
    parent.element.all(name).map(move |element| Reader { element, row })
}

/// Reads what is right; the checker has said the rest.
pub(super) fn read(farm: Reader<'_>, vip: Reader<'_>) -> Farm {
    let pulse_ms = farm.milliseconds("pulse").unwrap_or(Timings::DEFAULT.pulse_ms);
    let lost = farm.integer("slost_count").unwrap_or(5);
    let (mut groups, mut rules) = (Vec::new(), Vec::new());
    let lists = children(vip, "loadbalancing_list");
    for group in lists.flat_map(|list| children(list, "group").collect::<Vec<_>>()) {
        let Some(name) = group.text("name") else { continue };
        let Ok(index) = u8::try_from(groups.len()) else { continue };
        let hosts = children(group, "cluster").flat_map(|powers| children(powers, "host").collect::<Vec<_>>());
        let powers = hosts
            .filter_map(|host| Some((NodeName::new(host.text("name")?).ok()?, host.integer("power").unwrap_or(1))))
            .collect();
        groups.push(Group { name: name.to_string(), powers });
        for rule in children(group, "rule") {
            let proto = match rule.text("proto") {
                Some("arp") => None,
                Some("udp") => Some(Proto::Udp),
                _ => Some(Proto::Tcp),
            };
            // One rule spreads the questions for all addresses: what else such rules say has no effect.
            if proto.is_none() && rules.iter().any(|earlier: &Rule| earlier.proto.is_none()) {
                continue;
            }
            rules.push(Rule {
                addr: rule
                    .text("virtual_addr")
                    .filter(|_| proto.is_some())
                    .and_then(|text| text.trim_matches(['[', ']']).parse().ok()),
                port: rule.text("port").filter(|_| proto.is_some()).and_then(|text| text.parse().ok()),
                proto,
                filter: match rule.text("filter") {
                    Some("on_port") => Filter::OnPort,
                    Some("on_ipid") => Filter::OnIpid,
                    _ => Filter::OnAddr,
                },
                group: index,
            });
        }
    }
    Farm {
        timings: Timings { pulse_ms, timeout_ms: pulse_ms.saturating_mul(lost) },
        lans: children(farm, "lan").filter_map(|lan| Some(lan.text("name")?.to_string())).collect(),
        drain_ms: farm.milliseconds("drain").unwrap_or(DRAIN_MS),
        by_script: vip.is_on("scriptcontrol"),
        groups,
        rules,
    }
}

/// What holds when nothing is written.
pub const DRAIN_MS: u64 = 30_000;

/// Is it written for a farm?
pub(super) fn is_farm(service: &Element) -> bool {
    service.value("mode") == Some("farm")
}
