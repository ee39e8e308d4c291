//! Modules beside each other (light, leader and followers), and the scripts that belong to commands.

use super::{Check, NODES, SOON, Site};
use crate::shell::wait_for;
use anyhow::ensure;

pub(super) const CHECKS: &[Check] = &[
    ("light: restarted where it is, stopped after too many, moves nowhere", light),
    ("followers run where their leader serves, and start anew behind it", followers),
    ("a start_second that hangs does not delay a takeover", hanging_second),
    ("of two operators on two nodes one changes modules, and one that hangs up cuts nothing in two", two_operators),
    ("config and confcheck of a module refuse, postconfig, state, level and deconfig are told", hooks),
];

fn sleeper(number: u32) -> String {
    format!("#!/bin/sh\nsetsid sleep {number} </dev/null >/dev/null 2>&1 &\n")
}

fn pid(site: &Site, node: &str, number: u32) -> anyhow::Result<String> {
    // The brackets keep the pattern from matching the shell that carries it.
    let number = number.to_string();
    let (first, last) = number.split_at(number.len() - 1);
    Ok(site.sh(node, &format!("pgrep -f 'sleep {first}[{last}]' || true"))?.trim().to_string())
}

fn another(site: &Site, node: &str, number: u32, before: &str) -> anyhow::Result<String> {
    wait_for("another process", SOON, || {
        let now = pid(site, node, number)?;
        Ok((!now.is_empty() && now != before).then_some(now))
    })
}

/// Writes a module of another mode and configures it.
fn module(site: &Site, name: &str, mode: &str, service: &str, scripts: &[(&str, &str)]) -> anyhow::Result<()> {
    super::write_module(&site.folder, name, service, scripts)?;
    let path = site.folder.join(name).join("conf/userconfig.xml");
    let text = std::fs::read_to_string(&path)?.replace("mode=\"mirror\"", &format!("mode=\"{mode}\""));
    std::fs::write(&path, text)?;
    site.ok("node1", &["module", "install", &site.folder.join(name).to_string_lossy()])?;
    let said = site.ok("node1", &["config", "-m", name])?;
    ensure!(mode != "light" || said.contains("on each node that is to run it"), "{said}");
    Ok(())
}

fn light(site: &Site) -> anyhow::Result<()> {
    let errd = "<errd><proc name=\"sleep\" argregex=\"9741\" action=\"restart\"/></errd>";
    module(site, "job", "light", errd, &[("start_both", &sleeper(9741))])?;
    site.ok("node1", &["start", "-m", "job"])?;
    site.state("job", &[("node1", "UP Ready"), ("node2", "STOP NotReady")])?;
    site.refused("node1", &["state", "-lq", "-m", "job"], 2, &[])?;
    site.refused("node1", &["prim", "-m", "job"], 1, &["job is light", "stead start"])?;
    site.refused("node1", &["farm", "show", "-m", "job"], 1, &["it is a light module"])?;
    let mut before = pid(site, "node1", 9741)?;
    for _ in 0..3 {
        super::checkers::until(site, "node1", "job", "proc.sleep", "up")?;
        site.sh("node1", &format!("kill -9 {before}"))?;
        before = another(site, "node1", 9741, &before)?;
        site.state("job", &[("node1", "UP Ready")])?;
    }
    // An agent that is killed leaves it running.
    super::agents::kill(site)?;
    site.agents_are_now()?;
    site.state("job", &[("node1", "UP Ready")])?;
    ensure!(pid(site, "node1", 9741)? == before, "the application was restarted with the agent");
    site.ok("node1", &["resetloop", "-m", "job"])?;
    for left in (0..4).rev() {
        super::checkers::until(site, "node1", "job", "proc.sleep", "up")?;
        site.sh("node1", &format!("kill -9 {before}"))?;
        if left > 0 {
            before = another(site, "node1", 9741, &before)?;
        }
    }
    site.state("job", &[("node1", "STOP NotReady"), ("node2", "STOP NotReady")])?;
    site.says("node1", "job", &["maxloop"])?;
    // Everything that went before is decided again as it was, by the automaton that farms have.
    let replayed = site.ok("node1", &["journal", "replay", "-m", "job"])?;
    ensure!(replayed.contains(", 0 differ") && !replayed.contains("not replayed"), "{replayed}");
    ensure!(!replayed.contains("torn") && !replayed.contains(" 0 decisions"), "{replayed}");
    let imagined = site.ok("node1", &["what-if", "start", "-m", "job"])?;
    ensure!(imagined.contains("script start_both") && imagined.contains("UP Ready"), "{imagined}");
    ensure!(!imagined.contains("script prestart"), "it has none: {imagined}");
    // Not what was applied: it does not run, and says so before anybody starts it.
    let script = "/var/lib/stead/modules/job/active/bin/start_both";
    site.sh("node1", &format!("echo '# more' >> {script}"))?;
    let words = [script, "not what was applied", "stead config -m job"];
    let said = site.ok("node1", &["state", "-v", "-m", "job"])?;
    ensure!(words.iter().all(|word| said.contains(word)), "{said}");
    site.refused("node1", &["start", "-m", "job"], 1, &words)?;
    ensure!(pid(site, "node1", 9741)?.is_empty(), "it runs");
    site.remove("job")
}

fn followers(site: &Site) -> anyhow::Result<()> {
    site.module("leader", "", &[("start_prim", &sleeper(9751))])?;
    let check = "<check><module name=\"leader\"/></check>";
    module(site, "follower", "light", check, &[("start_both", &sleeper(9761))])?;
    for node in NODES {
        site.ok(node, &["start", "--no-wait", "-m", "follower"])?;
    }
    // Before its leader serves anywhere it waits, and says for whom.
    for node in NODES {
        site.says(node, "follower", &["module.leader", "leader is STOP"])?;
        site.state("follower", &[(node, "WAIT NotReady")])?;
        ensure!(pid(site, node, 9761)?.is_empty(), "it runs on {node} without its leader");
    }
    for node in NODES {
        site.ok(node, &["start", "-m", "leader"])?;
    }
    site.state("leader", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.state("follower", &[("node1", "UP Ready"), ("node2", "WAIT NotReady")])?;
    // The leader's application starts anew: so does what stands on it.
    let before = pid(site, "node1", 9761)?;
    site.ok("node1", &["restart", "-m", "leader"])?;
    another(site, "node1", 9761, &before)?;
    site.state("follower", &[("node1", "UP Ready")])?;
    let log = site.ok("node1", &["log", "-m", "follower"])?;
    ensure!(log.contains("Action wait from failover rule module_failure"), "{log}");
    // It follows to the other node.
    site.ok("node1", &["swap", "-m", "leader"])?;
    site.state("follower", &[("node1", "WAIT NotReady"), ("node2", "UP Ready")])?;
    ensure!(pid(site, "node1", 9761)?.is_empty() && !pid(site, "node2", 9761)?.is_empty(), "it is on the wrong node");
    // What it waits for is what its leader is now, not what it was when it left.
    site.says("node1", "follower", &["leader is SECOND Ready here"])?;
    // It waits, and that is what its log says; once it is stopped, it says that.
    let last = || -> anyhow::Result<String> {
        let log = site.ok("node1", &["log", "-m", "follower"])?;
        Ok(log.lines().rfind(|line| line.contains("Local state")).unwrap_or_default().to_string())
    };
    ensure!(last()?.contains("Local state WAIT NotReady"), "{}", last()?);
    site.ok("node1", &["stop", "-m", "follower"])?;
    crate::shell::wait_for("the log of a stop", SOON, || {
        Ok(last()?.contains("Local state STOP NotReady").then_some(()))
    })?;
    site.remove("follower")?;
    site.remove("leader")
}

fn hanging_second(site: &Site) -> anyhow::Result<()> {
    let hang = "#!/bin/sh\nsleep 9771\n";
    let scripts =
        [("start_second", hang), ("start_prim", &*sleeper(9781)), ("stop_second", "#!/bin/sh\n: > /run/undone\n")];
    site.module("slow", "", &scripts)?;
    site.ok("node1", &["start", "-m", "slow"])?;
    site.ok("node2", &["start", "--no-wait", "-m", "slow"])?;
    wait_for("start_second", SOON, || Ok((!pid(site, "node2", 9771)?.is_empty()).then_some(())))?;
    site.ok("node1", &["stop", "-m", "slow"])?;
    site.state("slow", &[("node2", "ALONE Ready")])?;
    ensure!(pid(site, "node2", 9771)?.is_empty(), "start_second still runs");
    ensure!(!pid(site, "node2", 9781)?.is_empty(), "the application does not run");
    // What was begun is undone.
    site.sh("node2", "rm /run/undone")?;
    let log = site.ok("node2", &["log", "-m", "slow"])?;
    ensure!(log.contains("Script start_second was broken off"), "{log}");
    site.remove("slow")
}

fn two_operators(site: &Site) -> anyhow::Result<()> {
    // The one that is first stays in the middle of its change as long as the check wants.
    let slow = "#!/bin/sh\n: > /run/asked\nwhile test ! -e /run/allowed; do sleep 0.1; done\n";
    site.install("asks", "", &[("config", slow)])?;
    let asked = || {
        wait_for("config on node1", SOON, || {
            site.sh("node1", "ls /run/asked 2>/dev/null || true").map(|it| (!it.is_empty()).then_some(()))
        })
    };
    let is_in_force = |node| -> anyhow::Result<bool> {
        Ok(site
            .sh(node, "ls /var/lib/stead/modules/asks/active/module.json 2>/dev/null || true")?
            .contains("module.json"))
    };
    let other = "node1 is making another change";
    let cluster = site.cluster;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let first = scope.spawn(|| cluster.exec("node1", &["stead", "config", "-m", "asks"]));
        let second = || -> anyhow::Result<()> {
            asked()?;
            let whose = "the configuration of module asks";
            site.refused("node2", &["config", "-m", "asks"], 1, &["is not applied", other, whose])?;
            site.refused("node2", &["module", "install", "nginx"], 1, &["is not installed", other, whose])?;
            site.refused("node2", &["module", "uninstall", "asks"], 1, &["is not uninstalled", other])?;
            site.refused("node2", &["deconfig", "-m", "asks"], 1, &["is not deconfigured", other])?;
            site.sh("node2", "stead cluster config > /run/same.xml")?;
            site.refused("node2", &["cluster", "config", "/run/same.xml"], 1, &["is not applied", other]).map(drop)
        };
        let refused = second();
        for node in NODES {
            site.sh(node, ": > /run/allowed")?;
        }
        refused?;
        first.join().map_err(|_| anyhow::anyhow!("the first operator's thread failed"))?.map(drop)
    })?;
    for node in NODES {
        ensure!(is_in_force(node)?, "it is not in force on {node}");
        site.ok(node, &["deconfig", "-m", "asks"])?;
        site.sh(node, "rm -f /run/asked /run/allowed")?;
    }
    // An operator that hangs up in the middle.
    site.sh("node1", "stead config -m asks </dev/null >/dev/null 2>&1 & echo $! > /run/operator")?;
    asked()?;
    site.sh("node1", "kill -9 $(cat /run/operator); rm /run/operator")?;
    for node in NODES {
        site.sh(node, ": > /run/allowed")?;
    }
    for node in NODES {
        wait_for("the change's end", SOON, || Ok(is_in_force(node)?.then_some(())))?;
        site.sh(node, "rm -f /run/asked")?;
    }
    // And nobody has the turn any more.
    wait_for("a free turn", SOON, || {
        Ok(site.stead("node2", &["config", "-m", "asks"])?.status.success().then_some(()))
    })?;
    for node in NODES {
        site.sh(node, "rm -f /run/asked /run/allowed")?;
    }
    site.remove("asks")
}

fn hooks(site: &Site) -> anyhow::Result<()> {
    let scripts = [
        (
            "config",
            "#!/bin/sh\necho looks at $SAFEMODULE\ntest -e /run/allowed || { echo no licence on this node; exit 3; }\n",
        ),
        (
            "postconfig",
            "#!/bin/sh\ntest -s $SAFEUSERCONF/userconfig.xml && echo $SAFEUSERBIN > /run/applied\ntest ! -e /run/broken\n",
        ),
        ("confcheck", "#!/bin/sh\necho the port is free\ntest ! -e /run/taken\n"),
        ("state", "#!/bin/sh\necho 3 shops open\nsleep 9791 &\n"),
        ("level", "#!/bin/sh\necho version 7\n"),
        ("deconfig", "#!/bin/sh\nrm /run/applied\n"),
    ];
    site.install("asks", "", &scripts)?;
    // One node's word is enough, and nothing is in force anywhere then.
    site.sh("node1", ": > /run/allowed")?;
    site.refused("node1", &["config", "-m", "asks"], 1, &["config ended with exit code 3", "no licence on this node"])?;
    for node in NODES {
        site.says(node, "asks", &["never configured"])?;
        ensure!(site.sh(node, "ls /run/applied 2>/dev/null || true")?.is_empty(), "{node} was told of nothing");
    }
    site.sh("node2", ": > /run/allowed; : > /run/broken")?;
    site.refused("node1", &["config", "-m", "asks"], 1, &["node2", "postconfig ended with exit code 1"])?;
    for node in NODES {
        ensure!(site.sh(node, "cat /run/applied")?.trim() == "/var/lib/stead/modules/asks/active/bin", "{node}");
    }
    let said = site.ok("node1", &["confcheck", "-m", "asks"])?;
    ensure!(said.contains("confcheck: the port is free"), "{said}");
    site.sh("node1", ": > /run/taken")?;
    site.refused("node1", &["confcheck", "-m", "asks"], 1, &["confcheck ended with exit code 1", "the port is free"])?;
    ensure!(site.ok("node1", &["state", "-v", "-m", "asks"])?.contains("state: 3 shops open"));
    ensure!(site.ok("node1", &["level", "-m", "asks"])?.contains("level: version 7"));
    // Whatever a hook leaves behind is ended with it.
    ensure!(pid(site, "node1", 9791)?.is_empty(), "a hook left a process");
    for node in NODES {
        site.ok(node, &["deconfig", "-m", "asks"])?;
        ensure!(site.sh(node, "ls /run/applied 2>/dev/null || true")?.is_empty(), "{node} was not told");
        site.sh(node, "rm -f /run/allowed /run/broken /run/taken")?;
    }
    site.remove("asks")
}
