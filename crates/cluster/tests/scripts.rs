//! The table of scripts, row by row, as SafeKit's users know it.

use cluster::mirror::{Action, App, AppReport, Command, Event, Mirror, Policy, Settings, Vip, VipReport};
use cluster::nodata::NoData;
use cluster::scripts::{Kind, Pair, Run, Scripts, Step, Why, between};
use model::ModuleState::{self, Alone, Prim, Second, Stop, Up, Wait};
use model::{NodeId, Record};

/// Names only; a graceful run and the one by force behind it are one.
fn names(from: ModuleState, to: ModuleState, why: Why) -> String {
    let runs = between(from, to, why);
    for pair in runs.windows(2).filter(|pair| matches!(pair[0].kind, Kind::Stop(_))) {
        assert_eq!(pair[0].script, pair[1].script, "graceful, then by force");
        assert_eq!(pair[1].args[0], "force");
        assert_eq!(pair[0].args, pair[1].args[1..]);
    }
    let told: Vec<String> = runs
        .iter()
        .filter(|run| !matches!(run.kind, Kind::Force(_)) || to == Stop)
        .map(|run| if run.args[0] == "force" { format!("{} force", run.script) } else { run.script.clone() })
        .collect();
    told.join(", ")
}

#[test]
fn every_row_of_the_table() {
    let rows = [
        (Stop, Wait, "transition, prestart"),
        (Wait, Alone, "transition, start_both, start_prim, start_sec"),
        (Wait, Up, "transition, start_both, start_prim, start_sec"),
        (Wait, Prim, "transition, start_both, start_prim"),
        (Wait, Second, "transition, start_both, start_second, start_sec"),
        (Alone, Prim, "stop_sec, transition"),
        (Prim, Alone, "transition, start_sec"),
        (Second, Alone, "stop_second, transition, start_prim"),
        (Alone, Second, "stop_prim, transition, start_second"),
        (Second, Prim, "stop_sec, stop_second, transition, start_prim"),
        (Prim, Second, "stop_prim, transition, start_second, start_sec"),
        (Prim, Wait, "stop_prim, stop_both, transition"),
        (Alone, Wait, "stop_sec, stop_prim, stop_both, transition"),
        (Second, Wait, "stop_sec, stop_second, stop_both, transition"),
        (Wait, Stop, "stop_sec force, stop_prim force, stop_second force, stop_both force, poststop, transition"),
    ];
    for (from, to, expected) in rows {
        assert_eq!(names(from, to, Why::Start), expected, "{from} -> {to}");
    }
    let restarts = [
        (Prim, "stop_prim, stop_both, start_both, start_prim"),
        (Alone, "stop_sec, stop_prim, stop_both, start_both, start_prim, start_sec"),
        (Up, "stop_sec, stop_prim, stop_both, start_both, start_prim, start_sec"),
        (Second, "stop_sec, stop_second, stop_both, start_both, start_second, start_sec"),
    ];
    for (at, expected) in restarts {
        assert_eq!(names(at, at, Why::Restart), expected, "restart in {at}");
    }
}

#[test]
fn arguments_are_present_state_next_state_and_action() {
    let told = |from, to, why| between(from, to, why).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(Stop, Wait, Why::Start), ["transition STOP WAIT start", "prestart STOP WAIT start"]);
    assert_eq!(
        told(Prim, Wait, Why::StopStart),
        [
            "stop_prim PRIM WAIT stopstart",
            "stop_prim force PRIM WAIT stopstart",
            "stop_both PRIM WAIT stopstart",
            "stop_both force PRIM WAIT stopstart",
            "transition PRIM WAIT stopstart",
        ]
    );
    assert_eq!(told(Alone, Wait, Why::StopWait).last().map(String::as_str), Some("transition ALONE WAIT stopwait"));
    assert_eq!(
        told(Prim, Prim, Why::Restart),
        [
            "stop_prim PRIM PRIM stop",
            "stop_prim force PRIM PRIM stop",
            "stop_both PRIM PRIM stop",
            "stop_both force PRIM PRIM stop",
            "start_both PRIM PRIM start",
            "start_prim PRIM PRIM start",
        ]
    );
}

fn runs(plan: Vec<Step>) -> Vec<String> {
    let run = |step| if let Step::Run(run) = step { Some(Run::to_string(&run)) } else { None };
    plan.into_iter().filter_map(run).collect()
}

#[test]
fn what_is_there_already_is_not_begun_again() {
    let mut scripts = Scripts::of(Second);
    // Its primary was lost and came back; then the agent was replaced.
    assert!(scripts.plan(App::Role { to: Second, why: Why::Start }, Second).is_empty());
    assert!(scripts.plan(App::Prepare, Second).is_empty());
    // A failover passes through WAIT without its scripts.
    assert_eq!(
        runs(scripts.plan(App::Start, Alone)),
        [
            "stop_second SECOND ALONE start",
            "stop_second force SECOND ALONE start",
            "transition SECOND ALONE start",
            "start_prim SECOND ALONE start"
        ]
    );
    assert!(scripts.is_up(Pair::Sec) && scripts.is_up(Pair::Both) && !scripts.is_up(Pair::Second));
}

#[test]
fn a_swap_nobody_takes_up_goes_back() {
    let mut scripts = Scripts::of(Prim);
    assert_eq!(
        runs(scripts.plan(App::Stop { force: false, why: Why::Swap }, Wait)),
        ["stop_prim PRIM SECOND start", "stop_prim force PRIM SECOND start"]
    );
    let mut back = scripts.clone();
    assert_eq!(
        runs(back.plan(App::Start, Alone)),
        ["transition PRIM ALONE start", "start_prim PRIM ALONE start", "start_sec PRIM ALONE start"]
    );
    assert_eq!(
        runs(scripts.plan(App::Role { to: Second, why: Why::Start }, Second)),
        ["transition PRIM SECOND start", "start_second PRIM SECOND start", "start_sec PRIM SECOND start"]
    );
}

#[test]
fn a_forced_stop_kills_first_and_runs_scripts_by_force_only() {
    let mut scripts = Scripts::of(Prim);
    let kill = scripts.plan(App::Stop { force: true, why: Why::Stop }, Wait);
    assert_eq!(kill.first(), Some(&Step::End { pair: None, kill: true }));
    assert_eq!(runs(kill), ["transition PRIM WAIT stop"]);
    let release = runs(scripts.plan(App::Release { why: Why::Stop }, Wait));
    assert_eq!(
        release,
        [
            "stop_sec force WAIT STOP stop",
            "stop_prim force WAIT STOP stop",
            "stop_second force WAIT STOP stop",
            "stop_both force WAIT STOP stop",
            "poststop WAIT STOP stop",
            "transition WAIT STOP stop",
        ]
    );
    // Asked again while poststop hangs: it is killed, and nothing begins.
    assert_eq!(runs(scripts.plan(App::Stop { force: true, why: Why::Stop }, Stop)), Vec::<String>::new());

    // Fenced: services outside the module's group end as well.
    let mut fenced = Scripts::of(Alone);
    assert_eq!(
        runs(fenced.plan(App::Stop { force: true, why: Why::StopWait }, Wait)),
        [
            "stop_sec force ALONE WAIT stopwait",
            "stop_prim force ALONE WAIT stopwait",
            "stop_both force ALONE WAIT stopwait",
            "transition ALONE WAIT stopwait",
        ]
    );
}

/// One node without data, its peer silent, every wish fulfilled at once.
fn alone(policy: Policy) -> (Mirror, NoData) {
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
        boot_id: 1,
        configuration: 0,
        policy,
    };
    (Mirror::new(settings, Record::empty()), NoData::default())
}

fn settle(mirror: &mut Mirror, plane: &mut NoData, event: Event) -> Vec<Action> {
    let (mut queue, mut all) = (std::collections::VecDeque::from([event]), Vec::new());
    while let Some(event) = queue.pop_front() {
        for action in mirror.handle(event) {
            match &action {
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
            all.push(action);
        }
    }
    all
}

#[test]
fn a_reboot_takes_the_place_of_a_stop_and_start_by_a_rule() {
    for reboot in [false, true] {
        let (mut mirror, mut plane) = alone(Policy { reboot, ..Policy::default() });
        settle(&mut mirror, &mut plane, Event::PeerSilent);
        settle(&mut mirror, &mut plane, Event::Command(Command::Prim { force: true, full: false }));
        assert_eq!(mirror.view().state, Alone);
        let rule = |command| Event::Automatic { command, why: "rule".into() };
        // A restart is one, whatever is configured.
        assert!(!settle(&mut mirror, &mut plane, rule(Command::Restart)).contains(&Action::Reboot));
        let done = settle(&mut mirror, &mut plane, rule(Command::StopStart));
        assert_eq!(done.contains(&Action::Reboot), reboot);
        if reboot {
            // After everything of the module has stopped, and nothing behind it.
            assert_eq!(done.last(), Some(&Action::Reboot));
            assert_eq!(mirror.view().state, Stop);
            // It could not be done.
            settle(&mut mirror, &mut plane, rule(Command::Start));
            assert_ne!(mirror.view().state, Stop);
        }
        // An operator's is no rule's.
        assert!(!settle(&mut mirror, &mut plane, Event::Command(Command::StopStart)).contains(&Action::Reboot));
    }
}

#[test]
fn a_rule_that_makes_wait_says_so_to_the_scripts() {
    let (mut mirror, mut plane) = alone(Policy::default());
    settle(&mut mirror, &mut plane, Event::PeerSilent);
    settle(&mut mirror, &mut plane, Event::Command(Command::Prim { force: true, full: false }));
    let done = settle(&mut mirror, &mut plane, Event::Automatic { command: Command::Wait, why: "rule".into() });
    assert!(done.contains(&Action::App(App::Stop { force: false, why: Why::StopWait })));
    assert!(done.contains(&Action::App(App::Release { why: Why::StopWait })));
}

/// `start_second` hangs, and the node is to serve: it is broken off. What serves as well begins anew, the rest is stopped.
#[test]
fn a_start_that_is_broken_off_begins_anew_where_it_is_needed() {
    let named = |plan: Vec<Step>| -> Vec<String> {
        let run = |step| match step {
            Step::Run(run) if !matches!(run.kind, Kind::Force(_)) => Some(run.script),
            _ => None,
        };
        plan.into_iter().filter_map(run).collect()
    };
    let follow = |scripts: &mut Scripts| {
        scripts.plan(App::Prepare, Wait);
        scripts.plan(App::Role { to: Second, why: Why::Start }, Second)
    };
    let mut scripts = Scripts::default();
    assert_eq!(named(follow(&mut scripts)), ["transition", "start_both", "start_second", "start_sec"]);
    assert!(!scripts.broken_off(Pair::Second, Alone, true), "it is stopped, not killed");
    assert!(!scripts.broken_off(Pair::Sec, Alone, false), "it left nothing");
    assert_eq!(named(scripts.plan(App::Start, Alone)), ["stop_second", "transition", "start_prim", "start_sec"]);
    // What both roles need was not through: it is killed, and started again.
    let mut scripts = Scripts::default();
    follow(&mut scripts);
    assert!(scripts.broken_off(Pair::Both, Alone, true));
    for pair in [Pair::Second, Pair::Sec] {
        assert!(!scripts.broken_off(pair, Alone, false));
    }
    assert_eq!(named(scripts.plan(App::Start, Alone)), ["transition", "start_both", "start_prim", "start_sec"]);
}
