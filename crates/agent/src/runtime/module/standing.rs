//! What the configuration orders by a clock, at the module's loop: `syncat` and `syncdelta`.
//!
//! Looks at clocks and keeps one note on disk; what follows is decided in [`cluster::standing`] and by the automaton.

use super::{Loop, Outside};
use crate::runtime::checkers::now;
use cluster::mirror::{Command, Event, View};
use cluster::standing::{Scheduled, Seen, force};
use model::api::LogLevel;
use model::resource::Value;
use model::schedule::Schedule;
use model::schema::checkers::{SYNCAT_RESOURCE, SYNCAT_RULE};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the note "both were equal" is renewed.
const NOTED: Duration = Duration::from_secs(30);
/// Minutes that passed while the loop did not look (the machine slept): so many are looked at afterwards.
const MINUTES_MAX: u64 = 24 * 60;

/// The orders of one module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Orders {
    /// The secondary is brought up to date at these times only.
    pub syncat: Option<Schedule>,
    /// So long after both were equal a complete copy may serve by itself; 0: never.
    pub syncdelta_ms: u64,
}

impl Orders {
    /// Of a configuration.
    #[must_use]
    pub fn of(configuration: &model::schema::ModuleConfiguration) -> Self {
        let rfs = configuration.rfs.as_ref();
        Self { syncat: rfs.and_then(|rfs| rfs.syncat.clone()), syncdelta_ms: rfs.map_or(0, |rfs| rfs.syncdelta_ms) }
    }
}

/// What is remembered between two looks.
pub(super) struct Standing {
    scheduled: Scheduled,
    /// Minutes since 1970 that were looked at.
    minute: u64,
    silent_since: Option<Instant>,
    noted: Option<Instant>,
    was_equal: bool,
    /// Where the last time of equality is kept: milliseconds since 1970.
    note: PathBuf,
}

impl Standing {
    pub fn new(note: PathBuf) -> Self {
        Self {
            scheduled: Scheduled::default(),
            minute: now().unix_ms / 60_000,
            silent_since: None,
            noted: None,
            was_equal: false,
            note,
        }
    }

    /// Somebody wants the copy brought up to date now.
    pub fn comes(&mut self) {
        self.scheduled.comes();
    }

    /// Has a minute of the schedule begun since the last look?
    fn is_time(&mut self, schedule: &Schedule) -> bool {
        let this = now().unix_ms / 60_000;
        let from = (self.minute + 1).max(this.saturating_sub(MINUTES_MAX));
        self.minute = this;
        (from..=this).any(|minute| schedule.is_due(platform::clock::local_minute(minute * 60_000)))
    }

    /// Keeps the time at which both copies were equal last.
    fn note(&mut self, is_equal: bool) -> std::io::Result<()> {
        let is_due = self.noted.is_none_or(|at| at.elapsed() >= NOTED) || !self.was_equal;
        self.was_equal = is_equal;
        if !is_equal || !is_due {
            return Ok(());
        }
        self.noted = Some(Instant::now());
        let text = format!("{}\n", now().unix_ms);
        platform::store::write_atomic(&self.note, text.as_bytes(), 0o600).map_err(std::io::Error::other)
    }

    /// When both were equal last, as far as the note says.
    fn equal_ms(&self) -> Option<u64> {
        std::fs::read_to_string(&self.note).ok()?.trim().parse().ok()
    }
}

impl<O: Outside> Loop<O> {
    /// After every look at the facts.
    pub(super) async fn stand(&mut self, view: &View) {
        let Orders { syncat, syncdelta_ms } = self.parts.orders.clone();
        if syncat.is_none() && syncdelta_ms == 0 {
            return;
        }
        let waits = self.oversight.waits().is_some_and(|wanted| wanted.rule == SYNCAT_RULE);
        let seen = Seen::from(view);
        if syncdelta_ms > 0
            && let Err(error) = self.standing.note(seen.is_equal())
        {
            self.chronicle(|c| {
                c.line("heart", LogLevel::E, &format!("cannot note that both copies are equal: {error}"))
            });
        }
        if view.peer.is_some() {
            self.standing.silent_since = None;
        } else {
            self.standing.silent_since.get_or_insert_with(Instant::now);
        }
        let may_force = self.may_force(syncdelta_ms);
        if let Some(schedule) = syncat {
            if self.standing.is_time(&schedule) || (waits && may_force.is_some()) {
                self.standing.comes();
            }
            let (value, why) = match self.standing.scheduled.may_run(seen, waits) {
                true => (Value::Up, String::new()),
                false => (Value::Down, format!("up to date; the next time is syncat=\"{}\"", schedule.text())),
            };
            let changes = self.parts.overseer.set(SYNCAT_RESOURCE, value, &why);
            self.tell_changes(&changes);
        }
        let command = Command::Prim { force: true, full: false };
        if let Some(why) = may_force
            && self.parts.mirror.accepts_scheduled(command)
        {
            self.chronicle(|c| c.line("heart", LogLevel::C, "Action prim --force called by syncdelta"));
            self.handle(Event::Scheduled { command, why }).await;
        }
    }

    fn may_force(&self, delta_ms: u64) -> Option<String> {
        let silent =
            self.standing.silent_since.map_or(0, |at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        if delta_ms == 0 || silent < cluster::standing::SILENCE_MS {
            return None;
        }
        force(delta_ms, self.standing.equal_ms(), now().unix_ms, silent)
    }
}
