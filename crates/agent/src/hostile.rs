//! One door for each decoder of bytes from outside, for fuzz targets (`fuzz/`) and for the tests that alter what is right.
//!
//! Each takes any bytes and says whether they were accepted; none panics, hangs or takes memory without bound. What a secret
//! protects (the tag of a heartbeat, the proof of a pairing) is made right here, so that what is behind it is reached.

use crate::configuration::{read_cluster, read_module};
use crate::modules::Package;
use crate::pairing::Token;
use crate::replay::Replayed;
use crate::runtime::chronicle::{Farm, begun_line, decision_line, farm_begun_line};
use crate::{heartbeat, pairing, replay, witness_server};
use cluster::farm::member::{self, Member};
use cluster::farm::module as farm;
use cluster::mirror::{
    Action, Answer, App, AppReport, Command, Event, Facts, Message, Mirror, Policy, Settings, Ticket, View, Vip,
    VipReport,
};
use cluster::nodata::NoData;
use model::farm::Wish;
use model::schema::Surroundings;
use model::schema::names::NO_NAMES;
use model::{ModuleState, NodeId, Record, Status};
use std::collections::VecDeque;

/// A decoder of bytes from outside.
pub struct Door {
    /// As its fuzz target is called.
    pub name: &'static str,
    /// Were the bytes accepted?
    pub open: fn(&[u8]) -> bool,
    /// Bytes that are right.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of this crate's; those of the link, the change map and the activity log are `replica`'s.
pub const DOORS: &[Door] = &[
    Door { name: "heartbeat", open: heartbeat::hostile::open, samples: heartbeat::hostile::samples },
    Door { name: "pairing", open: pairing::hostile::open, samples: pairing::hostile::samples },
    Door { name: "witness", open: witness_server::hostile::open, samples: witness_server::hostile::samples },
    Door { name: "journal", open: journal, samples: journals },
    Door { name: "message", open: message, samples: messages },
    Door { name: "token", open: token, samples: tokens },
    Door { name: "userconfig", open: userconfig, samples: Vec::new },
    Door { name: "cluster", open: cluster_xml, samples: Vec::new },
    Door { name: "safe", open: safe, samples: Vec::new },
];

fn journal(bytes: &[u8]) -> bool {
    let mut played = Replayed::default();
    let read = replay::play(bytes, &mut played, &mut None);
    read.is_ok() && played.begins + played.decisions > 0
}

fn journals() -> Vec<Vec<u8>> {
    let (begun, decisions) = night();
    let line = |(n, (event, actions, view)): (u64, &(Event, Vec<Action>, View))| {
        decision_line(n, event, actions, (view.state, view.status), &view.reason)
    };
    let lines: Vec<String> = std::iter::once(begun_line(&begun)).chain((1..).zip(&decisions).map(line)).collect();
    // From each line on, so that alterations near the end are seen as often as those near the beginning.
    let short =
        |from: usize| lines[..1].iter().chain(&lines[from..]).map(|line| format!("{line}\n")).collect::<String>();
    let mirrors = (1..lines.len()).step_by(lines.len() / 8 + 1).map(|from| short(from).into_bytes());
    let (farm, decisions) = farm_night();
    let line = |(n, it): (u64, &FarmDecided)| decision_line(n, &it.0, &it.1, it.2, &it.3);
    let lines = std::iter::once(farm_begun_line(farm)).chain((1..).zip(&decisions).map(line));
    mirrors.chain([lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()]).collect()
}

/// What happened to a farm, what it decided, and where it was then.
pub(crate) type FarmDecided = (farm::Event, Vec<farm::Action>, (ModuleState, Status), String);

/// Node1 begins a farm, node2 comes in, node1 is stopped and started: the automaton it begins with, and each of its decisions.
pub(crate) fn farm_night() -> (Farm, Vec<FarmDecided>) {
    let settings = farm::Settings {
        module: "web".into(),
        is_light: false,
        has_addresses: true,
        is_invisible: false,
        by_script: false,
        drain_ms: 30_000,
        max_loop: 3,
        loop_ms: 0,
    };
    let mut module = farm::Module::new(settings, NodeId(1), 7, [NodeId(1), NodeId(2)]);
    let mut other = Member::new(NodeId(2), 8, [NodeId(1), NodeId(2)]);
    let names = [(NodeId(1), "node1".to_string()), (NodeId(2), "node2".to_string())].into();
    let (begun, mut decisions) = (Farm { module: module.clone(), names }, Vec::new());
    other.handle(member::Event::Heard(NodeId(1)));
    other.handle(member::Event::Wished(Wish::In));
    let start = || farm::Event::Command(Command::Start);
    let alone = [farm::Event::Member(member::Event::Silent(NodeId(2))), start()];
    let said = farm::Event::Member(member::Event::Said { from: NodeId(2), word: other.word() });
    let met = [farm::Event::Member(member::Event::Heard(NodeId(2))), said];
    let left = [farm::Event::Command(Command::Stop), farm::Event::Idle, start()];
    for event in alone.into_iter().chain(met).chain(left) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let actions = module.handle(event.clone());
            for action in &actions {
                match action {
                    farm::Action::App(App::Prepare) => queue.push_back(farm::Event::App(AppReport::Prepared)),
                    farm::Action::App(App::Start) => queue.push_back(farm::Event::App(AppReport::Started)),
                    farm::Action::App(App::Stop { .. }) => queue.push_back(farm::Event::App(AppReport::Stopped)),
                    farm::Action::App(App::Release { .. }) => queue.push_back(farm::Event::App(AppReport::Released)),
                    farm::Action::Take => queue.push_back(farm::Event::Taken(farm::Taken::Held)),
                    farm::Action::Release => queue.push_back(farm::Event::Released),
                    farm::Action::Arm(farm::Timer::Agree, _) => {
                        queue.push_back(farm::Event::Expired(farm::Timer::Agree));
                    }
                    farm::Action::Tell => {
                        let word = module.member().word();
                        if other.handle(member::Event::Said { from: NodeId(1), word }).contains(&member::Action::Tell) {
                            let said = member::Event::Said { from: NodeId(2), word: other.word() };
                            queue.push_back(farm::Event::Member(said));
                        }
                    }
                    _ => {}
                }
            }
            decisions.push((event, actions, module.shown(), module.reason()));
        }
    }
    (begun, decisions)
}

/// A start, a restart, a stop, a start: the automaton it begins with, and each of its decisions.
pub(crate) fn night() -> (Mirror, Vec<(Event, Vec<Action>, View)>) {
    let settings = Settings {
        module: "am".into(),
        node: NodeId(1),
        node_name: "node1".into(),
        peer: NodeId(2),
        peer_name: "node2".into(),
        witness: None,
        replicated: false,
        vip: false,
        salt: 7,
        boot_id: 1 << 100,
        configuration: 0,
        policy: Policy::default(),
    };
    let (mut mirror, mut plane) = (Mirror::new(settings, Record::empty()), NoData::default());
    let (begun, mut decisions) = (mirror.clone(), Vec::new());
    let commands = [Command::Prim { force: true, full: false }, Command::Restart, Command::Stop, Command::Start];
    for event in std::iter::once(Event::PeerSilent).chain(commands.map(Event::Command)) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let actions = mirror.handle(event.clone());
            for action in &actions {
                match action {
                    Action::Store { id, .. } => queue.push_back(Event::Stored { id: *id }),
                    Action::Data(order) => queue.extend(plane.handle(order).into_iter().map(Event::Plane)),
                    Action::Vip(Vip::Up { .. }) => queue.push_back(Event::Vip(VipReport::Held)),
                    Action::Vip(Vip::Down) => queue.push_back(Event::Vip(VipReport::Released)),
                    Action::App(App::Prepare) => queue.push_back(Event::App(AppReport::Prepared)),
                    Action::App(App::Start) => queue.push_back(Event::App(AppReport::Started)),
                    Action::App(App::Stop { .. }) => queue.push_back(Event::App(AppReport::Stopped)),
                    Action::App(App::Release { .. }) => queue.push_back(Event::App(AppReport::Released)),
                    _ => {}
                }
            }
            decisions.push((event, actions, mirror.view()));
        }
    }
    (begun, decisions)
}

/// What the other node's automaton says.
fn message(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Message>(bytes).is_ok()
}

fn messages() -> Vec<Vec<u8>> {
    let ticket = Ticket { boots: 3, n: 4 };
    let facts = || Box::new(Facts::of_record(NodeId(2), &Record::empty()));
    let begin = model::orders::Begin::Resync { full: true, quarantine: true };
    [
        Message::Hello { ticket, facts: facts() },
        Message::Welcome { to: ticket, last: ticket, facts: facts(), answer: Answer::Follows { begin } },
        Message::Nudge,
        Message::Witnesses { ticket, take: model::Witnesses::One { witness: Some(NodeId(3)) } },
    ]
    .iter()
    .map(|message| serde_json::to_vec(message).unwrap_or_default())
    .collect()
}

fn token(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Token>().is_ok())
}

fn tokens() -> Vec<Vec<u8>> {
    (0..20u8).map(|n| Token::create(&[n; 64]).to_string().into_bytes()).collect()
}

fn userconfig(bytes: &[u8]) -> bool {
    let around = Surroundings { module: "app", cluster: None, subnets: &[], others: &[], names: &NO_NAMES };
    let read = read_module(bytes, "userconfig.xml", &around);
    assert!(read.value.is_some() || !read.diagnostics.is_empty(), "refused without a finding");
    read.value.is_some()
}

fn cluster_xml(bytes: &[u8]) -> bool {
    let read = read_cluster(bytes, "cluster.xml", &NO_NAMES);
    assert!(read.value.is_some() || !read.diagnostics.is_empty(), "refused without a finding");
    read.value.is_some()
}

fn safe(bytes: &[u8]) -> bool {
    Package::from_archive(bytes).is_ok()
}
