//! The application fails while its node is well: it is noticed, restarted where it is, moved when that does not help, and
//! never for ever.

use super::{Check, SOON, Site};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("checkers: a killed process is restarted, the fourth time the other node takes over", killed),
    ("checkers: a refused port and a hung page restart the application", ports),
    ("checkers: one that always fails stops on both nodes, and does not loop", hopeless),
    ("checkers: waiting for something outside, waking up, maintenance that ends by itself", waiting),
    ("checkers: resources and rules, asked and tried", asked),
    ("checkers: an endless program says its result, and is begun again", endless),
    ("checkers: handler, class, name pattern, start_after and named services of errd", errd),
];

const START: &str = "#!/bin/sh\nsetsid sleep 9731 </dev/null >/dev/null 2>&1 &\n";

fn pid(site: &Site, node: &str) -> anyhow::Result<String> {
    Ok(site.sh(node, "pgrep -f 'sleep 973[1]' || true")?.trim().to_string())
}

fn resource(site: &Site, node: &str, module: &str, name: &str) -> String {
    let views = site.cluster.view(node, module).map(|v| v["resources"].clone()).unwrap_or_default();
    let found = views.as_array().into_iter().flatten().find(|r| r["name"] == name);
    found.and_then(|r| r["value"].as_str().map(str::to_string)).unwrap_or_default()
}

pub(super) fn until(site: &Site, node: &str, module: &str, name: &str, value: &str) -> anyhow::Result<()> {
    wait_for("a resource", SOON, || Ok((resource(site, node, module, name) == value).then_some(())))
        .with_context(|| format!("{name} on {node} is '{}', not {value}", resource(site, node, module, name)))
}

fn pair(site: &Site, module: &str) -> anyhow::Result<()> {
    site.ok("node1", &["start", "-m", module])?;
    site.ok("node2", &["start", "-m", module])?;
    site.state(module, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])
}

fn killed(site: &Site) -> anyhow::Result<()> {
    let errd = "<errd><proc name=\"sleep\" argregex=\"9731\" action=\"restart\"/></errd>";
    site.module("job", errd, &[("start_prim", START)])?;
    pair(site, "job")?;
    for _ in 0..3 {
        until(site, "node1", "job", "proc.sleep", "up")?;
        let before = pid(site, "node1")?;
        let at = site.sh("node1", &format!("date +%s%6N; kill -9 {before}"))?;
        let after = wait_for("another process", SOON, || {
            let now = pid(site, "node1")?;
            Ok((!now.is_empty() && now != before).then_some(now))
        })?;
        ensure!(!after.is_empty());
        let log: serde_json::Value = serde_json::from_str(&site.ok("node1", &["log", "-m", "job", "--json"])?)?;
        let lines = log["lines"].as_array().cloned().unwrap_or_default();
        let noticed = lines.iter().rev().find(|l| {
            l["text"]
                .as_str()
                .is_some_and(|t| t.contains("Resource proc.sleep set to down by errd: Process sleep not running"))
        });
        let noticed = noticed.and_then(|l| l["at_unix_us"].as_u64()).context("the log does not tell of the death")?;
        let late = noticed.saturating_sub(at.trim().parse()?) / 1000;
        println!("      a killed process was noticed after {late} ms");
        // Not a measurement: SafeKit looks every ten seconds or more.
        ensure!(late < 5_000, "noticed after {late} ms");
        site.state("job", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    }
    until(site, "node1", "job", "proc.sleep", "up")?;
    ensure!(resource(site, "node1", "job", "heart.stopstartloop") == "3", "three restarts are not counted");
    // A script that names itself is no person who has looked: what is counted stays counted.
    let sleeping = pid(site, "node1")?;
    site.ok("node1", &["restart", "-i", "mychecker", "-m", "job"])?;
    ensure!(resource(site, "node1", "job", "heart.stopstartloop") == "3", "a script's restart made it forget");
    wait_for("the restarted process", SOON, || {
        let now = pid(site, "node1")?;
        Ok((!now.is_empty() && now != sleeping).then_some(()))
    })?;
    until(site, "node1", "job", "proc.sleep", "up")?;
    site.refused("node1", &["prim", "-m", "job"], 1, &["started already"])?;
    ensure!(resource(site, "node1", "job", "heart.stopstartloop") == "0", "a person's command forgets them");
    for who in ["a", "b", "c"] {
        site.ok("node1", &["incloop", "-i", who, "-m", "job"])?;
    }
    site.sh("node1", &format!("kill -9 {}", pid(site, "node1")?))?;
    site.state("job", &[("node1", "STOP NotReady"), ("node2", "ALONE Ready")])?;
    site.says("node1", "job", &["stop called by maxloop", "Process sleep not running"])?;
    ensure!(!pid(site, "node2")?.is_empty(), "the application does not run on node2");
    let log = site.ok("node1", &["log", "-m", "job"])?;
    for text in [
        "Action restart called by errd",
        "Action restart called by mychecker",
        "Requested prim start aborted: module job is started already",
        "Action stop called by maxloop",
        "Remote state SECOND Ready",
    ] {
        ensure!(log.contains(text), "the log does not say '{text}':\n{log}");
    }
    let log = site.ok("node2", &["log", "-m", "job"])?;
    ensure!(log.contains("Action alone called by heart: remote stop"), "{log}");
    site.remove("job")
}

fn ports(site: &Site) -> anyhow::Result<()> {
    let check = "<check><tcp ident=\"web\" when=\"prim\"><to addr=\"127.0.0.1\" port=\"8099\"/></tcp>\
        <http ident=\"page\" when=\"prim\"><to url=\"http://127.0.0.1:8099/\" status=\"200\"/></http></check>";
    let ledger = site.cluster.programs().join("stead-ledger");
    let start = format!(
        "#!/bin/sh\nsetsid {} serve --db /srv/stead/ports.sqlite --port 8099 </dev/null >/dev/null 2>&1 &\n",
        ledger.display()
    );
    let check = check.replace(" status=\"200\"", " status=\"404\"").replace("8099/\"", "8099/no/such/page\"");
    site.module("web", &check, &[("start_prim", &start)])?;
    site.ok("node1", &["start", "-m", "web"])?;
    // A dead one refuses both connections, and whoever asks first sees it; a hung one still lets the kernel accept.
    for (signal, names) in [("KILL", &["tcp.web", "http.page"][..]), ("STOP", &["http.page"])] {
        until(site, "node1", "web", "tcp.web", "up")?;
        until(site, "node1", "web", "http.page", "up")?;
        let before = site.sh("node1", "pgrep -f 'port 809[9]'")?.trim().to_string();
        site.sh("node1", &format!("kill -{signal} {before}"))?;
        wait_for("another process", SOON, || {
            let now = site.sh("node1", "pgrep -f 'port 809[9]' || true")?.trim().to_string();
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        let log = site.ok("node1", &["log", "-m", "web"])?;
        ensure!(names.iter().any(|name| log.contains(&format!("Resource {name} set to down"))), "{log}");
        ensure!(log.contains("Action restart from failover rule"), "{log}");
    }
    until(site, "node1", "web", "tcp.web", "up")?;
    site.remove("web")
}

fn hopeless(site: &Site) -> anyhow::Result<()> {
    let check = "<check><custom ident=\"flap\" when=\"prim\" exec=\"flap\" interval=\"1s\" action=\"stopstart\" down_after=\"1\" grace=\"0s\"/></check>";
    let flap = "#!/bin/sh\necho no disk\nexit 1\n";
    site.module("flap", check, &[("start_prim", START), ("flap", flap)])?;
    site.ok("node1", &["start", "-m", "flap"])?;
    site.ok("node2", &["start", "-m", "flap"])?;
    // Each node counts its own: at most three starts more on each, then both are stopped and say why.
    stops(site, "flap")?;
    for node in super::NODES {
        let log = site.ok(node, &["log", "-m", "flap"])?;
        let times = log.matches("Action stopstart from failover rule c_flap").count();
        ensure!((1..=4).contains(&times), "{times} actions on {node}:\n{log}");
        site.says(node, "flap", &["stop called by maxloop", "custom.flap is down", "no disk"])?;
    }
    site.remove("flap")
}

fn stops(site: &Site, module: &str) -> anyhow::Result<()> {
    let wanted = [("node1", "STOP NotReady"), ("node2", "STOP NotReady")];
    site.cluster.wait_states(module, &wanted, Duration::from_secs(90))
}

fn waiting(site: &Site) -> anyhow::Result<()> {
    let check = "<check><custom ident=\"link\" when=\"pre\" exec=\"link\" interval=\"1s\" action=\"wait\" down_after=\"1\"/></check>";
    let link = "#!/bin/sh\ntest -e /srv/stead/link\n";
    for node in super::NODES {
        site.sh(node, "touch /srv/stead/link")?;
    }
    site.module("net", check, &[("start_prim", START), ("link", link)])?;
    pair(site, "net")?;
    site.sh("node1", "rm /srv/stead/link")?;
    site.state("net", &[("node1", "WAIT NotReady"), ("node2", "ALONE Ready")])?;
    site.says("node1", "net", &["waits: failover rule c_link", "custom.link is down", "stead checker off"])?;
    ensure!(pid(site, "node1")?.is_empty() && !pid(site, "node2")?.is_empty(), "the application is on the wrong node");
    let said = site.ok("node1", &["start", "-m", "net"])?;
    ensure!(said.contains("waits: failover rule c_link"), "{said}");
    site.refused("node1", &["prim", "-m", "net"], 1, &["it waits"])?;
    site.sh("node1", "touch /srv/stead/link")?;
    site.state("net", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    let log = site.ok("node1", &["log", "-m", "net"])?;
    ensure!(log.contains("Action wakeup from failover rule Implicit_wakeup"), "{log}");
    // Off for maintenance: survives stop and start, and ends by itself.
    site.ok("node1", &["checker", "off", "-m", "net", "--for", "15s", "--reason", "new cable"])?;
    let shown = site.ok("node1", &["state", "-m", "net"])?;
    ensure!(shown.contains("no checker looks, switched off by") && shown.contains("(new cable)"), "{shown}");
    site.ok("node1", &["stop", "-m", "net"])?;
    site.sh("node1", "rm /srv/stead/link")?;
    site.ok("node1", &["start", "-m", "net"])?;
    site.state("net", &[("node1", "SECOND Ready")])?;
    ensure!(resource(site, "node1", "net", "custom.link") == "unknown", "a checker that is off is not unknown");
    site.state("net", &[("node1", "WAIT NotReady")])?;
    // Stopped while it waits: it stays so.
    site.ok("node1", &["stop", "-m", "net"])?;
    site.sh("node1", "touch /srv/stead/link")?;
    site.state("net", &[("node1", "STOP NotReady")])?;
    site.remove("net")
}

fn asked(site: &Site) -> anyhow::Result<()> {
    let service = "<check><custom ident=\"site\" when=\"prim\" exec=\"look\" interval=\"1s\"/></check>\
        <failover><![CDATA[ mine: if (user.go == up &amp;&amp; custom.site == up) then user.done=up; ]]></failover>";
    let service = service.replace("&amp;", "&");
    site.module("asks", &service, &[("start_prim", START), ("look", "#!/bin/sh\nexit 0\n")])?;
    site.ok("node1", &["start", "-m", "asks"])?;
    until(site, "node1", "asks", "custom.site", "up")?;
    ensure!(site.ok("node1", &["get", "-m", "asks", "-r", "custom.site"])?.trim() == "up");
    let said = site.ok("node1", &["rules", "test", "-m", "asks", "user.go=up", "custom.site=up", "wait 1s"])?;
    ensure!(said.contains("mine: if ((user.go == up && custom.site == up)) then user.done=up;"), "{said}");
    ensure!(said.contains("Resource user.done set to up by failover rule mine"), "{said}");
    site.ok("node1", &["set", "-m", "asks", "-r", "user.go", "-v", "up", "-i", "me"])?;
    until(site, "node1", "asks", "user.done", "up")?;
    site.state("asks", &[("node1", "ALONE Ready")])?;
    site.refused("node1", &["set", "-m", "asks", "-r", "tcp.x", "-v", "up"], 1, &["not anybody's to set"])?;
    site.refused("node1", &["get", "-m", "asks", "-r", "tcp.x"], 1, &["no resource tcp.x"])?;
    let verbose = site.ok("node1", &["state", "-v", "-m", "asks"])?;
    for name in ["custom.site up", "user.go up", "heartbeat.net1 up", "state.local ALONE"] {
        ensure!(verbose.contains(name), "'{name}' is not shown:\n{verbose}");
    }
    site.remove("asks")
}

/// A program that never ends says its own result; what it said does not outlive it, it is begun again, and nothing of it is left at the stop.
fn endless(site: &Site) -> anyhow::Result<()> {
    let check = "<check><custom ident=\"own\" when=\"prim\" exec=\"own\" arg=\"9733\"/></check>";
    // Its children count as it does, whatever they detach from: a checker is often a pipeline.
    let own = "#!/bin/sh\nsleep 9733 &\nsetsid sleep 9733 >/dev/null 2>&1 </dev/null &\n[ \"$1 $2 $3\" = 'asks custom.own 9733' ] || exit 1\n\
        while :; do\n  if [ -e /srv/stead/well ]; then v=up; else v=down; fi\n\
        stead set -m \"$1\" -r \"$2\" -v $v -i own9733\n  sleep 0.2\ndone\n";
    site.sh("node1", "touch /srv/stead/well")?;
    site.module("asks", check, &[("start_prim", START), ("own", own)])?;
    site.ok("node1", &["start", "-m", "asks"])?;
    until(site, "node1", "asks", "custom.own", "up")?;
    site.sh("node1", "rm /srv/stead/well")?;
    until(site, "node1", "asks", "custom.own", "down")?;
    site.sh("node1", "touch /srv/stead/well")?;
    until(site, "node1", "asks", "custom.own", "up")?;
    let program = || -> anyhow::Result<String> {
        Ok(site.sh("node1", "pgrep -f 'asks custom.ow[n]' || true")?.trim().to_string())
    };
    let children =
        || -> anyhow::Result<String> { Ok(site.sh("node1", "pgrep -f 'sleep 973[3]' || true")?.trim().to_string()) };
    let are_two_others = |now: &str, before: &str| {
        now.lines().count() == 2 && !now.lines().any(|pid| before.lines().any(|before| before == pid))
    };
    let (before, child) = (program()?, children()?);
    ensure!(!before.is_empty() && are_two_others(&child, ""), "the checker is '{before}', its children '{child}'");
    site.sh("node1", &format!("kill -9 {before}"))?;
    let dead =
        "Resource custom.own set to unknown by customcheck: own ended with signal: 9 (SIGKILL); it is begun again";
    wait_for("its death in the log", SOON, || {
        Ok(site.ok("node1", &["log", "-v", "-m", "asks"])?.contains(dead).then_some(()))
    })?;
    wait_for("another program, and of the former nothing", SOON, || {
        let (now, left) = (program()?, children()?);
        Ok((!now.is_empty() && now != before && are_two_others(&left, &child)).then_some(()))
    })
    .with_context(|| format!("before: {before} with {child}; now: {:?} with {:?}", program(), children()))?;
    until(site, "node1", "asks", "custom.own", "up")?;
    let child = children()?;
    site.sh("node1", "pkill -KILL -f '[s]tead agent'")?;
    wait_for("the next agent's checker, and of the former's nothing", SOON, || {
        Ok(are_two_others(&children()?, &child).then_some(()))
    })
    .with_context(|| format!("before: {child}; now: {:?}", children()))?;
    site.agents_are_now()?;
    until(site, "node1", "asks", "custom.own", "up")?;
    site.ok("node1", &["stop", "-m", "asks"])?;
    wait_for("the end of the program and its child", SOON, || {
        Ok((program()?.is_empty() && children()?.is_empty()).then_some(()))
    })
    .with_context(|| format!("left: {:?}, {:?}", program(), children()))?;
    ensure!(resource(site, "node1", "asks", "custom.own") == "init", "a checker that does not run knows something");
    site.remove("asks")
}

/// `<errd>` to the letter of the reference: nameregex, a handler, a class of its own, start_after, restart_services.
fn errd(site: &Site) -> anyhow::Result<()> {
    let errd = "<errd polltimer=\"1s\">\
        <proc name=\"workers\" nameregex=\"^work97[0-9]$\" atleast=\"2\" action=\"restart\" restart_services=\"a,b\"/>\
        <proc name=\"sleep\" argregex=\"9742\" action=\"mend\"/>\
        <proc name=\"nightly\" class=\"night\" action=\"noaction\"/>\
        <proc name=\"late\" start_after=\"4\" action=\"noaction\"/></errd>";
    // Only what is missing: a restart of some services leaves the others.
    let start = "#!/bin/sh\necho \"start_prim $*\" >> /srv/stead/order\nfor n in 1 2; do\n  cp /bin/sleep /srv/stead/work97$n 2>/dev/null\n\
        pgrep -x work97$n >/dev/null || setsid /srv/stead/work97$n 9741 </dev/null >/dev/null 2>&1 &\ndone\n\
        pgrep -f 'sleep 974[2]' >/dev/null || setsid sleep 9742 </dev/null >/dev/null 2>&1 &\n";
    let stop = "#!/bin/sh\necho \"stop_prim $*\" >> /srv/stead/order\n";
    // Mends it once; the second time it cannot.
    let mend = "#!/bin/sh\necho \"mend $*\" >> /srv/stead/order\n[ -e /srv/stead/mended ] && exit 3\ntouch /srv/stead/mended\n\
        stead incloop -i mend -m \"$1\"\nsetsid sleep 9742 </dev/null >/dev/null 2>&1 &\n";
    let order = || site.sh("node1", "cat /srv/stead/order");
    let log = || site.ok("node1", &["log", "-v", "-m", "job"]);
    site.sh("node1", "rm -f /srv/stead/order /srv/stead/mended")?;
    site.module("job", errd, &[("start_prim", start), ("stop_prim", stop), ("mend", mend)])?;
    site.ok("node1", &["start", "-m", "job"])?;
    for name in ["proc.workers", "proc.sleep"] {
        until(site, "node1", "job", name, "up")?;
    }
    // What has so long to come is missed only then: (4 - 1) polls at least.
    until(site, "node1", "job", "proc.late", "down")?;
    let told: serde_json::Value = serde_json::from_str(&site.ok("node1", &["log", "-v", "-m", "job", "--json"])?)?;
    let at = |text: &str| {
        let mut lines = told["lines"].as_array().into_iter().flatten();
        let found = lines.rfind(|line| line["text"].as_str().is_some_and(|it| it.contains(text)));
        found.and_then(|line| line["at_unix_us"].as_u64()).with_context(|| format!("the log does not say '{text}'"))
    };
    let waited = at("Resource proc.late set to down")?.saturating_sub(at("Local state ALONE Ready")?) / 1000;
    ensure!(waited >= 3_000, "missed after {waited} ms already, start_after is 4 polls of a second");
    // A class of the module's own is watched when somebody says so.
    ensure!(resource(site, "node1", "job", "proc.nightly") == "init", "it is watched though its class is not enabled");
    site.refused("node1", &["errd", "enable", "day", "-m", "job"], 1, &["no class 'day'"])?;
    site.ok("node1", &["errd", "enable", "night", "-m", "job"])?;
    until(site, "node1", "job", "proc.nightly", "down")?;
    site.ok("node1", &["errd", "disable", "night", "-m", "job"])?;
    until(site, "node1", "job", "proc.nightly", "init")?;
    // One of two of a name's pattern: the scripts restart the named services, in words that SafeKit's know.
    let sleeping = site.sh("node1", "pgrep -f 'sleep 974[2]'")?;
    site.sh("node1", "rm -f /srv/stead/order; pkill -9 -x work972")?;
    wait_for("a restart of the named services", SOON, || {
        Ok(order().is_ok_and(|it| it.contains("start_prim")).then_some(()))
    })?;
    until(site, "node1", "job", "proc.workers", "up")?;
    let told = order()?;
    ensure!(told.contains("-Services a, b\n") && told.lines().all(|line| line.contains("-Services a, b")), "{told}");
    ensure!(site.sh("node1", "pgrep -f 'sleep 974[2]'")? == sleeping, "what is no part of the services was ended");
    ensure!(log()?.contains("Process workers: 1 running, at least 2 wanted"), "{}", log()?);
    // The handler mends it; that is counted because it says so, and nothing else is done.
    site.sh("node1", "rm -f /srv/stead/order; pkill -9 -f 'sleep 974[2]'")?;
    wait_for("the handler", SOON, || Ok(order().is_ok_and(|it| it == "mend job proc.sleep\n").then_some(())))?;
    until(site, "node1", "job", "proc.sleep", "up")?;
    until(site, "node1", "job", "heart.stopstartloop", "2")?;
    ensure!(log()?.contains("Action mend called by errd") && order()? == "mend job proc.sleep\n", "{}", order()?);
    // One that fails is a stop and a start.
    site.sh("node1", "pkill -9 -f 'sleep 974[2]'")?;
    wait_for("a stop and a start", SOON, || {
        let told = order()?;
        Ok((told.contains("stop_prim") && told.contains("start_prim") && !told.contains("-Services")).then_some(()))
    })?;
    site.state("job", &[("node1", "ALONE Ready")])?;
    ensure!(log()?.contains("handler mend ended with exit status: 3"), "{}", log()?);
    site.remove("job")?;
    site.sh("node1", "rm -f /srv/stead/work97? /srv/stead/mended").map(drop)
}
