//! The activity log on disk: `hot` in the module's data directory.
//!
//! [`replica::hot`] says what must be written; this file writes it, durably, before it returns. One log per module
//! and node, whichever half (leader or follower) is at work. **Invariant:** what had to be durable is, or the caller
//! got an error and must not change the file.

use crate::map::{crc, sync_parent};
use crate::sys::is_full;
use model::limits::HOT_TABLE;
use replica::hot::{ActivityLog, Hot, LOG_BYTES, Round, Touch};
use replica::map::{FileKey, Record};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAME: &str = "hot";

/// What a crash of this node may leave different, on disk.
pub struct DiskLog {
    path: PathBuf,
    log: ActivityLog,
    /// Present while it records; a log that could not be written records nothing until it begins anew.
    file: Option<File>,
    flushes: u64,
}

impl DiskLog {
    /// Reads what is on disk; the second value says why it could not be read (then: everything). A node that never
    /// had a log knows nothing either, which is not worth a word.
    #[must_use]
    pub fn open(state_dir: &Path) -> (Self, Option<String>) {
        let path = state_dir.join(NAME);
        let mut lost = None;
        let log = match read(&path) {
            Ok(None) => ActivityLog::everything(),
            Ok(Some(bytes)) => ActivityLog::recover(&bytes, crc).unwrap_or_else(|e| {
                lost = Some(format!("{}: {e}", path.display()));
                ActivityLog::everything()
            }),
            Err(e) => {
                lost = Some(format!("cannot read {}: {e}", path.display()));
                ActivityLog::everything()
            }
        };
        (Self { path, log, file: None, flushes: 0 }, lost)
    }

    /// What is hot.
    #[must_use]
    pub fn log(&self) -> &ActivityLog {
        &self.log
    }

    /// The log, to ask it what is covered; what it is told by that is not written.
    pub fn log_mut(&mut self) -> &mut ActivityLog {
        &mut self.log
    }

    /// The same, as records of a change map.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.log.records().collect()
    }

    /// Flushes so far.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Begins anew, empty: both copies are equal, or what was hot is in the change map, durably.
    ///
    /// # Errors
    /// The log could not be written: what it says on disk stays (too much, never too little), nothing is recorded.
    pub fn reset(&mut self) -> io::Result<()> {
        self.replace(ActivityLog::default())
    }

    /// From here on the log cannot tell: a resync of everything is about to change this copy.
    ///
    /// # Errors
    /// The log could not be written: change nothing.
    pub fn lose(&mut self) -> io::Result<()> {
        if self.log.is_everything() && (self.file.is_some() || !self.path.exists()) {
            return Ok(());
        }
        self.replace(ActivityLog::everything())
    }

    /// What is known now to differ perhaps as well; if there is no room for it, the log cannot tell any more.
    ///
    /// # Errors
    /// The log could not be written: what it says on disk stays.
    pub fn add(&mut self, items: &[Hot]) -> io::Result<()> {
        let mut log = self.log.clone();
        if items.iter().any(|what| matches!(log.touch(*what, 0, HOT_TABLE), Touch::Full)) {
            return self.lose();
        }
        self.replace(log)
    }

    fn replace(&mut self, log: ActivityLog) -> io::Result<()> {
        self.file = None;
        let next = self.path.with_extension("new");
        match self.write_new(&next, log.clone()) {
            Err(e) => {
                // It may have the last room. If it cannot be removed, it is written over the next time.
                let _ = std::fs::remove_file(&next);
                if is_full(&e) { self.go_on(log).map_err(|_| e) } else { Err(e) }
            }
            Ok(()) => Ok(()),
        }
    }

    fn write_new(&mut self, next: &Path, mut log: ActivityLog) -> io::Result<()> {
        let bytes = log.whole(crc);
        let file = crate::sys::create_own(next)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(next, &self.path)?;
        sync_parent(&self.path)?;
        self.log = log;
        self.file = Some(file);
        self.flushes += 1;
        Ok(())
    }

    /// There is no room for another log: the one on disk, which has all its room, is told what this one says. Half of it
    /// told is harmless: who begins anew needs nothing of what was there, and who adds takes nothing away.
    fn go_on(&mut self, mut log: ActivityLog) -> io::Result<()> {
        let bytes = read(&self.path)?.ok_or(io::ErrorKind::NotFound)?;
        log.succeed(&ActivityLog::recover(&bytes, crc).map_err(io::Error::other)?);
        self.file = Some(File::options().write(true).open(&self.path)?);
        let before = std::mem::replace(&mut self.log, log);
        let written = self.write_blocks(true);
        if written.is_err() {
            self.log = before;
        }
        written
    }

    /// Before a change: durable when this returns. `Ok(false)`: there is no room, something must cool first.
    ///
    /// # Errors
    /// The log could not be written (or does not record): refuse the change.
    pub fn touch(&mut self, items: &[Hot], limit: usize) -> io::Result<bool> {
        let mut cold = false;
        for what in items {
            match self.log.touch(*what, 0, limit) {
                Touch::Hot => {}
                Touch::Cold => cold = true,
                // What was cold before it is written all the same: it is in memory, and must not stay there alone.
                Touch::Full => {
                    self.write(cold)?;
                    return Ok(false);
                }
            }
        }
        self.write(cold)?;
        Ok(true)
    }

    /// Is a change of a file made at that time covered by its directory?
    pub fn is_covered(&mut self, dir: FileKey, made_ms: u64) -> bool {
        self.file.is_some() && self.log.is_covered(dir, made_ms)
    }

    /// With the order of changes standing still: see [`ActivityLog::begin_round`].
    pub fn begin_round(&mut self) -> Round {
        self.log.begin_round(crate::map::now_ms())
    }

    /// Both disks have everything from before the round.
    ///
    /// # Errors
    /// The log could not be written: changes are refused from here on.
    pub fn end_round(&mut self, round: Round) -> io::Result<()> {
        self.log.end_round(round);
        let must = self.log.must_flush();
        if self.file.is_some() { self.write_blocks(must) } else { Ok(()) }
    }

    fn write(&mut self, cold: bool) -> io::Result<()> {
        if self.file.is_none() {
            return Err(io::Error::other("the activity log does not record"));
        }
        if cold { self.write_blocks(true) } else { Ok(()) }
    }

    fn write_blocks(&mut self, durable: bool) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let blocks = self.log.blocks(crc);
        let written = blocks.iter().try_for_each(|(at, block)| file.write_all_at(block, *at));
        let outcome = written.and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        match &outcome {
            Ok(()) if durable => {
                self.log.written();
                self.flushes += 1;
            }
            Ok(()) => {}
            // What reached the disk is unknown, and a failed flush is final.
            Err(_) => self.file = None,
        }
        outcome
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // A longer file is not ours, and is refused for its size.
    let mut bytes = vec![0; LOG_BYTES + 1];
    let mut n = 0;
    while n < bytes.len() {
        match file.read_at(&mut bytes[n..], n as u64)? {
            0 => break,
            more => n += more,
        }
    }
    bytes.truncate(n);
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Hot = Hot::Entries { key: FileKey { dev: 0, ino: 2 }, since_ms: 7 };

    #[test]
    fn what_was_touched_is_there_after_a_restart_and_a_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, lost) = DiskLog::open(dir.path());
        assert!(lost.is_none() && log.log().is_everything(), "there never was one");
        assert!(log.touch(&[DIR], 9).is_err(), "not recording yet");
        log.reset().unwrap();
        assert!(log.touch(&[DIR], 1).unwrap());
        assert!(!log.touch(&[Hot::Whole { key: DIR.key() }], 1).unwrap(), "no room");
        let (mut again, lost) = DiskLog::open(dir.path());
        assert!(lost.is_none());
        assert_eq!(again.records(), [Record::Entries { key: DIR.key(), since_ms: 7 }]);
        again.lose().unwrap();
        assert!(DiskLog::open(dir.path()).0.log().is_everything());
        again.reset().unwrap();
        assert!(DiskLog::open(dir.path()).0.log().is_empty());
    }

    #[test]
    fn an_unreadable_log_means_everything_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"nonsense").unwrap();
        let (log, lost) = DiskLog::open(dir.path());
        assert!(log.log().is_everything());
        assert!(lost.unwrap().contains("hot"));
    }
}
