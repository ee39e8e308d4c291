//! Rounds: both nodes sync, and what was not touched meanwhile cools (protocol.md R4, R5).
//!
//! A round begins with the order of changes standing still, so that whatever was touched before it was also applied
//! here and is before it in the stream. **Invariant:** the next round is sent only when both disks have done what the
//! one before asked; when this disk could not, the log says "everything" and no round is sent any more.

use super::{Gone, Inner, Leader, Mode, lock};
use crate::sys;
use model::limits::{HOT_MAX, HOT_TABLE, ROUND_MS};
use model::orders::Report;
use replica::hot::{Hot, Round};
use replica::map::FileKey;
use replica::op::FileId;
use replica::wire::{Message, ROUND};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// So much of the hot set is room for what comes while a round is under way.
const EARLY: usize = HOT_MAX * 3 / 4;

/// A round under way.
pub(super) struct Pending {
    round: Round,
    /// Its place in the stream.
    lsn: u64,
    pub since: Instant,
    /// The peer's disk has done it.
    synced: bool,
}

impl Leader {
    /// With the order lock held, before a change while the peer is (or was) mirrored: durable when this returns.
    pub(super) fn touch_log(&self, items: &[Hot]) -> std::io::Result<()> {
        let hots = {
            let mut inner = lock(&self.inner);
            // More than any change touches: left over from changes that failed here.
            if inner.hots.len() > 16 {
                inner.hots.clear();
            }
            inner.hots.extend(items);
            inner.hots.clone()
        };
        while !lock(&self.log).touch(&hots, HOT_MAX)? {
            let mut inner = lock(&self.inner);
            if inner.mode != Mode::Mirrored || inner.rounds_off {
                // Nobody to sync with: a little more, then the log cannot tell any more.
                drop(inner);
                let mut log = lock(&self.log);
                return if log.touch(&hots, HOT_TABLE)? { Ok(()) } else { log.lose() };
            }
            self.begin_round(&mut inner);
            inner.starved += 1;
            let pause = Duration::from_millis(100);
            inner = self.room.wait_timeout(inner, pause).map_or_else(|e| e.into_inner().0, |w| w.0);
            inner.starved -= 1;
        }
        if lock(&self.log).log().len() >= EARLY {
            let mut inner = lock(&self.inner);
            if inner.mode == Mode::Mirrored && inner.round.is_none() && !inner.rounds_off {
                self.begin_round(&mut inner);
                drop(inner);
                // Not applied yet: it belongs to what comes after the round.
                lock(&self.log).touch(&hots, HOT_TABLE)?;
            }
        }
        Ok(())
    }

    /// With the order lock held.
    fn begin_round(&self, inner: &mut Inner) {
        if inner.round.is_some() {
            return;
        }
        let round = lock(&self.log).begin_round();
        let frame = Self::frame(inner, &Message::Sync { id: ROUND, data_only: false });
        let lsn = self.push(inner, frame, None, Vec::new()).0;
        inner.round = Some(Pending { round, lsn, since: Instant::now(), synced: false });
        self.rounds.notify_all();
    }

    /// The peer has synced what it was asked for at this position.
    pub(super) fn round_synced(&self, inner: &mut Inner, lsn: u64) {
        if let Some(round) = inner.round.as_mut().filter(|round| round.lsn == lsn) {
            round.synced = true;
            self.rounds.notify_all();
        }
    }

    pub(super) fn start_rounds(self: &Arc<Self>, generation: u64) -> std::io::Result<()> {
        let leader = self.clone();
        let clock = move || while leader.round_is_due(generation).is_ok() {};
        std::thread::Builder::new().name("round-clock".into()).spawn(clock)?;
        let leader = self.clone();
        let work = move || while leader.work_round(generation).is_ok() {};
        std::thread::Builder::new().name("round".into()).spawn(work)?;
        Ok(())
    }

    /// Waits, then begins a round if something is hot.
    fn round_is_due(&self, generation: u64) -> Result<(), Gone> {
        let until = Instant::now() + Duration::from_millis(ROUND_MS);
        let mut inner = lock(&self.inner);
        loop {
            if inner.generation != generation {
                return Err(Gone);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut inner.cool) {
                break;
            }
            inner = self.rounds.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(inner);
        if lock(&self.log).log().is_empty() {
            return Ok(());
        }
        let tree = self.tree().ok_or(Gone)?;
        tree.with_order(&mut || {
            let mut inner = lock(&self.inner);
            if inner.generation == generation && inner.mode == Mode::Mirrored && !inner.rounds_off {
                self.begin_round(&mut inner);
            }
        });
        Ok(())
    }

    /// Waits for a round, syncs this disk, waits for the peer's.
    fn work_round(&self, generation: u64) -> Result<(), Gone> {
        let round = self.await_round(generation, |_| true)?;
        let own = sys::sync_all(&self.roots).inspect_err(|e| self.disk.answered(*e));
        self.await_round(generation, |pending| own.is_err() || pending.synced)?;
        let outcome = {
            let mut log = lock(&self.log);
            match own {
                Ok(()) => log.end_round(round),
                Err(e) => log.lose().and(Err(e.into())),
            }
        };
        let mut inner = lock(&self.inner);
        if inner.generation == generation {
            inner.rounds_off |= outcome.is_err();
            inner.round = None;
        }
        drop(inner);
        self.room.notify_all();
        self.rounds.notify_all();
        if let Err(e) = outcome {
            self.report(Report::LocalFault { reason: format!("cannot sync what is hot: {e}") });
        }
        Ok(())
    }

    fn await_round(&self, generation: u64, until: impl Fn(&Pending) -> bool) -> Result<Round, Gone> {
        let mut inner = lock(&self.inner);
        loop {
            if inner.generation != generation {
                return Err(Gone);
            }
            if let Some(pending) = inner.round.as_ref().filter(|pending| until(pending)) {
                return Ok(pending.round);
            }
            // Woken by every change; the timeout only bounds a missed wake-up.
            inner = self.rounds.wait_timeout(inner, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next round begins now (tests, and an orderly end).
    pub fn cool(&self) {
        lock(&self.inner).cool = true;
        self.rounds.notify_all();
    }

    /// What is hot on this node.
    #[must_use]
    pub fn hot(&self) -> usize {
        lock(&self.log).log().len()
    }
}

/// What the log must say about a change.
pub(super) fn items(key: FileKey, part: crate::outlet::Part, now_ms: u64) -> Hot {
    use crate::outlet::Part;
    match part {
        Part::Data { offset, len } => replica::hot::extents(key, offset, len),
        Part::Attributes => replica::hot::extents(key, 0, 0),
        Part::Entries => Hot::Entries { key, since_ms: now_ms },
        Part::Moved { .. } => Hot::Whole { key },
    }
}

/// Files and directories made since their directory became hot: it covers them, they need no word of their own.
#[derive(Default)]
pub(super) struct Made {
    /// Covering directory, and a time not after the one when it was made.
    files: HashMap<FileId, Cover>,
    /// The two directories whose entries were touched last, and what covers what is made in them.
    entered: [Option<(FileId, FileKey, Cover)>; 2],
}

/// A directory that covers what was made in it (or below a directory made in it) since.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cover {
    pub dir: FileKey,
    pub made_ms: u64,
}

/// More than this are not remembered: their changes are told of one by one.
const MADE_MAX: usize = 100_000;

impl Made {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn forget(&mut self, id: FileId) {
        self.files.remove(&id);
    }

    /// What covers it, if it is new.
    pub fn cover(&self, id: FileId) -> Option<Cover> {
        self.files.get(&id).copied()
    }

    /// The entries of this directory are about to change; `cover`: what covers them, if it is new itself.
    pub fn enter(&mut self, id: FileId, key: FileKey, cover: Option<Cover>, now_ms: u64) {
        let cover = cover.unwrap_or(Cover { dir: key, made_ms: now_ms });
        self.entered = [Some((id, key, cover)), self.entered[0]];
    }

    /// What covers what comes into this directory, if it was entered last.
    pub fn entered(&self, dir: FileKey) -> Option<Cover> {
        self.entered.iter().flatten().find(|(_, key, _)| *key == dir).map(|(_, _, cover)| *cover)
    }

    /// Something was made in a directory that was entered.
    pub fn made(&mut self, id: FileId, parent: FileId) {
        if let Some((_, _, cover)) = self.entered.iter().flatten().find(|(dir, ..)| *dir == parent)
            && self.files.len() < MADE_MAX
        {
            self.files.insert(id, *cover);
        }
    }

    /// It has another place, covered by this.
    pub fn moved(&mut self, id: FileId, cover: Cover) {
        self.files.insert(id, cover);
    }
}
