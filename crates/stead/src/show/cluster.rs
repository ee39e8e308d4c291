//! The cluster, this node, its ports, and what a change came to.

use super::table::{plain, table};
use super::units::{age, duration, short, when};
use crate::output::findings;
use model::api::{ChangeAnswer, ClusterState, ConfInfo, NodeView, PortList, TokenAnswer, WitnessNodeView};
use std::fmt::Write as _;

fn dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".into() } else { text }
}

/// `stead level`.
pub fn level(view: &NodeView, program: &str) -> String {
    let mut text = format!("stead {program}, agent {}, up {}\n", view.version, duration(view.uptime_ms));
    match (&view.name, view.paired) {
        (Some(name), true) => {
            let cluster = view.cluster.map_or_else(String::new, |c| format!(" of cluster {:016x}", c.0));
            let _ = writeln!(text, "node {name}{cluster}");
        }
        _ => text.push_str("not in a cluster yet\n  next: stead cluster init, or stead cluster join ADDR --token T\n"),
    }
    let reached = if view.realtime.reached { "real time" } else { "not real time" };
    let _ = writeln!(
        text,
        "heartbeats: {reached}{}",
        if view.realtime.detail.is_empty() { String::new() } else { format!(" ({})", view.realtime.detail) }
    );
    if !view.networks.is_empty() {
        let rows: Vec<Vec<String>> = view
            .networks
            .iter()
            .map(|n| {
                vec![
                    n.name.clone(),
                    dash(n.addr.clone()),
                    dash(n.interface.clone()),
                    if n.carrier { "up" } else { "down" }.into(),
                ]
            })
            .collect();
        let _ = write!(text, "\n{}", table(&["NETWORK", "ADDRESS", "INTERFACE", "CARRIER"], &rows, plain));
    }
    let mut rows = Vec::new();
    for peer in &view.peers {
        for link in &peer.links {
            let ways = match (link.heard, link.hears_us) {
                (true, true) => "both ways",
                (true, false) => "it does not hear us",
                (false, _) => "not heard",
            };
            rows.push(vec![
                peer.node.to_string(),
                link.network.clone(),
                ways.into(),
                age(link.seen_ms_ago),
                dash(peer.version.clone()),
            ]);
        }
        if peer.links.is_empty() {
            rows.push(vec![
                peer.node.to_string(),
                "-".into(),
                "not heard".into(),
                age(peer.seen_ms_ago),
                dash(peer.version.clone()),
            ]);
        }
    }
    if !rows.is_empty() {
        let _ = write!(text, "\n{}", table(&["PEER", "NETWORK", "HEARD", "LAST", "VERSION"], &rows, plain));
    }
    if !view.witnesses.is_empty() {
        let row = |(n, witness): (usize, &WitnessNodeView)| {
            let part = if n == 0 { "votes" } else { "spare" };
            let answers = if witness.answers { "answers" } else { "does not answer" };
            vec![witness.node.to_string(), witness.addr.clone(), part.into(), answers.into()]
        };
        let rows: Vec<Vec<String>> = view.witnesses.iter().enumerate().map(row).collect();
        let _ = write!(text, "\n{}", table(&["WITNESS", "ADDRESS", "PART", "NOW"], &rows, plain));
    }
    if !view.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &view.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// `stead cluster state`.
pub fn cluster_rows(state: &ClusterState) -> String {
    let rows: Vec<Vec<String>> = state
        .rows
        .iter()
        .map(|r| {
            vec![
                r.node.to_string(),
                r.module.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                dash(r.mode.clone()),
                r.id.map_or_else(|| "-".into(), |id| id.0.to_string()),
                r.state.map_or_else(|| "-".into(), |s| s.to_string()),
                r.status.map_or_else(|| "-".into(), |s| s.to_string()),
                r.applied_unix_ms.map_or_else(|| "-".into(), when),
                dash(short(&r.signature)),
                r.problem.as_ref().map_or_else(String::new, ToString::to_string),
            ]
        })
        .collect();
    table(&["NODE", "MODULE", "MODE", "ID", "STATE", "STATUS", "CONFIGURED", "SIGNATURE", "NOTE"], &rows, plain)
}

/// `stead cluster confinfo`.
pub fn conf_info(info: &ConfInfo) -> String {
    let rows: Vec<Vec<String>> = info
        .nodes
        .iter()
        .map(|n| {
            let note = n.problem.as_ref().map_or_else(String::new, ToString::to_string);
            vec![
                n.node.to_string(),
                dash(short(&n.signature)),
                n.applied_unix_ms.map_or_else(|| "-".into(), when),
                note,
            ]
        })
        .collect();
    let mut text = table(&["NODE", "SIGNATURE", "APPLIED", "NOTE"], &rows, plain);
    let mut known = info.nodes.iter().filter(|n| n.problem.is_none()).map(|n| &n.signature);
    if let Some(first) = known.next()
        && known.any(|signature| signature != first)
    {
        text.push_str(
            "\nthe nodes have different cluster configurations\n  next: stead cluster config FILE applies one on all\n",
        );
    }
    text
}

/// `stead module getports`.
pub fn ports(list: &PortList) -> String {
    let rows: Vec<Vec<String>> = list
        .ports
        .iter()
        .map(|p| {
            vec![
                p.protocol.clone(),
                p.port.to_string(),
                p.module.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                p.purpose.clone(),
            ]
        })
        .collect();
    table(&["PROTOCOL", "PORT", "MODULE", "PURPOSE"], &rows, plain)
}

/// A join token, with the command to type elsewhere.
pub fn token(answer: &TokenAnswer, now_unix_ms: u64) -> String {
    let addr = answer.addrs.first().map_or("ADDR", String::as_str);
    format!(
        "{}\n\nIt works once, for {}. On the other machine:\n  stead cluster join {addr} --token {}\n",
        answer.token,
        duration(answer.expires_unix_ms.saturating_sub(now_unix_ms)),
        answer.token
    )
}

/// What a change on several nodes came to.
pub fn changes(what: &str, answer: &ChangeAnswer, dry_run: bool) -> String {
    let mut text = findings(&answer.diagnostics);
    let nodes: Vec<String> = answer.nodes.iter().filter(|n| n.problem.is_none()).map(|n| n.node.to_string()).collect();
    let on = if nodes.is_empty() { String::new() } else { format!(" on {}", nodes.join(", ")) };
    let _ = match (answer.applied, dry_run) {
        (true, _) => writeln!(text, "{what}: applied{on}"),
        (false, true) => writeln!(text, "{what}: checked{on}, nothing applied (--dry-run)"),
        (false, false) => writeln!(text, "{what}: not applied"),
    };
    for change in &answer.changes {
        let _ = writeln!(text, "  - {change}");
    }
    for node in &answer.nodes {
        if let Some(problem) = &node.problem {
            let _ = writeln!(text, "  {}: {problem}", node.node);
        }
    }
    if !answer.next.is_empty() {
        let _ = writeln!(text, "  next: {}", answer.next);
    }
    text
}
