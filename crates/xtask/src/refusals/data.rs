//! Replicated directories that are not as they should be, and the first start of all.

use super::{Check, NODES, Site, rfs};
use crate::shell::wait_for;
use anyhow::{Context, ensure};

pub(super) const CHECKS: &[Check] = &[
    ("a directory is everybody's again as soon as its module is uninstalled", given_back),
    ("a replicated directory that is missing, or held open", missing_or_held),
    ("first start: both wait, with the command; empty never wins", first_start),
    ("several directories, names with spaces, acknowledged at commit", several),
    ("what was written into a released copy is kept", released),
    ("a change behind a stopped module's back is found", behind),
    ("covers and mounts taken off by hand: noticed, covered again, compared", unmounted),
    ("a directory that is replicated no more is everybody's again", replicated_no_more),
    ("both nodes are stopped at once while the application has much to write", stopped_at_once),
    ("a flipped byte on the secondary is found and repaired", flipped),
    ("a flipped byte is repaired by the background scrub", scrubbed),
];

pub(super) const DIR: &str = "/srv/stead/data";
fn missing_or_held(site: &Site) -> anyhow::Result<()> {
    site.module("data", &rfs(DIR), &[])?;
    for verb in ["start", "prim"] {
        site.refused("node1", &[verb, "-m", "data"], 1, &[DIR, "mkdir -p"])?;
    }
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.sh("node1", &format!("echo precious > {DIR}/file"))?;
    let mut holder =
        site.cluster.spawn("node1", &["tail", "-f", &format!("{DIR}/file")], &site.folder.join("tail.log"))?;
    wait_for("tail", super::SOON, || Ok(site.sh("node1", "pgrep -x tail || true")?.lines().next().map(drop)))?;
    let pid = site.sh("node1", "pgrep -x tail")?;
    let refused = site.refused("node1", &["prim", "-m", "data"], 1, &[DIR, "in use", pid.trim(), "tail -f"]);
    site.sh("node1", "pkill -x tail || true")?;
    holder.wait()?;
    refused?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    ensure!(site.sh("node1", &format!("cat {DIR}/file"))? == "precious\n");
    away(site)
}

/// A shutdown of both machines: the secondary is through at once, and the application of the primary ends with a thousand writes.
fn stopped_at_once(site: &Site) -> anyhow::Result<()> {
    const WRITES: usize = 1_000;
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    let start = "#!/bin/sh\nsetsid sleep 77124 </dev/null &\n";
    // It begins when the secondary is gone: every write of it would wait for one. (It runs for each step on the way to STOP.)
    let stop = format!(
        "#!/bin/sh\ntest -e {DIR}/last && exit\nwhile ! stead state -m data -H node2 | grep -q STOP; do sleep 0.1; done\nfor i in $(seq {WRITES}); do echo $i >> {DIR}/last; done\nsync {DIR}/last\n"
    );
    site.install("data", &rfs(DIR), &[("start_prim", start), ("stop_prim", &stop)])?;
    site.sh(
        "node1",
        "sed -i 's/nicestoptimeout=\"1s\"/nicestoptimeout=\"60s\"/' /etc/stead/modules/data/conf/userconfig.xml",
    )?;
    site.ok("node1", &["config", "-m", "data"])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    let cluster = site.cluster;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let ends: Vec<_> =
            NODES.map(|node| scope.spawn(|| cluster.exec(node, &["stead", "stop", "-m", "data"]))).into();
        for end in ends {
            end.join().map_err(|_| anyhow::anyhow!("a thread ended badly"))??;
        }
        Ok(())
    })?;
    let lines = site.sh("node1", &format!("wc -l < {DIR}/last"))?;
    ensure!(lines.trim() == WRITES.to_string(), "the application ended after {} of {WRITES} writes", lines.trim());
    ensure!(!site.ok("node1", &["log", "-m", "data"])?.contains("was killed"), "it was killed");
    site.ok("node2", &["start", "-m", "data"])?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.cluster.compare_trees("data", DIR)?;
    // The next stop ends at once.
    site.sh("node1", "pkill -x sleep; true")?;
    site.ok("node2", &["stop", "-m", "data"])?;
    site.ok("node1", &["stop", "-m", "data"])?;
    away(site)
}

/// Module and directories as if they had never been.
pub(super) fn away(site: &Site) -> anyhow::Result<()> {
    site.remove("data")?;
    for node in NODES {
        site.sh(node, &format!("rm -rf {DIR}")).with_context(|| {
            let look = "grep /srv/stead /proc/self/mountinfo; pgrep -a stead";
            format!("what is mounted and runs on {node}:\n{}", site.sh(node, look).unwrap_or_default())
        })?;
    }
    Ok(())
}

/// At once: the data plane that served it a moment ago may still be ending.
fn given_back(site: &Site) -> anyhow::Result<()> {
    // Its groups beside the agent's, and what its data plane is reached by.
    let left = |node: &str| {
        let own = "sed -n 's,^0::,,; s,/agent$,,p' /proc/$(pgrep -f '[s]tead agent' | head -1)/cgroup";
        let base = format!("$(findmnt -nft cgroup2 -o TARGET | head -1)$({own})");
        let groups = format!("{base}/modules/data {base}/mirrorfs/data");
        site.sh(node, &format!("ls -d {groups} /run/stead/mirrorfs/data.* 2>/dev/null || true"))
    };
    for turn in 0..5 {
        for node in NODES {
            site.sh(node, &format!("mkdir -p {DIR}"))?;
        }
        site.module("data", &rfs(DIR), &[])?;
        site.ok("node1", &["prim", "-m", "data"])?;
        site.state("data", &[("node1", "ALONE Ready")])?;
        ensure!(left("node1")?.lines().count() == 4, "not found where it was looked for: {}", left("node1")?);
        site.ok("node1", &["stop", "-m", "data"])?;
        away(site).with_context(|| format!("turn {turn}"))?;
        for node in NODES {
            ensure!(left(node)?.is_empty(), "left on {node}: {}", left(node)?);
        }
    }
    Ok(())
}

/// What was written meanwhile into the secondary's copy is gone, and kept nowhere: it never was the pair's.
fn unmounted(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("file", "text")])?;
    let covered = |node: &str| site.sh(node, &format!("grep -c ' {DIR} ' /proc/self/mountinfo || true"));
    let found = |node: &str, text: &str| {
        wait_for("the log's word of it", super::SOON, || {
            Ok(site.ok(node, &["log", "-m", "data"])?.contains(text).then_some(()))
        })
    };
    site.sh("node2", &format!("umount {DIR} && echo intruder > {DIR}/intruder && echo changed > {DIR}/file"))?;
    found("node2", "was taken off by hand")?;
    site.cluster.wait_whole("data", super::SOON)?;
    site.cluster.compare_trees("data", DIR)?;
    ensure!(covered("node2")?.trim() == "1", "it is not covered again");
    ensure!(site.sh("node2", &format!("touch {DIR}/x 2>&1; true"))?.contains("Read-only"), "it is writable");
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    ensure!(site.sh("node2", &format!("cat {DIR}/file; ls {DIR}"))? == "text\nfile\n");
    // The primary's own mount, and its cover with it.
    site.sh("node2", &format!("umount {DIR} && umount {DIR} && echo lost > {DIR}/lost"))?;
    found("node2", "was unmounted by hand")?;
    site.cluster.wait_whole("data", super::SOON)?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

fn replicated_no_more(site: &Site) -> anyhow::Result<()> {
    const OTHER: &str = "/srv/stead/other";
    whole(site, &[("file", "text")])?;
    for node in NODES {
        site.ok(node, &["stop", "-m", "data"])?;
        site.sh(node, &format!("mkdir -p {OTHER}; ! touch {DIR}/x 2>/dev/null"))?;
    }
    site.sh("node1", &format!("sed -i 's|{DIR}|{OTHER}|' /etc/stead/modules/data/conf/userconfig.xml"))?;
    site.ok("node1", &["config", "-m", "data"])?;
    for node in NODES {
        site.sh(node, &format!("touch {DIR}/x"))?;
    }
    away(site)?;
    for node in NODES {
        site.sh(node, &format!("rm -rf {OTHER}"))?;
    }
    Ok(())
}

fn first_start(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    site.sh("node1", &format!("echo precious > {DIR}/file"))?;
    site.module("data", &rfs(DIR), &[])?;
    for node in NODES {
        site.ok(node, &["start", "-m", "data"])?;
    }
    for node in NODES {
        site.says(node, "data", &["first start", "stead prim -m data"])?;
        site.state("data", &[(node, "WAIT NotReady")])?;
    }
    site.refused(
        "node2",
        &["prim", "-m", "data"],
        1,
        &["directories of node2 are empty", "stead prim -m data on node1", "--force"],
    )?;
    ensure!(site.sh("node1", &format!("cat {DIR}/file"))? == "precious\n");
    // With force it wins, and what the other had is kept.
    site.ok("node2", &["prim", "-m", "data", "--force"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    let kept =
        site.sh("node1", "cd /var/lib/stead/modules/data/quarantine && find . -type f -name file -exec cat {} +")?;
    ensure!(kept.contains("precious"), "the overwritten file is not in quarantine: {kept}");
    let state = site.ok("node1", &["state", "-v", "-m", "data"])?;
    ensure!(
        state.contains("/var/lib/stead/modules/data/quarantine/"),
        "the status does not list the quarantine: {state}"
    );
    away(site)
}

/// Both nodes serve and follow, with these files.
pub(super) fn whole(site: &Site, files: &[(&str, &str)]) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, &format!("mkdir -p {DIR}"))?;
    }
    for (name, text) in files {
        site.sh("node1", &format!("echo {text} > {DIR}/{name}"))?;
    }
    site.module("data", &rfs(DIR), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])
}

fn several(site: &Site) -> anyhow::Result<()> {
    let dirs = ["/srv/stead/one", "/srv/stead/the other one", "/srv/stead/on the system's disk"];
    for node in NODES {
        for dir in dirs {
            site.sh(node, &format!("mkdir -p \"{dir}\""))?;
        }
    }
    let list: String = dirs.iter().map(|dir| format!("<replicated dir=\"{dir}\"/>")).collect();
    site.module("data", &format!("<rfs ack=\"commit\">{list}</rfs>"), &[])?;
    site.ok("node1", &["prim", "-m", "data"])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    for (i, dir) in dirs.iter().enumerate() {
        let script = format!(
            "cd \"{dir}\" && mkdir 'a b' && echo {i} > 'a b/ c' && mv 'a b/ c' \"$(printf 'x\\ny')\" && sync \"{dir}\""
        );
        site.sh("node1", &script)?;
        // Another file system for what crosses: as between any two mount points.
        let across = site.cluster.try_exec("node1", &["ln", &format!("{dir}/x\ny"), "/srv/stead/linked"])?;
        ensure!(!across.status.success() && across.stderr.contains("Invalid cross-device link"), "{}", across.stderr);
    }
    for dir in dirs {
        site.cluster.compare_trees("data", dir)?;
    }
    // What fsync acknowledged is on the other node.
    site.ok("node1", &["swap", "-m", "data"])?;
    site.state("data", &[("node2", "PRIM Ready"), ("node1", "SECOND Ready")])?;
    for (i, dir) in dirs.iter().enumerate() {
        ensure!(site.sh("node2", &format!("cat \"{dir}\"/x*"))?.trim() == i.to_string(), "{dir}");
    }
    site.remove("data")?;
    for node in NODES {
        for dir in dirs {
            site.sh(node, &format!("rm -rf \"{dir}\""))?;
        }
    }
    Ok(())
}

fn released(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("shared", "common"), ("other", "common")])?;
    site.ok("node2", &["stop", "-m", "data"])?;
    site.ok("node2", &["release", "-m", "data"])?;
    site.sh("node2", &format!("echo mine > {DIR}/mine; echo changed > {DIR}/shared"))?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    let kept =
        site.sh("node2", "cd /var/lib/stead/modules/data/quarantine/*/0 && grep . * | sort && cat ../about.json")?;
    ensure!(kept.starts_with("mine:mine\nshared:changed\n{"), "the quarantine holds: {kept}");
    site.cluster.compare_trees("data", DIR)?;
    ensure!(site.sh("node2", &format!("cat {DIR}/shared"))? == "common\n");
    // Once is enough: the copy is complete again.
    site.ok("node2", &["stopstart", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    let log = site.ok("node2", &["log", "-m", "data"])?;
    ensure!(log.contains("stead quarantine show"), "the log does not say what is kept where:\n{log}");
    let list = || -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&site.ok("node2", &["quarantine", "list", "-m", "data", "--json"])?)?)
    };
    let before = list()?;
    let folder = &before["folders"][0];
    ensure!(before["folders"].as_array().is_some_and(|all| all.len() == 1), "{before}");
    ensure!(folder["files"] == 2 && folder["lost"].is_object() && folder["won"].is_object(), "{before}");
    let name = folder["name"].as_str().unwrap_or_default();
    let shown = site.ok("node1", &["quarantine", "show", name, "-m", "data", "-H", "node2"])?;
    ensure!(shown.contains(&format!("{DIR}/mine")), "{shown}");
    site.refused("node2", &["quarantine", "drop", "nix", "-m", "data"], 1, &["nix", "stead quarantine list"])?;
    site.ok("node2", &["quarantine", "drop", name, "-m", "data"])?;
    ensure!(list()?["folders"].as_array().is_some_and(Vec::is_empty), "it is still there");
    // The copy that served last: what is written into it is kept, and comes to the other node.
    site.ok("node2", &["stop", "-m", "data"])?;
    site.ok("node1", &["stop", "-m", "data"])?;
    site.ok("node1", &["release", "-m", "data"])?;
    site.sh("node1", &format!("echo restored > {DIR}/shared; rm {DIR}/other"))?;
    site.ok("node1", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    site.ok("node2", &["start", "-m", "data"])?;
    site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    ensure!(site.sh("node2", &format!("cat {DIR}/shared; ls {DIR}"))? == "restored\nshared\n");
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

/// Takes the cover off and changes a byte of a file, which keeps its size and its time.
const BEHIND: &str = "umount /srv/stead/data && cd /srv/stead/data && touch -r other /tmp/behind.times \
    && printf X | dd of=other bs=1 seek=1 conv=notrunc 2>/dev/null && touch -r /tmp/behind.times other; rm -f /tmp/behind.times";

fn behind(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("kept", "common"), ("other", "common")])?;
    let mirrored = || site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")]);
    // On the secondary: undone. On the node that serves again: brought over. Nothing but that file is looked at.
    for (node, wins) in [("node2", "common\n"), ("node1", "cXmmon\n")] {
        site.ok("node2", &["stop", "-m", "data"])?;
        site.ok("node1", &["stop", "-m", "data"])?;
        site.state("data", &NODES.map(|node| (node, "STOP NotReady")))?;
        site.sh(node, BEHIND)?;
        for node in NODES {
            site.ok(node, &["start", "-m", "data"])?;
        }
        mirrored()?;
        for node in NODES {
            let text = site.sh(node, &format!("cat {DIR}/other"))?;
            ensure!(text == wins, "{node} has {text}");
        }
        site.cluster.compare_trees("data", DIR)?;
        let log = site.sh(node, "cat /var/lib/stead/modules/data/mirrorfs.log")?;
        ensure!(log.contains("were without cover"), "{node} did not look: {log}");
    }
    away(site)
}

/// Flips one byte of the secondary's file behind every cover, times as they were: as a bad disk does it.
const FLIP: &str = "mkdir -p /tmp/bare && mount --bind /srv/stead /tmp/bare && cd /tmp/bare/data && touch -r big /tmp/bare.times \
    && printf '\\377' | dd of=big bs=1 seek=300000 conv=notrunc 2>/dev/null && touch -r /tmp/bare.times big; \
    cd /; umount /tmp/bare; rm -rf /tmp/bare /tmp/bare.times";

/// The secondary's disk has lost one entry and made up another.
const LOSE: &str = "mkdir -p /tmp/bare && mount --bind /srv/stead /tmp/bare && rm /tmp/bare/data/small \
    && mkdir /tmp/bare/data/extra && echo x > /tmp/bare/data/extra/x; cd /; umount /tmp/bare; rm -rf /tmp/bare";

/// Nobody asks.
fn scrubbed(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("small", "text")])?;
    site.sh("node1", &format!("dd if=/dev/zero of={DIR}/big bs=64k count=32 conv=fsync 2>/dev/null"))?;
    site.sh("node2", FLIP)?;
    let configuration = "/etc/stead/modules/data/conf/userconfig.xml";
    site.sh("node1", &format!("sed -i 's|<rfs|<rfs scrub=\"1s\"|' {configuration} && stead config -m data"))?;
    wait_for("the scrub that repairs", super::SOON, || {
        let log = site.ok("node1", &["log", "-m", "data"])?;
        Ok(log.lines().any(|line| line.contains("Scrub") && line.contains("repaired")).then_some(()))
    })?;
    site.cluster.compare_trees("data", DIR)?;
    away(site)
}

fn flipped(site: &Site) -> anyhow::Result<()> {
    whole(site, &[("small", "text")])?;
    site.sh("node1", &format!("dd if=/dev/zero of={DIR}/big bs=64k count=32 conv=fsync 2>/dev/null"))?;
    let writing = format!("i=0; while [ -e {DIR}/go ]; do i=$((i+1)); echo $i >> {DIR}/log; done");
    site.sh("node1", &format!("touch {DIR}/go"))?;
    let mut writer = site.cluster.spawn("node1", &["sh", "-c", &writing], &site.folder.join("writer.log"))?;
    let outcome = (|| {
        let said = site.ok("node1", &["rfsverify", "-m", "data"])?;
        ensure!(said.contains("both copies are equal"), "{said}");
        site.sh("node2", FLIP)?;
        // Asked on the secondary, answered by the node that serves.
        site.refused("node2", &["rfsverify", "-m", "data"], 1, &["1 differ", &format!("{DIR}/big"), "--repair"])?;
        let said = site.ok("node1", &["rfsverify", "--repair", "-m", "data"])?;
        ensure!(said.contains("they were repaired"), "{said}");
        let said = site.ok("node1", &["rfsverify", "-m", "data"])?;
        ensure!(said.contains("both copies are equal"), "{said}");
        let log = site.ok("node1", &["log", "-m", "data"])?;
        ensure!(log.contains("differed in 1 places") && log.contains("repaired"), "{log}");
        site.sh("node2", LOSE)?;
        let said = site.ok("node1", &["rfsverify", "--repair", "-m", "data"])?;
        ensure!(said.contains(&format!("{DIR}/small")) && said.contains(&format!("{DIR}/extra")), "{said}");
        ensure!(said.contains("needs a resync: it follows"), "{said}");
        site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        let said = site.ok("node1", &["rfsverify", "-m", "data"])?;
        ensure!(said.contains("both copies are equal"), "{said}");
        Ok(())
    })();
    site.sh("node1", &format!("rm -f {DIR}/go"))?;
    writer.wait()?;
    outcome?;
    site.cluster.compare_trees("data", DIR)?;
    let said = site.ok("node1", &["rfsdiff", "-m", "data"])?;
    ensure!(said.contains("node2 has everything"), "{said}");
    site.ok("node2", &["stop", "-m", "data"])?;
    site.state("data", &[("node1", "ALONE Ready")])?;
    site.sh("node1", &format!("echo more >> {DIR}/small; head -c 1000000 /dev/urandom >{DIR}/added"))?;
    let said: serde_json::Value = serde_json::from_str(&site.ok("node1", &["rfsdiff", "-m", "data", "--json"])?)?;
    let of = |what: &str| said["changed"][what].as_u64().unwrap_or_default();
    ensure!(of("entries") >= 2 && of("bytes") >= 1_000_000, "neither what grew nor what is new is reckoned: {said}");
    // Stopped and started, it still knows what changed; also when its stop comes while it makes sure that it may go on alone.
    for both in [false, true] {
        if both {
            site.ok("node2", &["stop", "-m", "data"])?;
        }
        site.ok("node1", &["stop", "-m", "data"])?;
        for node in NODES {
            // The first to come may have to wait for the other.
            site.stead(node, &["start", "-m", "data", "--no-wait"])?;
        }
        site.state("data", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
        let log = site.ok("node2", &["log", "-v", "-m", "data"])?;
        let last = log.lines().rfind(|line| line.contains("being resynchronised from node1")).unwrap_or_default();
        ensure!(last.contains("only what changed"), "both stopped: {both}: {last}");
        // What was ordered of a process that is about to end reaches the next one.
        let log = site.ok("node1", &["log", "-v", "-m", "data"])?;
        ensure!(!log.contains("the replication process does not answer"), "{log}");
    }
    away(site)
}
