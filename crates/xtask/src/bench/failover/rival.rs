//! Two nodes without agents, for another product that moves the lab's address between them.

use super::Blow;
use super::probe::Probe;
use crate::cluster::Cluster;
use crate::stories::now_ms;
use std::path::{Path, PathBuf};

/// Where it is struck first.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// The lab of one product, and what its programs say.
pub struct Rival {
    /// The lab.
    pub cluster: Cluster,
    /// Output of its programs.
    pub logs: PathBuf,
}

impl Rival {
    /// Raises the lab; nothing runs in it yet.
    pub fn up(programs: &Path, lab: &str) -> anyhow::Result<Self> {
        let logs = std::env::temp_dir().join(format!("stead-{lab}-{}", std::process::id()));
        std::fs::create_dir_all(&logs)?;
        Ok(Self { cluster: Cluster::up(programs, lab, &["--no-agents"])?, logs })
    }

    /// A ledger with a file of its own.
    pub fn ledger(&self, node: &str) -> anyhow::Result<()> {
        let ledger = self.cluster.programs().join("stead-ledger");
        let serve = [&*ledger.to_string_lossy(), "serve", "--db", "/srv/stead/k/l.sqlite"];
        self.cluster.spawn(node, &serve, &self.logs.join(format!("{node}.ledger")))?;
        Ok(())
    }

    /// Does this node have the address?
    pub fn holds(&self, node: &str) -> anyhow::Result<bool> {
        Ok(self.cluster.try_exec(node, &["ip", "-o", "-4", "addr"])?.stdout.contains(&self.cluster.vip))
    }

    /// One blow to the first node, by `swap` or `kill` where it is the product's own; the outage in milliseconds. Both nodes are fresh after it,
    /// and nothing runs on them.
    pub fn strike(
        &self,
        blow: Blow,
        swap: impl FnOnce() -> anyhow::Result<()>,
        kill: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let [first, _] = NODES;
        let act = |arguments: &[&str]| self.cluster.act(arguments);
        let probe = Probe::start(&self.cluster, self.logs.file_name().unwrap_or_default().to_string_lossy().as_ref())?;
        let since = now_ms();
        match blow {
            Blow::PowerCut => act(&["power", "cut", first])?,
            Blow::NetworkCut => act(&["link", "cut", first])?,
            Blow::Freeze => act(&["freeze", first])?,
            Blow::Swap => swap()?,
            Blow::Kill => kill()?,
            Blow::Plane | Blow::Agent => anyhow::bail!("it has none"),
        }
        let outage = probe.outage_ms(since, now_ms(), Some(first))?;
        drop(probe);
        match blow {
            Blow::NetworkCut => act(&["link", "heal", first])?,
            Blow::Freeze => act(&["thaw", first])?,
            _ => {}
        }
        for node in NODES {
            act(&["power", "cut", node])?;
            act(&["power", "on", node])?;
        }
        Ok(outage)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}
