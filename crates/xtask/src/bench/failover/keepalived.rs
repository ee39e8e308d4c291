//! keepalived: an address that moves between two ledgers, each with a file of its own.

use super::probe::Probe;
use super::{Blow, Contender};
use crate::cluster::Cluster;
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Two nodes without agents.
pub struct Keepalived {
    cluster: Cluster,
    advert_ms: u64,
    logs: PathBuf,
}

const NODES: [(&str, u32); 2] = [("node1", 200), ("node2", 100)];

impl Keepalived {
    /// Raises the lab.
    pub fn up(programs: &Path, lab: &str, advert_ms: u64) -> anyhow::Result<Self> {
        let logs = std::env::temp_dir().join(format!("stead-{lab}-{}", std::process::id()));
        std::fs::create_dir_all(&logs)?;
        let this = Self { cluster: Cluster::up(programs, lab, &["--no-agents"])?, advert_ms, logs };
        this.start()?;
        Ok(this)
    }

    fn start(&self) -> anyhow::Result<()> {
        for (node, priority) in NODES {
            self.start_on(node, priority)?;
        }
        wait_for("keepalived on node1 holds the address", Duration::from_secs(30), || {
            Ok((self.holds("node1")? && !self.holds("node2")?).then_some(()))
        })
    }

    fn start_on(&self, node: &str, priority: u32) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        let ledger = cluster.programs().join("stead-ledger");
        let interface =
            cluster.exec(node, &["sh", "-c", "ip -o -4 addr show | awk '$4 ~ /^10\\.0\\.1\\./ {print $2; exit}'"])?;
        // VRRP 3 knows hundredths of a second.
        let configuration = format!(
            "global_defs {{\n router_id {node}\n vrrp_version 3\n}}\nvrrp_instance V {{\n interface {}\n virtual_router_id 51\n priority {priority}\n advert_int {}\n virtual_ipaddress {{\n  {}/24\n }}\n}}\n",
            interface.trim(),
            self.advert_ms as f64 / 1_000.0,
            cluster.vip
        );
        cluster.exec(
            node,
            &["sh", "-c", "printf '%s' \"$1\" > /run/keepalived.conf; mkdir -p /srv/stead/k", "sh", &configuration],
        )?;
        cluster.spawn(
            node,
            &[&ledger.to_string_lossy(), "serve", "--db", "/srv/stead/k/l.sqlite"],
            &self.logs.join(format!("{node}.ledger")),
        )?;
        cluster.spawn(
            node,
            &["keepalived", "-n", "-l", "-f", "/run/keepalived.conf", "-p", "/run/k.pid", "-r", "/run/kv.pid"],
            &self.logs.join(format!("{node}.log")),
        )?;
        Ok(())
    }

    fn holds(&self, node: &str) -> anyhow::Result<bool> {
        Ok(self.cluster.try_exec(node, &["ip", "-o", "-4", "addr"])?.stdout.contains(&self.cluster.vip))
    }
}

impl Contender for Keepalived {
    fn name(&self) -> &'static str {
        if self.advert_ms == 1_000 { "keepalived, defaults (1 s)" } else { "keepalived, adverts every 100 ms" }
    }

    fn strike(&self, blow: Blow) -> anyhow::Result<f64> {
        let act = |arguments: &[&str]| self.cluster.act(arguments);
        let probe = Probe::start(&self.cluster, self.logs.file_name().unwrap_or_default().to_string_lossy().as_ref())?;
        let since = now_ms();
        match blow {
            Blow::PowerCut => act(&["power", "cut", "node1"])?,
            Blow::NetworkCut => act(&["link", "cut", "node1"])?,
            Blow::Freeze => act(&["freeze", "node1"])?,
            // As a service manager stops it: it says farewell.
            Blow::Swap => drop(self.cluster.exec("node1", &["sh", "-c", "kill -TERM $(cat /run/k.pid)"])?),
            Blow::Kill => bail!("keepalived restarts nothing"),
        }
        let outage = probe.outage_ms(since, now_ms(), Some("node1"))?;
        drop(probe);
        match blow {
            Blow::NetworkCut => act(&["link", "heal", "node1"])?,
            Blow::Freeze => act(&["thaw", "node1"])?,
            _ => {}
        }
        // The next round begins with both nodes fresh.
        for (node, _) in NODES {
            act(&["power", "cut", node])?;
            act(&["power", "on", node])?;
        }
        self.start()?;
        Ok(outage)
    }

    fn alarms(&self) -> anyhow::Result<u64> {
        let log = std::fs::read_to_string(self.logs.join("node2.log")).unwrap_or_default();
        Ok(log.matches("Entering MASTER STATE").count() as u64)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}
