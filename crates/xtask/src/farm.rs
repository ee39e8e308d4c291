//! Stories of farms in labs, with clients that count: which connections stand, which break, how long new ones fail.
//!
//! | file | holds |
//! |---|---|
//! | `members` | nodes die, return, are stopped, upgraded, cut off |
//! | `trouble` | what is wrong on one node, and the others serve on |
//! | `network` | stale neighbours, flooding, loss, forged heartbeats, load, other configurations, scripts, sockets |
//! | `servers` | the distribution's nginx and Apache, IPv6 and UDP, a farm in front of a mirror, a load balancer's probe |
//! | `database` | nginx in front of PostgreSQL on a mirror, request by request |
//! | `invisible` | an address that all members receive |
//! | `demo` | `cargo xtask demo --farm` |
//! | `soak` | `cargo xtask soak --farm` |

mod database;
mod demo;
mod invisible;
mod members;
mod network;
mod servers;
mod soak;
mod trouble;
pub use demo::run as demo;
pub use soak::run as soak;

use crate::cluster::Cluster;
use crate::shell::wait_for;
use crate::test::nothing_remains;
use crate::{build, packages};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MODULE: &str = "web";
const NODES: [&str; 3] = ["node1", "node2", "node3"];
const SOON: Duration = Duration::from_secs(30);
/// A drain lasts as long as connections stand.
const DRAINED: Duration = Duration::from_secs(60);
/// Much longer than the 500 ms after which a member is missed: a slow machine is no failure.
const MOVED_MS: u64 = 3_000;
/// Connections that stand, where it does not matter how many.
const SOME: usize = 90;
/// Where the promise is one of a thousand.
const MANY: usize = 1_200;

/// Name, as `--only` takes it, and what happens.
type Story = (&'static str, fn(&Farm) -> anyhow::Result<()>);
/// One on a lab of its own.
type Own = (&'static str, fn(&Path) -> anyhow::Result<()>);

/// A lab of three nodes with the module [`MODULE`] serving on all of them when a story begins.
pub struct Farm<'a> {
    cluster: &'a Cluster,
    dir: PathBuf,
}

/// Plays the stories that are wanted.
pub fn stories(only: Option<&str>) -> anyhow::Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let shared = members::STORIES
        .iter()
        .chain(trouble::STORIES)
        .chain(network::STORIES)
        .chain(servers::STORIES)
        .chain(database::STORIES)
        .chain(invisible::STORIES);
    let shared: Vec<&Story> = shared.filter(|(name, _)| wanted(name)).collect();
    let own: [Own; 2] = [(members::BESIDE, members::beside), (members::EIGHT, members::eight)];
    if shared.is_empty() && !own.iter().any(|(name, _)| wanted(name)) {
        return Ok(());
    }
    packages::ensure(packages::FARM)?;
    packages::ensure(packages::FARM_PEERS)?;
    let programs = build::programs(false)?;
    if !shared.is_empty() {
        let cluster = Cluster::up(&programs, "e2e", &["--nodes", "3"])?;
        let farm = Farm { dir: install(&cluster)?, cluster: &cluster };
        for (name, play) in shared {
            let start = Instant::now();
            println!("   {name}");
            let played = farm.all_serve().and_then(|()| play(&farm));
            played.inspect_err(|_| cluster.print_logs(MODULE)).with_context(|| (*name).to_string())?;
            println!("      {:.1} s", start.elapsed().as_secs_f64());
        }
        drop(cluster);
        nothing_remains("e2e")?;
    }
    for (name, play) in own.into_iter().filter(|(name, _)| wanted(name)) {
        println!("   {name}");
        play(&programs).context(name)?;
        nothing_remains("e2e")?;
    }
    Ok(())
}

impl Farm<'_> {
    fn all_serve(&self) -> anyhow::Result<()> {
        let wanted = NODES.map(|node| (node, "UP Ready"));
        self.cluster.wait_states(MODULE, &wanted, DRAINED)?;
        NODES.iter().try_for_each(|node| self.share("node1", node, true))
    }

    fn sh(&self, host: &str, script: &str) -> anyhow::Result<String> {
        self.cluster.exec(host, &["sh", "-ec", script])
    }

    fn stead(&self, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["stead"];
        all.extend(arguments);
        self.cluster.exec(node, &all)
    }

    fn clients(&self, name: &str) -> anyhow::Result<Clients<'_>> {
        Clients::begin(self.cluster, &self.dir, name)
    }

    /// So many that one of a thousand would be seen to break.
    fn many_clients(&self, name: &str) -> anyhow::Result<Clients<'_>> {
        Clients::begin_with(self.cluster, &self.dir, name, &self.cluster.vip, MANY, None)
    }

    fn director(&self, by: &str) -> Option<String> {
        Some(self.cluster.view(by, MODULE)?["farm"]["director"].as_str()?.to_string())
    }

    /// Waits until a node has a share, or none, by the word of another.
    fn share(&self, by: &str, node: &str, has: bool) -> anyhow::Result<()> {
        share(self.cluster, by, node, has)
    }

    /// The same of another module.
    fn share_of(&self, module: &str, by: &str, node: &str, has: bool) -> anyhow::Result<()> {
        share_of(self.cluster, module, by, node, has)
    }

    /// The module's sentence on a node contains all of these.
    fn says(&self, node: &str, module: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut said = String::new();
        let seen = wait_for("the module says why", SOON, || {
            said = self.cluster.view(node, module).map_or_else(String::new, |view| view.to_string());
            Ok(words.iter().all(|word| said.contains(word)).then_some(()))
        });
        seen.with_context(|| format!("{node} does not say {words:?} of {module}: {said}"))
    }
}

/// Waits until a node has a share, or none, by the word of another.
fn share(cluster: &Cluster, by: &str, node: &str, has: bool) -> anyhow::Result<()> {
    share_of(cluster, MODULE, by, node, has)
}

fn share_of(cluster: &Cluster, module: &str, by: &str, node: &str, has: bool) -> anyhow::Result<()> {
    wait_for("the shares are dealt out anew", DRAINED, || {
        let Some(view) = cluster.view(by, module) else { return Ok(None) };
        let shares = view["farm"]["groups"][0]["shares"].as_array().cloned().unwrap_or_default();
        let share = shares.iter().find(|share| share[0] == node).and_then(|share| share[1].as_u64()).unwrap_or(0);
        Ok((!shares.is_empty() && (share > 0) == has).then_some(()))
    })
}

/// What clients counted.
struct Told(Value);

impl Told {
    fn of(&self, what: &str, node: &str) -> u64 {
        self.0[what][node].as_u64().unwrap_or(0)
    }
    fn sum(&self, what: &str) -> u64 {
        self.0[what].as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum())
    }
    fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap_or(u64::MAX)
    }
    fn span_ms(&self) -> u64 {
        self.0["span_ms"].as_u64().unwrap_or(u64::MAX)
    }
    /// Connections that stood broke only on that node; new ones failed for a bounded time.
    fn only_of(&self, node: &str) -> anyhow::Result<()> {
        ensure!(self.sum("broken") == self.of("broken", node), "connections of the survivors broke: {}", self.0);
        ensure!(self.span_ms() < MOVED_MS, "the share did not move in time: {}", self.0);
        Ok(())
    }
    /// Of those that stood at most one of a thousand broke, and no new one failed.
    fn nearly_all_kept(&self) -> anyhow::Result<()> {
        let (kept, broken) = (self.sum("kept"), self.sum("broken"));
        ensure!(kept + broken >= 1_000, "only {} stood", kept + broken);
        ensure!(broken * 1_000 <= kept + broken, "{broken} of {} connections broke: {}", kept + broken, self.0);
        ensure!(self.failed() == 0, "new connections failed: {}", self.0);
        Ok(())
    }
    /// Nothing broke, nothing failed.
    fn nothing_lost(&self) -> anyhow::Result<()> {
        ensure!(self.sum("broken") == 0, "connections broke: {}", self.0);
        ensure!(self.failed() == 0, "new connections failed: {}", self.0);
        Ok(())
    }
}

/// Clients at work.
struct Clients<'a> {
    /// They end before it does.
    _lab: &'a Cluster,
    child: std::process::Child,
    log: PathBuf,
    stop: PathBuf,
}

impl<'a> Clients<'a> {
    fn begin(cluster: &'a Cluster, dir: &Path, name: &str) -> anyhow::Result<Self> {
        Self::begin_with(cluster, dir, name, &cluster.vip, SOME, None)
    }

    /// `count` connections stand; `life`: how many seconds each of them.
    fn begin_with(
        cluster: &'a Cluster,
        dir: &Path,
        name: &str,
        vip: &str,
        count: usize,
        life: Option<&str>,
    ) -> anyhow::Result<Self> {
        let script = dir.join("client.py");
        std::fs::write(&script, include_str!("farm/client.py"))?;
        let (log, stop) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.stop")));
        let (script, until, count) = (script.to_string_lossy(), stop.to_string_lossy(), count.to_string());
        let mut arguments = vec!["/usr/bin/python3", &script, vip, &until, &count];
        arguments.extend(life);
        let child = cluster.spawn("client", &arguments, &log)?;
        let clients = Self { _lab: cluster, child, log, stop };
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
            .with_context(|| {
                // All it says afterwards, with why connections failed.
                let _ = std::fs::write(&self.stop, "");
                let _ = wait_for("the clients' last words", SOON, || Ok(self.said().contains('{').then_some(())));
                let said = self.said();
                let lines: Vec<&str> = said.lines().collect();
                format!(
                    "{} of {wanted} answered; the clients' last words: {:?}",
                    answered(),
                    &lines[lines.len().saturating_sub(4)..]
                )
            })
    }

    fn end(mut self) -> anyhow::Result<Told> {
        std::fs::write(&self.stop, "")?;
        self.child.wait()?;
        let said = self.said();
        let last = said.lines().last().unwrap_or_default();
        serde_json::from_str(last).map(Told).with_context(|| format!("the clients said: {said}"))
    }
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
    // A process that is restarted, and a look at a file that takes the member out while it is there.
    let well = module.join("bin/well");
    std::fs::write(&well, "#!/bin/sh\n[ ! -e /run/unwell ]\n")?;
    std::fs::set_permissions(&well, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let conf = module.join("conf/userconfig.xml");
    let text = std::fs::read_to_string(&conf)?;
    let watched = text.replacen(
        "  </service>",
        "    <errd><proc name=\"python3\" argregex=\"server.py\" action=\"restart\"/></errd>\n    <check><custom ident=\"well\" when=\"pre\" exec=\"well\" interval=\"1s\" action=\"wait\" down_after=\"1\"/></check>\n  </service>",
        1,
    );
    ensure!(watched != text, "modules/farm ends otherwise than expected");
    std::fs::write(&conf, watched)?;
    cluster.exec("node1", &["stead", "module", "install", &module.to_string_lossy(), "-m", MODULE])?;
    let vip = format!("VIP={}", cluster.vip);
    cluster.exec("node1", &["stead", "config", "-m", MODULE, "--set", &vip, "--set", "FILTER=on_port"])?;
    cluster.exec("node1", &["stead", "start", "-m", MODULE, "-H", "*"])?;
    Ok(dir)
}
