//! A recorded night, played again: the journal's events go through the automaton of this program, and what it decides is
//! compared with what was decided then. Touches nothing.

use crate::runtime::chronicle::{Begun, Decision};
use cluster::mirror::{Action, Mirror};
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

/// Replays one journal.
///
/// # Errors
/// It cannot be read.
pub fn replay(path: &Path) -> io::Result<Replayed> {
    let mut played = Replayed::default();
    let mut mirror: Option<Mirror> = None;
    for (index, line) in BufReader::new(File::open(path)?.take(BYTES_MAX)).lines().enumerate() {
        let line = line?;
        if let Ok(begun) = serde_json::from_str::<Begun>(&line) {
            played.begins += 1;
            mirror = Some(begun.begin);
            continue;
        }
        let Ok(recorded) = serde_json::from_str::<Decision>(&line) else {
            played.unreadable += usize::from(!line.trim().is_empty());
            continue;
        };
        tell(&recorded, &mut played);
        let Some(automaton) = &mut mirror else {
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
        mirror = None;
    }
    Ok(played)
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
