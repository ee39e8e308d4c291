//! What `<errd>`, `<check>` and `<failover>` mean: what is looked at, how often, and what follows.
//!
//! **Invariant:** every checker has a resource of its own, and its action is a rule like any other
//! ([`Checkers::all_rules`]).

use super::check::Source;
use super::diagnostic::Diagnostic;
use super::table::{ElementRow, SAFE};
use super::tree::{Element, Position};
use super::typed::Reader;
use crate::resource::Value;
use crate::rules::{self, Act, Expr, Name, Operand, Rule, Then};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Everything that watches a module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checkers {
    /// `<check>`.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// `<errd>`.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Fallback and grace of `<errd>`.
    #[serde(default)]
    pub poll_ms: u64,
    /// The module's own rules.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Built-in rules that are switched off.
    #[serde(default)]
    pub disabled: Vec<String>,
    /// The own rules take the place of the built-in ones.
    #[serde(default)]
    pub only_own: bool,
    /// How long an action must be asked for before it is taken.
    #[serde(default)]
    pub handle_time_ms: u64,
}

/// One checker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Its resource: `tcp.http`.
    pub resource: String,
    /// While what runs.
    pub when: When,
    /// What its failure does.
    pub act: Act,
    /// Name of the rule that says so; empty: a rule for all of its class.
    #[serde(default)]
    pub rule: String,
    /// Failures in a row.
    pub debounce: Debounce,
    /// From one look to the next.
    pub interval_ms: u64,
    /// Longest wait for an answer.
    pub timeout_ms: u64,
    /// What is looked at.
    pub probe: Probe,
}

/// How findings make a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Debounce {
    /// Failures in a row; `None`: one that is certain, or three.
    #[serde(default)]
    pub down_after: Option<u32>,
    /// Successes in a row after a failure.
    pub up_after: u32,
    /// Time for what was just started to become well.
    pub grace_ms: u64,
}

impl Debounce {
    /// When nothing is written.
    pub const DEFAULT: Self = Self { down_after: None, up_after: 1, grace_ms: GRACE_MS };
}

/// Time for an application that was just started.
pub const GRACE_MS: u64 = 10_000;

/// While what runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// From after prestart to poststop.
    Pre,
    /// The application, where it serves.
    Prim,
    /// The copy, where it follows.
    Second,
    /// Either.
    Both,
    /// An operator says when (`stead errd enable CLASS`).
    Own(String),
}

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A TCP port.
    Tcp {
        /// Address or name.
        host: String,
        /// Port.
        port: u16,
    },
    /// A page.
    Http {
        /// Where.
        url: String,
        /// What it must answer with; `None`: 200 to 399.
        #[serde(default)]
        status: Option<u16>,
        /// What must be in it.
        #[serde(default)]
        body: Option<String>,
        /// How long its certificate must still be good.
        #[serde(default)]
        expires_ms: u64,
    },
    /// An address that answers an echo.
    Ping {
        /// Address or name.
        host: String,
    },
    /// The carrier of an interface.
    Intf {
        /// An address of this node, or of its network; or the interface's name.
        local: String,
    },
    /// An address of this node.
    Ip {
        /// The address.
        host: String,
    },
    /// How many TCP connections an address has: a number, not a verdict.
    Connections {
        /// The address.
        host: String,
    },
    /// A program.
    Custom {
        /// In the module's bin, or a path.
        exec: String,
        /// Its arguments.
        #[serde(default)]
        arg: String,
        /// It ends, and its exit code is the finding; else it runs as long as the checker and sets its resource itself.
        #[serde(default)]
        ends: bool,
    },
    /// Another module.
    Module {
        /// Its name.
        name: String,
        /// Elsewhere.
        #[serde(default)]
        to: Option<(String, u16)>,
    },
    /// The addresses of the split-brain checker: shown, and used by no rule of its own.
    Splitbrain {
        /// One that answers is enough.
        hosts: Vec<String>,
    },
}

/// One kind of process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Name of the resource, and of the process unless an expression says otherwise.
    pub name: String,
    /// A service of the service manager.
    #[serde(default)]
    pub service: bool,
    /// Which names are meant.
    #[serde(default)]
    pub name_regex: Option<String>,
    /// What the command line must match.
    #[serde(default)]
    pub arg_regex: Option<String>,
    /// Fewer are an error.
    pub at_least: u32,
    /// More are an error.
    #[serde(default)]
    pub at_most: Option<u32>,
    /// What an error does.
    pub act: Act,
    /// With a restart: only these services; none: the whole application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// A program of the module that handles an error instead.
    #[serde(default)]
    pub handler: Option<String>,
    /// While what runs.
    pub when: When,
    /// Looked at for the first time so many polls after the start.
    pub start_after: u32,
}

impl Process {
    /// `proc.name`.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("proc.{}", self.name)
    }
}

impl Checkers {
    /// Is there nothing to watch and nothing to decide?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.processes.is_empty() && self.rules.is_empty()
    }

    /// The rules in force: those of the checkers, the built-in ones, the module's own. `replicated`: there are directories
    /// whose disk is looked at.
    #[must_use]
    pub fn all_rules(&self, replicated: bool) -> Vec<Rule> {
        let mut found = Vec::new();
        for process in self.processes.iter().filter(|process| process.act != Act::NoAction) {
            found.push(rule(format!("errd_{}", process.name), "proc", &process.name, process.act));
        }
        if !self.only_own {
            for check in self.checks.iter().filter(|check| check.act != Act::NoAction && !check.rule.is_empty()) {
                let (class, id) = check.resource.split_once('.').unwrap_or(("", ""));
                found.push(rule(check.rule.clone(), class, id, check.act));
            }
            for (label, class, act) in BUILT_IN {
                if self
                    .checks
                    .iter()
                    .any(|check| check.rule.is_empty() && check.resource.starts_with(&format!("{class}.")))
                {
                    found.push(rule(label.into(), class, "?", act));
                }
            }
            if replicated {
                found.push(disk_failure());
            }
        }
        found.retain(|rule| !self.disabled.contains(&rule.label));
        found.extend(self.rules.iter().cloned());
        found
    }
}

/// Of a module that stands on another one.
pub const MODULE_RULE: &str = "module_failure";

/// Rules for all checkers of a class.
pub const BUILT_IN: [(&str, &str, Act); 3] = [
    (MODULE_RULE, "module", Act::Wait),
    ("interface_failure", "intf", Act::Wait),
    ("ip_failure", "ip", Act::StopStart),
];

/// Rules of SafeKit that are no rules here: the stored epochs decide.
pub const DECIDED: [&str; 6] = [
    "splitbrain_failure",
    "notuptodate_server",
    "rfs_notuptodate_server",
    "degraded_server",
    "rfs_syncat_wait",
    "rfs_forceuptodate",
];

fn rule(label: String, class: &str, id: &str, act: Act) -> Rule {
    Rule { label, when: is(class, id, Value::Down), then: Then::Act(act) }
}

fn is(class: &str, id: &str, value: Value) -> Expr {
    let left = Operand::Resource(Name { remote: false, class: class.into(), id: id.into() });
    Expr::Is { left, equal: true, right: Operand::Value(value) }
}

/// The primary's disk fails, and the other copy is complete: it takes over.
fn disk_failure() -> Rule {
    let serves = Value::new("PRIM").map(|prim| is("state", "local", prim));
    let disk = Expr::And(is("rfs", "disk", Value::Down).into(), is("rfs", "synced", Value::Up).into());
    let when = serves.map_or(disk.clone(), |serves| Expr::And(disk.into(), serves.into()));
    Rule { label: DISK_RULE.into(), when, then: Then::Act(Act::Swap) }
}

/// The rule of [`DISK_RESOURCE`].
pub const DISK_RULE: &str = "disk_failure";
/// The disk below the replicated directories, where they are served.
pub const DISK_RESOURCE: &str = "rfs.disk";
/// So many looks in a row, a second apart, make a verdict about it: one error is none, and one answer is no recovery.
pub const DISK_DEBOUNCE: Debounce = Debounce { down_after: Some(3), up_after: 3, grace_ms: 0 };

/// Between two times of `syncat` the secondary waits; who serves is never `down`.
pub(super) fn syncat_wait() -> Rule {
    rule(SYNCAT_RULE.into(), "rfs", "syncat", Act::Wait)
}

/// The rule of `syncat`, and the resource it looks at.
pub const SYNCAT_RULE: &str = "rfs_syncat_wait";
/// See [`SYNCAT_RULE`].
pub const SYNCAT_RESOURCE: &str = "rfs.syncat";

/// Reads `<check>`, `<errd>` and `<failover>` of a `<service>`; says what is wrong in the rules.
pub(super) fn read(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) -> Checkers {
    let row = SAFE.child("service").expect("the table has <service>");
    let mut checkers = Checkers::default();
    for check in service.all("check") {
        let row = row.child("check").expect("the table has <check>");
        for element in &check.children {
            if let Some(row) = row.child(&element.name) {
                checkers.checks.extend(read_check(Reader { element, row }));
            }
        }
    }
    super::brought::add(service, &mut checkers);
    for element in service.all("errd") {
        let row = row.child("errd").expect("the table has <errd>");
        checkers.poll_ms = Reader { element, row }.milliseconds("polltimer").unwrap_or(GRACE_MS);
        let row = row.child("proc").expect("the table has <proc>");
        checkers.processes.extend(element.all("proc").filter_map(|element| read_process(Reader { element, row })));
    }
    for element in service.all("failover") {
        let row = row.child("failover").expect("the table has <failover>");
        let reader = Reader { element, row };
        checkers.only_own = reader.text("extends") == Some("no");
        checkers.handle_time_ms = reader.milliseconds("handle_time").unwrap_or(0);
        read_rules(element, service, &mut checkers, source, found);
    }
    checkers
}

fn to(reader: Reader<'_>) -> Option<Reader<'_>> {
    let row: &'static ElementRow = reader.row.child("to")?;
    Some(Reader { element: reader.element.child("to")?, row })
}

fn when(text: &str) -> When {
    match text {
        "pre" => When::Pre,
        "prim" => When::Prim,
        "second" | "sec" => When::Second,
        "both" => When::Both,
        own => When::Own(own.into()),
    }
}

fn read_check(it: Reader<'_>) -> Option<Check> {
    let class = it.element.name.as_str();
    let target = to(it);
    let host = |name: &str| target.and_then(|to| to.text(name)).map(|text| text.trim_matches(['[', ']']).to_string());
    let port = || target.and_then(|to| to.integer("port")).and_then(|port| u16::try_from(port).ok());
    let (probe, rule) = match class {
        "tcp" => (Probe::Tcp { host: host("addr")?, port: port()? }, "t_"),
        "http" => {
            let target = target?;
            let probe = Probe::Http {
                url: target.text("url")?.to_string(),
                status: target.integer("status").and_then(|status| u16::try_from(status).ok()),
                body: target.text("body").map(ToString::to_string),
                expires_ms: target.milliseconds("expires").unwrap_or(0),
            };
            (probe, "h_")
        }
        "ping" => (Probe::Ping { host: host("addr")? }, "p_"),
        "intf" => (Probe::Intf { local: host("local_addr")? }, ""),
        "ip" => (Probe::Ip { host: host("addr")? }, ""),
        "custom" => {
            let ends = it.element.attribute("interval").is_some();
            let arg = it.text("arg").unwrap_or("").to_string();
            (Probe::Custom { exec: it.text("exec")?.to_string(), arg, ends }, "c_")
        }
        "module" => {
            let to = target.is_some().then(|| Some((host("addr")?, port()?)));
            (Probe::Module { name: it.text("name")?.to_string(), to: to.flatten() }, "")
        }
        "splitbrain" => {
            let hosts = it.text("arg")?.split_whitespace().map(|host| host.trim_matches(['[', ']']).to_string());
            (Probe::Splitbrain { hosts: hosts.collect() }, "")
        }
        _ => return None,
    };
    let ident = match (&probe, it.text("ident")) {
        (_, Some(ident)) => ident.to_string(),
        (Probe::Module { name, to: Some((host, _)) }, None) => format!("{name}_{host}"),
        (Probe::Module { name, .. }, None) => name.clone(),
        _ => return None,
    };
    let timed = target.unwrap_or(it);
    let time = |name: &str, otherwise| {
        let at = if timed.row.attribute(name).is_some() { timed } else { it };
        at.milliseconds(name).unwrap_or(otherwise)
    };
    let when = it.text("when").map_or(When::Pre, when);
    // Whoever is waited for from the start needs no time to get well: the module waits.
    let grace_ms = if when == When::Pre { 0 } else { it.milliseconds("grace").unwrap_or(GRACE_MS) };
    Some(Check {
        resource: format!("{class}.{ident}"),
        act: match class {
            "splitbrain" => Act::NoAction,
            "intf" | "module" => Act::Wait,
            "ip" => Act::StopStart,
            "tcp" | "http" if when == When::Pre && it.element.attribute("action").is_none() => Act::Wait,
            _ => it.text("action").and_then(Act::new).unwrap_or(Act::NoAction),
        },
        rule: if rule.is_empty() { String::new() } else { format!("{rule}{ident}") },
        debounce: Debounce {
            down_after: it.integer("down_after").and_then(|n| u32::try_from(n).ok()),
            up_after: it.integer("up_after").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            grace_ms,
        },
        interval_ms: time("interval", 1_000),
        timeout_ms: time("timeout", 1_000),
        when,
        probe,
    })
}

fn read_process(it: Reader<'_>) -> Option<Process> {
    let number = |name: &str| it.text(name).and_then(|text| text.trim().parse::<i64>().ok());
    let action = it.text("action").unwrap_or("stopstart");
    let act = Act::new(action).filter(|act| !matches!(act, Act::Wait | Act::Swap));
    let at_most = number("atmax").and_then(|n| u32::try_from(n).ok());
    Some(Process {
        name: it.text("name")?.to_string(),
        service: it.text("service") == Some("yes"),
        name_regex: it.text("nameregex").map(ToString::to_string),
        arg_regex: it.text("argregex").map(ToString::to_string),
        // atmax="0": an error whenever there is one.
        at_least: if at_most == Some(0) {
            0
        } else {
            number("atleast").and_then(|n| u32::try_from(n).ok()).unwrap_or(1)
        },
        at_most,
        act: act.unwrap_or(Act::NoAction),
        services: it
            .text("restart_services")
            .filter(|_| act == Some(Act::Restart))
            .map(|names| names.split(',').map(|name| name.trim().to_string()).collect())
            .unwrap_or_default(),
        handler: act.is_none().then(|| action.to_string()),
        when: when(it.text("class").unwrap_or("prim")),
        start_after: it.integer("start_after").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
    })
}

fn read_rules(
    it: &Element,
    service: &Element,
    checkers: &mut Checkers,
    source: Source<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let place = |at: Position| Position {
        line: it.text_position.line + at.line - 1,
        column: if at.line == 1 { it.text_position.column + at.column - 1 } else { at.column },
    };
    match rules::parse(&it.text) {
        Ok(parsed) => {
            for label in &parsed.disabled {
                if DECIDED.contains(&label.as_str()) {
                    let text = format!(
                        "the rule {label} cannot be switched off: Stead decides it by the stored epochs, not by a rule"
                    );
                    found.push(Diagnostic::note(source.file, it.position, text));
                }
            }
            for (rule, at) in &parsed.rules {
                if let Some(mode) = service.value("mode").filter(|mode| ["farm", "light"].contains(mode)) {
                    let texts = pointless_without_a_peer(rule, mode);
                    found.extend(texts.into_iter().map(|text| Diagnostic::note(source.file, place(*at), text)));
                }
                for name in rule.names() {
                    if name.class == "rfs" && name.several().is_none() && !OWN_RFS.contains(&name.id.as_str()) {
                        let text = format!("rule {}: nothing sets rfs.{} here, it stays unknown", rule.label, name.id);
                        let help = format!("what Stead sets: rfs.{}", OWN_RFS.join(", rfs."));
                        found.push(Diagnostic::note(source.file, place(*at), text).with_help(help));
                    }
                    if let Some(problem) = unknown(name, service, checkers) {
                        let text = format!("rule {}: {problem}", rule.label);
                        found.push(
                            Diagnostic::error(source.file, place(*at), text)
                                .with_help("`stead get` lists the resources of a module that runs"),
                        );
                    }
                }
            }
            checkers.disabled = parsed.disabled;
            checkers.rules = parsed.rules.into_iter().map(|(rule, _)| rule).collect();
        }
        Err(faults) => found.extend(faults.into_iter().map(|fault| {
            let finding = Diagnostic::error(source.file, place(fault.at), fault.message);
            if fault.help.is_empty() { finding } else { finding.with_help(fault.help) }
        })),
    }
}

/// What a rule says that means nothing where no node is another one's secondary.
fn pointless_without_a_peer(rule: &rules::Rule, mode: &str) -> Vec<String> {
    let mut texts = Vec::new();
    if matches!(rule.then, rules::Then::Act(rules::Act::Swap)) {
        texts.push(format!("rule {}: swap() does nothing: a {mode} module has no secondary", rule.label));
    }
    if let Some(name) = rule.names().into_iter().find(|name| name.remote) {
        let name = format!("remote.{}.{}", name.class, name.id);
        texts.push(format!("rule {}: {name} stays unknown: a {mode} module has no other node's resources", rule.label));
    }
    texts
}

/// Classes that Stead itself sets.
const OWN_CLASSES: [&str; 10] =
    ["heartbeat", "state", "rfs", "cluster", "heart", "usersetting", "user", "application", "connections", "farm"];
/// What it sets of the replication.
const OWN_RFS: [&str; 5] = ["uptodate", "synced", "degraded", "syncat", "disk"];
/// Classes that checkers set.
const CHECKED: [&str; 9] = ["tcp", "http", "ping", "intf", "ip", "custom", "module", "splitbrain", "proc"];

/// Is there a checker of this name, be it one that could not be read? What is wrong with that has been said.
fn is_written(service: &Element, class: &str, id: &str) -> bool {
    let (part, element, attributes) = match class {
        "proc" => ("errd", "proc", ["name", "name"]),
        _ => ("check", class, ["ident", "name"]),
    };
    let mut written = service.all(part).flat_map(|part| part.all(element));
    written.any(|it| attributes.iter().find_map(|name| it.value(name)) == Some(id))
}

fn unknown(name: &Name, service: &Element, checkers: &Checkers) -> Option<String> {
    let class = name.class.as_str();
    if OWN_CLASSES.contains(&class) {
        return None;
    }
    if !CHECKED.contains(&class) {
        let near = super::suggest::nearest(class, OWN_CLASSES.into_iter().chain(CHECKED));
        let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        return Some(format!("there is no class of resources '{class}'{near}"));
    }
    if name.several().is_some() || class == "custom" {
        return None;
    }
    let wanted = format!("{class}.{}", name.id);
    let known: Vec<String> = checkers
        .checks
        .iter()
        .map(|check| check.resource.clone())
        .chain(checkers.processes.iter().map(Process::resource))
        .collect();
    if known.contains(&wanted) || is_written(service, class, &name.id) {
        return None;
    }
    let near = super::suggest::nearest(&wanted, known.iter().map(String::as_str));
    let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    Some(format!("no checker sets {wanted}{near}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_where_no_node_is_secondary_is_noted() {
        let text = "a: if (custom.x == down) then swap(); b: if (remote.custom.x == down) then stop(); c: if (custom.x) then stop();";
        let rules = rules::parse(text).expect("right").rules;
        let told = |mode: &str| -> Vec<String> {
            rules.iter().flat_map(|(rule, _)| pointless_without_a_peer(rule, mode)).collect()
        };
        assert_eq!(
            told("farm"),
            [
                "rule a: swap() does nothing: a farm module has no secondary",
                "rule b: remote.custom.x stays unknown: a farm module has no other node's resources",
            ]
        );
    }
}
