//! Ordinary life of a module: restart, shutdown, what its health URL says, what makes it wait, and commands while it is busy.

use super::{Check, NODES, SHOP, SOON, Site};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("restart stays where it is; a shutdown of the node stops in order, and what ran comes back", shutdown),
    (
        "failover off, by an operator, holds on both nodes over a loss of power; `update` runs where the module runs",
        said_off,
    ),
    ("forty modules share the heartbeats of a pair: one loss of power, all move and come back", forty),
    ("every kind of checker makes wait and wakes up", kinds),
    ("an address is watched: carrier lost, taken away, connections counted", address),
    ("automatic_reboot: the node reboots in the place of stopstart, and goes on when it cannot", reboots),
    ("the health URL in every state", health),
    ("commands of every kind during a resync, from both nodes at once", busy),
    ("checkers: one that flaps every two seconds is not followed for ever", flapping),
];

const SLEEPER: &str = "#!/bin/sh\nsetsid sleep 9801 </dev/null >/dev/null 2>&1 &\n";

/// Modules, what their `<service>` says, and whether they run before node2 loses power.
const BOOTS: [(&str, &str, bool); 5] = [
    ("idle", "boot=\"on\" boot_delay=\"3s\"", false),
    ("slow", "boot=\"off\"", true),
    ("web", "boot=\"auto\"", false),
    ("flap", "boot=\"ignore\"", false),
    ("net", "boot=\"ignore\"", true),
];

fn pid(site: &Site, node: &str) -> anyhow::Result<String> {
    Ok(site.sh(node, "pgrep -f 'sleep 980[1]' || true")?.trim().to_string())
}

fn shutdown(site: &Site) -> anyhow::Result<()> {
    let stop = "#!/bin/sh\necho \"stop_prim $*\" >> /srv/stead/order\npkill -f 'sleep 980[1]'\n";
    site.module("job", "", &[("start_prim", SLEEPER), ("stop_prim", stop)])?;
    site.ok("node1", &["start", "-m", "job"])?;
    site.ok("node2", &["start", "-m", "job"])?;
    let whole = |first, second| site.state("job", &[(first, "PRIM Ready"), (second, "SECOND Ready")]);
    whole("node1", "node2")?;
    let before = pid(site, "node1")?;
    site.ok("node1", &["restart", "-m", "job"])?;
    wait_for("another process", SOON, || {
        let now = pid(site, "node1")?;
        Ok((!now.is_empty() && now != before).then_some(()))
    })?;
    whole("node1", "node2")?;
    ensure!(pid(site, "node2")?.is_empty(), "the application runs on node2");
    site.ok("node1", &["swap", "-m", "job"])?;
    whole("node2", "node1")?;
    site.sh("node2", "rm -f /srv/stead/order")?;
    let said = site.ok("node2", &["shutdown"])?;
    ensure!(said.contains("job") && said.contains(SHOP), "{said}");
    site.state("job", &[("node2", "STOP NotReady"), ("node1", "ALONE Ready")])?;
    site.state(SHOP, &[("node2", "STOP NotReady"), ("node1", "ALONE Ready")])?;
    let order = site.sh("node2", "cat /srv/stead/order")?;
    ensure!(order.starts_with("stop_prim PRIM WAIT stop\nstop_prim force PRIM WAIT stop\n"), "{order}");
    let log = site.ok("node2", &["log", "-m", "job"])?;
    ensure!(log.contains("Action shutdown called by root"), "{log}");
    // The machine goes off and comes back: what ran before does, too, unless the module or an operator says otherwise.
    for (name, attributes, runs) in BOOTS {
        site.install(name, "", &[])?;
        let file = format!("/etc/stead/modules/{name}/conf/userconfig.xml");
        site.sh("node1", &format!("sed -i 's/<service /<service {attributes} /' {file}"))?;
        site.ok("node1", &["config", "-m", name])?;
        if runs {
            site.ok("node2", &["start", "-m", name])?;
            site.state(name, &[("node2", "ALONE Ready")])?;
        }
    }
    site.ok("node2", &["boot", "on", "-m", "flap"])?;
    site.ok("node2", &["boot", "off", "-m", "net"])?;
    site.cluster.act(&["power", "cut", "node2"])?;
    site.cluster.act(&["power", "on", "node2"])?;
    site.agents_are_now()?;
    whole("node1", "node2")?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    for name in ["idle", "flap"] {
        site.state(name, &[("node2", "ALONE Ready")])?;
    }
    // `idle` waited longest: what should start has.
    for name in ["slow", "web", "net"] {
        let state = site.cluster.state("node2", name);
        ensure!(state == "STOP NotReady", "{name} is {state} after the boot");
    }
    let log = site.ok("node2", &["log", "-m", "idle"])?;
    ensure!(log.contains("at boot time"), "{log}");
    BOOTS.iter().try_for_each(|(name, ..)| site.remove(name))?;
    site.sh("node2", "rm -f /srv/stead/order")?;
    site.remove("job")
}

fn said_off(site: &Site) -> anyhow::Result<()> {
    let update = "#!/bin/sh\necho \"update $*\" >> /run/updates\n";
    site.module("job", "", &[("start_prim", SLEEPER), ("update", update)])?;
    site.ok("node1", &["start", "-m", "job"])?;
    site.ok("node2", &["start", "-m", "job"])?;
    let whole = || site.state("job", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")]);
    whole()?;
    for (node, wanted) in [("node1", "update PRIM PRIM update"), ("node2", "update SECOND SECOND update")] {
        site.ok(node, &["update", "-m", "job"])?;
        wait_for(&format!("'{wanted}' on {node}"), SOON, || {
            Ok((site.sh(node, "cat /run/updates 2>/dev/null || true")?.trim() == wanted).then_some(()))
        })?;
    }
    site.ok("node1", &["failover", "off", "-m", "job"])?;
    let setting =
        |node: &str, wanted: &str| site.cluster.wait_resource(node, "job", ("usersetting.failover", wanted), SOON);
    NODES.iter().try_for_each(|node| setting(node, "down"))?;
    // It is not in memory only; and the shop stays on node1, which must not lose power here.
    site.cluster.act(&["power", "cut", "node2"])?;
    site.cluster.act(&["power", "on", "node2"])?;
    site.agents_are_now()?;
    whole()?;
    setting("node2", "down")?;
    site.ok("node1", &["swap", "-m", "job"])?;
    site.state("job", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    site.cluster.act(&["power", "cut", "node2"])?;
    site.state("job", &[("node1", "WAIT NotReady")])?;
    site.says("node1", "job", &["does not take over", "stead prim -m job"])?;
    site.ok("node1", &["prim", "-m", "job"])?;
    site.state("job", &[("node1", "ALONE Ready")])?;
    site.cluster.act(&["power", "on", "node2"])?;
    site.agents_are_now()?;
    whole()?;
    site.ok("node1", &["failover", "on", "-m", "job"])?;
    NODES.iter().try_for_each(|node| setting(node, "up"))?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.remove("job")
}

/// Every second one has its primary on node2, which loses power: twenty move at once.
fn forty(site: &Site) -> anyhow::Result<()> {
    let names: Vec<String> = (0..40).map(|i| format!("m{i:02}")).collect();
    let primary = |i: usize| if i.is_multiple_of(2) { ["node1", "node2"] } else { ["node2", "node1"] };
    let all = |wanted: &dyn Fn(usize) -> Vec<(&'static str, &'static str)>| {
        names.iter().enumerate().try_for_each(|(i, name)| site.state(name, &wanted(i)))
    };
    let whole = |i: usize| primary(i).into_iter().zip(["PRIM Ready", "SECOND Ready"]).collect();
    let ended = (|| {
        for name in &names {
            site.module(name, "", &[])?;
        }
        for (i, name) in names.iter().enumerate() {
            for node in primary(i) {
                site.ok(node, &["start", "--no-wait", "-m", name])?;
                site.state(name, &[(node, if node == primary(i)[0] { "ALONE Ready" } else { "SECOND Ready" })])?;
            }
        }
        all(&whole)?;
        site.cluster.act(&["power", "cut", "node2"])?;
        all(&|_| vec![("node1", "ALONE Ready")])?;
        site.cluster.act(&["power", "on", "node2"])?;
        site.agents_are_now()?;
        all(&|_| vec![("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])
    })();
    for name in &names {
        let gone = site.remove(name);
        if ended.is_ok() {
            gone?;
        }
    }
    ended
}

/// An interface of the node's own whose carrier and address are ours to take.
const LINK: &str = "ip link add own0 type veth peer name own1 && ip addr add 10.77.0.1/24 dev own0 && ip link set own0 up && ip link set own1 up";

fn kinds(site: &Site) -> anyhow::Result<()> {
    let check = "<check><tcp ident=\"port\" when=\"pre\"><to addr=\"127.0.0.1\" port=\"8097\"/></tcp>\
        <ping ident=\"box\"><to addr=\"10.77.0.1\"/></ping><intf ident=\"own\"><to local_addr=\"10.77.0.1\"/></intf></check>";
    let ledger = site.cluster.programs().join("stead-ledger");
    let serve = format!(
        "setsid {} serve --db /srv/stead/kinds.sqlite --port 8097 </dev/null >/dev/null 2>&1 & :",
        ledger.display()
    );
    site.sh("node1", LINK)?;
    site.sh("node1", &serve)?;
    let played = (|| {
        site.module("net", check, &[("start_prim", SLEEPER)])?;
        site.ok("node1", &["start", "-m", "net"])?;
        site.state("net", &[("node1", "ALONE Ready")])?;
        let kinds = [
            ("tcp.port", "t_port", "pkill -f 'port 809[7]'".to_string(), serve.clone()),
            ("intf.own", "interface_failure", "ip link set own1 down".into(), "ip link set own1 up".into()),
            (
                "ping.box",
                "p_box",
                "ip addr del 10.77.0.1/24 dev own0; ip addr add 10.77.0.9/24 dev own0".into(),
                "ip addr flush dev own0; ip addr add 10.77.0.1/24 dev own0".into(),
            ),
        ];
        for (resource, rule, breaks, mends) in kinds {
            site.sh("node1", &breaks).context(resource)?;
            site.state("net", &[("node1", "WAIT NotReady")]).context(resource)?;
            if resource != "ping.box" {
                // An address that is gone takes the interface's checker with it: either may be first.
                site.says("node1", "net", &[rule, &format!("{resource} is down")])?;
            }
            ensure!(pid(site, "node1")?.is_empty(), "the application runs without {resource}");
            // It may wait for another reason already: what this checker says takes its own time.
            site.cluster.wait_resource("node1", "net", (resource, "down"), SOON)?;
            site.sh("node1", &mends).context(resource)?;
            site.state("net", &[("node1", "ALONE Ready")]).context(resource)?;
            let log = site.ok("node1", &["log", "-m", "net"])?;
            ensure!(log.contains(&format!("Resource {resource} set to down by")), "{log}");
            // Each is an automatic action; there are more than three here.
            site.ok("node1", &["resetloop", "-m", "net"])?;
        }
        site.remove("net")
    })();
    site.sh("node1", "pkill -f 'port 809[7]'; ip link del own0; rm -f /srv/stead/kinds.sqlite*")?;
    played
}

/// A stand-in for `systemctl` on node2, whose only word is noted; a real loss of power follows it.
fn reboots(site: &Site) -> anyhow::Result<()> {
    let stop = "#!/bin/sh\necho \"stop_prim $*\" >> /srv/stead/asked\npkill -f 'sleep 980[1]'; :\n";
    let errd = "<errd><proc name=\"sleep\" argregex=\"9801\" action=\"stopstart\"/></errd>";
    site.install("job", errd, &[("start_prim", SLEEPER), ("stop_prim", stop)])?;
    let file = "/etc/stead/modules/job/conf/userconfig.xml";
    site.sh("node1", &format!("sed -i 's/<service /<service automatic_reboot=\"on\" /' {file}"))?;
    site.ok("node1", &["config", "-m", "job"])?;
    let stand_in = |code: u8| {
        let program = format!("#!/bin/sh\\necho systemctl \"$@\" >> /srv/stead/asked\\nexit {code}\\n");
        let script =
            format!("rm -f /srv/stead/asked; printf '{program}' > /srv/stead/systemctl; chmod +x /srv/stead/systemctl");
        site.sh("node2", &script)
    };
    stand_in(1)?;
    site.sh("node2", "mount --bind /srv/stead/systemctl $(command -v systemctl)")?;
    let played: anyhow::Result<()> = (|| {
        let kill = || {
            site.cluster.wait_resource("node2", "job", ("proc.sleep", "up"), SOON)?;
            site.sh("node2", "kill -9 $(pgrep -f 'sleep 980[1]')")
        };
        let asked = || site.sh("node2", "cat /srv/stead/asked 2>/dev/null || true");
        // After the scripts: the node that goes has stopped what it served.
        let in_order = |text: &str| {
            text.starts_with("stop_prim")
                && text.ends_with("systemctl reboot\n")
                && text.matches("systemctl").count() == 1
        };
        let serves_on_node2 =
            || -> anyhow::Result<()> { site.state("job", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")]) };
        site.ok("node2", &["start", "-m", "job"])?;
        site.ok("node1", &["start", "-m", "job"])?;
        serves_on_node2()?;
        // A machine that does not reboot: the module starts again, as stopstart would have done it.
        kill()?;
        site.state("job", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        ensure!(in_order(&asked()?), "{}", asked()?);
        let log = site.ok("node2", &["log", "-m", "job"])?;
        for text in
            ["Action reboot called by automatic_reboot: 1 of 3", "the node does not reboot: systemctl reboot failed"]
        {
            ensure!(log.contains(text), "the log does not say '{text}':\n{log}");
        }
        site.ok("node1", &["swap", "-m", "job"])?;
        serves_on_node2()?;
        stand_in(0)?;
        kill()?;
        site.state("job", &[("node1", "ALONE Ready"), ("node2", "STOP NotReady")])?;
        wait_for("the reboot", SOON, || Ok(in_order(&asked()?).then_some(())))?;
        let log = site.ok("node2", &["log", "-m", "job"])?;
        ensure!(log.contains("Action reboot called by automatic_reboot: 2 of 3"), "{log}");
        site.cluster.act(&["power", "cut", "node2"])?;
        site.cluster.act(&["power", "on", "node2"])?;
        site.agents_are_now()?;
        // Nobody has to start it.
        site.state("job", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])
    })();
    site.sh("node2", "umount $(command -v systemctl) 2>/dev/null; rm -f /srv/stead/systemctl /srv/stead/asked")?;
    played?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.remove("job")
}

fn health(site: &Site) -> anyhow::Result<()> {
    let says = |node: &str, module: &str| -> anyhow::Result<String> {
        let url = format!("http://{}:9010/var/modules/{module}/ready.txt", site.addr(node));
        let arguments = ["curl", "-s", "-o", "/dev/null", "-m", "3", "-w", "%{http_code}", &url];
        site.cluster.exec("client", &arguments)
    };
    let must = |node: &str, state: &str, code: &str| -> anyhow::Result<()> {
        site.state("idle", &[(node, state)])?;
        let said = says(node, "idle")?;
        ensure!(said == code, "{node}, {state}: {said} instead of {code}");
        Ok(())
    };
    let start = "#!/bin/sh\nwhile [ ! -e /run/open ]; do sleep 0.1; done\n";
    site.module("idle", "", &[("start_prim", start)])?;
    must("node1", "STOP NotReady", "404")?;
    site.ok("node1", &["second", "-m", "idle", "--no-wait"])?;
    must("node1", "WAIT NotReady", "404")?;
    site.ok("node1", &["stop", "-m", "idle"])?;
    site.ok("node1", &["start", "-m", "idle", "--no-wait"])?;
    must("node1", "ALONE Transient", "404")?;
    for node in NODES {
        site.sh(node, ": > /run/open")?;
    }
    must("node1", "ALONE Ready", "200")?;
    site.ok("node2", &["start", "-m", "idle"])?;
    must("node1", "PRIM Ready", "200")?;
    must("node2", "SECOND Ready", "404")?;
    site.ok("node1", &["swap", "-m", "idle"])?;
    must("node2", "PRIM Ready", "200")?;
    must("node1", "SECOND Ready", "404")?;
    for node in NODES {
        site.sh(node, "rm -f /run/open")?;
    }
    site.remove("idle")
}

const DIR: &str = super::data::DIR;

fn busy(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.sh("node1", &format!("head -c 50331648 /dev/urandom > {DIR}/big"))?;
    site.module("data", &super::rfs(DIR).replace("<rfs>", "<rfs reiallowedbw=\"6144\">"), &[("start_prim", SLEEPER)])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data", "--no-wait"])?;
    site.state("data", &[("node2", "SECOND Transient")])?;
    let commands: &[&[&str]] = &[
        &["swap"],
        &["prim"],
        &["prim", "--force"],
        &["start", "--no-wait"],
        &["second", "--no-wait"],
        &["restart"],
        &["rfsverify"],
        &["rfsdiff"],
        &["config", "--dry-run"],
        &["release"],
        &["why"],
    ];
    let cluster = site.cluster;
    for command in commands {
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let asked: Vec<_> = [NODES[0], NODES[1], NODES[1], NODES[0]]
                .into_iter()
                .map(|node| {
                    let all: Vec<&str> = command.iter().copied().chain(["-m", "data"]).collect();
                    (node, scope.spawn(move || cluster.try_exec(node, &[&["stead"], &all[..]].concat())))
                })
                .collect();
            for (node, asked) in asked {
                let output = asked.join().map_err(|_| anyhow::anyhow!("a thread ended badly"))??;
                let said = format!("{}{}", output.stdout, output.stderr);
                let code = output.status.code();
                ensure!(matches!(code, Some(0 | 1)), "{command:?} on {node}: {code:?}\n{said}");
                ensure!(
                    code == Some(0) || said.contains("data"),
                    "{command:?} on {node} does not say what it refuses:\n{said}"
                );
            }
            Ok(())
        })?;
    }
    // Half-way, once more, and stopped in between: it begins where it was.
    site.ok("node2", &["stop", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data", "--no-wait"])?;
    site.cluster.wait_states("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")], Duration::from_secs(60))?;
    ensure!(!pid(site, "node1")?.is_empty() && pid(site, "node2")?.is_empty(), "the application is not where it was");
    site.cluster.compare_trees("data", DIR)?;
    super::data::away(site)
}

/// Well and ill in turn, as long as anybody looks.
const FLAP: &str =
    "#!/bin/sh\nif [ -e /srv/stead/ill ]; then rm /srv/stead/ill; echo ill; exit 1; fi\n: > /srv/stead/ill\n";

fn flapping(site: &Site) -> anyhow::Result<()> {
    let check = "<check><custom ident=\"flap\" when=\"prim\" exec=\"flap\" interval=\"2s\" action=\"restart\" down_after=\"1\" grace=\"0s\"/></check>";
    site.module("flap", check, &[("start_prim", SLEEPER), ("flap", FLAP)])?;
    for node in NODES {
        site.ok(node, &["start", "-m", "flap"])?;
    }
    let stopped = NODES.map(|node| (node, "STOP NotReady"));
    site.cluster.wait_states("flap", &stopped, Duration::from_secs(90))?;
    for node in NODES {
        let log = site.ok(node, &["log", "-m", "flap"])?;
        let times = log.matches("Action restart from failover rule c_flap").count();
        ensure!((1..=4).contains(&times), "{times} restarts on {node}:\n{log}");
        site.says(node, "flap", &["stop called by maxloop", "custom.flap is down"])?;
        site.sh(node, "rm -f /srv/stead/ill")?;
    }
    site.remove("flap")
}

/// As [`LINK`], with an address for each node.
fn link(node: &str) -> String {
    LINK.replace("10.77.0.1/24", if node == "node1" { "10.77.0.1/24" } else { "10.77.0.2/24" })
}

fn address(site: &Site) -> anyhow::Result<()> {
    let vip = super::vip("10.77.0.100").replace("where=", "connections=\"on\" netmask=\"255.255.255.0\" where=");
    for node in NODES {
        site.sh(node, &link(node))?;
    }
    let played = (|| {
        site.module("net", &vip, &[("start_prim", SLEEPER)])?;
        site.ok("node1", &["start", "-m", "net"])?;
        site.state("net", &[("node1", "ALONE Ready")])?;
        for name in ["intf.10.77.0.0", "ip.10.77.0.100"] {
            super::checkers::until(site, "node1", "net", name, "up")?;
        }
        super::checkers::until(site, "node1", "net", "connections.10.77.0.100", "0")?;
        site.sh("node1", "ip link set own1 down")?;
        site.state("net", &[("node1", "WAIT NotReady")])?;
        site.says("node1", "net", &["interface_failure", "intf.10.77.0.0 is down"])?;
        site.sh("node1", "ip link set own1 up")?;
        site.state("net", &[("node1", "ALONE Ready")])?;
        let before = pid(site, "node1")?;
        site.sh("node1", "ip addr del $(ip -4 -o addr show dev own0 to 10.77.0.100 | awk '{print $4}') dev own0")?;
        wait_for("another process", SOON, || {
            let now = pid(site, "node1")?;
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        site.state("net", &[("node1", "ALONE Ready")])?;
        let log = site.ok("node1", &["log", "-m", "net"])?;
        ensure!(log.contains("Action stopstart from failover rule ip_failure"), "{log}");
        let held = site.sh("node1", "ip -4 -o addr show dev own0")?;
        ensure!(held.contains("10.77.0.100/"), "the address is not there again: {held}");
        site.remove("net")
    })();
    for node in NODES {
        site.sh(node, "ip link del own0 2>/dev/null || true")?;
    }
    played
}
