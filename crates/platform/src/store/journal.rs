//! An append-only file of lines with a bound: when full it becomes `NAME.1` (replacing the one before).

use super::{StoreError, UnderWay, sync_directory};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One journal. At most `2 · bytes_max` on disk, plus one line.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    bytes_max: u64,
    file: File,
    length: u64,
    /// The last line has no end, and there was no room for one.
    torn: bool,
}

impl Journal {
    /// Opens or creates the journal, mode 0600. A last line without its end (a power cut) is closed, at the latest by
    /// the next line, so that that begins by itself: readers skip lines they cannot parse.
    ///
    /// # Errors
    /// [`StoreError::Os`].
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        let mut file = open_append(path)?;
        let os = |error| StoreError::os("read", path, error);
        let (mut length, mut torn) = (file.seek(SeekFrom::End(0)).map_err(os)?, false);
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1)).and_then(|_| file.read_exact(&mut last)).map_err(os)?;
            if last != *b"\n" {
                torn = file.write_all(b"\n").is_err();
                length += u64::from(!torn);
            }
        }
        Ok(Self { path: path.into(), bytes_max, file, length, torn })
    }

    /// Appends one line (without its end; line ends inside become spaces). With `durable` it is on disk when
    /// this returns.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Os`]; no half line remains, earlier lines are intact.
    pub fn append(&mut self, line: &str, durable: bool) -> Result<(), StoreError> {
        let _under_way = UnderWay::begin();
        let mut text = line.replace(['\n', '\r'], " ").into_bytes();
        text.push(b'\n');
        if self.torn {
            text.insert(0, b'\n');
        }
        if self.length > 0 && self.length + text.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&text) {
            // Best effort: at worst the fragment is one unreadable line.
            self.torn |= self.file.set_len(self.length).is_err();
            return Err(StoreError::os("append to", &self.path, error));
        }
        (self.length, self.torn) = (self.length + text.len() as u64, false);
        if durable {
            self.file.sync_data().map_err(|error| StoreError::os("sync", &self.path, error))?;
        }
        Ok(())
    }

    /// Fewer than so many bytes are left before it is set aside.
    #[must_use]
    pub const fn has_less_than(&self, room: u64) -> bool {
        self.length + room > self.bytes_max
    }

    /// Sets aside what there is, and begins a new file now: what has to stand at the beginning of one is written next.
    ///
    /// # Errors
    /// [`StoreError`]; lines go on being appended to the present one.
    pub fn turn(&mut self) -> Result<(), StoreError> {
        let _under_way = UnderWay::begin();
        self.rotate()
    }

    /// The file before the last rotation.
    #[must_use]
    pub fn old_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::os("sync", &self.path, error))?;
        match std::fs::rename(&self.path, self.old_path()) {
            // It was renamed before, and there was no room for another one then.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::os("rotate", &self.path, error));
            }
            _ => {}
        }
        self.file = open_append(&self.path)?;
        (self.length, self.torn) = (0, false);
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))
    }
}

fn open_append(path: &Path) -> Result<File, StoreError> {
    let is_new = !path.exists();
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| StoreError::os("open", path, error))?;
    if is_new {
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(File::from(fd))
}
