//! Changes macro values in the text itself, so that comments, order and line ends survive.

use super::{encoding, prescan, xml};
use model::schema::{Diagnostic, Position, suggest};
use roxmltree::{Document, ParsingOptions};
use std::borrow::Cow;
use std::ops::Range;

/// Byte-order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A macro as written: name and value with references resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Macro {
    /// Name, without the percent signs.
    pub name: String,
    /// Value.
    pub value: String,
}

struct Written {
    found: Macro,
    /// Of the value in the text, between its quotes.
    range: Range<usize>,
}

/// The macros of a file, in its order.
///
/// # Errors
/// The file is not XML that can be read.
pub fn macros(bytes: &[u8], file: &str) -> Result<Vec<Macro>, Diagnostic> {
    Ok(find(bytes, file)?.into_iter().map(|it| it.found).collect())
}

/// The file with these macros changed. `module` is for the sentence of a refusal.
///
/// # Errors
/// The file cannot be read; a name is no macro of the file, is there twice, or a value has a control
/// character: nothing is changed.
pub fn set_macros(bytes: &[u8], file: &str, module: &str, changes: &[(String, String)]) -> Result<Vec<u8>, Diagnostic> {
    let written = find(bytes, file)?;
    let whole = Position::default();
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for (index, (name, value)) in changes.iter().enumerate() {
        if changes[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Diagnostic::error(file, whole, format!("--set gives {name} twice")).with_help("give it once"));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Diagnostic::error(file, whole, format!("the value for {name} has a control character in it")));
        }
        let mut known = written.iter().filter(|it| it.found.name == *name);
        match (known.next(), known.next()) {
            (Some(it), None) => edits.push((it.range.clone(), escape(value))),
            (Some(_), Some(_)) => {
                return Err(Diagnostic::error(file, whole, format!("macro {name} is defined twice in this file"))
                    .with_help("remove one of them with an editor first"));
            }
            (None, _) => return Err(unknown(name, file, module, &written)),
        }
    }
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let text = xml::decode(bytes, file)?;
    let is_older = matches!(text, Cow::Owned(_));
    let mark = if bytes.starts_with(MARK) && !is_older { MARK } else { &[] };
    let mut text = text.into_owned();
    for (range, value) in edits {
        text.replace_range(range, &value);
    }
    // Written back in UTF-8, and saying so.
    let text = if is_older { encoding::redeclared(&text) } else { text };
    Ok([mark, text.as_bytes()].concat())
}

fn unknown(name: &str, file: &str, module: &str, written: &[Written]) -> Diagnostic {
    let names = || written.iter().map(|it| it.found.name.as_str());
    let finding = Diagnostic::error(file, Position::default(), format!("module {module} has no macro {name}"));
    match suggest::nearest(name, names()) {
        Some(near) => finding.with_help(format!("did you mean --set {near}=…?")),
        None if written.is_empty() => finding.with_help("it has no macros: edit the file"),
        None => finding.with_help(format!("its macros: {}", suggest::listed(names()))),
    }
}

fn find(bytes: &[u8], file: &str) -> Result<Vec<Written>, Diagnostic> {
    // The same reading as ever first: its refusals, in its words.
    xml::read(bytes, file)?;
    let text = &*xml::decode(bytes, file)?;
    let unreadable = |what: String| Diagnostic::error(file, Position::default(), what);
    let clean = prescan::scan(text).map_err(|refused| unreadable(refused.message))?;
    let document = Document::parse_with_options(&clean.clean, ParsingOptions::default())
        .map_err(|error| unreadable(error.to_string()))?;
    let macros = document.root_element().children().filter(|node| node.has_tag_name("macro"));
    let written = macros.filter_map(|node| {
        let value = node.attribute_node("value")?;
        let range = value.range_value();
        Some(Written {
            found: Macro { name: node.attribute("name")?.to_string(), value: value.value().to_string() },
            range,
        })
    });
    Ok(written.collect())
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            '\t' => text.push_str("&#9;"),
            c => text.push(c),
        }
    }
    text
}
