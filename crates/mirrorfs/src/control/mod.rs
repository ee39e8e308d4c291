//! `stead mirrorfs`: listens for the agent's orders and follows them.
//!
//! It owns the process's one situation; it decides no role. **Invariant (I5):** an order names a situation,
//! may be repeated, and either reaches it (`Reached`) or changes nothing (`Refused`).

mod process;
mod serving;
mod setup;
mod socket;
pub mod stamp;

use crate::gate::Gate;
use crate::tree::Reports;
use model::orders::{Order, Report};
use process::{Next, Process};
use socket::{Event, Socket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Why the process could not do its work at all. Fatal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No socket, no orders.
    #[error("cannot listen for orders on {path}")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Another process serves this module.
    #[error("another mirrorfs holds {lock}: one per module; end it first")]
    Running {
        /// The lock file.
        lock: String,
    },
    /// No thread for signals.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until [`Order::Stop`] or SIGTERM. Call it before any thread is started.
///
/// # Errors
/// [`RunError`].
pub fn run(socket: &Path) -> Result<(), RunError> {
    // Blocked before the first thread, so that all inherit it.
    let (terminate, terminated) = std::sync::mpsc::sync_channel(1);
    setup::on_sigterm(move || {
        let _ = terminate.try_send(());
    })
    .map_err(RunError::Signals)?;
    setup::prepare_process();
    let _only_one = only_one(socket)?;
    let gate = Arc::new(Gate::new());
    let process = Process::new(gate.clone());
    let closing = process.closing();
    let urgent = Arc::new(move |order: &Order| match order {
        Order::Lease { valid_ms } => gate.lease(Duration::from_millis(*valid_ms)),
        Order::Fence => {
            gate.fence();
            closing.close();
        }
        _ => {}
    });
    let (socket, sender, events) = Socket::listen(socket, urgent)
        .map_err(|cause| RunError::Socket { path: socket.display().to_string(), cause })?;
    let forward = std::thread::Builder::new()
        .name("terminate".into())
        .spawn(move || while terminated.recv().is_ok() && sender.send(Event::Terminate).is_ok() {});
    forward.map_err(RunError::Signals)?;
    let agent = socket.clone();
    let reports: Reports = Arc::new(move |report| agent.report(report));
    serve(process, &socket, &reports, &events);
    Ok(())
}

/// A second process would take the first one's mounts for dead ones.
fn only_one(socket: &Path) -> Result<std::fs::File, RunError> {
    let path = socket.with_extension("lock");
    let lock = path.display().to_string();
    let file = std::fs::File::create(&path).map_err(|cause| RunError::Socket { path: lock.clone(), cause })?;
    file.try_lock().map_err(|_| RunError::Running { lock })?;
    Ok(file)
}

fn serve(mut process: Process, socket: &Arc<Socket>, reports: &Reports, events: &std::sync::mpsc::Receiver<Event>) {
    process.report_to(reports.clone());
    for event in events {
        let order = match event {
            Event::Order(order) => *order,
            Event::Terminate => Order::Stop,
        };
        let tag = process::tag(&order);
        let result = process.obey(order);
        socket.set_situation(process.situation());
        match result {
            Ok(Next::Reached) => reports(Report::Reached { situation: process.situation() }),
            Ok(Next::Quiet) => {}
            Ok(Next::Exit) => {
                reports(Report::Reached { situation: process.situation() });
                // The writer has its own thread; give it a moment to be heard.
                std::thread::sleep(Duration::from_millis(50));
                return;
            }
            Err(reason) => reports(Report::Refused { order: tag.into(), reason }),
        }
    }
}
