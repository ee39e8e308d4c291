//! The Unix socket on which the agent gives orders and reads reports: JSON, one object per line.
//!
//! One agent at a time; a new connection replaces the old. **Invariant:** nothing here waits for the agent:
//! reports queue up to a bound, and a connection that does not read is closed (the agent connects again and
//! is told the situation). Leases and fencing act at once, whatever the rest of the process is doing.

use model::orders::{ORDERS_VERSION, Order, Report, Session, Situation};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest order.
const LINE_MAX: u64 = 1 << 20;
/// Orders that wait for the process.
const ORDERS_MAX: usize = 64;
/// Reports that wait for the agent.
const QUEUE_MAX: usize = 1024;
/// An agent that does not read for this long is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens at the socket.
pub enum Event {
    /// An order that is not done by the reader itself.
    Order(Box<Order>),
    /// The link's state changed.
    Look,
    /// SIGTERM.
    Terminate,
}

/// What the reader does by itself, at once.
pub type Urgent = Arc<dyn Fn(&Order) + Send + Sync>;

/// Says what the process is doing, and the session of which it follows a leader that is connected.
pub type Asked = Box<dyn Fn() -> (Situation, Option<Session>) + Send + Sync>;

/// Where reports go out, whoever is connected.
pub struct Socket {
    current: Mutex<Option<Connection>>,
    situation: Asked,
}

struct Connection {
    stream: UnixStream,
    queue: SyncSender<Report>,
}

impl Socket {
    /// Nobody is connected yet; orders will come out of the receiver.
    #[must_use]
    pub fn new(situation: Asked) -> (Arc<Self>, SyncSender<Event>, Receiver<Event>) {
        let (events, receiver) = sync_channel(ORDERS_MAX);
        (Arc::new(Self { current: Mutex::new(None), situation }), events, receiver)
    }

    /// Listens, from a thread of its own.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(self: &Arc<Self>, path: &Path, urgent: Urgent, events: &SyncSender<Event>) -> std::io::Result<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let socket = self;
        let (acceptor, sender) = (socket.clone(), events.clone());
        std::thread::Builder::new().name("accept".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => acceptor.adopt(stream, &urgent, &sender),
                    // Out of descriptors, most likely: not worth a busy loop.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(())
    }

    /// Tells the agent, if there is one. Never blocks.
    pub fn report(&self, report: Report) {
        let mut current = lock(&self.current);
        let Some(connection) = &*current else { return };
        match connection.queue.try_send(report) {
            Ok(()) => {}
            // Numbers come again; everything else must not get lost on a living connection.
            Err(TrySendError::Full(Report::Counters { .. } | Report::Progress { .. })) => {}
            Err(_) => {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
                *current = None;
            }
        }
    }

    fn adopt(self: &Arc<Self>, stream: UnixStream, urgent: &Urgent, events: &SyncSender<Event>) {
        // Before the agent's connection gives way: who gives orders here is as good as root.
        if !is_ours(&stream) {
            return;
        }
        let Ok(writer) = stream.try_clone() else { return };
        let Ok(reader) = stream.try_clone() else { return };
        if writer.set_write_timeout(Some(WRITE_TIMEOUT)).is_err() {
            return;
        }
        let (queue, reports) = sync_channel(QUEUE_MAX);
        let mut current = lock(&self.current);
        if let Some(old) = current.take() {
            let _ = old.stream.shutdown(std::net::Shutdown::Both);
        }
        let (situation, linked) = (self.situation)();
        let adopted = Report::Adopted {
            version: ORDERS_VERSION,
            pid: std::process::id(),
            group: rustix::process::getpgrp().as_raw_nonzero().get().try_into().ok(),
            situation,
        };
        let _ = queue.try_send(adopted);
        // Said when it came up, to an agent that has forgotten it. What comes up from now on is said to this one.
        if let Some(session) = linked {
            let _ = queue.try_send(Report::LinkUp { session });
        }
        *current = Some(Connection { stream, queue });
        drop(current);
        let (urgent, events, socket) = (urgent.clone(), events.clone(), self.clone());
        // Without a thread there is no connection; the agent sees it closed and comes again.
        let writing = std::thread::Builder::new().name("reports".into()).spawn(move || write_reports(writer, &reports));
        let reading = std::thread::Builder::new().name("orders".into()).spawn(move || {
            read_orders(reader, &urgent, &events, &socket);
        });
        if writing.is_err() || reading.is_err() {
            *lock(&self.current) = None;
        }
    }
}

/// Root, or whoever this process is (of a test).
fn is_ours(stream: &UnixStream) -> bool {
    match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) if peer.uid.is_root() || peer.uid == rustix::process::geteuid() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid.as_raw(), "refused on the socket for orders");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "who connects to the socket for orders cannot be told");
            false
        }
    }
}

fn write_reports(mut stream: UnixStream, reports: &Receiver<Report>) {
    for report in reports {
        let mut line = serde_json::to_vec(&report).expect("a report is plain data");
        line.push(b'\n');
        if stream.write_all(&line).is_err() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_orders(stream: UnixStream, urgent: &Urgent, events: &SyncSender<Event>, socket: &Socket) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(length) if length > 0 && line.ends_with(b"\n") => {}
            _ => break,
        }
        match serde_json::from_slice::<Order>(&line) {
            Ok(order) => {
                urgent(&order);
                if !matches!(order, Order::Lease { .. }) && events.send(Event::Order(Box::new(order))).is_err() {
                    break;
                }
            }
            Err(e) => socket.report(Report::Refused { order: "?".into(), reason: format!("not an order: {e}") }),
        }
    }
    let _ = reader.get_ref().shutdown(std::net::Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
