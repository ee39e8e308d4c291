//! What the book writes into `userconfig.xml` is right.

use agent::configuration::read_module;
use model::schema::names::NO_NAMES;
use model::schema::{Severity, Surroundings};
use std::path::Path;

#[test]
fn every_configuration_of_the_book_is_accepted() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book");
    let around = Surroundings { module: "app", cluster: None, subnets: &[], others: &[], names: &NO_NAMES };
    let (mut tried, mut wrong) = (0, Vec::new());
    for page in std::fs::read_dir(&book).expect("the book") {
        let page = page.expect("a page").path();
        let text = std::fs::read_to_string(&page).expect("read");
        for part in text.split("```xml\n").skip(1).filter_map(|rest| rest.split_once("```")) {
            let farm = page.ends_with("farm.md");
            let whole = if part.0.contains("<safe>") {
                part.0.to_owned()
            } else {
                let mode = if farm { "farm" } else { "mirror" };
                format!("<safe><service mode=\"{mode}\">\n{}</service></safe>", part.0)
            };
            let checked = read_module(whole.as_bytes(), "userconfig.xml", &around);
            tried += 1;
            // A rule may look at a checker of another example of its page.
            let errors = checked.diagnostics.iter().filter(|found| found.severity == Severity::Error);
            wrong.extend(errors.map(|found| format!("{}: {found}\n{whole}", page.display())));
        }
    }
    assert!(tried > 3 && wrong.is_empty(), "{tried} tried\n{}", wrong.join("\n"));
}

/// `prestart` calls it on a node where nothing runs, and so does every stop a second time.
#[test]
fn the_books_stop_script_does_not_fail_when_nothing_runs() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/module.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let scripts: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    let script = scripts.iter().find(|script| script.contains("# stop_prim:")).expect("the page has a stop_prim");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("stop_prim");
    std::fs::write(&file, script).expect("written");
    for arguments in
        [&["PRIM", "WAIT", "stop"][..], &["force", "PRIM", "WAIT", "stop"], &["force", "STOP", "WAIT", "start"]]
    {
        let status = std::process::Command::new("sh").arg(&file).args(arguments).status().expect("it runs");
        assert!(status.success(), "stop_prim {arguments:?}: {status}");
    }
}
