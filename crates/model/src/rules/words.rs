//! A text of rules, cut into words with their places.

use crate::schema::Position;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// As written.
    pub text: &'a str,
    /// Where it begins; line and column count from 1 in the text.
    pub at: Position,
    /// A name or a value, not a sign.
    pub is_name: bool,
}

const SIGNS: [&str; 14] = ["==", "!=", "&&", "||", "!", "(", ")", ":", ";", "=", "{", "}", "+", ","];

/// All words; comments (`/* */`, `//`, `--`) are left out.
///
/// # Errors
/// The place and the sign that means nothing.
pub fn cut(text: &str) -> Result<Vec<Word<'_>>, (Position, String)> {
    let mut words = Vec::new();
    let (mut line, mut column, mut at) = (1_u32, 1_u32, 0_usize);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let here = Position { line, column };
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("--") || rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let Some(end) = rest.find("*/") else { return Err((here, "this comment is never closed".to_string())) };
            end + 2
        } else if first == '"' {
            let Some(end) = rest[1..].find('"') else { return Err((here, "this quote is never closed".to_string())) };
            words.push(Word { text: &rest[1..=end], at: here, is_name: true });
            end + 2
        } else if is_name(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            words.push(Word { text: &rest[..length], at: here, is_name: true });
            length
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            words.push(Word { text: &rest[..sign.len()], at: here, is_name: false });
            sign.len()
        } else {
            return Err((here, alloc::format!("'{first}' means nothing in a rule")));
        };
        for c in rest[..length].chars() {
            if c == '\n' {
                (line, column) = (line + 1, 1);
            } else {
                column += 1;
            }
        }
        at += length;
    }
    Ok(words)
}

/// A dash inside a name is part of it; two of them begin a comment only where no name is.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '?')
}
