//! While an address is held: announced (gratuitous ARP, unsolicited Neighbour Advertisement) at 0, 100 ms, 500 ms, 2 s,
//! then every 30 s; and at once, but at most once a second, when somebody else announces it. Who is one of several machines that have it answers
//! later ([`AMONG_OTHERS`]). Where several machines answer for it, each to its own
//! clients, with the first four alone: every announcement turns all clients to this machine, until they ask again.
//!
//! The task ends with its handle. It never sets or removes the address. **Invariant:** after a pause of this machine nothing is announced
//! until whoever holds the handle had the time to find out whether the address is still its own.

use super::neighbour::Voice;
use super::{Mac, NetError};
use crate::clock::boot_ms;
use model::limits::{DOUBT_MS, FREEZE_MS};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Since the last "now": when to announce. Then [`EVERY`].
const BURST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
const EVERY: Duration = Duration::from_secs(30);
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Silence after a pause.
const QUIET: Duration = Duration::from_secs(2);
/// How long somebody who spoke as the address counts as having it.
pub const LATELY: Duration = Duration::from_secs(60);
/// Two announcers must not shout each other down.
const REACT_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// One of several that have the address answers so much later than it hears another: after a short cut both speak for it until they have heard each
/// other, and who answered at once would have all clients sent to where nobody knows of their connections. One that gives way has ended its announcer by then.
const AMONG_OTHERS: Duration = Duration::from_millis(DOUBT_MS);

/// What an announcer has seen and done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnouncerReport {
    /// Announcements sent.
    pub sent: u64,
    /// Packets in which someone else spoke as this address.
    pub competing: u64,
    /// The last of these.
    pub competitor: Option<Mac>,
    /// It was heard within the last [`LATELY`].
    pub competing_lately: bool,
    /// Why the last announcement could not be sent; cleared by the next one that can.
    pub problem: Option<String>,
}

/// A running announcer of one address on one interface. Dropping it ends it.
#[derive(Debug)]
pub struct Announcer {
    task: JoinHandle<()>,
    now: Arc<Notify>,
    report: Arc<Mutex<Seen>>,
}

/// When the next announcement is due, and whether there is one.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begun: Instant,
    done: usize,
    /// It goes on after the burst, and answers others so long after they spoke.
    answers: Option<Duration>,
    answer: Option<Instant>,
}

impl Schedule {
    /// The first one goes out now.
    fn begin(answers: Option<Duration>) -> Self {
        Self { begun: Instant::now(), done: 1, answers, answer: None }
    }

    fn next(&self) -> Option<Instant> {
        let regular = match BURST.get(self.done) {
            Some(step) => Some(self.begun + *step),
            None => self.answers.map(|_| self.begun + EVERY * (self.done - BURST.len() + 1) as u32),
        };
        regular.into_iter().chain(self.answer).min()
    }

    /// Somebody else spoke.
    fn hear(&mut self, now: Instant) {
        if self.answer.is_none() {
            self.answer = self.answers.map(|after| now + after);
        }
    }

    /// What was due is said.
    fn said(&mut self, now: Instant) {
        match self.answer {
            Some(answer) if answer <= now => self.answer = None,
            _ => self.done += 1,
        }
    }
}

/// The report, and when a competitor was heard.
type Seen = (AnnouncerReport, Option<Instant>);

impl Announcer {
    /// Begins to announce `ip` on `interface`, now. Call inside a tokio runtime, once the address is set.
    ///
    /// # Errors
    /// [`NetError`] when there is no such interface or it is no Ethernet.
    pub fn start(interface: &str, ip: IpAddr) -> Result<Self, NetError> {
        Self::of(Voice::open(interface, ip)?, interface, Some(Duration::ZERO))
    }

    /// As [`Announcer::start`], of an address that several machines have, of which one speaks for it: another that does so now may be about to end,
    /// or this one.
    ///
    /// # Errors
    /// As [`Announcer::start`].
    pub fn start_among_others(interface: &str, ip: IpAddr) -> Result<Self, NetError> {
        Self::of(Voice::open(interface, ip)?, interface, Some(AMONG_OTHERS))
    }

    /// As [`Announcer::start`], but says it with one burst, and then no more, whoever else speaks: others answer for the address as well, each to
    /// clients of its own, and every word from here makes all clients this machine's for some seconds.
    ///
    /// # Errors
    /// As [`Announcer::start`].
    pub fn start_briefly(interface: &str, ip: IpAddr) -> Result<Self, NetError> {
        Self::of(Voice::open(interface, ip)?, interface, None)
    }

    /// As [`Announcer::start_among_others`], of an address that is at `mac`, which is not the interface's own: no frame comes from there.
    ///
    /// # Errors
    /// As [`Announcer::start`].
    pub fn start_as(interface: &str, ip: IpAddr, mac: Mac) -> Result<Self, NetError> {
        Self::of(Voice::open(interface, ip)?.of(mac), interface, Some(AMONG_OTHERS))
    }

    fn of(voice: Voice, interface: &str, answers: Option<Duration>) -> Result<Self, NetError> {
        // The first one goes out before this returns: clients wait for nothing else.
        let report = AnnouncerReport {
            sent: 1,
            problem: voice.announce().err().map(|error| error.to_string()),
            ..Default::default()
        };
        // SAFETY: the socket owns its descriptor and gives out always the same one until it is dropped.
        let voice = unsafe { AsyncFd::register(voice) }
            .map_err(|error| NetError::os("watch who speaks on", interface, error))?;
        let now = Arc::new(Notify::new());
        let report = Arc::new(Mutex::new((report, None)));
        let task = tokio::spawn(run(voice, Schedule::begin(answers), Arc::clone(&now), Arc::clone(&report)));
        Ok(Self { task, now, report })
    }

    /// Announces at once and begins the burst anew (after a healed partition, a thaw).
    pub fn announce_now(&self) {
        self.now.notify_one();
    }

    /// What has been seen and done so far.
    #[must_use]
    pub fn report(&self) -> AnnouncerReport {
        let (report, heard) = self.report.lock().expect("no panic happens under this lock").clone();
        AnnouncerReport { competing_lately: heard.is_some_and(|at| at.elapsed() < LATELY), ..report }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(voice: AsyncFd<Voice>, mut schedule: Schedule, now: Arc<Notify>, report: Arc<Mutex<Seen>>) {
    let mut last_reaction: Option<Instant> = None;
    let mut quiet_until: Option<Instant> = None;
    loop {
        let looked_ms = boot_ms();
        let next = schedule.next().max(quiet_until);
        let look = Instant::now() + LOOK;
        tokio::select! {
            biased;
            () = now.notified() => {
                (schedule, quiet_until) = (Schedule::begin(schedule.answers), None);
            }
            // Often enough to see that the machine slept.
            () = sleep_until(next.map_or(look, |next| next.min(look))) => {
                if slept(looked_ms) {
                    quiet_until = Some(Instant::now() + QUIET);
                }
                if schedule.next().is_none_or(|next| Instant::now() < next.max(quiet_until.unwrap_or(next))) {
                    continue;
                }
                schedule.said(Instant::now());
            }
            competitor = hear(&voice) => {
                if slept(looked_ms) {
                    quiet_until = Some(Instant::now() + QUIET);
                }
                let mut report = report.lock().expect("no panic happens under this lock");
                report.0.competing += 1;
                report.0.competitor = Some(competitor);
                report.1 = Some(Instant::now());
                drop(report);
                let is_quiet = quiet_until.is_some_and(|until| Instant::now() < until);
                if !is_quiet && last_reaction.is_none_or(|at| at.elapsed() >= REACT_AT_MOST_EVERY) {
                    last_reaction = Some(Instant::now());
                    schedule.hear(Instant::now());
                }
                continue;
            }
        }
        let problem = match voice.get_ref().announce() {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        let mut report = report.lock().expect("no panic happens under this lock");
        report.0.sent += u64::from(problem.is_none());
        report.0.problem = problem;
    }
}

/// Much longer than a busy machine lets wait.
fn slept(looked_ms: u64) -> bool {
    boot_ms().saturating_sub(looked_ms) > LOOK.as_millis() as u64 + FREEZE_MS
}

/// Waits until someone else speaks as this address.
async fn hear(voice: &AsyncFd<Voice>) -> Mac {
    loop {
        let Ok(mut ready) = voice.readable().await else {
            return std::future::pending().await;
        };
        match voice.get_ref().hear() {
            Ok(Some(who)) => return who,
            // Nothing more, or "network is down", which reading has cleared.
            Ok(None) | Err(_) => ready.clear_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds after the beginning, of all that is announced while others speak at these times.
    fn announced(answers: Option<Duration>, others: &[u64]) -> Vec<u128> {
        let mut schedule = Schedule::begin(answers);
        let begun = schedule.begun;
        let mut others = others.iter().map(|ms| begun + Duration::from_millis(*ms)).peekable();
        let mut told = vec![0];
        while let Some(next) = schedule.next().filter(|next| *next - schedule.begun < Duration::from_secs(70)) {
            if let Some(other) = others.next_if(|other| *other <= next) {
                schedule.hear(other);
                continue;
            }
            told.push((next - schedule.begun).as_millis());
            schedule.said(next);
        }
        told
    }

    #[test]
    fn who_shares_its_clients_with_others_announces_nothing_after_the_burst() {
        assert_eq!(announced(Some(Duration::ZERO), &[]), [0, 100, 500, 2_000, 30_000, 60_000]);
        assert_eq!(announced(None, &[200, 9_000]), [0, 100, 500, 2_000]);
    }

    #[test]
    fn another_is_answered_at_once_or_when_it_has_had_the_time_to_give_way() {
        assert_eq!(announced(Some(Duration::ZERO), &[300, 9_000]), [0, 100, 300, 500, 2_000, 9_000, 30_000, 60_000]);
        let among_others = announced(Some(AMONG_OTHERS), &[9_000, 9_100, 29_000]);
        assert_eq!(among_others, [0, 100, 500, 2_000, 12_000, 30_000, 32_000, 60_000]);
    }
}
