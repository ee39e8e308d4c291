//! How a session's two connections find each other: dialling, listening, greetings.
//!
//! **Invariant:** a session begins only when both connections carry the same session, epoch and pair number,
//! the session is the one that was ordered, and both sides said so.

use super::{Channel, DIAL_MS, FrameReader, FrameWriter, HANDSHAKE_MS, HANDSHAKES_MAX, Identity, LinkError};
use model::ids::Lsn;
use model::orders::Session;
use replica::wire::{
    Direction, Envelope, FEATURE_MOVES, FEATURE_VERIFY, Hello, Message, TELLS_HOT, VERSION, VERSION_MIN, Welcome,
    fingerprint,
};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const GREETING_MAX: u32 = 4096;
/// Between two tries, and what a better address has beside one that answered.
const AGAIN: Duration = Duration::from_millis(50);

/// What a leader has after dialling.
pub struct Dialled {
    /// The ordered stream.
    pub changes: Channel,
    /// What comes back.
    pub answers: Channel,
    /// The follower's process.
    pub instance: u64,
    /// The leader process it followed last; 0: none.
    pub followed: u64,
    /// How far it had applied then.
    pub applied: Lsn,
    /// What it can do ([`replica::wire::Welcome::features`]).
    pub features: u64,
}

/// Connects both directions to one of `addrs`, trying again until [`DIAL_MS`] are over or `go_on` says no.
///
/// # Errors
/// [`LinkError::Refused`] at once, unless the follower speaks of another session: its agent may not have ordered this one
/// yet (a resume must not fail because of that). Anything else after the last try.
pub fn dial(
    addrs: &[SocketAddr],
    identity: &Identity,
    hello: &Hello<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<Dialled, LinkError> {
    let deadline = Instant::now() + Duration::from_millis(DIAL_MS);
    let mut last = String::from("no address answers");
    loop {
        if let Some(addr) = first_to_answer(addrs, deadline, go_on) {
            match dial_one(addr, identity, hello) {
                Ok(dialled) => return Ok(dialled),
                Err(refused @ LinkError::Refused(_)) => return Err(refused),
                Err(e) => last = format!("{addr}: {e}"),
            }
        }
        if Instant::now() >= deadline || !go_on() {
            return Err(LinkError::Unreachable(DIAL_MS, last));
        }
        std::thread::sleep(AGAIN);
    }
}

/// The address that takes a connection first, an earlier one before a later; `None`: none until `deadline`, or `go_on` says no.
/// Each is knocked at by itself and again: a network that swallows everything keeps nobody waiting, nor does a peer that does not listen yet.
fn first_to_answer(addrs: &[SocketAddr], deadline: Instant, go_on: &dyn Fn() -> bool) -> Option<SocketAddr> {
    if let [only] = addrs {
        return Some(*only);
    }
    let found = Arc::new(AtomicBool::new(false));
    let (tx, rx) = mpsc::channel();
    for (place, addr) in addrs.iter().copied().enumerate() {
        let (tx, found) = (tx.clone(), Arc::clone(&found));
        let knock = move || {
            while !found.load(Ordering::Acquire) && Instant::now() < deadline {
                if std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(HANDSHAKE_MS)).is_ok() {
                    // Who asked may have gone on with another one.
                    let _ = tx.send(place);
                    return;
                }
                std::thread::sleep(AGAIN);
            }
        };
        std::thread::Builder::new().name("link-knock".into()).spawn(knock).ok()?;
    }
    drop(tx);
    let mut best: Option<usize> = None;
    while best.is_some() || (go_on() && Instant::now() < deadline) {
        match rx.recv_timeout(AGAIN) {
            Ok(place) => best = Some(best.map_or(place, |best| best.min(place))),
            // A moment later than the first no better one came.
            Err(_) if best.is_some() => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if best == Some(0) {
            break;
        }
    }
    found.store(true, Ordering::Release);
    best.map(|place| addrs[place])
}

fn dial_one(addr: SocketAddr, identity: &Identity, hello: &Hello<'_>) -> Result<Dialled, LinkError> {
    let (changes, _) = greet(addr, identity, &Hello { direction: Direction::Changes, ..*hello })?;
    let (answers, said) = greet(addr, identity, &Hello { direction: Direction::Answers, ..*hello })?;
    let Said { instance, followed, applied, features } = said;
    Ok(Dialled { changes, answers, instance, followed, applied, features })
}

/// What a follower says of itself.
struct Said {
    instance: u64,
    followed: u64,
    applied: Lsn,
    features: u64,
}

fn greet(addr: SocketAddr, identity: &Identity, hello: &Hello<'_>) -> Result<(Channel, Said), LinkError> {
    let mut writer = FrameWriter::new(Channel::connect(addr, identity)?);
    let envelope = Envelope { session: hello.session, epoch: fingerprint(hello.epoch), lsn: 0 };
    writer.send(&Message::Hello(*hello), &envelope)?;
    let mut reader = FrameReader::new(writer.into_channel());
    let (header, answer) = reader.next(GREETING_MAX)?;
    let said = match answer {
        Message::Welcome(w) if w.accepted => {
            Said { instance: w.instance, followed: w.followed, applied: w.applied, features: w.features }
        }
        Message::Welcome(w) if header.session != hello.session => {
            return Err(LinkError::Protocol(String::from_utf8_lossy(w.reason).into_owned()));
        }
        Message::Welcome(w) => return Err(LinkError::Refused(String::from_utf8_lossy(w.reason).into_owned())),
        other => return Err(LinkError::Protocol(format!("{other:?} instead of a welcome"))),
    };
    Ok((reader.into_channel(), said))
}

/// One connection whose greeting was accepted.
pub struct Accepted {
    direction: Direction,
    pair: u64,
    /// The leader's process.
    instance: u64,
    channel: Channel,
}

/// What this follower says to whom; asked once per connection, after the peer proved who it is.
#[derive(Clone, Debug)]
pub struct Expecting {
    /// The session that was ordered.
    pub session: Session,
    /// Resume or resync.
    pub resume: bool,
    /// Module.
    pub module: String,
    /// This process.
    pub instance: u64,
    /// The leader process followed last.
    pub followed: u64,
    /// Applied then.
    pub applied: Lsn,
}

/// Listens on the replication port for one session, whatever strangers do to the port.
pub struct Listener {
    stop: Arc<AtomicBool>,
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// No address could be bound.
    pub fn start(addrs: &[SocketAddr], identity: &Identity, expecting: Expecting) -> Result<Self, LinkError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tx, rx) = mpsc::sync_channel(4);
        let (busy, peer_busy) = (Arc::default(), Arc::default());
        let mut threads = Vec::new();
        let mut last = std::io::Error::other("no address to listen on is configured");
        for addr in addrs {
            match TcpListener::bind(addr) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    let acceptor = Acceptor {
                        listener,
                        stop: stop.clone(),
                        busy: Arc::clone(&busy),
                        peer_busy: Arc::clone(&peer_busy),
                        tx: tx.clone(),
                        identity: identity.clone(),
                        expecting: Arc::new(expecting.clone()),
                    };
                    let accept = std::thread::Builder::new().name("link-accept".into());
                    threads.push(accept.spawn(move || acceptor.run())?);
                }
                Err(e) => last = std::io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")),
            }
        }
        if threads.is_empty() { Err(last.into()) } else { Ok(Self { stop, accepted: Mutex::new(rx), threads }) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The port is free when this returns.
        for thread in self.threads.drain(..) {
            // A panic in it has aborted the process already.
            let _ = thread.join();
        }
    }
}

/// Waits for both connections of one attempt. `None`: nothing yet, or `go_on` said no.
///
/// # Errors
/// The socket options could not be set.
pub fn accept_pair(listener: &Listener, go_on: &dyn Fn() -> bool) -> Option<(Channel, Channel, u64)> {
    let rx = listener.accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut waiting: Option<Accepted> = None;
    while go_on() {
        let Ok(next) = rx.recv_timeout(Duration::from_millis(50)) else { continue };
        match waiting.take() {
            Some(first) if first.pair == next.pair && first.direction != next.direction => {
                let instance = next.instance;
                let (changes, answers) = if next.direction == Direction::Answers {
                    (first.channel, next.channel)
                } else {
                    (next.channel, first.channel)
                };
                return Some((changes, answers, instance));
            }
            // A new attempt makes an unfinished one void.
            _ => waiting = Some(next),
        }
    }
    None
}

struct Acceptor {
    listener: TcpListener,
    stop: Arc<AtomicBool>,
    /// Handshakes of strangers.
    busy: Arc<AtomicUsize>,
    /// Of whoever calls from an address of the peer's.
    peer_busy: Arc<AtomicUsize>,
    tx: mpsc::SyncSender<Accepted>,
    identity: Identity,
    expecting: Arc<Expecting>,
}

impl Acceptor {
    fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            let mut fds = [rustix::event::PollFd::new(&self.listener, rustix::event::PollFlags::IN)];
            let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            // An interrupted or failed poll only means: look again.
            let _ = rustix::event::poll(&mut fds, Some(&pause));
            let Ok((socket, from)) = self.listener.accept() else { continue };
            let is_peer = self.identity.is_there(from.ip());
            let busy = Arc::clone(if is_peer { &self.peer_busy } else { &self.busy });
            let taken = Arc::clone(&busy);
            if taken.fetch_add(1, Ordering::AcqRel) >= HANDSHAKES_MAX {
                taken.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (identity, expecting, tx) = (self.identity.clone(), self.expecting.clone(), self.tx.clone());
            let handshake = move || {
                match welcome(socket, &identity, &expecting) {
                    // Full: four connections wait already, this one is not needed.
                    Ok(accepted) => drop(tx.try_send(accepted)),
                    Err(e) => tracing::debug!(%from, "connection refused: {e}"),
                }
                busy.fetch_sub(1, Ordering::AcqRel);
            };
            if std::thread::Builder::new().name("link-greet".into()).spawn(handshake).is_err() {
                taken.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

fn welcome(socket: std::net::TcpStream, identity: &Identity, expecting: &Expecting) -> Result<Accepted, LinkError> {
    socket.set_write_timeout(Some(Duration::from_millis(HANDSHAKE_MS)))?;
    let mut reader = FrameReader::new(Channel::accept(socket, identity)?);
    let (direction, pair, instance, refusal) = match reader.next(GREETING_MAX)?.1 {
        Message::Hello(h) => (h.direction, h.pair, h.instance, refuse(&h, expecting)),
        other => return Err(LinkError::Protocol(format!("{other:?} instead of a hello"))),
    };
    let mut writer = FrameWriter::new(reader.into_channel());
    let session = expecting.session;
    let envelope = Envelope { session: session.number, epoch: fingerprint(session.epoch), lsn: 0 };
    let reason = refusal.clone().unwrap_or_default();
    writer.send(
        &Message::Welcome(Welcome {
            accepted: refusal.is_none(),
            version: VERSION,
            features: TELLS_HOT | FEATURE_VERIFY | FEATURE_MOVES,
            instance: expecting.instance,
            followed: expecting.followed,
            applied: expecting.applied,
            reason: reason.as_bytes(),
        }),
        &envelope,
    )?;
    match refusal {
        Some(reason) => Err(LinkError::Refused(reason)),
        None => Ok(Accepted { direction, pair, instance, channel: writer.into_channel() }),
    }
}

fn refuse(h: &Hello<'_>, expecting: &Expecting) -> Option<String> {
    let Expecting { session, resume, module, .. } = expecting;
    if h.module != module.as_bytes() {
        return Some(format!("this port belongs to module {module}"));
    }
    if h.versions.0 > VERSION || h.versions.1 < VERSION_MIN {
        let (a, b) = h.versions;
        return Some(format!("versions {a} to {b} are not understood here ({VERSION_MIN} to {VERSION})"));
    }
    if h.epoch != session.epoch || h.session != session.number {
        let (epoch, number) = (session.epoch, session.number);
        return Some(format!(
            "session {} of epoch {} is not expected here, but {number} of {epoch}",
            h.session, h.epoch
        ));
    }
    if h.resume != *resume {
        return Some("one side wants to resume, the other to resynchronise".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_swallows_everything_does_not_keep_the_other_one_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("its address");
        let other = TcpListener::bind("127.0.0.2:0").expect("a port");
        let there = other.local_addr().expect("its address");
        // Nothing answers here: TEST-NET-1 is routed nowhere (or refused at once, which is as well).
        let nowhere: SocketAddr = "192.0.2.1:9".parse().expect("an address");
        let first =
            |addrs: &[SocketAddr], ms| first_to_answer(addrs, Instant::now() + Duration::from_millis(ms), &|| true);
        assert_eq!(first(&[nowhere, here], 60_000), Some(here));
        assert_eq!(first(&[here, there], 60_000), Some(here), "the first one is preferred");
        assert_eq!(first(&[there, nowhere, here], 60_000), Some(there));
        drop(other);
        assert_eq!(first(&[nowhere, there], 150), None);
        // One that begins to listen later is found, whatever the other one swallows.
        let late = std::thread::spawn(move || {
            first_to_answer(&[nowhere, there], Instant::now() + Duration::from_secs(60), &|| true)
        });
        let other = TcpListener::bind(there).expect("its port again");
        assert_eq!(late.join().expect("it ends"), Some(there));
        drop(other);
        assert_eq!(first_to_answer(&[nowhere, there], Instant::now() + Duration::from_secs(60), &|| false), None);
    }
}
