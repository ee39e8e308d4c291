//! One spelling for one meaning: values and elements in a form that can be compared, whoever wrote them how.
//!
//! Serves two readers: the signature, for parts that have no typed value yet ([`waiting`]), and the plan of a
//! change ([`super::plan`]).

use super::table::{AttributeRow, ElementRow, Kind, SAFE, Support};
use super::tree::Element;
use super::typed::{normal_path, problem};
use super::units::milliseconds;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

/// A value in its one spelling: times in milliseconds, numbers without zeros before them, addresses and paths in
/// their shortest form. What is wrong stays as it is.
#[must_use]
pub fn value(kind: Kind, text: &str) -> String {
    if problem(kind, text).is_some() {
        return text.to_string();
    }
    match kind {
        Kind::Time(unit, ..) => milliseconds(text, unit).map_or_else(|_| text.to_string(), |ms| format!("{ms}ms")),
        Kind::Integer(..) => text.trim().parse::<u64>().map_or_else(|_| text.to_string(), |number| format!("{number}")),
        Kind::Signed(..) => text.trim().parse::<i64>().map_or_else(|_| text.to_string(), |number| format!("{number}")),
        Kind::Address | Kind::AddressToFill | Kind::Host => one_address(text),
        Kind::Addresses => text.split_whitespace().map(one_address).collect::<Vec<_>>().join(" "),
        Kind::Names => text.split(',').map(str::trim).collect::<Vec<_>>().join(","),
        Kind::AbsolutePath | Kind::RelativePath => normal_path(text),
        Kind::Mac => text.to_ascii_lowercase().replace('-', ":"),
        _ => text.to_string(),
    }
}

fn one_address(text: &str) -> String {
    let bare = text.trim_matches(['[', ']']);
    bare.parse::<IpAddr>().map_or_else(|_| text.to_ascii_lowercase(), |address| address.to_string())
}

/// The value of an attribute, or its default, in its one spelling; `None`: there is neither.
#[must_use]
pub fn attribute(it: &Element, row: &AttributeRow) -> Option<String> {
    it.value(row.name).or(row.default).map(|text| value(row.kind, text))
}

/// What is written and has no typed value yet, one line each, in the order of the file: two nodes that differ in it
/// have different modules, though nothing acts on it yet.
#[must_use]
pub fn waiting(root: &Element) -> Vec<String> {
    let mut lines = Vec::new();
    if root.name == SAFE.name {
        walk(root, &SAFE, "", false, &mut lines);
    }
    lines
}

/// What is kept whole: it has a typed value, and this spelling in the signature.
const CHECKERS: [&str; 9] = [
    "safe/service/errd",
    "safe/service/failover",
    "safe/service/check/tcp",
    "safe/service/check/http",
    "safe/service/check/ping",
    "safe/service/check/intf",
    "safe/service/check/ip",
    "safe/service/check/custom",
    "safe/service/check/module",
];

fn walk(it: &Element, row: &'static ElementRow, path: &str, inside: bool, lines: &mut Vec<String>) {
    let path = if path.is_empty() { row.name.to_string() } else { format!("{path}/{}", row.name) };
    let inside = inside || matches!(row.support, Support::NotYet(_)) || CHECKERS.contains(&path.as_str());
    let mut line = path.clone();
    for (attribute_row, text) in row.attributes.iter().filter_map(|a| Some((a, it.value(a.name)?))) {
        let is_default =
            attribute_row.default.is_some_and(|d| value(attribute_row.kind, d) == value(attribute_row.kind, text));
        if (inside || attribute_row.support.waits(text)) && !is_default {
            line.push_str(&format!(" {}={:?}", attribute_row.name, Quoted(&value(attribute_row.kind, text))));
        }
    }
    let text = it.text.trim();
    if inside && row.text && !text.is_empty() {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.push_str(&format!(" {:?}", Quoted(&words)));
    }
    if inside || line != path {
        lines.push(line);
    }
    for child in &it.children {
        if let Some(child_row) = row.child(&child.name) {
            walk(child, child_row, &path, inside, lines);
        }
    }
}

/// Quoted by a rule of our own: that of the standard library follows the Unicode tables of the compiler.
struct Quoted<'a>(&'a str);

impl core::fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
