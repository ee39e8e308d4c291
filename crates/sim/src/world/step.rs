//! Everything that may happen next in a world, and what it does.

use super::plane::{Mode, Phase};
use super::{Broken, Packet, SPARE, Set, Who, Witness, World, bit, other, scripts};
use cluster::mirror::{Command, Event, Mirror, Timer};
use model::NodeId;
use model::orders::{Progress, Report};

/// What `syncdelta` orders.
const FORCE: Command = Command::Prim { force: true, full: false };

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
    /// It is killed, and its keeper goes on with its mounts.
    PlaneReplaced(Who),
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
    /// The data plane of this node refuses to open.
    Refuses(Who),
    /// It does not any more.
    Opens(Who),
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
    /// `syncdelta`: both copies were equal lately, the other node is silent, and this one may serve by itself.
    Syncdelta(Who),
    /// The configuration of this node names the other witness from now on.
    Configure(Who),
    /// A script that hangs reaches its timeout (scenarios only).
    ScriptTimesOut(Who),
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
                    Packet::Question(voter, _) => self.machine(*voter).is_some_and(|witness| witness.up),
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
                    && self.reachable_witness(who).is_some()
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
            Step::PlaneReplaced(who) => {
                self.plane_runs(who) && self.nodes[who].plane.as_ref().is_some_and(super::plane::Plane::is_mounted)
            }
            Step::Freeze(who) => self.nodes[who].on && !self.nodes[who].frozen && !self.nodes[who].hung,
            Step::Hang(who) => self.nodes[who].on && !self.nodes[who].frozen && !self.nodes[who].hung,
            Step::Thaw(who) => self.nodes[who].on && self.nodes[who].frozen,
            Step::Unhang(who) => self.nodes[who].on && self.nodes[who].hung,
            Step::Cut => !self.cut,
            Step::Heal => self.cut,
            Step::CutClients(who) => !self.nodes[who].client_cut,
            Step::HealClients(who) => self.nodes[who].client_cut,
            Step::Refuses(who) => !self.nodes[who].refuses,
            Step::Opens(who) => self.nodes[who].refuses,
            Step::CutWitness(who) => self.witness.is_some() && !self.nodes[who].witness_cut,
            Step::HealWitness(who) => self.nodes[who].witness_cut,
            Step::WitnessStops => self.witness.as_ref().is_some_and(|witness| witness.up),
            Step::WitnessStarts | Step::WitnessForgets => self.witness.as_ref().is_some_and(|witness| !witness.up),
            Step::Command(who, _) => self.agent_runs(who),
            Step::Syncdelta(who) => {
                let any = self.rules.broken == Some(Broken::SyncdeltaAnyCopy);
                let may = |agent: &Mirror| match any {
                    true => agent.phase() == "Wait",
                    false => agent.accepts_scheduled(FORCE),
                };
                // The order waits for fifteen seconds of silence (`standing::SILENCE_MS`): no call of before lives so long.
                let is_late = !self.packets.iter().any(|packet| matches!(packet, Packet::Peer(to, _) if *to == who));
                is_late && self.agent_runs(who) && self.agent(who).is_some_and(may)
            }
            Step::Configure(who) => self.witness.is_some() && self.agent_runs(who) && !self.nodes[who].successor,
            Step::ScriptTimesOut(who) => self.agent_runs(who) && self.nodes[who].scripts.hangs(),
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

    pub(super) fn session(&self, who: Who) -> Option<model::orders::Session> {
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
                let voter = self.agent(who).and_then(Mirror::voter);
                if let (Some(voter), Some(question)) = (voter, self.agent(who).and_then(Mirror::pulse)) {
                    let answer = self.witness_answers(voter, &question);
                    self.tell(who, Event::Witness(answer));
                }
            }
            Step::Command(who, command) => {
                match command {
                    Command::Stop | Command::Wait | Command::ForceStop => self.nodes[who].wanted = false,
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
            Step::Syncdelta(who) => match self.rules.broken {
                Some(Broken::SyncdeltaAnyCopy) => self.tell(who, Event::Command(FORCE)),
                _ => self.tell(who, Event::Scheduled { command: FORCE, why: "syncdelta".into() }),
            },
            Step::Write(who) => self.write(who),
            Step::Apply(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    let sent = plane.unacked;
                    plane.acks = sent;
                    self.nodes[other(who)].hot |= sent;
                    self.nodes[other(who)].tree |= sent;
                }
            }
            Step::Acknowledge(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    let acks = std::mem::take(&mut plane.acks);
                    plane.unacked &= !acks;
                    if self.rules.broken == Some(Broken::R5EvictedOnAck) {
                        self.nodes[who].hot &= !acks;
                        self.nodes[other(who)].hot &= !acks;
                    }
                    self.acknowledged(who, acks, true);
                }
            }
            Step::Fsync(who) => {
                self.nodes[who].disk = self.nodes[who].tree;
                if matches!(self.mode(who), Some(Mode::Mirrored(_))) {
                    let there = other(who);
                    self.nodes[there].disk = self.nodes[there].tree;
                    // R5: both disks have it.
                    self.nodes[who].hot = 0;
                    self.nodes[there].hot = 0;
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
            Step::PlaneReplaced(who) => {
                if let Some(plane) = &mut self.nodes[who].plane {
                    plane.replace();
                }
                self.tell(who, Event::PlaneReplaced);
            }
            Step::PlaneDies(who) => {
                self.nodes[who].plane = None;
                self.tell(who, Event::PlaneDied);
            }
            Step::Configure(who) => {
                self.nodes[who].successor = true;
                if self.spare.is_none() {
                    // It has voted for this pair before: R15 alone would not keep it from granting.
                    let mut record = cluster::witness::Ledger::empty(101);
                    record.registered = vec![NodeId(1), NodeId(2)];
                    self.spare = Some(Witness { up: true, record });
                }
                if self.rules.broken == Some(Broken::R16OneStep) {
                    self.take_at_once(who);
                }
                self.tell(who, Event::WitnessConfigured { witness: Some(SPARE) });
            }
            Step::ScriptTimesOut(who) => scripts::time_out(&mut self.nodes[who]),
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
            Step::Refuses(who) => self.nodes[who].refuses = true,
            Step::Opens(who) => self.nodes[who].refuses = false,
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
}
