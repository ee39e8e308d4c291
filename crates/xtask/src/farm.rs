//! The story of a farm of three: a power cut of one, its return, a stop that drains — with clients that count.

mod demo;
pub use demo::run as demo;

use crate::cluster::Cluster;
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its name, as `--only` takes it.
pub const NAME: &str = "farm-of-three";
const MODULE: &str = "web";
const SOON: Duration = Duration::from_secs(20);
/// Much longer than the 500 ms after which a member is missed: a slow machine is no failure.
const MOVED_MS: u64 = 3_000;

/// Clients at work.
struct Clients<'a> {
    cluster: &'a Cluster,
    child: std::process::Child,
    log: PathBuf,
    stop: PathBuf,
}

impl<'a> Clients<'a> {
    fn begin(cluster: &'a Cluster, dir: &Path, name: &str) -> anyhow::Result<Self> {
        let script = dir.join("client.py");
        std::fs::write(&script, include_str!("farm/client.py"))?;
        let (log, stop) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.stop")));
        let arguments = ["/usr/bin/python3", &script.to_string_lossy(), &cluster.vip, &stop.to_string_lossy()];
        let child = cluster.spawn("client", &arguments, &log)?;
        let clients = Self { cluster, child, log, stop };
        wait_for("the clients' connections stand", SOON, || Ok(clients.said().contains("held").then_some(())))?;
        Ok(clients)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until so many more new connections were answered.
    fn go_on(&self, count: u64) -> anyhow::Result<()> {
        let answered = || self.said().lines().filter_map(|line| line.parse::<u64>().ok()).max().unwrap_or(0);
        let wanted = answered() + count;
        wait_for("the clients' new connections are answered", SOON, || Ok((answered() >= wanted).then_some(())))
    }

    fn end(mut self) -> anyhow::Result<Value> {
        std::fs::write(&self.stop, "")?;
        self.child.wait()?;
        let said = self.said();
        let last = said.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("the clients said: {said}"))
    }

    fn all_serve(&self) -> anyhow::Result<()> {
        let wanted = ["node1", "node2", "node3"].map(|node| (node, "UP Ready"));
        self.cluster.wait_states(MODULE, &wanted, SOON)
    }
}

/// Plays it on a lab of its own.
pub fn tell(programs: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::up(programs, "e2e", &["--nodes", "3"])?;
    play(&cluster).inspect_err(|_| cluster.print_logs(MODULE))
}

/// The module with a small server, started on all nodes; the folder of the clients' files.
fn install(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("stead-farm-{}", cluster.name()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir(&dir)?;
    let module = dir.join("module");
    crate::shell::must(
        std::process::Command::new("cp").arg("-r").arg(crate::build::root().join("modules/farm")).arg(&module),
        SOON,
    )?;
    let start = module.join("bin/start_both");
    std::fs::write(&start, include_str!("farm/start_both"))?;
    cluster.exec("node1", &["stead", "module", "install", &module.to_string_lossy(), "-m", MODULE])?;
    let vip = format!("VIP={}", cluster.vip);
    cluster.exec("node1", &["stead", "config", "-m", MODULE, "--set", &vip, "--set", "FILTER=on_port"])?;
    cluster.exec("node1", &["stead", "start", "-m", MODULE, "-H", "*"])?;
    Ok(dir)
}

fn play(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = &install(cluster)?;
    let clients = Clients::begin(cluster, dir, "cut")?;
    clients.all_serve()?;
    cluster.act(&["power", "cut", "node2"])?;
    wait_for("the others have its share", SOON, || {
        let view = cluster.view("node1", MODULE).map(|view| view["farm"]["groups"][0]["shares"].clone());
        Ok(view.and_then(|shares| (shares.as_array()?.len() == 2).then_some(())))
    })?;
    cluster.act(&["power", "on", "node2"])?;
    clients.all_serve()?;
    let told = clients.end()?;
    let count = |what: &str, node: &str| told[what][node].as_u64().unwrap_or(0);
    ensure!(["node1", "node2", "node3"].iter().all(|node| count("answered", node) > 0), "not all answered: {told}");
    ensure!(count("broken", "node1") + count("broken", "node3") == 0, "connections of the survivors broke: {told}");
    ensure!(told["span_ms"].as_u64().is_some_and(|ms| ms < MOVED_MS), "the share did not move in time: {told}");
    println!("      power cut: new connections failed for {} ms, none of the survivors' broke", told["span_ms"]);

    let clients = Clients::begin(cluster, dir, "stop")?;
    // Connections stand on it: they would last for the whole time.
    cluster.exec("node3", &["stead", "stop", "-m", MODULE, "--no-wait"])?;
    wait_for("node3 drains", SOON, || {
        let drains = cluster.view("node3", MODULE).and_then(|view| view["farm"]["draining"].as_u64());
        Ok(drains.filter(|count| *count > 0))
    })?;
    let told = clients.end()?;
    ensure!(told["failed"] == 0, "new connections failed during a planned stop: {told}");
    ensure!(told["broken"].as_object().is_some_and(serde_json::Map::is_empty), "a planned stop broke: {told}");
    cluster.wait_states(MODULE, &[("node3", "STOP NotReady")], Duration::from_secs(40))?;
    println!("      planned stop: no connection failed, none broke");
    Ok(())
}
