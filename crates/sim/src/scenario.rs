//! Plays text stories: what happens, line by line, and what the journals of the nodes then say.
//!
//! A story is a text file: `#` lines tell why, `>` lines say what happens, everything else is the expected transcript.
//! A support engineer can read one; `UPDATE=1` writes the transcript anew. The commands are listed in [`COMMANDS`].

use crate::world::check::names;
use crate::world::scripts;
use crate::world::step::Step;
use crate::world::{Asks, Chosen, Rules, SPARE, Set, Who, World, describe_packet};
use cluster::mirror::{Command, Event, Policy};
use cluster::scripts::Scripts;
use model::Witnesses;

/// What may stand behind `>`.
pub const COMMANDS: &str = "\
pair [with witness] [whole]        two nodes; whole: node1 PRIM, node2 SECOND; failover=off, defaultprim=node1|lastprim;
                                   scripts: every run is told, with its arguments; log: what the log says as well;
                                   checker=dead|none: nothing answers a node that asks whether it is isolated
failover on|off                    as `stead failover` says it, on both
prim N | force N | start N | stop N | forcestop N | restart N | stopstart N | swap N | second N
write N                            the application on N writes (names: w1, w2, …); acknowledged as soon as `run` can
fsync N                            its fsync returns
power cut N [keeping w1,w2]        un-synced writes are lost, except these
power on N
agent kill N | agent start N | mirrorfs kill N | mirrorfs replace N
freeze N | hang N | thaw N         freeze: the whole machine; hang: its programs, the kernel still answers
cut network | heal network         between the nodes (heartbeats, agents, data)
cut clients N | heal clients N     the clients' network at N
cut witness N | heal witness N     the way of N to the witness
configure N                        the configuration of N names another witness from now on
witness stop | witness start | witness forget
script NAME N fails | hangs | works     prestart, start_prim, stop_prim, poststop: from its next run on
files N lost | files N there       of the module's own on N, as its agent finds them
script N times out                 the script that hangs on N has reached its timeout and is killed
opening N fails | opening N works  the data plane of N refuses to open, or does not
resync waits | resync goes on      what is being copied does not get through, or does
late | no longer late              messages are kept on their way, or not
arrives TEXT | lost TEXT           the first message whose description contains TEXT
silent N                           the detector of N finds its peer silent
stored N                           the record N is storing reaches its disk
run | wait MS                      everything that needs no time; or time passes
fill NODE                          somebody puts a file there (w8) while nothing runs
reinstall NODE                     without power, its disk is replaced by an empty one
heal                               all faults end, and time passes
show                               states, records, trees";

/// A story played.
#[derive(Debug)]
pub struct Played {
    /// The file as it should be.
    pub text: String,
    /// A promise was broken, or a line not understood.
    pub failures: Vec<String>,
}

/// Plays a story; its old transcript is ignored.
#[must_use]
pub fn play(story: &str) -> Played {
    let mut text = String::new();
    let mut failures = vec![];
    let mut world = None;
    let mut spaced = true;
    for line in story.lines() {
        if line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
            spaced = false;
            continue;
        }
        let Some(command) = line.strip_prefix("> ") else { continue };
        if !spaced {
            text.push('\n');
            spaced = true;
        }
        text.push_str(line);
        text.push('\n');
        match act(&mut world, command.trim()) {
            Ok(said) => said.iter().for_each(|line| {
                text.push_str("    ");
                text.push_str(line);
                text.push('\n');
            }),
            Err(why) => failures.push(format!("'{command}': {why}")),
        }
        if let Some(broken) = world.as_ref().and_then(World::violation) {
            text.push_str(&format!("    BROKEN PROMISE {broken}\n"));
            failures.push(broken);
        }
    }
    Played { text, failures }
}

fn act(world: &mut Option<World>, command: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if words.first() == Some(&"pair") {
        let chosen = [
            ("failover=off", Chosen::FailoverOff),
            ("defaultprim=node1", Chosen::Node1),
            ("defaultprim=lastprim", Chosen::LastPrim),
        ];
        let chosen = chosen.into_iter().find(|(word, _)| words.contains(word)).map_or(Chosen::Nothing, |(_, it)| it);
        let asks = match () {
            () if words.contains(&"checker=dead") => Asks::Dead,
            () if words.contains(&"checker=none") => Asks::Nothing,
            () => Asks::Alive,
        };
        let rules = Rules { witness: command.contains("witness"), in_flight: 8, broken: None, chosen, asks };
        let mut fresh = if command.contains("whole") { World::whole(rules) } else { World::new(rules) };
        fresh.transcript = Some(vec![]);
        if words.contains(&"scripts") {
            let of = |who: Who| fresh.agent(who).map_or_else(Default::default, |it| Scripts::of(it.view().state));
            fresh.runs = Some([of(0), of(1)]);
        }
        fresh.logs = words.contains(&"log");
        *world = Some(fresh);
        return Ok(vec![]);
    }
    let world = world.as_mut().ok_or("begin with 'pair'")?;
    let node = |word: Option<&&str>| -> Result<Who, String> {
        match word {
            Some(&"node1") => Ok(0),
            Some(&"node2") => Ok(1),
            _ => Err("which node? node1 or node2".to_string()),
        }
    };
    let operator = |who, command| Step::Command(who, command);
    let step = match (words.first().copied().unwrap_or(""), words.get(1).copied()) {
        ("prim", _) => {
            let full = words.get(2) == Some(&"fullsync");
            operator(node(words.get(1))?, Command::Prim { force: false, full })
        }
        ("force", _) => operator(node(words.get(1))?, Command::Prim { force: true, full: false }),
        ("start", _) => operator(node(words.get(1))?, Command::Start),
        ("second", _) => operator(node(words.get(1))?, Command::Second { full: false }),
        ("stop", _) => operator(node(words.get(1))?, Command::Stop),
        ("forcestop", _) => operator(node(words.get(1))?, Command::ForceStop),
        ("restart", _) => operator(node(words.get(1))?, Command::Restart),
        ("stopstart", _) => operator(node(words.get(1))?, Command::StopStart),
        ("swap", _) => operator(node(words.get(1))?, Command::Swap),
        ("write", _) => Step::Write(node(words.get(1))?),
        ("fsync", _) => Step::Fsync(node(words.get(1))?),
        ("power", Some("cut")) => Step::PowerCut(node(words.get(2))?, kept(words.get(4)), false),
        ("power", Some("on")) => Step::PowerOn(node(words.get(2))?),
        ("agent", Some("kill")) => Step::AgentDies(node(words.get(2))?, false),
        ("agent", Some("start")) => Step::AgentStarts(node(words.get(2))?),
        ("mirrorfs", Some("kill")) => Step::PlaneDies(node(words.get(2))?),
        ("mirrorfs", Some("replace")) => Step::PlaneReplaced(node(words.get(2))?),
        ("fill", _) => {
            let who = node(words.get(1))?;
            return said(world, |world| world.fill(who));
        }
        ("reinstall", _) => {
            let who = node(words.get(1))?;
            return said(world, |world| world.reinstall(who));
        }
        ("freeze", _) => Step::Freeze(node(words.get(1))?),
        ("hang", _) => Step::Hang(node(words.get(1))?),
        ("thaw", _) => {
            let who = node(words.get(1))?;
            if world.nodes[who].hung { Step::Unhang(who) } else { Step::Thaw(who) }
        }
        ("cut", Some("network")) => Step::Cut,
        ("heal", Some("network")) => Step::Heal,
        ("cut", Some("clients")) => Step::CutClients(node(words.get(2))?),
        ("heal", Some("clients")) => Step::HealClients(node(words.get(2))?),
        ("cut", Some("witness")) => Step::CutWitness(node(words.get(2))?),
        ("heal", Some("witness")) => Step::HealWitness(node(words.get(2))?),
        ("configure", _) => Step::Configure(node(words.get(1))?),
        ("witness", Some("stop")) => Step::WitnessStops,
        ("witness", Some("start")) => Step::WitnessStarts,
        ("witness", Some("forget")) => Step::WitnessForgets,
        ("script", Some(name)) if scripts::NAMES.contains(&name) => {
            let who = node(words.get(2))?;
            let how = words.get(3).copied().unwrap_or("");
            return said(world, |world| world.nodes[who].scripts.shall(name, how)).and_then(|said| match how {
                "fails" | "hangs" | "works" => Ok(said),
                _ => Err("fails, hangs or works?".to_string()),
            });
        }
        ("script", _) => Step::ScriptTimesOut(node(words.get(1))?),
        // `stead failover`, on both nodes.
        ("failover", Some(word @ ("on" | "off"))) => {
            let policy = Policy { failover: word == "on", ..Policy::default() };
            return said(world, |world| [0, 1].into_iter().for_each(|who| world.tell(who, Event::Chosen { policy })));
        }
        ("opening", _) => {
            let who = node(words.get(1))?;
            match words.get(2) {
                Some(&"fails") => Step::Refuses(who),
                Some(&"works") => Step::Opens(who),
                _ => return Err("fails or works?".to_string()),
            }
        }
        // Its heartbeats are heard, and say nothing of the module.
        ("lacking", _) => {
            let who = node(words.get(1))?;
            return said(world, |world| world.tell(who, Event::PeerLacks));
        }
        // What the other one says of itself is heard, and it hears nothing.
        ("overhears", _) => {
            let who = node(words.get(1))?;
            let Some(advert) = world.agent(1 - who).map(cluster::mirror::Mirror::advert) else {
                return Err("the other one says nothing".to_string());
            };
            return said(world, |world| world.tell(who, Event::PeerOverheard(advert)));
        }
        // A member answers it that it is none.
        ("left-out", _) => {
            let who = node(words.get(1))?;
            return said(world, |world| world.tell(who, Event::LeftOut));
        }
        ("files", _) => {
            let who = node(words.get(1))?;
            let why_not = match words.get(2) {
                Some(&"lost") => Some("/var/lib/stead/modules/AM/active/bin/start_prim is missing".to_string()),
                Some(&"there") => None,
                _ => return Err("lost or there?".to_string()),
            };
            return said(world, |world| world.tell(who, Event::Fit { why_not }));
        }
        ("silent", _) => Step::Silent(node(words.get(1))?),
        ("stored", _) => Step::Stored(node(words.get(1))?),
        ("arrives", _) => Step::Deliver(packet(world, command)?),
        ("lost", _) => Step::Lose(packet(world, command)?),
        ("late", _) => return said(world, |world| world.late = true),
        ("no", _) => return said(world, |world| world.late = false),
        ("resync", Some(word @ ("waits" | "goes"))) => {
            return said(world, |world| world.copies_wait = word == "waits");
        }
        ("run", _) => return said(world, |world| world.calm(0)),
        ("wait", Some(ms)) => {
            let ms = ms.parse().map_err(|_| "how many milliseconds?")?;
            return said(world, |world| world.calm(ms));
        }
        ("heal", None) => return said(world, World::heal),
        ("show", _) => return Ok(show(world)),
        _ => return Err(format!("not understood; the commands are:\n{COMMANDS}")),
    };
    if !world.make(step) {
        return Err("is not possible here".to_string());
    }
    Ok(take(world))
}

fn kept(word: Option<&&str>) -> Set {
    word.map_or(0, |names| {
        names
            .split(',')
            .filter_map(|name| name.strip_prefix('w')?.parse::<u32>().ok())
            .fold(0, |set, number| set | (1 << (number - 1)))
    })
}

fn packet(world: &World, command: &str) -> Result<u8, String> {
    let wanted = command.split_once(' ').map_or("", |(_, rest)| rest);
    let place = world.packets.iter().position(|packet| describe_packet(packet).contains(wanted));
    place.map(|place| place as u8).ok_or_else(|| {
        let there: Vec<String> = world.packets.iter().map(describe_packet).collect();
        format!("no such message on its way; there are: {}", there.join("; "))
    })
}

fn said(world: &mut World, what: impl FnOnce(&mut World)) -> Result<Vec<String>, String> {
    what(world);
    Ok(take(world))
}

fn take(world: &mut World) -> Vec<String> {
    let said = world.transcript.replace(vec![]).unwrap_or_default();
    said.into_iter()
        .filter(|(_, line)| !line.starts_with('>'))
        .map(|(who, line)| format!("node{}: {line}", who + 1))
        .collect()
}

/// Who votes, when it is not the witness of the beginning.
fn witnesses(stored: Witnesses) -> &'static str {
    match stored {
        Witnesses::One { witness: Some(SPARE) } => "; the new witness votes",
        Witnesses::Exchange { .. } => "; between two witnesses",
        Witnesses::Configured | Witnesses::One { .. } => "",
    }
}

fn show(world: &World) -> Vec<String> {
    let mut lines = vec![];
    for who in [0, 1] {
        let node = &world.nodes[who];
        let state = match (node.on, node.frozen, node.hung, world.agent(who)) {
            (false, ..) => "no power".to_string(),
            (_, true, ..) => "frozen".to_string(),
            (_, _, true, _) => "programs hang".to_string(),
            (.., None) => "agent dead".to_string(),
            (.., Some(agent)) => {
                let view = agent.view();
                format!("{} {}: {}", view.state, view.status, view.reason)
            }
        };
        let record = &node.disk_record;
        let epoch = record
            .epoch
            .map_or_else(|| "no epoch".to_string(), |epoch| format!("epoch {} of node{}", epoch.counter, epoch.node.0));
        lines.push(format!("node{} is {state}", who + 1));
        if let Some(view) = world.agent(who).filter(|_| world.runs(who)).map(cluster::mirror::Mirror::view) {
            lines.extend(view.remedy.map(|remedy| format!("      remedy: {remedy}")));
            // A pulse that would change nothing is not sent in this world: that the witness knows a node is no news there.
            let told = view.open_cases.iter().filter(|case| case.now || case.label != "L3");
            lines.extend(told.map(|case| {
                format!("      {}{}: {}", if case.now { "" } else { "next to " }, case.label, case.sentence)
            }));
        }
        lines.push(format!(
            "      {epoch}, {:?}, role {:?}{}; files [{}]{}{}{}",
            record.data,
            record.role,
            if record.yielded { ", yielded" } else { "" },
            names(node.tree),
            if node.vip { "; virtual IP" } else { "" },
            if node.app { "; application" } else { "" },
            witnesses(record.witnesses),
        ));
    }
    lines
}
