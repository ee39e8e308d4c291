//! Who may talk to the agent over the network, and how: mutual TLS 1.3 between the members of the cluster.
//!
//! **Invariant:** there is no plaintext and no anonymous request; handlers learn the caller from [`crate::api::Caller`]
//! and [`Peer`], which only the listener sets.

mod body;
mod caller;
mod client;
mod connection;
mod seats;
mod server;
pub(crate) mod tls;

pub use caller::{Peer, PeerRole};
pub(crate) use client::cause;
pub use client::{CallError, PeerClient, Silence};
pub(crate) use connection::{BINDING_LABEL, Stranger, tune};
pub(crate) use seats::{Seats as StrangerSeats, StrangerSeat};
pub use server::{API_PORT, JoinDoor, Serve, Server, ServerError, Tenant, Tenants, WITNESS_PORT};
