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
        self.check_but(&[], &[]);
    }

    /// The same, but for those of `broken` nodes, and without those where nothing comes in.
    fn check_but(&mut self, broken: &[usize], cut: &[usize]) {
        let announced: Vec<usize> = (0..self.all.len()).filter(|node| self.it.nodes[*node].announced).collect();
        let entries = announced.iter().copied().chain([self.entry]).filter(|entry| !cut.contains(entry));
        let entries: Vec<usize> = entries.collect();
        for node in (0..self.all.len()).filter(|node| !broken.contains(node)) {
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
        self.settle();
        self.connect();
        self.check();
    }

    /// The link of a node is silent for about as long as a death takes to be noticed: some of the others have noticed it when it is back, the node itself
    /// goes on as it was. Only its own connections may break.
    fn blinks(&mut self, cut: usize) {
        self.settle();
        let (own, id) = ([cut], NodeId(cut as u16 + 1));
        let others: Vec<u16> = self.all.iter().copied().filter(|node| usize::from(*node) != cut + 1).collect();
        let mut unaware: Vec<usize> = others.iter().map(|node| usize::from(*node) - 1).collect();
        let mut aware = Vec::new();
        let notice = self.random(unaware.len() as u64 + 1) as usize;
        // What was under way to it and from it is lost.
        self.it.under_way[cut].iter_mut().for_each(|word| *word = None);
        loop {
            self.it.under_way.iter_mut().for_each(|to| to[cut] = None);
            if aware.len() < notice && self.random(4) == 0 {
                let node = unaware.remove(self.random(unaware.len() as u64) as usize);
                aware.push(node);
                self.it.event(node, Event::Silent(id));
            } else if !self.it.step(&[&others]) && aware.len() == notice {
                break;
            } else if self.random(20) == 0 {
                // It is back in the middle of it.
                break;
            }
            self.check_but(&own, &own);
        }
        // Those that come meanwhile go to who has announced itself, if the director is the one that is cut.
        let before = self.entry;
        if before == cut {
            let announced = (0..self.all.len()).find(|node| *node != cut && self.it.nodes[*node].announced);
            self.entry = announced.unwrap_or(before);
        }
        if self.entry != cut {
            self.connect();
        }
        // A heartbeat is the whole word, and who was silent is heard before its word is.
        for node in others.iter().map(|node| usize::from(*node) - 1) {
            self.it.under_way[node][cut] = Some(self.it.nodes[node].member.word());
            if !aware.contains(&node) {
                self.it.under_way[cut][node] = Some(self.it.nodes[cut].member.word());
            }
        }
        let all = self.all.clone();
        loop {
            if !aware.is_empty() && self.random(3) == 0 {
                let node = aware.remove(self.random(aware.len() as u64) as usize);
                self.it.event(node, Event::Heard(id));
                self.it.under_way[cut][node] = Some(self.it.nodes[cut].member.word());
            } else {
                // Of whom it is not heard again yet, nothing is heard.
                let withheld: Vec<_> = aware.iter().map(|node| (*node, self.it.under_way[cut][*node].take())).collect();
                let goes_on = self.it.step(&[&all]);
                for (node, word) in withheld {
                    let newer = self.it.under_way[cut][node].take();
                    self.it.under_way[cut][node] = newer.or(word);
                }
                if !goes_on && aware.is_empty() {
                    break;
                }
            }
            self.check_but(&own, &[]);
        }
        for node in 0..self.all.len() {
            while self.it.nodes[node].order.pending().is_some() {
                self.it.expire(node);
                self.check_but(&own, &[]);
            }
        }
        while self.it.step(&[&all]) {
            self.check_but(&own, &[]);
        }
        self.settle();
        let stands = |port: &u16| self.it.follow(self.entry, *port, false) == (cut, true);
        let kept: Vec<u16> = self.it.nodes[cut].connections.iter().copied().filter(stands).collect();
        self.it.nodes[cut].connections = kept;
        let views: Vec<_> = self.it.nodes.iter().map(|node| node.order.shown().cloned()).collect();
        assert!(views.iter().all(|view| view.is_some() && *view == views[0]), "{views:?}");
        self.connect();
        self.check();
    }

    /// A node is cut off from all others for so long that each side goes on without the other, and is back in the very moment in which it speaks for the
    /// address: clients' frames come in there before anybody is heard. What was opened elsewhere meanwhile must not break.
    fn is_back_while_it_speaks(&mut self, cut: usize) {
        self.settle();
        self.it.heeds_doubts = true;
        let others: Vec<u16> = self.all.iter().copied().filter(|node| usize::from(*node) != cut + 1).collect();
        self.it.under_way[cut].iter_mut().for_each(|word| *word = None);
        for node in others.iter().map(|node| usize::from(*node) - 1) {
            self.it.event(node, Event::Silent(NodeId(cut as u16 + 1)));
        }
        self.it.event(cut, Event::CutOff);
        while self.it.step(&[&others]) {}
        for node in 0..self.all.len() {
            while self.it.nodes[node].order.pending().is_some() {
                self.it.expire(node);
            }
        }
        while self.it.step(&[&others]) {}
        // What stood there may break; with those of the others it would be two connections of one name.
        self.it.nodes[cut].connections.clear();
        self.it.nodes.iter_mut().for_each(|node| node.announced = false);
        self.entry =
            usize::from(self.it.nodes[usize::from(others[0]) - 1].order.shown().expect("the others serve").director.0)
                - 1;
        self.connect();
        // For longer than three seconds: then whoever hears another again is in doubt.
        if self.random(2) == 0 {
            self.it.calm();
            self.it.event(cut, Event::CutOff);
        }
        self.it.nodes[cut].announced = true;
        self.check();
        let mut unheard: Vec<(usize, usize)> =
            others.iter().map(|node| usize::from(*node) - 1).flat_map(|other| [(cut, other), (other, cut)]).collect();
        let mut met: Vec<[u16; 2]> = Vec::new();
        loop {
            if !unheard.is_empty() && self.random(3) == 0 {
                let (from, to) = unheard.remove(self.random(unheard.len() as u64) as usize);
                self.it.under_way[from][to] = Some(self.it.nodes[from].member.word());
                self.it.event(to, Event::Heard(NodeId(from as u16 + 1)));
                met.push([from as u16 + 1, to as u16 + 1]);
            } else {
                let known: Vec<&[u16]> = met.iter().map(|pair| &pair[..]).collect();
                if !self.it.step(&known) && unheard.is_empty() {
                    break;
                }
            }
            // Who was together all the time tells each other at once, and frames are not faster.
            while self.it.step(&[&others]) {}
            self.check();
        }
        let all = self.all.clone();
        for node in 0..self.all.len() {
            while self.it.nodes[node].order.pending().is_some() {
                self.it.expire(node);
                self.check();
            }
        }
        while self.it.step(&[&all]) {
            self.check();
        }
        self.it.calm();
        self.check();
        self.settle();
        self.connect();
        self.check();
    }

    /// Clients send to who announced itself last.
    fn settle(&mut self) {
        let announced: Vec<usize> = (0..self.all.len()).filter(|node| self.it.nodes[*node].announced).collect();
        match (&announced[..], self.it.nodes[0].order.shown()) {
            ([], _) => {}
            ([entry], _) => self.entry = *entry,
            // Of several in a row, the one that directs in the end was last.
            (_, Some(view)) => self.entry = usize::from(view.director.0) - 1,
            (_, None) => panic!("several have announced themselves, and nobody serves"),
        }
        self.it.nodes.iter_mut().for_each(|node| node.announced = false);
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

#[test]
fn a_node_that_speaks_in_the_moment_in_which_it_is_back_breaks_nothing() {
    // One meeting each: a bucket remembers three earlier owners.
    for random in 1..200 {
        for count in [3, 4, 5] {
            let mut play = Play::new(count, random);
            let cut = play.random(count.into()) as usize;
            play.is_back_while_it_speaks(cut);
        }
    }
}

#[test]
fn a_link_that_blinks_breaks_no_connection_of_the_other_nodes() {
    for random in 1..80 {
        for count in [3, 4, 5] {
            let mut play = Play::new(count, random);
            for _ in 0..6 {
                let cut = play.random(count.into()) as usize;
                play.blinks(cut);
            }
        }
    }
}
