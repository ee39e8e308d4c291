//! The bytes of the link: a fixed header and a raw payload per frame.
//!
//! Written by hand, so that no serialiser stands between a megabyte and the socket. The decoder trusts
//! nothing: lengths are capped, names that could leave their directory are refused, every value is in range.
//! **Invariant:** what version N wrote, N and N+1 read the same (`tests/golden.rs` keeps the bytes).

mod body;
mod codec;
mod header;
mod list;
mod message;

pub use codec::{decode, encode};
pub use header::{HEADER_BYTES, Header, Kind, MAGIC, PAYLOAD_MAX, VERSION, VERSION_MIN};
pub use list::{EntriesWriter, XattrsWriter};
pub use message::{
    Chunk, Difference, Direction, EVERYTHING, Entries, Entry, FEATURE_MOVES, FEATURE_VERIFY, Hello, HotPart,
    LINKS_FROM, Message, ROUND, TELLS_HOT, Welcome, XattrList,
};

use model::ids::Epoch;

/// Why bytes were refused. The connection they came on is of no further use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// No frame of ours begins like this.
    #[error("this is not a replication frame of Stead")]
    NotOurs,
    /// A version outside [`VERSION_MIN`]..=[`VERSION`].
    #[error(
        "the peer speaks version {theirs} of the replication link; this node understands {VERSION_MIN} to {VERSION}: upgrade the older node"
    )]
    Version {
        /// What the peer wrote.
        theirs: u8,
    },
    /// Unknown kind of frame.
    #[error("unknown kind of frame {kind}")]
    Kind {
        /// The byte.
        kind: u8,
    },
    /// Larger than any frame may be.
    #[error("frame of {length} bytes, more than the {PAYLOAD_MAX} a frame may have")]
    TooLong {
        /// What the header said.
        length: u32,
    },
    /// The payload ends inside a field.
    #[error("frame ends inside a field")]
    Short,
    /// Bytes after the last field.
    #[error("frame has bytes after its last field")]
    Trailing,
    /// A value outside its range.
    #[error("frame has a value outside its range")]
    Value,
    /// An entry name with '/', NUL, '.', '..', empty or too long.
    #[error("frame has a name that no directory entry can have")]
    Name,
    /// The payload is not what the sender sent.
    #[error("checksum of the frame is wrong")]
    Checksum,
}

/// What every frame of one session carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Number of the session.
    pub session: u64,
    /// [`fingerprint`] of its epoch.
    pub epoch: u32,
    /// Position; 0 outside the ordered stream.
    pub lsn: u64,
}

/// A short stand-in for an epoch in each frame (FNV-1a); greetings carry the epoch itself.
#[must_use]
pub fn fingerprint(epoch: Epoch) -> u32 {
    let bytes =
        epoch.counter.to_le_bytes().into_iter().chain(epoch.node.0.to_le_bytes()).chain(epoch.random.to_le_bytes());
    bytes.fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
