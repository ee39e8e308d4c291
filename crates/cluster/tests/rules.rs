//! The stories of tests/rules: values of resources played against failover rules, each told exactly as its file tells it.
//!
//! `#` lines tell why, lines before the first `>` are the rules (`handle_time 15s` may stand before them), `>` lines are
//! steps, the rest is what follows. `UPDATE=1 cargo test -p cluster --test rules` writes them anew.

use cluster::watch::story::Story;
use model::rules::parse;
use std::path::Path;

fn play(story: &str) -> String {
    let (mut text, mut rules, mut handle_time, mut played) = (String::new(), String::new(), 0, None);
    for line in story.lines() {
        if let Some(step) = line.strip_prefix("> ") {
            let playing = played.get_or_insert_with(|| {
                let rules = parse(&rules).expect("the story's rules are right").rules;
                Story::new(rules.into_iter().map(|(rule, _)| rule).collect(), handle_time)
            });
            text.push_str(&format!("> {step}\n"));
            for said in playing.play(step).unwrap_or_else(|why| vec![why]) {
                text.push_str(&format!("    {said}\n"));
            }
        } else if played.is_none() {
            text.push_str(&format!("{line}\n"));
            if let Some(time) = line.strip_prefix("handle_time ") {
                handle_time =
                    model::schema::units::milliseconds(time, model::schema::units::Unit::Millisecond).expect("a time");
            } else if !line.starts_with('#') {
                rules.push_str(&format!("{line}\n"));
            }
        }
    }
    text
}

#[test]
fn every_story_is_told_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rules");
    let mut files: Vec<_> = std::fs::read_dir(&dir).expect("tests/rules").flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() >= 6, "the stories are there");
    let mut wrong = Vec::new();
    for path in files {
        let story = std::fs::read_to_string(&path).expect("readable");
        let told = play(&story);
        if told == story {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &told).expect("writable");
        } else {
            let differs = told.lines().zip(story.lines()).find(|(now, then)| now != then);
            wrong.push(format!("{}: {differs:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nIf the new telling is right: UPDATE=1", wrong.join("\n"));
}
