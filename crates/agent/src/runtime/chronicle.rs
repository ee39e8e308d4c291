//! The module's log and journal on disk, and their last pages in memory.
//!
//! The log is what operators grep (SafeKit's components and levels); the journal holds one record per decision with
//! its input, so that `stead why` tells the story and a simulator can replay it. Both are bounded: a full file is
//! kept once as `.1` and begun again.

use cluster::farm::module::{self, Module};
use cluster::mirror::{Action, Event, Level, Mirror};
use model::api::{LogLevel, LogLine, LogPage, LogQuery, TransitionView};
use model::{Epoch, ModuleState, NodeId, Status};
use platform::store::{Journal, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A file is begun again at this size.
const FILE_MAX: u64 = 4 * 1024 * 1024;
/// Lines kept in memory for `stead log`.
const LINES: usize = 2_000;
/// Transitions kept in memory for `stead why`.
const TRANSITIONS: usize = 50;

/// Microseconds since 1970, for people only.
#[must_use]
pub fn now_unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// Longest line of a script in the log.
const PRINTED_MAX: usize = 2_000;

/// What a script prints into the log, as one line.
pub(super) fn printed(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PRINTED_MAX).collect();
    text.trim().to_owned()
}

/// Version of the journal's lines.
const VERSION: u32 = 1;
/// After so many decisions the automaton is written down again: from there on they can be replayed.
const BEGIN_EVERY: u32 = 500;
/// With less room than this a journal is set aside at the next opportunity, so that each file has a beginning: without one nothing in it
/// can be replayed, nor anything imagined from it.
const ROOM: u64 = 512 * 1024;
/// But not more often than this, on a disk that takes no new file.
const TURN_AFTER: u32 = 50;

/// One decision of an automaton (the mirror's, or the farm's), as the journal keeps it.
#[derive(Serialize)]
struct Written<'a, E, A> {
    version: u32,
    at_unix_us: u64,
    event: &'a E,
    actions: &'a [A],
    to: (ModuleState, Status),
    reason: &'a str,
}

/// One of the mirror's: enough to replay it.
#[derive(Deserialize)]
pub(crate) struct Decision {
    pub(crate) at_unix_us: u64,
    pub(crate) event: Event,
    pub(crate) actions: Vec<Action>,
    pub(crate) to: (ModuleState, Status),
    pub(crate) reason: String,
}

/// What people are told of any.
#[derive(Deserialize)]
struct Decided {
    at_unix_us: u64,
    to: (ModuleState, Status),
    reason: String,
}

/// The automaton as it was before the decisions that follow.
#[derive(Serialize, Deserialize)]
pub(crate) struct Begun {
    version: u32,
    at_unix_us: u64,
    pub(crate) begin: Mirror,
}

/// The same of a farm's.
#[derive(Serialize, Deserialize)]
pub(crate) struct FarmBegun {
    version: u32,
    at_unix_us: u64,
    pub(crate) begin_farm: Farm,
}

/// A farm's automaton, and what people call its nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Farm {
    pub(crate) module: Module,
    pub(crate) names: BTreeMap<NodeId, String>,
}

/// One of a farm's: enough to replay it.
#[derive(Deserialize)]
pub(crate) struct FarmDecision {
    pub(crate) at_unix_us: u64,
    pub(crate) event: module::Event,
    pub(crate) actions: Vec<module::Action>,
    pub(crate) to: (ModuleState, Status),
    pub(crate) reason: String,
}

/// The line of a farm's journal from which what follows can be replayed.
pub(crate) fn farm_begun_line(farm: Farm) -> String {
    let begun = FarmBegun { version: VERSION, at_unix_us: now_unix_us(), begin_farm: farm };
    serde_json::to_string(&begun).unwrap_or_default()
}

/// The line of the journal from which what follows can be replayed.
pub(crate) fn begun_line(mirror: &Mirror) -> String {
    let begun = Begun { version: VERSION, at_unix_us: now_unix_us(), begin: mirror.clone() };
    serde_json::to_string(&begun).unwrap_or_default()
}

/// The line of one decision.
pub(crate) fn decision_line<E: Serialize, A: Serialize>(
    at_unix_us: u64,
    event: &E,
    actions: &[A],
    to: (ModuleState, Status),
    reason: &str,
) -> String {
    let decision = Written { version: VERSION, at_unix_us, event, actions, to, reason };
    serde_json::to_string(&decision).unwrap_or_default()
}

/// A file that takes nothing is complained of, and tried again, so often: a full disk fills no other one with complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// One of the two files. What it does not take is lost on disk, not in memory, and stops nothing.
struct Paper {
    path: PathBuf,
    /// `None`: it cannot be opened.
    file: Option<Journal>,
    /// Lines since it took the last one.
    lost: u64,
    complained: Option<Instant>,
}

impl Paper {
    /// One that cannot be opened is set aside under a name with the date, and another one begun; then the sentence that says so.
    fn open(path: PathBuf) -> (Self, Option<String>) {
        let opened = |file| Self { path: path.clone(), file, lost: 0, complained: None };
        let error = match Journal::open(&path, FILE_MAX) {
            Ok(file) => return (opened(Some(file)), None),
            Err(error) => error,
        };
        let why = crate::cluster_config::causes(&error);
        // A full disk is no fault of the file.
        if matches!(error, StoreError::DiskFull { .. }) {
            return (opened(None), Some(format!("{why}; until there is room its lines are kept in memory only")));
        }
        let aside = aside(&path);
        let anew = std::fs::rename(&path, &aside).ok().and_then(|()| Journal::open(&path, FILE_MAX).ok());
        let done = match anew {
            Some(_) => format!("it is set aside as {}, and another one begins", aside.display()),
            None => "its lines are kept in memory only".to_string(),
        };
        (opened(anew), Some(format!("{why}; {done}")))
    }

    fn is_nearly_full(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.has_less_than(ROOM))
    }

    fn append(&mut self, text: &str) {
        let is_time = self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if self.file.is_none() && is_time {
            self.file = Journal::open(&self.path, FILE_MAX).ok();
        }
        let taken = match &mut self.file {
            Some(file) => file.append(text, false).map_err(|error| crate::cluster_config::causes(&error)),
            None => Err(format!("{} cannot be opened", self.path.display())),
        };
        if let Some(complaint) = self.complains(taken.err(), is_time) {
            tracing::error!("{complaint}");
        }
    }

    /// What is said of a line that was not taken: each is counted, one in a while is told of.
    fn complains(&mut self, error: Option<String>, is_time: bool) -> Option<String> {
        let Some(error) = error else {
            self.lost = 0;
            return None;
        };
        self.lost += 1;
        is_time.then(|| {
            self.complained = Some(Instant::now());
            format!("{error} (lines not kept on disk: {})", self.lost)
        })
    }
}

/// `log.unreadable-2026-11-30T08:15:00`.
fn aside(path: &Path) -> PathBuf {
    let stamp = platform::clock::local_stamp(platform::clock::wall_ms(), ":");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".unreadable-{stamp}"));
    name.into()
}

/// Log and journal of one module.
pub struct Chronicle {
    log: Paper,
    journal: Paper,
    lines: Vec<LogLine>,
    /// Number of the first line in memory, counted since the agent started.
    first: u64,
    transitions: Vec<TransitionView>,
    /// Decisions since the automaton was written down.
    since_begin: u32,
    /// What of the module's files was damaged when this began.
    damages: Vec<String>,
}

fn last<T: for<'a> Deserialize<'a>>(path: &Path, count: usize) -> Vec<T> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let mut kept = std::collections::VecDeque::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        // A line torn by a power cut is no line.
        if let Ok(value) = serde_json::from_str(&line) {
            if kept.len() == count {
                kept.pop_front();
            }
            kept.push_back(value);
        }
    }
    kept.into()
}

impl Chronicle {
    /// Opens both files below the module's directory. One that cannot be opened keeps nobody from serving: it is set aside.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let (log, of_log) = Paper::open(dir.join("log"));
        let (journal, of_journal) = Paper::open(dir.join("journal"));
        let lines = last(&log.path, LINES);
        let transitions = transitions_of_files(dir);
        let mut this = Self { log, journal, lines, first: 0, transitions, since_begin: 0, damages: Vec::new() };
        for said in of_log.into_iter().chain(of_journal) {
            this.damaged(&said);
        }
        this
    }

    /// A file of the module's, or of the node's, is not what was written: an alarm, and told to whoever asks from now on.
    pub fn damaged(&mut self, said: &str) {
        tracing::error!("{said}");
        self.line("heart", LogLevel::C, said);
        self.damages.push(said.to_string());
    }

    /// All of them.
    #[must_use]
    pub fn damages(&self) -> &[String] {
        &self.damages
    }

    /// One line of the log. A full disk loses the line on disk, not in memory, and stops nothing.
    pub fn line(&mut self, component: &str, level: LogLevel, text: &str) {
        // Names of files, what programs print, what the other node says: text to read, not orders to a terminal.
        let text = text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect();
        let line = LogLine { at_unix_us: now_unix_us(), component: component.into(), level, text };
        let text = serde_json::to_string(&line).unwrap_or_default();
        self.log.append(&text);
        self.lines.push(line);
        if self.lines.len() > LINES {
            self.lines.remove(0);
            self.first += 1;
        }
    }

    /// A sentence of the automaton.
    pub fn sentence(&mut self, level: Level, text: &str) {
        self.said("heart", level, text);
    }

    /// What the automaton's step means to this component.
    pub fn said(&mut self, component: &str, level: Level, text: &str) {
        let level = match level {
            Level::User => LogLevel::U,
            Level::Error => LogLevel::E,
            Level::Critical => LogLevel::C,
            Level::State => LogLevel::E,
            Level::Info => LogLevel::I,
        };
        self.line(component, level, text);
    }

    /// The automaton as it is now. To be written when it is made, when something else than an event has changed it, and
    /// when [`Chronicle::is_long`].
    pub fn begin(&mut self, mirror: &Mirror) {
        self.turn();
        self.journal.append(&begun_line(mirror));
    }

    /// The same of a farm's automaton.
    pub fn begin_farm(&mut self, module: &Module, names: &BTreeMap<NodeId, String>) {
        self.turn();
        self.journal.append(&farm_begun_line(Farm { module: module.clone(), names: names.clone() }));
    }

    /// There were many decisions since the automaton was written down, or the file is nearly full.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.since_begin >= BEGIN_EVERY || (self.since_begin >= TURN_AFTER && self.journal.is_nearly_full())
    }

    /// A beginning comes next: into a new file, when this one is nearly full.
    fn turn(&mut self) {
        self.since_begin = 0;
        if self.journal.is_nearly_full()
            && let Some(Err(error)) = self.journal.file.as_mut().map(Journal::turn)
        {
            tracing::error!("{}", crate::cluster_config::causes(&error));
        }
    }

    /// One decision. Written before its actions begin (I6).
    pub fn decision<E: Serialize, A: Serialize>(
        &mut self,
        event: &E,
        actions: &[A],
        to: (ModuleState, Status),
        reason: &str,
        epoch: Option<Epoch>,
    ) {
        let at_unix_us = now_unix_us();
        self.since_begin += 1;
        self.journal.append(&decision_line(at_unix_us, event, actions, to, reason));
        remember(&mut self.transitions, at_unix_us / 1000, to, reason, epoch);
    }

    /// The last transitions, oldest first.
    #[must_use]
    pub fn transitions(&self) -> &[TransitionView] {
        &self.transitions
    }

    /// A page of the log.
    #[must_use]
    pub fn page(&self, query: LogQuery) -> LogPage {
        page(&self.lines, self.first, query)
    }
}

/// A page of the log of a module without a loop.
#[must_use]
pub fn page_of_files(dir: &Path, query: LogQuery) -> LogPage {
    page(&last(&dir.join("log"), LINES), 0, query)
}

/// The last transitions of a module without a loop, oldest first.
#[must_use]
pub fn transitions_of_files(dir: &Path) -> Vec<TransitionView> {
    let mut transitions: Vec<TransitionView> = Vec::new();
    for decision in last::<Decided>(&dir.join("journal"), LINES) {
        remember(&mut transitions, decision.at_unix_us / 1000, decision.to, &decision.reason, None);
    }
    transitions
}

fn page(lines: &[LogLine], first: u64, query: LogQuery) -> LogPage {
    let shown = |l: &&LogLine| query.verbose || !matches!(l.level, LogLevel::I | LogLevel::D);
    let skip = query.after.map_or(0, |after| after.saturating_sub(first));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(lines.len());
    let wanted = query.lines.unwrap_or(300) as usize;
    let all: Vec<&LogLine> = lines[skip..].iter().filter(shown).collect();
    let from = all.len().saturating_sub(wanted);
    LogPage { lines: all[from..].iter().map(|l| (*l).clone()).collect(), next: first + lines.len() as u64 }
}

fn remember(
    transitions: &mut Vec<TransitionView>,
    at_unix_ms: u64,
    to: (ModuleState, Status),
    reason: &str,
    epoch: Option<Epoch>,
) {
    let from = transitions.last().map(|t| t.to);
    if transitions.last().is_some_and(|t| t.to == to && t.reason == reason) {
        return;
    }
    transitions.push(TransitionView { at_unix_ms, from, to, reason: reason.into(), epoch });
    if transitions.len() > TRANSITIONS {
        transitions.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_and_a_journal_that_cannot_be_opened_are_set_aside_and_the_module_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        // Not even a look at it comes back.
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("log")).status().expect("mkfifo");
        assert!(made.success());
        std::fs::create_dir(dir.path().join("journal")).expect("made");
        let mut chronicle = Chronicle::open(dir.path());
        chronicle.line("heart", LogLevel::I, "it goes on");
        let texts: Vec<String> = chronicle.lines.iter().map(|line| line.text.clone()).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].contains("/log") && texts[0].contains("set aside"), "{texts:?}");
        assert!(texts[1].contains("/journal") && texts[1].contains("set aside"), "{texts:?}");
        drop(chronicle);
        let again: Vec<LogLine> = last(&dir.path().join("log"), LINES);
        assert_eq!(again.len(), 3, "the new one is kept");
        let names: Vec<String> = std::fs::read_dir(dir.path())
            .expect("there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.iter().filter(|name| name.contains(".unreadable-20")).count(), 2, "{names:?}");
    }

    #[test]
    fn a_file_that_takes_nothing_is_told_of_once_in_a_while_and_kept_in_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let gone = dir.path().join("gone");
        let (mut paper, said) = Paper::open(gone.join("log"));
        assert!(said.is_some_and(|said| said.contains("kept in memory only")));
        let error = || Some("full".to_string());
        assert_eq!(paper.complains(error(), true).as_deref(), Some("full (lines not kept on disk: 1)"));
        for _ in 0..1_000 {
            assert_eq!(paper.complains(error(), false), None);
        }
        assert_eq!(paper.complains(error(), true).as_deref(), Some("full (lines not kept on disk: 1002)"));
        let mut chronicle = Chronicle::open(&gone);
        chronicle.line("heart", LogLevel::I, "kept");
        assert_eq!(chronicle.page(LogQuery { verbose: true, ..LogQuery::default() }).lines.len(), 3);
        // There is room again: it is found out by itself.
        std::fs::create_dir(&gone).expect("made");
        chronicle.log.complained = None;
        chronicle.line("heart", LogLevel::I, "kept on disk");
        assert_eq!(last::<LogLine>(&gone.join("log"), LINES).len(), 1);
    }
}
