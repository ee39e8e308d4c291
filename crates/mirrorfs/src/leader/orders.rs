//! What the agent orders from the sending half. Each names a wanted situation and may be repeated (I5).

use super::{Gone, Inner, Leader, Live, Mode, lock, patch};
use crate::link::{Dialled, LinkError, dial};
use crate::outlet::Completion;
use crate::resync::{Events, Resync, Verify};
use crate::sys;
use model::ids::Epoch;
use model::orders::{Begin, Report, Session, Situation, VerifyProgress};
use replica::hot::Hot;
use replica::map::Record;
use replica::wire::{Direction, Envelope, FEATURE_VERIFY, Hello, TELLS_HOT, VERSION, VERSION_MIN, fingerprint};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Instant;

impl Leader {
    /// No answer leaves from here on; the link is closed. What is in flight stays, to be resumed or answered
    /// by [`Self::serve_alone`].
    pub fn hold(&self) {
        let mut inner = lock(&self.inner);
        if inner.mode == Mode::Target {
            inner.window.reset().for_each(drop);
        }
        self.unlink(&mut inner);
        inner.mode = Mode::Held;
    }

    /// The process before this one served under this epoch, and held its mounts until this one took them.
    pub fn served_before(&self, epoch: Option<Epoch>) {
        lock(&self.inner).epoch = epoch;
    }

    /// Open under an epoch the agent has stored; changes are recorded. What waited is put into the map,
    /// durably, before it is answered.
    ///
    /// # Errors
    /// The map could not be written: nothing was answered, the situation is unchanged (but the link is closed).
    pub fn serve_alone(&self, epoch: Epoch, fresh_map: bool) -> std::io::Result<()> {
        let mut inner = lock(&self.inner);
        if matches!(inner.mode, Mode::Alone | Mode::Target) && inner.epoch == Some(epoch) {
            return Ok(());
        }
        self.unlink(&mut inner);
        if inner.mode != Mode::Closed {
            inner.mode = Mode::Held;
        }
        let waiting = std::mem::take(&mut inner.touches);
        let hot = lock(&self.log).records();
        self.map().begin(fresh_map, waiting.into_iter().chain(in_flight(&inner)).chain(hot))?;
        self.tell_map_note();
        // What was hot is in the map, durably (R4); from here on the map is told.
        lock(&self.log).reset()?;
        inner.mode = Mode::Alone;
        inner.epoch = Some(epoch);
        inner.peer = None;
        inner.made.clear();
        inner.hots.clear();
        let done = everything(&mut inner);
        drop(inner);
        self.room.notify_all();
        done.into_iter().for_each(|done| done.run(Ok(())));
        Ok(())
    }

    /// Connects to the follower; what comes of it is reported.
    pub fn lead(self: &Arc<Self>, session: Session, begin: Begin) {
        let generation = {
            let mut inner = lock(&self.inner);
            if inner.session == Some(session) && (inner.live.is_some() || inner.mode == Mode::Mirrored) {
                return;
            }
            let fits = match begin {
                Begin::Resume => inner.mode == Mode::Held,
                Begin::Resync { .. } => matches!(inner.mode, Mode::Alone | Mode::Target),
            };
            if !fits {
                let mode = inner.mode;
                drop(inner);
                let reason = format!("{begin:?} is not possible while the data plane is {mode:?}");
                return self.report(Report::Refused { order: "lead".into(), reason });
            }
            if inner.mode == Mode::Target {
                inner.window.reset().for_each(drop);
                inner.mode = Mode::Alone;
            }
            self.unlink(&mut inner);
            inner.session = Some(session);
            inner.generation
        };
        let leader = self.clone();
        let connect = move || leader.connect(generation, session, begin);
        if let Err(e) = std::thread::Builder::new().name("lead".into()).spawn(connect) {
            self.report(Report::LinkLost { session, reason: format!("no thread: {e}") });
        }
    }

    fn connect(self: Arc<Self>, generation: u64, session: Session, begin: Begin) {
        let outcome = self.try_connect(generation, session, begin);
        match outcome {
            Ok(()) => {}
            Err(Refusal::CannotResume) => self.report(Report::CannotResume { session }),
            Err(Refusal::Superseded) => {}
            Err(Refusal::Link(e)) => self.report(Report::LinkLost { session, reason: e.to_string() }),
        }
    }

    fn try_connect(self: &Arc<Self>, generation: u64, session: Session, begin: Begin) -> Result<(), Refusal> {
        let configuration = &self.configuration;
        let hello = Hello {
            versions: (VERSION_MIN, VERSION),
            features: FEATURE_VERIFY,
            epoch: session.epoch,
            session: session.number,
            direction: Direction::Changes,
            resume: begin == Begin::Resume,
            instance: self.instance,
            pair: sys::random(),
            module: configuration.module.as_str().as_bytes(),
        };
        let go_on = || lock(&self.inner).generation == generation;
        let dialled = dial(&self.identity.there(), &self.identity, &hello, &go_on)?;
        let live = Live { closers: vec![dialled.changes.closer()?, dialled.answers.closer()?] };
        let envelope = Envelope { session: session.number, epoch: fingerprint(session.epoch), lsn: 0 };
        let mut inner = lock(&self.inner);
        if inner.generation != generation {
            return Err(Refusal::Superseded);
        }
        let mut over = Vec::new();
        let resync = match begin {
            Begin::Resume => {
                over = self.resume(&mut inner, &dialled, envelope)?;
                inner.mode = Mode::Mirrored;
                None
            }
            Begin::Resync { full, .. } => {
                inner.window.reset().for_each(drop);
                inner.known.clear();
                inner.mode = Mode::Target;
                let events = Arc::new(Events::default());
                inner.events = Some(events.clone());
                inner.peer = Some(dialled.instance);
                // One that cannot say what a crash left different there.
                let full = full || dialled.features & TELLS_HOT == 0;
                Some(Resync::new(self.clone(), generation, session, full, events))
            }
        };
        inner.envelope = envelope;
        inner.features = dialled.features;
        inner.live = Some(live);
        inner.frames = 0;
        inner.bytes = 0;
        inner.progress_at = Instant::now();
        if begin == Begin::Resume {
            for wanted in std::mem::take(&mut inner.parked) {
                over.extend(self.ask(&mut inner, wanted));
            }
            let barriers = std::mem::take(&mut inner.barriers);
            for (_, barrier) in barriers {
                over.extend(self.ask(&mut inner, barrier.wanted));
            }
        }
        drop(inner);
        over.into_iter().for_each(|done| done.run(Ok(())));
        self.report(Report::LinkUp { session });
        if begin == Begin::Resume {
            self.report(Report::Reached { situation: Situation::Mirrored { session } });
        }
        self.start_threads(generation, session, dialled, resync)?;
        Ok(())
    }

    /// The window goes on where the follower is; gives back whose wait that ends.
    fn resume(&self, inner: &mut Inner, dialled: &Dialled, envelope: Envelope) -> Result<Vec<Completion>, Refusal> {
        let same = dialled.followed == self.instance && inner.peer == Some(dialled.instance);
        if !same || inner.mode != Mode::Held {
            return Err(Refusal::CannotResume);
        }
        let over: Vec<_> = inner.window.resume(dialled.applied).map_err(|_| Refusal::CannotResume)?.collect();
        let mut done: Vec<_> = std::mem::take(&mut inner.through).into_iter().map(|(_, done)| done).collect();
        done.extend(over.into_iter().filter_map(|change| change.done));
        let first = inner.window.acknowledged().0 + 1;
        for (lsn, change) in (first..).zip(inner.window.iter_mut()) {
            patch(Arc::<Vec<u8>>::make_mut(&mut change.frame).as_mut_slice(), &Envelope { lsn, ..envelope });
        }
        while inner.after.front().is_some_and(|(lsn, _)| *lsn <= inner.window.acknowledged()) {
            done.extend(inner.after.pop_front().map(|(_, done)| done));
        }
        Ok(done)
    }

    /// Resync is through and role=primary is stored (R7): from here on never back to alone (R6).
    pub fn send_commit(&self, session: Session) {
        let inner = lock(&self.inner);
        if inner.session == Some(session)
            && let Some(events) = &inner.events
        {
            events.send_commit();
        }
    }

    /// Compares the follower with this copy, in a thread of its own; what comes of it is reported.
    ///
    /// # Errors
    /// The sentence why it is not possible now.
    pub fn verify(self: &Arc<Self>, repair: bool, bytes_per_s: u64, scrub: bool) -> Result<(), String> {
        let mut inner = lock(&self.inner);
        if inner.mode != Mode::Mirrored || inner.live.is_none() {
            return Err("there is no complete secondary to compare with now".into());
        }
        if inner.features & FEATURE_VERIFY == 0 {
            return Err("the program on the other node is older and cannot compare: update it".into());
        }
        if inner.events.is_some() {
            return Err("a comparison runs already".into());
        }
        let events = Arc::new(Events::default());
        let said = VerifyProgress { running: true, repair, scrub, ..VerifyProgress::default() };
        let verify = Verify::new(self.clone(), inner.generation, events.clone(), said, bytes_per_s);
        std::thread::Builder::new().name("verify".into()).spawn(move || verify.run()).map_err(|e| e.to_string())?;
        inner.events = Some(events);
        Ok(())
    }

    /// With the order lock held: the other copy lacks this, and only a resync can give it. It is hot when this returns, durably,
    /// so that the map will name it, and the session is over before a round could cool it.
    ///
    /// # Errors
    /// The log could not be written: the session goes on.
    pub(crate) fn differs(&self, generation: u64, found: &[Hot], reason: String) -> Result<std::io::Result<()>, Gone> {
        let marked = self.with_session(generation, |inner| {
            lock(&self.log).add(found)?;
            // There is nothing to go on from.
            inner.peer = None;
            Ok(())
        })?;
        if marked.is_ok() {
            self.lost(generation, |session| Report::PeerFault { session, reason });
        }
        Ok(marked)
    }

    /// The comparison of this generation is over.
    pub(crate) fn verified(&self, generation: u64) {
        let mut inner = lock(&self.inner);
        if inner.generation == generation {
            inner.events = None;
        }
    }

    /// Makes this copy durable for a new epoch (R4); then [`Report::Synced`]. What is hot is in its log already, and
    /// goes into the map before anything opens. Works on its own thread.
    pub fn sync(self: &Arc<Self>, ticket: u64) {
        let leader = self.clone();
        let work = move || {
            leader.report(match sys::sync_all(&leader.roots) {
                Ok(()) => Report::Synced { ticket },
                Err(e) => Report::LocalFault { reason: format!("cannot make this copy durable: {e}") },
            });
        };
        if let Err(e) = std::thread::Builder::new().name("sync".into()).spawn(work) {
            self.report(Report::LocalFault { reason: format!("no thread to sync: {e}") });
        }
    }

    /// Fenced: whatever waits gets EIO, whatever comes too.
    pub fn fence(&self) {
        let mut inner = lock(&self.inner);
        let was = std::mem::replace(&mut inner.mode, Mode::Closed);
        self.unlink(&mut inner);
        let done = everything(&mut inner);
        inner.touches.clear();
        inner.made.clear();
        inner.hots.clear();
        self.disk.forget();
        drop(inner);
        self.room.notify_all();
        done.into_iter().for_each(|done| done.run(Err(Errno::IO)));
        if matches!(was, Mode::Alone | Mode::Target)
            && let Err(e) = self.map().end()
        {
            self.report(Report::LocalFault { reason: format!("cannot end the change map: {e}") });
        }
    }

    /// Closes the link, if any; threads of its generation find out.
    pub(super) fn unlink(&self, inner: &mut Inner) {
        inner.generation += 1;
        inner.sending = super::sender::Sending::default();
        if let Some(live) = inner.live.take() {
            live.closers.iter().for_each(crate::link::Closer::close);
        }
        if let Some(events) = inner.events.take() {
            events.abort();
        }
        inner.round = None;
        inner.rounds_off = false;
        self.work.notify_all();
        self.room.notify_all();
        self.rounds.notify_all();
    }

    /// The link that mirrors ends, if there is one, as if it were lost.
    pub fn end_link(&self, reason: &str) -> bool {
        let generation = {
            let inner = lock(&self.inner);
            if inner.mode != Mode::Mirrored || inner.live.is_none() {
                return false;
            }
            inner.generation
        };
        self.lost(generation, |session| Report::LinkLost { session, reason: reason.into() });
        true
    }

    /// The link of this generation failed.
    pub(crate) fn lost(&self, generation: u64, report: impl FnOnce(Session) -> Report) {
        let mut inner = lock(&self.inner);
        if inner.generation != generation {
            return;
        }
        let Some(session) = inner.session else { return };
        self.unlink(&mut inner);
        let mut done = Vec::new();
        match inner.mode {
            Mode::Mirrored | Mode::Committing { sent: true } => inner.mode = Mode::Held,
            Mode::Target => {
                inner.window.reset().for_each(drop);
                inner.known.clear();
                inner.mode = Mode::Alone;
            }
            // Nothing was promised to the peer: what waited for it is recorded like everything else.
            Mode::Committing { sent: false } => {
                let mut records = std::mem::take(&mut inner.touches);
                records.extend(in_flight(&inner));
                let marked = self.map().touch(records);
                self.tell_map_note();
                match marked {
                    Ok(()) => {
                        inner.mode = Mode::Alone;
                        inner.made.clear();
                        inner.known.clear();
                        done = everything(&mut inner);
                    }
                    // Not even the map can be written: hold, and let a person look.
                    Err(e) => {
                        inner.mode = Mode::Held;
                        self.report(Report::LocalFault { reason: format!("cannot write the change map: {e}") });
                    }
                }
            }
            Mode::Closed | Mode::Held | Mode::Alone => {}
        }
        drop(inner);
        self.room.notify_all();
        self.report(report(session));
        done.into_iter().for_each(|done| done.run(Ok(())));
    }

    /// Under the order lock: no answer leaves from here until the commit is through.
    pub(crate) fn begin_commit(&self, generation: u64) -> Result<model::ids::Lsn, Gone> {
        self.with_session(generation, |inner| {
            inner.mode = Mode::Committing { sent: false };
            // What the map covered, the activity log does not.
            inner.made.clear();
            inner.window.last()
        })
    }

    /// There was something left after all: answer what waited (its zones are recorded first) and go on.
    pub(crate) fn withdraw_commit(&self, generation: u64) -> Result<(), Gone> {
        let mut inner = lock(&self.inner);
        if inner.generation != generation || inner.mode != (Mode::Committing { sent: false }) {
            return Err(Gone);
        }
        let mut records = std::mem::take(&mut inner.touches);
        records.extend(in_flight(&inner));
        if self.map().touch(records).is_err() {
            return Err(Gone);
        }
        inner.mode = Mode::Target;
        inner.made.clear();
        let mut done: Vec<_> = std::mem::take(&mut inner.through).into_iter().map(|(_, done)| done).collect();
        done.extend(inner.window.iter_mut().filter_map(|change| change.done.take()));
        done.extend(std::mem::take(&mut inner.parked).into_iter().map(|wanted| wanted.done));
        drop(inner);
        done.into_iter().for_each(|done| done.run(Ok(())));
        Ok(())
    }

    /// COMMIT goes out (R6).
    pub(crate) fn commit_goes(&self, generation: u64) -> Result<(), Gone> {
        self.with_session(generation, |inner| inner.mode = Mode::Committing { sent: true })
    }

    /// COMMITTED came: own copy durable (R8), then the map is emptied, then answers leave again.
    pub(crate) fn commit_done(&self, generation: u64) -> Result<(), Gone> {
        let outcome = sys::sync_all(&self.roots).map_err(std::io::Error::from).and_then(|()| self.map().clear());
        if let Err(e) = outcome {
            // The peer is complete all the same; the map says too much, never too little.
            self.report(Report::LocalFault { reason: format!("after the commit: {e}") });
        }
        let mut inner = lock(&self.inner);
        if inner.generation != generation {
            return Err(Gone);
        }
        inner.mode = Mode::Mirrored;
        inner.made.clear();
        inner.events = None;
        let mut done: Vec<_> = std::mem::take(&mut inner.through).into_iter().map(|(_, done)| done).collect();
        for wanted in std::mem::take(&mut inner.parked) {
            done.extend(self.ask(&mut inner, wanted));
        }
        inner.progress_at = Instant::now();
        drop(inner);
        done.into_iter().for_each(|done| done.run(Ok(())));
        Ok(())
    }
}

/// Why there is no session.
enum Refusal {
    CannotResume,
    Superseded,
    Link(LinkError),
}

impl<E: Into<LinkError>> From<E> for Refusal {
    fn from(e: E) -> Self {
        Self::Link(e.into())
    }
}

/// The zones of everything that is not answered yet.
fn in_flight(inner: &Inner) -> impl Iterator<Item = Record> + '_ {
    let through = inner.through.iter().flat_map(|(touches, _)| touches.iter().copied());
    through.chain(inner.window.iter().flat_map(|change| change.touches.iter().copied()))
}

/// Everybody who waits, in order; the window is empty afterwards.
fn everything(inner: &mut Inner) -> Vec<Completion> {
    let mut done: Vec<_> = std::mem::take(&mut inner.through).into_iter().map(|(_, done)| done).collect();
    done.extend(inner.window.reset().filter_map(|change| change.done));
    done.extend(std::mem::take(&mut inner.after).into_iter().map(|(_, done)| done));
    done.extend(std::mem::take(&mut inner.barriers).into_values().map(|b| b.wanted.done));
    done.extend(std::mem::take(&mut inner.parked).into_iter().map(|wanted| wanted.done));
    done
}
