//! One witness, a thousand modules of a hundred clusters: how long a grant takes.
//!
//! Plays `agent/tests/witness_many.rs`, optimised: real TLS between every node and the witness, real files and `fsync`, eight questions at a time.

use super::figure::{Figure, Goal, report, results, table};
use crate::build::cargo;
use crate::shell::must;
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

/// Pairing two hundred nodes is most of it.
const PLAY_MAX: Duration = Duration::from_secs(900);
const BUILD_MAX: Duration = Duration::from_secs(2700);

pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    let test = ["test", "--quiet", "--release", "-p", "agent", "--test", "witness_many"];
    crate::shell::live_within(cargo().args(test).arg("--no-run"), BUILD_MAX)?;
    let (clusters, rounds) = if quick { ("20", 1) } else { ("100", 3) };
    let names = ["grant: median", "grant: 99 of 100", "grant: the longest", "back after a restart"];
    let mut values = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let mut play = cargo();
        play.args(test).args(["--", "--nocapture"]);
        play.env("STEAD_WITNESS_CLUSTERS", clusters).env("STEAD_WITNESS_MODULES", "10");
        let said = must(&mut play, PLAY_MAX)?;
        let line = said.lines().find_map(|line| line.strip_prefix("measured ")).context("the test measured nothing")?;
        for (of, word) in values.iter_mut().zip(line.split_whitespace()) {
            of.push(word.parse().context("a number of milliseconds")?);
        }
    }
    let figures: Vec<Figure> = names
        .into_iter()
        .zip(values)
        .map(|(name, values)| {
            let figure = Figure::new(name, "ms").values(values);
            if name.contains("99") { figure.goal(Goal::AtMost(50.0)) } else { figure }
        })
        .collect();
    let text = format!(
        "`cargo xtask bench witness`: {clusters} clusters of two nodes with ten modules each behind one witness; every module registers and asks,\neight at a time, over TLS 1.3 with the authority of its own cluster; each grant is fsynced before it is said.\n\n{}",
        table(&figures)
    );
    report(&figures, json)?;
    if quick { Ok(()) } else { results("Witness", &text) }
}
