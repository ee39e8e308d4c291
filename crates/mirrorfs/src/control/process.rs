//! One order after the other: what to mount, what to open, what to tell the link.

use super::serving::Serving;
use super::stamp;
use crate::cover;
use crate::forest::Forest;
use crate::front::Faults;
use crate::gate::Gate;
use crate::outlet::{LocalOutlet, Outlet};
use crate::tree::Reports;
use model::ids::{DataId, Epoch};
use model::orders::{Configuration, ORDERS_VERSION, Order, Report, Situation};
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// What to say after an order was followed.
pub(super) enum Next {
    /// `Reached`.
    Reached,
    /// Something else was or will be said.
    Quiet,
    /// `Reached`, and the end.
    Exit,
}

/// The outlet in use, to be closed by a fence that does not wait for its turn.
#[derive(Clone, Default)]
pub(super) struct Closing(Arc<Mutex<Option<Arc<dyn Outlet>>>>);

impl Closing {
    /// Every wait in the outlet ends now.
    pub fn close(&self) {
        let outlet = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outlet) = outlet {
            outlet.close();
        }
    }

    fn set(&self, outlet: Option<Arc<dyn Outlet>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outlet;
    }
}

/// What the process is and has. One thread.
pub(super) struct Process {
    gate: Arc<Gate>,
    closing: Closing,
    reports: Reports,
    situation: Situation,
    configured: Option<Configured>,
    serving: Option<Serving>,
}

struct Configured {
    configuration: Configuration,
    lower: Vec<OwnedFd>,
}

impl Process {
    pub fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            closing: Closing::default(),
            reports: Arc::new(|_| {}),
            situation: Situation::Idle,
            configured: None,
            serving: None,
        }
    }

    pub fn report_to(&mut self, reports: Reports) {
        self.reports = reports;
    }

    pub fn closing(&self) -> Closing {
        self.closing.clone()
    }

    pub fn situation(&self) -> Situation {
        self.situation
    }

    /// Follows one order. `Err`: the sentence for a person; the situation is as before.
    pub fn obey(&mut self, order: Order) -> Result<Next, String> {
        match order {
            Order::Configure { configuration } => self.configure(configuration),
            Order::Idle | Order::Fence => self.idle(),
            Order::Stop => self.idle().map(|_| Next::Exit),
            Order::Hold => self.hold(),
            Order::Sync { ticket } => self.sync(ticket),
            Order::ServeAlone { epoch, data_id, stamp, fresh_map } => {
                self.serve_alone(epoch, data_id, stamp, fresh_map)
            }
            Order::Lease { .. } => Ok(Next::Quiet),
            Order::Lead { .. } | Order::SendCommit { .. } | Order::Follow { .. } | Order::ConfirmCommit { .. } => {
                Err("this mirrorfs has no link yet".into())
            }
        }
    }

    fn configure(&mut self, configuration: Configuration) -> Result<Next, String> {
        if configuration.version != ORDERS_VERSION {
            return Err(format!(
                "the agent speaks version {} of the orders, this mirrorfs {ORDERS_VERSION}: update both",
                configuration.version
            ));
        }
        if let Some(configured) = &self.configured {
            if configured.configuration.dirs != configuration.dirs
                || configured.configuration.module != configuration.module
            {
                return Err(
                    "the replicated directories cannot change while mirrorfs runs: stop the module first".into()
                );
            }
            return Ok(Next::Reached);
        }
        let lower = configuration.dirs.iter().map(cover::prepare).collect::<Result<Vec<_>, _>>().map_err(sentence)?;
        self.configured = Some(Configured { configuration, lower });
        Ok(Next::Reached)
    }

    fn idle(&mut self) -> Result<Next, String> {
        self.stop_serving()?;
        self.situation = Situation::Idle;
        Ok(Next::Reached)
    }

    fn hold(&mut self) -> Result<Next, String> {
        self.gate.hold();
        let epoch = self.epoch();
        self.start_serving()?;
        // Whoever held the order lock when the gate closed has finished now.
        if let Some(serving) = &self.serving {
            drop(serving.forest.order());
        }
        self.situation = Situation::Holding { epoch };
        Ok(Next::Reached)
    }

    fn sync(&mut self, ticket: u64) -> Result<Next, String> {
        for lower in &self.configured()?.lower {
            let directory = crate::store::reopen(rustix::fd::AsFd::as_fd(lower), rustix::fs::OFlags::RDONLY);
            directory
                .and_then(rustix::fs::syncfs)
                .map_err(|e| format!("cannot sync the file system of the replicated directories: {e}"))?;
        }
        (self.reports)(Report::Synced { ticket });
        Ok(Next::Quiet)
    }

    fn serve_alone(
        &mut self,
        epoch: Epoch,
        data_id: DataId,
        write_stamp: bool,
        _fresh_map: bool,
    ) -> Result<Next, String> {
        let configured = self.configured()?;
        for (dir, lower) in configured.configuration.dirs.iter().zip(&configured.lower) {
            cover::check(dir, lower).map_err(sentence)?;
        }
        let module = configured.configuration.module.to_string();
        let was_serving = self.serving.is_some();
        self.start_serving()?;
        let roots = self.serving.as_ref().map_or(&[][..], |serving| serving.forest.roots());
        let stamped = if write_stamp { stamp::write(roots, data_id) } else { stamp::check(roots, data_id, &module) };
        if let Err(e) = stamped {
            if !was_serving {
                self.stop_serving()?;
            }
            return Err(sentence(e));
        }
        self.gate.open();
        self.situation = Situation::Alone { epoch, resync: None };
        Ok(Next::Reached)
    }

    /// Mounted; the gate stays as it is.
    fn start_serving(&mut self) -> Result<(), String> {
        if self.serving.is_some() {
            return Ok(());
        }
        let configured = self.configured()?;
        let mut dirs = Vec::new();
        for (dir, lower) in configured.configuration.dirs.iter().zip(&configured.lower) {
            let lower =
                rustix::io::fcntl_dupfd_cloexec(lower, 0).map_err(|e| format!("cannot open {}: {e}", dir.path))?;
            dirs.push((dir.clone(), lower));
        }
        let forest = Forest::new(dirs).map_err(|e| format!("cannot look at the replicated directories: {e}"))?;
        let outlet: Arc<dyn Outlet> = Arc::new(LocalOutlet);
        forest.order().set_outlet(outlet.clone());
        self.closing.set(Some(outlet));
        let reports = self.reports.clone();
        let faults: Faults = Arc::new(move |reason| reports(Report::LocalFault { reason }));
        let serving = Serving::start(&configured.configuration, forest, &self.gate, &faults).map_err(sentence)?;
        self.serving = Some(serving);
        Ok(())
    }

    fn stop_serving(&mut self) -> Result<(), String> {
        if let Some(serving) = self.serving.take() {
            let stopped = serving.stop(&self.gate);
            self.closing.close();
            self.closing.set(None);
            if !stopped {
                return Err("a request is stuck in the local disk: only the end of this process (and of the disk's error) helps".into());
            }
        }
        self.gate.reset();
        Ok(())
    }

    fn configured(&self) -> Result<&Configured, String> {
        self.configured.as_ref().ok_or_else(|| "not configured: the first order on a connection is 'configure'".into())
    }

    /// Under which it serves, or last served.
    fn epoch(&self) -> Option<Epoch> {
        match self.situation {
            Situation::Alone { epoch, .. } => Some(epoch),
            Situation::Holding { epoch } => epoch,
            Situation::Committing { session, .. } | Situation::Mirrored { session } => Some(session.epoch),
            Situation::Idle | Situation::Following { .. } => None,
        }
    }
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
