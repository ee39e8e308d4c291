//! Tasks of the project: `cargo xtask test | demo | soak | bench | docs`.
//!
//! Everything here drives the product from outside, through the same command line as a user's.

mod app;
mod balancer;
mod bench;
mod build;
mod cluster;
mod demo;
mod dependencies;
mod farm;
mod fuzz;
mod handover;
mod packages;
mod refusals;
mod shell;
mod soak;
mod stories;
mod suites;
mod test;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "xtask", about = "Tasks of the Stead project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test, unit to end-to-end; prints the time of each layer.
    Test {
        /// Only this layer: format, lint, build, pure, crates, suites, refusals, e2e.
        #[arg(long)]
        layer: Option<String>,
        /// Only test programs, checks or stories whose name contains this (without --layer: stories).
        #[arg(long)]
        only: Option<String>,
    },
    /// The story of a failover, live, in a lab on this machine.
    Demo {
        /// The application: ledger or postgresql.
        #[arg(long, default_value = "ledger")]
        app: String,
        /// Instead of a failover: a farm of three nodes behind one address.
        #[arg(long)]
        farm: bool,
        /// Leave the lab running afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// Power cuts of a random node at a random moment, under load; counts what was lost.
    Soak {
        /// How many power cuts.
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// Seed of the random moments; printed, so that a run can be repeated.
        #[arg(long)]
        seed: Option<u64>,
        /// With a witness in the lab.
        #[arg(long)]
        witness: bool,
        /// No lab: search the situations of a pair with two crashes of every actor, as far as time and cap allow.
        #[arg(long)]
        explore: bool,
        /// With --explore: how long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// With --explore: most situations of one space (a hundred million need about 2 GiB of memory).
        #[arg(long, default_value_t = 500_000_000)]
        cap: u64,
        /// No lab: so many long workloads of the crash harness, each with a power cut at a random step, and every step of
        /// every workload of three changes.
        #[arg(long, conflicts_with = "explore")]
        crashes: Option<u64>,
        /// Instead of power cuts: kill and replace the programs under PostgreSQL, `--rounds` times each, without the
        /// application noticing more than a pause.
        #[arg(long, conflicts_with_all = ["explore", "crashes"])]
        handover: bool,
        /// With --handover: the application, ledger or postgresql.
        #[arg(long, default_value = "postgresql")]
        app: String,
        /// Instead of power cuts of a mirror: a farm of four, of which a random node dies, is cut off, paused, restarted, or loses its agent.
        #[arg(long, conflicts_with_all = ["explore", "crashes", "handover", "witness"])]
        farm: bool,
        /// With optimised programs, as shipped.
        #[arg(long)]
        release: bool,
    },
    /// Measure beside the peers: failover, replication, resync.
    Bench {
        /// What to measure.
        #[arg(default_value = "failover")]
        what: String,
        /// A run under five minutes.
        #[arg(long)]
        quick: bool,
        /// Write the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Another `stead` (an earlier build), measured in the same rounds: for changes that are to make it faster.
        #[arg(long)]
        beside: Option<PathBuf>,
        /// Only this part, and nothing is written (resync: small or large; replication: memory or stand).
        #[arg(long)]
        only: Option<String>,
    },
    /// Public file-system suites in a mirror and beside it in a plain directory.
    Suites {
        /// How long each stressor runs.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Every decoder of bytes from outside, fed by libFuzzer (a build of everything with other flags: minutes).
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only targets whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Print the generated pages into docs/.
    Docs,
    /// Throw garbage at a node (the layer `refusals` runs this inside a lab's client host).
    #[command(hide = true)]
    Pester {
        /// The node.
        addr: std::net::IpAddr,
    },
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(build::root())?;
    match Arguments::parse().task {
        Task::Test { layer, only } => test::run(layer.as_deref(), only.as_deref()),
        Task::Demo { farm: true, keep, .. } => farm::demo(keep),
        Task::Demo { app, keep, .. } => demo::run(&app, keep),
        Task::Soak { explore: true, minutes, cap, .. } => soak::explore(minutes, cap),
        Task::Soak { crashes: Some(many), .. } => soak::crashes(many),
        Task::Soak { handover: true, rounds, app, release, .. } => {
            handover::soak(rounds, app::App::parse(&app)?, release)
        }
        Task::Soak { farm: true, rounds, seed, release, .. } => farm::soak(rounds, seed, release),
        Task::Soak { rounds, seed, witness, release, .. } => soak::run(rounds, seed, witness, release),
        Task::Bench { what, quick, json, beside, only } => {
            bench::run(&what, quick, json.as_deref(), beside.as_deref(), only.as_deref())
        }
        Task::Suites { seconds } => suites::run(seconds),
        Task::Fuzz { seconds, only } => fuzz::run(seconds, only.as_deref()),
        Task::Docs => test::docs(),
        Task::Pester { addr } => refusals::pester(addr),
    }
}
