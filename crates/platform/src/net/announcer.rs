//! While an address is held: gratuitous ARP at 0, 100 ms, 500 ms, 2 s, then every 30 s; and at once, but at
//! most once a second, when somebody else announces it.
//!
//! The task ends with its handle. It never sets or removes the address.

use super::packet::ArpSocket;
use super::{Mac, NetError, arp};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Since the last "now": when to announce. Then [`EVERY`].
const BURST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
const EVERY: Duration = Duration::from_secs(30);
/// Two announcers must not shout each other down.
const REACT_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// What an announcer has seen and done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnouncerReport {
    /// Announcements sent.
    pub sent: u64,
    /// Packets in which someone else spoke as this address.
    pub competing: u64,
    /// The last of these.
    pub competitor: Option<Mac>,
    /// Why the last announcement could not be sent; cleared by the next one that can.
    pub problem: Option<String>,
}

/// A running announcer of one address on one interface. Dropping it ends it.
#[derive(Debug)]
pub struct Announcer {
    task: JoinHandle<()>,
    now: Arc<Notify>,
    report: Arc<Mutex<AnnouncerReport>>,
}

impl Announcer {
    /// Begins to announce `ip` on `interface`, now. Call inside a tokio runtime, once the address is set.
    ///
    /// # Errors
    /// [`NetError`] when there is no such interface or no ARP on it.
    pub fn start(interface: &str, ip: Ipv4Addr) -> Result<Self, NetError> {
        let socket = ArpSocket::open(interface)?;
        // The first one goes out before this returns: clients wait for nothing else.
        let report = AnnouncerReport {
            sent: 1,
            problem: arp::announce_on(&socket, ip).err().map(|error| error.to_string()),
            ..Default::default()
        };
        // SAFETY: the socket owns its descriptor and gives out always the same one until it is dropped.
        let socket =
            unsafe { AsyncFd::register(socket) }.map_err(|error| NetError::os("watch ARP", interface, error))?;
        let now = Arc::new(Notify::new());
        let report = Arc::new(Mutex::new(report));
        let task = tokio::spawn(run(socket, ip, Arc::clone(&now), Arc::clone(&report)));
        Ok(Self { task, now, report })
    }

    /// Announces at once and begins the burst anew (after a healed partition, a thaw).
    pub fn announce_now(&self) {
        self.now.notify_one();
    }

    /// What has been seen and done so far.
    #[must_use]
    pub fn report(&self) -> AnnouncerReport {
        self.report.lock().expect("no panic happens under this lock").clone()
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(socket: AsyncFd<ArpSocket>, ip: Ipv4Addr, now: Arc<Notify>, report: Arc<Mutex<AnnouncerReport>>) {
    let mut begun = Instant::now();
    let mut done = 1; // Step 0 was sent by `start`.
    let mut last_reaction: Option<Instant> = None;
    loop {
        let next = begun + BURST.get(done).copied().unwrap_or_else(|| EVERY * (done - BURST.len() + 1) as u32);
        tokio::select! {
            () = sleep_until(next) => done += 1,
            () = now.notified() => (begun, done) = (Instant::now(), 1),
            competitor = hear(&socket, ip) => {
                let mut report = report.lock().expect("no panic happens under this lock");
                report.competing += 1;
                report.competitor = Some(competitor);
                drop(report);
                if last_reaction.is_some_and(|at| at.elapsed() < REACT_AT_MOST_EVERY) {
                    continue;
                }
                last_reaction = Some(Instant::now());
            }
        }
        let problem = match arp::announce_on(socket.get_ref(), ip) {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        let mut report = report.lock().expect("no panic happens under this lock");
        report.sent += u64::from(problem.is_none());
        report.problem = problem;
    }
}

/// Waits until someone else speaks as `ip`.
async fn hear(socket: &AsyncFd<ArpSocket>, ip: Ipv4Addr) -> Mac {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return std::future::pending().await;
        };
        match socket.get_ref().try_receive() {
            Ok(Some(packet)) if packet.sender.1 == ip => return packet.sender.0,
            Ok(Some(_)) => {}
            // Nothing more, or "network is down", which reading has cleared.
            Ok(None) | Err(_) => ready.clear_ready(),
        }
    }
}
