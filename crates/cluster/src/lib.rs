//! What decides: the mirror automaton, the failure detector, checkers and failover rules, the witness
//! ledger.
//!
//! Pure. Reads no clock, does no I/O, spawns nothing: events and times come in, actions go out. The same input gives
//! the same output in the same order, so any failure can be replayed from its journal.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod degraded;
pub mod detector;
pub mod farm;
pub mod imagine;
pub mod mirror;
pub mod nodata;
pub mod scripts;
pub mod spares;
pub mod standing;
pub mod watch;
pub mod witness;
