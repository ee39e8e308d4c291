//! A recorded night, played again: the journal's events go through the automaton of this program, and what it decides is
//! compared with what was decided then. Touches nothing.

use crate::runtime::chronicle::{Begun, Decision};
pub use cluster::imagine::Would;
use cluster::imagine::{Others, What, imagine};
use cluster::mirror::{Action, Command, Mirror};
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

/// The automaton as the journal leaves it: where the module is now, or was when the file ended.
///
/// # Errors
/// The sentence why it is not known.
pub fn present(path: &Path) -> Result<Mirror, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let (mut played, mut mirror) = (Replayed::default(), None);
    File::open(path).and_then(|file| play(file, &mut played, &mut mirror)).map_err(failed)?;
    mirror.ok_or_else(|| match played.differences.last() {
        Some(difference) => format!("line {} of {} was decided otherwise then", difference.line, path.display()),
        None => format!("{} has no beginning from which this version of Stead could follow it", path.display()),
    })
}

/// What would follow on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imagined {
    /// While those who are asked agree.
    pub would: Vec<Would>,
    /// Who is asked, and what would follow when nobody of them answers; `None`: the same.
    pub otherwise: Option<(String, Vec<Would>)>,
}

/// What would follow on this node, in sentences with their time after it. Nothing is touched.
///
/// # Errors
/// The sentence: what is asked cannot be imagined, or the journal does not tell where the module is.
pub fn what_if(path: &Path, asked: &str) -> Result<Imagined, String> {
    let mirror = present(path)?;
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
    let timing = timing_beside(path);
    let witness = settings.witness.is_some();
    let would = imagine(mirror.clone(), timing, what, Others::Agree);
    let silent = imagine(mirror, timing, what, Others::Silent);
    let who = if witness { "the witness" } else { "the split-brain checker, or the gateway," };
    let otherwise = (silent != would).then(|| (who.to_string(), silent));
    Ok(Imagined { would, otherwise })
}

/// The patience of the configuration that lies beside a module's journal; a journal that was carried away goes by the default.
fn timing_beside(journal: &Path) -> model::limits::Timing {
    #[derive(serde::Deserialize)]
    struct Active {
        configuration: model::schema::ModuleConfiguration,
    }
    let file = journal.with_file_name("active").join("module.json");
    let active: Option<Active> = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    active.map_or(model::limits::Timing::DEFAULT, |it| {
        let timings = it.configuration.timings;
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

pub(crate) fn play(journal: impl Read, played: &mut Replayed, mirror: &mut Option<Mirror>) -> io::Result<()> {
    for (index, line) in BufReader::new(journal.take(BYTES_MAX)).lines().enumerate() {
        let line = line?;
        if let Ok(begun) = serde_json::from_str::<Begun>(&line) {
            played.begins += 1;
            *mirror = Some(begun.begin);
            continue;
        }
        let Ok(recorded) = serde_json::from_str::<Decision>(&line) else {
            played.unreadable += usize::from(!line.trim().is_empty());
            continue;
        };
        tell(&recorded, played);
        let Some(automaton) = mirror else {
            played.skipped += 1;
            continue;
        };
        played.decisions += 1;
        let actions = automaton.handle(recorded.event.clone());
        let view = automaton.view();
        let now = said(&actions, &format!("{} {}", view.state, view.status), &view.reason);
        let then = said(&recorded.actions, &format!("{} {}", recorded.to.0, recorded.to.1), &recorded.reason);
        if actions == recorded.actions && now == then {
            continue;
        }
        played.differences.push(Difference {
            line: index + 1,
            at_unix_us: recorded.at_unix_us,
            event: format!("{:?}", recorded.event),
            recorded: then,
            now,
        });
        // From here on it is another story.
        *mirror = None;
    }
    Ok(())
}

fn tell(decision: &Decision, played: &mut Replayed) {
    for action in &decision.actions {
        if let Action::Journal { sentence, .. } = action {
            played.sentences.push((decision.at_unix_us, sentence.clone()));
        }
    }
}

fn said(actions: &[Action], state: &str, reason: &str) -> String {
    let actions: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
    format!("{state}: {reason}; {}", actions.join(", "))
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
