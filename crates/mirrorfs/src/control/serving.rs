//! The mounts of a serving process: made together, taken away together.

use super::pruner::Pruner;
use crate::estate::Estate;
use crate::forest::Forest;
use crate::front::{Faults, Front};
use crate::gate::Gate;
use crate::session::{MountError, Session};
use crate::store;
use model::orders::{Configuration, ReplicatedDir};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an orderly unmount may take: the kernel writes back what it has.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a directory may stay busy (a shell standing in it) before it is unmounted under its feet.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long workers may need for what they have in hand.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module's page.
pub(super) struct Serving {
    pub forest: Arc<Forest>,
    sessions: Vec<Session>,
    pruner: Option<Pruner>,
}

impl Serving {
    /// Mounts over every directory; all or none.
    pub fn start(
        configuration: &Configuration,
        forest: Arc<Forest>,
        gate: &Arc<Gate>,
        faults: &Faults,
        estate: Option<&Arc<Estate>>,
    ) -> Result<Self, MountError> {
        let mut serving = Self { forest, sessions: Vec::new(), pruner: None };
        for (index, dir) in configuration.dirs.iter().enumerate() {
            let front = Front::new(serving.forest.clone(), index, gate.clone(), configuration.ack, faults.clone())
                .noting(estate.cloned());
            let lower = serving.forest.roots()[index].node.clone();
            let name = configuration.module.as_str();
            match Session::start(&dir.path, name, lower.fd(), gate.clone(), Arc::new(front)) {
                Ok(session) => serving.sessions.push(session),
                Err(e) => {
                    // Nobody can have used what was mounted a moment ago.
                    let _ = serving.unmount(gate);
                    let _ = serving.end();
                    return Err(e);
                }
            }
        }
        serving.prune(0..serving.sessions.len());
        if let Some(estate) = estate.filter(|_| serving.sessions.iter().all(Session::resends)) {
            for (index, session) in serving.sessions.iter().enumerate() {
                let (device, features) = session.connection();
                estate.device(device.as_raw_fd(), index, features);
            }
            estate.complete(serving.sessions.len(), hash(&configuration.dirs));
        }
        Ok(serving)
    }

    /// Goes on with the mounts of the process before this one.
    ///
    /// # Errors
    /// One of them cannot be gone on with: none is served.
    pub fn inherit(
        configuration: &Configuration,
        forest: Arc<Forest>,
        gate: &Arc<Gate>,
        faults: &Faults,
        estate: &Arc<Estate>,
    ) -> Result<Self, MountError> {
        let mut serving = Self { forest, sessions: Vec::new(), pruner: None };
        let mut served = Vec::new();
        for (fd, index, features) in estate.devices() {
            let Some(dir) = configuration.dirs.get(index) else { continue };
            let front = Front::new(serving.forest.clone(), index, gate.clone(), configuration.ack, faults.clone())
                .inheriting(estate.clone());
            // SAFETY: the slot says that this inherited descriptor is a mount's, and nobody else knows of it.
            let device = unsafe { OwnedFd::from_raw_fd(fd) };
            // What it costs to have lost it is an exec that inherits it.
            let _ = rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC);
            let session = Session::inherit(device, features, &dir.path, gate.clone(), Arc::new(front))?;
            serving.sessions.push(session);
            served.push(index);
        }
        serving.prune(served);
        Ok(serving)
    }

    /// Nodes may become too many for this process.
    fn prune(&mut self, roots: impl IntoIterator<Item = usize>) {
        let mounts = roots.into_iter().zip(self.sessions.iter().map(Session::notices)).collect();
        match Pruner::start(self.forest.clone(), mounts) {
            Ok(pruner) => self.pruner = Some(pruner),
            Err(e) => tracing::warn!("the kernel's memory of names is not bounded, no thread could be started: {e}"),
        }
    }

    /// Takes the mounts away. `true`: all of them in good order, with everything the kernel had written back.
    /// A gate that is not open cannot be written through: whoever waits gets `EIO`, whoever is inside is cut off.
    pub fn unmount(&self, gate: &Arc<Gate>) -> bool {
        let mut orderly = true;
        for session in &self.sessions {
            if !(gate.is_open() && unmount_orderly(session.path())) {
                orderly = false;
                let _ = session.unmount(true);
            }
        }
        orderly
    }

    /// What was written is on the local disk.
    pub fn sync(&self) {
        for root in self.forest.roots() {
            let synced = store::reopen(root.node.fd(), OFlags::RDONLY).and_then(rustix::fs::syncfs);
            if let Err(e) = synced {
                tracing::error!("cannot sync the file system of {}: {e}", root.dir.path);
            }
        }
    }

    /// Waits for the workers, after everything was unmounted and fenced. `false`: one is stuck in the disk,
    /// nothing may be mounted again by this process.
    pub fn end(self) -> bool {
        if let Some(pruner) = self.pruner {
            pruner.end();
        }
        let deadline = Instant::now() + JOIN_TIMEOUT;
        self.sessions.into_iter().all(|session| session.join(deadline))
    }
}

/// Tells these directories from others.
pub(super) fn hash(dirs: &[ReplicatedDir]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for dir in dirs {
        hasher.update(dir.path.as_bytes()).update(b"\0");
    }
    let bytes = hasher.finalize();
    u64::from_le_bytes(*bytes.as_bytes().first_chunk().expect("a hash is longer than eight bytes"))
}

/// In a thread of its own, because it waits for write-back, and write-back for the gate.
fn unmount_orderly(path: &str) -> bool {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let path = path.to_owned();
    let unmount = move || {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match crate::session::detach(&path, false) {
                Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                other => {
                    // Nobody listens any more after the timeout.
                    let _ = done.send(other.is_ok());
                    break;
                }
            }
        }
    };
    std::thread::Builder::new().name("unmount".into()).spawn(unmount).is_ok()
        && result.recv_timeout(UNMOUNT_TIMEOUT).unwrap_or(false)
}
