//! The two applications of demo, stories and soak, seen the same way: set up, load, ledger check.

use crate::cluster::Cluster;
use crate::shell::{must, wait_for};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// Which application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum App {
    /// SQLite behind one HTTP port.
    Ledger,
    /// The distribution's PostgreSQL under pgbench.
    Postgresql,
}

impl App {
    /// From the command line.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "ledger" => Ok(Self::Ledger),
            "postgresql" => Ok(Self::Postgresql),
            other => bail!("unknown application '{other}': ledger or postgresql"),
        }
    }

    /// Name of its module.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Postgresql => "postgresql",
        }
    }

    /// Its replicated directory.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Ledger => "/srv/stead/ledger",
            Self::Postgresql => "/srv/stead/postgresql",
        }
    }

    /// Its port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Ledger => 8080,
            Self::Postgresql => 5432,
        }
    }

    /// Installs the module and starts it for the first time: `prim` on node1, `start` on node2.
    pub fn install(self, cluster: &Cluster) -> anyhow::Result<()> {
        self.install_from(cluster, &crate::build::root().join("modules").join(self.module()))
    }

    /// The same with another folder of the module.
    pub fn install_from(self, cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
        for node in ["node1", "node2"] {
            cluster.exec(node, &["mkdir", "-p", self.dir()])?;
        }
        cluster.exec("node1", &["stead", "module", "install", &folder.to_string_lossy()])?;
        let vip = format!("VIP={}", cluster.vip);
        let program = format!("PROGRAM={}", cluster.programs().join("stead-ledger").display());
        let settings: Vec<&str> = match self {
            Self::Ledger => vec!["--set", &vip, "--set", &program],
            Self::Postgresql => {
                vec!["--set", &vip, "--set", "PGDATA=/srv/stead/postgresql", "--set", "TRUST_NETWORK=10.0.0.0/8"]
            }
        };
        let mut config = vec!["stead", "config", "-m", self.module()];
        config.extend(settings);
        cluster.exec("node1", &config)?;
        cluster.exec("node1", &["stead", "prim", "-m", self.module()])?;
        cluster.exec("node2", &["stead", "start", "-m", self.module()])?;
        cluster.wait_states(
            self.module(),
            &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")],
            Duration::from_secs(90),
        )?;
        self.prepare(cluster)
    }

    /// What the application needs once: tables.
    fn prepare(self, cluster: &Cluster) -> anyhow::Result<()> {
        if self == Self::Postgresql {
            self.sql(
                cluster,
                "create table if not exists ledger (client text, seq bigint, primary key (client, seq))",
            )?;
            let vip = cluster.vip.clone();
            must(
                &mut cluster
                    .command("client", &["pgbench", "-h", &vip, "-U", "postgres", "-i", "-q", "-s", "2", "postgres"]),
                Duration::from_secs(120),
            )?;
        }
        Ok(())
    }

    /// Runs SQL through the VIP.
    pub fn sql(self, cluster: &Cluster, sql: &str) -> anyhow::Result<String> {
        cluster
            .exec("client", &["psql", "-h", &cluster.vip, "-U", "postgres", "-qtA", "-v", "ON_ERROR_STOP=1", "-c", sql])
    }

    /// Starts clients; every acknowledged entry goes to a file.
    pub fn load(self, cluster: &Cluster, name: &str, clients: u32) -> anyhow::Result<Load> {
        let mut load = self.load_at(cluster, name, &self.served_at(&cluster.vip), clients)?;
        if self == Self::Postgresql {
            // pgbench ends when its server does: short runs, one after the other, until the load is stopped.
            let script = format!(
                "while [ -e {} ]; do timeout 8 pgbench -h {} -U postgres -n -c 2 -T 2 postgres; done",
                load.running.display(),
                cluster.vip
            );
            load.children.push(cluster.spawn("client", &["sh", "-c", &script], &load.dir.join("pgbench.log"))?);
        }
        load.wait_more(10, Duration::from_secs(30))?;
        Ok(load)
    }

    fn served_at(self, addr: &str) -> String {
        format!("{addr}:{}", self.port())
    }

    /// The same of another address and port that lead to it, and nobody else at work.
    pub fn load_at(self, cluster: &Cluster, name: &str, to: &str, clients: u32) -> anyhow::Result<Load> {
        let dir = PathBuf::from(format!("/tmp/stead-load-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let running = dir.join("running");
        std::fs::write(&running, "")?;
        let mut load = Load { app: self, dir, running, records: Vec::new(), children: Vec::new() };
        for _ in 0..clients {
            load.add_to(cluster, name, to)?;
        }
        Ok(load)
    }
}

/// Clients that run.
pub struct Load {
    app: App,
    dir: PathBuf,
    running: PathBuf,
    records: Vec<PathBuf>,
    children: Vec<Child>,
}

/// One acknowledged entry, as the client recorded it.
#[derive(Deserialize, Debug, Clone)]
pub struct Acknowledged {
    /// Host that committed it.
    pub node: String,
    /// Wall clock, shared by the whole lab.
    pub at_ms: u64,
}

impl Load {
    /// Another client, of this address.
    pub fn add(&mut self, cluster: &Cluster, name: &str, addr: &str) -> anyhow::Result<()> {
        self.add_to(cluster, name, &self.app.served_at(addr))
    }

    /// Another client, of this address and port.
    pub fn add_to(&mut self, cluster: &Cluster, name: &str, to: &str) -> anyhow::Result<()> {
        let i = self.records.len();
        let ledger = cluster.programs().join("stead-ledger");
        let (client, record) = (format!("{name}-{i}"), self.dir.join(format!("{i}.jsonl")));
        let kind = if self.app == App::Ledger { "client" } else { "pg-client" };
        let arguments = [
            &ledger.to_string_lossy(),
            kind,
            "--to",
            to,
            "--name",
            &client,
            "--record",
            &record.to_string_lossy(),
            "--while-exists",
            &self.running.to_string_lossy(),
        ];
        self.children.push(cluster.spawn("client", &arguments, &self.dir.join(format!("{i}.log")))?);
        self.records.push(record);
        Ok(())
    }

    /// Entries acknowledged so far.
    pub fn count(&self) -> usize {
        self.records
            .iter()
            .filter_map(|r| std::fs::read(r).ok())
            .map(|b| b.iter().filter(|c| **c == b'\n').count())
            .sum()
    }

    /// Everything acknowledged so far, in order of time.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        let mut all: Vec<Acknowledged> = self
            .records
            .iter()
            .filter_map(|r| std::fs::read_to_string(r).ok())
            .flat_map(|text| text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<_>>())
            .collect();
        all.sort_by_key(|a: &Acknowledged| a.at_ms);
        all
    }

    /// Waits until a number of further entries is acknowledged.
    pub fn wait_more(&self, entries: usize, deadline: Duration) -> anyhow::Result<()> {
        let goal = self.count() + entries;
        wait_for(&format!("{entries} more acknowledged entries"), deadline, || Ok((self.count() >= goal).then_some(())))
    }

    /// The longest time without any acknowledgement, in milliseconds, among those that end after `since_ms`.
    pub fn outage_ms(&self, since_ms: u64) -> u64 {
        let all = self.acknowledged();
        all.windows(2).filter(|w| w[1].at_ms >= since_ms).map(|w| w[1].at_ms - w[0].at_ms).max().unwrap_or(0)
    }

    /// Ends the clients and waits for them.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(&self.running);
        for child in &mut self.children {
            let end = std::time::Instant::now() + Duration::from_secs(15);
            while child.try_wait()?.is_none() {
                if std::time::Instant::now() > end {
                    child.kill()?;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.children.clear();
        Ok(())
    }

    /// Every acknowledged entry must be present on whichever node serves: (acknowledged, lost).
    pub fn check(&self, cluster: &Cluster) -> anyhow::Result<(u64, u64)> {
        self.check_at(cluster, &self.app.served_at(&cluster.vip))
    }

    /// The same, asked there.
    pub fn check_at(&self, cluster: &Cluster, to: &str) -> anyhow::Result<(u64, u64)> {
        #[derive(Deserialize)]
        struct Checked {
            acknowledged: u64,
            lost: u64,
        }
        let ledger = cluster.programs().join("stead-ledger");
        let kind = if self.app == App::Ledger { "check" } else { "pg-check" };
        let mut arguments = vec![ledger.to_string_lossy().into_owned(), kind.into(), "--to".into(), to.into()];
        arguments.extend(self.records.iter().map(|r| r.to_string_lossy().into_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = cluster.try_exec("client", &arguments)?;
        let checked: Checked = serde_json::from_str(&output.stdout)
            .with_context(|| format!("the check printed {}{}", output.stdout, output.stderr))?;
        Ok((checked.acknowledged, checked.lost))
    }

    /// Two nodes that acknowledge at the same time: how often the acknowledging node changed back and forth
    /// beyond the given number of expected moves.
    pub fn unexpected_moves(&self, expected: usize) -> usize {
        let all = self.acknowledged();
        let moves = all.windows(2).filter(|w| w[0].node != w[1].node).count();
        moves.saturating_sub(expected)
    }

    /// Where the records are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
