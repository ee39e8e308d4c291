//! Commands: an operator's, a rule's, the configuration's own.
//!
//! **Invariant:** every command gets exactly one reply, at once.

use super::Out;
use super::action::{Action, App, Level, Timer};
use super::event::{Advert, Command};
use super::message::{Message, Wish};
use super::reason::Reason;
use super::state::{AppState, End, Goal, Leaving, Mirror, Peer, State};
use crate::scripts::Why;
use alloc::format;
use alloc::string::{String, ToString};
use model::{DataState, ModuleState, Status};

impl Mirror {
    /// An operator has looked: what was done automatically is forgotten.
    pub(super) fn command(&mut self, command: Command, out: &mut Out) {
        self.loops = 0;
        self.obey(command, None, out);
    }

    /// A rule's word counts as an operator's, [`max_loop`](super::action::Policy::max_loop) times in a row; then the module stops here, and a complete
    /// secondary takes over by consent. What cannot be done now is refused and not counted.
    pub(super) fn automatic(&mut self, command: Command, why: String, out: &mut Out) {
        if !self.accepts_automatic(command) {
            return self.refuse(format!("not in this state ({})", self.shown().0), out);
        }
        // What made it wait is over.
        if command == Command::Start {
            return self.obey(command, Some(why), out);
        }
        if self.too_many_loops(out) {
            self.accept("stopping: too many automatic actions in a row".to_string(), out);
            self.note(Level::Error, Reason::MaxLoop(why), out);
            return self.leave(End::Stop, Why::Stop, out);
        }
        if command == Command::StopStart && self.settings.policy.reboot && !matches!(self.state, State::Leaving(_)) {
            self.accept("stopping, then this node reboots".to_string(), out);
            self.note(Level::Critical, Reason::Automatic(why), out);
            return self.leave(End::Stop, Why::Reboot, out);
        }
        self.obey(command, Some(why), out);
    }

    /// It waits for another module.
    pub(super) fn lacks(&mut self, why: String, out: &mut Out) {
        if !self.accepts_automatic(Command::Wait) {
            return self.refuse(format!("not in this state ({})", self.shown().0), out);
        }
        self.obey(Command::Wait, Some(why), out);
    }

    /// The configuration's own word, given by a clock. What cannot be done now is refused.
    pub(super) fn scheduled(&mut self, command: Command, why: String, out: &mut Out) {
        if !self.accepts_scheduled(command) {
            return self.refuse(format!("not in this state ({})", self.shown().0), out);
        }
        if command == Command::Wait {
            self.accept("waiting until the next time".to_string(), out);
            self.note(Level::State, Reason::Automatic(why), out);
            return self.leave(End::Stop, Why::StopWait, out);
        }
        // A force is never quiet.
        if matches!(command, Command::Prim { .. }) {
            self.tell(Level::Critical, &Reason::Automatic(why), out);
            return self.obey(command, None, out);
        }
        self.obey(command, Some(why), out);
    }

    /// May the configuration order it now? It lets a complete secondary wait, starts what waits, and forces only a copy that
    /// was complete, whose peer is silent, and whose cluster has no witness to ask (protocol.md, `syncdelta`).
    #[must_use]
    pub fn accepts_scheduled(&self, command: Command) -> bool {
        match command {
            Command::Wait => matches!(self.state, State::Second { linked: true, target: None, .. }),
            Command::Start => self.state == State::Stop,
            Command::Prim { force: true, .. } => {
                self.state == State::Wait
                    && self.settings.replicated
                    && !self.by_witness()
                    && matches!(self.peer, Peer::Silent)
                    // Its word may be here before its heartbeat, and this copy's consent on the way (found by exploration).
                    && !self.spoke
                    && matches!(self.record.data, DataState::Full | DataState::Crashed)
                    && self.record.epoch.is_some()
            }
            _ => false,
        }
    }

    /// One more automatic action.
    pub(super) fn too_many_loops(&mut self, out: &mut Out) -> bool {
        self.count_loop();
        if self.loops > 0 {
            out.push(Action::Arm(Timer::Loop));
        }
        self.loops > self.settings.policy.max_loop
    }

    /// May a rule ask for it now?
    #[must_use]
    pub fn accepts_automatic(&self, command: Command) -> bool {
        let settled = matches!(
            self.state,
            State::Preparing
                | State::Wait
                | State::Alone { .. }
                | State::Prim { linked: true, .. }
                | State::Second { .. }
        );
        match command {
            Command::Start => self.state == State::Stop,
            Command::Restart => self.may_restart(),
            Command::Swap => matches!(self.state, State::Prim { linked: true, .. }) && !self.peer_is_unfit(),
            Command::Stop | Command::Wait | Command::StopStart => settled,
            _ => false,
        }
    }

    /// Its application runs, or is on its way; not while it is being restarted already.
    const fn may_restart(&self) -> bool {
        matches!(self.state, State::Alone { .. } | State::Prim { linked: true, .. })
            && !matches!(self.app, AppState::Down | AppState::Preparing | AppState::Stopping { .. })
    }

    /// The state whose scripts shall have run, as far as that is settled. On the way from one to the other, and while
    /// writes are held, it is not: what was up stays up.
    pub(super) fn scripted(&self) -> Option<ModuleState> {
        let serves = matches!(self.app, AppState::Starting | AppState::Up);
        match &self.state {
            State::Alone { .. } if serves => Some(ModuleState::Alone),
            State::Prim { linked: true, .. } if serves => Some(ModuleState::Prim),
            State::Second { .. } => Some(ModuleState::Second),
            State::Wait if self.why.is_blocking() => Some(ModuleState::Wait),
            _ => None,
        }
    }

    fn obey(&mut self, command: Command, why: Option<String>, out: &mut Out) {
        let module = self.settings.module.clone();
        let level = if why.is_some() { Level::Critical } else { Level::User };
        let asked = |otherwise: Reason| why.clone().map_or(otherwise, Reason::Automatic);
        match (command, &self.state) {
            (Command::Start, State::Stop) => {
                self.accept("starting".to_string(), out);
                self.boot(Wish::None, None, false, out);
            }
            (Command::Second { full }, State::Stop) => {
                self.accept("starting as secondary".to_string(), out);
                self.boot(Wish::Second { full }, None, false, out);
            }
            (Command::Prim { force, full }, State::Stop | State::Preparing | State::Wait | State::Hold) => {
                self.prim(force, full, out)
            }
            (Command::Second { full }, State::Preparing | State::Wait) => {
                self.accept("secondary only from now on".to_string(), out);
                self.blocked = false;
                self.wish = Wish::Second { full };
                self.compare_all = false;
                self.pursue(out);
            }
            (Command::Start, State::Preparing | State::Wait) if self.wish != Wish::None => {
                self.accept("started".to_string(), out);
                self.wish = Wish::None;
                self.compare_all = false;
                self.pursue(out);
            }
            (Command::Stop | Command::Wait | Command::ForceStop, State::Stop) => {
                self.accept(format!("module {module} is stopped already"), out)
            }
            (_, State::Stop) => {
                self.refuse(format!("module {module} is stopped: start it first (stead start -m {module})"), out);
            }
            // Everything else is through; what still runs is `poststop`.
            (Command::ForceStop, State::Leaving(Leaving::Release(goal))) => {
                let goal = Goal { why: Why::Stop, ..*goal };
                self.accept("stopping by force".to_string(), out);
                self.state = State::Leaving(Leaving::Release(goal));
                out.push(Action::App(App::Stop { force: true, why: Why::Stop }));
            }
            (Command::ForceStop, _) => {
                self.accept("stopping by force".to_string(), out);
                self.note(Level::User, Reason::ForceStopAsked, out);
                self.leave(End::Force, Why::Stop, out);
            }
            (Command::Stop | Command::Wait | Command::StopStart | Command::Start, State::Leaving(_)) => {
                self.leave_again(command, out)
            }
            (Command::Stop | Command::Wait | Command::StopStart | Command::Start, _) if self.leaves.is_some() => {
                self.leave_again(command, out)
            }
            // Its link was lost a moment ago (the other node is stopped as well): what the application has to write yet, it writes when it
            // is clear who may.
            (Command::Stop | Command::Wait, State::Hold | State::Claim(_) | State::Opening)
                if self.settings.replicated && self.app == AppState::Up =>
            {
                self.accept("stopping".to_string(), out);
                self.tell(level, &asked(Reason::StopAsked), out);
                let why = if command == Command::Wait { Why::StopWait } else { Why::Stop };
                self.stop_held(why, out);
            }
            (Command::Stop | Command::Wait, _) => {
                self.accept("stopping".to_string(), out);
                self.note(level, asked(Reason::StopAsked), out);
                self.leave(End::Stop, if command == Command::Wait { Why::StopWait } else { Why::Stop }, out);
            }
            (Command::StopStart, _) => {
                self.accept("stopping, then starting".to_string(), out);
                self.note(level, asked(Reason::StopAsked), out);
                self.leave(End::Stop, Why::StopStart, out);
            }
            (Command::Restart, _) if self.may_restart() => {
                self.accept("restarting the application".to_string(), out);
                self.giving_up = None;
                self.tell(level, &asked(Reason::RestartAsked), out);
                self.app = AppState::Stopping { then_start: true };
                out.push(Action::App(App::Stop { force: false, why: Why::Restart }));
            }
            // One answer of its scripts would be taken for the other's.
            (Command::Restart, State::Alone { .. } | State::Prim { .. })
                if self.app == (AppState::Stopping { then_start: true }) =>
            {
                self.accept("the application is being restarted already".to_string(), out);
            }
            // Nothing of the application runs here; what runs beside it does.
            (Command::Restart, State::Second { .. }) if self.app == AppState::Down => {
                self.accept("restarting the scripts of SECOND".to_string(), out);
                self.tell(level, &asked(Reason::RestartAsked), out);
                out.push(Action::App(App::Stop { force: false, why: Why::Restart }));
                out.push(Action::App(App::Role { to: ModuleState::Second, why: Why::Start }));
            }
            (Command::Swap, State::Prim { linked: true, .. }) if self.peer_is_unfit() => {
                self.refuse(self.with_remedy(&Reason::PeerUnfit), out);
            }
            (Command::Swap, State::Prim { linked: true, .. }) => {
                self.accept("stopping the application here, then the other node takes over".to_string(), out);
                self.step_aside_for(level, asked(Reason::SwapAsked), out);
            }
            (Command::Swap, State::Second { linked: true, target: None, .. }) if self.unfit.is_some() => {
                let why = Reason::Unfit(self.unfit.clone().unwrap_or_default());
                self.refuse(self.with_remedy(&why), out);
            }
            (Command::Swap, State::Second { linked: true, target: None, .. }) => {
                self.accept(format!("asking {} to step aside", self.settings.peer_name), out);
                out.push(Action::Send(Message::SwapPlease));
            }
            (Command::Start | Command::Second { .. } | Command::Prim { .. }, _) => {
                self.refuse(
                    format!("module {module} is started already: to exchange roles use stead swap -m {module}, else stop it first"),
                    out,
                );
            }
            (Command::Restart | Command::Swap, _) => {
                let missing = self.missing_for(command);
                self.refuse(format!("module {module} {missing} (stead state -m {module})"), out);
            }
        }
    }

    /// Why a restart or a swap cannot be now: what is not there yet.
    fn missing_for(&self, command: Command) -> String {
        let peer = &self.settings.peer_name;
        match (command, &self.state) {
            (Command::Swap, State::Alone { join: Some(_) } | State::Commit { .. } | State::Prim { .. }) => {
                format!("serves here, and {peer} has no complete copy yet")
            }
            (Command::Swap, State::Alone { join: None }) => format!("serves here alone: {peer} does not follow"),
            (Command::Swap, State::Second { target: Some(_), .. }) => "has no complete copy here yet".to_string(),
            (Command::Swap, State::Second { .. }) => format!("has lost its link to {peer}, which serves"),
            (Command::Swap, State::Wait | State::Booting | State::Preparing | State::Hold | State::Fencing) => {
                "neither serves nor follows here".to_string()
            }
            (Command::Restart, State::Alone { .. } | State::Commit { .. } | State::Prim { .. }) => {
                "serves here, and its application is on its way: a moment".to_string()
            }
            (Command::Restart, State::Wait | State::Booting | State::Preparing | State::Second { .. }) => {
                "does not serve here: nothing of it could be restarted".to_string()
            }
            _ => format!("is changing its state here ({}): a moment", self.shown().0),
        }
    }

    /// What the end under way shall end in, after all.
    fn leave_again(&mut self, command: Command, out: &mut Out) {
        // An exchange of roles whose application has not ended yet is a stop from here on: a machine that goes down waits for no other.
        if let State::Leaving(Leaving::Application(goal)) = &mut self.state
            && goal.end == End::Aside
            && matches!(command, Command::Stop | Command::Wait | Command::StopStart)
        {
            goal.end = End::Stop;
        }
        let goal = match (&mut self.state, &mut self.leaves) {
            (State::Leaving(Leaving::Application(goal) | Leaving::Plane(goal) | Leaving::Release(goal)), _)
            | (_, Some(goal)) => goal,
            _ => return,
        };
        let module = &self.settings.module;
        if goal.end == End::Aside {
            let sentence = format!("module {module} is exchanging roles: try again in a moment");
            return self.refuse(sentence, out);
        }
        goal.why = match command {
            Command::Stop => Why::Stop,
            Command::Wait => Why::StopWait,
            _ => Why::StopStart,
        };
        let sentence = if goal.why == Why::StopStart {
            format!("module {module} is stopping, and starts again then")
        } else {
            format!("module {module} is stopping")
        };
        self.accept(sentence, out);
    }

    fn prim(&mut self, force: bool, full: bool, out: &mut Out) {
        let refusal = if self.peer_serves() && self.state != State::Hold {
            Some(self.peer_serves_sentence())
        } else if force {
            None
        } else {
            self.why_prim_is_refused().map(|why| self.with_remedy(&why))
        };
        if let Some(sentence) = refusal {
            return self.refuse(sentence, out);
        }
        let wish = Wish::Prim { force };
        let then = if full { ": the other copy is compared as a whole when it comes" } else { "" };
        self.accept(format!("starting as primary{then}"), out);
        self.compare_all = full;
        self.blocked = false;
        match self.state {
            State::Stop => self.boot(wish, None, false, out),
            State::Hold if force => self.claim(model::Right::Force, None, out),
            State::Hold if matches!(self.peer, Peer::Silent) => {
                self.claim(model::Right::Operator, None, out);
            }
            _ => {
                self.wish = wish;
                self.hello = None;
                self.unanswered = 0;
                // Its last word may be an old one.
                self.question = None;
                self.refused = false;
                self.pursue(out);
            }
        }
    }

    /// What speaks against this copy, from what is known here; the peer may know more.
    pub(super) fn why_prim_is_refused(&self) -> Option<Reason> {
        match self.record.data {
            _ if self.record.epoch.is_none() && self.record.data == DataState::Unknown => None,
            DataState::Inconsistent => Some(Reason::WaitsForPeerInconsistent),
            DataState::Unknown => Some(Reason::WaitsForPeerUnknown),
            _ if self.record.yielded => Some(Reason::WaitsForPeerYielded),
            DataState::Full | DataState::Crashed => None,
        }
    }

    pub(super) fn peer_serves_sentence(&self) -> String {
        let (peer, module) = (&self.settings.peer_name, &self.settings.module);
        format!(
            "{peer} is primary of module {module}: to exchange roles use stead swap -m {module}; to take its place stop it first (stead stop -m {module} -H {peer})"
        )
    }

    /// It follows, complete, and says that it could not serve.
    pub(super) const fn peer_is_unfit(&self) -> bool {
        matches!(&self.peer, Peer::Heard(Advert { state: ModuleState::Second, status: Status::NotReady, .. }))
    }

    /// The wish is gone, and the journal says why.
    pub(super) fn refuse_prim(&mut self, why: &Reason, out: &mut Out) {
        self.wish = Wish::None;
        self.compare_all = false;
        let sentence = format!("prim refused: {}", self.with_remedy(why));
        out.push(Action::Journal { level: Level::Error, sentence });
    }

    fn with_remedy(&self, why: &Reason) -> String {
        let sentence = why.sentence(&self.settings);
        why.remedy(&self.settings).map_or_else(|| sentence.clone(), |remedy| format!("{sentence} ({remedy})"))
    }

    fn accept(&self, sentence: String, out: &mut Out) {
        out.push(Action::Reply { accepted: true, sentence });
    }

    fn refuse(&self, sentence: String, out: &mut Out) {
        out.push(Action::Reply { accepted: false, sentence });
    }
}
