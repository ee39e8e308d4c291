//! Scripts that fail, hang, or leave a daemon that does not listen.

use super::{Check, Site};
use anyhow::ensure;
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    ("scripts that exit 1 are named, with their output's file", failing),
    ("a stop script that hangs, a daemon that ignores TERM", hanging),
];

fn failing(site: &Site) -> anyhow::Result<()> {
    site.module("broken", "", &[("start_prim", "#!/bin/sh\necho no licence\nexit 1\n")])?;
    site.refused(
        "node1",
        &["start", "-m", "broken"],
        1,
        &["start_prim", "exit code 1", "/var/lib/stead/modules/broken/runs/"],
    )?;
    let runs = site.sh("node1", "cat /var/lib/stead/modules/broken/runs/*start_prim*")?;
    ensure!(runs.contains("no licence"), "the script's output is not kept: {runs}");
    site.remove("broken")?;
    site.module("broken", "", &[("prestart", "#!/nowhere/sh\n")])?;
    site.ok("node1", &["start", "-m", "broken"])?;
    let log = site.ok("node1", &["log", "-m", "broken"])?;
    ensure!(log.contains("prestart"), "the log does not name the script that cannot run: {log}");
    site.remove("broken")
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
