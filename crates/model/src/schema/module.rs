//! What `userconfig.xml` means: the typed configuration of a module.
//!
//! [`check`] is the whole road from a tree to a value: macros, table, typed reading, relations.
//! **Invariant:** a [`ModuleConfiguration`] handed out satisfied every check; its times are milliseconds.

use super::check::{self, Source};
use super::checkers::{self, Checkers};
use super::diagnostic::{Checked, Diagnostic};
use super::macros::{self, Environment};
use super::names;
use super::places::Places;
use super::relations::{self, Surroundings};
use super::table::SAFE;
use super::tree::Element;
use super::typed::Reader;
use crate::ids::NodeName;
use crate::orders::{AckPolicy, AsyncPolicy, ReplicatedDir};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// A module as its configuration says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModuleConfiguration {
    /// How nodes share the work.
    pub mode: Mode,
    /// Start with the node?
    #[serde(default)]
    pub boot: Boot,
    /// Wait before the start at boot.
    #[serde(default)]
    pub boot_delay_ms: u64,
    /// A rule that stops and starts the module reboots the node in between.
    #[serde(default)]
    pub automatic_reboot: bool,
    /// Whether a secondary takes over by itself.
    pub failover: bool,
    /// Who is primary once both copies are whole.
    #[serde(default)]
    pub default_prim: DefaultPrim,
    /// Automatic restarts in a row before the module stops here.
    pub maxloop: u32,
    /// When those are forgotten; 0: never counted.
    pub loop_interval_ms: u64,
    /// Heartbeats, unless a lan has its own.
    pub timings: Timings,
    /// Empty: all lans of the cluster.
    #[serde(default)]
    pub heartbeats: Vec<Heartbeat>,
    /// Lan that carries the replication; `None`: the first heartbeat's.
    #[serde(default)]
    pub flow: Option<String>,
    /// Virtual addresses, in the order of the file.
    #[serde(default)]
    pub vips: Vec<Vip>,
    /// Reset connections before an address is removed.
    pub tcpreset: bool,
    /// `None`: it is no farm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<super::farm::Farm>,
    /// `None`: nothing is replicated.
    #[serde(default)]
    pub rfs: Option<Replication>,
    /// `None`: no script runs (SafeKit's rule for a configuration without `<user>`).
    #[serde(default)]
    pub user: Option<User>,
    /// Addresses whose answer proves that this node is not the isolated one; empty: no such checker.
    #[serde(default)]
    pub splitbrain: Vec<IpAddr>,
    /// What watches the module, and what follows.
    #[serde(default)]
    pub checkers: Checkers,
    /// Host names of the module's own; in the signature as they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_hosts: Vec<VirtualHost>,
    /// What has no line of its own in the signature: checkers, rules, and what nothing acts on yet; in its one spelling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// Remarks of the check that made this; no part of the signature.
    #[serde(default)]
    pub notes: Vec<Diagnostic>,
}

/// How nodes share the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Two nodes, one serving.
    #[default]
    Mirror,
    /// All nodes serving.
    Farm,
    /// One node, restarted where it is.
    Light,
}

impl Mode {
    /// As written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Farm => "farm",
            Self::Light => "light",
        }
    }
}

/// Start with the node?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// The configuration does not say.
    #[default]
    Ignore,
    /// Always.
    On,
    /// Never.
    Off,
    /// When it ran before.
    Auto,
}

impl Boot {
    /// As the configuration says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::On => "on",
            Self::Off => "off",
            Self::Auto => "auto",
        }
    }
}

/// Who is primary once both copies are whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultPrim {
    /// Who serves goes on.
    #[default]
    Alone,
    /// The one that was primary last takes it back.
    LastPrim,
    /// This node takes it back.
    Node(NodeName),
}

/// Rhythm of the heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timings {
    /// Period.
    pub pulse_ms: u64,
    /// Silence after which the peer is lost; at least three pulses.
    pub timeout_ms: u64,
}

impl Timings {
    /// What holds when nothing is written.
    pub const DEFAULT: Self = Self { pulse_ms: crate::limits::PULSE_MS, timeout_ms: crate::limits::LOST_MS };
}

/// A network that carries heartbeats.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Lan of `cluster.xml`.
    pub lan: String,
    /// Name of the resource (`heartbeat.IDENT`).
    pub ident: String,
    /// This lan's rhythm.
    pub timings: Timings,
}

/// A virtual address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vip {
    /// The address.
    pub addr: IpAddr,
    /// Length of its mask; `None`: that of the interface's own address.
    #[serde(default)]
    pub prefix: Option<u8>,
    /// The interface; `None`: the one whose subnet contains the address.
    #[serde(default)]
    pub interface: Option<String>,
    /// The hardware address that no node of a farm sends from (`vmac_invisible`); `None`: the interface's own.
    #[serde(default)]
    pub vmac: Option<[u8; 6]>,
}

/// Replicated directories and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replication {
    /// In the order of the file; never one inside another.
    pub dirs: Vec<ReplicatedDir>,
    /// What a write waits for.
    #[serde(default)]
    pub ack: AckPolicy,
    /// What fsync waits for.
    #[serde(default)]
    pub sync: AsyncPolicy,
    /// Cap of the resync; 0: none.
    #[serde(default)]
    pub resync_bytes_per_s: u64,
    /// Both copies are compared, and repaired, this long after the last time; 0: never by itself.
    #[serde(default = "a_day")]
    pub scrub_ms: u64,
    /// The secondary is brought up to date at these times only.
    #[serde(default)]
    pub syncat: Option<crate::schedule::Schedule>,
    /// So long after the copies were equal a complete one may serve by itself; 0: never.
    #[serde(default)]
    pub syncdelta_ms: u64,
    /// While replication is busy, idle processors of a virtual machine wait awake.
    #[serde(default = "yes")]
    pub idle_poll: bool,
}

const fn yes() -> bool {
    true
}

const fn a_day() -> u64 {
    24 * 3_600 * 1_000
}

/// Of start scripts, and of `transition`, when nothing is written.
pub const SCRIPT_TIMES_MS: (u64, u64) = (300_000, 30_000);

const fn start_timeout_ms() -> u64 {
    SCRIPT_TIMES_MS.0
}

const fn transition_timeout_ms() -> u64 {
    SCRIPT_TIMES_MS.1
}

/// The module's scripts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// For prestart, poststop, update and the start scripts.
    #[serde(default = "start_timeout_ms")]
    pub start_timeout_ms: u64,
    /// For transition.
    #[serde(default = "transition_timeout_ms")]
    pub transition_timeout_ms: u64,
    /// For a graceful stop script.
    pub nice_stop_timeout_ms: u64,
    /// For a stop script with `force`.
    pub force_stop_timeout_ms: u64,
    /// Keep the output of runs.
    pub logging: bool,
    /// Bytes kept of one run.
    pub user_log_bytes: u64,
    /// Environment of the scripts, in the order of the file.
    #[serde(default)]
    pub variables: Vec<Variable>,
}

/// One variable of the scripts' environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// `<virtualhostname>`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VirtualHost {
    /// The name.
    pub name: String,
    /// File in `bin/` that scripts source for it.
    pub env_file: String,
}

impl ModuleConfiguration {
    /// By which the other nodes are judged. A mirror's peer is lost when every lan that carries its heartbeats is silent, each by its own
    /// patience; and the pulses of one flow leave as often as the quickest wants.
    #[must_use]
    pub fn rhythm(&self) -> Timings {
        if let Some(farm) = &self.farm {
            return farm.timings;
        }
        let lans = self.heartbeats.iter().map(|heartbeat| heartbeat.timings);
        let both = |one: Timings, other: Timings| Timings {
            pulse_ms: one.pulse_ms.min(other.pulse_ms),
            timeout_ms: one.timeout_ms.max(other.timeout_ms),
        };
        lans.reduce(both).unwrap_or(self.timings)
    }

    /// The nodes that this module runs on, in the order of `cluster.xml`: those on its networks; without any, and in a cluster of
    /// two, all.
    #[must_use]
    pub fn nodes(&self, cluster: &super::cluster::ClusterConfiguration) -> Vec<NodeName> {
        let mut nodes = cluster.node_names();
        let lans: Vec<&str> = match &self.farm {
            Some(farm) => farm.lans.iter().map(String::as_str).collect(),
            None => self.heartbeats.iter().map(|heartbeat| heartbeat.lan.as_str()).collect(),
        };
        if nodes.len() > 2 && !lans.is_empty() {
            nodes.retain(|node| cluster.places_of(node).any(|(lan, _)| lans.contains(&lan)));
        }
        nodes
    }
}

/// What `heartbeat.NAME` is called for a network: those listed by their `ident`; without a list, all by their own name.
#[must_use]
pub fn heartbeat_name<'a>(listed: &'a [Heartbeat], lan: &'a str) -> Option<&'a str> {
    match listed.iter().find(|heartbeat| heartbeat.lan == lan) {
        Some(heartbeat) => Some(&heartbeat.ident),
        None => listed.is_empty().then_some(lan),
    }
}

/// Checks a whole `userconfig.xml` and makes the typed configuration. `file` is the path shown in findings.
#[must_use]
pub fn check(
    mut root: Element,
    file: &str,
    environment: Environment<'_>,
    around: &Surroundings<'_>,
) -> Checked<ModuleConfiguration> {
    let source = Source { file, module: Some(around.module) };
    let mut found = macros::expand(&mut root, file, environment);
    names::put_in(&mut root, &SAFE, file, around.names, &mut found);
    found.extend(check::tree(&root, &SAFE, source));
    let (mut configuration, places) = read(&root);
    if let Some(service) = root.child("service") {
        configuration.checkers = checkers::read(service, source, &mut found);
        if configuration.rfs.as_ref().is_some_and(|rfs| rfs.syncat.is_some()) {
            configuration.checkers.rules.push(checkers::syncat_wait());
        }
    }
    relations::inside(&root, &configuration, &places, source, &mut found);
    relations::around(&root, &configuration, &places, file, around, &mut found);
    let checked = Checked::new((), found);
    configuration.notes = checked.diagnostics.iter().filter(|d| !d.is_error()).cloned().collect();
    Checked { value: checked.value.map(|()| configuration), diagnostics: checked.diagnostics }
}

/// Reads what is right and takes the default for what is not: the checker has said the rest.
fn read(root: &Element) -> (ModuleConfiguration, Places) {
    let absent = Element {
        name: String::new(),
        attributes: Vec::new(),
        children: Vec::new(),
        text: String::new(),
        position: root.position,
        text_position: root.position,
    };
    let service_row = SAFE.child("service").expect("the table has <service>");
    let service = Reader { element: root.child("service").unwrap_or(&absent), row: service_row };
    let part = |name: &str| Reader {
        element: service.element.child(name).unwrap_or(&absent),
        row: service_row.child(name).expect("the table has the parts of <service>"),
    };
    let mut places = Places {
        service: service.element.position,
        default_prim: service.element.place_of("defaultprim"),
        ..Places::default()
    };

    let heart = part("heart");
    let timings = rhythm(heart, Timings::DEFAULT);
    let (mut heartbeats, mut flow) = (Vec::new(), None);
    for (element, row) in children(heart, "heartbeat") {
        let reader = Reader { element, row };
        let Some(lan) = reader.text("name") else { continue };
        if reader.text("ident") == Some("flow") && flow.is_none() {
            flow = Some(lan.to_string());
            places.flow = element.place_of("ident");
        }
        let ident = reader.text("ident").unwrap_or(lan).to_string();
        heartbeats.push(Heartbeat { lan: lan.to_string(), ident, timings: rhythm(reader, timings) });
        places.heartbeats.push(element.place_of("name"));
    }

    let vip = part("vip");
    let mut vips = read_vips(vip, &mut places);
    if service.text("mode") != Some("farm") {
        vips.iter_mut().for_each(|vip| vip.vmac = None);
    }

    let rfs = part("rfs");
    let replication = service.element.child("rfs").map(|_| read_rfs(rfs, &mut places));
    if let Some((element, row)) = children(rfs, "flow").next()
        && let (None, Some(lan)) = (&flow, (Reader { element, row }).text("name"))
    {
        flow = Some(lan.to_string());
        places.flow = element.place_of("name");
    }

    let user = part("user");
    places.user = user.element.position;
    let splitbrain = children(part("check"), "splitbrain")
        .flat_map(|(element, row)| Reader { element, row }.text("arg").unwrap_or("").split_whitespace())
        .filter_map(|address| address.trim_matches(['[', ']']).parse().ok())
        .collect();

    let configuration = ModuleConfiguration {
        mode: match service.text("mode") {
            Some("farm") => Mode::Farm,
            Some("light") => Mode::Light,
            _ => Mode::Mirror,
        },
        boot: match service.text("boot") {
            Some("on") => Boot::On,
            Some("off") => Boot::Off,
            Some("auto") => Boot::Auto,
            _ => Boot::Ignore,
        },
        boot_delay_ms: service.milliseconds("boot_delay").unwrap_or(0),
        automatic_reboot: service.is_on("automatic_reboot"),
        failover: service.is_on("failover"),
        default_prim: match service.text("defaultprim") {
            None | Some("alone") => DefaultPrim::Alone,
            Some("lastprim") => DefaultPrim::LastPrim,
            Some(node) => NodeName::new(node).map_or(DefaultPrim::Alone, DefaultPrim::Node),
        },
        maxloop: service.integer("maxloop").and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
        loop_interval_ms: service.milliseconds("loop_interval").unwrap_or(0),
        timings,
        heartbeats,
        flow,
        vips,
        tcpreset: vip.is_on("tcpreset"),
        farm: super::farm::is_farm(service.element).then(|| super::farm::read(part("farm"), vip)),
        rfs: replication,
        user: service.element.child("user").map(|_| read_user(user)),
        splitbrain,
        checkers: Checkers::default(),
        virtual_hosts: children(part("vhost"), "virtualhostname")
            .filter_map(|(element, row)| {
                let reader = Reader { element, row };
                Some(VirtualHost { name: reader.text("name")?.into(), env_file: reader.text("envfile")?.into() })
            })
            .collect(),
        waiting: super::normal::waiting(root),
        notes: Vec::new(),
    };
    (configuration, places)
}

fn children<'a>(
    parent: Reader<'a>,
    name: &'a str,
) -> impl Iterator<Item = (&'a Element, &'static super::table::ElementRow)> {
    let row = parent.row.child(name).expect("the table has the element the reader asks for");
    parent.element.all(name).map(move |element| (element, row))
}

fn rhythm(reader: Reader<'_>, otherwise: Timings) -> Timings {
    Timings {
        pulse_ms: reader.milliseconds("pulse").unwrap_or(otherwise.pulse_ms),
        timeout_ms: reader.milliseconds("timeout").unwrap_or(otherwise.timeout_ms),
    }
}

/// The hardware address that no node sends from, when none is written.
const fn vmac_of(addr: IpAddr) -> [u8; 6] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [0x5a, 0xfe, a, b, c, d]
        }
        IpAddr::V6(addr) => {
            let [.., a, b, c, d] = addr.octets();
            [0x5a, 0xfe, a, b, c, d]
        }
    }
}

fn read_vips(vip: Reader<'_>, places: &mut Places) -> Vec<Vip> {
    let mut vips = Vec::new();
    for (list, list_row) in children(vip, "interface_list") {
        for (interface, interface_row) in children(Reader { element: list, row: list_row }, "interface") {
            let name = Reader { element: interface, row: interface_row }.text("name").map(ToString::to_string);
            let carriers = Reader { element: interface, row: interface_row };
            // All take the address of a virtual interface on the real one.
            let real = children(carriers, "real_interface").chain(children(carriers, "virtual_interface"));
            for (real, real_row) in real {
                for (element, row) in children(Reader { element: real, row: real_row }, "virtual_addr") {
                    let reader = Reader { element, row };
                    let Some(addr) = reader.address("addr") else { continue };
                    let prefix = reader.text("netmask").and_then(super::typed::netmask);
                    let vmac =
                        (Reader { element: real, row: real_row }.text("type") == Some("vmac_invisible")).then(|| {
                            let written =
                                Reader { element: real, row: real_row }.text("addr").and_then(super::typed::mac);
                            written.unwrap_or_else(|| vmac_of(addr))
                        });
                    vips.push(Vip { addr, prefix, interface: name.clone(), vmac });
                    places.vips.push(element.place_of("addr"));
                }
            }
        }
    }
    vips
}

fn read_rfs(rfs: Reader<'_>, places: &mut Places) -> Replication {
    let mut dirs = Vec::new();
    for (element, row) in children(rfs, "replicated") {
        let reader = Reader { element, row };
        let Some(path) = reader.text("dir") else { continue };
        let paths = |name| {
            children(reader, name)
                .filter_map(|(element, row)| Reader { element, row }.text("path").map(super::typed::normal_path))
                .collect()
        };
        dirs.push(ReplicatedDir {
            path: super::typed::normal_path(path),
            tocheck: paths("tocheck"),
            notreplicated: paths("notreplicated"),
            notreplicated_names: children(reader, "notreplicated")
                .filter_map(|(element, row)| Reader { element, row }.text("regexpath").map(ToString::to_string))
                .collect(),
        });
        places.dirs.push(element.place_of("dir"));
    }
    Replication {
        dirs,
        ack: if rfs.text("ack") == Some("commit") { AckPolicy::Commit } else { AckPolicy::Write },
        sync: if rfs.text("async") == Some("second") { AsyncPolicy::Second } else { AsyncPolicy::None },
        resync_bytes_per_s: rfs.integer("reiallowedbw").unwrap_or(0).saturating_mul(1024),
        scrub_ms: rfs.milliseconds("scrub").unwrap_or_else(a_day),
        syncat: rfs.text("syncat").and_then(|text| crate::schedule::Schedule::new(text).ok()),
        syncdelta_ms: rfs.milliseconds("syncdelta").unwrap_or(0),
        idle_poll: rfs.text("idlepoll") != Some("off"),
    }
}

fn read_user(user: Reader<'_>) -> User {
    let variables = children(user, "var")
        .filter_map(|(element, row)| {
            let reader = Reader { element, row };
            Some(Variable { name: reader.text("name")?.to_string(), value: reader.text("value")?.to_string() })
        })
        .collect();
    User {
        start_timeout_ms: user.milliseconds("starttimeout").unwrap_or_else(start_timeout_ms),
        transition_timeout_ms: user.milliseconds("transitiontimeout").unwrap_or_else(transition_timeout_ms),
        nice_stop_timeout_ms: user.milliseconds("nicestoptimeout").unwrap_or(300_000),
        force_stop_timeout_ms: user.milliseconds("forcestoptimeout").unwrap_or(300_000),
        logging: user.text("logging") != Some("none"),
        user_log_bytes: user.integer("userlogsize").unwrap_or(2048).saturating_mul(1024),
        variables,
    }
}
