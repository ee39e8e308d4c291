//! A module on a node: the table, and everything known of it.

use super::table::{plain, table};
use super::units::{age, bytes, duration, progress, short, when};
use crate::output::{Paint, findings};
use model::api::{ConfigView, ModuleView, PastConfiguration, Problem};
use model::orders::Progress;
use model::{ModuleName, ModuleState, NodeName, Status};
use std::fmt::Write as _;

/// One row of `stead state`: what a node says of a module, or why it says nothing.
#[derive(Clone, Debug)]
pub enum StateRow {
    /// It answered.
    Known(Box<ModuleView>),
    /// It did not; `said` is what it last told its peer.
    Silent {
        /// The module.
        module: ModuleName,
        /// The node.
        node: NodeName,
        /// Why.
        problem: Problem,
    },
}

/// One row per module and node, then what to do about what is not well.
pub fn state_table(rows: &[StateRow], paint: Paint) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| match row {
            StateRow::Known(v) => vec![
                v.module.to_string(),
                v.node.to_string(),
                v.state.to_string(),
                v.status.to_string(),
                v.reason.clone(),
            ],
            StateRow::Silent { module, node, problem } => {
                let why = if problem.why.is_empty() { problem.what.clone() } else { problem.why.clone() };
                vec![module.to_string(), node.to_string(), "?".into(), "-".into(), why]
            }
        })
        .collect();
    let mut text = table(&["MODULE", "NODE", "STATE", "STATUS", "REASON"], &cells, |row, column, cell| {
        match (&rows[row], column) {
            (StateRow::Known(v), 2 | 3) => paint.status(&cell, v.state, v.status),
            (StateRow::Silent { .. }, _) => paint.dim(&cell),
            _ => cell,
        }
    });
    let notes = notes(rows);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// How far a resync is that goes on; what is kept of one that is through is no news.
pub fn resync(v: &ModuleView) -> Option<&Progress> {
    let goes_on = match v.state {
        ModuleState::Alone => v.peer.as_ref().is_some_and(|peer| peer.state == Some(ModuleState::Second)),
        ModuleState::Prim | ModuleState::Second => v.status != Status::Ready,
        _ => false,
    };
    v.replication.as_ref()?.progress.as_ref().filter(|_| goes_on)
}

/// What is not well and what to do; the same of two nodes is said once.
fn notes(rows: &[StateRow]) -> String {
    let mut said: Vec<(&ModuleName, Vec<&NodeName>, String)> = Vec::new();
    let views = rows.iter().filter_map(|row| if let StateRow::Known(v) = row { Some(v) } else { None });
    for v in views {
        let resync = resync(v).map(|p| format!("resync {}", progress(p)));
        let warnings = v.warnings.iter().map(|warning| format!("warning: {warning}"));
        let cases = v.open_cases.iter().map(|case| {
            let near = if case.now { "" } else { "next to " };
            format!("{near}{}: {} (docs/GUARANTEES.md)", case.label, case.sentence)
        });
        let next = (!v.remedy.is_empty()).then(|| format!("next: {}", v.remedy));
        for note in resync.into_iter().chain(warnings).chain(cases).chain(next) {
            match said.iter_mut().find(|(module, _, text)| *module == &v.module && *text == note) {
                Some((_, nodes, _)) => nodes.push(&v.node),
                None => said.push((&v.module, vec![&v.node], note)),
            }
        }
    }
    let line = |(module, nodes, text): (&ModuleName, Vec<&NodeName>, String)| {
        let nodes: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        format!("{module} on {}: {text}\n", nodes.join(", "))
    };
    let mut text: String = said.into_iter().map(line).collect();
    text.push_str(&not_promised(rows));
    text
}

/// Each promise that does not hold, once for all modules and nodes, and in few words.
fn not_promised(rows: &[StateRow]) -> String {
    let mut said: Vec<(&str, Vec<&ModuleName>)> = Vec::new();
    for v in rows.iter().filter_map(|row| if let StateRow::Known(v) = row { Some(v) } else { None }) {
        for promise in &v.not_promised {
            let short = promise.split_once(": ").map_or(promise.as_str(), |(short, _)| short);
            match said.iter_mut().find(|(text, _)| *text == short) {
                Some((_, modules)) if modules.contains(&&v.module) => {}
                Some((_, modules)) => modules.push(&v.module),
                None => said.push((short, vec![&v.module])),
            }
        }
    }
    let line = |(text, modules): (&str, Vec<&ModuleName>)| {
        let names: Vec<&str> = modules.iter().map(|module| module.as_str()).collect();
        format!("{}: not everything is promised now: {text} (stead why -m {})\n", names.join(", "), modules[0])
    };
    said.into_iter().map(line).collect()
}

/// Everything known of a module on a node.
pub fn details(v: &ModuleView, paint: Paint, now_unix_ms: u64) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut line = |name, value: String| {
        if !value.is_empty() {
            lines.push((name, value));
        }
    };
    line("reason", v.reason.clone());
    if v.since_unix_ms > 0 {
        line("since", format!("{} ({})", when(v.since_unix_ms), duration(now_unix_ms.saturating_sub(v.since_unix_ms))));
    }
    line("next", v.remedy.clone());
    line("data", v.data.clone());
    if v.is_mirror() {
        line("epoch", v.epoch.map_or_else(|| "none yet".into(), |e| e.to_string()));
    }
    line("arbiter", v.voter.as_ref().map_or_else(|| v.arbiter.clone(), |name| format!("{}: {name}", v.arbiter)));
    line("protected by", v.protection.clone());
    for case in &v.open_cases {
        line(if case.now { "open case" } else { "next to" }, format!("{}: {}", case.label, case.sentence));
    }
    if let Some(peer) = &v.peer {
        let said = match (peer.state, peer.status) {
            (Some(state), Some(status)) => format!("{state} {status}"),
            (Some(state), None) => state.to_string(),
            _ => "unknown".into(),
        };
        line("peer", format!("{} {said}, heard {}", peer.node, age(peer.seen_ms_ago)));
    }
    for vip in &v.vips {
        let place = if vip.interface.is_empty() { String::new() } else { format!(" on {}", vip.interface) };
        let problem = if vip.problem.is_empty() { String::new() } else { format!("; {}", vip.problem) };
        line("virtual IP", format!("{}{place}: {}{problem}", vip.addr, if vip.held { "here" } else { "not here" }));
    }
    if let Some(r) = &v.replication {
        line("replication", if r.sentence.is_empty() { "not running".into() } else { r.sentence.clone() });
        for dir in &r.dirs {
            line("directory", dir.clone());
        }
        if let Some(p) = &r.progress {
            line(if resync(v).is_some() { "resync" } else { "last resync" }, progress(p));
        }
        if r.situation.is_some() {
            let c = &r.counters;
            line(
                "changes",
                format!(
                    "{} ({}), {} in flight, {} zones dirty, {} free",
                    c.frames,
                    bytes(c.bytes),
                    c.in_flight,
                    c.dirty_zones,
                    bytes(c.free_bytes)
                ),
            );
        }
        if let Some(v) = &r.verify {
            let what = if v.scrub { "scrub" } else { "comparison" };
            line(
                "compared",
                if v.running {
                    format!("{what} runs: {}", progress(&v.progress))
                } else if v.failed.is_empty() {
                    format!("last {what}: {} entries, {} differed", v.progress.entries, v.differences)
                } else {
                    format!("last {what} ended early: {}", v.failed)
                },
            );
        }
        for kept in &r.quarantines {
            line("kept files", kept.clone());
        }
    }
    if let Some(a) = &v.application {
        let pids: Vec<String> = a.pids.iter().take(16).map(u32::to_string).collect();
        let more = if a.pids.len() > 16 { ", …" } else { "" };
        let state = if a.running { "running" } else { "stopped" };
        line(
            "application",
            if pids.is_empty() { state.into() } else { format!("{state}, processes {}{more}", pids.join(" ")) },
        );
    }
    for it in &v.resources {
        let why = if it.why.is_empty() { String::new() } else { format!(" ({})", it.why) };
        line("resource", format!("{} {} since {}{why}", it.name, it.value, when(it.since_unix_ms)));
    }
    line("configuration", short(&v.signature));
    for promise in &v.not_promised {
        line("not promised", promise.clone());
    }
    for warning in &v.warnings {
        line("warning", warning.clone());
    }
    let head = format!("{} {}", v.state, v.status);
    let mut text = format!("{} on {}: {}\n", v.module, v.node, paint.status(&head, v.state, v.status));
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<13}  {value}");
    }
    text
}

/// `stead module list`.
pub fn list(modules: &[ModuleView]) -> String {
    if modules.is_empty() {
        return "no module is installed on this node\n  next: stead module install NAME|X.safe|DIR\n".into();
    }
    let rows: Vec<Vec<String>> = modules
        .iter()
        .map(|v| {
            let signature = match (v.signature.is_empty(), v.is_lost) {
                (true, true) => format!("lost: stead state -m {}", v.module),
                (true, false) => "never configured".into(),
                (false, _) => short(&v.signature),
            };
            vec![v.module.to_string(), v.state.to_string(), v.status.to_string(), signature]
        })
        .collect();
    table(&["MODULE", "STATE", "STATUS", "CONFIGURATION"], &rows, plain)
}

/// `stead confinfo`.
pub fn configuration(view: &ConfigView) -> String {
    let mut text = view.module.to_string();
    if !view.mode.is_empty() {
        let _ = write!(text, ", {}", view.mode);
    }
    if let Some(id) = view.id {
        let _ = write!(text, ", number {}", id.0);
    }
    text.push('\n');
    if !view.macros.is_empty() {
        let rows: Vec<Vec<String>> = view.macros.iter().map(|m| vec![m.name.clone(), m.value.clone()]).collect();
        let _ = write!(text, "\n{}", table(&["MACRO", "VALUE"], &rows, plain));
    }
    let rows: Vec<Vec<String>> = view
        .nodes
        .iter()
        .map(|n| {
            let note = match &n.problem {
                Some(problem) => problem.to_string(),
                None if n.active.is_empty() => "never applied: stead config".into(),
                None if !n.editable.is_empty() && n.editable != n.active => {
                    "edited since: stead config applies it".into()
                }
                None => String::new(),
            };
            let dash = |text: &str| {
                if text.is_empty() { "-".into() } else { text.to_string() }
            };
            vec![n.node.to_string(), dash(&short(&n.active)), n.applied_unix_ms.map_or_else(|| "-".into(), when), note]
        })
        .collect();
    let _ = write!(text, "\n{}", table(&["NODE", "ACTIVE", "APPLIED", "NOTE"], &rows, plain));
    let different = view.nodes.iter().filter(|n| n.problem.is_none()).any(|n| n.active != view.nodes[0].active);
    if different && view.nodes[0].problem.is_none() {
        text.push_str("\nthe nodes have different configurations\n  next: stead config applies this node's on all\n");
    }
    if !view.history.is_empty() {
        let row = |past: &PastConfiguration| {
            let what = if past.edited { "edited".to_string() } else { short(&past.signature) };
            vec![past.number.to_string(), what, when(past.applied_unix_ms)]
        };
        let rows: Vec<Vec<String>> = view.history.iter().map(row).collect();
        let _ = write!(text, "\n{}", table(&["BEFORE", "SIGNATURE", "APPLIED"], &rows, plain));
        if view.history.iter().any(|past| past.edited) {
            text.push_str("  edited: changed on this node, never applied, and overwritten then\n");
        }
        let _ = writeln!(text, "  next: stead config -m {} --restore NUMBER brings one back", view.module);
    }
    if !view.diagnostics.is_empty() {
        let _ = write!(text, "\n{}", findings(&view.diagnostics));
    }
    text
}
