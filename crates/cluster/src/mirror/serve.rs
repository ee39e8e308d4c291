//! Claiming, opening, holding, fencing.
//!
//! **Invariant:** hold → right → sync → store → open, in this order and never otherwise (protocol.md §2, order 2).

use super::Out;
use super::action::{Action, App, Level, Timer, Vip};
use super::message::Message;
use super::reason::Reason;
use super::state::{AppState, Claim, Mirror, Peer, Plane, State, Then};
use crate::scripts::Why;
use model::orders::{Order, Session};
use model::{DataId, DataState, Epoch, Right, Role};

impl Mirror {
    /// The right is there. `granted`: the witness names the epoch.
    pub(super) fn claim(&mut self, right: Right, granted: Option<Epoch>, out: &mut Out) {
        self.close_questions(out);
        self.aside = false;
        if right == Right::Consent && self.may_reopen() {
            return self.reopen(out);
        }
        self.told.crashed = right == Right::Witness && self.record.data == DataState::Crashed;
        let ticket = self.next_ticket();
        let epoch = granted.unwrap_or_else(|| Epoch {
            counter: self.next_counter(),
            node: self.settings.node,
            random: self.random(),
        });
        self.note(
            Level::State,
            match right {
                Right::Witness => Reason::Granted,
                Right::Proof => Reason::ProofHolds,
                Right::Operator => Reason::OperatorPrim,
                Right::Force => Reason::OperatorForce,
                Right::Consent | Right::None => Reason::PeerYielded,
            },
            out,
        );
        let held = self.state == State::Hold;
        self.state = State::Claim(Claim { right, epoch, ticket, held });
        // Sync the hot extents before the epoch: the last copy must be on disk (R4).
        out.push(Action::Data(Order::Sync { ticket: ticket.session_number() }));
        out.push(Action::Arm(Timer::Plane));
        if right == Right::Proof {
            out.push(Action::Arm(Timer::Store));
        }
    }

    /// The copy is durable: now the epoch.
    pub(super) fn synced(&mut self, claim: Claim, out: &mut Out) {
        out.push(Action::Disarm(Timer::Plane));
        let old = &self.record;
        let first = old.epoch.is_none();
        let mut record = old.clone();
        // The map is begun anew unless this copy was alone already; what it then lacks decides what it is good for.
        let fresh_map = old.role != Role::Alone;
        // Whatever this copy lacks or has more than its peer's since they were equal, a crash included, was hot here
        // and goes into the map before it opens.
        let even = matches!(old.data, DataState::Full | DataState::Crashed) && !self.map_lost;
        // Of a map that begins nowhere it is known what it lacks: everything. That is what `fullsync` asks for.
        let anew = claim.right == Right::Force || self.compare_all;
        record.map_since = if fresh_map || self.map_lost || anew { None } else { old.map_since };
        self.map_base = if fresh_map && even && !anew { old.epoch } else { None };
        if first {
            record.data_id = self.fresh_data_id();
        }
        record.history.push(claim.epoch);
        record.epoch = Some(claim.epoch);
        record.role = Role::Alone;
        record.data = DataState::Full;
        record.released = false;
        record.yielded = false;
        record.right = claim.right;
        match claim.right {
            Right::Force => record.born_empty = false,
            Right::Operator if first => record.born_empty = self.tree_empty,
            _ => {}
        }
        self.store(record, Then::Open { fresh_map, stamp: first || claim.right == Right::Force }, out);
    }

    fn fresh_data_id(&self) -> DataId {
        let id = (u64::from(self.random()) << 32) ^ self.settings.salt;
        DataId(if id == 0 { 1 } else { id })
    }

    /// The claim is over without effect: back to where it came from.
    pub(super) fn claim_failed(&mut self, why: Reason, out: &mut Out) {
        let held = matches!(&self.state, State::Claim(claim) if claim.held);
        out.push(Action::Disarm(Timer::Store));
        if held {
            self.state = State::Hold;
            self.note(Level::Critical, why, out);
            self.proof = None;
            out.push(Action::Arm(Timer::Probe));
            // Its application has ended meanwhile, as somebody asked.
            if self.app == AppState::Down {
                self.left_held(out);
            }
        } else {
            self.may_prove = false;
            self.enter_wait(why, out);
        }
    }

    /// The epoch is on disk.
    pub(super) fn open(&mut self, fresh_map: bool, stamp: bool, out: &mut Out) {
        out.push(Action::Disarm(Timer::Store));
        self.note(Level::State, Reason::EpochStored, out);
        self.order_open(fresh_map, stamp, out);
    }

    /// The last lone primary serves again under its own epoch.
    pub(super) fn reopen(&mut self, out: &mut Out) {
        self.close_questions(out);
        self.unopened = None;
        self.note(Level::State, Reason::Reopens, out);
        self.order_open(false, false, out);
    }

    fn order_open(&mut self, fresh_map: bool, stamp: bool, out: &mut Out) {
        let Some(epoch) = self.record.epoch else { return };
        self.was_second = false;
        self.may_prove = false;
        self.left_clean = false;
        // What was looked at before is nothing any more: a copy that serves fills (and what it holds is kept after a split brain).
        self.tree_empty = false;
        self.resumable = false;
        self.frozen = false;
        self.plane = Plane::Moving;
        if fresh_map {
            self.map_lost = false;
        }
        self.state = State::Opening;
        out.push(Action::Data(Order::ServeAlone { epoch, data_id: self.record.data_id, stamp, fresh_map }));
        out.push(Action::Arm(Timer::Plane));
    }

    /// Writes are open.
    pub(super) fn opened(&mut self, out: &mut Out) {
        out.push(Action::Disarm(Timer::Plane));
        self.state = State::Alone { join: None };
        self.unopened = None;
        self.wish = super::Wish::None;
        self.note(Level::State, Reason::Open, out);
        if let Some(goal) = self.leaves.take() {
            return self.leave_open(goal, out);
        }
        if self.voter().is_some() {
            out.push(Action::Pulse);
        }
        self.ensure_serving(out);
        self.pursue(out);
        // One that goes on without a secondary is not started: nobody waits for it.
        if self.app == AppState::Up {
            self.remember_map(out);
        }
    }

    /// The map is open and holds what was folded into it: worth remembering, and not in anybody's way now.
    pub(super) fn remember_map(&mut self, out: &mut Out) {
        if matches!(self.state, State::Alone { .. })
            && let Some(base) = self.map_base.take()
        {
            let mut record = self.record.clone();
            record.map_since = Some(base);
            self.store(record, Then::Nothing, out);
        }
    }

    /// Address first, then the application (it may bind to it).
    pub(super) fn ensure_serving(&mut self, out: &mut Out) {
        if !self.vip {
            let announce_anyway = matches!(self.record.right, Right::Witness | Right::Consent | Right::Force);
            out.push(Action::Vip(Vip::Up { announce_anyway }));
        } else if self.app == AppState::Down {
            self.app = AppState::Starting;
            out.push(Action::App(App::Start));
        }
    }

    /// Hold first, ask second: a write acknowledged here and unknown to a promoted secondary is a lost write.
    pub(super) fn enter_hold(&mut self, why: Reason, out: &mut Out) {
        self.close_questions(out);
        self.note(Level::Critical, why, out);
        self.state = State::Hold;
        self.unopened = None;
        self.plane = Plane::Moving;
        self.proof = None;
        out.push(Action::Data(Order::Hold));
        out.push(Action::Arm(Timer::Plane));
        if self.record.role == Role::Alone {
            out.push(Action::Arm(Timer::Revalidate));
        } else if self.peer == Peer::Silent && !self.by_witness() {
            out.push(Action::Arm(Timer::Alone));
        }
        self.pursue(out);
    }

    /// Nothing is served or followed from here.
    pub(super) fn enter_wait(&mut self, why: Reason, out: &mut Out) {
        self.close_questions(out);
        if let State::Second { target, .. } = &self.state {
            self.was_second = target.is_none();
            self.may_prove &= self.window;
        }
        self.note(Level::State, why, out);
        self.giving_up = None;
        self.state = State::Wait;
        self.plane = Plane::Moving;
        if let Some(goal) = self.leaves.take() {
            return self.leave(goal.end, goal.why, out);
        }
        out.push(Action::Data(Order::Idle));
        out.push(Action::Arm(Timer::Plane));
        self.pursue(out);
    }

    /// Address down, requests refused, application killed, in this order; then Wait.
    pub(super) fn fence(&mut self, why: Reason, yields: bool, out: &mut Out) {
        self.close_questions(out);
        self.note(Level::Error, why, out);
        self.map_base = None;
        self.unopened = None;
        self.giving_up = None;
        self.state = State::Fencing;
        self.plane = Plane::Moving;
        self.vip = false;
        self.resumable = false;
        self.left_clean = false;
        self.was_second = false;
        self.may_prove = false;
        out.push(Action::Vip(Vip::Down));
        out.push(Action::Data(Order::Fence));
        out.push(Action::Arm(Timer::Fence));
        // A `prestart` that still runs has nothing open here: it goes on.
        if !matches!(self.app, AppState::Down | AppState::Preparing) {
            self.app = AppState::Stopping { then_start: false };
            out.push(Action::App(App::Stop { force: true, why: Why::StopWait }));
        }
        if yields {
            let mut record = self.record.clone();
            record.yielded = true;
            self.store(record, Then::Nothing, out);
        }
    }

    /// The data plane refused to open under the epoch that the peer's consent gave. Nobody has served under it and nobody will: with the
    /// record of before, both copies are equal again, the peer's word is void, and it serves with the consent of this node. Left as it
    /// is, this node would be the newer one, and the only one that may try.
    pub(super) fn give_back(&mut self, why: Reason, out: &mut Out) {
        let unopened = self.unopened.take();
        self.block(out);
        self.fence(why, false, out);
        if let Some(unopened) = unopened {
            self.tell(Level::State, &Reason::GivesBack, out);
            // Its number is never used again.
            self.counter.0 = self.counter.0.max(self.record.epoch.map_or(0, |epoch| epoch.counter));
            self.map_lost |= unopened.map_lost;
            self.aside = true;
            out.push(Action::Arm(Timer::Aside));
            self.store(unopened.before, Then::Nothing, out);
        }
    }

    pub(super) fn fencing_goes_on(&mut self, out: &mut Out) {
        if matches!(self.app, AppState::Down | AppState::Preparing) && self.plane == Plane::Idle {
            out.push(Action::Disarm(Timer::Fence));
            if self.aside {
                out.push(Action::Send(Message::Nudge));
            }
            self.enter_wait(self.why.clone(), out);
        }
    }

    /// The mount is dead for the application: there is nothing left to hold.
    pub(super) fn mount_died(&mut self, out: &mut Out) {
        self.fence(Reason::PlaneDied, false, out);
        self.plane = Plane::Idle;
        self.fencing_goes_on(out);
    }

    /// Requests of an application may be waiting in the data plane.
    pub(super) const fn is_mounted(&self) -> bool {
        match &self.state {
            State::Alone { .. } | State::Commit { .. } | State::Prim { .. } | State::Hold | State::Opening => true,
            State::Claim(claim) => claim.held,
            _ => false,
        }
    }

    pub(super) fn session(&self) -> Option<Session> {
        match &self.state {
            State::Alone { join } => *join,
            State::Commit { session } | State::Prim { session, .. } | State::Second { session, .. } => Some(*session),
            _ => None,
        }
    }

    pub(super) fn close_questions(&mut self, out: &mut Out) {
        if self.hello.take().is_some() {
            out.push(Action::Disarm(Timer::Hello));
        }
        if self.question.take().is_some() {
            out.push(Action::Disarm(Timer::Question));
        }
        if self.alone_due {
            self.alone_due = false;
        }
        out.push(Action::Disarm(Timer::Alone));
        self.unanswered = 0;
        self.refused = false;
    }
}
