//! The tables as data: what a form, a console or an editor has to know of each element and attribute.

use super::table::{AttributeRow, ElementRow, Kind, Support};
use alloc::vec::Vec;
use serde::Serialize;

/// An element, its attributes and what may be inside it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Form {
    /// As written.
    pub element: &'static str,
    /// For a person.
    pub text: &'static str,
    /// Whether it may stand several times beside itself.
    pub many: bool,
    /// The attribute that tells one of many from another.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub key: &'static str,
    /// Children that must be there.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub needs: &'static [&'static str],
    /// Whether character data belongs inside.
    pub has_text: bool,
    /// What acts on it.
    pub support: SupportForm,
    /// First version that has it.
    pub since: &'static str,
    /// In the order of the table.
    pub attributes: Vec<AttributeForm>,
    /// In the order of the table.
    pub children: Vec<Form>,
}

/// An attribute.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AttributeForm {
    /// As written.
    pub name: &'static str,
    /// For a person.
    pub text: &'static str,
    /// What the value must be.
    #[serde(flatten)]
    pub kind: KindForm,
    /// What holds when it is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<&'static str>,
    /// Must be written.
    pub required: bool,
    /// Whether a change takes effect while the module runs.
    pub dynamic: bool,
    /// What acts on it.
    pub support: SupportForm,
    /// First version that has it.
    pub since: &'static str,
}

/// What a value must be.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct KindForm {
    /// `text`, `name`, `onoff`, `choice`, `number`, `time`, `address`, …
    #[serde(rename = "type")]
    pub name: &'static str,
    /// Of a bare number: `ms`, `s`, `m`, `h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Least; of a time in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Most; of a time in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// One of these.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub choices: &'static [&'static str],
}

/// What acts on a name.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SupportForm {
    /// `works`, `noted` (accepted, no effect), `not_yet` (checked and kept, not acted on yet).
    pub state: &'static str,
    /// Values that work all the same.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub except: &'static [&'static str],
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
}

/// The table below `root`.
#[must_use]
pub fn form(root: &'static ElementRow) -> Form {
    element(root, false)
}

fn element(row: &'static ElementRow, dynamic: bool) -> Form {
    let dynamic = dynamic || row.dynamic;
    Form {
        element: row.name,
        text: row.doc,
        many: row.many,
        key: row.key,
        needs: row.needs,
        has_text: row.text,
        support: support(row.support),
        since: row.since,
        attributes: row.attributes.iter().map(|it| attribute(it, dynamic)).collect(),
        children: row.children.iter().map(|child| element(child, dynamic)).collect(),
    }
}

fn attribute(row: &'static AttributeRow, dynamic: bool) -> AttributeForm {
    AttributeForm {
        name: row.name,
        text: row.doc,
        kind: kind(row.kind),
        default: row.default,
        required: row.required,
        dynamic: row.dynamic.unwrap_or(dynamic),
        support: support(row.support),
        since: row.since,
    }
}

fn support(it: Support) -> SupportForm {
    let (state, except, why): (_, &'static [&'static str], _) = match it {
        Support::Works => ("works", &[], ""),
        Support::Noted(why) => ("noted", &[], why),
        Support::NotedUnless(fine, why) => ("noted", fine, why),
        Support::NotYet(until) => ("not_yet", &[], until),
        Support::NotYetUnless(fine, until) => ("not_yet", fine, until),
    };
    SupportForm { state, except, why }
}

fn kind(it: Kind) -> KindForm {
    let plain = |name| KindForm { name, unit: None, min: None, max: None, choices: &[] };
    let wide = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match it {
        Kind::Text => plain("text"),
        Kind::Word => plain("word"),
        Kind::Name => plain("name"),
        Kind::Names => plain("names"),
        Kind::Identifier => plain("identifier"),
        Kind::OnOff => KindForm { choices: &["on", "off"], ..plain("onoff") },
        Kind::Choice(choices) => KindForm { choices, ..plain("choice") },
        Kind::Integer(min, max) => KindForm { min: Some(wide(min)), max: Some(wide(max)), ..plain("number") },
        Kind::Signed(min, max) => KindForm { min: Some(min), max: Some(max), ..plain("number") },
        Kind::Time(unit, min, max) => {
            KindForm { unit: Some(unit.suffix()), min: Some(wide(min)), max: Some(wide(max)), ..plain("time") }
        }
        Kind::Address | Kind::AddressToFill => plain("address"),
        Kind::Addresses => plain("addresses"),
        Kind::Host => plain("host"),
        Kind::Mac => plain("mac"),
        Kind::Netmask => plain("netmask"),
        Kind::AbsolutePath => plain("absolute_path"),
        Kind::RelativePath => plain("relative_path"),
        Kind::NamePattern | Kind::Pattern => plain("pattern"),
        Kind::Schedule => plain("schedule"),
        Kind::Url => plain("url"),
    }
}
