//! Configuration files of the node: XML in, typed configuration or findings out.
//!
//! Reading only. What the elements mean is `model::schema`; where the files live is [`crate::modules`].
//! Input is hostile until checked: size, depth and counts are bounded before the XML parser sees a byte.

mod prescan;
pub mod splice;
mod xml;

pub use xml::{BYTES_MAX, read as read_tree};

use model::api;
use model::schema::{Checked, ClusterConfiguration, Diagnostic, ModuleConfiguration, Surroundings};

/// Reads and checks a `userconfig.xml`. `file` is the path shown in findings; macros may use this process's
/// environment.
#[must_use]
pub fn read_module(bytes: &[u8], file: &str, around: &Surroundings<'_>) -> Checked<ModuleConfiguration> {
    match xml::read(bytes, file) {
        Ok(root) => model::schema::module::check(root, file, &environment, around),
        Err(finding) => Checked::refused(finding),
    }
}

/// Reads and checks a `cluster.xml`.
#[must_use]
pub fn read_cluster(bytes: &[u8], file: &str) -> Checked<ClusterConfiguration> {
    match xml::read(bytes, file) {
        Ok(root) => model::schema::cluster::check(root, file, &environment),
        Err(finding) => Checked::refused(finding),
    }
}

/// The tree of a `userconfig.xml` with its macros expanded; `None`: it cannot be read. For comparisons, not for
/// findings.
#[must_use]
pub fn expanded(bytes: &[u8]) -> Option<model::schema::Element> {
    let mut root = xml::read(bytes, "").ok()?;
    let _ = model::schema::macros::expand(&mut root, "", &environment);
    Some(root)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The findings as the API shows them: with the line itself and the width to underline.
#[must_use]
pub fn for_api(diagnostics: &[Diagnostic], text: &[u8]) -> Vec<api::Diagnostic> {
    let text = String::from_utf8_lossy(text);
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
