//! The output of one run: `userlog_<date>T<time>_<script>.ulog`, bounded; and the bound on how many there are.
//!
//! Writers append; we may cut the file under them at any time (what follows is appended after the cut).

use super::ScriptError;
use crate::clock;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs of one script within one second that get a name of their own.
const SAME_SECOND_MAX: u32 = 100;
/// Growth tolerated between two cuts, so that the mark itself is not cut again and again.
const SLACK: u64 = 4_096;

pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) file: File,
    bytes_max: u64,
}

impl Output {
    pub(super) fn create(directory: &Path, script: &Path, bytes_max: u64) -> Result<Self, ScriptError> {
        let name = script.file_name().unwrap_or_default().to_string_lossy();
        let stamp = clock::local_stamp(clock::wall_ms(), "");
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 1..=SAME_SECOND_MAX {
            let suffix = if number == 1 { String::new() } else { format!("_{number}") };
            let path = directory.join(format!("userlog_{stamp}_{name}{suffix}.ulog"));
            match openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP) {
                Ok(fd) => {
                    // Inherited with the descriptor, and gone with the last of those who have it.
                    flock(&fd, FlockOperation::NonBlockingLockShared).ok();
                    return Ok(Self { path, file: File::from(fd), bytes_max });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(ScriptError::Output { path, source: error.into() }),
            }
        }
        Err(ScriptError::Output { path: directory.into(), source: Errno::EXIST.into() })
    }

    /// What is not kept.
    pub(super) fn nowhere() -> Result<Self, ScriptError> {
        let path = PathBuf::from("/dev/null");
        match openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self { path, file: File::from(fd), bytes_max: u64::MAX }),
            Err(error) => Err(ScriptError::Output { path, source: error.into() }),
        }
    }

    /// Cuts what is beyond the bound.
    pub(super) fn cut(&self) {
        cut(&self.file, self.bytes_max);
    }
}

fn cut(mut file: &File, bytes_max: u64) {
    if file.metadata().is_ok_and(|found| found.len() > bytes_max.saturating_add(SLACK))
        && file.set_len(bytes_max).is_ok()
    {
        // If the disk is full the mark is missing, nothing worse.
        writeln!(file, "\n[stead: what was written beyond {bytes_max} bytes has been cut]").ok();
    }
}

/// The run files of a directory, oldest first: their names begin with their date.
fn runs_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "ulog"))
        .collect();
    files.sort();
    files
}

fn open_to_cut(path: &Path) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).ok().map(File::from)
}

/// Bounds each run file of a directory: daemons go on writing into the file of the script that started them. They are not
/// disturbed: what they write next is appended after the cut. Call it now and then.
pub fn cut_runs(directory: &Path, bytes_max: u64) {
    for path in runs_in(directory) {
        let is_large = path.symlink_metadata().is_ok_and(|found| found.len() > bytes_max.saturating_add(SLACK));
        if is_large && let Some(file) = open_to_cut(&path) {
            cut(&file, bytes_max);
        }
    }
}

/// Keeps the newest run files of a directory. What somebody still writes into stays as well, as many again: without its name it
/// would grow where nobody sees it, and where nobody can cut it.
pub fn remove_old_runs(directory: &Path, files_max: usize) {
    let files = runs_in(directory);
    let mut held = 0;
    for path in files[..files.len().saturating_sub(files_max)].iter().rev() {
        if held < files_max && is_held(path) {
            held += 1;
        } else {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Whoever has it open from its script has the lock that came with it.
fn is_held(path: &Path) -> bool {
    open_to_cut(path)
        .is_some_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}
