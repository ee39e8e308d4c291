//! What a new configuration changes, part by part, and whether the module has to stop for it.
//!
//! Compares two trees, macros expanded, by the table: elements are told apart by their keys, values by their meaning
//! (`1s` is `1000ms`, and what is written is compared with what holds by default).

use super::normal;
use super::table::{AttributeRow, ElementRow, SAFE, Support};
use super::tree::Element;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Where: `service/rfs/replicated[/srv/a]`, `bin/start_prim`.
    pub path: String,
    /// What: `maxloop 3 becomes 5`, `added`.
    pub what: String,
    /// The module cannot take it while it runs.
    pub needs_stop: bool,
}

impl Change {
    /// For a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        let when = if self.needs_stop { "needs a stop" } else { "while it runs" };
        format!("{}: {} ({when})", self.path, self.what)
    }
}

/// From one `userconfig.xml` to another, both expanded, in the order of the files.
#[must_use]
pub fn changes(old: &Element, new: &Element) -> Vec<Change> {
    let mut found = Vec::new();
    if old.name == SAFE.name && new.name == SAFE.name {
        children(old, new, &SAFE, "", false, &mut found);
    }
    found
}

/// Whether a change takes effect while the module runs: the attribute's word, else that of what it is in. What nothing
/// acts on needs no stop either.
fn is_dynamic(row: &AttributeRow, inside: bool) -> bool {
    matches!(row.support, Support::Noted(_) | Support::NotedUnless(..) | Support::NotYet(_))
        || row.dynamic.unwrap_or(inside)
}

fn compare(old: &Element, new: &Element, row: &'static ElementRow, path: &str, inside: bool, found: &mut Vec<Change>) {
    for attribute in row.attributes.iter().filter(|a| a.name != row.key) {
        let (was, is) = (normal::attribute(old, attribute), normal::attribute(new, attribute));
        if was == is {
            continue;
        }
        let shown = |value: Option<String>| value.map_or_else(|| "nothing".to_string(), |text| format!("'{text}'"));
        found.push(Change {
            path: path.to_string(),
            what: format!("{} {} becomes {}", attribute.name, shown(was), shown(is)),
            needs_stop: !is_dynamic(attribute, inside),
        });
    }
    let words = |it: &Element| it.text.split_whitespace().collect::<Vec<_>>().join(" ");
    if row.text && words(old) != words(new) {
        found.push(Change { path: path.to_string(), what: "its text is another".to_string(), needs_stop: !inside });
    }
    children(old, new, row, path, inside, found);
}

fn children(old: &Element, new: &Element, row: &'static ElementRow, path: &str, inside: bool, found: &mut Vec<Change>) {
    for child in row.children.iter().filter(|child| child.name != "macro") {
        let inside = inside || child.dynamic || matches!(child.support, Support::NotYet(_) | Support::Noted(_));
        let (was, is) = (named(old, child), named(new, child));
        let whole = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
        for (name, element) in &was {
            if !is.iter().any(|(other, _)| other == name) {
                found.push(one(&whole(name), "removed", element, child, inside));
            }
        }
        for (name, element) in &is {
            match was.iter().find(|(other, _)| other == name) {
                Some((_, before)) => compare(before, element, child, &whole(name), inside, found),
                None => found.push(one(&whole(name), "added", element, child, inside)),
            }
        }
    }
}

fn one(path: &str, what: &str, element: &Element, row: &'static ElementRow, inside: bool) -> Change {
    Change { path: path.to_string(), what: what.to_string(), needs_stop: !inside || needs_stop(element, row) }
}

/// Whether something in an element that comes or goes needs a stop whatever it is in.
fn needs_stop(element: &Element, row: &'static ElementRow) -> bool {
    let own = row.attributes.iter().any(|a| a.dynamic == Some(false) && element.attribute(a.name).is_some());
    own || element.children.iter().any(|child| row.child(&child.name).is_some_and(|row| needs_stop(child, row)))
}

/// The children of one kind with the names that tell them apart.
fn named<'a>(parent: &'a Element, row: &'static ElementRow) -> Vec<(String, &'a Element)> {
    let mut found: Vec<(String, &Element)> = Vec::new();
    for element in parent.all(row.name) {
        let key = row.attribute(row.key).and_then(|attribute| normal::attribute(element, attribute));
        let base = match key {
            Some(key) => format!("{}[{key}]", row.name),
            None => row.name.to_string(),
        };
        let mut name = base.clone();
        let mut number = 1;
        while found.iter().any(|(known, _)| *known == name) {
            number += 1;
            name = format!("{base}#{number}");
        }
        found.push((name, element));
    }
    found
}
