//! What `chattr +i` or `+a` protects here.
//!
//! The flags are not replicated: the leader's file has none, or the change would not have been made there. A target that they
//! stop would never become a copy. So it takes them off whatever the leader changes, and nothing else.

use super::removal::open_dir;
use crate::sys;
use rustix::fs::{IFlags, OFlags, StatxAttributes};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Takes the flags off all of these; `false`: there were none.
pub(super) fn unprotect(all: Vec<OwnedFd>) -> bool {
    all.iter().fold(false, |any, one| any | take_off(one).unwrap_or(false))
}

/// Both flags, of a file or a directory. `false`: it has none.
pub(super) fn take_off(fd: impl AsFd + Copy) -> Result<bool, Errno> {
    let protected = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    let seen = rustix::fs::statx(fd, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::TYPE)?;
    if !seen.stx_attributes.intersects(protected) {
        return Ok(false);
    }
    let open = match sys::kind(&sys::stat(fd)?) {
        sys::S_IFDIR => open_dir(fd, b".")?,
        sys::S_IFREG => sys::reopen(fd, OFlags::RDONLY)?,
        _ => return Ok(false),
    };
    let flags = rustix::fs::ioctl_getflags(&open)?;
    rustix::fs::ioctl_setflags(&open, flags - (IFlags::IMMUTABLE | IFlags::APPEND))?;
    let path = sys::path_of(&open).unwrap_or_default();
    tracing::warn!(path = %String::from_utf8_lossy(&path), "its immutable or append-only flag is taken off: the leader changes it");
    Ok(true)
}
