//! What the two data planes say to each other.
//!
//! Ordered messages (changes, checks, syncs, the commit) carry an Lsn and take effect in its order; the rest
//! (heartbeats, answers, greetings) stand outside the order.

use crate::op::{FileId, Op, Time};
use model::ids::{Epoch, Lsn};

/// One frame's meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Ordered: a change.
    Op(Op<'a>),
    /// Ordered, target only: an entry (create, mkdir, mknod, symlink, link) that should be there; one of the
    /// same type that is there already is taken over, another one is removed first. A link whose id is an
    /// [`Entry::link`] means the file the target knows under that number.
    Restore(Op<'a>),
    /// Ordered: make `id` durable ([`EVERYTHING`]: the whole file systems), then answer [`Message::Synced`].
    Sync {
        /// File or directory.
        id: FileId,
        /// As `fdatasync`: times may stay behind. (A follower that does not know this makes everything durable.)
        data_only: bool,
    },
    /// Ordered: compare these entries of `dir` with yours and report what differs.
    CheckEntries {
        /// The directory.
        dir: FileId,
        /// Which part of the directory this chunk is.
        part: Chunk,
        /// Encoded [`Entry`]s.
        entries: Entries<'a>,
    },
    /// Ordered: compare the BLAKE3 hashes of the zones of `offset..offset + len` with yours.
    CheckBlocks {
        /// The file.
        id: FileId,
        /// First byte, on a zone boundary.
        offset: u64,
        /// Bytes; the last zone may be short.
        len: u64,
        /// The file ends at `offset + len`.
        last: bool,
        /// 32 bytes for each zone.
        hashes: &'a [u8],
    },
    /// Ordered: here is a hole; report it if you have data in it.
    CheckHole {
        /// The file.
        id: FileId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The file ends at `offset + len`.
        last: bool,
    },
    /// Ordered, target only: remove this name and everything below it (kept in the quarantine if asked).
    Purge {
        /// Directory.
        parent: FileId,
        /// Name.
        name: &'a [u8],
        /// What `stat` shows of the directory afterwards.
        parent_mtime: Time,
    },
    /// Ordered: exactly these extended attributes.
    Xattrs {
        /// File.
        id: FileId,
        /// The whole set.
        list: XattrList<'a>,
    },
    /// Ordered: everything is compared; make it durable, store "full", answer [`Message::Committed`].
    Commit,
    /// I am here.
    Heartbeat,
    /// Everything up to this Lsn has returned from the kernel here.
    Applied {
        /// Position.
        lsn: Lsn,
    },
    /// The [`Message::Sync`] of this Lsn is done.
    Synced {
        /// Position of the question.
        lsn: Lsn,
    },
    /// Something differs from what the message at `lsn` said.
    Difference {
        /// Position of the check or change.
        lsn: Lsn,
        /// What differs.
        what: Difference,
        /// File or directory the check was about; for [`Difference::Absent`] the id that means nothing here.
        id: FileId,
        /// First byte, or the directory's id.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Entry; empty: the directory itself.
        name: &'a [u8],
    },
    /// The change at this Lsn could not be made here (full disk, I/O error); nothing after it is applied.
    Fault {
        /// Position.
        lsn: Lsn,
        /// A sentence.
        reason: &'a [u8],
    },
    /// The commit is durable here.
    Committed,
    /// Space left here.
    Space {
        /// Bytes an ordinary user may still write.
        available_bytes: u64,
        /// Free bytes, root's reserve included.
        free_bytes: u64,
        /// Inodes that can still be made.
        free_inodes: u64,
    },
    /// Target of a resync of changes, before anything else: this may differ here because of a crash.
    Hot {
        /// What about it.
        what: HotPart,
        /// Index of the replicated directory.
        root: u64,
        /// First byte ([`HotPart::Extents`]).
        offset: u64,
        /// Bytes; `u64::MAX - offset`: to the end.
        len: u64,
        /// Names from there, joined by '/'; empty: the replicated directory itself.
        path: &'a [u8],
    },
    /// First frame on each connection, from the leader.
    Hello(Hello<'a>),
    /// Its answer.
    Welcome(Welcome<'a>),
}

/// [`Message::Sync`] of every replicated file system.
pub const EVERYTHING: FileId = FileId(0);

/// [`Message::Sync`] of every replicated file system, as a round of the activity log: one is sent only when both sides
/// have done what the one before asked. (A follower that does not know it takes it for a file it does not know, and
/// syncs everything.)
pub const ROUND: FileId = FileId(u64::MAX - 1);

/// Ability ([`Hello::features`]): a complete follower answers checks too.
pub const FEATURE_VERIFY: u64 = 2;

/// Ability ([`Welcome::features`]): a rename as a restoration says where something was that is elsewhere now. Of its times, the first is the
/// time of modification of what moves.
pub const FEATURE_MOVES: u64 = 4;

/// Numbers of files with several names begin here; ids of the resync itself are twice as large.
pub const LINKS_FROM: u64 = 1 << 62;

/// Which part of a directory a [`Message::CheckEntries`] covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Begins a whole directory; the first entry has an empty name and is the directory itself.
    pub first: bool,
    /// Ends a whole directory: names never mentioned since `first` are extra.
    pub last: bool,
}

impl Chunk {
    /// Single entries, nothing is said about the others.
    pub const ENTRIES: Chunk = Chunk { first: false, last: false };
}

/// What a target found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Difference {
    /// The entry is missing here.
    Missing = 1,
    /// An entry the check did not name.
    Extra = 2,
    /// The entry is of another type, or a symbolic link or device with another target.
    Type = 3,
    /// The name belongs to another file than its other names (hard links).
    Link = 4,
    /// Mode, owner, size or mtime differ.
    Attributes = 5,
    /// Extended attributes differ.
    Xattrs = 6,
    /// Bytes differ.
    Blocks = 7,
    /// There is data where there should be a hole.
    Hole = 8,
    /// The id is unknown here: bind it again and check its entry.
    Absent = 9,
}

impl Difference {
    pub(super) fn from_u16(v: u16) -> Option<Self> {
        use Difference::*;
        [Missing, Extra, Type, Link, Attributes, Xattrs, Blocks, Hole, Absent].into_iter().find(|d| *d as u16 == v)
    }
}

/// What a [`Message::Hot`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum HotPart {
    /// The entries of this directory.
    Entries = 1,
    /// The place: a file with all its bytes, a directory with everything below.
    Whole = 2,
    /// These bytes of a file, and its attributes.
    Extents = 3,
    /// It is not known what: compare everything.
    Everything = 4,
    /// That was all.
    End = 5,
}

impl HotPart {
    pub(super) fn from_u16(v: u16) -> Option<Self> {
        use HotPart::*;
        [Entries, Whole, Extents, Everything, End].into_iter().find(|p| *p as u16 == v)
    }
}

/// Bit of [`Welcome::features`]: the follower says what is hot ([`Message::Hot`]) when changes are to be compared.
pub const TELLS_HOT: u64 = 1;

/// One directory entry as a check describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Name; empty for the directory itself.
    pub name: &'a [u8],
    /// `st_mode` with its type bits; 0: there must be no such entry.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes (regular files and symbolic links).
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Device number.
    pub rdev: u64,
    /// Equal for names of one file with several, from [`LINKS_FROM`] on; 0: only one name.
    pub link: u64,
    /// Digest of the extended attributes; zero: none.
    pub xattrs: [u8; 16],
    /// Symbolic link target.
    pub target: &'a [u8],
}

/// Encoded [`Entry`]s, already checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entries<'a>(pub(super) &'a [u8]);

/// Encoded (name, value) pairs, already checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XattrList<'a>(pub(super) &'a [u8]);

/// Which way a connection carries frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Leader to follower: the ordered stream.
    Changes,
    /// Follower to leader.
    Answers,
}

/// The leader's greeting on each of the two connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Oldest and newest version the leader speaks.
    pub versions: (u8, u8),
    /// Optional abilities (bits; unknown ones are ignored).
    pub features: u64,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Number of the session.
    pub session: u64,
    /// What this connection is for.
    pub direction: Direction,
    /// Both copies are full and this continues their last session.
    pub resume: bool,
    /// Random, made when the leader's process started.
    pub instance: u64,
    /// Random, the same on the two connections of one attempt.
    pub pair: u64,
    /// Module, so that a wrong port is noticed.
    pub module: &'a [u8],
}

/// The follower's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome<'a> {
    /// The session may go on; otherwise `reason` says why not.
    pub accepted: bool,
    /// Version both will write.
    pub version: u8,
    /// Abilities both have.
    pub features: u64,
    /// Random, made when the follower's process started.
    pub instance: u64,
    /// Instance of the leader it followed last in this process; 0: none.
    pub followed: u64,
    /// How far it had applied then.
    pub applied: Lsn,
    /// A sentence.
    pub reason: &'a [u8],
}
