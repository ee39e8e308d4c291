//! Compares a tree with the table and reports every difference: unknown names with the nearest known one,
//! wrong values, missing and repeated parts, what nothing acts on yet, what has no meaning here.

use super::diagnostic::Diagnostic;
use super::suggest::{listed, nearest};
use super::table::{AttributeRow, ElementRow, Kind, Support};
use super::tree::{Attribute, Element};
use super::typed::problem;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Where the findings say they come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The file as the person knows it.
    pub file: &'a str,
    /// The module, for commands in help texts; `None` for `cluster.xml`.
    pub module: Option<&'a str>,
}

impl Source<'_> {
    /// How to change the macros that a value was made of.
    #[must_use]
    pub fn macro_help(&self, attribute: &Attribute) -> Option<String> {
        let name = attribute.macros.first()?;
        let module = self.module?;
        Some(format!("the value comes from %{name}%: `stead config -m {module} --set {name}=…` sets it"))
    }
}

/// All differences between the tree and the table, the root's name included.
#[must_use]
pub fn tree(root: &Element, row: &'static ElementRow, source: Source<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if root.name == row.name {
        element(root, row, source, &mut found);
    } else {
        found.push(
            Diagnostic::error(
                source.file,
                root.position,
                format!("the root element is <{}>, not <{}>", root.name, row.name),
            )
            .with_help(format!("{} — put everything into <{}>…</{}>", row.doc, row.name, row.name)),
        );
    }
    found
}

fn element(it: &Element, row: &'static ElementRow, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    // Said once, for all that is in it; what is in it is checked all the same.
    match row.support {
        Support::NotYet(until) => found.push(Diagnostic::note(
            source.file,
            it.position,
            format!("<{}> is checked and not acted on yet: {until}", it.name),
        )),
        Support::Noted(why) => found.push(Diagnostic::note(
            source.file,
            it.position,
            format!("<{}> is accepted and has no effect: {why}", it.name),
        )),
        _ => {}
    }
    attributes(it, row, source, found);
    for child in &it.children {
        match row.child(&child.name) {
            Some(child_row) => element(child, child_row, source, found),
            None => found.push(unknown_child(it, child, row, source)),
        }
    }
    for child_row in row.children.iter().filter(|c| !c.many) {
        for again in it.all(child_row.name).skip(1) {
            found.push(Diagnostic::error(
                source.file,
                again.position,
                format!("<{}> stands twice in <{}>: it belongs there once", again.name, it.name),
            ));
        }
    }
    for needed in row.needs.iter().filter(|needed| it.child(needed).is_none()) {
        let doc = row.child(needed).map_or("", |r| r.doc);
        found.push(
            Diagnostic::error(source.file, it.position, format!("<{}> has no <{needed}>", it.name))
                .with_help(format!("<{needed}>: {doc}")),
        );
    }
    if !row.text && !it.text.trim().is_empty() {
        let excerpt: String = it.text.trim().chars().take(30).collect();
        found.push(Diagnostic::error(
            source.file,
            it.position,
            format!("<{}> has text in it ('{excerpt}'): only elements belong there", it.name),
        ));
    }
}

fn unknown_child(parent: &Element, child: &Element, row: &'static ElementRow, source: Source<'_>) -> Diagnostic {
    let names = || row.children.iter().map(|c| c.name);
    let mut finding =
        Diagnostic::error(source.file, child.position, format!("<{}> is not known in <{}>", child.name, parent.name));
    if let Some(name) = nearest(&child.name, names()) {
        finding = finding.with_help(format!("did you mean <{name}>?"));
    } else if row.children.is_empty() {
        finding = finding.with_help(format!("<{}> has nothing in it", parent.name));
    } else {
        finding = finding.with_help(format!("<{}> may have: {}", parent.name, listed(names())));
    }
    finding
}

fn attributes(it: &Element, row: &'static ElementRow, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    for attribute in &it.attributes {
        match row.attribute(&attribute.name) {
            Some(attribute_row) => value(it, attribute, attribute_row, source, found),
            None => found.push(unknown_attribute(it, attribute, row, source)),
        }
    }
    for missing in row.attributes.iter().filter(|a| a.required && it.attribute(a.name).is_none()) {
        found.push(
            Diagnostic::error(source.file, it.position, format!("<{}> has no attribute {}", it.name, missing.name))
                .with_help(format!("{}: {}", missing.name, missing.doc)),
        );
    }
}

fn unknown_attribute(it: &Element, attribute: &Attribute, row: &'static ElementRow, source: Source<'_>) -> Diagnostic {
    let names = || row.attributes.iter().map(|a| a.name);
    let finding = Diagnostic::error(
        source.file,
        attribute.position,
        format!("<{}> has no attribute '{}'", it.name, attribute.name),
    );
    match nearest(&attribute.name, names()) {
        Some(name) => finding.with_help(format!("did you mean '{name}'?")),
        None if row.attributes.is_empty() => finding.with_help(format!("<{}> has no attributes", it.name)),
        None => finding.with_help(format!("<{}> may have: {}", it.name, listed(names()))),
    }
}

fn value(it: &Element, attribute: &Attribute, row: &AttributeRow, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let what = format!("{}=\"{}\" of <{}>", attribute.name, shortened(&attribute.value), it.name);
    if attribute.unresolved {
        return;
    }
    // A template leaves it to be filled in; one that a macro left empty is the macro's mistake.
    if row.kind == Kind::AddressToFill && attribute.value.is_empty() && attribute.macros.is_empty() {
        found.push(
            Diagnostic::note(
                source.file,
                attribute.value_position,
                format!("{what} is to be filled in: there is no such address until then"),
            )
            .with_help("write a free address of the nodes' subnet there, or remove the element"),
        );
        return;
    }
    if let Some((end, help)) = problem(row.kind, &attribute.value) {
        let mut finding = Diagnostic::error(source.file, attribute.value_position, format!("{what} {end}"));
        finding.help = source.macro_help(attribute).or(help);
        found.push(finding);
        return;
    }
    let note = |sentence: &str| {
        Diagnostic::note(source.file, attribute.position, format!("{what} is accepted and has no effect: {sentence}"))
    };
    let later = |until: &str| {
        Diagnostic::note(source.file, attribute.position, format!("{what} is checked and not acted on yet: {until}"))
    };
    match row.support {
        Support::Works => {}
        Support::Noted(sentence) => found.push(note(sentence)),
        Support::NotedUnless(fine, sentence) => {
            if !fine.contains(&attribute.value.as_str()) {
                found.push(note(sentence));
            }
        }
        Support::NotYet(until) => found.push(later(until)),
        Support::NotYetUnless(fine, until) => {
            if !fine.contains(&attribute.value.as_str()) {
                found.push(later(until));
            }
        }
    }
}

fn shortened(value: &str) -> String {
    if value.chars().count() <= 80 {
        return value.into();
    }
    let mut text: String = value.chars().take(77).collect();
    text.push('…');
    text
}
