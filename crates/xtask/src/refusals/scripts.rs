//! Scripts that fail, hang, or leave a daemon that does not listen.

use super::{Check, SOON, Site};
use crate::shell::wait_for;
use anyhow::ensure;
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    ("scripts that exit 1 are named, with their output's file", failing),
    ("scripts that were applied and are lost: put back, or a failed start", lost),
    ("scripts that are not what was applied: not run, said, no swap to there", altered),
    ("a stop script that hangs, a daemon that ignores TERM", hanging),
    ("an application that prints without end: its file is bounded, it goes on", endless),
    ("forcestop while a script hangs", by_force),
    ("any number of refused commands while a script runs: the stop after them is done", impatient),
];

fn failing(site: &Site) -> anyhow::Result<()> {
    site.module("broken", "", &[("start_prim", "#!/bin/sh\necho no licence\nexit 1\n")])?;
    site.refused(
        "node1",
        &["start", "-m", "broken"],
        1,
        &["start_prim", "exit code 1", "and said: no licence", "/var/lib/stead/modules/broken/runs/"],
    )?;
    let runs = site.sh("node1", "cat /var/lib/stead/modules/broken/runs/*start_prim*")?;
    ensure!(runs.contains("no licence"), "the script's output is not kept: {runs}");
    site.remove("broken")?;
    site.module("broken", "", &[("prestart", "#!/nowhere/sh\n")])?;
    site.refused(
        "node1",
        &["start", "-m", "broken"],
        1,
        &["does not start", "prestart", "/nowhere/sh, which is not on this node"],
    )?;
    site.state("broken", &[("node1", "STOP NotReady")])?;
    site.remove("broken")?;
    site.module("broken", "", &[("prestart", "#!/bin/sh\necho no disk\nexit 3\n")])?;
    site.refused(
        "node1",
        &["start", "-m", "broken"],
        1,
        &["prestart", "exit code 3", "/var/lib/stead/modules/broken/runs/"],
    )?;
    site.remove("broken")
}

/// Nobody serves without an application: the other node, whose scripts are there, does.
fn lost(site: &Site) -> anyhow::Result<()> {
    const BIN: &str = "/var/lib/stead/modules/lost/active/bin";
    let application = |node: &str| site.sh(node, "pgrep -f 'sleep 98[4]' || true");
    let start = "#!/bin/sh\nsetsid sleep 984 </dev/null >/dev/null 2>&1 &\n";
    site.module("lost", "", &[("start_prim", start), ("stop_prim", "#!/bin/sh\npkill -f 'sleep 98[4]'; :\n")])?;
    for node in ["node1", "node2"] {
        site.ok(node, &["start", "-m", "lost"])?;
    }
    let whole = [("node1", "PRIM Ready"), ("node2", "SECOND Ready")];
    site.state("lost", &whole)?;
    // While it runs: what was applied comes back, and nothing else changes.
    let before = application("node1")?;
    site.sh("node1", &format!("rm {BIN}/start_prim"))?;
    site.ok("node1", &["config", "-m", "lost"])?;
    site.sh("node1", &format!("test -x {BIN}/start_prim"))?;
    ensure!(!before.is_empty() && application("node1")? == before, "the application was disturbed");
    site.state("lost", &whole)?;
    site.sh("node1", &format!("rm -rf {BIN}"))?;
    site.refused(
        "node1",
        &["restart", "-m", "lost"],
        1,
        &["start_prim is missing", BIN, "stead module export -m lost"],
    )?;
    site.state("lost", &[("node1", "STOP NotReady"), ("node2", "ALONE Ready")])?;
    ensure!(!application("node2")?.is_empty(), "nobody serves");
    let log = site.ok("node1", &["log", "-m", "lost"])?;
    ensure!(
        log.lines().any(|line| line.contains(" C ") && line.contains("start_prim is missing") && line.contains(BIN)),
        "{log}"
    );
    site.ok("node2", &["module", "export", "-m", "lost", "--to", "node1"])?;
    site.ok("node1", &["start", "-m", "lost"])?;
    site.state("lost", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    site.ok("node1", &["swap", "-m", "lost"])?;
    site.state("lost", &whole)?;
    site.remove("lost")
}

/// A flipped byte, or a hand: nobody has checked what would run then, and the other node has something else.
fn altered(site: &Site) -> anyhow::Result<()> {
    const BIN: &str = "/var/lib/stead/modules/altered/active/bin";
    const OTHER: &str = "printf '#!/bin/sh\ntouch /run/altered-ran\n'";
    let application = |node: &str| site.sh(node, "pgrep -f 'sleep 98[1]' || true");
    let start = "#!/bin/sh\nsetsid sleep 981 </dev/null >/dev/null 2>&1 &\n";
    site.module("altered", "", &[("start_prim", start), ("stop_prim", "#!/bin/sh\npkill -f 'sleep 98[1]'; :\n")])?;
    for node in ["node1", "node2"] {
        site.ok(node, &["start", "-m", "altered"])?;
    }
    let whole = [("node1", "PRIM Ready"), ("node2", "SECOND Ready")];
    site.state("altered", &whole)?;
    let script = format!("{BIN}/start_prim");
    let words = [script.as_str(), "not what was applied", "stead config -m altered"];
    site.sh("node2", &format!("{OTHER} > {script}"))?;
    site.state("altered", &[("node1", "PRIM Ready"), ("node2", "SECOND NotReady")])?;
    site.says("node2", "altered", &words)?;
    for said in [site.ok("node2", &["state", "-v", "-m", "altered"])?, site.ok("node2", &["why", "-m", "altered"])?] {
        ensure!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let log = site.ok("node2", &["log", "-m", "altered"])?;
    ensure!(log.lines().any(|line| line.contains("| C |") && line.contains(&script)), "{log}");
    for node in super::NODES {
        site.refused(node, &["swap", "-m", "altered"], 1, &words)?;
    }
    site.refused("node2", &["module", "export", "-m", "altered", "--to", "node1"], 1, &words)?;
    site.ok("node1", &["config", "-m", "altered"])?;
    site.state("altered", &whole)?;
    // One that serves goes on, and does not begin again.
    let before = application("node1")?;
    site.sh("node1", &format!("{OTHER} > {script}"))?;
    site.state("altered", &[("node1", "PRIM NotReady"), ("node2", "SECOND Ready")])?;
    ensure!(!before.is_empty() && application("node1")? == before, "the application was disturbed");
    site.refused("node1", &["restart", "-m", "altered"], 1, &words)?;
    site.state("altered", &[("node1", "STOP NotReady"), ("node2", "ALONE Ready")])?;
    ensure!(!application("node2")?.is_empty(), "nobody serves");
    site.refused("node1", &["start", "-m", "altered"], 1, &words)?;
    let said = site.ok("node1", &["state", "-v", "-m", "altered"])?;
    ensure!(words.iter().all(|word| said.contains(word)), "stopped, it does not say so: {said}");
    site.sh("node1", "test ! -e /run/altered-ran")?;
    site.sh("node2", "test ! -e /run/altered-ran")?;
    site.ok("node2", &["config", "-m", "altered"])?;
    site.ok("node1", &["start", "-m", "altered"])?;
    site.state("altered", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    site.remove("altered")
}

/// What the start script leaves running writes into the script's file: long after that has ended, and no other one runs.
fn endless(site: &Site) -> anyhow::Result<()> {
    let start =
        "#!/bin/sh\nsetsid sh -c 'while :; do head -c 500000 /dev/zero | tr \"\\0\" x; sleep 0.1; done' </dev/null &\n";
    site.module("endless", "", &[("start_prim", start)])?;
    site.ok("node1", &["start", "-m", "endless"])?;
    site.state("endless", &[("node1", "ALONE Ready")])?;
    let bounded = "cd /var/lib/stead/modules/endless/runs && grep -l 'has been cut' userlog_*start_prim*.ulog";
    wait_for("a cut", SOON, || Ok(site.sh("node1", &format!("{bounded} || true"))?.contains("ulog").then_some(())))?;
    let size = "stat -c %s /var/lib/stead/modules/endless/runs/userlog_*start_prim*.ulog";
    let application = || site.sh("node1", "pgrep -of 'while :; do hea[d]' || true");
    let before = application()?;
    wait_for("it goes on printing", SOON, || {
        Ok((site.sh("node1", size)?.trim().parse::<u64>()? > 2 * 1024 * 1024).then_some(()))
    })?;
    ensure!(!before.is_empty() && application()? == before, "the application ended by being cut: {before}");
    site.state("endless", &[("node1", "ALONE Ready")])?;
    site.remove("endless")
}

/// By force nothing is waited for: neither the script that runs, nor those that were to follow.
fn by_force(site: &Site) -> anyhow::Result<()> {
    let hang = "#!/bin/sh\nsleep 986\n";
    for script in ["prestart", "start_prim", "poststop"] {
        site.module("stuck", "", &[(script, hang)])?;
        site.ok("node1", &["start", "--no-wait", "-m", "stuck"])?;
        if script == "poststop" {
            site.state("stuck", &[("node1", "ALONE Ready")])?;
            site.ok("node1", &["stop", "--no-wait", "-m", "stuck"])?;
        }
        let deadline = Instant::now() + SOON;
        while site.sh("node1", "pgrep -f 'sleep 98[6]' || true")?.is_empty() {
            ensure!(Instant::now() < deadline, "{script} was never run");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        site.ok("node1", &["forcestop", "-m", "stuck"])?;
        site.state("stuck", &[("node1", "STOP NotReady")])?;
        let left = site.sh("node1", "pgrep -a -f 'sleep 98[6]' || true")?;
        ensure!(left.is_empty(), "left running of {script}: {left}");
        site.remove("stuck")?;
    }
    Ok(())
}

/// More of them than anybody's queue holds.
fn impatient(site: &Site) -> anyhow::Result<()> {
    let start =
        "#!/bin/sh\nsetsid sleep 985 </dev/null >/dev/null 2>&1 &\nuntil [ -e /run/go-on ]; do sleep 0.05; done\n";
    site.module("slow", "", &[("start_prim", start), ("update", "#!/bin/sh\n:\n")])?;
    site.ok("node1", &["start", "--no-wait", "-m", "slow"])?;
    wait_for("start_prim runs", SOON, || {
        let runs = site.sh("node1", "pgrep -f 'sleep 98[5]' || true")?;
        Ok((!runs.is_empty()).then_some(()))
    })?;
    let many = "for i in $(seq 24); do stead start --no-wait -m slow; stead update -m slow; done; true";
    let said = site.sh("node1", &format!("({many}) 2>&1"))?;
    ensure!(said.contains("slow"), "none of them was refused:\n{said}");
    site.ok("node1", &["stop", "--no-wait", "-m", "slow"])?;
    site.sh("node1", "touch /run/go-on")?;
    site.state("slow", &[("node1", "STOP NotReady")])?;
    let left = site.sh("node1", "pgrep -a -f 'sleep 98[5]' || true")?;
    ensure!(left.is_empty(), "left running after the stop: {left}");
    site.sh("node1", "rm /run/go-on")?;
    site.remove("slow")
}

fn hanging(site: &Site) -> anyhow::Result<()> {
    let start = "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM INT HUP; exec >/dev/null 2>&1 </dev/null; while :; do sleep 987; done' &\n";
    let stop = "#!/bin/sh\nsleep 988\n";
    site.module("deaf", "", &[("start_prim", start), ("stop_prim", stop)])?;
    site.ok("node1", &["start", "-m", "deaf"])?;
    site.state("deaf", &[("node1", "ALONE Ready")])?;
    ensure!(site.sh("node1", "pgrep -f 'sleep 987' || true")?.lines().count() > 0, "the daemon does not run");
    let asked = Instant::now();
    site.ok("node1", &["stop", "-m", "deaf"])?;
    ensure!(asked.elapsed().as_secs() < 12, "stop took {:?}", asked.elapsed());
    let left = site.cluster.try_exec("node1", &["pgrep", "-a", "sleep"])?;
    ensure!(!left.stdout.contains("98"), "left running: {}", left.stdout);
    let log = site.ok("node1", &["log", "-m", "deaf"])?;
    ensure!(log.contains("stop_prim took longer than 1 s"), "{log}");
    ensure!(log.contains("was killed"), "{log}");
    site.remove("deaf")
}
