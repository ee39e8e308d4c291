//! One cheap pass before the XML parser: bounds on depth, elements and attributes, the DOCTYPE blanked out.
//!
//! The parser compares the attributes of one element pairwise and keeps every node in memory; a hostile
//! megabyte must not cost seconds. Entities and internal DTDs are refused here, with a sentence and a place; an external one
//! is never read.
//! **Invariant:** the text handed on has the length and the lines of the original, so places stay true.

/// Deepest nesting accepted (a SafeKit configuration needs 7).
pub const DEPTH_MAX: usize = 32;
/// Most elements in a file.
pub const ELEMENTS_MAX: usize = 10_000;
/// Most attributes of one element (`rfs` has 27).
pub const ATTRIBUTES_MAX: usize = 100;

/// What is refused, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Byte offset.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

fn refuse<T>(at: usize, message: impl Into<String>, help: &'static str) -> Result<T, Refused> {
    Err(Refused { at, message: message.into(), help })
}

/// A text that may be parsed.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// With its DOCTYPE blanked out.
    pub clean: String,
    /// Where its DOCTYPE refers to an external DTD.
    pub external_dtd: Option<usize>,
}

/// Accepts a text, or says why not.
pub fn scan(text: &str) -> Result<Scanned, Refused> {
    let bytes = text.as_bytes();
    let mut scanned = Scanned { clean: text.to_string(), external_dtd: None };
    let (mut at, mut depth, mut elements) = (0, 0_usize, 0_usize);
    while let Some(found) = text[at..].find('<') {
        let start = at + found;
        let rest = &text[start..];
        if rest.starts_with("<!--") {
            at = past(text, start + 4, "-->");
        } else if rest.starts_with("<![CDATA[") {
            at = past(text, start + 9, "]]>");
        } else if rest.starts_with("<?") {
            at = past(text, start + 2, "?>");
        } else if rest.get(..9).is_some_and(|word| word.eq_ignore_ascii_case("<!DOCTYPE")) {
            at = doctype(text, start, &mut scanned)?;
        } else if rest.starts_with("<!") {
            return refuse(start, "a declaration of a document type has no place here", "remove it");
        } else if rest.starts_with("</") {
            depth = depth.saturating_sub(1);
            at = past(text, start + 2, ">");
        } else {
            elements += 1;
            if elements > ELEMENTS_MAX {
                return refuse(start, format!("more than {ELEMENTS_MAX} elements"), "no configuration needs that many");
            }
            let (end, closed) = tag(bytes, start + 1)?;
            if !closed {
                depth += 1;
            }
            if depth > DEPTH_MAX {
                return refuse(
                    start,
                    format!("elements nested deeper than {DEPTH_MAX}"),
                    "no configuration needs that depth",
                );
            }
            at = end;
        }
    }
    Ok(scanned)
}

/// Byte after the next `end`, or the end of the text: what is not closed is the parser's to say.
fn past(text: &str, from: usize, end: &str) -> usize {
    text.get(from..).and_then(|rest| rest.find(end)).map_or(text.len(), |found| from + found + end.len())
}

/// From inside a start tag to after its `>`; whether it closed itself.
fn tag(bytes: &[u8], from: usize) -> Result<(usize, bool), Refused> {
    let (mut at, mut quote, mut attributes) = (from, None, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (None, b'>') => return Ok((at + 1, bytes[at - 1] == b'/')),
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'=') => {
                attributes += 1;
                if attributes > ATTRIBUTES_MAX {
                    return refuse(
                        at,
                        format!("more than {ATTRIBUTES_MAX} attributes in one element"),
                        "no element has that many",
                    );
                }
            }
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
        at += 1;
    }
    Ok((bytes.len(), true))
}

/// Accepts `<!DOCTYPE name>`, an external DTD behind the name too, and blanks it out.
fn doctype(text: &str, start: usize, scanned: &mut Scanned) -> Result<usize, Refused> {
    let body = &text[start + 9..];
    let mut quote = None;
    let end = body.find(|c| match (quote, c) {
        (None, '>' | '[') => true,
        (None, '"' | '\'') => {
            quote = Some(c);
            false
        }
        (Some(open), _) => {
            if open == c {
                quote = None;
            }
            false
        }
        _ => false,
    });
    let end = end.unwrap_or(body.len());
    if body[end..].starts_with('[') {
        return refuse(
            start,
            "the DOCTYPE has an internal subset: entities and DTDs are refused",
            "write <!DOCTYPE safe> or nothing",
        );
    }
    if body[..end].split_whitespace().count() > 1 {
        scanned.external_dtd.get_or_insert(start);
    }
    let after = (start + 9 + end + 1).min(text.len());
    // Bytes become spaces one by one, so that the offsets behind it stay; lines stay lines.
    let blank: String =
        text[start..after].bytes().map(|b| if b == b'\n' || b == b'\r' { b as char } else { ' ' }).collect();
    scanned.clean.replace_range(start..after, &blank);
    Ok(after)
}
