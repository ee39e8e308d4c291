//! docs/ACCEPTANCE.md names tests: each of them exists, and every row of its lists names one or says why not.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> Result<String, String> {
    std::fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

/// All sources below a folder, as one text.
fn sources(folder: &str) -> String {
    let mut all = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    all
}

/// A function of this name behind an attribute that makes it a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let place = lines.iter().position(|line| {
        ["fn ", "async fn "]
            .iter()
            .any(|word| line.strip_prefix(word).is_some_and(|rest| rest.starts_with(&format!("{name}("))))
    });
    place.is_some_and(|place| {
        lines[place.saturating_sub(4)..place].iter().any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

fn problem(reference: &str) -> Option<String> {
    let (kind, name) = reference.split_once(':')?;
    let exists = match kind {
        "scenario" => root().join(format!("tests/scenarios/{name}.txt")).is_file(),
        "rules" => root().join(format!("tests/rules/{name}.txt")).is_file(),
        "e2e" => {
            let stories = sources("crates/xtask/src");
            ["name: \"{}\"", ": &str = \"{}\"", "(\"{}\","]
                .iter()
                .any(|told| stories.contains(&told.replace("{}", name)))
        }
        "refusals" => sources("crates/xtask/src/refusals").contains(&format!("(\"{name}\",")),
        "bench" => sources("crates/xtask/src").contains(&format!("\"{name}\"")),
        "test" => match name.rsplit_once("::") {
            Some((file, function)) => match text(file) {
                Ok(source) => is_test(&source, function),
                Err(why) => return Some(why),
            },
            None => false,
        },
        other => return Some(format!("`{reference}`: there is no kind '{other}'")),
    };
    (!exists).then(|| format!("`{reference}` does not exist"))
}

/// What stands in backquotes and looks like a reference.
fn references(cell: &str) -> Vec<&str> {
    let kinds = ["scenario:", "rules:", "e2e:", "refusals:", "bench:", "test:"];
    cell.split('`').skip(1).step_by(2).filter(|word| kinds.iter().any(|kind| word.starts_with(kind))).collect()
}

#[test]
fn every_scenario_and_every_fault_names_tests_that_exist() {
    let page = text("docs/ACCEPTANCE.md").expect("the page");
    let mut wrong = Vec::new();
    let mut lists = Vec::new();
    for part in page.split("\n## ").skip(1) {
        let rows: Vec<Vec<&str>> = part
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| # "))
            .map(|line| line.trim_matches('|').splitn(3, '|').map(str::trim).collect())
            .collect();
        lists.push(rows.len());
        for (place, row) in rows.iter().enumerate() {
            let [number, behaviour, shown] = row[..] else {
                wrong.push(format!("not a row: {row:?}"));
                continue;
            };
            if number != (place + 1).to_string() {
                wrong.push(format!("row {number} stands at place {}", place + 1));
            }
            let named = references(shown);
            if named.is_empty() && !shown.contains("*Not here:*") {
                wrong.push(format!("row {number} ({behaviour}) names no test, and does not say why"));
            }
            wrong.extend(named.into_iter().filter_map(problem));
        }
    }
    assert_eq!(lists, [30, 35, 9, 7, 9, 13, 26], "the rows of the lists");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    for reference in [
        "scenario:no-such-story",
        "rules:none",
        "e2e:nothing",
        "refusals:nothing at all",
        "test:crates/xtask/tests/acceptance.rs::root",
        "test:crates/xtask/tests/nowhere.rs::x",
        "walk:x",
    ] {
        assert!(problem(reference).is_some(), "{reference} is taken for a test");
    }
    assert_eq!(problem("test:crates/xtask/tests/acceptance.rs::what_does_not_exist_is_found"), None);
    assert_eq!(references("`a`, `e2e:b` (c), `test:d.rs::e`"), ["e2e:b", "test:d.rs::e"]);
}
