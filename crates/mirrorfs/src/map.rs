//! The change map on disk: `changes` in the module's data directory.
//!
//! [`replica::map`] says what must be written; this file writes it, durably, before it returns.
//! Its room is reserved beforehand: a full disk is no reason not to serve. When even that is used up, the log says
//! "everything", in the room it has. **Invariant:** a record that had to be durable is (itself, or in that word), or the
//! caller got an error and must not change the file.

use crate::sys::{is_full, reserve};
use crate::tree::Roots;
use model::ids::{Epoch, NodeId};
use replica::map::{ChangeMap, FileKey, HEADER_BYTES, Record, encode_header, encode_record, is_numbered, sound_bytes};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAME: &str = "changes";
/// A log is small: a longer file is not ours.
const LOG_BYTES_MAX: u64 = 512 << 20;
/// Kept free behind the log's end, as far as the disk has it: 26,000 records.
const RESERVE: u64 = 1 << 20;

/// What is changed here and not on the peer.
pub struct DiskMap {
    path: PathBuf,
    map: ChangeMap,
    /// Changes are recorded.
    recording: bool,
    /// Present while it can be written.
    log: Option<Log>,
    /// What a person should know of it, once.
    note: Option<String>,
}

/// The log, open.
struct Log {
    file: File,
    end: u64,
    reserved: u64,
}

impl Log {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        self.reserve(end);
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        Ok(())
    }

    fn reserve(&mut self, end: u64) {
        if self.reserved < end + RESERVE / 2 && reserve(&self.file, end + RESERVE) {
            self.reserved = end + RESERVE;
        }
    }

    /// From here on the log says "everything". In the place of its first record, which is in the same sector as the header:
    /// it needs no room, and a write that is torn is damage, which means the same.
    fn says_everything(&mut self) -> io::Result<()> {
        let mut bytes = header().to_vec();
        bytes.extend_from_slice(&encode_record(Record::Everything, crc));
        self.file.write_all_at(&bytes, 0)?;
        self.file.sync_data()?;
        self.end = self.end.max(bytes.len() as u64);
        Ok(())
    }
}

/// The epoch a map belongs to is in the node's record, which the agent keeps; none is needed here.
fn header() -> [u8; HEADER_BYTES] {
    encode_header(Epoch { counter: 0, node: NodeId(0), random: 0 }, true, crc)
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
            Ok(None) => {
                // While there is room: when it is needed there may be none. A map of nothing says what none says.
                if let Err(e) = make_empty(&path) {
                    tracing::warn!("no room is reserved for {}: {e}", path.display());
                }
                ChangeMap::default()
            }
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
        (Self { path, map, recording: false, log: None, note: None }, lost)
    }

    /// What it says.
    #[must_use]
    pub fn map(&self) -> &ChangeMap {
        &self.map
    }

    /// What a person should know of it; told once.
    pub fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// Starts recording: with an empty map (`fresh`) or going on with the present one; `also` is marked in
    /// the same durable step. On a full disk the log before goes on, with all it says: too much, never too little.
    ///
    /// # Errors
    /// The log could not be written. State unchanged.
    pub fn begin(&mut self, fresh: bool, also: impl IntoIterator<Item = Record>) -> io::Result<()> {
        let mut map = if fresh { ChangeMap::default() } else { self.map.clone() };
        for record in also {
            map.mark(record);
        }
        let (map, log) = match self.write_whole(&map) {
            Ok(log) => (map, log),
            Err(e) if is_full(&e) => self.go_on(&map).map_err(|_| e)?,
            Err(e) => return Err(e),
        };
        (self.map, self.log, self.recording) = (map, Some(log), true);
        Ok(())
    }

    fn write_whole(&self, map: &ChangeMap) -> io::Result<Log> {
        let next = self.path.with_extension("new");
        let written = self.write_new(&next, map);
        if written.is_err() {
            // It may have the last room. If it cannot be removed, it is written over the next time.
            let _ = std::fs::remove_file(&next);
        }
        written
    }

    fn write_new(&self, next: &Path, map: &ChangeMap) -> io::Result<Log> {
        let mut bytes = header().to_vec();
        for record in map.records() {
            bytes.extend_from_slice(&encode_record(record, crc));
        }
        let mut file = crate::sys::create_own(next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(next, &self.path).map_err(|e| no_file(&self.path, e))?;
        sync_parent(&self.path)?;
        let mut log = Log { file, end: bytes.len() as u64, reserved: 0 };
        // Now, when the room of the one before is free.
        log.reserve(log.end);
        Ok(log)
    }

    /// There is no room for another log: the one on disk learns what it does not say yet, in the room it has.
    fn go_on(&mut self, map: &ChangeMap) -> io::Result<(ChangeMap, Log)> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let bytes = read(&self.path)?.unwrap_or_default();
        let known = ChangeMap::recover(&bytes, crc).ok().filter(|_| is_numbered(&bytes));
        let mut log = Log { file, end: sound_bytes(&bytes, crc) as u64, reserved: 0 };
        if let Some((_, mut all)) = known {
            if log.end < bytes.len() as u64 {
                // A torn record: nobody relied on it.
                log.file.set_len(log.end)?;
            }
            let news: Vec<u8> = map.records().filter_map(|r| all.mark(r)).flat_map(|r| encode_record(r, crc)).collect();
            if news.is_empty() || log.append(&news).is_ok() {
                return Ok((all, log));
            }
        }
        let log = self.say_everything()?;
        self.note = Some(self.everything_sentence());
        Ok((ChangeMap::everything(), log))
    }

    fn say_everything(&self) -> io::Result<Log> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let mut log = Log { file, end: 0, reserved: 0 };
        log.says_everything()?;
        Ok(log)
    }

    fn everything_sentence(&self) -> String {
        format!(
            "there is no room for {}: everything counts as changed, and the next resync compares everything; free some space on that disk",
            self.path.display()
        )
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
        let record = self.map.mark_data(key, offset, len);
        self.append(&record.map_or_else(Vec::new, |record| encode_record(record, crc).to_vec()))
    }

    fn mark(&mut self, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
        records.into_iter().filter_map(|r| self.map.mark(r)).flat_map(|r| encode_record(r, crc)).collect()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.recording {
            return Err(io::Error::other("the change map is not recording"));
        }
        let failed = match &mut self.log {
            Some(_) if bytes.is_empty() => return Ok(()),
            Some(log) => match log.append(bytes) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            },
            None => io::Error::other("the change map could not be written"),
        };
        // What is in memory may be missing on disk: from here on everything counts as changed. As long as that is not on
        // disk either, nothing may be changed.
        self.map = ChangeMap::everything();
        let said = match self.log.take() {
            Some(mut log) => log.says_everything().map(|()| log),
            None => self.write_whole(&self.map).or_else(|_| self.say_everything()),
        };
        match said {
            Ok(log) => {
                self.log = Some(log);
                self.note = Some(self.everything_sentence());
                Ok(())
            }
            Err(_) => Err(failed),
        }
    }

    /// Orderly end of recording: the next process knows the zones that changed, not only the extents (on a full disk: the
    /// extents).
    ///
    /// # Errors
    /// The log could not be written; the one before stays valid.
    pub fn end(&mut self) -> io::Result<()> {
        self.recording = false;
        let Some(log) = self.log.take() else { return Ok(()) };
        log.file.sync_all()?;
        match self.write_whole(&self.map.refined()) {
            Err(e) if is_full(&e) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Both copies are equal and durable: nothing is changed. The file stays, and its room.
    ///
    /// # Errors
    /// The file could not be emptied: what it says stays (too much, never too little).
    pub fn clear(&mut self) -> io::Result<()> {
        make_empty(&self.path)?;
        (self.map, self.log, self.recording) = (ChangeMap::default(), None, false);
        Ok(())
    }
}

/// Says what is in the way, where it is no file at all.
fn no_file(path: &Path, error: io::Error) -> io::Error {
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        let told = format!("{} is a directory, and a file of Stead's belongs there: move it away", path.display());
        return io::Error::other(told);
    }
    error
}

/// A log of nothing, with room.
fn make_empty(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    let file = crate::sys::open_own(path).map_err(|e| no_file(path, e))?;
    let made = file.write_all_at(&header(), 0).and_then(|()| file.set_len(HEADER_BYTES as u64));
    if let Err(e) = made {
        // None at all says the same as one of nothing.
        std::fs::remove_file(path)?;
        tracing::warn!("no room is reserved for {}: {e}", path.display());
        return sync_parent(path);
    }
    reserve(&file, HEADER_BYTES as u64 + RESERVE);
    file.sync_all()?;
    if is_new { sync_parent(path) } else { Ok(()) }
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

/// What the log in this directory says, for somebody who only looks; what cannot be understood means everything.
///
/// # Errors
/// It cannot be read.
pub(crate) fn on_disk(state_dir: &Path) -> io::Result<ChangeMap> {
    let Some(bytes) = read(&state_dir.join(NAME))? else { return Ok(ChangeMap::default()) };
    let known = ChangeMap::recover(&bytes, crc).ok().filter(|_| is_numbered(&bytes));
    Ok(known.map_or_else(ChangeMap::everything, |(_, map)| map))
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
    fn a_directory_in_its_place_is_named_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::create_dir_all(path.join("in-the-way")).unwrap();
        let (mut map, lost) = DiskMap::open(dir.path());
        assert!(lost.is_some() && map.map().is_everything());
        for said in [map.begin(true, []).unwrap_err(), map.clear().unwrap_err()].map(|e| e.to_string()) {
            let words = [path.display().to_string(), "is a directory".into(), "move it away".into()];
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
        assert!(path.join("in-the-way").is_dir(), "it is somebody's");
    }

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
