//! The HTTP API: paths, query and JSON on one side, a [`Backend`] on the other.
//!
//! Holds no state and decides nothing. One router serves both doors: root's Unix socket and the nodes' mutual TLS.
//! **Invariant:** every answer that is not 2xx is a [`model::api::Problem`] as JSON, and no body is read without a bound.

mod backend;
mod proxy;
mod reply;
mod routes;
mod serve;

pub use backend::{Answer, Backend, Caller, RawAnswer};
pub use reply::Reply;
pub use routes::router;
pub use serve::{bind_unix, serve_connection, serve_unix};
