//! corosync and pacemaker: an address that moves between two ledgers, each with a file of its own.
//!
//! Two nodes without fencing, as a lab can have them: `no-quorum-policy=ignore`, `stonith-enabled=false`.

use super::probe::Probe;
use super::{Blow, Contender};
use crate::cluster::Cluster;
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Two nodes without agents.
pub struct Pacemaker {
    cluster: Cluster,
    logs: PathBuf,
}

const NODES: [&str; 2] = ["node1", "node2"];
/// A cluster forms in about half a minute: pacemaker waits for its peers first.
const FORMED: Duration = Duration::from_secs(120);

/// What corosync reads; its own defaults for the token (3 s for two nodes, and what goes with it).
const COROSYNC: &str = "totem {\n version: 2\n cluster_name: lab\n transport: udpu\n crypto_cipher: none\n crypto_hash: none\n}\nnodelist {\n node {\n  ring0_addr: 10.0.1.1\n  name: node1\n  nodeid: 1\n }\n node {\n  ring0_addr: 10.0.1.2\n  name: node2\n  nodeid: 2\n }\n}\nquorum {\n provider: corosync_votequorum\n two_node: 1\n wait_for_all: 0\n}\nlogging {\n to_stderr: yes\n to_syslog: no\n}\n";

impl Pacemaker {
    /// Raises the lab.
    pub fn up(programs: &Path, lab: &str) -> anyhow::Result<Self> {
        let logs = std::env::temp_dir().join(format!("stead-{lab}-{}", std::process::id()));
        std::fs::create_dir_all(&logs)?;
        let this = Self { cluster: Cluster::up(programs, lab, &["--no-agents"])?, logs };
        this.start()?;
        Ok(this)
    }

    fn start(&self) -> anyhow::Result<()> {
        let (cluster, ledger) = (&self.cluster, self.cluster.programs().join("stead-ledger"));
        for node in NODES {
            let prepare = "hostname \"$2\"; mkdir -p /etc/corosync /run/crm /srv/stead/k && printf '%s' \"$1\" > /etc/corosync/corosync.conf";
            cluster.exec(node, &["sh", "-c", prepare, "sh", COROSYNC, node])?;
            let serve = [&*ledger.to_string_lossy(), "serve", "--db", "/srv/stead/k/l.sqlite"];
            cluster.spawn(node, &serve, &self.logs.join(format!("{node}.ledger")))?;
            cluster.spawn(node, &["corosync", "-f"], &self.logs.join(format!("{node}.corosync")))?;
            wait_for("corosync answers", FORMED, || {
                Ok(cluster.try_exec(node, &["corosync-cfgtool", "-s"])?.status.success().then_some(()))
            })?;
            cluster.spawn(node, &["pacemakerd", "-f"], &self.logs.join(format!("{node}.log")))?;
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
        drop(self.cluster.try_exec(first, &["crm_resource", "--resource", "vip", "--clear"])?);
        wait_for("somebody has the address", FORMED, || Ok((self.holds(first)? || self.holds(second)?).then_some(())))?;
        if !self.holds(first)? {
            self.cluster.exec(first, &["crm_resource", "--resource", "vip", "--move", "--node", first])?;
            wait_for("the address is on the first node", FORMED, || Ok(self.holds(first)?.then_some(())))?;
            self.cluster.exec(first, &["crm_resource", "--resource", "vip", "--clear"])?;
        }
        Ok(())
    }

    fn holds(&self, node: &str) -> anyhow::Result<bool> {
        Ok(self.cluster.try_exec(node, &["ip", "-o", "-4", "addr"])?.stdout.contains(&self.cluster.vip))
    }
}

impl Contender for Pacemaker {
    fn name(&self) -> &'static str {
        "corosync + pacemaker, defaults"
    }

    fn strike(&self, blow: Blow) -> anyhow::Result<f64> {
        let act = |arguments: &[&str]| self.cluster.act(arguments);
        let probe = Probe::start(&self.cluster, self.logs.file_name().unwrap_or_default().to_string_lossy().as_ref())?;
        let since = now_ms();
        match blow {
            Blow::PowerCut => act(&["power", "cut", "node1"])?,
            Blow::NetworkCut => act(&["link", "cut", "node1"])?,
            Blow::Freeze => act(&["freeze", "node1"])?,
            Blow::Swap => {
                drop(self.cluster.exec("node1", &["crm_resource", "--resource", "vip", "--move", "--node", "node2"])?)
            }
            Blow::Kill => bail!("the address is all that is configured: no application is restarted"),
        }
        let outage = probe.outage_ms(since, now_ms(), Some("node1"))?;
        drop(probe);
        match blow {
            Blow::NetworkCut => act(&["link", "heal", "node1"])?,
            Blow::Freeze => act(&["thaw", "node1"])?,
            _ => {}
        }
        // The next round begins with both nodes fresh.
        for node in NODES {
            act(&["power", "cut", node])?;
            act(&["power", "on", node])?;
        }
        self.start()?;
        Ok(outage)
    }

    fn alarms(&self) -> anyhow::Result<u64> {
        let log = std::fs::read_to_string(self.logs.join("node2.corosync")).unwrap_or_default();
        Ok(log.matches("A processor failed").count() as u64)
    }
}

impl Drop for Pacemaker {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}
