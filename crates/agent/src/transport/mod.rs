//! Who may talk to the agent over the network, and how: mutual TLS 1.3 between the members of the cluster.
//!
//! **Invariant:** there is no plaintext and no anonymous request; handlers learn the caller from [`crate::api::Caller`]
//! and [`Peer`], which only the listener sets.

mod caller;
pub(crate) mod tls;

pub use caller::{Peer, PeerRole};
