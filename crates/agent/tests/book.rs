//! What the book writes into `userconfig.xml` is right.

use agent::configuration::read_module;
use model::schema::{Severity, Surroundings};
use std::path::Path;

#[test]
fn every_configuration_of_the_book_is_accepted() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book");
    let around = Surroundings { module: "app", cluster: None, subnets: &[], others: &[] };
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
