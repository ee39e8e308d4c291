//! Commands about things that are not there, and commands given by impatient people.

use super::{Check, NODES, SOON, Site};
use crate::shell::{capture, wait_for};
use anyhow::ensure;
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    ("unknown nodes and modules are named, with the list to look at", unknown),
    ("a module that was never configured says how", never_configured),
    ("no agent: exit code 100 and how to start it", no_agent),
    ("state -lq: STOP 0, WAIT 1, ALONE 2, PRIM 3, SECOND 4", exit_codes),
    ("commands twice at once, stop during start, swap alone", impatience),
];

fn unknown(site: &Site) -> anyhow::Result<()> {
    for verb in ["state", "start", "stop", "log"] {
        site.refused("node1", &[verb, "-m", super::SHOP, "-H", "nix"], 1, &["nix", "stead cluster confinfo"])?;
    }
    for verb in ["state", "start", "stop", "restart", "swap", "prim", "second", "log", "why", "config", "release"] {
        site.refused("node1", &[verb, "-m", "nix"], 1, &["nix", "not installed", "stead module list"])?;
    }
    site.refused("node1", &["module", "uninstall", "-m", "nix"], 1, &["nix", "not installed", "stead module list"])?;
    site.refused("node1", &["module", "install", "nix"], 1, &["nix", "postgresql", "stead module install"])?;
    site.refused("node1", &["module", "install", "/tmp/there/is/no/such.safe"], 1, &["/tmp/there/is/no/such.safe"])?;
    site.refused("node1", &["state", "-lq", "-m", "nix"], 101, &["nix"])?;
    site.refused("node1", &["state", "-m", "../etc"], 2, &["../etc"]).map(drop)
}

fn never_configured(site: &Site) -> anyhow::Result<()> {
    // Asked of another node, it is all nodes that are meant.
    super::write_module(&site.folder, "raw", "", &[])?;
    site.ok("node1", &["-H", "node2", "module", "install", &site.folder.join("raw").to_string_lossy()])?;
    for node in NODES {
        ensure!(site.ok(node, &["module", "list"])?.contains("raw"), "it is not installed on {node}");
    }
    for verb in ["start", "prim", "swap", "stop"] {
        site.refused("node1", &[verb, "-m", "raw"], 1, &["raw", "never configured", "stead config -m raw"])?;
    }
    let said = site.ok("node2", &["state", "-m", "raw"])?;
    ensure!(said.contains("never configured") && said.contains("stead config -m raw"), "{said}");
    // It has no loop: its files tell all the same.
    site.ok("node1", &["log", "-m", "raw"])?;
    site.ok("node1", &["why", "-m", "raw"])?;
    let dry: serde_json::Value =
        serde_json::from_str(&site.ok("node1", &["config", "-m", "raw", "--dry-run", "--json"])?)?;
    let nodes: Vec<&str> = dry["nodes"].as_array().into_iter().flatten().filter_map(|n| n["node"].as_str()).collect();
    ensure!(nodes == NODES && dry["applied"] == false, "a dry run does not say who agreed: {dry}");
    let level: serde_json::Value = serde_json::from_str(&site.ok("node1", &["level", "--json"])?)?;
    ensure!(level["peers"][0]["version"] == level["version"], "the version of node2 is not known: {level}");
    site.ok("node1", &["-H", "node2", "module", "uninstall", "raw"])?;
    for node in NODES {
        ensure!(!site.ok(node, &["module", "list"])?.contains("raw"), "it is installed on {node} still");
    }
    Ok(())
}

fn no_agent(site: &Site) -> anyhow::Result<()> {
    for arguments in [&["state"][..], &["start", "-m", "x"], &["cluster", "state"], &["module", "list"]] {
        site.refused("client", arguments, 100, &["no agent answers", "systemctl start stead"])?;
    }
    Ok(())
}

fn exit_codes(site: &Site) -> anyhow::Result<()> {
    // Without scripts, which is fine: nothing has to be started.
    site.module("idle", "", &[])?;
    let code = |node: &str, wanted: i32| site.refused(node, &["state", "-lq", "-m", "idle"], wanted, &[]).map(drop);
    code("node1", 0)?;
    site.ok("node1", &["second", "-m", "idle", "--no-wait"])?;
    site.state("idle", &[("node1", "WAIT NotReady")])?;
    code("node1", 1)?;
    site.ok("node1", &["stop", "-m", "idle"])?;
    site.ok("node1", &["start", "-m", "idle"])?;
    code("node1", 2)?;
    site.ok("node2", &["start", "-m", "idle"])?;
    site.state("idle", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    code("node1", 3)?;
    code("node2", 4)?;
    site.refused("node2", &["prim", "-m", "idle"], 1, &["idle is started already", "stead swap -m idle"])?;
    site.refused("node1", &["module", "uninstall", "-m", "idle"], 1, &["idle", "started", "stead stop -m idle"])?;
    let file = "/etc/stead/modules/idle/conf/userconfig.xml";
    site.sh("node1", &format!("sed -i 's/<service /<service failover=\"off\" /' {file}"))?;
    let words = ["idle", "started", "service: failover 'on' becomes 'off'", "stead stop -m idle"];
    site.refused("node1", &["config", "-m", "idle"], 1, &words)?;
    site.remove("idle")
}

fn impatience(site: &Site) -> anyhow::Result<()> {
    let slow = "#!/bin/sh\nsleep 2\n";
    site.module("slow", "", &[("start_prim", slow)])?;
    // Stop while the start script still runs: the stop counts, at once.
    site.ok("node1", &["start", "-m", "slow", "--no-wait"])?;
    wait_for(
        "the start script",
        SOON,
        || Ok((site.cluster.state("node1", "slow") == "ALONE Transient").then_some(())),
    )?;
    let asked = Instant::now();
    site.ok("node1", &["stop", "-m", "slow"])?;
    site.state("slow", &[("node1", "STOP NotReady")])?;
    ensure!(asked.elapsed().as_secs() < 10, "stop during start took {:?}", asked.elapsed());
    // Everything twice, at the same moment.
    let twice = |verb: &str| -> anyhow::Result<()> {
        let ends: Vec<_> = std::thread::scope(|scope| {
            let one = |node: &str| {
                let mut command = site.cluster.command(node, &["stead", verb, "-m", "slow"]);
                scope.spawn(move || capture(&mut command, SOON))
            };
            let all = [one("node1"), one("node1"), one("node2"), one("node2")];
            all.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
        });
        for end in ends {
            let end = end?;
            let code = end.status.code();
            ensure!(matches!(code, Some(0 | 1)), "{verb} twice: {code:?} {}{}", end.stdout, end.stderr);
            ensure!(code == Some(0) || end.stderr.contains("help:"), "{verb} twice: {}", end.stderr);
        }
        Ok(())
    };
    twice("start")?;
    site.cluster.wait_whole("slow", SOON)?;
    twice("swap")?;
    site.cluster.wait_whole("slow", SOON)?;
    twice("stop")?;
    site.state("slow", &NODES.map(|node| (node, "STOP NotReady")))?;
    // Which of two that were told to stop at once was the last is a race: together they know.
    twice("start")?;
    site.cluster.wait_whole("slow", SOON)?;
    site.ok("node2", &["stop", "-m", "slow"])?;
    site.state("slow", &[("node1", "ALONE Ready"), ("node2", "STOP NotReady")])?;
    site.refused("node1", &["swap", "-m", "slow"], 1, &["slow", "serves here alone", "stead state -m slow"])?;
    site.remove("slow")
}
