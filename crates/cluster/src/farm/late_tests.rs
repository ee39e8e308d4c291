//! Nodes are restarted in turn while one of them is late, as on a busy machine: no connection that stands elsewhere is broken, whoever is late.

use super::*;

struct Play {
    it: Parts,
    all: Vec<u16>,
    /// Where clients' frames come in: at who announced itself last.
    entry: usize,
    /// The next client's port.
    port: u16,
    late: usize,
}

impl Play {
    fn new(count: u16, random: u64) -> Self {
        let all: Vec<u16> = (1..=count).collect();
        let it = Parts::new(&[&all], random);
        let entry = it.director(&all);
        Self { it, all, entry, port: CLIENTS + 1, late: 0 }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.it.random = self.it.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.it.random >> 33) % below
    }

    /// Every connection is reached, from where clients send.
    fn check(&mut self) {
        let announced: Vec<usize> = (0..self.all.len()).filter(|node| self.it.nodes[*node].announced).collect();
        let entries: Vec<usize> = announced.iter().copied().chain([self.entry]).collect();
        for node in 0..self.all.len() {
            for port in self.it.nodes[node].connections.clone() {
                for entry in entries.iter().copied() {
                    let (at, has) = self.it.follow(entry, port, false);
                    assert!(
                        has,
                        "port {port} of node {}, in at node {}: node {} has no such connection; late: node {}\n{}",
                        node + 1,
                        entry + 1,
                        at + 1,
                        self.late + 1,
                        self.it.describe(port)
                    );
                }
            }
        }
    }

    /// Words arrive in any order, but at who is late and from there.
    fn flow(&mut self) {
        let others: Vec<u16> = self.all.iter().copied().filter(|node| usize::from(*node) != self.late + 1).collect();
        while self.it.step(&[&others]) {
            self.check();
        }
    }

    /// Something changes at a node; the others have all the time that they give to one that is late, and then it runs again.
    fn changes(&mut self, node: usize, wish: Wish) {
        self.late = self.random(self.all.len() as u64) as usize;
        self.it.event(node, Event::Wished(wish));
        self.check();
        self.flow();
        let late = self.late;
        for other in (0..self.all.len()).filter(|other| *other != late) {
            if self.it.nodes[other].order.pending().is_some() {
                self.it.expire(other);
                self.check();
            }
        }
        self.connect();
        self.flow();
        // It looks at its clock first, or hears the others first.
        if self.random(2) == 0 && self.it.nodes[self.late].order.pending().is_some() {
            self.it.expire(self.late);
            self.check();
        }
        let all = self.all.clone();
        while self.it.step(&[&all]) {
            self.check();
        }
        for other in 0..self.all.len() {
            while self.it.nodes[other].order.pending().is_some() {
                self.it.expire(other);
                self.check();
            }
        }
        let announced: Vec<usize> = (0..self.all.len()).filter(|node| self.it.nodes[*node].announced).collect();
        if let [entry] = announced[..] {
            self.entry = entry;
        }
        self.it.nodes.iter_mut().for_each(|node| node.announced = false);
        self.connect();
        self.check();
    }

    /// New clients come, and stay.
    fn connect(&mut self) {
        for _ in 0..20 {
            let (at, _) = self.it.follow(self.entry, self.port, true);
            if self.it.nodes[at].picture.is_some() {
                self.it.nodes[at].connections.push(self.port);
            }
            self.port += 1;
        }
    }
}

#[test]
fn nodes_restarted_in_turn_break_no_connection_elsewhere_when_one_of_them_is_late() {
    for random in 1..20 {
        for count in [2, 3, 4] {
            let mut play = Play::new(count, random);
            let first = play.random(count.into()) as usize;
            for turn in 0..2 * usize::from(count) {
                let node = (first + turn) % usize::from(count);
                play.changes(node, Wish::Drain);
                // It had its time; its application is restarted, or the module is stopped and started.
                play.it.nodes[node].connections.clear();
                if turn % 2 == 1 {
                    play.changes(node, Wish::Out);
                }
                play.changes(node, Wish::In);
            }
        }
    }
}
