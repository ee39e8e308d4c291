//! The table of scripts, row by row, as SafeKit's users know it.

use cluster::mirror::App;
use cluster::scripts::{Kind, Pair, Run, Scripts, Step, Why, between};
use model::ModuleState::{self, Alone, Prim, Second, Stop, Up, Wait};

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
