//! XML bytes into the generic tree, with the place of every name and value.

use super::{encoding, prescan};
use model::schema::{Attribute, Diagnostic, Element, Position};
use roxmltree::{Document, Node, ParsingOptions};
use std::borrow::Cow;

/// Largest file looked at.
pub const BYTES_MAX: usize = 1024 * 1024;

/// Reads one file.
///
/// # Errors
/// The first thing that makes it unreadable: XML cannot be read past a syntax error.
pub fn read(bytes: &[u8], file: &str) -> Result<Element, Diagnostic> {
    read_noting(bytes, file).map(|(root, _)| root)
}

/// The same, with what a person should know of the text itself.
pub(super) fn read_noting(bytes: &[u8], file: &str) -> Result<(Element, Option<Diagnostic>), Diagnostic> {
    let text = &*decode(bytes, file)?;
    let lines = Lines::of(text);
    let scanned = prescan::scan(text).map_err(|refused| {
        Diagnostic::error(file, lines.position(text, refused.at), refused.message).with_help(refused.help)
    })?;
    let options = ParsingOptions { nodes_limit: 100_000, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(&scanned.clean, options).map_err(|error| syntax(&error, file, text, &lines))?;
    let note = scanned.external_dtd.map(|at| {
        Diagnostic::note(file, lines.position(text, at), "the DOCTYPE refers to an external DTD, which is never read")
    });
    Ok((element(document.root_element(), file, text, &lines)?, note))
}

/// The text behind a byte-order mark: UTF-8, or an older encoding that the first line names.
pub(super) fn decode<'a>(bytes: &'a [u8], file: &str) -> Result<Cow<'a, str>, Diagnostic> {
    let whole = Position::default();
    if bytes.len() > BYTES_MAX {
        return Err(Diagnostic::error(
            file,
            whole,
            format!("the file has {} bytes: no more than {BYTES_MAX} are read", bytes.len()),
        ));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Diagnostic::error(file, whole, "the file is in UTF-16").with_help("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map(Cow::Borrowed).or_else(|error| {
        if let Some(text) = encoding::decode(bytes) {
            return Ok(Cow::Owned(text));
        }
        let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there");
        let at = Lines::of(good).position(good, good.len());
        let help =
            r#"save the file as UTF-8, or begin it with its encoding: <?xml version="1.0" encoding="ISO-8859-1"?>"#;
        Err(Diagnostic::error(file, at, "this byte is not UTF-8").with_help(help))
    })
}

/// Where lines begin: positions by binary search instead of a walk from the top for each.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1))
                .collect(),
        )
    }

    pub(super) fn position(&self, text: &str, byte: usize) -> Position {
        let line = self.0.partition_point(|start| *start <= byte).saturating_sub(1);
        let column = text.get(self.0[line]..byte).map_or(0, |before| before.chars().count());
        Position {
            line: u32::try_from(line + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }
}

fn syntax(error: &roxmltree::Error, file: &str, text: &str, lines: &Lines) -> Diagnostic {
    use roxmltree::Error as E;
    let end = lines.position(text, text.trim_end().len());
    match error {
        E::NoRootNode => Diagnostic::error(file, Position { line: 1, column: 1 }, "the file has no element in it"),
        E::UnclosedRootNode | E::UnexpectedEndOfStream => {
            Diagnostic::error(file, end, "the file ends before everything in it is closed")
                .with_help("an end tag, a quote or a '>' is missing")
        }
        E::UnexpectedCloseTag(expected, actual, at) => Diagnostic::error(
            file,
            Position { line: at.row, column: at.col },
            format!("</{actual}> closes <{expected}>"),
        )
        .with_help(format!("write </{expected}>, or close what was opened in between")),
        E::DuplicatedAttribute(name, at) => Diagnostic::error(
            file,
            Position { line: at.row, column: at.col },
            format!("the attribute {name} stands twice in this element"),
        )
        .with_help("remove one of them"),
        E::UnknownEntityReference(name, at) => {
            Diagnostic::error(file, Position { line: at.row, column: at.col }, format!("&{name}; is not known"))
                .with_help("known are &amp; &lt; &gt; &quot; &apos;")
        }
        other => {
            let at = other.pos();
            // The position is in front of the sentence already.
            let sentence = other.to_string().replace(&format!(" at {at}"), "");
            Diagnostic::error(file, Position { line: at.row, column: at.col }, format!("this is not XML: {sentence}"))
        }
    }
}

fn element(node: Node<'_, '_>, file: &str, text: &str, lines: &Lines) -> Result<Element, Diagnostic> {
    let position = lines.position(text, node.range().start);
    let foreign = |at, name: &str| {
        Err(Diagnostic::error(file, at, format!("'{name}' is in an XML namespace, which has no meaning here"))
            .with_help("write names without a prefix, and no xmlns"))
    };
    if node.tag_name().namespace().is_some() {
        return foreign(position, node.tag_name().name());
    }
    let mut it = Element {
        name: node.tag_name().name().to_string(),
        attributes: Vec::new(),
        children: Vec::new(),
        text: String::new(),
        position,
        text_position: position,
    };
    for attribute in node.attributes() {
        let position = lines.position(text, attribute.range().start);
        if attribute.namespace().is_some() {
            return foreign(position, attribute.name());
        }
        it.attributes.push(Attribute {
            name: attribute.name().to_string(),
            value: attribute.value().to_string(),
            position,
            value_position: lines.position(text, attribute.range_value().start),
            macros: Vec::new(),
            unresolved: false,
        });
    }
    for child in node.children() {
        if child.is_element() {
            it.children.push(element(child, file, text, lines)?);
        } else if let (true, Some(more)) = (child.is_text(), child.text()) {
            if it.text.trim().is_empty() {
                it.text.clear();
                it.text_position = lines.position(text, child.range().start + cdata(text, child.range().start));
            }
            it.text.push_str(more);
        }
    }
    Ok(it)
}

/// The opening of a CDATA section is no part of the text.
fn cdata(text: &str, at: usize) -> usize {
    const OPEN: &str = "<![CDATA[";
    text.get(at..).filter(|rest| rest.starts_with(OPEN)).map_or(0, |_| OPEN.len())
}
