use super::*;
use crate::farm::member::{Event, Why};
use alloc::vec;
use model::farm::{NodeSet, Wish, Word};
use model::limits::LATE_MS;

/// Members that all hear each other; a word is delivered when the test says so.
struct Net {
    members: Vec<(Member, Order)>,
    /// What each has said last and the others have not heard yet.
    under_way: Vec<Vec<Option<Word>>>,
    random: u64,
}

impl Net {
    fn new(is_invisible: bool, random: u64) -> Self {
        let ids = || (1..=3).map(NodeId);
        let members = ids().map(|me| (Member::new(me, 1, ids()), Order::new(is_invisible))).collect();
        let mut net = Self { members, under_way: vec![vec![None; 3]; 3], random };
        for to in 0..3 {
            for from in (1..=3u16).filter(|from| usize::from(*from) != to + 1) {
                net.event(to, Event::Heard(NodeId(from)));
            }
        }
        net
    }

    fn event(&mut self, node: usize, event: Event) -> Vec<Action> {
        let (member, order) = &mut self.members[node];
        let before = member.word();
        let decided = member.handle(event);
        let mut out = Vec::new();
        order.obey(member, decided, &mut out);
        let word = member.word();
        if word != before {
            for to in (0..3).filter(|to| *to != node) {
                self.under_way[node][to] = Some(word.clone());
            }
        }
        out
    }

    fn deliver(&mut self, from: usize, to: usize) -> Vec<Action> {
        let Some(word) = self.under_way[from][to].take() else { return Vec::new() };
        self.event(to, Event::Said { from: NodeId(from as u16 + 1), word })
    }

    /// In any order, until there is nothing more to say.
    fn settle(&mut self) {
        loop {
            let mut waiting = Vec::new();
            for from in 0..3 {
                waiting.extend((0..3).filter(|to| self.under_way[from][*to].is_some()).map(|to| (from, to)));
            }
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let Some((from, to)) = waiting.get((self.random >> 33) as usize % waiting.len().max(1)) else { return };
            self.deliver(*from, *to);
            self.no_client_has_two_owners();
        }
    }

    /// Rendezvous: of two that own clients by different views, each must be known to the other's, or both may be the best of theirs.
    fn no_client_has_two_owners(&self) {
        let serving: Vec<(NodeId, NodeSet)> = self
            .members
            .iter()
            .filter_map(|(member, order)| Some((member.me(), order.shown()?.serving())))
            .filter(|(me, serving)| serving.has(*me))
            .collect();
        for (one, of_one) in &serving {
            for (other, of_other) in &serving {
                assert!(of_one.has(*other) && of_other.has(*one), "{one:?} by {of_one:?}, {other:?} by {of_other:?}");
            }
        }
    }

    fn peace(&self, serving: &[u16]) {
        let wanted: NodeSet = serving.iter().copied().map(NodeId).collect();
        for (member, order) in &self.members {
            assert!(order.pending().is_none(), "{:?} waits for nobody", member.me());
            assert_eq!(order.shown(), member.view(), "{:?}", member.me());
            assert!(order.shown().is_none_or(|view| view.serving() == wanted), "{:?}", order.shown());
        }
    }
}

#[test]
fn where_all_receive_all_no_client_ever_has_two_owners() {
    for random in 1..400 {
        let mut net = Net::new(true, random);
        for (node, wish, serving) in [
            (0, Wish::In, &[1][..]),
            (1, Wish::In, &[1, 2]),
            (2, Wish::In, &[1, 2, 3]),
            (0, Wish::Drain, &[2, 3]),
            (0, Wish::Out, &[2, 3]),
            (0, Wish::In, &[1, 2, 3]),
            (2, Wish::Drain, &[1, 2]),
            (2, Wish::In, &[1, 2, 3]),
        ] {
            net.event(node, Event::Wished(wish));
            net.no_client_has_two_owners();
            net.settle();
            net.peace(serving);
        }
    }
}

#[test]
fn who_comes_waits_for_those_who_lose_by_it_and_not_for_ever() {
    let mut net = Net::new(true, 1);
    for node in [0, 1] {
        net.event(node, Event::Wished(Wish::In));
        net.settle();
    }
    net.event(2, Event::Wished(Wish::In));
    assert!(net.deliver(2, 0).iter().any(|action| matches!(action, Action::Show(..))), "who loses acts at once");
    let waits = net.deliver(0, 2);
    assert!(waits.contains(&Action::Arm(Timer::Agree, AGREE_MS)) && net.members[2].1.pending().is_some(), "{waits:?}");
    assert!(!waits.iter().any(|action| matches!(action, Action::Show(..))));
    // The second one's word is lost: the third has waited long enough.
    net.deliver(0, 1);
    let mut out = Vec::new();
    let (member, order) = &mut net.members[2];
    order.expired(member, &mut out);
    // Is it late, or does it hang? Two owners would answer one client: it is waited for as long as a node that hangs may be heard.
    assert_eq!(out, [Action::Arm(Timer::Agree, LATE_MS)]);
    out.clear();
    order.expired(member, &mut out);
    assert!(matches!(&out[..], [_, Action::Show(view, Why::Told)] if view.serving().len() == 3), "{out:?}");
}
