//! A farm module on one node: from a command to the application, its traffic and back.
//!
//! Pure. The member inside says in which view this node is; here stands when it wants to be in one. **Invariants:** this node wants
//! traffic (`Wish::In`) only while its application runs behind addresses and filter; before a planned stop it drains, for a bounded time.

use super::member::{self, Member, Why};
use super::order::Order;
use crate::mirror::{App, AppReport, Command, Level};
use crate::scripts;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::farm::{View, Wish};
use model::limits::REJOIN_MS;
use model::{ModuleState, NodeId, Status};
use serde::{Deserialize, Serialize};

/// What a farm module goes by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// Its name, for sentences.
    pub module: String,
    /// A light module: no farm, but one node's own. It has no other member and no addresses.
    pub is_light: bool,
    /// It has virtual addresses: without any it is up as soon as its application is.
    pub has_addresses: bool,
    /// How long connections that stand may finish.
    pub drain_ms: u64,
    /// Automatic actions in a row before it stops here.
    pub max_loop: u16,
    /// When they are forgotten; 0: never counted.
    pub loop_ms: u64,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An operator's command.
    Command(Command),
    /// The same, asked for by a failover rule.
    Automatic {
        /// What.
        command: Command,
        /// The rule.
        why: String,
    },
    /// The agent was replaced while the module ran; `serving`: its application runs behind addresses and filter.
    Adopted {
        /// Was it up?
        serving: bool,
    },
    /// Outcome of [`Action::App`].
    App(AppReport),
    /// Outcome of [`Action::Take`].
    Taken(Taken),
    /// Outcome of [`Action::Release`].
    Released,
    /// News of the other nodes.
    Member(member::Event),
    /// No connection to the virtual addresses stands here.
    Idle,
    /// A timer is due.
    Expired(Timer),
}

/// What became of addresses and filter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// They are there.
    Held,
    /// They are not, and why.
    Failed {
        /// The sentence.
        why: String,
    },
}

/// What waits for a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// The end of draining.
    Drain,
    /// Addresses that could not be taken are tried again.
    Retry,
    /// Automatic actions are forgotten.
    Loop,
    /// The other members had their time to act on a view of this node's making.
    Agree,
}

/// What is to be so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The application.
    App(App),
    /// Addresses and filter are there; the filter accepts nothing before a view is shown.
    Take,
    /// They are not.
    Release,
    /// The filter decides by this view.
    Show(View, Why),
    /// The filter accepts nothing.
    Hide,
    /// This node answers for the virtual addresses: tell the network.
    Announce,
    /// Say the new word at once.
    Tell,
    /// Wait so long.
    Arm(Timer, u64),
    /// Wait no more.
    Disarm(Timer),
    /// To whoever asked.
    Reply {
        /// Done, or refused.
        accepted: bool,
        /// Why.
        sentence: String,
    },
    /// For the log.
    Journal {
        /// How loud.
        level: Level,
        /// What.
        sentence: String,
    },
}

/// What follows a stop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum After {
    Stay,
    /// As `Stay`: a rule makes it wait, and the runtime starts it again when none does any more.
    Wait,
    Start,
    Restart,
}

impl After {
    /// What the scripts are told.
    const fn why(self) -> scripts::Why {
        match self {
            Self::Stay => scripts::Why::Stop,
            Self::Wait => scripts::Why::StopWait,
            Self::Start => scripts::Why::StopStart,
            Self::Restart => scripts::Why::Restart,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Stop,
    Preparing,
    Taking,
    Blocked,
    Starting,
    Up,
    Draining(After),
    Stopping(After),
    Releasing(After),
    Leaving(After),
}

/// See the module's head.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Module {
    settings: Settings,
    member: Member,
    order: Order,
    state: State,
    /// Addresses and filter were taken and not released.
    holds: bool,
    reason: String,
    loops: u16,
}

impl Module {
    /// Stopped. `instance`: random per start.
    #[must_use]
    pub fn new(settings: Settings, me: NodeId, instance: u32, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let member = Member::new(me, instance, nodes);
        Self {
            settings,
            member,
            order: Order::default(),
            state: State::Stop,
            holds: false,
            reason: "stopped".into(),
            loops: 0,
        }
    }

    /// Who is in the farm, as this node sees it.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// What it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Other settings from now on.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Automatic actions in a row.
    #[must_use]
    pub fn loops(&self) -> u16 {
        self.loops
    }

    /// One more, acted by somebody else.
    pub fn count_loop(&mut self) -> u16 {
        self.loops = self.loops.saturating_add(1);
        self.loops
    }

    /// They are remembered after all: the command came from a script that has counted itself.
    pub fn remember_loops(&mut self, loops: u16) {
        self.loops = loops;
    }

    /// None, as far as anybody knows.
    pub fn forget_loops(&mut self) {
        self.loops = 0;
    }

    /// Do connections that stand finish now?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining(_))
    }

    /// Its start script has returned, and it was not told to stop since.
    #[must_use]
    pub fn is_started(&self) -> bool {
        matches!(self.state, State::Up | State::Draining(_))
    }

    /// Finer than what is shown: for logs.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match self.state {
            State::Stop => "Stop",
            State::Preparing => "Preparing",
            State::Taking => "Taking",
            State::Blocked => "Blocked",
            State::Starting => "Starting",
            State::Up => "Up",
            State::Draining(_) => "Draining",
            State::Stopping(_) => "Stopping",
            State::Releasing(_) => "Releasing",
            State::Leaving(_) => "Leaving",
        }
    }

    /// What people see.
    #[must_use]
    pub fn shown(&self) -> (ModuleState, Status) {
        match self.state {
            State::Stop => (ModuleState::Stop, Status::NotReady),
            State::Blocked => (ModuleState::Wait, Status::NotReady),
            State::Up if self.is_serving() => (ModuleState::Up, Status::Ready),
            State::Starting | State::Up | State::Draining(_) | State::Stopping(After::Restart) => {
                (ModuleState::Up, Status::Transient)
            }
            _ => (ModuleState::Wait, Status::Transient),
        }
    }

    /// Why it is where it is.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.state {
            State::Up if !self.is_serving() => {
                self.member.waits_for().unwrap_or("its first view of the farm is on its way").to_string()
            }
            _ => self.reason.clone(),
        }
    }

    /// The command that moves it on.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self.state {
            State::Stop => Some(format!("stead start -m {}", self.settings.module)),
            State::Blocked => Some(format!("repair it: it is tried again every {} s", REJOIN_MS / 1000)),
            _ => None,
        }
    }

    fn is_serving(&self) -> bool {
        let me = self.member.me();
        !self.settings.has_addresses || self.member.view().is_some_and(|view| view.serving().has(me))
    }

    /// The only way in.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Command(command) => self.command(command, &mut out),
            Event::Automatic { command, why } => self.automatic(command, &why, &mut out),
            Event::Adopted { serving } => self.adopted(serving, &mut out),
            Event::App(report) => self.app(report, &mut out),
            Event::Taken(taken) => self.taken(taken, &mut out),
            Event::Released => {
                if let State::Releasing(after) = self.state {
                    self.holds = false;
                    self.state = State::Leaving(after);
                    out.push(Action::App(App::Release { why: after.why() }));
                }
            }
            Event::Member(event) => self.news(event, &mut out),
            Event::Idle => {
                let me = self.member.me();
                if let State::Draining(after) = self.state
                    && self.member.view().is_none_or(|view| !view.serving().has(me))
                {
                    self.stop_application(after, "no connection stands any more", &mut out);
                }
            }
            Event::Expired(timer) => self.expired(timer, &mut out),
        }
        out
    }

    fn command(&mut self, command: Command, out: &mut Vec<Action>) {
        let module = self.settings.module.clone();
        let refuse = |why: String| Action::Reply { accepted: false, sentence: why };
        let accept = |why: &str| Action::Reply { accepted: true, sentence: why.to_string() };
        match command {
            Command::Prim { .. } | Command::Second { .. } | Command::Swap => out.push(refuse(if self.settings.is_light {
                format!(
                    "{module} is light: it runs on this node for itself, and none is primary or secondary (stead start, stead stop)"
                )
            } else {
                format!(
                    "{module} is a farm: all its nodes serve, none is primary or secondary (stead start, stead stop)"
                )
            })),
            Command::Start => match self.state {
                State::Stop => {
                    self.loops = 0;
                    self.prepare("started", out);
                    out.insert(0, accept("starting"));
                }
                State::Draining(After::Stay)
                | State::Stopping(After::Stay)
                | State::Releasing(After::Stay)
                | State::Leaving(After::Stay) => out.push(refuse(format!(
                    "{module} is stopping; when it has stopped it can be started (stead waitstate STOP -m {module})"
                ))),
                _ => out.push(accept("it is started already")),
            },
            Command::Stop | Command::Wait => {
                self.loops = 0;
                match self.state {
                    State::Stop => out.push(accept("it is stopped already")),
                    State::Draining(_) | State::Stopping(_) | State::Releasing(_) | State::Leaving(_) => {
                        self.change_after(After::Stay);
                        out.push(accept("stopping"));
                    }
                    _ => {
                        out.push(accept("stopping"));
                        self.leave(After::Stay, "stopped by an operator", out);
                    }
                }
            }
            Command::ForceStop => {
                self.loops = 0;
                if self.state == State::Stop {
                    out.push(accept("it is stopped already"));
                    return;
                }
                out.extend([accept("stopping by force"), Action::Disarm(Timer::Drain), Action::Disarm(Timer::Retry)]);
                self.wish(Wish::Out, out);
                self.state = State::Stopping(After::Stay);
                self.reason = "stopped by force".into();
                out.push(Action::App(App::Stop { force: true, why: scripts::Why::Stop }));
            }
            Command::Restart | Command::StopStart => {
                self.loops = 0;
                let after = if command == Command::Restart { After::Restart } else { After::Start };
                match self.state {
                    State::Up => {
                        out.push(accept(if after == After::Restart {
                            "restarting"
                        } else {
                            "stopping, then starting"
                        }));
                        self.leave(after, "restarted by an operator", out);
                    }
                    State::Stop => {
                        out.push(refuse(format!("{module} is stopped (stead start -m {module})")));
                    }
                    _ => out.push(refuse(format!("{module} is on its way: {}", self.reason()))),
                }
            }
        }
    }

    /// Does this state take an automatic action?
    #[must_use]
    pub fn accepts_automatic(&self, command: Command) -> bool {
        match command {
            Command::Stop | Command::Wait => {
                !matches!(self.state, State::Stop | State::Stopping(_) | State::Releasing(_) | State::Leaving(_))
            }
            Command::Restart | Command::StopStart => self.state == State::Up,
            Command::Start => self.state == State::Stop,
            _ => false,
        }
    }

    /// Would the next automatic action be one too many?
    #[must_use]
    pub fn is_last_loop(&self) -> bool {
        self.settings.loop_ms > 0 && self.loops >= self.settings.max_loop
    }

    fn automatic(&mut self, command: Command, why: &str, out: &mut Vec<Action>) {
        if !self.accepts_automatic(command) {
            return;
        }
        if command == Command::Start {
            // What made it wait is over: no new error.
            return self.prepare(why, out);
        }
        let is_one_too_many = self.is_last_loop();
        if self.settings.loop_ms > 0 {
            self.loops = self.loops.saturating_add(1);
            out.push(Action::Arm(Timer::Loop, self.settings.loop_ms));
        }
        if is_one_too_many {
            let why = format!("{} automatic actions in a row (maxloop): {why}", self.settings.max_loop);
            return self.leave(After::Stay, &why, out);
        }
        match command {
            Command::Restart => self.leave(After::Restart, why, out),
            Command::StopStart => self.leave(After::Start, why, out),
            Command::Wait => self.leave(After::Wait, why, out),
            _ => self.leave(After::Stay, why, out),
        }
    }

    fn adopted(&mut self, serving: bool, out: &mut Vec<Action>) {
        if serving {
            self.state = State::Up;
            self.holds = true;
            self.reason = "goes on after the agent's restart".into();
            out.push(Action::Take);
            self.wish(Wish::In, out);
        } else {
            self.prepare("started again after the agent's restart", out);
        }
    }

    fn prepare(&mut self, why: &str, out: &mut Vec<Action>) {
        self.state = State::Preparing;
        self.reason = why.into();
        out.push(Action::App(App::Prepare));
    }

    fn app(&mut self, report: AppReport, out: &mut Vec<Action>) {
        match (&self.state, report) {
            (State::Preparing, AppReport::Prepared) => {
                self.state = State::Taking;
                self.reason =
                    if self.settings.is_light { "its application starts" } else { "takes its addresses" }.into();
                out.push(Action::Take);
            }
            (State::Starting, AppReport::Started) => {
                self.state = State::Up;
                self.reason = if self.settings.is_light { "its application runs" } else { "serves its share" }.into();
                self.wish(Wish::In, out);
            }
            (State::Preparing | State::Starting, AppReport::StartFailed { reason }) => {
                out.push(Action::Journal { level: Level::Critical, sentence: reason.clone() });
                self.stop_application(After::Stay, &format!("it could not be started: {reason}"), out);
            }
            (State::Stopping(After::Restart), AppReport::Stopped) => {
                self.state = State::Starting;
                out.push(Action::App(App::Start));
            }
            (State::Stopping(after), AppReport::Stopped) => {
                let after = *after;
                // Closed after the application: what it said last has been sent.
                self.wish(Wish::Out, out);
                self.state = State::Releasing(after);
                out.push(Action::Release);
            }
            (State::Leaving(After::Stay | After::Wait | After::Restart), AppReport::Released) => {
                self.state = State::Stop
            }
            (State::Leaving(After::Start), AppReport::Released) => {
                let why = self.reason.clone();
                self.prepare(&why, out);
            }
            _ => {}
        }
    }

    fn taken(&mut self, taken: Taken, out: &mut Vec<Action>) {
        match (&self.state, taken) {
            (State::Taking, Taken::Held) => {
                self.holds = true;
                self.state = State::Starting;
                self.reason = "its application starts".into();
                out.push(Action::App(App::Start));
            }
            (State::Taking, Taken::Failed { why }) => {
                if self.reason != why {
                    out.push(Action::Journal { level: Level::Critical, sentence: why.clone() });
                }
                self.state = State::Blocked;
                self.reason = why;
                out.push(Action::Arm(Timer::Retry, REJOIN_MS));
            }
            // After the agent's restart: what was there cannot be had again.
            (State::Up, Taken::Failed { why }) => {
                out.push(Action::Journal { level: Level::Critical, sentence: why.clone() });
                self.leave(After::Start, &why, out);
            }
            _ => {}
        }
    }

    fn expired(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match (timer, &self.state) {
            (Timer::Drain, State::Draining(after)) => {
                let (after, seconds) = (*after, self.settings.drain_ms / 1000);
                let why = format!("connections still stood after {seconds} s of draining: they end now");
                out.push(Action::Journal { level: Level::Error, sentence: why.clone() });
                self.stop_application(after, &why, out);
            }
            (Timer::Retry, State::Blocked) => {
                self.state = State::Taking;
                out.push(Action::Take);
            }
            (Timer::Loop, _) => self.loops = 0,
            (Timer::Agree, _) => self.order.expired(out),
            _ => {}
        }
    }

    fn news(&mut self, event: member::Event, out: &mut Vec<Action>) {
        let actions = self.member.handle(event);
        self.obey(actions, out);
        // Who could have taken the traffic over is gone: waiting would only bring new connections.
        if let State::Draining(after) = self.state
            && !self.member.is_another_in()
        {
            self.stop_application(after, "no other node serves", out);
        }
    }

    fn wish(&mut self, wish: Wish, out: &mut Vec<Action>) {
        let actions = self.member.handle(member::Event::Wished(wish));
        self.obey(actions, out);
    }

    fn obey(&mut self, actions: Vec<member::Action>, out: &mut Vec<Action>) {
        self.order.obey(&self.member, actions, out);
    }

    /// Away from serving, whatever follows.
    fn leave(&mut self, after: After, why: &str, out: &mut Vec<Action>) {
        self.reason = why.into();
        out.push(Action::Disarm(Timer::Retry));
        match self.state {
            State::Up => {
                self.wish(Wish::Drain, out);
                if self.settings.drain_ms > 0 && self.settings.has_addresses && self.member.is_another_in() {
                    self.state = State::Draining(after);
                    self.reason = format!("{why}: no new connections, those that stand may finish");
                    out.push(Action::Arm(Timer::Drain, self.settings.drain_ms));
                } else {
                    self.stop_application(after, why, out);
                }
            }
            _ => self.stop_application(after, why, out),
        }
    }

    fn stop_application(&mut self, after: After, why: &str, out: &mut Vec<Action>) {
        self.reason = why.into();
        self.state = State::Stopping(after);
        out.extend([Action::Disarm(Timer::Drain), Action::App(App::Stop { force: false, why: after.why() })]);
    }

    /// A stop that is under way ends otherwise than it was begun.
    fn change_after(&mut self, now: After) {
        match &mut self.state {
            State::Draining(after) | State::Stopping(after) | State::Releasing(after) | State::Leaving(after) => {
                *after = now;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "module_tests.rs"]
mod tests;
