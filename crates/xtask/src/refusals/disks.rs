//! Disks that are full, hang or break: the application hears of its own only, and waits a stated bound for the peer's.

use super::data::{DIR, away, whole};
use super::{Check, NODES, SOON, Site, rfs};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    ("a full data disk: the application is told, nobody else", full_disk),
    ("a full disk on the primary, then its peer is gone, then its mirrorfs: it serves", full_and_alone),
    ("a full disk on the secondary only: it is let go", full_secondary),
    ("a disk of the secondary that hangs: a pause, then it is let go", hung_secondary),
    ("a disk of the secondary that fails: it is let go", broken_secondary),
    ("a disk of the primary that fails: told here, kept there", broken_primary),
    ("a primary whose own disk is dead: said, and served by the node that has everything", dead_primary),
    ("a node whose files cannot be read, for ever: it falls silent, and the other one goes on", unread),
];

/// A pipe without a writer is a file that never comes. It is no module's own.
fn unread(site: &Site) -> anyhow::Result<()> {
    const FILE: &str = "/var/lib/stead/modules/unread/active/module.json";
    site.install("unread", "", &[])?;
    site.ok("node1", &["config", "-m", "unread"])?;
    whole(site, &[("file", "text")])?;
    site.sh("node2", &format!("mv {FILE} {FILE}.kept && mkfifo {FILE}"))?;
    let asked = site.cluster.spawn(
        "node2",
        &["sh", "-c", "for i in 1 2 3 4 5 6; do timeout -s KILL 20 stead state >/dev/null 2>&1 & done; wait"],
        &site.folder.join("asked.log"),
    );
    let alone = site.state("data", &[("node1", "ALONE Ready")]);
    // Whoever reads it has it now, and the next one finds the file.
    site.sh(
        "node2",
        &format!("mv {FILE}.kept {FILE}.new; (timeout 5 cat {FILE}.new > {FILE} || true); mv {FILE}.new {FILE}"),
    )?;
    asked?.wait()?;
    alone?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    site.remove("unread")?;
    away(site)
}

/// Fills the disk to the last block.
const FILL: &str = "fallocate -l 2G /srv/stead/filler 2>/dev/null; dd if=/dev/zero of=/srv/stead/filler bs=64k oflag=append conv=notrunc 2>/dev/null; true";

/// As ext4 does when its disk answers with errors: from now on nothing is written.
const BREAK: &str = "dev=$(findmnt -no SOURCE /srv/stead | sed 's/\\[.*//') && mount -o remount,errors=remount-ro /srv/stead \
    && echo broken > /sys/fs/ext4/$(basename $dev)/trigger_fs_error; \
    ! touch /srv/stead/probe 2>/dev/null";
/// Without a witness: `STALL_MS`, then `MUTE_MS` + `LOST_MS` + `ALONE_MS` of `model::limits`, and what a busy machine adds.
const BOUND: Duration = Duration::from_secs(15);

/// A disk of node2's own for the replicated directory, and how it dies (FS_IOC_SHUTDOWN): every call answers EIO.
const OWN: &str = "/srv/stead/own/data";
const OWN_DISK: &str = "mkdir -p /srv/stead/own && truncate -s 64M /srv/stead/own.img && mkfs.ext4 -q /srv/stead/own.img \
    && mount -o loop /srv/stead/own.img /srv/stead/own && mkdir /srv/stead/own/data";
const DIES: &str =
    "perl -e 'my $now = pack(\"L\", 2); sysopen(F, \"/srv/stead/own\", 0) or die; ioctl(F, 0x8004587D, $now) or die'";
const NO_OWN_DISK: &str = "umount -l /srv/stead/own; rm -rf /srv/stead/own.img /srv/stead/own";

fn dead_primary(site: &Site) -> anyhow::Result<()> {
    let refused = || -> anyhow::Result<()> {
        let written = site.cluster.try_exec("node2", &["sh", "-c", &format!("echo refused >> {OWN}/file")])?;
        ensure!(!written.status.success(), "the application was told that a dead disk took its write");
        ensure!(written.stderr.contains("Input/output error"), "{}", written.stderr);
        Ok(())
    };
    let own_disk = || -> anyhow::Result<()> {
        site.sh("node1", &format!("mkdir -p {OWN}"))?;
        site.sh("node2", OWN_DISK)?;
        site.module("data", &rfs(OWN), &[])?;
        site.ok("node2", &["prim", "-m", "data"])?;
        site.state("data", &[("node2", "ALONE Ready")])?;
        site.sh("node2", &format!("echo text > {OWN}/file && sync {OWN}/file")).map(drop)
    };
    // Nobody could take over: it is said.
    let alone = || -> anyhow::Result<()> {
        own_disk()?;
        site.sh("node2", DIES)?;
        refused()?;
        site.state("data", &[("node2", "ALONE NotReady")])?;
        site.says("node2", "data", &["its own disk fails", "Input/output error", "node1 has no complete copy"])?;
        let why = site.ok("node2", &["why", "-m", "data"])?;
        ensure!(why.contains("its own disk fails"), "{why}");
        site.ok("node2", &["forcestop", "-m", "data"]).map(drop)
    };
    let taken_over = || -> anyhow::Result<()> {
        own_disk()?;
        site.ok("node1", &["start", "-m", "data"])?;
        site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
        site.sh("node2", DIES)?;
        refused()?;
        site.state("data", &[("node1", "ALONE Ready")])?;
        ensure!(site.sh("node1", &format!("cat {OWN}/file; echo more >> {OWN}/file"))? == "text\n");
        let log = site.ok("node2", &["log", "-m", "data"])?;
        for words in ["Resource rfs.disk set to down", "Action swap from failover rule disk_failure"] {
            ensure!(log.contains(words), "the log does not say '{words}':\n{log}");
        }
        Ok(())
    };
    let gone = || -> anyhow::Result<()> {
        let removed = site.remove("data");
        site.sh("node2", NO_OWN_DISK)?;
        site.sh("node1", "rm -rf /srv/stead/own")?;
        removed
    };
    let said = alone();
    gone()?;
    said?;
    let moved = taken_over();
    gone()?;
    moved
}

fn full_disk(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &rfs(DIR), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    site.sh("node1", &format!("echo before > {DIR}/before"))?;
    site.sh("node1", FILL)?;
    let written = site
        .cluster
        .try_exec("node1", &["sh", "-c", &format!("dd if=/dev/zero of={DIR}/more bs=64k count=16 conv=fsync")])?;
    let outcome = (|| {
        ensure!(!written.status.success() && written.stderr.contains("No space left"), "{}", written.stderr);
        ensure!(site.sh("node1", &format!("cat {DIR}/before"))? == "before\n");
        ensure!(site.cluster.state("node1", "data") == "ALONE Ready", "{}", site.reason("node1", "data"));
        Ok(())
    })();
    site.sh("node1", "rm -f /srv/stead/filler")?;
    outcome?;
    wait_for("space again", Duration::from_secs(10), || {
        let again =
            site.cluster.try_exec("node1", &["sh", "-c", &format!("echo after > {DIR}/after && sync {DIR}/after")])?;
        Ok(again.status.success().then_some(()))
    })?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    away(site)
}

/// The room for the change map is there; what the application needs none for goes on.
fn full_and_alone(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("file", "text")])?;
    site.sh("node1", FILL)?;
    let overwrite = |text: &str| {
        let script = format!("printf {text} | dd of={DIR}/file conv=notrunc,fsync 2>/dev/null; cat {DIR}/file");
        wait_for("a write over what is there", SOON, || {
            let said = site.cluster.try_exec("node1", &["sh", "-c", &script])?;
            Ok((said.stdout == format!("{text}\n")).then_some(()))
        })
    };
    let outcome = (|| {
        site.cluster.act(&["power", "cut", "node2"])?;
        site.state("data", &[("node1", "ALONE Ready")])?;
        overwrite("next")?;
        let mirrorfs = || site.sh("node1", "pgrep -f 'stead mirrorfs -m dat[a]' || true");
        let before = mirrorfs()?;
        site.sh("node1", "pkill -KILL -f 'stead mirrorfs -m dat[a]'")?;
        wait_for("another mirrorfs", SOON, || {
            let now = mirrorfs()?;
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        site.state("data", &[("node1", "ALONE Ready")])?;
        overwrite("last")?;
        site.cluster.act(&["power", "on", "node2"])?;
        site.agents_are_now()?;
        site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        overwrite("both")
    })();
    site.sh("node1", "rm -f /srv/stead/filler")?;
    outcome.with_context(|| site.ok("node1", &["log", "-m", "data"]).unwrap_or_default())?;
    ensure!(site.sh("node2", &format!("cat {DIR}/file"))? == "both\n");
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

fn full_secondary(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.module("data", &rfs(DIR), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    // A start is no loss.
    let log = site.ok("node1", &["log", "-m", "data"])?;
    ensure!(!log.contains("rfs.degraded set to up"), "{log}");
    site.sh("node2", FILL)?;
    let written = site.sh("node1", &format!("dd if=/dev/zero of={DIR}/more bs=64k count=64 conv=fsync 2>&1"));
    let let_go = site.state("data", &[("node1", "ALONE Ready")]);
    let is_said = super::checkers::until(site, "node1", "data", "rfs.degraded", "up");
    // A boot needs no room: a person must be able to make some.
    let boots = site.sh("node2", "sync /srv/stead/filler").and_then(|_| replaced(site, "node2"));
    site.sh("node2", "rm -f /srv/stead/filler")?;
    boots.context("a node with a full disk does not boot")?;
    written.map_err(|e| e.context("the application met the other node's full disk"))?;
    let_go?;
    is_said?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    super::checkers::until(site, "node1", "data", "rfs.degraded", "down")?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

fn hung_secondary(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("file", "text")])?;
    site.sh("node2", "fsfreeze -f /srv/stead")?;
    let begin = Instant::now();
    let written = site.sh("node1", &format!("timeout 30 sh -c 'echo more >> {DIR}/file && sync {DIR}/file'"));
    let took = begin.elapsed();
    let let_go = site.state("data", &[("node1", "ALONE Ready")]);
    let log = site.ok("node1", &["log", "-m", "data"]);
    site.sh("node2", "fsfreeze -u /srv/stead")?;
    written.context("the application met the other node's disk")?;
    ensure!(took < BOUND, "the application waited {took:?} for the other node's disk");
    let_go?;
    let log = log?;
    // It does not acknowledge, or (as soon as it noticed its disk itself) it says nothing any more: whichever is first.
    let why = ["it has not acknowledged", "no heartbeat from node2"].iter().any(|why| log.contains(why));
    ensure!(why, "nothing says why node2 was let go: {log}");
    // It answers again: nobody has to do anything.
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

/// Off and on: its disk is a new one of the same content.
fn replaced(site: &Site, node: &str) -> anyhow::Result<()> {
    site.cluster.act(&["power", "cut", node])?;
    site.cluster.act(&["power", "on", node])?;
    site.agents_are_now()
}

fn broken_secondary(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("file", "text")])?;
    site.sh("node2", BREAK)?;
    let begin = Instant::now();
    let written = site.sh("node1", &format!("timeout 30 sh -c 'echo more >> {DIR}/file && sync {DIR}/file'"));
    let took = begin.elapsed();
    let let_go = site.state("data", &[("node1", "ALONE Ready")]);
    let log = site.ok("node1", &["log", "-m", "data"]);
    replaced(site, "node2")?;
    written.context("the application met the other node's disk")?;
    ensure!(took < BOUND, "the application waited {took:?} for the other node's disk");
    let_go?;
    let log = log?;
    ensure!(log.contains("Read-only file system") || log.contains("Input/output error"), "{log}");
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

fn broken_primary(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("file", "text")])?;
    // The clients' module stays on node1, which is to lose its disk: this one moves first.
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    site.sh("node2", &format!("echo acknowledged >> {DIR}/file && sync {DIR}/file"))?;
    site.sh("node2", BREAK)?;
    let written = site.cluster.try_exec("node2", &["sh", "-c", &format!("echo refused >> {DIR}/file")])?;
    let told = format!("{}{}", written.stdout, written.stderr);
    replaced(site, "node2")?;
    ensure!(!written.status.success(), "the application was told that a broken disk took its write");
    ensure!(told.contains("Read-only") || told.contains("Input/output"), "{told}");
    wait_for("both nodes", SOON, || {
        let states = NODES.map(|node| site.cluster.state(node, "data"));
        let mut sorted = states.clone();
        sorted.sort();
        Ok((sorted == ["PRIM Ready", "SECOND Ready"]).then_some(()))
    })?;
    let text = NODES.map(|node| site.sh(node, &format!("cat {DIR}/file")));
    for text in text {
        ensure!(text? == "text\nacknowledged\n");
    }
    away(site)
}
