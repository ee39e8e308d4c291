//! `stead witness`: the third machine that remembers which node of which module holds which epoch.
//!
//! What it answers is decided by the pure [`cluster::witness::Ledger`]; here are its disk, its port and its door.
//! **Invariant:** an answer leaves only after the record it follows from is fsynced, and a node can ask in its own
//! name only.

mod door;
pub(crate) mod hostile;
mod ledgers;

pub use door::{WitnessError, run};
pub(crate) use ledgers::{Asked, Pulsed};
pub use ledgers::{LedgerView, WitnessState};
