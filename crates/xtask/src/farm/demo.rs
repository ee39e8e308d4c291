//! `cargo xtask demo --farm`: three nodes behind one address; one dies, returns, and each is restarted in turn.

use super::{Clients, DRAINED, MODULE, NODES, SOON, install, share};
use crate::cluster::Cluster;
use crate::demo::Story;
use crate::test::nothing_remains;
use crate::{build, packages};
use anyhow::ensure;
use std::path::Path;

/// What one act cost the clients.
struct Act {
    what: String,
    answered: u64,
    failed: u64,
    span_ms: u64,
    broken: u64,
    of_the_dead: u64,
}

/// Runs the demo; fails when a connection breaks that need not.
pub fn run(keep: bool) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::FARM)?;
    println!("building (the first time takes some minutes)");
    let programs = build::programs(false)?;
    let story = Story::begin();
    story.say("three servers, a client and a network, made of namespaces on this machine");
    let mut cluster = Cluster::up(&programs, "demo", &["--nodes", "3"])?;
    if keep {
        cluster.keep();
    }
    let told = tell(&story, &cluster);
    if keep {
        let stead = programs.join("stead");
        let stead = stead.display();
        println!("\nThe lab goes on. Try:");
        println!("  {stead} lab exec --name demo client -- curl -s http://{}/      (which node answers?)", cluster.vip);
        println!("  {stead} lab exec --name demo client -- YOUR BROWSER http://{}/mosaic.html", cluster.vip);
        println!("  {stead} lab exec --name demo node1 -- stead farm show -m {MODULE}");
        println!("  {stead} lab power cut --name demo node1        (then: power on)");
        println!("  {stead} lab down --name demo");
    } else {
        drop(cluster);
        nothing_remains("demo")?;
    }
    told
}

fn tell(story: &Story, cluster: &Cluster) -> anyhow::Result<()> {
    let dir = install(cluster)?;
    story.say(&format!("module {MODULE} is started on all three; clients connect to {} alone", cluster.vip));
    // Not before all three have their share.
    for node in NODES {
        cluster.wait_states(MODULE, &[(node, "UP Ready")], SOON)?;
        share(cluster, "node1", node, true)?;
    }
    mosaic(story, cluster)?;
    let mut acts = Vec::new();

    story.say("clients: 90 connections that stand, 100 new ones a second; POWER CUT of node2 under them");
    acts.push(act(cluster, &dir, "a node dies", Some("node2"), || {
        cluster.act(&["power", "cut", "node2"])?;
        share(cluster, "node1", "node2", false)
    })?);
    mosaic(story, cluster)?;
    story.say(&format!(
        "node1 and node3 have its share; new connections failed for {} ms, of those that stood only node2's broke",
        acts[0].span_ms
    ));

    story.say("power returns on node2");
    acts.push(act(cluster, &dir, "it returns", None, || {
        cluster.act(&["power", "on", "node2"])?;
        cluster.wait_states(MODULE, &[("node2", "UP Ready")], SOON)?;
        share(cluster, "node1", "node2", true)
    })?);
    story.say("it has its share of new connections; those that stood stayed where they were");

    story.say("a rolling restart: each node in turn, without new connections while those that stand finish");
    for node in NODES {
        let other = NODES.into_iter().find(|other| *other != node).unwrap_or("node1");
        acts.push(act(cluster, &dir, &format!("{node} is restarted"), None, || {
            cluster.exec(node, &["stead", "restart", "-m", MODULE, "--no-wait"])?;
            share(cluster, other, node, false)
        })?);
        // The clients of this act are gone: the drain ends, the node is restarted.
        share(cluster, other, node, true)?;
        cluster.wait_states(MODULE, &[(node, "UP Ready")], DRAINED)?;
        story.say(&format!("{node} was restarted"));
    }

    println!("\n  {:<22} {:>9} {:>7} {:>8} {:>22}", "", "answered", "failed", "for ms", "standing ones broken");
    for act in &acts {
        let broken = match act.of_the_dead {
            0 => act.broken.to_string(),
            dead => format!("{} (the dead node's: {dead})", act.broken),
        };
        println!("  {:<22} {:>9} {:>7} {:>8} {broken:>22}", act.what, act.answered, act.failed, act.span_ms);
    }
    let unneeded: u64 = acts.iter().map(|act| act.broken - act.of_the_dead).sum();
    ensure!(unneeded == 0, "{unneeded} connections broke that need not have");
    Ok(())
}

/// Clients at work while something happens.
fn act(
    cluster: &Cluster,
    dir: &Path,
    what: &str,
    dead: Option<&str>,
    happens: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Act> {
    let name = what.replace(' ', "-");
    let clients = Clients::begin(cluster, dir, &name)?;
    clients.go_on(100)?;
    happens()?;
    clients.go_on(200)?;
    let told = clients.end()?;
    Ok(Act {
        what: what.to_owned(),
        answered: told.sum("answered"),
        failed: told.failed(),
        span_ms: told.span_ms(),
        broken: told.sum("broken"),
        of_the_dead: dead.map_or(0, |dead| told.of("broken", dead)),
    })
}

/// Which node answers each of sixty requests: what the page shows a browser in colours.
fn mosaic(story: &Story, cluster: &Cluster) -> anyhow::Result<()> {
    let ask = format!("for i in $(seq 60); do curl -s -m 2 http://{}/; done", cluster.vip);
    let said = cluster.exec("client", &["sh", "-c", &ask])?;
    let tiles: String = said.lines().filter_map(|line| line.trim().chars().last()).collect();
    story.say(&format!("sixty requests, the node that answered each: {tiles}"));
    Ok(())
}
