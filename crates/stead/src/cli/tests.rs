//! Every help has an example and the next command; every verb parses as the manual writes it.

use super::later::LATER;
use super::*;
use std::ffi::OsString;

fn parsed(line: &str) -> Result<Asked, clap::Error> {
    parse(line.split(' ').map(OsString::from))
}

#[test]
fn the_shape_is_sound() {
    command().debug_assert();
}

#[test]
fn every_help_shows_an_example_and_the_next_command() {
    fn walk(command: &clap::Command, path: &str, seen: &mut usize) {
        let text = command.clone().render_long_help().to_string();
        for wanted in ["Example:", "Next:"] {
            let after = text.split_once(wanted).map(|(_, rest)| rest.trim_start());
            assert!(
                after.is_some_and(|t| t.starts_with("stead ")),
                "`{path} --help` lacks `{wanted} stead …`:\n{text}"
            );
        }
        *seen += 1;
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            walk(sub, &format!("{path} {}", sub.get_name()), seen);
        }
    }
    let mut seen = 0;
    let mut whole = command();
    whole.build();
    walk(&whole, "stead", &mut seen);
    assert!(seen > 30, "only {seen} commands were seen");
}

/// The examples themselves must be accepted by the parser.
#[test]
fn every_example_parses() {
    fn walk(command: &clap::Command, tried: &mut usize) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example =
            help.split_once("Example:\n").and_then(|(_, rest)| rest.split_once("\nNext:")).map_or("", |(e, _)| e);
        for line in example.lines().map(str::trim).filter(|line| line.starts_with("stead ")) {
            let line = line.split(['>', '|', ';']).next().unwrap_or_default();
            let line = line.split("  ").next().unwrap_or_default().trim();
            if let Err(error) = parsed(line) {
                panic!("{line}: {error}");
            }
            *tried += 1;
        }
        command.get_subcommands().for_each(|sub| walk(sub, tried));
    }
    let mut tried = 0;
    walk(&command(), &mut tried);
    assert!(tried > 30, "only {tried} examples were tried");
}

/// So must every command line of the book.
#[test]
fn every_command_of_the_book_parses() {
    let book = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book");
    let mut tried = 0;
    for page in std::fs::read_dir(&book).unwrap() {
        let page = page.unwrap().path();
        for line in std::fs::read_to_string(&page).unwrap().lines() {
            let Some((_, command)) = line.split_once("# stead ").filter(|(host, _)| !host.contains(' ')) else {
                continue;
            };
            if let Err(error) = parsed(&format!("stead {command}")) {
                panic!("{}: {line}: {error}", page.display());
            }
            tried += 1;
        }
    }
    assert!(tried > 40, "only {tried} commands were tried");
}

#[test]
fn verbs_of_safekit_that_are_not_here_are_refused_with_a_sentence() {
    for later in LATER {
        let Ok(Asked::Later { verb, .. }) = parsed(&format!("stead {} -m am on --anything", later.name)) else {
            panic!("{} must be known as not here", later.name)
        };
        let problem = verb.problem();
        assert!(!problem.why.is_empty() && !problem.help.is_empty(), "{problem:?}");
    }
}

/// The rows of a table of docs/book/safekit.md, behind its headline: cells without their outer blanks.
fn safekit(headline: &str) -> Vec<Vec<String>> {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/safekit.md");
    let page = std::fs::read_to_string(page).unwrap();
    let part = page.split("\n## ").find(|part| part.starts_with(headline)).unwrap();
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_string()).collect()).collect()
}

/// What stands in the first backquotes.
fn quoted(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_else(|| panic!("nothing in backquotes: {cell}"))
}

/// As a shell takes it apart; nothing in the table has a blank inside its quotes.
fn typed(line: &str) -> Result<Asked, clap::Error> {
    parse(line.split(' ').map(|word| OsString::from(word.trim_matches('"'))))
}

#[test]
fn every_verb_of_safekit_does_what_the_table_says() {
    let rows = safekit("Verbs");
    assert!(rows.len() > 80, "{} rows", rows.len());
    for row in &rows {
        let line = format!("stead {}", quoted(&row[0]));
        let refused = row[1].starts_with("refused");
        match typed(&line) {
            Err(error) => panic!("{line}: {error}"),
            Ok(Asked::Later { verb, .. }) => {
                assert!(refused, "{line} is refused, and the table does not say so");
                let problem = verb.problem();
                assert!(!problem.why.is_empty() && !problem.help.is_empty(), "{line}: {problem:?}");
            }
            // These are refused by the verb itself (commands/cluster.rs, install.rs, scripts.rs).
            Ok(Asked::Now(cli)) => {
                let refuses = match &cli.verb {
                    Verb::Cluster(verb) => matches!(verb, ClusterVerb::Deconfig | ClusterVerb::Delkey),
                    Verb::Module(verb) => matches!(verb, ModuleVerb::Delkey),
                    Verb::Boot(verb) => crate::commands::boot(verb).is_err(),
                    _ => false,
                };
                assert_eq!(refuses, refused, "{line}");
            }
        }
    }
}

/// Each text of the log stands in the test that the table names; the sentences themselves are made by what that test plays.
#[test]
fn every_text_of_safekits_log_is_shown_by_the_test_beside_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = safekit("The log");
    assert!(rows.len() > 30, "{} rows", rows.len());
    let mut shown = 0;
    for row in &rows {
        let text = quoted(if row[1].starts_with("the same") { &row[0] } else { &row[1] });
        if row[2] == "*nothing*" {
            continue;
        }
        let named = quoted(&row[2]);
        let path = match named.strip_prefix("scenario:") {
            Some(story) => root.join(format!("tests/scenarios/{story}.txt")),
            None => root.join("crates").join(named),
        };
        let test = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(test.contains(text), "'{text}' is not in {}", path.display());
        shown += 1;
    }
    assert!(shown > 30, "only {shown} texts are shown");
}

#[test]
fn what_cannot_be_meant_is_refused_by_the_parser() {
    for line in [
        "stead",
        "stead statee",
        "stead state -m a/b",
        "stead waitstate RUNNING",
        "stead config --set NOVALUE",
        "stead module install x -M 0",
        "stead cluster init --name n1",
        "stead cluster config --dry-run",
        "stead log -s 0",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[test]
fn an_export_is_asked_only_where_no_verb_is() {
    let spelt = |line: &str| {
        let words = super::module::exporting(line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(spelt("stead -H n2,n3 -E am --json"), "stead module export -m am --to n2,n3 --json");
    assert_eq!(spelt("stead --socket /s -H * -E am"), "stead module export -m am --socket /s");
    for line in
        ["stead lab exec n1 -- stead -H n2 -E am", "stead state -H n2", "stead -H n2 state", "stead -h", "stead"]
    {
        assert_eq!(spelt(line), line);
    }
}
