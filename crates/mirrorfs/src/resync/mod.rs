//! Brings a target up to date while the application goes on: full by block hashes, or what the map and the target's
//! activity log name.
//!
//! Every check and every repair is a frame of the one ordered stream. The target compares at exactly that
//! position and only reports; the repair is decided here, under the order lock, from what the own tree is at
//! that moment, and goes into the stream there. So no pause is needed for exactness: a false alarm repairs
//! nothing that is wrong, and nothing wrong is hidden, because every change of the application between a look
//! and its check is in the stream as well. What was renamed or linked meanwhile, and what the target could not
//! apply, is compared again. **Invariant:** the commit is offered only when nothing is outstanding (protocol.md H5).

mod content;
mod doubts;
mod entries;
mod estimate;
mod events;
mod lacking;
mod links;
mod moves;
mod path;
mod seeds;
mod verify;
mod walker;

pub(crate) use events::Events;
pub(crate) use path::TreePath;
pub(crate) use verify::Verify;

use crate::leader::{Gone, Leader};
use content::{FileTask, Span};
use entries::{Below, DirTask};
use estimate::Estimate;
use events::{Found, News};
use lacking::Lacking;
use links::Links;
use model::ids::Lsn;
use model::orders::{Progress, Report, Session};
use replica::map::{ChangeMap, FileKey};
use replica::resync::{Meter, Plan};
use replica::wire::{Difference, EVERYTHING, Message};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walker::Walker;

/// The agent stores its record and orders the commit within this time.
const COMMIT_ORDER: Duration = Duration::from_secs(10);
/// The target syncs and its agent stores within this time. All was synced a moment before, and the application waits.
const COMMIT: Duration = Duration::from_millis(crate::leader::SYNC_STALL_MS);
/// An entry that is the same here all the time, but differs there after this many repairs: give up.
const REPAIRS_MAX: u32 = 64;
/// Entries whose repairs are counted; beyond, counting begins anew.
const COUNTED_MAX: usize = 100_000;

/// More entries than this to compare again: the application is asked to wait.
const BEHIND: usize = 64;
/// Files remembered as verified; beyond, some are compared twice.
const VERIFIED_MAX: usize = 4_000_000;

/// What a check was about.
enum Check {
    Entries(entries::Asked),
    Span(Span),
}

/// A directory and the name of an entry in it.
type Place = (TreePath, Vec<u8>);
/// What an entry was: file and change time.
type Version = (FileKey, i64, i64);

/// Entries that must be compared once more; each waits once, however often that is found.
#[derive(Default)]
struct Again {
    order: VecDeque<Place>,
    waiting: HashSet<Place>,
}

impl Again {
    fn push(&mut self, place: Place) {
        if self.waiting.insert(place.clone()) {
            self.order.push_back(place);
        }
    }

    fn pop(&mut self) -> Option<Place> {
        let place = self.order.pop_front()?;
        self.waiting.remove(&place);
        Some(place)
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn len(&self) -> usize {
        self.order.len()
    }
}

/// One resync, from the first byte to the commit.
pub(crate) struct Resync {
    session: Session,
    full: bool,
    events: Arc<Events>,
    walker: Walker,
    /// What changed while the target was away, unless everything is compared.
    map: ChangeMap,
    /// What only got another name, in order: told before anything is compared.
    moves: VecDeque<moves::Moved>,
    /// Directories that were made there so that something could come into them.
    ways: HashSet<TreePath>,
    dirs: Vec<DirTask>,
    files: VecDeque<FileTask>,
    lacking: VecDeque<Lacking>,
    again: Again,
    /// Everything must be walked once more.
    rewalk: bool,
    /// How often an entry was repaired while it stayed what it is here.
    repairs: HashMap<Place, (Version, u32)>,
    links: Links,
    /// Files with several names whose names were all looked for.
    sought: HashSet<FileKey>,
    /// Files whose content is equal at the position reached, and stays so because the stream says what changes.
    verified: HashSet<FileKey>,
    /// Files of which the target may have missed a change: not verified before all their names were compared since.
    /// Each with its number.
    doubtful: HashMap<FileKey, u64>,
    /// How many there were.
    doubts: u64,
    /// Everything was compared: what moves now takes equal content along.
    settled: bool,
    plan: Plan<Check, Found>,
    applied: Lsn,
    meter: Meter,
    estimate: Option<Estimate>,
    begun: Instant,
    reported: Instant,
    buffer: Vec<u8>,
}

/// Why a resync ended early.
enum Stop {
    /// The link is gone (and reported).
    Gone,
    /// It cannot go on, for this reason.
    Failed(String),
}

/// What cannot be read is not skipped: a copy without it would pass for equal.
fn unreadable(e: Errno) -> Stop {
    Stop::Failed(format!("cannot read this copy: {e}"))
}

/// An entry of another device than its directory: what somebody mounted there is not ours to copy (`false`). Without a mount the file
/// system itself shows several devices as one; skipped, what is there would be missing in a copy that passes for equal.
fn is_ours(path: &TreePath, dir: &walker::Held, name: &[u8], device: u64) -> Result<bool, Stop> {
    if device == dir.key.dev {
        return Ok(true);
    }
    match crate::sys::is_mount(&dir.fd, name) {
        Ok(true) => Ok(false),
        Err(e) if crate::sys::is_absent(e) => Ok(false),
        Err(e) => Err(unreadable(e)),
        Ok(false) => Err(Stop::Failed(format!(
            "{} is of another device than the directory it is in, and nothing is mounted there (an overlay, a subvolume): \
             it cannot be copied; move it, or replicate a directory of one plain file system",
            String::from_utf8_lossy(&path.relative(name))
        ))),
    }
}

/// `None`: it is not there (any more), and whoever took it told so.
fn present<T>(result: Result<T, Errno>) -> Result<Option<T>, Stop> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(e) if crate::sys::is_absent(e) => Ok(None),
        Err(e) => Err(unreadable(e)),
    }
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl Resync {
    pub fn new(leader: Arc<Leader>, generation: u64, session: Session, full: bool, events: Arc<Events>) -> Self {
        let map = leader.map().map().clone();
        let full = full || map.is_everything();
        let total = if full { 0 } else { map.count() * model::limits::ZONE_BYTES };
        let estimate = full.then(|| Estimate::start(leader.roots().clone()));
        let now = Instant::now();
        Self {
            session,
            full,
            events,
            map,
            moves: VecDeque::new(),
            ways: HashSet::new(),
            dirs: Vec::new(),
            files: VecDeque::new(),
            lacking: VecDeque::new(),
            again: Again::default(),
            rewalk: false,
            repairs: HashMap::new(),
            links: Links::default(),
            sought: HashSet::new(),
            verified: HashSet::new(),
            doubtful: HashMap::new(),
            doubts: 0,
            settled: false,
            plan: Plan::default(),
            applied: Lsn(0),
            meter: Meter::new(0, total),
            estimate,
            begun: now,
            reported: now,
            buffer: Vec::new(),
            walker: Walker::new(leader, generation),
        }
    }

    pub fn run(mut self) {
        let outcome = self.work();
        self.events.pace(false);
        if let Some(estimate) = &self.estimate {
            estimate.stop();
        }
        match outcome {
            Ok(()) | Err(Stop::Gone) => {}
            Err(Stop::Failed(reason)) => {
                let generation = self.walker.generation;
                self.walker.leader.lost(generation, |session| Report::LinkLost { session, reason });
            }
        }
    }

    fn work(&mut self) -> Result<(), Stop> {
        self.seed()?;
        loop {
            self.look()?;
            self.report_progress();
            let pause = self.meter.pause_ms(self.now_ms(), self.walker.leader.configuration().resync_bytes_per_s);
            if pause > 0 {
                std::thread::sleep(Duration::from_millis(pause.min(100)));
                continue;
            }
            self.walker.leader.wait_for_half(self.walker.generation)?;
            if !self.plan.has_room() {
                self.wait_for_answers();
            } else if let Some(moved) = self.moves.pop_front() {
                self.tell_move(moved)?;
            } else if let Some(task) = self.files.pop_front() {
                self.file(task)?;
            } else if let Some((dir, name)) = self.again.pop() {
                self.check_entry(&dir, &name)?;
            } else if !self.lacking.is_empty() {
                self.supply()?;
            } else if let Some(task) = self.dirs.pop() {
                self.directory(task)?;
            } else if !self.plan.is_through() {
                self.wait_for_answers();
            } else if std::mem::take(&mut self.rewalk) {
                self.walk_everything();
            } else if self.seek_names()? || self.seek_doubtful()? || self.links_once_more() {
                // There is something to do again.
            } else {
                // What the application moves this moment is told of when it is made.
                self.walker.with_order(|_| ())?;
                self.look()?;
                if self.has_work() {
                    continue;
                }
                self.settled = true;
                if self.finish()? {
                    return Ok(());
                }
            }
        }
    }

    /// While a file was several files there, changes by one name did not reach the others. Every name has
    /// been seen and belongs to one file by now: compare them all. `false`: that is done.
    fn links_once_more(&mut self) -> bool {
        let mut open = Vec::new();
        for (key, link) in self.links.iter_mut().filter(|(_, link)| !link.done) {
            link.done = true;
            if !link.names.is_empty() {
                open.push(*key);
            }
            link.names.drain().for_each(|place| self.again.push(place));
        }
        for key in &open {
            self.verified.remove(key);
            self.mark_whole(*key);
        }
        !open.is_empty()
    }

    /// A name was found to belong to another file there.
    fn link_is_open(&mut self, key: FileKey) {
        self.verified.remove(&key);
        if let Some(link) = self.links.get_mut(key)
            && std::mem::take(&mut link.done)
        {
            // What names it was seen under is not known any more.
            self.doubt(key);
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn walk_everything(&mut self) {
        for root in (0..self.walker.leader.roots().len()).rev() {
            let path = TreePath::root(root);
            self.dirs.push(DirTask { path, fresh: false, below: Below::Entries });
        }
    }

    /// Takes in answers until another check may be sent.
    fn make_room(&mut self) -> Result<(), Stop> {
        loop {
            self.look()?;
            self.report_progress();
            if self.plan.has_room() {
                return Ok(());
            }
            self.wait_for_answers();
        }
    }

    fn wait_for_answers(&self) {
        let applied = self.applied;
        self.events.wait(Duration::from_millis(100), |news| news.applied > applied);
    }

    /// Takes in what happened and acts on it.
    fn look(&mut self) -> Result<News, Stop> {
        let mut news = self.events.take();
        if news.aborted {
            return Err(Stop::Gone);
        }
        self.applied = news.applied;
        if std::mem::take(&mut news.overflow) {
            self.settled = false;
            self.compare_everything_again();
            // Among what was forgotten may be that ids mean nothing there.
            self.walker.with_order(|w| {
                w.leader.bind_anew();
                w.bind_anew();
            })?;
        }
        self.verified.extend(news.created.drain(..));
        for (dir, name) in news.moved.drain(..) {
            if !self.settled && self.must_look(&dir, &name) {
                self.again.push((dir, name));
            }
        }
        if news.found.iter().any(|f| f.what == Difference::Absent) {
            // A change that was not made there (a rename) leaves ids with another file than here: bind all anew.
            // What was written to the wrong one before is found by the comparison that follows.
            self.walker.with_order(|w| {
                w.leader.bind_anew();
                w.bind_anew();
            })?;
        }
        for found in news.found.drain(..) {
            if found.what == Difference::Absent {
                // What it was asked there was not looked at.
                self.plan.forget(found.lsn);
                self.absent(found)?;
            } else {
                let lsn = found.lsn;
                if !self.plan.found(lsn, found) {
                    return Err(Stop::Failed(format!(
                        "the target found something at {}, where nothing was asked",
                        lsn.0
                    )));
                }
            }
        }
        while let Some((check, found)) = self.plan.answered(self.applied) {
            match check {
                Check::Entries(asked) => self.entries_answered(asked, found)?,
                Check::Span(span) => self.span_answered(&span, &found)?,
            }
        }
        self.events.pace(self.is_behind());
        Ok(news)
    }

    fn own_entry(&self, dir: &TreePath, name: &[u8]) -> Option<rustix::fs::Stat> {
        let fd = dir.open(self.walker.leader.roots()).ok()?;
        crate::sys::stat_entry(&fd, name).ok()?
    }

    /// Something has a new name: must it be compared there? A file with one name whose content is verified
    /// took it along, on both sides; what is gone already is told of by whoever took it.
    fn must_look(&self, dir: &TreePath, name: &[u8]) -> bool {
        match self.own_entry(dir, name) {
            None => false,
            Some(st) if crate::sys::kind(&st) == crate::sys::S_IFREG && st.st_nlink == 1 => {
                !self.verified.contains(&FileKey { dev: st.st_dev, ino: st.st_ino })
            }
            Some(_) => true,
        }
    }

    fn set_verified(&mut self, key: FileKey) {
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        if self.links.get(key).is_none_or(|link| link.done) && !self.doubtful.contains_key(&key) {
            self.verified.insert(key);
        }
    }

    /// An entry that was compared again is repaired. An application may change it as often as it likes; what
    /// stays as it is here and keeps differing there cannot be repaired.
    fn count_repair(&mut self, dir: &TreePath, name: &[u8]) -> Result<(), Stop> {
        let Some(st) = self.own_entry(dir, name) else { return Ok(()) };
        let version = (FileKey { dev: st.st_dev, ino: st.st_ino }, st.st_ctime, st.st_ctime_nsec as i64);
        if self.repairs.len() >= COUNTED_MAX {
            self.repairs.clear();
        }
        let counted = self.repairs.entry((dir.clone(), name.to_vec())).or_insert((version, 0));
        if counted.0 != version {
            *counted = (version, 0);
        }
        counted.1 += 1;
        if counted.1 > REPAIRS_MAX {
            let name = String::from_utf8_lossy(name);
            return Err(Stop::Failed(format!(
                "'{name}' in {dir} keeps differing on the target after {REPAIRS_MAX} repairs"
            )));
        }
        Ok(())
    }

    fn is_ignored(&self, dir: &TreePath, name: &[u8]) -> bool {
        is_ignored(&self.walker.leader, dir, name)
    }

    fn report_progress(&mut self) {
        if self.reported.elapsed() >= Duration::from_secs(1) {
            self.reported = Instant::now();
            if let Some(estimate) = &self.estimate {
                self.meter.set_total(estimate.bytes());
            }
            let progress = self.meter.progress(self.now_ms());
            self.walker.leader.report(Report::Progress { session: self.session, progress });
        }
    }

    /// Everything seems through: make it durable, stop answers, look again, commit. `false`: there is more.
    fn finish(&mut self) -> Result<bool, Stop> {
        let leader = self.walker.leader.clone();
        let generation = self.walker.generation;
        // While the application still goes on, so that the syncs of the commit are short.
        let asked = self.walker.emit(&Message::Sync { id: EVERYTHING, data_only: false })?;
        crate::sys::sync_all(leader.roots()).map_err(|e| Stop::Failed(format!("cannot sync this copy: {e}")))?;
        while !self.events.wait(Duration::from_millis(500), |news| news.synced >= asked) {
            self.report_progress();
        }
        if self.look()?.synced < asked || self.has_work() {
            return Ok(false);
        }
        let events = self.events.clone();
        let begun = self.walker.with_order(|walker| {
            if events.is_work() { Ok(None) } else { walker.leader.begin_commit(generation).map(Some) }
        })??;
        let Some(last) = begun else { return Ok(false) };
        while !self.events.wait(Duration::from_millis(500), |news| news.applied >= last) {}
        let news = self.look()?;
        if news.applied < last || self.has_work() {
            leader.withdraw_commit(generation)?;
            return Ok(false);
        }
        leader.report(Report::ResyncThrough { session: self.session });
        self.await_fact(COMMIT_ORDER, "the agent did not order the commit", |news| news.commit_ordered)?;
        leader.commit_goes(generation)?;
        self.walker.emit(&Message::Commit)?;
        self.await_fact(COMMIT, "the target did not confirm the commit", |news| news.committed)?;
        leader.commit_done(generation)?;
        let progress = Progress { eta_ms: None, ..self.meter.progress(self.now_ms()) };
        leader.report(Report::Committed { session: self.session, progress });
        Ok(true)
    }

    /// Must the application's renames and links wait? While everything is walked, only a long queue is a reason;
    /// after that, every entry that is still to be compared, or there would be no end.
    fn is_behind(&self) -> bool {
        let waiting = self.again.len();
        if self.dirs.is_empty() { waiting + self.files.len() + self.lacking.len() > 0 } else { waiting > BEHIND }
    }

    fn has_work(&self) -> bool {
        self.rewalk
            || !(self.doubtful.is_empty() && self.moves.is_empty())
            || !(self.dirs.is_empty() && self.files.is_empty() && self.again.is_empty())
            || !(self.lacking.is_empty() && self.plan.is_through())
    }

    /// Waits with answers held; a difference now means that the copies were not equal after all.
    fn await_fact(&mut self, time: Duration, what: &str, fact: impl Fn(&News) -> bool) -> Result<(), Stop> {
        let until = Instant::now() + time;
        loop {
            self.events.wait(Duration::from_millis(500), &fact);
            let news = self.look()?;
            if self.has_work() {
                return Err(Stop::Failed("the target still differs during the commit".into()));
            }
            if fact(&news) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Stop::Failed(format!("{what} within {} s", time.as_secs())));
            }
        }
    }
}

/// Does this entry stay local to each node?
fn is_ignored(leader: &Leader, dir: &TreePath, name: &[u8]) -> bool {
    let scope = leader.scope(dir);
    !scope.hides_nothing() && scope.child(name).is_local()
}
