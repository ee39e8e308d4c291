//! Checkers and failover rules at the module's loop: what they find is noted, what they ask for becomes a command.
//!
//! Decides nothing: `cluster::watch` says what is wanted, the automaton whether it is done. A module that waits is
//! stopped for the automaton (its copy may be followed) and WAIT for everybody else, until no rule says so any more.

use super::super::checkers::{self, Done, HELD, Phase};
use super::super::chronicle::printed;
use super::super::publish::Published;
use super::{Loop, Outside};
use cluster::degraded::{Degraded, Sight};
use cluster::mirror::{AppReport, Command, Event, Policy, Timer, View};
use cluster::watch::{Change, Gate, Wanted};
use model::api::{LogLevel, WatchRequest};
use model::resource::Value;
use model::rules::Act;
use model::schema::checkers::SYNCAT_RULE;
use model::schema::module::heartbeat_name;
use model::{ModuleState, Status};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often facts that nobody tells are looked at, and resources are told to the other node at least.
const FACTS: Duration = Duration::from_millis(500);
const SHARED: Duration = Duration::from_secs(5);
/// What checkers and rules are about to do.
#[derive(Default)]
pub(super) struct Oversight {
    /// `prestart` is through, and the automaton is not told yet.
    held: Option<Instant>,
    /// Stopped until no rule makes it wait.
    waits: Option<Wanted>,
    facts_at: Option<Instant>,
    shared: Option<(Instant, BTreeMap<String, Value>)>,
    heard_peer: bool,
    /// Whether the other copy is lost.
    degraded: Degraded,
    /// Where the log says that the module is; `None`: nothing yet, it was stopped.
    said: Option<(ModuleState, Status)>,
}

impl Oversight {
    /// Why the module waits, if a rule makes it.
    pub(super) const fn waits(&self) -> Option<&Wanted> {
        self.waits.as_ref()
    }
}

impl<O: Outside> Loop<O> {
    /// After everything that happens, and at least ten times a second.
    pub(super) async fn oversee(&mut self) {
        let view = self.parts.mirror.view();
        self.note_facts(&view);
        self.stand(&view).await;
        self.follow(&view);
        let (changes, wanted) = self.parts.overseer.wanted();
        self.tell_changes(&changes);
        if self.oversight.waits.is_some() {
            self.wait_on(&view).await;
        } else if self.oversight.held.is_some() {
            self.hold_on().await;
        } else if let Some(wanted) = wanted {
            self.act(wanted).await;
        }
        self.tell_where();
        self.share(&view);
    }

    /// Where the module is: a rule that makes it wait is beside the automaton, which takes it for stopped.
    fn whereabouts(&self) -> (ModuleState, Status) {
        match self.parts.mirror.phase() {
            "Stop" if self.oversight.waits.is_some() => (ModuleState::Wait, Status::NotReady),
            "Leaving" if self.oversight.waits.is_some() => (ModuleState::Wait, Status::Transient),
            _ => self.parts.mirror.shown(),
        }
    }

    /// For the log, when it is elsewhere than it was.
    pub(super) fn tell_where(&mut self) {
        let now = self.whereabouts();
        if now != self.oversight.said.unwrap_or((ModuleState::Stop, Status::NotReady)) {
            self.oversight.said = Some(now);
            let line = cluster::mirror::local_state(now.0, now.1);
            self.chronicle(|c| c.said(line.component, line.level, &line.text));
        }
    }

    /// The start is held back until what makes the module wait is known.
    pub(super) fn is_held_back(&mut self, event: &Event) -> bool {
        let held = *event == Event::App(AppReport::Prepared)
            && self.parts.mirror.phase() == "Preparing"
            && self.parts.overseer.gate() != Gate::Open;
        if held {
            self.oversight.held = Some(Instant::now());
        }
        held
    }

    async fn hold_on(&mut self) {
        let Some(since) = self.oversight.held else { return };
        if self.parts.mirror.phase() != "Preparing" {
            self.oversight.held = None;
            return;
        }
        match self.parts.overseer.gate() {
            Gate::Open => {
                self.oversight.held = None;
                self.handle_now(Event::App(AppReport::Prepared)).await;
            }
            Gate::Closed(wanted) => {
                self.oversight.held = None;
                self.act(wanted).await;
            }
            Gate::Unknown { resource } if since.elapsed() >= HELD => {
                self.oversight.held = None;
                let because = format!("{resource} is not known yet");
                self.act(Wanted { rule: "Implicit_wait".into(), act: Act::Wait, because }).await;
            }
            Gate::Unknown { .. } => {}
        }
    }

    async fn wait_on(&mut self, view: &View) {
        if view.loops > self.parts.mirror.settings().policy.max_loop {
            self.oversight.waits = None;
            return;
        }
        match self.parts.overseer.gate() {
            // What it waits for may become another reason meanwhile.
            Gate::Closed(wanted) => self.oversight.waits = Some(wanted),
            Gate::Open if self.parts.mirror.phase() == "Stop" => {
                self.oversight.waits = None;
                let why = "failover rule Implicit_wakeup: nothing makes it wait any more".to_string();
                self.line(LogLevel::E, "heart", "Action wakeup from failover rule Implicit_wakeup");
                self.handle(Event::Automatic { command: Command::Start, why }).await;
            }
            Gate::Open | Gate::Unknown { .. } => {}
        }
    }

    async fn act(&mut self, wanted: Wanted) {
        let Some(command) = checkers::command(wanted.act) else { return };
        if !self.parts.mirror.accepts_automatic(command)
            || (wanted.rule == SYNCAT_RULE && !self.parts.mirror.accepts_scheduled(command))
        {
            return;
        }
        let (line, why) = checkers::words(&wanted);
        self.line(LogLevel::E, "heart", &line);
        let is_scheduled = wanted.rule == SYNCAT_RULE;
        let is_lack = wanted.is_lack();
        if self.parts.mirror.is_last_loop() && !is_scheduled && !is_lack {
            self.line(LogLevel::E, "heart", &super::super::texts::called("stop", "maxloop"));
        }
        self.parts.overseer.done();
        self.parts.application.restart_only(self.parts.overseer.services_for(command, &wanted.rule));
        if command == Command::Wait {
            self.oversight.waits = Some(wanted);
        }
        // Neither the schedule nor what another module lacks is a failure: they are not counted.
        let event = match (is_scheduled, is_lack) {
            (true, _) => Event::Scheduled { command, why },
            (false, true) => Event::Lacks { why },
            (false, false) => Event::Automatic { command, why },
        };
        self.handle(event).await;
        // At once: what the stop ends is no failure.
        let view = self.parts.mirror.view();
        self.follow(&view);
    }

    fn follow(&mut self, view: &View) {
        let between = self.oversight.held.is_some() || self.oversight.waits.is_some();
        let phase = Phase::of(view, self.parts.mirror.phase(), between);
        let changes = self.parts.overseer.follow(phase, view.is_started);
        self.tell_changes(&changes);
    }

    /// A command to a module that waits by a rule, which the automaton takes for stopped. `None`: it is the automaton's.
    pub(super) fn answer_waiting(&mut self, command: Command) -> Option<(bool, String)> {
        let wanted = self.oversight.waits.as_ref()?;
        let module = &self.parts.mirror.settings().module;
        let why = format!("it waits: failover rule {}: {}", wanted.rule, wanted.because);
        let is_scheduled = wanted.rule == SYNCAT_RULE;
        let answer = match command {
            // An operator need not wait for the schedule.
            Command::Start | Command::Second { .. } if is_scheduled => {
                self.standing.comes();
                (true, "bringing the copy up to date now, before its time".to_string())
            }
            Command::Prim { .. } if is_scheduled && self.parts.mirror.phase() == "Stop" => {
                self.standing.comes();
                self.oversight.waits = None;
                return None;
            }
            Command::Stop | Command::Wait | Command::ForceStop => {
                self.oversight.waits = None;
                if self.parts.mirror.phase() != "Stop" {
                    return None;
                }
                (true, "stopped".to_string())
            }
            Command::Start | Command::StopStart | Command::Restart => {
                (true, format!("module {module} is started; {why}"))
            }
            _ => (false, format!("{why} (without that rule: stead checker off -m {module})")),
        };
        Some(answer)
    }

    /// The module as everybody sees it.
    pub(super) fn shown(&self, mut published: Published) -> Published {
        published.resources = self.parts.overseer.views();
        published.warnings = self.parts.overseer.switches.sentences(&self.parts.mirror.settings().module);
        published.warnings.extend(self.parts.records.trouble());
        if let Some(wanted) = &self.oversight.waits
            && matches!(self.parts.mirror.phase(), "Stop" | "Leaving")
        {
            (published.mirror.state, published.mirror.status) = self.whereabouts();
            published.mirror.reason = format!("waits: failover rule {}: {}", wanted.rule, wanted.because);
            let module = &self.parts.mirror.settings().module;
            published.mirror.remedy = Some(super::super::texts::waits_remedy(&wanted.rule, module));
        }
        if let Some(why) = self.parts.overseer.disk_failure()
            && matches!(published.mirror.state, ModuleState::Prim | ModuleState::Alone)
            && published.mirror.status == Status::Ready
        {
            let peer = &self.parts.mirror.settings().peer_name;
            let module = &self.parts.mirror.settings().module;
            published.mirror.status = Status::NotReady;
            published.mirror.reason = format!("serves, and its own disk fails: {why}");
            published.mirror.remedy = Some(match published.mirror.state {
                ModuleState::Prim => format!("{peer} has everything: stead swap -m {module}; then replace the disk"),
                _ => format!(
                    "{peer} has no complete copy that could take over: save what can be read, then replace the disk"
                ),
            });
        }
        if let Some(why) = self.parts.overseer.held()
            && matches!(published.mirror.state, ModuleState::Prim | ModuleState::Alone)
            && published.mirror.status == Status::Ready
        {
            published.mirror.status = Status::NotReady;
            published.mirror.reason = why;
        }
        // It serves, and once it ends it cannot begin again: nothing that a load balancer or an operator should take for well.
        if self.parts.mirror.is_unfit() && published.mirror.status == Status::Ready {
            published.mirror.status = Status::NotReady;
        }
        published
    }

    /// An operator about checkers and resources.
    async fn watch(&mut self, request: WatchRequest, by: &str) -> Result<String, String> {
        if let Some(answer) = self.parts.overseer.asked(&request, by, self.parts.boot) {
            return answer.map(|done| self.noted(done, by));
        }
        let said = match request {
            WatchRequest::Failover { on } => {
                let configured = self.parts.configured.failover;
                self.parts.overseer.switches.failover =
                    (on != configured).then_some(super::super::checkers::Failover { on, configured });
                self.parts.overseer.switches.keep()?;
                self.choose().await;
                format!("failover {}", if on { "on" } else { "off" })
            }
            WatchRequest::CountLoop { by: who } => {
                let policy = self.parts.mirror.settings().policy;
                if policy.loop_ms == 0 {
                    return Ok("automatic actions are not counted (loop_interval=\"0\")".into());
                }
                let (line, answer) = checkers::counted(&who, self.parts.mirror.count_loop(), policy.max_loop);
                self.chronicle(|c| c.begin(&self.parts.mirror));
                self.arm(Timer::Loop);
                self.line(LogLevel::E, "heart", &line);
                self.publish();
                return answer;
            }
            WatchRequest::ForgetLoops => {
                self.parts.mirror.forget_loops();
                self.parts.overseer.forget_restarts();
                self.chronicle(|c| c.begin(&self.parts.mirror));
                self.publish();
                "resetloop".to_string()
            }
            WatchRequest::Print { error, text } => {
                let level = if error { LogLevel::E } else { LogLevel::I };
                self.line(level, "userplug", &printed(&text));
                return Ok("in the log".to_string());
            }
            WatchRequest::Update => {
                if view_is_moving(&self.parts.mirror.view()) {
                    return Err("it is changing its state".into());
                }
                self.parts.application.update();
                "update".to_string()
            }
            WatchRequest::Traffic { .. } => {
                return Err("a mirror or light module has no traffic to open or close: a farm has".into());
            }
            // Answered above.
            _ => return Err("no module answers that".into()),
        };
        Ok(self.noted(Done::Action(said), by))
    }

    fn noted(&self, done: Done, by: &str) -> String {
        self.parts.overseer.note(done, by, |level, component, text| self.line(level, component, text))
    }

    /// The policy in force: the configuration's, but for what was said since.
    pub(super) async fn choose(&mut self) {
        let configured = self.parts.configured;
        let failover = self.parts.overseer.switches.fails_over(configured.failover);
        self.handle(Event::Chosen { policy: Policy { failover, ..configured } }).await;
    }

    /// What Stead itself knows, as resources.
    fn note_facts(&mut self, view: &View) {
        let waits = self.oversight.waits.is_some() && view.state == ModuleState::Stop;
        let local = if waits { ModuleState::Wait } else { view.state };
        let up = |is: bool| if is { Value::Up } else { Value::Down };
        let word = |text: String| Value::new(&text).unwrap_or(Value::Unknown);
        let remote = view.peer.map_or(Value::Unknown, |peer| word(peer.state.to_string()));
        let mut facts = vec![
            ("state.local".to_string(), word(local.to_string())),
            ("state.remote".to_string(), remote.clone()),
            ("cluster.peer".to_string(), up(view.peer.is_some())),
            ("heart.stopstartloop".to_string(), word(view.loops.to_string())),
            ("usersetting.checker".to_string(), up(self.parts.overseer.switches.checker.is_none())),
            ("usersetting.failover".to_string(), up(self.parts.mirror.settings().policy.failover)),
            ("usersetting.errd".to_string(), up(self.parts.overseer.switches.errd.is_none())),
        ];
        // Where a rule looks at the other node's resources, that node tells this one with them.
        if !self.parts.overseer.looks_abroad() {
            facts.push(("remote.state.local".to_string(), remote));
        }
        if self.parts.mirror.settings().replicated {
            let is_whole =
                matches!(view.state, ModuleState::Prim | ModuleState::Second) && view.status == Status::Ready;
            let peer = view.peer.map(|peer| peer.state);
            let sight = Sight { state: view.state, status: view.status, peer };
            let is_degraded = self.oversight.degraded.look(sight, platform::clock::boot_ms());
            facts.push(("rfs.uptodate".to_string(), up(view.uptodate)));
            facts.push(("rfs.synced".to_string(), up(is_whole)));
            facts.push(("rfs.degraded".to_string(), up(is_degraded)));
        }
        if self.oversight.facts_at.is_none_or(|at| at.elapsed() >= FACTS) {
            self.oversight.facts_at = Some(Instant::now());
            let around = self.parts.overseer.around();
            if let (Some(agent), Some(peer)) = (around.agent.upgrade(), &around.peer) {
                let links = super::super::heart::links(&agent, peer);
                facts.extend(links.into_iter().filter_map(|(lan, heard)| {
                    let name = heartbeat_name(&around.heartbeats, &lan)?;
                    Some((format!("heartbeat.{name}"), up(heard)))
                }));
            }
        }
        let mut changes = if view.state == ModuleState::Stop { self.parts.overseer.leaves_disk() } else { Vec::new() };
        for (name, value) in facts {
            changes.extend(self.parts.overseer.set(&name, value, ""));
        }
        changes
            .retain(|change| ["heartbeat.", "rfs.", "usersetting."].iter().any(|class| change.name.starts_with(class)));
        // A cut of one network is none of the pair's: but whoever asks for the addresses there may have been told something else meanwhile.
        if changes.iter().any(|change| change.name.starts_with("heartbeat.") && change.to == Value::Up) {
            self.parts.addresses.announce_now();
        }
        self.tell_changes(&changes);
    }

    /// The data plane has looked at its disk (`None`: it has not). That of a secondary counts when its copy is complete: what
    /// cannot be written there is the primary's to notice.
    pub(super) fn disk_looked_at(&mut self, found: Option<i32>) {
        let Some(number) = found else { return };
        let view = self.parts.mirror.view();
        let counts = match view.state {
            ModuleState::Prim | ModuleState::Alone => true,
            ModuleState::Second => view.status == Status::Ready,
            _ => false,
        };
        if counts {
            let text = || std::io::Error::from_raw_os_error(number).to_string();
            let found = if number == 0 { Ok(()) } else { Err(text().split(" (os error").take(1).collect()) };
            let changes = self.parts.overseer.looked_at_disk(found);
            self.tell_changes(&changes);
        }
    }

    /// Resources for rules of the other node that look at them, and theirs when it is silent.
    fn share(&mut self, view: &View) {
        if !self.parts.overseer.looks_abroad() {
            return;
        }
        if view.peer.is_none() && std::mem::take(&mut self.oversight.heard_peer) {
            self.hear_peer(&BTreeMap::new());
            self.oversight.heard_peer = false;
        }
        let values = self.parts.overseer.own_values();
        let known = self.oversight.shared.as_ref();
        if view.peer.is_none() || known.is_some_and(|(at, told)| at.elapsed() < SHARED && *told == values) {
            return;
        }
        self.oversight.shared = Some((Instant::now(), values.clone()));
        let around = self.parts.overseer.around();
        tokio::spawn(async move {
            let (Some(agent), Some(peer)) = (around.agent.upgrade(), &around.peer) else { return };
            let path = format!("/v1/peer/modules/{}/resources", around.module);
            let told: Result<(), _> =
                agent.client.call(peer, "POST", &path, Some(&values), Duration::from_secs(1)).await;
            if let Err(error) = told {
                tracing::debug!(%error, "resources for the peer");
            }
        });
    }

    /// The other node's resources.
    pub(super) fn hear_peer(&mut self, theirs: &BTreeMap<String, Value>) {
        self.oversight.heard_peer = true;
        self.parts.overseer.heard_peer(theirs);
    }

    /// In the log, and to the handlers of processes.
    pub(super) fn tell_changes(&mut self, changes: &[Change]) {
        self.parts.overseer.tell(changes, |level, component, text| self.line(level, component, text));
    }

    /// The program that handles the failure of a process has ended; when it did not help, the module is started anew.
    pub(super) async fn handled(&mut self, resource: &str, outcome: Result<(), String>) {
        let Err(why) = outcome else { return };
        self.line(LogLevel::C, "errd", &why);
        self.act(Wanted { rule: format!("errd_{resource}"), act: Act::StopStart, because: why }).await;
    }

    /// An operator's word, answered.
    pub(super) async fn watch_asked(
        &mut self,
        request: WatchRequest,
        by: &str,
        reply: oneshot::Sender<Result<String, String>>,
    ) {
        let answer = self.watch(request, by).await;
        // Who asked may be gone.
        let _ = reply.send(answer);
    }

    fn line(&self, level: LogLevel, component: &str, text: &str) {
        self.chronicle(|chronicle| chronicle.line(component, level, text));
    }
}

fn view_is_moving(view: &View) -> bool {
    view.status == Status::Transient
}
