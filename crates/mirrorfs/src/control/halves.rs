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

    /// Every wait in the link ends now; what is not answered gets `EIO`.
    pub fn fence(&self) {
        if let Some(halves) = self.get() {
            halves.leader.close();
        }
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
        match self.situation() {
            Situation::Idle => None,
            Situation::Following { .. } => Some(halves.follower.counters()),
            _ => Some(halves.leader.counters()),
        }
    }
}
