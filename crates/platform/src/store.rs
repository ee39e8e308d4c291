//! Files that must survive a power cut: state in two copies, small files written whole, a journal.
//!
//! Nothing here interprets what it keeps.
//! **Invariant:** at every instant at least one copy of the last state that `write` returned for is whole on disk.

mod atomic;
mod journal;
mod state;
mod under_way;

pub use atomic::{remove_durably, write_atomic};
pub use journal::Journal;
pub use state::{StateFile, StateFileHealth};
pub use under_way::{UnderWay, longest_write_ms};

use std::path::{Path, PathBuf};

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither copy is whole: the caller must treat the content as unknown. Nothing was changed.
    #[error("both copies of {stem} in {dir} are unreadable ({a}; {b}): its content is unknown")]
    Unreadable {
        /// Directory of the copies.
        dir: PathBuf,
        /// Their name without `.a`/`.b`.
        stem: String,
        /// What is wrong with the first.
        a: String,
        /// What is wrong with the second.
        b: String,
    },
    /// A newer program wrote it. Nothing was changed.
    #[error(
        "{path} has format version {found}, this program knows {known}: install the version of stead that wrote it"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// The disk is full (or the quota is). The older content is intact; retry safe.
    #[error("cannot write {path}: no space left on its disk; free some space, the previous content is intact")]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// ENOSPC or EDQUOT.
        source: std::io::Error,
    },
    /// The content cannot be written as JSON. State unchanged.
    #[error("cannot encode the content of {path}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The content is too large for this kind of file. State unchanged.
    #[error("cannot write {path}: {bytes} bytes are more than the {max} allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Size of the content.
        bytes: usize,
        /// Bound.
        max: usize,
    },
    /// The operating system refused; the older content is intact.
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

impl StoreError {
    fn os(action: &'static str, path: &Path, error: impl Into<std::io::Error>) -> Self {
        let source: std::io::Error = error.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::DiskFull { path: path.into(), source },
            _ => Self::Os { action, path: path.into(), source },
        }
    }
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    std::fs::File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| StoreError::os("sync the directory", directory, error))
}
