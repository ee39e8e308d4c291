//! The receiving half: accepts the one session that was ordered, applies its changes in order, answers.
//!
//! It never decides what its copy is worth: it reports, the agent stores. **Invariant:** a change is
//! acknowledged after the kernel has it (R3) and a sync after the disk has it; the copy is called complete
//! only after the commit, between which and the first byte of a resync nothing here claims anything.

mod about;
mod apply;
mod check;
mod hot;
mod ids;
mod local;
mod protected;
mod quarantine;
mod removal;
mod session;
mod trouble;

use crate::behind::Behind;
use crate::hot::DiskLog;
use crate::link::{Identity, LinkError, Listener};
use crate::map::{Devices, DiskMap};
use crate::sys;
use crate::tree::{Reports, Roots};
use apply::Applier;
use check::Checker;
use model::api::{QUARANTINE_VERSION, QuarantineNote};
use model::ids::{Epoch, Lsn};
use model::orders::{Begin, Configuration, Report, Session};
use quarantine::Quarantine;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What survives the end of a session, so that the next one can resume it.
struct Copy {
    applier: Applier,
    checker: Checker,
    applied: Lsn,
    /// Leader process it came from; 0: nothing to resume.
    followed: u64,
    /// What must be in the activity log before a change.
    hots: hot::Hots,
}

/// One session, as long as it is wanted.
struct Running {
    session: Session,
    stop: AtomicBool,
    /// Set by [`Follower::confirm_commit`].
    confirmed: Mutex<bool>,
    wake: Condvar,
    complete: AtomicBool,
    /// The leader is connected.
    linked: AtomicBool,
    frames: AtomicU64,
    bytes: AtomicU64,
    close: Mutex<Vec<crate::link::Closer>>,
}

/// A copy that follows, or could.
pub struct Follower {
    configuration: Configuration,
    identity: Identity,
    roots: Roots,
    reports: Reports,
    instance: u64,
    log: Arc<Mutex<DiskLog>>,
    /// What was changed while the module was stopped may still be looked for.
    behind: Option<Arc<Behind>>,
    devices: Devices,
    copy: Arc<Mutex<Option<Copy>>>,
    running: Mutex<Option<(Arc<Running>, JoinHandle<()>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts the process (I8); a poisoned lock cannot be met.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    /// Whom it believes.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads the certificates and the activity log; follows nobody yet.
    ///
    /// # Errors
    /// [`LinkError::Identity`].
    pub fn new(configuration: &Configuration, roots: Roots, reports: Reports) -> Result<Self, LinkError> {
        let (log, lost) = DiskLog::open(std::path::Path::new(&configuration.state_dir));
        if let Some(reason) = lost {
            reports(Report::MapLost { reason });
        }
        Self::with_log(configuration, roots, reports, Arc::new(Mutex::new(log)))
    }

    /// The same, with the log that the leader's half of this node uses as well.
    ///
    /// # Errors
    /// [`LinkError::Identity`].
    pub fn with_log(
        configuration: &Configuration,
        roots: Roots,
        reports: Reports,
        log: Arc<Mutex<DiskLog>>,
    ) -> Result<Self, LinkError> {
        sys::raise_file_limit();
        Ok(Self {
            log,
            behind: None,
            devices: Devices::of(&roots)?,
            identity: Identity::load(configuration)?,
            configuration: configuration.clone(),
            roots,
            reports,
            instance: sys::random(),
            copy: Arc::new(Mutex::new(None)),
            running: Mutex::new(None),
        })
    }

    /// The leader is told what differs perhaps when this is over.
    pub(crate) fn waiting_for(mut self, behind: Arc<Behind>) -> Self {
        self.behind = Some(behind);
        self
    }

    /// Ends any other session and listens for this one. What happens comes as reports.
    ///
    /// # Errors
    /// The port could not be bound, or a descriptor was missing.
    pub fn follow(&self, session: Session, begin: Begin) -> Result<(), LinkError> {
        self.follow_from(session, begin, None)
    }

    /// The same; `lost` is the epoch of this copy so far, noted beside what goes to quarantine.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_from(&self, session: Session, begin: Begin, lost: Option<Epoch>) -> Result<(), LinkError> {
        if let Some((running, _)) = &*lock(&self.running)
            && running.session == session
            && !running.stop.load(Ordering::Acquire)
        {
            return Ok(());
        }
        self.stop();
        let resume = begin == Begin::Resume;
        let (followed, applied) = {
            let mut copy = lock(&self.copy);
            if let Begin::Resync { quarantine, full } = begin {
                if full {
                    // Before the first byte: if this resync ends early, only another full one will do.
                    lock(&self.log).lose()?;
                }
                let note = quarantine.then(|| self.note(session, lost));
                *copy = Some(self.target(note)?);
            }
            // What is not complete cannot be resumed: the leader will say so.
            copy.take_if(|c| resume && c.applier.target);
            copy.as_ref().map_or((0, Lsn(0)), |c| (c.followed, c.applied))
        };
        let addrs = self.identity.here();
        let expecting = crate::link::Expecting {
            session,
            resume,
            module: self.configuration.module.as_str().to_owned(),
            instance: self.instance,
            followed,
            applied,
        };
        let listener = Listener::start(&addrs, &self.identity, expecting)?;
        let running = Arc::new(Running {
            session,
            stop: AtomicBool::new(false),
            confirmed: Mutex::new(false),
            wake: Condvar::new(),
            complete: AtomicBool::new(resume && followed != 0),
            linked: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            close: Mutex::new(Vec::new()),
        });
        let work = session::Work {
            running: running.clone(),
            copy: self.copy.clone(),
            roots: self.roots.clone(),
            reports: self.reports.clone(),
            state_dir: PathBuf::from(&self.configuration.state_dir),
            silence: self.configuration.silence(),
            log: self.log.clone(),
            behind: self.behind.clone(),
            tells_hot: matches!(begin, Begin::Resync { full: false, .. }),
        };
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || work.run(&listener))?;
        *lock(&self.running) = Some((running, thread));
        Ok(())
    }

    fn note(&self, session: Session, lost: Option<Epoch>) -> QuarantineNote {
        let dirs = self.configuration.dirs.iter().map(|dir| dir.path.clone()).collect();
        QuarantineNote { version: QUARANTINE_VERSION, lost, won: session.epoch, dirs }
    }

    /// With a note: what is lost is kept beside it.
    fn target(&self, note: Option<QuarantineNote>) -> Result<Copy, LinkError> {
        let (quarantine, checker) = match note {
            Some(note) => {
                let place = PathBuf::from(&self.configuration.quarantine_dir);
                (Quarantine::new(&place, &self.roots, note), Checker::beside_quarantine())
            }
            None => (Quarantine::none(), Checker::default()),
        };
        let ids = ids::Ids::new(&self.roots).map_err(std::io::Error::from)?;
        let scopes: Vec<_> = self.configuration.dirs.iter().map(crate::nodes::Scope::root).collect();
        Ok(Copy {
            applier: Applier {
                ids,
                quarantine,
                target: true,
                locals: local::Locals::new(&self.roots, &scopes),
                arriving: Vec::new(),
                behind: None,
                unset: Vec::new(),
            },
            checker,
            applied: Lsn(0),
            followed: 0,
            hots: hot::Hots::new(self.log.clone(), self.devices.clone()),
        })
    }

    /// The agent stored "full" (and the stamp is written): tell the leader.
    pub fn confirm_commit(&self, session: Session) {
        if let Some((running, _)) = &*lock(&self.running)
            && running.session == session
        {
            *lock(&running.confirmed) = true;
            running.wake.notify_all();
        }
    }

    /// Ends the session, if any. The copy stays as it is and can be resumed. Returns when nothing is applied
    /// any more.
    pub fn stop(&self) {
        if let Some((running, thread)) = lock(&self.running).take() {
            running.stop.store(true, Ordering::Release);
            lock(&running.close).iter().for_each(crate::link::Closer::close);
            running.wake.notify_all();
            // A panic in it has aborted the process already.
            let _ = thread.join();
        }
    }

    /// This node serves (or another session begins): nothing can be resumed any more.
    pub fn forget(&self) {
        self.stop();
        *lock(&self.copy) = None;
    }

    /// The session it follows, and whether the copy is complete.
    #[must_use]
    pub fn following(&self) -> Option<(Session, bool)> {
        lock(&self.running).as_ref().map(|(r, _)| (r.session, r.complete.load(Ordering::Acquire)))
    }

    /// The session of which a leader is connected.
    #[must_use]
    pub fn linked(&self) -> Option<Session> {
        let running = lock(&self.running);
        running.as_ref().filter(|(r, _)| r.linked.load(Ordering::Acquire)).map(|(r, _)| r.session)
    }

    /// Numbers of this session.
    #[must_use]
    pub fn counters(&self) -> model::orders::Counters {
        let (frames, bytes) = lock(&self.running)
            .as_ref()
            .map_or((0, 0), |(r, _)| (r.frames.load(Ordering::Relaxed), r.bytes.load(Ordering::Relaxed)));
        let free_bytes = sys::space(&self.roots).map_or(0, |s| s.available_bytes);
        model::orders::Counters {
            frames,
            bytes,
            free_bytes,
            hot: lock(&self.log).log().len() as u64,
            ..Default::default()
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The target's own map and log speak of changes that are gone now.
fn clear_maps(state_dir: &std::path::Path, log: &Mutex<DiskLog>) -> std::io::Result<()> {
    lock(log).reset()?;
    DiskMap::open(state_dir).0.clear()
}

fn lost(session: Session, reason: impl std::fmt::Display) -> Report {
    Report::LinkLost { session, reason: reason.to_string() }
}
