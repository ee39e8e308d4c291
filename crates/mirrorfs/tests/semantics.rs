//! Every example of `docs/SEMANTICS.md`, as it stands there: typed in a mirrored directory, it prints that.

mod common;

use common::be_mirrorfs_if_asked;
use common::pair::{Mirror, equal};
use std::path::Path;
use std::process::Command;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// One ```` ```console ```` block: commands, each with what it prints. `secondary`: typed on the other node.
struct Example {
    line: usize,
    secondary: bool,
    commands: Vec<(String, String)>,
}

fn examples(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for (number, line) in page.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            inside = !inside && kind.starts_with("console");
            if inside {
                found.push(Example { line: number + 1, secondary: kind.ends_with("secondary"), commands: Vec::new() });
            }
        } else if inside && let Some(example) = found.last_mut() {
            match (line.strip_prefix("$ "), example.commands.last_mut()) {
                (Some(command), _) => example.commands.push((command.to_owned(), String::new())),
                (None, Some((_, printed))) => {
                    printed.push_str(line);
                    printed.push('\n');
                }
                (None, None) => panic!("line {}: output before a command", number + 1),
            }
        }
    }
    found
}

fn type_in(at: &Path, command: &str) -> String {
    let output =
        Command::new("sh").args(["-c", &format!("umask 022; {command}")]).env("LC_ALL", "C").current_dir(at).output();
    let output = output.expect("sh");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn every_example_prints_what_the_page_says() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SEMANTICS.md")).expect("the page");
    let examples = examples(&page);
    assert!(examples.len() > 5, "{} examples found", examples.len());
    // As the page says of its examples.
    let mirror =
        Mirror::with(128, |_, configuration| configuration.dirs[0].notreplicated_names = vec![r"\.tmp$".into()]);
    let mut wrong = String::new();
    for example in &examples {
        let own = mirror.a.bench.data().join(format!("line{}", example.line));
        std::fs::create_dir(&own).expect("mkdir");
        let at = if example.secondary { mirror.b.bench.data() } else { own };
        for (command, should) in &example.commands {
            let is = type_in(&at, command);
            if is != *should {
                wrong.push_str(&format!("line {}: $ {command}\n{is}-- the page says\n{should}", example.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    equal("after the examples", &mirror.a, &mirror.b);
    mirror.done();
}

/// Of the table of differences: what its last column names.
fn differences(page: &str) -> Vec<(&str, &str)> {
    let table = page.split("\n## What is different").nth(1).expect("the table");
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0], cells[cells.len() - 1])
    })
    .collect()
}

/// The function a cell names is there; a helper of a test counts when the test's file plays it.
fn problem(named: &str) -> Option<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let Some((file, function)) = named.split_once("::") else { return Some(format!("`{named}` names no function")) };
    let source = std::fs::read_to_string(tests.join(file)).unwrap_or_default();
    let is_there = source.contains(&format!("fn {function}("));
    let is_played = match file.split_once('/') {
        None => source.contains(&format!("#[test]\nfn {function}(")),
        Some((folder, _)) => {
            let test = std::fs::read_to_string(tests.join(format!("{folder}.rs"))).unwrap_or_default();
            test.contains(&format!("::{function}")) || test.contains(&format!("{function},"))
        }
    };
    (!(is_there && is_played)).then(|| format!("`{named}` is no test"))
}

#[test]
fn every_difference_names_what_shows_it() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SEMANTICS.md")).expect("the page");
    let rows = differences(&page);
    assert!(rows.len() >= 14, "{rows:?}");
    let mut wrong = Vec::new();
    for (what, shown) in &rows {
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !shown.contains("below") && *shown != "–" {
            wrong.push(format!("{what}: {shown}"));
        }
        wrong.extend(named.into_iter().filter_map(problem));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.iter().filter(|(_, shown)| *shown == "–").count() <= 2, "more is shown by nothing");
    assert!(problem("posix.rs::no_such_test").is_some() && problem("posix/files.rs::file").is_some());
}
