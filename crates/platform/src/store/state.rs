//! State in two checksummed copies, `NAME.a` and `NAME.b`.
//!
//! ```text
//! stead-state 1 42 <blake3 of version, sequence and body, hex> <bytes of the body>
//! { … JSON … }
//! ```
//! A write goes to the older (or broken) copy first, is synced there — from that moment it counts —, then to
//! the other. So a torn write never touches the last whole copy, and a copy that rots later loses nothing:
//! the other holds the *same* record, not an older one (an older record could forget a yield or an epoch).
//!
//! One good copy is enough to go on. A copy that cannot be written (a bad sector, `chattr +i`) is replaced by another file; when
//! that fails too, `NAME.void` says up to which record it is to be forgotten, and the other copy is written alone, as a new
//! file each time: so the last whole one is never touched here either, and should it rot, an older one is not taken for it.

use super::{StoreError, UnderWay, remove_durably, sync_directory, write_atomic};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

const MAGIC: &str = "stead-state";
const VERSION: u32 = 1;
const FILE_MODE: u32 = 0o600;
/// A state file is read whole; larger than this is not ours.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Room that each copy keeps, in units of this; half of one is free at least.
const RESERVE: u64 = 16 * 1024;

/// How well the two copies are, for the status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateFileHealth {
    /// Both copies hold the same state (or nothing has been written yet).
    Whole,
    /// One copy is missing, older or damaged: the text says which and why. The next write repairs it.
    OneCopy(String),
}

/// The two copies of one state. One owner at a time: it is not a lock.
#[derive(Debug)]
pub struct StateFile<T> {
    directory: PathBuf,
    stem: String,
    sequence: u64,
    /// Which copy the next write goes to first: the older or the broken one.
    first: usize,
    /// The copy that is to be forgotten as it is now: `NAME.void` says so.
    alone: Option<usize>,
    /// There is such a file.
    has_void: bool,
    /// Which copy was damaged when it was opened, and how.
    damage: Option<String>,
    content: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    fn new(directory: &Path, stem: &str) -> Self {
        Self {
            directory: directory.into(),
            stem: stem.into(),
            sequence: 0,
            first: 0,
            alone: None,
            has_void: false,
            damage: None,
            content: PhantomData,
        }
    }

    /// Opens the copies in `directory` and reads the newest whole one; `None` if none was ever written.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when there is something and nothing of it is whole (call
    /// [`StateFile::replace_unreadable`] to begin anew after the caller has decided so),
    /// [`StoreError::TooNew`], [`StoreError::Os`].
    pub fn open(directory: &Path, stem: &str) -> Result<(Self, Option<T>, StateFileHealth), StoreError> {
        let mut file = Self::new(directory, stem);
        let void = file.void();
        file.has_void = void.is_some();
        let copies = [file.read_copy(0, void)?, file.read_copy(1, void)?];
        file.damage = copies.iter().enumerate().find_map(|(copy, found)| match found {
            Copy::Damaged(why) => Some(format!("{} is damaged: {why}", file.path(copy).display())),
            _ => None,
        });
        let (content, health) = match copies {
            [Copy::Absent, Copy::Absent] => (None, StateFileHealth::Whole),
            [Copy::Whole(a, value), Copy::Whole(b, _)] if a >= b => {
                (file.sequence, file.first) = (a, 1);
                let older = format!("{}.b is older (a write was interrupted)", file.stem);
                (Some(value), if a == b { StateFileHealth::Whole } else { StateFileHealth::OneCopy(older) })
            }
            [Copy::Whole(..), Copy::Whole(b, value)] => {
                (file.sequence, file.first) = (b, 0);
                (Some(value), StateFileHealth::OneCopy(format!("{}.a is older (a write was interrupted)", file.stem)))
            }
            [Copy::Whole(a, value), other] => {
                (file.sequence, file.first) = (a, 1);
                (Some(value), StateFileHealth::OneCopy(format!("{}.b: {}", file.stem, other.complaint())))
            }
            [other, Copy::Whole(b, value)] => {
                (file.sequence, file.first) = (b, 0);
                (Some(value), StateFileHealth::OneCopy(format!("{}.a: {}", file.stem, other.complaint())))
            }
            [a, b] => {
                return Err(StoreError::Unreadable {
                    dir: file.directory,
                    stem: file.stem,
                    a: format!("a: {}", a.complaint()),
                    b: format!("b: {}", b.complaint()),
                });
            }
        };
        Ok((file, content, health))
    }

    /// Which copy was damaged when this was opened; the next write writes it anew. (One that is missing or older is no damage: a write was
    /// interrupted.)
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// A writer for copies that were found unreadable: the first write replaces them. The damaged files are
    /// kept beside as `NAME.a.damaged`, `NAME.b.damaged` (the last such pair).
    ///
    /// # Errors
    /// [`StoreError::Os`] when they cannot be renamed.
    pub fn replace_unreadable(directory: &Path, stem: &str) -> Result<Self, StoreError> {
        let file = Self::new(directory, stem);
        for copy in 0..2 {
            let path = file.path(copy);
            let kept = path.with_extension(if copy == 0 { "a.damaged" } else { "b.damaged" });
            match std::fs::rename(&path, kept) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::os("set aside", &path, error));
                }
                _ => {}
            }
        }
        // Records are counted anew: what it says of the old ones would be taken for these.
        remove_durably(&file.void_path())?;
        Ok(file)
    }

    /// Makes `content` the state. When this returns `Ok` it is durable; on an error the state before is intact.
    /// That one of the copies cannot be written is not an error: it comes back as health.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Os`], [`StoreError::Encode`], [`StoreError::TooLarge`].
    pub fn write(&mut self, content: &T) -> Result<StateFileHealth, StoreError> {
        let path = self.path(self.first);
        let body =
            serde_json::to_vec_pretty(content).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        if body.len() > BYTES_MAX {
            return Err(StoreError::TooLarge { path, bytes: body.len(), max: BYTES_MAX });
        }
        let sequence = self.sequence + 1;
        let mut text =
            format!("{MAGIC} {VERSION} {sequence} {} {}\n", checksum_of(VERSION, sequence, &body), body.len())
                .into_bytes();
        text.extend_from_slice(&body);
        text.push(b'\n');

        match self.put(self.first, &text) {
            Err(error @ StoreError::DiskFull { .. }) => return Err(error),
            Err(error) => return self.write_alone(sequence, &text, &error),
            Ok(()) => {}
        }
        // It counts from here on. The other copy is now the older one, whatever happens to it.
        self.sequence = sequence;
        self.alone = None;
        let second = 1 - self.first;
        self.first = second;
        match self.put(second, &text) {
            Ok(()) => {
                // Both are newer than what it speaks of.
                if self.has_void {
                    self.has_void = remove_durably(&self.void_path()).is_err();
                }
                Ok(StateFileHealth::Whole)
            }
            Err(error) => Ok(StateFileHealth::OneCopy(format!("{error}"))),
        }
    }

    /// The copy that is to be written first takes nothing at all (`why`).
    fn write_alone(&mut self, sequence: u64, text: &[u8], why: &StoreError) -> Result<StateFileHealth, StoreError> {
        if self.alone != Some(self.first) {
            // First of all: what it holds now may be the last record, and soon it will be an old one.
            let void = format!("{} {}\n", ["a", "b"][self.first], self.sequence);
            write_atomic(&self.void_path(), void.as_bytes(), FILE_MODE)?;
            (self.alone, self.has_void) = (Some(self.first), true);
        }
        write_atomic(&self.path(1 - self.first), text, FILE_MODE)?;
        self.sequence = sequence;
        Ok(StateFileHealth::OneCopy(why.to_string()))
    }

    fn void_path(&self) -> PathBuf {
        self.directory.join(format!("{}.void", self.stem))
    }

    /// Which copy is to be forgotten, and up to which record.
    fn void(&self) -> Option<(usize, u64)> {
        let text = std::fs::read_to_string(self.void_path()).ok()?;
        let (copy, sequence) = text.trim().split_once(' ')?;
        Some((["a", "b"].iter().position(|it| *it == copy)?, sequence.parse().ok()?))
    }

    /// In its place, or, when that does not take it, as another file there. A full disk takes neither.
    fn put(&self, copy: usize, text: &[u8]) -> Result<(), StoreError> {
        match self.write_copy(copy, text) {
            Err(error) if !matches!(error, StoreError::DiskFull { .. }) => {
                let _under_way = UnderWay::begin();
                write_atomic(&self.path(copy), text, FILE_MODE).map_err(|_| error)
            }
            done => done,
        }
    }

    /// Path of copy 0 (`.a`) or 1 (`.b`).
    fn path(&self, copy: usize) -> PathBuf {
        self.directory.join(format!("{}.{}", self.stem, ["a", "b"][copy]))
    }

    fn write_copy(&self, copy: usize, text: &[u8]) -> Result<(), StoreError> {
        let _under_way = UnderWay::begin();
        let path = self.path(copy);
        let is_new = !path.exists();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(
            openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| StoreError::os("open", &path, error))?,
        );
        let length = text.len() as u64;
        file.write_all(text)
            // Cutting it off would give its room away as well.
            .and_then(|()| if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) })
            .inspect(|&()| {
                // A full disk is no reason to forget who serves. Where room cannot be kept, it is taken as it is needed.
                let _ =
                    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, (length + RESERVE / 2).next_multiple_of(RESERVE));
            })
            .and_then(|()| file.sync_all())
            .map_err(|error| StoreError::os("write", &path, error))?;
        if is_new { sync_directory(&self.directory) } else { Ok(()) }
    }

    fn read_copy(&self, copy: usize, void: Option<(usize, u64)>) -> Result<Copy<T>, StoreError> {
        let path = self.path(copy);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(Copy::Absent),
            // ELOOP, EIO, EACCES: this copy is not usable, the other may be.
            Err(error) => return Ok(Copy::Damaged(error.to_string())),
        };
        let mut text = Vec::new();
        if let Err(error) = file.take(BYTES_MAX as u64 + 4_096).read_to_end(&mut text) {
            return Ok(Copy::Damaged(error.to_string()));
        }
        match parse(&text) {
            Ok((sequence, _)) if void.is_some_and(|(which, last)| which == copy && sequence <= last) => {
                Ok(Copy::Damaged("it could not be written, and is an old one".into()))
            }
            Ok((sequence, body)) => match serde_json::from_slice(body) {
                Ok(value) => Ok(Copy::Whole(sequence, value)),
                Err(error) => Ok(Copy::Damaged(format!("the content is not what was expected: {error}"))),
            },
            // Only a version line that is otherwise well formed and checks out speaks of a newer program.
            Err(Fault::TooNew(found)) => Err(StoreError::TooNew { path, found, known: VERSION }),
            Err(Fault::Damaged(why)) => Ok(Copy::Damaged(why.into())),
        }
    }
}

enum Copy<T> {
    Absent,
    Whole(u64, T),
    Damaged(String),
}

impl<T> Copy<T> {
    fn complaint(&self) -> &str {
        match self {
            Self::Absent => "missing",
            Self::Whole(..) => "whole",
            Self::Damaged(why) => why,
        }
    }
}

enum Fault {
    TooNew(u32),
    Damaged(&'static str),
}

/// Covers the numbers of the header too: a flipped digit of the sequence must not make a copy look newer.
fn checksum_of(version: u32, sequence: u64, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{version} {sequence} ").as_bytes()).update(body);
    hasher.finalize().to_hex().to_string()
}

fn parse(text: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let damaged = Fault::Damaged;
    let end = text.iter().take(256).position(|&byte| byte == b'\n').ok_or(damaged("no header line"))?;
    let header = std::str::from_utf8(&text[..end]).map_err(|_| damaged("the header is not text"))?;
    let fields: Vec<&str> = header.split(' ').collect();
    let [magic, version, sequence, checksum, length] = fields[..] else {
        return Err(damaged("the header is incomplete"));
    };
    if magic != MAGIC {
        return Err(damaged("not a state file"));
    }
    let version: u32 = version.parse().map_err(|_| damaged("the version is not a number"))?;
    let sequence: u64 = sequence.parse().map_err(|_| damaged("the sequence is not a number"))?;
    let length: usize = length.parse().map_err(|_| damaged("the length is not a number"))?;
    let body = text.get(end + 1..).ok_or(damaged("no content"))?;
    let (body, tail) = body.split_at_checked(length).ok_or(damaged("truncated"))?;
    if tail != b"\n" {
        return Err(damaged("truncated or overlong"));
    }
    if checksum_of(version, sequence, body).as_str() != checksum {
        return Err(damaged("checksum mismatch"));
    }
    if version > VERSION {
        return Err(Fault::TooNew(version));
    }
    Ok((sequence, body))
}
