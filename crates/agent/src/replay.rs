//! A recorded night, played again: the journal's events go through the automaton of this program, and what it decides is
//! compared with what was decided then. Touches nothing.

use crate::runtime::chronicle::{Begun, Decision, Farm, FarmBegun, FarmDecision};
use cluster::farm::{imagine as farm, module};
pub use cluster::imagine::Would;
use cluster::imagine::{Others, What, imagine};
use cluster::mirror::{Action, Command, Mirror};
use model::{ModuleState, Status};
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A journal is never larger.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What came of it.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Places from which decisions can be replayed.
    pub begins: usize,
    /// Decisions made again.
    pub decisions: usize,
    /// Decisions before the first such place, or between a difference and the next one.
    pub skipped: usize,
    /// Lines that this program cannot read.
    pub unreadable: usize,
    /// What was decided differently.
    pub differences: Vec<Difference>,
    /// The sentences of the automaton, in order, with their time.
    pub sentences: Vec<(u64, String)>,
    /// Where a farm was by the last line.
    place: String,
}

/// One decision that is another today.
#[derive(Debug)]
pub struct Difference {
    /// Of the file, from 1.
    pub line: usize,
    /// When it was made.
    pub at_unix_us: u64,
    /// What had happened.
    pub event: String,
    /// What was decided then.
    pub recorded: String,
    /// What would be decided now.
    pub now: String,
}

/// Whose journal it is.
pub(crate) enum Automaton {
    Mirror(Box<Mirror>),
    /// A farm's, or a light module's.
    Farm(Box<Farm>),
}

/// The automaton as the journal leaves it: where the module is now, or was when the file ended.
fn present(path: &Path) -> Result<Automaton, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let (mut played, mut automaton) = (Replayed::default(), None);
    File::open(path).and_then(|file| play(file, &mut played, &mut automaton)).map_err(failed)?;
    automaton.ok_or_else(|| match played.differences.last() {
        Some(difference) => format!("line {} of {} was decided otherwise then", difference.line, path.display()),
        None => format!("{} has no beginning from which this version of Stead could follow it", path.display()),
    })
}

/// What would follow on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imagined {
    /// While everything goes well.
    pub would: Vec<Would>,
    /// `None`: the same in any case.
    pub otherwise: Option<Otherwise>,
}

/// Something outside decides what follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Otherwise {
    /// When [`Imagined::would`] follows: "the witness agrees".
    pub well: String,
    /// And when it does not: "the witness does not answer".
    pub not_well: String,
    /// Then this does.
    pub would: Vec<Would>,
}

/// What would follow on this node, in sentences with their time after it. Nothing is touched.
///
/// # Errors
/// The sentence: what is asked cannot be imagined, or the journal does not tell where the module is.
pub fn what_if(path: &Path, asked: &str) -> Result<Imagined, String> {
    let mut imagined = match present(path)? {
        Automaton::Mirror(mirror) => of_mirror(*mirror, timing_beside(path), asked),
        Automaton::Farm(farm) => of_farm(*farm, timing_beside(path), asked),
    }?;
    // The automaton asks for all that a module may have; which it has is known where its files are.
    if let Some(active) = beside(path) {
        // An older version did not note which were applied.
        let bin = path.with_file_name("active").join("bin");
        let is_there = |script: &str| active.scripts.iter().any(|it| it == script) || bin.join(script).is_file();
        let has = |script: &str| active.configuration.user.is_some() && is_there(script);
        let is_so = |would: &Would| {
            let script = would.said.strip_prefix("script ").and_then(|run| run.split(' ').next());
            script.is_none_or(has)
        };
        imagined.would.retain(is_so);
        if let Some(otherwise) = &mut imagined.otherwise {
            otherwise.would.retain(is_so);
        }
    }
    Ok(imagined)
}

fn of_farm(farm: Farm, timing: model::limits::Timing, asked: &str) -> Result<Imagined, String> {
    let Farm { module, names } = farm;
    let (me, name) = (module.member().me(), module.settings().module.clone());
    let others: Vec<&String> = names.iter().filter(|(id, _)| **id != me).map(|(_, name)| name).collect();
    let usage = || {
        let lost = others.first().map(|other| format!("\"{other} loses power\", or "));
        let lost = lost.unwrap_or_default();
        format!("say {lost}a command: start, stop, restart, stopstart, forcestop")
    };
    let named = |node: &str| names.iter().find(|(_, name)| *name == node).map(|(id, _)| *id);
    let what = match asked.split_whitespace().collect::<Vec<_>>().as_slice() {
        [node, "loses", "power"] | [node, "dies" | "hangs" | "reboots"] => match named(node) {
            Some(node) if node != me => farm::What::NodeLost(node),
            Some(_) if !others.is_empty() => {
                let there: Vec<&str> = others.iter().map(|other| other.as_str()).collect();
                return Err(format!(
                    "what then happens is decided on {}: stead what-if \"{asked}\" -m {name}, there",
                    there.join(", ")
                ));
            }
            _ => return Err(usage()),
        },
        [verb] => farm::What::Command(command(verb).ok_or_else(usage)?),
        _ => return Err(usage()),
    };
    let would = farm::imagine(module.clone(), &names, timing, what, farm::Connections::Finish);
    let stay = farm::imagine(module, &names, timing, what, farm::Connections::Stay);
    let otherwise = (stay != would).then(|| Otherwise {
        well: "connections that stand finish at once".into(),
        not_well: "they stay for as long as they may".into(),
        would: stay,
    });
    Ok(Imagined { would, otherwise })
}

fn of_mirror(mirror: Mirror, timing: model::limits::Timing, asked: &str) -> Result<Imagined, String> {
    let settings = mirror.settings();
    let (own, peer, module) = (settings.node_name.clone(), settings.peer_name.clone(), settings.module.clone());
    let what = match asked.split_whitespace().collect::<Vec<_>>().as_slice() {
        [node, "loses", "power"] | [node, "dies" | "hangs" | "reboots"] if *node == peer => What::PeerLost,
        [node, "loses", "power"] | [node, "dies" | "hangs" | "reboots"] if *node == own => {
            return Err(format!(
                "what then happens is decided on {peer}: stead what-if \"{asked}\" -m {module}, there"
            ));
        }
        [verb] => What::Command(command(verb).ok_or_else(|| usage(&peer))?),
        _ => return Err(usage(&peer)),
    };
    let witness = settings.witness.is_some();
    let would = imagine(mirror.clone(), timing, what, Others::Agree);
    let silent = imagine(mirror, timing, what, Others::Silent);
    let who = if witness { "the witness" } else { "the split-brain checker, or the gateway" };
    let otherwise = (silent != would).then(|| Otherwise {
        well: format!("{who} agrees"),
        not_well: format!("{who}{} does not answer", if witness { "" } else { "," }),
        would: silent,
    });
    Ok(Imagined { would, otherwise })
}

/// What lies beside a module's journal, of what is in force.
#[derive(serde::Deserialize)]
struct Beside {
    configuration: model::schema::ModuleConfiguration,
    #[serde(default)]
    scripts: Vec<String>,
}

/// `None`: the journal was carried away.
fn beside(journal: &Path) -> Option<Beside> {
    let file = journal.with_file_name("active").join("module.json");
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok())
}

/// The patience of the configuration that lies beside a module's journal; a journal that was carried away goes by the default.
fn timing_beside(journal: &Path) -> model::limits::Timing {
    beside(journal).map_or(model::limits::Timing::DEFAULT, |it| {
        let timings = it.configuration.rhythm();
        model::limits::Timing::for_timeout(timings.pulse_ms, timings.timeout_ms)
    })
}

fn usage(peer: &str) -> String {
    format!("say \"{peer} loses power\", or a command: start, stop, restart, stopstart, swap, prim, second, forcestop")
}

fn command(verb: &str) -> Option<Command> {
    Some(match verb {
        "start" => Command::Start,
        "stop" => Command::Stop,
        "restart" => Command::Restart,
        "stopstart" => Command::StopStart,
        "swap" => Command::Swap,
        "prim" => Command::Prim { force: false, full: false },
        "second" => Command::Second { full: false },
        "forcestop" => Command::ForceStop,
        _ => return None,
    })
}

/// Replays one journal.
///
/// # Errors
/// It cannot be read.
pub fn replay(path: &Path) -> io::Result<Replayed> {
    let mut played = Replayed::default();
    play(File::open(path)?, &mut played, &mut None)?;
    Ok(played)
}

pub(crate) fn play(journal: impl Read, played: &mut Replayed, automaton: &mut Option<Automaton>) -> io::Result<()> {
    for (index, line) in BufReader::new(journal.take(BYTES_MAX)).lines().enumerate() {
        let line = line?;
        let begun = match serde_json::from_str::<Begun>(&line) {
            Ok(begun) => Some(Automaton::Mirror(Box::new(begun.begin))),
            Err(_) => {
                let begun = serde_json::from_str::<FarmBegun>(&line).ok();
                begun.map(|begun| Automaton::Farm(Box::new(begun.begin_farm)))
            }
        };
        if begun.is_some() {
            played.begins += 1;
            *automaton = begun;
            continue;
        }
        // A farm's line may look like a mirror's: it is of whoever has begun.
        let is_known = match automaton {
            Some(Automaton::Mirror(mirror)) => decide(mirror, &line, index, played),
            Some(Automaton::Farm(farm)) => decide_farm(farm, &line, index, played),
            None => skip(&line, played),
        };
        match is_known {
            // From here on it is another story.
            Some(false) => *automaton = None,
            Some(true) => {}
            None => played.unreadable += usize::from(!line.trim().is_empty()),
        }
    }
    Ok(())
}

/// Nobody knows where it was; what was said then is told all the same.
fn skip(line: &str, played: &mut Replayed) -> Option<bool> {
    if let Ok(recorded) = serde_json::from_str::<Decision>(line) {
        tell(&recorded, played);
    } else {
        tell_farm(&serde_json::from_str::<FarmDecision>(line).ok()?, played);
    }
    played.skipped += 1;
    Some(true)
}

/// Is it decided as it was then? `None`: it is no line of this automaton's.
fn decide(mirror: &mut Mirror, line: &str, index: usize, played: &mut Replayed) -> Option<bool> {
    let recorded = serde_json::from_str::<Decision>(line).ok()?;
    tell(&recorded, played);
    let actions = mirror.handle(recorded.event.clone());
    let view = mirror.view();
    let now = said(&actions, (view.state, view.status), &view.reason);
    let then = said(&recorded.actions, recorded.to, &recorded.reason);
    let is_same = actions == recorded.actions && now == then;
    Some(compared(is_same, index, recorded.at_unix_us, &recorded.event, then, now, played))
}

fn decide_farm(farm: &mut Farm, line: &str, index: usize, played: &mut Replayed) -> Option<bool> {
    let recorded = serde_json::from_str::<FarmDecision>(line).ok()?;
    tell_farm(&recorded, played);
    let actions = farm.module.handle(recorded.event.clone());
    let now = said(&actions, farm.module.shown(), &farm.module.reason());
    let then = said(&recorded.actions, recorded.to, &recorded.reason);
    let is_same = actions == recorded.actions && now == then;
    Some(compared(is_same, index, recorded.at_unix_us, &recorded.event, then, now, played))
}

fn compared(
    is_same: bool,
    index: usize,
    at_unix_us: u64,
    event: &impl Debug,
    recorded: String,
    now: String,
    played: &mut Replayed,
) -> bool {
    played.decisions += 1;
    if !is_same {
        played.differences.push(Difference { line: index + 1, at_unix_us, event: format!("{event:?}"), recorded, now });
    }
    is_same
}

fn tell(decision: &Decision, played: &mut Replayed) {
    for action in &decision.actions {
        if let Action::Journal { sentence, .. } = action {
            played.sentences.push((decision.at_unix_us, sentence.clone()));
        }
    }
}

/// A farm's automaton says little by itself: its reason is the sentence.
fn tell_farm(decision: &FarmDecision, played: &mut Replayed) {
    for action in &decision.actions {
        if let module::Action::Journal { sentence, .. } = action {
            played.sentences.push((decision.at_unix_us, sentence.clone()));
        }
    }
    let where_it_is = format!("{} {}: {}", decision.to.0, decision.to.1, decision.reason);
    if played.place != where_it_is {
        played.sentences.push((decision.at_unix_us, where_it_is.clone()));
        played.place = where_it_is;
    }
}

fn said<A: Debug>(actions: &[A], (state, status): (ModuleState, Status), reason: &str) -> String {
    let actions: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
    format!("{state} {status}: {reason}; {}", actions.join(", "))
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
