//! A module without `<rfs>`: two automata with [`cluster::nodata::NoData`] in the place of `mirrorfs`.

use cluster::mirror::{
    Action, App, AppReport, Command, Event, Message, Mirror, Proof, Settings, Timer, Vip, VipAnswer, VipReport,
};
use cluster::nodata::NoData;
use model::{ModuleState, NodeId, Record};
use std::collections::VecDeque;

struct Pair {
    nodes: Vec<(Mirror, NoData, Vec<Timer>)>,
    queue: VecDeque<(usize, Event)>,
    cut: bool,
    /// Answers to a HELLO do not arrive.
    deaf: bool,
}

impl Pair {
    fn new() -> Self {
        let node = |me: u16| {
            let settings = Settings {
                module: "AM".into(),
                node: NodeId(me),
                node_name: format!("node{me}"),
                peer: NodeId(3 - me),
                peer_name: format!("node{}", 3 - me),
                witness: None,
                replicated: false,
                vip: true,
                salt: u64::from(me),
                boot_id: 1,
                configuration: 0,
                policy: cluster::mirror::Policy::default(),
            };
            (Mirror::new(settings, Record::empty()), NoData::default(), vec![])
        };
        Self { nodes: vec![node(1), node(2)], queue: VecDeque::new(), cut: false, deaf: false }
    }

    fn tell(&mut self, who: usize, event: Event) {
        self.queue.push_back((who, event));
        // Bounded: a pair that talks for ever is a defect.
        for _ in 0..1_000 {
            let Some((who, event)) = self.queue.pop_front() else { return };
            for action in self.nodes[who].0.handle(event) {
                self.execute(who, action);
            }
        }
        panic!("the pair does not come to rest");
    }

    fn execute(&mut self, who: usize, action: Action) {
        let mut back = |event| self.queue.push_back((who, event));
        match action {
            Action::Store { id, .. } => back(Event::Stored { id }),
            Action::Data(order) => {
                self.nodes[who].1.handle(&order).into_iter().for_each(|report| back(Event::Plane(report)))
            }
            Action::Vip(Vip::Up { .. }) => back(Event::Vip(VipReport::Held)),
            Action::Vip(Vip::Down) => back(Event::Vip(VipReport::Released)),
            Action::App(App::Prepare) => back(Event::App(AppReport::Prepared)),
            Action::App(App::Start) => back(Event::App(AppReport::Started)),
            Action::App(App::Stop { .. }) => back(Event::App(AppReport::Stopped)),
            Action::App(App::Role { .. }) => {}
            Action::App(App::Release { .. }) => back(Event::App(AppReport::Released)),
            Action::Probe => {
                back(Event::Proof(Proof { carrier: true, isolation: None, vip: VipAnswer::Nobody, heard: false }))
            }
            Action::Send(Message::Welcome { .. }) if self.deaf => {}
            Action::Send(message) if !self.cut => self.queue.push_back((1 - who, Event::Message(message))),
            Action::Arm(timer) => self.nodes[who].2.push(timer),
            Action::Disarm(timer) => self.nodes[who].2.retain(|armed| *armed != timer),
            _ => {}
        }
    }

    fn meet(&mut self) {
        self.cut = false;
        for who in [0, 1] {
            let advert = self.nodes[1 - who].0.advert();
            self.tell(who, Event::WindowOpened);
            self.tell(who, Event::PeerHeard(advert));
        }
        for who in [0, 1] {
            self.tell(who, Event::Expired(Timer::Hello));
        }
    }

    fn states(&self) -> [ModuleState; 2] {
        [self.nodes[0].0.view().state, self.nodes[1].0.view().state]
    }
}

#[test]
fn both_start_and_become_prim_and_second_without_prim() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Prim, ModuleState::Second]);
}

#[test]
fn a_secondary_that_the_other_one_does_not_know_of_asks_again() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(0, Event::WindowOpened);
    pair.tell(0, Event::PeerSilent);
    assert_eq!(pair.states()[0], ModuleState::Alone);
    pair.deaf = true;
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Alone, ModuleState::Second], "node1 never heard that node2 follows");
    pair.deaf = false;
    let alone = pair.nodes[0].0.advert();
    pair.tell(1, Event::PeerHeard(alone));
    assert_eq!(pair.nodes[1].0.view().status, model::Status::Transient);
    assert!(pair.nodes[1].2.contains(&Timer::Link), "{:?}", pair.nodes[1].2);
    pair.tell(1, Event::Expired(Timer::Link));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Prim, ModuleState::Second]);
    let prim = pair.nodes[0].0.advert();
    pair.tell(1, Event::PeerHeard(prim));
    assert_eq!(pair.nodes[1].0.view().status, model::Status::Ready);
}

/// The consent is lost, and what the other node says was heard before: nothing new ever comes from it.
#[test]
fn a_consent_that_is_lost_is_given_again_although_nothing_new_is_heard() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(0, Event::WindowOpened);
    pair.tell(0, Event::PeerSilent);
    let alone = pair.nodes[0].0.advert();
    assert_eq!(alone.state, ModuleState::Alone);
    pair.deaf = true;
    pair.tell(1, Event::Command(Command::Start));
    pair.tell(1, Event::WindowOpened);
    pair.tell(1, Event::PeerHeard(alone));
    pair.tell(0, Event::PeerHeard(pair.nodes[1].0.advert()));
    pair.tell(1, Event::Expired(Timer::Hello));
    assert_eq!(pair.states(), [ModuleState::Alone, ModuleState::Second], "node1 never heard that node2 follows");
    assert_eq!(pair.nodes[1].0.view().status, model::Status::Transient);
    assert!(pair.nodes[1].2.contains(&Timer::Link), "{:?}", pair.nodes[1].2);
    pair.deaf = false;
    // Who serves alone asks once, and waits for others to come.
    pair.tell(0, Event::Expired(Timer::Hello));
    assert_eq!(pair.states(), [ModuleState::Alone, ModuleState::Second]);
    pair.tell(1, Event::Expired(Timer::Link));
    assert_eq!(pair.states(), [ModuleState::Prim, ModuleState::Second]);
    let prim = pair.nodes[0].0.advert();
    pair.tell(1, Event::PeerHeard(prim));
    assert_eq!(pair.nodes[1].0.view().status, model::Status::Ready);
}

#[test]
fn the_secondary_takes_over_when_the_primary_is_silent_and_a_lone_node_starts() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    pair.cut = true;
    pair.tell(1, Event::PeerSilent);
    assert_eq!(pair.states()[1], ModuleState::Alone);

    let mut lone = Pair::new();
    lone.cut = true;
    lone.tell(0, Event::Command(Command::Start));
    lone.tell(0, Event::PeerSilent);
    assert_eq!(lone.states()[0], ModuleState::Alone);
}

#[test]
fn a_peer_that_answers_for_the_address_is_named_also_when_the_proof_comes_after_the_window() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    pair.cut = true;
    pair.tell(1, Event::WindowClosed);
    pair.tell(1, Event::PeerSilent);
    let late = Proof { carrier: true, isolation: None, vip: VipAnswer::Peer, heard: false };
    pair.tell(1, Event::Proof(late));
    pair.tell(1, Event::Expired(Timer::Probe));
    let view = pair.nodes[1].0.view();
    assert_eq!(view.state, ModuleState::Wait);
    assert!(view.reason.contains("still answers for the virtual IP"), "{}", view.reason);
}

#[test]
fn stop_of_the_primary_hands_over_and_swap_exchanges() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    pair.tell(0, Event::Command(Command::Swap));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Second, ModuleState::Prim]);
    pair.tell(1, Event::Command(Command::Stop));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Alone, ModuleState::Stop]);
}

#[test]
fn automatic_actions_are_counted_until_an_operator_looks_and_the_fourth_stops_the_module_here() {
    let mut pair = Pair::new();
    pair.tell(0, Event::Command(Command::Start));
    pair.tell(1, Event::Command(Command::Start));
    pair.meet();
    let rule = |command| Event::Automatic { command, why: "failover rule t_x: tcp.x is down".into() };
    assert!(!pair.nodes[1].0.accepts_automatic(Command::Restart), "a secondary has no application to restart");
    pair.tell(1, rule(Command::Restart));
    assert_eq!(pair.nodes[1].0.view().loops, 0, "what is refused is not counted");
    for n in 1..=3 {
        pair.tell(0, rule(Command::Restart));
        assert_eq!((pair.states()[0], pair.nodes[0].0.view().loops), (ModuleState::Prim, n));
        assert!(pair.nodes[0].2.contains(&Timer::Loop), "they are forgotten after a while");
    }
    pair.tell(0, Event::Command(Command::Restart));
    assert_eq!(pair.nodes[0].0.view().loops, 0, "an operator has looked");
    // A module that it needs fails: none of its own errors, however often.
    for _ in 0..9 {
        pair.tell(0, Event::Lacks { why: "module_failure: module db is STOP NotReady here".into() });
        pair.meet();
        assert_eq!((pair.states()[0], pair.nodes[0].0.view().loops), (ModuleState::Stop, 0));
        pair.tell(0, rule(Command::Start));
        pair.meet();
        pair.tell(1, Event::Command(Command::Swap));
        pair.meet();
    }
    assert_eq!(pair.states()[0], ModuleState::Prim);
    for _ in 0..4 {
        pair.tell(0, rule(Command::Restart));
    }
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Stop, ModuleState::Alone]);
    assert!(pair.nodes[0].0.view().reason.contains("stop called by maxloop: failover rule t_x"), "no reason is shown");
    // What made it wait is over: a start that does not forget.
    pair.tell(0, rule(Command::Start));
    pair.meet();
    assert_eq!(pair.states(), [ModuleState::Second, ModuleState::Prim]);
    assert_eq!(pair.nodes[0].0.view().loops, 4);
}
