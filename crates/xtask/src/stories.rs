//! End-to-end stories: one fault each, with its expected outcome, on a shared lab that is restored in between.
//!
//! Each ends with the ledger check (every acknowledged entry is present on whichever node serves) and the
//! comparison of both trees after the pair is whole again.

mod addresses;
mod balanced;
mod networks;
mod witnesses;

use crate::app::{App, Load};
use crate::cluster::Cluster;
use crate::handover::{Blow, strike};
use anyhow::{bail, ensure};
use std::time::{Duration, SystemTime};

/// One story.
pub struct Story {
    /// Its name, as `--only` takes it.
    pub name: &'static str,
    /// The lab it needs.
    pub lab: Lab,
    /// What happens, and what must be seen.
    pub play: fn(&Stage) -> anyhow::Result<()>,
}

/// A lab that stories share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lab {
    /// Two nodes and a client on one network.
    Pair,
    /// The same with a witness.
    Witness,
    /// Two networks between the nodes; the clients are on the first.
    Networks,
}

impl Lab {
    /// All, in the order in which they are raised.
    pub const ALL: [Self; 3] = [Self::Pair, Self::Witness, Self::Networks];

    /// What `stead lab up` is given.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Pair => &[],
            Self::Witness => &["--witness"],
            Self::Networks => &["--networks", "2"],
        }
    }

    /// What serves in it.
    pub const fn app(self) -> App {
        match self {
            Self::Pair | Self::Witness => App::Postgresql,
            Self::Networks => App::Ledger,
        }
    }
}

/// Where a story plays.
pub struct Stage<'a> {
    /// The lab.
    pub cluster: &'a Cluster,
    /// The application.
    pub app: App,
    /// Who was primary when the story began.
    pub primary: String,
    /// And secondary.
    pub secondary: String,
    /// Its clients.
    pub load: &'a Load,
    began_ms: u64,
}

const SOON: Duration = Duration::from_secs(20);
const RESYNC: Duration = Duration::from_secs(90);

/// Milliseconds of the wall clock, as the clients record them.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl Stage<'_> {
    fn state(&self, node: &str, wanted: &str, deadline: Duration) -> anyhow::Result<()> {
        self.cluster.wait_states(self.app.module(), &[(node, wanted)], deadline)
    }
    fn act(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.cluster.act(arguments)
    }
    fn serving(&self) -> anyhow::Result<()> {
        self.load.wait_more(20, Duration::from_secs(30))
    }
    fn whole(&self) -> anyhow::Result<()> {
        self.cluster.wait_whole(self.app.module(), RESYNC).map(drop)
    }
    fn reason(&self, node: &str) -> String {
        self.cluster
            .view(node, self.app.module())
            .and_then(|v| v["reason"].as_str().map(str::to_string))
            .unwrap_or_default()
    }
    /// How often another node than before acknowledged. The load is this story's own, and somebody acknowledged before it began.
    fn moves(&self) -> usize {
        self.load.unexpected_moves(0)
    }
}

fn power_cut_primary(s: &Stage) -> anyhow::Result<()> {
    s.act(&["power", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    s.act(&["power", "on", &s.primary])?;
    s.whole()
}

fn power_cut_secondary(s: &Stage) -> anyhow::Result<()> {
    s.act(&["power", "cut", &s.secondary])?;
    s.state(&s.primary, "ALONE Ready", SOON)?;
    s.serving()?;
    ensure!(s.moves() == 0, "the service moved although its node lived");
    s.act(&["power", "on", &s.secondary])?;
    s.whole()
}

fn both_lose_power(s: &Stage, first: &str, second: &str) -> anyhow::Result<()> {
    s.act(&["power", "cut", first])?;
    s.act(&["power", "cut", second])?;
    s.act(&["power", "on", first])?;
    s.act(&["power", "on", second])?;
    s.whole()?;
    s.serving()
}

fn both_primary_first(s: &Stage) -> anyhow::Result<()> {
    both_lose_power(s, &s.primary, &s.secondary)
}

fn both_secondary_first(s: &Stage) -> anyhow::Result<()> {
    both_lose_power(s, &s.secondary, &s.primary)
}

/// `syncdelta`: the first node that returns serves by force, because both were equal a moment ago; the other follows it.
fn both_lose_power_syncdelta(s: &Stage) -> anyhow::Result<()> {
    let configure = |from: &str, to: &str| {
        let file = format!("/etc/stead/modules/{}/conf/userconfig.xml", s.app.module());
        let script = format!("sed -i 's|{from}|{to}|' {file} && stead config -m {}", s.app.module());
        s.cluster.exec(&s.primary, &["sh", "-c", &script]).map(drop)
    };
    configure("<rfs", "<rfs syncdelta=\"10m\"")?;
    let noted = format!("test -s /var/lib/stead/modules/{}/equal", s.app.module());
    for node in [&s.primary, &s.secondary] {
        crate::shell::wait_for("the note of equality", SOON, || {
            Ok(s.cluster.try_exec(node, &["sh", "-c", &noted])?.status.success().then_some(()))
        })?;
    }
    s.act(&["power", "cut", &s.primary])?;
    s.act(&["power", "cut", &s.secondary])?;
    s.act(&["power", "on", &s.secondary])?;
    s.state(&s.secondary, "ALONE Ready", 2 * SOON)?;
    s.serving()?;
    let log = s.cluster.exec(&s.secondary, &["stead", "log", "-m", s.app.module()])?;
    ensure!(log.contains("called by syncdelta"), "nobody was forced: {log}");
    s.act(&["power", "on", &s.primary])?;
    s.whole()?;
    configure(" syncdelta=\"10m\"", "")?;
    s.serving()
}

fn cut_with_witness(s: &Stage) -> anyhow::Result<()> {
    s.act(&["link", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    let other = s.cluster.state(&s.primary, s.app.module());
    ensure!(
        !other.starts_with("ALONE") && !other.starts_with("PRIM Ready"),
        "the cut-off node is {other} while the other is ALONE"
    );
    s.act(&["link", "heal", &s.primary])?;
    s.whole()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    Ok(())
}

fn total_cut_without_witness(s: &Stage) -> anyhow::Result<()> {
    s.act(&["link", "cut", "node1"])?;
    s.act(&["link", "cut", "node2"])?;
    crate::shell::wait_for("both nodes say what they wait for", SOON, || {
        Ok(["node1", "node2"]
            .iter()
            .all(|n| {
                let state = s.cluster.state(n, s.app.module());
                state != "PRIM Ready" && state != "SECOND Ready" && !s.reason(n).is_empty()
            })
            .then_some(()))
    })?;
    s.act(&["link", "heal", "node1"])?;
    s.act(&["link", "heal", "node2"])?;
    s.whole()?;
    s.serving()
}

fn freeze(s: &Stage) -> anyhow::Result<()> {
    s.act(&["freeze", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    std::thread::sleep(Duration::from_millis(5_000u64.saturating_sub(now_ms() - s.began_ms)));
    s.act(&["thaw", &s.primary])?;
    s.whole()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1: the thawed node acknowledged", s.moves());
    Ok(())
}

fn freeze_userspace_without_witness(s: &Stage) -> anyhow::Result<()> {
    s.act(&["freeze", &s.primary, "--userspace"])?;
    crate::shell::wait_for("the secondary says why it does not take over", SOON, || {
        let reason = s.reason(&s.secondary);
        Ok((s.cluster.state(&s.secondary, s.app.module()) != "SECOND Ready" && reason.contains("answer")).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(5_000u64.saturating_sub(now_ms() - s.began_ms)));
    let state = s.cluster.state(&s.secondary, s.app.module());
    ensure!(!state.starts_with("ALONE"), "took over from a node whose kernel still answers for the VIP");
    s.act(&["thaw", &s.primary])?;
    s.whole()?;
    s.serving()?;
    ensure!(s.moves() == 0, "the service moved");
    Ok(())
}

fn freeze_userspace_with_witness(s: &Stage) -> anyhow::Result<()> {
    s.act(&["freeze", &s.primary, "--userspace"])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    // The frozen node's kernel still answers for the address; who took it knows that node to be fenced, and stays.
    crate::shell::wait_for("the new primary has asked who else has the address", SOON, || {
        let view = s.cluster.view(&s.secondary, s.app.module()).unwrap_or_default();
        let asked = |resource: &serde_json::Value| {
            resource["name"].as_str().is_some_and(|name| name.starts_with("ip.")) && resource["value"] != "init"
        };
        Ok(view["resources"].as_array().is_some_and(|all| all.iter().any(asked)).then_some(()))
    })?;
    let state = s.cluster.state(&s.secondary, s.app.module());
    ensure!(state == "ALONE Ready", "{state}: {}", s.reason(&s.secondary));
    s.serving()?;
    s.act(&["thaw", &s.primary])?;
    s.whole()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    s.serving()
}

fn swap(s: &Stage) -> anyhow::Result<()> {
    s.cluster.exec(&s.primary, &["stead", "swap", "-m", s.app.module()])?;
    s.state(&s.secondary, "PRIM Ready", RESYNC)?;
    s.state(&s.primary, "SECOND Ready", RESYNC)?;
    s.serving()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    Ok(())
}

/// Two restarts at once are one, and end; a stop and start of the primary moves the service, however quickly the node is back.
fn restarts(s: &Stage) -> anyhow::Result<()> {
    let module = s.app.module();
    let twice = format!("for i in 1 2; do stead restart -m {module} --no-wait & done; wait");
    s.cluster.exec(&s.primary, &["sh", "-c", &twice])?;
    s.serving()?;
    s.state(&s.primary, "PRIM Ready", SOON)?;
    ensure!(s.moves() == 0, "the service moved although it was restarted where it runs");
    s.cluster.exec(&s.primary, &["stead", "stopstart", "-m", module])?;
    s.state(&s.secondary, "PRIM Ready", RESYNC)?;
    s.state(&s.primary, "SECOND Ready", RESYNC)?;
    s.serving()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    Ok(())
}

/// The primary's agent is dead and cannot start again, while its data plane lives: with the witness's word the other node serves.
fn agent_that_cannot_start(s: &Stage) -> anyhow::Result<()> {
    const APPLIED: &str = "/etc/stead/cluster/applied.json";
    let damage = format!("cp {APPLIED} {APPLIED}.kept && echo garbage > {APPLIED} && pkill -KILL -f 'stead agen[t]'");
    s.cluster.exec(&s.primary, &["sh", "-c", &damage])?;
    s.state(&s.secondary, "ALONE Ready", 2 * SOON)?;
    s.serving()?;
    s.cluster.exec(&s.primary, &["mv", &format!("{APPLIED}.kept"), APPLIED])?;
    s.whole()?;
    s.serving()?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    Ok(())
}

fn stop_and_start(s: &Stage) -> anyhow::Result<()> {
    s.cluster.exec(&s.primary, &["stead", "stop", "-m", s.app.module()])?;
    s.state(&s.primary, "STOP NotReady", SOON)?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    s.cluster.exec(&s.primary, &["stead", "start", "-m", s.app.module(), "--no-wait"])?;
    s.whole()
}

fn agent_killed(s: &Stage) -> anyhow::Result<()> {
    strike(s.cluster, s.app, s.load, Blow::Agent, 10).map(drop)
}

/// An agent that is new in its place still takes over: it learns from its data plane that the link stands, and from the next
/// heartbeat that the primary hears it.
fn secondary_restarted_before_the_cut(s: &Stage) -> anyhow::Result<()> {
    s.cluster.exec(&s.secondary, &["pkill", "-KILL", "-f", "stead agent"])?;
    s.state(&s.secondary, "SECOND Ready", SOON)?;
    crate::shell::wait_for("both hear each other again", SOON, || {
        let heard = |node: &str, by: &str| {
            let view = s.cluster.view(by, s.app.module());
            view.is_some_and(|v| {
                v["peer"]["node"] == node && v["peer"]["seen_ms_ago"].as_u64().is_some_and(|ms| ms < 500)
            })
        };
        Ok((heard(&s.primary, &s.secondary) && heard(&s.secondary, &s.primary)).then_some(()))
    })?;
    s.serving()?;
    power_cut_primary(s)
}

fn mirrorfs_killed(s: &Stage) -> anyhow::Result<()> {
    strike(s.cluster, s.app, s.load, Blow::Primary, 10)?;
    strike(s.cluster, s.app, s.load, Blow::Secondary, 2).map(drop)
}

fn program_replaced(s: &Stage) -> anyhow::Result<()> {
    strike(s.cluster, s.app, s.load, Blow::Program, 10).map(drop)
}

/// All stories, in the order in which they are told.
pub const STORIES: &[Story] = &[
    Story { name: "power-cut-of-the-primary", lab: Lab::Pair, play: power_cut_primary },
    Story { name: "power-cut-of-the-secondary", lab: Lab::Pair, play: power_cut_secondary },
    Story { name: "swap-under-load", lab: Lab::Pair, play: swap },
    Story { name: "stop-and-start-of-the-primary", lab: Lab::Pair, play: stop_and_start },
    Story { name: "restarts-and-stopstart-of-the-primary", lab: Lab::Pair, play: restarts },
    Story { name: "agent-killed", lab: Lab::Pair, play: agent_killed },
    Story {
        name: "secondary-s-agent-killed-before-a-power-cut",
        lab: Lab::Pair,
        play: secondary_restarted_before_the_cut,
    },
    Story { name: "mirrorfs-killed", lab: Lab::Pair, play: mirrorfs_killed },
    Story { name: "program-replaced", lab: Lab::Pair, play: program_replaced },
    Story { name: "freeze-of-the-primary", lab: Lab::Pair, play: freeze },
    Story { name: "freeze-of-user-space", lab: Lab::Pair, play: freeze_userspace_without_witness },
    Story { name: "one-way-cut-without-witness", lab: Lab::Pair, play: networks::one_way_without_witness },
    Story { name: "total-cut-without-witness", lab: Lab::Pair, play: total_cut_without_witness },
    Story { name: "both-lose-power-primary-returns-first", lab: Lab::Pair, play: both_primary_first },
    Story { name: "both-lose-power-secondary-returns-first", lab: Lab::Pair, play: both_secondary_first },
    Story { name: "both-lose-power-syncdelta", lab: Lab::Pair, play: both_lose_power_syncdelta },
    Story { name: "behind-a-load-balancer", lab: Lab::Pair, play: balanced::mirror },
    Story { name: "witness-power-cut-of-the-primary", lab: Lab::Witness, play: power_cut_primary },
    Story { name: "witness-network-cut", lab: Lab::Witness, play: cut_with_witness },
    Story { name: "witness-freeze-of-the-primary", lab: Lab::Witness, play: freeze },
    Story { name: "witness-freeze-of-user-space", lab: Lab::Witness, play: freeze_userspace_with_witness },
    Story { name: "witness-an-agent-that-cannot-start", lab: Lab::Witness, play: agent_that_cannot_start },
    Story { name: "witness-leaves-and-returns", lab: Lab::Witness, play: witnesses::leaves_and_returns },
    Story { name: "witness-lost-and-a-spare-votes", lab: Lab::Witness, play: witnesses::spare },
    Story { name: "witness-both-lose-power", lab: Lab::Witness, play: both_primary_first },
    Story { name: "witness-dead-and-network-cut", lab: Lab::Witness, play: networks::dead_witness },
    Story { name: "witness-one-way-cut", lab: Lab::Witness, play: networks::one_way },
    Story { name: "networks-one-of-two-is-cut", lab: Lab::Networks, play: networks::one_of_two },
    Story { name: "networks-only-the-clients-are-cut", lab: Lab::Networks, play: networks::clients_only },
    Story { name: "networks-split-brain-checker", lab: Lab::Networks, play: networks::checker },
    Story { name: "networks-a-flapping-link", lab: Lab::Networks, play: networks::flapping },
    Story { name: "networks-a-starved-secondary", lab: Lab::Networks, play: networks::starved },
    Story { name: "addresses-of-both-families-on-two-networks", lab: Lab::Networks, play: addresses::several },
    Story { name: "addresses-a-duplicate-while-serving", lab: Lab::Networks, play: addresses::duplicate },
    Story { name: "addresses-announced-again-after-a-partition", lab: Lab::Networks, play: addresses::again },
    Story { name: "addresses-connections-and-tcpreset", lab: Lab::Networks, play: addresses::connections },
    Story { name: "networks-the-address-moves-with-its-hardware-address", lab: Lab::Networks, play: networks::address },
];

/// Tells one story on a whole pair, and checks what every story must leave behind.
pub fn tell(cluster: &Cluster, app: App, story: &Story) -> anyhow::Result<()> {
    let (primary, secondary) = cluster.wait_whole(app.module(), RESYNC)?;
    let mut load = app.load(cluster, story.name, 2)?;
    let stage = Stage { cluster, app, primary, secondary, load: &load, began_ms: now_ms() };
    let played = (story.play)(&stage);
    let outage = load.outage_ms(stage.began_ms);
    load.stop()?;
    played?;
    let (acknowledged, lost) = load.check(cluster)?;
    if lost > 0 {
        bail!("{lost} of {acknowledged} acknowledged entries are lost (records in {})", load.dir().display());
    }
    if app == App::Postgresql {
        app.sql(cluster, "checkpoint")?;
    }
    cluster.compare_trees(app.module(), app.dir())?;
    println!("      {acknowledged} acknowledged, 0 lost, longest pause {outage} ms, trees equal");
    Ok(())
}
