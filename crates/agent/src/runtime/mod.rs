//! The agent at work: one loop per module, and what connects the loops to the world.
//!
//! Waits, journals and starts actions; decides nothing. What it connects: the pure automaton of crate `cluster`, the
//! operating system of crate `platform`, the data plane's process, the other nodes, the API.

mod abandoned;
mod addresses;
mod agent;
mod application;
mod apply;
mod backend;
mod checkers;
pub(crate) mod chronicle;
mod configure;
mod copies;
mod diff;
mod doors;
mod farm;
mod guard;
mod heart;
mod hooks;
mod instance;
mod leftover;
mod module;
mod module_places;
mod only;
mod outputs;
mod outside;
mod peer_macs;
mod plane;
mod proof;
pub mod protection;
mod publish;
mod quarantine;
mod records;
mod requests;
mod running;
mod texts;
mod views;
mod witnesses;

pub use agent::{AgentError, run, told_to_leave};
