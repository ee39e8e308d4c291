//! What a mirror module shows: to the command line, the API, the console, the heartbeats.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use model::orders::Session;
use model::{DataId, DataState, Epoch, ModuleState, NodeId, Right, Role, Status};
use serde::{Deserialize, Serialize};

use super::action::Ticket;
use super::event::Advert;
pub use super::open_cases::OpenCase;
use super::reason::Reason;
use super::state::{AppState, Mirror, Peer, State};
use crate::witness::Question;

/// Everything a person or a program may want to know of the automaton.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    /// STOP, WAIT, ALONE, PRIM, SECOND.
    pub state: ModuleState,
    /// Settled, on its way, or blocked.
    pub status: Status,
    /// Why it is where it is: one sentence.
    pub reason: String,
    /// The command that ends a wait, when a person is needed.
    pub remedy: Option<String>,
    /// Epoch of the copy.
    pub epoch: Option<Epoch>,
    /// Stamp of the copy.
    pub data_id: DataId,
    /// State of the data.
    pub data: DataState,
    /// Role on disk.
    pub role: Role,
    /// Complete, and not known to be older than the peer's copy.
    pub uptodate: bool,
    /// Gave its word not to serve by itself.
    pub yielded: bool,
    /// What decides who may serve alone.
    pub arbiter: Arbiter,
    /// The witness that votes; `None`: there is none, or none votes alone now.
    pub voter: Option<NodeId>,
    /// Situations that no protocol can close, and that this module is in or next to.
    pub open_cases: Vec<OpenCase>,
    /// The session with the peer.
    pub session: Option<Session>,
    /// What the heartbeats say of the peer; `None`: not heard.
    pub peer: Option<Advert>,
    /// The application was started and not stopped.
    pub application: bool,
    /// Its start script has returned, and it was not told to stop since.
    pub is_started: bool,
    /// Automatic actions in a row.
    pub loops: u16,
    /// The virtual IPs are wanted here.
    pub addresses: bool,
}

/// What decides who may serve alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arbiter {
    /// A third machine grants epochs.
    Witness,
    /// Silence, carrier, isolation test and virtual IP.
    Proof,
}

impl Mirror {
    /// Where the automaton is, finer than what is shown: for logs, and the table in the manual.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match &self.state {
            State::Stop => "Stop",
            State::Booting => "Booting",
            State::Preparing => "Preparing",
            State::Wait => "Wait",
            State::Claim(_) => "Claim",
            State::Opening => "Opening",
            State::Alone { join: None } => "Alone",
            State::Alone { join: Some(_) } => "Alone, resync",
            State::Commit { .. } => "Commit",
            State::Prim { linked: true, .. } => "Prim",
            State::Prim { .. } => "Prim, resuming",
            State::Hold => "Hold",
            State::Second { linked: true, target: None, .. } => "Second",
            State::Second { target: None, .. } => "Second, resuming",
            State::Second { .. } => "Target",
            State::Fencing => "Fencing",
            State::Leaving(_) => "Leaving",
        }
    }

    /// What to show.
    #[must_use]
    pub fn view(&self) -> View {
        let (state, status) = self.shown();
        let arbiter = if self.by_witness() { Arbiter::Witness } else { Arbiter::Proof };
        let (reason, remedy) = match self.shown_unfit() {
            Some(unfit) => {
                let why = self.why.sentence(&self.settings);
                (format!("{why}; {}", unfit.sentence(&self.settings)), unfit.remedy(&self.settings))
            }
            None => (self.why.sentence(&self.settings), self.why.remedy(&self.settings)),
        };
        View {
            state,
            status,
            reason,
            remedy,
            epoch: self.record.epoch,
            data_id: self.record.data_id,
            data: self.record.data,
            role: self.record.role,
            uptodate: self.record.data == DataState::Full && !self.record.yielded && self.record.epoch.is_some(),
            yielded: self.record.yielded,
            arbiter,
            voter: self.voter(),
            open_cases: self.open_cases(),
            session: self.session(),
            peer: self.hears(),
            application: !matches!(self.app, AppState::Down | AppState::Preparing),
            is_started: self.app == AppState::Up,
            loops: self.loops,
            addresses: self.vip,
        }
    }

    /// What this node lacks, where nothing else is the matter with it.
    fn shown_unfit(&self) -> Option<Reason> {
        let is_well = matches!(
            self.state,
            State::Alone { .. } | State::Prim { linked: true, .. } | State::Second { linked: true, target: None, .. }
        ) && !self.why.is_blocking();
        self.unfit.clone().filter(|_| is_well).map(Reason::Unfit)
    }

    /// Serves or follows, and could not be started again here: files of the module are lost.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        self.shown_unfit().is_some()
    }

    /// What the heartbeats say of the peer; `None`: not heard.
    #[must_use]
    pub const fn hears(&self) -> Option<Advert> {
        match self.peer {
            Peer::Heard(advert) => Some(advert),
            Peer::Unknown | Peer::Silent => None,
        }
    }

    /// The detector has said something of the peer since this automaton was made.
    #[must_use]
    pub const fn knows_peer(&self) -> bool {
        !matches!(self.peer, Peer::Unknown)
    }

    /// The HELLO sent and not answered.
    #[must_use]
    pub const fn open_hello(&self) -> Option<Ticket> {
        self.hello
    }

    /// The question put to the witness and not answered.
    #[must_use]
    pub const fn open_question(&self) -> Option<Ticket> {
        self.question
    }

    /// What the heartbeats say of this module.
    #[must_use]
    pub fn advert(&self) -> Advert {
        let (state, status) = self.shown();
        Advert { epoch: self.record.epoch, state, status }
    }

    /// Followed the peer, which led and did not step aside: whoever arbitrates may let it go first.
    #[must_use]
    pub const fn followed(&self) -> bool {
        matches!(self.record.role, model::Role::Second) && !self.peer_stepped_aside
    }

    /// Waits or holds its writes, and hears nothing of its peer.
    #[must_use]
    pub const fn misses_peer(&self) -> bool {
        matches!(self.state, State::Wait | State::Hold | State::Alone { join: None })
            && !matches!(self.peer, Peer::Heard(_))
    }

    /// What to tell the witness every [`model::limits::WITNESS_PULSE_MS`]; `None`: be silent (stopped, no witness, or a
    /// grant is being stored, R15).
    #[must_use]
    pub fn pulse(&self) -> Option<Question> {
        let silent =
            matches!(self.state, State::Stop | State::Booting | State::Preparing | State::Claim(_) | State::Opening);
        if self.voter().is_none() || silent || self.pending.is_some() {
            return None;
        }
        let in_session = self.question.is_none()
            && matches!(
                self.state,
                State::Prim { linked: true, .. } | State::Second { linked: true, target: None, .. }
            );
        let open = matches!(self.state, State::Alone { .. });
        Some(Question::Pulse {
            node: self.settings.node,
            peer: self.settings.peer,
            incarnation: self.incarnation,
            epoch: self.record.epoch,
            history: self.record.history.clone(),
            data: self.record.data,
            yielded: self.record.yielded,
            state: if self.shown().0 == ModuleState::Alone && !open { ModuleState::Wait } else { self.shown().0 },
            in_session,
            forced: open && matches!(self.record.right, Right::Force | Right::Operator),
        })
    }
}
