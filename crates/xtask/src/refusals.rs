//! Wrong input, hostile neighbours and impatient operators: each gets a sentence that names the thing and the remedy,
//! and nothing that serves is disturbed.
//!
//! A lab is shared by many. **Invariant, looked at after every check:** both agents are the processes they were (unless the
//! check itself ended one), the clients' module has not moved, and its clients are acknowledged.

mod agents;
mod checkers;
mod commands;
mod configurations;
mod data;
mod disks;
mod files;
mod garbage;
mod life;
mod scripts;
mod standing;
mod together;
mod tokens;

pub use garbage::pester;

use crate::app::{App, Load};
use crate::build;
use crate::cluster::Cluster;
use crate::shell::Output;
use anyhow::{Context, bail, ensure};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The module whose clients must never notice anything.
const SHOP: &str = "shop";
const NODES: [&str; 2] = ["node1", "node2"];
/// Longer than any command here needs.
const SOON: Duration = Duration::from_secs(20);

type Check = (&'static str, fn(&Site) -> anyhow::Result<()>);

/// Labs at a time.
const SITES: usize = 3;

/// All checks, by lab; the groups that take longest begin.
const CHECKS: &[&[Check]] = &[
    commands::CHECKS,
    configurations::CHECKS,
    data::CHECKS,
    standing::CHECKS,
    disks::CHECKS,
    scripts::CHECKS,
    checkers::CHECKS,
    together::CHECKS,
    life::CHECKS,
    garbage::CHECKS,
    tokens::CHECKS,
    agents::CHECKS,
    files::CHECKS,
];

/// Where the checks play.
struct Site<'a> {
    cluster: &'a Cluster,
    load: &'a Load,
    /// Modules made for the checks.
    folder: PathBuf,
    /// The agents, as they must stay.
    agents: RefCell<[String; 2]>,
}

/// Plays all checks, or those whose name contains `only`: in three labs side by side, since most of them wait.
pub fn run(only: Option<&str>) -> anyhow::Result<()> {
    let programs = build::for_lab(only)?;
    let chosen = |group: &[Check]| -> Vec<Check> {
        group.iter().copied().filter(|(name, _)| only.is_none_or(|o| name.contains(o))).collect()
    };
    let mut groups: Vec<Vec<Check>> = CHECKS.iter().map(|group| chosen(group)).filter(|it| !it.is_empty()).collect();
    // Taken from the end.
    groups.reverse();
    let sites = groups.len().min(SITES);
    let left = Mutex::new(groups);
    let outcomes: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
        let (left, programs) = (&left, &programs);
        let site = |number| scope.spawn(move || play_in_a_lab(programs, &format!("refusals-{number}"), left));
        let playing: Vec<_> = (1..=sites).map(site).collect();
        playing.into_iter().map(|it| it.join().unwrap_or_else(|_| bail!("the checks themselves failed"))).collect()
    });
    outcomes.into_iter().collect()
}

fn play_in_a_lab(programs: &Path, lab: &str, left: &Mutex<Vec<Vec<Check>>>) -> anyhow::Result<()> {
    let cluster = Cluster::up(programs, lab, &["--disk", "512"])?;
    let folder = PathBuf::from(format!("/tmp/stead-{lab}-{}", std::process::id()));
    let played = play(&cluster, lab, &folder, left);
    let _ = std::fs::remove_dir_all(&folder);
    played?;
    drop(cluster);
    crate::test::nothing_remains(lab)
}

fn play(cluster: &Cluster, lab: &str, folder: &Path, left: &Mutex<Vec<Vec<Check>>>) -> anyhow::Result<()> {
    open_shop(cluster, folder)?;
    let mut load = App::Ledger.load(cluster, lab, 1)?;
    let site = Site { cluster, load: &load, folder: folder.into(), agents: RefCell::default() };
    site.agents_are_now()?;
    let mut failed = Vec::new();
    loop {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(checks) = next else { break };
        for (name, check) in checks {
            let start = Instant::now();
            let outcome = check(&site).and_then(|()| site.is_undisturbed());
            println!("   {name:<58} {:>5.1} s", start.elapsed().as_secs_f64());
            if let Err(error) = outcome {
                println!("      FAILED: {error:?}");
                for module in [SHOP, "data"] {
                    cluster.print_logs(module);
                }
                failed.push(name);
                site.agents_are_now()?;
                site.clear();
            }
        }
    }
    load.stop()?;
    let (acknowledged, lost) = load.check(cluster)?;
    ensure!(lost == 0, "{lost} of {acknowledged} acknowledged entries are lost");
    println!("      {acknowledged} acknowledged meanwhile, 0 lost, longest pause {} ms", load.outage_ms(0));
    ensure!(failed.is_empty(), "{} checks failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// The ledger without replication, behind the first address: what it acknowledged stays on node1.
fn open_shop(cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
    let ledger = cluster.programs().join("stead-ledger");
    let start =
        format!("#!/bin/sh\nsetsid {} serve --db /srv/stead/shop.sqlite --port 8080 </dev/null &\n", ledger.display());
    write_module(folder, SHOP, &vip(&cluster.vip), &[("start_prim", &start)])?;
    let path = folder.join(SHOP);
    cluster.exec("node1", &["stead", "module", "install", &path.to_string_lossy()])?;
    cluster.exec("node1", &["stead", "config", "-m", SHOP])?;
    cluster.exec("node1", &["stead", "start", "-m", SHOP])?;
    cluster.exec("node2", &["stead", "start", "-m", SHOP])?;
    cluster.wait_states(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")], SOON)
}

/// `<vip>` with one address.
fn vip(addr: &str) -> String {
    format!(
        "<vip><interface_list><interface><real_interface><virtual_addr addr=\"{addr}\" where=\"one_side_alias\"/></real_interface></interface></interface_list></vip>"
    )
}

/// `<rfs>` with one directory.
fn rfs(dir: &str) -> String {
    format!("<rfs><replicated dir=\"{dir}\"/></rfs>")
}

/// The folder of a mirror module.
pub fn write_module(folder: &Path, name: &str, service: &str, scripts: &[(&str, &str)]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder.join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("conf"))?;
    std::fs::create_dir_all(folder.join("bin"))?;
    let xml = format!(
        "<safe>\n  <service mode=\"mirror\">\n    {service}\n    <user nicestoptimeout=\"1s\" forcestoptimeout=\"1s\"/>\n  </service>\n</safe>\n"
    );
    std::fs::write(folder.join("conf/userconfig.xml"), xml)?;
    for (script, text) in scripts {
        let path = folder.join("bin").join(script);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

impl Site<'_> {
    /// `stead …` on a node, whatever its exit code.
    fn stead(&self, node: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut all = vec!["stead"];
        all.extend(arguments);
        self.cluster.try_exec(node, &all)
    }

    /// `stead …` that must succeed.
    fn ok(&self, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.stead(node, arguments)?;
        ensure!(
            output.status.success(),
            "stead {} on {node} failed ({}):\n{}{}",
            arguments.join(" "),
            output.status,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// `stead …` that must fail with this exit code and say all these words.
    fn refused(&self, node: &str, arguments: &[&str], code: i32, words: &[&str]) -> anyhow::Result<String> {
        let output = self.stead(node, arguments)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        let command = format!("stead {} on {node}", arguments.join(" "));
        ensure!(output.status.code() == Some(code), "{command}: {} instead of {code}:\n{said}", output.status);
        for word in words {
            ensure!(said.contains(word), "{command} does not say '{word}':\n{said}");
        }
        Ok(said)
    }

    /// Writes a module's folder and installs it on both nodes.
    fn install(&self, name: &str, service: &str, scripts: &[(&str, &str)]) -> anyhow::Result<()> {
        write_module(&self.folder, name, service, scripts)?;
        self.ok("node1", &["module", "install", &self.folder.join(name).to_string_lossy()]).map(drop)
    }

    /// The same, and configures it.
    fn module(&self, name: &str, service: &str, scripts: &[(&str, &str)]) -> anyhow::Result<()> {
        self.install(name, service, scripts)?;
        self.ok("node1", &["config", "-m", name]).map(drop)
    }

    /// Stops it everywhere and takes it away.
    fn remove(&self, name: &str) -> anyhow::Result<()> {
        for node in NODES {
            if self.cluster.state(node, name) != "STOP NotReady" {
                self.ok(node, &["stop", "-m", name])?;
            }
        }
        self.ok("node1", &["module", "uninstall", "-m", name]).map(drop)
    }

    /// What a failed check left does not fail the next ones.
    fn clear(&self) {
        for module in ["data", "other", "idle", "slow", "job", "web", "flap", "net", "asks", "follower", "leader"] {
            for node in NODES {
                let _ = self.stead(node, &["forcestop", "-m", module]);
            }
            let _ = self.stead("node1", &["module", "uninstall", "-m", module]);
        }
    }

    fn state(&self, module: &str, wanted: &[(&str, &str)]) -> anyhow::Result<()> {
        self.cluster.wait_states(module, wanted, SOON)
    }

    fn reason(&self, node: &str, module: &str) -> String {
        let text = |view: &serde_json::Value, key: &str| view[key].as_str().unwrap_or_default().to_string();
        self.cluster
            .view(node, module)
            .map(|v| format!("{} ({})", text(&v, "reason"), text(&v, "remedy")))
            .unwrap_or_default()
    }

    /// Waits for words in a module's reason or remedy.
    fn says(&self, node: &str, module: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut last = String::new();
        crate::shell::wait_for("a sentence", SOON, || {
            last = self.reason(node, module);
            Ok(words.iter().all(|w| last.contains(w)).then_some(()))
        })
        .with_context(|| format!("{module} on {node} says '{last}', not {words:?}"))
    }

    /// Runs a shell in a node.
    fn sh(&self, node: &str, script: &str) -> anyhow::Result<String> {
        self.cluster.exec(node, &["sh", "-c", script])
    }

    /// Its address on the clients' network.
    fn addr(&self, node: &str) -> &'static str {
        if node == "node1" { "10.0.1.1" } else { "10.0.1.2" }
    }

    fn agent(&self, node: &str) -> anyhow::Result<String> {
        let output = self.cluster.try_exec(node, &["pgrep", "-f", "stead agent$"])?;
        Ok(output.stdout.trim().to_string())
    }

    /// The agents that run now are those to keep: after a check that ended one itself.
    fn agents_are_now(&self) -> anyhow::Result<()> {
        crate::shell::wait_for("both agents answering", SOON, || {
            let mut answering = true;
            for node in NODES {
                answering &= self.stead(node, &["module", "list"])?.status.success();
            }
            Ok(answering.then_some(()))
        })?;
        *self.agents.borrow_mut() = [self.agent("node1")?, self.agent("node2")?];
        Ok(())
    }

    fn is_undisturbed(&self) -> anyhow::Result<()> {
        for (node, before) in NODES.iter().zip(self.agents.borrow().iter()) {
            let now = self.agent(node)?;
            ensure!(now == *before, "the agent of {node} was process {before}, now it is {now}");
        }
        self.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        self.load.wait_more(3, Duration::from_secs(5))?;
        if let Some(elsewhere) = self.load.acknowledged().iter().find(|a| a.node != "node1") {
            bail!("{} acknowledged an entry: the service moved", elsewhere.node);
        }
        Ok(())
    }
}
