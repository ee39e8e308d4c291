//! Mounts whose process is gone.

use super::{MountError, stack};
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;

/// Type shown in `/proc/mounts`; tells our mounts from others'.
pub const FSTYPE: &str = "fuse.stead";
/// More dead mounts than this on one path means that something mounts as fast as we unmount.
const DEAD_MOUNTS_MAX: usize = 16;

/// Is a mount of ours on top there? By the mount table alone: whoever enters one whose process hangs, hangs with it.
///
/// # Errors
/// [`MountError`] when the table cannot be read.
pub fn is_served(path: &Path) -> Result<bool, MountError> {
    Ok(stack(path)?.last().is_some_and(|top| top.fstype == FSTYPE))
}

/// A FUSE mount of ours whose process is gone answers everything with an error; there is nothing in it to lose.
/// Whatever lies below it shows again. One whose process hangs goes likewise, and who waits for it is told so. Idempotent.
///
/// # Errors
/// [`MountError`]: it is still there.
pub fn remove_dead(path: &Path) -> Result<(), MountError> {
    for _ in 0..DEAD_MOUNTS_MAX {
        if !is_served(path)? {
            break;
        }
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unmount(path, flags).map_err(|e| MountError::os("remove the dead mount on", path, e))?;
    }
    Ok(())
}
