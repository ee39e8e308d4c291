//! `cargo xtask bench failover`: how long clients wait after a power cut; ours beside keepalived's.
//!
//! keepalived moves an address and nothing else: no data, no application state. Its figure is the floor for
//! moving an address with its default timers (advert_int 1 s).

use super::figure::{Figure, Goal, report, results, table};
use crate::app::App;
use crate::build;
use crate::cluster::Cluster;
use crate::packages;
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::Context;
use std::path::Path;
use std::time::Duration;

/// Measures, prints, and writes `benches/RESULTS.md` (unless quick) and the JSON file.
pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::PEERS)?;
    let programs = build::programs(true)?;
    let rounds = if quick { 3 } else { 9 };
    let mut ours = Figure::new("client outage after a power cut, ledger, defaults", "ms").goal(Goal::AtMost(2000.0));
    let mut peers = Figure::new("the same, keepalived moving only the address, defaults", "ms");
    let cluster = Cluster::up(&programs, "bench", &[])?;
    App::Ledger.install(&cluster)?;
    let bare = Cluster::up(&programs, "bench-keepalived", &["--no-agents"])?;
    for round in 1..=rounds {
        ours.values.push(stead(&cluster)?);
        peers.values.push(keepalived(&bare)?);
        println!("round {round}: stead {:.0} ms, keepalived {:.0} ms", ours.values[round - 1], peers.values[round - 1]);
    }
    let text = format!(
        "`cargo xtask bench failover`: power cut of the primary under the ledger's load; the longest pause between two\nacknowledgements, medians of interleaved rounds. keepalived moves the address only: each node keeps its own ledger file,\nso nothing of what was acknowledged before is there.\n\n{}",
        table(&[ours.clone(), peers.clone()])
    );
    report(&[ours, peers], json)?;
    if quick { Ok(()) } else { results("Failover", &text) }
}

fn stead(cluster: &Cluster) -> anyhow::Result<f64> {
    let app = App::Ledger;
    let (primary, secondary) = cluster.wait_whole(app.module(), Duration::from_secs(120))?;
    let mut load = app.load(cluster, "bench", 1)?;
    let cut = now_ms();
    cluster.act(&["power", "cut", &primary])?;
    cluster.wait_states(app.module(), &[(&secondary, "ALONE Ready")], Duration::from_secs(30))?;
    load.wait_more(50, Duration::from_secs(30))?;
    let outage = load.outage_ms(cut);
    cluster.act(&["power", "on", &primary])?;
    cluster.wait_whole(app.module(), Duration::from_secs(120))?;
    load.stop()?;
    Ok(outage as f64)
}

/// Both nodes run the ledger on their own files; keepalived moves the address between them.
fn keepalived(cluster: &Cluster) -> anyhow::Result<f64> {
    let ledger = cluster.programs().join("stead-ledger");
    let ledger = ledger.to_string_lossy();
    let log = std::env::temp_dir().join(format!("stead-bench-{}", std::process::id()));
    std::fs::create_dir_all(&log)?;
    for (node, priority) in [("node1", 200), ("node2", 100)] {
        let interface =
            cluster.exec(node, &["sh", "-c", "ip -o -4 addr show | awk '$4 ~ /^10\\.0\\.1\\./ {print $2; exit}'"])?;
        // keepalived reads one word group per line.
        let configuration = format!(
            "global_defs {{\n router_id {node}\n}}\nvrrp_instance V {{\n interface {}\n virtual_router_id 51\n priority {priority}\n virtual_ipaddress {{\n  {}/24\n }}\n}}\n",
            interface.trim(),
            cluster.vip
        );
        cluster.exec(
            node,
            &["sh", "-c", "printf '%s' \"$1\" > /run/keepalived.conf; mkdir -p /srv/stead/k", "sh", &configuration],
        )?;
        cluster.spawn(
            node,
            &[&ledger, "serve", "--db", "/srv/stead/k/l.sqlite"],
            &log.join(format!("{node}.ledger")),
        )?;
        cluster.spawn(
            node,
            &["keepalived", "-n", "-l", "-f", "/run/keepalived.conf", "-p", "/run/k.pid", "-r", "/run/kv.pid"],
            &log.join(format!("{node}.log")),
        )?;
    }
    let holds = |node: &str| -> anyhow::Result<bool> {
        Ok(cluster.try_exec(node, &["ip", "-o", "-4", "addr"])?.stdout.contains(&cluster.vip))
    };
    wait_for("keepalived on node1 holds the address", Duration::from_secs(30), || Ok(holds("node1")?.then_some(())))?;
    let record = log.join("record");
    let to = format!("{}:8080", cluster.vip);
    let mut client = cluster.spawn(
        "client",
        &[&ledger, "client", "--to", &to, "--name", "k", "--record", &record.to_string_lossy(), "--seconds", "60"],
        &log.join("client"),
    )?;
    let count = || std::fs::read(&record).map(|b| b.iter().filter(|c| **c == b'\n').count()).unwrap_or(0);
    wait_for("entries", Duration::from_secs(10), || Ok((count() > 20).then_some(())))?;
    cluster.act(&["power", "cut", "node1"])?;
    let before = count();
    wait_for("entries after the cut", Duration::from_secs(30), || Ok((count() > before + 50).then_some(())))?;
    client.kill()?;
    client.wait()?;
    let times: Vec<u64> = std::fs::read_to_string(&record)?
        .lines()
        .filter_map(|l| serde_json::from_str::<crate::app::Acknowledged>(l).ok())
        .map(|a| a.at_ms)
        .collect();
    let outage = times.windows(2).map(|w| w[1] - w[0]).max().context("no entries")?;
    cluster.act(&["power", "on", "node1"])?;
    // The next round begins with both nodes fresh.
    cluster.act(&["power", "cut", "node2"])?;
    cluster.act(&["power", "on", "node2"])?;
    std::fs::remove_dir_all(&log)?;
    Ok(outage as f64)
}
