//! `cargo xtask bench failover`: how long clients wait after a power cut; ours beside keepalived's.
//!
//! keepalived moves an address and nothing else: no data, no application state. Its figure is the floor for
//! moving an address with its default timers (advert_int 1 s).

use crate::app::App;
use crate::build;
use crate::cluster::Cluster;
use crate::packages;
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::{Context, bail};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

struct Figure {
    name: &'static str,
    values: Vec<f64>,
    goal: Option<f64>,
}

impl Figure {
    fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
    fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }
    fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }
}

/// Measures, prints, and writes `benches/RESULTS.md` (unless quick) and the JSON file.
pub fn run(what: &str, quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    if what != "failover" {
        bail!("unknown benchmark '{what}': failover");
    }
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::PEERS)?;
    let programs = build::programs(true)?;
    let rounds = if quick { 3 } else { 9 };
    let mut ours =
        Figure { name: "client outage after a power cut, ledger, defaults", values: Vec::new(), goal: Some(2000.0) };
    let mut peers =
        Figure { name: "the same, keepalived moving only the address, defaults", values: Vec::new(), goal: None };
    let cluster = Cluster::up(&programs, "bench", &[])?;
    App::Ledger.install(&cluster)?;
    let bare = Cluster::up(&programs, "bench-keepalived", &["--no-agents"])?;
    for round in 1..=rounds {
        ours.values.push(stead(&cluster)?);
        peers.values.push(keepalived(&bare)?);
        println!("round {round}: stead {:.0} ms, keepalived {:.0} ms", ours.values[round - 1], peers.values[round - 1]);
    }
    report(&[ours, peers], quick, json)
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

fn report(figures: &[Figure], quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    println!("\n{:<60} {:>8} {:>8} {:>8}  goal", "figure (ms)", "median", "min", "max");
    let mut table = String::from("| figure (ms) | median | min | max | rounds | goal |\n|---|---|---|---|---|---|\n");
    for f in figures {
        let goal = f.goal.map_or_else(|| "–".to_string(), |g| format!("≤ {g:.0}"));
        println!("{:<60} {:>8.0} {:>8.0} {:>8.0}  {goal}", f.name, f.median(), f.min(), f.max());
        table += &format!(
            "| {} | {:.0} | {:.0} | {:.0} | {} | {goal} |\n",
            f.name,
            f.median(),
            f.min(),
            f.max(),
            f.values.len()
        );
    }
    if let Some(path) = json {
        let figures: Vec<_> = figures
            .iter()
            .map(|f| {
                json!({"name": f.name, "value": f.median(), "unit": "ms", "min": f.min(), "max": f.max(), "rounds": f.values.len(),
                       "goal": f.goal, "holds": f.goal.is_none_or(|g| f.median() <= g)})
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "figures": figures }))?)?;
    }
    if !quick {
        let machine = std::fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|l| l.strip_prefix("model name\t: ").map(str::to_string))
            .unwrap_or_default();
        let cores = std::thread::available_parallelism()?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        std::fs::create_dir_all("benches")?;
        std::fs::write(
            "benches/RESULTS.md",
            format!(
                "# Results\n\nWritten by `cargo xtask bench`. Lab on one machine: {cores} × {machine}, Linux {}.\n\n## Failover\n\n`cargo xtask bench failover`: power cut of the primary under the ledger's load; the longest pause between two acknowledgements, medians of interleaved rounds.\nkeepalived moves the address only: each node keeps its own ledger file, so nothing of what was acknowledged before is there.\n\n{table}",
                kernel.trim()
            ),
        )?;
    }
    Ok(())
}
