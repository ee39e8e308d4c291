//! Members die, return, are stopped, restarted in turn, upgraded, cut off: who notices, and who does not.

use super::{Clients, DRAINED, Farm, MANY, MODULE, NODES, SOME, SOON, Story, install, share};
use crate::cluster::Cluster;
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const STORIES: &[Story] = &[
    ("farm-of-three", death_and_stop),
    ("farm-director", director),
    ("farm-upgrade", upgrade),
    ("farm-rolling", rolling),
    ("farm-partition", partition),
    ("farm-answers", answers),
    ("farm-frozen", frozen),
];

/// On a lab of its own.
pub(super) const BESIDE: &str = "farm-beside";

/// As well.
pub(super) const EIGHT: &str = "farm-of-eight";

fn death_and_stop(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("cut")?;
    farm.cluster.act(&["power", "cut", "node2"])?;
    farm.share("node1", "node2", false)?;
    for (name, load) in
        [("farm.Farm.node2", "0"), ("farm.Farm.node1", "50"), ("farm.Farm.node3", "50"), ("farm.Farm", "50")]
    {
        farm.cluster.wait_resource("node1", MODULE, (name, load), SOON)?;
    }
    // What the others took in meanwhile stays with them, whatever is the share of the one that returns.
    let meanwhile = farm.many_clients("cut-meanwhile")?;
    counted(farm)?;
    farm.cluster.act(&["power", "on", "node2"])?;
    farm.all_serve()?;
    farm.cluster.wait_resource("node1", MODULE, ("farm.Farm.node2", "33"), SOON)?;
    let back = meanwhile.end()?;
    back.nearly_all_kept().context("when node2 returned")?;
    let told = clients.end()?;
    ensure!(NODES.iter().all(|node| told.of("answered", node) > 0), "not all answered: {}", told.0);
    told.only_of("node2")?;
    println!(
        "      power cut: new connections failed for {} ms, none of the survivors' broke; its return: {} of {} that stood stand",
        told.span_ms(),
        back.sum("kept"),
        back.sum("kept") + back.sum("broken")
    );

    let clients = farm.many_clients("stop")?;
    // Connections stand on it: they would last for the whole time.
    farm.stead("node3", &["stop", "-m", MODULE, "--no-wait"])?;
    wait_for("node3 drains", SOON, || {
        let drains = farm.cluster.view("node3", MODULE).and_then(|view| view["farm"]["draining"].as_u64());
        Ok(drains.filter(|count| *count > 0))
    })?;
    clients.end()?.nothing_lost().context("during a planned stop")?;
    farm.cluster.wait_states(MODULE, &[("node3", "STOP NotReady")], DRAINED)?;
    // In no view it knows of no load, its own or another's.
    for name in ["farm.Farm", "farm.Farm.node1"] {
        farm.cluster.wait_resource("node3", MODULE, (name, "0"), SOON)?;
    }
    println!("      planned stop: no connection failed, none broke");
    farm.stead("node3", &["start", "-m", MODULE])?;
    farm.all_serve()
}

/// What `stead farm show` counts on a node after others came and went: connections that stand, and packets by view.
fn counted(farm: &Farm) -> anyhow::Result<()> {
    let show = || farm.stead("node1", &["farm", "show", "-m", MODULE, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&show()?)?;
    let stand = shown["farm"]["flows"]["connections"].as_u64().unwrap_or(0);
    ensure!(stand > MANY as u64 / 4, "{MANY} clients, two nodes, and only {stand} connections on one: {shown}");
    let views = shown["farm"]["interfaces"][0]["generations"].as_array().cloned().unwrap_or_default();
    let numbers: Vec<u64> = views.iter().filter_map(|it| it["view"].as_u64()).collect();
    ensure!(numbers.first() == shown["farm"]["view"].as_u64().as_ref(), "the newest is not the one in force: {shown}");
    ensure!(numbers.len() >= 2 && numbers.is_sorted_by(|newer, older| newer > older), "views {numbers:?}: {shown}");
    let accepted = |view: &serde_json::Value| {
        let counters = view["counters"].as_array().into_iter().flatten();
        counters.filter(|it| it[0] == "accepted").filter_map(|it| it[1].as_u64()).sum::<u64>()
    };
    let (by_view, all) = (views.iter().map(accepted).sum::<u64>(), accepted(&shown["farm"]["interfaces"][0]));
    ensure!(by_view > 0 && by_view <= all, "{by_view} packets by view, {all} in all: {shown}");
    Ok(())
}

/// It dies, another takes its place; it returns, and is given the place back by a planned restart of that one.
fn director(farm: &Farm) -> anyhow::Result<()> {
    let first = farm.director("node1").context("nobody directs")?;
    let clients = farm.clients("director")?;
    farm.cluster.act(&["power", "cut", &first])?;
    let witness = NODES.into_iter().find(|node| *node != first).unwrap_or("node1");
    farm.share(witness, &first, false)?;
    let second = farm.director(witness).context("nobody directs")?;
    ensure!(second != first, "{first} is dead and directs");
    let meanwhile = farm.many_clients("director-meanwhile")?;
    farm.cluster.act(&["power", "on", &first])?;
    farm.all_serve()?;
    meanwhile.end()?.nearly_all_kept().with_context(|| format!("when {first} returned"))?;
    let told = clients.end()?;
    told.only_of(&first)?;
    println!("      the director's death: new connections failed for {} ms, only its own broke", told.span_ms());
    ensure!(farm.director(witness).as_deref() == Some(&second), "a return alone changed the director");

    // As long as the director drains, the others have to agree on the next one.
    let clients = farm.many_clients("returns")?;
    farm.stead(&second, &["restart", "-m", MODULE, "--no-wait"])?;
    let by = NODES.into_iter().find(|node| *node != second).unwrap_or("node1");
    wait_for("another directs", SOON, || Ok(farm.director(by).filter(|now| *now != second)))?;
    clients.go_on(100)?;
    clients.end()?.nothing_lost().context("while the director changed as planned")?;
    farm.all_serve()?;
    let third = farm.director(by).context("nobody directs")?;
    println!(
        "      director: {first}, {second} when it died, {third} after a planned restart; nothing lost by the last"
    );
    Ok(())
}

/// The program is replaced and the agent killed under the clients: the filter and the application go on.
fn upgrade(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.many_clients("upgrade")?;
    crate::handover::replace(&farm.cluster.programs().join("stead"))?;
    for node in ["node3", "node1"] {
        let server = farm.cluster.exec(node, &["pgrep", "-of", "server.py"])?;
        farm.cluster.exec(node, &["pkill", "-KILL", "-f", "stead agent"])?;
        wait_for("a new agent serves", SOON, || Ok((farm.cluster.state(node, MODULE) == "UP Ready").then_some(())))?;
        farm.all_serve()?;
        clients.go_on(50)?;
        ensure!(
            farm.cluster.exec(node, &["pgrep", "-of", "server.py"])? == server,
            "the application of {node} was restarted"
        );
    }
    let told = clients.end()?;
    ensure!(told.sum("broken") == 0, "an agent's replacement broke connections: {}", told.0);
    ensure!(told.span_ms() < MOVED_BY_KILL_MS, "new connections failed for too long: {}", told.0);
    println!("      two agents killed and replaced: none broke, {} new ones failed", told.failed());
    late_upgrade(farm)
}

/// An upgrade on a busy machine: the old agent says that another is to follow it, and that one is late. The filter serves on meanwhile.
fn late_upgrade(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let member = NODES.into_iter().find(|node| *node != director).context("a farm of one")?;
    // On the other one the agent that follows dies before it has done anything.
    for (node, deaths) in [(member, ""), (director.as_str(), FOLLOWER_DIES)] {
        let clients = farm.many_clients(&format!("late-{node}"))?;
        let began = Instant::now();
        let held = farm.sh(node, &format!("{REPLACED}\n{deaths}\n{HELD}"))?;
        wait_for("it is late", SOON, || Ok((began.elapsed() > LATE).then_some(())))?;
        farm.sh(node, &format!("kill -CONT {held}"))?;
        wait_for("a new agent serves", SOON, || Ok((farm.cluster.state(node, MODULE) == "UP Ready").then_some(())))?;
        farm.all_serve()?;
        clients.go_on(50)?;
        clients
            .end()?
            .nothing_lost()
            .with_context(|| format!("while the agent of {node} was replaced by a late one"))?;
    }
    println!("      two upgrades with a new agent that was late by {} ms: nothing lost", LATE.as_millis());
    Ok(())
}

/// Far longer than a death takes to be noticed, and shorter than a filter goes on without its agent.
const LATE: Duration = Duration::from_millis(1_800);
/// The pattern does not find itself.
const REPLACED: &str = "old=$(pgrep -of '[s]tead agent'); kill -TERM $old
until new=$(pgrep -f '[s]tead agent' | grep -vx \"$old\"); do :; done";
const FOLLOWER_DIES: &str = "died=$new; kill -KILL $died
until new=$(pgrep -f '[s]tead agent' | grep -vx -e \"$old\" -e \"$died\"); do :; done";
const HELD: &str = "kill -STOP $new; echo $new";

/// A new agent has its filter again long before this.
const MOVED_BY_KILL_MS: u64 = 1_500;

/// Connections of one second each, all the time, while every member is restarted in turn.
fn rolling(farm: &Farm) -> anyhow::Result<()> {
    let clients = Clients::begin_with(farm.cluster, &farm.dir, "rolling", &farm.cluster.vip, SOME, Some("1"))?;
    for node in NODES {
        farm.stead(node, &["restart", "-m", MODULE, "--no-wait"])?;
        let other = NODES.into_iter().find(|other| *other != node).unwrap_or("node1");
        farm.share(other, node, false)?;
        farm.all_serve()?;
    }
    // With one command: one after the other.
    farm.stead("node1", &["restart", "-m", MODULE, "-H", "*"])?;
    farm.all_serve()?;
    clients.go_on(50)?;
    let told = clients.end()?;
    told.nothing_lost().context("during a rolling restart")?;
    println!("      rolling restart of all: {} answers on short connections, none lost", told.sum("kept"));
    Ok(())
}

/// Each half serves what it receives; when it heals they are one again, and what stood stands.
fn partition(farm: &Farm) -> anyhow::Result<()> {
    let clients = farm.clients("partition")?;
    farm.cluster.act(&["link", "cut", "node3"])?;
    farm.share("node1", "node3", false)?;
    wait_for("the cut-off node has a farm of its own", SOON, || {
        Ok((farm.director("node3").as_deref() == Some("node3")).then_some(()))
    })?;
    farm.cluster.act(&["link", "heal", "node3"])?;
    farm.all_serve()?;
    wait_for("one director", SOON, || Ok((farm.director("node3") == farm.director("node1")).then_some(())))?;
    clients.go_on(50)?;
    let told = clients.end()?;
    // They were silent meanwhile: nobody told them that the other half does not know them.
    ensure!(told.sum("broken") == 0, "connections broke: {}", told.0);
    ensure!(told.span_ms() < super::MOVED_MS, "the share did not move in time: {}", told.0);
    println!("      partition: new connections failed for {} ms; after healing all that stood stand", told.span_ms());
    Ok(())
}

/// A node that was alone is back, and hears another speak for the address before it has heard its heartbeats: were it to answer at once, as who alone
/// has an address does, clients would go to where nobody knows of the connections that they opened meanwhile.
fn answers(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let member = NODES.into_iter().find(|node| *node != director).context("a farm of one")?;
    for gone in [director.as_str(), member] {
        let others: Vec<&str> = NODES.into_iter().filter(|node| *node != gone).collect();
        farm.cluster.act(&["link", "cut", gone])?;
        let alone = Instant::now();
        farm.share(others[0], gone, false)?;
        let name = format!("answers-{gone}");
        let clients = Clients::begin_with(farm.cluster, &farm.dir, &name, &farm.cluster.vip, SOME, Some("600"))?;
        // What it says of itself, once it serves alone, is over.
        wait_for("it has been alone", SOON, || Ok((alone.elapsed() > Duration::from_secs(4)).then_some(())))?;
        let speaker = farm.director(others[0]).context("nobody directs")?;
        let log = farm.dir.join(format!("{name}.speaks"));
        let mut speaks = farm.cluster.spawn(&speaker, &["/usr/bin/python3", "-c", SPEAKS, &farm.cluster.vip], &log)?;
        wait_for("it speaks for the address", SOON, || {
            Ok(std::fs::read(&log).is_ok_and(|it| !it.is_empty()).then_some(()))
        })?;
        farm.cluster.act(&["link", "heal", gone])?;
        farm.all_serve()?;
        wait_for("one director", SOON, || Ok((farm.director(gone) == farm.director(others[0])).then_some(())))?;
        clients.go_on(100)?;
        ensure!(speaks.wait()?.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
        clients.end()?.nothing_lost().with_context(|| format!("when {gone} met the others"))?;
    }
    println!("      a director and a member back from a cut, while another speaks for the address: nothing lost");
    Ok(())
}

/// Announces the address as this node's, two hundred times a second for three seconds.
const SPEAKS: &str = "import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('net1', 0))
m, v = s.getsockname()[4], socket.inet_aton(sys.argv[1])
for i in range(600):
    s.send(b'\\xff' * 6 + m + bytes([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]) + m + v + bytes(6) + v)
    if i == 0: print('speaks', flush=True)
    time.sleep(0.005)
";

/// A member is paused as a virtual machine is, and goes on: it was gone, and comes as one that returns. What others serve meanwhile stands.
fn frozen(farm: &Farm) -> anyhow::Result<()> {
    let director = farm.director("node1").context("nobody directs")?;
    let member = NODES.into_iter().find(|node| *node != director).context("a farm of one")?;
    for (gone, kind) in [(member, "member"), (director.as_str(), "director")] {
        let by = NODES.into_iter().find(|node| *node != gone && *node != director).context("a farm of two")?;
        let clients = farm.clients(&format!("froze-{kind}"))?;
        farm.cluster.act(&["freeze", gone])?;
        farm.share(by, gone, false)?;
        clients.go_on(50)?;
        let meanwhile = farm.clients(&format!("froze-{kind}-meanwhile"))?;
        farm.cluster.act(&["thaw", gone])?;
        farm.all_serve()?;
        wait_for("one director", SOON, || Ok((farm.director(gone) == farm.director(by)).then_some(())))?;
        meanwhile.go_on(100)?;
        let told = meanwhile.end()?;
        told.nothing_lost().with_context(|| format!("when a frozen {kind} went on"))?;
        ensure!(told.of("answered", gone) > 0, "{gone} has no share again: {}", told.0);
        let told = clients.end()?;
        // Its own processes slept as well: what stood there may have been given up.
        told.only_of(gone)?;
        println!("      a {kind} slept: new connections failed for {} ms, none when it woke", told.span_ms());
    }
    Ok(())
}

/// Beside the clients' network the nodes have one of their own: a member that clients cannot reach is none, though the others hear it.
pub(super) fn beside(programs: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::up(programs, "e2e", &["--nodes", "3", "--networks", "2"])?;
    let farm = Farm { dir: install(&cluster)?, cluster: &cluster };
    let told = play_beside(&farm);
    told.inspect_err(|_| cluster.print_logs(MODULE))
}

fn play_beside(farm: &Farm) -> anyhow::Result<()> {
    farm.all_serve()?;
    let director = farm.director("node1").context("nobody directs")?;
    let member = NODES.into_iter().find(|node| *node != director).context("a farm of one")?;
    for gone in [member, &director] {
        let by = NODES.into_iter().find(|node| *node != gone && *node != director).context("a farm of two")?;
        let clients = farm.clients(&format!("beside-{gone}"))?;
        farm.cluster.act(&["link", "cut", gone, "net1"])?;
        farm.share(by, gone, false)?;
        wait_for("the cut-off node has a farm of its own", SOON, || {
            Ok((farm.director(gone).as_deref() == Some(gone)).then_some(()))
        })?;
        clients.go_on(100)?;
        farm.cluster.act(&["link", "heal", gone, "net1"])?;
        farm.all_serve()?;
        wait_for("one director", SOON, || Ok((farm.director(gone) == farm.director(by)).then_some(())))?;
        clients.go_on(50)?;
        let told = clients.end()?;
        ensure!(told.span_ms() < super::MOVED_MS, "the share of {gone} did not move in time: {}", told.0);
        // Those of the cut-off node were silent meanwhile: they stand again.
        ensure!(told.sum("broken") == 0, "connections broke: {}", told.0);
        println!(
            "      {gone} cut from the clients and heard beside: new connections failed for {} ms",
            told.span_ms()
        );
    }
    Ok(())
}

/// Eight members; two lose power at once.
pub(super) fn eight(programs: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::up(programs, "e2e", &["--nodes", "8", "--disk", "256"])?;
    let told = play_eight(&cluster);
    told.inspect_err(|_| cluster.print_logs(MODULE))
}

fn play_eight(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = install(cluster)?;
    let names: Vec<String> = (1..=8).map(|number| format!("node{number}")).collect();
    let wanted: Vec<(&str, &str)> = names.iter().map(|node| (node.as_str(), "UP Ready")).collect();
    cluster.wait_states(MODULE, &wanted, DRAINED)?;
    names.iter().try_for_each(|node| share(cluster, "node1", node, true))?;
    let clients = Clients::begin(cluster, &dir, "eight")?;
    cluster.act(&["power", "cut", "node4"])?;
    cluster.act(&["power", "cut", "node1"])?;
    for gone in ["node1", "node4"] {
        share(cluster, "node2", gone, false)?;
    }
    clients.go_on(50)?;
    let told = clients.end()?;
    let dead = told.of("broken", "node1") + told.of("broken", "node4");
    ensure!(told.sum("broken") == dead, "connections of the survivors broke: {}", told.0);
    let view = cluster.view("node2", MODULE).context("node2 says nothing")?;
    let shares = view["farm"]["groups"][0]["shares"].as_array().cloned().unwrap_or_default();
    let owned: Vec<u64> = shares.iter().filter_map(|share| share[1].as_u64()).filter(|it| *it > 0).collect();
    let fair = 16_384 / owned.len().max(1) as u64;
    ensure!(owned.len() == 6 && owned.iter().all(|it| it.abs_diff(fair) * 50 <= fair), "shares of six: {shares:?}");
    println!("      eight members, two cut at once: {} ms; six shares within 2 %", told.span_ms());
    Ok(())
}
