//! The kernel's FUSE language (`linux/fuse.h`, 7.31 and newer), as data.
//!
//! It owns numbers and layouts and never does I/O. **Invariant:** a structure here has exactly the kernel's
//! layout; what a newer kernel appends is negotiated in `session`, never guessed.

mod wire;

pub use wire::*;

/// Major version spoken.
pub const MAJOR: u32 = 7;
/// Newest minor whose features are understood here.
pub const MINOR: u32 = 38;
/// Oldest minor accepted.
pub const MINOR_MIN: u32 = 31;
/// Node id of the root of every mount.
pub const ROOT_ID: u64 = 1;

/// Largest payload of one `WRITE` or `READ`.
pub const MAX_WRITE: usize = 1 << 20;

/// Request codes.
#[allow(missing_docs)]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Negotiated features (`INIT`), low word.
#[allow(missing_docs)]
pub mod init {
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const DONT_MASK: u32 = 1 << 6;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const POSIX_ACL: u32 = 1 << 20;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const CACHE_SYMLINKS: u32 = 1 << 23;
    pub const EXPLICIT_INVAL_DATA: u32 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
    pub const SETXATTR_EXT: u32 = 1 << 29;
    /// There is a second word.
    pub const INIT_EXT: u32 = 1 << 30;
    /// Second word: the kernel can be asked for its requests again.
    pub const HAS_RESEND: u32 = 1 << 7;
}

/// Notification: give me again what is not answered yet.
pub const NOTIFY_RESEND: i32 = 7;
/// Notification: forget pages of this inode (`[inode, first byte, length; 0: to the end]`).
pub const NOTIFY_INVAL_INODE: i32 = 2;
/// Notification: forget this name (`EntryGone`).
pub const NOTIFY_INVAL_ENTRY: i32 = 3;
/// Notification: forget those of these inodes that nobody uses (7.45, Linux 6.18, and newer).
pub const NOTIFY_PRUNE: i32 = 9;
/// Inodes in one such notification.
pub const PRUNE_MAX: usize = 512;
/// Set in the number of a request that was given before.
pub const UNIQUE_RESEND: u64 = 1 << 63;

/// What `SETATTR` changes.
#[allow(missing_docs)]
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Answer flag of `OPEN`: the page cache stays valid.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// Answer flag of `OPEN`: no `FLUSH` at `close`.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
/// Request flag of `OPEN` and `CREATE`: clear suid and sgid.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// Request flag of `WRITE`: from the page cache (a mapping that is written back); nobody waits for its answer.
pub const WRITE_CACHE: u32 = 1 << 0;
/// Request flag of `WRITE`: clear suid and sgid.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// Request flag of `GETATTR`: `fh` is valid.
pub const GETATTR_FH: u32 = 1 << 0;
/// Request flag of `FSYNC`: data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// Request flag of `SETXATTR`: clear sgid as well.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
