//! The data plane of one mirror module: FUSE front over the replicated directories, and the link to the peer.
//!
//! It obeys orders (`model::orders`) and reports; it decides no role.

pub mod outlet;
pub mod tree;
