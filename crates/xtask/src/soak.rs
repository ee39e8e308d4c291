//! `cargo xtask soak`: power cuts of a random node at a random moment under the ledger's load.
//!
//! Counts acknowledged entries that are lost, and moments in which two nodes acknowledged: besides the clients
//! of the VIP, one client per node writes to that node's own address all the time.

use crate::app::App;
use crate::build;
use crate::cluster::Cluster;
use crate::packages;
use crate::shell;
use crate::stories::now_ms;
use anyhow::ensure;
use std::time::{Duration, Instant};

/// A small generator: the run is repeated by its seed.
pub struct Random(u64);

/// The seed, or one of now, and what comes of it.
pub fn seeded(seed: Option<u64>) -> (u64, Random) {
    let seed = seed.unwrap_or_else(now_ms) | 1;
    (seed, Random(seed))
}

impl Random {
    /// Less than that.
    pub fn below(&mut self, most: u64) -> u64 {
        // The lowest bits of such a generator are its worst.
        (self.next() >> 16) % most
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The large search of the pure crates' situations; see `sim::suite::crashes`.
pub fn explore(minutes: u64, cap: u64) -> anyhow::Result<()> {
    let (minutes, cap) = (minutes.to_string(), cap.to_string());
    shell::live(build::cargo().args(["run", "--quiet", "-p", "sim", "--bin", "explore", "--", &minutes, &cap]))
}

/// The crash harness at length; see `sim::crash`.
pub fn crashes(many: u64) -> anyhow::Result<()> {
    let mut cargo = build::cargo();
    cargo.args(["test", "--quiet", "-p", "sim", "--test", "crash", "--", "--nocapture"]);
    shell::live(cargo.env("STEAD_CRASHES", many.to_string()))
}

/// Runs the power cuts; fails on the first lost entry or double primary.
pub fn run(rounds: u32, seed: Option<u64>, witness: bool, release: bool) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    let programs = build::programs(release)?;
    let (seed, mut random) = seeded(seed);
    println!(
        "seed {seed}: cargo xtask soak --rounds {rounds} --seed {seed}{}{}",
        if witness { " --witness" } else { "" },
        if release { " --release" } else { "" }
    );
    let arguments: &[&str] = if witness { &["--witness"] } else { &[] };
    let cluster = Cluster::up(&programs, "soak", arguments)?;
    let app = App::Ledger;
    app.install(&cluster)?;
    let (mut acknowledged, mut lost, mut doubles, mut worst) = (0, 0, 0, 0);
    for round in 1..=rounds {
        let start = Instant::now();
        let (primary, secondary) = cluster.wait_whole(app.module(), Duration::from_secs(120))?;
        let name = format!("soak{round}");
        let mut load = app.load(&cluster, &name, 3)?;
        // A second node that acknowledges is not seen through the virtual IP.
        for node in [&primary, &secondary] {
            load.add(&cluster, &name, &cluster.addr(node)?)?;
        }
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        let victim = if random.below(3) == 0 { &secondary } else { &primary };
        let survivor = if *victim == primary { &secondary } else { &primary };
        let cut = now_ms();
        cluster.act(&["power", "cut", victim])?;
        cluster.wait_states(app.module(), &[(survivor, "ALONE Ready")], Duration::from_secs(30))?;
        load.wait_more(30, Duration::from_secs(30))?;
        let outage = load.outage_ms(cut);
        std::thread::sleep(Duration::from_millis(random.below(500)));
        cluster.act(&["power", "on", victim])?;
        cluster.wait_whole(app.module(), Duration::from_secs(120))?;
        load.wait_more(30, Duration::from_secs(30))?;
        load.stop()?;
        let (written, missing) = load.check(&cluster)?;
        let double = load.unexpected_moves(usize::from(*victim == primary));
        acknowledged += written;
        lost += missing;
        doubles += double;
        worst = worst.max(outage);
        println!(
            "round {round:>3}: power cut of {victim} ({}), {written} acknowledged, {missing} lost, pause {outage} ms, {:.1} s",
            if *victim == primary { "primary" } else { "secondary" },
            start.elapsed().as_secs_f64()
        );
        ensure!(
            missing == 0 && double == 0,
            "round {round}, seed {seed}: {missing} lost, {double} double acknowledgements"
        );
    }
    println!(
        "\npower cuts {rounds}, writes acknowledged {acknowledged}, lost {lost}, two acknowledging primaries {doubles}, longest pause {worst} ms"
    );
    Ok(())
}
