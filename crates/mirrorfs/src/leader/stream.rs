//! The threads of one session on the leader's side: one sends, one listens.

use super::{Gone, Leader, Mode, lock};
use crate::link::{Dialled, FrameReader, FrameWriter, LinkError, beat};
use crate::outlet::Space;
use crate::resync::Resync;
use model::ids::Lsn;
use model::limits::STALL_MS;
use model::orders::{Report, Session};
use replica::wire::{Message, PAYLOAD_MAX};
use std::sync::Arc;
use std::time::Instant;

/// A disk under load may take longer to sync than a kernel to take a change.
pub(crate) const SYNC_STALL_MS: u64 = 4 * STALL_MS;

/// A target whose disk does not move, while nobody waits for it.
const TARGET_STALL_MS: u64 = 10 * STALL_MS;

/// How a listening thread ends.
enum End {
    Superseded,
    Lost(String),
    Stalled(u64),
    Fault(String),
}

impl From<LinkError> for End {
    fn from(e: LinkError) -> Self {
        Self::Lost(e.to_string())
    }
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Superseded
    }
}

impl Leader {
    pub(super) fn start_threads(
        self: &Arc<Self>,
        generation: u64,
        session: Session,
        dialled: Dialled,
        resync: Option<Resync>,
    ) -> Result<(), LinkError> {
        let Dialled { changes, mut answers, .. } = dialled;
        answers.set_silence(self.configuration.silence())?;
        let spawn =
            |name: &str, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.into()).spawn(work);
        self.send_by(generation, FrameWriter::new(changes));
        let leader = self.clone();
        spawn("link-send", Box::new(move || leader.send_all(generation)))?;
        let leader = self.clone();
        spawn(
            "link-answers",
            Box::new(move || {
                let end = leader.listen(generation, session, FrameReader::new(answers));
                let report = |session| match end {
                    Err(End::Stalled(stalled_ms)) => Report::PeerStalled { session, stalled_ms },
                    Err(End::Fault(reason)) => Report::PeerFault { session, reason },
                    Err(End::Lost(reason)) => Report::LinkLost { session, reason },
                    Err(End::Superseded) | Ok(()) => Report::LinkLost { session, reason: "closed here".into() },
                };
                leader.lost(generation, report);
            }),
        )?;
        self.start_rounds(generation)?;
        if let Some(resync) = resync {
            spawn("resync", Box::new(move || resync.run()))?;
        }
        Ok(())
    }

    fn listen(&self, generation: u64, session: Session, mut reader: FrameReader) -> Result<(), End> {
        let mut looked_at = Instant::now();
        loop {
            let (header, message) = reader.next(PAYLOAD_MAX)?;
            if header.session != session.number {
                return Err(End::Lost("the peer answers another session".into()));
            }
            match message {
                Message::Applied { lsn } => self.applied(generation, lsn)?,
                Message::Synced { lsn } => {
                    let (barrier, events) = self.with_session(generation, |inner| {
                        inner.progress_at = Instant::now();
                        self.round_synced(inner, lsn.0);
                        (inner.barriers.remove(&lsn.0), inner.events.clone())
                    })?;
                    if let Some(events) = events {
                        events.synced(lsn);
                    }
                    if let Some(barrier) = barrier {
                        barrier.wanted.done.run(Ok(()));
                        self.room.notify_all();
                    }
                }
                Message::Difference { lsn, what, id, offset, len, name } => {
                    let events = self.with_session(generation, |inner| {
                        // Before anything that follows from it is sent: the next use binds it again.
                        if what == replica::wire::Difference::Absent {
                            inner.known.remove(id);
                        }
                        inner.events.clone()
                    })?;
                    // A check that was asked before a resume is answered after it: nobody waits for that any more.
                    if let Some(events) = events {
                        events.differs(lsn, what, id, (offset, len), name);
                    }
                }
                Message::Fault { reason, .. } => return Err(End::Fault(String::from_utf8_lossy(reason).into_owned())),
                Message::Committed => {
                    if let Some(events) = self.with_session(generation, |inner| inner.events.clone())? {
                        events.committed();
                    }
                }
                Message::Space { available_bytes, free_bytes, free_inodes } => {
                    let space = Space { available_bytes, free_bytes, free_inodes };
                    self.with_session(generation, |inner| inner.space = Some(space))?;
                }
                Message::Hot { what, root, offset, len, path } => {
                    if let Some(events) = self.with_session(generation, |inner| inner.events.clone())? {
                        events.hot(what, root, (offset, len), path);
                    }
                }
                Message::Heartbeat => {}
                other => return Err(End::Lost(format!("the peer said {other:?}"))),
            }
            // The peer says something at every heartbeat.
            if looked_at.elapsed() >= beat(self.configuration.silence()) {
                self.check_stall(generation)?;
                looked_at = Instant::now();
            }
        }
    }

    fn applied(&self, generation: u64, lsn: Lsn) -> Result<(), End> {
        let mut inner = lock(&self.inner);
        if inner.generation != generation {
            return Err(End::Superseded);
        }
        let before = inner.window.acknowledged();
        let over: Vec<_> = inner.window.acknowledge(lsn).map_err(|e| End::Lost(e.to_string()))?.collect();
        if lsn > before {
            inner.progress_at = Instant::now();
        }
        let mut done = Vec::new();
        let waits = matches!(inner.mode, Mode::Committing { .. });
        for change in over {
            match change.done {
                Some(completion) if waits => inner.through.push((change.touches, completion)),
                Some(completion) => done.push(completion),
                None => {}
            }
        }
        while inner.after.front().is_some_and(|(wanted, _)| *wanted <= lsn) {
            done.extend(inner.after.pop_front().map(|(_, completion)| completion));
        }
        let events = inner.events.clone();
        drop(inner);
        self.room.notify_all();
        if let Some(events) = events {
            events.applied(lsn);
        }
        done.into_iter().for_each(|completion| completion.run(Ok(())));
        Ok(())
    }

    /// A peer that lives but does not acknowledge is let go after a bound.
    fn check_stall(&self, generation: u64) -> Result<(), End> {
        let (stalled_ms, sync_ms, full, mode) = self.with_session(generation, |inner| {
            let elapsed = |since: Instant| since.elapsed().as_millis() as u64;
            let stalled = if inner.window.is_empty() { 0 } else { elapsed(inner.progress_at) };
            // A round counts when a change waits for what it would cool.
            let round = inner.round.as_ref().filter(|_| inner.starved > 0).map(|round| round.since);
            let syncs = inner.barriers.values().map(|b| b.since).chain(round);
            let sync = syncs.map(elapsed).max().unwrap_or(0);
            (stalled, sync, !inner.window.has_room(1 << 20), inner.mode)
        })?;
        match mode {
            Mode::Mirrored if sync_ms >= SYNC_STALL_MS => Err(End::Stalled(sync_ms)),
            _ if stalled_ms < STALL_MS => Ok(()),
            Mode::Mirrored => Err(End::Stalled(stalled_ms)),
            Mode::Target if stalled_ms >= TARGET_STALL_MS => {
                Err(End::Lost(format!("the target has not moved for {stalled_ms} ms")))
            }
            // The application waits for room behind a target that does not move: a resync is not worth that.
            Mode::Target if full => Err(End::Lost(format!("the target has not moved for {stalled_ms} ms"))),
            _ => Ok(()),
        }
    }
}
