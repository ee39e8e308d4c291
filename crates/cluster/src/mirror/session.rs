//! What the data plane reports, and what follows from it for the session.
//!
//! **Invariants:** the source stores role=primary before COMMIT is sent (R7), and never goes back to alone under the
//! same epoch (R6); the target stores what it has become before it confirms (R8).

use super::Out;
use super::action::{Action, Home, Level, Timer};
use super::event::Advert;
use super::reason::Reason;
use super::state::{AppState, Leaving, Mirror, Peer, Plane, State, Then};
use alloc::format;
use alloc::string::String;
use model::orders::{Report, Session, Situation};
use model::{DataState, ModuleState, Right, Role, Witnesses};

impl Mirror {
    pub(super) fn reported(&mut self, report: Report, out: &mut Out) {
        match report {
            Report::Reached { situation } => self.reached(situation, out),
            Report::Synced { ticket } => {
                if let State::Claim(claim) = self.state
                    && claim.ticket.session_number() == ticket
                {
                    self.synced(claim, out);
                }
            }
            Report::LinkUp { session } if self.session() == Some(session) => {
                let is_led = self.is_led();
                if let State::Second { linked, target, .. } = &mut self.state {
                    *linked = is_led;
                    self.may_prove = target.is_none();
                    if is_led {
                        out.push(Action::Disarm(Timer::Link));
                    }
                    if self.may_prove {
                        self.note(Level::State, Reason::Complete, out);
                    }
                }
            }
            Report::LinkLost { session, .. } if self.session() == Some(session) => self.link_lost(out),
            // What was not drained before the link went is not there: the end is not a clean one.
            Report::LinkLost { .. } | Report::PeerStalled { .. } | Report::PeerFault { .. }
                if matches!(self.state, State::Leaving(_)) =>
            {
                if let State::Leaving(Leaving::Application(goal)) = self.state
                    && goal.mirrored
                    && self.record.role == Role::Primary
                    && self.settings.replicated
                {
                    // Its link is alive: without this they would resume, and stall again.
                    let why = match report {
                        Report::PeerStalled { stalled_ms, .. } => self.give_up_peer(Self::stalled_for(stalled_ms), out),
                        Report::PeerFault { reason, .. } => self.give_up_peer(reason, out),
                        _ => Reason::LinkLost,
                    };
                    return self.hold_leaving(goal, why, out);
                }
                if let State::Leaving(Leaving::Application(goal) | Leaving::Plane(goal)) = &mut self.state {
                    goal.mirrored = false;
                }
            }
            Report::PeerStalled { session, stalled_ms } if self.session() == Some(session) => {
                self.let_go(Self::stalled_for(stalled_ms), out);
            }
            Report::PeerFault { session, reason } if self.session() == Some(session) => self.let_go(reason, out),
            Report::CannotResume { session } if self.session() == Some(session) => {
                self.resumable = false;
                match self.state {
                    State::Prim { .. } => self.enter_hold(Reason::CannotResume, out),
                    State::Second { .. } => self.enter_wait(Reason::CannotResume, out),
                    _ => {}
                }
            }
            Report::ResyncThrough { session } if self.state == (State::Alone { join: Some(session) }) => {
                self.note(Level::Info, Reason::Committing, out);
                self.state = State::Commit { session };
                let mut record = self.record.clone();
                record.role = Role::Primary;
                record.map_since = None;
                record.born_empty = false;
                self.map_base = None;
                self.store(record, Then::Commit { session }, out);
            }
            Report::Committed { session, .. } if self.state == (State::Commit { session }) => {
                // It took them over with the commit, unless its program knows none.
                if self.peer_witnesses != Some(Witnesses::Configured) {
                    self.peer_witnesses = Some(self.record.witnesses);
                }
                self.mirrored(session, out);
                if matches!(self.state, State::Prim { .. }) && self.goes_home() {
                    self.step_aside_for(Level::State, Reason::GoesHome, out);
                }
            }
            Report::CommitReceived { session } => self.commit_received(session, out),
            Report::Refused { order, reason } => self.order_refused(&order, reason, out),
            Report::MapLost { .. } => self.map_lost = true,
            Report::LocalFault { reason } => self.tell(Level::Error, &Reason::Blocked(reason), out),
            _ => {}
        }
    }

    /// Does the other end of the link know of it? Without data nothing is connected: who still says that it serves alone may never have
    /// heard the consent of this node, and is asked again when it goes on saying so.
    pub(super) fn is_led(&self) -> bool {
        self.settings.replicated || !matches!(self.peer, Peer::Heard(Advert { state: ModuleState::Alone, .. }))
    }

    fn reached(&mut self, situation: Situation, out: &mut Out) {
        self.plane = match situation {
            Situation::Idle => Plane::Idle,
            Situation::Holding { .. } => Plane::Holding,
            Situation::Alone { .. } | Situation::Mirrored { .. } => Plane::Open,
            Situation::Committing { .. } | Situation::Following { .. } => Plane::Moving,
        };
        match (&self.state, situation) {
            (State::Wait, Situation::Idle) | (State::Hold, Situation::Holding { .. }) => {
                out.push(Action::Disarm(Timer::Plane));
                self.pursue(out);
            }
            (State::Opening, Situation::Alone { epoch, .. }) if Some(epoch) == self.record.epoch => self.opened(out),
            (State::Prim { session, linked: false }, Situation::Mirrored { session: now }) if *session == now => {
                self.mirrored(now, out);
            }
            (State::Fencing, Situation::Idle) => self.fencing_goes_on(out),
            (State::Leaving(Leaving::Plane(goal)), Situation::Idle) => {
                let goal = *goal;
                self.plane_left(goal, true, out);
            }
            _ => {}
        }
    }

    /// `defaultprim`: the copy that has just become complete is on the node that shall serve. Not when somebody asked for the
    /// exchange that brought us here, nor without an application that runs.
    fn goes_home(&self) -> bool {
        let mut before = self.record.history.iter().rev().skip_while(|epoch| Some(**epoch) == self.record.epoch);
        let wanted = match self.settings.policy.home {
            Home::Nobody | Home::Here => false,
            Home::There => true,
            Home::Last => before.next().is_some_and(|epoch| epoch.node == self.settings.peer),
        };
        wanted && !self.peer_stepped_aside && matches!(self.app, AppState::Up)
    }

    pub(super) fn mirrored(&mut self, session: Session, out: &mut Out) {
        out.push(Action::Disarm(Timer::Link));
        self.state = State::Prim { session, linked: true };
        self.resumable = true;
        self.frozen = false;
        self.wish = super::Wish::None;
        self.compare_all = false;
        self.told.crashed = false;
        self.note(Level::State, Reason::Mirrored, out);
        if let Some(why) = self.giving_up.take() {
            return self.app_gives_up(Reason::AppFailed(why), out);
        }
        if let Some(goal) = self.leaves.take() {
            return self.leave(goal.end, goal.why, out);
        }
        self.ensure_serving(out);
        self.exchange = None;
        self.pursue_exchange(out);
    }

    fn link_lost(&mut self, out: &mut Out) {
        match &self.state {
            State::Prim { linked, .. } => {
                // A resume that never came to a link is not tried again: the peer yields instead.
                self.resumable &= *linked;
                self.enter_hold(Reason::LinkLost, out);
            }
            State::Commit { .. } => self.enter_hold(Reason::LinkLost, out),
            State::Second { .. } => self.enter_wait(Reason::SessionLost, out),
            State::Alone { .. } => {
                self.state = State::Alone { join: None };
                self.note(Level::State, Reason::Open, out);
            }
            _ => {}
        }
    }

    fn stalled_for(stalled_ms: u64) -> String {
        format!("it has not acknowledged for {stalled_ms} ms")
    }

    /// It is not resumed, and not joined again before a pause is over.
    fn give_up_peer(&mut self, why: String, out: &mut Out) -> Reason {
        self.resumable = false;
        self.let_go = true;
        out.push(Action::Arm(Timer::Rejoin));
        Reason::PeerLetGo(why)
    }

    /// A slow or failing peer is never the application's problem for longer than a bound.
    fn let_go(&mut self, why: String, out: &mut Out) {
        let why = self.give_up_peer(why, out);
        match self.state {
            State::Prim { .. } | State::Commit { .. } => self.enter_hold(why, out),
            State::Alone { .. } => {
                self.state = State::Alone { join: None };
                self.note(Level::Critical, why, out);
            }
            _ => {}
        }
    }

    /// Target: everything came in and is synced.
    fn commit_received(&mut self, session: Session, out: &mut Out) {
        let State::Second { session: mine, target: Some(lineage), .. } = &self.state else { return };
        if *mine != session {
            return;
        }
        let mut record = self.record.clone();
        record.data_id = lineage.data_id;
        record.epoch = Some(session.epoch);
        record.history.clone_from(&lineage.history);
        record.role = Role::Second;
        record.released = false;
        record.born_empty = false;
        record.data = DataState::Full;
        record.yielded = false;
        record.right = Right::None;
        record.map_since = None;
        if lineage.witnesses != Witnesses::Configured {
            record.witnesses = lineage.witnesses;
        }
        self.store(record, Then::Confirm { session }, out);
    }

    /// The data plane says no: its sentence is ours.
    fn order_refused(&mut self, order: &str, reason: String, out: &mut Out) {
        let why = Reason::Blocked(reason);
        match (&self.state, order) {
            // Of any other order it would not be sure that nothing was opened.
            (State::Opening, "serve_alone") => self.give_back(why, out),
            (State::Opening, _) => {
                self.block(out);
                self.fence(why, false, out);
            }
            (State::Claim(_), "sync") => {
                self.block(out);
                self.claim_failed(why, out);
            }
            (State::Second { .. }, "follow") => {
                self.block(out);
                self.enter_wait(why, out);
            }
            (State::Prim { .. }, "lead") => {
                self.resumable = false;
                self.enter_hold(why, out);
            }
            (State::Alone { join: Some(_) }, "lead") => {
                self.state = State::Alone { join: None };
                self.let_go = true;
                out.push(Action::Arm(Timer::Rejoin));
                self.note(Level::Error, why, out);
            }
            _ => self.tell(Level::Error, &why, out),
        }
    }

    /// Nothing is tried for a while: a person reads the reason meanwhile.
    pub(super) fn block(&mut self, out: &mut Out) {
        self.blocked = true;
        out.push(Action::Arm(Timer::Rejoin));
    }
}
