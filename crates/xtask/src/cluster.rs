//! A lab and the module in it, driven through `stead`, as a user would.

use crate::shell::{self, Output, capture, must, wait_for};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running lab. Dropping it takes the lab down, unless it is kept.
pub struct Cluster {
    programs: PathBuf,
    name: String,
    /// The first address of the pool.
    pub vip: String,
    keep: bool,
}

/// A lab's name, with what `STEAD_LAB_PREFIX` puts before it: several working copies test side by side.
pub fn lab_name(name: &str) -> String {
    std::env::var("STEAD_LAB_PREFIX").map_or_else(|_| name.to_string(), |prefix| format!("{prefix}{name}"))
}

impl Cluster {
    /// Raises a lab (after taking down a leftover of the same name).
    pub fn up(programs: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut cluster = Self { programs: programs.into(), name: lab_name(name), vip: String::new(), keep: false };
        must(&mut cluster.lab(&["down"]), Duration::from_secs(60))?;
        let mut up = vec!["up"];
        up.extend(arguments);
        must(&mut cluster.lab(&up), Duration::from_secs(90))?;
        let status: Value =
            serde_json::from_str(&must(&mut cluster.lab(&["status", "--json"]), Duration::from_secs(10))?)?;
        cluster.vip = status["vip_pool"][0].as_str().context("lab status names no vip_pool")?.to_string();
        Ok(cluster)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leave the lab running.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Directory of `stead` and `stead-ledger`.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    fn stead(&self) -> Command {
        Command::new(self.programs.join("stead"))
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = self.stead();
        command.arg("lab").arg(arguments[0]).args(["--name", &self.name]).args(&arguments[1..]);
        command
    }

    /// `stead lab status --json`.
    pub fn lab_status(&self) -> anyhow::Result<String> {
        must(&mut self.lab(&["status", "--json"]), Duration::from_secs(10))
    }

    /// `stead lab …`.
    pub fn act(&self, arguments: &[&str]) -> anyhow::Result<()> {
        must(&mut self.lab(arguments), Duration::from_secs(60)).map(drop)
    }

    /// The command that runs `arguments` inside `host`.
    pub fn command(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = self.stead();
        command.args(["lab", "exec", "--name", &self.name, host, "--"]).args(arguments);
        command
    }

    /// Runs in `host`; a failing exit code is an error.
    pub fn exec(&self, host: &str, arguments: &[&str]) -> anyhow::Result<String> {
        must(&mut self.command(host, arguments), Duration::from_secs(60))
    }

    /// Runs in `host`; the exit code is the caller's to judge.
    pub fn try_exec(&self, host: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        capture(&mut self.command(host, arguments), Duration::from_secs(60))
    }

    /// Starts in `host` and goes on.
    pub fn spawn(&self, host: &str, arguments: &[&str], log: &Path) -> anyhow::Result<Child> {
        let log = std::fs::File::create(log)?;
        Ok(self.command(host, arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    /// A host's own address on the first network.
    pub fn addr(&self, host: &str) -> anyhow::Result<String> {
        let script = "ip -4 -o addr show dev net1 scope global primary | awk '{print $4; exit}'";
        let own = self.exec(host, &["sh", "-c", script])?;
        let addr = own.trim().split('/').next().filter(|addr| !addr.is_empty());
        addr.map(str::to_string).with_context(|| format!("{host} has no address on net1"))
    }

    /// What one node says of a module: `None` when it does not answer.
    pub fn view(&self, node: &str, module: &str) -> Option<Value> {
        let output = capture(
            &mut self.command(node, &["stead", "state", "-m", module, "--local", "--json"]),
            Duration::from_secs(5),
        )
        .ok()?;
        let value: Value = serde_json::from_str(&output.stdout).ok()?;
        find_view(&value, module)
    }

    /// What a resource of a module is on a node; empty: there is none.
    pub fn resource(&self, node: &str, module: &str, name: &str) -> String {
        let view = self.view(node, module).unwrap_or_default();
        let found = view["resources"].as_array().into_iter().flatten().find(|it| it["name"] == name);
        found.and_then(|it| it["value"].as_str().map(str::to_string)).unwrap_or_default()
    }

    /// Waits for a value of it.
    pub fn wait_resource(
        &self,
        node: &str,
        module: &str,
        (name, value): (&str, &str),
        within: Duration,
    ) -> anyhow::Result<()> {
        let what = format!("{name} {value} on {node}");
        wait_for(&what, within, || Ok((self.resource(node, module, name) == value).then_some(())))
    }

    /// `STATE Status` of one node, `-` when it does not answer.
    pub fn state(&self, node: &str, module: &str) -> String {
        self.view(node, module).map_or_else(
            || "-".into(),
            |v| format!("{} {}", v["state"].as_str().unwrap_or("?"), v["status"].as_str().unwrap_or("?")),
        )
    }

    /// Waits until each named node shows the wanted `STATE Status`.
    pub fn wait_states(&self, module: &str, wanted: &[(&str, &str)], deadline: Duration) -> anyhow::Result<()> {
        let mut last = Vec::new();
        let reached = wait_for("states", deadline, || {
            last = wanted.iter().map(|(node, _)| self.state(node, module)).collect();
            Ok(wanted.iter().zip(&last).all(|((_, want), is)| want == is).then_some(()))
        });
        if reached.is_err() {
            let mut story = String::new();
            for (node, _) in wanted {
                let why = self
                    .try_exec(node, &["stead", "why", "-m", module])
                    .map(|o| o.stdout + &o.stderr)
                    .unwrap_or_default();
                story += &format!("--- {node}\n{why}\n");
            }
            bail!("wanted {wanted:?}, seen {last:?} after {deadline:?}\n{story}");
        }
        Ok(())
    }

    /// Waits until the pair is whole, whichever way round: (primary, secondary).
    pub fn wait_whole(&self, module: &str, deadline: Duration) -> anyhow::Result<(String, String)> {
        let seen = wait_for("PRIM Ready and SECOND Ready", deadline, || {
            let states = (self.state("node1", module), self.state("node2", module));
            Ok(match (states.0.as_str(), states.1.as_str()) {
                ("PRIM Ready", "SECOND Ready") => Some(("node1".to_string(), "node2".to_string())),
                ("SECOND Ready", "PRIM Ready") => Some(("node2".to_string(), "node1".to_string())),
                _ => None,
            })
        });
        seen.or_else(|_| {
            // The error with both nodes' stories.
            self.wait_states(module, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")], Duration::ZERO)?;
            self.wait_whole(module, Duration::ZERO)
        })
    }

    /// The digest of a directory on a node: names, types, modes, owners, link counts, targets, times and contents.
    pub fn tree(&self, node: &str, dir: &str) -> anyhow::Result<String> {
        let script = "cd \"$1\" && find . -printf '%p %y %m %U:%G %n %l ' \\( -type d -printf '-' -o -printf '%s' \\) -printf ' %T@\\n' | sort && find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
        self.exec(node, &["sh", "-c", script, "sh", dir])
    }

    /// The last lines of the nodes' module logs, after a failure.
    pub fn print_logs(&self, module: &str) {
        for node in ["node1", "node2", "node3"] {
            println!("--- log of {node}");
            for arguments in [
                &["stead", "log", "-v", "-m", module, "-s", "40"][..],
                &["tail", "-n", "15", &format!("/var/lib/stead/modules/{module}/mirrorfs.log")],
            ] {
                if let Ok(output) = self.try_exec(node, arguments) {
                    println!("{}{}", output.stdout, output.stderr);
                }
            }
        }
    }

    /// Compares the trees of both nodes, with the clients quiet. A database writes now and then by itself, so the
    /// comparison is repeated until both looks fell between two of its writes; different trees stay different.
    pub fn compare_trees(&self, module: &str, dir: &str) -> anyhow::Result<()> {
        self.wait_whole(module, Duration::from_secs(60))?;
        // What an application stored in a shared mapping (SQLite's index of its log) is written when the kernel likes:
        // half a minute later, unless somebody asks.
        for node in ["node1", "node2"] {
            self.exec(node, &["sync", "-f", dir])?;
        }
        let mut difference = String::new();
        let equal = wait_for("equal trees", Duration::from_secs(30), || {
            let (left, right) = (self.tree("node1", dir)?, self.tree("node2", dir)?);
            let only = |a: &str, b: &str| {
                let b: std::collections::HashSet<&str> = b.lines().collect();
                a.lines().filter(|l| !b.contains(l)).take(8).map(|l| format!("  {l}\n")).collect::<String>()
            };
            difference = format!("node1:\n{}node2:\n{}", only(&left, &right), only(&right, &left));
            Ok((left == right).then_some(()))
        });
        equal.map_err(|e| e.context(format!("the trees differ\n{difference}")))
    }
}

/// The module's view in whatever `stead state --json` wraps it.
fn find_view(value: &Value, module: &str) -> Option<Value> {
    match value {
        Value::Object(o) if o.get("module").and_then(Value::as_str) == Some(module) && o.contains_key("state") => {
            Some(value.clone())
        }
        Value::Object(o) => o.values().find_map(|v| find_view(v, module)),
        Value::Array(a) => a.iter().find_map(|v| find_view(v, module)),
        _ => None,
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = shell::must(&mut self.lab(&["down"]), Duration::from_secs(60))
        {
            eprintln!("taking the lab down: {error:#}");
        }
    }
}
