//! Heartbeats: "I am here, on this network, in this state, and I hear you" — every 100 ms, to every other node.
//!
//! One thread of its own, real time if it can be had, that shares no queue with anything else. It delivers; the
//! pure [`cluster::detector`] it feeds says what silence means, and nobody here draws a conclusion.
//! **Invariant:** a datagram counts only if its tag is right, it is meant for this node and this network, it echoes the
//! random number of *this* start of the agent, and it is newer than what was counted before.

pub mod awake;
pub(crate) mod hostile;
mod peer;
mod session;
mod socket;
mod thread;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use cluster::detector::Signal;
use cluster::mirror::Advert;
use model::limits::Timing;
use model::{ClusterId, ModuleId, NodeId};
use platform::process::Realtime;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

pub use wire::DATAGRAM_MAX;
pub use words::{Said, Words};

/// UDP port of the heartbeats.
pub const PORT: u16 = 4800;
/// Events waiting for the agent. What must not be lost waits in the thread when this is full.
pub const EVENTS_MAX: usize = 256;

/// Who heartbeats with whom, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This cluster: datagrams of any other are foreign.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Number of starts of this agent (`boots`): told to the others.
    pub incarnation: u64,
    /// Authenticates every datagram: `identity.key("heartbeat")`.
    pub key: [u8; 32],
    /// [`PORT`].
    pub port: u16,
    /// The lans of `cluster.xml` on which this node has an address; the index is the number in events.
    pub networks: Vec<Network>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Pulse and patience of the cluster itself.
    pub timing: Timing,
    /// Those of modules that have their own: the same pulses are judged by each, and leave as often as the quickest wants.
    pub others: Vec<Judge>,
}

impl Config {
    /// All of them, the cluster's own first.
    fn judges(&self) -> impl Iterator<Item = Judge> {
        std::iter::once(Judge::by_any(self.timing)).chain(self.others.iter().cloned())
    }

    fn pulse_ms(&self) -> u64 {
        self.judges().map(|judge| judge.timing.pulse_ms).min().unwrap_or(self.timing.pulse_ms).max(1)
    }
}

/// By what the life of the other nodes is judged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Judge {
    /// With which patience.
    pub timing: Timing,
    /// By which networks; empty: by any.
    pub networks: Arc<[String]>,
}

impl Judge {
    /// A peer lives that is heard anywhere.
    #[must_use]
    pub fn by_any(timing: Timing) -> Self {
        Self { timing, networks: Arc::default() }
    }

    /// Does that one of these networks count?
    #[must_use]
    pub fn counts(&self, networks: &[String], network: usize) -> bool {
        let is_named = |name: &String| self.networks.contains(name);
        // A judge that names none of them names nothing.
        networks.get(network).is_some_and(is_named) || !networks.iter().any(is_named)
    }
}

/// A network with an address of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Name of the lan: the same on all nodes.
    pub name: String,
    /// This node's own address there (never a virtual IP).
    pub local: IpAddr,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// Its address on each of [`Config::networks`]; `None` where it has none.
    pub addresses: Vec<Option<IpAddr>>,
}

/// What the thread tells the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// What the detector of this peer found. Never lost, in order.
    Signals {
        /// The peer.
        from: NodeId,
        /// Boot-time clock when the last of them was found.
        at_ms: u64,
        /// At least one, each with what it was judged by.
        signals: Vec<(Judge, Signal)>,
    },
    /// What this peer says of its modules has changed. The last word is never lost; words in between may be.
    Adverts {
        /// The peer.
        from: NodeId,
        /// Its number of starts.
        incarnation: u64,
        /// Boot-time clock.
        at_ms: u64,
        /// The changed ones; `None`: it has no such module any more.
        changed: Vec<(ModuleId, Option<Advert>)>,
    },
    /// What this peer says of its farms has changed, or it is heard again: the whole of it. The last one is never lost.
    Words {
        /// The peer.
        from: NodeId,
        /// By module; without `is_whole` there may be more.
        words: Words,
    },
    /// One datagram counted. Dropped when the agent is slow: another follows.
    Heard {
        /// The peer.
        from: NodeId,
        /// Index in [`Config::networks`].
        network: usize,
        /// Its number of starts.
        incarnation: u64,
        /// Boot-time clock.
        at_ms: u64,
        /// It heard us on this network, and lately.
        hears_me: bool,
    },
}

/// The whole picture, for the status. At most 50 ms old.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// What the thread reached of real-time scheduling.
    pub realtime: Option<Realtime>,
    /// Per network of [`Config::networks`].
    pub networks: Vec<NetworkSnapshot>,
    /// Per peer.
    pub peers: Vec<PeerSnapshot>,
}

/// One network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkSnapshot {
    /// Name of the lan.
    pub name: String,
    /// Why nothing can be sent or received there at the moment.
    pub problem: Option<String>,
    /// What came and went.
    pub counters: Counters,
}

/// Datagrams of one network, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Sent.
    pub sent: u64,
    /// Authentic, fresh, counted.
    pub counted: u64,
    /// From an address that is no peer's, or more than there is room for: not even looked at.
    pub strangers: u64,
    /// Too short, too long, or of an unknown version.
    pub garbage: u64,
    /// Wrong tag: forged, altered, or another cluster's secret.
    pub forged: u64,
    /// Right tag, and not for us: another cluster, receiver or network, or an unreadable body.
    pub misdirected: u64,
    /// Seen before, or of an agent that has been replaced.
    pub replayed: u64,
    /// Does not echo this start of the agent yet: answered, not counted.
    pub unconfirmed: u64,
}

/// One peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSnapshot {
    /// Which.
    pub node: NodeId,
    /// Its number of starts, once heard.
    pub incarnation: Option<u64>,
    /// Milliseconds since anything was heard of it, on any network.
    pub silent_ms: u64,
    /// Until when (boot-time clock) the takeover window is open, if it ever was.
    pub window_until_ms: Option<u64>,
    /// Per network of [`Config::networks`].
    pub links: Vec<LinkSnapshot>,
}

/// One peer on one network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkSnapshot {
    /// The peer has an address here.
    pub is_configured: bool,
    /// Heard in both directions, lately: the link counts.
    pub is_up: bool,
    /// Milliseconds since something was heard here.
    pub heard_ms_ago: Option<u64>,
    /// What it last said: it hears us here.
    pub hears_us: bool,
}

/// What the thread and its owner share. Held for microseconds; the thread never waits for it.
#[derive(Debug, Default)]
struct Shared {
    adverts: Vec<(ModuleId, Advert)>,
    words: Option<Vec<(ModuleId, Said)>>,
    away_ms: Option<u16>,
    /// Counts changes of what is to be said.
    generation: u64,
    /// Taken by the thread.
    next_config: Option<Config>,
    snapshot: Snapshot,
}

/// When the thread ran: others went on without this node while it did not.
#[derive(Debug, Default)]
pub struct Ran {
    /// Boot-time clock of its last look.
    last_ms: AtomicU64,
    /// Its latest pauses, as (end, length), oldest first: as many as matter to anybody who looks ten times a second.
    pauses: Mutex<VecDeque<(u64, u64)>>,
}

/// Pauses kept; and shorter ones are none.
const PAUSES_MAX: usize = 8;
const PAUSE_MIN_MS: u64 = 100;

impl Ran {
    /// The thread looks at the clock.
    fn note(&self, now_ms: u64) {
        let before_ms = self.last_ms.swap(now_ms, Ordering::AcqRel);
        let length = now_ms.saturating_sub(before_ms);
        if before_ms > 0
            && length >= PAUSE_MIN_MS
            && let Ok(mut pauses) = self.pauses.lock()
        {
            pauses.push_back((now_ms, length));
            let surplus = pauses.len().saturating_sub(PAUSES_MAX);
            pauses.drain(..surplus);
        }
    }

    /// Was nothing sent for so long, at any time that ended after `since_ms`?
    #[must_use]
    pub fn paused(&self, since_ms: u64, length_ms: u64, now_ms: u64) -> bool {
        let last_ms = self.last_ms.load(Ordering::Acquire);
        let is_paused = last_ms > 0 && now_ms.saturating_sub(last_ms) >= length_ms;
        let Ok(pauses) = self.pauses.lock() else { return is_paused };
        is_paused || pauses.iter().any(|(end_ms, length)| *end_ms >= since_ms && *length >= length_ms)
    }
}

/// The running thread. Dropping it ends it.
#[derive(Debug)]
pub struct Heartbeat {
    shared: Arc<Mutex<Shared>>,
    ran: Arc<Ran>,
    stop: Arc<AtomicBool>,
    kick: Arc<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts the thread: the first heartbeats leave at once. A network whose address is not there yet is no
    /// error: it is tried again each second, and the snapshot says so.
    ///
    /// # Errors
    /// When the operating system gives no thread, no randomness or no descriptor.
    pub fn start(config: Config, adverts: Vec<(ModuleId, Advert)>) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let kick = Arc::new(rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?);
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let shared = Arc::new(Mutex::new(Shared { adverts, generation: 1, ..Shared::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let ran = Arc::<Ran>::default();
        let work = thread::Work::new(
            config,
            u64::from_le_bytes(random),
            events,
            Arc::clone(&shared),
            Arc::clone(&ran),
            Arc::clone(&stop),
            Arc::clone(&kick),
        );
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || work.run())?;
        Ok((Self { shared, ran, stop, kick, thread: Some(thread) }, receiver))
    }

    /// What to say of the modules from now on. A change is sent at once.
    pub fn set_adverts(&self, adverts: Vec<(ModuleId, Advert)>) {
        let mut shared = self.lock();
        if shared.adverts != adverts {
            shared.adverts = adverts;
            shared.generation += 1;
            drop(shared);
            self.wake();
        }
    }

    /// What to say of the farms from now on. A change is sent at once. Before the first call nothing is known of them.
    pub fn set_words(&self, words: Vec<(ModuleId, Said)>) {
        let words = Some(words);
        let mut shared = self.lock();
        if shared.words != words {
            shared.words = words;
            shared.generation += 1;
            drop(shared);
            self.wake();
        }
    }

    /// This agent ends, and another is to follow it: the others are told that what its filters do goes on for so long.
    pub fn leave(self, away_ms: u16) {
        self.lock().away_ms = Some(away_ms);
        // The thread says it before it ends, and is waited for.
        drop(self);
    }

    /// Other peers, networks, times (`cluster.xml` changed). Peers that stay as they are keep their history.
    pub fn reconfigure(&self, config: Config) {
        self.lock().next_config = Some(config);
        self.wake();
    }

    /// When it ran.
    #[must_use]
    pub fn ran(&self) -> Arc<Ran> {
        Arc::clone(&self.ran)
    }

    /// The picture as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Is the takeover window of this peer open at this instant? (Never says yes too long: what the thread has not
    /// published yet could only lengthen it.)
    #[must_use]
    pub fn window_is_open(&self, peer: NodeId) -> bool {
        let until = self.lock().snapshot.peers.iter().find(|it| it.node == peer).and_then(|it| it.window_until_ms);
        until.is_some_and(|until| platform::clock::boot_ms() < until)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic happens under this lock")
    }

    fn wake(&self) {
        // A full counter means that it is awake already.
        rustix::io::write(&*self.kick, &1u64.to_ne_bytes()).ok();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn endpoint(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
