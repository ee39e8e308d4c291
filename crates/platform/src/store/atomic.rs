//! Small files that are seen either as they were or as they are now, never half written.

use super::{StoreError, sync_directory};
use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Tries for a free temporary name.
const TRIES: u32 = 16;

/// Replaces `path` by `bytes` with permissions `mode`, durably: temporary file in the same directory, synced,
/// renamed, directory synced. A symbolic link at `path` is replaced, never followed.
///
/// # Errors
/// [`StoreError`]; what was at `path` is then intact and the temporary file is gone.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (temporary, mut file) = create_beside(path)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| fchmod(&file, Mode::from_raw_mode(mode)).map_err(Into::into))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        std::fs::remove_file(&temporary).ok();
        return Err(StoreError::os("write", path, error));
    }
    sync_directory(directory)
}

/// Removes `path` durably: after a power cut it is not there again. One that is not there is fine.
///
/// # Errors
/// [`StoreError`]; the file may or may not be there after a power cut.
pub fn remove_durably(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("/"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::os("remove", path, error)),
    }
}

fn create_beside(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut last = rustix::io::Errno::EXIST;
    for attempt in 0..TRIES {
        let temporary = path.with_file_name(format!(".{name}.{}.{attempt}.tmp", std::process::id()));
        match openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => return Ok((temporary, File::from(fd))),
            // Left by an earlier process with this pid, or a second thread: take the next name.
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(StoreError::os("create a temporary file beside", path, last))
}
