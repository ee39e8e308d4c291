//! The change map on disk: `changes` in the module's data directory.
//!
//! [`replica::map`] says what must be written; this file writes it, durably, before it returns.
//! **Invariant:** a record that had to be durable is, or the caller got an error and must not change the file.

use crate::tree::Roots;
use model::ids::{Epoch, NodeId};
use replica::map::{ChangeMap, FileKey, Record, encode_header, encode_record, is_numbered};
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

pub(crate) fn crc(bytes: &[u8]) -> u32 {
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
                Ok(_) if !is_numbered(&bytes) => {
                    lost = Some(format!("{}: its devices are named as in an earlier boot", path.display()));
                    ChangeMap::everything()
                }
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
        let mut bytes = encode_header(Epoch { counter: 0, node: NodeId(0), random: 0 }, true, crc).to_vec();
        for record in map.records() {
            bytes.extend_from_slice(&encode_record(record, crc));
        }
        let mut file = crate::sys::create_own(&next)?;
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
        self.append(&bytes)
    }

    /// The same of bytes of a file: what is durable is the extents they are in.
    ///
    /// # Errors
    /// As [`Self::touch`].
    pub fn touch_data(&mut self, key: FileKey, offset: u64, len: u64) -> io::Result<()> {
        match self.map.mark_data(key, offset, len) {
            Some(record) => self.append(&encode_record(record, crc)),
            None => Ok(()),
        }
    }

    fn mark(&mut self, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
        records.into_iter().filter_map(|r| self.map.mark(r)).flat_map(|r| encode_record(r, crc)).collect()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let log = self.log.as_mut().ok_or_else(|| io::Error::other("the change map is not recording"))?;
        let outcome = log.write_all(bytes).and_then(|()| log.sync_data());
        if outcome.is_err() {
            // What is in memory may be missing on disk: from here on everything counts as changed.
            self.map = ChangeMap::everything();
            self.log = None;
        }
        outcome
    }

    /// Orderly end of recording: the next process knows the zones that changed, not only the extents.
    ///
    /// # Errors
    /// The log could not be written; the one before stays valid.
    pub fn end(&mut self) -> io::Result<()> {
        let Some(log) = self.log.take() else { return Ok(()) };
        log.sync_all()?;
        self.write_whole(&self.map.refined()).map(drop)
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

/// The file systems of the replicated directories, numbered in the order of the configuration: what the kernel calls
/// them changes from boot to boot, so maps and logs say the number.
#[derive(Clone, Debug, Default)]
pub struct Devices(Vec<u64>);

impl Devices {
    /// Of these directories.
    ///
    /// # Errors
    /// A descriptor that cannot be looked at.
    pub fn of(roots: &Roots) -> io::Result<Self> {
        let devices = roots.iter().map(|root| crate::sys::stat(root).map(|st| st.st_dev));
        Ok(Self(devices.collect::<Result<_, _>>()?))
    }

    /// What the map and the activity log call an inode.
    #[must_use]
    pub fn key(&self, dev: u64, ino: u64) -> FileKey {
        let number = self.0.iter().position(|d| *d == dev);
        // An inode of a file system mounted in between belongs to no copy; no root has this number.
        FileKey { dev: number.map_or(u64::MAX, |n| n as u64), ino }
    }
}

/// Now, as inodes tell the time: never later than what is made after this was asked.
#[must_use]
pub fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    millis(now.tv_sec, now.tv_nsec)
}

/// A time as maps and logs say it.
#[must_use]
pub fn millis(sec: i64, nsec: i64) -> u64 {
    u64::try_from(sec.saturating_mul(1_000).saturating_add(nsec / 1_000_000)).unwrap_or(0)
}

/// The record for what the front is about to touch.
#[must_use]
pub fn record(key: FileKey, part: crate::outlet::Part, now_ms: u64) -> Option<Record> {
    use crate::outlet::Part;
    match part {
        Part::Data { offset, len } => {
            let (first, end) = replica::map::zones(offset, len);
            (first < end).then_some(Record::Zones { key, first, end })
        }
        Part::Attributes => Some(Record::Attributes { key }),
        Part::Entries => Some(Record::Entries { key, since_ms: now_ms }),
        Part::Moved { .. } => Some(Record::Tree { key }),
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

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::limits::ZONE_BYTES;

    const KEY: FileKey = FileKey { dev: 1, ino: 2 };

    #[test]
    fn what_was_touched_is_there_after_a_restart_and_gone_after_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (mut map, lost) = DiskMap::open(dir.path());
        assert!(lost.is_none() && map.map().is_empty());
        assert!(map.touch([Record::Attributes { key: KEY }]).is_err(), "not recording yet");
        map.begin(true, [Record::Entries { key: KEY, since_ms: 3 }]).unwrap();
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
        assert_eq!(third.map().since(KEY), Some(3));
        let end = third.map().zones_of(KEY).last().map(|(_, end)| end).unwrap();
        third.begin(false, []).unwrap();
        third.touch_data(KEY, 64 * ZONE_BYTES * 3 + 5, 10).unwrap();
        let (killed, _) = DiskMap::open(dir.path());
        assert_eq!(killed.map().zones_of(KEY).last(), Some((192, 256)), "{end}: the extent is durable");
        third.end().unwrap();
        let (fourth, _) = DiskMap::open(dir.path());
        assert_eq!(fourth.map().zones_of(KEY).last(), Some((192, 193)), "an orderly end knows the zone");
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
