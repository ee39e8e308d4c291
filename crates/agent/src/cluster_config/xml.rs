//! Reading `cluster.xml` (shape of SafeKit's, plus `<witness name addr/>`), with positions in every complaint.

use model::NodeName;
use model::api::{Diagnostic, Severity};
use roxmltree::{Document, Node, ParsingOptions};
use std::net::IpAddr;

/// A larger file is not a cluster configuration.
const TEXT_MAX: usize = 256 * 1024;
/// Networks of a cluster.
const LANS_MAX: usize = 8;
/// Nodes on a network.
const NODES_MAX: usize = 64;

/// The cluster's shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfiguration {
    /// UDP port of heartbeats.
    pub port: u16,
    /// Period of heartbeats in milliseconds.
    pub pulse_ms: u64,
    /// Heartbeats missed before a follower is lost.
    pub slost_count: u64,
    /// Heartbeats missed before a new leader (kept for compatibility).
    pub mlost_count: u64,
    /// Networks, in the order of the file: the first is preferred.
    pub lans: Vec<Lan>,
    /// The witness, if there is one.
    pub witness: Option<WitnessPlace>,
}

/// One network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lan {
    /// Modules refer to it by this name.
    pub name: String,
    /// Who is on it.
    pub nodes: Vec<LanNode>,
}

/// A node on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanNode {
    /// The node.
    pub name: NodeName,
    /// Address as the others see it.
    pub addr: IpAddr,
    /// Address on the machine itself, when a translation lies between.
    pub laddr: Option<IpAddr>,
    /// Where it stands in the file (line, column; 1-based).
    pub position: (u32, u32),
}

/// Where the witness answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WitnessPlace {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub addr: IpAddr,
}

impl ClusterConfiguration {
    /// Reads and checks a whole file; `file` is what complaints call it.
    ///
    /// # Errors
    /// Every complaint found, with its place.
    pub fn read(text: &str, file: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = Reader { file, text, found: Vec::new() };
        let configuration = reader.cluster();
        match configuration {
            Some(configuration) if reader.found.is_empty() => Ok(configuration),
            _ => Err(reader.found),
        }
    }

    /// All nodes, in the order they first appear.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeName> {
        let mut names: Vec<NodeName> = Vec::new();
        for node in self.lans.iter().flat_map(|lan| &lan.nodes) {
            if !names.contains(&node.name) {
                names.push(node.name.clone());
            }
        }
        names
    }

    /// A node's places: network and node, preferred network first.
    pub fn places_of<'a>(&'a self, name: &'a NodeName) -> impl Iterator<Item = (&'a str, &'a LanNode)> + 'a {
        self.lans.iter().filter_map(move |lan| {
            lan.nodes.iter().find(|node| node.name == *name).map(|node| (lan.name.as_str(), node))
        })
    }

    /// Addresses a member is called at, best first: a node's, or the witness's.
    #[must_use]
    pub fn addrs_of(&self, name: &NodeName) -> Vec<IpAddr> {
        match &self.witness {
            Some(witness) if witness.name == *name => vec![witness.addr],
            _ => self.places_of(name).map(|(_, node)| node.addr).collect(),
        }
    }

    /// Addresses a member listens on.
    #[must_use]
    pub fn listen_addrs_of(&self, name: &NodeName) -> Vec<IpAddr> {
        match &self.witness {
            Some(witness) if witness.name == *name => vec![witness.addr],
            _ => self.places_of(name).map(|(_, node)| node.laddr.unwrap_or(node.addr)).collect(),
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn complain(&mut self, (line, column): (u32, u32), message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic {
            severity: Severity::Error,
            file: self.file.to_owned(),
            line,
            column,
            width: 1,
            message: message.into(),
            source_line: self.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().to_owned(),
            help: help.into(),
        });
    }

    fn cluster(&mut self) -> Option<ClusterConfiguration> {
        if self.text.len() > TEXT_MAX {
            self.complain((0, 0), format!("the file is larger than {TEXT_MAX} bytes"), "");
            return None;
        }
        let options = ParsingOptions { allow_dtd: false, nodes_limit: 20_000, ..ParsingOptions::default() };
        let document = match Document::parse_with_options(self.text, options) {
            Ok(document) => document,
            Err(error) => {
                let at = error.pos();
                self.complain((at.row, at.col), format!("this is not XML: {error}"), "");
                return None;
            }
        };
        let root = document.root_element();
        if root.tag_name().name() != "cluster" {
            let message = format!("the file begins with <{}>, a cluster configuration with <cluster>", root.tag_name().name());
            self.complain(place(root), message, "stead cluster config shows the present one");
            return None;
        }
        self.attributes(root, &[]);
        let mut configuration = ClusterConfiguration {
            port: 4800,
            pulse_ms: model::limits::PULSE_MS,
            slost_count: 10,
            mlost_count: 20,
            lans: Vec::new(),
            witness: None,
        };
        let mut seen_lans = false;
        for child in root.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "lans" if !seen_lans => {
                    seen_lans = true;
                    self.lans(child, &mut configuration);
                }
                "witness" if configuration.witness.is_none() => configuration.witness = self.witness(child),
                "lans" | "witness" => {
                    let message = format!("a second <{}>", child.tag_name().name());
                    self.complain(place(child), message, "there is one at most");
                }
                other => self.complain(place(child), format!("<{other}> is unknown here"), "<cluster> holds <lans> and <witness>"),
            }
        }
        if !seen_lans {
            self.complain(place(root), "<lans> is missing", "<lans><lan name=\"net1\"><node name=\"…\" addr=\"…\"/></lan></lans>");
        }
        self.whole(&configuration, place(root));
        Some(configuration)
    }

    fn lans(&mut self, lans: Node<'_, '_>, configuration: &mut ClusterConfiguration) {
        self.attributes(lans, &["port", "pulse", "mlost_count", "slost_count"]);
        if let Some(port) = self.number(lans, "port", 1, 65_535) {
            configuration.port = u16::try_from(port).unwrap_or(4800);
        }
        configuration.pulse_ms = self.number(lans, "pulse", 20, 10_000).unwrap_or(configuration.pulse_ms);
        configuration.mlost_count = self.number(lans, "mlost_count", 3, 1_000).unwrap_or(configuration.mlost_count);
        configuration.slost_count = self.number(lans, "slost_count", 3, 1_000).unwrap_or(configuration.slost_count);
        for child in lans.children().filter(Node::is_element) {
            if child.tag_name().name() != "lan" {
                self.complain(place(child), format!("<{}> is unknown here", child.tag_name().name()), "<lans> holds <lan>");
                continue;
            }
            // console, framework, connect: SafeKit ignores them since 8.2, and so do we.
            self.attributes(child, &["name", "command", "console", "framework", "connect"]);
            let name = self.needed(child, "name").unwrap_or_default();
            if configuration.lans.iter().any(|lan| lan.name == name) {
                self.complain(place(child), format!("two networks are called '{name}'"), "every <lan> needs a name of its own");
            }
            if NodeName::new(&name).is_err() && !name.is_empty() {
                self.complain(place(child), format!("'{name}' cannot be the name of a network"), "use letters, digits, . _ -");
            }
            let nodes = child.children().filter(Node::is_element).filter_map(|node| self.node(node)).collect();
            configuration.lans.push(Lan { name, nodes });
        }
    }

    fn node(&mut self, node: Node<'_, '_>) -> Option<LanNode> {
        if node.tag_name().name() != "node" {
            self.complain(place(node), format!("<{}> is unknown here", node.tag_name().name()), "<lan> holds <node>");
            return None;
        }
        self.attributes(node, &["name", "addr", "laddr"]);
        let name = self.name(node);
        let addr = self.needed(node, "addr").and_then(|addr| self.addr(node, &addr));
        let laddr = node.attribute("laddr").and_then(|addr| self.addr(node, addr));
        Some(LanNode { name: name?, addr: addr?, laddr, position: place(node) })
    }

    fn witness(&mut self, witness: Node<'_, '_>) -> Option<WitnessPlace> {
        self.attributes(witness, &["name", "addr"]);
        let name = self.name(witness);
        let addr = self.needed(witness, "addr").and_then(|addr| self.addr(witness, &addr));
        Some(WitnessPlace { name: name?, addr: addr? })
    }

    fn name(&mut self, node: Node<'_, '_>) -> Option<NodeName> {
        let text = self.needed(node, "name")?;
        NodeName::new(&text).map_err(|error| self.complain(place(node), error.to_string(), "")).ok()
    }

    fn addr(&mut self, node: Node<'_, '_>, text: &str) -> Option<IpAddr> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(addr) if !addr.is_unspecified() && !addr.is_multicast() => Some(addr),
            _ => {
                self.complain(place(node), format!("'{text}' is not the address of a machine"), "an IPv4 or IPv6 address is needed");
                None
            }
        }
    }

    fn needed(&mut self, node: Node<'_, '_>, attribute: &str) -> Option<String> {
        let value = node.attribute(attribute).filter(|value| !value.is_empty());
        if value.is_none() {
            let message = format!("<{}> needs the attribute {attribute}", node.tag_name().name());
            self.complain(place(node), message, "");
        }
        value.map(str::to_owned)
    }

    fn number(&mut self, node: Node<'_, '_>, attribute: &str, least: u64, most: u64) -> Option<u64> {
        let text = node.attribute(attribute)?;
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.complain(place(node), format!("{attribute}=\"{text}\" is not a number from {least} to {most}"), "");
                None
            }
        }
    }

    fn attributes(&mut self, node: Node<'_, '_>, known: &[&str]) {
        for attribute in node.attributes().filter(|attribute| !known.contains(&attribute.name())) {
            let at = node.document().text_pos_at(attribute.range().start);
            let message = format!("<{}> has no attribute {}", node.tag_name().name(), attribute.name());
            let help = if known.is_empty() { "it has none".into() } else { format!("it has: {}", known.join(", ")) };
            self.complain((at.row, at.col), message, help);
        }
    }

    /// What only the whole can violate.
    fn whole(&mut self, configuration: &ClusterConfiguration, root: (u32, u32)) {
        let names = configuration.nodes();
        if configuration.lans.len() > LANS_MAX || names.len() > NODES_MAX {
            self.complain(root, format!("more than {LANS_MAX} networks or {NODES_MAX} nodes"), "");
        }
        for lan in &configuration.lans {
            for (i, node) in lan.nodes.iter().enumerate() {
                if lan.nodes[..i].iter().any(|other| other.name == node.name) {
                    self.complain(node.position, format!("'{}' is twice on network {}", node.name, lan.name), "");
                }
            }
        }
        let all: Vec<&LanNode> = configuration.lans.iter().flat_map(|lan| &lan.nodes).collect();
        for (i, node) in all.iter().enumerate() {
            if let Some(other) = all[..i].iter().find(|other| other.addr == node.addr) {
                let message = format!("{} is the address of '{}' already", node.addr, other.name);
                self.complain(node.position, message, "every node has an address of its own on every network");
            }
            if let Some(other) = all[..i].iter().find(|other| {
                other.name != node.name && other.name.as_str().eq_ignore_ascii_case(node.name.as_str())
            }) {
                self.complain(node.position, format!("'{}' and '{}' differ in capitals only", node.name, other.name), "");
            }
        }
        if !names.is_empty() && !configuration.lans.iter().any(|lan| lan.nodes.len() == names.len()) {
            self.complain(root, "no network holds all nodes", "at least one <lan> must have a <node> line for each of them");
        }
        if names.is_empty() && self.found.is_empty() {
            self.complain(root, "there is no <node>", "");
        }
        if let Some(witness) = &configuration.witness {
            if names.iter().any(|name| name.as_str().eq_ignore_ascii_case(witness.name.as_str())) {
                self.complain(root, format!("'{}' is a node and cannot be the witness as well", witness.name), "a witness is a third machine");
            }
        }
    }
}

fn place(node: Node<'_, '_>) -> (u32, u32) {
    let at = node.document().text_pos_at(node.range().start);
    (at.row, at.col)
}
