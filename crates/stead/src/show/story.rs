//! The story of a module: why, and the log.

use super::units::{when, when_us};
use model::api::{LogLine, WhyView};
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
