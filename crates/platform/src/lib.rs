//! The operating-system seam: everything that touches the machine and is not application data.
//!
//! Nothing here decides anything: a caller names a wanted situation and hears what is so.
//! **Invariant:** every wait has a deadline, every file and queue a bound.

// They panic where nothing can be written, and a panic ends a process that serves.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod clock;
#[cfg(feature = "farm")]
pub mod farm;
pub mod mounts;
pub mod net;
pub mod probe;
pub mod process;
pub mod services;
pub mod store;
