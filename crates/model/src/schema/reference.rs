//! The tables as pages of the manual. The pages in `docs/reference/` are this text; a test says when they are stale.

use super::suggest::listed;
use super::table::{AttributeRow, ElementRow, Kind, Support};
use super::typed::time_text;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One page: every element below `root`, with its attributes.
#[must_use]
pub fn markdown(title: &str, root: &'static ElementRow) -> String {
    let mut page = format!(
        "# {title}\n\n<!-- Written from the table in crates/model/src/schema: cargo xtask docs -->\n\n\
         What no part of this version acts on is checked and kept, with a note (*not acted on yet*); what has no meaning here\n\
         is accepted with a note (*no effect*). *Running* says *yes* when a change takes effect while the module runs.\n\
         Times take a unit (`d h m s ms us`); a bare number counts in the unit of the attribute. `%NAME%` stands for a macro or an environment variable, `%%` for a percent sign.\n"
    );
    element(&mut page, root, "", false);
    // Prose names elements as <heart>; Markdown would take them for HTML. The comment is ours.
    let (comment, rest) = page.split_at(page.find("-->").map_or(0, |at| at + 3));
    format!("{comment}{}", rest.replace('<', "&lt;"))
}

fn element(page: &mut String, row: &'static ElementRow, path: &str, is_dynamic: bool) {
    let is_dynamic = is_dynamic || row.dynamic;
    let path = if path.is_empty() { row.name.to_string() } else { format!("{path}/{}", row.name) };
    page.push_str(&format!("\n## `{path}`\n\n{}\n", row.doc));
    match row.support {
        Support::NotYet(until) => page.push_str(&format!("\n*Not acted on yet*: {until}.\n")),
        Support::Noted(why) => page.push_str(&format!("\n*No effect*: {why}.\n")),
        _ => {}
    }
    let sentences: Vec<&str> = [(row.many, "May be repeated."), (!row.needs.is_empty(), "Needed in it:")]
        .into_iter()
        .filter_map(|(holds, sentence)| holds.then_some(sentence))
        .collect();
    if !sentences.is_empty() {
        let needs: Vec<String> = row.needs.iter().map(|name| format!("`{name}`")).collect();
        let end = if needs.is_empty() { String::new() } else { format!(" {}.", needs.join(", ")) };
        page.push_str(&format!("\n{}{end}\n", sentences.join(" ")));
    }
    if row.text {
        page.push_str("\nHas text in it, best as `<![CDATA[…]]>`.\n");
    }
    if !row.attributes.is_empty() {
        page.push_str("\n| attribute | value | default | running | meaning |\n|---|---|---|---|---|\n");
        row.attributes
            .iter()
            .for_each(|attribute| page.push_str(&line(attribute, attribute.dynamic.unwrap_or(is_dynamic))));
    }
    row.children.iter().for_each(|child| element(page, child, &path, is_dynamic));
}

fn line(row: &AttributeRow, is_dynamic: bool) -> String {
    let default = match (row.required, row.default) {
        (true, _) => "*required*".to_string(),
        (false, Some(default)) => format!("`{default}`"),
        (false, None) => String::new(),
    };
    let values = |fine: &[&str]| fine.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    let support = match row.support {
        Support::Works => String::new(),
        Support::Noted(why) => format!(" *No effect*: {why}."),
        Support::NotedUnless([], why) => format!(" *No effect*: {why}."),
        Support::NotedUnless(fine, why) => format!(" Other than {}, *no effect*: {why}.", values(fine)),
        Support::NotYet(until) | Support::NotYetUnless([], until) => format!(" *Not acted on yet*: {until}."),
        Support::NotYetUnless(fine, until) => format!(" Other than {}, *not acted on yet*: {until}.", values(fine)),
    };
    let running = if is_dynamic { "yes" } else { "" };
    format!("| `{}` | {} | {default} | {running} | {}{support} |\n", row.name, kind(row.kind), row.doc)
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_string(),
        Kind::Name | Kind::Identifier => "name".to_string(),
        Kind::OnOff => "`on`, `off`".to_string(),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::Integer(min, max) if max > 1 << 40 => format!("number from {min}"),
        Kind::Integer(min, max) => format!("number, {min} to {max}"),
        Kind::Signed(min, max) => format!("number, {min} to {max}"),
        Kind::Time(unit, min, max) => {
            // What is no whole number of the unit is refused.
            let min = if min == 0 { 0 } else { min.max(unit.microseconds() / 1_000) };
            format!("time in whole {}, {} to {}", unit.plural(), time_text(min), time_text(max))
        }
        Kind::Address | Kind::AddressToFill => "IP address or host name, looked up when it is applied".to_string(),
        Kind::Host => "IP address or host name".to_string(),
        Kind::Mac => "hardware address".to_string(),
        Kind::Addresses => listed(["IP addresses or host names", "spaces between"]),
        Kind::Netmask => "dotted mask".to_string(),
        Kind::AbsolutePath => "absolute path".to_string(),
        Kind::RelativePath => "relative path".to_string(),
        Kind::NamePattern | Kind::Pattern => "regular expression".to_string(),
        Kind::Schedule => "schedule as in a crontab".to_string(),
        Kind::Word => "text, not empty".to_string(),
        Kind::Names => "names, commas between".to_string(),
        Kind::Url => "URL".to_string(),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::schema::{cluster_table::CLUSTER, table::SAFE, xsd::xsd};
    use std::{env, fs, path::Path};

    #[test]
    fn reference_pages_and_schemas_are_those_of_the_table() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
        for (name, title, root) in [("userconfig", "userconfig.xml", &SAFE), ("cluster", "cluster.xml", &CLUSTER)] {
            for (end, text) in [("md", markdown(title, root)), ("xsd", xsd(root))] {
                let path = docs.join(format!("{name}.{end}"));
                if env::var_os("STEAD_WRITE_EXPECTED").is_some() {
                    fs::create_dir_all(&docs).expect("docs/reference");
                    fs::write(&path, &text).expect("written");
                }
                let there = fs::read_to_string(&path).unwrap_or_default();
                assert!(there == text, "{} is stale: cargo xtask docs", path.display());
            }
        }
    }
}
