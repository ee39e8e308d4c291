//! `mount(2)` and `umount2(2)` of the FUSE file system.
//!
//! The one place that uses the directory's path while we serve: to name the mount point. Resolving it never
//! enters the mounted tree.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;

pub use platform::mounts::FSTYPE;

/// Why a directory could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// State unchanged; retry safe after the remedy.
    #[error("cannot open /dev/fuse: load the module with 'modprobe fuse'")]
    Device(#[source] std::io::Error),
    /// State unchanged.
    #[error("cannot mount over {path}")]
    Mount {
        /// Mount point.
        path: String,
        /// Cause.
        #[source]
        cause: std::io::Error,
    },
    /// Nothing stays mounted.
    #[error("the kernel did not agree on the FUSE protocol")]
    Handshake(#[source] Errno),
    /// Nothing stays mounted.
    #[error("this kernel speaks FUSE {major}.{minor}; 7.31 or newer is needed (Linux 5.4)")]
    TooOld {
        /// Its major.
        major: u32,
        /// Its minor.
        minor: u32,
    },
    /// No thread could be started.
    #[error("cannot start a worker thread")]
    Worker(#[source] std::io::Error),
}

/// Mounts over whatever is topmost at `path`; returns `/dev/fuse`. `lower` decides nosuid, nodev, noexec.
///
/// # Errors
/// [`MountError`]; nothing is mounted.
pub fn attach(path: &str, name: &str, lower: impl AsFd) -> Result<OwnedFd, MountError> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| MountError::Device(e.into()))?;
    let below = rustix::fs::fstatvfs(lower).map(|s| s.f_flag).unwrap_or(StatVfsMountFlags::empty());
    let mut flags = MountFlags::empty();
    for (lower, upper) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if below.contains(lower) {
            flags |= upper;
        }
    }
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device.as_raw_fd());
    let options = CString::new(options).expect("no NUL in numbers");
    rustix::mount::mount(format!("stead:{name}"), path, FSTYPE, flags, &*options)
        .map_err(|e| MountError::Mount { path: path.to_owned(), cause: e.into() })?;
    Ok(device)
}

/// Unmounts our mount at `path`, if it is there: never the cover below it. `force`: aborts the connection and
/// detaches, whoever is inside.
///
/// # Errors
/// As `umount2`; `EIO` when the mount table cannot be read.
pub fn detach(path: &str, force: bool) -> Result<(), Errno> {
    let stack = platform::mounts::stack(std::path::Path::new(path)).map_err(|_| Errno::IO)?;
    if stack.last().is_none_or(|top| top.fstype != FSTYPE) {
        return Ok(());
    }
    let flags = if force { UnmountFlags::FORCE | UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW)
}
