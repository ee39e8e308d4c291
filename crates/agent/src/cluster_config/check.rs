//! What is checked of a new `cluster.xml` beyond its own text: against the members, and against this machine.

use super::ClusterConfiguration;
use super::applied::{Applied, Member};
use super::store::Cluster;
use crate::api::Answer;
use crate::transport::PeerRole;
use model::NodeName;
use model::api::{Code, Diagnostic, Problem, Severity};

pub(super) fn wrong(what: &str, found: Vec<Diagnostic>) -> Problem {
    let why = found.first().map(ToString::to_string).unwrap_or_default();
    Problem::new(Code::Misconfigured, what, why)
        .with_help("correct the file and apply it again: stead cluster config FILE")
        .with_diagnostics(found)
}

/// Every node of the text is a member, every member stands in the text.
pub(super) fn against_members(configuration: &ClusterConfiguration, members: &[Member], xml: &str) -> Vec<Diagnostic> {
    let is_member = |name: &NodeName, role| members.iter().any(|member| member.name == *name && member.role == role);
    let mut found = Vec::new();
    for name in configuration.node_names() {
        if !is_member(&name, PeerRole::Node) {
            let place = finding(xml, &format!("name=\"{name}\""), format!("'{name}' is not paired with this cluster"));
            found.push(Diagnostic {
                help: "pair it first: stead cluster token here, then stead cluster join there".into(),
                ..place
            });
        }
    }
    for witness in configuration.witnesses.iter().filter(|witness| !is_member(&witness.name, PeerRole::Witness)) {
        let place = finding(
            xml,
            &format!("name=\"{}\"", witness.name),
            format!("the witness '{}' is not paired with this cluster", witness.name),
        );
        let help =
            "pair it first: stead cluster token here, then stead cluster join ADDRESS --token TOKEN --witness there";
        found.push(Diagnostic { help: help.into(), ..place });
    }
    // A witness may be left out: then it does not vote (R16: the pair changes that in a joint step), and is not told either.
    for member in members.iter().filter(|member| member.role == PeerRole::Node) {
        if configuration.places_of(&member.name).next().is_none() {
            let missing = format!("'{}' is a member of the cluster and missing here", member.name);
            let help = format!(
                "add its <node> line to at least one <lan>; if it has left for good: stead cluster config FILE --forget {}",
                member.name
            );
            found.push(Diagnostic { help, ..finding(xml, "</lan>", missing) });
        }
    }
    found
}

/// A complaint at the place in the text where `needle` first stands; at the file as a whole when it does not.
fn finding(xml: &str, needle: &str, message: String) -> Diagnostic {
    let (line, column, source_line) = xml.find(needle).map_or((0, 0, String::new()), |at| {
        let before = &xml[..at];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = xml[start..].lines().next().unwrap_or_default().to_owned();
        (before.matches('\n').count() + 1, xml[start..at].chars().count() + 1, line)
    });
    Diagnostic {
        severity: Severity::Error,
        file: "cluster.xml".into(),
        line: u32::try_from(line).unwrap_or(0),
        column: u32::try_from(column).unwrap_or(0),
        width: u32::try_from(needle.chars().count()).unwrap_or(1),
        message,
        source_line,
        help: String::new(),
    }
}

/// What only this machine can check: the text is readable here, this node is in it, and its addresses are its own.
pub(super) fn check_here(cluster: &Cluster, applied: &Applied) -> Answer<()> {
    let name = &cluster.identity.name;
    let what = format!("{name} does not take the configuration");
    let configuration = applied.read().map_err(|found| wrong(&what, found))?;
    let mut found = against_members(&configuration, &applied.members, &applied.xml);
    if applied.member(name).is_none_or(|member| member.id != cluster.identity.node) {
        return Err(Problem::new(Code::Refused, what, format!("{name} would no longer be a member")));
    }
    for (lan, node) in configuration.places_of(name) {
        let addr = node.local_addr();
        // An address that was already in force may be missing for a moment (a cable, a boot): only new ones are judged.
        if !cluster.own_addrs().iter().any(|(_, own)| *own == addr) && !crate::pairing::is_local(addr) {
            let place = finding(
                &applied.xml,
                &format!("\"{addr}\""),
                format!("{addr} (network {lan}) is not an address of {name}"),
            );
            found.push(Diagnostic { help: format!("see the addresses of {name} with: ip address"), ..place });
        }
    }
    if found.is_empty() { Ok(()) } else { Err(wrong(&what, found)) }
}

pub(super) fn changes(old: &ClusterConfiguration, new: &ClusterConfiguration) -> Vec<String> {
    let lines = |configuration: &ClusterConfiguration| -> Vec<String> {
        let mut lines: Vec<String> = configuration
            .lans
            .iter()
            .flat_map(|lan| {
                lan.nodes.iter().map(|node| format!("{} at {} on network {}", node.name, node.addr, lan.name))
            })
            .collect();
        lines.extend(
            configuration.witnesses.iter().map(|witness| format!("witness {} at {}", witness.name, witness.addr)),
        );
        lines.push(format!("heartbeats on port {} every {} ms", configuration.port, configuration.pulse_ms));
        lines
    };
    let (old, new) = (lines(old), lines(new));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("no longer: {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("new: {line}"));
    gone.chain(come).collect()
}
