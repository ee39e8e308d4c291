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
