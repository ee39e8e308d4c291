//! The module's record on disk: the one thing that decides who may serve.
//!
//! One writer at a time, off the loop's thread: fsync may take long, and the loop must go on hearing the world.

use super::agent::Agent;
use super::checkers::Switches;
use super::chronicle::Chronicle;
use super::module::Input;
use crate::modules::Active;
use cluster::mirror::Event;
use model::Record;
use model::api::LogLevel;
use platform::store::{StateFile, StateFileHealth, StoreError, UnderWay, write_atomic};
use rustix::fs::StatVfsMountFlags;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::mpsc;

/// Name of the copies: `state.a`, `state.b`.
const STEM: &str = "state";

/// Reads and writes one module's record.
pub struct Records {
    file: Mutex<Kept>,
    /// Where it is.
    dir: PathBuf,
    /// On which file system.
    device: Option<u64>,
    /// It was made anew, and nobody has been told.
    anew: AtomicBool,
    /// Takes a few bytes again: asked while [`Records::failing`].
    probe: PathBuf,
    /// The disk refused the last record. It counts as a write that does not return: a node that cannot store anything
    /// can agree to nothing, and falls silent ([`model::limits::MUTE_MS`]).
    failing: Mutex<Option<Failing>>,
    /// Somebody looks already.
    looking: AtomicBool,
    /// Which copy is missing, as it was told of.
    one_copy: Mutex<Option<String>>,
    /// Where that is told.
    chronicle: OnceLock<Arc<Mutex<Chronicle>>>,
}

/// Since when the disk takes no record, and why.
struct Failing {
    _since: UnderWay,
    why: String,
}

/// The copies on disk, and what they hold.
struct Kept {
    file: StateFile<Record>,
    /// `None`: nothing was ever written.
    last: Option<Record>,
}

/// What was found on disk.
pub struct Found {
    /// The record; empty (unknown data) when there was none or it was unreadable.
    pub record: Record,
    /// What of it was unreadable, and what that means, for people.
    pub damage: Option<String>,
}

impl Records {
    /// Opens the record below the module's directory. An unreadable one is *unknown data*: such a node can be a
    /// resync target, never a primary by itself; the damaged copies are kept beside.
    ///
    /// # Errors
    /// When the directory cannot be read or written, or a newer program wrote the record.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, Found), StoreError> {
        // Tickets must stay unique although the count of boots is lost: it may be gone with its directory, and the other node
        // remembers the last one.
        let unknown = || Record { boots: platform::clock::wall_ms() / 1000, ..Record::empty() };
        let (kept, found) = match StateFile::open(dir, STEM) {
            Ok((file, last, _)) => {
                let record = last.clone().unwrap_or_else(unknown);
                let enough = |damage: &str| {
                    format!(
                        "{damage}; the other copy of the module's record is enough; is the disk healthy (dmesg), or did power go while it was written?"
                    )
                };
                let damage = file.damage().map(enough);
                (Kept { file, last }, Found { record, damage })
            }
            Err(error @ StoreError::Unreadable { .. }) => {
                let file = StateFile::replace_unreadable(dir, STEM)?;
                let damage =
                    format!("{error}; this copy can be resynchronised, and serves only after stead prim --force");
                (Kept { file, last: None }, Found { record: unknown(), damage: Some(damage) })
            }
            Err(error) => return Err(error),
        };
        Ok((
            Arc::new(Self {
                file: Mutex::new(kept),
                dir: dir.into(),
                device: device(dir),
                anew: AtomicBool::new(false),
                probe: dir.join("probe"),
                failing: Mutex::default(),
                looking: AtomicBool::new(false),
                one_copy: Mutex::default(),
                chronicle: OnceLock::new(),
            }),
            found,
        ))
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes at once; for changes made while no loop runs.
    ///
    /// # Errors
    /// As [`StateFile::write`].
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        let outcome = {
            let mut kept = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            // Its directory may have been taken away: then it is made anew, where it was.
            let outcome = match kept.file.write(record) {
                Err(_) if self.make_anew() == Ok(true) => kept.file.write(record),
                outcome => outcome,
            };
            if outcome.is_ok() {
                kept.last = Some(record.clone());
            }
            outcome
        };
        let mut failing = self.failing();
        match &outcome {
            Ok(_) => *failing = None,
            Err(error) => {
                let why = crate::cluster_config::causes(error);
                failing.get_or_insert_with(|| Failing { _since: UnderWay::begin(), why: String::new() }).why = why;
            }
        }
        drop(failing);
        outcome.map(|health| self.tell(&health))
    }

    /// Brings the record back where somebody took it away, directory and all. `true`: the directory was gone, and everything else
    /// that it held is lost. May take as long as the disk.
    ///
    /// # Errors
    /// The sentence why nothing could be stored there now.
    pub fn restore(&self) -> Result<bool, String> {
        self.make_anew()?;
        let dir = self.dir.display();
        let about = rustix::fs::statvfs(&self.dir).map_err(|e| format!("{dir} cannot be looked at: {e}"))?;
        if about.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(format!("{dir} is read-only"));
        }
        let is_there = |copy: &str| self.dir.join(format!("{STEM}.{copy}")).symlink_metadata().is_ok();
        if !is_there("a") && !is_there("b") {
            let mut kept = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = kept.last.clone() {
                // What it says is what this node has gone by all the time.
                kept.file.write(&last).map_err(|error| crate::cluster_config::causes(&error))?;
            }
        }
        Ok(self.anew.swap(false, Ordering::AcqRel))
    }

    /// `true`: the directory was not there. One of another file system (whose own is not mounted, perhaps) is left alone: it holds an
    /// older record, which would be believed when it comes back.
    fn make_anew(&self) -> Result<bool, String> {
        if self.dir.is_dir() {
            return Ok(false);
        }
        let around = self.dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        if device(around) != self.device {
            return Err(format!("{} is gone, and so is the file system it was on: is it mounted?", self.dir.display()));
        }
        // With the one of the data plane: without it this node could not go on alone.
        std::fs::create_dir_all(self.dir.join("data"))
            .and_then(|()| self.dir.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all()))
            .map_err(|error| format!("{} is gone and cannot be made anew: {error}", self.dir.display()))?;
        self.anew.store(true, Ordering::Release);
        Ok(true)
    }

    /// Where an operator reads of a copy that cannot be written.
    pub fn told_in(&self, chronicle: Arc<Mutex<Chronicle>>) {
        // Once, by whoever has just opened it.
        let _ = self.chronicle.set(chronicle);
    }

    /// One good copy is enough to go on, and no reason to wait for the other one to rot: it is told of once.
    fn tell(&self, health: &StateFileHealth) {
        let now = match health {
            StateFileHealth::Whole => None,
            StateFileHealth::OneCopy(why) => Some(why.clone()),
        };
        let before = std::mem::replace(&mut *self.one_copy.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        let (level, text) = match (&before, &now) {
            (None, Some(why)) => (
                LogLevel::C,
                format!(
                    "the module's record is kept in one copy only, and that one must not be lost: {why}; is the disk healthy? dmesg"
                ),
            ),
            (Some(_), None) => (LogLevel::E, "the module's record is kept in two copies again".to_string()),
            _ => return,
        };
        tracing::error!("{text}");
        if let Some(chronicle) = self.chronicle.get() {
            chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("heart", level, &text);
        }
    }

    /// What keeps this node from agreeing to anything, whatever its module waits for; for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failing = self.failing();
        let why = &failing.as_ref()?.why;
        Some(format!(
            "the module's record cannot be stored: {why}: is its disk full, read-only or failing? df {}",
            self.dir.display()
        ))
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, in the background, whether a disk that refused the last record takes something again.
    pub fn look_again(self: &Arc<Self>) {
        // One at a time: it may hang.
        if self.failing().is_none() || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if write_atomic(&this.probe, b"written to see whether the disk takes it\n", 0o600).is_ok() {
                *this.failing() = None;
            }
            this.looking.store(false, Ordering::Release);
        });
    }

    /// Makes the record durable in the background; the outcome is an event with the same id.
    pub fn store(self: &Arc<Self>, id: u8, record: Record, own: mpsc::Sender<Input>) {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let event = match this.write(&record) {
                Ok(()) => Event::Stored { id },
                Err(error) => Event::StoreFailed { id, reason: error.to_string() },
            };
            // The loop may be gone; then nobody waits for the outcome.
            let _ = own.blocking_send(Input::Event(event));
        });
    }
}

/// Tells what else of the module's files was found damaged when its loop begins, or of the node's: into the log, and for whoever asks.
pub fn tell_damage(agent: &Agent, chronicle: &Mutex<Chronicle>, active: &Active, var: &Path) {
    let found = [agent.damage.clone(), Switches::set_aside(var), active.altered()];
    let mut chronicle = chronicle.lock().unwrap_or_else(PoisonError::into_inner);
    let [of_the_node, switches, altered] = found;
    of_the_node.iter().chain(&switches).for_each(|damage| chronicle.damaged(damage));
    // That may end any moment: whoever asks has it looked at.
    if let Some(altered) = altered {
        chronicle.line("heart", LogLevel::C, &altered);
    }
}

fn device(dir: &Path) -> Option<u64> {
    std::fs::metadata(dir).ok().map(|found| found.dev())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::api::LogQuery;
    use model::{NodeId, Witnesses};

    /// Whose directory of state was lost says nothing that its peer takes for an old message.
    #[test]
    fn a_node_without_a_record_counts_on_from_the_clock() {
        let dir = tempfile::tempdir().expect("a directory");
        let before = platform::clock::wall_ms() / 1000;
        let (_, found) = Records::open(dir.path()).expect("opens");
        assert!(found.record.boots >= before && found.record.epoch.is_none(), "{:?}", found.record);
    }

    /// Whatever else the module waits for later: the cause is named as long as it is there.
    #[test]
    fn a_record_that_cannot_be_stored_is_named_until_one_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (records, _) = Records::open(dir.path()).expect("opens");
        let write = |boots| records.write(&Record { boots, ..Record::empty() });
        write(1).expect("stored");
        assert_eq!(records.trouble(), None);
        let copies = ["state.a", "state.b"].map(|name| dir.path().join(name));
        for copy in &copies {
            std::fs::remove_file(copy).ok();
            std::fs::create_dir_all(copy.join("in the way")).expect("made");
        }
        assert!(write(2).is_err());
        let trouble = records.trouble().expect("it is in trouble");
        assert!(trouble.contains("cannot be stored") && trouble.contains("state."), "{trouble}");
        for copy in &copies {
            std::fs::remove_dir_all(copy).expect("removed");
        }
        write(3).expect("stored");
        assert_eq!(records.trouble(), None);
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_an_alarm_once_and_the_record_is_stored() {
        let dir = tempfile::tempdir().expect("a directory");
        let (records, _) = Records::open(dir.path()).expect("opens");
        let chronicle = Arc::new(Mutex::new(Chronicle::open(dir.path())));
        records.told_in(Arc::clone(&chronicle));
        let stored = |boots| records.write(&Record { boots, ..Record::empty() }).expect("stored");
        stored(1);
        let a = dir.path().join("state.a");
        std::fs::remove_file(&a).expect("it is there");
        std::fs::create_dir_all(a.join("in the way")).expect("made");
        for boots in 2..9 {
            stored(boots);
        }
        let said = || chronicle.lock().expect("no panic").page(LogQuery::default()).lines;
        assert_eq!(said().len(), 1, "{:?}", said());
        assert!(said()[0].level == LogLevel::C && said()[0].text.contains("state.a"), "{:?}", said());
        std::fs::remove_dir_all(&a).expect("removed");
        stored(9);
        assert!(said()[1].text.contains("two copies again"), "{:?}", said());
        assert_eq!(Records::open(dir.path()).expect("opens").1.record.boots, 9);
    }

    #[test]
    fn a_damaged_copy_is_named_and_the_other_one_is_enough() {
        let dir = tempfile::tempdir().expect("a directory");
        let (records, found) = Records::open(dir.path()).expect("opens");
        assert_eq!(found.damage, None);
        records.write(&Record { boots: 7, ..Record::empty() }).expect("stored");
        let rot = |copy: &str| std::fs::write(dir.path().join(copy), "rot").expect("written");
        rot("state.a");
        let (records, found) = Records::open(dir.path()).expect("opens");
        assert_eq!(found.record.boots, 7);
        let damage = found.damage.expect("it is damaged");
        assert!(damage.contains("state.a is damaged") && damage.contains("is enough"), "{damage}");
        records.write(&found.record).expect("stored");
        assert_eq!(Records::open(dir.path()).expect("opens").1.damage, None, "both are whole again");
        rot("state.a");
        rot("state.b");
        let damage = Records::open(dir.path()).expect("opens").1.damage.expect("both are");
        assert!(damage.contains("both copies of state") && damage.contains("stead prim --force"), "{damage}");
        // For whoever asks, and in the log.
        let mut chronicle = Chronicle::open(dir.path());
        chronicle.damaged(&damage);
        assert_eq!(chronicle.damages(), std::slice::from_ref(&damage));
        let lines = chronicle.page(LogQuery::default()).lines;
        assert!(lines.iter().any(|line| line.level == LogLevel::C && line.text == damage), "{lines:?}");
    }

    /// Taken away behind the agent's back: a record that is stored next, and the one that was, are there again.
    #[test]
    fn a_directory_that_was_taken_away_is_made_anew_with_the_record() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("module");
        std::fs::create_dir(&dir).expect("made");
        let (records, _) = Records::open(&dir).expect("opens");
        assert_eq!(records.restore(), Ok(false), "nothing was ever stored");
        let stored = |boots| records.write(&Record { boots, ..Record::empty() });
        let on_disk = || Records::open(&dir).expect("opens").1.record.boots;
        stored(1).expect("stored");
        std::fs::remove_dir_all(&dir).expect("removed");
        stored(2).expect("stored all the same");
        assert_eq!((on_disk(), records.restore(), records.restore()), (2, Ok(true), Ok(false)), "it is told once");
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(records.restore(), Ok(true));
        assert_eq!((on_disk(), records.restore()), (2, Ok(false)));
        for copy in ["state.a", "state.b"] {
            std::fs::remove_file(dir.join(copy)).expect("removed");
        }
        assert_eq!((records.restore(), on_disk()), (Ok(false), 2));
    }

    /// As the first release wrote it: what came later must be optional.
    const OF_THE_FIRST_RELEASE: &str = r#"{"data_id":7,"boots":3,"boot_id":1,"epoch":null,"history":[],"role":"second",
        "data":"full","yielded":true,"clean":true}"#;

    #[test]
    fn a_record_of_the_first_release_is_read() {
        let record: Record = serde_json::from_str(OF_THE_FIRST_RELEASE).expect("it is still understood");
        assert!(record.yielded && !record.drained && !record.released);
    }

    /// As the program before the exchange of witnesses wrote it: must be read by every later one.
    const BEFORE_WITNESSES: &str = r#"{"data_id":9,"boots":3,"boot_id":7,"epoch":{"counter":2,"node":1,"random":5},"history":[{"counter":1,"node":1,"random":4},{"counter":2,"node":1,"random":5}],"role":"primary","data":"full","yielded":false,"clean":true,"drained":true,"right":"witness","map_since":null}"#;

    /// The same with what was added (R16).
    const WITH_WITNESSES: &str = r#"{"data_id":9,"boots":3,"boot_id":7,"epoch":{"counter":2,"node":1,"random":5},"history":[{"counter":1,"node":1,"random":4},{"counter":2,"node":1,"random":5}],"role":"primary","data":"full","yielded":false,"clean":true,"drained":true,"right":"witness","map_since":null,"released":false,"witnesses":{"votes":"exchange","old":3,"new":null}}"#;

    #[test]
    fn the_record_of_the_program_before_is_read_and_means_the_configured_witness() {
        let before: Record = serde_json::from_str(BEFORE_WITNESSES).unwrap();
        assert_eq!(before.witnesses, Witnesses::Configured);
        let now: Record = serde_json::from_str(WITH_WITNESSES).unwrap();
        assert_eq!(now.witnesses, Witnesses::Exchange { old: Some(NodeId(3)), new: None });
        assert_eq!(serde_json::to_string(&now).unwrap(), WITH_WITNESSES);
        assert_eq!(Record { witnesses: Witnesses::Configured, ..now }, before);
    }
}
