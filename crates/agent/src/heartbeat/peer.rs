//! What the thread knows of one other node, and what it has not yet been able to hand over.

use super::session::Session;
use super::wire::{Body, Digest};
use super::words::{self, Said, Words};
use super::{Config, Event, Judge, LinkSnapshot, Peer, PeerSnapshot};
use cluster::detector::{Detector, Pulse, Signal};
use cluster::mirror::Advert;
use model::ModuleId;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Signals kept for an agent that does not read. It has been stuck for many failovers then: the oldest go.
const SIGNALS_MAX: usize = 256;
/// A module not told for so long by a peer that cannot tell all at once is gone.
const FORGET_MS: u64 = 5_000;

pub(super) struct PeerState {
    pub(super) peer: Peer,
    pub(super) session: Session,
    /// One for each judge, the cluster's own first.
    detectors: Vec<(Judge, Detector)>,
    /// When an unconfirmed datagram was last answered, per network.
    pub(super) answered_ms: Vec<u64>,
    /// When something counted, and whether it said that it hears us, per network.
    heard: Vec<Option<(u64, bool)>>,
    /// What it says of its modules, and when it last did.
    adverts: BTreeMap<ModuleId, (Advert, u64)>,
    /// What it says of its farms, and when it last did.
    words: BTreeMap<ModuleId, (Said, u64)>,
    /// Since when it has been telling them; `None`: not since it fell silent.
    telling_ms: Option<u64>,
    words_are_whole: bool,
    words_are_news: bool,
    /// News of an agent that ends or has been followed, as [`Words::away_ms`] says it.
    away_ms: Option<u16>,
    /// It has said that it ends, and none that knows its farms has followed.
    is_away: bool,
    /// Instance and sequence of the datagram learned from last: an older one that comes late teaches nothing.
    learned: (u64, u64),
    signals: Vec<(Judge, Signal)>,
    signals_ms: u64,
    changed: BTreeMap<ModuleId, Option<Advert>>,
}

fn detector(config: &Config, judge: Judge, instance: u64, now_ms: u64) -> (Judge, Detector) {
    let new = Detector::new(instance, config.networks.len(), judge.timing, now_ms);
    let names: Vec<String> = config.networks.iter().map(|network| network.name.clone()).collect();
    let detector = new.by(|network| judge.counts(&names, network));
    (judge, detector)
}

impl PeerState {
    pub(super) fn new(peer: Peer, config: &Config, instance: u64, now_ms: u64) -> Self {
        let networks = config.networks.len();
        Self {
            peer,
            session: Session::new(instance, config.timing.lost_ms.max(1_000)),
            detectors: config.judges().map(|judge| detector(config, judge, instance, now_ms)).collect(),
            answered_ms: vec![0; networks],
            heard: vec![None; networks],
            adverts: BTreeMap::new(),
            words: BTreeMap::new(),
            telling_ms: None,
            words_are_whole: false,
            words_are_news: false,
            away_ms: None,
            is_away: false,
            learned: (0, 0),
            signals: Vec::new(),
            signals_ms: now_ms,
            changed: BTreeMap::new(),
        }
    }

    /// Other modules: a judge that stays keeps its history, a new one begins its count now.
    pub(super) fn judge_with(&mut self, config: &Config, instance: u64, now_ms: u64) {
        let mut before = std::mem::take(&mut self.detectors);
        for judge in config.judges() {
            let kept = before.iter().position(|(old, _)| *old == judge).map(|at| before.swap_remove(at));
            self.detectors.push(kept.unwrap_or_else(|| detector(config, judge, instance, now_ms)));
        }
    }

    /// The one that says whether the peer is heard: the most patient, or a module that is would lose it with the first late pulse.
    fn patient(&self) -> Option<&Detector> {
        self.detectors.iter().max_by_key(|(judge, _)| judge.timing.lost_ms).map(|(_, detector)| detector)
    }

    pub(super) fn pulse(&self, network: usize, now_ms: u64) -> Option<Pulse> {
        self.patient().map(|detector| detector.pulse(network, now_ms))
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        self.ask(now_ms, |detector| detector.tick(now_ms));
    }

    /// When the next of its networks falls silent, by the least patient that may.
    pub(super) fn next_silence_ms(&self) -> Option<u64> {
        self.detectors.iter().filter_map(|(_, detector)| detector.next_silence_ms()).min()
    }

    fn ask(&mut self, now_ms: u64, question: impl Fn(&mut Detector) -> Vec<Signal>) {
        let mut signals = Vec::new();
        for (judge, detector) in &mut self.detectors {
            signals.extend(question(detector).into_iter().map(|signal| (judge.clone(), signal)));
        }
        // Who was told of its silence forgot what it said: all of it is news when it is heard again.
        if signals.iter().any(|(_, signal)| *signal == Signal::PeerSilent) {
            self.adverts.clear();
            self.words.clear();
            (self.telling_ms, self.words_are_news) = (None, false);
        }
        self.keep(signals, now_ms);
    }

    /// A datagram counted.
    pub(super) fn count(&mut self, body: &Body, behind: &[u8], network: usize, hears_me: bool, now_ms: u64) -> Event {
        let pulse = Pulse { hears: hears_me, ..body.pulse() };
        self.ask(now_ms, |detector| detector.heard(network, &pulse, now_ms));
        if let Some(heard) = self.heard.get_mut(network) {
            *heard = Some((now_ms, hears_me));
        }
        self.learn(body, behind, now_ms);
        Event::Heard { from: self.peer.node, network, incarnation: body.incarnation, at_ms: now_ms, hears_me }
    }

    fn learn(&mut self, body: &Body, behind: &[u8], now_ms: u64) {
        let (instance, sequence) = self.learned;
        if instance == body.instance && sequence > body.sequence {
            return;
        }
        self.learned = (body.instance, body.sequence);
        self.learn_words(words::decode(behind), now_ms);
        for (module, advert) in body.digests.iter().filter_map(Digest::advert) {
            let before = self.adverts.insert(module, (advert, now_ms));
            if before.is_none_or(|(before, _)| before != advert) {
                self.changed.insert(module, Some(advert));
            }
        }
        let oldest_ms = if body.is_whole { now_ms } else { now_ms.saturating_sub(FORGET_MS) };
        let changed = &mut self.changed;
        self.adverts.retain(|module, (_, told_ms)| {
            let stays = *told_ms >= oldest_ms;
            if !stays {
                changed.insert(*module, None);
            }
            stays
        });
    }

    fn learn_words(&mut self, told: Words, now_ms: u64) {
        let since_ms = *self.telling_ms.get_or_insert_with(|| {
            self.words_are_news = true;
            now_ms
        });
        let before = (self.words.len(), self.words_are_whole);
        // Who tells them in turns has told all of them after so long.
        self.words_are_whole = told.is_whole || now_ms.saturating_sub(since_ms) >= FORGET_MS;
        for (module, said) in told.of {
            if self.words.get(&module).is_none_or(|(known, _)| *known != said) {
                self.words_are_news = true;
            }
            self.words.insert(module, (said, now_ms));
        }
        let oldest_ms = if told.is_whole { now_ms } else { now_ms.saturating_sub(FORGET_MS) };
        self.words.retain(|_, (_, told_ms)| *told_ms >= oldest_ms);
        // An agent that does not know its farms yet may end without a word: what the one before said holds on.
        let is_back = told.is_whole && self.is_away;
        if let Some(news) = told.away_ms.or(is_back.then_some(0)) {
            (self.away_ms, self.is_away, self.words_are_news) = (Some(news), !is_back, true);
        }
        self.words_are_news |= before != (self.words.len(), self.words_are_whole);
    }

    fn keep(&mut self, signals: Vec<(Judge, Signal)>, now_ms: u64) {
        if !signals.is_empty() {
            self.signals_ms = now_ms;
            self.signals.extend(signals);
            let surplus = self.signals.len().saturating_sub(SIGNALS_MAX);
            self.signals.drain(..surplus);
        }
    }

    /// Gives what waits to the agent, as far as there is room; the rest waits on.
    pub(super) fn hand_over(&mut self, events: &mpsc::Sender<Event>, now_ms: u64) {
        if !self.signals.is_empty()
            && let Ok(room) = events.try_reserve()
        {
            room.send(Event::Signals {
                from: self.peer.node,
                at_ms: self.signals_ms,
                signals: std::mem::take(&mut self.signals),
            });
        }
        if self.words_are_news
            && self.signals.is_empty()
            && let Ok(room) = events.try_reserve()
        {
            self.words_are_news = false;
            let of = self.words.iter().map(|(module, (said, _))| (*module, said.clone())).collect();
            let words = Words { is_whole: self.words_are_whole, of, away_ms: self.away_ms.take() };
            room.send(Event::Words { from: self.peer.node, words });
        }
        if !self.changed.is_empty()
            && let Ok(room) = events.try_reserve()
        {
            let changed = std::mem::take(&mut self.changed).into_iter().collect();
            let incarnation = self.session.incarnation().unwrap_or(0);
            room.send(Event::Adverts { from: self.peer.node, incarnation, at_ms: now_ms, changed });
        }
    }

    pub(super) fn snapshot(&self, now_ms: u64) -> PeerSnapshot {
        let own = self.detectors.first().map(|(_, detector)| detector);
        let link = |(network, heard): (usize, &Option<(u64, bool)>)| LinkSnapshot {
            is_configured: self.peer.addresses.get(network).is_some_and(Option::is_some),
            is_up: own.is_some_and(|it| it.link_is_up(network)),
            heard_ms_ago: heard.map(|(at_ms, _)| now_ms.saturating_sub(at_ms)),
            hears_us: heard.is_some_and(|(_, hears_us)| hears_us),
        };
        PeerSnapshot {
            node: self.peer.node,
            incarnation: self.session.incarnation(),
            silent_ms: own.map_or(0, |it| it.silent_ms(now_ms)),
            window_until_ms: own.and_then(Detector::window_until_ms),
            links: self.heard.iter().enumerate().map(link).collect(),
        }
    }
}
