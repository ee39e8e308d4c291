//! A farm of three lives through the death of a node, a stop and a start, in imagination.

use super::{Connections, What, imagine};
use crate::farm::member;
use crate::farm::module::{Action, Event, Module, Settings, Taken};
use crate::mirror::{App, AppReport, Command};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use model::NodeId;
use model::limits::Timing;

fn names() -> BTreeMap<NodeId, String> {
    (1..=3).map(|n| (NodeId(n), format!("node{n}"))).collect()
}

fn module(n: u16) -> Module {
    let settings = Settings {
        module: "web".into(),
        is_light: false,
        has_addresses: true,
        is_invisible: false,
        by_script: false,
        drain_ms: 30_000,
        max_loop: 3,
        loop_ms: 0,
    };
    Module::new(settings, NodeId(n), u32::from(n), (1..=3).map(NodeId))
}

/// Three whole automata that hear each other; those named are started.
fn farm(started: &[u16]) -> Vec<Module> {
    let mut modules: Vec<Module> = (1..=3).map(module).collect();
    let mut queue: VecDeque<(usize, Event)> = VecDeque::new();
    let member = |event| Event::Member(event);
    for at in 0..3_usize {
        for other in (0..3).filter(|other| *other != at) {
            let node = NodeId(other as u16 + 1);
            queue.push_back((at, member(member::Event::Heard(node))));
            queue.push_back((at, member(member::Event::Said { from: node, word: modules[other].member().word() })));
        }
    }
    queue.extend(started.iter().map(|n| (usize::from(*n) - 1, Event::Command(Command::Start))));
    let mut timers = Vec::new();
    for _ in 0..10_000 {
        let Some((at, event)) = queue.pop_front() else {
            let Some((at, timer)) = timers.pop() else { return modules };
            queue.push_back((at, Event::Expired(timer)));
            continue;
        };
        for action in modules[at].handle(event) {
            match action {
                Action::App(App::Prepare) => queue.push_back((at, Event::App(AppReport::Prepared))),
                Action::App(App::Start) => queue.push_back((at, Event::App(AppReport::Started))),
                Action::Take => queue.push_back((at, Event::Taken(Taken::Held))),
                Action::Arm(timer, _) => timers.push((at, timer)),
                Action::Tell => {
                    let (from, word) = (NodeId(at as u16 + 1), modules[at].member().word());
                    let others = (0..3).filter(|other| *other != at);
                    queue.extend(others.map(|it| (it, member(member::Event::Said { from, word: word.clone() }))));
                }
                _ => {}
            }
        }
    }
    panic!("no end");
}

fn told(module: &Module, what: What, connections: Connections) -> Vec<String> {
    let would = imagine(module.clone(), &names(), Timing::DEFAULT, what, connections);
    would.into_iter().map(|it| format!("{} {}", it.after_ms, it.said)).collect()
}

#[test]
fn the_death_of_a_node_is_lived_through_with_what_the_others_make_of_it() {
    let farm = farm(&[1, 2, 3]);
    assert!(farm.iter().all(|module| module.member().view().is_some_and(|view| view.serving().len() == 3)));
    // The director dies: the next one directs. (It knows that at once; its filter goes by it when the others do.)
    let said = told(&farm[1], What::NodeLost(NodeId(1)), Connections::Finish);
    assert_eq!(
        said,
        [
            "1000 farm membership: node2 node3 (directed by node2): the director is gone or drains: this node directs now",
            "1000 this node answers for the virtual IPs"
        ]
    );
    // And to the third it is told: the second lives through it as well.
    let said = told(&farm[2], What::NodeLost(NodeId(1)), Connections::Finish);
    assert_eq!(said, ["1000 farm membership: node2 node3 (directed by node2): the director's view"]);
    let said = told(&farm[0], What::NodeLost(NodeId(3)), Connections::Finish);
    assert!(
        said[0].starts_with("1000 farm membership: node1 node2 (directed by node1): a node came, left"),
        "{said:?}"
    );
}

#[test]
fn a_stop_lets_connections_finish_for_as_long_as_they_may() {
    let farm = farm(&[1, 2, 3]);
    let stop = What::Command(Command::Stop);
    let finish = told(&farm[0], stop, Connections::Finish);
    assert_eq!(
        finish[..2],
        [
            "0 accepted: stopping",
            "0 UP Transient: stopped by an operator: no new connections, those that stand may finish"
        ]
    );
    let at = |said: &[String], text: &str| -> usize {
        said.iter().position(|it| it.contains(text)).unwrap_or_else(|| panic!("no {text}: {said:#?}"))
    };
    assert!(at(&finish, "script stop_both") < at(&finish, "STOP NotReady"), "{finish:?}");
    let ms = |said: &[String], text: &str| -> u64 {
        said[at(said, text)].split(' ').next().and_then(|it| it.parse().ok()).expect("a number")
    };
    let stay = told(&farm[0], stop, Connections::Stay);
    assert!(ms(&finish, "script stop_both") <= 1_000, "{finish:?}");
    assert_eq!(ms(&stay, "script stop_both"), 30_000, "{stay:?}");
    assert!(stay[at(&stay, "30 s of draining")].starts_with("30000"), "{stay:?}");
}

#[test]
fn a_start_is_let_in_by_the_director_and_what_a_farm_has_not_is_refused() {
    let farm = farm(&[1, 2]);
    let said = told(&farm[2], What::Command(Command::Start), Connections::Finish);
    assert!(said[0].starts_with("0 accepted: ") && said[1].starts_with("0 WAIT Transient: "), "{said:?}");
    assert!(said.contains(&"0 the virtual IPs are taken".to_string()), "{said:?}");
    let last = said.last().cloned().unwrap_or_default();
    assert!(
        said.iter()
            .any(|it| it.contains("farm membership: node1 node2 node3 (directed by node1): the director's view")),
        "{said:?}"
    );
    assert!(last.contains("farm membership") || last.contains("UP Ready: serves its share"), "{said:?}");
    let said = told(&farm[0], What::Command(Command::Swap), Connections::Finish);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("0 refused: web is a farm"), "{said:?}");
    // Nothing was touched.
    assert_eq!(farm[0].member().view().map(|view| view.serving().len()), Some(2));
    assert_eq!(vec![farm[2].phase()], ["Stop"]);
}
