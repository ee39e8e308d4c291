//! Which datagrams of one peer count: the freshness of an authentic heartbeat. Pure.
//!
//! A recording proves nothing: to count, a datagram must echo the random number of *my* start, so it was made after
//! it; its sequence must be new on its network; and a *new* instance of the peer is believed only with an echo of a
//! pulse I sent a moment ago, and never if it is one that has been replaced.

use super::wire::Body;
use std::collections::VecDeque;

/// Replaced instances remembered; a recording of an older one fails on the age of its echo.
const RETIRED_MAX: usize = 16;
/// Width of the reordering window.
const WINDOW: u64 = 64;

/// What to do with an authentic datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It counts. `hears_me`: the peer heard me on this network, and its newest word of mine is recent.
    /// `is_new`: the first of this instance, so answer it at once.
    Counted { hears_me: bool, is_new: bool },
    /// It does not know me (yet): answer it at once, echoing it, and do not count it.
    Unconfirmed,
    /// Seen before, or of a replaced instance.
    Replayed,
}

/// What is believed of one peer.
#[derive(Clone, Debug)]
pub(super) struct Session {
    my_instance: u64,
    /// How old an echo may be to confirm a new instance, or that I am heard.
    fresh_ms: u64,
    confirmed: Option<Confirmed>,
    retired: VecDeque<u64>,
    /// Newest authentic word of an instance that is not confirmed: what an answer echoes.
    candidate: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Confirmed {
    instance: u64,
    incarnation: u64,
    windows: Vec<Window>,
}

/// Sequences counted on one network: the highest, and a bit for each of the 63 before it.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u64,
    bits: u64,
}

impl Window {
    /// Counts this sequence, once.
    fn take(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.bits = if ahead >= WINDOW { 0 } else { self.bits << ahead };
            self.bits |= 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        let bit = if behind < WINDOW { 1 << behind } else { return false };
        let is_new = self.bits & bit == 0;
        self.bits |= bit;
        is_new && sequence != 0
    }
}

impl Session {
    pub(super) fn new(my_instance: u64, fresh_ms: u64) -> Self {
        Self { my_instance, fresh_ms, confirmed: None, retired: VecDeque::new(), candidate: None }
    }

    /// Starts of the peer's agent, once it is confirmed.
    pub(super) fn incarnation(&self) -> Option<u64> {
        self.confirmed.as_ref().map(|confirmed| confirmed.incarnation)
    }

    /// What to echo while nothing is confirmed, or to a newcomer.
    pub(super) const fn candidate(&self) -> Option<(u64, u64)> {
        self.candidate
    }

    /// Judges an authentic datagram of this peer that came in on `network` (of `networks`).
    pub(super) fn judge(&mut self, body: &Body, network: usize, networks: usize, now_ms: u64) -> Verdict {
        let echo_age_ms = match body.echo {
            Some((instance, sent_ms)) if instance == self.my_instance => now_ms.checked_sub(sent_ms),
            _ => None,
        };
        let is_current = self.confirmed.as_ref().is_some_and(|confirmed| confirmed.instance == body.instance);
        if !is_current && self.retired.contains(&body.instance) {
            return Verdict::Replayed;
        }
        let is_fresh = echo_age_ms.is_some_and(|age| age < self.fresh_ms);
        if !is_current && !is_fresh {
            self.candidate = Some((body.instance, body.sent_ms));
            return Verdict::Unconfirmed;
        }
        if echo_age_ms.is_none() {
            return Verdict::Unconfirmed;
        }
        if !is_current {
            self.adopt(body, networks);
        }
        let Some(confirmed) = &mut self.confirmed else { return Verdict::Unconfirmed };
        if confirmed.windows.get_mut(network).is_some_and(|window| window.take(body.sequence)) {
            Verdict::Counted { hears_me: body.hears && is_fresh, is_new: !is_current }
        } else {
            Verdict::Replayed
        }
    }

    fn adopt(&mut self, body: &Body, networks: usize) {
        if let Some(old) = self.confirmed.take() {
            self.retired.push_back(old.instance);
            if self.retired.len() > RETIRED_MAX {
                self.retired.pop_front();
            }
        }
        self.candidate = None;
        self.confirmed = Some(Confirmed {
            instance: body.instance,
            incarnation: body.incarnation,
            windows: vec![Window::default(); networks],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u64 = 1_000;
    const FRESH: u64 = 1_000;

    fn body(instance: u64, sequence: u64, echo: Option<(u64, u64)>) -> Body {
        Body {
            cluster: 1,
            from: 2,
            to: 1,
            network: 0,
            incarnation: instance,
            sequence,
            instance,
            sent_ms: 5_000 + sequence,
            echo,
            hears: true,
            is_whole: true,
            digests: vec![],
        }
    }

    #[test]
    fn nothing_counts_before_it_echoes_me() {
        let mut session = Session::new(ME, FRESH);
        assert_eq!(session.judge(&body(20, 1, None), 0, 1, 9_000), Verdict::Unconfirmed);
        assert_eq!(session.candidate(), Some((20, 5_001)), "so that I can answer");
        assert_eq!(
            session.judge(&body(20, 2, Some((999, 8_950))), 0, 1, 9_000),
            Verdict::Unconfirmed,
            "echo to an earlier me"
        );
        assert_eq!(
            session.judge(&body(20, 3, Some((ME, 9_001))), 0, 1, 9_000),
            Verdict::Unconfirmed,
            "echo of the future"
        );
        assert_eq!(
            session.judge(&body(20, 4, Some((ME, 8_950))), 0, 1, 9_000),
            Verdict::Counted { hears_me: true, is_new: true }
        );
        assert_eq!(session.incarnation(), Some(20));
    }

    #[test]
    fn each_sequence_counts_once_per_network_and_may_be_reordered() {
        let mut session = Session::new(ME, FRESH);
        let mut take = |sequence, network| session.judge(&body(20, sequence, Some((ME, 8_950))), network, 2, 9_000);
        assert_eq!(take(99, 0), Verdict::Counted { hears_me: true, is_new: true });
        let counted = Verdict::Counted { hears_me: true, is_new: false };
        for sequence in [100, 102, 101, 103] {
            assert_eq!(take(sequence, 0), counted, "{sequence}");
            assert_eq!(take(sequence, 0), Verdict::Replayed, "{sequence} again");
        }
        assert_eq!(take(40, 0), counted, "within the window");
        assert_eq!(take(39, 0), Verdict::Replayed, "too old to tell");
        assert_eq!(take(104, 1), counted, "the other network has its own window");
        assert_eq!(take(10_000, 0), counted);
        assert_eq!(take(103, 0), Verdict::Replayed);
    }

    #[test]
    fn a_replaced_instance_never_comes_back() {
        let mut session = Session::new(ME, FRESH);
        let echo = Some((ME, 8_950));
        assert!(matches!(session.judge(&body(20, 1, echo), 0, 1, 9_000), Verdict::Counted { .. }));
        assert!(matches!(session.judge(&body(21, 1, echo), 0, 1, 9_100), Verdict::Counted { .. }), "restarted");
        assert_eq!(session.judge(&body(20, 2, echo), 0, 1, 9_100), Verdict::Replayed);
        assert!(matches!(session.judge(&body(21, 2, echo), 0, 1, 9_100), Verdict::Counted { .. }));
        for newer in 22..60 {
            session.judge(&body(newer, 1, Some((ME, 9_000))), 0, 1, 9_100);
        }
        assert_eq!(
            session.judge(&body(20, 3, echo), 0, 1, 60_000),
            Verdict::Unconfirmed,
            "forgotten, but its echo is old"
        );
        assert_eq!(session.incarnation(), Some(59));
    }

    #[test]
    fn an_old_confirmation_is_not_a_confirmation() {
        let mut session = Session::new(ME, FRESH);
        session.judge(&body(20, 1, Some((ME, 9_000))), 0, 1, 9_000);
        let verdict = session.judge(&body(20, 2, Some((ME, 9_000))), 0, 1, 10_000);
        assert_eq!(
            verdict,
            Verdict::Counted { hears_me: false, is_new: false },
            "heard, but the last it heard of me is a second old"
        );
    }
}
