//! The start of a module on this node: its record first, then what still runs.
//!
//! **Invariant:** an agent that starts is HOLD, PRIM or ALONE only if a live data plane says so under the epoch on disk (R20).

use super::Out;
use super::action::{Action, App, Level, Timer, Vip};
use super::message::Wish;
use super::reason::Reason;
use super::state::{AppState, Mirror, Plane, State, Then};
use model::orders::Situation;
use model::{DataId, DataState, Epoch, NodeId, Role, Witnesses};

impl Mirror {
    /// Start of the module: this boot's record first.
    pub(super) fn boot(&mut self, wish: Wish, adopted: Option<Situation>, application: bool, out: &mut Out) {
        let why = if adopted.is_some() || application { Reason::AgentRestarted } else { Reason::StartAsked };
        self.note(Level::User, why, out);
        let mut record = self.record.clone();
        // R1: mirrored, not stopped cleanly, and the machine booted since: only what was synced is here.
        let lost_power = matches!(record.role, Role::Primary | Role::Second)
            && !record.clean
            && record.boot_id != self.settings.boot_id
            && record.data == DataState::Full;
        self.left_clean = record.clean && record.drained && record.data == DataState::Full;
        if lost_power {
            record.data = DataState::Crashed;
        }
        record.boots += 1;
        record.boot_id = self.settings.boot_id;
        record.clean = false;
        record.drained = false;
        if !self.settings.replicated {
            // There is no data that could be stale: every start is a candidate.
            let zero = Epoch { counter: 0, node: NodeId(0), random: 0 };
            if record.epoch.is_none() {
                record.epoch = Some(zero);
                record.history = alloc::vec![zero];
            }
            record.data_id = DataId(0);
            record.role = Role::Alone;
            record.data = DataState::Full;
            record.yielded = false;
        }
        // Before the first epoch nobody can have voted.
        if record.epoch.is_none() || record.witnesses == Witnesses::Configured {
            record.witnesses = Witnesses::One { witness: self.settings.witness };
        }
        self.exchange = None;
        self.peer_witnesses = None;
        self.peer_stepped_aside = false;
        self.wish = wish;
        self.floor = None;
        self.hello = None;
        self.question = None;
        self.unanswered = 0;
        self.unheard = 0;
        self.refused = false;
        self.proof = None;
        self.alone_due = false;
        self.frozen = false;
        self.was_second = false;
        self.may_prove = false;
        self.resumable = false;
        // For the start that follows a stop of that kind, unless somebody says who shall serve.
        self.aside &= wish == Wish::None && adopted.is_none();
        if self.aside {
            out.push(Action::Arm(Timer::Aside));
        }
        self.map_lost = false;
        self.map_base = None;
        self.blocked = false;
        self.let_go = false;
        self.plane = Plane::Moving;
        self.state = State::Booting;
        self.store(record, Then::Booted { adopted, application }, out);
    }

    /// R20: the disk alone always means WAIT; a live data plane under the same epoch means what it does.
    pub(super) fn booted(&mut self, adopted: Option<Situation>, application: bool, out: &mut Out) {
        self.last = super::Ticket { boots: self.record.boots, n: 0 };
        self.app = if application { AppState::Up } else { AppState::Preparing };
        if !application {
            out.push(Action::App(App::Prepare));
        }
        let same = |epoch: Epoch| self.record.epoch == Some(epoch);
        let role = self.record.role;
        match adopted {
            Some(Situation::Alone { epoch, resync }) if same(epoch) && role == Role::Alone => {
                self.plane = Plane::Open;
                self.state = State::Alone { join: resync };
                self.note(Level::State, Reason::Open, out);
                self.ensure_serving(out);
                self.pursue(out);
            }
            Some(Situation::Mirrored { session }) if same(session.epoch) && role == Role::Primary => {
                self.plane = Plane::Open;
                self.mirrored(session, out);
            }
            Some(Situation::Holding { epoch: Some(epoch) }) if same(epoch) && role != Role::Second => {
                self.resumable = role == Role::Primary;
                self.enter_hold(Reason::AgentRestarted, out);
            }
            Some(Situation::Committing { session, .. }) if same(session.epoch) && role != Role::Second => {
                self.enter_hold(Reason::AgentRestarted, out);
            }
            Some(Situation::Following { session, complete: true })
                if same(session.epoch) && role == Role::Second && self.record.data == DataState::Full =>
            {
                self.resumable = true;
                // It says LinkUp when the link is up.
                self.state = State::Second { session, linked: false, target: None };
                out.push(Action::Vip(Vip::Down));
                out.push(Action::Arm(Timer::Link));
                self.note(Level::State, Reason::AgentRestarted, out);
            }
            // `prestart` comes before everything else; only what lives already does not wait for it.
            None | Some(Situation::Idle) if !application => {
                out.push(Action::Vip(Vip::Down));
                self.state = State::Preparing;
            }
            Some(Situation::Following { .. }) if !application => {
                out.push(Action::Vip(Vip::Down));
                self.enter_wait(Reason::Talking, out);
            }
            // Mounted under an epoch that is not ours, or an application without its directories.
            _ => self.fence(Reason::AgentRestarted, false, out),
        }
    }
}
