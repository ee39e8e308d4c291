//! `cargo xtask soak --farm`: a random node of four dies, blinks, sleeps, loses its agent or is restarted, under connections that are used all
//! the time. Only connections of that node may break, and none by what is planned.

use super::{Clients, DRAINED, MODULE, MOVED_MS, SOON, install, share};
use crate::cluster::Cluster;
use crate::shell::wait_for;
use crate::soak::{Random, seeded};
use crate::{build, packages};
use anyhow::{Context, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

const NODES: [&str; 4] = ["node1", "node2", "node3", "node4"];
/// Connections of one second each, and as many that stand.
const MANY: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    PowerCut,
    Blink,
    Sleep,
    AgentKilled,
    Restart,
}

impl Trouble {
    const ALL: [Self; 5] = [Self::PowerCut, Self::Blink, Self::Sleep, Self::AgentKilled, Self::Restart];

    const fn name(self) -> &'static str {
        match self {
            Self::PowerCut => "power cut",
            Self::Blink => "link cut",
            Self::Sleep => "paused",
            Self::AgentKilled => "agent killed",
            Self::Restart => "restarted",
        }
    }

    /// Milliseconds until it is over, of those that have an end of their own. Most blinks are about as long as a death takes to be noticed.
    fn lasts(self, random: &mut Random) -> u64 {
        match self {
            Self::Blink if random.below(4) > 0 => 300 + random.below(900),
            Self::Blink | Self::Sleep => 100 + random.below(4_000),
            Self::PowerCut => random.below(3_000),
            Self::AgentKilled | Self::Restart => 0,
        }
    }
}

/// Plays the rounds; fails on the first connection of another node that breaks.
pub fn run(rounds: u32, seed: Option<u64>, release: bool) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::FARM)?;
    let programs = build::programs(release)?;
    let (seed, mut random) = seeded(seed);
    println!(
        "seed {seed}: cargo xtask soak --farm --rounds {rounds} --seed {seed}{}",
        if release { " --release" } else { "" }
    );
    let cluster = Cluster::up(&programs, "soak", &["--nodes", "4", "--disk", "256"])?;
    let dir = install(&cluster)?;
    let (mut answers, mut broken, mut worst) = (0, 0, 0);
    for round in 1..=rounds {
        let told = play(&cluster, &dir, round, &mut random);
        let (kept, lost, span) =
            told.inspect_err(|_| cluster.print_logs(MODULE)).with_context(|| format!("round {round}, seed {seed}"))?;
        (answers, broken, worst) = (answers + kept, broken + lost, worst.max(span));
    }
    println!(
        "\nrounds {rounds}, answers on connections {answers}, connections broken: of the node in trouble {broken}, of others 0; \
         new ones failed for {worst} ms at most"
    );
    Ok(())
}

/// Answers, connections of the node in trouble that broke, and for how long new ones failed.
fn play(cluster: &Cluster, dir: &Path, round: u32, random: &mut Random) -> anyhow::Result<(u64, u64, u64)> {
    whole(cluster)?;
    let start = Instant::now();
    let (trouble, node) = (Trouble::ALL[random.below(5) as usize], NODES[random.below(4) as usize]);
    let what = || format!("{node} {}", trouble.name());
    let is_planned = trouble == Trouble::Restart;
    let lasts = trouble.lasts(random);
    let begin =
        |name: &str, life| Clients::begin_with(cluster, dir, &format!("{name}{round}"), &cluster.vip, MANY, Some(life));
    let short = begin("short", "1")?;
    // What stands would keep a planned restart waiting for all of the drain, and end then.
    let standing = if is_planned { None } else { Some(begin("standing", "600")?) };
    let director = cluster.view("node1", MODULE).and_then(|view| Some(view["farm"]["director"].as_str()? == node));
    std::thread::sleep(Duration::from_millis(random.below(500)));
    match trouble {
        Trouble::PowerCut => {
            cluster.act(&["power", "cut", node])?;
            std::thread::sleep(Duration::from_millis(lasts));
            cluster.act(&["power", "on", node])?;
        }
        Trouble::Blink => {
            cluster.act(&["link", "cut", node])?;
            std::thread::sleep(Duration::from_millis(lasts));
            cluster.act(&["link", "heal", node])?;
        }
        Trouble::Sleep => {
            cluster.act(&["freeze", node])?;
            std::thread::sleep(Duration::from_millis(lasts));
            cluster.act(&["thaw", node])?;
        }
        Trouble::AgentKilled => drop(cluster.exec(node, &["pkill", "-KILL", "-f", "stead agent"])?),
        Trouble::Restart => drop(cluster.exec(node, &["stead", "restart", "-m", MODULE])?),
    }
    whole(cluster)?;
    short.go_on(100)?;
    let (mut kept, mut broken, mut span) = (0, 0, 0);
    for clients in [Some(short), standing].into_iter().flatten() {
        let told = clients.end()?;
        if is_planned {
            told.nothing_lost().with_context(what)?;
        } else {
            let others = told.sum("broken") - told.of("broken", node);
            ensure!(others == 0, "{} for {lasts} ms, and connections of others broke: {}", what(), told.0);
            ensure!(told.span_ms() < MOVED_MS + lasts, "{}: its share did not move in time: {}", what(), told.0);
        }
        (kept, broken, span) = (kept + told.sum("kept"), broken + told.sum("broken"), span.max(told.span_ms()));
    }
    println!(
        "round {round:>3}: {node}{} {}{}, {kept} answers, {broken} of its connections broken, none of others, {:.1} s",
        if director == Some(true) { " (director)" } else { "" },
        trouble.name(),
        if lasts > 0 { format!(" for {lasts} ms") } else { String::new() },
        start.elapsed().as_secs_f64()
    );
    Ok((kept, broken, span))
}

/// All serve, by the word of one and the same director.
fn whole(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.wait_states(MODULE, &NODES.map(|node| (node, "UP Ready")), DRAINED)?;
    NODES.iter().try_for_each(|node| share(cluster, "node1", node, true))?;
    wait_for("one director", SOON, || {
        let views = NODES.map(|node| cluster.view(node, MODULE)?["farm"]["view"].as_u64());
        Ok((views[0].is_some() && views.iter().all(|view| *view == views[0])).then_some(()))
    })
}
