//! `%NAME%` in values: macros of the file, then environment variables; `%%` is one percent sign.
//!
//! Substitution happens after parsing, so a value can never become an element, and places stay those of the
//! text a person wrote. A macro's own value may use macros above it, and nothing else: no loops.

use super::diagnostic::Diagnostic;
use super::suggest::{listed, nearest};
use super::tree::{Attribute, Element};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Longest value after substitution.
pub const EXPANDED_MAX: usize = 64 * 1024;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Substitutes in all attribute values of the tree, in place. Findings: unknown names, a macro defined
/// twice, values that grow past [`EXPANDED_MAX`].
pub fn expand(root: &mut Element, file: &str, environment: Environment<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut macros: Vec<(String, String)> = Vec::new();
    for child in root.children.iter_mut().filter(|c| c.name == "macro") {
        let at = child.position;
        if let Some(value) = child.attributes.iter_mut().find(|a| a.name == "value") {
            substitute(value, file, &macros, environment, &mut found);
        }
        let (Some(name), Some(value)) = (child.value("name"), child.value("value")) else { continue };
        if macros.iter().any(|(known, _)| known == name) {
            found.push(
                Diagnostic::error(file, at, format!("macro {name} is defined twice")).with_help("keep one of them"),
            );
            continue;
        }
        macros.push((name.to_string(), value.to_string()));
    }
    for child in root.children.iter_mut().filter(|c| c.name != "macro") {
        element(child, file, &macros, environment, &mut found);
    }
    found
}

fn element(
    it: &mut Element,
    file: &str,
    macros: &[(String, String)],
    environment: Environment<'_>,
    found: &mut Vec<Diagnostic>,
) {
    for attribute in &mut it.attributes {
        substitute(attribute, file, macros, environment, found);
    }
    for child in &mut it.children {
        element(child, file, macros, environment, found);
    }
}

fn substitute(
    attribute: &mut Attribute,
    file: &str,
    macros: &[(String, String)],
    environment: Environment<'_>,
    found: &mut Vec<Diagnostic>,
) {
    if !attribute.value.contains('%') {
        return;
    }
    let mut text = String::new();
    let mut rest = attribute.value.as_str();
    let (mut used, mut unresolved) = (Vec::new(), false);
    while let Some(start) = rest.find('%') {
        let (before, after) = rest.split_at(start);
        let after = &after[1..];
        text.push_str(before);
        if let Some(tail) = after.strip_prefix('%') {
            text.push('%');
            rest = tail;
            continue;
        }
        // A percent sign that begins no `%NAME%` is itself: `50%`, `10% of it`.
        let Some(name) = after.find('%').map(|end| &after[..end]).filter(|name| is_identifier(name)) else {
            text.push('%');
            rest = after;
            continue;
        };
        if let Some((_, value)) = macros.iter().find(|(known, _)| known == name) {
            text.push_str(value);
            used.push(name.to_string());
        } else if let Some(value) = environment(name) {
            text.push_str(&value);
        } else {
            found.push(unknown(name, attribute, file, macros));
            unresolved = true;
        }
        rest = &after[name.len() + 1..];
        if text.len() > EXPANDED_MAX {
            found.push(Diagnostic::error(
                file,
                attribute.value_position,
                format!("{} grows past {EXPANDED_MAX} bytes when its macros are substituted", attribute.name),
            ));
            rest = "";
        }
    }
    text.push_str(rest);
    attribute.value = text;
    attribute.macros = used;
    attribute.unresolved = unresolved;
}

fn unknown(name: &str, attribute: &Attribute, file: &str, macros: &[(String, String)]) -> Diagnostic {
    let finding = Diagnostic::error(
        file,
        attribute.value_position,
        format!("%{name}% is neither a macro defined above nor an environment variable of the agent"),
    );
    let names = || macros.iter().map(|(known, _)| known.as_str());
    match nearest(name, names()) {
        Some(near) => finding.with_help(format!("did you mean %{near}%?")),
        None if macros.is_empty() => finding
            .with_help(format!("define it: <macro name=\"{name}\" value=\"…\"/>; a percent sign itself is written %%")),
        None => {
            finding.with_help(format!("macros of this file: {}; a percent sign itself is written %%", listed(names())))
        }
    }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
