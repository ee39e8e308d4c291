//! What would follow from something in a farm: copies of its members live through it, in a world where everything else goes well.
//!
//! Pure, and bounded: nothing is touched, and nobody is asked. This node is its automaton; the others are what their last words say, and go on as
//! they are. Scripts and addresses do at once what is wanted, and a heartbeat takes no time. How long connections take to finish is not known:
//! [`Connections`] says it for all of them.

use super::member::{self, Member};
use super::module::{Action, Event, Module, Taken, Timer};
pub use crate::imagine::Would;
use crate::mirror::{App, AppReport, Command};
use crate::scripts::{Scripts, Step};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::farm::{View, Word};
use model::limits::Timing;
use model::{ModuleState, NodeId, Status};

/// Events lived through at most.
const EVENTS_MAX: usize = 2_000;
/// So far into the future at most: no drain takes longer.
const FUTURE_MS: u64 = 3_600_000;
/// Connections are counted so often while they may finish.
const COUNT_MS: u64 = 200;
/// So many counts at most.
const COUNTS_MAX: u32 = 50;

/// What is imagined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Another node is gone at once: no power, no network, or its kernel hangs.
    NodeLost(NodeId),
    /// An operator gives a command here.
    Command(Command),
}

/// Those that stand when this node lets in no new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    /// They finish at once.
    Finish,
    /// They stay for as long as they may.
    Stay,
}

enum Happens {
    Here(Event),
    There(NodeId, member::Event),
}

struct World<'a> {
    module: Module,
    others: BTreeMap<NodeId, Member>,
    names: &'a BTreeMap<NodeId, String>,
    scripts: Scripts,
    queue: VecDeque<Happens>,
    armed: BTreeMap<Timer, u64>,
    /// When connections are counted next, and how often they were.
    count: (Option<u64>, u32),
    now_ms: u64,
    shown: (ModuleState, Status, String),
    told: Vec<Would>,
    connections: Connections,
}

/// What would follow here. `names` of the farm's nodes, this one among them.
#[must_use]
pub fn imagine(
    module: Module,
    names: &BTreeMap<NodeId, String>,
    timing: Timing,
    what: What,
    connections: Connections,
) -> Vec<Would> {
    let me = module.member().me();
    let own = module.member().word();
    let heard = module.member().peers().filter_map(|(node, is_alive, word)| {
        (is_alive == Some(true) && !module.is_foreign(node)).then(|| Some((node, word?.clone())))?
    });
    let mut said: BTreeMap<NodeId, Word> = heard.collect();
    said.insert(me, own);
    let others = said.iter().filter(|(node, _)| **node != me);
    let others = others.map(|(node, word)| (*node, Member::that_says(*node, word, &said))).collect();
    let (state, status) = module.shown();
    let mut world = World {
        scripts: Scripts::of(state),
        shown: (state, status, module.reason()),
        module,
        others,
        names,
        queue: VecDeque::new(),
        armed: BTreeMap::new(),
        count: (None, 0),
        now_ms: 0,
        told: Vec::new(),
        connections,
    };
    match what {
        What::NodeLost(node) => {
            world.others.remove(&node);
            world.now_ms = timing.lost_ms;
            world.queue.push_back(Happens::Here(Event::Member(member::Event::Silent(node))));
            let others: Vec<NodeId> = world.others.keys().copied().collect();
            world.queue.extend(others.into_iter().map(|it| Happens::There(it, member::Event::Silent(node))));
        }
        What::Command(command) => world.queue.push_back(Happens::Here(Event::Command(command))),
    }
    world.live();
    world.told
}

impl World<'_> {
    fn live(&mut self) {
        for _ in 0..EVENTS_MAX {
            self.drain();
            if self.connections == Connections::Finish
                && self.module.is_draining()
                && self.count.0.is_none()
                && self.count.1 < COUNTS_MAX
            {
                self.count = (Some(self.now_ms + COUNT_MS), self.count.1 + 1);
            }
            let timer = self.armed.iter().min_by_key(|(timer, at)| (**at, **timer)).map(|(timer, at)| (*timer, *at));
            if let Some(at) = self.count.0.filter(|at| timer.is_none_or(|(_, due)| *at <= due)) {
                self.count.0 = None;
                self.now_ms = self.now_ms.max(at);
                self.queue.push_back(Happens::Here(Event::Idle));
                continue;
            }
            let Some((timer, at)) = timer.filter(|(_, at)| *at <= FUTURE_MS) else { return };
            self.armed.remove(&timer);
            self.now_ms = self.now_ms.max(at);
            self.queue.push_back(Happens::Here(Event::Expired(timer)));
        }
    }

    fn drain(&mut self) {
        for _ in 0..EVENTS_MAX {
            match self.queue.pop_front() {
                None => return,
                Some(Happens::Here(event)) => {
                    let actions = self.module.handle(event);
                    let (answers, actions): (Vec<_>, Vec<_>) =
                        actions.into_iter().partition(|action| matches!(action, Action::Reply { .. }));
                    answers.into_iter().for_each(|answer| self.fulfil(answer));
                    self.tell_where();
                    actions.into_iter().for_each(|action| self.fulfil(action));
                }
                Some(Happens::There(node, event)) => {
                    let Some(other) = self.others.get_mut(&node) else { continue };
                    if other.handle(event).contains(&member::Action::Tell) {
                        let word = other.word();
                        self.say(node, &word);
                    }
                }
            }
        }
    }

    /// Everybody else hears it.
    fn say(&mut self, from: NodeId, word: &Word) {
        let said = || member::Event::Said { from, word: word.clone() };
        if from != self.module.member().me() {
            self.queue.push_back(Happens::Here(Event::Member(said())));
        }
        let others: Vec<NodeId> = self.others.keys().copied().filter(|node| *node != from).collect();
        self.queue.extend(others.into_iter().map(|node| Happens::There(node, said())));
    }

    fn tell(&mut self, said: String) {
        if self.told.last().is_none_or(|last| last.said != said) {
            self.told.push(Would { after_ms: self.now_ms, said });
        }
    }

    fn tell_where(&mut self) {
        let ((state, status), reason) = (self.module.shown(), self.module.reason());
        let now = (state, status, reason);
        if now != self.shown {
            self.tell(format!("{state} {status}: {}", now.2));
            self.shown = now;
        }
    }

    fn fulfil(&mut self, action: Action) {
        let has_addresses = self.module.settings().has_addresses;
        match action {
            Action::Journal { sentence, .. } => self.tell(sentence),
            Action::Reply { accepted, sentence } => {
                self.tell(format!("{}: {sentence}", if accepted { "accepted" } else { "refused" }));
            }
            Action::App(app) => self.run(app),
            Action::Take => {
                if has_addresses {
                    self.tell("the virtual IPs are taken".to_string());
                }
                self.queue.push_back(Happens::Here(Event::Taken(Taken::Held)));
            }
            Action::Release => self.queue.push_back(Happens::Here(Event::Released)),
            Action::Show(view, why) if !self.module.settings().is_light => {
                let (names, director) = self.names_of(&view);
                self.tell(format!("farm membership: {names} (directed by {director}): {}", why.sentence()));
            }
            Action::Hide if !self.module.settings().is_light => {
                self.tell("farm membership: none; nothing is accepted for the virtual IPs".to_string());
            }
            Action::Announce if has_addresses => {
                self.tell("this node answers for the virtual IPs".to_string());
            }
            Action::Tell => {
                let (me, word) = (self.module.member().me(), self.module.member().word());
                self.say(me, &word);
            }
            Action::Arm(timer, ms) => {
                self.armed.insert(timer, self.now_ms.saturating_add(ms));
            }
            Action::Disarm(timer) => {
                self.armed.remove(&timer);
            }
            Action::Show(..) | Action::Prepare(_) | Action::Doubt(_) | Action::Hide | Action::Announce => {}
        }
    }

    fn names_of(&self, view: &View) -> (String, String) {
        let name = |node: NodeId| self.names.get(&node).cloned().unwrap_or_else(|| format!("node number {}", node.0));
        let names: Vec<String> = view.serving().nodes().map(name).collect();
        (names.join(" "), name(view.director))
    }

    fn run(&mut self, wanted: App) {
        for step in self.scripts.plan(wanted, self.module.shown().0) {
            if let Step::Run(run) = step {
                self.tell(format!("script {run}"));
            }
        }
        let report = match wanted {
            App::Prepare => Some(AppReport::Prepared),
            App::Start => Some(AppReport::Started),
            App::Stop { .. } => Some(AppReport::Stopped),
            App::Release { .. } => Some(AppReport::Released),
            App::Role { .. } => None,
        };
        self.queue.extend(report.map(|report| Happens::Here(Event::App(report))));
    }
}

#[cfg(test)]
#[path = "imagine_tests.rs"]
mod tests;
