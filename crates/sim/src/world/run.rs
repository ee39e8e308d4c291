//! Lets a world run by itself, in the order of a virtual clock, without faults.

use super::plane::{Mode, Phase};
use super::step::Step;
use super::{Packet, Rules, Who, World, bit, other};
use cluster::mirror::{Command, Mirror, Policy, Timer};
use cluster::witness::{self, Contact};
use model::limits::{LOST_MS, Timing, WINDOW_MS};
use model::{ModuleState, Status};
use std::collections::BTreeMap;

/// What waits for a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Silent(Who),
    Window(Who),
    Timer(Who, u16),
}

impl World {
    /// A pair that is whole: node1 PRIM, node2 SECOND, one epoch, nothing on its way.
    ///
    /// # Panics
    /// When the automata do not get there: then nothing else needs to be looked at.
    #[must_use]
    pub fn whole(rules: Rules) -> Self {
        let mut world = Self::new(rules);
        world.make(Step::Command(0, Command::Prim { force: false, full: false }));
        world.make(Step::Command(1, Command::Start));
        world.calm(20_000);
        assert!(world.is_whole(), "a first start ends whole:\n{}", world.describe());
        world.packets.clear();
        for node in &mut world.nodes {
            node.timers = 0;
        }
        world
    }

    /// PRIM and SECOND, both Ready, equal trees.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let shown: Vec<_> = (0..2).filter_map(|who| self.agent(who).map(Mirror::advert)).collect();
        let has = |state| shown.iter().any(|advert| advert.state == state && advert.status == Status::Ready);
        has(ModuleState::Prim) && has(ModuleState::Second) && self.nodes[0].tree == self.nodes[1].tree
    }

    /// Runs for so long on the virtual clock; what has no clock happens at once.
    pub fn calm(&mut self, for_ms: u64) {
        let mut now = 0;
        let mut due: BTreeMap<Due, u64> = BTreeMap::new();
        for _ in 0..4_000 {
            if let Some(step) = self.at_once() {
                self.make(step);
                continue;
            }
            self.schedule(now, &mut due);
            let Some((what, at)) = due.iter().map(|(what, at)| (*what, *at)).min_by_key(|(what, at)| (*at, *what))
            else {
                return;
            };
            if at > for_ms {
                return;
            }
            now = at;
            due.remove(&what);
            match what {
                Due::Silent(who) => self.make(Step::Silent(who)),
                Due::Window(who) => {
                    // Once per silence.
                    due.insert(what, u64::MAX);
                    self.make(Step::WindowPasses(who))
                }
                Due::Timer(who, mask) => {
                    let timer = Timer::ALL.into_iter().find(|timer| bit(*timer) == mask);
                    timer.is_some_and(|timer| self.make(Step::Expire(who, timer)))
                }
            };
        }
    }

    fn schedule(&self, now: u64, due: &mut BTreeMap<Due, u64>) {
        due.retain(|what, _| match what {
            Due::Silent(who) => self.may(Step::Silent(*who)),
            Due::Window(who) => self.may(Step::WindowPasses(*who)),
            Due::Timer(who, mask) => self.agent_runs(*who) && self.nodes[*who].timers & mask != 0,
        });
        for who in [0, 1] {
            if self.may(Step::Silent(who)) {
                due.entry(Due::Silent(who)).or_insert(now + LOST_MS);
            }
            if self.may(Step::WindowPasses(who)) {
                due.entry(Due::Window(who)).or_insert(now + WINDOW_MS);
            }
            for timer in Timer::ALL {
                if self.agent_runs(who) && self.nodes[who].timers & bit(timer) != 0 {
                    due.entry(Due::Timer(who, bit(timer)))
                        .or_insert(now + timer.duration_ms(&Timing::DEFAULT, &Policy::default()));
                }
            }
        }
    }

    /// Makes the first step that needs no time; `false`: there is none.
    pub fn step_at_once(&mut self) -> bool {
        self.at_once().is_some_and(|step| self.make(step))
    }

    /// The first thing that needs no time.
    fn at_once(&self) -> Option<Step> {
        let mut steps = vec![];
        for who in [0, 1] {
            steps.extend([Step::Stored(who), Step::Hear(who)]);
        }
        if !self.late {
            steps.extend((0..self.packets.len()).map(|i| Step::Deliver(i as u8)));
        }
        for who in [0, 1] {
            if self.pulse_matters(who) {
                steps.push(Step::Pulse(who));
            }
            steps.extend([
                Step::Connect(who),
                Step::Copied(who),
                Step::CommitArrives(who),
                Step::CommittedArrives(who),
                Step::Apply(who),
                Step::Acknowledge(who),
                Step::LinkLost(who),
                Step::LeaseLapses(who),
            ]);
        }
        let waits = |step: &Step| self.copies_wait && matches!(step, Step::Copied(_));
        steps.into_iter().find(|step| !waits(step) && self.may(*step))
    }

    /// Would a pulse change anything, here or at the witness?
    #[must_use]
    pub fn pulse_matters(&self, who: Who) -> bool {
        if !self.may(Step::Pulse(who)) {
            return false;
        }
        let Some(question) = self.agent(who).and_then(Mirror::pulse) else { return false };
        let Some(machine) = self.agent(who).and_then(Mirror::voter).and_then(|voter| self.machine(voter)) else {
            return false;
        };
        let contact = Contact { silent_ms: 0, last: None };
        let (changed, answer) = witness::answer(&machine.record, &question, &contact);
        changed.is_some() || matches!(answer, witness::Answer::Register { .. })
    }

    /// Ends all faults, and gives the pair time.
    pub fn heal(&mut self) {
        let repairs = [
            Step::Heal,
            Step::WitnessStarts,
            Step::Thaw(0),
            Step::Thaw(1),
            Step::Unhang(0),
            Step::Unhang(1),
            Step::HealClients(0),
            Step::HealClients(1),
            Step::Opens(0),
            Step::Opens(1),
            Step::HealWitness(0),
            Step::HealWitness(1),
            Step::PowerOn(0),
            Step::PowerOn(1),
            Step::AgentStarts(0),
            Step::AgentStarts(1),
        ];
        for step in repairs {
            self.make(step);
        }
        for who in [0, 1] {
            self.nodes[who].scripts.hanging.clear();
            while self.may(Step::ScriptTimesOut(who)) {
                self.make(Step::ScriptTimesOut(who));
            }
        }
        for _ in 0..4 {
            if self.is_whole() {
                return;
            }
            self.calm(15_000);
        }
    }

    /// For a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for who in [0, 1] {
            let node = &self.nodes[who];
            let power = match (node.on, node.frozen, node.hung) {
                (false, ..) => "no power",
                (_, true, _) => "frozen",
                (_, _, true) => "programs hang",
                _ => "on",
            };
            let agent = self.agent(who).map_or_else(
                || "agent dead".to_string(),
                |agent| {
                    let view = agent.view();
                    format!("{} {} ({})", view.state, view.status, view.reason)
                },
            );
            let record = &node.disk_record;
            let epoch =
                record.epoch.map_or_else(|| "none".to_string(), |epoch| format!("{}.{}", epoch.counter, epoch.node.0));
            let mode = self.mode(who).map_or("no mirrorfs", |mode| match mode {
                Mode::Idle => "idle",
                Mode::Hold(_) => "holding",
                Mode::Alone(_, None) => "open",
                Mode::Alone(_, Some((.., Phase::Through))) => "open, resync through",
                Mode::Alone(_, Some(_)) => "open, resync",
                Mode::Resuming(_) => "resuming",
                Mode::Committing(..) => "committing",
                Mode::Mirrored(_) => "mirrored",
                Mode::Following { complete: true, .. } => "following",
                Mode::Following { .. } => "target",
            });
            text.push_str(&format!(
                "  node{}: {power}, {agent}; disk: epoch {epoch} {:?} {:?}{}; {mode}; tree [{}] synced [{}]{}{}\n",
                who + 1,
                record.role,
                record.data,
                if record.yielded { " yielded" } else { "" },
                super::check::names(node.tree),
                super::check::names(node.disk),
                if node.vip { "; VIP" } else { "" },
                if node.app { "; application" } else { "" },
            ));
        }
        if let Some(witness) = &self.witness {
            let granted =
                witness.record.granted.map_or_else(|| "none".to_string(), |e| format!("{}.{}", e.counter, e.node.0));
            text.push_str(&format!("  witness: {}, granted {granted}\n", if witness.up { "on" } else { "off" }));
        }
        for packet in &self.packets {
            text.push_str(&format!("  on its way: {}\n", describe_packet(packet)));
        }
        text
    }
}

/// A packet in a few words.
#[must_use]
pub fn describe_packet(packet: &Packet) -> String {
    use cluster::mirror::Message;
    match packet {
        Packet::Peer(to, message) => {
            let what = match message {
                Message::Hello { ticket, .. } => format!("HELLO {}.{}", ticket.boots, ticket.n),
                Message::Welcome { to, answer, .. } => format!("WELCOME to {}.{} {answer:?}", to.boots, to.n),
                Message::Nudge => "nudge".to_string(),
                Message::SwapPlease => "swap, please".to_string(),
                Message::Witnesses { take, .. } => format!("take {take:?}"),
                Message::WitnessesStored { have, .. } => format!("stored {have:?}"),
            };
            format!("{what} from node{} to node{}", other(*to) + 1, to + 1)
        }
        Packet::Question(_, question) => match question {
            witness::Question::Ask { node, ticket, .. } => {
                format!("question {}.{} of node{}", ticket.boots, ticket.n, node.0)
            }
            witness::Question::Pulse { node, .. } => format!("pulse of node{}", node.0),
        },
        Packet::Answer(to, answer) => format!("{answer:?} to node{}", to + 1),
    }
}
