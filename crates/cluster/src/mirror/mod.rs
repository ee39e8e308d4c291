//! The mirror module: which of two nodes serves the application.
//!
//! Pure. No clock, no I/O, no randomness: events come in, actions go out.
//! **Invariant:** writes are open only under an epoch this node has on disk, and to which it had a right.
//!
//! | file | holds |
//! |---|---|
//! | `event`, `action`, `message` | the language spoken with the runtime and with the peer |
//! | `decide` | the policy: one total expression over (state, event) |
//! | `pursue` | what a waiting, holding or lone node tries next |
//! | `serve` | claiming, opening, holding, fencing |
//! | `hello`, `election` | what two nodes agree on when they meet |
//! | `session` | following, resync, commit |
//! | `operator` | commands |
//! | `boot`, `leave` | starts, and orderly ends |
//! | `exchange` | another witness, step by step (R16) |
//! | `store` | one record at a time, and what follows it |
//! | `reason`, `view` | sentences, and what is shown |
//! | `lines` | SafeKit's words for a step, for the log |

mod action;
mod boot;
mod decide;
pub mod election;
mod event;
mod exchange;
mod hello;
mod leave;
mod lines;
mod message;
mod open_cases;
mod operator;
mod pursue;
mod reason;
mod serve;
mod session;
mod state;
mod store;
mod view;

pub use action::{Action, App, Home, Level, Policy, Settings, Ticket, Timer, Vip};
pub use event::{Advert, AppReport, Command, Event, Proof, VipAnswer, VipReport};
pub use lines::{Line, lines, lines_of_step, local_state};
pub use message::{Answer, Facts, MESSAGE_VERSION, Message, Serving, Wish};
pub use reason::LOOKING;
pub use state::Mirror;
pub use view::{Arbiter, View};

use crate::scripts::Why;
use alloc::sync::Arc;
use alloc::vec::Vec;
use model::{ModuleState, Record};
use reason::Reason;
use state::{AppState, Names, Peer, Plane, State, StoreId};

/// The actions of one event, in order.
type Out = Vec<Action>;

impl Mirror {
    /// In STOP, with what is on disk. An unreadable record is [`Record::empty`] (unknown data) with `boots` set to
    /// something larger than ever before (seconds since 1970 will do), so that tickets stay unique.
    #[must_use]
    pub fn new(settings: Settings, record: Record) -> Self {
        let last = Ticket { boots: record.boots, n: 0 };
        Self {
            settings: Names(Arc::new(settings)),
            record,
            state: State::Stop,
            why: Reason::Stopped,
            last,
            pending: None,
            store_id: StoreId(0),
            deferred: Vec::new(),
            peer: Peer::Unknown,
            seen: Ticket::default(),
            floor: None,
            counter: model::marks::Counter(0),
            hello: None,
            spoke: false,
            unanswered: 0,
            question: None,
            unheard: 0,
            refused: false,
            incarnation: None,
            window: false,
            proof: None,
            alone_due: false,
            frozen: false,
            was_second: false,
            may_prove: false,
            plane: Plane::Moving,
            resumable: false,
            app: AppState::Down,
            giving_up: None,
            vip: false,
            leaves: None,
            loops: 0,
            peer_stepped_aside: false,
            wish: Wish::None,
            tree_empty: false,
            left_clean: false,
            aside: false,
            map_lost: false,
            compare_all: false,
            map_base: None,
            unopened: None,
            blocked: false,
            let_go: false,
            unfit: None,
            left_out: false,
            witness_empty: false,
            exchange: None,
            peer_witnesses: None,
            told: state::Told::default(),
        }
    }

    /// One event; all its actions, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let before = self.scripted();
        self.take(event, &mut out);
        let asked = |action: &Action| matches!(action, Action::App(App::Start | App::Role { .. }));
        if let Some(to) = self.scripted()
            && before != Some(to)
            && !out.iter().any(asked)
        {
            let why = if to == ModuleState::Wait { Why::StopWait } else { Why::Start };
            out.push(Action::App(App::Role { to, why }));
        }
        out
    }

    /// The record as last stored.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// From now on the module's configuration has a signature with these first digits.
    pub fn configure(&mut self, configuration: u64) {
        alloc::sync::Arc::make_mut(&mut self.settings.0).configuration = configuration;
    }

    fn choose(&mut self, policy: Policy) {
        alloc::sync::Arc::make_mut(&mut self.settings.0).policy = policy;
    }

    /// Somebody else acted automatically (`incloop`): how many that makes in a row.
    pub fn count_loop(&mut self) -> u16 {
        self.loops = if self.settings.policy.loop_ms > 0 { self.loops.saturating_add(1) } else { 0 };
        self.loops
    }

    /// The next automatic action is one too many.
    #[must_use]
    pub fn is_last_loop(&self) -> bool {
        self.settings.policy.loop_ms > 0 && self.loops >= self.settings.policy.max_loop
    }

    /// How many automatic actions there were in a row, as far as it is remembered.
    #[must_use]
    pub const fn loops(&self) -> u16 {
        self.loops
    }

    /// They are remembered after all: the command came from a script that has counted itself (`-i`).
    pub const fn remember_loops(&mut self, loops: u16) {
        self.loops = loops;
    }

    /// What was done automatically is forgotten (`resetloop`).
    pub const fn forget_loops(&mut self) {
        self.loops = 0;
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
