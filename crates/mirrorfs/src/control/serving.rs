//! The mounts of a serving process: made together, taken away together.

use crate::forest::Forest;
use crate::front::{Faults, Front};
use crate::gate::Gate;
use crate::session::{MountError, Session};
use crate::store;
use model::orders::Configuration;
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
}

impl Serving {
    /// Mounts over every directory; all or none.
    pub fn start(
        configuration: &Configuration,
        forest: Arc<Forest>,
        gate: &Arc<Gate>,
        faults: &Faults,
    ) -> Result<Self, MountError> {
        let mut serving = Self { forest, sessions: Vec::new() };
        for (index, dir) in configuration.dirs.iter().enumerate() {
            let front = Front::new(serving.forest.clone(), index, gate.clone(), configuration.ack, faults.clone());
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
        Ok(serving)
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
        let deadline = Instant::now() + JOIN_TIMEOUT;
        self.sessions.into_iter().all(|session| session.join(deadline))
    }
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
