//! Host names where an address belongs: looked up once, when a configuration is applied, and kept with it.
//!
//! Pure: whoever applies a configuration asks the resolver and hands the answers in. **Invariant:** what is in force
//! has addresses only; a name server that is wrong or away tomorrow changes nothing.

use super::diagnostic::Diagnostic;
use super::table::{AttributeRow, ElementRow, Kind};
use super::tree::{Attribute, Element};
use super::typed::is_host_name;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::IpAddr;

/// Most names in one file.
pub const NAMES_MAX: usize = 64;

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The address that is taken.
    pub addr: IpAddr,
    /// What else the resolver said.
    pub others: Vec<IpAddr>,
}

/// What was looked up: an address, or the end of a sentence that begins with the name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answers(pub BTreeMap<String, Result<Answer, String>>);

/// No name was looked up.
pub static NO_NAMES: Answers = Answers(BTreeMap::new());

impl Answers {
    /// What is kept with a configuration, in the form of hosts(5); what was not found stands in no such file.
    #[must_use]
    pub fn to_hosts(&self) -> String {
        let mut text = String::new();
        for (name, answer) in &self.0 {
            let Ok(Answer { addr, others }) = answer else { continue };
            let _ = write!(text, "{addr} {name}");
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            if !others.is_empty() {
                let _ = write!(text, " # and {}", others.join(" "));
            }
            text.push('\n');
        }
        text
    }

    /// Back from that form; what is no line of it is no answer.
    #[must_use]
    pub fn from_hosts(text: &str) -> Self {
        let line = |line: &str| {
            let (line, rest) = line.split_once('#').unwrap_or((line, ""));
            let mut words = line.split_whitespace();
            let addr = words.next()?.parse().ok()?;
            let others = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            Some((words.next()?.to_string(), Ok(Answer { addr, others })))
        };
        Self(text.lines().filter_map(line).take(NAMES_MAX).collect())
    }

    /// Only the addresses.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, IpAddr> {
        let found =
            |(name, answer): (&String, &Result<Answer, String>)| Some((name.clone(), answer.as_ref().ok()?.addr));
        self.0.iter().filter_map(found).collect()
    }
}

impl FromIterator<(String, IpAddr)> for Answers {
    fn from_iter<I: IntoIterator<Item = (String, IpAddr)>>(names: I) -> Self {
        let answer = |addr| Ok(Answer { addr, others: Vec::new() });
        Self(names.into_iter().map(|(name, addr)| (name, answer(addr))).collect())
    }
}

/// Which of several addresses a name stands for: the one it stood for before if it still does, else the smallest, IPv4
/// first; never one that is another machine on every machine.
///
/// # Errors
/// The end of a sentence that begins with the name.
pub fn choose(found: &[IpAddr], before: Option<IpAddr>) -> Result<Answer, String> {
    let plain = |addr: &&IpAddr| !(addr.is_loopback() || addr.is_unspecified() || addr.is_multicast());
    let mut all: Vec<IpAddr> = found.iter().filter(plain).copied().collect();
    all.sort();
    all.dedup();
    let addr = before.filter(|before| all.contains(before)).or_else(|| all.first().copied()).ok_or_else(|| {
        found.first().map_or_else(
            || "has no address".to_string(),
            |only| format!("is {only} for this machine (see /etc/hosts), which no other machine can reach"),
        )
    })?;
    all.retain(|other| *other != addr);
    Ok(Answer { addr, others: all })
}

/// The host names that stand where an address belongs, each once; macros are expanded already.
#[must_use]
pub fn wanted(root: &Element, row: &'static ElementRow) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    // A walk that changes nothing: the tree is small, and one walk is one truth.
    let mut root = root.clone();
    walk(&mut root, row, &mut |attribute, row, _| {
        for word in words(row.kind, &attribute.value).into_iter().filter(|word| is_host_name(word)) {
            if !names.iter().any(|known| known == word) {
                names.push(word.to_string());
            }
        }
    });
    names
}

/// Puts addresses in the places of names, with a note on each; a name without an answer is an error, and its place is
/// left alone by later checks. True: every name had one.
pub fn put_in(
    root: &mut Element,
    row: &'static ElementRow,
    file: &str,
    answers: &Answers,
    found: &mut Vec<Diagnostic>,
) -> bool {
    let mut all = true;
    walk(root, row, &mut |attribute, row, element| {
        let parts = words(row.kind, &attribute.value);
        if !parts.iter().any(|word| is_host_name(word)) {
            return;
        }
        let mut said = Vec::new();
        for word in parts {
            if !is_host_name(word) {
                said.push(word.to_string());
                continue;
            }
            let what = format!("{}=\"{word}\" of <{element}>", attribute.name);
            match answers.0.get(word) {
                Some(Ok(answer)) => {
                    found.push(Diagnostic::note(
                        file,
                        attribute.value_position,
                        format!("{what} {}", stands_for(answer)),
                    ));
                    said.push(answer.addr.to_string());
                }
                Some(Err(why)) => {
                    all = false;
                    attribute.unresolved = true;
                    found.push(Diagnostic::error(file, attribute.value_position, format!("{what} {why}")).with_help(
                        format!("ask for it on this node with: getent ahosts {word} — or write the address itself"),
                    ));
                }
                None => {
                    all = false;
                    attribute.unresolved = true;
                    found.push(
                        Diagnostic::error(file, attribute.value_position, format!("{what} was not looked up"))
                            .with_help("`stead config` and `stead cluster config` look names up; elsewhere write the address itself"),
                    );
                }
            }
        }
        if !attribute.unresolved {
            attribute.value = said.join(" ");
        }
    });
    all
}

fn stands_for(answer: &Answer) -> String {
    let kept = "it stays this one until the configuration is applied again";
    if answer.others.is_empty() {
        return format!("is {}: {kept}", answer.addr);
    }
    let others: Vec<String> = answer.others.iter().map(ToString::to_string).collect();
    format!("has several addresses: {} is taken, not {}; {kept}", answer.addr, others.join(", "))
}

fn words(kind: Kind, value: &str) -> Vec<&str> {
    match kind {
        Kind::Address | Kind::AddressToFill => alloc::vec![value],
        Kind::Addresses => value.split_whitespace().collect(),
        _ => Vec::new(),
    }
}

fn walk(it: &mut Element, row: &'static ElementRow, each: &mut dyn FnMut(&mut Attribute, &AttributeRow, &str)) {
    if it.name != row.name {
        return;
    }
    for attribute in it.attributes.iter_mut().filter(|attribute| !attribute.unresolved) {
        if let Some(row) = row.attribute(&attribute.name) {
            each(attribute, row, &it.name);
        }
    }
    for child in &mut it.children {
        if let Some(row) = row.child(&child.name) {
            walk(child, row, each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_of_several_is_taken_and_kept() {
        let found = [ip("fd00::2"), ip("10.0.0.9"), ip("127.0.1.1"), ip("10.0.0.2"), ip("10.0.0.9")];
        let first = choose(&found, None).expect("there are some");
        assert_eq!((first.addr, first.others), (ip("10.0.0.2"), vec![ip("10.0.0.9"), ip("fd00::2")]));
        assert_eq!(choose(&found, Some(ip("10.0.0.9"))).expect("there are some").addr, ip("10.0.0.9"));
        assert_eq!(choose(&found, Some(ip("10.0.0.7"))).expect("there are some").addr, ip("10.0.0.2"));
        assert!(choose(&[ip("127.0.1.1")], None).expect_err("only here").contains("127.0.1.1"));
        assert!(choose(&[], None).is_err());
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let mut answers: Answers = [("a.example.com".to_string(), ip("10.0.0.1"))].into_iter().collect();
        answers.0.insert("b".into(), Ok(Answer { addr: ip("fd00::1"), others: vec![ip("10.0.0.3"), ip("fd00::3")] }));
        assert_eq!(Answers::from_hosts(&answers.to_hosts()), answers);
        answers.0.insert("c".into(), Err("has no address".into()));
        assert_eq!(Answers::from_hosts(&answers.to_hosts()).0.len(), 2);
        assert_eq!(Answers::from_hosts("# nothing\n\n10.0.0.1\nx y\n"), Answers::default());
    }
}
