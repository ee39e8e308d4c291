//! What `deny.toml` says about dependencies, held against what cargo would build: licences, crates that are banned, wildcards, sources.
//!
//! `cargo deny check` says the same and more, and takes longer to build than all of this project's lints; whoever has it can run it. Here
//! every line of `deny.toml` that this reads is enforced, and what it cannot read is an error, not a silence.

use crate::build::cargo;
use crate::shell;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What may be depended upon.
#[derive(Debug, Default, PartialEq)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
}

/// Holds the workspace against `deny.toml`.
///
/// # Errors
/// Everything that is not allowed, a line each.
pub fn check() -> anyhow::Result<()> {
    let rules = Rules::read(include_str!("../../../deny.toml"))?;
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    for target in &rules.targets {
        command.args(["--filter-platform", target]);
    }
    // What is not on this machine yet is fetched.
    let metadata: Value = serde_json::from_str(&shell::must(&mut command, Duration::from_secs(300))?)?;
    let (seen, wrong) = rules.held_against(&metadata)?;
    ensure!(wrong.is_empty(), "deny.toml does not allow:\n{}", wrong.join("\n"));
    println!("   {seen} crates, as deny.toml allows");
    Ok(())
}

impl Rules {
    fn read(text: &str) -> anyhow::Result<Self> {
        let (mut rules, mut part, mut key) = (Self::default(), String::new(), String::new());
        let mut said = BTreeSet::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) =
                line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|_| key.is_empty())
            {
                part = name.to_string();
                continue;
            }
            let (name, value) = match line.split_once(" = ") {
                Some((name, value)) if key.is_empty() => (name.to_string(), value),
                _ => (key.clone(), line),
            };
            // A list may go on over the next lines.
            key = if value == "[" || !key.is_empty() && value != "]" { name.clone() } else { String::new() };
            let quoted: Vec<&str> = value.split('"').skip(1).step_by(2).collect();
            match (part.as_str(), name.as_str()) {
                ("graph", "targets") => rules.targets.extend(quoted.iter().map(ToString::to_string)),
                ("licenses", "allow") => rules.licences.extend(quoted.iter().map(ToString::to_string)),
                // { crate = "NAME", reason = "…" }
                ("bans", "deny") => rules.banned.extend(quoted.first().map(ToString::to_string)),
                ("bans", "wildcards") | ("sources", "unknown-registry" | "unknown-git") => {
                    ensure!(quoted == ["deny"], "deny.toml: {line}: only \"deny\" is enforced here");
                    said.insert(name);
                }
                ("bans", "multiple-versions") => {
                    ensure!(quoted == ["allow"], "deny.toml: {line}: only \"allow\" is known here");
                }
                // How sure cargo-deny is when it reads a licence's text: here its name is read.
                ("licenses", "confidence-threshold") | ("bans", "allow-wildcard-paths") => {}
                _ => bail!(
                    "deny.toml: {line}, in [{part}], is enforced by nothing here: crates/xtask/src/dependencies.rs"
                ),
            }
        }
        ensure!(
            said.len() == 3 && !rules.licences.is_empty() && !rules.banned.is_empty(),
            "deny.toml says too little: {rules:?}"
        );
        Ok(rules)
    }

    /// How many crates there are, and which may not be.
    fn held_against(&self, metadata: &Value) -> anyhow::Result<(usize, Vec<String>)> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let used: BTreeSet<String> = list(&metadata["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
        ensure!(!used.is_empty(), "cargo metadata names no crate");
        let mut wrong = Vec::new();
        for package in list(&metadata["packages"]).iter().filter(|package| used.contains(&text(&package["id"]))) {
            let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
            if self.banned.contains(&text(&package["name"])) {
                wrong.push(format!("{name}: it is banned"));
            }
            let Some(source) = package["source"].as_str() else {
                // Ours: what it asks for must have a version.
                let asked = list(&package["dependencies"]);
                let wild = asked.iter().filter(|it| it["req"] == "*" && it["path"].is_null());
                wrong.extend(wild.map(|it| format!("{name}: any version of {} would do", text(&it["name"]))));
                continue;
            };
            if source != REGISTRY {
                wrong.push(format!("{name}: it comes from {source}"));
            }
            let licence = text(&package["license"]);
            let allowed = |name: &str| self.licences.contains(name);
            if !is_allowed(&licence, &allowed).with_context(|| name.clone())? {
                wrong.push(format!("{name}: its licence is '{licence}'"));
            }
        }
        Ok((used.len(), wrong))
    }
}

/// An SPDX expression: `OR` leaves the choice, `AND` none. The old `/` means `OR`.
fn is_allowed(licence: &str, allowed: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let value = either(&mut rest, allowed)?;
    ensure!(rest.is_empty(), "'{licence}' is no licence expression");
    Ok(value)
}

fn either(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    let mut value = both(rest, allowed)?;
    while let [first, more @ ..] = *rest
        && *first == "OR"
    {
        *rest = more;
        value |= both(rest, allowed)?;
    }
    Ok(value)
}

fn both(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    let mut value = one(rest, allowed)?;
    while let [first, more @ ..] = *rest
        && *first == "AND"
    {
        *rest = more;
        value &= one(rest, allowed)?;
    }
    Ok(value)
}

fn one(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let value = either(rest, allowed)?;
            let [")", more @ ..] = *rest else { bail!("a bracket of its licence is not closed") };
            *rest = more;
            Ok(value)
        }
        [name, "WITH", exception, more @ ..] => {
            *rest = more;
            Ok(allowed(&format!("{name} WITH {exception}")))
        }
        [name, more @ ..] if !["AND", "OR", ")", "WITH"].contains(name) => {
            *rest = more;
            Ok(allowed(name))
        }
        _ => bail!("it has no licence, or one that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Rules {
        Rules::read(include_str!("../../../deny.toml")).expect("the project's own")
    }

    #[test]
    fn the_project_s_rules_are_read_and_what_is_not_enforced_is_an_error() {
        let rules = rules();
        assert!(rules.banned.contains("openssl-sys") && rules.banned.contains("structopt"), "{rules:?}");
        assert!(rules.licences.contains("MIT") && !rules.licences.contains("GPL-3.0-only"), "{rules:?}");
        assert!(rules.targets.iter().any(|it| it == "x86_64-unknown-linux-gnu"), "{rules:?}");
        let text = include_str!("../../../deny.toml");
        for (from, to) in [
            ("multiple-versions = \"allow\"", "multiple-versions = \"deny\""),
            ("unknown-git = \"deny\"", "unknown-git = \"warn\""),
            ("unknown-git = \"deny\"", "allow-git = []"),
            ("wildcards = \"deny\"", ""),
        ] {
            assert!(text.contains(from) && Rules::read(&text.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn an_expression_is_allowed_when_a_choice_of_it_is() {
        let allowed = |name: &str| ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].contains(&name);
        for (licence, wanted) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT/GPL-3.0-only", true),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("(GPL-3.0-only OR MIT) AND Unicode-3.0", true),
            ("MIT AND (Unicode-3.0 OR GPL-3.0-only) AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true),
            ("Apache-2.0 WITH Classpath-exception-2.0", false),
        ] {
            assert_eq!(is_allowed(licence, &allowed).expect("readable"), wanted, "{licence}");
        }
        for nonsense in ["", "MIT OR", "(MIT", "MIT MIT", "AND", "MIT)"] {
            assert!(is_allowed(nonsense, &allowed).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_found() {
        let crate_of = |name: &str, licence: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "license": licence, "source": source, "dependencies": [] });
        let held = |package: Value| {
            let metadata = json!({ "packages": [package, crate_of("unused", "GPL-3.0-only", json!(REGISTRY))], "resolve": { "nodes": [{ "id": package["id"] }] } });
            rules().held_against(&metadata).expect("readable").1
        };
        assert_eq!(held(crate_of("good", "MIT OR GPL-3.0-only", json!(REGISTRY))), [""; 0]);
        assert_eq!(
            held(crate_of("bad", "GPL-3.0-only", json!(REGISTRY))),
            ["bad 1.0.0: its licence is 'GPL-3.0-only'"]
        );
        assert_eq!(held(crate_of("bincode", "MIT", json!(REGISTRY))), ["bincode 1.0.0: it is banned"]);
        let git = "git+https://example.org/x#abc";
        assert_eq!(held(crate_of("x", "MIT", json!(git))), [format!("x 1.0.0: it comes from {git}")]);
        let mut ours = crate_of("ours", "Apache-2.0", Value::Null);
        ours["dependencies"] = json!([{ "name": "any", "req": "*" }, { "name": "beside", "req": "*", "path": "/x" }]);
        assert_eq!(held(ours), ["ours 1.0.0: any version of any would do"]);
        assert!(rules().held_against(&json!({})).is_err(), "nothing was looked at");
    }
}
