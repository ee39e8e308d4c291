//! The change map on disk: `changes` in the module's data directory.
//!
//! [`replica::map`] says what must be written; this file writes it, durably, before it returns.
//! **Invariant:** a record that had to be durable is, or the caller got an error and must not change the file.

use model::ids::{Epoch, NodeId};
use replica::map::{ChangeMap, FileKey, Record, encode_header, encode_record};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "changes";
/// A log is small: a longer file is not ours.
const LOG_BYTES_MAX: u64 = 512 << 20;

/// What is changed here and not on the peer.
pub struct DiskMap {
    path: PathBuf,
    map: ChangeMap,
    /// Present while changes are recorded.
    log: Option<File>,
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

impl DiskMap {
    /// Reads what is on disk; the second value says why it could not be read (then: everything).
    #[must_use]
    pub fn open(state_dir: &Path) -> (Self, Option<String>) {
        let path = state_dir.join(NAME);
        let mut lost = None;
        let map = match read(&path) {
            Ok(None) => ChangeMap::default(),
            Ok(Some(bytes)) => match ChangeMap::recover(&bytes, crc) {
                Ok((_, map)) => map,
                Err(e) => {
                    lost = Some(format!("{}: {e}", path.display()));
                    ChangeMap::everything()
                }
            },
            Err(e) => {
                lost = Some(format!("cannot read {}: {e}", path.display()));
                ChangeMap::everything()
            }
        };
        (Self { path, map, log: None }, lost)
    }

    /// What it says.
    #[must_use]
    pub fn map(&self) -> &ChangeMap {
        &self.map
    }

    /// Starts recording: with an empty map (`fresh`) or going on with the present one; `also` is marked in
    /// the same durable step.
    ///
    /// # Errors
    /// The log could not be written. State unchanged.
    pub fn begin(&mut self, fresh: bool, also: impl IntoIterator<Item = Record>) -> io::Result<()> {
        let mut map = if fresh { ChangeMap::default() } else { self.map.clone() };
        for record in also {
            map.mark(record);
        }
        self.log = Some(self.write_whole(&map)?);
        self.map = map;
        Ok(())
    }

    fn write_whole(&self, map: &ChangeMap) -> io::Result<File> {
        let next = self.path.with_extension("new");
        // The epoch a map belongs to is in the node's record, which the agent keeps; none is needed here.
        let mut bytes = encode_header(Epoch { counter: 0, node: NodeId(0), random: 0 }, crc).to_vec();
        for record in map.records() {
            bytes.extend_from_slice(&encode_record(record, crc));
        }
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        sync_parent(&self.path)?;
        OpenOptions::new().append(true).open(&self.path)
    }

    /// Before a change: durable when this returns.
    ///
    /// # Errors
    /// The log could not be written (or recording never began): refuse the change.
    pub fn touch(&mut self, records: impl IntoIterator<Item = Record>) -> io::Result<()> {
        let bytes = self.mark(records);
        self.append(&bytes, true)
    }

    /// For a file made in a directory that is in the log already: in the log soon, durable with the next
    /// record that must be.
    ///
    /// # Errors
    /// As [`Self::touch`].
    pub fn touch_new_file(&mut self, record: Record) -> io::Result<()> {
        let bytes = self.mark([record]);
        self.append(&bytes, false)
    }

    fn mark(&mut self, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
        records.into_iter().filter_map(|r| self.map.mark(r)).flat_map(|r| encode_record(r, crc)).collect()
    }

    fn append(&mut self, bytes: &[u8], durable: bool) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let log = self.log.as_mut().ok_or_else(|| io::Error::other("the change map is not recording"))?;
        let outcome = log.write_all(bytes).and_then(|()| if durable { log.sync_data() } else { Ok(()) });
        if outcome.is_err() {
            // What is in memory may be missing on disk: from here on everything counts as changed.
            self.map = ChangeMap::everything();
            self.log = None;
        }
        outcome
    }

    /// Orderly end of recording.
    ///
    /// # Errors
    /// The log could not be written; it stays valid.
    pub fn end(&mut self) -> io::Result<()> {
        if let Some(mut log) = self.log.take() {
            if self.map.is_complete() {
                log.write_all(&encode_record(Record::Clean, crc))?;
            }
            log.sync_all()?;
        }
        Ok(())
    }

    /// Both copies are equal and durable: nothing is changed.
    ///
    /// # Errors
    /// The file could not be removed: what it says stays (too much, never too little).
    pub fn clear(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        sync_parent(&self.path)?;
        self.map = ChangeMap::default();
        self.log = None;
        Ok(())
    }
}

/// A key of the map from what the front calls it.
#[must_use]
pub fn key(k: crate::outlet::InodeKey) -> FileKey {
    FileKey { dev: k.dev, ino: k.ino }
}

/// The record for what the front is about to touch.
#[must_use]
pub fn record(what: &crate::outlet::Touch) -> Option<Record> {
    use crate::outlet::Part;
    let key = key(what.key);
    match what.part {
        Part::Data { offset, len } => {
            let (first, end) = replica::map::zones(offset, len);
            (first < end).then_some(Record::Zones { key, first, end })
        }
        Part::Attributes => Some(Record::Attributes { key }),
        Part::Entries => Some(Record::Entries { key }),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FileKey = FileKey { dev: 1, ino: 2 };

    #[test]
    fn what_was_touched_is_there_after_a_restart_and_gone_after_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (mut map, lost) = DiskMap::open(dir.path());
        assert!(lost.is_none() && map.map().is_empty());
        assert!(map.touch([Record::Attributes { key: KEY }]).is_err(), "not recording yet");
        map.begin(true, [Record::Entries { key: KEY }]).unwrap();
        map.touch([Record::Zones { key: KEY, first: 4, end: 9 }]).unwrap();
        drop(map);
        let (mut again, lost) = DiskMap::open(dir.path());
        assert!(lost.is_none());
        assert_eq!(again.map().zones_of(KEY).collect::<Vec<_>>(), [(4, 9)]);
        again.begin(false, []).unwrap();
        again.touch([Record::Zones { key: KEY, first: 20, end: 21 }]).unwrap();
        again.end().unwrap();
        let (mut third, _) = DiskMap::open(dir.path());
        assert_eq!(third.map().count(), 6);
        assert!(third.map().covers_files_of(KEY), "files made before the first end, a kill, may be missing");
        third.begin(true, [Record::Entries { key: KEY }]).unwrap();
        third.end().unwrap();
        let (mut third, _) = DiskMap::open(dir.path());
        assert!(!third.map().covers_files_of(KEY), "it ended in order");
        third.clear().unwrap();
        assert!(DiskMap::open(dir.path()).0.map().is_empty());
    }

    #[test]
    fn an_unreadable_map_means_everything_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"nonsense").unwrap();
        let (map, lost) = DiskMap::open(dir.path());
        assert!(map.map().is_everything());
        assert!(lost.unwrap().contains("changes"));
    }
}
