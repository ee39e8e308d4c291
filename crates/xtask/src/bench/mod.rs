//! `cargo xtask bench failover | farm | replication | resync | witness`: figures, beside their peers' and the goals.
//!
//! Every benchmark runs its candidates in turns (interleaved rounds) on one machine and compares round by round,
//! because the machine's other work comes and goes.

mod failover;
mod farm;
mod figure;
mod gluster;
mod mariadb;
mod plane;
mod postgresql;
mod replication;
mod resync;
mod stage;
mod witness;

pub use stage::INSIDE;

use anyhow::bail;
use std::path::Path;

/// Measures, prints, and writes `benches/RESULTS.md` (unless quick) and the JSON file.
///
/// `beside`: another `stead` that is measured in the same rounds (replication only). `only`: one part, nothing is
/// written (resync, replication).
pub fn run(
    what: &str,
    quick: bool,
    json: Option<&Path>,
    beside: Option<&Path>,
    only: Option<&str>,
) -> anyhow::Result<()> {
    match what {
        "failover" => failover::run(quick, json),
        "farm" => farm::run(quick, json),
        "replication" => replication::run(quick, json, beside, only),
        "resync" => resync::run(quick, json, only),
        "witness" => witness::run(quick, json),
        other => bail!("unknown benchmark '{other}': failover, farm, replication, resync, witness"),
    }
}
