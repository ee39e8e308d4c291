//! A farm module on one node: from a command to the application, its traffic and back.
//!
//! Pure. The member inside says in which view this node is; here stands when it wants to be in one. **Invariants:** this node wants
//! traffic (`Wish::In`) only while its application runs behind addresses and filter, and its scripts say so if it is theirs to say; before a
//! planned stop it drains, for a bounded time.

mod commands;
mod course;

use super::foreign::Foreign;
use super::member::{self, Member, Why};
use super::order::Order;
use crate::mirror::{App, AppReport, Command, Level};
use crate::scripts;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::farm::{View, Wish, Word};
use model::limits::REJOIN_MS;
use model::{ModuleState, NodeId, Status};
use serde::{Deserialize, Serialize};

/// What a farm module goes by.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Its name, for sentences.
    pub module: String,
    /// A light module: no farm, but one node's own. It has no other member and no addresses.
    pub is_light: bool,
    /// It has virtual addresses: without any it is up as soon as its application is.
    pub has_addresses: bool,
    /// Every member receives every frame (`vmac_invisible`).
    pub is_invisible: bool,
    /// Its scripts open and close the traffic (`scriptcontrol`).
    pub by_script: bool,
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
    /// A module that this one needs does not serve: this node waits, and nothing is counted.
    Lacks {
        /// Which.
        why: String,
    },
    /// The agent was replaced while the module ran; `serving`: its application runs behind addresses and filter.
    Adopted {
        /// Was it up?
        serving: bool,
        /// Had its scripts opened the traffic?
        #[serde(default = "yes")]
        open: bool,
    },
    /// Outcome of [`Action::App`].
    App(AppReport),
    /// Outcome of [`Action::Take`].
    Taken(Taken),
    /// Outcome of [`Action::Release`].
    Released,
    /// News of the other nodes.
    Member(member::Event),
    /// What a node says that has another configuration of this farm's traffic.
    Foreign {
        /// Who.
        from: NodeId,
        /// What.
        word: Word,
    },
    /// A script opens the traffic to this node, or closes it.
    Traffic {
        /// Which.
        open: bool,
    },
    /// This node did not run for so long that the others may have gone on without it.
    Froze,
    /// No connection to the virtual addresses stands here.
    Idle,
    /// A timer is due.
    Expired(Timer),
}

const fn yes() -> bool {
    true
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
    /// Those that meet again have agreed by now.
    Doubt,
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
    /// The filter deals clients out as before, and knows the members of a view that waits, and their lists: what they pass on is no client's.
    Prepare(View),
    /// Frames of a connection that nobody here has are dropped from now on, or answered again.
    Doubt(bool),
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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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

/// See the module's head. Serialised, it is the beginning from which a journal can be replayed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Module {
    settings: Settings,
    member: Member,
    order: Order,
    foreign: Foreign,
    /// What this node wants of the farm, whoever else goes before it.
    wanted: Wish,
    state: State,
    /// The scripts want traffic; always, when it is not theirs to say.
    is_open: bool,
    /// Addresses and filter were taken and not released.
    holds: bool,
    reason: String,
    /// Why it leaves, while it does: how its connections ended is not the reason.
    leaves_for: String,
    loops: u16,
    /// Stopped for a rule, not for a person: it is started again when nothing makes it wait any more.
    #[serde(default)]
    waits: bool,
}

impl Module {
    /// Stopped. `instance`: random per start.
    #[must_use]
    pub fn new(settings: Settings, me: NodeId, instance: u32, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let member = Member::new(me, instance, nodes);
        Self {
            is_open: !settings.by_script,
            order: Order::new(settings.is_invisible),
            settings,
            member,
            foreign: Foreign::default(),
            wanted: Wish::Out,
            state: State::Stop,
            holds: false,
            reason: "stopped".into(),
            leaves_for: String::new(),
            loops: 0,
            waits: false,
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
        matches!(self.state, State::Draining(_)) || (self.state == State::Up && self.wanted == Wish::Drain)
    }

    /// Its start script has returned, and it was not told to stop since.
    #[must_use]
    pub fn is_started(&self) -> bool {
        matches!(self.state, State::Up | State::Draining(_))
    }

    /// Have its scripts opened the traffic? Always, when it is not theirs to say.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// A node with another configuration that goes before this one: nothing is accepted here meanwhile.
    #[must_use]
    pub fn yields_to(&self) -> Option<NodeId> {
        (self.wanted != Wish::Out).then(|| self.foreign.first(&self.member)).flatten()
    }

    /// Has that node another configuration of this farm's traffic?
    pub(super) fn is_foreign(&self, node: NodeId) -> bool {
        self.foreign.has(node)
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
            State::Up if self.yields_to().is_some() => (ModuleState::Wait, Status::NotReady),
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
            State::Up if self.yields_to().is_some() => {
                "another node serves with another configuration of this module".to_string()
            }
            State::Up if !self.is_open => "its scripts have closed the traffic".to_string(),
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
            State::Up if self.yields_to().is_some() => Some(format!(
                "stop it on the nodes that are wrong, then stead config -m {} on one that is right",
                self.settings.module
            )),
            State::Up if !self.is_open => Some(format!("stead farm open -m {}", self.settings.module)),
            State::Blocked => Some(format!("repair it: it is tried again every {} s", REJOIN_MS / 1000)),
            _ => None,
        }
    }

    fn is_serving(&self) -> bool {
        let me = self.member.me();
        (!self.settings.has_addresses && self.is_open) || self.member.view().is_some_and(|view| view.serving().has(me))
    }

    /// The only way in.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Command(command) => self.command(command, &mut out),
            Event::Automatic { command, why } => self.automatic(command, &why, &mut out),
            Event::Lacks { why } => self.lacks(&why, &mut out),
            Event::Adopted { serving, open } => self.adopted(serving, open, &mut out),
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
            Event::Foreign { from, word } => self.differs(from, word, &mut out),
            Event::Traffic { open } => self.traffic(open, &mut out),
            Event::Froze => self.froze(&mut out),
            Event::Idle => self.idle(&mut out),
            Event::Expired(timer) => self.expired(timer, &mut out),
        }
        out
    }
}

#[cfg(test)]
#[path = "module_tests.rs"]
mod tests;
