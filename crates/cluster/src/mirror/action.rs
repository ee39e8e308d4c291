//! What the automaton wants done. Wanted situations (I5): idempotent, safe to repeat.
//!
//! **How the runtime executes a list** (the safety order of protocol.md §2 rests on it):
//! 1. In the order given. [`Action::Journal`] is appended before the next action begins (I6).
//! 2. [`Action::Vip`] `Down` is *complete* before the next action begins. All others are only *begun* in order;
//!    their outcome comes back as an event. Orders to the data plane travel on one stream, so they stay ordered.
//! 3. Everything that depends on a record being on disk is emitted after [`Event::Stored`](super::Event::Stored), never in the list
//!    that stores it. Until that event the automaton keeps what else happens for later (messages are dropped).
//! 4. One event at a time: all actions of one event are begun before the next event is handled.

use super::message::Message;
use crate::scripts::Why;
use crate::witness;
use alloc::boxed::Box;
use alloc::string::String;
use model::limits::{self, Timing};
use model::orders::Order;
use model::{ModuleState, NodeId, Record};
use serde::{Deserialize, Serialize};

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Append to the module's journal (and log) before anything else of this list.
    Journal {
        /// Who must care.
        level: Level,
        /// The sentence an operator will read.
        sentence: String,
    },
    /// Answer to the [`Command`](super::Command) just given.
    Reply {
        /// Accepted, or refused without effect.
        accepted: bool,
        /// What happens now; or what is wrong, why, and the command that helps.
        sentence: String,
    },
    /// Make this record durable (two alternating copies, fsync), then [`Event::Stored`](super::Event::Stored) with the same id. At most one
    /// is open; the id alternates.
    Store {
        /// To be returned.
        id: u8,
        /// The whole record.
        record: Box<Record>,
    },
    /// Send to the peer's agent: at most once, no retry, no answer awaited. The automaton repeats what matters.
    Send(Message),
    /// Put this to the witness that votes ([`Mirror::voter`](super::Mirror::voter)), to no other.
    Ask(witness::Question),
    /// Send [`Mirror::pulse`](super::Mirror::pulse) to the witness now, besides the periodic ones.
    Pulse,
    /// Order to `mirrorfs`; the process is started (and `Configure`d) first when it is not running.
    /// `Lease` is not sent by the automaton: the runtime renews it while its loop turns, after delivering [`Event::Froze`](super::Event::Froze).
    Data(Order),
    /// Kill the data plane's process now: the last, certain way to stop writes. Then [`Event::PlaneDied`](super::Event::PlaneDied).
    KillPlane,
    /// Gather the takeover proof, within [`limits::PROBE_MS`]; then [`Event::Proof`](super::Event::Proof). While one is being gathered a second
    /// request is the same one.
    Probe,
    /// The virtual IPs. Without one in the configuration: answer `Held` and `Released` at once.
    Vip(Vip),
    /// The application.
    App(App),
    /// (Re)start this timer: [`Event::Expired`](super::Event::Expired) after [`Timer::duration_ms`].
    Arm(Timer),
    /// Stop this timer; it need not be armed.
    Disarm(Timer),
    /// Reboot this machine: the module is stopped. When that cannot be done, the runtime starts it again ([`Event::Automatic`](super::Event::Automatic)).
    Reboot,
}

/// Wanted situation of the virtual IPs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vip {
    /// Held and announced.
    Up {
        /// The peer is fenced by a right stronger than its answer (witness, or its own consent): take the
        /// address although its network card answers, and keep announcing.
        announce_anyway: bool,
    },
    /// Not held. Complete before the next action.
    Down,
}

/// Wanted situation of the application. Run one after another, in the order asked; [`Scripts`](crate::scripts::Scripts) says which
/// scripts that are. Outcomes: [`AppReport`](super::AppReport).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum App {
    /// `prestart` has run. Outcome `Prepared` or `StartFailed`, always, within the script's timeout.
    Prepare,
    /// `start_prim` has run, and what else belongs to the state shown; when the application is known to run (adopted): nothing.
    /// Outcome `Started` or `StartFailed`, always, within the scripts' timeouts.
    Start,
    /// The scripts of this state have run, besides the application's, which runs or not as before. No outcome: what fails is logged.
    Role {
        /// Which state.
        to: ModuleState,
        /// What for.
        why: Why,
    },
    /// `stop_prim` has run and nothing is left. Outcome `Stopped`, always, within the scripts' timeouts.
    Stop {
        /// Kill at once; the scripts run by force only.
        force: bool,
        /// What for.
        why: Why,
    },
    /// `poststop` has run, the last of all. Outcome `Released`.
    Release {
        /// What for.
        why: Why,
    },
}

/// How loud a journal entry is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// U: an operator's command.
    User,
    /// E: a person must act.
    Error,
    /// C: redundancy or service is reduced.
    Critical,
    /// S: a state was reached.
    State,
    /// I: worth knowing.
    Info,
}

/// The automaton's clocks. It never sees a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// Repeat the HELLO.
    Hello,
    /// The witness did not answer.
    Question,
    /// A primary without witness may go alone from here. Counted from [`Event::PeerSilent`](super::Event::PeerSilent).
    Alone,
    /// A claim by proof is not on disk in time.
    Store,
    /// Gather the proof again.
    Probe,
    /// A proof gathered early is too old.
    Proof,
    /// The peer did not take over what a swap offered.
    Aside,
    /// A peer that was let go may be resynchronised again.
    Rejoin,
    /// The other side of a session does not come.
    Link,
    /// The data plane did not follow an order.
    Plane,
    /// The data plane is not fenced in time: it is killed.
    Fence,
    /// Nobody answered after a freeze.
    Revalidate,
    /// The counter of automatic actions starts again.
    Loop,
    /// The secondary did not confirm a step of the witness's exchange.
    Exchange,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Hello,
        Self::Question,
        Self::Alone,
        Self::Store,
        Self::Probe,
        Self::Proof,
        Self::Aside,
        Self::Rejoin,
        Self::Link,
        Self::Plane,
        Self::Fence,
        Self::Revalidate,
        Self::Loop,
        Self::Exchange,
    ];

    /// From arming to [`Event::Expired`](super::Event::Expired), on the boot-time clock.
    #[must_use]
    pub const fn duration_ms(self, timing: &Timing, policy: &Policy) -> u64 {
        match self {
            Self::Hello => limits::HELLO_MS,
            Self::Question => limits::QUESTION_MS,
            // The detector reports silence `lost_ms` after the last pulse; the window of the peer counts from then on.
            Self::Alone => timing.alone_ms - timing.lost_ms,
            Self::Store => timing.store_max_ms,
            Self::Probe => limits::PROBE_MS,
            Self::Proof => timing.lost_ms,
            Self::Aside => limits::ASIDE_MS,
            Self::Rejoin => limits::REJOIN_MS,
            Self::Link => limits::LINK_MS,
            Self::Plane => limits::PLANE_MS,
            Self::Fence => limits::FENCE_MS,
            Self::Revalidate => limits::REVALIDATE_MS,
            Self::Loop => policy.loop_ms,
            Self::Exchange => limits::REVALIDATE_MS,
        }
    }
}

/// A number nobody else uses: agent boots and a counter. Orders the questions of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Ticket {
    /// [`Record::boots`].
    pub boots: u64,
    /// Counts within this boot, from 1.
    pub n: u32,
}

/// As one 128-bit word, like a session's number: only their order means anything, so whoever compares situations by
/// their hash may rename them.
impl core::hash::Hash for Ticket {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(model::marks::TICKET | u128::from(self.session_number()));
    }
}

impl Ticket {
    /// As the number of a session: unique among the sessions this node leads.
    #[must_use]
    pub const fn session_number(self) -> u64 {
        (self.boots << 32) | self.n as u64
    }
}

/// Who is who, for the automaton and its sentences. Constant for the life of one automaton.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the module.
    pub module: String,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// The other one.
    pub peer: NodeId,
    /// Its name.
    pub peer_name: String,
    /// The witness of the configuration. Who votes is in the record: it follows in steps (R16).
    pub witness: Option<NodeId>,
    /// The module has `<rfs>`. Without: the runtime answers orders with [`crate::nodata::NoData`].
    pub replicated: bool,
    /// The module has virtual IPs.
    pub vip: bool,
    /// Random number drawn when the agent starts: makes epochs and stamps unforgeable by a restored backup.
    pub salt: u64,
    /// Boot (machine) this agent runs in.
    pub boot_id: u128,
    /// First digits of the signature of the module's configuration; 0: not known.
    #[serde(default)]
    pub configuration: u64,
    /// What was chosen for this module, and may be chosen otherwise while it runs.
    #[serde(default)]
    pub policy: Policy,
}

/// What is left to whoever configures the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// A secondary that lost its primary takes over. Otherwise it waits for `prim`.
    pub failover: bool,
    /// Who is primary again when the pair has become whole.
    pub home: Home,
    /// Automatic actions in a row before the module stops here.
    pub max_loop: u16,
    /// After this long without one they are forgotten; 0: they are not counted.
    pub loop_ms: u64,
    /// A rule that stops and starts the module reboots the node in between (`automatic_reboot`).
    #[serde(default)]
    pub reboot: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failover: true,
            home: Home::default(),
            max_loop: limits::LOOPS_MAX,
            loop_ms: limits::LOOP_MS,
            reboot: false,
        }
    }
}

/// Who is primary again when the pair has become whole (`defaultprim`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// Who serves goes on.
    #[default]
    Nobody,
    /// This node.
    Here,
    /// The other one.
    There,
    /// Who was primary before the last takeover.
    Last,
}
