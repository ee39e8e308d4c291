//! The mirror module: which of two nodes serves the application.
//!
//! Pure. No clock, no I/O, no randomness: events come in, actions go out.
//! **Invariant:** writes are open only under an epoch this node has on disk, and to which it had a right.

mod action;
pub mod election;
mod event;
mod message;
mod view;

pub use action::{Action, App, Level, Settings, Ticket, Timer, Vip};
pub use event::{Advert, AppReport, Command, Event, Proof, VipAnswer, VipReport};
pub use message::{Answer, Facts, MESSAGE_VERSION, Message, Serving, Wish};
pub use view::{Arbiter, View};

use crate::witness;
use alloc::vec::Vec;
use model::{ModuleState, Record, Status};

/// The automaton of one module on one node. The runtime makes one when the agent starts (or the module is
/// installed), and keeps it: STOP is one of its states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    settings: Settings,
    record: Record,
}

impl Mirror {
    /// In STOP, with what is on disk. An unreadable record is [`Record::empty`] (unknown data) with `boots` set to
    /// something larger than ever before (seconds since 1970 will do), so that tickets stay unique.
    #[must_use]
    pub const fn new(settings: Settings, record: Record) -> Self {
        Self { settings, record }
    }

    /// One event; all its actions, in order.
    pub fn handle(&mut self, _event: Event) -> Vec<Action> {
        Vec::new()
    }

    /// What to show.
    #[must_use]
    pub fn view(&self) -> View {
        unimplemented!("with the decision")
    }

    /// What the heartbeats say of this module.
    #[must_use]
    pub fn advert(&self) -> Advert {
        Advert { epoch: self.record.epoch, state: ModuleState::Stop, status: Status::NotReady }
    }

    /// What to tell the witness every [`model::limits::WITNESS_PULSE_MS`]; `None`: be silent (stopped, or a grant is
    /// being stored, R15).
    #[must_use]
    pub fn pulse(&self) -> Option<witness::Question> {
        None
    }

    /// The record as last stored.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }
}
