//! The agent dies while its module serves: the application and the address stay.

use super::{Check, SHOP, Site};
use crate::shell::wait_for;
use anyhow::ensure;
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("kill -9 of the agent: application and VIP stay", killed),
    ("kill -9 of the agent, five times in a row", killed_again),
    ("kill -9 of the agent while a script runs: one application, a stop that goes on", in_a_script),
    ("the note that a module runs is lost with the agent: it is adopted", note_lost),
    ("a node without power is not waited for; what was stopped stays so", without_power),
];

fn application(site: &Site) -> anyhow::Result<String> {
    site.cluster.exec("node1", &["pgrep", "-f", "stead-ledger serve"])
}

pub(super) fn kill(site: &Site) -> anyhow::Result<()> {
    let before = site.agent("node1")?;
    site.cluster.exec("node1", &["kill", "-KILL", &before])?;
    wait_for("another agent", super::SOON, || {
        let now = site.agent("node1")?;
        Ok((!now.is_empty() && now != before).then_some(()))
    })
}

fn killed(site: &Site) -> anyhow::Result<()> {
    let (before, since) = (application(site)?, crate::stories::now_ms());
    kill(site)?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.load.wait_more(5, Duration::from_secs(5))?;
    ensure!(application(site)? == before, "the application was restarted");
    let outage = site.load.outage_ms(since);
    ensure!(outage < 1_500, "the clients paused for {outage} ms");
    site.agents_are_now()
}

fn killed_again(site: &Site) -> anyhow::Result<()> {
    let before = application(site)?;
    for _ in 0..5 {
        kill(site)?;
        // What the next one says before it has looked: never that the module is stopped.
        wait_for("an answer of the new agent", super::SOON, || {
            let state = site.cluster.state("node1", SHOP);
            ensure!(!state.starts_with("STOP"), "an agent that has not looked yet says {state}");
            Ok((state != "-").then_some(()))
        })?;
    }
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    ensure!(application(site)? == before, "the application was restarted");
    site.agents_are_now()
}

const APP: &str = "slow-application";
/// Waits until it may go on, and leaves one process; `stop_prim` waits too, unless it is forced.
const START: &str = "#!/bin/bash
until [ -e /run/slow.go ]; do sleep 0.05; done
bash -c 'exec -a slow-application sleep 100000' >/dev/null 2>&1 &
";
const STOP: &str = "#!/bin/bash
[ \"$1\" = force ] || until [ -e /run/slow.end ]; do sleep 0.05; done
pkill -x -f 'slow-application 100000'
exit 0
";

fn in_a_script(site: &Site) -> anyhow::Result<()> {
    let count = |what: &str| -> anyhow::Result<usize> {
        let found = site.cluster.try_exec("node1", &["pgrep", "-f", what])?.stdout;
        Ok(found.split_whitespace().count())
    };
    let is = |wanted: &str| {
        wait_for(wanted, super::SOON, || Ok((site.cluster.state("node1", "slow") == wanted).then_some(())))
    };
    site.install("slow", "", &[("start_prim", START), ("stop_prim", STOP)])?;
    let file = "/etc/stead/modules/slow/conf/userconfig.xml";
    site.sh("node1", &format!("sed -i 's/nicestoptimeout=\"1s\"/nicestoptimeout=\"60s\"/' {file}"))?;
    site.ok("node1", &["config", "-m", "slow"])?;
    // A start: it is not taken for done.
    site.ok("node1", &["prim", "-m", "slow", "--no-wait"])?;
    wait_for("start_prim", super::SOON, || Ok((count("bin/start_prim")? == 1).then_some(())))?;
    kill(site)?;
    wait_for("start_prim again", super::SOON, || {
        // It may not answer yet.
        let log = site.stead("node1", &["log", "-m", "slow", "-v"])?.stdout;
        Ok((log.contains("the agent ended while a script") && count("bin/start_prim")? == 1).then_some(()))
    })?;
    ensure!(site.cluster.state("node1", "slow") == "ALONE Transient", "a start that is not through was taken for done");
    site.sh("node1", "touch /run/slow.go")?;
    is("ALONE Ready")?;
    ensure!(count(APP)? == 1, "not one application");
    // A restart: the old one is ended before the new one begins.
    site.ok("node1", &["restart", "-m", "slow", "--no-wait"])?;
    wait_for("stop_prim", super::SOON, || Ok((count("bin/stop_prim")? == 1).then_some(())))?;
    kill(site)?;
    is("ALONE Ready")?;
    ensure!((count(APP)?, count("bin/stop_prim")?) == (1, 0), "the application runs twice, or its old script goes on");
    // A stop: it goes on.
    site.ok("node1", &["stop", "-m", "slow", "--no-wait"])?;
    wait_for("stop_prim", super::SOON, || Ok((count("bin/stop_prim")? == 1).then_some(())))?;
    kill(site)?;
    wait_for("the end of the stop", super::SOON, || {
        let log = site.stead("node1", &["log", "-m", "slow", "-v"])?.stdout;
        let after = log.split_once("Action stop called by the agent before this one").map_or("", |(_, after)| after);
        Ok(after.contains("Local state STOP").then_some(()))
    })?;
    ensure!((count(APP)?, count("bin/stop_prim")?) == (0, 0), "something is left after the stop");
    site.sh("node1", "rm -f /run/slow.go")?;
    site.remove("slow")?;
    site.agents_are_now()
}

fn note_lost(site: &Site) -> anyhow::Result<()> {
    let (before, agent) = (application(site)?, site.agent("node1")?);
    let note = format!("/run/stead/modules/{SHOP}/running");
    site.sh("node1", &format!("test -e {note} && kill -STOP {agent} && rm {note} && kill -KILL {agent}"))?;
    wait_for("another agent", super::SOON, || {
        let now = site.agent("node1")?;
        Ok((!now.is_empty() && now != agent).then_some(()))
    })?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    ensure!(application(site)? == before, "the application was restarted");
    let log = site.ok("node1", &["log", "-m", SHOP])?;
    ensure!(log.contains("its application runs: it is adopted"), "the log does not tell: {log}");
    site.agents_are_now()
}

fn without_power(site: &Site) -> anyhow::Result<()> {
    site.module("idle", "", &[])?;
    site.ok("node2", &["start", "-m", "idle"])?;
    site.ok("node2", &["stop", "-m", "idle"])?;
    site.cluster.act(&["power", "cut", "node2"])?;
    let answered = (|| {
        site.state(SHOP, &[("node1", "ALONE Ready")])?;
        // Only the heartbeats know this sentence: nobody knocked at a dead machine's door.
        let state: serde_json::Value = serde_json::from_str(&site.ok("node1", &["state", "--json"])?)?;
        let silent = &state["silent"][0];
        ensure!(
            silent["node"] == "node2" && silent["problem"]["why"].as_str().is_some_and(|w| w.contains("last heard"))
        );
        let dead = "no heartbeat from node2 for";
        for arguments in
            [&["state", "-H", "node2"][..], &["stop", "-m", SHOP, "-H", "node2"], &["config", "-m", "idle"]]
        {
            site.refused("node1", arguments, 1, &[dead, "stead level"])?;
        }
        for arguments in [&["confinfo", "-m", "idle"][..], &["cluster", "state"], &["cluster", "confinfo"]] {
            let said = site.ok("node1", arguments)?;
            ensure!(said.contains(dead), "{arguments:?}: {said}");
        }
        Ok(())
    })();
    site.cluster.act(&["power", "on", "node2"])?;
    answered?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.state("idle", &[("node2", "STOP NotReady")])?;
    site.remove("idle")?;
    site.agents_are_now()
}
