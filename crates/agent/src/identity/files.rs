//! Replacing a file so that a reader, or the next boot, sees the old text or the new one and nothing between.

use platform::store::{self, StoreError};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// As [`platform::store::write_atomic`]; the directory is made (0755) when it is missing.
///
/// # Errors
/// The operating system's; `path` is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    store::write_atomic(path, bytes, mode).map_err(|error| match error {
        // Callers name the file themselves.
        StoreError::DiskFull { source, .. } | StoreError::Os { source, .. } => source,
        other => io::Error::other(other),
    })
}
