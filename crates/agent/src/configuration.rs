//! Configuration files of the node: XML in, typed configuration or findings out.
//!
//! Reading only. What the elements mean is `model::schema`; where the files live is [`crate::modules`].
//! Input is hostile until checked: size, depth and counts are bounded before the XML parser sees a byte.

mod encoding;
pub mod names;
mod prescan;
pub mod splice;
mod xml;

pub use xml::{BYTES_MAX, read as read_tree};

use model::api;
use model::schema::names::Answers;
use model::schema::{Checked, ClusterConfiguration, Diagnostic, ModuleConfiguration, Surroundings};

/// Reads and checks a `userconfig.xml`. `file` is the path shown in findings; macros may use the variables of the
/// module's scripts (`%SAFEUSERBIN%`) and this process's environment.
#[must_use]
pub fn read_module(bytes: &[u8], file: &str, around: &Surroundings<'_>) -> Checked<ModuleConfiguration> {
    let own = |name: &str| own_variable(around.module, name).or_else(|| environment(name));
    let (root, note) = match xml::read_noting(bytes, file) {
        Ok(read) => read,
        Err(finding) => return Checked::refused(finding),
    };
    let mut checked = model::schema::module::check(root, file, &own, around);
    if let Some(note) = note {
        checked.diagnostics.insert(0, note.clone());
        if let Some(configuration) = &mut checked.value {
            configuration.notes.insert(0, note);
        }
    }
    checked
}

/// What the module's scripts find in their environment, where a `%NAME%` may ask for it: the same on every node.
fn own_variable(module: &str, name: &str) -> Option<String> {
    let places = crate::places::Places::default();
    let var = places.var.join("modules").join(module);
    let path = match name {
        "SAFEMODULE" => return Some(module.to_string()),
        "SAFE" | "SAFEBIN" => places.script_bin(),
        "SAFEVAR" => places.var,
        "SAFEUSERBIN" => var.join("active/bin"),
        "SAFEUSERCONF" => var.join("active/conf"),
        "SAFEUSERVAR" => var.join("uservar"),
        _ => return None,
    };
    Some(path.to_string_lossy().into_owned())
}

/// Whether a text is meant as a `cluster.xml`: its root says so. What cannot be read is not.
#[must_use]
pub fn is_cluster(bytes: &[u8]) -> bool {
    xml::read(bytes, "").is_ok_and(|root| root.name == model::schema::cluster_table::CLUSTER.name)
}

/// Reads and checks a `cluster.xml`.
#[must_use]
pub fn read_cluster(bytes: &[u8], file: &str, names: &Answers) -> Checked<ClusterConfiguration> {
    match xml::read_noting(bytes, file) {
        Ok((root, note)) => {
            let mut checked = model::schema::cluster::check(root, file, &environment, names);
            checked.diagnostics.splice(0..0, note);
            checked
        }
        Err(finding) => Checked::refused(finding),
    }
}

/// The tree of a `userconfig.xml` with its macros expanded and its names as addresses; `None`: it cannot be read. For
/// comparisons, not for findings: which module's it is does not count.
#[must_use]
pub fn expanded(bytes: &[u8], names: &Answers) -> Option<model::schema::Element> {
    let mut root = xml::read(bytes, "").ok()?;
    let own = |name: &str| own_variable("AM", name).or_else(|| environment(name));
    let _ = model::schema::macros::expand(&mut root, "", &own);
    let _ = model::schema::names::put_in(&mut root, &model::schema::table::SAFE, "", names, &mut Vec::new());
    Some(root)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The findings as the API shows them: with the line itself and the width to underline.
#[must_use]
pub fn for_api(diagnostics: &[Diagnostic], text: &[u8]) -> Vec<api::Diagnostic> {
    let text = xml::decode(text, "").unwrap_or_else(|_| String::from_utf8_lossy(text));
    let lines: Vec<&str> =
        text.trim_start_matches('\u{feff}').split('\n').map(|line| line.trim_end_matches('\r')).collect();
    diagnostics
        .iter()
        .map(|it| {
            let line = it.line.checked_sub(1).and_then(|index| lines.get(index as usize)).copied().unwrap_or("");
            let rest: String = line.chars().skip(it.column.saturating_sub(1) as usize).collect();
            let end = |c: char| matches!(c, '"' | '\'' | '>' | '=' | '/') || c.is_whitespace();
            // A value may hold spaces and slashes: it ends at its quote. A name ends at the first of the others.
            let before = line.chars().nth((it.column as usize).saturating_sub(2));
            let width = match before {
                Some(quote @ ('"' | '\'')) if it.column > 1 => rest.chars().take_while(|c| *c != quote).count(),
                _ => rest.chars().take_while(|c| !end(*c)).count(),
            };
            api::Diagnostic {
                severity: if it.is_error() { api::Severity::Error } else { api::Severity::Warning },
                file: it.file.clone(),
                line: it.line,
                column: it.column,
                width: u32::try_from(width.max(1)).unwrap_or(1),
                message: it.message.clone(),
                // A line is shown, not a file: one of a megabyte helps nobody.
                source_line: line.chars().take(240).collect(),
                help: it.help.clone().unwrap_or_default(),
            }
        })
        .collect()
}
