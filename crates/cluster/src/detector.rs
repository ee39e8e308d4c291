//! The failure detector of one peer node: pulses and times in, signals out.
//!
//! Pure: `now_ms` is the boot-time clock (it runs on while the machine sleeps). **Invariants:** a network counts only
//! when it is heard in both directions; silence is three pulses *and* the timeout; a detector that finds it slept
//! starts its count again and says so first; the takeover window counts from when *we sent* the pulse the peer says it heard (R18),
//! so a late datagram never lengthens it.

use alloc::vec::Vec;
use model::limits::{LOST_PULSES_MIN, PROBE_AFTER_PULSES, Timing};
use serde::{Deserialize, Serialize};

/// What one heartbeat says of liveness. The runtime adds authentication, sequence numbers and the modules' adverts,
/// and drops what is not authentic, repeated, or older than what it has seen on that network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pulse {
    /// Random number of the sending agent's start: echoes to an earlier start mean nothing.
    pub instance: u64,
    /// Sender's boot-time clock.
    pub sent_ms: u64,
    /// The newest pulse of yours that the sender heard, on any network: your instance and your `sent_ms`.
    pub echo: Option<(u64, u64)>,
    /// The sender hears you on this network.
    pub hears: bool,
}

/// What the detector found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// This node did not run for so long. Always first of its list.
    Froze {
        /// Length of the jump.
        ms: u64,
    },
    /// Network (index in the configuration) is heard in both directions.
    LinkUp(usize),
    /// Network is no longer heard in both directions.
    LinkDown(usize),
    /// At least one network that counts is up.
    PeerHeard,
    /// All networks that count are silent past the timeout; also said once when nothing was heard since the start.
    PeerSilent,
    /// [`PROBE_AFTER_PULSES`] pulses are missing on all networks.
    ProbeMayBegin,
    /// The peer confirmed lately that it hears us.
    WindowOpened,
    /// [`Timing::window_ms`] passed since we sent the last pulse the peer confirmed.
    WindowClosed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Link {
    /// When a pulse came in.
    heard_ms: Option<u64>,
    /// The peer's newest pulse said it hears us here.
    hears_us: bool,
    up: bool,
    /// It carries nothing that the peer is judged for.
    is_beside: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Unknown,
    Heard,
    Silent,
}

/// See the module's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detector {
    timing: Timing,
    instance: u64,
    links: Vec<Link>,
    peer: Peer,
    /// Newest pulse of the peer: what we echo.
    newest: Option<(u64, u64)>,
    /// When we sent the newest pulse the peer says it heard.
    confirmed_ms: Option<u64>,
    window_open: bool,
    probe_said: bool,
    /// Silence counts from here when nothing was heard since.
    counting_from_ms: u64,
    looked_ms: u64,
}

impl Detector {
    /// `instance`: random per agent start. `networks`: how many are configured.
    #[must_use]
    pub fn new(instance: u64, networks: usize, timing: Timing, now_ms: u64) -> Self {
        Self {
            timing,
            instance,
            links: alloc::vec![Link::default(); networks],
            peer: Peer::Unknown,
            newest: None,
            confirmed_ms: None,
            window_open: false,
            probe_said: false,
            counting_from_ms: now_ms,
            looked_ms: now_ms,
        }
    }

    /// The peer lives by these networks alone: what is heard on the others says nothing of it. They still come up and go down.
    #[must_use]
    pub fn by(mut self, counts: impl Fn(usize) -> bool) -> Self {
        for (index, link) in self.links.iter_mut().enumerate() {
            link.is_beside = !counts(index);
        }
        self
    }

    /// The pulse to send on this network now, every [`Timing::pulse_ms`].
    #[must_use]
    pub fn pulse(&self, network: usize, now_ms: u64) -> Pulse {
        Pulse {
            instance: self.instance,
            sent_ms: now_ms,
            echo: self.newest,
            hears: self.links.get(network).is_some_and(|link| self.is_fresh(link, now_ms)),
        }
    }

    /// An authentic pulse came in. Calls [`Detector::tick`] first.
    pub fn heard(&mut self, network: usize, pulse: &Pulse, now_ms: u64) -> Vec<Signal> {
        let mut signals = self.tick(now_ms);
        if self.newest.is_none_or(|(instance, sent)| instance != pulse.instance || sent < pulse.sent_ms) {
            self.newest = Some((pulse.instance, pulse.sent_ms));
        }
        if let Some((instance, sent_ms)) = pulse.echo
            && instance == self.instance
            && sent_ms <= now_ms
            && self.confirmed_ms.is_none_or(|before| before < sent_ms)
        {
            self.confirmed_ms = Some(sent_ms);
        }
        if let Some(link) = self.links.get_mut(network) {
            link.heard_ms = Some(now_ms);
            link.hears_us = pulse.hears;
        }
        self.judge(now_ms, &mut signals);
        signals
    }

    /// Call at least every half pulse, and before anything that waited is handled.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Signal> {
        let mut signals = Vec::new();
        let slept = now_ms.saturating_sub(self.looked_ms);
        self.looked_ms = now_ms;
        if slept >= self.timing.freeze_ms {
            signals.push(Signal::Froze { ms: slept });
            // The peer's silence during my sleep says nothing of it; my window went on to run.
            self.counting_from_ms = now_ms;
            self.probe_said = false;
            for link in self.links.iter_mut().filter(|link| link.up) {
                link.heard_ms = Some(now_ms);
            }
        }
        self.judge(now_ms, &mut signals);
        signals
    }

    /// When the next network falls silent if nothing is heard meanwhile: a tick at that instant finds it at once.
    #[must_use]
    pub fn next_silence_ms(&self) -> Option<u64> {
        self.links
            .iter()
            .filter(|link| link.up)
            .filter_map(|link| link.heard_ms)
            .min()
            .map(|at| at + self.patience_ms())
    }

    /// Is the takeover window open at this instant? The runtime asks again before it executes the first
    /// order after a claim by proof.
    #[must_use]
    pub fn window_is_open(&self, now_ms: u64) -> bool {
        self.confirmed_ms.is_some_and(|sent| now_ms < sent + self.timing.window_ms)
    }

    /// Until when the takeover window is open as far as is known now, if it ever was.
    #[must_use]
    pub fn window_until_ms(&self) -> Option<u64> {
        self.confirmed_ms.map(|sent| sent + self.timing.window_ms)
    }

    /// Is this network heard in both directions?
    #[must_use]
    pub fn link_is_up(&self, network: usize) -> bool {
        self.links.get(network).is_some_and(|link| link.up)
    }

    /// Milliseconds since anything was heard of the peer on any network that counts.
    #[must_use]
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        let last = self.counted().filter_map(|link| link.heard_ms).max().unwrap_or(0);
        now_ms.saturating_sub(last.max(self.counting_from_ms))
    }

    fn counted(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| !link.is_beside)
    }

    fn is_fresh(&self, link: &Link, now_ms: u64) -> bool {
        link.heard_ms.is_some_and(|at| now_ms.saturating_sub(at) < self.patience_ms())
    }

    fn patience_ms(&self) -> u64 {
        self.timing.lost_ms.max(LOST_PULSES_MIN * self.timing.pulse_ms)
    }

    fn judge(&mut self, now_ms: u64, signals: &mut Vec<Signal>) {
        for index in 0..self.links.len() {
            let up = self.links[index].hears_us && self.is_fresh(&self.links[index], now_ms);
            if up != self.links[index].up {
                self.links[index].up = up;
                signals.push(if up { Signal::LinkUp(index) } else { Signal::LinkDown(index) });
            }
        }
        let open = self.window_is_open(now_ms);
        if open != self.window_open {
            self.window_open = open;
            signals.push(if open { Signal::WindowOpened } else { Signal::WindowClosed });
        }
        let any_up = self.counted().any(|link| link.up);
        if any_up && self.peer != Peer::Heard {
            self.peer = Peer::Heard;
            signals.push(Signal::PeerHeard);
        }
        let missing = self.silent_ms(now_ms) >= (PROBE_AFTER_PULSES + 1) * self.timing.pulse_ms;
        if self.peer == Peer::Heard && missing && !self.probe_said {
            signals.push(Signal::ProbeMayBegin);
        }
        self.probe_said = missing;
        let waited = now_ms.saturating_sub(self.counting_from_ms) >= self.patience_ms();
        // Who slept is heard by nobody at first, and is told so: that is no silence of the peer's.
        if !any_up && waited && self.peer != Peer::Silent {
            self.peer = Peer::Silent;
            signals.push(Signal::PeerSilent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_silence_is_found_at_the_instant_that_was_told_and_not_before() {
        let mut pair = Pair::new();
        assert_eq!(pair.a.next_silence_ms(), None, "nothing was heard");
        pair.run(0, 1_000, true, true);
        let at = pair.a.next_silence_ms().expect("it is heard");
        for now in (1_000..at).step_by(50).chain([at - 1]) {
            assert!(!pair.a.tick(now).contains(&Signal::PeerSilent), "at {now} of {at}");
        }
        assert!(pair.a.tick(at).contains(&Signal::PeerSilent));
        assert_eq!(pair.a.next_silence_ms(), None);
    }

    struct Pair {
        a: Detector,
        b: Detector,
    }

    type Heard = Vec<(u64, Signal)>;

    impl Pair {
        fn new() -> Self {
            Self { a: Detector::new(1, 1, Timing::DEFAULT, 0), b: Detector::new(2, 1, Timing::DEFAULT, 0) }
        }
        /// One pulse each way every 100 ms, when its direction is open.
        fn run(&mut self, from: u64, to: u64, a_to_b: bool, b_to_a: bool) -> (Heard, Heard) {
            let (mut at_a, mut at_b) = (vec![], vec![]);
            for now in (from..to).step_by(50) {
                let (mut of_a, mut of_b) = (self.a.tick(now), self.b.tick(now));
                if now % 100 == 0 {
                    let (pulse_a, pulse_b) = (self.a.pulse(0, now), self.b.pulse(0, now));
                    if b_to_a {
                        of_a.extend(self.a.heard(0, &pulse_b, now));
                    }
                    if a_to_b {
                        of_b.extend(self.b.heard(0, &pulse_a, now));
                    }
                }
                at_a.extend(of_a.into_iter().map(|signal| (now, signal)));
                at_b.extend(of_b.into_iter().map(|signal| (now, signal)));
            }
            (at_a, at_b)
        }
    }

    fn when(signals: &[(u64, Signal)], wanted: Signal) -> Option<u64> {
        signals.iter().find(|(_, signal)| *signal == wanted).map(|(at, _)| *at)
    }

    #[test]
    fn a_dead_peer_is_lost_at_one_second_and_the_probe_begins_early() {
        let mut pair = Pair::new();
        pair.run(0, 1_000, true, true);
        let (_, at_b) = pair.run(1_000, 4_000, false, false);
        let probe = when(&at_b, Signal::ProbeMayBegin).unwrap();
        let silent = when(&at_b, Signal::PeerSilent).unwrap();
        let closed = when(&at_b, Signal::WindowClosed).unwrap();
        assert!((1_150..=1_250).contains(&probe), "{probe}");
        assert!((1_850..=1_950).contains(&silent), "{silent}");
        assert!((2_600..=2_900).contains(&closed), "{closed}");
    }

    #[test]
    fn a_network_heard_in_one_direction_only_does_not_count() {
        let mut pair = Pair::new();
        let (at_a, at_b) = pair.run(0, 3_000, true, false);
        assert!(when(&at_a, Signal::PeerSilent).is_some() && when(&at_b, Signal::PeerSilent).is_some());
        assert!(when(&at_b, Signal::PeerHeard).is_none());
        let (at_a, at_b) = pair.run(3_000, 3_500, true, true);
        assert!(when(&at_a, Signal::PeerHeard).is_some() && when(&at_b, Signal::PeerHeard).is_some());
    }

    #[test]
    fn a_peer_is_gone_when_it_is_silent_on_the_network_that_counts() {
        let new = |instance| Detector::new(instance, 2, Timing::DEFAULT, 0).by(|network| network == 0);
        let (mut a, mut b) = (new(1), new(2));
        let mut run = |from: u64, to: u64, open: [bool; 2]| {
            let mut found = vec![];
            for now in (from..to).step_by(100) {
                for network in [0, 1].into_iter().filter(|network| open[*network]) {
                    let (pulse_a, pulse_b) = (a.pulse(network, now), b.pulse(network, now));
                    found.extend(a.heard(network, &pulse_b, now).into_iter().map(|signal| (now, signal)));
                    b.heard(network, &pulse_a, now);
                }
                found.extend(a.tick(now).into_iter().map(|signal| (now, signal)));
            }
            found
        };
        let other = run(0, 2_000, [false, true]);
        assert!(when(&other, Signal::LinkUp(1)).is_some() && when(&other, Signal::PeerHeard).is_none(), "{other:?}");
        assert_eq!(when(&other, Signal::PeerSilent), Some(1_000), "never heard where it counts");
        assert!(when(&run(2_000, 3_000, [true, true]), Signal::PeerHeard).is_some());
        let cut = run(3_000, 5_000, [false, true]);
        assert!(when(&cut, Signal::PeerSilent).is_some_and(|at| at <= 4_000), "{cut:?}");
        assert!(when(&run(5_000, 5_500, [true, true]), Signal::PeerHeard).is_some(), "heard again at once");
    }

    #[test]
    fn a_detector_that_slept_restarts_its_count_but_not_its_window() {
        let mut pair = Pair::new();
        pair.run(0, 1_000, true, true);
        let signals = pair.b.tick(6_000);
        assert_eq!(signals[0], Signal::Froze { ms: 5_050 });
        assert!(signals.contains(&Signal::WindowClosed));
        assert!(!signals.contains(&Signal::PeerSilent), "the peer gets a whole timeout after the sleep");
        let mut later = vec![];
        for now in (6_000..7_200).step_by(50) {
            later.extend(pair.b.tick(now).into_iter().map(|signal| (now, signal)));
        }
        assert_eq!(when(&later, Signal::PeerSilent), Some(7_000));
    }

    #[test]
    fn who_slept_and_is_not_heard_yet_does_not_take_the_peer_for_silent() {
        let mut pair = Pair::new();
        pair.run(0, 1_000, true, true);
        for now in (1_000..6_000).step_by(50) {
            pair.a.tick(now);
        }
        // `a` has lost the one that sleeps, and says so with its next pulse.
        let lost = pair.a.pulse(0, 6_000);
        assert!(!lost.hears);
        let woken = pair.b.heard(0, &lost, 6_000);
        assert!(woken.contains(&Signal::LinkDown(0)) && !woken.contains(&Signal::PeerSilent), "{woken:?}");
        let (_, at_b) = pair.run(6_000, 8_000, true, true);
        assert!(when(&at_b, Signal::PeerSilent).is_none() && when(&at_b, Signal::LinkUp(0)).is_some(), "{at_b:?}");
    }

    #[test]
    fn a_late_pulse_never_lengthens_the_window() {
        let mut pair = Pair::new();
        pair.run(0, 1_000, true, true);
        let late = pair.a.pulse(0, 1_000);
        pair.run(1_000, 2_500, false, false);
        pair.b.heard(0, &late, 2_500);
        assert!(pair.b.window_is_open(2_850) && !pair.b.window_is_open(2_950), "counted from what b sent");
    }
}
