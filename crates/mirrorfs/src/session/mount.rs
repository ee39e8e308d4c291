//! `mount(2)` and `umount2(2)` of the FUSE file system.
//!
//! The one place that uses the directory's path while we serve: to name the mount point. Resolving it never
//! enters the mounted tree.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, StatxFlags};
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
    /// State unchanged: its real path is not the configured one any more.
    #[error(transparent)]
    Place(#[from] platform::mounts::MountError),
    /// State unchanged.
    #[error("{path} is not the directory any more that was made ready for it: another one has taken its place")]
    Replaced {
        /// Mount point.
        path: String,
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

/// Mounts over `path`, where `lower` is to be seen; returns `/dev/fuse`. `lower` decides nosuid, nodev, noexec.
///
/// Whoever owns a directory above may rename it, and put a link or another directory in its place: what is mounted over is
/// what was looked at, by descriptor.
///
/// # Errors
/// [`MountError`]; nothing is mounted.
pub fn attach(path: &str, name: &str, lower: impl AsFd) -> Result<OwnedFd, MountError> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| MountError::Device(e.into()))?;
    let directory = platform::mounts::open_real("mount over", std::path::Path::new(path))?;
    if is_one(&directory, &lower) == Some(false) {
        return Err(MountError::Replaced { path: path.to_owned() });
    }
    let below = rustix::fs::fstatvfs(&lower).map(|s| s.f_flag).unwrap_or(StatVfsMountFlags::empty());
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
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    rustix::mount::mount(format!("stead:{name}"), &*place, FSTYPE, flags, &*options)
        .map_err(|e| MountError::Mount { path: path.to_owned(), cause: e.into() })?;
    Ok(device)
}

/// Are both the same directory? Not asked of a file system that may hang: what the kernel knows. `None`: it does not say.
fn is_one(one: impl AsFd, other: impl AsFd) -> Option<bool> {
    let known = |fd: rustix::fd::BorrowedFd<'_>| {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let it = rustix::fs::statx(fd, c"", flags, StatxFlags::INO).ok()?;
        Some((it.stx_dev_major, it.stx_dev_minor, it.stx_ino))
    };
    Some(known(one.as_fd())? == known(other.as_fd())?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{MountPropagationFlags, mount_change};
    use std::path::Path;

    /// In a mount namespace of its own: nothing can remain.
    #[test]
    fn nothing_is_mounted_but_over_the_directory_that_was_made_ready() {
        let played = std::thread::spawn(|| {
            // SAFETY: only this thread leaves the shared namespace.
            unsafe {
                rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
            }
            .expect("tests of mounts need root");
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private");
            let base = tempfile::tempdir().expect("a directory");
            let base = base.path().canonicalize().expect("real");
            let (path, app) = (base.join("app/data"), base.join("app"));
            for name in ["app/data", "decoy/data"] {
                std::fs::create_dir_all(base.join(name)).expect("made");
            }
            let text = path.to_str().expect("plain");
            let lower = platform::mounts::open_real("open", &path).expect("there");
            let is_mounted = |path: &Path| platform::mounts::is_served(path).expect("the mount table");

            // Whoever owns a directory on the way puts a link in its place, or another directory.
            std::fs::rename(&app, base.join("aside")).expect("renamed");
            std::os::unix::fs::symlink("decoy", &app).expect("a link");
            let refused = attach(text, "test", &lower).expect_err("another place");
            assert!(matches!(refused, MountError::Place(_)), "{refused}");
            assert!(!is_mounted(&base.join("decoy/data")));
            std::fs::remove_file(&app).expect("removed");
            std::fs::create_dir_all(&path).expect("made");
            let refused = attach(text, "test", &lower).expect_err("another place");
            assert!(matches!(refused, MountError::Replaced { .. }), "{refused}");
            assert!(!is_mounted(&path));

            std::fs::remove_dir_all(&app).expect("removed");
            std::fs::rename(base.join("aside"), &app).expect("back");
            let _device = attach(text, "test", &lower).expect("the same directory");
            assert!(is_mounted(&path));
            detach(text, true).expect("unmounted");
            assert!(!is_mounted(&path));
        })
        .join();
        assert!(played.is_ok());
    }
}
