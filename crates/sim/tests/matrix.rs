//! docs/arbitration.md is what the automata do, and what it must never say. `UPDATE=1` prints it anew.

use std::path::Path;

#[test]
fn the_table_of_arbitration_in_the_manual_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/arbitration.md");
    let now = sim::matrix::markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).expect("docs is writable");
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, then, "docs/arbitration.md is stale: UPDATE=1 cargo test -p sim --test matrix");
}

#[test]
fn with_a_witness_nobody_ever_serves_beside_another_and_nothing_is_lost() {
    for (cut, arbiter, outcome) in sim::matrix::cells() {
        if arbiter.contains("witness") {
            assert_ne!(outcome.serves, [true, true], "{cut}, {arbiter}");
            assert_eq!((outcome.lost, outcome.heals), (0, true), "{cut}, {arbiter}: {outcome:?}");
        }
        if arbiter == "witness" && !cut.contains("way to the witness") && !cut.contains("power") {
            assert!(outcome.serves.contains(&true), "{cut}: a living witness lets somebody serve: {outcome:?}");
        }
    }
}
