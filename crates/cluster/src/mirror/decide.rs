//! The policy: for every (state, event), where to go and what to do. What is not named changes nothing.

use super::Out;
use super::action::{Action, App, Level, Timer, Vip};
use super::event::{AppReport, Event, VipReport};
use super::message::Wish;
use super::pursue::UNHEARD_MAX;
use super::reason::Reason;
use super::state::{AppState, End, Leaving, Mirror, Peer, Plane, State};
use crate::scripts::Why;
use crate::witness::{Answer, Refusal};
use alloc::string::String;
use model::orders::Order;
use model::{ModuleState, Right, Role};

impl Mirror {
    pub(super) fn decide(&mut self, event: Event, out: &mut Out) {
        use Event as E;
        use State as S;
        let before = self.peer;
        self.learn(&event);
        let lacks = event == E::PeerLacks;
        let event = if lacks { E::PeerSilent } else { event };
        match (&self.state, event) {
            (_, E::Command(command)) => self.command(command, out),
            (_, E::Automatic { command, why }) => self.automatic(command, why, out),
            (_, E::Lacks { why }) => self.lacks(why, out),
            (_, E::Scheduled { command, why }) => self.scheduled(command, why, out),
            (_, E::Message(message)) => self.message(message, out),
            (_, E::Witness(answer)) => self.witness(answer, out),
            (_, E::Plane(report)) => self.reported(report, out),
            (_, E::App(report)) => self.application(report, out),
            (_, E::Vip(report)) => self.addresses(report, out),
            (_, E::Expired(timer)) => self.expired(timer, out),
            (_, E::WitnessConfigured { witness }) => self.witness_configured(witness, out),
            // Who waited because of the one before need not any more.
            (_, E::Chosen { policy }) => {
                self.choose(policy);
                self.pursue(out);
            }
            (_, E::Fit { why_not }) => self.judge_fitness(why_not, out),
            (S::Stop, E::Adopted { situation, application }) => {
                self.boot(Wish::None, situation, application, out);
            }

            // The peer is heard again: whatever was gathered about its silence is void.
            (S::Claim(claim), E::PeerHeard(_)) if claim.right == Right::Proof => {
                self.claim_failed(Reason::PeerCameBack, out);
            }
            (S::Hold, E::PeerHeard(advert)) => {
                out.push(Action::Disarm(Timer::Alone));
                self.alone_due = false;
                self.peer_changed(before, Peer::Heard(advert), out);
            }
            (S::Wait | S::Alone { .. }, E::PeerHeard(advert)) => self.peer_changed(before, Peer::Heard(advert), out),

            // Without data there is no link whose end would tell.
            (S::Second { .. }, E::PeerHeard(advert))
                if !self.settings.replicated && advert.state == ModuleState::Stop =>
            {
                self.enter_wait(Reason::SessionLost, out);
            }
            // Nor one that never came up: who serves alone did not hear that this node follows it.
            (S::Second { target: None, linked, .. }, E::PeerHeard(advert))
                if !self.settings.replicated && *linked == (advert.state == ModuleState::Alone) =>
            {
                self.believe_link(advert.state != ModuleState::Alone, out);
            }
            (S::Prim { .. }, E::PeerHeard(advert))
                if !self.settings.replicated && advert.state == ModuleState::Stop =>
            {
                self.enter_hold(Reason::PeerLeftSession, out);
            }

            // Silence. A peer that lives and does not run the module cannot take over, nor answer: it is as good as silent, and the window
            // is open only as long as it, when it still ran the module, heard this node (R18).
            (S::Prim { .. } | S::Commit { .. }, E::PeerSilent) => {
                self.enter_hold(if lacks { Reason::PeerLacks } else { Reason::PeerSilent }, out);
            }
            // It serves, and what is held here will never be answered: the address is its own now.
            (S::Hold, E::PeerOverheard(advert))
                if matches!(advert.state, ModuleState::Alone | ModuleState::Prim)
                    && advert.epoch.is_some()
                    && advert.epoch != self.record.epoch =>
            {
                self.fence(Reason::PeerIsNewer, false, out);
            }
            (_, E::LeftOut) => self.is_left_out(out),
            (S::Hold, E::PeerSilent) => {
                self.tell_of_lack(lacks, out);
                self.unanswered = 0;
                if !self.by_witness() && self.record.role == Role::Primary {
                    out.push(Action::Arm(Timer::Alone));
                }
                self.pursue(out);
            }
            // R19: without a witness the data link must be silent too; it says so itself.
            (S::Second { target: None, linked, .. }, E::PeerSilent)
                if self.by_witness() || !self.settings.replicated || !linked =>
            {
                self.enter_wait(Reason::SessionLost, out);
            }
            (S::Second { target: None, .. }, E::PeerSilent) => {
                self.note(Level::Critical, if lacks { Reason::PeerLacks } else { Reason::PeerSilentLinkUp }, out);
            }
            (S::Second { target: None, .. }, E::PeerHeard(_))
                if matches!(self.why, Reason::PeerSilentLinkUp | Reason::PeerLacks) =>
            {
                self.note(Level::State, Reason::Complete, out);
            }
            (S::Wait, E::PeerSilent) => {
                self.tell_of_lack(lacks, out);
                self.hello = None;
                self.unanswered = 0;
                self.pursue(out);
            }
            // Gathered early, so that it is there when the peer is lost; an old one is worth nothing.
            (S::Second { target: None, .. }, E::ProbeMayBegin) if !self.by_witness() => {
                self.proof = None;
                out.push(Action::Probe);
                out.push(Action::Arm(Timer::Proof));
            }
            (S::Wait | S::Hold, E::Proof(_)) => self.pursue(out),
            (S::Wait, E::WindowOpened | E::WindowClosed) => self.pursue(out),

            // A frozen node re-validates before it answers anything.
            (S::Prim { .. } | S::Commit { .. } | S::Alone { .. } | S::Hold | S::Opening, E::Froze) => {
                self.vip = false;
                out.push(Action::Vip(Vip::Down));
                self.frozen = true;
                self.enter_hold(Reason::Froze, out);
            }
            (S::Claim(claim), E::Froze) => {
                if claim.held {
                    self.vip = false;
                    out.push(Action::Vip(Vip::Down));
                }
                if claim.right == Right::Proof {
                    self.frozen = true;
                    self.claim_failed(Reason::Froze, out);
                }
            }

            // The data plane's process.
            (
                S::Alone { .. } | S::Commit { .. } | S::Prim { .. } | S::Hold | S::Claim(_) | S::Opening,
                E::PlaneDied,
            ) => self.mount_died(out),
            // R9: the window is gone, so no session is resumed from it.
            (S::Prim { .. } | S::Commit { .. } | S::Hold, E::PlaneReplaced) => {
                self.resumable = false;
                self.enter_hold(Reason::PlaneReplaced, out);
            }
            // Its epoch is nobody else's, and its map is on disk, begun or not: nothing to ask anybody. What an older map
            // says as well is too much, never too little.
            (S::Alone { .. } | S::Opening, E::PlaneReplaced) => {
                self.note(Level::Critical, Reason::PlaneReplaced, out);
                self.reopen(out);
            }
            (S::Claim(claim), E::PlaneReplaced) if claim.held => {
                out.push(Action::Data(Order::Hold));
                out.push(Action::Data(Order::Sync { ticket: claim.ticket.session_number() }));
                out.push(Action::Arm(Timer::Plane));
            }
            // In the middle of something else its orders are lost with it: as if nobody had taken over.
            (_, E::PlaneReplaced) => out.push(Action::KillPlane),
            (S::Wait, E::PlaneDied) => {
                self.resumable = false;
                out.push(Action::Data(Order::Idle));
            }
            (S::Second { .. }, E::PlaneDied) => {
                self.resumable = false;
                self.enter_wait(Reason::PlaneDied, out);
            }
            // The process of the run before was through, and has ended only now: what was ordered since then is lost with it.
            (S::Wait, E::PlaneStopped) => out.push(Action::Data(Order::Idle)),
            (S::Claim(claim), E::PlaneStopped) => {
                out.push(Action::Data(Order::Sync { ticket: claim.ticket.session_number() }));
                out.push(Action::Arm(Timer::Plane));
            }
            // Only one that needs no claim comes so far before.
            (S::Opening, E::PlaneStopped) => self.reopen(out),
            (S::Second { .. }, E::PlaneStopped) => {
                self.resumable = false;
                self.enter_wait(Reason::SessionLost, out);
            }
            (S::Fencing, E::PlaneDied | E::PlaneStopped) => self.fencing_goes_on(out),
            (S::Leaving(Leaving::Plane(goal)), E::PlaneStopped) => {
                let goal = *goal;
                self.plane_left(goal, true, out);
            }
            (S::Leaving(Leaving::Plane(goal)), E::PlaneDied) => {
                let goal = *goal;
                self.plane_left(goal, false, out);
            }
            (S::Leaving(Leaving::Application(goal)), E::PlaneDied) if goal.end != End::Force => {
                let mut goal = *goal;
                goal.mirrored = false;
                self.state = S::Leaving(Leaving::Application(goal));
            }

            // Facts learnt, records nobody waits for, and what comes too late.
            _ => {}
        }
    }

    /// Nobody is its peer any more.
    fn is_left_out(&mut self, out: &mut Out) {
        let is_news = !core::mem::replace(&mut self.left_out, true);
        match self.state {
            // What it holds is never answered, and the address is another machine's.
            State::Hold => self.fence(Reason::LeftOut, false, out),
            State::Wait => self.pursue(out),
            // Who serves alone, serves on: what it has acknowledged is nowhere else, and a person decides.
            _ if is_news => self.tell(Level::Critical, &Reason::LeftOut, out),
            _ => {}
        }
    }

    fn tell_of_lack(&mut self, lacks: bool, out: &mut Out) {
        if lacks {
            self.tell(Level::Critical, &Reason::PeerLacks, out);
        }
    }

    /// Without data: whether who serves says that it has a secondary. If it does not for a while, it is asked again.
    fn believe_link(&mut self, up: bool, out: &mut Out) {
        if let State::Second { linked, .. } = &mut self.state {
            *linked = up;
        }
        out.push(if up { Action::Disarm(Timer::Link) } else { Action::Arm(Timer::Link) });
    }

    /// Facts that hold whatever the state.
    fn learn(&mut self, event: &Event) {
        match event {
            Event::PeerHeard(advert) => {
                self.peer = Peer::Heard(*advert);
                self.left_out = false;
                self.spoke = false;
                self.proof = None;
                if let Some(epoch) = advert.epoch {
                    self.counter.0 = self.counter.0.max(epoch.counter);
                    // It went on without me, whatever my end of the link says.
                    if self.record.epoch.is_some_and(|mine| mine.counter < epoch.counter) {
                        self.may_prove = false;
                    }
                }
            }
            Event::PeerSilent | Event::PeerLacks => {
                self.peer = Peer::Silent;
                self.spoke = false;
            }
            Event::WindowOpened => self.window = true,
            Event::WindowClosed => {
                self.window = false;
                self.may_prove = false;
            }
            Event::Froze => self.proof = None,
            Event::Proof(proof) => self.proof = Some(*proof),
            Event::Tree { empty } => self.tree_empty = *empty,
            Event::PlaneDied | Event::PlaneStopped => self.plane = Plane::Idle,
            Event::PlaneReplaced => self.plane = Plane::Moving,
            _ => {}
        }
    }

    fn judge_fitness(&mut self, why_not: Option<String>, out: &mut Out) {
        if self.unfit == why_not {
            return;
        }
        let (level, said) = match &why_not {
            Some(why) => (Level::Critical, Reason::Unfit(why.clone())),
            None => (Level::Info, Reason::Fit),
        };
        self.unfit = why_not;
        self.tell(level, &said, out);
    }

    fn peer_changed(&mut self, before: Peer, now: Peer, out: &mut Out) {
        if before == now {
            return;
        }
        if !matches!(before, Peer::Heard(_)) {
            self.unanswered = 0;
        }
        self.refused = false;
        self.pursue(out);
    }

    fn witness(&mut self, answer: Answer, out: &mut Out) {
        self.left_out &= answer == Answer::Unreachable;
        let storing = matches!(self.state, State::Stop | State::Booting | State::Preparing | State::Claim(_));
        match answer {
            // R15: another memory. Whatever was asked of the former one is void.
            Answer::Register { incarnation } if !storing => {
                self.incarnation = Some(incarnation);
                self.told.noted = false;
                self.question = None;
                self.unheard = 0;
                out.push(Action::Pulse);
            }
            Answer::Grant { incarnation, ticket, epoch }
                if self.is_answer(incarnation, ticket) && matches!(self.state, State::Wait | State::Hold) =>
            {
                self.unheard = 0;
                self.witness_empty = false;
                self.told.noted = true;
                self.claim(Right::Witness, Some(epoch), out);
            }
            Answer::Refuse { incarnation, ticket, why, granted, granted_unix_ms }
                if self.is_answer(incarnation, ticket) =>
            {
                self.question = None;
                self.unheard = 0;
                self.refused = true;
                self.witness_empty = why == Refusal::Empty;
                self.told.noted = why != Refusal::Empty;
                self.told.granted = granted.filter(|_| why == Refusal::Held);
                self.told.granted_unix_ms = granted_unix_ms.filter(|_| why == Refusal::Held);
                match (&self.state, why) {
                    // R13: a refusal stops, and proves nothing about the data.
                    (State::Hold, Refusal::Held) => self.fence(Reason::WitnessRefused, false, out),
                    (_, Refusal::Held) => self.note(Level::State, Reason::WaitsWitnessHeld, out),
                    (_, Refusal::Empty) => self.note(Level::State, Reason::WaitsWitnessEmpty, out),
                    (_, Refusal::PrimaryFirst) => self.note(Level::State, Reason::WaitsWitnessPrimaryFirst, out),
                    (_, Refusal::PeerFirst) => self.note(Level::State, Reason::WaitsWitnessPeerFirst, out),
                }
                let asks_prim = self.state == State::Wait && self.wish == Wish::Prim { force: false };
                if asks_prim && !self.witness_empty {
                    self.refuse_prim(&self.why.clone(), out);
                } else if self.witness_empty && self.state == State::Wait && (self.may_reopen() || asks_prim) {
                    self.refused = false;
                    self.pursue(out);
                }
            }
            Answer::Noted { incarnation } if Some(incarnation) == self.incarnation => {
                self.told.noted = true;
                self.unheard = 0;
            }
            Answer::Unreachable if self.question.is_some() => self.witness_unheard(out),
            _ => {}
        }
    }

    fn is_answer(&self, incarnation: u64, ticket: super::Ticket) -> bool {
        self.question == Some(ticket) && self.incarnation == Some(incarnation)
    }

    fn witness_unheard(&mut self, out: &mut Out) {
        self.question = None;
        self.unheard = (self.unheard + 1).min(UNHEARD_MAX);
        if self.unheard == UNHEARD_MAX && matches!(self.state, State::Wait | State::Hold) {
            self.note(Level::Critical, Reason::WaitsWitness, out);
        }
        if self.state == State::Wait && self.may_reopen() {
            self.pursue(out);
        }
        out.push(Action::Arm(Timer::Question));
    }

    fn expired(&mut self, timer: Timer, out: &mut Out) {
        match (timer, &self.state) {
            (Timer::Hello, State::Wait | State::Hold | State::Alone { join: None }) => self.hello_expired(out),
            (Timer::Question, State::Wait | State::Hold) => {
                if self.question.is_some() {
                    self.witness_unheard(out);
                }
                self.refused = false;
                self.unanswered = 0;
                self.pursue(out);
            }
            (Timer::Alone, State::Hold) => {
                self.alone_due = true;
                self.pursue(out);
            }
            (Timer::Store, State::Claim(claim)) if claim.right == Right::Proof => {
                self.claim_failed(Reason::ClaimTooLate, out);
            }
            (Timer::Probe, State::Wait | State::Hold) => {
                self.proof = None;
                self.pursue(out);
            }
            (Timer::Proof, _) => {
                self.proof = None;
                self.pursue(out);
            }
            // The other one did not become complete in time.
            (Timer::Aside, _) if self.giving_up.is_some() => {
                let why = self.giving_up.take().unwrap_or_default();
                self.app_gives_up(Reason::AppFailed(why), out);
            }
            (Timer::Aside, _) if self.aside => {
                self.aside = false;
                if self.state == State::Wait {
                    self.note(Level::Critical, Reason::SwapExpired, out);
                    self.hello = None;
                    self.pursue(out);
                }
            }
            (Timer::Rejoin, _) => {
                self.let_go = false;
                self.blocked = false;
                self.pursue(out);
            }
            // Armed in one state, it may expire in another, where nothing is awaited any more.
            (Timer::Plane, _) if self.awaits_plane() => {
                self.tell(Level::Error, &Reason::PlaneStuck, out);
                out.push(Action::KillPlane);
            }
            (Timer::Fence, State::Fencing) => {
                self.tell(Level::Error, &Reason::PlaneStuck, out);
                out.push(Action::KillPlane);
            }
            (Timer::Link, State::Second { linked: false, .. }) => self.enter_wait(Reason::SessionLost, out),
            (Timer::Link, State::Prim { linked: false, .. }) => {
                self.resumable = false;
                self.enter_hold(Reason::LinkLost, out);
            }
            (Timer::Revalidate, State::Hold) if self.record.role == Role::Alone => {
                self.tell(Level::State, &Reason::Revalidated, out);
                self.reopen(out);
            }
            (Timer::Loop, _) => self.loops = 0,
            (Timer::Exchange, State::Prim { .. }) => {
                self.exchange = None;
                self.pursue_exchange(out);
            }
            _ => {}
        }
    }

    /// An order is not answered yet, and nothing goes on before it is.
    const fn awaits_plane(&self) -> bool {
        match &self.state {
            State::Wait | State::Hold => matches!(self.plane, Plane::Moving),
            State::Claim(_) | State::Opening | State::Leaving(Leaving::Plane(_)) => true,
            _ => false,
        }
    }

    fn hello_expired(&mut self, out: &mut Out) {
        let was_open = self.hello.take().is_some();
        if matches!(self.state, State::Alone { .. }) {
            return self.pursue(out);
        }
        if was_open && self.unanswered < super::pursue::UNANSWERED_MAX {
            self.unanswered += 1;
        }
        self.pursue(out);
        // The other ways did not help: the peer is heard, so go on talking to it.
        if self.hello.is_none()
            && matches!(self.peer, Peer::Heard(_))
            && matches!(self.state, State::Wait | State::Hold)
            && self.question.is_none()
            && !self.blocked
        {
            self.unanswered = super::pursue::UNANSWERED_MAX - 1;
            out.push(Action::Arm(Timer::Hello));
        }
    }

    fn addresses(&mut self, report: VipReport, out: &mut Out) {
        match (&self.state, report) {
            (State::Alone { .. } | State::Prim { .. } | State::Commit { .. }, VipReport::Held) => {
                self.vip = true;
                self.ensure_serving(out);
            }
            (State::Hold | State::Claim(_) | State::Opening, VipReport::Held) => self.vip = !self.frozen,
            (
                State::Alone { .. } | State::Prim { .. } | State::Commit { .. } | State::Hold,
                VipReport::Duplicate { who, .. } | VipReport::Failed { reason: who },
            ) => {
                self.block(out);
                self.fence(Reason::Blocked(who), false, out);
            }
            (_, VipReport::Released) => self.vip = false,
            _ => {}
        }
    }

    fn application(&mut self, report: AppReport, out: &mut Out) {
        match (&self.state, report) {
            (State::Leaving(Leaving::Release(goal)), AppReport::Released) => {
                let goal = *goal;
                self.released(goal, out);
            }
            (_, AppReport::Started) if self.app == AppState::Starting => {
                self.app = AppState::Up;
                self.remember_map(out);
            }
            (_, AppReport::Stopped) => self.application_stopped(out),
            (_, AppReport::Prepared) if self.app == AppState::Preparing => self.prepared(out),
            // Before anything of the module is there: it does not start.
            (_, AppReport::StartFailed { reason }) if self.app == AppState::Preparing => {
                self.app_gives_up(Reason::PrepareFailed(reason), out);
            }
            // Who let this node serve has everything but the new epoch: without it nobody could serve.
            (State::Alone { .. } | State::Commit { .. }, AppReport::StartFailed { reason })
                if self.peer_comes_back() =>
            {
                self.tell(Level::Error, &Reason::AppFailed(reason.clone()), out);
                self.giving_up = Some(reason);
                out.push(Action::Arm(Timer::Aside));
            }
            (_, AppReport::StartFailed { reason }) if self.is_mounted() => {
                self.app_gives_up(Reason::AppFailed(reason), out);
            }
            (State::Alone { .. } | State::Prim { .. } | State::Commit { .. }, AppReport::Died { reason })
                if self.app == AppState::Up =>
            {
                self.application_died(reason, out);
            }
            // Restarted when writes are open again.
            (State::Hold | State::Claim(_) | State::Opening, AppReport::Died { .. }) if self.app == AppState::Up => {
                self.app = AppState::Down;
            }
            _ => {}
        }
    }

    /// `prestart` is through.
    fn prepared(&mut self, out: &mut Out) {
        self.app = AppState::Down;
        match &self.state {
            State::Preparing => self.enter_wait(Reason::Talking, out),
            // An agent restarted over a live data plane.
            State::Alone { .. } | State::Prim { linked: true, .. } => self.ensure_serving(out),
            _ => {}
        }
    }

    fn application_stopped(&mut self, out: &mut Out) {
        let then_start = matches!(self.app, AppState::Stopping { then_start: true });
        self.app = AppState::Down;
        match &self.state {
            State::Fencing => self.fencing_goes_on(out),
            State::Leaving(Leaving::Application(goal)) => {
                let goal = *goal;
                self.application_left(goal, out);
            }
            State::Hold => self.left_held(out),
            State::Alone { .. } | State::Prim { linked: true, .. } if then_start => self.ensure_serving(out),
            _ => {}
        }
    }

    fn application_died(&mut self, reason: String, out: &mut Out) {
        if self.too_many_loops(out) {
            return self.app_gives_up(Reason::TooManyRestarts(reason), out);
        }
        self.tell(Level::Critical, &Reason::AppDied(reason), out);
        self.app = AppState::Stopping { then_start: true };
        out.push(Action::App(App::Stop { force: true, why: Why::Restart }));
    }

    /// It yielded to this node, and is there.
    const fn peer_comes_back(&self) -> bool {
        matches!(self.record.right, Right::Consent)
            && matches!(&self.peer, Peer::Heard(advert) if matches!(advert.state, ModuleState::Wait | ModuleState::Second))
    }

    /// Here it cannot run; a complete secondary takes over by consent.
    pub(super) fn app_gives_up(&mut self, why: Reason, out: &mut Out) {
        self.note(Level::Error, why, out);
        self.app = AppState::Up;
        self.leave(End::Stop, Why::Stop, out);
    }

    /// What is shown: state × settledness.
    #[must_use]
    pub fn shown(&self) -> (ModuleState, model::Status) {
        use model::Status::{NotReady, Ready, Transient};
        let serving = if self.vip && self.app == AppState::Up { Ready } else { Transient };
        match &self.state {
            State::Stop => (ModuleState::Stop, NotReady),
            State::Booting | State::Preparing | State::Fencing | State::Leaving(_) => (ModuleState::Wait, Transient),
            State::Wait if self.why.is_blocking() => (ModuleState::Wait, NotReady),
            State::Wait => (ModuleState::Wait, Transient),
            State::Claim(claim) if claim.held => (ModuleState::Prim, Transient),
            State::Claim(_) => (ModuleState::Wait, Transient),
            State::Opening => (ModuleState::Alone, Transient),
            State::Alone { .. } => (ModuleState::Alone, serving),
            State::Commit { .. } => (ModuleState::Prim, Transient),
            State::Prim { linked: true, .. } => (ModuleState::Prim, serving),
            State::Prim { .. } => (ModuleState::Prim, Transient),
            State::Hold if self.record.role == Role::Alone => (ModuleState::Alone, Transient),
            State::Hold => (ModuleState::Prim, Transient),
            State::Second { linked: true, target: None, .. } if self.why.is_blocking() || self.unfit.is_some() => {
                (ModuleState::Second, NotReady)
            }
            State::Second { linked: true, target: None, .. } => (ModuleState::Second, Ready),
            State::Second { .. } => (ModuleState::Second, Transient),
        }
    }
}
