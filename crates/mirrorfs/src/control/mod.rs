//! `stead mirrorfs`: listens for the agent's orders and follows them.
//!
//! It owns the process's one situation; it decides no role. **Invariant (I5):** an order names a situation,
//! may be repeated, and either reaches it (`Reached`) or changes nothing (`Refused`).

mod halves;
mod idle;
mod process;
mod pruner;
mod serving;
mod setup;
mod socket;
pub mod stamp;

use crate::estate::Estate;
use crate::gate::Gate;
use crate::tree::Reports;
use halves::Shared;
use idle::Idle;
use model::orders::{Order, Report, Situation};
use process::{Next, Process};
use socket::{Event, Socket};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

/// How often the agent gets numbers.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// See [`model::limits::AGENTLESS_MS`].
const AGENTLESS: Duration = Duration::from_millis(model::limits::AGENTLESS_MS);
/// How long the last report may take.
const LAST_WORDS: Duration = Duration::from_millis(50);

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
    /// No thread.
    #[error("cannot start a thread")]
    Threads(#[source] std::io::Error),
}

/// Runs until [`Order::Stop`] or SIGTERM. Call it before any thread is started.
///
/// # Errors
/// [`RunError`].
pub fn run(socket: &Path) -> Result<(), RunError> {
    // Before anything is opened, and any thread started.
    let (estate, inherits) = estate();
    // Blocked before the first thread, so that all inherit it.
    let (terminate, terminated) = std::sync::mpsc::sync_channel(1);
    setup::on_sigterm(move || {
        let _ = terminate.try_send(());
    })
    .map_err(RunError::Threads)?;
    setup::prepare_process();
    let _only_one = only_one(socket)?;
    let (gate, shared) = (Arc::new(Gate::new()), Shared::default());
    let asked = shared.clone();
    let (agent, events, orders) = Socket::new(Box::new(move || (asked.situation(), asked.linked())));
    let reports = reports(agent.clone(), events.clone());
    let process = Process::new(gate.clone(), shared.clone(), reports.clone(), estate.clone(), inherits);
    let (fencing, opened) = (shared.clone(), gate.clone());
    let urgent = Arc::new(move |order: &Order| match order {
        Order::Lease { valid_ms } => gate.lease(Duration::from_millis(*valid_ms)),
        Order::Fence => {
            gate.fence();
            fencing.fence();
        }
        _ => {}
    });
    agent
        .listen(socket, urgent, &events)
        .map_err(|cause| RunError::Socket { path: socket.display().to_string(), cause })?;
    background("terminate", move || while terminated.recv().is_ok() && events.send(Event::Terminate).is_ok() {})?;
    let (numbers, counted, living) = (shared.clone(), reports.clone(), estate.clone());
    background("counters", move || {
        let mut idle = Idle::new();
        loop {
            for _ in 0..COUNTERS_EVERY.as_millis() / idle::CALM.as_millis() {
                idle.rest(|| numbers.may_keep_awake());
                if opened.is_open() {
                    living.iter().for_each(|estate| estate.lives());
                }
            }
            if let Some(counters) = numbers.counters() {
                counted(Report::Counters { counters });
            }
            if opened.lapsed() >= AGENTLESS && matches!(numbers.situation(), Situation::Mirrored { .. }) {
                // Held before the link is gone: should the agent come now, what this node answers is its to say.
                opened.hold();
                let reason = format!("the agent of this node has not answered for {AGENTLESS:?}");
                if numbers.end_link(&reason) {
                    tracing::error!("{reason}: the link is closed, nothing is answered");
                }
            }
        }
    })?;
    let (looking, found) = (shared.clone(), reports.clone());
    // A thread of its own: a disk may take its time to fail.
    background("disk", move || {
        loop {
            std::thread::sleep(COUNTERS_EVERY);
            if let Some(counters) = looking.look_at_disk() {
                found(Report::Counters { counters });
            }
        }
    })?;
    serve(process, &shared, &reports, &orders);
    Ok(())
}

/// What the next process will need, and whether the one before left something. Its keeper waits from here on.
fn estate() -> (Option<Arc<Estate>>, bool) {
    let before = Estate::inherited();
    let inherits = before.is_some();
    if !inherits {
        // A group of its own: whoever wants it dead ends the keeper with it. It may lead one already.
        let _ = rustix::process::setsid();
    }
    let estate = before.map_or_else(Estate::create, Ok);
    let kept = estate.and_then(|estate| crate::estate::keeper::start(estate.clone()).map(|()| estate));
    match kept {
        Ok(estate) => (Some(estate), inherits),
        // It serves all the same; its death will be noticed.
        Err(e) => {
            tracing::warn!("no keeper: {e}");
            (None, false)
        }
    }
}

/// Reports go to the agent; those that open the gate are seen by the process as well, in its turn.
fn reports(agent: Arc<Socket>, events: SyncSender<Event>) -> Reports {
    Arc::new(move |report| {
        let look =
            matches!(report, Report::Committed { .. } | Report::Reached { situation: Situation::Mirrored { .. } });
        if let Report::LinkLost { reason, .. } = &report {
            tracing::info!("the link is lost: {reason}");
        }
        agent.report(report);
        // A full queue is looked at soon anyway: every order ends with a look.
        if look {
            let _ = events.try_send(Event::Look);
        }
    })
}

fn background(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(RunError::Threads)
}

fn serve(mut process: Process, shared: &Shared, reports: &Reports, events: &Receiver<Event>) {
    for event in events {
        let order = match event {
            Event::Order(order) => *order,
            Event::Terminate => Order::Stop,
            Event::Look => {
                process.look();
                continue;
            }
        };
        let tag = process::tag(&order);
        match process.obey(order) {
            Ok(Next::Reached) => reports(Report::Reached { situation: shared.situation() }),
            Ok(Next::Quiet) => {}
            Ok(Next::Exit) => {
                reports(Report::Reached { situation: shared.situation() });
                // The report has a thread of its own; give it a moment to be read.
                std::thread::sleep(LAST_WORDS);
                return;
            }
            Err(reason) => reports(Report::Refused { order: tag.into(), reason }),
        }
        process.look();
    }
}

/// A second process would take the first one's mounts for dead ones.
fn only_one(socket: &Path) -> Result<std::fs::File, RunError> {
    let path = socket.with_extension("lock");
    let lock = path.display().to_string();
    let file = crate::sys::create_own(&path).map_err(|cause| RunError::Socket { path: lock.clone(), cause })?;
    file.try_lock().map_err(|_| RunError::Running { lock })?;
    Ok(file)
}
