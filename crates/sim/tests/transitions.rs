//! docs/transitions.md and docs/transitions-farm.md are what the automata do. `UPDATE=1` prints them anew.

use std::path::Path;

fn is_not_stale(page: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, now).expect("docs is writable");
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(then.lines()).find(|(now, then)| now != then);
    assert!(now == then, "docs/{page} is stale ({differs:?}): UPDATE=1 cargo test -p sim --test transitions");
}

#[test]
fn the_table_of_decisions_in_the_manual_is_not_stale() {
    let now = sim::table::markdown();
    is_not_stale("transitions.md", &now);
    for state in [
        "Stop", "Booting", "Wait", "Claim", "Opening", "Alone", "Commit", "Prim", "Hold", "Second", "Target",
        "Fencing", "Leaving",
    ] {
        assert!(now.contains(&format!("\n## {state}, with")), "no typical automaton for {state}");
    }
}

#[test]
fn the_table_of_farm_and_light_modules_in_the_manual_is_not_stale() {
    let now = sim::table::farm::markdown();
    is_not_stale("transitions-farm.md", &now);
    let both = ["Stop", "Preparing", "Taking", "Starting", "Up", "Stopping", "Releasing", "Leaving"];
    for (kind, states) in [("farm", &["Blocked", "Draining"][..]), ("light", &[])] {
        for state in both.iter().chain(states) {
            assert!(now.contains(&format!("\n## {state}, {kind}\n")), "no typical {kind} automaton for {state}");
        }
    }
}
