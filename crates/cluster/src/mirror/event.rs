//! What the world tells the automaton. Facts and outcomes, named as past participles.
//!
//! Every event may come late; messages of the peer and of the witness may also be lost, repeated or reordered.

use super::action::{Policy, Timer};
use super::message::Message;
use crate::witness;
use alloc::string::String;
use model::orders::{Report, Situation};
use model::{Epoch, ModuleState, Status};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An operator asks for something. Answered by exactly one
    /// [`Action::Reply`](super::Action::Reply) at once; what follows is told by the journal.
    Command(Command),
    /// A failover rule asks for one of the commands. Answered as one, and counted: too many in a row stop the module.
    Automatic {
        /// Which: restart, stopstart, stop, wait, swap.
        command: Command,
        /// The rule and its reason: one sentence.
        why: String,
    },
    /// A module that this one needs does not serve: this one waits, until it is told to [`Start`](Command::Start). It is no failure of this
    /// module's, so it is not counted.
    Lacks {
        /// Which module: one sentence.
        why: String,
    },
    /// What the configuration orders by a clock (`syncat`: wait, start; `syncdelta`: prim --force). Answered as a command,
    /// and not counted.
    Scheduled {
        /// Which.
        command: Command,
        /// The order and its reason: one sentence.
        why: String,
    },
    /// The agent was restarted and the module was running: boots it like [`Command::Start`], and keeps what a
    /// live data plane does when it agrees with the record (R20). Only as the first event of an automaton.
    Adopted {
        /// First report of the live `mirrorfs`; `None` when there is none.
        situation: Option<Situation>,
        /// Processes of the application are alive in its cgroup.
        application: bool,
    },
    /// Whether this node's replicated directories are all empty. Tell it before `Start`, `Prim`, `Second`, `Adopted`.
    Tree {
        /// No entry but our own stamp.
        empty: bool,
    },
    /// What this node's own files say of whether it could start the module. It counts for nothing but what is shown, and an exchange
    /// of roles that somebody asks for: a node that is the last one tries all the same.
    Fit {
        /// What is lost, or takes nothing; `None`: all is there.
        why_not: Option<String>,
    },
    /// The peer is heard (both directions, at least one network), or what it says of this module changed.
    PeerHeard(Advert),
    /// The peer is silent on every network past the failover timeout.
    PeerSilent,
    /// The peer lives, and has said nothing of this module for longer than an agent needs to start: it does not run it, and is as good as
    /// silent (its machine may still answer for the virtual IP, which the proof will see).
    PeerLacks,
    /// The peer does not hear this node, and said this of the module: it is silent, and what it says is heard all the same.
    PeerOverheard(Advert),
    /// Another member, or the witness, answered this node that it is no member of the cluster in force: it was left out, or another machine
    /// has its place. It cannot be the peer of anybody before somebody takes it in again.
    LeftOut,
    /// Two pulses are missing: the proof may be gathered early so that it is ready when the peer is lost.
    ProbeMayBegin,
    /// The takeover window (R18) is open: the peer confirmed lately that it hears us.
    WindowOpened,
    /// The takeover window has passed.
    WindowClosed,
    /// The boot-time clock jumped: this node did not run for a while. Deliver it before anything else that waited.
    Froze,
    /// The peer's agent said something.
    Message(Message),
    /// The witness answered a question or a pulse.
    Witness(witness::Answer),
    /// Outcome of [`Action::Store`](super::Action::Store): the record is on disk.
    Stored {
        /// Of the action.
        id: u8,
    },
    /// Outcome of [`Action::Store`](super::Action::Store): the record may or may not be on disk.
    StoreFailed {
        /// Of the action.
        id: u8,
        /// What failed on what.
        reason: String,
    },
    /// The data plane reports.
    Plane(Report),
    /// The data plane's process ended by itself or was killed.
    PlaneDied,
    /// The same, and another one took its mounts over: the application waits and has seen nothing. It holds, and has no
    /// other order; what was on its way to the peer is hot on disk.
    PlaneReplaced,
    /// The data plane ended because of [`Order::Stop`](model::orders::Order::Stop): everything is drained and synced.
    PlaneStopped,
    /// Outcome of [`Action::Probe`](super::Action::Probe).
    Proof(Proof),
    /// Outcome of [`Action::Vip`](super::Action::Vip).
    Vip(VipReport),
    /// Outcome of [`Action::App`](super::Action::App), or news of the application.
    App(AppReport),
    /// The configuration names this witness from now on (R16): the pair exchanges it while PRIM and SECOND.
    WitnessConfigured {
        /// Number of the member; `None`: without witness.
        witness: Option<model::NodeId>,
    },
    /// What is left to whoever configures the module is this from now on.
    Chosen {
        /// All of it.
        policy: Policy,
    },
    /// A timer armed by [`Action::Arm`](super::Action::Arm) expired. Deliver expired timers before other events.
    Expired(Timer),
}

/// What an operator may ask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// `stead start`.
    Start,
    /// `stead stop`.
    Stop,
    /// A failover rule makes it wait: as `Stop`; the runtime starts it again when no rule does any more.
    Wait,
    /// `stead forcestop`: nothing is drained, processes are killed.
    ForceStop,
    /// `stead restart`: the application's scripts only.
    Restart,
    /// `stead stopstart`: stop, then start; a complete secondary takes over.
    StopStart,
    /// `stead swap`: exchange roles.
    Swap,
    /// `stead prim`: start as primary.
    Prim {
        /// Even when this copy is known or suspected to be stale, inconsistent or empty.
        force: bool,
        /// `fullsync`: the other copy is compared as a whole at its next resync, whatever is known to have changed.
        #[serde(default)]
        full: bool,
    },
    /// `stead second`: start, and do not serve before having been a complete secondary.
    Second {
        /// Compare everything.
        full: bool,
    },
}

/// What a heartbeat says of one module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Advert {
    /// Epoch of the sender's record.
    pub epoch: Option<Epoch>,
    /// Where it is.
    pub state: ModuleState,
    /// How settled.
    pub status: Status,
}

/// What the takeover proof found (protocol.md, R18, R19, H16). Gathered by the runtime, judged here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The interface of the virtual IP (without one: every interface of the heartbeats) has carrier.
    pub carrier: bool,
    /// The isolation test: `None` when neither a split-brain checker nor a default gateway is configured.
    /// It may only veto.
    pub isolation: Option<bool>,
    /// Who answers for the virtual IP on the clients' network.
    pub vip: VipAnswer,
    /// The peer's own heartbeats are heard: it lives, whoever it hears.
    #[serde(default)]
    pub heard: bool,
}

/// Who answered an ARP/NDP probe for the virtual IPs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VipAnswer {
    /// Nobody (other than ourselves), or the module has no virtual IP.
    Nobody,
    /// A network card of the peer node.
    Peer,
    /// Somebody else.
    Stranger,
}

/// What became of the virtual IPs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VipReport {
    /// All are held and announced.
    Held,
    /// None is held any more.
    Released,
    /// Somebody answers for one; none is held.
    Duplicate {
        /// A network card of the peer node.
        peer: bool,
        /// Address and MAC, for the sentence: `10.0.1.100 is answered by 02:42:…`.
        who: String,
    },
    /// It could not be done (no such interface, no rights).
    Failed {
        /// What failed on what.
        reason: String,
    },
}

/// What became of the application.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppReport {
    /// `prestart` is through (a missing script is not an error).
    Prepared,
    /// `start_prim` returned 0.
    Started,
    /// `prestart` or `start_prim` failed or ran into its timeout.
    StartFailed {
        /// Script, exit code, where its output is.
        reason: String,
    },
    /// `stop_prim` ran and nothing of the application is left (what stayed was killed).
    Stopped,
    /// `poststop` is through.
    Released,
    /// The application died by itself.
    Died {
        /// What is known.
        reason: String,
    },
}
