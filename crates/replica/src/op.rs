//! One change of the replicated tree, as the primary made it and as the secondary must make it.
//!
//! Ops borrow names and data from whoever made the change; [`crate::wire`] gives them their form on the
//! link. Names are raw bytes (never text). **Invariant:** an op names files by id and directory entries by
//! (directory id, name), never by path; it carries the *resulting* times, so both trees show the same ones.

/// A file of the replicated tree, as numbered by the primary for one session of its `mirrorfs`.
///
/// Directory `i` of the configuration (0-based) is [`FileId::root`]`(i)`; other ids are handed out by the
/// front from [`FileId::FIRST`] on and never reused while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileId(pub u64);

impl FileId {
    /// First id that is not a root.
    pub const FIRST: FileId = FileId(1024);

    /// The id of the replicated directory with this 0-based index in the configuration: 1 + index.
    #[must_use]
    pub const fn root(index: usize) -> FileId {
        FileId(1 + index as u64)
    }
}

/// A file time: seconds and nanoseconds since the epoch, as `stat` gives them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Seconds (negative before 1970).
    pub sec: i64,
    /// 0..1 000 000 000.
    pub nsec: u32,
}

/// What a new directory entry begins with: the attributes `stat` shows after it was made. It has no ACL but those that
/// an [`Op::SetXattr`] after it sets, whatever its directory gives to what is made in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// Permission bits (`st_mode & 0o7777`), umask and inheritance already applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group (after inheritance from a set-group-id directory).
    pub gid: u32,
}

/// One change. `*_mtime` is the time `stat` shows *after* the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields say what they are
pub enum Op<'a> {
    /// From here on, `id` means the entry `name` of `parent`, whose type (`st_mode & S_IFMT`) is `kind`
    /// (sent by the leader before a first use; the front never makes it).
    Bind { id: FileId, parent: FileId, name: &'a [u8], kind: u32 },
    /// `id` will not be used any more (until bound again). Id 0: none of the front's ids but the roots.
    Unbind { id: FileId },
    /// A new regular file.
    Create { id: FileId, parent: FileId, name: &'a [u8], owner: Owner, mtime: Time, parent_mtime: Time },
    /// A new directory.
    Mkdir { id: FileId, parent: FileId, name: &'a [u8], owner: Owner, mtime: Time, parent_mtime: Time },
    /// A new fifo, socket or device: `kind` is `st_mode & S_IFMT`.
    Mknod {
        id: FileId,
        parent: FileId,
        name: &'a [u8],
        kind: u32,
        rdev: u64,
        owner: Owner,
        mtime: Time,
        parent_mtime: Time,
    },
    /// A new symbolic link.
    Symlink {
        id: FileId,
        parent: FileId,
        name: &'a [u8],
        target: &'a [u8],
        owner: Owner,
        mtime: Time,
        parent_mtime: Time,
    },
    /// Another name for `id`.
    Link { id: FileId, parent: FileId, name: &'a [u8], parent_mtime: Time },
    /// The name is gone (not a directory).
    Unlink { parent: FileId, name: &'a [u8], parent_mtime: Time },
    /// The empty directory is gone.
    Rmdir { parent: FileId, name: &'a [u8], parent_mtime: Time },
    /// `flags` as in `renameat2` (`RENAME_NOREPLACE`, `RENAME_EXCHANGE`; never `WHITEOUT`).
    Rename {
        from: FileId,
        from_name: &'a [u8],
        to: FileId,
        to_name: &'a [u8],
        flags: u32,
        from_mtime: Time,
        to_mtime: Time,
    },
    /// Bytes of a regular file. An append carries the offset it got.
    Write { id: FileId, offset: u64, data: &'a [u8], mtime: Time },
    /// `None`: not changed. With `size`, `mtime` is always given.
    SetAttr {
        id: FileId,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<Time>,
        mtime: Option<Time>,
    },
    /// `fallocate(2)` with this mode (punch hole, zero range, keep size, …).
    Fallocate { id: FileId, mode: u32, offset: u64, len: u64, mtime: Time },
    /// Extended attribute set (created or replaced). POSIX ACLs travel as their `system.posix_acl_*` value.
    SetXattr { id: FileId, name: &'a [u8], value: &'a [u8] },
    /// Extended attribute removed.
    RemoveXattr { id: FileId, name: &'a [u8] },
}

impl Op<'_> {
    /// The ids this op refers to that must be known to the peer beforehand (not those it introduces).
    #[must_use]
    pub fn needs(&self) -> [Option<FileId>; 2] {
        match *self {
            Op::Bind { parent, .. }
            | Op::Create { parent, .. }
            | Op::Mkdir { parent, .. }
            | Op::Mknod { parent, .. }
            | Op::Symlink { parent, .. }
            | Op::Unlink { parent, .. }
            | Op::Rmdir { parent, .. } => [Some(parent), None],
            Op::Link { id, parent, .. } => [Some(parent), Some(id)],
            Op::Rename { from, to, .. } => [Some(from), if from == to { None } else { Some(to) }],
            Op::Write { id, .. }
            | Op::SetAttr { id, .. }
            | Op::Fallocate { id, .. }
            | Op::SetXattr { id, .. }
            | Op::RemoveXattr { id, .. } => [Some(id), None],
            Op::Unbind { .. } => [None, None],
        }
    }

    /// The id this op introduces, if any.
    #[must_use]
    pub fn introduces(&self) -> Option<FileId> {
        match *self {
            Op::Bind { id, .. }
            | Op::Create { id, .. }
            | Op::Mkdir { id, .. }
            | Op::Mknod { id, .. }
            | Op::Symlink { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Bytes this op occupies in a queue, without its fixed parts.
    #[must_use]
    pub fn weight(&self) -> usize {
        match *self {
            Op::Bind { name, .. }
            | Op::Create { name, .. }
            | Op::Mkdir { name, .. }
            | Op::Mknod { name, .. }
            | Op::Link { name, .. }
            | Op::Unlink { name, .. }
            | Op::Rmdir { name, .. }
            | Op::RemoveXattr { name, .. } => name.len(),
            Op::Symlink { name, target, .. } => name.len() + target.len(),
            Op::Rename { from_name, to_name, .. } => from_name.len() + to_name.len(),
            Op::Write { data, .. } => data.len(),
            Op::SetXattr { name, value, .. } => name.len() + value.len(),
            Op::Unbind { .. } | Op::SetAttr { .. } | Op::Fallocate { .. } => 0,
        }
    }
}

/// The longest name of a directory entry, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest symbolic link target, in bytes.
pub const TARGET_MAX: usize = 4095;
/// The largest extended attribute value, in bytes.
pub const XATTR_MAX: usize = 64 * 1024;

/// Is this the name of one directory entry, that cannot lead out of its directory?
#[must_use]
pub fn is_entry_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| matches!(b, 0 | b'/'))
}
