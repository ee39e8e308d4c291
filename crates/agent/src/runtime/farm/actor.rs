//! A farm module's loop: waits for the world, lets the automaton decide, journals, starts the actions.
//!
//! Decides nothing. **Invariants:** one event at a time; the journal is written before the first action (I6); the filters' lease is
//! renewed here and nowhere else.

use super::super::agent::Agent;
use super::super::application::Application;
use super::super::checkers::Overseer;
use super::super::chronicle::Chronicle;
use super::super::module::{Asker, Input};
use super::super::publish::{Published, command_name};
use super::super::texts;
use super::oversee::Oversight;
use super::wires::Wires;
use super::{Mailbox, News};
use crate::heartbeat::Said;
use cluster::farm::member;
use cluster::farm::module::{Action, Event, Module, Taken, Timer};
use cluster::mirror::{self, Advert, Command};
use model::api::LogLevel;
use model::limits::{DRAIN_QUIET_MS, PULSE_MS, Timing};
use model::schema::module::Boot;
use model::{ModuleId, ModuleState, NodeId, NodeName, Status};
use platform::net::Mac;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// How often connections are counted while they may finish.
const COUNT: Duration = Duration::from_millis(200);
/// How often numbers for people are looked at.
pub(super) const NUMBERS: Duration = Duration::from_secs(1);

/// In the mark of a module whose scripts have closed the traffic.
pub(super) const CLOSED: &[u8] = b"closed";

/// Everything the loop works with.
pub struct Parts {
    /// The automaton.
    pub module: Module,
    /// Its number.
    pub id: ModuleId,
    /// With which the nodes are judged.
    pub patience: Timing,
    /// This node.
    pub own_name: NodeName,
    /// The other nodes.
    pub others: Vec<(NodeId, NodeName)>,
    /// The agent.
    pub agent: Weak<Agent>,
    /// Log and journal.
    pub chronicle: Arc<Mutex<Chronicle>>,
    /// Its scripts.
    pub application: Application,
    /// Its addresses and filters.
    pub wires: Wires,
    /// Its checkers and rules.
    pub overseer: Overseer,
    /// What its configuration says of a boot.
    pub boot: Boot,
    /// Digest of what its configuration says of addresses, groups and rules.
    pub traffic: u64,
    /// There while the application runs behind addresses and filter: an agent that comes later goes on.
    pub serving_mark: PathBuf,
    /// What the other nodes say.
    pub mailbox: Arc<Mailbox>,
    /// The way back into this loop.
    pub own: mpsc::Sender<Input>,
    /// Where everybody looks.
    pub published: watch::Sender<Arc<Published>>,
}

pub(super) struct Loop {
    pub(super) parts: Parts,
    timers: BTreeMap<Timer, Instant>,
    reply: Option<oneshot::Sender<(bool, String)>>,
    pub(super) oversight: Oversight,
    pub(super) since_unix_ms: u64,
    pub(super) farm: Option<(Instant, Arc<model::api::FarmView>)>,
    pub(super) connections: Option<usize>,
    /// Packets that were taken while the node drains, and since when none was.
    taken: Option<(u64, Instant)>,
    count_at: Instant,
    tend_at: Instant,
    /// Boot-time clock of the last look.
    looked_ms: u64,
    /// What the mark says: served, and open.
    marked: Option<bool>,
    yields_to: Option<NodeId>,
    pub(super) starts: super::super::publish::Starts,
}

/// Why the loop wakes.
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Woken {
    Time,
    Input(Option<Input>),
    Mail,
}

/// Runs until told to leave or the handle is gone. `first` are the events of the beginning, in order.
pub async fn run(parts: Parts, mut inputs: mpsc::Receiver<Input>, first: Vec<Event>) {
    let marked = std::fs::read(&parts.serving_mark).ok().map(|mark| mark != CLOSED);
    let mut this = Loop {
        timers: BTreeMap::new(),
        reply: None,
        oversight: Oversight::default(),
        since_unix_ms: super::super::chronicle::now_unix_us() / 1000,
        farm: None,
        connections: None,
        taken: None,
        count_at: Instant::now(),
        tend_at: Instant::now(),
        looked_ms: platform::clock::boot_ms(),
        marked,
        yields_to: None,
        starts: super::super::publish::Starts::default(),
        parts,
    };
    this.note_automaton();
    if this.parts.module.loops() > 0 {
        let within = this.parts.module.settings().loop_ms;
        this.arm(Timer::Loop, within);
    }
    for event in first {
        this.handle(event).await;
    }
    // Not before the beginning: others go by what an earlier agent said until then.
    this.say();
    this.publish();
    let tick = Duration::from_millis(PULSE_MS);
    let mailbox = Arc::clone(&this.parts.mailbox);
    loop {
        let next = this.timers.values().min().copied().unwrap_or_else(|| Instant::now() + tick);
        let next = next.min(Instant::now() + tick);
        let woken = tokio::select! {
            biased;
            () = sleep_until(next) => Woken::Time,
            input = inputs.recv() => Woken::Input(input),
            () = mailbox.rung() => Woken::Mail,
        };
        this.look_at_the_clocks().await;
        match woken {
            Woken::Time => {}
            Woken::Input(None | Some(Input::Leave)) => return,
            Woken::Input(Some(input)) => this.take(input).await,
            Woken::Mail => {
                for news in mailbox.take() {
                    this.hear(news).await;
                }
            }
        }
        this.oversee().await;
        this.publish();
    }
}

impl Loop {
    async fn take(&mut self, input: Input) {
        match input {
            Input::Leave => {}
            Input::Asked(said) => self.asked(said).await,
            Input::Event(mirror::Event::App(report)) => self.handle(Event::App(report)).await,
            // The API's and the heartbeats' words to mirrors.
            Input::Event(_) | Input::Resources(_) | Input::Seen(_) => {}
            Input::Command { command, by, reply } => self.command(command, by, reply).await,
            Input::Configure(configured) => {
                self.parts.overseer.configure(configured.checkers);
                let settings = cluster::farm::module::Settings {
                    max_loop: configured.policy.max_loop,
                    loop_ms: configured.policy.loop_ms,
                    ..self.parts.module.settings().clone()
                };
                self.parts.module.configure(settings);
                self.note_automaton();
                let text = "The configuration is another from now on; the module goes on as it is";
                self.line(LogLevel::E, "heart", text);
            }
            Input::Verify { reply, .. } => {
                // Who asked may be gone.
                let _ = reply.send(Err("a farm replicates nothing".into()));
            }
            Input::Found { resource, finding } => {
                let changes = self.parts.overseer.found(&resource, &finding);
                self.tell_changes(&changes);
            }
            Input::Counted { resource, count } => drop(self.parts.overseer.counted(&resource, count)),
            Input::Lost { resource, why } => {
                let changes = self.parts.overseer.lost(&resource, &why);
                self.tell_changes(&changes);
            }
            Input::Handled { resource, outcome } => self.handled(&resource, outcome).await,
            Input::Flows { reply } => {
                let flows = self.parts.wires.flows();
                // Who asked may be gone.
                drop(tokio::spawn(async move { reply.send(flows.await) }));
            }
            Input::Watch { request, by, reply } => {
                let answer = self.watch(request, &by).await;
                let _ = reply.send(answer);
            }
        }
    }

    async fn hear(&mut self, news: News) {
        let event = match news {
            News::Heard(node) => member::Event::Heard(node),
            News::Silent(node) => member::Event::Silent(node),
            News::CutOff => member::Event::CutOff,
            News::Said(from, said) => {
                self.parts.wires.learn(from, said.macs);
                if said.traffic != self.parts.traffic {
                    return self.handle(Event::Foreign { from, word: said.word }).await;
                }
                member::Event::Said { from, word: said.word }
            }
        };
        self.handle(Event::Member(event)).await;
    }

    async fn look_at_the_clocks(&mut self) {
        // Before the lease is renewed: the others may have gone on without this node, and its view is none any more.
        let now_ms = platform::clock::boot_ms();
        let since_ms = std::mem::replace(&mut self.looked_ms, now_ms);
        let ran = self.parts.agent.upgrade().and_then(|agent| super::super::heart::ran(&agent));
        if !self.parts.others.is_empty()
            && ran.is_some_and(|it| it.paused(since_ms, self.parts.patience.lease_ms, now_ms))
        {
            self.handle(Event::Froze).await;
            if let Some(agent) = self.parts.agent.upgrade() {
                let module = self.parts.module.settings().module.clone();
                tokio::spawn(async move { super::super::heart::hear_anew(&agent, &module).await });
            }
        }
        self.parts.wires.renew();
        let now = Instant::now();
        let due: Vec<Timer> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in due {
            // An earlier one may have disarmed it.
            if self.timers.get(&timer).is_some_and(|at| *at <= now) {
                self.timers.remove(&timer);
                self.handle(Event::Expired(timer)).await;
            }
        }
        if now >= self.tend_at {
            self.tend_at = now + NUMBERS;
            if self.parts.wires.tend().await {
                self.say();
            }
        }
        if !self.parts.module.is_draining() {
            self.connections = None;
            self.taken = None;
            self.count_at = now + COUNT;
        } else if now >= self.count_at {
            self.count_at = now + COUNT;
            // While they cannot be counted the drain lasts its time: none is ended on a guess.
            self.connections = self.parts.wires.connections().await;
            if self.connections == Some(0) && self.is_quiet(now) {
                self.handle(Event::Idle).await;
            }
        }
    }

    /// Flows of UDP have no end that could be seen: they are over when nothing comes any more.
    fn is_quiet(&mut self, now: Instant) -> bool {
        if !self.parts.wires.has_flows() {
            return true;
        }
        let taken = self.parts.wires.accepted();
        let (_, since) = *self.taken.get_or_insert((taken, now));
        if self.taken.is_some_and(|(before, _)| before != taken) {
            self.taken = Some((taken, now));
            return false;
        }
        now.duration_since(since) >= Duration::from_millis(DRAIN_QUIET_MS)
    }

    async fn command(&mut self, command: Command, by: Asker, reply: oneshot::Sender<(bool, String)>) {
        let name = command_name(command);
        self.line(LogLevel::U, "heart", &texts::called(name, &by.name));
        if let Some(answer) = self.answer_waiting(command) {
            let _ = reply.send(answer);
            return;
        }
        self.reply = Some(reply);
        let loops = self.parts.module.loops();
        self.handle(Event::Command(command)).await;
        if !by.is_script {
            self.parts.overseer.forget_restarts();
        } else {
            self.parts.module.remember_loops(loops);
            self.note_automaton();
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.send((true, format!("{name} noted")));
        }
    }

    /// One event, and what follows from it at once.
    pub(super) async fn handle(&mut self, event: Event) {
        if self.is_held_back(&event) {
            return;
        }
        self.handle_now(event).await;
    }

    pub(super) async fn handle_now(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let look = |module: &Module| (module.shown(), module.reason());
            let before = look(&self.parts.module);
            let untouched = self.parts.module.clone();
            let actions = self.parts.module.handle(event.clone());
            let after = look(&self.parts.module);
            // What changed nothing that is seen may decide later: without it the journal could not be replayed.
            if before != after || !actions.is_empty() || self.parts.module != untouched {
                self.chronicle(|c| c.decision(&event, &actions, after.0, &after.1, None));
                if self.parts.chronicle.lock().unwrap_or_else(PoisonError::into_inner).is_long() {
                    self.note_automaton();
                }
            }
            if before.0 != after.0 {
                self.tell_where();
                self.since_unix_ms = super::super::chronicle::now_unix_us() / 1000;
            }
            self.mark();
            self.advertise();
            self.told_of_another_configuration();
            for action in actions {
                self.begin(action, &mut pending).await;
            }
        }
    }

    async fn begin(&mut self, action: Action, pending: &mut VecDeque<Event>) {
        match action {
            Action::App(wanted) => self.parts.application.want(wanted, self.parts.module.shown().0),
            // What an earlier agent left is held: nobody is asked for it.
            Action::Take if self.parts.module.phase() == "Up" => {
                pending.push_back(Event::Taken(self.take_wires(true).await));
            }
            Action::Take => self.ask_for_addresses(),
            Action::Release => {
                self.parts.wires.release().await;
                pending.push_back(Event::Released);
            }
            Action::Show(view, why) => {
                self.parts.wires.show(&view);
                self.parts.wires.count_anew(view.counter);
                self.told_of(&view, why);
            }
            Action::Prepare(view) => self.parts.wires.show(&view),
            Action::Doubt(doubts) => self.parts.wires.doubt(doubts),
            Action::Hide => {
                self.parts.wires.hide();
                if !self.parts.module.settings().is_light {
                    self.line(LogLevel::E, "farm", "farm membership: none; nothing is accepted for the virtual IPs");
                }
            }
            Action::Announce => self.parts.wires.announce(),
            Action::Tell => self.say(),
            Action::Arm(timer, ms) => drop(self.timers.insert(timer, Instant::now() + Duration::from_millis(ms))),
            Action::Disarm(timer) => drop(self.timers.remove(&timer)),
            Action::Reply { accepted, sentence } => {
                if let Some(reply) = self.reply.take() {
                    let _ = reply.send((accepted, sentence));
                }
            }
            Action::Journal { level, sentence } => self.chronicle(|c| c.sentence(level, &sentence)),
        }
    }

    /// Beside the loop: it takes a second, in which the others are to hear this node.
    fn ask_for_addresses(&self) {
        let agent = self.parts.agent.upgrade();
        let peers: Vec<_> =
            agent.iter().flat_map(|agent| self.parts.others.iter().map(|(_, name)| agent.peer_macs(name))).collect();
        let question = self.parts.wires.question(move |mac: Mac| peers.iter().any(|macs| macs.contains(mac)));
        let own = self.parts.own.clone();
        tokio::spawn(async move {
            let said = question.await;
            // The loop may be gone.
            let _ = own.send(Input::Asked(said)).await;
        });
    }

    async fn asked(&mut self, said: Result<(), String>) {
        // Stopped meanwhile: nobody wants to know any more.
        if self.parts.module.phase() != "Taking" {
            return;
        }
        let taken = match said {
            Ok(()) => self.take_wires(false).await,
            Err(why) => {
                self.parts.wires.release().await;
                Taken::Failed { why }
            }
        };
        self.handle(Event::Taken(taken)).await;
    }

    async fn take_wires(&mut self, goes_on: bool) -> Taken {
        match self.parts.wires.take(goes_on).await {
            Ok(()) => {
                self.judge_by_the_addresses();
                Taken::Held
            }
            Err(why) => Taken::Failed { why },
        }
    }

    /// When the loop began, the network of the addresses may not have been there.
    fn judge_by_the_addresses(&self) {
        if let Some(agent) = self.parts.agent.upgrade() {
            let module = self.parts.module.settings().module.clone();
            // Beside the loop: who changes the list of loops may wait for this one.
            tokio::spawn(async move { super::super::heart::judge_farm(&agent, &module).await });
        }
    }

    /// Once for each node that goes before this one.
    fn told_of_another_configuration(&mut self) {
        let now = self.parts.module.yields_to();
        if now == self.yields_to {
            return;
        }
        self.yields_to = now;
        let text = match now {
            Some(node) => format!(
                "{} serves with another configuration of {}: this node accepts nothing until they are the same (stead confinfo)",
                self.name_of(node),
                self.parts.module.settings().module
            ),
            None => "no node with another configuration serves any more".to_string(),
        };
        self.line(if now.is_some() { LogLevel::C } else { LogLevel::E }, "farm", &text);
    }

    /// Who is in, and what that makes this node's load.
    fn told_of(&mut self, view: &model::farm::View, why: member::Why) {
        if self.parts.module.settings().is_light {
            return;
        }
        let name = |node: NodeId| self.name_of(node);
        let names: Vec<String> = view.serving().nodes().map(name).collect();
        let director = name(view.director);
        let text = format!(
            "{} (view {}, directed by {director}): {}",
            texts::membership(&names),
            view.counter,
            why.sentence()
        );
        self.line(LogLevel::E, "farm", &text);
        let me = self.parts.module.member().me();
        let groups = self.parts.wires.configured().groups.iter().zip(self.parts.wires.shares());
        let loads: Vec<String> = groups
            .map(|(group, shares)| {
                let own = shares.iter().filter(|(node, _)| *node == me).map(|(_, count)| count).sum();
                texts::load(own, shares.iter().map(|(_, count)| count).sum(), &group.name)
            })
            .collect();
        loads.iter().for_each(|load| self.line(LogLevel::E, "farm", load));
        self.farm = None;
    }

    /// The automaton as it is now: from there on what it decides can be replayed.
    pub(super) fn note_automaton(&self) {
        let own = (self.parts.module.member().me(), self.parts.own_name.to_string());
        let others = self.parts.others.iter().map(|(id, name)| (*id, name.to_string()));
        let names = others.chain([own]).collect();
        self.chronicle(|c| c.begin_farm(&self.parts.module, &names));
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        let known = self.parts.others.iter().find(|(id, _)| *id == node).map(|(_, name)| name.to_string());
        known.unwrap_or_else(|| self.parts.own_name.to_string())
    }

    fn say(&mut self) {
        if self.parts.others.is_empty() {
            return;
        }
        if let Some(agent) = self.parts.agent.upgrade() {
            let (macs, traffic) = (self.parts.wires.own_macs(), self.parts.traffic);
            let said = Said { macs, traffic, word: self.parts.module.member().word() };
            agent.say(self.parts.id, said);
        }
    }

    fn advertise(&self) {
        if let Some(agent) = self.parts.agent.upgrade() {
            let (state, status) = self.shown_state();
            agent.advertise(self.parts.id, Advert { epoch: None, state, status });
        }
    }

    /// As everybody sees it.
    pub(super) fn shown_state(&self) -> (ModuleState, Status) {
        let (state, status) = self.parts.module.shown();
        match self.oversight.waits {
            Some(_) if state == ModuleState::Stop => (ModuleState::Wait, Status::NotReady),
            _ => (state, status),
        }
    }

    fn mark(&mut self) {
        let module = &self.parts.module;
        let wanted = module.is_started().then(|| module.is_open());
        if wanted == self.marked {
            return;
        }
        let path = &self.parts.serving_mark;
        let done = match wanted {
            Some(is_open) => std::fs::write(path, if is_open { &b""[..] } else { CLOSED }),
            None => std::fs::remove_file(path),
        };
        match done {
            Ok(()) => self.marked = wanted,
            Err(error) => tracing::error!(%error, path = %path.display(), "cannot note whether the module serves"),
        }
    }

    pub(super) fn arm(&mut self, timer: Timer, ms: u64) {
        self.timers.insert(timer, Instant::now() + Duration::from_millis(ms));
    }

    pub(super) fn chronicle(&self, write: impl FnOnce(&mut Chronicle)) {
        write(&mut self.parts.chronicle.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn line(&self, level: LogLevel, component: &str, text: &str) {
        self.chronicle(|chronicle| chronicle.line(component, level, text));
    }
}
