//! The declarative table of `userconfig.xml`: one row per element and attribute. The checker, the typed
//! reader's defaults and the reference documentation all read these rows.
//!
//! **Invariant:** a name that SafeKit's guide knows is in here, if only to say that it comes later: an
//! imported module must never lose a protection without a word.

use super::table_check::{CHECK, ERRD, FAILOVER};
use super::table_farm::{FARM, LOADBALANCING, VHOST, VIRTUAL_INTERFACE};
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
    /// A whole number that may be negative, in these bounds.
    Signed(i64, i64),
    /// A time in this unit, in these bounds (milliseconds).
    Time(Unit, u64, u64),
    /// An IP address.
    Address,
    /// An IP address; written empty in templates, where a person fills it in: then it is none.
    AddressToFill,
    /// An IP address or a host name.
    Host,
    /// A hardware address.
    Mac,
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
    /// An extended regular expression.
    Pattern,
    /// The five fields of a crontab; empty: none.
    Schedule,
    /// Text that is not empty.
    Word,
    /// These words, with commas between them.
    Names,
    /// `http://` or `https://`, a host, perhaps a port and a path.
    Url,
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
    /// Checked and kept, and nothing acts on it yet; the sentence says what holds until then.
    NotYet(&'static str),
    /// As [`Support::NotYet`], except that these values say what is so anyway.
    NotYetUnless(&'static [&'static str], &'static str),
}

impl Support {
    /// Whether this value waits for an engine of a later version.
    #[must_use]
    pub fn waits(&self, value: &str) -> bool {
        match self {
            Self::NotYet(_) => true,
            Self::NotYetUnless(fine, _) => !fine.contains(&value),
            _ => false,
        }
    }
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
    /// Supported, noted, not yet.
    pub support: Support,
    /// Whether a change takes effect while the module runs; `None`: as what it is in.
    pub dynamic: Option<bool>,
    /// First release that has it.
    pub since: &'static str,
    /// For the manual.
    pub doc: &'static str,
}

impl AttributeRow {
    /// An optional attribute that works.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: false, support: Support::Works, dynamic: None, since: "0.1", doc }
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

    /// Accepted with a remark.
    #[must_use]
    pub const fn but(self, support: Support) -> Self {
        Self { support, ..self }
    }

    /// A change takes effect while the module runs.
    #[must_use]
    pub const fn dynamic(self) -> Self {
        Self { dynamic: Some(true), ..self }
    }

    /// A change needs a stop, whatever it is in.
    #[must_use]
    pub const fn fixed(self) -> Self {
        Self { dynamic: Some(false), ..self }
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
    /// What tells one of many from another; empty: their order does.
    pub key: &'static str,
    /// Whether character data belongs inside.
    pub text: bool,
    /// Whether a change of anything in it takes effect while the module runs.
    pub dynamic: bool,
    /// Supported, noted, not yet: of the element and all that is in it.
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
        key: "",
        text: false,
        dynamic: false,
        support: Support::Works,
        since: "0.1",
        doc: "",
    };

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
use Kind::{AddressToFill, Choice, Host, Identifier, Integer, Name, Netmask, OnOff, Text, Time};
use Support::{NotYetUnless, Noted, NotedUnless};
use Unit::{Hour, Millisecond, Second};

/// Longest time that makes sense anywhere: a year, in milliseconds.
pub const YEAR_MS: u64 = 365 * 86_400_000;
const PULSE: Kind = Time(Millisecond, 20, 10_000);
const TIMEOUT: Kind = Time(Millisecond, 200, 600_000);

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
    key: "name",
    doc: "A value used in the rest of the file; `stead config -m AM --set NAME=VALUE` edits it.",
    ..ElementRow::BASE
};

static SERVICE: ElementRow = ElementRow {
    name: "service",
    attributes: &[
        A::new("mode", Choice(&["mirror", "farm", "light"]), "Two nodes, one serving with replicated directories (mirror); all serving (farm); one node, restarted where it is (light).")
            .required(),
        A::new("boot", Choice(&["ignore", "on", "off", "auto"]), "Start with the node: on, off, auto (if it ran before), ignore (as `stead boot` says; while it says nothing: auto).").or("ignore").dynamic(),
        A::new("boot_delay", Time(Second, 0, 86_400_000), "Wait before the start at boot.").or("0s").dynamic(),
        A::new("failover", OnOff, "off: the secondary waits for an operator's `stead prim` instead of taking over.").or("on"),
        A::new("defaultprim", Name, "alone: who serves stays primary; a node's name: it takes the role back after its resync; lastprim: the last primary takes it back.").or("alone"),
        A::new("maxloop", Integer(0, 1_000), "Automatic restarts in a row before the module stops on this node.").or("3").dynamic(),
        A::new("loop_interval", Time(Hour, 0, YEAR_MS), "Time after which those are forgotten; 0: never count.").or("24h").dynamic(),
        A::new("automatic_reboot", OnOff, "on: reboot the node instead of stopping and starting the module.")
            .or("off")
            .dynamic(),
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
        // Dynamic in SafeKit. The takeover window (R18) is safe only while both nodes go by the same times.
        A::new("pulse", PULSE, "Period of the heartbeats.").or("100ms").fixed(),
        A::new("timeout", TIMEOUT, "Silence after which the peer is lost; at least 3 pulses.").or("1000ms").fixed(),
        A::new("permanent_arp", OnOff, "SafeKit's pinned ARP entry.")
            .but(NotedUnless(&["off"], "Stead does not pin ARP entries: heartbeats are authenticated")),
    ],
    children: &[&HEARTBEAT, &SERVER],
    dynamic: true,
    doc: "Heartbeats between the two nodes. Without <heartbeat>: on all lans of cluster.xml.",
    ..ElementRow::BASE
};

static HEARTBEAT: ElementRow = ElementRow {
    name: "heartbeat",
    attributes: &[
        A::new("name", Name, "A lan of cluster.xml.").required(),
        A::new("ident", Name, "Name of the resource; \"flow\": this lan also carries the replication.").fixed(),
        A::new("pulse", PULSE, "As in heart, for this lan. Pulses leave on all lans as often as the shortest says.")
            .fixed(),
        A::new(
            "timeout",
            TIMEOUT,
            "As in heart, for this lan. The peer is lost when it is silent on all lans for the longest of them.",
        )
        .fixed(),
    ],
    children: &[&SERVER],
    many: true,
    key: "name",
    doc: "One network that carries heartbeats.",
    ..ElementRow::BASE
};

static SERVER: ElementRow = ElementRow {
    name: "server",
    attributes: &[A::new("addr", Host, "Address of a node.")],
    many: true,
    support: Noted("the nodes and their addresses are those of cluster.xml (a syntax from before 7.2)"),
    doc: "A node, as written before 7.2.",
    ..ElementRow::BASE
};

static VIP: ElementRow = ElementRow {
    name: "vip",
    attributes: &[
        A::new("tcpreset", OnOff, "Reset the connections of the address before it is removed.").or("on"),
        A::new(
            "scriptcontrol",
            OnOff,
            "Farm: clients reach the node when its scripts say so (stead farm open, stead farm close), not as soon as start_both has returned.",
        )
        .or("off"),
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
        A::new("check", OnOff, "Watch the interface: a checker of its carrier, resource intf.NETWORK (with netmask), intf.NAME (with name) or intf.ADDRESS; rule interface_failure: wait.").or("on"),
        A::new("arpreroute", OnOff, "Repeat gratuitous ARP.")
            .but(NotedUnless(&["on"], "Stead always announces an address it takes: at 0, 100 ms, 500 ms, 2 s, then every 30 s")),
        A::new("arpinterval", Time(Second, 0, YEAR_MS), "Period of the announcements.").but(Noted("Stead announces every 30 s while it holds the address")),
        A::new("arpelapse", Time(Second, 0, YEAR_MS), "How long to announce.").but(Noted("Stead announces as long as it holds the address")),
    ],
    children: &[&REAL_INTERFACE, &VIRTUAL_INTERFACE],
    many: true,
    key: "name",
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

pub(super) static VIRTUAL_ADDR: ElementRow = ElementRow {
    name: "virtual_addr",
    attributes: &[
        A::new("addr", AddressToFill, "The virtual address.").required(),
        A::new("where", Choice(&["one_side_alias", "one_side", "alias"]), "one_side_alias: an additional address on the primary; one_side: the address of outgoing connections as well; alias: on all nodes of a farm.")
            .or("one_side_alias")
            .but(NotYetUnless(&["one_side_alias", "alias"], "the address is an additional one: outgoing connections keep the node's own as their source")),
        A::new("netmask", Netmask, "Mask of the address; without it, that of the interface."),
        A::new("check", OnOff, "Watch the address where it should be: there, and nobody else's; resource ip.ADDRESS, rule ip_failure: stopstart.").or("on"),
        A::new("connections", OnOff, "Count the TCP connections of the address every 10 s, in the resource connections.ADDRESS.").or("off"),
    ],
    many: true,
    key: "addr",
    doc: "One virtual address.",
    ..ElementRow::BASE
};

static USER: ElementRow = ElementRow {
    name: "user",
    attributes: &[
        A::new("starttimeout", Time(Second, 1, 86_400_000), "How long prestart, poststop, update and each start script may take; a start that takes longer is a failed one. (SafeKit waits for ever.)").or("300s"),
        A::new("transitiontimeout", Time(Second, 1, 86_400_000), "How long transition may take: it is told, and a failover waits for it.").or("30s"),
        A::new("nicestoptimeout", Time(Second, 0, 86_400_000), "How long a graceful stop script may take.").or("300s"),
        A::new("forcestoptimeout", Time(Second, 0, 86_400_000), "How long a stop script with force may take.")
            .or("300s"),
        A::new("logging", Choice(&["userlog", "none"]), "Keep the output of each run, or not.").or("userlog"),
        A::new("userlogsize", Integer(1, 1_048_576), "Bytes kept of one run's output, in KB.").or("2048"),
    ],
    children: &[&VAR],
    dynamic: true,
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
    key: "name",
    doc: "An environment variable of the scripts.",
    ..ElementRow::BASE
};
