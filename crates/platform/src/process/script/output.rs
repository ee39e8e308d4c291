//! The output of one run: `userlog_<date>T<time>_<script>.ulog`, bounded; and the bound on how many there are.
//!
//! Writers append; we may cut the file under them at any time (what follows is appended after the cut).

use super::ScriptError;
use crate::clock;
use rustix::fs::{CWD, Mode, OFlags, openat};
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
                Ok(fd) => return Ok(Self { path, file: File::from(fd), bytes_max }),
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

/// Bounds a directory of run files: each to `bytes_max` (daemons go on writing into the file of the script that
/// started them), all together to the newest `files_max`. Call it now and then; every run calls it too.
pub fn trim_runs(directory: &Path, bytes_max: u64, files_max: usize) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "ulog"))
        .collect();
    // Names begin with their date.
    files.sort();
    for old in &files[..files.len().saturating_sub(files_max)] {
        std::fs::remove_file(old).ok();
    }
    for path in &files[files.len().saturating_sub(files_max)..] {
        if let Ok(fd) =
            openat(CWD, path, OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        {
            cut(&File::from(fd), bytes_max);
        }
    }
}
