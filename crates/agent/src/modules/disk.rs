//! The few changes the store makes on disk, behind a trait so that tests can cut the power at each one.
//!
//! **Invariant:** when a call returns, what it did survives a power cut.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Changes of the file system, each durable on return.
pub trait Disk: Send + Sync {
    /// The directory and what leads to it; there already is fine.
    ///
    /// # Errors
    /// As the system says.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// A new file in an existing directory.
    ///
    /// # Errors
    /// As the system says; it exists already.
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// Another name in the same file system; what has that name already, if a file, is replaced.
    ///
    /// # Errors
    /// As the system says; a directory has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Two entries swap their names.
    ///
    /// # Errors
    /// As the system says; one is missing.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// The tree is gone; not there is fine.
    ///
    /// # Errors
    /// As the system says.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl Disk for RealDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        match fs::DirBuilder::new().mode(0o755).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_parent(path),
        }
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        // The umask of whoever started the agent must not decide whether a script runs.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        sync_parent(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.is_dir() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        fs::rename(from, to)?;
        sync_parent(to)?;
        sync_parent(from)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
        sync_parent(other)?;
        sync_parent(one)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let gone = match fs::symlink_metadata(path) {
            Ok(it) if it.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match gone {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_parent(path),
        }
    }
}
