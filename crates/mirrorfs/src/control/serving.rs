//! The mounts of a serving process: made together, taken away together.

use crate::forest::Forest;
use crate::front::{Faults, Front};
use crate::gate::Gate;
use crate::session::{MountError, Session};
use model::orders::Configuration;
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
                    gate.fence();
                    serving.stop(gate);
                    return Err(e);
                }
            }
        }
        Ok(serving)
    }

    /// Unmounts everything; what is open and not fenced is written back first. `false`: a worker is stuck in
    /// the disk, nothing may be mounted again in this process.
    pub fn stop(self, gate: &Arc<Gate>) -> bool {
        for session in &self.sessions {
            if !(gate.is_open() && unmount_orderly(session.path())) {
                // Whoever still waits gets EIO, whoever stands inside is cut off.
                let _ = session.unmount(true);
            }
        }
        gate.fence();
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
