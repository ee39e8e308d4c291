//! Changes that pairing makes to the text of `cluster.xml`: lines are inserted, everything a person wrote stays.

use model::NodeName;
use roxmltree::{Document, Node};
use std::net::IpAddr;

/// What `stead cluster init` writes: one network per address.
pub(crate) fn first_configuration(name: &NodeName, lans: &[(String, IpAddr)]) -> String {
    let lans: String = lans
        .iter()
        .map(|(lan, addr)| {
            format!(
                "    <lan name=\"{lan}\">\n      <node name=\"{name}\" addr=\"{}\"/>\n    </lan>\n",
                bracketed(*addr)
            )
        })
        .collect();
    format!("<cluster>\n  <lans>\n{lans}  </lans>\n</cluster>\n")
}

/// The text with a node on these networks; a line it had before is taken out first.
pub(crate) fn with_node(text: &str, name: &NodeName, addrs: &[(String, IpAddr)]) -> Option<String> {
    let mut text = without(text, name)?;
    for (lan, addr) in addrs {
        let line = format!("      <node name=\"{name}\" addr=\"{}\"/>\n", bracketed(*addr));
        let at = closing_tag(&text, |node| node.has_tag_name("lan") && node.attribute("name") == Some(lan))?;
        text.insert_str(at, &line);
    }
    Some(text)
}

/// The text with this witness at its end, and without the one whose place it takes.
pub(crate) fn with_witness(text: &str, replaced: Option<&NodeName>, name: &NodeName, addr: IpAddr) -> Option<String> {
    let goes = |named: &str| named == name.as_str() || replaced.is_some_and(|gone| named == gone.as_str());
    let mut text = cut(text, |node| node.has_tag_name("witness") && node.attribute("name").is_some_and(goes))?;
    let at = closing_tag(&text, |node| node.has_tag_name("cluster"))?;
    text.insert_str(at, &format!("  <witness name=\"{name}\" addr=\"{}\"/>\n", bracketed(addr)));
    Some(text)
}

fn without(text: &str, name: &NodeName) -> Option<String> {
    cut(text, |node| node.has_tag_name("node") && node.attribute("name") == Some(name.as_str()))
}

/// Takes out every element `which` names, with its line when it is alone on it.
fn cut(text: &str, which: impl Fn(Node<'_, '_>) -> bool) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let mut ranges: Vec<_> = document.descendants().filter(|node| which(*node)).map(|node| node.range()).collect();
    ranges.reverse();
    let mut text = text.to_owned();
    for range in ranges {
        let start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[range.end..].find('\n').map_or(text.len(), |at| range.end + at + 1);
        let alone = text[start..range.start].trim().is_empty() && text[range.end..end].trim().is_empty();
        text.replace_range(if alone { start..end } else { range }, "");
    }
    Some(text)
}

/// Where the line of an element's closing tag begins (or the tag itself, when something precedes it).
fn closing_tag(text: &str, which: impl Fn(Node<'_, '_>) -> bool) -> Option<usize> {
    let document = Document::parse(text).ok()?;
    let range = document.descendants().find(|node| which(*node))?.range();
    let tag = range.start + text[range.clone()].rfind("</")?;
    let start = text[..tag].rfind('\n').map_or(0, |at| at + 1);
    Some(if text[start..tag].trim().is_empty() { start } else { tag })
}

fn bracketed(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("[{addr}]"),
    }
}
