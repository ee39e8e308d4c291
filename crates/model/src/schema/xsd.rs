//! The tables as XML Schema: for editors that complete and underline while a person types.
//!
//! What it accepts is a superset of what the checker accepts: a value may be made of macros, and relations between
//! values are beyond it. **Invariant:** what the checker accepts, it accepts (tests hold it against `xmllint`).

use super::table::{AttributeRow, ElementRow, Kind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The schema of the documents whose root is `root`.
#[must_use]
pub fn xsd(root: &'static ElementRow) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- Written from the table in crates/model/src/schema: cargo xtask docs -->\n\
         <xs:schema xmlns:xs=\"http://www.w3.org/2001/XMLSchema\">\n  \
         <xs:simpleType name=\"macro\">\n    <xs:restriction base=\"xs:string\"><xs:pattern value=\".*%[A-Za-z_][A-Za-z0-9_]*%.*\"/></xs:restriction>\n  </xs:simpleType>\n",
    );
    element(&mut text, root, 1, Occurs::Root);
    text.push_str("</xs:schema>\n");
    text
}

/// How often an element may stand where it is declared.
#[derive(Clone, Copy)]
enum Occurs {
    Root,
    /// In a choice that repeats: any number.
    Free,
    /// In a set: once, or at most once.
    Once {
        needed: bool,
    },
}

fn element(text: &mut String, row: &'static ElementRow, depth: usize, occurs: Occurs) {
    let pad = "  ".repeat(depth);
    let least = if matches!(occurs, Occurs::Once { needed: false }) { " minOccurs=\"0\"" } else { "" };
    let mixed = if row.text { " mixed=\"true\"" } else { "" };
    text.push_str(&format!(
        "{pad}<xs:element name=\"{}\"{least}>\n{pad}  <xs:annotation><xs:documentation>{}</xs:documentation></xs:annotation>\n{pad}  <xs:complexType{mixed}>\n",
        row.name,
        escaped(row.doc)
    ));
    if row.children.iter().any(|child| child.many) {
        text.push_str(&format!("{pad}    <xs:choice minOccurs=\"0\" maxOccurs=\"unbounded\">\n"));
        row.children.iter().for_each(|child| element(text, child, depth + 3, Occurs::Free));
        text.push_str(&format!("{pad}    </xs:choice>\n"));
    } else if !row.children.is_empty() {
        text.push_str(&format!("{pad}    <xs:all>\n"));
        for child in row.children {
            element(text, child, depth + 3, Occurs::Once { needed: row.needs.contains(&child.name) });
        }
        text.push_str(&format!("{pad}    </xs:all>\n"));
    }
    row.attributes.iter().for_each(|it| attribute(text, it, depth + 2));
    text.push_str(&format!("{pad}  </xs:complexType>\n{pad}</xs:element>\n"));
}

fn attribute(text: &mut String, row: &AttributeRow, depth: usize) {
    let pad = "  ".repeat(depth);
    let needed = if row.required { " use=\"required\"" } else { "" };
    let default = row.default.map(|value| format!(" default=\"{}\"", escaped(value))).unwrap_or_default();
    text.push_str(&format!(
        "{pad}<xs:attribute name=\"{}\"{needed}{default}>\n{pad}  <xs:annotation><xs:documentation>{}</xs:documentation></xs:annotation>\n",
        row.name,
        escaped(row.doc)
    ));
    let (base, facets) = restriction(row.kind);
    let facets: String =
        facets.iter().map(|(name, value)| format!("<xs:{name} value=\"{}\"/>", escaped(value))).collect();
    text.push_str(&format!(
        "{pad}  <xs:simpleType><xs:union memberTypes=\"macro\"><xs:simpleType><xs:restriction base=\"xs:{base}\">{facets}</xs:restriction></xs:simpleType></xs:union></xs:simpleType>\n{pad}</xs:attribute>\n"
    ));
}

/// Base type and facets of a kind of value.
fn restriction(kind: Kind) -> (&'static str, Vec<(&'static str, String)>) {
    let words = |words: &[&str]| ("string", words.iter().map(|word| ("enumeration", (*word).to_string())).collect());
    let pattern = |text: &str| ("string", alloc::vec![("pattern", text.to_string())]);
    let bounds = |min: String, max: String| alloc::vec![("minInclusive", min), ("maxInclusive", max)];
    match kind {
        Kind::Text => ("string", Vec::new()),
        Kind::Name => pattern("[A-Za-z0-9_][A-Za-z0-9._\\-]{0,63}"),
        Kind::Identifier => pattern("[A-Za-z_][A-Za-z0-9_]{0,127}"),
        Kind::OnOff => words(&["on", "off"]),
        Kind::Choice(choices) => words(choices),
        Kind::Integer(min, max) => ("integer", bounds(min.to_string(), max.to_string())),
        Kind::Signed(min, max) => ("integer", bounds(min.to_string(), max.to_string())),
        Kind::Time(..) => pattern("\\s*[0-9]+\\s*(d|h|m|s|ms|us)?\\s*"),
        Kind::Address => pattern("[0-9A-Za-z._:\\-\\[\\]]+"),
        Kind::AddressToFill => pattern("[0-9A-Za-z._:\\-\\[\\]]*"),
        Kind::Host => pattern("[0-9A-Za-z._:\\-\\[\\]]+"),
        Kind::Mac => pattern("[0-9A-Fa-f]{2}([:\\-][0-9A-Fa-f]{2}){5}"),
        Kind::Addresses => pattern("\\s*[0-9A-Za-z._:\\-\\[\\]]+(\\s+[0-9A-Za-z._:\\-\\[\\]]+)*\\s*"),
        Kind::Netmask => pattern("\\s*[0-9]+(\\.[0-9]+){3}\\s*"),
        Kind::AbsolutePath => pattern("/.*"),
        Kind::RelativePath => pattern("[^/].*"),
        Kind::NamePattern | Kind::Pattern | Kind::Word => ("string", alloc::vec![("minLength", "1".to_string())]),
        Kind::Schedule => pattern("\\s*(@(hourly|daily|weekly|monthly)|\\S+(\\s+\\S+){4})?\\s*"),
        Kind::Names => pattern("[^,]+(,[^,]+)*"),
        Kind::Url => pattern("https?://\\S+"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
