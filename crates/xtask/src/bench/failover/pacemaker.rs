//! corosync and pacemaker: an address that moves between two ledgers, each with a file of its own.
//!
//! Two nodes without fencing, as a lab can have them: `no-quorum-policy=ignore`, `stonith-enabled=false`.

use super::rival::{NODES, Rival};
use super::{Blow, Contender};
use crate::shell::wait_for;
use anyhow::bail;
use std::path::Path;
use std::time::Duration;

/// Two nodes without agents.
pub struct Pacemaker {
    rival: Rival,
}

/// A cluster forms in about half a minute: pacemaker waits for its peers first.
const FORMED: Duration = Duration::from_secs(120);

/// What corosync reads; its own defaults for the token (3 s for two nodes, and what goes with it).
const COROSYNC: &str = "totem {\n version: 2\n cluster_name: lab\n transport: udpu\n crypto_cipher: none\n crypto_hash: none\n}\nnodelist {\n node {\n  ring0_addr: 10.0.1.1\n  name: node1\n  nodeid: 1\n }\n node {\n  ring0_addr: 10.0.1.2\n  name: node2\n  nodeid: 2\n }\n}\nquorum {\n provider: corosync_votequorum\n two_node: 1\n wait_for_all: 0\n}\nlogging {\n to_stderr: yes\n to_syslog: no\n}\n";

impl Pacemaker {
    /// Raises the lab.
    pub fn up(programs: &Path, lab: &str) -> anyhow::Result<Self> {
        let this = Self { rival: Rival::up(programs, lab)? };
        this.start()?;
        Ok(this)
    }

    fn start(&self) -> anyhow::Result<()> {
        let cluster = &self.rival.cluster;
        for node in NODES {
            let prepare = "hostname \"$2\"; mkdir -p /etc/corosync /run/crm /srv/stead/k && printf '%s' \"$1\" > /etc/corosync/corosync.conf";
            cluster.exec(node, &["sh", "-c", prepare, "sh", COROSYNC, node])?;
            self.rival.ledger(node)?;
            cluster.spawn(node, &["corosync", "-f"], &self.rival.logs.join(format!("{node}.corosync")))?;
            wait_for("corosync answers", FORMED, || {
                Ok(cluster.try_exec(node, &["corosync-cfgtool", "-s"])?.status.success().then_some(()))
            })?;
            cluster.spawn(node, &["pacemakerd", "-f"], &self.rival.logs.join(format!("{node}.log")))?;
        }
        let address = format!(
            "<primitive id=\"vip\" class=\"ocf\" provider=\"heartbeat\" type=\"IPaddr2\"><instance_attributes id=\"vip-a\"><nvpair id=\"vip-ip\" name=\"ip\" value=\"{}\"/><nvpair id=\"vip-mask\" name=\"cidr_netmask\" value=\"24\"/></instance_attributes><operations><op id=\"vip-m\" name=\"monitor\" interval=\"1s\"/></operations></primitive>",
            cluster.vip
        );
        let configure = "set -e
            for it in stonith-enabled=false no-quorum-policy=ignore; do crm_attribute -t crm_config -n ${it%=*} -v ${it#*=}; done
            cibadmin --modify --allow-create --scope resources -X \"$1\"";
        wait_for("pacemaker takes its configuration", FORMED, || {
            let done = cluster.try_exec("node1", &["sh", "-c", configure, "sh", &address])?;
            Ok(done.status.success().then_some(()))
        })?;
        wait_for("both nodes are online", FORMED, || {
            let seen = cluster.try_exec("node1", &["crm_mon", "-1"])?.stdout;
            Ok(seen.contains("Online: [ node1 node2 ]").then_some(()))
        })?;
        self.settle()
    }

    /// Every round begins on the first node; nothing keeps the address there.
    fn settle(&self) -> anyhow::Result<()> {
        let [first, second] = NODES;
        // What an earlier round asked for is taken back; there may be none.
        drop(self.rival.cluster.try_exec(first, &["crm_resource", "--resource", "vip", "--clear"])?);
        wait_for("somebody has the address", FORMED, || {
            Ok((self.rival.holds(first)? || self.rival.holds(second)?).then_some(()))
        })?;
        if !self.rival.holds(first)? {
            self.rival.cluster.exec(first, &["crm_resource", "--resource", "vip", "--move", "--node", first])?;
            wait_for("the address is on the first node", FORMED, || Ok(self.rival.holds(first)?.then_some(())))?;
            self.rival.cluster.exec(first, &["crm_resource", "--resource", "vip", "--clear"])?;
        }
        Ok(())
    }
}

impl Contender for Pacemaker {
    fn name(&self) -> &'static str {
        "corosync + pacemaker, defaults"
    }

    fn strike(&self, blow: Blow) -> anyhow::Result<f64> {
        let [first, second] = NODES;
        let swap = || {
            self.rival.cluster.exec(first, &["crm_resource", "--resource", "vip", "--move", "--node", second]).map(drop)
        };
        let outage = self
            .rival
            .strike(blow, swap, || bail!("the address is all that is configured: no application is restarted"))?;
        self.start()?;
        Ok(outage)
    }

    fn alarms(&self) -> anyhow::Result<u64> {
        let log = std::fs::read_to_string(self.rival.logs.join("node2.corosync")).unwrap_or_default();
        Ok(log.matches("A processor failed").count() as u64)
    }
}
