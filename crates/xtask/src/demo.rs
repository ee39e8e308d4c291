//! `cargo xtask demo`: the story of a failover, told live, with a table at its end.

use crate::app::{App, Load};
use crate::build;
use crate::cluster::Cluster;
use crate::packages;
use crate::stories::now_ms;
use crate::test::nothing_remains;
use anyhow::ensure;
use std::time::{Duration, Instant};

/// Says what happens, with the time since its beginning.
pub struct Story {
    start: Instant,
}

impl Story {
    /// Begins now.
    pub fn begin() -> Self {
        Self { start: Instant::now() }
    }

    /// One line.
    pub fn say(&self, text: &str) {
        println!("{:>6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }
}

/// Runs the demo; fails when a single acknowledged write is lost.
pub fn run(app: &str, keep: bool) -> anyhow::Result<()> {
    let app = App::parse(app)?;
    packages::ensure(packages::LAB)?;
    if app == App::Postgresql {
        packages::ensure(packages::POSTGRESQL)?;
    }
    println!("building (the first time takes some minutes)");
    let programs = build::programs(false)?;
    let story = Story::begin();
    story.say("two servers, a client and a network, made of namespaces on this machine");
    let mut cluster = Cluster::up(&programs, "demo", &[])?;
    if keep {
        cluster.keep();
    }
    story.say("node1 and node2 are paired; every byte between them is authenticated and encrypted");
    let told = tell(&story, &cluster, app);
    if keep {
        let stead = programs.join("stead");
        let stead = stead.display();
        println!("\nThe lab goes on. Try:");
        println!("  {stead} lab exec --name demo node1 -- stead state");
        println!("  {stead} lab exec --name demo node1 -- stead why -m {}", app.module());
        println!("  {stead} lab power cut --name demo node1        (then: power on)");
        println!("  {stead} lab freeze --name demo node2           (then: thaw)");
        println!("  {stead} lab down --name demo");
    } else {
        drop(cluster);
        nothing_remains("demo")?;
    }
    told
}

fn tell(story: &Story, cluster: &Cluster, app: App) -> anyhow::Result<()> {
    let module = app.module();
    app.install(cluster)?;
    story.say(&format!(
        "module {module}: prim on node1, start on node2; {} is replicated, {} moves with the service",
        app.dir(),
        cluster.vip
    ));
    print_states(story, cluster, module);

    let mut load = app.load(cluster, "demo", 2)?;
    load.wait_more(500, Duration::from_secs(60))?;
    story.say(&format!(
        "clients write through {}: {} entries acknowledged, each on both nodes",
        cluster.vip,
        load.count()
    ));

    story.say("POWER CUT of node1, under load: no FIN, no goodbye, and its disk loses what was not flushed");
    let cut = now_ms();
    cluster.act(&["power", "cut", "node1"])?;
    cluster.wait_states(module, &[("node2", "ALONE Ready")], Duration::from_secs(30))?;
    load.wait_more(100, Duration::from_secs(60))?;
    let outage = outage(&load, cut);
    story.say(&format!("node2 serves, alone; the clients waited {outage} ms"));

    story.say("power returns on node1: it comes back by itself, as secondary, and copies what changed");
    cluster.act(&["power", "on", "node1"])?;
    let back = Instant::now();
    cluster.wait_states(module, &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")], Duration::from_secs(120))?;
    let resync = resync_bytes(cluster, module);
    story.say(&format!(
        "the pair is whole again after {:.1} s; {} bytes sent, {} compared",
        back.elapsed().as_secs_f64(),
        resync.1,
        resync.0
    ));
    print_states(story, cluster, module);

    story.say("swap: the service goes back to node1, planned");
    let swap = now_ms();
    cluster.exec("node2", &["stead", "swap", "-m", module])?;
    cluster.wait_states(module, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")], Duration::from_secs(120))?;
    load.wait_more(100, Duration::from_secs(60))?;
    let planned = self::outage(&load, swap);
    story.say(&format!("node1 serves again; the clients waited {planned} ms"));
    load.stop()?;
    let (acknowledged, lost) = load.check(cluster)?;
    cluster.compare_trees(module, app.dir())?;
    story.say("both trees compared: names, owners, times and contents are equal");

    println!();
    println!("  writes acknowledged      {acknowledged:>10}");
    println!("  writes lost              {lost:>10}");
    println!("  outage, power cut        {outage:>10} ms");
    println!("  outage, swap             {planned:>10} ms");
    println!("  bytes compared in resync {:>10}", resync.0);
    println!("  bytes sent in resync     {:>10}", resync.1);
    ensure!(lost == 0, "{lost} acknowledged writes were lost");
    Ok(())
}

fn outage(load: &Load, since_ms: u64) -> u64 {
    load.outage_ms(since_ms)
}

/// What the last resync compared and sent, as the serving node counts it.
fn resync_bytes(cluster: &Cluster, module: &str) -> (u64, u64) {
    let Some(view) = cluster.view("node2", module) else {
        return (0, 0);
    };
    let progress = &view["replication"]["progress"];
    (progress["bytes_compared"].as_u64().unwrap_or(0), progress["bytes_sent"].as_u64().unwrap_or(0))
}

fn print_states(story: &Story, cluster: &Cluster, module: &str) {
    let states: Vec<String> = ["node1", "node2"].iter().map(|n| format!("{n} {}", cluster.state(n, module))).collect();
    story.say(&format!("state: {}", states.join(", ")));
}
