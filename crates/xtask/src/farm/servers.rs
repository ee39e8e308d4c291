//! Behind real servers, in front of a mirror, beside a load balancer, over IPv6 and UDP.

use super::{Clients, DRAINED, Farm, MODULE, NODES, SOON, Story};
use crate::app::App;
use crate::balancer::{Balancer, EVERY_MS, Mode, THRESHOLD};
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::{Context, ensure};
use std::time::Duration;

pub(super) const STORIES: &[Story] = &[
    ("farm-ipv6-udp", ipv6_udp),
    ("farm-health", health),
    ("farm-nginx-apache", nginx_apache),
    ("farm-mirror", mirror),
];

const VIP6: &str = "fd00:1::100";

/// TCP over IPv6 keeps its connections over a death and a return; UDP by client reaches one node each.
fn ipv6_udp(farm: &Farm) -> anyhow::Result<()> {
    for (number, node) in (1..).zip(NODES) {
        farm.sh(node, &format!("ip -6 addr replace fd00:1::{number}/64 dev net1 nodad"))?;
    }
    farm.sh("client", "ip -6 addr replace fd00:1::200/64 dev net1 nodad; for i in $(seq 40); do ip -6 addr replace fd00:1::a:$i/64 dev net1 nodad; done")?;
    let folder = farm.dir.join("six");
    farm.copy_of_module(&folder, |text| {
        text.replace(
            "<rule port=\"%PORT%\" proto=\"tcp\" filter=\"%FILTER%\"/>",
            "<rule port=\"80\" proto=\"tcp\" filter=\"on_port\"/><rule port=\"5300\" proto=\"udp\" filter=\"on_addr\"/>",
        )
    })?;
    std::fs::write(folder.join("bin/start_both"), include_str!("six_start_both"))?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", "six"])?;
    farm.stead("node1", &["config", "-m", "six", "--set", &format!("VIP={VIP6}")])?;
    farm.stead("node1", &["start", "-m", "six", "-H", "*"])?;
    farm.cluster.wait_states("six", &NODES.map(|node| (node, "UP Ready")), DRAINED)?;
    // Nodes that start at once begin a farm each, and meet a moment later: what was connected to one before may move.
    for node in NODES {
        NODES.iter().try_for_each(|other| farm.share_of("six", node, other, true))?;
    }

    let clients = Clients::begin_with(farm.cluster, &farm.dir, "six", VIP6, super::SOME, None)?;
    let script = farm.dir.join("flows.py");
    std::fs::write(&script, include_str!("flows.py"))?;
    let (log, stop) = (farm.dir.join("flows.log"), farm.dir.join("flows.stop"));
    let arguments = ["/usr/bin/python3", &script.to_string_lossy(), &stop.to_string_lossy()];
    let mut flows = farm.cluster.spawn("client", &arguments, &log)?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("flows of UDP are answered", SOON, || Ok(said().contains("held").then_some(())))?;
    farm.cluster.act(&["power", "cut", "node2"])?;
    farm.share("node1", "node2", false)?;
    clients.go_on(50)?;
    farm.cluster.act(&["power", "on", "node2"])?;
    farm.sh("node2", "ip -6 addr replace fd00:1::2/64 dev net1 nodad")?;
    farm.all_serve()?;
    farm.cluster.wait_states("six", &[("node2", "UP Ready")], DRAINED)?;
    clients.go_on(50)?;
    let told = clients.end()?;
    std::fs::write(&stop, "")?;
    flows.wait()?;
    told.only_of("node2")?;
    ensure!(NODES.iter().all(|node| told.of("answered", node) > 0), "not all answered over IPv6: {}", told.0);
    // Of those that stood only the dead node's went elsewhere, and stayed there when it came back; new ones come to it.
    let flows = super::Told(serde_json::from_str(said().lines().last().unwrap_or_default()).context("flows of UDP")?);
    ensure!(flows.of("moved", "node2") > 0 && flows.sum("moved") == flows.of("moved", "node2"), "moved: {}", flows.0);
    ensure!(flows.of("owners", "node2") == 0 && flows.of("fresh", "node2") > 0, "node2's share: {}", flows.0);

    // A planned stop: no connection of TCP stands, and flows of UDP go on. The node waits for their end.
    std::fs::remove_file(&stop)?;
    let mut more = farm.cluster.spawn("client", &arguments, &log)?;
    wait_for("flows of UDP are answered", SOON, || Ok(said().contains("held").then_some(())))?;
    farm.stead("node3", &["stop", "-m", "six", "--no-wait"])?;
    farm.share_of("six", "node1", "node3", false)?;
    wait_for("no connection of TCP stands", SOON, || {
        let drains = farm.cluster.view("node3", "six").and_then(|view| view["farm"]["draining"].as_u64());
        Ok(drains.filter(|count| *count == 0))
    })?;
    farm.sh("client", include_str!("udp.sh"))?;
    let state = farm.cluster.state("node3", "six");
    ensure!(state == "UP Transient", "flows have gone on a moment ago, and node3 is {state}");
    std::fs::write(&stop, "")?;
    more.wait()?;
    farm.cluster.wait_states("six", &[("node3", "STOP NotReady")], SOON)?;
    farm.stead("node3", &["start", "-m", "six"])?;
    farm.share_of("six", "node1", "node3", true)?;

    let asked = farm.sh("client", include_str!("udp.sh"))?;
    let owners: Vec<&str> = asked.lines().collect();
    let nodes: std::collections::BTreeSet<&str> = owners.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    ensure!(owners.len() == 40 && owners.iter().all(|line| line.split(' ').count() == 2), "UDP clients saw: {asked}");
    ensure!(nodes.len() == 3, "forty UDP clients reached only {nodes:?}");
    println!(
        "      IPv6: new connections failed for {} ms, only the dead node's broke; UDP: 40 clients, each one node; {} flows moved at its death, none at its return",
        told.span_ms(),
        flows.of("moved", "node2")
    );
    farm.remove("six")
}

/// HAProxy in another place asks each node's health URL, as a cloud's load balancer does.
fn health(farm: &Farm) -> anyhow::Result<()> {
    let servers: Vec<(&str, String)> = (1..).zip(NODES).map(|(n, node)| (node, format!("10.0.1.{n}:80"))).collect();
    let _balancer = Balancer::start(farm.cluster, &farm.dir, MODULE, (Mode::Http, 8000), &servers)?;
    let ask = || -> anyhow::Result<String> {
        Ok(farm.cluster.try_exec("client", &["curl", "-s", "-m", "1", "http://127.0.0.1:8000/"])?.stdout)
    };
    let reached = |wanted: &[&str], deadline: Duration| {
        wait_for(&format!("the load balancer reaches {wanted:?} and no other"), deadline, || {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..6 {
                seen.insert(ask()?.trim().to_string());
            }
            Ok((seen.iter().map(String::as_str).collect::<Vec<_>>() == wanted).then_some(()))
        })
    };
    reached(&NODES, SOON)?;
    let cut = now_ms();
    farm.cluster.act(&["power", "cut", "node3"])?;
    reached(&["node1", "node2"], SOON)?;
    // Its probes; and six requests, each of which may have found the dead node and waited.
    let (noticed, most) = (now_ms() - cut, EVERY_MS * (THRESHOLD + 1) + 6_000);
    ensure!(
        noticed <= most,
        "the load balancer sent requests to a dead node for {noticed} ms, expected at most {most}"
    );
    println!(
        "      a node's power cut: the load balancer sends it nothing any more after {} ms (probes every {EVERY_MS} ms, {THRESHOLD} failures)",
        noticed
    );
    farm.cluster.act(&["power", "on", "node3"])?;
    farm.all_serve()?;
    reached(&NODES, SOON)?;
    // A planned stop: the probe says no while connections that stand finish.
    farm.stead("node1", &["stop", "-m", MODULE])?;
    reached(&["node2", "node3"], SOON)?;
    farm.stead("node1", &["start", "-m", MODULE])?;
    farm.all_serve()
}

/// The modules that are delivered, with the servers that Debian packages.
fn nginx_apache(farm: &Farm) -> anyhow::Result<()> {
    farm.stead("node1", &["stop", "-m", MODULE, "-H", "*"])?;
    for (module, vip) in [("nginx", "10.0.1.105"), ("apache", "10.0.1.106")] {
        for node in NODES {
            farm.sh(node, &format!("mkdir -p /srv/www /run/{module}; echo $(hostname) > /srv/www/index.html"))?;
            farm.sh(
                node,
                &format!(
                    "cat > /srv/{module}.conf <<'END'\n{}\nEND",
                    match module {
                        "nginx" => include_str!("nginx.conf"),
                        _ => include_str!("apache.conf"),
                    }
                ),
            )?;
        }
        let folder = crate::build::root().join("modules").join(module);
        farm.stead("node1", &["module", "install", &folder.to_string_lossy()])?;
        let settings = [format!("VIP={vip}"), format!("CONF=/srv/{module}.conf")];
        farm.stead("node1", &["config", "-m", module, "--set", &settings[0], "--set", &settings[1]])?;
        farm.stead("node1", &["start", "-m", module, "-H", "*"])?;
        farm.cluster.wait_states(module, &NODES.map(|node| (node, "UP Ready")), DRAINED)?;
        let page = farm.cluster.exec("client", &["curl", "-sf", "-m", "2", &format!("http://{vip}/")])?;
        let owner = page.trim().to_string();
        ensure!(NODES.contains(&owner.as_str()), "{module} answers {page}");
        // The client's node stops, as planned: another one's server answers at the first attempt.
        farm.stead(&owner, &["stop", "-m", module])?;
        let page = farm.cluster.exec("client", &["curl", "-sf", "-m", "2", &format!("http://{vip}/")])?;
        ensure!(
            page.trim() != owner && NODES.contains(&page.trim()),
            "{module} answers {page} after {owner} has stopped"
        );
        farm.stead(&owner, &["start", "-m", module])?;
        farm.cluster.wait_states(module, &[(&owner, "UP Ready")], DRAINED)?;
        // Its first process is killed: restarted where it is.
        // (Not the shell that looks for it.)
        let masters = if module == "nginx" { "nginx: maste[r]" } else { "apache2 .*-k star[t]" };
        let kill = format!(
            "for p in $(pgrep -f '{masters}'); do [ \"$(readlink /proc/$p/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] && kill -KILL $p; done; true"
        );
        farm.sh(&owner, &kill)?;
        wait_for("the server was restarted", DRAINED, || {
            let log = farm.stead(&owner, &["log", "-m", module])?;
            Ok(log.contains("Action restart").then_some(()))
        })?;
        farm.cluster.wait_states(module, &[(&owner, "UP Ready")], DRAINED)?;
        let page = farm.cluster.exec("client", &["curl", "-sf", "-m", "2", &format!("http://{vip}/")])?;
        println!(
            "      {module}: three of the distribution's servers; stopped, killed and restarted, {} answers",
            page.trim()
        );
        farm.remove(module)?;
    }
    farm.stead("node1", &["start", "-m", MODULE, "-H", "*"])?;
    farm.all_serve()
}

/// Three mirrors and a farm on one cluster: a farm of three depends on a mirror of two; two mirrors on one pair, each node primary of one
/// (active/active); and one node that is the secondary of both others (N-1).
fn mirror(farm: &Farm) -> anyhow::Result<()> {
    let cluster = farm.cluster;
    farm.lans_of_two()?;
    farm.ledger("ledger", "pair", "10.0.1.108", "8080", ["node1", "node2"])?;
    farm.ledger("stock", "pair", "10.0.1.109", "8081", ["node2", "node1"])?;
    farm.ledger("orders", "spare", "10.0.1.110", "8082", ["node3", "node2"])?;
    // The farm in front depends on the first one's address.
    let folder = farm.dir.join("front");
    farm.copy_of_module(&folder, |text| {
        text.replace(
            "  </service>",
            "    <check><module name=\"ledger\"><to addr=\"10.0.1.108\" interval=\"1s\"/></module></check>\n  </service>",
        )
    })?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", "front"])?;
    farm.stead("node1", &["config", "-m", "front", "--set", "VIP=10.0.1.107", "--set", "PORT=8088"])?;
    farm.stead("node1", &["start", "-m", "front", "-H", "*"])?;
    let all_up = NODES.map(|node| (node, "UP Ready"));
    cluster.wait_states("front", &all_up, DRAINED)?;

    // node1 dies: node2 serves all that it served, what it had nothing to do with does not move, the farm goes on.
    cluster.act(&["power", "cut", "node1"])?;
    for module in ["ledger", "stock"] {
        cluster.wait_states(module, &[("node2", "ALONE Ready")], SOON)?;
    }
    cluster.wait_states("orders", &[("node3", "PRIM Ready"), ("node2", "SECOND Ready")], SOON)?;
    cluster.wait_states("front", &[("node2", "UP Ready"), ("node3", "UP Ready")], DRAINED)?;
    cluster.act(&["power", "on", "node1"])?;
    farm.more_addresses("node1")?;
    for module in ["ledger", "stock"] {
        let whole = [("node2", "PRIM Ready"), ("node1", "SECOND Ready")];
        cluster.wait_states(module, &whole, Duration::from_secs(120))?;
    }
    cluster.wait_states("front", &all_up, DRAINED)?;
    println!("      active/active and N-1: node1 died, node2 served both its modules, the third mirror did not move");

    // The mirror that the farm depends on is stopped: the farm waits, says for whom, and comes back with it.
    farm.stead("node1", &["stop", "-m", "ledger"])?;
    farm.stead("node2", &["stop", "-m", "ledger"])?;
    cluster.wait_states("front", &NODES.map(|node| (node, "WAIT NotReady")), DRAINED)?;
    farm.says("node3", "front", &["waits: failover rule module_failure"])?;
    farm.stead("node2", &["start", "-m", "ledger"])?;
    farm.stead("node1", &["start", "-m", "ledger"])?;
    cluster.wait_states("front", &all_up, DRAINED)?;
    println!(
        "      a farm of three in front of a mirror of two: waits while the mirror's address does not serve, comes back with it"
    );
    farm.remove("front")?;
    for (module, nodes) in
        [("ledger", ["node1", "node2"]), ("stock", ["node1", "node2"]), ("orders", ["node2", "node3"])]
    {
        nodes.iter().try_for_each(|node| farm.stead(node, &["stop", "-m", module]).map(drop))?;
    }
    farm.all_serve().context("the first farm beside them")
}

impl Farm<'_> {
    /// Two networks that only two nodes are on, for mirrors: `pair` and `spare`.
    pub(super) fn lans_of_two(&self) -> anyhow::Result<()> {
        let lan = |name: &str, net: u8, nodes: &[u8]| {
            let node = |n: &u8| format!("      <node name=\"node{n}\" addr=\"10.0.{net}.{n}\"/>\n");
            format!("    <lan name=\"{name}\">\n{}    </lan>\n", nodes.iter().map(node).collect::<String>())
        };
        let lans = [lan("net1", 1, &[1, 2, 3]), lan("pair", 3, &[1, 2]), lan("spare", 4, &[2, 3])].concat();
        for node in NODES {
            self.more_addresses(node)?;
        }
        self.sh(
            "node1",
            &format!("cat > /srv/cluster.xml <<'END'\n<cluster>\n  <lans>\n{lans}  </lans>\n</cluster>\nEND"),
        )?;
        self.stead("node1", &["cluster", "config", "/srv/cluster.xml"]).map(drop)
    }

    /// Of the networks that only two are on; a power cut takes them away.
    pub(super) fn more_addresses(&self, node: &str) -> anyhow::Result<()> {
        let number = node.trim_start_matches("node");
        self.sh(node, &format!("for net in 3 4; do ip addr replace 10.0.$net.{number}/24 dev net1; done")).map(drop)
    }

    /// The ledger under another name, on the network of its two nodes, the first of them primary.
    fn ledger(&self, name: &str, lan: &str, vip: &str, port: &str, nodes: [&str; 2]) -> anyhow::Result<()> {
        let folder = self.dir.join(name);
        self.copy(App::Ledger.module(), &folder, |text| {
            text.replace("<heart/>", &format!("<heart><heartbeat name=\"{lan}\"/></heart>"))
        })?;
        let dir = format!("/srv/stead/{name}");
        for node in nodes {
            self.cluster.exec(node, &["mkdir", "-p", &dir])?;
        }
        self.stead(nodes[0], &["module", "install", &folder.to_string_lossy(), "-m", name])?;
        let program = self.cluster.programs().join("stead-ledger").display().to_string();
        let set: Vec<String> = [("VIP", vip), ("DIR", &dir), ("PORT", port), ("PROGRAM", &program)]
            .iter()
            .flat_map(|(name, value)| ["--set".to_string(), format!("{name}={value}")])
            .collect();
        let mut config = vec!["config", "-m", name];
        config.extend(set.iter().map(String::as_str));
        self.stead(nodes[0], &config)?;
        self.stead(nodes[0], &["prim", "-m", name])?;
        self.stead(nodes[1], &["start", "-m", name])?;
        let whole = [(nodes[0], "PRIM Ready"), (nodes[1], "SECOND Ready")];
        self.cluster.wait_states(name, &whole, Duration::from_secs(90))
    }

    pub(super) fn copy(
        &self,
        module: &str,
        to: &std::path::Path,
        change: impl Fn(&str) -> String,
    ) -> anyhow::Result<()> {
        let from = crate::build::root().join("modules").join(module);
        crate::shell::must(std::process::Command::new("cp").arg("-r").arg(from).arg(to), SOON)?;
        let path = to.join("conf/userconfig.xml");
        let text = std::fs::read_to_string(&path)?;
        let changed = change(&text);
        ensure!(changed != text, "modules/{module} is otherwise than expected");
        Ok(std::fs::write(path, changed)?)
    }

    pub(super) fn copy_of_module(&self, to: &std::path::Path, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
        self.copy("farm", to, change)
    }
}
