//! Something is wrong on one node: a clear sentence there, and the others serve on.

use super::{DRAINED, Farm, MODULE, NODES, SOON, Story};
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::{Context, ensure};
use model::limits::FILTER_LEASE_MS;
use serde_json::Value;

pub(super) const STORIES: &[Story] =
    &[("farm-checkers", checkers), ("farm-strangers", strangers), ("farm-interface", interface), ("farm-lease", lease)];

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
    gone_and_back(farm)
}

/// An interface that is deleted, and made again under the same name: the kernel gives it another number.
fn gone_and_back(farm: &Farm) -> anyhow::Result<()> {
    const VIP: &str = "10.0.9.100";
    let make = "ip link add far0 type veth peer name far1; ip addr add 10.0.9.1/24 dev far0; ip link set far0 up; ip link set far1 up";
    for node in NODES {
        farm.sh(node, make)?;
    }
    farm.another("far", VIP)?;
    farm.stead("node2", &["start", "-m", "far"])?;
    farm.cluster.wait_states("far", &[("node2", "UP Ready")], DRAINED)?;
    // Whoever asks at the other end of the cable is answered, through the filter, which counts it.
    let ask = format!(
        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x806))\ns.bind(('far1', 0))\ns.settimeout(1)\nm, v = bytes([2, 0x66, 0, 0, 0, 9]), socket.inet_aton('{VIP}')\ns.send(b'\\xff' * 6 + m + bytes([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]) + m + socket.inet_aton('10.0.9.7') + bytes(6) + v)\nwhile True:\n f = s.recv(100)\n if f[20:22] == bytes([0, 2]) and f[28:32] == v: break"
    );
    let answers = || -> anyhow::Result<Option<u64>> {
        let asked = farm.cluster.try_exec("node2", &["/usr/bin/python3", "-c", &ask])?;
        Ok(asked.status.success().then(|| farm.fate_of("far", "node2", "answered")).filter(|count| *count > 0))
    };
    wait_for("the address answers", SOON, answers)?;
    let number = || farm.sh("node2", "cat /sys/class/net/far0/ifindex");
    let first = number()?;
    // Otherwise the checker of the interface stops the module, and nobody is left to look after the address.
    farm.stead("node2", &["checker", "off", "-m", "far"])?;
    farm.sh("node2", "ip link del far0")?;
    farm.says("node2", "far", &["far0 is gone"])?;
    let before = farm.fate_of("far", "node2", "answered");
    farm.sh("node2", make)?;
    let second = number()?;
    ensure!(second != first, "the kernel gave far0 its number again");
    wait_for("the address answers on the new interface, behind the filter", SOON, || {
        Ok(answers()?.filter(|count| *count > before))
    })?;
    ensure!(farm.sh("node2", "ip -o addr show dev far0")?.contains(VIP), "{VIP} is not set");
    let log = farm.stead("node2", &["log", "-m", "far"])?;
    ensure!(log.contains("far0 is another interface now: the packet filter is on it again"), "{log}");

    // With its checkers: the module stops and says for what it waits, and starts by itself when the interface is there again.
    farm.stead("node2", &["checker", "on", "-m", "far"])?;
    farm.sh("node2", "ip link del far0")?;
    farm.cluster.wait_states("far", &[("node2", "WAIT NotReady")], DRAINED)?;
    farm.says("node2", "far", &["waits: failover rule interface_failure"])?;
    farm.sh("node2", make)?;
    ensure!(number()? != second, "the kernel gave far0 its number again");
    farm.cluster.wait_states("far", &[("node2", "UP Ready")], DRAINED)?;
    // By a filter that was loaded anew, and counts from nothing.
    wait_for("the address answers on the interface that came back", SOON, answers)?;
    farm.remove("far")?;
    for node in NODES {
        farm.sh(node, "ip link del far0")?;
    }
    println!(
        "      an interface that was deleted and made anew has its address again, behind the filter; with checkers the module waits for it, and wakes up"
    );
    Ok(())
}

/// The agent of one member dies for good, and its node lives: its table serves who comes there until the lease is over, and then nobody. The others
/// have its share long before.
fn lease(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let node = NODES.into_iter().find(|node| *node != director).context("a farm of one")?;
    let vip = &farm.cluster.vip;
    let mac = farm.sh(node, "cat /sys/class/net/net1/address")?;
    // All that this client says goes to that node, as from one that has not heard that others answer now.
    farm.sh("client", &format!("ip neigh replace {vip} lladdr {} dev net1 nud permanent", mac.trim()))?;
    let (script, log) = (farm.dir.join("lease.py"), farm.dir.join("lease.log"));
    std::fs::write(&script, include_str!("lease.py"))?;
    let mut client = farm.cluster.spawn("client", &["/usr/bin/python3", &script.to_string_lossy(), vip, node], &log)?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("a connection stands on the node", SOON, || Ok(said().contains("held").then_some(())))?;
    // Whoever starts the agent again starts something else.
    let program = farm.cluster.programs().join("stead").display().to_string();
    farm.sh(node, &format!("mount --bind /bin/false {program}"))?;
    let before = now_ms();
    farm.sh(node, "pkill -KILL -f 'stead agen[t]'; while pgrep -f 'stead agen[t]'; do :; done")?;
    let after = now_ms();
    let played = (|| {
        farm.share(&director, node, false)?;
        let told = wait_for("the node answers no more", SOON, || {
            Ok(said().lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()))
        })?;
        let at = |what: &str| told[what].as_u64().with_context(|| format!("the client said {told}"));
        // Renewed at every pulse, the last time a moment before the end: it may be as much shorter. The filter looks at the clock once in a tick.
        let last = at("last_ms")?;
        ensure!(last > before + FILTER_LEASE_MS * 2 / 3, "the last answer came {} ms after the end", last - before);
        ensure!(last <= after + FILTER_LEASE_MS + 20, "a question {} ms after the end was answered", last - after);
        ensure!(told["new"] == "refused", "it takes new connections after its lease: {told}");
        let ping = farm.cluster.try_exec("client", &["ping", "-c1", "-W1", vip])?;
        ensure!(!ping.status.success(), "it answers an echo after its lease: {}", ping.stdout);
        // Who has heard it is served by the others.
        farm.sh("client", &format!("ip neigh del {vip} dev net1"))?;
        let clients = farm.clients("leased")?;
        clients.go_on(50)?;
        let others = clients.end()?;
        others.nothing_lost().context("beside a node without an agent")?;
        ensure!(others.of("answered", node) == 0, "{node} answers without an agent: {}", others.0);
        println!(
            "      an agent that stays dead: its table served for {} ms (lease: {FILTER_LEASE_MS} ms), then nothing; the others had its share",
            last - before
        );
        Ok(())
    })();
    farm.sh(node, &format!("umount -l {program}"))?;
    let _ = farm.cluster.try_exec("client", &["ip", "neigh", "del", vip, "dev", "net1"]);
    client.wait()?;
    played?;
    farm.all_serve()
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
