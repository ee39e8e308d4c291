//! The data plane of one mirror module: FUSE front over the replicated directories, and the link to the peer.
//!
//! It obeys orders (`model::orders`) and reports; it decides no role.

pub mod abi;
pub mod control;
pub mod cover;
pub mod forest;
pub mod front;
pub mod gate;
pub mod nodes;
pub mod outlet;
pub mod session;
pub mod store;
pub mod tree;

pub use control::{RunError, run};
