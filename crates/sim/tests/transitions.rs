//! docs/transitions.md is what the automaton does. `UPDATE=1` prints it anew.

use std::path::Path;

#[test]
fn the_table_of_decisions_in_the_manual_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transitions.md");
    let now = sim::table::markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).expect("docs is writable");
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(then.lines()).find(|(now, then)| now != then);
    assert!(now == then, "docs/transitions.md is stale ({differs:?}): UPDATE=1 cargo test -p sim --test transitions");
    for state in [
        "Stop", "Booting", "Wait", "Claim", "Opening", "Alone", "Commit", "Prim", "Hold", "Second", "Target",
        "Fencing", "Leaving",
    ] {
        assert!(now.contains(&format!("\n## {state}, with")), "no typical automaton for {state}");
    }
}
