//! What would follow from something: a copy of the automaton lives through it, in a world where everything else goes well.
//!
//! Pure, and bounded: nothing is touched, and nobody is asked. What others would say is not known: [`Others`] says yes or no for all of them.
//! Scripts, addresses and the data plane do at once what is wanted.

use crate::mirror::{Action, App, AppReport, Command, Event, Mirror, Proof, Timer, Vip, VipAnswer, VipReport};
use crate::nodata::NoData;
use crate::scripts::{Scripts, Step};
use crate::witness::{Answer, Question, Refusal};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use model::Epoch;
use model::limits::Timing;
use model::orders::Report;

/// Events lived through at most.
const EVENTS_MAX: usize = 500;
/// So far into the future at most.
const FUTURE_MS: u64 = 60_000;

/// What is imagined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The other node is gone at once: no power, no network, or its kernel hangs.
    PeerLost,
    /// An operator gives a command here.
    Command(Command),
}

/// What this node hears from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// The witness grants; the split-brain checker or the gateway answers.
    Agree,
    /// The witness does not answer, nor do they.
    Silent,
}

/// One thing that would happen here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Would {
    /// After this long, not counting the time that scripts and disks take.
    pub after_ms: u64,
    /// The sentence the log would say, or the script that would run.
    pub said: String,
}

struct World {
    mirror: Mirror,
    timing: Timing,
    plane: NoData,
    scripts: Scripts,
    queue: VecDeque<Event>,
    armed: BTreeMap<Timer, u64>,
    now_ms: u64,
    told: Vec<Would>,
    others: Others,
    /// The witness refused lately: it granted the other node an epoch that this copy does not contain. `Some` of it, as far as it is known.
    held: Option<Option<Epoch>>,
}

/// What would follow here.
#[must_use]
pub fn imagine(mirror: Mirror, timing: Timing, what: What, others: Others) -> Vec<Would> {
    let scripts = Scripts::of(mirror.view().state);
    let held = mirror.waits_for_holder().then(|| mirror.granted());
    let mut world = World {
        mirror,
        timing,
        plane: NoData::default(),
        scripts,
        queue: VecDeque::new(),
        armed: BTreeMap::new(),
        now_ms: 0,
        told: Vec::new(),
        others,
        held,
    };
    match what {
        What::PeerLost => {
            // The secondary has confirmed its heartbeats until now.
            world.queue.push_back(Event::WindowOpened);
            world.drain();
            world.now_ms = timing.lost_ms;
            if let Some(session) = world.mirror.view().session.filter(|_| world.mirror.settings().replicated) {
                world.queue.push_back(Event::Plane(Report::LinkLost { session, reason: "it is silent".into() }));
            }
            world.queue.push_back(Event::PeerSilent);
        }
        What::Command(command) => world.queue.push_back(Event::Command(command)),
    }
    world.live();
    world.told
}

impl World {
    fn live(&mut self) {
        for _ in 0..EVENTS_MAX {
            self.drain();
            let next = self.armed.iter().min_by_key(|(timer, at)| (**at, **timer)).map(|(timer, at)| (*timer, *at));
            let Some((timer, at)) = next.filter(|(_, at)| *at <= FUTURE_MS) else { return };
            self.armed.remove(&timer);
            self.now_ms = self.now_ms.max(at);
            self.queue.push_back(Event::Expired(timer));
        }
    }

    fn drain(&mut self) {
        for _ in 0..EVENTS_MAX {
            let Some(event) = self.queue.pop_front() else { return };
            for action in self.mirror.handle(event) {
                self.fulfil(action);
            }
        }
    }

    fn tell(&mut self, said: String) {
        if self.told.last().is_none_or(|last| last.said != said) {
            self.told.push(Would { after_ms: self.now_ms, said });
        }
    }

    fn fulfil(&mut self, action: Action) {
        match action {
            Action::Journal { sentence, .. } => self.tell(sentence),
            Action::Reply { accepted, sentence } => {
                self.tell(format!("{}: {sentence}", if accepted { "accepted" } else { "refused" }));
            }
            Action::Store { id, .. } => self.queue.push_back(Event::Stored { id }),
            Action::Data(order) => self.queue.extend(self.plane.handle(&order).into_iter().map(Event::Plane)),
            Action::KillPlane => self.queue.push_back(Event::PlaneDied),
            Action::Probe => {
                let isolation = (self.others == Others::Silent).then_some(false);
                let proof = Proof { carrier: true, isolation, vip: VipAnswer::Nobody, heard: false };
                self.queue.push_back(Event::Proof(proof));
            }
            Action::Vip(Vip::Up { .. }) => {
                if self.mirror.settings().vip {
                    self.tell("the virtual IPs are taken".into());
                }
                self.queue.push_back(Event::Vip(VipReport::Held));
            }
            Action::Vip(Vip::Down) => self.queue.push_back(Event::Vip(VipReport::Released)),
            Action::App(app) => self.run(app),
            Action::Ask(Question::Ask { .. }) if self.others == Others::Silent => {
                self.queue.push_back(Event::Witness(Answer::Unreachable));
            }
            // What it said last, it says again.
            Action::Ask(Question::Ask { incarnation: Some(incarnation), ticket, .. }) if self.held.is_some() => {
                let granted = self.held.flatten();
                self.queue.push_back(Event::Witness(Answer::Refuse {
                    incarnation,
                    ticket,
                    why: Refusal::Held,
                    granted,
                    granted_unix_ms: None,
                }));
            }
            Action::Ask(Question::Ask { node, incarnation: Some(incarnation), ticket, epoch, random, .. }) => {
                let counter = epoch.map_or(0, |epoch| epoch.counter) + 1;
                let epoch = Epoch { counter, node, random: random.0 };
                self.queue.push_back(Event::Witness(Answer::Grant { incarnation, ticket, epoch }));
            }
            Action::Reboot => self.tell("this node reboots".into()),
            Action::Arm(timer) => {
                let after = timer.duration_ms(&self.timing, &self.mirror.settings().policy);
                self.armed.insert(timer, self.now_ms.saturating_add(after));
            }
            Action::Disarm(timer) => {
                self.armed.remove(&timer);
            }
            Action::Send(_) | Action::Ask(_) | Action::Pulse => {}
        }
    }

    fn run(&mut self, wanted: App) {
        for step in self.scripts.plan(wanted, self.mirror.view().state) {
            if let Step::Run(run) = step {
                self.tell(format!("script {run}"));
            }
        }
        self.queue.extend(match wanted {
            App::Prepare => Some(Event::App(AppReport::Prepared)),
            App::Start => Some(Event::App(AppReport::Started)),
            App::Stop { .. } => Some(Event::App(AppReport::Stopped)),
            App::Release { .. } => Some(Event::App(AppReport::Released)),
            App::Role { .. } => None,
        });
    }
}
