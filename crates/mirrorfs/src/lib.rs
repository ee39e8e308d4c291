//! The data plane of one mirror module: FUSE front over the replicated directories, and the link to the peer.
//!
//! It obeys orders (`model::orders`) and reports; it decides no role.

// They panic where nothing can be written, and a panic ends a process that serves.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod abi;
mod arriving;
mod behind;
pub mod control;
pub mod cover;
mod diff;
mod disk;
pub mod estate;
pub mod follower;
pub mod forest;
pub mod front;
#[cfg(test)]
mod full_tests;
pub mod gate;
pub mod hot;
mod kept;
pub mod leader;
pub mod link;
mod locate;
pub mod map;
pub mod nodes;
pub mod outlet;
mod reckon;
mod resync;
pub mod session;
pub mod store;
mod sys;
pub mod tree;

pub use control::{RunError, run};
pub use diff::{tree_diff, tree_diff_at};
pub use reckon::reckon;
