//! The declarative table of `userconfig.xml`: one row per element and attribute. The checker, the typed
//! reader's defaults and the reference documentation all read these rows.
//!
//! **Invariant:** a name that SafeKit's guide knows is in here, if only to say that it comes later: an
//! imported module must never lose a protection without a word.

use super::table_rfs::RFS;
use super::units::Unit;

/// What an attribute's value must be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Anything, the empty text included.
    Text,
    /// A name of ours: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    Name,
    /// A name for the environment: letters, digits and `_`, not beginning with a digit.
    Identifier,
    /// `on` or `off`.
    OnOff,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number in these bounds.
    Integer(u64, u64),
    /// A time in this unit, in these bounds (milliseconds).
    Time(Unit, u64, u64),
    /// An IP address.
    Address,
    /// IP addresses with spaces between them.
    Addresses,
    /// A dotted IPv4 mask.
    Netmask,
    /// An absolute path without `.` or `..`.
    AbsolutePath,
    /// A path below the directory around it, without `.` or `..`.
    RelativePath,
    /// An extended regular expression on names, perhaps with a `!` before it.
    NamePattern,
}

/// What this release does with a name it knows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Support {
    /// Does what the manual says.
    Works,
    /// Accepted and without effect; the sentence says why nothing is lost.
    Noted(&'static str),
    /// As [`Support::Noted`], except that these values need no remark: they say what is so anyway.
    NotedUnless(&'static [&'static str], &'static str),
    /// Refused: comes with a later release; the sentence says what to do now.
    Later(&'static str),
    /// These values are fine; the others come with a later release.
    LaterUnless(&'static [&'static str], &'static str),
}

/// A row: an attribute of an element.
#[derive(Clone, Copy, Debug)]
pub struct AttributeRow {
    /// As written.
    pub name: &'static str,
    /// Type, unit, bounds.
    pub kind: Kind,
    /// What holds when it is not written; `None` with `required`: it must be.
    pub default: Option<&'static str>,
    /// Must be written.
    pub required: bool,
    /// Supported, noted, later.
    pub support: Support,
    /// First release that has it.
    pub since: &'static str,
    /// For the manual.
    pub doc: &'static str,
}

impl AttributeRow {
    /// An optional attribute that works.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: false, support: Support::Works, since: "0.1", doc }
    }

    /// With a default.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Must be written.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Accepted with a remark, or refused for now.
    #[must_use]
    pub const fn but(self, support: Support) -> Self {
        Self { support, ..self }
    }
}

/// A row: an element, its attributes and what may be inside it.
#[derive(Debug)]
pub struct ElementRow {
    /// As written.
    pub name: &'static str,
    /// Its attributes.
    pub attributes: &'static [AttributeRow],
    /// Elements allowed inside.
    pub children: &'static [&'static ElementRow],
    /// Children that must be there.
    pub needs: &'static [&'static str],
    /// Whether it may stand several times beside itself.
    pub many: bool,
    /// Whether character data belongs inside.
    pub text: bool,
    /// Supported, noted, later.
    pub support: Support,
    /// First release that has it.
    pub since: &'static str,
    /// For the manual.
    pub doc: &'static str,
}

impl ElementRow {
    /// The usual element: once, supported, empty; rows override.
    pub const BASE: Self = Self {
        name: "",
        attributes: &[],
        children: &[],
        needs: &[],
        many: false,
        text: false,
        support: Support::Works,
        since: "0.1",
        doc: "",
    };

    /// A known element of a later release: named and refused, not looked into.
    #[must_use]
    pub const fn later(name: &'static str, help: &'static str, doc: &'static str) -> Self {
        Self { name, many: true, text: true, support: Support::Later(help), doc, ..Self::BASE }
    }

    /// Its attribute row of that name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeRow> {
        self.attributes.iter().find(|row| row.name == name)
    }

    /// The row of a child of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&'static ElementRow> {
        self.children.iter().find(|row| row.name == name).copied()
    }
}

use AttributeRow as A;
use Kind::{Address, Addresses, Choice, Identifier, Integer, Name, Netmask, OnOff, Text, Time};
use Support::{LaterUnless, Noted, NotedUnless};
use Unit::{Hour, Millisecond, Second};

/// Longest time that makes sense anywhere: a year, in milliseconds.
pub const YEAR_MS: u64 = 365 * 86_400_000;
const PULSE: Kind = Time(Millisecond, 20, 10_000);
const TIMEOUT: Kind = Time(Millisecond, 200, 600_000);
const CHECKERS_LATER: &str =
    "checkers come with a later release: remove the element, or keep the module on its present system until then";

const ONE_PULSE: &str = "the period of the heartbeats is that of cluster.xml, for all modules, in this release";
const ONE_TIMEOUT: &str = "the failover timeout is 1 s for all modules in this release";

/// The root of `userconfig.xml`.
pub static SAFE: ElementRow = ElementRow {
    name: "safe",
    children: &[&MACRO, &SERVICE],
    needs: &["service"],
    doc: "The root: macros, then one service.",
    ..ElementRow::BASE
};

static MACRO: ElementRow = ElementRow {
    name: "macro",
    attributes: &[
        A::new("name", Identifier, "Name; the rest of the file writes %NAME%.").required(),
        A::new("value", Text, "What %NAME% stands for.").required(),
    ],
    many: true,
    doc: "A value used in the rest of the file; `stead config -m AM --set NAME=VALUE` edits it.",
    ..ElementRow::BASE
};

static SERVICE: ElementRow = ElementRow {
    name: "service",
    attributes: &[
        A::new("mode", Choice(&["mirror", "farm", "light"]), "Two nodes, one serving with replicated directories (mirror); all serving (farm); one node (light).")
            .required()
            .but(LaterUnless(&["mirror"], "only mode=\"mirror\" is in this release")),
        A::new("boot", Choice(&["ignore", "on", "off", "auto"]), "Start with the node: on, off, auto (if it ran before), ignore (as `stead boot` says).").or("ignore"),
        A::new("boot_delay", Time(Second, 0, 86_400_000), "Wait before the start at boot.").or("0s").but(NotedUnless(&["0", "0s"], "a start at boot is not delayed in this release")),
        A::new("failover", OnOff, "off: the secondary waits for an operator's `stead prim` instead of taking over.").or("on").but(LaterUnless(&["on"], "remove failover or set it to on: a complete secondary takes over by itself")),
        A::new("defaultprim", Name, "alone: who serves stays primary; a node's name: it takes the role back after its resync; lastprim: the last primary takes it back.").or("alone").but(LaterUnless(&["alone"], "remove defaultprim or set it to alone: who serves goes on, and `stead swap` gives the role back")),
        A::new("maxloop", Integer(0, 1_000), "Automatic restarts in a row before the module stops on this node.").or("3").but(NotedUnless(&["3"], "the bound is 3 in this release")),
        A::new("loop_interval", Time(Hour, 0, YEAR_MS), "Time after which those are forgotten; 0: never count.").or("24h").but(NotedUnless(&["24", "24h", "1d"], "it is 24h in this release")),
        A::new("automatic_reboot", OnOff, "on: reboot the node instead of stopping and starting the module.")
            .or("off")
            .but(LaterUnless(&["off"], "remove automatic_reboot or set it to off")),
    ],
    children: &[&HEART, &VIP, &RFS, &USER, &CHECK, &FARM, &ERRD, &VHOST, &FAILOVER],
    doc: "How the module lives: mode, start at boot, automatic restarts.",
    ..ElementRow::BASE
};

static HEART: ElementRow = ElementRow {
    name: "heart",
    attributes: &[
        A::new("port", Integer(1, 65_535), "SafeKit's heartbeat port.")
            .but(Noted("Stead sends the heartbeats of all modules through the port of cluster.xml")),
        A::new("pulse", PULSE, "Period of the heartbeats.").or("100ms").but(NotedUnless(&["100", "100ms"], ONE_PULSE)),
        A::new("timeout", TIMEOUT, "Silence after which the peer is lost; at least 3 pulses.")
            .or("1000ms")
            .but(NotedUnless(&["1000", "1000ms", "1s"], ONE_TIMEOUT)),
        A::new("permanent_arp", OnOff, "SafeKit's pinned ARP entry.")
            .but(NotedUnless(&["off"], "Stead does not pin ARP entries: heartbeats are authenticated")),
    ],
    children: &[&HEARTBEAT],
    doc: "Heartbeats between the two nodes. Without <heartbeat>: on all lans of cluster.xml.",
    ..ElementRow::BASE
};

static HEARTBEAT: ElementRow = ElementRow {
    name: "heartbeat",
    attributes: &[
        A::new("name", Name, "A lan of cluster.xml.").required(),
        A::new("ident", Name, "Name of the resource; \"flow\": this lan also carries the replication."),
        A::new("pulse", PULSE, "As in heart, for this lan.").but(Noted(ONE_PULSE)),
        A::new("timeout", TIMEOUT, "As in heart, for this lan.").but(Noted(ONE_TIMEOUT)),
    ],
    many: true,
    doc: "One network that carries heartbeats.",
    ..ElementRow::BASE
};

static VIP: ElementRow = ElementRow {
    name: "vip",
    attributes: &[
        A::new("tcpreset", OnOff, "Reset the connections of the address before it is removed.").or("on"),
        A::new("scriptcontrol", OnOff, "Farm: scripts open and close the traffic.")
            .but(LaterUnless(&["off"], "it is for farm modules: remove it")),
    ],
    children: &[&INTERFACE_LIST, &LOADBALANCING],
    doc: "Virtual addresses that follow the primary.",
    ..ElementRow::BASE
};

static INTERFACE_LIST: ElementRow = ElementRow {
    name: "interface_list",
    children: &[&INTERFACE],
    needs: &["interface"],
    doc: "The interfaces that carry virtual addresses.",
    ..ElementRow::BASE
};

static INTERFACE: ElementRow = ElementRow {
    name: "interface",
    attributes: &[
        A::new("name", Name, "Network interface; without it, the one whose subnet contains the address."),
        A::new("check", OnOff, "Generate a checker of the interface's carrier.")
            .but(NotedUnless(&["off"], "the checker this generates comes with a later release; until then the carrier is looked at before every takeover")),
        A::new("arpreroute", OnOff, "Repeat gratuitous ARP.")
            .but(NotedUnless(&["on"], "Stead always announces an address it takes: at 0, 100 ms, 500 ms, 2 s, then every 30 s")),
        A::new("arpinterval", Time(Second, 0, YEAR_MS), "Period of the announcements.").but(Noted("Stead announces every 30 s while it holds the address")),
        A::new("arpelapse", Time(Second, 0, YEAR_MS), "How long to announce.").but(Noted("Stead announces as long as it holds the address")),
    ],
    children: &[&REAL_INTERFACE, &VIRTUAL_INTERFACE],
    many: true,
    doc: "One interface with its virtual addresses.",
    ..ElementRow::BASE
};

static REAL_INTERFACE: ElementRow = ElementRow {
    name: "real_interface",
    children: &[&VIRTUAL_ADDR],
    needs: &["virtual_addr"],
    doc: "Addresses that are added to the real interface.",
    ..ElementRow::BASE
};

static VIRTUAL_ADDR: ElementRow = ElementRow {
    name: "virtual_addr",
    attributes: &[
        A::new("addr", Address, "The virtual address.").required(),
        A::new("where", Choice(&["one_side_alias", "one_side", "alias"]), "one_side_alias: an additional address on the primary.")
            .or("one_side_alias")
            .but(LaterUnless(&["one_side_alias"], "write where=\"one_side_alias\" (one_side would also change the source of outgoing connections; alias is for farms)")),
        A::new("netmask", Netmask, "Mask of the address; without it, that of the interface."),
        A::new("check", OnOff, "Generate a checker of the address.")
            .but(NotedUnless(&["off"], "the checker this generates comes with a later release; nothing watches the address until then")),
        A::new("connections", OnOff, "Count the connections of the address.")
            .but(NotedUnless(&["off"], "counting connections comes with a later release")),
    ],
    many: true,
    doc: "One virtual address.",
    ..ElementRow::BASE
};

static VIRTUAL_INTERFACE: ElementRow = ElementRow::later(
    "virtual_interface",
    "in a mirror module, use <real_interface> with where=\"one_side_alias\"",
    "An interface with a virtual MAC address (farm).",
);
static LOADBALANCING: ElementRow = ElementRow::later(
    "loadbalancing_list",
    "it is for farm modules: remove it from a mirror module",
    "Rules that spread the traffic of a farm.",
);
static FARM: ElementRow =
    ElementRow::later("farm", "only mode=\"mirror\" is in this release: use <heart>", "Networks of a farm.");
static ERRD: ElementRow = ElementRow::later("errd", CHECKERS_LATER, "Processes and services whose death is an error.");
static VHOST: ElementRow = ElementRow::later(
    "vhost",
    "let the application listen on the virtual address instead",
    "A host name of the module's own.",
);
static FAILOVER: ElementRow = ElementRow::later(
    "failover",
    "failover rules of your own come with a later release: remove the element; the built-in rules stay",
    "Failover rules.",
);

static USER: ElementRow = ElementRow {
    name: "user",
    attributes: &[
        A::new("nicestoptimeout", Time(Second, 0, 86_400_000), "How long a graceful stop script may take.").or("300s"),
        A::new("forcestoptimeout", Time(Second, 0, 86_400_000), "How long a stop script with force may take.")
            .or("300s"),
        A::new("logging", Choice(&["userlog", "none"]), "Keep the output of each run, or not.")
            .or("userlog")
            .but(NotedUnless(&["userlog"], "the output of each run is kept, up to userlogsize")),
        A::new("userlogsize", Integer(1, 1_048_576), "Bytes kept of one run's output, in KB.").or("2048"),
    ],
    children: &[&VAR],
    doc: "The module's scripts run, with these variables. Without <user>, no script runs.",
    ..ElementRow::BASE
};

static VAR: ElementRow = ElementRow {
    name: "var",
    attributes: &[
        A::new("name", Identifier, "Name in the environment.").required(),
        A::new("value", Text, "Value.").required(),
    ],
    many: true,
    doc: "An environment variable of the scripts.",
    ..ElementRow::BASE
};

static CHECK: ElementRow = ElementRow {
    name: "check",
    children: &[&SPLITBRAIN, &TCP, &PING, &INTF, &IP, &CUSTOM, &MODULE],
    doc: "Checkers.",
    ..ElementRow::BASE
};

static SPLITBRAIN: ElementRow = ElementRow {
    name: "splitbrain",
    attributes: &[
        A::new("ident", Name, "Name of the resource.").or("witness"),
        A::new("exec", Choice(&["ping"]), "How the addresses are asked.").or("ping"),
        A::new("arg", Addresses, "Addresses outside the pair (a router): one that answers is enough to serve alone.")
            .required(),
    ],
    doc: "Pings an address to notice one's own isolation before serving alone. An input of the takeover proof; it arbitrates nothing: `stead witness` does.",
    ..ElementRow::BASE
};
static TCP: ElementRow = ElementRow::later("tcp", CHECKERS_LATER, "Connects to a TCP port.");
static PING: ElementRow = ElementRow::later("ping", CHECKERS_LATER, "Pings an address.");
static INTF: ElementRow = ElementRow::later("intf", CHECKERS_LATER, "Watches an interface's carrier.");
static IP: ElementRow = ElementRow::later("ip", CHECKERS_LATER, "Watches a local address.");
static CUSTOM: ElementRow = ElementRow::later("custom", CHECKERS_LATER, "Runs a program of the module.");
static MODULE: ElementRow = ElementRow::later("module", CHECKERS_LATER, "Watches another module.");
