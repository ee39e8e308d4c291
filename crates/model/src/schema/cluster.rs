//! What `cluster.xml` means: the nodes and the networks between them.

use super::check::{self, Source};
use super::cluster_table::CLUSTER;
use super::diagnostic::{Checked, Diagnostic};
use super::macros::{self, Environment};
use super::names::{self, Answers};
use super::tree::{Element, Position};
use super::typed::Reader;
use crate::ids::NodeName;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Most nodes of a cluster in this release.
pub const NODES_MAX: usize = 64;
const _: () = assert!(NODES_MAX <= crate::farm::MEMBERS_MAX, "a farm may have all of them");
/// Most lans of a cluster.
pub const LANS_MAX: usize = 8;

/// Most witnesses of a cluster: one votes, the others are spares.
pub const WITNESSES_MAX: usize = 3;

/// The cluster's shape.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterConfiguration {
    /// UDP port of the heartbeats.
    pub port: u16,
    /// Their period.
    pub pulse_ms: u64,
    /// In the order of the file.
    pub lans: Vec<Lan>,
    /// Third machines that grant epochs: the first one votes to begin with, the others are spares.
    #[serde(default)]
    pub witnesses: Vec<WitnessPlace>,
}

/// Where a witness answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WitnessPlace {
    /// Its name, that of no node.
    pub name: NodeName,
    /// Where the nodes reach it.
    pub addr: IpAddr,
}

/// One network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lan {
    /// Modules refer to it.
    pub name: String,
    /// Commands to other nodes go here (first lan when none says so).
    #[serde(default)]
    pub command: bool,
    /// Who is on it.
    pub nodes: Vec<LanNode>,
}

/// A node's place on one network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LanNode {
    /// The same on all lans.
    pub name: NodeName,
    /// Where others reach it.
    pub addr: IpAddr,
    /// Its own address when that is another (address translation).
    #[serde(default)]
    pub laddr: Option<IpAddr>,
}

impl LanNode {
    /// The address the node itself has.
    #[must_use]
    pub fn local_addr(&self) -> IpAddr {
        self.laddr.unwrap_or(self.addr)
    }
}

impl ClusterConfiguration {
    /// All nodes, in the order in which the file first names them.
    #[must_use]
    pub fn node_names(&self) -> Vec<NodeName> {
        let mut names: Vec<NodeName> = Vec::new();
        for node in self.lans.iter().flat_map(|lan| &lan.nodes) {
            if !names.contains(&node.name) {
                names.push(node.name.clone());
            }
        }
        names
    }

    /// The lan of that name.
    #[must_use]
    pub fn lan(&self, name: &str) -> Option<&Lan> {
        self.lans.iter().find(|lan| lan.name == name)
    }

    /// A node's places, with the lan's name, in the order of the file.
    pub fn places_of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a str, &'a LanNode)> {
        self.lans.iter().filter_map(move |lan| Some((lan.name.as_str(), lan.nodes.iter().find(|n| n.name == *node)?)))
    }

    /// The witness of that name.
    #[must_use]
    pub fn witness(&self, name: &NodeName) -> Option<&WitnessPlace> {
        self.witnesses.iter().find(|witness| witness.name == *name)
    }

    /// Where a member is called, best first: a node's addresses, or a witness's.
    #[must_use]
    pub fn addrs_of(&self, member: &NodeName) -> Vec<IpAddr> {
        match self.witness(member) {
            Some(witness) => alloc::vec![witness.addr],
            None => self.places_of(member).map(|(_, node)| node.addr).collect(),
        }
    }

    /// Which lan and node own this address.
    #[must_use]
    pub fn owner_of(&self, addr: IpAddr) -> Option<(&str, &NodeName)> {
        self.lans.iter().find_map(|lan| {
            let node = lan.nodes.iter().find(|n| n.addr == addr || n.laddr == Some(addr))?;
            Some((lan.name.as_str(), &node.name))
        })
    }

    /// The same as `cluster.xml`, in one canonical form: equal configurations give equal text.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = format!("<cluster>\n  <lans port=\"{}\" pulse=\"{}ms\">\n", self.port, self.pulse_ms);
        for lan in &self.lans {
            let command = if lan.command { " command=\"on\"" } else { "" };
            let _ = writeln!(xml, "    <lan name=\"{}\"{command}>", lan.name);
            for node in &lan.nodes {
                let laddr = node.laddr.map(|a| format!(" laddr=\"{a}\"")).unwrap_or_default();
                let _ = writeln!(xml, "      <node name=\"{}\" addr=\"{}\"{laddr}/>", node.name, node.addr);
            }
            xml.push_str("    </lan>\n");
        }
        xml.push_str("  </lans>\n");
        for witness in &self.witnesses {
            let _ = writeln!(xml, "  <witness name=\"{}\" addr=\"{}\"/>", witness.name, witness.addr);
        }
        xml.push_str("</cluster>\n");
        xml
    }
}

/// Checks a whole `cluster.xml`.
#[must_use]
pub fn check(
    mut root: Element,
    file: &str,
    environment: Environment<'_>,
    names: &Answers,
) -> Checked<ClusterConfiguration> {
    let source = Source { file, module: None };
    let mut found = macros::expand(&mut root, file, environment);
    let all_known = names::put_in(&mut root, &CLUSTER, file, names, &mut found);
    found.extend(check::tree(&root, &CLUSTER, source));
    let mut places = Vec::new();
    let configuration = read(&root, &mut places);
    // A node whose address is not known yet would be missing everywhere, and that is not what is wrong.
    if all_known {
        relations(&configuration, &places, file, &mut found);
        witness_relations(&configuration, &root, file, &mut found);
    }
    Checked::new(configuration, found)
}

/// Where a lan and its nodes were written.
struct LanPlaces {
    lan: Position,
    nodes: Vec<Position>,
}

fn read(root: &Element, places: &mut Vec<LanPlaces>) -> ClusterConfiguration {
    let mut it = ClusterConfiguration { port: 4800, pulse_ms: 100, lans: Vec::new(), witnesses: Vec::new() };
    let lans_row = CLUSTER.child("lans").expect("the table has <lans>");
    let lan_row = lans_row.child("lan").expect("the table has <lan>");
    let node_row = lan_row.child("node").expect("the table has <node>");
    let witness_row = CLUSTER.child("witness").expect("the table has <witness>");
    for reader in root.all("witness").map(|element| Reader { element, row: witness_row }) {
        if let (Some(Ok(name)), Some(addr)) = (reader.text("name").map(NodeName::new), reader.address("addr")) {
            it.witnesses.push(WitnessPlace { name, addr });
        }
    }
    let Some(lans) = root.child("lans") else { return it };
    let reader = Reader { element: lans, row: lans_row };
    it.port = reader.integer("port").and_then(|p| u16::try_from(p).ok()).unwrap_or(4800);
    it.pulse_ms = reader.milliseconds("pulse").unwrap_or(100);
    for element in lans.all("lan") {
        let reader = Reader { element, row: lan_row };
        let Some(name) = reader.text("name") else { continue };
        let mut lan = Lan { name: name.to_string(), command: reader.is_on("command"), nodes: Vec::new() };
        let mut here = LanPlaces { lan: element.place_of("name"), nodes: Vec::new() };
        for element in element.all("node") {
            let reader = Reader { element, row: node_row };
            let (Some(Ok(name)), Some(addr)) = (reader.text("name").map(NodeName::new), reader.address("addr")) else {
                continue;
            };
            lan.nodes.push(LanNode { name, addr, laddr: reader.address("laddr") });
            here.nodes.push(element.position);
        }
        it.lans.push(lan);
        places.push(here);
    }
    it
}

/// A witness on one of the two machines would fail with it, a spare on the machine of another as well.
fn witness_relations(it: &ClusterConfiguration, root: &Element, file: &str, found: &mut Vec<Diagnostic>) {
    const HELP: &str = "a witness is a third machine, with a name and an address of its own";
    let row = CLUSTER.child("witness").expect("the table has <witness>");
    let mut seen: Vec<(&str, IpAddr)> = Vec::new();
    for (index, element) in root.all("witness").enumerate() {
        let at = element.place_of("name");
        if index == WITNESSES_MAX {
            found.push(Diagnostic::error(file, at, format!("{WITNESSES_MAX} witnesses are possible")));
        }
        let reader = Reader { element, row };
        let (Some(name), Some(addr)) = (reader.text("name"), reader.address("addr")) else { continue };
        let by_name = it.node_names().into_iter().find(|node| node.as_str() == name);
        if let Some(node) = by_name.or_else(|| it.owner_of(addr).map(|(_, node)| node.clone())) {
            found.push(Diagnostic::error(file, at, format!("the witness is node {node}")).with_help(HELP));
        }
        if seen.iter().any(|(other, there)| *other == name || *there == addr) {
            found.push(Diagnostic::error(file, at, format!("the witness {name} stands twice")).with_help(HELP));
        }
        seen.push((name, addr));
    }
}

fn relations(it: &ClusterConfiguration, places: &[LanPlaces], file: &str, found: &mut Vec<Diagnostic>) {
    let names = it.node_names();
    let mut seen: Vec<(IpAddr, &NodeName, &str)> = Vec::new();
    for (index, (lan, at)) in it.lans.iter().zip(places).enumerate() {
        if it.lans[..index].iter().any(|earlier| earlier.name == lan.name) {
            found.push(
                Diagnostic::error(file, at.lan, format!("two lans are named {}", lan.name))
                    .with_help("each lan has a name of its own"),
            );
        }
        if lan.command && it.lans[..index].iter().any(|earlier| earlier.command) {
            found.push(
                Diagnostic::error(file, at.lan, "a second lan has command=\"on\"")
                    .with_help("only one lan carries commands"),
            );
        }
        if lan.command && names.iter().any(|name| !lan.nodes.iter().any(|node| node.name == *name)) {
            found.push(
                Diagnostic::error(file, at.lan, format!("lan {} has command=\"on\" and not all nodes", lan.name))
                    .with_help("give it a <node> for each node"),
            );
        }
        for (index, (node, at)) in lan.nodes.iter().zip(&at.nodes).enumerate() {
            if lan.nodes[..index].iter().any(|earlier| earlier.name == node.name) {
                found.push(
                    Diagnostic::error(file, *at, format!("node {} stands twice in lan {}", node.name, lan.name))
                        .with_help("remove one of them"),
                );
            }
            if let Some((_, owner, on)) = seen.iter().find(|(addr, ..)| *addr == node.addr) {
                found.push(
                    Diagnostic::error(
                        file,
                        *at,
                        format!(
                            "the address {} stands twice: for {owner} on lan {on}, and for {} on lan {}",
                            node.addr, node.name, lan.name
                        ),
                    )
                    .with_help("each node has an address of its own on each lan"),
                );
            }
            if node.laddr == Some(node.addr) {
                found.push(Diagnostic::note(
                    file,
                    *at,
                    format!("laddr of {} is its addr: it has no effect", node.name),
                ));
            }
            seen.push((node.addr, &node.name, &lan.name));
        }
    }
    if names.len() > NODES_MAX {
        let extra = places
            .iter()
            .zip(&it.lans)
            .find_map(|(at, lan)| Some(at.nodes[lan.nodes.iter().position(|n| n.name == names[NODES_MAX])?]));
        found.push(
            Diagnostic::error(
                file,
                extra.unwrap_or_default(),
                format!("the cluster has {} nodes: {NODES_MAX} are possible", names.len()),
            )
            .with_help("make two clusters of them"),
        );
    }
    if it.lans.len() > LANS_MAX {
        found.push(Diagnostic::error(
            file,
            places[LANS_MAX].lan,
            format!("the cluster has {} lans: {LANS_MAX} are possible", it.lans.len()),
        ));
    }
    if !names.is_empty()
        && !it.lans.iter().any(|lan| names.iter().all(|name| lan.nodes.iter().any(|node| node.name == *name)))
    {
        found.push(
            Diagnostic::error(file, places[0].lan, "no lan holds all nodes")
                .with_help("at least one network connects all nodes: give it a <node> for each"),
        );
    }
}
