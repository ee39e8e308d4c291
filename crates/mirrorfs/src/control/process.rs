//! One order after the other: what to mount, what to open, what to tell the link.
//!
//! It keeps no situation of its own: what the halves of the link say is what is.

use super::halves::{Halves, Shared};
use super::serving::{self, Serving};
use super::stamp;
use crate::cover;
use crate::estate::Estate;
use crate::forest::Forest;
use crate::front::Faults;
use crate::gate::Gate;
use crate::tree::{Reports, Roots, Tree};
use model::ids::{DataId, Epoch};
use model::orders::{Begin, Configuration, ORDERS_VERSION, Order, ReplicatedDir, Report, Session, Situation};
use platform::mounts::Bare;
use replica::op::FileId;
use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long an orderly end waits for the peer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What to say after an order was followed.
pub(super) enum Next {
    /// `Reached`.
    Reached,
    /// Something else was or will be said.
    Quiet,
    /// `Reached`, and the end.
    Exit,
}

/// What the process is and has. One thread.
pub(super) struct Process {
    gate: Arc<Gate>,
    shared: Shared,
    reports: Reports,
    configured: Option<Configured>,
    /// Refused; the order that needs it tries again, because what was in the way may be gone.
    refused: Option<Configuration>,
    serving: Option<Serving>,
    /// What the next process must know.
    estate: Option<Arc<Estate>>,
    /// The mounts of the process before this one wait to be taken over.
    inherits: bool,
    /// Stamp that this copy gets when the resync it is the target of is committed.
    becoming: Option<(Session, DataId)>,
}

struct Configured {
    configuration: Configuration,
    lower: Vec<OwnedFd>,
    halves: Arc<Halves>,
}

impl Process {
    pub fn new(gate: Arc<Gate>, shared: Shared, reports: Reports, estate: Option<Arc<Estate>>, inherits: bool) -> Self {
        if let Some(estate) = estate.as_ref().filter(|_| inherits) {
            shared.inherits(Some(estate.served_under()));
        }
        let (configured, refused, serving, becoming) = (None, None, None, None);
        Self { gate, shared, reports, configured, refused, serving, estate, inherits, becoming }
    }

    /// Follows one order. `Err`: the sentence for a person; the situation is as before.
    pub fn obey(&mut self, order: Order) -> Result<Next, String> {
        let needs_directories = matches!(
            order,
            Order::Hold | Order::Sync { .. } | Order::ServeAlone { .. } | Order::Lead { .. } | Order::Follow { .. }
        );
        if needs_directories && let Some(configuration) = self.refused.take() {
            self.try_configure(configuration)?;
        }
        match order {
            Order::Configure { configuration } => self.try_configure(configuration),
            Order::Idle | Order::Fence => self.idle(),
            Order::Stop => self.idle().map(|_| Next::Exit),
            Order::Hold => self.hold(),
            Order::Sync { ticket } => {
                self.configured()?.halves.leader.sync(ticket);
                Ok(Next::Quiet)
            }
            Order::ServeAlone { epoch, data_id, stamp, fresh_map } => {
                self.serve_alone(epoch, data_id, stamp, fresh_map)
            }
            Order::Lead { session, begin } => {
                self.configured()?.halves.leader.lead(session, begin);
                Ok(Next::Quiet)
            }
            Order::SendCommit { session } => {
                self.configured()?.halves.leader.send_commit(session);
                Ok(Next::Quiet)
            }
            Order::Verify { repair, bytes_per_s, scrub } => {
                self.configured()?.halves.leader.verify(repair, bytes_per_s, scrub)?;
                Ok(Next::Quiet)
            }
            Order::Follow { session, begin, data_id, lost } => self.follow(session, begin, data_id, lost),
            Order::ConfirmCommit { session } => self.confirm_commit(session),
            Order::Lease { .. } => Ok(Next::Quiet),
        }
    }

    /// The link's state changed: a session that is mirrored (again) lets requests pass.
    pub fn look(&self) {
        let situation = self.shared.situation();
        if self.serving.is_some() && matches!(situation, Situation::Mirrored { .. }) {
            self.gate.open();
        }
        let epoch = match situation {
            Situation::Alone { epoch, .. } => Some(epoch),
            Situation::Mirrored { session } | Situation::Committing { session, .. } => Some(session.epoch),
            _ => None,
        };
        if let (Some(estate), Some(epoch)) = (&self.estate, epoch) {
            estate.serve_under(epoch);
        }
    }

    fn try_configure(&mut self, configuration: Configuration) -> Result<Next, String> {
        self.refused = self.configured.is_none().then(|| configuration.clone());
        let next = self.configure(configuration)?;
        self.refused = None;
        Ok(next)
    }

    fn configure(&mut self, configuration: Configuration) -> Result<Next, String> {
        if configuration.version != ORDERS_VERSION {
            let theirs = configuration.version;
            return Err(format!(
                "the agent speaks version {theirs} of the orders, this mirrorfs {ORDERS_VERSION}: update both"
            ));
        }
        if let Some(configured) = &mut self.configured {
            let now = &mut configured.configuration;
            let bearer = |it: &Configuration| {
                (it.peer_number.clone(), it.peer_certificate.clone(), it.peer_addrs.clone(), it.listen_addrs.clone())
            };
            if bearer(now) != bearer(&configuration) {
                // At once, whatever runs: who has the peer's name no more must not be taken for it, and who took its place may be elsewhere.
                configured.halves.believe(&configuration).map_err(sentence)?;
                (now.peer_number, now.peer_certificate, now.peer_addrs, now.listen_addrs) = bearer(&configuration);
            }
            if *now == configuration {
                return Ok(Next::Reached);
            }
            if now.dirs != configuration.dirs || now.module != configuration.module {
                return Err(
                    "the replicated directories cannot change while mirrorfs runs: stop the module first".into()
                );
            }
            if self.shared.situation() != Situation::Idle {
                tracing::warn!("the new configuration counts from the next start of the module on");
                return Ok(Next::Reached);
            }
        }
        // Our own umask is out of the way: the mode must be said.
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(&configuration.state_dir)
            .map_err(|e| format!("cannot make {}: {e}", configuration.state_dir))?;
        let bare = Bare::of(std::path::Path::new(&configuration.state_dir));
        let inherited = self.inherited_roots(&configuration.dirs);
        if inherited.is_none() {
            self.renounce();
        }
        let lower = match inherited {
            Some(lower) => lower,
            None => {
                let lower = configuration.dirs.iter().map(|dir| cover::prepare(dir, &bare));
                lower.collect::<Result<Vec<_>, _>>().map_err(sentence)?
            }
        };
        let roots: Roots = Arc::new(copies(&lower)?);
        self.shared.set(None);
        let halves = Arc::new(Halves::new(&configuration, roots, self.reports.clone()).map_err(sentence)?);
        if self.inherits {
            halves.leader.served_before(self.estate.as_ref().and_then(|estate| estate.served_under()));
        }
        self.shared.set(Some(halves.clone()));
        self.configured = Some(Configured { configuration, lower, halves });
        Ok(Next::Reached)
    }

    fn idle(&mut self) -> Result<Next, String> {
        self.stop_serving()?;
        if let Some(configured) = &self.configured {
            configured.halves.follower.stop();
        }
        self.becoming = None;
        Ok(Next::Reached)
    }

    fn hold(&mut self) -> Result<Next, String> {
        self.gate.hold();
        let halves = self.configured()?.halves.clone();
        halves.follower.stop();
        halves.leader.hold();
        if let Err(e) = self.start_serving() {
            halves.leader.fence();
            return Err(e);
        }
        // Whoever held the order lock when the gate closed has finished now.
        if let Some(serving) = &self.serving {
            drop(serving.forest.order());
        }
        Ok(Next::Reached)
    }

    fn serve_alone(
        &mut self,
        epoch: Epoch,
        data_id: DataId,
        write_stamp: bool,
        fresh_map: bool,
    ) -> Result<Next, String> {
        let Configured { configuration, lower, halves } = self.configured()?;
        let (halves, state_dir) = (halves.clone(), configuration.state_dir.clone());
        for (dir, lower) in configuration.dirs.iter().zip(lower) {
            cover::check(dir, lower).map_err(sentence)?;
        }
        if write_stamp {
            stamp::write(&configuration.dirs, lower, data_id).map_err(sentence)?;
        } else {
            stamp::check(&configuration.dirs, lower, data_id, configuration.module.as_str()).map_err(sentence)?;
        }
        halves.follower.forget();
        self.becoming = None;
        // Mounted behind a closed gate first: what is hot leaves its log only when nothing can be refused any more, because who was
        // refused follows the other node, which asks for it.
        let is_new = self.serving.is_none();
        self.start_serving()?;
        if let Err(e) = halves.leader.serve_alone(epoch, fresh_map) {
            if is_new {
                self.stop_serving()?;
            }
            return Err(format!("cannot write the change map in {state_dir}: {e}"));
        }
        self.gate.open();
        Ok(Next::Reached)
    }

    fn follow(&mut self, session: Session, begin: Begin, data_id: DataId, lost: Option<Epoch>) -> Result<Next, String> {
        let Configured { configuration, lower, .. } = self.configured()?;
        // A copy that is to go on from where it was must be that copy; another gets everything anew.
        if !matches!(begin, Begin::Resync { full: true, .. }) {
            stamp::check(&configuration.dirs, lower, data_id, configuration.module.as_str()).map_err(sentence)?;
        }
        self.stop_serving()?;
        self.configured()?.halves.follower.follow_from(session, begin, lost).map_err(sentence)?;
        self.becoming = Some((session, data_id));
        Ok(Next::Reached)
    }

    fn confirm_commit(&mut self, session: Session) -> Result<Next, String> {
        let Some((_, data_id)) = self.becoming.filter(|(becoming, _)| *becoming == session) else {
            return Err("this copy is not the target of that session".into());
        };
        let Configured { configuration, lower, halves } = self.configured()?;
        stamp::write(&configuration.dirs, lower, data_id).map_err(sentence)?;
        halves.follower.confirm_commit(session);
        Ok(Next::Quiet)
    }

    /// Mounted; the gate stays as it is.
    fn start_serving(&mut self) -> Result<(), String> {
        if self.serving.is_some() {
            return Ok(());
        }
        let Configured { configuration, lower, halves } = self.configured()?;
        let estate = self.estate.clone();
        let forest = match estate.clone().filter(|_| self.inherits) {
            Some(estate) => Forest::inherit(configuration.dirs.clone(), estate),
            None => {
                let dirs = configuration.dirs.iter().cloned().zip(copies(lower)?).collect();
                Forest::noting(dirs, estate.clone())
            }
        };
        let forest = forest.map_err(|e| format!("cannot look at the replicated directories: {e}"))?;
        forest.order().set_outlet(halves.leader.clone());
        let tree: Weak<Forest> = Arc::downgrade(&forest);
        let tree: Weak<dyn Tree> = tree;
        halves.leader.attach(tree);
        let reports = self.reports.clone();
        let faults: Faults = Arc::new(move |reason| reports(Report::LocalFault { reason }));
        self.shared.is_mounted(true);
        let serving = match estate.filter(|_| self.inherits) {
            Some(estate) => Serving::inherit(configuration, forest, &self.gate, &faults, &estate),
            None => Serving::start(configuration, forest, &self.gate, &faults, self.estate.as_ref()),
        };
        self.serving = match (serving, self.inherits) {
            (Ok(serving), _) => Some(serving),
            (Err(e), false) => {
                self.shared.is_mounted(false);
                return Err(sentence(e));
            }
            // A mount that nobody serves: its end must be noticed.
            (Err(e), true) => {
                tracing::error!("cannot go on with the mounts of the process before this one: {}", sentence(e));
                self.estate.iter().for_each(|estate| estate.close());
                std::process::exit(1);
            }
        };
        self.inherits = false;
        self.shared.inherits(None);
        Ok(())
    }

    /// Unmounted, the link closed, everything answered. Covered, as always.
    fn stop_serving(&mut self) -> Result<(), String> {
        self.renounce();
        let Some(configured) = &self.configured else {
            // Whoever ordered the fence closed the gate already, and nothing is behind it: what is mounted later is not fenced.
            self.gate.reset();
            return Ok(());
        };
        self.estate.iter().for_each(|estate| estate.close());
        if let Some(serving) = &self.serving {
            // The kernel may have something to write back, so the link is still needed.
            if serving.unmount(&self.gate) {
                let _ = configured.halves.leader.drained(DRAIN_TIMEOUT);
                serving.sync();
            }
        }
        self.gate.fence();
        configured.halves.leader.fence();
        if let Some(serving) = self.serving.take()
            && !serving.end()
        {
            return Err(
                "a request is stuck in the local disk: only the end of this process helps, once the disk answers"
                    .into(),
            );
        }
        if let Some(estate) = &self.estate {
            estate.clear();
        }
        self.shared.is_mounted(false);
        self.gate.reset();
        Ok(())
    }

    /// The lower sides of what waits to be taken over; `None` if nothing does.
    fn inherited_roots(&self, dirs: &[ReplicatedDir]) -> Option<Vec<OwnedFd>> {
        let estate = self.estate.as_ref().filter(|estate| self.inherits && estate.dirs() == serving::hash(dirs))?;
        let mut roots: Vec<_> = estate.nodes().filter(|(_, node)| node.id < FileId::FIRST.0).collect();
        roots.sort_by_key(|(_, node)| node.id);
        // SAFETY: the slot says that this inherited descriptor is open, and it is only borrowed.
        let copy = |fd| rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(fd) }, 0);
        let copies = roots.into_iter().map(|(fd, _)| copy(fd)).collect::<Result<Vec<_>, _>>().ok()?;
        (copies.len() == dirs.len()).then_some(copies)
    }

    /// What waits to be taken over is wanted by nobody: the mounts go, and whoever is in them is cut off.
    fn renounce(&mut self) {
        if !std::mem::take(&mut self.inherits) {
            return;
        }
        self.shared.inherits(None);
        let Some(estate) = &self.estate else { return };
        let devices = estate.devices();
        let all = devices.iter().map(|(fd, ..)| *fd).chain(estate.handles().map(|(fd, _)| fd));
        for fd in all.chain(estate.nodes().map(|(fd, _)| fd)) {
            // SAFETY: the slot says that this descriptor was inherited, and nobody else knows of it. Without the mount's
            // own the connection is over.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        for dir in self.configured.iter().flat_map(|configured| &configured.configuration.dirs) {
            if let Err(e) = crate::session::detach(&dir.path, true) {
                tracing::error!("cannot unmount {}: {e}", dir.path);
            }
        }
        estate.clear();
    }

    fn configured(&self) -> Result<&Configured, String> {
        self.configured.as_ref().ok_or_else(|| "not configured: the first order on a connection is 'configure'".into())
    }
}

fn copies(lower: &[OwnedFd]) -> Result<Vec<OwnedFd>, String> {
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0);
    lower.iter().map(copy).collect::<Result<_, _>>().map_err(|e| format!("cannot open the replicated directories: {e}"))
}

/// The order's tag, for refusals.
pub(super) fn tag(order: &Order) -> &'static str {
    match order {
        Order::Configure { .. } => "configure",
        Order::Idle => "idle",
        Order::Hold => "hold",
        Order::Sync { .. } => "sync",
        Order::ServeAlone { .. } => "serve_alone",
        Order::Lead { .. } => "lead",
        Order::SendCommit { .. } => "send_commit",
        Order::Follow { .. } => "follow",
        Order::ConfirmCommit { .. } => "confirm_commit",
        Order::Verify { .. } => "verify",
        Order::Fence => "fence",
        Order::Lease { .. } => "lease",
        Order::Stop => "stop",
    }
}

/// An error with its causes, in one line.
fn sentence(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
