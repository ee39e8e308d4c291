//! The stories of tests/scenarios: each must be told exactly as its file tells it. `UPDATE=1` writes them anew.

use std::path::Path;

#[test]
fn every_story_is_told_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .expect("tests/scenarios is there")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let mut wrong = vec![];
    for hole in 1..=18 {
        let name = format!("h{hole:02}-");
        let there =
            files.iter().any(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)));
        if !there {
            wrong.push(format!("no story for hole H{hole} of protocol.md"));
        }
    }
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let story = std::fs::read_to_string(&path).expect("readable");
        let played = sim::scenario::play(&story);
        wrong.extend(played.failures.iter().map(|failure| format!("{name}: {failure}")));
        if played.text != story {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &played.text).expect("writable");
            } else {
                let differs = played.text.lines().zip(story.lines()).find(|(now, then)| now != then);
                let (now, then) = differs.unwrap_or(("(more or fewer lines)", ""));
                wrong.push(format!("{name} is told differently\n   written: {then}\n   now:     {now}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n\nIf the new telling is right: UPDATE=1 cargo test -p sim --test scenarios",
        wrong.join("\n")
    );
}

/// What is told beforehand is what then happens: same code, a world where everything goes well.
#[test]
fn what_if_says_what_then_happens() {
    use cluster::imagine::{Others, What, imagine};
    use cluster::mirror::Command;
    use sim::world::{Rules, World};
    for witness in [false, true] {
        let world = World::whole(Rules {
            witness,
            in_flight: 8,
            broken: None,
            chosen: sim::world::Chosen::Nothing,
            asks: sim::world::Asks::Alive,
        });
        let said = |who: usize, what| -> Vec<String> {
            let mirror = world.agent(who).expect("it runs").clone();
            imagine(mirror, model::limits::Timing::DEFAULT, what, Others::Agree).into_iter().map(|it| it.said).collect()
        };
        let failover = said(1, What::PeerLost);
        for sentence in [
            "serving without a secondary",
            "script stop_second SECOND ALONE start",
            "script start_prim SECOND ALONE start",
        ] {
            assert!(failover.iter().any(|it| it == sentence), "witness {witness}: {failover:#?}");
        }
        // Whoever it would ask may not answer: then nobody serves alone, and it says whom it waits for.
        for who in [0, 1] {
            let mirror = world.agent(who).expect("it runs").clone();
            let silent = imagine(mirror, model::limits::Timing::DEFAULT, What::PeerLost, Others::Silent);
            let silent: Vec<String> = silent.into_iter().map(|it| it.said).collect();
            assert!(!silent.iter().any(|it| it == "serving without a secondary"), "witness {witness}: {silent:#?}");
            let named = if witness { "the witness does not answer" } else { "isolation test" };
            assert!(silent.iter().any(|it| it.contains(named)), "witness {witness}: {silent:#?}");
        }
        let primary = said(0, What::PeerLost);
        assert!(primary.iter().any(|it| it == "serving without a secondary"), "witness {witness}: {primary:#?}");
        let stop = said(0, What::Command(Command::Stop));
        assert_eq!(stop.first().map(String::as_str), Some("accepted: stopping"), "{stop:#?}");
        assert_eq!(stop.last().map(String::as_str), Some("stopped"), "{stop:#?}");
        assert!(said(1, What::Command(Command::Start))[0].starts_with("refused: "));
    }
}

/// A pair that is whole is next to L3 from the moment its witness has another memory until that one knows the node.
#[test]
fn a_witness_with_another_memory_is_told_until_it_knows_the_node() {
    use cluster::mirror::Event;
    use cluster::witness::Answer;
    let rules = sim::world::Rules {
        witness: true,
        in_flight: 8,
        broken: None,
        chosen: sim::world::Chosen::Nothing,
        asks: sim::world::Asks::Alive,
    };
    let world = sim::world::World::whole(rules);
    for who in [0, 1] {
        let mut mirror = world.agent(who).expect("it runs").clone();
        let labels = |mirror: &cluster::mirror::Mirror| -> Vec<(String, bool)> {
            mirror.view().open_cases.into_iter().map(|case| (case.label, case.now)).collect()
        };
        for incarnation in [77, 78] {
            mirror.handle(Event::Witness(Answer::Register { incarnation }));
            assert_eq!(labels(&mirror), [("L3".to_string(), false)]);
            mirror.handle(Event::Witness(Answer::Noted { incarnation: incarnation - 1 }));
            assert_eq!(labels(&mirror), [("L3".to_string(), false)], "a former memory's word counts for nothing");
            mirror.handle(Event::Witness(Answer::Noted { incarnation }));
            assert_eq!(labels(&mirror), []);
        }
    }
}

/// Whoever steps aside for a node that cannot start the module leaves the clients to nobody.
#[test]
fn nobody_steps_aside_for_a_secondary_that_says_it_could_not_start() {
    use cluster::mirror::{Action, Advert, Command, Event};
    use model::{ModuleState, Status};
    use sim::world::{Asks, Chosen, Rules, World};
    let rules = Rules { witness: false, in_flight: 8, broken: None, chosen: Chosen::Nothing, asks: Asks::Alive };
    let mut mirror = World::whole(rules).agent(0).expect("it runs").clone();
    let mut swap = |status| {
        let epoch = mirror.record().epoch;
        mirror.handle(Event::PeerHeard(Advert { epoch, state: ModuleState::Second, status }));
        let accepts = mirror.accepts_automatic(Command::Swap);
        let mut asked = mirror.clone();
        let answer = asked.handle(Event::Command(Command::Swap)).into_iter().find_map(|action| match action {
            Action::Reply { accepted, sentence } => Some((accepted, sentence)),
            _ => None,
        });
        (accepts, answer.expect("a command is answered"))
    };
    let (accepts, (accepted, sentence)) = swap(Status::NotReady);
    assert!(!accepts && !accepted && sentence.contains("stead state -m AM -H node2"), "{sentence}");
    let (accepts, (accepted, _)) = swap(Status::Ready);
    assert!(accepts && accepted);
}
