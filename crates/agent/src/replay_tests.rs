//! A night is recorded as the loop records it, and replayed; then one line of it is forged.

use super::{replay, what_if};
use crate::hostile::{farm_night, night};
use crate::runtime::chronicle::Chronicle;

fn record(dir: &std::path::Path) {
    let (begun, decisions) = night();
    let mut chronicle = Chronicle::open(dir);
    chronicle.begin(&begun);
    for (event, actions, view) in &decisions {
        chronicle.decision(event, actions, (view.state, view.status), &view.reason, view.epoch);
    }
}

fn record_farm(dir: &std::path::Path) {
    let (begun, decisions) = farm_night();
    let mut chronicle = Chronicle::open(dir);
    chronicle.begin_farm(&begun.module, &begun.names);
    for (event, actions, to, reason) in &decisions {
        chronicle.decision(event, actions, *to, reason, None);
    }
}

/// Months pass: the journal is set aside again and again, and what is there now can be replayed, and gone on from, at any time.
#[test]
fn every_file_of_a_journal_has_a_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    let (begun, decisions) = night();
    let mut chronicle = Chronicle::open(dir.path());
    let path = dir.path().join("journal");
    let mut turned = 0;
    let mut length = 0;
    while turned < 2 {
        // Each night ends where the next one begins: its own beginning is written before it, as the loop does when it is time.
        if length == 0 || chronicle.is_long() {
            chronicle.begin(&begun);
        }
        for (event, actions, view) in &decisions {
            chronicle.decision(event, actions, (view.state, view.status), &view.reason, view.epoch);
        }
        let now = std::fs::metadata(&path).expect("there").len();
        if now < length {
            turned += 1;
            let first = std::fs::read_to_string(&path).expect("readable");
            assert!(
                first.lines().next().is_some_and(|line| line.contains("\"begin\":")),
                "the new file has no beginning"
            );
        }
        length = now;
    }
}

#[test]
fn a_night_of_a_farm_is_decided_again_as_it_was_and_what_is_not_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    record_farm(dir.path());
    let path = dir.path().join("journal");
    let played = replay(&path).expect("readable");
    assert!(played.differences.is_empty(), "{:#?}", played.differences);
    assert_eq!((played.begins, played.skipped, played.unreadable), (1, 0, 0));
    assert!(played.decisions > 10, "{played:?}");
    for told in ["UP Ready: serves its share", "STOP NotReady: "] {
        assert!(played.sentences.iter().any(|(_, said)| said.starts_with(told)), "{told}: {:?}", played.sentences);
    }
    // As if the program of that night had not started the application.
    let text = std::fs::read_to_string(&path).expect("there");
    std::fs::write(&path, text.replacen(r#"{"app":"start"}"#, r#"{"app":"prepare"}"#, 1)).expect("written");
    let played = replay(&path).expect("readable");
    let [difference] = played.differences.as_slice() else { panic!("{:#?}", played.differences) };
    assert!(difference.now.contains("App(Start)") && difference.recorded.contains("App(Prepare)"), "{difference:?}");
    assert!(played.skipped > 0);
    // Without its beginning: told, not replayed.
    let tail: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, tail).expect("written");
    let played = replay(&path).expect("readable");
    assert_eq!((played.begins, played.decisions, played.unreadable), (0, 0, 0));
    assert!(played.sentences.iter().any(|(_, said)| said.starts_with("UP Ready")), "{:?}", played.sentences);
}

#[test]
fn what_would_follow_in_a_farm_is_told_from_where_its_journal_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    record_farm(dir.path());
    let path = dir.path().join("journal");
    let said = |asked: &str| what_if(&path, asked);
    let stop = said("stop").expect("imagined");
    assert_eq!(stop.would.first().map(|it| it.said.as_str()), Some("accepted: stopping"), "{stop:?}");
    assert!(stop.would.last().is_some_and(|it| it.said.starts_with("STOP NotReady")), "{stop:?}");
    let otherwise = stop.otherwise.expect("connections may stay");
    assert_eq!(otherwise.not_well, "they stay for as long as they may");
    assert_eq!(otherwise.would.last().map(|it| it.after_ms), Some(30_000));
    let dies = said("node2 loses power").expect("imagined");
    assert!(dies.would[0].said.starts_with("farm membership: node1 (directed by node1)"), "{dies:?}");
    assert_eq!(dies.otherwise, None);
    assert!(said("node1 loses power").expect_err("elsewhere").contains("decided on node2"));
    assert!(said("swap").expect("imagined").would[0].said.starts_with("refused: web is a farm"));
    for nonsense in ["node9 loses power", "node2 sings", "sing"] {
        assert!(said(nonsense).expect_err("what?").contains("\"node2 loses power\", or a command"));
    }
}

#[test]
fn a_night_is_decided_again_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    record(dir.path());
    let played = replay(&dir.path().join("journal")).expect("readable");
    assert!(played.differences.is_empty(), "{:#?}", played.differences);
    assert_eq!((played.begins, played.skipped, played.unreadable), (1, 0, 0));
    assert!(played.decisions > 10, "{played:?}");
    assert!(played.sentences.iter().any(|(_, said)| said == "serving without a secondary"), "{:?}", played.sentences);
}

#[test]
fn what_is_decided_otherwise_is_found_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    record(dir.path());
    let path = dir.path().join("journal");
    let text = std::fs::read_to_string(&path).expect("there");
    // As if the program of that night had not started the application.
    let line = text.lines().position(|line| line.contains(r#"{"app":"start"}"#)).expect("it was started") + 1;
    std::fs::write(&path, text.replacen(r#"{"app":"start"}"#, r#"{"app":"prepare"}"#, 1)).expect("written");
    let played = replay(&path).expect("readable");
    let [difference] = played.differences.as_slice() else { panic!("{:#?}", played.differences) };
    assert_eq!(difference.line, line);
    assert!(difference.now.contains("App(Start)") && difference.recorded.contains("App(Prepare)"), "{difference:?}");
    assert!(played.skipped > 0);
    // Without its beginning nothing is replayed, and nothing claimed.
    let tail: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, tail).expect("written");
    let played = replay(&path).expect("readable");
    assert_eq!((played.begins, played.decisions), (0, 0));
    assert!(played.skipped > 10);
}

#[test]
fn what_would_follow_is_told_from_where_the_journal_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    record(dir.path());
    let path = dir.path().join("journal");
    let said = |asked: &str| what_if(&path, asked);
    let stop = said("stop").expect("imagined");
    assert_eq!(stop.would.first().map(|it| it.said.as_str()), Some("accepted: stopping"), "{stop:?}");
    assert_eq!(stop.would.last().map(|it| it.said.as_str()), Some("stopped"), "{stop:?}");
    assert_eq!(stop.otherwise, None, "nobody else is asked");
    assert!(said("node2 loses power").is_ok());
    assert!(said("node1 loses power").expect_err("elsewhere").contains("decided on node2"));
    assert!(said("node2 sings").expect_err("what?").contains("node2 loses power"));
    let before = std::fs::read(&path).expect("there");
    std::fs::write(&path, b"").expect("written");
    assert!(said("stop").expect_err("unknown").contains("no beginning"));
    assert!(!before.is_empty());
}

/// The automaton asks for every script that there may be: what the module has lies beside its journal.
#[test]
fn scripts_that_the_module_lacks_are_not_imagined() {
    let dir = tempfile::tempdir().expect("a directory");
    record(dir.path());
    let path = dir.path().join("journal");
    let scripts = || -> Vec<String> {
        let would = what_if(&path, "stop").expect("imagined").would;
        would.into_iter().filter_map(|it| it.said.strip_prefix("script ").map(str::to_string)).collect()
    };
    let all = scripts();
    assert!(all.len() > 3 && all.iter().any(|it| it.starts_with("stop_prim ")), "carried away: {all:?}");
    let names = model::schema::names::Answers::default();
    let around = model::schema::Surroundings { module: "am", cluster: None, subnets: &[], others: &[], names: &names };
    let text = b"<safe><service mode=\"mirror\"><user/></service></safe>";
    let checked = crate::configuration::read_module(text, "userconfig.xml", &around);
    let configuration = checked.value.expect("right");
    let beside = |scripts: &[&str]| {
        std::fs::create_dir_all(dir.path().join("active/bin")).expect("made");
        let json = serde_json::json!({ "configuration": configuration, "scripts": scripts });
        std::fs::write(dir.path().join("active/module.json"), json.to_string()).expect("written");
    };
    beside(&["start_prim", "stop_prim"]);
    let some = scripts();
    assert!(!some.is_empty() && some.iter().all(|it| it.starts_with("stop_prim ")), "{some:?}");
    beside(&[]);
    assert_eq!(scripts(), [""; 0]);
    // An older version did not note them.
    std::fs::write(dir.path().join("active/bin/stop_prim"), "").expect("written");
    assert_eq!(scripts(), some);
}

/// A disk that flips a bit, a line that was cut: something may be unreadable, or be another story; nothing panics and nothing is invented.
#[test]
fn every_byte_of_a_journal_may_be_another() {
    let dir = tempfile::tempdir().expect("a directory");
    record(dir.path());
    let path = dir.path().join("journal");
    let whole = std::fs::read(&path).expect("there");
    let right = replay(&path).expect("readable");
    // Every byte of its beginning, a record and the first decisions; of the rest, which is more of the same, every seventeenth.
    for place in (0..whole.len()).filter(|place| *place < 2_000 || place % 17 == 0) {
        let mut spoilt = whole.clone();
        spoilt[place] ^= 1 << (place % 8);
        std::fs::write(&path, &spoilt).expect("written");
        // Bytes that are no text end the reading, and are told as what they are.
        let Ok(played) = replay(&path) else { continue };
        assert!(played.decisions <= right.decisions, "byte {place} made a decision");
        assert!(played.sentences.len() <= right.sentences.len(), "byte {place} made a sentence");
        let _ = what_if(&path, "stop");
    }
    for end in (0..whole.len()).step_by(71) {
        std::fs::write(&path, &whole[..end]).expect("written");
        let played = replay(&path).expect("readable");
        assert!(played.differences.is_empty(), "cut at {end}: {:?}", played.differences);
    }
}
