//! Orderly ends: application, then data, then the record; and stepping aside.
//!
//! **Invariant:** a stop yields only what a complete peer already has.

use super::Out;
use super::action::{Action, App, Level, Timer, Vip};
use super::message::{Message, Wish};
use super::reason::Reason;
use super::state::{AppState, End, Goal, Leaving, Mirror, Plane, State, Then};
use crate::scripts::Why;
use model::orders::Order;
use model::{ModuleState, Role};

impl Mirror {
    pub(super) fn step_aside(&mut self, out: &mut Out) {
        self.step_aside_for(Level::User, Reason::SwapAsked, out);
    }

    pub(super) fn step_aside_for(&mut self, level: Level, why: Reason, out: &mut Out) {
        self.note(level, why, out);
        self.leave(End::Aside, Why::Swap, out);
    }

    /// An orderly end begins: application, then data, then the record.
    pub(super) fn leave(&mut self, end: End, why: Why, out: &mut Out) {
        let mirrored =
            matches!(&self.state, State::Prim { linked: true, .. } | State::Second { linked: true, target: None, .. });
        let orderly = end != End::Force
            && matches!(
                self.state,
                State::Preparing | State::Alone { .. } | State::Prim { .. } | State::Wait | State::Second { .. }
            );
        let goal = Goal { end, mirrored: mirrored && orderly, why };
        for timer in [
            Timer::Hello,
            Timer::Question,
            Timer::Alone,
            Timer::Store,
            Timer::Probe,
            Timer::Link,
            Timer::Plane,
            Timer::Fence,
        ] {
            out.push(Action::Disarm(timer));
        }
        self.hello = None;
        self.question = None;
        self.giving_up = None;
        self.leaves = None;
        self.unopened = None;
        self.wish = Wish::None;
        self.compare_all = false;
        self.state = State::Leaving(Leaving::Application(goal));
        if !orderly {
            self.vip = false;
            out.push(Action::Vip(Vip::Down));
            out.push(if end == End::Force { Action::KillPlane } else { Action::Data(Order::Fence) });
        }
        if self.app == AppState::Down {
            // Nothing of the application is there; what ran beside it stops meanwhile.
            out.push(Action::App(if end == End::Force {
                App::Stop { force: true, why }
            } else {
                App::Role { to: ModuleState::Wait, why }
            }));
            self.application_left(goal, out);
        } else if orderly && self.app == (AppState::Stopping { then_start: false }) {
            // It is ending already.
        } else {
            self.app = AppState::Stopping { then_start: false };
            out.push(Action::App(App::Stop { force: !orderly, why: goal.why }));
        }
    }

    /// The other node is gone while the application ends here, which has writes to make: held first, as at any other time, and the end goes
    /// on when it is clear who may write. Nobody is left to exchange roles with: the application starts again then.
    pub(super) fn hold_leaving(&mut self, goal: Goal, why: Reason, out: &mut Out) {
        let is_exchange = goal.end == End::Aside;
        self.leaves = (!is_exchange).then_some(Goal { mirrored: false, ..goal });
        self.app = AppState::Stopping { then_start: is_exchange };
        self.enter_hold(why, out);
    }

    /// The end of an application whose writes are held already: it begins, and goes on as in [`Self::hold_leaving`].
    pub(super) fn stop_held(&mut self, why: Why, out: &mut Out) {
        self.leaves = Some(Goal { end: End::Stop, mirrored: false, why });
        self.app = AppState::Stopping { then_start: false };
        out.push(Action::App(App::Stop { force: false, why }));
    }

    /// Writes are open: the map holds what the other node will lack, and that is remembered before this node is gone.
    pub(super) fn leave_open(&mut self, goal: Goal, out: &mut Out) {
        let mut record = self.record.clone();
        if let Some(base) = self.map_base.take() {
            record.map_since = Some(base);
        }
        self.store(record, Then::Leave(goal), out);
    }

    /// Nothing of the application is left, and nobody has said who may write: there is nothing to write.
    pub(super) fn left_held(&mut self, out: &mut Out) {
        let Some(goal) = self.leaves.take() else { return };
        self.close_questions(out);
        self.state = State::Leaving(Leaving::Application(goal));
        self.application_left(goal, out);
    }

    /// Nothing of the application is left.
    pub(super) fn application_left(&mut self, goal: Goal, out: &mut Out) {
        self.vip = false;
        out.push(Action::Vip(Vip::Down));
        match goal.end {
            End::Force => {
                self.plane = Plane::Idle;
                return self.left(out);
            }
            End::Aside => out.push(Action::Data(Order::Idle)),
            End::Stop => out.push(Action::Data(Order::Stop)),
        }
        out.push(Action::Arm(Timer::Plane));
        self.state = State::Leaving(Leaving::Plane(goal));
    }

    /// The data plane is through; `drained`: in the orderly way.
    pub(super) fn plane_left(&mut self, goal: Goal, drained: bool, out: &mut Out) {
        out.push(Action::Disarm(Timer::Plane));
        let even = drained && goal.mirrored;
        if goal.end == End::Aside {
            self.left_clean = even;
            self.aside = even;
            self.resumable = false;
            out.push(Action::Arm(Timer::Aside));
            out.push(Action::Send(Message::Nudge));
            self.enter_wait(Reason::SteppedAside, out);
            return;
        }
        let mut record = self.record.clone();
        record.clean = drained;
        record.drained = even || (drained && self.left_clean);
        record.yielded |= even;
        self.state = State::Leaving(Leaving::Plane(goal));
        self.store(record, Then::Left, out);
    }

    /// The record is on disk: the peer may know, and goes on by consent.
    pub(super) fn left(&mut self, out: &mut Out) {
        let (State::Leaving(Leaving::Plane(goal)) | State::Leaving(Leaving::Application(goal))) = self.state else {
            return;
        };
        self.state = State::Leaving(Leaving::Release(goal));
        out.push(Action::Send(Message::Nudge));
        out.push(Action::App(App::Release { why: goal.why }));
    }

    /// `poststop` is through.
    pub(super) fn released(&mut self, goal: Goal, out: &mut Out) {
        self.state = State::Stop;
        let why = match &self.why {
            Reason::TooManyRestarts(_)
            | Reason::MaxLoop(_)
            | Reason::Automatic(_)
            | Reason::AppFailed(_)
            | Reason::PrepareFailed(_) => Reason::StoppedBecause(self.why.sentence(&self.settings)),
            _ => Reason::Stopped,
        };
        self.note(Level::State, why, out);
        // It served, and the other node has everything: that one serves now, however quickly this one is back.
        self.aside = matches!(goal.why, Why::StopStart | Why::Reboot)
            && self.record.role == Role::Primary
            && self.record.yielded
            && self.record.drained
            && self.settings.policy.failover;
        if goal.why == Why::Reboot {
            out.push(Action::Reboot);
        }
        if goal.why == Why::StopStart {
            self.boot(Wish::None, None, false, out);
        }
    }
}
