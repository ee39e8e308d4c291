//! What a table cannot say: attributes that contradict each other, parts that collide inside one module, and
//! a module that collides with the cluster, the machine's networks, or another module.

use super::check::Source;
use super::cluster::ClusterConfiguration;
use super::diagnostic::Diagnostic;
use super::module::{DefaultPrim, Mode, ModuleConfiguration, Timings, Vip};
use super::names::Answers;
use super::places::Places;
use super::suggest::{listed, nearest};
use super::tree::{Element, Position};
use crate::ids::ModuleName;
use crate::limits::LOST_PULSES_MIN;
use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;

/// An address of this node with its mask: what says whether a VIP has an interface to live on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// The interface's own address.
    pub addr: IpAddr,
    /// Length of its mask.
    pub prefix: u8,
}

impl Subnet {
    /// Whether the address is in this subnet.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u32::from(mine) ^ u32::from(other)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                (u128::from(mine) ^ u128::from(other)).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Subnet {
    /// Whether the address is the network's own or its broadcast address, which no machine can have.
    #[must_use]
    pub fn is_border(&self, addr: IpAddr) -> bool {
        let IpAddr::V4(other) = addr else { return false };
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        self.contains(addr)
            && self.prefix < 31
            && matches!(u32::from(other) & hosts, bits if bits == 0 || bits == hosts)
    }
}

/// Another module of this node.
#[derive(Clone, Copy, Debug)]
pub struct OtherModule<'a> {
    /// Its name.
    pub name: &'a ModuleName,
    /// Its active configuration.
    pub configuration: &'a ModuleConfiguration,
}

/// What a module's configuration is checked against besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Name of the module that is checked.
    pub module: &'a str,
    /// `None`: not known here, names of lans and nodes are not checked.
    pub cluster: Option<&'a ClusterConfiguration>,
    /// Empty: not known here, VIPs are not compared with them.
    pub subnets: &'a [Subnet],
    /// Configured modules of this node; the module itself is skipped.
    pub others: &'a [OtherModule<'a>],
    /// What the host names in it stand for.
    pub names: &'a Answers,
}

/// Contradictions inside one module.
pub(super) fn inside(
    root: &Element,
    it: &ModuleConfiguration,
    places: &Places,
    source: Source<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(service) = root.child("service") else { return };
    super::relations_parts::inside(service, source, found);
    rhythms(service, it, source, found);
    addresses(it, places, source, found);
    directories(it, places, source, found);
    local_paths(service, source, found);
    variables(service, source, found);
    let older = service.all("rfs").flat_map(|rfs| rfs.all("flow")).next();
    if let (Some(flow), Some(older)) = (&it.flow, older)
        && older.value("name").is_some_and(|name| name != flow)
    {
        found.push(
            Diagnostic::error(
                source.file,
                older.place_of("name"),
                format!("<flow> names another network for the replication than line {}: {flow}", places.flow.line),
            )
            .with_help("name it once: <heartbeat ident=\"flow\"/>"),
        );
    }
    if let Some(boot) = service.attribute("boot").filter(|boot| boot.value == "ignore") {
        found.push(
            Diagnostic::note(
                source.file,
                boot.position,
                "boot=\"ignore\" leaves the start with the node to `stead boot`, on each node by itself; until that says on or off, a module that ran starts again",
            )
            .with_help("stead boot on|off; or boot=\"on\", \"off\" or \"auto\" here, for both nodes"),
        );
    }
    if it.flow.is_some() && it.rfs.is_none() {
        found.push(Diagnostic::note(
            source.file,
            places.flow,
            "a replication network is named, and there is no <rfs>: it has no effect",
        ));
    }
    if ["vip", "rfs", "user"].iter().all(|part| service.child(part).is_none()) {
        found.push(
            Diagnostic::note(
                source.file,
                places.service,
                "this module does nothing: it has neither <vip> nor <rfs> nor <user>",
            )
            .with_help("<user/> makes its scripts run"),
        );
    }
}

fn rhythms(service: &Element, it: &ModuleConfiguration, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let mut one = |element: &Element, timings: Timings| {
        let least = LOST_PULSES_MIN * timings.pulse_ms;
        if timings.timeout_ms < least {
            let at = element
                .attribute("timeout")
                .or(element.attribute("pulse"))
                .map_or(element.position, |a| a.value_position);
            found.push(
                Diagnostic::error(
                    source.file,
                    at,
                    format!(
                        "the timeout of {} ms is shorter than {LOST_PULSES_MIN} pulses of {} ms: a single lost datagram would look like a dead node",
                        timings.timeout_ms, timings.pulse_ms
                    ),
                )
                .with_help(format!("timeout=\"{least}ms\" or more, or a shorter pulse")),
            );
        }
    };
    let Some(heart) = service.child("heart") else { return };
    one(heart, it.timings);
    let own: Vec<&Element> = heart
        .all("heartbeat")
        .filter(|h| h.value("name").is_some_and(|n| it.heartbeats.iter().any(|b| b.lan == n)))
        .collect();
    for (element, heartbeat) in own.iter().zip(&it.heartbeats) {
        if element.attribute("pulse").is_some() || element.attribute("timeout").is_some() {
            one(element, heartbeat.timings);
        }
    }
    let missed_ms = it.rhythm().timeout_ms;
    if missed_ms > Timings::DEFAULT.timeout_ms {
        let text = format!(
            "a node that dies is missed after {missed_ms} ms only; the default is {} ms",
            Timings::DEFAULT.timeout_ms
        );
        // Where it is said.
        let says = |(element, heartbeat): &(&&Element, &super::module::Heartbeat)| {
            heartbeat.timings.timeout_ms == missed_ms && element.attribute("timeout").is_some()
        };
        let place = own.iter().zip(&it.heartbeats).find(says).map_or(heart, |(element, _)| element).place_of("timeout");
        found.push(Diagnostic::note(source.file, place, text));
    }
    for (index, element) in own.iter().enumerate() {
        let name = element.value("name");
        if own[..index].iter().any(|earlier| earlier.value("name") == name) {
            let text = format!("two heartbeats on lan {}", name.unwrap_or_default());
            found.push(
                Diagnostic::error(source.file, element.place_of("name"), text)
                    .with_help("one per lan: remove one of them"),
            );
        }
    }
}

fn addresses(it: &ModuleConfiguration, places: &Places, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    for (index, (vip, at)) in it.vips.iter().zip(&places.vips).enumerate() {
        if let Some((why, help)) = cannot_move(vip) {
            let text = format!("the virtual address {} {why}", vip.addr);
            found.push(Diagnostic::error(source.file, *at, text).with_help(help));
        }
        if let Some(first) = it.vips[..index].iter().position(|earlier| earlier.addr == vip.addr) {
            found.push(
                Diagnostic::error(
                    source.file,
                    *at,
                    format!("the virtual address {} stands twice: first in line {}", vip.addr, places.vips[first].line),
                )
                .with_help("remove one of them"),
            );
        }
    }
}

/// Why no node can take this address for others to reach it, and what to write instead.
fn cannot_move(vip: &Vip) -> Option<(&'static str, &'static str)> {
    let addr = vip.addr;
    if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() {
        return Some((
            "is nobody's: loopback, multicast, or none at all",
            "a virtual address is a free one of a network",
        ));
    }
    let link_local = matches!(addr, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let nameless = link_local && vip.interface.is_none();
    nameless.then_some((
        "is link-local, which every interface has a network for",
        "name the interface: <interface name=\"…\">, or use an address of fd00::/8",
    ))
}

/// Trees that live by themselves or belong to Stead: replicating one would break the node or the record
/// that says which copy is good.
const FORBIDDEN: [&str; 8] = ["/proc", "/sys", "/dev", "/run", "/etc/stead", "/var/lib/stead", "/usr", "/boot"];

fn directories(it: &ModuleConfiguration, places: &Places, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let dirs = it.rfs.iter().flat_map(|rfs| &rfs.dirs);
    for (index, (dir, at)) in dirs.clone().zip(&places.dirs).enumerate() {
        if let Some(tree) = FORBIDDEN.iter().find(|tree| overlap(tree, &dir.path)) {
            found.push(
                Diagnostic::error(
                    source.file,
                    *at,
                    format!("{} cannot be replicated: {tree} belongs to the system or to Stead of this node", dir.path),
                )
                .with_help("replicate the application's own data directory, such as /srv/stead/AM"),
            );
        }
        if let Some((earlier, first)) =
            dirs.clone().zip(&places.dirs).take(index).find(|(earlier, _)| overlap(&earlier.path, &dir.path))
        {
            let how = if earlier.path == dir.path {
                "stands twice"
            } else {
                "and another replicated directory lie one inside the other"
            };
            found.push(
                Diagnostic::error(
                    source.file,
                    *at,
                    format!("{} {how}: {} in line {}", dir.path, earlier.path, first.line),
                )
                .with_help("name only the outer one"),
            );
        }
    }
}

/// Whether one path is the other, or lies inside it.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    let inside = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    inside(a, b) || inside(b, a)
}

fn local_paths(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    for entry in service.all("rfs").flat_map(|rfs| rfs.all("replicated")).flat_map(|dir| dir.all("notreplicated")) {
        if entry.attribute("path").is_none() && entry.attribute("regexpath").is_none() {
            found.push(
                Diagnostic::error(source.file, entry.position, "<notreplicated> says neither path nor regexpath")
                    .with_help("path: what stays local, relative to the replicated directory"),
            );
        }
    }
}

/// Names that Stead sets for the scripts.
pub const RESERVED_VARIABLES: [&str; 8] =
    ["SAFE", "SAFEMODULE", "SAFEBIN", "SAFEUSERBIN", "SAFEUSERCONF", "SAFEVAR", "SAFEUSERVAR", "SAFEUSERRUN"];

fn variables(service: &Element, source: Source<'_>, found: &mut Vec<Diagnostic>) {
    let vars: Vec<&Element> = service.all("user").flat_map(|user| user.all("var")).collect();
    for (index, var) in vars.iter().enumerate() {
        let Some(name) = var.value("name") else { continue };
        let at = var.place_of("name");
        if RESERVED_VARIABLES.contains(&name) {
            found.push(
                Diagnostic::error(source.file, at, format!("the variable {name} is set by Stead itself"))
                    .with_help("choose another name"),
            );
        }
        if vars[..index].iter().any(|earlier| earlier.value("name") == Some(name)) {
            found.push(
                Diagnostic::error(source.file, at, format!("the variable {name} stands twice"))
                    .with_help("remove one of them"),
            );
        }
    }
}

/// Collisions with the cluster, the machine's networks, and other modules.
pub(super) fn around(
    root: &Element,
    it: &ModuleConfiguration,
    places: &Places,
    file: &str,
    around: &Surroundings<'_>,
    found: &mut Vec<Diagnostic>,
) {
    if let Some(cluster) = around.cluster {
        with_cluster(it, places, file, cluster, found);
        if it.rfs.as_ref().is_some_and(|rfs| rfs.syncdelta_ms > 0)
            && !cluster.witnesses.is_empty()
            && let Some(rfs) = root.child("service").and_then(|service| service.child("rfs"))
        {
            let text = "syncdelta has no effect in this cluster: its witness says who may serve alone";
            found.push(Diagnostic::note(file, rfs.place_of("syncdelta"), text));
        }
        if let Some(service) = root.child("service") {
            super::relations_parts::with_cluster(service, file, cluster, found);
        }
    }
    for (vip, at) in it.vips.iter().zip(&places.vips) {
        if vip.interface.is_none()
            && !around.subnets.is_empty()
            && !around.subnets.iter().any(|subnet| subnet.contains(vip.addr))
        {
            let known = around.subnets.iter().map(|s| format!("{}/{}", s.addr, s.prefix)).collect::<Vec<_>>();
            found.push(
                Diagnostic::error(file, *at, format!("the virtual address {} is in no subnet of this node", vip.addr))
                    .with_help(format!(
                        "choose an address in the subnet of one of {}, or name the interface: <interface name=\"…\">",
                        listed(known.iter().map(alloc::string::String::as_str))
                    )),
            );
        }
    }
    for (vip, at) in it.vips.iter().zip(&places.vips) {
        if let Some(subnet) = around.subnets.iter().find(|subnet| subnet.is_border(vip.addr)) {
            found.push(
                Diagnostic::error(
                    file,
                    *at,
                    format!(
                        "the virtual address {} is the network or broadcast address of {}/{}",
                        vip.addr, subnet.addr, subnet.prefix
                    ),
                )
                .with_help("choose one in between"),
            );
        }
    }
    for other in around.others.iter().filter(|other| other.name.as_str() != around.module) {
        with_other(it, places, file, other, found);
    }
}

fn with_cluster(
    it: &ModuleConfiguration,
    places: &Places,
    file: &str,
    cluster: &ClusterConfiguration,
    found: &mut Vec<Diagnostic>,
) {
    let nodes = it.nodes(cluster).len();
    if it.mode == Mode::Mirror && nodes > 2 {
        let text = format!("a mirror has two nodes, and {nodes} are on its networks: it cannot be started so");
        found.push(
            Diagnostic::note(file, places.heartbeats.first().copied().unwrap_or(places.service), text).with_help(
                "name its two nodes by a network that only they are on (<heart><heartbeat name=\"LAN\"/></heart>), or make it a farm",
            ),
        );
    }
    let lans = || cluster.lans.iter().map(|lan| lan.name.as_str());
    let silent: Vec<&str> =
        lans().filter(|name| !it.heartbeats.iter().any(|heartbeat| heartbeat.lan == *name)).collect();
    if let (Some(first), false) = (places.heartbeats.first(), silent.is_empty()) {
        found.push(Diagnostic::note(
            file,
            *first,
            format!("heartbeats go over all lans of the cluster in this release, over {} as well", listed(silent)),
        ));
    }
    let mut lan = |name: &str, at: Position| {
        if !lans().any(|known| known == name) {
            let finding = Diagnostic::error(file, at, format!("the cluster has no lan '{name}'"));
            found.push(match nearest(name, lans()) {
                Some(near) => finding.with_help(format!("did you mean '{near}'?")),
                None => finding
                    .with_help(format!("lans of cluster.xml: {} (`stead cluster config` shows it)", listed(lans()))),
            });
        }
    };
    for (heartbeat, at) in it.heartbeats.iter().zip(&places.heartbeats) {
        lan(&heartbeat.lan, *at);
    }
    if let Some(flow) = &it.flow
        && !it.heartbeats.iter().any(|heartbeat| heartbeat.lan == *flow)
    {
        lan(flow, places.flow);
    }
    if let DefaultPrim::Node(node) = &it.default_prim {
        let names = cluster.node_names();
        if !names.contains(node) {
            let finding = Diagnostic::error(
                file,
                places.default_prim,
                format!("defaultprim names '{node}', which is no node of the cluster"),
            );
            let words = || names.iter().map(crate::ids::NodeName::as_str).chain(["alone", "lastprim"]);
            found.push(match nearest(node.as_str(), words()) {
                Some(near) => finding.with_help(format!("did you mean '{near}'?")),
                None => finding.with_help(format!("it may be: {}", listed(words()))),
            });
        }
    }
    for (vip, at) in it.vips.iter().zip(&places.vips) {
        if let Some((lan, node)) = cluster.owner_of(vip.addr) {
            found.push(
                Diagnostic::error(
                    file,
                    *at,
                    format!("the virtual address {} is the own address of node {node} on lan {lan}", vip.addr),
                )
                .with_help("a virtual address is a free one in the same subnet"),
            );
        }
    }
}

fn with_other(
    it: &ModuleConfiguration,
    places: &Places,
    file: &str,
    other: &OtherModule<'_>,
    found: &mut Vec<Diagnostic>,
) {
    for (vip, at) in it.vips.iter().zip(&places.vips) {
        if other.configuration.vips.iter().any(|theirs| theirs.addr == vip.addr) {
            found.push(
                Diagnostic::error(
                    file,
                    *at,
                    format!("the virtual address {} already belongs to module {}", vip.addr, other.name),
                )
                .with_help(format!("give this module another address, or `stead module uninstall -m {}`", other.name)),
            );
        }
    }
    let theirs = || other.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs);
    for (dir, at) in it.rfs.iter().flat_map(|rfs| &rfs.dirs).zip(&places.dirs) {
        if let Some(their) = theirs().find(|their| overlap(&their.path, &dir.path)) {
            found.push(
                Diagnostic::error(
                    file,
                    *at,
                    format!("{} collides with {}, which module {} replicates", dir.path, their.path, other.name),
                )
                .with_help("each module replicates directories of its own, none inside another's"),
            );
        }
    }
}
