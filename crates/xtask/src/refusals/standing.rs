//! Copies that come up to date in another way than in real time: from a backup, or by a schedule.

use super::data::{DIR, away, whole};
use super::{Check, NODES, Site};
use crate::shell::wait_for;
use anyhow::ensure;
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("a copy seeded from a backup is compared and not sent", seeded),
    ("a secondary by a schedule waits, comes when it is time or asked, and waits again", scheduled),
];

/// Bytes of the file in the backup.
const MEBIBYTES: u64 = 16;
/// A minute of the schedule comes within this, and a resync after it.
const MINUTE: Duration = Duration::from_secs(90);

fn seeded(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.sh(
        "node1",
        &format!("dd if=/dev/urandom of={DIR}/big bs=1M count={MEBIBYTES} conv=fsync 2>/dev/null; echo a > {DIR}/a"),
    )?;
    site.module("data", &super::rfs(DIR), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    let said = site.ok("node1", &["rfssync", "external", "prim", "monday", "-m", "data"])?;
    ensure!(said.contains("stead release -m data") && said.contains("rfssync external second monday"), "{said}");
    // Both nodes of a lab are processes of one machine: the backup travels by a pipe.
    let backup = site.folder.join("monday.tar");
    site.sh("node1", &format!("tar --xattrs -C {DIR} -cf {} big a", backup.display()))?;
    // The application goes on after it: a tenth is another by now.
    site.sh("node1", &format!("dd if=/dev/urandom of={DIR}/big bs=64k count=25 seek=30 conv=notrunc,fsync 2>/dev/null; echo b > {DIR}/b; rm {DIR}/a"))?;
    site.refused("node1", &["rfssync", "external", "second", "monday", "-m", "data"], 1, &["ALONE", "stead release"])?;
    site.ok("node2", &["release", "-m", "data"])?;
    site.sh("node2", &format!("tar --xattrs -C {DIR} -xpf {}", backup.display()))?;
    let said = site.ok("node2", &["rfssync", "external", "second", "monday", "-m", "data", "--json"])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    let view = site.cluster.view("node1", "data").unwrap_or_default();
    let progress = &view["replication"]["progress"];
    let (sent, compared) = (progress["bytes_sent"].as_u64(), progress["bytes_compared"].as_u64());
    let most = MEBIBYTES * (1 << 20) / 5;
    ensure!(sent.is_some_and(|sent| sent > 0 && sent < most), "sent {sent:?}, at most {most}: {view}; {said}");
    ensure!(compared.is_some_and(|it| it >= MEBIBYTES << 20), "compared {compared:?}: {view}");
    site.cluster.compare_trees("data", DIR)?;
    let log = site.ok("node2", &["log", "-m", "data"])?;
    ensure!(log.contains("rfssync external second monday"), "{log}");
    std::fs::remove_file(backup)?;
    away(site)
}

fn scheduled(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("one", "1")])?;
    let configure = |attributes: &str| {
        let script = format!(
            "sed -i 's|<rfs[^>]*>|<rfs {attributes}>|' /etc/stead/modules/data/conf/userconfig.xml && stead config -m data"
        );
        site.sh("node1", &script)
    };
    // Never by itself within this check; taken while it runs.
    configure("syncat=\"0 0 31 2 *\"")?;
    let parted = || site.state("data", &[("node1", "ALONE Ready"), ("node2", "WAIT NotReady")]);
    parted()?;
    site.says("node2", "data", &["up to date", "0 0 31 2 *"])?;
    site.sh("node1", &format!("echo 2 > {DIR}/two"))?;
    let lower = |name: &str| site.sh("node2", &format!("cat {DIR}/{name} 2>/dev/null || true"));
    ensure!(lower("two")?.is_empty(), "it came before its time");
    // An operator need not wait for it; it waits again afterwards.
    site.ok("node2", &["second", "-m", "data", "--no-wait"])?;
    wait_for("the change on the secondary", super::SOON, || Ok((lower("two")? == "2\n").then_some(())))?;
    parted()?;
    // Every minute: it comes by itself, more often than a module may do anything automatically.
    site.sh("node1", &format!("echo 3 > {DIR}/three"))?;
    configure("syncat=\"* * * * *\"")?;
    wait_for("the next minute's change on the secondary", MINUTE, || Ok((lower("three")? == "3\n").then_some(())))?;
    parted()?;
    let get = site.ok("node2", &["get", "-r", "heart.stopstartloop", "-m", "data"])?;
    ensure!(get.trim() == "0", "the schedule is counted as a failure: {get}");
    // Real time again.
    configure("")?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}
