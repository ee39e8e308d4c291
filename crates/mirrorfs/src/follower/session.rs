//! The threads of one session: one reads and applies, one says "I am here", a few sync.

use super::about::{describe, place, places, suspects};
use super::protected::unprotect;
use super::trouble::Trouble;
use super::{Copy, Running, clear_maps, lock, lost};
use crate::behind::Behind;
use crate::hot::DiskLog;
use crate::link::{Channel, FrameReader, FrameWriter, Frames, LinkError, Listener, accept_pair, beat};
use crate::sys;
use crate::tree::{Reports, Roots};
use model::ids::Lsn;
use model::orders::Report;
use replica::op::{FileId, Op};
use replica::wire::{Difference, EVERYTHING, Envelope, HotPart, Kind, Message, PAYLOAD_MAX, ROUND, fingerprint};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Threads that sync: concurrent ones share one commit of the file system's journal.
const SYNC_THREADS: usize = 4;
/// Syncs waiting; more stop the stream for a moment.
const SYNCS_MAX: usize = 256;
/// A disk that syncs this quickly is not worth another thread.
const QUICK_SYNC_MICROS: u64 = 50;
/// Acknowledge at the latest after this many changes, even if more are here already.
const ACK_EVERY: u64 = 32;
/// Or after so many bytes: a disk that takes them slowly is not one that takes nothing.
const ACK_BYTES: u64 = 1 << 20;
/// How often the leader hears how much room is left here.
const SPACE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Work {
    pub running: Arc<Running>,
    pub copy: Arc<Mutex<Option<Copy>>>,
    pub roots: Roots,
    pub reports: Reports,
    pub state_dir: PathBuf,
    /// After so much of it a connection is lost.
    pub silence: Duration,
    pub log: Arc<Mutex<DiskLog>>,
    /// Over before it is told what is hot.
    pub behind: Option<Arc<Behind>>,
    /// A resync of changes begins with what is hot here.
    pub tells_hot: bool,
}

/// The way back to the leader, shared by all threads of the session.
struct Answers {
    writer: Mutex<FrameWriter>,
    envelope: Envelope,
    broken: AtomicBool,
    /// It is over: whoever sleeps in between is woken.
    over: Mutex<bool>,
    ends: Condvar,
    /// What a sync takes lately, in microseconds.
    sync_micros: AtomicU64,
}

impl Answers {
    fn send(&self, message: &Message<'_>) -> Result<(), LinkError> {
        let outcome = lock(&self.writer).send(message, &self.envelope);
        if outcome.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        outcome
    }

    /// Nothing is answered any more.
    fn end(&self) {
        self.broken.store(true, Ordering::Release);
        *lock(&self.over) = true;
        self.ends.notify_all();
    }

    /// Waits so long, or until the end.
    fn pause(&self, time: Duration) {
        drop(self.ends.wait_timeout_while(lock(&self.over), time, |over| !*over));
    }

    /// Two in one record.
    fn send_both(&self, one: &Message<'_>, other: &Message<'_>) -> Result<(), LinkError> {
        lock(&self.writer).gather(one, &self.envelope);
        self.send(other)
    }

    /// Syncs, and remembers how long it took.
    fn timed(&self, sync: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let begin = Instant::now();
        let outcome = sync();
        let took = begin.elapsed().as_micros() as u64;
        let lately = self.sync_micros.load(Ordering::Relaxed);
        self.sync_micros.store((7 * lately + took) / 8, Ordering::Relaxed);
        outcome
    }

    fn syncs_are_quick(&self) -> bool {
        self.sync_micros.load(Ordering::Relaxed) < QUICK_SYNC_MICROS
    }
}

enum SyncJob {
    File(OwnedFd, bool, Lsn),
    Everything(Lsn),
}

impl Work {
    pub fn run(self, listener: &Listener) {
        let session = self.running.session;
        let wanted = || !self.running.stop.load(Ordering::Acquire);
        let Some((changes, answers, instance)) = accept_pair(listener, &wanted) else { return };
        tracing::info!(session = session.number, "the leader is connected");
        let reason = match self.follow(changes, answers, instance) {
            Ok(()) => "stopped here".to_owned(),
            Err(e) => e.to_string(),
        };
        self.running.linked.store(false, Ordering::Release);
        // Who ordered the end need not be told.
        if !self.running.stop.swap(true, Ordering::AcqRel) {
            (self.reports)(lost(session, reason));
        }
    }

    fn follow(&self, mut changes: Channel, mut answers: Channel, instance: u64) -> Result<(), LinkError> {
        let session = self.running.session;
        changes.set_silence(self.silence)?;
        answers.set_silence(self.silence)?;
        {
            let mut close = lock(&self.running.close);
            close.push(changes.closer()?);
            close.push(answers.closer()?);
        }
        let envelope = Envelope { session: session.number, epoch: fingerprint(session.epoch), lsn: 0 };
        let answers = Arc::new(Answers {
            writer: Mutex::new(FrameWriter::new(answers)),
            envelope,
            broken: AtomicBool::new(false),
            over: Mutex::new(false),
            ends: Condvar::new(),
            sync_micros: AtomicU64::new(QUICK_SYNC_MICROS),
        });
        let mut guard = lock(&self.copy);
        let copy = guard.as_mut().ok_or_else(|| LinkError::Protocol("there is nothing here to resume".into()))?;
        if copy.followed == 0 {
            copy.followed = instance;
        } else if copy.followed != instance {
            return Err(LinkError::Protocol("another process of the leader wants to resume".into()));
        }
        let (syncs, jobs) = sync_channel(SYNCS_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        std::thread::scope(|scope| {
            for _ in 0..SYNC_THREADS {
                let (jobs, answers) = (jobs.clone(), answers.clone());
                scope.spawn(move || self.sync(&jobs, &answers));
            }
            scope.spawn(|| self.pulse(&answers));
            self.running.linked.store(true, Ordering::Release);
            (self.reports)(Report::LinkUp { session });
            copy.hots.session_begins();
            let outcome = self.tell_hot(&answers).and_then(|()| {
                let reader = Box::new(FrameReader::new(changes));
                let frames = if copy.applier.target {
                    Frames::ahead(scope, reader, PAYLOAD_MAX, Kind::Commit)
                } else {
                    Frames::Asked(reader)
                };
                self.stream(frames, copy, &answers, &syncs, envelope)
            });
            if let Err(e) = &outcome {
                tracing::info!(session = session.number, "nothing more comes from the leader: {e}");
            }
            // Ends the other threads of the scope, at once: the leader is on its way back already.
            answers.end();
            drop(syncs);
            lock(&self.running.close).drain(..).for_each(|c| c.close());
            // A resume goes on after what was applied: with its times, or not at all.
            if copy.applier.set_unset().is_err() {
                copy.followed = 0;
            }
            outcome
        })
    }

    fn stream(
        &self,
        mut reader: Frames<'_>,
        copy: &mut Copy,
        answers: &Answers,
        syncs: &SyncSender<SyncJob>,
        envelope: Envelope,
    ) -> Result<(), LinkError> {
        let (mut acknowledged, mut bytes) = (copy.applied, 0);
        // A resumed leader learns at once where we are.
        answers.send(&Message::Applied { lsn: copy.applied })?;
        loop {
            if self.running.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let (header, message) = reader.next(PAYLOAD_MAX)?;
            if (header.session, header.epoch) != (envelope.session, envelope.epoch) {
                return Err(LinkError::Protocol("a frame of another session".into()));
            }
            if header.kind.is_ordered() {
                if header.lsn != copy.applied.0 + 1 {
                    let reason = format!("change {} came after {}", header.lsn, copy.applied.0);
                    return Err(LinkError::Protocol(reason));
                }
                let lsn = Lsn(header.lsn);
                self.running.frames.fetch_add(1, Ordering::Relaxed);
                self.running.bytes.fetch_add(u64::from(header.length), Ordering::Relaxed);
                bytes += u64::from(header.length);
                if !matches!(message, Message::Op(_)) {
                    set_times(copy, lsn, answers)?;
                }
                if let Message::Sync { id, data_only } = message
                    && answers.syncs_are_quick()
                    && let Some(file) = copy.applier.ids.synced_as(id)
                {
                    // With nothing behind it in the stream, nobody waits for this thread meanwhile.
                    if !reader.has_more() {
                        copy.applied = lsn;
                        self.sync_here(file, data_only, lsn, answers)?;
                        acknowledged = lsn;
                        continue;
                    }
                    let file = rustix::io::fcntl_dupfd_cloexec(file, 0).map_err(std::io::Error::from)?;
                    syncs.send(SyncJob::File(file, data_only, lsn)).map_err(|_| syncs_ended())?;
                } else if let Err(trouble) = self.take(&message, lsn, copy, answers, syncs)? {
                    let place = place(&message, &copy.applier.ids);
                    let reason = format!("change {} ({}){place} failed: {trouble}", lsn.0, describe(&message));
                    answers.send(&Message::Fault { lsn, reason: reason.as_bytes() })?;
                    return Err(LinkError::Protocol(reason));
                }
                copy.applied = lsn;
                // The copies are equal: from here on every change is waited for.
                if header.kind == Kind::Commit {
                    reader = reader.asked();
                }
            }
            let is_much = copy.applied.0 - acknowledged.0 >= ACK_EVERY || bytes >= ACK_BYTES;
            if copy.applied > acknowledged && (is_much || !reader.has_more()) {
                set_times(copy, copy.applied, answers)?;
                answers.send(&Message::Applied { lsn: copy.applied })?;
                (acknowledged, bytes) = (copy.applied, 0);
            }
        }
    }

    /// One ordered message. The outer error ends the session, the inner one is told to the leader first.
    fn take(
        &self,
        message: &Message<'_>,
        lsn: Lsn,
        copy: &mut Copy,
        answers: &Answers,
        syncs: &SyncSender<SyncJob>,
    ) -> Result<Result<(), Trouble>, LinkError> {
        let mut found = Vec::new();
        let target = copy.applier.target;
        let outcome = match message {
            Message::Op(_) | Message::Restore(_) | Message::Purge { .. } | Message::Xattrs { .. } => {
                change_freely(message, copy)
            }
            Message::Sync { id, data_only } => return self.dispatch((*id, *data_only), lsn, copy, syncs),
            Message::Commit if target => return self.commit(copy, answers),
            Message::CheckEntries { dir, part, entries } => {
                // A new comparison of everything: what an earlier one knew of links is old.
                if !target && part.first && *dir == FileId::root(0) {
                    copy.checker = super::check::Checker::default();
                }
                copy.checker.entries(&copy.applier.ids, *dir, *part, *entries, &mut found)
            }
            Message::CheckBlocks { id, offset, len, last, hashes } => {
                copy.checker.blocks(&copy.applier.ids, *id, (*offset, *len, *last), hashes, &mut found)
            }
            Message::CheckHole { id, offset, len, last } => {
                copy.checker.hole(&copy.applier.ids, *id, (*offset, *len, *last), &mut found)
            }
            other => Err(out_of_place(other)),
        };
        for f in found {
            answers.send(&Message::Difference {
                lsn,
                what: f.what,
                id: f.id,
                offset: f.offset,
                len: f.len,
                name: &f.name,
            })?;
        }
        match outcome {
            Err(trouble) if (target || compares(message)) && trouble.is_difference() => {
                tracing::trace!(lsn = lsn.0, "{}: {trouble}", describe(message));
                for (id, dir, name) in suspects(message, &trouble) {
                    // What was asked and not looked at is told in any case: silence means that it is equal.
                    if copy.applier.ids.set_absent(id) || !name.is_empty() || asks(message) {
                        answers.send(&Message::Difference {
                            lsn,
                            what: Difference::Absent,
                            id,
                            offset: dir.0,
                            len: 0,
                            name,
                        })?;
                    }
                }
                Ok(Ok(()))
            }
            other => Ok(other),
        }
    }

    /// What a crash may have left different here, by the paths it has now.
    fn tell_hot(&self, answers: &Answers) -> Result<(), LinkError> {
        if !self.tells_hot {
            return Ok(());
        }
        while self.behind.as_ref().is_some_and(|behind| !behind.wait(Duration::from_millis(100))) {
            if self.running.stop.load(Ordering::Acquire) || answers.broken.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        let tell = |what, root: usize, (offset, len), path: &[u8]| {
            answers.send(&Message::Hot { what, root: root as u64, offset, len, path })
        };
        let map = crate::map::DiskMap::open(&self.state_dir).0;
        let found = super::hot::paths(&lock(&self.log), map.map(), &self.roots)?;
        match found {
            None => tell(HotPart::Everything, 0, (0, 0), b"")?,
            Some(found) => {
                for item in found {
                    tell(item.what, item.root, item.range, &item.path)?;
                }
            }
        }
        tell(HotPart::End, 0, (0, 0), b"")
    }

    fn dispatch(
        &self,
        (id, data_only): (FileId, bool),
        lsn: Lsn,
        copy: &mut Copy,
        syncs: &SyncSender<SyncJob>,
    ) -> Result<Result<(), Trouble>, LinkError> {
        // Told to the leader, as any change that this disk does not take.
        if id == ROUND
            && let Err(e) = copy.hots.round_begins()
        {
            return Ok(Err(e.into()));
        }
        let job = if id == EVERYTHING || id == ROUND {
            SyncJob::Everything(lsn)
        } else {
            match copy.applier.ids.get(id) {
                Ok((fd, sys::S_IFREG | sys::S_IFDIR)) => match sys::reopen(fd, OFlags::RDONLY) {
                    Ok(fd) => SyncJob::File(fd, data_only, lsn),
                    Err(e) => return Ok(Err(e.into())),
                },
                // Special files have nothing of their own; an id that means nothing here has its name's file
                // systems synced instead.
                Ok(_) | Err(_) => SyncJob::Everything(lsn),
            }
        };
        syncs.send(job).map_err(|_| syncs_ended())?;
        Ok(Ok(()))
    }

    /// In the receiving thread: no other has to be woken, and one record carries both answers.
    fn sync_here(&self, file: BorrowedFd<'_>, data_only: bool, lsn: Lsn, answers: &Answers) -> Result<(), LinkError> {
        match answers.timed(|| sync_file(file, data_only)) {
            Ok(()) => answers.send_both(&Message::Applied { lsn }, &Message::Synced { lsn }),
            Err(e) => {
                let reason = format!("fsync failed: {e}");
                answers.send_both(&Message::Applied { lsn }, &Message::Fault { lsn, reason: reason.as_bytes() })
            }
        }
    }

    fn sync(&self, jobs: &Mutex<Receiver<SyncJob>>, answers: &Answers) {
        loop {
            let job = lock(jobs).recv();
            let (outcome, lsn) = match job {
                Err(_) => return,
                Ok(SyncJob::File(fd, data_only, lsn)) => (answers.timed(|| sync_file(fd.as_fd(), data_only)), lsn),
                Ok(SyncJob::Everything(lsn)) => (sys::sync_all(&self.roots), lsn),
            };
            // A disk that cannot sync cannot be promised anything by: the leader must let us go.
            let sent = match outcome {
                Ok(()) => answers.send(&Message::Synced { lsn }),
                Err(e) => answers.send(&Message::Fault { lsn, reason: format!("fsync failed: {e}").as_bytes() }),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn pulse(&self, answers: &Answers) {
        let mut asked: Option<Instant> = None;
        while !answers.broken.load(Ordering::Acquire) {
            let is_due = asked.is_none_or(|at| at.elapsed() >= SPACE_EVERY);
            if is_due {
                asked = Some(Instant::now());
            }
            let space = if is_due { sys::space(&self.roots) } else { None };
            let message = space.map_or(Message::Heartbeat, |s| Message::Space {
                available_bytes: s.available_bytes,
                free_bytes: s.free_bytes,
                free_inodes: s.free_inodes,
            });
            if answers.send(&message).is_err() {
                return;
            }
            answers.pause(beat(self.silence));
        }
    }

    /// protocol.md, "Order on disk" 5: synced before the agent stores "full", the map cleared after. What this disk does
    /// not take is told to the leader.
    fn commit(&self, copy: &mut Copy, answers: &Answers) -> Result<Result<(), Trouble>, LinkError> {
        let session = self.running.session;
        if let Err(e) = copy.applier.quarantine.sync().and_then(|()| sys::sync_all(&self.roots)) {
            return Ok(Err(e.into()));
        }
        (self.reports)(Report::CommitReceived { session });
        let mut confirmed = lock(&self.running.confirmed);
        while !*confirmed {
            if self.running.stop.load(Ordering::Acquire) || answers.broken.load(Ordering::Acquire) {
                return Err(LinkError::Protocol("the session ended during the commit".into()));
            }
            let pause = beat(self.silence);
            confirmed = self.running.wake.wait_timeout(confirmed, pause).map_or_else(|e| e.into_inner().0, |w| w.0);
        }
        drop(confirmed);
        if let Err(e) = clear_maps(&self.state_dir, &self.log) {
            return Ok(Err(e.into()));
        }
        copy.hots.clear();
        copy.applier.target = false;
        copy.applier.quarantine = super::quarantine::Quarantine::none();
        copy.checker = super::check::Checker::default();
        self.running.complete.store(true, Ordering::Release);
        answers.send(&Message::Committed).map(Ok)
    }
}

/// What was told of times is true before it is answered.
fn set_times(copy: &mut Copy, lsn: Lsn, answers: &Answers) -> Result<(), LinkError> {
    let Err(trouble) = copy.applier.set_unset() else { return Ok(()) };
    let reason = format!("the times of change {} could not be set: {trouble}", lsn.0);
    answers.send(&Message::Fault { lsn, reason: reason.as_bytes() })?;
    Err(LinkError::Protocol(reason))
}

fn sync_file(file: BorrowedFd<'_>, data_only: bool) -> Result<(), Errno> {
    if data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) }
}

fn syncs_ended() -> LinkError {
    LinkError::Protocol("the syncing threads ended".into())
}

/// Ids of a comparison, not of the application's changes.
const fn is_of_the_walk(id: FileId) -> bool {
    id.0 >= 2 * replica::wire::LINKS_FROM
}

const fn asks(message: &Message<'_>) -> bool {
    matches!(message, Message::CheckEntries { .. } | Message::CheckBlocks { .. } | Message::CheckHole { .. })
}

/// Part of a comparison: a complete copy that turns out to differ says so and goes on.
fn compares(message: &Message<'_>) -> bool {
    match message {
        _ if asks(message) => true,
        Message::Op(Op::Bind { id, .. } | Op::Write { id, .. } | Op::SetAttr { id, .. } | Op::Fallocate { id, .. })
        | Message::Xattrs { id, .. } => is_of_the_walk(*id),
        _ => false,
    }
}

/// Makes a change; what protects a target's file from it is taken off first.
fn change_freely(message: &Message<'_>, copy: &mut Copy) -> Result<(), Trouble> {
    match change(message, copy) {
        Err(Trouble::Os(Errno::PERM)) if copy.applier.target && unprotect(places(message, &copy.applier.ids)) => {
            change(message, copy)
        }
        outcome => outcome,
    }
}

fn change(message: &Message<'_>, copy: &mut Copy) -> Result<(), Trouble> {
    let target = copy.applier.target;
    match message {
        Message::Op(op) if target => match copy.applier.apply(op) {
            Err(trouble) if trouble.is_difference() => copy.applier.give_up(op, &trouble).and(Err(trouble)),
            outcome => outcome,
        },
        // In the log before it is made: what a crash takes away is compared.
        Message::Op(op) => {
            let touched = copy.hots.touch(op, &mut copy.applier.ids);
            let outcome = touched.and_then(|()| copy.applier.apply(op));
            outcome.and_then(|()| copy.hots.made(op, &mut copy.applier.ids))
        }
        Message::Restore(Op::Link { id, parent, name, parent_mtime }) if target => {
            let file = copy.checker.linked(id.0, |file| copy.applier.quarantine.has(file));
            file.and_then(|file| copy.applier.relink(&file, *parent, name, *parent_mtime))
        }
        Message::Restore(op @ Op::Rename { .. }) if target => copy.applier.comes_along(op),
        Message::Restore(op) if target => copy.applier.restore(op),
        Message::Purge { parent, name, parent_mtime } => {
            let (parent, name, parent_mtime) = (*parent, *name, *parent_mtime);
            let gone = Op::Unlink { parent, name, parent_mtime };
            let touched = if target { Ok(()) } else { copy.hots.touch(&gone, &mut copy.applier.ids) };
            touched.and_then(|()| copy.applier.purge(parent, name, parent_mtime))
        }
        // A replicated directory itself has the same id for everybody.
        Message::Xattrs { id, list } if target || is_of_the_walk(*id) || *id < FileId::FIRST => {
            // Of a complete copy: a crash between two of them is compared.
            let one = Op::RemoveXattr { id: *id, name: b"" };
            let touched = if target { Ok(()) } else { copy.hots.touch(&one, &mut copy.applier.ids) };
            touched.and_then(|()| copy.applier.set_xattrs(*id, *list))
        }
        other => Err(out_of_place(other)),
    }
}

fn out_of_place(message: &Message<'_>) -> Trouble {
    Trouble::fatal(format!("{} has no place here", describe(message)))
}
