//! The story of a module: why, and the log.

use super::units::{bytes, duration, when, when_us};
use model::api::{DiffCost, DiffView, LogLine, WhyView};
use model::orders::VerifyProgress;
use std::fmt::Write as _;

/// `stead why`.
pub fn why(view: &WhyView) -> String {
    let m = &view.module;
    let mut text = format!("{} on {} is {} {}", m.module, m.node, m.state, m.status);
    if m.reason.is_empty() {
        text.push_str(".\n");
    } else {
        let _ = writeln!(text, ": {}", m.reason);
    }
    let mut list = |title: &str, items: Vec<String>| {
        if !items.is_empty() {
            let _ = write!(text, "\n{title}\n");
            for item in items {
                let _ = writeln!(text, "  - {item}");
            }
        }
    };
    list("It waits for:", view.waits_for.clone());
    let moves = view
        .moves
        .iter()
        .map(|m| if m.command.is_empty() { m.what.clone() } else { format!("{}: {}", m.what, m.command) });
    list("What would move it:", moves.collect());
    let cases = m
        .open_cases
        .iter()
        .map(|case| format!("{}{}: {}", if case.now { "" } else { "next to " }, case.label, case.sentence));
    list("What no protocol can close:", cases.collect());
    list("Not promised now:", m.not_promised.clone());
    list("Warnings:", m.warnings.clone());
    if !view.transitions.is_empty() {
        text.push_str("\nHow it came here:\n");
        for step in &view.transitions {
            let from = step.from.map_or_else(String::new, |(state, status)| format!("{state} {status} -> "));
            let _ = writeln!(text, "  {}  {from}{} {}: {}", when(step.at_unix_ms), step.to.0, step.to.1, step.reason);
        }
    }
    text
}

/// `| date time.us | component | level | text`.
pub fn log_line(line: &LogLine) -> String {
    format!("| {} | {} | {:?} | {}\n", when_us(line.at_unix_us), line.component, line.level, line.text)
}

/// `stead rfsverify`, when it is through.
pub fn verified(v: &VerifyProgress) -> String {
    let p = &v.progress;
    let mut text =
        format!("{} entries, {} compared in {}: ", p.entries, bytes(p.bytes_compared), duration(p.elapsed_ms));
    if v.differences == 0 {
        text.push_str("both copies are equal\n");
        return text;
    }
    let _ = writeln!(text, "{} differ on the secondary", v.differences);
    for place in &v.examples {
        let _ = writeln!(text, "  {place}");
    }
    let more = v.differences.saturating_sub(v.examples.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    text.push_str(match (v.repair, v.stubborn, v.resync) {
        (true, 0, 0) => "they were repaired\n",
        (true, _, n) if n > 0 => "what is missing, extra or of another type there needs a resync: it follows, of just that\n  next: stead state -v\n",
        (true, ..) => "not all could be repaired\n  next: stead second fullsync, on the secondary\n",
        (false, ..) => "nothing was changed\n  next: stead rfsverify --repair\n",
    });
    text
}

/// `stead rfsdiff`.
pub fn diff(v: &DiffView) -> String {
    let cost = |c: &DiffCost| {
        let more = if c.at_least { "at least " } else { "" };
        format!("{more}{} entries, {} to compare, about {}", c.entries, bytes(c.bytes), duration(c.eta_ms))
    };
    let mut text = format!("the next resync of module {} from {} to {}:\n", v.module, v.node, v.peer);
    if v.complete {
        let _ = writeln!(text, "  now: nothing, {} has everything", v.peer);
    } else if let Some(changed) = &v.changed {
        let _ = writeln!(text, "  when {} left in order: {}", v.peer, cost(changed));
    } else {
        text.push_str("  what changed is not known: everything is compared\n");
    }
    if let Some(crashed) = &v.crashed {
        let when = if v.complete { "if" } else { "when" };
        let _ = writeln!(text, "  {when} {} lost power: at most {}", v.peer, cost(crashed));
    }
    let _ = writeln!(text, "  everything (fullsync, a new disk): {}", cost(&v.whole));
    let rate = if v.is_measured { "the rate of the last resync" } else { "assumed" };
    let _ = writeln!(text, "only what differs is sent; reckoned with {}/s ({rate})", bytes(v.bytes_per_s));
    text
}
