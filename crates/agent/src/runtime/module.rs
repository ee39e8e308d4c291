//! One module's loop: waits for the world, lets the automaton decide, journals, starts the actions.
//!
//! Decides nothing. **Invariants:** one event at a time; the journal is written before the first action (I6); actions
//! are begun in the order given, and `Vip(Down)` is complete before the next begins.

mod input;
mod oversee;
mod reboot;
mod standing;

pub use input::{Asker, Configured, INPUTS, Input, Outside, leaves_room, peer_said};
pub use standing::Orders;

use super::addresses::Addresses;
use super::application::Application;
use super::checkers::Overseer;
use super::chronicle::Chronicle;
use super::guard::{Guard, Missing, Seen, Wanted};
use super::plane::{Plane, PlaneNews};
use super::proof::Prover;
use super::publish::{Published, View};
use super::records::Records;
use super::texts;
use cluster::mirror::{Action, Command, Event, Mirror, Timer, Vip};
use cluster::nodata::NoData;
use model::api::VerifyRequest;
use model::limits::{PULSE_MS, Timing, WITNESS_PULSE_MS};
use model::orders::{Order, Report, VerifyProgress};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// A scrub that is due while there is no complete secondary waits so long before it looks again.
const SCRUB_AGAIN: Duration = Duration::from_secs(10);
/// Rate of the background scrub: a day is enough for 300 GB, and nobody notices.
const SCRUB_BYTES_PER_S: u64 = 4 << 20;

/// In the time for which a lease holds it is renewed at least so often.
const LEASES: u64 = 16;

/// Everything the loop works with.
pub struct Parts<O: Outside> {
    /// The automaton.
    pub mirror: Mirror,
    /// Times of this module.
    pub timing: Timing,
    /// What the configuration chooses; `stead failover` may say otherwise.
    pub configured: cluster::mirror::Policy,
    /// `boot=` of the configuration.
    pub boot: model::schema::module::Boot,
    /// How long after one comparison of both copies the next one begins by itself; `None`: never.
    pub scrub_every: Option<Duration>,
    /// What the configuration orders by a clock.
    pub orders: Orders,
    /// Where the last time of equality is noted.
    pub equality: std::path::PathBuf,
    /// Where its record is kept.
    pub records: Arc<Records>,
    /// Looks at its files and mounts.
    pub guard: Guard,
    /// Log and journal.
    pub chronicle: Arc<Mutex<Chronicle>>,
    /// Its scripts.
    pub application: Application,
    /// Its virtual IPs.
    pub addresses: Addresses,
    /// Where its data plane keeps what only this copy had.
    pub quarantine: std::path::PathBuf,
    /// Its checkers and rules.
    pub overseer: Overseer,
    /// Its takeover proof.
    pub prover: Prover,
    /// Its data plane and what that says; `None` for a module without replicated directories.
    pub plane: Option<(Plane, mpsc::Receiver<PlaneNews>)>,
    /// The data plane found is another program than this agent: it is replaced as soon as the module is settled.
    pub outdated: bool,
    /// The rest of the cluster.
    pub outside: Arc<O>,
    /// Sender of this loop's own inputs, given to what works in the background.
    pub own: mpsc::Sender<Input>,
    /// Where everybody looks.
    pub published: watch::Sender<Arc<Published>>,
}

struct Loop<O: Outside> {
    parts: Parts<O>,
    timers: BTreeMap<Timer, Instant>,
    reply: Option<oneshot::Sender<(bool, String)>>,
    /// The command that is being answered.
    requested: Option<&'static str>,
    view: View,
    starts: super::publish::Starts,
    no_data: NoData,
    oversight: oversee::Oversight,
    standing: standing::Standing,
    last_look_ms: u64,
    last_pulse: Instant,
    /// When the data plane was told last that it may answer; `None`: a new one has not been told.
    leased: Option<Instant>,
    last_verify: Instant,
    /// A scrub that was not possible is not tried before.
    scrub_again: Instant,
}

enum Woken {
    Input(Option<Input>),
    News(Option<PlaneNews>),
    Time,
}

/// Runs until told to leave or the handle is gone. `first` are the events of the beginning, in order.
pub async fn run<O: Outside>(parts: Parts<O>, mut inputs: mpsc::Receiver<Input>, first: Vec<Event>) {
    let mut this = Loop {
        view: View::default(),
        starts: super::publish::Starts::default(),
        timers: BTreeMap::new(),
        reply: None,
        requested: None,
        no_data: NoData::default(),
        oversight: oversee::Oversight::default(),
        standing: standing::Standing::new(parts.equality.clone()),
        last_look_ms: platform::clock::boot_ms(),
        last_pulse: Instant::now(),
        leased: None,
        last_verify: Instant::now(),
        scrub_again: Instant::now(),
        parts,
    };
    this.chronicle(|c| c.begin(&this.parts.mirror));
    if this.parts.mirror.loops() > 0 {
        this.arm(Timer::Loop);
    }
    for event in first {
        this.handle(event).await;
    }
    this.publish();
    let mut news = this.parts.plane.as_mut().map(|(_, news)| std::mem::replace(news, mpsc::channel(1).1));
    let tick = Duration::from_millis(PULSE_MS.min(this.parts.timing.lease_ms / 4));
    loop {
        let next =
            this.timers.values().min().copied().map_or_else(|| Instant::now() + tick, |t| t.min(Instant::now() + tick));
        let woken = tokio::select! {
            biased;
            () = sleep_until(next) => Woken::Time,
            input = inputs.recv() => Woken::Input(input),
            said = async { match &mut news { Some(news) => news.recv().await, None => std::future::pending().await } } => Woken::News(said),
        };
        this.look_at_the_clocks().await;
        match woken {
            Woken::Time => {}
            Woken::Input(None | Some(Input::Leave)) => break,
            // A mirror is no farm.
            // A farm's.
            Woken::Input(Some(Input::Asked(_) | Input::Flows { .. })) => {}
            Woken::Input(Some(Input::Event(event))) => this.handle(event).await,
            Woken::Input(Some(Input::Command { command, by, reply })) => this.command(command, by, reply).await,
            Woken::Input(Some(Input::Configure(configured))) => this.configure(configured).await,
            Woken::Input(Some(Input::Verify { request, by, reply })) => {
                let begun = this.verify(request, Some(&by));
                // Whoever asked looks next at what is published: what stood there before is no outcome of this one.
                this.publish();
                // Who asked may be gone; the comparison runs all the same.
                let _ = reply.send(begun);
            }
            Woken::Input(Some(Input::Found { resource, finding })) => {
                let changes = this.parts.overseer.found(&resource, &finding);
                this.tell_changes(&changes);
            }
            // A number that changes all the time is no line of the log.
            Woken::Input(Some(Input::Counted { resource, count })) => {
                drop(this.parts.overseer.counted(&resource, count));
            }
            Woken::Input(Some(Input::Lost { resource, why })) => {
                let changes = this.parts.overseer.lost(&resource, &why);
                this.tell_changes(&changes);
            }
            Woken::Input(Some(Input::Handled { resource, outcome })) => this.handled(&resource, outcome).await,
            Woken::Input(Some(Input::Resources(theirs))) => this.hear_peer(&theirs),
            Woken::Input(Some(Input::Seen(seen))) => this.seen(*seen).await,
            Woken::Input(Some(Input::Watch { request, by, reply })) => this.watch_asked(request, &by, reply).await,
            Woken::News(None) => news = None,
            Woken::News(Some(said)) => this.plane_said(said).await,
        }
        this.oversee().await;
        this.guard();
        this.publish();
    }
    drop(news);
    if let Some((plane, _)) = this.parts.plane.take() {
        plane.leave().await;
    }
}

impl<O: Outside> Loop<O> {
    fn arm(&mut self, timer: Timer) {
        let ms = timer.duration_ms(&self.parts.timing, &self.parts.mirror.settings().policy);
        self.timers.insert(timer, Instant::now() + Duration::from_millis(ms));
    }

    async fn configure(&mut self, configured: Configured) {
        self.parts.mirror.configure(configured.digits);
        self.chronicle(|c| c.begin(&self.parts.mirror));
        self.parts.prover = self.parts.prover.asking(configured.splitbrain);
        self.parts.scrub_every = configured.scrub_every;
        self.parts.orders = configured.orders;
        self.parts.overseer.configure(configured.checkers);
        self.parts.configured = configured.policy;
        self.parts.boot = configured.boot;
        self.choose().await;
        let text = "The configuration is another from now on; the module goes on as it is";
        self.chronicle(|c| c.line("heart", model::api::LogLevel::E, text));
    }

    /// A frozen node learns of it before anything else; then what is due; then the lease and the witness's pulse.
    async fn look_at_the_clocks(&mut self) {
        let now_ms = platform::clock::boot_ms();
        if now_ms.saturating_sub(self.last_look_ms) > self.parts.timing.freeze_ms {
            self.handle(Event::Froze).await;
        }
        self.last_look_ms = now_ms;
        let now = Instant::now();
        let due: Vec<Timer> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(t, _)| *t).collect();
        for timer in due {
            // An earlier one may have disarmed it.
            if self.timers.get(&timer).is_some_and(|at| *at <= now) {
                self.timers.remove(&timer);
                self.handle(Event::Expired(timer)).await;
            }
        }
        self.lease(now);
        if self.parts.outdated && self.parts.mirror.view().status == model::Status::Ready {
            self.parts.outdated = false;
            if let Some((plane, _)) = &self.parts.plane {
                plane.replace();
            }
        }
        if now.duration_since(self.last_pulse) >= Duration::from_millis(WITNESS_PULSE_MS) {
            self.last_pulse = now;
            self.choose_witness().await;
            self.pulse();
            if self.parts.mirror.misses_peer() {
                self.parts.outside.knock(self.parts.mirror.voter());
            }
            self.parts.records.look_again();
        }
        let due = self.parts.scrub_every.is_some_and(|every| now.duration_since(self.last_verify) >= every);
        if due && now >= self.scrub_again {
            // Not possible now: it is asked again, but not at every tick.
            self.scrub_again = now + SCRUB_AGAIN;
            let _ = self.verify(VerifyRequest { repair: true, bytes_per_s: SCRUB_BYTES_PER_S }, None);
        }
    }

    /// Renews what the data plane answers by: often enough, and not with everything that happens. Orders that it has no time to read end it.
    fn lease(&mut self, now: Instant) {
        let every = Duration::from_millis(self.parts.timing.lease_ms / LEASES);
        if self.leased.is_some_and(|at| now.duration_since(at) < every) {
            return;
        }
        if let Some((plane, _)) = &self.parts.plane {
            plane.order(Order::Lease { valid_ms: self.parts.timing.lease_ms });
            self.leased = Some(now);
        }
    }

    /// Has both copies compared, if both are complete now. `by` nobody: the background scrub.
    fn verify(&mut self, request: VerifyRequest, by: Option<&str>) -> Result<(), String> {
        let view = self.parts.mirror.view();
        if (view.state, view.status) != (model::ModuleState::Prim, model::Status::Ready) {
            return Err(format!("it is {} {} here: there is no complete secondary", view.state, view.status));
        }
        if self.view.is_verifying() {
            return Err("a comparison runs already".into());
        }
        let Some((plane, _)) = &self.parts.plane else { return Err("it has no replicated directories".into()) };
        let VerifyRequest { repair, bytes_per_s } = request;
        plane.order(Order::Verify { repair, bytes_per_s, scrub: by.is_none() });
        self.last_verify = Instant::now();
        // Until the data plane says more.
        self.view.verify_begins(repair, by.is_none());
        if let Some(by) = by {
            let name = if repair { "rfsverify --repair" } else { "rfsverify" };
            self.chronicle(|c| c.line("rfsplug", model::api::LogLevel::U, &format!("Action {name} called by {by}")));
        }
        Ok(())
    }

    /// Says what a comparison found, in the log.
    fn verify_ended(&mut self, verify: &VerifyProgress) {
        self.last_verify = Instant::now();
        let (level, text) = super::publish::verify_sentence(verify);
        self.chronicle(|c| c.line("rfsplug", level, &text));
    }

    /// A spare, when the one that votes is silent; the pair goes over to it while it is one.
    async fn choose_witness(&mut self) {
        let mirror = &self.parts.mirror;
        // Without one, or between two: the configuration decides, or the exchange that is under way.
        if mirror.voter().is_none() {
            return;
        }
        let witness = self.parts.outside.witness(mirror.record());
        if witness.is_some() && witness != mirror.settings().witness {
            self.handle(Event::WitnessConfigured { witness }).await;
        }
    }

    fn pulse(&self) {
        if let (Some(voter), Some(question)) = (self.parts.mirror.voter(), self.parts.mirror.pulse()) {
            self.parts.outside.ask(voter, question, false);
        }
    }

    async fn command(&mut self, command: Command, by: Asker, reply: oneshot::Sender<(bool, String)>) {
        let name = super::publish::command_name(command);
        self.chronicle(|c| c.line("heart", model::api::LogLevel::U, &texts::called(name, &by.name)));
        if let Some(answer) = self.answer_waiting(command) {
            let _ = reply.send(answer);
            return;
        }
        self.reply = Some(reply);
        self.requested = Some(name);
        self.parts.application.restart_only(Vec::new());
        let loops = self.parts.mirror.loops();
        self.handle(Event::Command(command)).await;
        if !by.is_script {
            self.parts.overseer.forget_restarts();
        } else if loops > 0 {
            self.parts.mirror.remember_loops(loops);
            self.chronicle(|c| c.begin(&self.parts.mirror));
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.send((true, format!("{name} noted")));
        }
    }

    async fn plane_said(&mut self, news: PlaneNews) {
        match news {
            PlaneNews::Report(report) => {
                self.view.heard(&report);
                match &report {
                    // A comparison is no situation the automaton wanted (an older mirrorfs does not know the order).
                    Report::Refused { order, reason } if self.view.refuses_verify(order, reason) => {
                        self.chronicle(|c| c.line("mirrorfs", model::api::LogLevel::E, &format!("{order}: {reason}")));
                        return;
                    }
                    Report::Refused { order, reason } => {
                        self.chronicle(|c| c.line("mirrorfs", model::api::LogLevel::E, &format!("{order}: {reason}")))
                    }
                    Report::LocalFault { reason } | Report::MapLost { reason } => {
                        self.chronicle(|c| c.line("mirrorfs", model::api::LogLevel::C, reason))
                    }
                    Report::Committed { progress, .. } => {
                        let text = texts::copied(progress);
                        self.chronicle(|c| c.line("reintegre", model::api::LogLevel::E, &text));
                    }
                    Report::CommitReceived { session } => {
                        if let Some(folder) = super::quarantine::of(&self.parts.quarantine, session.epoch) {
                            let text = texts::kept_apart(&folder);
                            self.chronicle(|c| c.line("reintegre", model::api::LogLevel::C, &text));
                        }
                    }
                    // Numbers for people, not for the automaton.
                    Report::Counters { counters } => return self.disk_looked_at(counters.disk),
                    Report::Verified { verify } => {
                        if !verify.running {
                            self.verify_ended(verify);
                        }
                        return;
                    }
                    _ => {}
                }
                self.handle(Event::Plane(report)).await;
            }
            PlaneNews::Died { reason } => {
                self.next_generation();
                self.chronicle(|c| c.line("mirrorfs", model::api::LogLevel::C, &reason));
                self.handle(Event::PlaneDied).await;
            }
            PlaneNews::Replaced { reason } => {
                self.next_generation();
                self.chronicle(|c| c.line("mirrorfs", model::api::LogLevel::C, &reason));
                self.handle(Event::PlaneReplaced).await;
            }
            PlaneNews::Stopped => {
                self.next_generation();
                self.handle(Event::PlaneStopped).await;
            }
        }
    }

    fn next_generation(&mut self) {
        self.leased = None;
        self.parts.guard.ordered();
        self.view.forget_plane();
        if let Some((plane, _)) = &mut self.parts.plane {
            plane.next_generation();
        }
    }

    /// One event, and what follows from it at once.
    async fn handle(&mut self, event: Event) {
        if !self.is_held_back(&event) {
            self.handle_now(event).await;
        }
    }

    async fn handle_now(&mut self, event: Event) {
        let mut pending = std::collections::VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let before = self.parts.mirror.view();
            let untouched = self.parts.mirror.clone();
            let actions = self.parts.mirror.handle(event.clone());
            let after = self.parts.mirror.view();
            let moved = (before.state, before.status, &before.reason) != (after.state, after.status, &after.reason);
            // What changed nothing that is seen may decide later: without it the journal could not be replayed.
            if moved || !actions.is_empty() || self.parts.mirror != untouched {
                self.chronicle(|c| {
                    c.decision(&event, &actions, (after.state, after.status), &after.reason, after.epoch);
                    if c.is_long() {
                        c.begin(&self.parts.mirror);
                    }
                });
            }
            self.chronicle(|c| {
                for line in cluster::mirror::lines_of_step(&untouched, &self.parts.mirror) {
                    c.said(line.component, line.level, &line.text);
                }
            });
            self.tell_where();
            if (before.state, before.status) != (after.state, after.status) {
                self.view.since_unix_ms = super::chronicle::now_unix_us() / 1000;
            }
            self.parts.outside.advertise(self.parts.mirror.advert());
            for action in actions {
                self.begin(action, &mut pending).await;
            }
        }
    }

    async fn begin(&mut self, action: Action, pending: &mut std::collections::VecDeque<Event>) {
        match action {
            Action::Journal { level, sentence } => self.chronicle(|c| c.sentence(level, &sentence)),
            Action::Reply { accepted, sentence } => {
                if let Some(name) = self.requested.take().filter(|_| !accepted) {
                    let text = texts::aborted(name, &sentence);
                    self.chronicle(|c| c.line("heart", model::api::LogLevel::E, &text));
                }
                if let Some(reply) = self.reply.take() {
                    let _ = reply.send((accepted, sentence));
                }
            }
            Action::Store { id, record } => self.parts.records.store(id, *record, self.parts.own.clone()),
            Action::Send(message) => self.parts.outside.send(message),
            Action::Ask(question) => {
                if let Some(voter) = self.parts.mirror.voter() {
                    self.parts.outside.ask(voter, question, self.parts.mirror.followed());
                }
            }
            Action::Pulse => self.pulse(),
            Action::Data(order) => match &self.parts.plane {
                Some((plane, _)) => {
                    self.parts.guard.ordered();
                    plane.order(order);
                    // It may be a new one, and what it begins may need the lease.
                    self.leased = None;
                }
                None => pending.extend(self.no_data.handle(&order).into_iter().map(Event::Plane)),
            },
            Action::KillPlane => match &self.parts.plane {
                Some((plane, _)) => plane.kill(),
                None => pending.push_back(Event::PlaneDied),
            },
            Action::Probe => self.parts.prover.probe(self.parts.own.clone()),
            Action::Vip(Vip::Up { announce_anyway }) => {
                self.parts.addresses.up(announce_anyway, self.parts.own.clone())
            }
            Action::Vip(Vip::Down) => pending.push_back(Event::Vip(self.parts.addresses.down().await)),
            Action::App(wanted) => self.parts.application.want(wanted, self.parts.mirror.view().state),
            Action::Reboot => self.reboot(),
            Action::Arm(timer) => self.arm(timer),
            Action::Disarm(timer) => {
                self.timers.remove(&timer);
            }
        }
    }

    /// Has the module's own files and mounts looked at.
    fn guard(&mut self) {
        let phase = self.parts.mirror.phase();
        let has_data = self.parts.plane.is_some();
        let wanted = match phase {
            "Stop" | "Booting" | "Preparing" | "Leaving" => return,
            "Alone" | "Alone, resync" | "Commit" | "Prim" if has_data => Wanted::Served,
            "Second" | "Target" if has_data => Wanted::Covers,
            _ => Wanted::Nothing,
        };
        self.parts.guard.look(wanted);
    }

    /// What was taken away behind this node's back: files are told of, and without its mounts a data plane is as good as dead.
    async fn seen(&mut self, seen: Seen) {
        let missing = self.parts.guard.judge(&seen);
        if seen.anew {
            self.made_anew();
        }
        if matches!(self.parts.mirror.phase(), "Stop" | "Booting" | "Preparing" | "Leaving") {
            return;
        }
        self.handle(Event::Fit { why_not: seen.lost }).await;
        match missing {
            None => {}
            Some(Missing::Cover(dir)) => self.end_plane(&dir, &texts::uncovered(&dir)),
            Some(Missing::Served(dir)) => self.end_plane(&dir, &texts::unserved(&dir)),
        }
    }

    /// The next data plane covers the directory, and looks at what was changed since it was seen covered.
    fn end_plane(&mut self, dir: &std::path::Path, why: &str) {
        self.chronicle(|c| c.line("rfsplug", model::api::LogLevel::C, why));
        if Guard::is_bare(dir)
            && let Err(error) = self.parts.guard.note_bare(dir)
        {
            self.chronicle(|c| c.line("rfsplug", model::api::LogLevel::C, &crate::cluster_config::causes(&error)));
        }
        if let Some((plane, _)) = &self.parts.plane {
            plane.kill();
        }
    }

    /// The directory of the module's state was taken away, and is there again with the record only.
    fn made_anew(&mut self) {
        let var = self.parts.records.dir().to_path_buf();
        *self.parts.chronicle.lock().unwrap_or_else(PoisonError::into_inner) = Chronicle::open(&var);
        self.chronicle(|c| c.begin(&self.parts.mirror));
        self.chronicle(|c| c.line("heart", model::api::LogLevel::C, &texts::made_anew(&var)));
        // Its log of what a crash may leave different is gone: the next one compares everything. One that serves goes on.
        if let (Some((plane, _)), "Second" | "Second, resuming" | "Target" | "Wait") =
            (&self.parts.plane, self.parts.mirror.phase())
        {
            plane.kill();
        }
    }

    fn chronicle(&self, write: impl FnOnce(&mut Chronicle)) {
        write(&mut self.parts.chronicle.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn publish(&mut self) {
        self.view.starts = self.starts.see(self.parts.mirror.view().is_started);
        let published = self.shown(self.view.publish(&self.parts.mirror, &self.parts.addresses));
        self.parts.published.send_if_modified(|seen| {
            let changed = **seen != published;
            if changed {
                *seen = Arc::new(published);
            }
            changed
        });
    }
}
