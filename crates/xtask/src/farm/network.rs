//! What the network does to a farm: stale neighbours, a switch that floods, lost frames, forged and recorded heartbeats; and a member
//! under heavy load, one with another configuration, one whose scripts hold the traffic back.

use super::{Clients, DRAINED, Farm, MODULE, NODES, SOON, Story};
use crate::shell::wait_for;
use anyhow::{Context, ensure};

pub(super) const STORIES: &[Story] = &[
    ("farm-switch", switch),
    ("farm-loss", loss),
    ("farm-heartbeats", heartbeats),
    ("farm-load", load),
    ("farm-configurations", configurations),
    ("farm-scripts", scripts),
    ("farm-sockets", sockets),
];

/// A client that asks a member which does not direct, and hosts that see every frame: each connection still has one owner.
fn switch(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let other = NODES.into_iter().find(|node| *node != director).unwrap_or("node1");
    let vip = &farm.cluster.vip;
    let mac = farm.sh(other, "cat /sys/class/net/net1/address")?;
    farm.sh("client", &format!("ip neigh replace {vip} lladdr {} dev net1 nud permanent", mac.trim()))?;
    let clients = farm.clients("stale")?;
    clients.go_on(50)?;
    let told = clients.end()?;
    farm.sh("client", &format!("ip neigh del {vip} dev net1"))?;
    told.nothing_lost().context("with a stale neighbour")?;
    ensure!(NODES.iter().all(|node| told.of("answered", node) > 0), "not all answered: {}", told.0);

    // To an address that no switch has seen, as after it forgot one: every member receives it and none takes it.
    let before: Vec<u64> = NODES.iter().map(|node| farm.fate(node, "flooded")).collect();
    farm.sh("client", &format!("ip neigh replace {vip} lladdr 02:66:00:00:00:01 dev net1 nud permanent; ping -c 3 -i 0.2 -W 1 {vip} && exit 1; ip neigh del {vip} dev net1"))?;
    for (node, before) in NODES.iter().zip(before) {
        wait_for("a flooded frame is counted", SOON, || Ok((farm.fate(node, "flooded") > before).then_some(())))?;
    }
    let clients = farm.clients("flooded")?;
    clients.go_on(20)?;
    clients.end()?.nothing_lost().context("after a flood")?;
    println!("      a stale neighbour costs one hop; flooded frames are dropped by all, and counted");
    Ok(())
}

/// Every tenth frame is lost at every member: what stands, stands, and nobody is taken for dead.
fn loss(farm: &Farm) -> anyhow::Result<()> {
    let view = farm.view_number("node1");
    let clients = farm.clients("loss")?;
    for node in NODES {
        farm.sh(node, "nft 'table netdev loss { chain in { type filter hook ingress device \"net1\" priority -500; numgen random mod 10 == 0 counter drop; }; }'")?;
    }
    let asked = clients.go_on(300);
    let dropped = farm.sh("node1", "nft list table netdev loss");
    for node in NODES {
        farm.sh(node, "nft delete table netdev loss")?;
    }
    asked?;
    let dropped = dropped?;
    ensure!(!dropped.contains("packets 0 "), "nothing was lost: {dropped}");
    let told = clients.end()?;
    ensure!(told.sum("broken") == 0, "connections broke: {}", told.0);
    ensure!(NODES.iter().all(|node| told.of("answered", node) > 0), "not all answered: {}", told.0);
    ensure!(farm.view_number("node1") == view, "a member was taken for dead");
    println!(
        "      every tenth frame lost: none that stood broke, {} of {} new ones had to ask again",
        told.failed(),
        told.sum("answered")
    );
    Ok(())
}

/// Noise and a dead member's recorded heartbeats from a third host: counted, and nothing else.
fn heartbeats(farm: &Farm) -> anyhow::Result<()> {
    let view = farm.view_number("node1");
    let clients = farm.clients("forged")?;
    let noise = "import os, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor i in range(4000): s.sendto(os.urandom(40 + i % 1200), ('10.0.1.%d' % (1 + i % 3), 4800))";
    farm.cluster.exec("client", &["/usr/bin/python3", "-c", noise])?;
    clients.go_on(50)?;
    ensure!(farm.view_number("node1") == view, "noise changed the membership");
    // What node3 says to node1, recorded there and said again from another host while node3 is dead.
    let record = "import pickle, socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x800))\ns.bind(('net1', 0))\nheard = []\nwhile len(heard) < 20:\n f = s.recv(4096)\n if f[23] == 17 and f[26:30] == bytes([10, 0, 1, 3]) and f[36:38] == (4800).to_bytes(2, 'big'): heard.append(f[42:])\nprint(pickle.dumps(heard).hex())";
    let heard = farm.cluster.exec("node1", &["/usr/bin/python3", "-c", record])?;
    farm.cluster.act(&["power", "cut", "node3"])?;
    let replay = format!(
        "import pickle, socket, time\nheard = pickle.loads(bytes.fromhex('{}'))\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nend = time.time() + 8\nwhile time.time() < end:\n for h in heard: s.sendto(h, ('10.0.1.1', 4800))\n time.sleep(0.02)",
        heard.trim()
    );
    let mut again = farm.cluster.spawn("client", &["/usr/bin/python3", "-c", &replay], &farm.dir.join("replay.log"))?;
    let missed = farm.share("node1", "node3", false);
    let was_said_again = again.try_wait()?.is_none();
    again.wait()?;
    missed.context("recorded heartbeats keep a dead member in the farm")?;
    ensure!(was_said_again, "the recording ended before the member was missed");
    clients.go_on(50)?;
    farm.cluster.act(&["power", "on", "node3"])?;
    farm.all_serve()?;
    clients.end()?.only_of("node3")?;
    println!("      4000 forged heartbeats changed nothing, recorded ones did not keep a dead member in the farm");
    Ok(())
}

/// The director computes at full load on every processor.
fn load(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let view = farm.view_number("node1");
    let clients = farm.clients("load")?;
    let burn = "for i in 1 2 3 4; do timeout 5 sh -c 'while :; do :; done' & done; wait; true";
    let mut burning = farm.cluster.spawn(&director, &["sh", "-c", burn], &farm.dir.join("burn.log"))?;
    clients.go_on(100)?;
    burning.wait()?;
    let told = clients.end()?;
    ensure!(told.sum("broken") == 0, "connections broke: {}", told.0);
    ensure!(farm.view_number("node1") == view, "the director was taken for dead");
    println!("      the director under full load: none that stood broke, {} new ones were late", told.failed());
    Ok(())
}

/// A node with another rule: it waits and says why, the rest serves on.
fn configurations(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("configurations")?;
    farm.stead("node3", &["stop", "-m", MODULE, "--no-wait"])?;
    clients.end()?.nothing_lost().context("during a planned stop")?;
    farm.cluster.wait_states(MODULE, &[("node3", "STOP NotReady")], DRAINED)?;
    let clients = farm.clients("differs")?;
    farm.stead("node3", &["config", "-m", MODULE, "--local", "--set", "FILTER=on_addr"])?;
    farm.stead("node3", &["start", "-m", MODULE, "--no-wait"])?;
    farm.says("node3", MODULE, &["serves with another configuration of web", "NotReady"])?;
    farm.share("node1", "node3", false)?;
    clients.go_on(50)?;
    farm.stead("node3", &["stop", "-m", MODULE])?;
    farm.stead("node3", &["config", "-m", MODULE, "--local", "--set", "FILTER=on_port"])?;
    farm.stead("node3", &["start", "-m", MODULE, "--no-wait"])?;
    farm.all_serve()?;
    clients.end()?.nothing_lost().context("beside a node with another configuration")?;
    println!("      a node with another rule waited and said why; with the same one it was let in");
    Ok(())
}

/// `scriptcontrol`: no client before the script says so, and none after.
fn scripts(farm: &Farm) -> anyhow::Result<()> {
    let folder = farm.dir.join("slow");
    farm.copy_of_module(&folder, |text| text.replacen("<vip", "<vip scriptcontrol=\"on\"", 1))?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", "slow"])?;
    farm.stead("node1", &["config", "-m", "slow", "--set", "VIP=10.0.1.111", "--set", "PORT=80"])?;
    farm.stead("node1", &["start", "-m", "slow", "--no-wait"])?;
    farm.says("node1", "slow", &["its scripts have closed the traffic"])?;
    let ask = ["curl", "-s", "-m", "1", "http://10.0.1.111/"];
    ensure!(!farm.cluster.try_exec("client", &ask)?.status.success(), "it answers before its scripts say so");
    farm.stead("node1", &["farm", "open", "-m", "slow"])?;
    farm.cluster.wait_states("slow", &[("node1", "UP Ready")], DRAINED)?;
    wait_for("it answers", SOON, || Ok(farm.cluster.try_exec("client", &ask)?.status.success().then_some(())))?;
    // It stays open for who comes after an agent's end.
    farm.cluster.exec("node1", &["pkill", "-KILL", "-f", "stead agent"])?;
    wait_for("a new agent serves", SOON, || Ok((farm.cluster.state("node1", "slow") == "UP Ready").then_some(())))?;
    farm.stead("node1", &["farm", "close", "-m", "slow"])?;
    farm.says("node1", "slow", &["its scripts have closed the traffic"])?;
    ensure!(!farm.cluster.try_exec("client", &ask)?.status.success(), "it answers although its scripts have closed it");
    let refused = farm.stead("node1", &["farm", "close", "-m", MODULE]).err().context("another module was closed")?;
    ensure!(format!("{refused:#}").contains("scriptcontrol"), "{refused:#}");
    farm.remove("slow")?;
    farm.all_serve()?;
    println!("      scripts opened and closed the traffic, also across the agent's end");
    Ok(())
}

/// What a member leaves behind when its time to drain is over: no socket of the virtual address.
fn sockets(farm: &Farm) -> anyhow::Result<()> {
    let vip = "10.0.1.112";
    let folder = farm.dir.join("short");
    farm.copy_of_module(&folder, |text| text.replace("drain=\"30s\"", "drain=\"1s\""))?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", "short"])?;
    farm.stead(
        "node1",
        &["config", "-m", "short", "--set", &format!("VIP={vip}"), "--set", "PORT=80", "--set", "FILTER=on_port"],
    )?;
    farm.stead("node1", &["start", "-m", "short", "-H", "*"])?;
    farm.cluster.wait_states("short", &NODES.map(|node| (node, "UP Ready")), DRAINED)?;
    // The server is the other module's, and goes on: its sockets are ended by nobody but Stead.
    let clients = Clients::begin_with(farm.cluster, &farm.dir, "sockets", vip, super::SOME, None)?;
    let count = || -> anyhow::Result<usize> {
        Ok(farm.sh("node2", &format!("ss -Htan state connected src {vip}"))?.lines().count())
    };
    ensure!(count()? > 0, "node2 has no connection");
    farm.stead("node2", &["stop", "-m", "short"])?;
    ensure!(count()? == 0, "sockets of {vip} are left on node2");
    let told = clients.end()?;
    ensure!(told.of("broken", "node2") > 0, "connections outlived the time to drain: {}", told.0);
    told.only_of("node2")?;
    farm.remove("short")?;
    println!("      after a drain that was too short, no socket of the address is left");
    Ok(())
}

impl Farm<'_> {
    /// What a node's filter counted.
    pub(super) fn fate(&self, node: &str, fate: &str) -> u64 {
        self.fate_of(MODULE, node, fate)
    }

    pub(super) fn fate_of(&self, module: &str, node: &str, fate: &str) -> u64 {
        let view = self.cluster.view(node, module).unwrap_or_default();
        let counters = view["farm"]["interfaces"][0]["counters"].as_array().cloned().unwrap_or_default();
        counters.iter().find(|counter| counter[0] == fate).and_then(|counter| counter[1].as_u64()).unwrap_or(0)
    }

    fn view_number(&self, node: &str) -> Option<u64> {
        self.cluster.view(node, MODULE)?["farm"]["view"].as_u64()
    }
}
