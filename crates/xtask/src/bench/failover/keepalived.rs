//! keepalived: an address that moves between two ledgers, each with a file of its own.

use super::rival::Rival;
use super::{Blow, Contender};
use crate::shell::wait_for;
use anyhow::bail;
use std::path::Path;
use std::time::Duration;

/// Two nodes without agents.
pub struct Keepalived {
    rival: Rival,
    advert_ms: u64,
}

const NODES: [(&str, u32); 2] = [("node1", 200), ("node2", 100)];

impl Keepalived {
    /// Raises the lab.
    pub fn up(programs: &Path, lab: &str, advert_ms: u64) -> anyhow::Result<Self> {
        let this = Self { rival: Rival::up(programs, lab)?, advert_ms };
        this.start()?;
        Ok(this)
    }

    fn start(&self) -> anyhow::Result<()> {
        for (node, priority) in NODES {
            self.start_on(node, priority)?;
        }
        wait_for("keepalived on node1 holds the address", Duration::from_secs(30), || {
            Ok((self.rival.holds("node1")? && !self.rival.holds("node2")?).then_some(()))
        })
    }

    fn start_on(&self, node: &str, priority: u32) -> anyhow::Result<()> {
        let cluster = &self.rival.cluster;
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
        self.rival.ledger(node)?;
        cluster.spawn(
            node,
            &["keepalived", "-n", "-l", "-f", "/run/keepalived.conf", "-p", "/run/k.pid", "-r", "/run/kv.pid"],
            &self.rival.logs.join(format!("{node}.log")),
        )?;
        Ok(())
    }
}

impl Contender for Keepalived {
    fn name(&self) -> &'static str {
        if self.advert_ms == 1_000 { "keepalived, defaults (1 s)" } else { "keepalived, adverts every 100 ms" }
    }

    fn strike(&self, blow: Blow) -> anyhow::Result<f64> {
        // As a service manager stops it: it says farewell.
        let swap = || self.rival.cluster.exec("node1", &["sh", "-c", "kill -TERM $(cat /run/k.pid)"]).map(drop);
        let outage = self.rival.strike(blow, swap, || bail!("keepalived restarts nothing"))?;
        self.start()?;
        Ok(outage)
    }

    fn alarms(&self) -> anyhow::Result<u64> {
        let log = std::fs::read_to_string(self.rival.logs.join("node2.log")).unwrap_or_default();
        Ok(log.matches("Entering MASTER STATE").count() as u64)
    }
}
