//! What the other threads tell the resync: answers of the target, moves of the application, orders.

use super::TreePath;
use super::seeds::Told;
use crate::outlet::{Completion, Part};
use model::ids::Lsn;
use replica::map::FileKey;
use replica::op::FileId;
use replica::wire::{Difference, HotPart};
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More news than this at once: forget them and compare everything again.
const NEWS_MAX: usize = 200_000;
/// An answer to the application waits for the resync this long at most.
const HELD: Duration = Duration::from_millis(100);
/// Answers that wait at once; beyond, they are given.
const HELD_MAX: usize = 1024;
/// Files and names remembered as changed; beyond, they are forgotten.
const TOUCHED_MAX: usize = 200_000;
/// An exchange moves two files; the front may have failed in between, again and again.
const MOVING_MAX: usize = 4;

/// One difference the target reported.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub lsn: Lsn,
    pub what: Difference,
    pub id: FileId,
    pub offset: u64,
    pub len: u64,
    pub name: Vec<u8>,
}

/// Everything that happened since the last look.
#[derive(Default)]
pub(super) struct News {
    pub found: Vec<Found>,
    pub moved: Vec<(TreePath, Vec<u8>)>,
    /// New files: whatever they hold went into the stream, unless the target could not make them.
    pub created: Vec<FileKey>,
    /// What is hot on the target.
    pub told: Vec<Told>,
    /// That was all of it.
    pub told_all: bool,
    /// It cannot say, or it is too much.
    pub told_everything: bool,
    pub applied: Lsn,
    pub synced: Lsn,
    pub committed: bool,
    pub commit_ordered: bool,
    pub aborted: bool,
    /// Too much happened: compare everything again.
    pub overflow: bool,
}

impl News {
    /// Is there anything that must be compared or repaired?
    pub fn is_work(&self) -> bool {
        !self.found.is_empty() || !self.moved.is_empty() || self.overflow
    }
}

/// Written by the listening thread, the submitters and the control socket; read by the resync.
#[derive(Default)]
pub(crate) struct Events {
    news: Mutex<News>,
    changed: Condvar,
    held: Mutex<Held>,
    touched: Mutex<TouchedFiles>,
}

/// Which file an id of the front means, or an entry that something was moved to or from, since the resync began: when the
/// target says that it could not follow, the file may have lost that name already.
#[derive(Default)]
struct TouchedFiles {
    files: HashMap<FileId, FileKey>,
    /// What the change that is being made moves.
    moving: Vec<FileKey>,
    moved: HashMap<(FileId, Vec<u8>), Vec<FileKey>>,
    some_forgotten: bool,
}

/// What is known of an id of the front, or of an entry.
pub(super) enum Touched {
    These(Vec<FileKey>),
    Never,
    /// There were too many.
    Forgotten,
}

/// Answers to renames and links that wait until the resync has caught up with them: an application that moves
/// things faster than they are compared would never let it end.
#[derive(Default)]
struct Held {
    is_behind: bool,
    answers: VecDeque<(Instant, Completion)>,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, f: impl FnOnce(&mut News)) {
        let mut news = self.lock();
        f(&mut news);
        if news.found.len() + news.moved.len() > NEWS_MAX {
            news.found.clear();
            news.moved.clear();
            news.overflow = true;
        }
        self.changed.notify_all();
    }

    pub fn differs(&self, lsn: Lsn, what: Difference, id: FileId, (offset, len): (u64, u64), name: &[u8]) {
        self.change(|n| n.found.push(Found { lsn, what, id, offset, len, name: name.to_vec() }));
    }
    pub fn hot(&self, what: HotPart, root: u64, range: (u64, u64), path: &[u8]) {
        self.change(|n| match what {
            HotPart::End => n.told_all = true,
            _ if what == HotPart::Everything || n.told.len() >= NEWS_MAX => n.told_everything = true,
            _ => n.told.push(Told { what, root, range, path: path.to_vec() }),
        });
    }
    pub fn moved(&self, dir: TreePath, name: Vec<u8>) {
        self.change(|n| n.moved.push((dir, name)));
    }
    pub fn created(&self, key: FileKey) {
        let mut news = self.lock();
        if news.created.len() < NEWS_MAX {
            news.created.push(key);
        }
    }

    fn touched_files(&self) -> MutexGuard<'_, TouchedFiles> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This part of a file is about to change.
    pub fn touch(&self, id: FileId, key: FileKey, part: Part) {
        let mut touched = self.touched_files();
        if touched.files.len() + touched.moved.len() >= TOUCHED_MAX {
            touched.files.clear();
            touched.moved.clear();
            touched.some_forgotten = true;
        }
        touched.files.insert(id, key);
        match part {
            // One change moves two files at most; those before are of changes that failed.
            Part::Moved { .. } if touched.moving.len() < MOVING_MAX => touched.moving.push(key),
            Part::Moved { .. } => {
                touched.moving.remove(0);
                touched.moving.push(key);
            }
            _ => {}
        }
    }

    /// The change was made: what it moved was, or is, under these names.
    pub fn renamed(&self, names: [Option<(FileId, &[u8])>; 2]) {
        let mut touched = self.touched_files();
        let moving = std::mem::take(&mut touched.moving);
        for (dir, name) in names.into_iter().flatten() {
            touched.moved.insert((dir, name.to_vec()), moving.clone());
        }
    }

    /// Which file this id means; for 0, what was moved to or from this entry last.
    pub(super) fn touched(&self, id: FileId, entry: (FileId, &[u8])) -> Touched {
        let touched = self.touched_files();
        let known = if id == FileId(0) {
            touched.moved.get(&(entry.0, entry.1.to_vec())).cloned()
        } else {
            touched.files.get(&id).map(|key| vec![*key])
        };
        match known {
            Some(keys) => Touched::These(keys),
            None if touched.some_forgotten => Touched::Forgotten,
            None => Touched::Never,
        }
    }

    /// The answer to a change that was sent and moved something: now, or when the resync has caught up.
    pub fn answer(&self, done: Completion) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_behind && held.answers.len() < HELD_MAX {
            held.answers.push_back((Instant::now(), done));
        } else {
            drop(held);
            done.run(Ok(()));
        }
    }

    /// Gives the answers that waited: all of them, or, while the resync is behind, those that waited long.
    pub(super) fn pace(&self, is_behind: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_behind = is_behind;
        let keep = |since: &Instant| is_behind && since.elapsed() < HELD;
        let mut due = Vec::new();
        while held.answers.front().is_some_and(|(since, _)| !keep(since)) {
            due.extend(held.answers.pop_front());
        }
        drop(held);
        for (_, done) in due {
            done.run(Ok(()));
        }
    }

    pub fn applied(&self, lsn: Lsn) {
        self.change(|n| n.applied = n.applied.max(lsn));
    }
    pub fn synced(&self, lsn: Lsn) {
        self.change(|n| n.synced = n.synced.max(lsn));
    }
    pub fn committed(&self) {
        self.change(|n| n.committed = true);
    }
    pub fn send_commit(&self) {
        self.change(|n| n.commit_ordered = true);
    }
    pub fn abort(&self) {
        self.change(|n| n.aborted = true);
    }

    /// What the target said is hot; `None`: everything.
    pub(super) fn take_told(&self) -> Option<Vec<Told>> {
        let mut news = self.lock();
        let told = std::mem::take(&mut news.told);
        (news.told_all && !news.told_everything).then_some(told)
    }

    /// Takes what is new; facts (positions, orders) stay.
    pub(super) fn take(&self) -> News {
        let mut news = self.lock();
        News {
            found: std::mem::take(&mut news.found),
            moved: std::mem::take(&mut news.moved),
            created: std::mem::take(&mut news.created),
            overflow: std::mem::take(&mut news.overflow),
            told: Vec::new(),
            ..*news
        }
    }

    /// Waits until `until` says yes (or something must be looked at, or it is aborted). `false`: time is up.
    pub(super) fn wait(&self, time: Duration, until: impl Fn(&News) -> bool) -> bool {
        let news = self.lock();
        let (news, _) = self
            .changed
            .wait_timeout_while(news, time, |n| !(n.aborted || n.is_work() || until(n)))
            .unwrap_or_else(PoisonError::into_inner);
        news.aborted || news.is_work() || until(&news)
    }

    pub(super) fn is_work(&self) -> bool {
        self.lock().is_work()
    }
}
