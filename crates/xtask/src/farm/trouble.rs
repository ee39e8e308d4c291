//! Something is wrong on one node: a clear sentence there, and the others serve on.

use super::{DRAINED, Farm, MODULE, NODES, SOON, Story};
use crate::shell::wait_for;
use anyhow::{Context, ensure};

pub(super) const STORIES: &[Story] =
    &[("farm-checkers", checkers), ("farm-strangers", strangers), ("farm-interface", interface)];

/// A checker takes one member out and in again; a process that dies is restarted where it is.
fn checkers(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("checkers")?;
    farm.sh("node2", "touch /run/unwell")?;
    farm.cluster
        .wait_states(MODULE, &[("node2", "UP Transient")], SOON)
        .or_else(|_| farm.cluster.wait_states(MODULE, &[("node2", "WAIT NotReady")], SOON))?;
    farm.share("node1", "node2", false)?;
    // The connections that stand on it may finish.
    clients.end()?.nothing_lost().context("while a checker took a member out")?;
    farm.cluster.wait_states(MODULE, &[("node2", "WAIT NotReady")], DRAINED)?;
    farm.says("node2", MODULE, &["waits: failover rule c_well", "custom.well is down"])?;
    farm.sh("node2", "rm /run/unwell")?;
    farm.all_serve()?;

    let before = farm.cluster.exec("node3", &["pgrep", "-of", "server.py"])?;
    farm.cluster.exec("node3", &["pkill", "-KILL", "-f", "server.py"])?;
    wait_for("the server is restarted", DRAINED, || {
        let now = farm.cluster.try_exec("node3", &["pgrep", "-of", "server.py"])?.stdout;
        Ok((!now.is_empty() && now != before).then_some(()))
    })?;
    farm.all_serve()?;
    let log = farm.stead("node3", &["log", "-m", MODULE])?;
    ensure!(log.contains("Action restart called by errd"), "{log}");
    println!("      a failing checker took a member out and in again, a killed server was restarted where it was");
    Ok(())
}

/// A virtual IP that another machine has, and one that is in no subnet of a node.
fn strangers(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("strangers")?;
    for node in NODES {
        ensure!(farm.fate(node, "conflict") == 0, "{node} takes a member for a stranger");
    }
    // Another machine says that it is the farm's address.
    let claim = format!(
        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('net1', 0))\nm, v = bytes([2, 0x66, 0, 0, 0, 9]), socket.inet_aton('{}')\nfor i in range(3): s.send(b'\\xff' * 6 + m + bytes([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]) + m + v + bytes(6) + v)",
        farm.cluster.vip
    );
    farm.cluster.exec("client", &["/usr/bin/python3", "-c", &claim])?;
    for node in NODES {
        farm.says(node, MODULE, &["02:66:00:00:00:09 spoke as a virtual address 3 times", "two machines have it"])?;
    }
    farm.sh("client", "ip addr add 10.0.1.109/32 dev net1")?;
    farm.another("stranger", "10.0.1.109")?;
    farm.stead("node1", &["start", "-m", "stranger", "--no-wait"])?;
    farm.says("node1", "stranger", &["10.0.1.109 is answered by 02:00:0a:00:01:c8", "another machine"])?;
    farm.sh("client", "ip addr del 10.0.1.109/32 dev net1")?;
    farm.cluster.wait_states("stranger", &[("node1", "UP Ready")], DRAINED)?;
    farm.remove("stranger")?;

    let refused = farm.another("lost", "192.0.2.7").err().context("an address outside the subnet was accepted")?;
    ensure!(format!("{refused:#}").contains("192.0.2.7 is in no subnet of this node"), "{refused:#}");
    farm.stead("node1", &["module", "uninstall", "-m", "lost"])?;
    clients.go_on(20)?;
    clients.end()?.nothing_lost().context("while other modules were in trouble")?;
    println!("      a stranger's address and one outside the subnet: said, and the farm beside them served on");
    Ok(())
}

/// The interface of one member goes down, and comes again.
fn interface(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("interface")?;
    farm.sh("node2", "ip link set net1 down")?;
    farm.share("node1", "node2", false)?;
    clients.go_on(50)?;
    clients.end()?.only_of("node2")?;
    farm.sh("node2", "ip link set net1 up; ip route replace default via 10.0.1.254 || true")?;
    farm.all_serve()?;
    // What an administrator took away is there again.
    farm.sh("node2", &format!("ip addr del {}/32 dev net1", farm.cluster.vip))?;
    wait_for("the address is set again", SOON, || {
        let addresses = farm.sh("node2", "ip -o -4 addr show dev net1")?;
        Ok(addresses.contains(&farm.cluster.vip).then_some(()))
    })?;
    println!("      an interface that went down took one member out; a removed address was set again");
    Ok(())
}

impl Farm<'_> {
    /// The generic module with another address, and no application.
    pub(super) fn another(&self, name: &str, vip: &str) -> anyhow::Result<()> {
        let folder = crate::build::root().join("modules/farm");
        self.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", name])?;
        self.stead("node1", &["config", "-m", name, "--set", &format!("VIP={vip}"), "--set", "PORT=8088"])?;
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        for node in NODES {
            self.stead(node, &["stop", "-m", name])?;
            self.stead(node, &["deconfig", "-m", name])?;
        }
        Ok(())
    }
}
