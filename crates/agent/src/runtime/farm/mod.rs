//! A farm module on this node: another kind of loop beside the mirror's.
//!
//! [`cluster::farm::module`] decides; here it is waited for and done. What the mirror's loop has as well (scripts, checkers, log) is the
//! same code.

mod actor;
mod begin;
mod generations;
mod lans;
mod mailbox;
mod oversee;
mod publish;
mod tend;
mod wires;

use crate::heartbeat::Said;
pub use lans::lans_of;
pub use mailbox::Mailbox;
use model::NodeId;
#[cfg(test)]
pub(super) use publish::nothing;

/// What the heartbeats of the other nodes say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It is heard in both directions.
    Heard(NodeId),
    /// It is silent past the timeout.
    Silent(NodeId),
    /// All of several are silent, who were heard a moment ago.
    CutOff,
    /// What it says of this farm.
    Said(NodeId, Said),
}
