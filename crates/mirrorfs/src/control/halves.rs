//! The two halves of the link, shared between the orders (one thread), the urgent path of a fence, and
//! whoever asks what the process is doing.

use crate::behind::Behind;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::link::LinkError;
use crate::outlet::Outlet;
use crate::tree::{Reports, Roots};
use model::ids::Epoch;
use model::orders::{Configuration, Counters, Session, Situation};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The sending and the receiving half of one configured module.
pub(super) struct Halves {
    pub leader: Arc<Leader>,
    pub follower: Follower,
    /// Processors may be kept from sleeping.
    idle_poll: bool,
}

impl Halves {
    /// Both, doing nothing yet.
    pub fn new(configuration: &Configuration, roots: Roots, reports: Reports) -> Result<Self, LinkError> {
        let leader = Leader::new(configuration, roots.clone(), reports.clone())?;
        let behind = Behind::begin(&leader);
        leader.wait_for(behind.clone());
        let follower = Follower::with_log(configuration, roots, reports, leader.log())?.waiting_for(behind);
        Ok(Self { leader, follower, idle_poll: configuration.idle_poll })
    }

    /// Another machine took the peer's place: it is believed from now on, by both.
    pub fn believe(&self, configuration: &Configuration) -> Result<(), LinkError> {
        self.leader.identity().follow(configuration)?;
        self.follower.identity().follow(configuration)
    }
}

/// Present once configured. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Shared {
    halves: Arc<Mutex<Option<Arc<Halves>>>>,
    /// The mounts of a process before this one wait for it, which served under this epoch.
    inherited: Arc<Mutex<Option<Option<Epoch>>>>,
    /// Something is mounted, or about to be.
    mounted: Arc<AtomicBool>,
}

impl Shared {
    pub fn get(&self) -> Option<Arc<Halves>> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, halves: Option<Arc<Halves>>) {
        *self.halves.lock().unwrap_or_else(PoisonError::into_inner) = halves;
    }

    /// Mounts wait for this process; `None`: not (any more).
    pub fn inherits(&self, epoch: Option<Option<Epoch>>) {
        *self.inherited.lock().unwrap_or_else(PoisonError::into_inner) = epoch;
    }

    /// Before the first mount, and after the last one is gone.
    pub fn is_mounted(&self, mounted: bool) {
        self.mounted.store(mounted, Ordering::Release);
    }

    /// Every wait in the link ends now; what is not answered gets `EIO`.
    pub fn fence(&self) {
        if let Some(halves) = self.get() {
            halves.leader.close();
        }
    }

    /// A link to the other node that mirrors ends, as if it were lost; what is in flight stays. `true`: there was one.
    pub fn end_link(&self, reason: &str) -> bool {
        self.get().is_some_and(|halves| halves.leader.end_link(reason))
    }

    /// What the process is doing.
    pub fn situation(&self) -> Situation {
        if let Some(epoch) = *self.inherited.lock().unwrap_or_else(PoisonError::into_inner) {
            return Situation::Holding { epoch };
        }
        let Some(halves) = self.get() else { return Situation::Idle };
        if let Some(serving) = halves.leader.situation() {
            return serving;
        }
        // Fenced in the middle of an order. Who hears "idle" gives the directories back.
        if self.mounted.load(Ordering::Acquire) {
            return Situation::Holding { epoch: None };
        }
        match halves.follower.following() {
            Some((session, complete)) => Situation::Following { session, complete },
            None => Situation::Idle,
        }
    }

    /// The session of which it follows a leader that is connected.
    pub fn linked(&self) -> Option<Session> {
        self.get()?.follower.linked()
    }

    /// Processors may be kept from sleeping while it is busy.
    pub fn may_keep_awake(&self) -> bool {
        self.get().is_some_and(|halves| halves.idle_poll)
    }

    /// Its numbers, while it does anything.
    pub fn counters(&self) -> Option<Counters> {
        let halves = self.get()?;
        let counters = match self.situation() {
            Situation::Idle => return None,
            Situation::Following { .. } => halves.follower.counters(),
            _ => halves.leader.counters(),
        };
        Some(Counters { disk: halves.leader.disk(), ..counters })
    }

    /// Looks at a disk that answered with errors; `None`: none did, or nothing is served from it.
    pub fn look_at_disk(&self) -> Option<Counters> {
        let halves = self.get()?;
        halves.leader.situation()?;
        let disk = Some(halves.leader.look_at_disk()?);
        Some(Counters { disk, ..halves.leader.counters() })
    }
}
