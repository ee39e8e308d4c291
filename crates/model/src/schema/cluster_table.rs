//! The declarative table of `cluster.xml`: lans, nodes, addresses.

use super::table::{AttributeRow as A, ElementRow, Kind, Support};
use super::units::Unit;
use Kind::{Address, Integer, Name, OnOff, Text, Time};
use Support::Noted;

const GONE: &str = "SafeKit ignores it since 8.2";
const TIMEOUTS: &str = "the failover timeout is that of each module: <heart timeout=\"…\">";

/// Three pulses have to fit into the failover timeout.
const PULSE_MAX_MS: u64 = crate::limits::LOST_MS / crate::limits::LOST_PULSES_MIN;

/// The root of `cluster.xml`.
pub static CLUSTER: ElementRow = ElementRow {
    name: "cluster",
    children: &[&LANS, &WITNESS],
    needs: &["lans"],
    doc: "The root.",
    ..ElementRow::BASE
};

static LANS: ElementRow = ElementRow {
    name: "lans",
    attributes: &[
        A::new("port", Integer(1, 65_535), "UDP port of the heartbeats.").or("4800"),
        A::new("pulse", Time(Unit::Millisecond, 20, PULSE_MAX_MS), "Period of the heartbeats.").or("100ms"),
        A::new("mlost_count", Integer(1, 10_000), "Missed heartbeats before a new leader.").but(Noted(TIMEOUTS)),
        A::new("slost_count", Integer(1, 10_000), "Missed heartbeats before a follower is off line.")
            .but(Noted(TIMEOUTS)),
    ],
    children: &[&LAN],
    needs: &["lan"],
    doc: "The networks between the nodes.",
    ..ElementRow::BASE
};

static LAN: ElementRow = ElementRow {
    name: "lan",
    attributes: &[
        A::new("name", Name, "Name of the network: modules refer to it.").required(),
        A::new("command", OnOff, "Carries commands to other nodes.").or("off"),
        A::new("console", Text, "Legacy.").but(Noted(GONE)),
        A::new("framework", Text, "Legacy.").but(Noted(GONE)),
        A::new("connect", Text, "Legacy.").but(Noted(GONE)),
    ],
    children: &[&NODE],
    needs: &["node"],
    many: true,
    key: "name",
    doc: "One network: who has which address on it.",
    ..ElementRow::BASE
};

static NODE: ElementRow = ElementRow {
    name: "node",
    attributes: &[
        A::new("name", Name, "Name of the node, the same on all lans.").required(),
        A::new("addr", Address, "Address that the other nodes reach it at.").required(),
        A::new("laddr", Address, "Address it has itself, when it stands behind an address translation."),
    ],
    many: true,
    key: "name",
    doc: "A node's address on this network.",
    ..ElementRow::BASE
};

static WITNESS: ElementRow = ElementRow {
    name: "witness",
    attributes: &[
        A::new("name", Name, "Name of the witness, that of no node.").required(),
        A::new("addr", Address, "Address that the nodes reach it at.").required(),
    ],
    many: true,
    key: "name",
    doc: "A third machine that grants epochs (`stead witness`); written by `stead cluster join --witness`. One votes at a time, the first to begin with; others are spares: the pair goes over to one when that one has not answered for 20 s.",
    ..ElementRow::BASE
};
