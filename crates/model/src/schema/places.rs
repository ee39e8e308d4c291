//! Where the parts of a typed configuration were written, for findings that need two files to see.

use super::tree::Position;
use alloc::vec::Vec;

/// Places, parallel to the lists of [`super::ModuleConfiguration`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// `<service>`.
    pub service: Position,
    /// `defaultprim`.
    pub default_prim: Position,
    /// Of each heartbeat.
    pub heartbeats: Vec<Position>,
    /// What names the replication network.
    pub flow: Position,
    /// Of each VIP.
    pub vips: Vec<Position>,
    /// Of each replicated directory.
    pub dirs: Vec<Position>,
    /// `<user>`.
    pub user: Position,
}
