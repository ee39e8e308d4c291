//! The agent: one per node. It waits for the world, lets the pure crates decide, journals, and starts actions.
//!
//! Owns membership, heartbeats, every module's loop, scripts, addresses, the API and the witness role. Never touches
//! application data: that is `mirrorfs`.

// They panic where nothing can be written, and a panic ends a process that serves.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod cluster_config;
pub mod configuration;
pub mod health;
pub mod heartbeat;
#[doc(hidden)]
pub mod hostile;
pub mod identity;
pub mod modules;
pub mod pairing;
pub mod places;
pub mod replay;
pub mod rules;
pub mod runtime;
pub mod tools;
pub mod transport;
pub mod witness_client;
pub mod witness_server;
