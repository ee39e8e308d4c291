//! Mounts whose process is gone.

use super::{MountError, stack};
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;

/// Type shown in `/proc/mounts`; tells our mounts from others'.
pub const FSTYPE: &str = "fuse.stead";
/// More dead mounts than this on one path means that something mounts as fast as we unmount.
const DEAD_MOUNTS_MAX: usize = 16;

/// A FUSE mount of ours whose process is gone answers everything with an error; there is nothing in it to lose.
/// Whatever lies below it shows again. Idempotent.
///
/// # Errors
/// [`MountError`]: it is still there.
pub fn remove_dead(path: &Path) -> Result<(), MountError> {
    for _ in 0..DEAD_MOUNTS_MAX {
        if stack(path)?.last().is_none_or(|top| top.fstype != FSTYPE) {
            break;
        }
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unmount(path, flags).map_err(|e| MountError::os("remove the dead mount on", path, e))?;
    }
    Ok(())
}
