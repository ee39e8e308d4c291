//! The JSON of the HTTP API (v1): what the agent answers, what the command line and the other nodes ask.
//!
//! Data only. Times are milliseconds since 1970 (`*_unix_ms`) or durations (`*_ms`). **Invariant:** inside v1 fields
//! are only added, and every field that is not the identity of its object has a default, so N and N−1 read each other.

pub mod cluster;
pub mod farm;
pub mod module;
pub mod node;
pub mod problem;
pub mod quarantine;
pub mod requests;
pub mod watch;

pub use cluster::*;
pub use farm::*;
pub use module::*;
pub use node::*;
pub use problem::{Code, Diagnostic, Problem, Severity};
pub use quarantine::*;
pub use requests::*;
pub use watch::*;

/// First path segment of every endpoint.
pub const API_PREFIX: &str = "/v1";
/// Where the agent listens for this machine's root.
pub const DEFAULT_SOCKET: &str = "/run/stead/agent.sock";
/// Largest JSON request or answer the API reads.
pub const BODY_MAX: usize = 8 * 1024 * 1024;
/// Largest `.safe` the API reads.
pub const PACKAGE_MAX: usize = 64 * 1024 * 1024;
/// Most log lines in one answer.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Longest a request may ask the agent to wait before it answers.
pub const WAIT_MAX_MS: u64 = 60_000;
