//! The thread: sends pulses, reads datagrams, ticks the detectors, hands over what they found.
//!
//! It waits in one place (`poll`), allocates little, and never waits for the agent: what cannot be handed over stays
//! here, coalesced. **Invariant:** detectors are ticked before anything that waited is looked at.

use super::peer::PeerState;
use super::session::Verdict;
use super::socket::Port;
use super::wire::{self, Body, DATAGRAM_MAX, DIGESTS_BESIDE_WORDS_MAX, DIGESTS_MAX, Digest, Refusal};
use super::words::{self, Said};
use super::{Config, NetworkSnapshot, Ran, Shared, Snapshot};
use cluster::mirror::Advert;
use model::ModuleId;
use model::limits::{DEAF_MS, MUTE_MS};
use platform::clock::boot_ms;
use platform::process::realtime::{Realtime, become_realtime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Datagrams read of one socket before pulses are looked at again: a flood must not delay them.
const READS_MAX: usize = 64;
/// Between two answers to unconfirmed datagrams of one peer on one network.
const ANSWER_EVERY_MS: u64 = 20;
/// An agent that ends says so so often: one datagram may be lost.
const FAREWELLS: usize = 3;
/// How often detectors are ticked at least.
const TICK_MS: u64 = 50;

pub(super) struct Work {
    config: Config,
    instance: u64,
    sequence: u64,
    ports: Vec<Port>,
    peers: Vec<PeerState>,
    adverts: Vec<(ModuleId, Advert)>,
    words: Option<Vec<(ModuleId, Said)>>,
    generation: u64,
    /// Which module begins the next datagram, when not all fit.
    turn: usize,
    /// Which farm begins the words of the next round of datagrams, and how many the last one had.
    words_turn: usize,
    words_told: usize,
    /// Said instead of the farms' words: the end of this agent.
    away_ms: Option<u16>,
    realtime: Option<Realtime>,
    events: mpsc::Sender<super::Event>,
    shared: Arc<Mutex<Shared>>,
    ran: Arc<Ran>,
    stop: Arc<AtomicBool>,
    kick: Arc<OwnedFd>,
}

impl Work {
    pub(super) fn new(
        config: Config,
        instance: u64,
        events: mpsc::Sender<super::Event>,
        shared: Arc<Mutex<Shared>>,
        ran: Arc<Ran>,
        stop: Arc<AtomicBool>,
        kick: Arc<OwnedFd>,
    ) -> Self {
        let now_ms = boot_ms();
        let peers = config.peers.iter().map(|peer| PeerState::new(peer.clone(), &config, instance, now_ms)).collect();
        Self {
            ports: ports_of(&config),
            peers,
            config,
            instance,
            sequence: 0,
            adverts: Vec::new(),
            words: None,
            generation: 0,
            turn: 0,
            words_turn: 0,
            words_told: 0,
            away_ms: None,
            realtime: None,
            events,
            shared,
            ran,
            stop,
            kick,
        }
    }

    pub(super) fn run(mut self) {
        self.realtime = Some(become_realtime());
        let mut next_pulse_ms = 0;
        while !self.stop.load(Ordering::Acquire) {
            let now_ms = boot_ms();
            self.tick(now_ms);
            let is_changed = self.take_orders(now_ms);
            for port in &mut self.ports {
                port.open(now_ms);
            }
            let is_due = now_ms >= next_pulse_ms;
            if is_changed || is_due {
                self.pulse_everyone();
            }
            if is_due {
                // After a sleep the missed pulses are not made up for; an extra one puts off none.
                let pulse_ms = self.config.pulse_ms();
                next_pulse_ms = next_pulse_ms.max(now_ms.saturating_sub(pulse_ms)) + pulse_ms;
            }
            self.hand_over(now_ms);
            let now_ms = boot_ms();
            let wait_ms = next_pulse_ms.saturating_sub(now_ms).min(TICK_MS).min(self.config.pulse_ms().div_ceil(2));
            // A silence is found when it is one, not up to a tick later: that tick is outage.
            let silence_ms = self.peers.iter().filter_map(PeerState::next_silence_ms).min();
            let wait_ms = silence_ms.map_or(wait_ms, |at| wait_ms.min(at.saturating_sub(now_ms)));
            let readable = self.wait(wait_ms);
            // First of all after a wait: did this node sleep?
            self.tick(boot_ms());
            for (network, is_readable) in readable.into_iter().enumerate() {
                if is_readable {
                    self.read(network);
                }
            }
        }
        self.say_farewell();
    }

    /// Where a farm's filters go on without their agent, the others should know that it comes back.
    fn say_farewell(&mut self) {
        self.away_ms = self.shared.lock().ok().and_then(|shared| shared.away_ms);
        let has_farms = self.words.as_ref().is_some_and(|words| !words.is_empty());
        if self.away_ms.is_some() && has_farms {
            (0..FAREWELLS).for_each(|_| self.pulse_everyone());
        }
    }

    fn tick(&mut self, now_ms: u64) {
        self.ran.note(now_ms);
        for peer in &mut self.peers {
            peer.tick(now_ms);
        }
    }

    /// New adverts or configuration, if any and if they can be had without waiting. True: send now.
    fn take_orders(&mut self, now_ms: u64) -> bool {
        let Ok(mut shared) = self.shared.try_lock() else { return false };
        let mut is_changed = false;
        if shared.generation != self.generation {
            self.generation = shared.generation;
            self.adverts.clone_from(&shared.adverts);
            self.words.clone_from(&shared.words);
            is_changed = true;
        }
        let config = shared.next_config.take();
        drop(shared);
        if let Some(config) = config {
            self.reconfigure(config, now_ms);
            is_changed = true;
        }
        is_changed
    }

    fn reconfigure(&mut self, config: Config, now_ms: u64) {
        let is_same_ground = (&config.networks, config.cluster, config.node, config.port, config.timing, config.key)
            == (
                &self.config.networks,
                self.config.cluster,
                self.config.node,
                self.config.port,
                self.config.timing,
                self.config.key,
            );
        if !is_same_ground {
            self.ports = ports_of(&config);
            self.peers.clear();
        }
        for (network, port) in self.ports.iter_mut().enumerate() {
            port.expect(peers_of(&config, network));
        }
        let mut before = std::mem::take(&mut self.peers);
        for peer in &config.peers {
            let kept = before.iter().position(|old| old.peer == *peer).map(|at| before.swap_remove(at));
            let mut peer = kept.unwrap_or_else(|| PeerState::new(peer.clone(), &config, self.instance, now_ms));
            peer.judge_with(&config, self.instance, now_ms);
            self.peers.push(peer);
        }
        self.config = config;
    }

    /// Sleeps at most so long, or until a datagram or an order comes. Which sockets have something?
    fn wait(&self, wait_ms: u64) -> Vec<bool> {
        let mut of_port = Vec::with_capacity(self.ports.len());
        let mut fds = vec![PollFd::new(&*self.kick, PollFlags::IN)];
        for port in &self.ports {
            of_port.push(port.socket().map(|socket| {
                fds.push(PollFd::new(socket, PollFlags::IN));
                fds.len() - 1
            }));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: (wait_ms * 1_000_000) as i64 };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return vec![false; of_port.len()];
        }
        if !fds[0].revents().is_empty() {
            rustix::io::read(&*self.kick, &mut [0; 8]).ok();
        }
        of_port.into_iter().map(|at| at.is_some_and(|at| !fds[at].revents().is_empty())).collect()
    }

    fn pulse_everyone(&mut self) {
        let (digests, is_whole) = self.digests();
        self.words_turn =
            (self.words_turn + self.words_told) % self.words.as_ref().map_or(1, |words| words.len().max(1));
        for network in 0..self.ports.len() {
            for peer in 0..self.peers.len() {
                self.pulse(peer, network, None, &digests, is_whole);
            }
        }
    }

    /// Sends one datagram, stamped with this instant; none while the disk does not answer ([`MUTE_MS`]), or the rest of this agent
    /// ([`DEAF_MS`]).
    fn pulse(&mut self, peer: usize, network: usize, answer: Option<(u64, u64)>, digests: &[Digest], is_whole: bool) {
        if platform::store::longest_write_ms() >= MUTE_MS || super::awake::asleep_ms() >= DEAF_MS {
            return;
        }
        let now_ms = boot_ms();
        let state = &self.peers[peer];
        let Some(to) = state.peer.addresses.get(network).copied().flatten() else { return };
        let Some(pulse) = state.pulse(network, now_ms) else { return };
        self.sequence += 1;
        let body = Body {
            cluster: self.config.cluster.0,
            from: self.config.node.0,
            to: state.peer.node.0,
            network: self.ports[network].id,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            instance: self.instance,
            sent_ms: pulse.sent_ms,
            echo: answer.or(pulse.echo).or(state.session.candidate()),
            hears: pulse.hears,
            is_whole,
            digests: digests.to_vec(),
        };
        let mut told = 0;
        let datagram = wire::encode_with(&body, &self.config.key, |room| {
            if let Some(away_ms) = self.away_ms {
                return words::farewell(away_ms);
            }
            let (bytes, count) = words::encode(self.words.as_deref(), self.words_turn, room);
            told = count;
            bytes
        });
        self.words_told = told;
        self.ports[network].send(&datagram, to);
    }

    /// The modules to tell now: all, or as many as fit, in turns.
    fn digests(&mut self) -> (Vec<Digest>, bool) {
        let count = self.adverts.len();
        let has_words = self.words.as_ref().is_some_and(|words| !words.is_empty());
        let most = if has_words { DIGESTS_BESIDE_WORDS_MAX } else { DIGESTS_MAX };
        if count <= most {
            return (self.adverts.iter().map(|(module, advert)| Digest::new(*module, advert)).collect(), true);
        }
        let begin = self.turn % count;
        self.turn = (begin + most) % count;
        let digests = self.adverts.iter().cycle().skip(begin).take(most);
        (digests.map(|(module, advert)| Digest::new(*module, advert)).collect(), false)
    }

    fn read(&mut self, network: usize) {
        let mut buffer = [0; DATAGRAM_MAX + 1];
        for _ in 0..READS_MAX {
            let Some((length, from)) = self.ports[network].receive(&mut buffer) else { return };
            self.handle(network, from, &buffer[..length.min(buffer.len())]);
        }
    }

    fn handle(&mut self, network: usize, from: IpAddr, datagram: &[u8]) {
        let id = self.ports[network].id;
        let counters = &mut self.ports[network].counters;
        // The cheapest first: whose address is it?
        let Some(peer) = self.peers.iter().position(|it| it.peer.addresses.get(network) == Some(&Some(from))) else {
            counters.strangers += 1;
            return;
        };
        let (body, behind) = match wire::decode_with(datagram, &self.config.key) {
            Ok(read) => read,
            Err(Refusal::Garbage) => return counters.garbage += 1,
            Err(Refusal::Forged) => return counters.forged += 1,
            Err(Refusal::Unreadable) => return counters.misdirected += 1,
        };
        let meant = (body.cluster, body.from, body.to, body.network);
        let is_for_us = meant == (self.config.cluster.0, self.peers[peer].peer.node.0, self.config.node.0, id);
        if !is_for_us {
            counters.misdirected += 1;
            return;
        }
        let now_ms = boot_ms();
        let networks = self.ports.len();
        let state = &mut self.peers[peer];
        let must_answer = match state.session.judge(&body, network, networks, now_ms) {
            Verdict::Counted { hears_me, is_new } => {
                self.ports[network].counters.counted += 1;
                let heard = state.count(&body, behind, network, hears_me, now_ms);
                // Another follows in a pulse's time: may be lost.
                self.events.try_send(heard).ok();
                is_new
            }
            Verdict::Replayed => {
                self.ports[network].counters.replayed += 1;
                false
            }
            Verdict::Unconfirmed => {
                self.ports[network].counters.unconfirmed += 1;
                true
            }
        };
        let state = &mut self.peers[peer];
        if must_answer && now_ms >= state.answered_ms[network] + ANSWER_EVERY_MS {
            state.answered_ms[network] = now_ms;
            let (digests, is_whole) = self.digests();
            self.pulse(peer, network, Some((body.instance, body.sent_ms)), &digests, is_whole);
        }
    }

    /// Events that wait, as far as there is room; and the snapshot, if nobody is reading it right now.
    fn hand_over(&mut self, now_ms: u64) {
        for peer in &mut self.peers {
            peer.hand_over(&self.events, now_ms);
        }
        self.ports.iter_mut().for_each(Port::count_strangers);
        if let Ok(mut shared) = self.shared.try_lock() {
            let networks = self.ports.iter().map(|port| NetworkSnapshot {
                name: port.name.clone(),
                problem: port.problem.clone(),
                counters: port.counters,
            });
            shared.snapshot = Snapshot {
                realtime: self.realtime.clone(),
                networks: networks.collect(),
                peers: self.peers.iter().map(|peer| peer.snapshot(now_ms)).collect(),
            };
        }
    }
}

fn ports_of(config: &Config) -> Vec<Port> {
    config
        .networks
        .iter()
        .enumerate()
        .map(|(at, network)| {
            let id = wire::network_id(&network.name);
            Port::new(&network.name, id, network.local, config.port, peers_of(config, at))
        })
        .collect()
}

/// Addresses of the other nodes there.
fn peers_of(config: &Config, network: usize) -> Vec<IpAddr> {
    config.peers.iter().filter_map(|peer| peer.addresses.get(network).copied().flatten()).collect()
}
