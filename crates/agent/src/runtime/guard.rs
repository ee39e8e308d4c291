//! What a running mirror module needs of this node besides its processes: its own files, and the mounts on its directories. Whoever
//! is root can take them away behind its back: looked at once a second.
//!
//! Looks, and brings the record back; decides nothing. What a look found of the mounts counts only when the next one finds it
//! too, and nothing was ordered of the data plane meanwhile. **Invariant:** looks may hang with their disk; one at a time, and never
//! in the loop. A mount is judged by the mount table alone: whoever enters one whose process hangs, hangs with it.

use super::copies::dirs_of;
use super::module::Input;
use super::records::Records;
use crate::modules::{Active, Looks};
use platform::mounts::{Bare, FSTYPE, Mount};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// One reading of the mount table serves all modules for so long.
const TABLE: Duration = Duration::from_millis(500);
/// When a look found something, the next one must find it again: in another reading.
const AGAIN: Duration = Duration::from_millis(600);
/// Files named in a sentence.
const NAMED: usize = 2;

/// What must be mounted on the directories now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nobody knows at this moment.
    Nothing,
    /// Covers: it follows, or waits.
    Covers,
    /// The data plane's own mounts: it serves.
    Served,
}

/// What one look found.
#[derive(Debug)]
pub struct Seen {
    /// Why this node could not start the module, as far as its own files tell.
    pub lost: Option<String>,
    /// The directory of the module's state was gone, and is there again, with the record only.
    pub anew: bool,
    /// What was wanted, and is not there.
    pub mount: Option<Missing>,
    /// All directories had their covers.
    covered: bool,
    /// When, by the clock that file systems go by.
    at_ms: u64,
    /// Orders of the data plane when it began.
    orders: u64,
}

/// A mount that somebody took away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Anybody may write there.
    Cover(PathBuf),
    /// What is written there reaches nobody.
    Served(PathBuf),
}

/// What is looked at.
struct Places {
    files: Vec<PathBuf>,
    /// Whose programs must be what was applied.
    active: Option<Active>,
    looks: Looks,
    dirs: Vec<PathBuf>,
    /// Of the data plane.
    data: PathBuf,
    source: String,
    records: Arc<Records>,
}

/// The looks of one module.
pub struct Guard {
    places: Arc<Places>,
    bare: Bare,
    own: mpsc::Sender<Input>,
    looking: Arc<AtomicBool>,
    next: Instant,
    /// Orders of the data plane so far.
    orders: u64,
    /// When all covers were seen last.
    covered_ms: Option<u64>,
    /// Found once, by a look that began at this count of orders.
    suspect: Option<(Missing, u64)>,
}

impl Guard {
    /// Of a mirror whose state is in `var`.
    pub fn new(active: &Active, var: &Path, records: Arc<Records>, own: mpsc::Sender<Input>) -> Self {
        let scripts = active.scripts.iter().map(|script| active.bin_dir().join(script));
        let places = Places {
            files: std::iter::once(active.dir.join("module.json")).chain(scripts).collect(),
            active: Some(active.clone()),
            looks: Looks::default(),
            dirs: dirs_of(active),
            data: var.join("data"),
            source: format!("stead:{}", active.name),
            records,
        };
        Self::at(places, own)
    }

    fn at(places: Places, own: mpsc::Sender<Input>) -> Self {
        Self {
            bare: Bare::of(&places.data),
            places: Arc::new(places),
            own,
            looking: Arc::default(),
            next: Instant::now(),
            orders: 0,
            covered_ms: None,
            suspect: None,
        }
    }

    /// The data plane was told something, or is another one: what was found of its mounts is of before.
    pub fn ordered(&mut self) {
        self.orders += 1;
    }

    /// Begins a look, when it is time. What it finds comes to the loop.
    pub fn look(&mut self, wanted: Wanted) {
        if Instant::now() < self.next || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        self.next = Instant::now() + EVERY;
        let (places, own, looking, orders) =
            (Arc::clone(&self.places), self.own.clone(), Arc::clone(&self.looking), self.orders);
        tokio::task::spawn_blocking(move || {
            let seen = places.look(wanted, orders);
            looking.store(false, Ordering::Release);
            // The loop may be gone, or busy: the next look says it again.
            let _ = own.try_send(Input::Seen(Box::new(seen)));
        });
    }

    /// A look has come back: what of its finding of the mounts is certain.
    pub fn judge(&mut self, seen: &Seen) -> Option<Missing> {
        if seen.covered {
            self.covered_ms = Some(seen.at_ms);
        }
        let is_of_now = seen.orders == self.orders;
        let before = self.suspect.take();
        let missing = seen.mount.clone().filter(|_| is_of_now)?;
        if before.as_ref() == Some(&(missing.clone(), self.orders)) {
            return Some(missing);
        }
        self.suspect = Some((missing, self.orders));
        self.next = Instant::now() + AGAIN;
        None
    }

    /// Notes since when anybody may have written into this directory: before it is covered again.
    ///
    /// # Errors
    /// The note could not be written.
    pub fn note_bare(&self, dir: &Path) -> Result<(), platform::mounts::MountError> {
        self.bare.note_since(dir, self.covered_ms.unwrap_or(0))
    }

    /// Whether this directory has its cover still, under whatever.
    #[must_use]
    pub fn is_bare(dir: &Path) -> bool {
        !platform::mounts::is_covered(dir).unwrap_or(true)
    }
}

impl Places {
    fn look(&self, wanted: Wanted, orders: u64) -> Seen {
        let restored = self.records.restore();
        let mut anew = restored == Ok(true);
        // Its own alone: where the change map will be, if this node is to go on alone.
        if wanted != Wanted::Nothing && restored.is_ok() && !self.data.is_dir() {
            anew |= std::fs::create_dir_all(&self.data).is_ok();
        }
        let altered = || self.active.as_ref().and_then(|active| self.looks.altered(active));
        let lost = restored.err().or_else(|| lost(&self.files)).or_else(altered);
        // What cannot be read says nothing against anybody.
        let read = table();
        let mut stacks = Vec::new();
        if let Some((_, mounts)) = &read {
            stacks.extend(self.dirs.iter().map(|dir| (dir, platform::mounts::stack_in(mounts, dir))));
        }
        let at_ms = read.as_ref().map_or(0, |(at_ms, _)| *at_ms);
        let covered = !stacks.is_empty() && stacks.iter().all(|(_, stack)| platform::mounts::has_cover(stack));
        let mount = match wanted {
            Wanted::Nothing => None,
            Wanted::Covers => stacks
                .iter()
                .find(|(_, stack)| !platform::mounts::has_cover(stack))
                .map(|(dir, _)| Missing::Cover(dir.to_path_buf())),
            Wanted::Served => stacks
                .iter()
                .find(|(_, stack)| !stack.last().is_some_and(|top| top.fstype == FSTYPE && top.source == self.source))
                .map(|(dir, _)| Missing::Served(dir.to_path_buf())),
        };
        Seen { lost, anew, mount, covered, at_ms, orders }
    }
}

/// Which of these files are not there.
fn lost(files: &[PathBuf]) -> Option<String> {
    let is_gone = |file: &&PathBuf| {
        file.symlink_metadata().is_err_and(|e| matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)))
    };
    let gone: Vec<&PathBuf> = files.iter().filter(is_gone).collect();
    let named: Vec<String> = gone.iter().take(NAMED).map(|file| file.display().to_string()).collect();
    match (gone.len(), gone.len().saturating_sub(NAMED)) {
        (0, _) => None,
        (1, _) => Some(format!("{} is missing", named[0])),
        (_, 0) => Some(format!("{} are missing", named.join(" and "))),
        (_, more) => Some(format!("{} and {more} more are missing", named.join(", "))),
    }
}

/// When it was read, by the clock that file systems go by, and what was in it.
type Table = (u64, Arc<Vec<Mount>>);

/// The mount table, as it was a moment ago at most.
fn table() -> Option<Table> {
    static READ: Mutex<Option<(Instant, Table)>> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, table)) = &*read
        && at.elapsed() < TABLE
    {
        return Some(table.clone());
    }
    let at = Instant::now();
    let table = (platform::clock::wall_ms(), Arc::new(platform::mounts::list().ok()?));
    *read = Some((at, table.clone()));
    Some(table)
}

const _: () = assert!(AGAIN.as_millis() > TABLE.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mount: Option<Missing>, covered: bool, at_ms: u64, orders: u64) -> Seen {
        Seen { lost: None, anew: false, mount, covered, at_ms, orders }
    }

    fn guard(var: &Path) -> Guard {
        let (records, _) = Records::open(var).expect("opens");
        let (own, _inputs) = mpsc::channel(1);
        let places = Places {
            files: Vec::new(),
            active: None,
            looks: Looks::default(),
            dirs: Vec::new(),
            data: var.join("data"),
            source: "stead:notes".into(),
            records,
        };
        Guard::at(places, own)
    }

    #[test]
    fn a_mount_is_missing_when_two_looks_say_so_and_nothing_was_ordered_between_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut guard = guard(dir.path());
        let gone = || Some(Missing::Served("/srv/notes".into()));
        assert_eq!(guard.judge(&seen(gone(), true, 1, 0)), None);
        assert_eq!(guard.judge(&seen(gone(), true, 2, 0)), gone());
        assert_eq!(guard.judge(&seen(gone(), true, 3, 0)), None, "it was told once");
        guard.ordered();
        assert_eq!(guard.judge(&seen(gone(), true, 4, 0)), None, "the data plane was told to take it away");
        assert_eq!(guard.judge(&seen(gone(), true, 5, 1)), None);
        assert_eq!(guard.judge(&seen(None, true, 6, 1)), None);
        assert_eq!(guard.judge(&seen(gone(), true, 7, 1)), None, "it was there in between");
        assert_eq!(guard.judge(&seen(gone(), true, 8, 1)), gone());
    }

    #[test]
    fn a_directory_is_bare_since_its_cover_was_seen_last() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("data")).expect("made");
        let mut guard = guard(dir.path());
        for (covered, at_ms) in [(true, 1_000), (true, 2_000), (false, 3_000)] {
            guard.judge(&seen(None, covered, at_ms, 0));
        }
        guard.note_bare(Path::new("/srv/notes")).expect("noted");
        assert_eq!(Bare::of(&dir.path().join("data")).since_ms(), Some(2_000));
    }

    #[test]
    fn files_that_are_lost_are_named_and_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name);
        assert_eq!(lost(&[]), None);
        std::fs::write(file("a"), "").expect("written");
        assert_eq!(lost(&[file("a")]), None);
        let one = lost(&[file("a"), file("b")]).expect("one is missing");
        assert_eq!(one, format!("{} is missing", file("b").display()));
        let many = lost(&["b", "c", "d", "e"].map(file)).expect("four are missing");
        assert!(many.ends_with(&format!("{} and 2 more are missing", file("c").display())), "{many}");
    }
}
