//! Everything that may happen next in a world, and what it does.

use super::plane::{Mode, Phase};
use super::{Broken, Packet, Set, Who, World, bit, other, settings};
use cluster::mirror::{Command, Event, Mirror, Timer};
use cluster::witness::{self, Answer, Contact, PeerWord, Question};
use model::orders::{Begin, Progress, Report, Situation};
use model::{DataState, NodeId};
use std::sync::Arc;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The i-th packet arrives.
    Deliver(u8),
    /// The i-th packet arrives, and will arrive again.
    Repeat(u8),
    /// The i-th packet is lost.
    Lose(u8),
    /// The record this node is storing is on disk.
    Stored(Who),
    /// A timer expires.
    Expire(Who, Timer),
    /// The detector hears the peer.
    Hear(Who),
    /// The detector finds the peer silent.
    Silent(Who),
    /// The takeover window of this node passes.
    WindowPasses(Who),
    /// This node's pulse reaches the witness.
    Pulse(Who),
    /// The application writes.
    Write(Who),
    /// The follower applies what is on the link.
    Apply(Who),
    /// The leader hears the acknowledgement.
    Acknowledge(Who),
    /// The application's fsync returns.
    Fsync(Who),
    /// Leader and follower of one session connect.
    Connect(Who),
    /// The resync is through.
    Copied(Who),
    /// COMMIT arrives at the target.
    CommitArrives(Who),
    /// COMMITTED arrives at the source.
    CommittedArrives(Who),
    /// A data plane notices that its link is gone.
    LinkLost(Who),
    /// No agent: the lease passes.
    LeaseLapses(Who),
    /// Power is lost; these un-synced writes survive; a store that was begun reached the disk.
    PowerCut(Who, Set, bool),
    /// Power is back.
    PowerOn(Who),
    /// The agent dies; a store that was begun reached the disk.
    AgentDies(Who, bool),
    /// It is started again.
    AgentStarts(Who),
    /// `mirrorfs` is killed.
    PlaneDies(Who),
    /// The machine is paused.
    Freeze(Who),
    /// It goes on.
    Thaw(Who),
    /// Its programs hang.
    Hang(Who),
    /// They go on.
    Unhang(Who),
    /// The network between the nodes is cut.
    Cut,
    /// It is whole again.
    Heal,
    /// The clients' network is cut at this node.
    CutClients(Who),
    /// It is whole again.
    HealClients(Who),
    /// The way to the witness is cut.
    CutWitness(Who),
    /// It is whole again.
    HealWitness(Who),
    /// The witness stops.
    WitnessStops,
    /// The witness starts.
    WitnessStarts,
    /// The witness starts without its memory.
    WitnessForgets,
    /// An operator.
    Command(Who, Command),
}

impl World {
    /// Makes a step; `false`: it is not possible here.
    pub fn make(&mut self, step: Step) -> bool {
        if !self.may(step) {
            return false;
        }
        self.act(step);
        self.adverts();
        self.settle(0);
        self.settle(1);
        true
    }

    /// Is this step possible now?
    #[must_use]
    pub fn may(&self, step: Step) -> bool {
        let follower_of = |who: Who| self.follower(who).is_some();
        match step {
            Step::Deliver(i) | Step::Repeat(i) => {
                let Some(packet) = self.packets.get(usize::from(i)) else { return false };
                match packet {
                    Packet::Peer(to, _) | Packet::Answer(to, _) => self.agent_runs(*to),
                    Packet::Question(_) => self.witness.as_ref().is_some_and(|witness| witness.up),
                }
            }
            Step::Lose(i) => usize::from(i) < self.packets.len(),
            Step::Stored(who) => self.agent_runs(who) && self.nodes[who].storing.is_some(),
            Step::Expire(who, timer) => self.agent_runs(who) && self.nodes[who].timers & bit(timer) != 0,
            Step::Hear(who) => {
                !self.cut
                    && self.agent_runs(who)
                    && self.agent_runs(other(who))
                    && self.agent(who).is_some_and(|agent| agent.hears().is_none())
            }
            Step::Silent(who) => {
                self.agent_runs(who)
                    && (self.cut || !self.agent_runs(other(who)))
                    && self.agent(who).is_some_and(|agent| agent.hears().is_some() || !agent.knows_peer())
            }
            Step::WindowPasses(who) => self.agent_runs(who) && (self.cut || !self.agent_runs(other(who))),
            Step::Pulse(who) => {
                self.agent_runs(who)
                    && self.witness_reachable(who)
                    && self.agent(who).is_some_and(|a| a.pulse().is_some())
            }
            Step::Write(who) => {
                self.plane_runs(who)
                    && self.nodes[who].app
                    && match self.mode(who) {
                        Some(Mode::Mirrored(_)) => true,
                        Some(Mode::Alone(_, lead)) => !matches!(lead, Some((.., Phase::Through))),
                        _ => false,
                    }
            }
            Step::Apply(who) => {
                matches!(self.mode(who), Some(Mode::Mirrored(_)))
                    && self.nodes[who].plane.as_ref().is_some_and(|plane| plane.unacked & !plane.acks != 0)
                    && follower_of(who)
                    && !self.cut
            }
            Step::Acknowledge(who) => {
                self.plane_runs(who)
                    && matches!(self.mode(who), Some(Mode::Mirrored(_)))
                    && self.nodes[who].plane.as_ref().is_some_and(|plane| plane.acks != 0)
            }
            Step::Fsync(who) => {
                self.plane_runs(who)
                    && self.nodes[who].app
                    && match self.mode(who) {
                        Some(Mode::Mirrored(_)) => {
                            follower_of(who)
                                && !self.cut
                                && self.nodes[who].plane.as_ref().is_some_and(|p| p.unacked == 0)
                        }
                        Some(Mode::Alone(_, lead)) => !matches!(lead, Some((.., Phase::Through))),
                        _ => false,
                    }
                    && self.ghost.acked & !self.ghost.fsynced != 0
            }
            Step::Connect(who) => {
                !self.cut
                    && matches!(self.mode(who), Some(Mode::Resuming(_) | Mode::Alone(_, Some((.., Phase::Connecting)))))
                    && follower_of(who)
            }
            Step::Copied(who) => {
                !self.cut
                    && matches!(self.mode(who), Some(Mode::Alone(_, Some((.., Phase::Copying)))))
                    && follower_of(who)
            }
            Step::CommitArrives(who) => {
                !self.cut
                    && matches!(self.mode(who), Some(Mode::Committing(..)))
                    && matches!(self.follower(who), Some((_, false)))
                    // The target has not been asked yet.
                    && self.nodes[other(who)].storing.is_none()
            }
            Step::CommittedArrives(who) => {
                !self.cut
                    && self.plane_runs(who)
                    && matches!(self.mode(who), Some(Mode::Committing(..)))
                    && matches!(self.follower(who), Some((_, true)))
            }
            Step::LinkLost(who) => {
                let Some(plane) = &self.nodes[who].plane else { return false };
                self.plane_runs(who)
                    && match plane.mode {
                        Mode::Following { session, linked: true, .. } => {
                            self.cut || !self.plane_runs(other(who)) || self.session(other(who)) != Some(session)
                        }
                        Mode::Following { .. } => false,
                        _ => plane.session().is_some() && (self.cut || !follower_of(who)),
                    }
            }
            Step::LeaseLapses(who) => {
                let node = &self.nodes[who];
                self.runs(who)
                    && node.agent.is_none()
                    && matches!(
                        self.mode(who),
                        Some(
                            Mode::Mirrored(_)
                                | Mode::Alone(_, Some(_))
                                | Mode::Resuming(_)
                                | Mode::Committing(..)
                                | Mode::Following { linked: true, .. }
                        )
                    )
            }
            Step::PowerCut(who, kept, stored) => {
                let node = &self.nodes[who];
                node.on && kept & !(node.tree & !node.disk) == 0 && (!stored || node.storing.is_some())
            }
            Step::PowerOn(who) => !self.nodes[who].on,
            Step::AgentDies(who, stored) => self.agent_runs(who) && (!stored || self.nodes[who].storing.is_some()),
            Step::AgentStarts(who) => self.runs(who) && self.nodes[who].agent.is_none(),
            Step::PlaneDies(who) => self.plane_runs(who),
            Step::Freeze(who) => self.nodes[who].on && !self.nodes[who].frozen && !self.nodes[who].hung,
            Step::Hang(who) => self.nodes[who].on && !self.nodes[who].frozen && !self.nodes[who].hung,
            Step::Thaw(who) => self.nodes[who].on && self.nodes[who].frozen,
            Step::Unhang(who) => self.nodes[who].on && self.nodes[who].hung,
            Step::Cut => !self.cut,
            Step::Heal => self.cut,
            Step::CutClients(who) => !self.nodes[who].client_cut,
            Step::HealClients(who) => self.nodes[who].client_cut,
            Step::CutWitness(who) => self.witness.is_some() && !self.nodes[who].witness_cut,
            Step::HealWitness(who) => self.nodes[who].witness_cut,
            Step::WitnessStops => self.witness.as_ref().is_some_and(|witness| witness.up),
            Step::WitnessStarts | Step::WitnessForgets => self.witness.as_ref().is_some_and(|witness| !witness.up),
            Step::Command(who, _) => self.agent_runs(who),
        }
    }

    /// The automaton of a node.
    #[must_use]
    pub fn agent(&self, who: Who) -> Option<&Mirror> {
        self.nodes[who].agent.as_deref()
    }

    /// What its data plane does.
    #[must_use]
    pub fn mode(&self, who: Who) -> Option<Mode> {
        self.nodes[who].plane.as_ref().map(|plane| plane.mode)
    }

    fn session(&self, who: Who) -> Option<model::orders::Session> {
        self.nodes[who].plane.as_ref().and_then(super::plane::Plane::session)
    }

    /// The running follower of the session this node leads, and whether it is complete.
    pub(super) fn follower(&self, who: Who) -> Option<(Who, bool)> {
        let there = other(who);
        let session = self.session(who)?;
        match (self.plane_runs(who), self.plane_runs(there), self.mode(there)) {
            (true, true, Some(Mode::Following { session: theirs, complete, .. })) if theirs == session => {
                Some((there, complete))
            }
            _ => None,
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Deliver(i) => {
                let packet = self.packets.remove(usize::from(i));
                self.arrive(packet);
            }
            Step::Repeat(i) => {
                let packet = self.packets[usize::from(i)].clone();
                self.arrive(packet);
            }
            Step::Lose(i) => {
                self.packets.remove(usize::from(i));
            }
            Step::Stored(who) => {
                if let Some((id, record)) = self.nodes[who].storing.take() {
                    self.put(who, *record);
                    self.tell(who, Event::Stored { id });
                }
            }
            Step::Expire(who, timer) => {
                // R18's arithmetic: a primary's patience outlasts the window and the deadline of its peer's claim.
                if timer == Timer::Alone {
                    self.window_passes(other(who));
                    if self.nodes[other(who)].timers & bit(Timer::Store) != 0 {
                        self.expire(other(who), Timer::Store);
                    }
                }
                self.expire(who, timer);
            }
            Step::Hear(who) => {
                if let Some(advert) = self.agent(other(who)).map(Mirror::advert) {
                    self.tell(who, Event::WindowOpened);
                    self.tell(who, Event::PeerHeard(advert));
                }
            }
            Step::Silent(who) => self.tell(who, Event::PeerSilent),
            Step::WindowPasses(who) => self.window_passes(who),
            Step::Pulse(who) => {
                if let Some(question) = self.agent(who).and_then(Mirror::pulse) {
                    let answer = self.witness_answers(&question);
                    self.tell(who, Event::Witness(answer));
                }
            }
            Step::Command(who, command) => {
                match command {
                    Command::Stop | Command::ForceStop => self.nodes[who].wanted = false,
                    Command::Start | Command::Prim { .. } | Command::Second { .. } => self.nodes[who].wanted = true,
                    Command::Restart | Command::StopStart | Command::Swap => {}
                }
                // An operator's word stands above the promises: what it costs is said, and kept in quarantine.
                if matches!(command, Command::Prim { .. }) && self.nodes[who].disk_record.epoch.is_some() {
                    self.ghost.forced = true;
                }
                let empty = self.nodes[who].tree == 0;
                self.tell(who, Event::Tree { empty });
                self.tell(who, Event::Command(command));
            }
            Step::Write(who) => self.write(who),
            Step::Apply(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    let sent = plane.unacked;
                    plane.acks = sent;
                    self.nodes[other(who)].tree |= sent;
                }
            }
            Step::Acknowledge(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    let acks = std::mem::take(&mut plane.acks);
                    plane.unacked &= !acks;
                    self.acknowledged(who, acks, true);
                }
            }
            Step::Fsync(who) => {
                self.nodes[who].disk = self.nodes[who].tree;
                if matches!(self.mode(who), Some(Mode::Mirrored(_))) {
                    let there = other(who);
                    self.nodes[there].disk = self.nodes[there].tree;
                }
                self.ghost.fsynced |= self.ghost.acked & self.nodes[who].tree;
            }
            Step::Connect(who) => self.connect(who),
            Step::Copied(who) => self.copied(who),
            Step::CommitArrives(who) => {
                let there = other(who);
                if let Some(session) = self.session(who) {
                    if self.rules.broken != Some(Broken::R8TargetNotSynced) {
                        self.nodes[there].disk = self.nodes[there].tree;
                    }
                    self.tell(there, Event::Plane(Report::CommitReceived { session }));
                }
            }
            Step::CommittedArrives(who) => {
                if let Some(session) = self.session(who) {
                    let node = &mut self.nodes[who];
                    node.disk = node.tree;
                    node.dirty = 0;
                    if let Some(plane) = &mut node.plane {
                        plane.mode = Mode::Mirrored(session);
                        plane.memory = Some(session.epoch);
                    }
                    self.tell(who, Event::Plane(Report::Committed { session, progress: Progress::default() }));
                }
            }
            Step::LinkLost(who) => {
                if let Some(session) = self.session(who) {
                    if let Some(plane) = &mut self.nodes[who].plane {
                        plane.drop_link();
                    }
                    self.tell(who, Event::Plane(Report::LinkLost { session, reason: "closed".to_string() }));
                }
            }
            Step::LeaseLapses(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    plane.drop_link();
                }
            }
            Step::PowerCut(who, kept, stored) => self.power_cut(who, kept, stored),
            Step::PowerOn(who) => {
                self.nodes[who].on = true;
                self.nodes[who].boots += 1;
                self.agent_starts(who);
            }
            Step::AgentDies(who, stored) => self.agent_dies(who, stored),
            Step::AgentStarts(who) => self.agent_starts(who),
            Step::PlaneDies(who) => {
                self.nodes[who].plane = None;
                self.tell(who, Event::PlaneDied);
            }
            Step::Freeze(who) => self.nodes[who].frozen = true,
            Step::Hang(who) => self.nodes[who].hung = true,
            Step::Thaw(who) | Step::Unhang(who) => {
                self.nodes[who].frozen = false;
                self.nodes[who].hung = false;
                self.nodes[who].inbox.insert(0, Event::Froze);
                self.nodes[who].inbox.insert(1, Event::WindowClosed);
                if self.nodes[who].timers & bit(Timer::Store) != 0 {
                    self.nodes[who].timers &= !bit(Timer::Store);
                    self.nodes[who].inbox.insert(2, Event::Expired(Timer::Store));
                }
                self.settle(who);
            }
            Step::Cut => self.cut = true,
            Step::Heal => {
                self.cut = false;
                for who in [0, 1] {
                    if self.agent_runs(who)
                        && self.agent_runs(other(who))
                        && self.agent(who).is_some_and(|a| a.hears().is_some())
                    {
                        self.tell(who, Event::WindowOpened);
                    }
                }
            }
            Step::CutClients(who) => self.nodes[who].client_cut = true,
            Step::HealClients(who) => self.nodes[who].client_cut = false,
            Step::CutWitness(who) => self.nodes[who].witness_cut = true,
            Step::HealWitness(who) => self.nodes[who].witness_cut = false,
            Step::WitnessStops => {
                if let Some(witness) = &mut self.witness {
                    witness.up = false;
                }
            }
            Step::WitnessStarts => {
                if let Some(witness) = &mut self.witness {
                    witness.up = true;
                }
            }
            Step::WitnessForgets => {
                let believes = self.rules.broken == Some(Broken::R15EmptyGrants);
                if let Some(witness) = &mut self.witness {
                    let mut record = cluster::witness::Ledger::empty(witness.record.incarnation + 1);
                    if believes {
                        record.registered = vec![NodeId(1), NodeId(2)];
                    }
                    witness.record = record;
                    witness.up = true;
                }
            }
        }
    }

    fn expire(&mut self, who: Who, timer: Timer) {
        self.nodes[who].timers &= !bit(timer);
        if self.agent_runs(who) {
            self.tell(who, Event::Expired(timer));
        } else if self.nodes[who].agent.is_some() {
            self.nodes[who].inbox.push(Event::Expired(timer));
        }
    }

    fn window_passes(&mut self, who: Who) {
        if self.rules.broken != Some(Broken::R18NoWindow) && self.agent_runs(who) {
            self.tell(who, Event::WindowClosed);
        }
    }

    /// What each agent hears of the other's state, while it hears it.
    fn adverts(&mut self) {
        for _ in 0..2 {
            for who in [0, 1] {
                let there = other(who);
                if self.cut || !self.agent_runs(who) || !self.agent_runs(there) {
                    continue;
                }
                if let (Some(heard), Some(said)) =
                    (self.agent(who).and_then(|agent| agent.hears()), self.agent(there).map(Mirror::advert))
                    && heard != said
                {
                    self.tell(who, Event::PeerHeard(said));
                }
            }
        }
    }

    fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::Peer(to, message) => self.tell(to, Event::Message(message)),
            Packet::Question(question) => {
                let (Question::Ask { node, .. } | Question::Pulse { node, .. }) = &question;
                let who = usize::from(node.0) - 1;
                let answer = self.witness_answers(&question);
                let packet = Packet::Answer(who, answer);
                if !self.nodes[who].witness_cut && self.nodes[who].on && !self.packets.contains(&packet) {
                    self.packets.push(packet);
                    self.packets.sort_unstable();
                }
            }
            Packet::Answer(to, answer) => {
                let answer = match (self.rules.broken, self.agent(to).and_then(Mirror::open_question)) {
                    (Some(Broken::R10AnyAnswer), Some(open)) => re_address(answer, open),
                    _ => answer,
                };
                self.tell(to, Event::Witness(answer));
            }
        }
    }

    fn witness_answers(&mut self, question: &Question) -> Answer {
        let (Question::Ask { peer, .. } | Question::Pulse { peer, .. }) = question;
        let there = usize::from(peer.0) - 1;
        // "In contact" is exact; whoever is not was silent for longer than anybody waits.
        let word = if self.agent_runs(there) && !self.nodes[there].witness_cut {
            self.agent(there).filter(|agent| agent.pulse().is_some()).map(|agent| PeerWord {
                full_candidate: agent.record().data == DataState::Full && !agent.record().yielded,
                history: agent.record().history.clone(),
            })
        } else {
            None
        };
        let contact = Contact { silent_ms: if word.is_some() { 0 } else { u64::MAX }, last: word };
        let Some(witness) = &mut self.witness else { return Answer::Unreachable };
        let (changed, answer) = witness::answer(&witness.record, question, &contact);
        if let Some(record) = changed {
            witness.record = record;
        }
        answer
    }

    fn write(&mut self, who: Who) {
        let write = 1 << self.ghost.made;
        self.ghost.made += 1;
        let node = &mut self.nodes[who];
        let Some(plane) = &mut node.plane else { return };
        // Local first. Alone, the zone is in the map before the data is written.
        node.tree |= write;
        if matches!(plane.mode, Mode::Alone(..)) {
            node.dirty |= write;
            self.acknowledged(who, write, false);
        } else {
            plane.unacked |= write;
        }
    }

    fn acknowledged(&mut self, who: Who, writes: Set, mirrored: bool) {
        // A late acknowledgement of what the other one has is none of a second history: lost() looks whether it has it.
        self.ghost.acked |= writes;
        for write in (0..8).filter(|write| writes & (1 << write) != 0) {
            self.ghost.held_by[write] = if mirrored { 0b11 } else { 1 << who };
        }
    }

    fn connect(&mut self, who: Who) {
        let there = other(who);
        let Some(session) = self.session(who) else { return };
        let (resumes, source_tree) = (matches!(self.mode(who), Some(Mode::Resuming(_))), self.nodes[who].tree);
        let _ = source_tree;
        if resumes {
            let fits =
                |node: &super::Node| node.plane.as_ref().is_some_and(|plane| plane.memory == Some(session.epoch));
            if !(fits(&self.nodes[who]) && fits(&self.nodes[there])) {
                if let Some(plane) = &mut self.nodes[who].plane {
                    plane.mode = Mode::Hold(Some(session.epoch));
                }
                self.tell(who, Event::Plane(Report::CannotResume { session }));
                self.tell(there, Event::Plane(Report::CannotResume { session }));
                return;
            }
            if let Some(plane) = &mut self.nodes[who].plane {
                plane.mode = Mode::Mirrored(session);
            }
        } else if let Some(plane) = &mut self.nodes[who].plane
            && let Mode::Alone(epoch, Some((session, begin, _))) = plane.mode
        {
            plane.mode = Mode::Alone(epoch, Some((session, begin, Phase::Copying)));
        }
        if let Some(plane) = &mut self.nodes[there].plane
            && let Mode::Following { session, begin, complete, .. } = plane.mode
        {
            plane.mode = Mode::Following { session, begin, linked: true, complete };
        }
        self.tell(there, Event::Plane(Report::LinkUp { session }));
        self.tell(who, Event::Plane(Report::LinkUp { session }));
        if resumes {
            let situation = Situation::Following { session, complete: true };
            self.tell(there, Event::Plane(Report::Reached { situation }));
            let situation = Situation::Mirrored { session };
            self.tell(who, Event::Plane(Report::Reached { situation }));
        }
    }

    /// Every zone that must be compared is copied; what else differs stays different.
    fn copied(&mut self, who: Who) {
        let there = other(who);
        let Some(Mode::Alone(epoch, Some((session, begin, _)))) = self.mode(who) else { return };
        let zones = match begin {
            Begin::Resync { full: false, .. } => self.nodes[who].dirty,
            _ => Set::MAX,
        };
        let source = self.nodes[who].tree;
        let target = &mut self.nodes[there];
        target.tree = (target.tree & !zones) | (source & zones);
        target.disk &= target.tree;
        if let Some(plane) = &mut self.nodes[who].plane {
            plane.mode = Mode::Alone(epoch, Some((session, begin, Phase::Through)));
        }
        self.tell(who, Event::Plane(Report::ResyncThrough { session }));
    }

    fn put(&mut self, who: Who, record: model::Record) {
        // L2: a copy that lost power serves because its peer, alive, reaches neither it nor the witness.
        let opens = record.role == model::Role::Alone && self.nodes[who].disk_record.epoch != record.epoch;
        if opens && self.nodes[who].disk_record.data == DataState::Crashed {
            self.ghost.excused |= self.ghost.acked & !self.ghost.fsynced & !self.nodes[who].tree;
        }
        self.nodes[who].disk_record = record;
    }

    fn power_cut(&mut self, who: Who, kept: Set, stored: bool) {
        self.agent_dies(who, stored);
        let node = &mut self.nodes[who];
        node.on = false;
        node.frozen = false;
        node.hung = false;
        node.tree = node.disk | kept;
        node.disk = node.tree;
        node.plane = None;
        node.app = false;
        node.vip = false;
        for lost in &mut self.ghost.lost_by {
            *lost |= 1 << who;
        }
        // Only writes already acknowledged can be lost by this.
        for write in 0..8 {
            if self.ghost.acked & (1 << write) == 0 {
                self.ghost.lost_by[write] = 0;
            }
        }
    }

    fn agent_dies(&mut self, who: Who, stored: bool) {
        if let Some((_, record)) = self.nodes[who].storing.take()
            && stored
        {
            self.put(who, *record);
        }
        let node = &mut self.nodes[who];
        node.agent = None;
        node.timers = 0;
        node.inbox.clear();
    }

    fn agent_starts(&mut self, who: Who) {
        let rules = Arc::clone(&self.rules);
        let node = &mut self.nodes[who];
        let mut mirror = Mirror::new(settings(&rules, who, node.boots), node.disk_record.clone());
        let wanted = node.wanted;
        let mut situation = node.plane.as_ref().map(super::plane::Plane::situation);
        if rules.broken == Some(Broken::R20BelievesDisk)
            && node.disk_record.role == model::Role::Primary
            && let Some(epoch) = node.disk_record.epoch
        {
            situation = Some(Situation::Holding { epoch: Some(epoch) });
        }
        let application = node.app;
        mirror.handle(Event::Tree { empty: node.tree == 0 });
        node.agent = Some(Arc::new(mirror));
        if wanted {
            let linked = match self.mode(who) {
                Some(Mode::Following { session, linked: true, .. }) => Some(session),
                _ => None,
            };
            self.nodes[who].inbox.push(Event::Adopted { situation, application });
            self.nodes[who].inbox.extend(linked.map(|session| Event::Plane(Report::LinkUp { session })));
            self.settle(who);
        }
    }
}

fn re_address(answer: Answer, open: cluster::mirror::Ticket) -> Answer {
    match answer {
        Answer::Grant { incarnation, epoch, .. } => Answer::Grant { incarnation, ticket: open, epoch },
        other => other,
    }
}
