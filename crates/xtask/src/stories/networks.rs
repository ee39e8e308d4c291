//! Stories of links: one of two networks, the clients' side only, one direction only, one that comes and goes.

use super::{SOON, Stage};
use crate::shell::wait_for;
use anyhow::ensure;
use std::time::Instant;

/// Longer than heartbeats, link and takeover need to notice that nothing is lost; much shorter than a person.
const NOTHING_MS: u64 = 3_000;

impl Stage<'_> {
    fn stays(&self) -> anyhow::Result<()> {
        let states = [(&*self.primary, "PRIM Ready"), (&*self.secondary, "SECOND Ready")];
        self.cluster.wait_states(self.app.module(), &states, SOON)?;
        ensure!(self.moves() == 0, "{} moves of the service, expected none", self.moves());
        Ok(())
    }

    fn pause(&self, most_ms: u64) -> anyhow::Result<()> {
        let outage = self.load.outage_ms(self.began_ms);
        ensure!(outage < most_ms, "the clients paused for {outage} ms, expected less than {most_ms}");
        Ok(())
    }

    fn until(&self, node: &str, name: &str, value: &str) -> anyhow::Result<()> {
        self.cluster.wait_resource(node, self.app.module(), (name, value), SOON)
    }
}

/// Each network in turn, as the secondary's: clients stay on the primary's first one. Heartbeats and replication go on over the other.
pub(super) fn one_of_two(s: &Stage) -> anyhow::Result<()> {
    for net in ["net1", "net2"] {
        s.act(&["link", "cut", &s.secondary, net])?;
        s.until(&s.primary, &format!("heartbeat.{net}"), "down")?;
        s.serving()?;
        s.stays()?;
        s.act(&["link", "heal", &s.secondary])?;
        s.until(&s.primary, &format!("heartbeat.{net}"), "up")?;
        s.serving()?;
        s.stays()?;
    }
    s.pause(NOTHING_MS)
}

impl Stage<'_> {
    /// The client's address: something outside the pair.
    fn outside(&self) -> anyhow::Result<String> {
        let script = "ip -4 -o addr show scope global | awk '{print $4; exit}'";
        let told = self.cluster.exec("client", &["sh", "-c", script])?;
        Ok(told.trim().split('/').next().unwrap_or_default().to_string())
    }

    /// Plays with one more checker in the module's configuration; takes it out again, whatever happened.
    fn with_checker(&self, element: &str, play: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let module = self.app.module();
        let file = format!("/etc/stead/modules/{module}/conf/userconfig.xml");
        let add = format!(
            "cp {file} /run/without && sed -i 's,</check>,{element}</check>,' {file} && stead config -m {module}"
        );
        self.cluster.exec(&self.primary, &["sh", "-c", &add])?;
        let played = play();
        self.act(&["link", "heal", &self.primary])?;
        self.act(&["link", "heal", &self.secondary])?;
        let back = format!("cp /run/without {file} && stead config -m {module}");
        let restored = self.cluster.exec(&self.primary, &["sh", "-c", &back]);
        played?;
        restored.map(drop)
    }

    /// What a client on the node itself is told, who is not cut from it: true only for an acknowledgement.
    fn acknowledges_locally(&self, node: &str) -> anyhow::Result<bool> {
        let url = format!("http://127.0.0.1:{}/append", self.app.port());
        let entry = format!("{{\"client\":\"local-{node}\",\"seq\":{}}}", super::now_ms());
        // Longer than any pause of a pair that works; one that is held is never answered.
        let curl = ["curl", "-sf", "-m", "3", "-H", "content-type: application/json", "-d", &entry, &url];
        Ok(self.cluster.try_exec(node, &curl)?.status.success())
    }
}

/// The pair is whole and hears each other, and no client reaches the primary: a checker of something on their network moves it.
pub(super) fn clients_only(s: &Stage) -> anyhow::Result<()> {
    let ping = format!("<ping ident=\"clients\"><to addr=\"{}\"/></ping>", s.outside()?);
    s.with_checker(&ping, || {
        for node in [&s.primary, &s.secondary] {
            s.until(node, "ping.clients", "up")?;
        }
        s.act(&["link", "cut", &s.primary, "net1"])?;
        s.state(&s.primary, "WAIT NotReady", SOON)?;
        s.state(&s.secondary, "ALONE Ready", SOON)?;
        ensure!(s.reason(&s.primary).contains("ping.clients is down"), "it says '{}'", s.reason(&s.primary));
        s.serving()?;
        s.act(&["link", "heal", &s.primary])?;
        s.whole()?;
        s.serving()?;
        ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
        Ok(())
    })
}

/// Both cells of docs/arbitration.md: the primary is isolated, with a split-brain checker that answers, and with one that is dead.
pub(super) fn checker(s: &Stage) -> anyhow::Result<()> {
    let module = s.app.module();
    let address = s.outside()?;
    let element = format!("<splitbrain ident=\"witness\" exec=\"ping\" arg=\"{address}\"/>");
    let answers = |on: bool| {
        let ignore = format!("net.ipv4.icmp_echo_ignore_all={}", u8::from(!on));
        s.cluster.exec("client", &["sysctl", "-qw", &ignore])?;
        for node in [&s.primary, &s.secondary] {
            s.until(node, "splitbrain.witness", if on { "up" } else { "down" })?;
        }
        anyhow::Ok(())
    };
    // In the log: a secondary's reason is another one as soon as its right to take over has expired.
    let findings = |node: &str| -> anyhow::Result<usize> {
        let log = s.cluster.exec(node, &["stead", "log", "-m", module])?;
        Ok(log.matches(&format!("the isolation test does not answer: it may be {node} that is cut off")).count())
    };
    let says_isolated = |node: &str, before: usize| {
        wait_for(&format!("{node} finds that it may be cut off"), SOON, || {
            let state = s.cluster.state(node, module);
            ensure!(!state.starts_with("ALONE"), "{node} is {state} though the checker does not answer it");
            Ok((findings(node)? > before).then_some(state))
        })
    };
    let played = s.with_checker(&element, || {
        answers(true)?;
        let told = s.cluster.exec(&s.primary, &["stead", "state", "-v", "-m", module])?;
        ensure!(
            told.contains(&format!("split-brain checker {address} answers")),
            "what protects it is not told:\n{told}"
        );
        ensure!(s.acknowledges_locally(&s.primary)?, "a client on the primary is not acknowledged");
        s.act(&["link", "cut", &s.primary])?;
        s.state(&s.secondary, "ALONE Ready", SOON)?;
        s.serving()?;
        let state = says_isolated(&s.primary, 0)?;
        ensure!(state == "PRIM Transient", "the isolated primary is {state}");
        ensure!(!s.acknowledges_locally(&s.primary)?, "the isolated primary acknowledges beside the new one");
        s.act(&["link", "heal", &s.primary])?;
        s.whole()?;
        s.serving()?;
        ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
        // Now the other one serves. A checker that dies changes nothing as long as the pair is whole.
        answers(false)?;
        s.serving()?;
        ensure!(s.cluster.wait_whole(module, SOON)? == (s.secondary.clone(), s.primary.clone()), "the roles changed");
        let before = [findings(&s.secondary)?, findings(&s.primary)?];
        s.act(&["link", "cut", &s.secondary])?;
        let pair = [(&s.secondary, "PRIM Transient"), (&s.primary, "WAIT NotReady")];
        for ((node, wanted), before) in pair.into_iter().zip(before) {
            let state = says_isolated(node, before)?;
            ensure!(state == wanted, "{node} is {state}, expected {wanted}");
            ensure!(!s.acknowledges_locally(node)?, "{node} acknowledges though nobody may serve");
        }
        // A dead checker that answers again lets the one that it answers take over.
        s.cluster.exec("client", &["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0"])?;
        s.act(&["link", "heal", &s.secondary])?;
        s.whole()?;
        s.serving()
    });
    s.cluster.exec("client", &["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0"])?;
    played
}

/// Every second the network between the nodes is gone or back; the clients' stays.
pub(super) fn flapping(s: &Stage) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut cut = false;
    // Paced by the clients' work, not by a clock: ten turns, each as long as twenty acknowledgements at least.
    for _ in 0..10 {
        cut = !cut;
        s.act(&["link", if cut { "cut" } else { "heal" }, &s.secondary])?;
        s.serving()?;
    }
    println!("      ten turns in {:?}", begin.elapsed());
    s.act(&["link", "heal", &s.secondary])?;
    s.whole()?;
    // Who serves has its clients all the time: nothing may move it.
    ensure!(s.moves() == 0, "{} moves of the service, expected none", s.moves());
    Ok(())
}

/// The secondary's data plane does not run for a moment, on a machine whose processors are all taken: with two networks its link is
/// dialled anew after 600 ms of silence, and goes on where it was. Nothing moves, nothing is lost, nothing is copied again.
pub(super) fn starved(s: &Stage) -> anyhow::Result<()> {
    let module = s.app.module();
    let resyncs = || -> anyhow::Result<usize> {
        let log = s.cluster.exec(&s.secondary, &["stead", "log", "-m", module])?;
        Ok(log.lines().filter(|line| line.contains("Reintegration ended")).count())
    };
    let before = resyncs()?;
    // The pauses are the fault itself: below the link's patience, about it, and twice as long.
    for pause in ["0.4", "1", "1.2"] {
        let starve = format!(
            "for i in 1 2 3 4; do timeout 4 sh -c 'while :; do :; done' > /dev/null 2>&1 & done
             pid=$(pgrep -f '[s]ocket /run/stead/mirrorfs/{module}.sock') || exit 1
             kill -STOP $pid; sleep {pause}; kill -CONT $pid"
        );
        s.cluster.exec(&s.secondary, &["sh", "-c", &starve])?;
        s.serving()?;
        s.stays()?;
    }
    let again = resyncs()? - before;
    ensure!(again == 0, "{again} resyncs, expected that the link was resumed");
    s.pause(NOTHING_MS)
}

/// What an outside client's neighbour table says of the virtual address, before and after.
pub(super) fn address(s: &Stage) -> anyhow::Result<()> {
    let mac_of = |node: &str| -> anyhow::Result<String> {
        let script = "ip -o link show $(ip -4 -o addr show to 10.0.1.0/24 | awk '{print $2; exit}') | grep -o 'link/ether [^ ]*' | cut -d' ' -f2";
        Ok(s.cluster.exec(node, &["sh", "-c", script])?.trim().to_string())
    };
    let seen = || -> anyhow::Result<String> {
        let told = s.cluster.exec("client", &["ip", "-4", "neigh", "show", "to", &s.cluster.vip])?;
        let mut words = told.split_whitespace();
        Ok(words.find(|word| *word == "lladdr").and(words.next()).unwrap_or_default().to_string())
    };
    let (before, after) = (mac_of(&s.primary)?, mac_of(&s.secondary)?);
    ensure!(!before.is_empty() && before != after, "the nodes' hardware addresses are '{before}' and '{after}'");
    ensure!(seen()? == before, "the client sees {} for the virtual IP, not {before}", seen()?);
    s.act(&["power", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    ensure!(seen()? == after, "the client sees {} for the virtual IP, not {after}", seen()?);
    s.act(&["power", "on", &s.primary])?;
    s.whole()
}

/// The secondary no longer hears the primary, which still hears it: neither may take that for a link.
pub(super) fn one_way(s: &Stage) -> anyhow::Result<()> {
    for (deaf, other) in [(&s.secondary, &s.primary), (&s.primary, &s.secondary)] {
        s.act(&["link", "oneway", deaf, other])?;
        // Both ask the witness, which has heard the primary since: it serves on.
        wait_for("the primary ALONE", SOON, || {
            let states = [&s.primary, &s.secondary].map(|node| s.cluster.state(node, s.app.module()));
            ensure!(!states[1].starts_with("ALONE"), "the secondary serves: {states:?}");
            Ok((states[0] == "ALONE Ready").then_some(()))
        })?;
        s.serving()?;
        s.act(&["link", "heal", deaf])?;
        s.whole()?;
    }
    ensure!(s.moves() == 0, "{} moves of the service, expected none", s.moves());
    Ok(())
}

/// One network for everything and no witness: whoever hears the other serves on, or gives way to it. Never both.
pub(super) fn one_way_without_witness(s: &Stage) -> anyhow::Result<()> {
    let wait_for_one = |serves: &str, waits: &str, why: &str| {
        wait_for(&format!("{serves} serves alone, and {waits} says why it does not"), SOON, || {
            let [one, other] = [serves, waits].map(|node| s.cluster.state(node, s.app.module()));
            ensure!(!(one.ends_with("Ready") && other == "ALONE Ready"), "both serve: {serves} {one}, {waits} {other}");
            Ok((one == "ALONE Ready" && other == "WAIT NotReady" && s.reason(waits).contains(why)).then_some(()))
        })
    };
    // The primary hears nothing: the secondary hears that it lives.
    s.act(&["link", "oneway", &s.primary, &s.secondary])?;
    wait_for_one(&s.primary, &s.secondary, "it is alive, no takeover")?;
    s.serving()?;
    s.act(&["link", "heal", &s.primary])?;
    s.whole()?;
    // The secondary hears nothing, and takes over: the primary hears that.
    s.act(&["link", "oneway", &s.secondary, &s.primary])?;
    wait_for_one(&s.secondary, &s.primary, "may have gone on alone")?;
    s.act(&["link", "heal", &s.secondary])?;
    s.whole()?;
    s.serving()
}

/// The witness dies first, which changes nothing; when the pair is then cut nobody may decide, and nobody serves.
pub(super) fn dead_witness(s: &Stage) -> anyhow::Result<()> {
    s.act(&["power", "cut", "witness"])?;
    s.serving()?;
    s.stays()?;
    s.act(&["link", "cut", &s.primary])?;
    for node in [&s.primary, &s.secondary] {
        wait_for(&format!("{node} names the witness"), SOON, || {
            let state = s.cluster.state(node, s.app.module());
            ensure!(!state.starts_with("ALONE"), "{node} is {state} although nobody granted it anything");
            Ok((state != "PRIM Ready" && state != "SECOND Ready" && s.reason(node).contains("witness")).then_some(()))
        })?;
    }
    s.act(&["link", "heal", &s.primary])?;
    s.whole()?;
    // The next story needs its word.
    s.act(&["power", "on", "witness"])?;
    s.serving()
}
