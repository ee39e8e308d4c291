//! Files of Stead that rotted, or that somebody took away: one copy costs nothing, two cost the knowledge, never the data.

use super::{Check, NODES, SHOP, Site, rfs};
use crate::shell::wait_for;
use anyhow::ensure;

pub(super) const CHECKS: &[Check] = &[
    ("a module's state file damaged: one copy, then both", record),
    ("a module's configuration in force damaged: it ends there, the other node serves", configuration),
    ("a data plane that hangs while another agent starts: it is ended, nobody hangs with it", hung_plane),
    ("the state of a module's secondary is gone: it says so, no swap, nobody is without service", state_gone),
    ("a data plane that cannot open what a swap gave it: the other node serves again", cannot_open),
    ("an agent that cannot start any more on the primary: said, prim serves, it comes back", cannot_start),
    ("cluster.xml edited by hand, an API socket removed: told, and made anew", by_hand),
    ("damaged cluster files: the agent names the file and waits", cluster_files),
];

const DIR: &str = "/srv/stead/data";
/// Overwrites the middle of a file.
const ROT: &str = "rot() { size=$(stat -c %s \"$1\"); head -c 16 /dev/urandom | dd of=\"$1\" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null; }";

/// Ends the agent of a node, changes files while another starts, and waits for it.
fn with_new_agent(site: &Site, node: &str, script: &str) -> anyhow::Result<()> {
    let before = site.agent(node)?;
    site.sh(node, &format!("{ROT}; {script}; kill -KILL {before}"))?;
    wait_for("another agent that answers", super::SOON, || {
        let now = site.agent(node)?;
        let answers = site.stead(node, &["module", "list"])?.status.success();
        Ok((!now.is_empty() && now != before && answers).then_some(()))
    })?;
    site.agents_are_now()
}

fn record(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &rfs(DIR), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    site.sh("node1", &format!("echo precious > {DIR}/file"))?;
    site.ok("node1", &["stop", "-m", "data"])?;
    let state = "/var/lib/stead/modules/data/state";
    site.ok("node1", &["errd", "off", "-m", "data"])?;
    let record = format!("{state}.a");
    let files = [record.as_str(), "/var/lib/stead/modules/data/checkers.json", "/var/lib/stead/starts.b"];
    with_new_agent(site, "node1", &files.map(|file| format!("rot {file}")).join("; "))?;
    let log = site.ok("node1", &["log", "-m", "data"])?;
    let view = site.ok("node1", &["state", "-v", "-m", "data"])?;
    for file in files {
        let damaged = format!("{file} is damaged");
        ensure!(log.lines().any(|line| line.contains("| C |") && line.contains(&damaged)), "{damaged}: {log}");
        ensure!(view.contains(&damaged), "{damaged}: {view}");
    }
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.cluster.wait_whole("data", super::SOON)?;
    for node in NODES {
        let there = if site.cluster.state(node, "data").starts_with("PRIM") { "SECOND" } else { "PRIM" };
        wait_for("the other node's state", super::SOON, || {
            Ok((site.ok(node, &["get", "-m", "data", "-r", "remote.state.local"])?.trim() == there).then_some(()))
        })?;
    }
    let words = ["no resource remote.rfs.uptodate", "stead get -m data -r rfs.uptodate -H node2"];
    site.refused("node1", &["get", "-m", "data", "-r", "remote.rfs.uptodate"], 1, &words)?;
    site.ok("node2", &["stop", "-m", "data"])?;
    // A swap that comes while the other node is on its way waits for it.
    site.state("data", &[("node1", "ALONE Ready"), ("node2", "STOP NotReady")])?;
    site.ok("node2", &["start", "--no-wait", "-m", "data"])?;
    wait_for("a word of node2", super::SOON, || {
        let view = site.cluster.view("node1", "data");
        let there = view.and_then(|view| view["peer"]["state"].as_str().map(str::to_string)).unwrap_or_default();
        Ok((there == "WAIT" || there == "SECOND").then_some(()))
    })?;
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.ok("node2", &["stop", "-m", "data"])?;
    site.ok("node1", &["stop", "-m", "data"])?;
    for node in NODES {
        site.refused(node, &["rfsdiff", "-m", "data"], 1, &["it is STOP here and STOP on", "stead why -m data"])?;
    }
    // Nothing is known of this copy any more: it never serves by itself, although it is the newest.
    with_new_agent(site, "node1", &format!("rot {state}.a; rot {state}.b"))?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "WAIT NotReady")])?;
    site.says("node1", "data", &["node2", "stead start -m data -H node2", "stead prim -m data --force"])?;
    let log = site.ok("node1", &["log", "-m", "data"])?;
    ensure!(log.lines().any(|line| line.contains("| C |") && line.contains("both copies of state")), "{log}");
    ensure!(site.ok("node1", &["state", "-v", "-m", "data"])?.contains("both copies of state"), "nor does its state");
    site.ok("node1", &["prim", "-m", "data", "--force"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    ensure!(site.sh("node1", &format!("cat {DIR}/file"))? == "precious\n");
    site.remove("data")?;
    for node in NODES {
        site.sh(node, &format!("rm -rf {DIR}"))?;
    }
    Ok(())
}

/// Nobody watches a module without a loop: what ran of it must not keep the other node from serving.
fn configuration(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.sh("node1", &format!("echo text > {DIR}/file"))?;
    let start = ("start_prim", "#!/bin/sh\nsetsid sleep 77123 </dev/null &\n");
    site.module("data", &format!("{}{}", super::vip("10.0.1.77"), rfs(DIR)), &[start])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    with_new_agent(site, "node1", "echo '{\"format\":1,' > /var/lib/stead/modules/data/active/module.json")?;
    site.state("data", &[("node2", "ALONE Ready")])?;
    site.says("node1", "data", &["module.json", "was ended", "stead config -m data"])?;
    let left = site.sh("node1", "grep fuse.stead /proc/self/mountinfo; pgrep -x sleep -a; ip -4 -o addr; true")?;
    ensure!(!left.contains("77123") && !left.contains("stead:data") && !left.contains("10.0.1.77"), "{left}");
    ensure!(site.ok("node1", &["log", "-m", "data"])?.contains("cannot run on this node"), "the log says nothing");
    site.ok("node1", &["config", "-m", "data"])?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    // Both of its copies are gone: an agent that starts says that there was one.
    site.ok("node1", &["stop", "-m", "data"])?;
    let copies = "/etc/stead/modules/data /var/lib/stead/modules/data/active";
    with_new_agent(site, "node1", &format!("rm -r {copies}"))?;
    site.state("data", &[("node2", "ALONE Ready")])?;
    site.says(
        "node1",
        "data",
        &["was configured on this node, and its files are lost", "stead module export -m data"],
    )?;
    let list = site.ok("node1", &["module", "list"])?;
    ensure!(list.contains("lost: stead state -m data") && !list.contains("never"), "{list}");
    site.refused("node1", &["start", "-m", "data"], 1, &["its files are lost", "stead module export -m data"])?;
    site.ok("node2", &["module", "export", "-m", "data"])?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    super::data::away(site)
}

/// Whoever enters the mount of a process that is stopped hangs with it: the agent that starts does not.
fn hung_plane(site: &Site) -> anyhow::Result<()> {
    super::data::whole(site, &[("file", "text")])?;
    for (ended, note) in [(1, ""), (2, "rm -f /run/stead/modules/data/running;")] {
        with_new_agent(site, "node1", &format!("{note} pkill -STOP -f 'mirrorf[s] -m data'"))?;
        site.state("data", &[("node2", "ALONE Ready")]).or_else(|_| site.state("data", &[("node1", "ALONE Ready")]))?;
        // It is given time to answer first: the other node may serve before.
        wait_for("the end of the data plane", super::SOON, || {
            let log = site.ok("node1", &["log", "-m", "data"]).unwrap_or_default();
            Ok((log.matches("was ended, with its mounts").count() == ended).then_some(()))
        })?;
        site.ok("node1", &["state", "-m", "data"])?;
        let _ = site.stead("node1", &["start", "-m", "data"])?;
        site.cluster.wait_whole("data", super::SOON)?;
        site.cluster.compare_trees("data", DIR)?;
    }
    super::data::away(site)
}

fn state_gone(site: &Site) -> anyhow::Result<()> {
    const STATE: &str = "/var/lib/stead/modules/data";
    let start = ("start_prim", "#!/bin/sh\nsetsid sleep 77124 </dev/null &\n");
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &rfs(DIR), &[start])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    let whole = [("node1", "PRIM Ready"), ("node2", "SECOND Ready")];
    site.state("data", &whole)?;
    // At once: nothing has been noticed yet. Whoever serves at the end has its application.
    site.sh("node2", &format!("rm -rf {STATE}"))?;
    let _ = site.stead("node1", &["swap", "-m", "data"])?;
    site.says("node2", "data", &["start_prim"])?;
    wait_for("a node that serves", super::SOON, || {
        let serves = |node: &str| matches!(site.cluster.state(node, "data").as_str(), "PRIM Ready" | "ALONE Ready");
        Ok(serves("node1").then_some(()))
    })?;
    ensure!(!site.sh("node1", "pgrep -f 'sleep 7712[4]' || true")?.is_empty(), "it serves without its application");
    site.ok("node1", &["module", "export", "-m", "data", "--to", "node2"])?;
    if site.cluster.state("node2", "data") == "STOP NotReady" {
        site.ok("node2", &["start", "-m", "data"])?;
    }
    site.state("data", &whole)?;
    // Noticed: nobody steps aside for it.
    site.sh("node2", &format!("rm -rf {STATE}"))?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND NotReady")])?;
    let words = [STATE, "missing", "stead module export -m data --to node2"];
    site.says("node2", "data", &words)?;
    for node in NODES {
        let said = site.refused(node, &["swap", "-m", "data"], 1, &words)?;
        ensure!(said.matches("could not start module").count() == 1, "{said}");
    }
    site.ok("node1", &["module", "export", "-m", "data", "--to", "node2"])?;
    site.state("data", &whole)?;
    site.cluster.compare_trees("data", DIR)?;
    // One that takes nothing.
    site.sh("node2", &format!("mount --bind {STATE} {STATE} && mount -o remount,bind,ro {STATE}"))?;
    let told = site.says("node2", "data", &[STATE, "is read-only"]);
    site.sh("node2", &format!("umount {STATE}"))?;
    told?;
    site.state("data", &whole)?;
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    // One that serves goes on, and is not well: once it ends it cannot begin again.
    let health =
        || site.sh("node2", "curl -s -o /dev/null -w '%{http_code}' http://10.0.1.2:9010/var/modules/data/ready.txt");
    ensure!(health()? == "200", "{}", health()?);
    site.sh("node2", &format!("mv {STATE}/active/bin/start_prim /run/kept"))?;
    site.state("data", &[("node2", "PRIM NotReady"), ("node1", "SECOND Ready")])?;
    site.says("node2", "data", &["serving", "start_prim is missing", "stead module export"])?;
    let sick = health();
    site.sh("node2", &format!("mv /run/kept {STATE}/active/bin/start_prim"))?;
    ensure!(sick? == "404", "a load balancer takes it for well");
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    super::data::away(site)
}

/// A directory where its change map belongs: no record of what changes while it is alone could be written.
fn cannot_open(site: &Site) -> anyhow::Result<()> {
    const MAP: &str = "/var/lib/stead/modules/data/data/changes";
    let start = ("start_prim", "#!/bin/sh\nsetsid sleep 77126 </dev/null &\n");
    let application = |node: &str| site.sh(node, "pgrep -f 'sleep 7712[6]' || true");
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &rfs(DIR), &[start])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    let whole = [("node1", "PRIM Ready"), ("node2", "SECOND Ready")];
    site.state("data", &whole)?;
    site.sh("node1", &format!("echo precious > {DIR}/file"))?;
    site.sh("node2", &format!("rm -f {MAP} && mkdir -p {MAP}/in-the-way"))?;
    // Refused or begun and given up: what counts is who serves then.
    let _ = site.stead("node1", &["swap", "-m", "data"])?;
    wait_for("what node2 cannot do", super::SOON, || {
        let log = site.ok("node2", &["log", "-m", "data"])?;
        Ok(log.lines().any(|line| line.contains(" E ") && line.contains("cannot write the change map")).then_some(()))
    })?;
    // Nor can it become a complete copy: that ends with an empty map.
    wait_for("node1 serves again", super::SOON, || {
        let serves = site.cluster.state("node1", "data") == "ALONE Ready";
        Ok((serves && !application("node1")?.is_empty()).then_some(()))
    })?;
    ensure!(application("node2")?.is_empty(), "it runs where nothing is served");
    site.sh("node1", &format!("test \"$(cat {DIR}/file)\" = precious && echo more > {DIR}/file"))?;
    site.sh("node2", &format!("rm -r {MAP}"))?;
    site.state("data", &whole)?;
    site.cluster.compare_trees("data", DIR)?;
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    ensure!(!application("node2")?.is_empty(), "it serves without its application");
    super::data::away(site)
}

/// On node2: the clients' module stays where it is.
fn cannot_start(site: &Site) -> anyhow::Result<()> {
    const FILE: &str = "/etc/stead/cluster/applied.json";
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &format!("{}{}", super::vip("10.0.1.77"), rfs(DIR)), &[])?;
    site.ok("node2", &["prim", "-m", "data"])?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    site.sh("node2", &format!("echo before > {DIR}/file"))?;
    let agent = site.agent("node2")?;
    site.sh("node2", &format!("cp {FILE} /run/kept; echo garbage > {FILE}; kill -KILL {agent}"))?;
    let played = (|| {
        // It holds, and does not answer: whoever writes is not told that it is written.
        site.says("node1", "data", &["node2", "stead prim -m data"])?;
        // Whoever writes waits in the kernel, and cannot be killed.
        site.sh(
            "node2",
            &format!("setsid sh -c 'echo late > {DIR}/late && touch /run/acknowledged' >/dev/null 2>&1 &"),
        )?;
        wait_for("the virtual IP given back", super::SOON, || {
            Ok((!site.sh("node2", "ip -4 -o addr")?.contains("10.0.1.77/")).then_some(()))
        })?;
        site.ok("node1", &["prim", "-m", "data"])?;
        site.state("data", &[("node1", "ALONE Ready")])?;
        site.sh("node1", &format!("test \"$(cat {DIR}/file)\" = before && echo after > {DIR}/file"))?;
        site.sh("node2", "pgrep -f 'echo lat[e]'").map(drop)
    })();
    site.sh("node2", &format!("cp /run/kept {FILE}"))?;
    played?;
    site.agents_are_now()?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    ensure!(site.sh("node1", &format!("cat {DIR}/file"))? == "after\n");
    site.sh("node2", "test ! -e /run/acknowledged")?;
    super::data::away(site)
}

fn by_hand(site: &Site) -> anyhow::Result<()> {
    const FILE: &str = "/etc/stead/cluster/cluster.xml";
    site.sh("node2", &format!("cp {FILE} /run/kept && echo '<!-- mine -->' >> {FILE}"))?;
    let level = site.ok("node2", &["level"]);
    site.sh("node2", &format!("cp /run/kept {FILE}"))?;
    ensure!(level?.contains(&format!("stead cluster config {FILE}")), "level does not tell of it");
    ensure!(!site.ok("node2", &["level"])?.contains(FILE), "it is as it was");
    site.sh("node2", "rm /run/stead/agent.sock")?;
    wait_for("another socket", super::SOON, || Ok(site.stead("node2", &["level"])?.status.success().then_some(())))
}

fn cluster_files(site: &Site) -> anyhow::Result<()> {
    let status: serde_json::Value = serde_json::from_str(&site.cluster.lab_status()?)?;
    let log = status["nodes"][1]["log"].as_str().unwrap_or_default().to_string();
    // The copy for people: what counts is in applied.json.
    with_new_agent(
        site,
        "node2",
        "mv /etc/stead/cluster/cluster.xml /run/kept; echo '<nonsense' > /etc/stead/cluster/cluster.xml",
    )?;
    site.sh("node2", "mv /run/kept /etc/stead/cluster/cluster.xml")?;
    for file in ["applied.json", "identity.json", "ca.pem", "node.pem", "secret"] {
        let path = format!("/etc/stead/cluster/{file}");
        let said = std::fs::metadata(&log)?.len() as usize;
        site.sh("node2", &format!("{ROT}; cp -a {path} /run/kept; rot {path}"))?;
        site.cluster.try_exec("node2", &["pkill", "-KILL", "-f", "stead agent$"])?;
        let named = wait_for("the file's name in the agent's last words", super::SOON, || {
            let text = std::fs::read(&log)?;
            let new = String::from_utf8_lossy(&text[said.min(text.len())..]).into_owned();
            Ok(new.contains(&path).then_some(()))
        });
        site.sh("node2", &format!("cp -a /run/kept {path}"))?;
        named.map_err(|e| e.context(path))?;
    }
    wait_for("the agent of node2", super::SOON, || {
        Ok(site.stead("node2", &["module", "list"])?.status.success().then_some(()))
    })?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.agents_are_now()
}
