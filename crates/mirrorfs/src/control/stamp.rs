//! The stamp of a copy: `trusted.stead.data_id` on each replicated directory.
//!
//! A directory without the right stamp is empty, not mounted, or somebody else's: nothing of it may reach the
//! peer. The attribute is never shown, replicated or compared.

use crate::store::proc_path;
use model::ids::DataId;
use model::orders::ReplicatedDir;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NAME: &str = "trusted.stead.data_id";

/// Why a directory's stamp is not accepted. Nothing was changed, unless a write failed half way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StampError {
    /// It has none.
    #[error(
        "{path} carries no stamp of this module's data: it is empty, new, or its file system is not mounted. If what it holds shall be served from now on, and be copied over the other node's: stead prim -m {module} --force"
    )]
    Absent {
        /// The directory.
        path: String,
        /// For the command.
        module: String,
    },
    /// It is another lineage's.
    #[error(
        "{path} carries the stamp {found:016x}, expected {expected:016x}: these are other data. If they shall be served from now on, and be copied over the other node's: stead prim -m {module} --force"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// What is there.
        found: u64,
        /// What should be.
        expected: u64,
        /// For the command.
        module: String,
    },
    /// The file system refused.
    #[error("cannot {action} the stamp of {path}: {cause}")]
    Os {
        /// `read` or `write`.
        action: &'static str,
        /// The directory.
        path: String,
        /// Why.
        cause: Errno,
    },
}

/// All directories carry this stamp.
///
/// # Errors
/// [`StampError`] of the first that does not.
pub fn check(dirs: &[ReplicatedDir], lower: &[OwnedFd], expected: DataId, module: &str) -> Result<(), StampError> {
    for (dir, fd) in dirs.iter().zip(lower) {
        let path = dir.path.clone();
        let mut value = [0u8; 16];
        match rustix::fs::getxattr(proc_path(fd.as_fd()), NAME, &mut value[..]) {
            Ok(16) => {}
            Ok(_) | Err(Errno::NODATA | Errno::RANGE) => {
                return Err(StampError::Absent { path, module: module.into() });
            }
            Err(cause) => return Err(StampError::Os { action: "read", path, cause }),
        }
        let found = std::str::from_utf8(&value).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        match found {
            Some(found) if found == expected.0 => {}
            Some(found) => {
                return Err(StampError::Foreign { path, found, expected: expected.0, module: module.into() });
            }
            None => return Err(StampError::Absent { path, module: module.into() }),
        }
    }
    Ok(())
}

/// Stamps all directories, durably.
///
/// # Errors
/// [`StampError::Os`]: repeat.
pub fn write(dirs: &[ReplicatedDir], lower: &[OwnedFd], stamp: DataId) -> Result<(), StampError> {
    for (dir, fd) in dirs.iter().zip(lower) {
        let os = |cause| StampError::Os { action: "write", path: dir.path.clone(), cause };
        let value = format!("{:016x}", stamp.0);
        rustix::fs::setxattr(proc_path(fd.as_fd()), NAME, value.as_bytes(), XattrFlags::empty()).map_err(os)?;
        let fd = crate::store::reopen(fd.as_fd(), rustix::fs::OFlags::RDONLY).map_err(os)?;
        rustix::fs::fsync(fd).map_err(os)?;
    }
    Ok(())
}
