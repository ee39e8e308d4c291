//! Two parts of a farm meet, and no connection that stands in either of them is answered by somebody who does not have it: whatever the order in which
//! words arrive, after every single step, wherever its frames come in.

use super::*;
use crate::farm::doubt::Doubt;
use crate::farm::filter::{self, Around, Pins, Verdict, judge};
use crate::farm::member::Event;
use crate::farm::picture::{Plan, Presence};
use crate::farm::shares::Shares;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr};
use model::farm::{Fate, Filter, Picture, Proto, Rule, Wish, Word};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const CLIENTS: u16 = 400;

struct Node {
    member: Member,
    order: Order,
    presence: Presence,
    /// What its filter decides by.
    picture: Option<Picture>,
    /// Ports of clients whose connections stand here.
    connections: Vec<u16>,
    announced: bool,
    doubts: bool,
}

struct Parts {
    nodes: Vec<Node>,
    plan: Plan,
    under_way: Vec<Vec<Option<Word>>>,
    random: u64,
    /// What nobody here has may stand elsewhere, for as long as the play lasts; else views alone must not lead astray.
    heeds_doubts: bool,
}

fn mac(node: NodeId) -> [u8; 6] {
    [2, 0, 0, 0, 7, node.0 as u8]
}

impl Parts {
    /// Each of these parts has come together, and serves its connections.
    fn new(parts: &[&[u16]], random: u64) -> Self {
        let count = parts.iter().map(|part| part.len()).sum::<usize>() as u16;
        let ids = || (1..=count).map(NodeId);
        let node = |me| Node {
            member: Member::new(me, 1, ids()),
            order: Order::default(),
            presence: Presence::default(),
            picture: None,
            connections: Vec::new(),
            announced: false,
            doubts: false,
        };
        let powers: Vec<_> = ids().map(|node| (node, 1)).collect();
        let plan = Plan {
            vips: Vec::from([IpAddr::V4(VIP)]),
            vmacs: Vec::from([None]),
            rules: Vec::from([Rule { vip: None, port: Some(80), proto: Proto::Tcp, filter: Filter::OnPort, group: 0 }]),
            arp_group: None,
            groups: Vec::from([Shares::new(&powers)]),
        };
        let empty = || (0..count).map(|_| None).collect::<Vec<Option<Word>>>();
        let mut it = Self {
            nodes: ids().map(node).collect(),
            plan,
            under_way: (0..count).map(|_| empty()).collect(),
            random,
            heeds_doubts: false,
        };
        for part in parts {
            for node in part.iter().map(|node| usize::from(*node) - 1) {
                for other in ids().filter(|other| usize::from(other.0) != node + 1) {
                    let is_heard = part.contains(&other.0);
                    it.event(node, if is_heard { Event::Heard(other) } else { Event::Silent(other) });
                }
                it.event(node, Event::Wished(Wish::In));
            }
        }
        while it.step(parts) {}
        for node in 0..it.nodes.len() {
            it.expire(node);
        }
        for port in 1..=CLIENTS {
            for part in parts {
                let entry = it.director(part);
                let (at, _) = it.follow(entry, port, true);
                it.nodes[at].connections.push(port);
            }
        }
        it
    }

    fn director(&self, part: &[u16]) -> usize {
        usize::from(self.nodes[usize::from(part[0]) - 1].member.view().expect("a part serves").director.0) - 1
    }

    fn event(&mut self, node: usize, event: Event) {
        let it = &mut self.nodes[node];
        let before = it.member.word();
        let doubt = Doubt::before(&it.member, &event);
        let decided = it.member.handle(event);
        it.doubts |= self.heeds_doubts && doubt.arises(&it.member);
        let mut out = Vec::new();
        it.order.obey(&it.member, decided, &mut out);
        let word = it.member.word();
        if word != before {
            self.under_way[node].iter_mut().for_each(|to| *to = Some(word.clone()));
        }
        self.obey(node, out);
    }

    fn expire(&mut self, node: usize) {
        let mut out = Vec::new();
        let it = &mut self.nodes[node];
        it.order.expired(&it.member, &mut out);
        self.obey(node, out);
    }

    fn obey(&mut self, node: usize, actions: Vec<Action>) {
        let it = &mut self.nodes[node];
        for action in actions {
            match action {
                Action::Show(view, _) | Action::Prepare(view) => {
                    it.presence.see(&view);
                    it.picture = self.plan.picture(&view, &it.presence, it.member.me(), |node| Some(mac(node)));
                }
                Action::Hide => it.picture = None,
                Action::Announce => it.announced = true,
                _ => {}
            }
        }
        let doubts = it.doubts;
        it.picture.iter_mut().for_each(|picture| picture.doubts = doubts);
    }

    /// Three seconds later.
    fn calm(&mut self) {
        for it in &mut self.nodes {
            it.doubts = false;
            it.picture.iter_mut().for_each(|picture| picture.doubts = false);
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }

    /// Some word arrives; false: none is under way between nodes that hear each other.
    fn step(&mut self, heard: &[&[u16]]) -> bool {
        let mut waiting = Vec::new();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let hears = |part: &&[u16]| part.contains(&(from as u16 + 1)) && part.contains(&(to as u16 + 1));
                if from != to && self.under_way[from][to].is_some() && heard.iter().any(hears) {
                    waiting.push((from, to));
                }
            }
        }
        let chosen = self.below(waiting.len().max(1));
        let Some((from, to)) = waiting.get(chosen).copied() else {
            return false;
        };
        if let Some(word) = self.under_way[from][to].take() {
            self.event(to, Event::Said { from: NodeId(from as u16 + 1), word });
        }
        true
    }

    /// Where a client's frame ends that comes in there, and whether that node has the connection. A node that acts on no view drops it: the client
    /// says it again.
    fn follow(&self, entry: usize, port: u16, is_syn: bool) -> (usize, bool) {
        let mut frame = Vec::from([0u8; 54]);
        frame[..6].copy_from_slice(&mac(NodeId(entry as u16 + 1)));
        frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        frame[12] = 8;
        frame[14] = 0x45;
        frame[17] = 40;
        (frame[22], frame[23]) = (64, 6);
        frame[26..30].copy_from_slice(&[10, 0, 1, 9]);
        frame[30..34].copy_from_slice(&VIP.octets());
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[37] = 80;
        (frame[46], frame[47]) = (0x50, if is_syn { 2 } else { 16 });
        let (mut at, pins, parts) = (entry, Pins::default(), filter::Parts::default());
        loop {
            let has = self.nodes[at].connections.contains(&port);
            let Some(picture) = self.nodes[at].picture.as_ref() else { return (at, true) };
            let around = Around {
                picture,
                tag: 0,
                is_leased: true,
                now_ms: 1,
                pins: &pins,
                parts: &parts,
                has_socket: &|_| has,
            };
            match judge(&around, &mut frame) {
                (Verdict::Drop, Some(Fate::Nobody)) if picture.doubts => return (at, true),
                (verdict, _) => match verdict {
                    Verdict::Accept => return (at, has),
                    Verdict::Redirect => at = usize::from(frame[5]) - 1,
                    // Two that act on different views have passed it to and fro: it is sent again.
                    Verdict::Drop if frame[22] <= 1 => return (at, true),
                    verdict => panic!("a client's frame is {verdict:?} at node {}", at + 1),
                },
            }
        }
    }

    fn describe(&self, port: u16) -> String {
        let line = |it: &Node| {
            let lists = it.picture.as_ref().map(|picture| {
                let mut client = [0; 16];
                client[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 1, 9]);
                picture.tables[0][crate::farm::hash::bucket_of(client, 1 << 16 | u64::from(port))]
            });
            let (shown, pending) = (it.order.shown(), it.order.pending());
            let has = it.connections.contains(&port);
            alloc::format!(
                "{:?} has it: {has}; list {lists:?}\n  shown {shown:?}\n  waits {pending:?}\n",
                it.member.me()
            )
        };
        self.nodes.iter().map(line).collect()
    }

    /// Every connection that stands is reached, by the director of its part, and by the one of all once it is announced.
    fn all_stand(&self, parts: &[&[u16]], directors: &[usize]) {
        for (part, director) in parts.iter().zip(directors) {
            let ports = (1..=CLIENTS).filter(|port| {
                let stands = |node: &&u16| self.nodes[usize::from(**node) - 1].connections.contains(port);
                // The same client port in both parts: two connections of one name, which no network can tell apart.
                part.iter().any(|node| stands(&node))
                    && port % parts.len() as u16 == *director as u16 % parts.len() as u16
            });
            for port in ports {
                let announced = (0..self.nodes.len()).filter(|node| self.nodes[*node].announced);
                for entry in announced.chain([*director]) {
                    let (at, has) = self.follow(entry, port, false);
                    assert!(
                        has,
                        "port {port}, in at node {}: node {} has no such connection\n{}",
                        entry + 1,
                        at + 1,
                        self.describe(port)
                    );
                }
            }
        }
    }
}

fn meet(parts: &[&[u16]], random: u64) {
    let mut it = Parts::new(parts, random);
    let directors: Vec<usize> = parts.iter().map(|part| it.director(part)).collect();
    // Each client has a connection in one of the parts only.
    for (part, director) in parts.iter().zip(&directors) {
        for node in part.iter().map(|node| usize::from(*node) - 1) {
            let count = parts.len() as u16;
            it.nodes[node].connections.retain(|port| port % count == *director as u16 % count);
        }
    }
    it.nodes.iter_mut().for_each(|node| node.announced = false);
    it.all_stand(parts, &directors);
    let all: Vec<u16> = (1..=it.nodes.len() as u16).collect();
    let mut froms: Vec<usize> = (0..it.nodes.len()).collect();
    froms.sort_by_key(|node| !directors.contains(node));
    for from in froms.iter().copied() {
        let word = it.nodes[from].member.word();
        for to in froms.iter().copied().filter(|to| *to != from) {
            let id = NodeId(from as u16 + 1);
            it.event(to, Event::Heard(id));
            if directors.contains(&from) && directors.contains(&to) {
                it.event(to, Event::Said { from: id, word: word.clone() });
            } else {
                it.under_way[from][to] = Some(word.clone());
            }
            it.all_stand(parts, &directors);
        }
    }
    while it.step(&[&all]) {
        it.all_stand(parts, &directors);
    }
    for node in 0..it.nodes.len() {
        it.expire(node);
        it.all_stand(parts, &directors);
    }
    let view = it.nodes[0].order.shown().cloned();
    assert!(view.as_ref().is_some_and(|view| view.serving().len() == all.len()), "{view:?}");
    assert!(it.nodes.iter().all(|node| node.order.shown() == view.as_ref() && node.order.pending().is_none()));
}

/// The same, in whatever order they hear each other.
fn meet_in_any_order(parts: &[&[u16]], random: u64) {
    let mut it = Parts::new(parts, random);
    it.heeds_doubts = true;
    let directors: Vec<usize> = parts.iter().map(|part| it.director(part)).collect();
    let count = parts.len() as u16;
    for (part, director) in parts.iter().zip(&directors) {
        for node in part.iter().map(|node| usize::from(*node) - 1) {
            it.nodes[node].connections.retain(|port| port % count == *director as u16 % count);
        }
    }
    it.nodes.iter_mut().for_each(|node| node.announced = false);
    let apart = |from: u16, to: u16| !parts.iter().any(|part| part.contains(&from) && part.contains(&to));
    let all: Vec<u16> = (1..=it.nodes.len() as u16).collect();
    let pairs = all.iter().flat_map(|from| all.iter().map(|to| [*from, *to]));
    let mut unheard: Vec<[u16; 2]> = pairs.filter(|[from, to]| apart(*from, *to)).collect();
    let mut met: Vec<[u16; 2]> = Vec::new();
    loop {
        if !unheard.is_empty() && it.below(3) == 0 {
            let next = it.below(unheard.len());
            let [from, to] = unheard.remove(next);
            let (at, id) = (usize::from(to) - 1, NodeId(from));
            it.under_way[usize::from(from) - 1][at] = Some(it.nodes[usize::from(from) - 1].member.word());
            it.event(at, Event::Heard(id));
            met.push([from, to]);
        } else {
            // What one says that is not heard yet is kept: it says all of it again.
            let known: Vec<&[u16]> = parts.iter().copied().chain(met.iter().map(|pair| &pair[..])).collect();
            if !it.step(&known) && unheard.is_empty() {
                break;
            }
        }
        it.all_stand(parts, &directors);
    }
    for node in 0..it.nodes.len() {
        it.expire(node);
        it.all_stand(parts, &directors);
    }
    while it.step(&[&all]) {
        it.all_stand(parts, &directors);
    }
    let view = it.nodes[0].member.view().cloned();
    assert!(view.as_ref().is_some_and(|view| view.serving().len() == all.len()), "{view:?}");
    assert!(it.nodes.iter().all(|node| node.member.view() == view.as_ref()));
}

#[test]
fn halves_that_meet_in_whatever_order_answer_for_nothing_they_do_not_know() {
    for random in 1..60 {
        meet_in_any_order(&[&[1, 2, 3], &[4]], random);
        meet_in_any_order(&[&[1], &[2, 3, 4]], random);
        meet_in_any_order(&[&[1, 3], &[2, 4, 5]], random);
        meet_in_any_order(&[&[2, 3], &[1, 4, 5], &[6]], random);
    }
}

#[test]
fn nodes_that_began_a_farm_each_break_no_connection_when_they_meet() {
    for random in 1..40 {
        meet(&[&[1], &[2]], random);
    }
}

/// Where the directors hear each other first. (Of a part of several whose director gives way, nodes may be taken before it knows: docs/book/farm.md.)
#[test]
fn one_that_was_cut_off_breaks_no_connection_when_it_is_heard_again() {
    for random in 1..40 {
        meet(&[&[1, 2, 3], &[4]], random);
        meet(&[&[1, 3], &[2]], random);
    }
}

/// The survivors notice a death one after the other: whoever of them makes the next view knows those that still hear the dead one.
fn dies(count: u16, dead: u16, random: u64) {
    let all: Vec<u16> = (1..=count).collect();
    let mut it = Parts::new(&[&all], random);
    let director = it.director(&all);
    let survivors: Vec<u16> = all.iter().copied().filter(|node| *node != dead).collect();
    it.nodes.iter_mut().for_each(|node| node.announced = false);
    it.under_way[usize::from(dead) - 1].iter_mut().for_each(|word| *word = None);
    let is_director = director + 1 == usize::from(dead);
    // Where frames come in: at the director, if it lives, and at whoever has announced itself.
    let check = |it: &Parts| {
        for node in survivors.iter().map(|node| usize::from(*node) - 1) {
            for port in &it.nodes[node].connections {
                let announced = (0..it.nodes.len()).filter(|node| it.nodes[*node].announced);
                for entry in announced.chain((!is_director).then_some(director)) {
                    let (at, has) = it.follow(entry, *port, false);
                    assert!(has, "port {port}, in at node {}: node {}\n{}", entry + 1, at + 1, it.describe(*port));
                }
            }
        }
    };
    let mut unaware = survivors.clone();
    loop {
        it.random = it.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let notices = !unaware.is_empty() && it.random >> 33 & 3 == 0;
        if notices {
            let node = unaware.remove((it.random >> 40) as usize % unaware.len());
            it.event(usize::from(node) - 1, Event::Silent(NodeId(dead)));
        } else if !it.step(&[&survivors]) && unaware.is_empty() {
            break;
        }
        check(&it);
    }
    for node in survivors.iter().map(|node| usize::from(*node) - 1) {
        it.expire(node);
        check(&it);
        let serving = it.nodes[node].order.shown().map(View::serving);
        assert_eq!(serving.map(NodeSet::len), Some(survivors.len()), "{}", it.describe(1));
    }
}

#[test]
fn a_death_that_is_noticed_by_one_after_the_other_breaks_no_connection_of_the_survivors() {
    for random in 1..60 {
        for (count, dead) in [(3, 1), (3, 2), (4, 1), (5, 1), (5, 4)] {
            dies(count, dead, random);
        }
    }
}

#[path = "late_tests.rs"]
mod late;
