//! The fixed header of every frame: 64 bytes, little-endian, the same on every machine.
//!
//! **Invariant:** nothing is allocated by a length a stranger gave: [`Header::decode`] refuses lengths above
//! [`PAYLOAD_MAX`] before anyone reads a payload.

use super::WireError;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every frame: `StLk`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"StLk");
/// The newest version this side speaks. One line per version: 1: first release.
pub const VERSION: u8 = 1;
/// The oldest version this side understands.
pub const VERSION_MIN: u8 = 1;
/// Size of the header.
pub const HEADER_BYTES: usize = 64;
/// The largest payload: one FUSE write (1 MiB) or one chunk of a check, with room for its fixed parts.
pub const PAYLOAD_MAX: u32 = (1 << 20) + 4096;

/// What a frame is: the value of its `kind` byte. Values are for ever; a removed one is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // named as the messages they head
pub enum Kind {
    Bind = 1,
    Unbind = 2,
    Create = 3,
    Mkdir = 4,
    Mknod = 5,
    Symlink = 6,
    Link = 7,
    Unlink = 8,
    Rmdir = 9,
    Rename = 10,
    Write = 11,
    SetAttr = 12,
    Fallocate = 13,
    SetXattr = 14,
    RemoveXattr = 15,
    Sync = 32,
    CheckEntries = 33,
    CheckBlocks = 34,
    CheckHole = 35,
    Purge = 36,
    Xattrs = 37,
    Commit = 38,
    Heartbeat = 64,
    Applied = 65,
    Synced = 66,
    Difference = 67,
    Fault = 68,
    Committed = 69,
    Space = 70,
    Hot = 71,
    Hello = 80,
    Welcome = 81,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 32] = [
            Bind,
            Unbind,
            Create,
            Mkdir,
            Mknod,
            Symlink,
            Link,
            Unlink,
            Rmdir,
            Rename,
            Write,
            SetAttr,
            Fallocate,
            SetXattr,
            RemoveXattr,
            Sync,
            CheckEntries,
            CheckBlocks,
            CheckHole,
            Purge,
            Xattrs,
            Commit,
            Heartbeat,
            Applied,
            Synced,
            Difference,
            Fault,
            Committed,
            Space,
            Hot,
            Hello,
            Welcome,
        ];
        ALL.into_iter().find(|k| *k as u8 == byte)
    }

    /// Does a frame of this kind have a place (an Lsn) in the ordered stream?
    #[must_use]
    pub fn is_ordered(self) -> bool {
        (self as u8) < 64
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: u8,
    kind: u8,
    flags: U16,
    session: U64,
    epoch: U32,
    crc: U32,
    lsn: U64,
    id: U64,
    offset: U64,
    length: U32,
    nsec: U32,
    sec: I64,
}

const _: () = assert!(core::mem::size_of::<Raw>() == HEADER_BYTES);

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version the sender wrote this frame in.
    pub version: u8,
    /// What follows.
    pub kind: Kind,
    /// Meaning depends on the kind; unknown bits are ignored.
    pub flags: u16,
    /// Number of the session ([`model::orders::Session`]).
    pub session: u64,
    /// [`super::fingerprint`] of the session's epoch.
    pub epoch: u32,
    /// CRC-32C of the payload.
    pub crc: u32,
    /// Position in the ordered stream; 0 for frames outside it.
    pub lsn: u64,
    /// File, if the kind has one.
    pub id: u64,
    /// Offset, or another number of the kind.
    pub offset: u64,
    /// Payload bytes that follow the header.
    pub length: u32,
    /// Nanoseconds of the time.
    pub nsec: u32,
    /// Seconds of the time.
    pub sec: i64,
}

impl Header {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let raw = Raw {
            magic: U32::new(MAGIC),
            version: self.version,
            kind: self.kind as u8,
            flags: U16::new(self.flags),
            session: U64::new(self.session),
            epoch: U32::new(self.epoch),
            crc: U32::new(self.crc),
            lsn: U64::new(self.lsn),
            id: U64::new(self.id),
            offset: U64::new(self.offset),
            length: U32::new(self.length),
            nsec: U32::new(self.nsec),
            sec: I64::new(self.sec),
        };
        zerocopy::transmute!(raw)
    }

    /// # Errors
    /// Not ours, a version or kind we do not know, or a payload larger than anyone may send.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic.get() != MAGIC {
            return Err(WireError::NotOurs);
        }
        if !(VERSION_MIN..=VERSION).contains(&raw.version) {
            return Err(WireError::Version { theirs: raw.version });
        }
        let kind = Kind::from_byte(raw.kind).ok_or(WireError::Kind { kind: raw.kind })?;
        if raw.length.get() > PAYLOAD_MAX {
            return Err(WireError::TooLong { length: raw.length.get() });
        }
        Ok(Header {
            version: raw.version,
            kind,
            flags: raw.flags.get(),
            session: raw.session.get(),
            epoch: raw.epoch.get(),
            crc: raw.crc.get(),
            lsn: raw.lsn.get(),
            id: raw.id.get(),
            offset: raw.offset.get(),
            length: raw.length.get(),
            nsec: raw.nsec.get(),
            sec: raw.sec.get(),
        })
    }
}
