//! The table of decisions: every (state, event) pair, asked from the automaton itself, as markdown.
//!
//! Each state is shown by one typical automaton in it, reached by a story; each event by one typical event. What depends on more (which
//! copy is newer, what is gathered already) is told by the scenarios.

pub mod farm;

use crate::world::step::Step;
use crate::world::{Asks, Chosen, Rules, World};
use cluster::mirror::{
    Action, Advert, Answer, App, AppReport, Command, Event, Facts, Message, Mirror, Policy, Proof, Serving, Ticket,
    Timer, Vip, VipAnswer, VipReport,
};
use cluster::witness;
use model::orders::{Progress, Report, Session, Situation};
use model::{Epoch, ModuleState, NodeId, Status};
use std::collections::BTreeMap;

const ORDER: [&str; 17] = [
    "Stop",
    "Booting",
    "Preparing",
    "Wait",
    "Claim",
    "Opening",
    "Alone",
    "Alone, resync",
    "Commit",
    "Prim",
    "Prim, resuming",
    "Hold",
    "Second",
    "Second, resuming",
    "Target",
    "Fencing",
    "Leaving",
];

/// `docs/transitions.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Decisions of the mirror automaton\n\n\
         Printed from the code by `UPDATE=1 cargo test -p sim --test transitions`; a test fails when this page is stale.\n\
         Each state is shown by one typical automaton in it, once without and once with a witness; pairs that are not listed change nothing.\n\
         What depends on more than state and event (whose copy is newer, what is gathered already) is told by the stories in `tests/scenarios`.\n",
    );
    for witness in [false, true] {
        let samples = samples(witness);
        for phase in ORDER {
            let Some(mirror) = samples.get(phase) else { continue };
            text.push_str(&format!("\n## {phase}, {}\n\n", if witness { "with witness" } else { "without witness" }));
            text.push_str("| event | then | sentences | actions |\n|---|---|---|---|\n");
            let mut silent = vec![];
            for (name, event) in events(mirror) {
                let mut after = mirror.clone();
                let actions = after.handle(event);
                if actions.is_empty() && after.phase() == phase {
                    silent.push(name);
                    continue;
                }
                let (said, done) = describe(&actions);
                text.push_str(&format!("| {name} | {} | {said} | {done} |\n", after.phase()));
            }
            text.push_str(&format!("\nNothing follows from: {}.\n", silent.join(", ")));
        }
    }
    text
}

/// One automaton per state, the first that stories come by.
fn samples(witness: bool) -> BTreeMap<&'static str, Mirror> {
    let mut found = BTreeMap::new();
    let rules = Rules { witness, in_flight: 8, broken: None, chosen: Chosen::Nothing, asks: Asks::Alive };
    let mut note = |mirror: &Mirror| {
        found.entry(mirror.phase()).or_insert_with(|| mirror.clone());
    };
    let whole = World::whole(rules.clone());
    let (Some(prim), Some(second)) = (whole.agent(0), whole.agent(1)) else { return found };
    note(prim);
    note(second);
    let mut stopped = whole.clone();
    stopped.make(Step::Command(0, Command::Stop));
    stopped.calm(0);
    stopped.agent(0).iter().for_each(|mirror| note(mirror));
    let mut waiting = whole.clone();
    for step in [Step::Cut, Step::LinkLost(1), Step::Silent(1)] {
        waiting.make(step);
        waiting.agent(1).iter().for_each(|mirror| note(mirror));
    }
    let mut world = World::new(rules.clone());
    world.make(Step::Command(0, Command::Prim { force: false, full: false }));
    world.agent(0).iter().for_each(|mirror| note(mirror));
    world.make(Step::Command(1, Command::Start));
    while world.step_at_once() {
        (0..2).filter_map(|who| world.agent(who)).for_each(&mut note);
    }
    let mut preparing = World::new(rules.clone());
    preparing.nodes[0].scripts.shall("prestart", "hangs");
    preparing.make(Step::Command(0, Command::Start));
    preparing.make(Step::Stored(0));
    preparing.agent(0).iter().for_each(|mirror| note(mirror));
    // A lost link, and a resume.
    let mut world = whole.clone();
    for step in [Step::Cut, Step::LinkLost(0), Step::LinkLost(1), Step::Heal] {
        world.make(step);
        (0..2).filter_map(|who| world.agent(who)).for_each(&mut note);
    }
    while world.step_at_once() {
        (0..2).filter_map(|who| world.agent(who)).for_each(&mut note);
    }
    // A takeover, order by order.
    let mut mirror = second.clone();
    if let Some(session) = mirror.view().session {
        mirror.handle(Event::Plane(Report::LinkLost { session, reason: "closed".into() }));
        let mut actions = mirror.handle(Event::PeerSilent);
        let proof = Proof { carrier: true, isolation: None, vip: VipAnswer::Nobody, heard: false };
        if witness {
            if let Some(ticket) = mirror.open_question() {
                actions = mirror.handle(grant(ticket));
            }
        } else {
            actions = mirror.handle(Event::Proof(proof));
        }
        note(&mirror);
        for _ in 0..4 {
            let next = actions.iter().find_map(|action| match action {
                Action::Data(model::orders::Order::Sync { ticket }) => {
                    Some(Event::Plane(Report::Synced { ticket: *ticket }))
                }
                Action::Store { id, .. } => Some(Event::Stored { id: *id }),
                Action::Data(model::orders::Order::ServeAlone { epoch, .. }) => {
                    let situation = Situation::Alone { epoch: *epoch, resync: None };
                    Some(Event::Plane(Report::Reached { situation }))
                }
                Action::Vip(Vip::Up { .. }) => Some(Event::Vip(VipReport::Held)),
                Action::App(App::Start) => Some(Event::App(AppReport::Started)),
                _ => None,
            });
            let Some(next) = next else { break };
            actions = mirror.handle(next);
            note(&mirror);
        }
    }
    let mut mirror = prim.clone();
    mirror.handle(Event::PlaneDied);
    note(&mirror);
    let mut mirror = prim.clone();
    mirror.handle(Event::Command(Command::Stop));
    note(&mirror);
    found
}

fn grant(ticket: Ticket) -> Event {
    let epoch = Epoch { counter: 2, node: NodeId(2), random: 0 };
    Event::Witness(witness::Answer::Grant { incarnation: 1, ticket, epoch })
}

fn events(mirror: &Mirror) -> Vec<(String, Event)> {
    let mut events: Vec<(String, Event)> = vec![];
    let mut add = |name: &str, event| events.push((name.to_string(), event));
    for (name, command) in [
        ("start", Command::Start),
        ("prim", Command::Prim { force: false, full: false }),
        ("prim --force", Command::Prim { force: true, full: false }),
        ("second", Command::Second { full: false }),
        ("stop", Command::Stop),
        ("forcestop", Command::ForceStop),
        ("restart", Command::Restart),
        ("stopstart", Command::StopStart),
        ("swap", Command::Swap),
    ] {
        add(&format!("operator: {name}"), Event::Command(command));
    }
    let advert = Advert { epoch: mirror.record().epoch, state: ModuleState::Wait, status: Status::NotReady };
    for (name, command) in [
        ("restart", Command::Restart),
        ("stopstart", Command::StopStart),
        ("stop", Command::Stop),
        ("wait", Command::Wait),
        ("swap", Command::Swap),
    ] {
        let why = "failover rule … : tcp.http is down".to_string();
        add(&format!("failover rule: {name}"), Event::Automatic { command, why });
    }
    add("module_failure: wait", Event::Lacks { why: "module_failure: …".to_string() });
    let why = "syncat: …".to_string();
    add("syncat: wait", Event::Scheduled { command: Command::Wait, why });
    let why = "syncdelta: …".to_string();
    add("syncdelta: prim --force", Event::Scheduled { command: Command::Prim { force: true, full: false }, why });
    add("peer heard", Event::PeerHeard(advert));
    add("peer silent", Event::PeerSilent);
    add("peer lives and does not run the module", Event::PeerLacks);
    let overheard = Advert {
        state: ModuleState::Alone,
        epoch: Some(Epoch { counter: 9, node: mirror.settings().peer, random: 3 }),
        ..advert
    };
    add("peer serves alone, and does not hear this node", Event::PeerOverheard(overheard));
    add("another member says that this node is none", Event::LeftOut);
    add("two pulses missing", Event::ProbeMayBegin);
    add("window opened", Event::WindowOpened);
    add("window closed", Event::WindowClosed);
    add("froze", Event::Froze);
    let peer = mirror.settings().peer;
    let ticket = Ticket { boots: 1 << 20, n: 1 };
    let mut facts = Facts::of_record(peer, mirror.record());
    facts.right = model::Right::None;
    let hello = |facts: &Facts| Event::Message(Message::Hello { ticket, facts: Box::new(facts.clone()) });
    add("HELLO, equal copy, waits", hello(&facts));
    let mut stale = facts.clone();
    stale.data = model::DataState::Inconsistent;
    add("HELLO, inconsistent copy, waits", hello(&stale));
    let mut newer = facts.clone();
    let epoch = Epoch { counter: 99, node: peer, random: 1 };
    newer.epoch = Some(epoch);
    newer.history.push(epoch);
    newer.serving = Serving::Alone;
    add("HELLO, newer, serves alone", hello(&newer));
    let another = model::NodeId(9);
    add("another witness is configured", Event::WitnessConfigured { witness: Some(another) });
    let policy = |failover| Policy { failover, ..Policy::default() };
    add("failover is switched off", Event::Chosen { policy: policy(false) });
    add("failover is switched on", Event::Chosen { policy: policy(true) });
    let why_not = |why: Option<&str>| Event::Fit { why_not: why.map(str::to_string) };
    add("files of the module are lost", why_not(Some("/var/lib/stead/modules/AM is read-only")));
    let unfit = Advert { state: ModuleState::Second, ..advert };
    add("peer heard: it follows, and could not serve", Event::PeerHeard(unfit));
    let take = model::Witnesses::Exchange { old: mirror.settings().witness, new: Some(another) };
    add("the primary says who votes", Event::Message(Message::Witnesses { ticket, take }));
    add("nudge", Event::Message(Message::Nudge));
    add("swap asked by the secondary", Event::Message(Message::SwapPlease));
    if let Some(to) = mirror.open_hello() {
        let welcome =
            |answer| Event::Message(Message::Welcome { to, last: ticket, facts: Box::new(facts.clone()), answer });
        add("WELCOME: yields", welcome(Answer::Yields));
        add("WELCOME: follows, resume", welcome(Answer::Follows { begin: model::orders::Begin::Resume }));
    }
    if let Some(ticket) = mirror.open_question() {
        add("witness grants", grant(ticket));
        let refuse = |why| {
            Event::Witness(witness::Answer::Refuse {
                incarnation: 1,
                ticket,
                why,
                granted: None,
                granted_unix_ms: None,
            })
        };
        add("witness refuses: held by the peer", refuse(witness::Refusal::Held));
        add("witness refuses: empty", refuse(witness::Refusal::Empty));
        add("witness refuses: peer first", refuse(witness::Refusal::PeerFirst));
        add("witness refuses: primary first", refuse(witness::Refusal::PrimaryFirst));
        add("witness unreachable", Event::Witness(witness::Answer::Unreachable));
    }
    for id in [0, 1] {
        add(&format!("stored {id}"), Event::Stored { id });
        add(&format!("not stored {id}"), Event::StoreFailed { id, reason: "No space left on device".into() });
    }
    let session = mirror.view().session.unwrap_or(Session { epoch, number: 0 });
    for (name, report) in [
        ("link up", Report::LinkUp { session }),
        ("link lost", Report::LinkLost { session, reason: "closed".into() }),
        ("peer stalls", Report::PeerStalled { session, stalled_ms: 3_000 }),
        ("peer cannot apply", Report::PeerFault { session, reason: "No space left on device".into() }),
        ("cannot resume", Report::CannotResume { session }),
        ("resync through", Report::ResyncThrough { session }),
        ("commit received", Report::CommitReceived { session }),
        ("committed", Report::Committed { session, progress: Progress::default() }),
        ("reached idle", Report::Reached { situation: Situation::Idle }),
        ("reached holding", Report::Reached { situation: Situation::Holding { epoch: None } }),
    ] {
        add(&format!("mirrorfs: {name}"), Event::Plane(report));
    }
    for order in ["serve_alone", "follow", "lead", "sync"] {
        let report = Report::Refused { order: order.into(), reason: "/srv is held open by process 4711".into() };
        add(&format!("mirrorfs refuses {order}"), Event::Plane(report));
    }
    add("mirrorfs died", Event::PlaneDied);
    add("mirrorfs replaced", Event::PlaneReplaced);
    add("mirrorfs stopped", Event::PlaneStopped);
    let proof = |isolation, vip| Event::Proof(Proof { carrier: true, isolation, vip, heard: false });
    add("proof complete", proof(Some(true), VipAnswer::Nobody));
    add("proof: peer answers for the address", proof(Some(true), VipAnswer::Peer));
    add("proof: isolated", proof(Some(false), VipAnswer::Nobody));
    add("address held", Event::Vip(VipReport::Held));
    add(
        "address is somebody else's",
        Event::Vip(VipReport::Duplicate { peer: false, who: "10.0.1.100 is answered by a stranger".into() }),
    );
    add("prestart through", Event::App(AppReport::Prepared));
    add("application started", Event::App(AppReport::Started));
    add("script not through", Event::App(AppReport::StartFailed { reason: "script … ended with exit code 1".into() }));
    add("application stopped", Event::App(AppReport::Stopped));
    add("application died", Event::App(AppReport::Died { reason: "no process is left".into() }));
    add("poststop through", Event::App(AppReport::Released));
    for timer in Timer::ALL {
        add(&format!("timer {timer:?}"), Event::Expired(timer));
    }
    events
}

/// What is asked of the application, of whatever kind its module is.
fn of_application(app: &App) -> String {
    match app {
        App::Prepare => "prestart".to_string(),
        App::Start => "start application".to_string(),
        App::Role { to, .. } => format!("scripts of {to}"),
        App::Stop { force: true, .. } => "kill application".to_string(),
        App::Stop { force: false, .. } => "stop application".to_string(),
        App::Release { .. } => "poststop".to_string(),
    }
}

fn describe(actions: &[Action]) -> (String, String) {
    let (mut said, mut done) = (vec![], vec![]);
    for action in actions {
        match action {
            Action::Journal { sentence, .. } => said.push(sentence.clone()),
            Action::Reply { accepted, sentence } => {
                said.push(format!("{}: {sentence}", if *accepted { "yes" } else { "**no**" }))
            }
            Action::Store { record, .. } => done.push(format!(
                "store {:?} {:?}{}{}",
                record.role,
                record.data,
                if record.yielded { " yielded" } else { "" },
                if record.clean { " clean" } else { "" }
            )),
            Action::Send(message) => done.push(match message {
                Message::Hello { .. } => "HELLO".to_string(),
                Message::Welcome { answer, .. } => format!("WELCOME {answer:?}"),
                Message::Nudge => "nudge".to_string(),
                Message::SwapPlease => "ask for a swap".to_string(),
                Message::Witnesses { .. } => "tell who votes".to_string(),
                Message::WitnessesStored { .. } => "confirm who votes".to_string(),
            }),
            Action::Ask(_) => done.push("ask the witness".to_string()),
            Action::Pulse => done.push("pulse to the witness".to_string()),
            Action::Data(order) => {
                let text = format!("{order:?}");
                done.push(text.split([' ', '{']).next().unwrap_or_default().to_string());
            }
            Action::KillPlane => done.push("kill mirrorfs".to_string()),
            Action::Probe => done.push("gather the proof".to_string()),
            Action::Vip(vip) => {
                done.push(if matches!(vip, Vip::Down) { "address down" } else { "address up" }.to_string())
            }
            Action::App(app) => done.push(of_application(app)),
            Action::Arm(timer) => done.push(format!("arm {timer:?}")),
            Action::Reboot => done.push("reboot".to_string()),
            Action::Disarm(_) => {}
        }
    }
    (said.join("; ").replace('|', "/"), done.join(", "))
}
