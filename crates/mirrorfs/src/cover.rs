//! The read-only cover of the replicated directories, and what must be true before one is served.
//!
//! Nobody but us may change the tree: while nothing is served the path shows a read-only bind mount, and the
//! FUSE mount goes on top of it, so the path is never open to others. It keeps no state: the mount table is
//! the state. The agent uses [`prepare`] and [`uncover`] as well, while no `mirrorfs` runs.

use model::orders::ReplicatedDir;
use platform::mounts::{self, Bare, Holder, MountError, remove_dead};
use rustix::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Why a directory cannot be covered or served. The directory is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoverError {
    /// The mount table said no.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Somebody could write behind our back.
    #[error(
        "{path} is in use by {}: end it (or make it leave the directory), then start again",
        mounts::describe(holders)
    )]
    Held {
        /// The directory.
        path: String,
        /// Who.
        holders: Vec<Holder>,
    },
    /// A mount inside a replicated directory would not be replicated.
    #[error(
        "{inside} is mounted inside {path}: replicate it as a directory of its own, or unmount it with 'umount {inside}'"
    )]
    Inside {
        /// The directory.
        path: String,
        /// The mount in it.
        inside: PathBuf,
    },
    /// Its file system shows files of several devices as its own.
    #[error(
        "{path} is on a file system whose files belong to other devices than their directories (an overlay of several): it cannot be \
         replicated; use a directory of ext4, XFS or btrfs"
    )]
    Devices {
        /// The directory.
        path: String,
    },
    /// Something the configuration names is not there.
    #[error("{missing} is missing: is the file system of {path} mounted?")]
    Missing {
        /// The directory.
        path: String,
        /// What `tocheck` names.
        missing: String,
    },
}

/// Covers the directory, after removing what an earlier `mirrorfs` left mounted on it, and opens its lower
/// side: a writable `O_PATH` descriptor that nobody else can reach. That it was without cover is noted. Idempotent.
///
/// # Errors
/// [`CoverError`].
pub fn prepare(dir: &ReplicatedDir, bare: &Bare) -> Result<OwnedFd, CoverError> {
    let path = Path::new(&dir.path);
    remove_dead(path)?;
    if !mounts::is_covered(path)? {
        // Through a cover one can only read: who holds the tree now may be able to write.
        let holders = mounts::holders(path);
        if !holders.is_empty() {
            return Err(CoverError::Held { path: dir.path.clone(), holders });
        }
        if let Some(inside) = mounts::below(path)?.first() {
            return Err(CoverError::Inside { path: dir.path.clone(), inside: inside.mountpoint.clone() });
        }
        bare.note(path)?;
        mounts::cover(path)?;
    }
    Ok(mounts::open_writable(path)?)
}

/// Everything `tocheck` names is there, and every file can be told apart.
///
/// # Errors
/// [`CoverError::Missing`], [`CoverError::Devices`].
pub fn check(dir: &ReplicatedDir, lower: &OwnedFd) -> Result<(), CoverError> {
    if !crate::sys::is_one_device(lower).unwrap_or(true) {
        return Err(CoverError::Devices { path: dir.path.clone() });
    }
    for missing in &dir.tocheck {
        if rustix::fs::statat(lower, missing.as_str(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return Err(CoverError::Missing { path: dir.path.clone(), missing: format!("{}/{missing}", dir.path) });
        }
    }
    Ok(())
}

/// Gives the directory back to everybody (`stead release`). Idempotent.
///
/// # Errors
/// [`CoverError`].
pub fn uncover(path: &Path) -> Result<(), CoverError> {
    remove_dead(path)?;
    Ok(mounts::uncover(path)?)
}
