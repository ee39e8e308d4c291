//! Contradictions between a module's mode, its parts, its checkers and its shares of traffic.
//!
//! Works on the tree: most of these parts have no typed value before something acts on them.

use super::check::Source;
use super::cluster::ClusterConfiguration;
use super::diagnostic::Diagnostic;
use super::suggest::{listed, nearest};
use super::tree::{Element, Position};
use super::units::{Unit, milliseconds};
use crate::farm::{GROUPS_MAX, RULES_MAX, VIPS_MAX};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Parts that only some modes have: where, which modes, and what to write instead in the others.
const PARTS: &[(&str, &[&str], &str)] = &[
    ("heart", &["mirror"], "a farm has <farm>"),
    ("farm", &["farm"], "a mirror module has <heart>"),
    ("vip", &["mirror", "farm"], "a light module has no address of its own"),
    ("rfs", &["mirror"], "only mirror modules replicate directories"),
];

/// Of one module.
pub(super) fn inside(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let mode = service.value("mode").unwrap_or("mirror");
    modes(service, mode, source, found);
    checkers(service, mode, source, found);
    processes(service, source, found);
    failover(service, source, found);
    shares(service, source, found);
}

fn error(source: Source<'_>, at: Position, message: String, help: &str) -> Diagnostic {
    Diagnostic::error(source.file, at, message).with_help(help)
}

fn modes(service: &Element, mode: &str, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    for (part, modes, help) in PARTS {
        if let Some(element) = service.child(part)
            && ["mirror", "farm", "light"].contains(&mode)
            && !modes.contains(&mode)
        {
            let text = format!("<{part}> does not belong to mode=\"{mode}\"");
            found.push(error(source, element.position, text, help));
        }
    }
    for vip in service.all("vip") {
        let has_address = vip.all("interface_list").flat_map(|list| list.all("interface")).next().is_some();
        if mode == "farm" && has_address && vip.child("loadbalancing_list").is_none() {
            let text = "the farm has virtual addresses and no <loadbalancing_list>: all their traffic would be refused";
            let help = "<loadbalancing_list><group name=\"G\"><rule port=\"80\" proto=\"tcp\" filter=\"on_addr\"/></group></loadbalancing_list>";
            found.push(error(source, vip.position, text.to_string(), help));
        }
        if let (Some(list), "mirror") = (vip.child("loadbalancing_list"), mode) {
            let text = "<loadbalancing_list> does not belong to mode=\"mirror\"".to_string();
            found.push(error(source, list.position, text, "in a mirror module one node has all the traffic"));
        }
        if mode == "mirror" && vip.value("scriptcontrol") == Some("on") {
            let text = "scriptcontrol=\"on\" of <vip> is accepted and has no effect: a mirror's address is set before start_prim and removed after stop_prim".to_string();
            found.push(Diagnostic::note(source.file, vip.place_of("scriptcontrol"), text));
        }
        for interface in vip.all("interface_list").flat_map(|list| list.all("interface")) {
            interface_of(interface, mode, source, found);
        }
        let mut kinds = vip
            .all("interface_list")
            .flat_map(|list| list.all("interface"))
            .flat_map(|interface| interface.all("virtual_interface"))
            .map(|element| (element, element.value("type")));
        if let ("farm", Some((_, first))) = (mode, kinds.next())
            && let Some((other, _)) = kinds.find(|(_, kind)| *kind != first)
        {
            let text = "the virtual interfaces of a farm are of two types: its nodes act on a new view in another order for each".to_string();
            found.push(error(source, other.place_of("type"), text, "write the same type, or make two modules of it"));
        }
    }
}

fn interface_of(interface: &Element, mode: &str, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    for kind in ["real_interface", "virtual_interface"] {
        for element in interface.all(kind) {
            for address in element.all("virtual_addr") {
                let place = address.value("where").unwrap_or("one_side_alias");
                if mode == "mirror" && place == "alias" {
                    let text = "where=\"alias\" puts the address on both nodes of a mirror".to_string();
                    found.push(error(source, address.place_of("where"), text, "write where=\"one_side_alias\""));
                }
                if mode == "farm" && kind == "virtual_interface" && place != "alias" {
                    let text = format!("where=\"{place}\" keeps the address of a farm on one node");
                    found.push(error(source, address.place_of("where"), text, "write where=\"alias\""));
                }
            }
            if mode == "farm" && kind == "real_interface" {
                let text = "<real_interface> keeps the address of a farm on one node".to_string();
                let help = "write <virtual_interface type=\"vmac_directed\">";
                found.push(error(source, element.position, text, help));
            }
            if mode == "mirror" && element.value("type") == Some("vmac_directed") {
                let text = "type=\"vmac_directed\" does not belong to mode=\"mirror\"".to_string();
                found.push(error(source, element.place_of("type"), text, "write <real_interface>"));
            }
            if mode == "mirror" && element.value("type") == Some("vmac_invisible") {
                let text = "type=\"vmac_invisible\" of <virtual_interface> is accepted and has no effect: a mirror takes the address on the real interface, and announces it at every takeover".to_string();
                found.push(Diagnostic::note(source.file, element.place_of("type"), text));
            }
            if let Some(addr) = element.value("addr").and_then(super::typed::mac)
                && addr[0] & 1 == 1
            {
                let text =
                    "addr of <virtual_interface> is the hardware address of a group: routers refuse it in an answer";
                let help = "make its first byte even, as in 5a:fe:0a:00:01:64";
                found.push(error(source, element.place_of("addr"), text.to_string(), help));
            }
            if element.value("type") == Some("vmac_directed") && element.attribute("addr").is_some() {
                let text = "addr of <virtual_interface> has no effect with type=\"vmac_directed\"".to_string();
                found.push(Diagnostic::note(source.file, element.place_of("addr"), text));
            }
        }
    }
}

fn time(element: &Element, name: &str, otherwise: u64) -> u64 {
    element.value(name).and_then(|text| milliseconds(text, Unit::Second).ok()).unwrap_or(otherwise)
}

fn checkers(service: &Element, mode: &str, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let mut seen: Vec<(&str, &str, Position)> = Vec::new();
    for checker in service.all("check").flat_map(|check| &check.children) {
        let default = if checker.name == "ping" { "wait" } else { "" };
        let action = checker.value("action").unwrap_or(default);
        let when = checker.value("when").unwrap_or(if checker.name == "ping" { "pre" } else { "" });
        if action == "wait" && when != "pre" {
            let text =
                format!("<{}> waits (action=\"wait\") only with when=\"pre\", not with when=\"{when}\"", checker.name);
            let at = checker
                .attribute("action")
                .or(checker.attribute("when"))
                .map_or(checker.position, |a| a.value_position);
            found.push(error(source, at, text, "write when=\"pre\", or another action: restart, stopstart, stop"));
        }
        if when == "second" && ["farm", "light"].contains(&mode) {
            let text = format!("when=\"second\" of <{}>: a {mode} module has no secondary", checker.name);
            found.push(error(source, checker.place_of("when"), text, "write when=\"both\""));
        }
        if checker.name == "splitbrain" && ["farm", "light"].contains(&mode) {
            let text = format!("<splitbrain> does not belong to mode=\"{mode}\"");
            found.push(error(source, checker.position, text, "only a mirror must not serve twice"));
        }
        if checker.name == "module"
            && source.module.is_some()
            && checker.value("name") == source.module
            && checker.child("to").is_none()
        {
            let text = "the module watches itself".to_string();
            found.push(error(source, checker.place_of("name"), text, "name another module"));
        }
        for to in checker.all("to") {
            let (interval, timeout) = (time(to, "interval", 1_000), time(to, "timeout", 1_000));
            if checker.name != "ip" && checker.name != "intf" && timeout > interval {
                let text = format!(
                    "the timeout of {} s is longer than the interval of {} s: a check without an answer delays the next ones",
                    timeout / 1000,
                    interval / 1000
                );
                let at = to.attribute("timeout").or(to.attribute("interval")).map_or(to.position, |a| a.value_position);
                found.push(Diagnostic::note(source.file, at, text));
            }
        }
        let Some(ident) = checker.value("ident").or(checker.value("name")) else { continue };
        let Some((.., first)) = seen.iter().find(|(name, it, _)| *name == checker.name && *it == ident) else {
            seen.push((&checker.name, ident, checker.position));
            continue;
        };
        let text = format!("two checkers set the resource {}.{ident}: the first in line {}", checker.name, first.line);
        found.push(error(source, checker.position, text, "give each an ident of its own"));
    }
}

/// Longest name of a process that the kernel keeps, and of a service.
const COMM_MAX: usize = 15;
const SERVICE_MAX: usize = 63;

fn processes(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let Some(errd) = service.child("errd") else { return };
    if service.child("user").is_none() {
        let text = "<errd> needs <user>: without it no script of the module runs, and nothing would be started again";
        found.push(error(source, errd.position, text.to_string(), "add <user/> to <service>"));
    }
    let mut seen: Vec<&str> = Vec::new();
    for process in errd.all("proc") {
        let (name, service) = (process.value("name").unwrap_or_default(), process.value("service") == Some("yes"));
        let is_plain = process.attribute("nameregex").is_none();
        if service && name.len() > SERVICE_MAX && is_plain {
            let text = format!("name=\"{name}\" is longer than {SERVICE_MAX} characters: no service is called so");
            found.push(error(source, process.place_of("name"), text, "write the name of the unit"));
        } else if !service && name.len() > COMM_MAX && is_plain {
            let text = format!(
                "name=\"{name}\" is longer than the {COMM_MAX} characters that the kernel keeps of a name: the rest is compared with the program's file and the first words of its command line"
            );
            found.push(Diagnostic::note(source.file, process.place_of("name"), text));
        }
        if seen.contains(&name) {
            let text = format!("two <proc> set the resource proc.{name}");
            found.push(error(
                source,
                process.place_of("name"),
                text,
                "give each a name of its own, and tell which processes by nameregex= or argregex=",
            ));
        }
        seen.push(name);
        let number = |name: &str, otherwise: i64| {
            process.value(name).and_then(|text| text.trim().parse().ok()).unwrap_or(otherwise)
        };
        let (least, most) = (number("atleast", 1), number("atmax", -1));
        // atmax="0": an error whenever there is one; the default of atleast means nothing then.
        if most > 0 && least > most {
            let text = format!("atleast={least} is more than atmax={most}: no number of processes is right");
            found.push(error(source, process.place_of("atmax"), text, "atmax=\"-1\": any number is fine"));
        }
        if process.attribute("restart_services").is_some() && process.value("action") != Some("restart") {
            let text = "restart_services has an effect only with action=\"restart\"".to_string();
            found.push(Diagnostic::note(source.file, process.place_of("restart_services"), text));
        }
    }
}

fn failover(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let Some(rules) = service.child("failover") else { return };
    let ms = |name: &str, otherwise| {
        rules.value(name).and_then(|text| milliseconds(text, Unit::Millisecond).ok()).unwrap_or(otherwise)
    };
    let (period, handle) = (ms("period", 5_000), ms("handle_time", 0));
    if period > 0 && handle % period != 0 {
        let text = format!("handle_time ({handle} ms) is not a multiple of period ({period} ms)");
        let help = format!("handle_time=\"{}ms\"", handle.div_ceil(period) * period);
        found.push(error(source, rules.place_of("handle_time"), text, &help));
    }
}

fn shares(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = addresses(service).filter_map(|address| address.value("addr")).collect();
    many(service, source, found);
    spread(service, source, found);
    let mut groups: Vec<&str> = Vec::new();
    for group in groups_of(service) {
        let name = group.value("name").unwrap_or_default();
        if groups.contains(&name) {
            let text = format!("two groups are named {name}");
            found.push(error(source, group.place_of("name"), text, "each group has a name of its own"));
        }
        groups.push(name);
        powers(group, source, found);
        for rule in group.all("rule") {
            let (proto, filter) = (rule.value("proto").unwrap_or_default(), rule.value("filter").unwrap_or_default());
            if proto == "arp" && ["on_port", "on_ipid"].contains(&filter) {
                let text = format!("filter=\"{filter}\" with proto=\"arp\": a question for an address has no port");
                found.push(error(source, rule.place_of("filter"), text, "write filter=\"on_addr\""));
            }
            if proto == "tcp" && filter == "on_ipid" {
                let text = "filter=\"on_ipid\" with proto=\"tcp\" would cut connections apart".to_string();
                found.push(error(source, rule.place_of("filter"), text, "write filter=\"on_addr\" or \"on_port\""));
            }
            if let Some(port) = rule.value("port").filter(|port| *port != "*")
                && !port.parse::<u16>().is_ok_and(|port| port > 0)
            {
                let text = format!("port=\"{port}\" of <rule> is neither a port nor *");
                found.push(error(source, rule.place_of("port"), text, "a number from 1 to 65535, or *"));
            }
            let is_known = |text: &str| known.iter().any(|known| address(known) == address(text));
            if let Some(address) = rule.value("virtual_addr").filter(|text| *text != "*" && !is_known(text)) {
                let text = format!("virtual_addr=\"{address}\" of <rule> is no virtual address of this module");
                let help = if known.is_empty() {
                    "*".to_string()
                } else {
                    format!("it has {}", listed(known.iter().copied()))
                };
                found.push(error(source, rule.place_of("virtual_addr"), text, &help));
            }
        }
    }
}

fn groups_of(service: &Element) -> impl Iterator<Item = &Element> {
    service.all("vip").flat_map(|vip| vip.all("loadbalancing_list")).flat_map(|list| list.all("group"))
}

fn addresses(service: &Element) -> impl Iterator<Item = &Element> {
    let interfaces =
        service.all("vip").flat_map(|vip| vip.all("interface_list")).flat_map(|list| list.all("interface"));
    interfaces.flat_map(|interface| interface.children.iter()).flat_map(|kind| kind.all("virtual_addr"))
}

/// One address may be written in several ways.
fn address(text: &str) -> Result<IpAddr, &str> {
    text.trim_matches(['[', ']']).parse().map_err(|_| text)
}

/// Rules that never decide anything, and a farm that would refuse everything.
fn spread(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let rules: Vec<&Element> = groups_of(service).flat_map(|group| group.all("rule")).collect();
    let (questions, traffic): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| rule.value("proto") == Some("arp"));
    // SafeKit's modules write both; Stead answers alike for all addresses, and a question has no port.
    for rule in &questions {
        for name in ["virtual_addr", "port"] {
            if rule.value(name).is_some_and(|text| text != "*") {
                let text = format!(
                    "{name} of a rule with proto=\"arp\" is accepted and has no effect: the questions for all addresses of the module are spread alike"
                );
                found.push(Diagnostic::note(source.file, rule.place_of(name), text));
            }
        }
    }
    for second in questions.iter().skip(1) {
        let text = "this rule with proto=\"arp\" has no effect: the first one spreads the questions for all addresses";
        found.push(Diagnostic::note(source.file, second.position, text).with_help("take it out"));
    }
    if let Some(question) = questions.first().filter(|_| traffic.is_empty()) {
        let text = "no rule names any traffic: a rule with proto=\"arp\" only says who answers the question for the address, and all packets would be refused";
        let help = "add, say, <rule port=\"80\" proto=\"tcp\" filter=\"on_addr\"/>";
        found.push(error(source, question.position, text.to_string(), help));
    }
    let which = |rule: &Element| {
        let value = |name: &str| rule.value(name).filter(|text| *text != "*").map(ToString::to_string);
        (value("virtual_addr").map(|text| address(&text).map_err(ToString::to_string)), value("port"), value("proto"))
    };
    for (number, rule) in traffic.iter().enumerate() {
        let (addr, port, proto) = which(rule);
        let covers = |earlier: &&&Element| {
            let (their_addr, their_port, their_proto) = which(earlier);
            their_proto == proto
                && (their_addr.is_none() || their_addr == addr)
                && (their_port.is_none() || their_port == port)
        };
        if let Some(earlier) = traffic[..number].iter().find(covers) {
            let line = earlier.position.line;
            let text =
                format!("this <rule> never decides anything: the one in line {line} names all of its traffic before");
            let note = Diagnostic::note(source.file, rule.position, text);
            found.push(note.with_help("take it out, or put it before that one"));
        }
    }
    let six = |text: &str| address(text).is_ok_and(|ip| ip.is_ipv6());
    let known: Vec<&str> = addresses(service).filter_map(|address| address.value("addr")).collect();
    for rule in traffic.iter().filter(|rule| rule.value("filter") == Some("on_ipid")) {
        let is_six_only = match rule.value("virtual_addr").filter(|text| *text != "*") {
            Some(text) => six(text),
            None => !known.is_empty() && known.iter().all(|text| six(text)),
        };
        if is_six_only {
            let text = "filter=\"on_ipid\" for an address of IPv6: its packets have no identification".to_string();
            found.push(error(source, rule.place_of("filter"), text, "write filter=\"on_addr\" or \"on_port\""));
        }
    }
}

/// One step of the chain of priorities.
const CHAIN: u64 = 64;

/// Who gets nothing by its power, and is no step of a chain.
fn powers(group: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let hosts: Vec<(&Element, u64)> = group
        .all("cluster")
        .flat_map(|powers| powers.all("host"))
        .filter_map(|host| Some((host, host.value("power")?.parse().ok()?)))
        .collect();
    let most = hosts.iter().map(|(_, power)| *power).max().unwrap_or(0);
    for (host, power) in hosts.iter().filter(|(_, power)| *power > 0 && power.saturating_mul(CHAIN) < most) {
        // Exact steps are meant: node by node, the next one when the one before is gone.
        let mut step = *power;
        while step < most {
            step = step.saturating_mul(CHAIN);
        }
        if step != most {
            let name = host.value("name").unwrap_or_default();
            let text = format!(
                "power=\"{power}\" is less than a sixty-fourth of power=\"{most}\": {name} gets nothing while that node serves"
            );
            let note = Diagnostic::note(source.file, host.place_of("power"), text);
            found.push(note.with_help("shares are dealt out between powers that differ by less than 64 times"));
        }
    }
}

/// More than the packet filter's tables hold.
fn many(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let groups: Vec<&Element> = groups_of(service).collect();
    let rules: Vec<&Element> = groups.iter().flat_map(|group| group.all("rule")).collect();
    // A heartbeat tells a hardware address for each.
    let addresses = if groups.is_empty() { Vec::new() } else { addresses(service).collect() };
    for (them, what, most) in
        [(groups, "groups", GROUPS_MAX), (rules, "rules", RULES_MAX), (addresses, "virtual addresses", VIPS_MAX)]
    {
        if let Some(extra) = them.get(most) {
            let text = format!("the farm has {} {what}: {most} are possible", them.len());
            found.push(error(source, extra.position, text, "make two modules of it, each with addresses of its own"));
        }
    }
}

/// Names of the cluster that the tree uses.
pub(super) fn with_cluster(service: &Element, file: &str, cluster: &ClusterConfiguration, found: &mut Vec<Diagnostic>) {
    let nodes = cluster.node_names();
    let nodes = || nodes.iter().map(crate::ids::NodeName::as_str);
    for group in groups_of(service) {
        let power_of = |node: &str| {
            let mut hosts = group.all("cluster").flat_map(|powers| powers.all("host"));
            hosts.find(|host| host.value("name") == Some(node)).and_then(|host| host.value("power"))
        };
        if nodes().next().is_some() && nodes().all(|node| power_of(node) == Some("0")) {
            let name = group.value("name").unwrap_or_default();
            let text = format!("every node has power 0 in group {name}: nobody would take its traffic");
            found.push(Diagnostic::error(file, group.position, text).with_help("give one of them another power"));
        }
    }
    let hosts = groups_of(service).flat_map(|group| group.all("cluster")).flat_map(|powers| powers.all("host"));
    for host in hosts {
        let Some(name) = host.value("name").filter(|name| !nodes().any(|node| node == *name)) else { continue };
        let finding = Diagnostic::error(file, host.place_of("name"), format!("the cluster has no node '{name}'"));
        found.push(match nearest(name, nodes()) {
            Some(near) => finding.with_help(format!("did you mean '{near}'?")),
            None => finding.with_help(format!("nodes of cluster.xml: {}", listed(nodes()))),
        });
    }
    let lans = || cluster.lans.iter().map(|lan| lan.name.as_str());
    for lan in service.all("farm").flat_map(|farm| farm.all("lan")) {
        let Some(name) = lan.value("name").filter(|name| !lans().any(|known| known == *name)) else { continue };
        let finding = Diagnostic::error(file, lan.place_of("name"), format!("the cluster has no lan '{name}'"));
        found.push(match nearest(name, lans()) {
            Some(near) => finding.with_help(format!("did you mean '{near}'?")),
            None => finding.with_help(format!("lans of cluster.xml: {}", listed(lans()))),
        });
    }
}
