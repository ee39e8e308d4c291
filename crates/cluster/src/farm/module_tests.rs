use super::*;
use model::farm::{NodeSet, Word};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn settings() -> Settings {
    Settings {
        module: "web".into(),
        is_light: false,
        has_addresses: true,
        is_invisible: false,
        by_script: false,
        drain_ms: 30_000,
        max_loop: 3,
        loop_ms: 1_000,
    }
}

fn module() -> Module {
    module_with(settings())
}

fn module_with(settings: Settings) -> Module {
    let mut module = Module::new(settings, ME, 7, [ME, OTHER]);
    module.handle(Event::Member(member::Event::Silent(OTHER)));
    module
}

fn up() -> Module {
    let module = started(module());
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    module
}

fn started(mut module: Module) -> Module {
    for event in [
        Event::Command(Command::Start),
        Event::App(AppReport::Prepared),
        Event::Taken(Taken::Held),
        Event::App(AppReport::Started),
    ] {
        module.handle(event);
    }
    module
}

/// The other node serves, too, and follows this node's view.
fn with_another(module: &mut Module) {
    module.handle(Event::Member(member::Event::Heard(OTHER)));
    for _ in 0..2 {
        let view = module.member().view().cloned();
        let highest = view.as_ref().map_or(0, |view| view.counter);
        let word = Word {
            wish: Wish::In,
            view: view.filter(|it| it.present.has(OTHER)),
            highest,
            hears: NodeSet::EMPTY.with(ME),
        };
        module.handle(Event::Member(member::Event::Said { from: OTHER, word }));
    }
    assert_eq!(module.member().view().map(|view| view.serving().len()), Some(2));
}

/// The other node directs, and this one only drains.
fn taken_over(module: &mut Module) {
    let mine = module.member().view().cloned().expect("a view");
    let serving = NodeSet::EMPTY.with(OTHER);
    let view =
        View { counter: mine.counter + 1, director: OTHER, instance: 9, present: mine.present, past: [serving].into() };
    let word = Word { wish: Wish::In, highest: view.counter, view: Some(view), hears: NodeSet::EMPTY.with(ME) };
    module.handle(Event::Member(member::Event::Said { from: OTHER, word }));
    // It directed: its filter follows when the new director's does.
    assert!(shows(&module.handle(Event::Expired(Timer::Agree))));
}

#[test]
fn traffic_is_wanted_only_while_the_application_runs_behind_its_filter() {
    let mut module = module();
    let mut saw = Vec::new();
    for event in [
        Event::Command(Command::Start),
        Event::App(AppReport::Prepared),
        Event::Taken(Taken::Held),
        Event::App(AppReport::Started),
    ] {
        assert_eq!(module.member().wish(), Wish::Out);
        saw.extend(module.handle(event));
    }
    assert_eq!(module.member().wish(), Wish::In);
    let place = |what: &dyn Fn(&Action) -> bool| saw.iter().position(what).expect("it happened");
    let (take, start) = (place(&|a| *a == Action::Take), place(&|a| *a == Action::App(App::Start)));
    let show = place(&|a| matches!(a, Action::Show(..)));
    assert!(take < start && start < show, "{saw:?}");
}

#[test]
fn a_stop_drains_while_another_serves_and_releases_after_the_application() {
    let mut module = up();
    with_another(&mut module);
    let actions = module.handle(Event::Command(Command::Stop));
    assert!(module.is_draining() && actions.contains(&Action::Arm(Timer::Drain, 30_000)), "{actions:?}");
    assert!(
        !actions.contains(&Action::App(App::Stop { force: false, why: scripts::Why::Stop })),
        "not while connections stand"
    );
    assert_eq!(module.handle(Event::Idle), [], "new connections come until the other node directs");
    taken_over(&mut module);
    let actions = module.handle(Event::Idle);
    assert!(actions.contains(&Action::App(App::Stop { force: false, why: scripts::Why::Stop })), "{actions:?}");
    assert_eq!(module.member().wish(), Wish::Drain, "the filter is open until the application has stopped");
    let actions = module.handle(Event::App(AppReport::Stopped));
    assert!(actions.contains(&Action::Hide) && actions.contains(&Action::Release), "{actions:?}");
    module.handle(Event::Released);
    module.handle(Event::App(AppReport::Released));
    assert_eq!(module.shown(), (ModuleState::Stop, Status::NotReady));
}

#[test]
fn draining_is_bounded_and_pointless_when_nobody_else_serves() {
    let mut module = up();
    let actions = module.handle(Event::Command(Command::Stop));
    assert!(
        actions.contains(&Action::App(App::Stop { force: false, why: scripts::Why::Stop })),
        "nobody takes over: {actions:?}"
    );
    for stops in [Event::Expired(Timer::Drain), Event::Member(member::Event::Silent(OTHER))] {
        let mut module = up();
        with_another(&mut module);
        module.handle(Event::Command(Command::StopStart));
        let actions = module.handle(stops);
        assert!(
            actions.contains(&Action::App(App::Stop { force: false, why: scripts::Why::StopStart })),
            "{actions:?}"
        );
        module.handle(Event::App(AppReport::Stopped));
        module.handle(Event::Released);
        module.handle(Event::App(AppReport::Released));
        assert_eq!(module.phase(), "Preparing", "stopstart starts again");
    }
}

#[test]
fn a_restart_keeps_addresses_and_comes_back() {
    let mut module = up();
    with_another(&mut module);
    module.handle(Event::Command(Command::Restart));
    taken_over(&mut module);
    module.handle(Event::Idle);
    let actions = module.handle(Event::App(AppReport::Stopped));
    assert_eq!(actions, [Action::App(App::Start)]);
    assert_eq!(module.shown(), (ModuleState::Up, Status::Transient));
    module.handle(Event::App(AppReport::Started));
    assert_eq!(module.member().wish(), Wish::In);
}

#[test]
fn roles_of_a_mirror_are_refused_with_a_sentence() {
    for command in [Command::Prim { force: false, full: false }, Command::Second { full: false }, Command::Swap] {
        let actions = module().handle(Event::Command(command));
        assert!(
            matches!(&actions[..], [Action::Reply { accepted: false, sentence }] if sentence.contains("is a farm"))
        );
    }
}

#[test]
fn addresses_that_cannot_be_had_are_tried_again_and_told_once() {
    let mut module = module();
    module.handle(Event::Command(Command::Start));
    module.handle(Event::App(AppReport::Prepared));
    let why = "10.0.1.100 is answered by another machine".to_string();
    let first = module.handle(Event::Taken(Taken::Failed { why: why.clone() }));
    assert_eq!(module.shown(), (ModuleState::Wait, Status::NotReady));
    assert_eq!(module.handle(Event::Expired(Timer::Retry)), [Action::Take]);
    let again = module.handle(Event::Taken(Taken::Failed { why }));
    assert!(first.iter().any(|a| matches!(a, Action::Journal { .. })));
    assert!(!again.iter().any(|a| matches!(a, Action::Journal { .. })));
}

#[test]
fn one_automatic_action_too_many_stops() {
    let mut module = up();
    for _ in 0..3 {
        module.handle(Event::Automatic { command: Command::Restart, why: "a rule".into() });
        module.handle(Event::App(AppReport::Stopped));
        module.handle(Event::App(AppReport::Started));
        assert_eq!(module.phase(), "Up");
    }
    module.handle(Event::Automatic { command: Command::Restart, why: "a rule".into() });
    module.handle(Event::App(AppReport::Stopped));
    assert_eq!(module.phase(), "Releasing");
    assert!(module.reason().contains("maxloop"), "{}", module.reason());
}

#[test]
fn a_forced_stop_ends_everything_at_once() {
    let mut module = up();
    with_another(&mut module);
    let actions = module.handle(Event::Command(Command::ForceStop));
    assert!(
        actions.contains(&Action::Hide)
            && actions.contains(&Action::App(App::Stop { force: true, why: scripts::Why::Stop })),
        "{actions:?}"
    );
}

#[test]
fn after_the_agents_restart_it_goes_on() {
    let mut module = module();
    let actions = module.handle(Event::Adopted { serving: true, open: true });
    assert_eq!(module.member().wish(), Wish::In);
    assert!(actions.contains(&Action::Take) && !actions.iter().any(|a| matches!(a, Action::App(_))), "{actions:?}");
}

/// By a rule: the scripts are told that it waits, and it starts again without counting another error.
#[test]
fn a_module_that_waits_by_a_rule_stops_as_one_that_waits() {
    let mut module = up();
    let actions = module.handle(Event::Automatic { command: Command::Wait, why: "a rule".into() });
    assert!(
        actions.contains(&Action::App(App::Stop { force: false, why: scripts::Why::StopWait })),
        "nobody takes over: {actions:?}"
    );
    module.handle(Event::App(AppReport::Stopped));
    let actions = module.handle(Event::Released);
    assert!(actions.contains(&Action::App(App::Release { why: scripts::Why::StopWait })), "{actions:?}");
    module.handle(Event::App(AppReport::Released));
    assert_eq!((module.phase(), module.loops()), ("Stop", 1));
    let actions = module.handle(Event::Automatic { command: Command::Start, why: "over".into() });
    assert!(actions.contains(&Action::App(App::Prepare)) && module.loops() == 1, "{actions:?}");
}

/// A module that this one needs may fail as often as it will: this one comes back with it.
#[test]
fn what_another_module_lacks_is_never_counted() {
    let mut module = up();
    for _ in 0..9 {
        module.handle(Event::Lacks { why: "module_failure: module db is STOP NotReady".into() });
        for event in [Event::App(AppReport::Stopped), Event::Released, Event::App(AppReport::Released)] {
            module.handle(event);
        }
        assert_eq!((module.phase(), module.loops()), ("Stop", 0), "{}", module.reason());
        module.handle(Event::Automatic { command: Command::Start, why: "over".into() });
        for event in [Event::App(AppReport::Prepared), Event::Taken(Taken::Held), Event::App(AppReport::Started)] {
            module.handle(event);
        }
        assert_eq!(module.phase(), "Up");
    }
}

#[test]
fn why_it_left_is_said_also_after_its_connections_have_ended() {
    let mut module = up();
    with_another(&mut module);
    for _ in 0..4 {
        module.handle(Event::Automatic { command: Command::Wait, why: "proc.web is down".into() });
        assert_eq!(module.phase(), "Draining");
        module.handle(Event::Expired(Timer::Drain));
        assert!(module.reason().ends_with("proc.web is down"), "{}", module.reason());
        for event in [Event::App(AppReport::Stopped), Event::Released, Event::App(AppReport::Released)] {
            module.handle(event);
        }
        if module.reason().contains("maxloop") {
            return;
        }
        module.handle(Event::Automatic { command: Command::Start, why: "over".into() });
        for event in [Event::App(AppReport::Prepared), Event::Taken(Taken::Held), Event::App(AppReport::Started)] {
            module.handle(event);
        }
    }
    panic!("not stopped by maxloop: {}", module.reason());
}

#[test]
fn a_persons_start_forgets_what_was_counted_also_while_it_runs() {
    let mut module = up();
    for _ in 0..2 {
        module.handle(Event::Automatic { command: Command::Restart, why: "a rule".into() });
        module.handle(Event::App(AppReport::Stopped));
        module.handle(Event::App(AppReport::Started));
    }
    assert_eq!(module.loops(), 2);
    module.handle(Event::Command(Command::Start));
    assert_eq!(module.loops(), 0);
}

#[test]
fn a_light_module_is_up_by_itself_restarts_in_place_and_stops_after_too_many() {
    let settings = Settings { is_light: true, has_addresses: false, drain_ms: 0, ..settings() };
    let mut module = Module::new(settings, ME, 7, [ME]);
    module.handle(Event::Command(Command::Start));
    assert_eq!(module.shown(), (ModuleState::Wait, Status::Transient));
    for event in [Event::App(AppReport::Prepared), Event::Taken(Taken::Held), Event::App(AppReport::Started)] {
        module.handle(event);
    }
    // Nobody else has to agree.
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    let told = module.handle(Event::Command(Command::Swap));
    assert!(matches!(&told[..], [Action::Reply { accepted: false, sentence }] if sentence.contains("web is light")));
    for _ in 0..3 {
        let told = module.handle(Event::Automatic { command: Command::Restart, why: "tcp.a is down".into() });
        assert!(!told.contains(&Action::Release), "a restart keeps everything but the application");
        assert!(told.iter().any(|it| matches!(it, Action::App(App::Stop { why: scripts::Why::Restart, .. }))));
        module.handle(Event::App(AppReport::Stopped));
        module.handle(Event::App(AppReport::Started));
        assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    }
    assert!(module.is_last_loop());
    module.handle(Event::Automatic { command: Command::Restart, why: "tcp.a is down".into() });
    for event in [Event::App(AppReport::Stopped), Event::Released, Event::App(AppReport::Released)] {
        module.handle(event);
    }
    assert_eq!(module.shown(), (ModuleState::Stop, Status::NotReady));
    assert!(module.reason().contains("maxloop"), "{}", module.reason());
}

#[test]
fn a_person_who_stops_what_waits_is_the_reason_from_then_on() {
    let mut module = up();
    module.handle(Event::Automatic { command: Command::Wait, why: "failover rule disk: custom.disk is down".into() });
    for event in [Event::App(AppReport::Stopped), Event::Released, Event::App(AppReport::Released)] {
        module.handle(event);
    }
    assert!(module.reason().contains("custom.disk is down"), "{}", module.reason());
    let reply = |sentence: &str| [Action::Reply { accepted: true, sentence: sentence.into() }];
    assert_eq!(module.handle(Event::Command(Command::Stop)), reply("stopped"));
    assert_eq!(module.reason(), "stopped by an operator");
    assert_eq!(module.handle(Event::Command(Command::Stop)), reply("it is stopped already"));
    // Too many failures in a row stay the reason, whoever stops it once more.
    let mut module = up();
    for _ in 0..=settings().max_loop {
        module.handle(Event::Automatic { command: Command::Restart, why: "tcp.a is down".into() });
        for event in [Event::App(AppReport::Stopped), Event::App(AppReport::Started)] {
            module.handle(event);
        }
    }
    for event in [Event::Released, Event::App(AppReport::Released), Event::Command(Command::Stop)] {
        module.handle(event);
    }
    assert!(module.reason().contains("maxloop"), "{}", module.reason());
}

fn said(module: &mut Module, view: Option<View>) -> Vec<Action> {
    let highest = view.as_ref().map_or(0, |view| view.counter);
    let word = Word { wish: Wish::In, view, highest, hears: NodeSet::EMPTY.with(ME) };
    module.handle(Event::Member(member::Event::Said { from: OTHER, word }))
}

fn shows(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Show(..)))
}

#[test]
fn the_others_act_on_a_view_before_its_director_does() {
    let mut module = up();
    module.handle(Event::Member(member::Event::Heard(OTHER)));
    let made = said(&mut module, None);
    assert!(!shows(&made) && made.contains(&Action::Arm(Timer::Agree, model::limits::AGREE_MS)), "{made:?}");
    assert!(made.contains(&Action::Tell) && !made.contains(&Action::Announce), "{made:?}");
    let view = module.member().view().cloned();
    assert_eq!(view.as_ref().map(|view| view.serving().len()), Some(2));
    let agreed = said(&mut module, view);
    assert!(shows(&agreed) && agreed.contains(&Action::Announce), "{agreed:?}");
    assert!(!shows(&module.handle(Event::Expired(Timer::Agree))), "once is enough");
}

#[test]
fn who_does_not_say_so_is_not_waited_for_long_and_the_dead_not_at_all() {
    let mut module = up();
    module.handle(Event::Member(member::Event::Heard(OTHER)));
    assert!(!shows(&said(&mut module, None)));
    // It may be late: by its table before, it would answer what stands elsewhere with a reset.
    let late = module.handle(Event::Expired(Timer::Agree));
    assert!(!shows(&late) && late.contains(&Action::Arm(Timer::Agree, model::limits::LATE_MS)), "{late:?}");
    assert!(shows(&module.handle(Event::Expired(Timer::Agree))));
    assert!(shows(&module.handle(Event::Member(member::Event::Silent(OTHER)))), "its share moves at once");
}

#[test]
fn who_directed_before_acts_on_the_new_directors_view_after_it() {
    let mut module = up();
    module.handle(Event::Member(member::Event::Heard(OTHER)));
    said(&mut module, None);
    let both = module.member().view().cloned();
    assert!(shows(&said(&mut module, both.clone())));
    assert_eq!(both.as_ref().map(|view| view.director), Some(ME));
    module.handle(Event::Command(Command::Restart));
    assert!(module.is_draining());
    let before = both.expect("a view of both");
    let present = before.present;
    let past = [NodeSet::EMPTY.with(OTHER), present].into();
    let next = View { counter: before.counter + 1, director: OTHER, instance: 9, present, past };
    let heard = said(&mut module, Some(next.clone()));
    assert_eq!(module.member().view(), Some(&next));
    assert!(!shows(&heard) && heard.contains(&Action::Arm(Timer::Agree, model::limits::AGREE_MS)), "{heard:?}");
    assert!(heard.contains(&Action::Tell), "the new director does not wait for its filter: {heard:?}");
    let idle = module.handle(Event::Idle);
    assert!(idle.is_empty(), "its filter still takes new connections: {idle:?}");
    let shown = module.handle(Event::Expired(Timer::Agree));
    assert!(shows(&shown) && !shown.contains(&Action::Announce), "{shown:?}");
    assert!(!module.handle(Event::Idle).is_empty(), "now nothing new comes, and it stops");
}

/// What the other node says that has another configuration.
fn foreign(wish: Wish, director: Option<NodeId>) -> Event {
    let present = NodeSet::EMPTY.with(OTHER);
    let view = director.map(|director| View { counter: 5, director, instance: 9, present, past: [present].into() });
    Event::Foreign { from: OTHER, word: Word { wish, view, highest: 5, hears: NodeSet::EMPTY.with(ME) } }
}

#[test]
fn who_serves_goes_before_a_node_with_another_configuration_which_says_so_and_comes_when_that_is_gone() {
    let mut module = module();
    module.handle(Event::Member(member::Event::Heard(OTHER)));
    module.handle(foreign(Wish::In, Some(OTHER)));
    for event in [
        Event::Command(Command::Start),
        Event::App(AppReport::Prepared),
        Event::Taken(Taken::Held),
        Event::App(AppReport::Started),
    ] {
        let actions = module.handle(event);
        assert!(!actions.iter().any(|a| matches!(a, Action::Show(..))), "{actions:?}");
    }
    assert_eq!(module.shown(), (ModuleState::Wait, Status::NotReady));
    assert_eq!(module.yields_to(), Some(OTHER));
    assert!(module.reason().contains("another configuration"), "{}", module.reason());
    // It is stopped there: this one begins.
    let actions = module.handle(foreign(Wish::Out, None));
    assert!(actions.iter().any(|a| matches!(a, Action::Show(..))), "{actions:?}");
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    // It comes back as it was: who serves is not disturbed by a higher node's wish, nor by a higher director.
    for later in [foreign(Wish::In, None), foreign(Wish::In, Some(OTHER))] {
        assert_eq!(module.handle(later), []);
    }
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    // A lower director goes before this one.
    let actions = module.handle(foreign(Wish::In, Some(NodeId(0))));
    assert!(actions.contains(&Action::Hide), "{actions:?}");
    // Repaired: the same words, of the same configuration.
    module.handle(Event::Member(member::Event::Silent(OTHER)));
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
}

#[test]
fn scripts_open_and_close_the_traffic_when_it_is_theirs_to_say() {
    let by_script = Settings { by_script: true, ..settings() };
    let mut module = started(module_with(by_script));
    assert_eq!((module.member().wish(), module.shown().1), (Wish::Out, Status::Transient));
    assert!(module.reason().contains("scripts"), "{}", module.reason());
    module.handle(Event::Traffic { open: true });
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
    // Alone: closed at once.
    let actions = module.handle(Event::Traffic { open: false });
    assert!(actions.contains(&Action::Hide), "{actions:?}");
    module.handle(Event::Traffic { open: true });
    with_another(&mut module);
    // With another: what stands may finish, for a bounded time.
    let actions = module.handle(Event::Traffic { open: false });
    assert!(module.is_draining() && actions.contains(&Action::Arm(Timer::Drain, 30_000)), "{actions:?}");
    module.handle(Event::Expired(Timer::Drain));
    assert_eq!((module.member().wish(), module.phase()), (Wish::Out, "Up"));
    // Not theirs to say: nothing happens.
    let mut module = up();
    assert_eq!(module.handle(Event::Traffic { open: false }), []);
    assert_eq!(module.shown(), (ModuleState::Up, Status::Ready));
}
