//! Mount table: read-only covers of directories, what is mounted where, who holds a directory.
//!
//! A *cover* is a private, read-only bind mount of a directory over itself: while it lies there nobody who
//! opens the path can change the files, but descriptors opened before stay writable. It is built detached
//! and attached in one step, so the path is never writable in between, and `mirrorfs` may mount over it:
//! when that mount dies, the cover is still there.
//! Needs Linux 5.12 (`mount_setattr`) and root.

mod bare;
mod dead;
mod holders;
mod table;

pub use bare::Bare;
pub use dead::{FSTYPE, is_served, remove_dead};
pub use holders::{Holder, describe, holders};
pub use table::{Mount, below, list, share_a_place, stack, stack_in};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// More covers than this on one path means a loop somewhere: stop instead of going on for ever.
const STACK_MAX: usize = 64;

/// Why the mount table could not be read or changed. The situation is as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The path is relative, has `.`/`..`, or runs through a symbolic link. State unchanged.
    #[error(
        "cannot {action} {path}: give the directory's real, absolute path (no symbolic link, no '..'); see `realpath {path}`"
    )]
    NotReal {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The cover is hidden under another mount and cannot be taken away before it. State unchanged.
    #[error("cannot uncover {path}: {by} is mounted over it; unmount that first (`umount {path}`)")]
    Hidden {
        /// The directory.
        path: PathBuf,
        /// File-system type of the mount on top.
        by: String,
    },
    /// The kernel refused. State unchanged, retry safe.
    #[error("cannot {action} {path}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl MountError {
    fn os(action: &'static str, path: &Path, error: impl Into<std::io::Error>) -> Self {
        Self::Os { action, path: path.into(), source: error.into() }
    }
}

/// Opens the directory `path` (`O_PATH`), refusing symbolic links in any component: whoever owns a directory on the way leads
/// nobody elsewhere. What is mounted there is not entered.
///
/// # Errors
/// [`MountError`].
pub fn open_real(action: &'static str, path: &Path) -> Result<OwnedFd, MountError> {
    if !table::is_normal(path) {
        return Err(MountError::NotReal { action, path: path.into() });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(fd),
        Err(Errno::LOOP) => Err(MountError::NotReal { action, path: path.into() }),
        Err(error) => Err(MountError::os(action, path, error)),
    }
}

fn set_attributes(tree: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> std::io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the pointers are to a NUL-terminated literal and to a live, fully initialised structure whose
    // exact size is passed; the descriptor is borrowed for the whole call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn clone_tree(action: &'static str, path: &Path, fd: BorrowedFd<'_>) -> Result<OwnedFd, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(fd, c"", flags).map_err(|error| MountError::os(action, path, error))
}

/// Covers the directory read-only, with what is mounted below it. Idempotent: a covered directory stays as it is.
///
/// # Errors
/// [`MountError`]; the directory is then as before.
pub fn cover(path: &Path) -> Result<(), MountError> {
    if is_covered(path)? {
        return Ok(());
    }
    let directory = open_real("cover", path)?;
    let tree = clone_tree("cover", path, directory.as_fd())?;
    set_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true)
        .map_err(|error| MountError::os("cover", path, error))?;
    // By descriptor on both sides: the path is not looked up a second time.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree.as_fd(), c"", directory.as_fd(), c"", flags).map_err(|error| MountError::os("cover", path, error))
}

/// Takes every cover off the directory. Idempotent; files that others hold open below it stay readable to them.
///
/// # Errors
/// [`MountError::Hidden`] when something else is mounted over the cover.
pub fn uncover(path: &Path) -> Result<(), MountError> {
    for _ in 0..STACK_MAX {
        let mounts = stack(path)?;
        if !has_cover(&mounts) {
            return Ok(());
        }
        let top = mounts.len() - 1;
        if !is_cover(&mounts, top) {
            return Err(MountError::Hidden { path: path.into(), by: mounts[top].fstype.clone() });
        }
        unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
            .map_err(|error| MountError::os("uncover", path, error))?;
    }
    Err(MountError::os("uncover", path, Errno::LOOP))
}

/// Is there a cover on the directory, on top or under another mount?
///
/// # Errors
/// [`MountError`] when the mount table cannot be read.
pub fn is_covered(path: &Path) -> Result<bool, MountError> {
    Ok(has_cover(&stack(path)?))
}

/// Is there a cover in this stack of mounts ([`stack`])?
#[must_use]
pub fn has_cover(stack: &[Mount]) -> bool {
    (0..stack.len()).any(|at| is_cover(stack, at))
}

/// A writable `O_PATH` descriptor of a covered directory, for the process that may write while nobody else
/// does: a private, detached mount that lives as long as the descriptor. On a directory without cover, the
/// directory itself. Mounts below a cover stay read-only through it.
///
/// The topmost mount must be the cover (or nothing of ours): under a FUSE mount it cannot be reached.
///
/// # Errors
/// [`MountError`].
pub fn open_writable(path: &Path) -> Result<OwnedFd, MountError> {
    const ACTION: &str = "open behind its cover";
    let mounts = stack(path)?;
    let directory = open_real(ACTION, path)?;
    if !mounts.len().checked_sub(1).is_some_and(|top| is_cover(&mounts, top)) {
        return Ok(directory);
    }
    let tree = clone_tree(ACTION, path, directory.as_fd())?;
    set_attributes(tree.as_fd(), 0, libc::MOUNT_ATTR_RDONLY, false)
        .map_err(|error| MountError::os(ACTION, path, error))?;
    Ok(tree)
}

/// A cover shows the same directory of the same file system as what it lies on, and is read-only by itself.
fn is_cover(stack: &[Mount], at: usize) -> bool {
    let (Some(mount), Some(under)) = (stack.get(at), at.checked_sub(1).and_then(|under| stack.get(under))) else {
        return false;
    };
    let Ok(relative) = mount.mountpoint.strip_prefix(&under.mountpoint) else {
        return false;
    };
    let same_directory = if relative.as_os_str().is_empty() {
        mount.root == under.root
    } else {
        mount.root == under.root.join(relative)
    };
    mount.read_only && mount.device == under.device && same_directory
}
