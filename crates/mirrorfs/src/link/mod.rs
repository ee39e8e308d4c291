//! The road between two data planes: TCP, mutual TLS 1.3, frames. Knows nothing of files.
//!
//! Two connections per session, one per direction: a TLS session shared by a blocking reader and a blocking
//! writer would serialise them. **Invariant:** no byte of a stranger is interpreted before his certificate
//! chains to the cluster's CA and carries the peer's name and number; every wait has a deadline; and
//! no number of strangers takes the peer's place at the port.

mod ahead;
mod channel;
mod frames;
mod greet;
mod identity;

pub use ahead::{Ahead, Frames};
pub use channel::{Channel, Closer};
pub use frames::{FrameReader, FrameWriter};
pub use greet::{Dialled, Expecting, Listener, accept_pair, dial};
pub use identity::Identity;

use replica::wire::WireError;
use std::io;
use std::time::Duration;

/// Longest period of heartbeats on both connections.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Period of heartbeats on both connections, one of which is lost after so much silence.
#[must_use]
pub fn beat(silence: Duration) -> Duration {
    (silence / 4).min(HEARTBEAT)
}

/// A TCP connection, its TLS handshake and its greeting take no longer than this.
pub const HANDSHAKE_MS: u64 = 2_000;
/// How long a leader tries all addresses of its peer before it reports the link lost.
pub const DIAL_MS: u64 = 6_000;
/// Handshakes at a time: of strangers, and of whoever calls from an address of the peer's.
pub const HANDSHAKES_MAX: usize = 16;

const _: () = assert!(HANDSHAKE_MS < DIAL_MS);

/// Why there is no link (any more).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A certificate or key could not be used. Fatal for the link.
    #[error("cannot use {what} '{path}': {why}; run 'stead cluster join' again on this node")]
    Identity {
        /// "the cluster's CA", …
        what: &'static str,
        /// File.
        path: String,
        /// Cause.
        why: String,
    },
    /// TCP failed, closed, or was silent for too long. Retry safe.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// TLS failed. Retry safe, but somebody must look.
    #[error("TLS with the peer failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The bytes were not ours.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other side does not want this session.
    #[error("the peer refused the session: {0}")]
    Refused(String),
    /// The other side said something out of turn.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// No address answered.
    #[error("no connection to the peer within {0} ms; last: {1}")]
    Unreachable(u64, String),
}
