//! Stories of virtual IPs, each told by a module of its own beside the ledger: several, a duplicate, announced again, connections.

use super::{RESYNC, SOON, Stage, now_ms};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// The module of these stories.
const MODULE: &str = "addresses";
const NODES: [&str; 2] = ["node1", "node2"];

/// One `<interface>` of `<vip>`.
fn interface(addrs: &[&str], attributes: &str) -> String {
    let addrs =
        addrs.iter().map(|addr| format!("<virtual_addr addr=\"{addr}\" where=\"one_side_alias\"{attributes}/>"));
    format!("<interface><real_interface>{}</real_interface></interface>", addrs.collect::<String>())
}

fn vip(attributes: &str, interfaces: &[String]) -> String {
    format!("<vip{attributes}><interface_list>{}</interface_list></vip>", interfaces.concat())
}

/// The module, there for one story.
struct Module<'a> {
    stage: &'a Stage<'a>,
    folder: PathBuf,
}

impl<'a> Module<'a> {
    fn new(stage: &'a Stage<'a>, service: &str) -> anyhow::Result<Self> {
        let folder = PathBuf::from(format!("/tmp/stead-addresses-{}-{}", std::process::id(), now_ms()));
        crate::refusals::write_module(&folder, MODULE, service, &[])?;
        let path = folder.join(MODULE);
        let this = Self { stage, folder };
        stage.cluster.exec("node1", &["stead", "module", "install", &path.to_string_lossy()])?;
        stage.cluster.exec("node1", &["stead", "config", "-m", MODULE])?;
        Ok(this)
    }

    fn stead(&self, node: &str, verb: &str) -> anyhow::Result<()> {
        self.stage.cluster.exec(node, &["stead", verb, "-m", MODULE]).map(drop)
    }

    /// Serving on the ledger's primary, followed by the other one.
    fn pair(&self) -> anyhow::Result<()> {
        let (primary, secondary) = (&*self.stage.primary, &*self.stage.secondary);
        self.stead(primary, "start")?;
        self.stead(secondary, "start")?;
        self.state(&[(primary, "PRIM Ready"), (secondary, "SECOND Ready")])
    }

    fn state(&self, wanted: &[(&str, &str)]) -> anyhow::Result<()> {
        self.stage.cluster.wait_states(MODULE, wanted, SOON)
    }

    fn until(&self, node: &str, name: &str, value: &str) -> anyhow::Result<()> {
        self.stage.cluster.wait_resource(node, MODULE, (name, value), SOON)
    }

    fn log(&self, node: &str) -> anyhow::Result<String> {
        self.stage.cluster.exec(node, &["stead", "log", "-m", MODULE])
    }

    /// Stopped on both nodes, and gone.
    fn remove(&self) -> anyhow::Result<()> {
        for node in NODES {
            self.stead(node, "stop")?;
        }
        self.stage.cluster.exec("node1", &["stead", "module", "uninstall", "-m", MODULE]).map(drop)
    }
}

impl Drop for Module<'_> {
    /// What a failed story left does not fail the next one.
    fn drop(&mut self) {
        for node in NODES {
            let _ = self.stage.cluster.try_exec(node, &["stead", "forcestop", "-m", MODULE]);
        }
        let _ = self.stage.cluster.try_exec("node1", &["stead", "module", "uninstall", "-m", MODULE]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Stage<'_> {
    /// The interface of a host that has this address.
    fn card(&self, host: &str, network: &str) -> anyhow::Result<String> {
        let script = format!("ip -4 -o addr show to {network} | awk '{{print $2; exit}}'");
        Ok(self.cluster.exec(host, &["sh", "-c", &script])?.trim().to_string())
    }

    fn mac(&self, host: &str, card: &str) -> anyhow::Result<String> {
        Ok(self.cluster.exec(host, &["cat", &format!("/sys/class/net/{card}/address")])?.trim().to_string())
    }

    fn has(&self, node: &str, card: &str, addr: &str) -> anyhow::Result<bool> {
        let told = self.cluster.exec(node, &["ip", "-o", "addr", "show", "dev", card])?;
        Ok(told.contains(&format!(" {addr}/")))
    }

    fn reaches(&self, host: &str, addr: &str) -> anyhow::Result<()> {
        let family = if addr.contains(':') { "-6" } else { "-4" };
        self.cluster.exec(host, &["ping", family, "-c1", "-W2", addr]).map(drop)
    }

    /// Whom the client takes for this address.
    fn neighbour(&self, addr: &str) -> anyhow::Result<String> {
        let told = self.cluster.exec("client", &["ip", "neigh", "show", "to", addr])?;
        let mut words = told.split_whitespace();
        Ok(words.find(|word| *word == "lladdr").and(words.next()).unwrap_or_default().to_string())
    }
}

/// IPv4 and IPv6 on both networks: all come, all move when their node loses power, all go at the stop.
pub(super) fn several(s: &Stage) -> anyhow::Result<()> {
    const ADDRS: [[&str; 2]; 2] = [["10.0.1.121", "fd00:1::121"], ["10.0.2.121", "fd00:2::121"]];
    let cards = |node: &str| anyhow::Ok([s.card(node, "10.0.1.0/24")?, s.card(node, "10.0.2.0/24")?]);
    // The nodes' own addresses of IPv6: a loss of power forgets them.
    let number = |node: &str| -> anyhow::Result<()> {
        for (n, card) in cards(node)?.iter().enumerate() {
            let addr = format!("fd00:{}::{}/64", n + 1, &node[4..]);
            s.cluster.exec(node, &["ip", "-6", "addr", "replace", &addr, "dev", card, "nodad"])?;
        }
        Ok(())
    };
    NODES.iter().try_for_each(|node| number(node))?;
    let client = s.card("client", "10.0.1.0/24")?;
    s.cluster.exec("client", &["ip", "-6", "addr", "replace", "fd00:1::9/64", "dev", &client, "nodad"])?;

    let everywhere = |holder: &str, other: &str| -> anyhow::Result<()> {
        for (card, addrs) in cards(holder)?.iter().zip(ADDRS) {
            for addr in addrs {
                ensure!(s.has(holder, card, addr)?, "{holder} has no {addr} on {card}");
            }
        }
        for addr in ADDRS[0] {
            s.reaches("client", addr).with_context(|| format!("the client does not reach {addr}"))?;
        }
        // The second network has no client; the other node is one.
        for addr in ADDRS[1].iter().filter(|_| !other.is_empty()) {
            s.reaches(other, addr).with_context(|| format!("{other} does not reach {addr}"))?;
        }
        Ok(())
    };
    let nowhere = |node: &str| -> anyhow::Result<()> {
        for (card, addr) in cards(node)?.iter().flat_map(|card| ADDRS.iter().flatten().map(move |addr| (card, addr))) {
            ensure!(!s.has(node, card, addr)?, "{node} has {addr} on {card}");
        }
        Ok(())
    };

    let module = Module::new(s, &vip("", &ADDRS.map(|addrs| interface(&addrs, ""))))?;
    module.pair()?;
    everywhere(&s.primary, &s.secondary)?;
    nowhere(&s.secondary)?;
    s.act(&["power", "cut", &s.primary])?;
    module.state(&[(&s.secondary, "ALONE Ready")])?;
    everywhere(&s.secondary, "")?;
    s.act(&["power", "on", &s.primary])?;
    // Where an address of the module has no network the node waits; it comes by itself when that is there.
    module.state(&[(&s.primary, "WAIT NotReady")])?;
    number(&s.primary)?;
    s.cluster.wait_states(MODULE, &[(&s.secondary, "PRIM Ready"), (&s.primary, "SECOND Ready")], RESYNC)?;
    everywhere(&s.secondary, &s.primary)?;
    nowhere(&s.primary)?;
    // A planned one moves them back.
    module.stead(&s.secondary, "swap")?;
    module.state(&[(&s.primary, "PRIM Ready"), (&s.secondary, "SECOND Ready")])?;
    everywhere(&s.primary, &s.secondary)?;
    nowhere(&s.secondary)?;
    for node in [&s.secondary, &s.primary] {
        module.stead(node, "stop")?;
    }
    NODES.iter().try_for_each(|node| nowhere(node))?;
    module.remove()?;
    s.whole()
}

/// Another machine takes the address while it serves (`check="on"`, the default): noticed, named, stopped; nobody serves at a
/// contested address, and the service is back as soon as that one is gone.
pub(super) fn duplicate(s: &Stage) -> anyhow::Result<()> {
    const ADDR: &str = "10.0.1.122";
    let resource = format!("ip.{ADDR}");
    let card = s.card("client", "10.0.1.0/24")?;
    let mac = s.mac("client", &card)?;
    let module = Module::new(s, &vip("", &[interface(&[ADDR], "")]))?;
    module.pair()?;
    module.until(&s.primary, &resource, "up")?;
    s.cluster.exec("client", &["ip", "addr", "add", &format!("{ADDR}/32"), "dev", &card])?;
    let played: anyhow::Result<()> = (|| {
        let noticed = format!("Resource {resource} set to down by ipcheck: {mac} answers for it, too");
        wait_for("the duplicate is noticed", SOON, || Ok(module.log(&s.primary)?.contains(&noticed).then_some(())))?;
        let acted = "Action stopstart from failover rule ip_failure";
        wait_for("the rule acts", SOON, || Ok(module.log(&s.primary)?.contains(acted).then_some(())))?;
        // Whichever of the two would serve next says who has it, and does not take it.
        for node in NODES {
            let named = format!("{ADDR} is answered by {mac}");
            wait_for(&format!("no node has {ADDR}; {node} knows why, or waits for the other"), SOON, || {
                let held = s.has(node, &s.card(node, "10.0.1.0/24")?, ADDR)?;
                let told = NODES.iter().map(|node| module.log(node)).collect::<anyhow::Result<String>>()?;
                Ok((!held && told.contains(&named)).then_some(()))
            })?;
        }
        Ok(())
    })();
    s.cluster.exec("client", &["ip", "addr", "del", &format!("{ADDR}/32"), "dev", &card])?;
    played?;
    // Nobody has to come for it.
    let (holder, _) = s.cluster.wait_whole(MODULE, RESYNC)?;
    ensure!(s.has(&holder, &s.card(&holder, "10.0.1.0/24")?, ADDR)?, "{holder} serves without {ADDR}");
    module.remove()
}

/// A client that was told something else of the address meanwhile reaches it again as soon as the networks are whole:
/// long before the holder would say it by itself (30 s), and though its own entry would stand for hours.
pub(super) fn again(s: &Stage) -> anyhow::Result<()> {
    const V6: &str = "fd00:1::123";
    const FALSE: &str = "02:00:00:00:00:99";
    let card = s.card("client", "10.0.1.0/24")?;
    let reachable = |family: &str, ms: &str| {
        let name = format!("net.{family}.neigh.{card}.base_reachable_time_ms={ms}");
        s.cluster.exec("client", &["sysctl", "-qw", &name]).map(drop)
    };
    for node in NODES {
        let own = s.card(node, "10.0.1.0/24")?;
        let addr = format!("fd00:1::{}/64", &node[4..]);
        s.cluster.exec(node, &["ip", "-6", "addr", "replace", &addr, "dev", &own, "nodad"])?;
    }
    s.cluster.exec("client", &["ip", "-6", "addr", "replace", "fd00:1::9/64", "dev", &card, "nodad"])?;
    let vip4 = s.cluster.vip.clone();
    let module = Module::new(s, &vip("", &[interface(&[V6], "")]))?;
    module.pair()?;
    let mac = s.mac(&s.primary, &s.card(&s.primary, "10.0.1.0/24")?)?;
    for family in ["ipv4", "ipv6"] {
        reachable(family, "7200000")?;
    }
    let played: anyhow::Result<()> = (|| {
        for (what, cut) in [
            ("the clients' network of the primary", vec!["link", "cut", &*s.primary, "net1"]),
            ("every network of the secondary", vec!["link", "cut", &*s.secondary]),
        ] {
            s.act(&cut)?;
            if what.contains("secondary") {
                s.state(&s.primary, "ALONE Ready", SOON)?;
                module.state(&[(&s.primary, "ALONE Ready")])?;
            } else {
                s.cluster.wait_resource(&s.primary, MODULE, ("heartbeat.net1", "down"), SOON)?;
            }
            for addr in [&*vip4, V6] {
                let lie = ["ip", "neigh", "replace", addr, "lladdr", FALSE, "nud", "reachable", "dev", &*card];
                s.cluster.exec("client", &lie)?;
                ensure!(s.neighbour(addr)? == FALSE, "the client's entry is not poisoned");
            }
            s.act(&["link", "heal", if what.contains("secondary") { &s.secondary } else { &s.primary }])?;
            for addr in [&*vip4, V6] {
                // Half of the time after which it would be said anyhow.
                wait_for(&format!("{addr} is announced after a cut of {what}"), SOON * 3 / 4, || {
                    Ok((s.neighbour(addr)? == mac).then_some(()))
                })?;
                s.reaches("client", addr)?;
            }
            s.serving()?;
            s.whole()?;
        }
        Ok(())
    })();
    for family in ["ipv4", "ipv6"] {
        reachable(family, "30000")?;
    }
    for node in NODES {
        s.act(&["link", "heal", node])?;
    }
    for addr in [&*vip4, V6] {
        let _ = s.cluster.try_exec("client", &["ip", "neigh", "del", addr, "dev", &card]);
    }
    played?;
    ensure!(s.moves() == 0, "{} moves of the service, expected none", s.moves());
    module.remove()
}

/// Connects twice, says so, and waits for one of: a reset, an end, or the file: then asks, and says what is answered.
const CLIENT: &str = r#"
import os, select, socket, sys, time
addr, go = sys.argv[1], sys.argv[2]
socks = [socket.create_connection((addr, 8097), 5) for _ in range(2)]
print("connected", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    if select.select([socks[0]], [], [], 0.05)[0]:
        try:
            print("answered" if socks[0].recv(9) == b"HTTP/1.1 " else "closed", flush=True)
        except ConnectionResetError:
            print("reset", flush=True)
        break
    if os.path.exists(go):
        os.unlink(go)
        socks[0].sendall(b"GET /entries?client=x HTTP/1.1\r\nHost: x\r\n\r\n")
"#;

/// A real connection through the address: counted; reset when the address goes, or kept for its return with `tcpreset="off"`.
/// The server is no part of the module: what ends its connections is the address alone.
pub(super) fn connections(s: &Stage) -> anyhow::Result<()> {
    const ADDR: &str = "10.0.1.124";
    let db = "/srv/stead/connections.sqlite";
    let ledger = s.cluster.programs().join("stead-ledger");
    let serve = format!("setsid {} serve --db {db} --port 8097 </dev/null >/dev/null 2>&1 &", ledger.display());
    s.cluster.exec(&s.primary, &["sh", "-c", &serve])?;
    let service = |tcpreset: &str| vip(tcpreset, &[interface(&[ADDR], " connections=\"on\"")]);
    let said = |log: &Path| std::fs::read_to_string(log).unwrap_or_default();
    let played: anyhow::Result<()> = (|| {
        for (tcpreset, outcome) in [("", "reset"), (" tcpreset=\"off\"", "answered")] {
            let module = Module::new(s, &service(tcpreset))?;
            module.stead(&s.primary, "start")?;
            module.state(&[(&s.primary, "ALONE Ready")])?;
            let (log, go) = (module.folder.join("client.log"), module.folder.join("go"));
            let arguments = ["python3", "-c", CLIENT, ADDR, &go.to_string_lossy()];
            let mut client = s.cluster.spawn("client", &arguments, &log)?;
            wait_for("the client is connected", SOON, || Ok(said(&log).contains("connected").then_some(())))?;
            module.until(&s.primary, &format!("connections.{ADDR}"), "2")?;
            module.stead(&s.primary, "stop")?;
            ensure!(!s.has(&s.primary, &s.card(&s.primary, "10.0.1.0/24")?, ADDR)?, "the address is still there");
            if outcome == "answered" {
                // Nothing has told the client: it asks when the address is back, on the connection it had.
                ensure!(said(&log).trim() == "connected", "with tcpreset=off the client was told: {}", said(&log));
                module.stead(&s.primary, "start")?;
                module.state(&[(&s.primary, "ALONE Ready")])?;
                std::fs::write(&go, "")?;
            }
            wait_for(&format!("the client is {outcome}"), SOON, || Ok(said(&log).contains(outcome).then_some(())))
                .with_context(|| format!("the client says {:?}", said(&log)))?;
            client.wait()?;
            module.remove()?;
        }
        Ok(())
    })();
    s.cluster.exec(&s.primary, &["sh", "-c", &format!("pkill -f 'port 809[7]'; rm -f {db}*")])?;
    played
}
