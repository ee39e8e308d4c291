//! A farm as one of its nodes sees it.

use super::table::{plain, table};
use model::api::{FarmRuleView, FarmView, ModuleView};
use model::farm::{Fate, Filter, Proto, Wish};
use std::fmt::Write as _;

/// `stead farm show`.
pub fn farm(view: &ModuleView, farm: &FarmView) -> String {
    let mut text = format!("{} on {}: {} {}", view.module, view.node, view.state, view.status);
    if farm.view > 0 {
        let director = farm.director.as_ref().map_or_else(String::new, |node| format!(", directed by {node}"));
        let _ = write!(text, ", view {}{director}", farm.view);
    }
    if let Some(count) = farm.draining {
        let _ = write!(text, ", {count} connections finish");
    }
    let mut header = vec!["NODE", "HEARD", "WANTS", "IN VIEW"];
    header.extend(farm.groups.iter().map(|group| group.name.as_str()));
    let rows: Vec<Vec<String>> = farm
        .members
        .iter()
        .map(|member| {
            let wish = match member.wish {
                Wish::Out => "nothing",
                Wish::In => "its share",
                Wish::Drain => "to drain",
            };
            let place = match (member.present, member.serving) {
                (false, _) => "no",
                (true, true) => "serves",
                (true, false) => "drains",
            };
            let mut row = vec![
                member.node.to_string(),
                if member.heard { "yes" } else { "no" }.into(),
                wish.into(),
                place.into(),
            ];
            row.extend(farm.groups.iter().map(|group| format!("{} %", group.percent(&member.node))));
            row
        })
        .collect();
    let _ = write!(text, "\n\n{}", table(&header, &rows, plain));
    if !farm.rules.is_empty() {
        let rows: Vec<Vec<String>> = farm.rules.iter().map(rule).collect();
        let _ = write!(text, "\n{}", table(&["ADDRESS", "PORT", "PROTOCOL", "DEALT OUT BY", "GROUP"], &rows, plain));
    }
    if let Some(flows) = farm.flows {
        let told = |count: Option<u64>| count.map_or_else(|| "?".to_string(), |count| count.to_string());
        let (connections, pinned) = (told(flows.connections), told(flows.pinned));
        let _ = writeln!(text, "\nflows: {connections} connections of TCP stand here, {pinned} of UDP are remembered");
    }
    for it in &farm.interfaces {
        let _ = write!(text, "\npackets for {} on {}:", it.addrs.join(", "), it.interface);
        let _ = writeln!(text, " {}", counted(&it.counters, "none yet"));
        for generation in &it.generations {
            let view = if generation.view == 0 { "no view".to_string() } else { format!("view {}", generation.view) };
            let _ = writeln!(text, "  in {view}: {}", counted(&generation.counters, "none"));
        }
        if !it.problem.is_empty() {
            let _ = writeln!(text, "  {}", it.problem);
        }
    }
    text
}

/// What came more than never.
fn counted(counters: &[(Fate, u64)], nothing: &str) -> String {
    let some = counters.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(fate, count)| format!("{} {count}", word(*fate))).collect();
    if some.is_empty() { nothing.into() } else { some.join(", ") }
}

fn rule(rule: &FarmRuleView) -> Vec<String> {
    let star = |text: &str| if text.is_empty() { "*".to_string() } else { text.to_string() };
    let proto = match rule.proto {
        Some(Proto::Tcp) => "tcp",
        Some(Proto::Udp) => "udp",
        None => "arp",
    };
    let by = match rule.filter {
        Filter::OnAddr => "client",
        Filter::OnPort => "connection",
        Filter::OnIpid => "packet",
    };
    let port = rule.port.map_or_else(|| "*".to_string(), |port| port.to_string());
    vec![star(&rule.addr), port, proto.into(), by.into(), rule.group.clone()]
}

const fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Accepted => "accepted",
        Fate::Passed => "passed on",
        Fate::SecondChance => "second chance",
        Fate::NoRule => "dropped (no rule)",
        Fate::Flooded => "dropped (flooded)",
        Fate::Malformed => "dropped (malformed)",
        Fate::Lease => "dropped (not serving)",
        Fate::Ttl => "dropped (passed too often)",
        Fate::Nobody => "dropped (no owner)",
        Fate::Answered => "questions answered",
        Fate::Silent => "questions left to others",
        Fate::Conflict => "claimed by a stranger",
        Fate::Others => "left to their owners",
        Fate::Astray => "dropped (part without its first)",
    }
}
