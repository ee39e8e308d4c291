//! What happens inside a step: messages arriving, writes, sessions, crashes, starts.

use super::plane::{Mode, Phase};
use super::{Broken, Packet, SPARE, Set, Who, World, bit, other, settings};
use cluster::mirror::{Event, Mirror, Timer};
use cluster::witness::{self, Answer, Contact, PeerWord, Question};
use model::orders::{Begin, Report, Situation};
use model::{DataState, NodeId, Record};
use std::sync::Arc;

impl World {
    /// A file that came without the product (scenarios only).
    pub fn fill(&mut self, who: Who) {
        self.nodes[who].tree |= 1 << 7;
        self.nodes[who].disk |= 1 << 7;
    }

    /// Neither state nor data is left (scenarios only).
    pub fn reinstall(&mut self, who: Who) {
        let node = &mut self.nodes[who];
        node.disk_record = Record { boots: node.disk_record.boots, ..Record::empty() };
        (node.tree, node.disk, node.dirty, node.hot, node.wanted) = (0, 0, 0, 0, false);
        // Whoever makes it primary serves without what there was.
        self.ghost.forced = true;
    }

    pub(super) fn expire(&mut self, who: Who, timer: Timer) {
        self.nodes[who].timers &= !bit(timer);
        if self.agent_runs(who) {
            self.tell(who, Event::Expired(timer));
        } else if self.nodes[who].agent.is_some() {
            self.nodes[who].inbox.push(Event::Expired(timer));
        }
    }

    pub(super) fn window_passes(&mut self, who: Who) {
        if self.rules.broken != Some(Broken::R18NoWindow) && self.agent_runs(who) {
            self.tell(who, Event::WindowClosed);
        }
    }

    /// What each agent hears of the other's state, while it hears it.
    pub(super) fn adverts(&mut self) {
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

    pub(super) fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::Peer(to, message) => self.tell(to, Event::Message(message)),
            Packet::Question(voter, question) => {
                let (Question::Ask { node, .. } | Question::Pulse { node, .. }) = &question;
                let who = usize::from(node.0) - 1;
                let answer = self.witness_answers(voter, &question);
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

    pub(super) fn witness_answers(&mut self, voter: NodeId, question: &Question) -> Answer {
        let (Question::Ask { peer, .. } | Question::Pulse { peer, .. }) = question;
        let there = usize::from(peer.0) - 1;
        // "In contact" is exact; whoever is not was silent for longer than anybody waits.
        let word = if self.agent_runs(there) && !self.nodes[there].witness_cut {
            self.agent(there).filter(|agent| agent.voter() == Some(voter) && agent.pulse().is_some()).map(|agent| {
                PeerWord {
                    full_candidate: agent.record().data == DataState::Full && !agent.record().yielded,
                    history: agent.record().history.clone(),
                    leads: false,
                }
            })
        } else {
            None
        };
        let contact = Contact { silent_ms: if word.is_some() { 0 } else { u64::MAX }, last: word };
        let Some(witness) = self.machine_mut(voter) else { return Answer::Unreachable };
        let (changed, answer) = witness::answer(&witness.record, question, &contact);
        if let Some(record) = changed {
            witness.record = record;
        }
        answer
    }

    pub(super) fn write(&mut self, who: Who) {
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
            // Mirrored: it is in the activity log before.
            node.hot |= write;
            plane.unacked |= write;
        }
    }

    pub(super) fn acknowledged(&mut self, who: Who, writes: Set, mirrored: bool) {
        // A late acknowledgement of what the other one has is none of a second history: lost() looks whether it has it.
        self.ghost.acked |= writes;
        for write in (0..8).filter(|write| writes & (1 << write) != 0) {
            self.ghost.held_by[write] = if mirrored { 0b11 } else { 1 << who };
        }
    }

    pub(super) fn connect(&mut self, who: Who) {
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
    pub(super) fn copied(&mut self, who: Who) {
        let there = other(who);
        let Some(Mode::Alone(epoch, Some((session, begin, _)))) = self.mode(who) else { return };
        let zones = match begin {
            Begin::Resync { full: false, .. } if self.rules.broken == Some(Broken::R5TargetNotAsked) => {
                self.nodes[who].dirty
            }
            Begin::Resync { full: false, .. } => {
                self.nodes[who].dirty | self.nodes[there].hot | self.nodes[there].dirty
            }
            _ => Set::MAX,
        };
        let source = self.nodes[who].tree;
        let target = &mut self.nodes[there];
        let before = target.tree;
        target.tree = (target.tree & !zones) | (source & zones);
        let overwritten = before & !target.tree;
        let is_kept = matches!(begin, Begin::Resync { quarantine: true, .. });
        if !is_kept || self.rules.broken == Some(Broken::LoserNotKept) {
            self.ghost.vanished |= overwritten & self.owed();
        }
        let target = &mut self.nodes[there];
        target.disk &= target.tree;
        if let Some(plane) = &mut self.nodes[who].plane {
            plane.mode = Mode::Alone(epoch, Some((session, begin, Phase::Through)));
        }
        self.tell(who, Event::Plane(Report::ResyncThrough { session }));
    }

    pub(super) fn put(&mut self, who: Who, record: model::Record) {
        // L2: a copy that lost power serves because its peer, alive, reaches neither it nor the witness.
        let opens = record.role == model::Role::Alone && self.nodes[who].disk_record.epoch != record.epoch;
        if opens && self.nodes[who].disk_record.data == DataState::Crashed {
            self.ghost.excused |= self.ghost.acked & !self.ghost.fsynced & !self.nodes[who].tree;
        }
        // `syncdelta`: what the other node did since both were equal may be missing; half a copy may not serve.
        if opens && record.right == model::Right::Force && !self.ghost.forced {
            let (old, tree) = (self.nodes[who].disk_record.data, self.nodes[who].tree);
            self.ghost.incomplete |= !matches!(old, DataState::Full | DataState::Crashed);
            self.ghost.excused |= self.ghost.acked & !tree;
            self.ghost.fsynced &= tree;
        }
        self.nodes[who].disk_record = record;
    }

    /// R16 broken: this node's record names the other witness, whatever its peer's says.
    pub(super) fn take_at_once(&mut self, who: Who) {
        self.nodes[who].disk_record.witnesses = model::Witnesses::One { witness: Some(SPARE) };
        self.agent_dies(who, false);
        self.agent_starts(who);
    }

    pub(super) fn power_cut(&mut self, who: Who, kept: Set, stored: bool) {
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

    pub(super) fn agent_dies(&mut self, who: Who, stored: bool) {
        if let Some((_, record)) = self.nodes[who].storing.take()
            && stored
        {
            self.put(who, *record);
        }
        let node = &mut self.nodes[who];
        node.agent = None;
        node.timers = 0;
        node.inbox.clear();
        node.scripts.forget();
    }

    pub(super) fn agent_starts(&mut self, who: Who) {
        let rules = Arc::clone(&self.rules);
        let node = &mut self.nodes[who];
        let mut own = settings(&rules, who, node.boots);
        if node.successor {
            own.witness = Some(SPARE);
        }
        let mut mirror = Mirror::new(own, node.disk_record.clone());
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
