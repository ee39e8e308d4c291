//! The table of a farm module's decisions, and of a light one's, asked from the automaton itself, as markdown.

use cluster::farm::member;
use cluster::farm::module::{Action, Event, Module, Settings, Taken, Timer};
use cluster::mirror::{AppReport, Command};
use model::NodeId;
use model::farm::{NodeSet, Wish, Word};
use model::limits::LOOPS_MAX;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// `docs/transitions-farm.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Decisions of a farm module, and of a light one\n\n\
         Printed from the code by `UPDATE=1 cargo test -p sim --test transitions`; a test fails when this page is stale.\n\
         Each state is shown by one typical automaton in it (of a farm: node1 with node2 beside it); events that are not listed change\n\
         nothing. *show*: the filter deals clients out by a new view; *hide*: it accepts nothing; *tell*: the other nodes hear the new\n\
         word at once. Which view a node makes or follows is the membership's, `crates/cluster/src/farm/member.rs`.\n",
    );
    for (kind, is_light) in [("farm", false), ("light", true)] {
        for (name, module) in samples(is_light) {
            text.push_str(&format!(
                "\n## {name}, {kind}\n\n| event | then | sentences | actions |\n|---|---|---|---|\n"
            ));
            let mut silent = vec![];
            for (event_name, event) in events(is_light) {
                // Only an agent that begins adopts what it finds.
                if matches!(event, Event::Adopted { .. }) && name != "Stop" {
                    continue;
                }
                let mut after = module.clone();
                let actions = after.handle(event);
                if actions.is_empty() && after.phase() == module.phase() {
                    silent.push(event_name);
                    continue;
                }
                let (said, done) = describe(&actions);
                let (state, status) = after.shown();
                let phase = after.phase();
                text.push_str(&format!("| {event_name} | {phase} ({state} {status}) | {said} | {done} |\n"));
            }
            text.push_str(&format!("\nNothing follows from: {}.\n", silent.join(", ")));
        }
    }
    text
}

/// One automaton per state, in the order of its life.
fn samples(is_light: bool) -> Vec<(&'static str, Module)> {
    let settings = Settings {
        module: "AM".into(),
        is_light,
        has_addresses: !is_light,
        is_invisible: false,
        by_script: false,
        drain_ms: 30_000,
        max_loop: LOOPS_MAX,
        loop_ms: model::limits::LOOP_MS,
    };
    let others: &[NodeId] = if is_light { &[] } else { &[OTHER] };
    let mut module = Module::new(settings, ME, 7, others.iter().copied().chain([ME]));
    let mut samples = vec![(module.phase(), module.clone())];
    let mut go = |module: &mut Module, event: Event| {
        module.handle(event);
        if samples.iter().all(|(phase, _)| *phase != module.phase()) {
            samples.push((module.phase(), module.clone()));
        }
    };
    go(&mut module, Event::Command(Command::Start));
    go(&mut module, Event::App(AppReport::Prepared));
    if !is_light {
        go(&mut module.clone(), failed());
    }
    go(&mut module, Event::Taken(Taken::Held));
    if !is_light {
        module.handle(Event::Member(member::Event::Heard(OTHER)));
        module.handle(said(&module, Wish::Out));
    }
    module.handle(Event::App(AppReport::Started));
    if !is_light {
        // The other node follows this one's view.
        for _ in 0..2 {
            module.handle(said(&module, Wish::In));
        }
    }
    go(&mut module, Event::Member(member::Event::Heard(OTHER)));
    go(&mut module, Event::Command(Command::Stop));
    if !is_light {
        go(&mut module, Event::Expired(Timer::Drain));
    }
    go(&mut module, Event::App(AppReport::Stopped));
    go(&mut module, Event::Released);
    samples
}

fn failed() -> Event {
    Event::Taken(Taken::Failed { why: "10.0.1.100 is answered by a stranger".into() })
}

/// What the other node says, having heard this one.
fn said(module: &Module, wish: Wish) -> Event {
    let view = module.member().view().cloned();
    let highest = view.as_ref().map_or(0, |view| view.counter);
    let view = view.filter(|view| view.present.has(OTHER));
    Event::Member(member::Event::Said {
        from: OTHER,
        word: Word { wish, view, highest, hears: NodeSet::EMPTY.with(ME) },
    })
}

fn events(is_light: bool) -> Vec<(String, Event)> {
    let mut events = vec![];
    for (name, command) in [
        ("start", Command::Start),
        ("prim", Command::Prim { force: false, full: false }),
        ("stop", Command::Stop),
        ("forcestop", Command::ForceStop),
        ("restart", Command::Restart),
        ("stopstart", Command::StopStart),
    ] {
        events.push((format!("operator: {name}"), Event::Command(command)));
    }
    for (name, command) in [
        ("restart", Command::Restart),
        ("stopstart", Command::StopStart),
        ("stop", Command::Stop),
        ("wait", Command::Wait),
        ("wake-up", Command::Start),
    ] {
        let why = "failover rule …".to_string();
        events.push((format!("failover rule: {name}"), Event::Automatic { command, why }));
    }
    let mut add = |name: &str, event| events.push((name.to_string(), event));
    add("module_failure: wait", Event::Lacks { why: "module_failure: …".into() });
    add("prestart through", Event::App(AppReport::Prepared));
    add("application started", Event::App(AppReport::Started));
    add("script not through", Event::App(AppReport::StartFailed { reason: "script … ended with exit code 1".into() }));
    add("application stopped", Event::App(AppReport::Stopped));
    add("poststop through", Event::App(AppReport::Released));
    add("addresses held, filter attached", Event::Taken(Taken::Held));
    add("addresses released", Event::Released);
    add("the agent was replaced", Event::Adopted { serving: true, open: true });
    add("froze", Event::Froze);
    add("timer Loop", Event::Expired(Timer::Loop));
    if is_light {
        return events;
    }
    add("addresses cannot be taken", failed());
    add("no connection stands", Event::Idle);
    let nothing = |wish| Word { wish, view: None, highest: 0, hears: NodeSet::EMPTY.with(ME) };
    add("node2 heard", Event::Member(member::Event::Heard(OTHER)));
    add("node2 silent", Event::Member(member::Event::Silent(OTHER)));
    add("all others silent at once", Event::Member(member::Event::CutOff));
    add("node2 leaves", Event::Member(member::Event::Said { from: OTHER, word: nothing(Wish::Out) }));
    add("node2 drains", Event::Member(member::Event::Said { from: OTHER, word: nothing(Wish::Drain) }));
    add("node2 wants a share", Event::Member(member::Event::Said { from: OTHER, word: nothing(Wish::In) }));
    add("node2 has another configuration", Event::Foreign { from: OTHER, word: nothing(Wish::In) });
    for timer in [Timer::Drain, Timer::Retry, Timer::Agree, Timer::Doubt] {
        add(&format!("timer {timer:?}"), Event::Expired(timer));
    }
    events
}

fn describe(actions: &[Action]) -> (String, String) {
    let (mut said, mut done) = (vec![], vec![]);
    for action in actions {
        match action {
            Action::Journal { sentence, .. } => said.push(sentence.clone()),
            Action::Reply { accepted: true, sentence } => said.push(format!("yes: {sentence}")),
            Action::Reply { accepted: false, sentence } => said.push(format!("**no**: {sentence}")),
            Action::App(app) => done.push(super::of_application(app)),
            Action::Take => done.push("take addresses, attach filter".into()),
            Action::Release => done.push("release addresses and filter".into()),
            Action::Show(view, why) => {
                done.push(format!("show {} of {} ({})", view.serving().len(), view.present.len(), why.sentence()));
            }
            Action::Prepare(_) => done.push("prepare the next view".into()),
            Action::Doubt(true) => done.push("reset no unknown connection".into()),
            Action::Doubt(false) => done.push("reset unknown connections again".into()),
            Action::Hide => done.push("hide".into()),
            Action::Announce => done.push("announce the addresses".into()),
            Action::Tell => done.push("tell".into()),
            Action::Arm(timer, _) => done.push(format!("arm {timer:?}")),
            Action::Disarm(_) => {}
        }
    }
    (said.join("; ").replace('|', "/"), done.join(", "))
}
