//! The rows of farms (`<farm>`, `<loadbalancing_list>`, `<virtual_interface>`) and of `<vhost>`.

use super::table::{AttributeRow as A, ElementRow, Kind, Support, VIRTUAL_ADDR};
use super::units::Unit;
use Kind::{Choice, Integer, Mac, Name, Time, Word};
use Support::{NotYet, Noted};

/// `<farm>`: the networks of a farm.
pub static FARM: ElementRow = ElementRow {
    name: "farm",
    attributes: &[
        A::new("port", Integer(1, 65_535), "SafeKit's membership port.")
            .but(Noted("Stead sends the heartbeats of all modules through the port of cluster.xml")),
        A::new("pulse", Time(Unit::Millisecond, 20, 10_000), "Period of the heartbeats.").or("100ms"),
        A::new("mlost_count", Integer(1, 10_000), "Missed heartbeats before a new leader.")
            .but(Noted("who directs the farm is missed as any other member: slost_count")),
        A::new("slost_count", Integer(3, 10_000), "Missed heartbeats before a member is lost.").or("5"),
        A::new(
            "drain",
            Time(Unit::Second, 0, 3_600_000),
            "How long connections that stand may finish before a stop or restart goes on.",
        )
        .or("30s"),
    ],
    children: &[&FARM_LAN],
    doc: "Networks by which the nodes of a farm judge each other. Without <lan>: the lans that carry the virtual addresses.",
    ..ElementRow::BASE
};

static FARM_LAN: ElementRow = ElementRow {
    name: "lan",
    attributes: &[A::new("name", Name, "A lan of cluster.xml.").required()],
    many: true,
    key: "name",
    doc: "One network by which the nodes of the farm judge each other; heartbeats go over all. In a cluster of more than two nodes, the farm runs on those that are on one of them.",
    ..ElementRow::BASE
};

/// `<virtual_interface>`: an interface with a virtual address that several nodes answer for.
pub static VIRTUAL_INTERFACE: ElementRow = ElementRow {
    name: "virtual_interface",
    attributes: &[
        A::new("type", Choice(&["vmac_directed", "vmac_invisible"]), "vmac_directed: one node's own hardware address answers for all; vmac_invisible: a hardware address that no node sends from, so that a switch that floods brings every frame to all nodes. All of a module are of one type.")
            .required(),
        A::new("addr", Mac, "vmac_invisible: the hardware address (of one station, not of a group); without it, 5A:FE and the last four bytes of the virtual address."),
    ],
    children: &[&VIRTUAL_ADDR],
    needs: &["virtual_addr"],
    doc: "An interface whose addresses all nodes of a farm share.",
    ..ElementRow::BASE
};

/// `<loadbalancing_list>`: how a farm's traffic is spread.
pub static LOADBALANCING: ElementRow = ElementRow {
    name: "loadbalancing_list",
    children: &[&GROUP],
    needs: &["group"],
    doc: "Rules that spread the traffic of a farm. What no rule names is refused.",
    ..ElementRow::BASE
};

static GROUP: ElementRow = ElementRow {
    name: "group",
    attributes: &[A::new(
        "name",
        Name,
        "Name of the group; its resources are farm.NAME, the load of this node in %, and farm.NAME.NODE, that of each.",
    )
    .required()],
    children: &[&POWERS, &RULE],
    needs: &["rule"],
    many: true,
    key: "name",
    doc: "Rules with one table of shares.",
    ..ElementRow::BASE
};

static POWERS: ElementRow = ElementRow {
    name: "cluster",
    children: &[&HOST],
    needs: &["host"],
    doc: "Weights of the nodes; a node that is not named has 1.",
    ..ElementRow::BASE
};

static HOST: ElementRow = ElementRow {
    name: "host",
    attributes: &[
        A::new("name", Name, "A node of cluster.xml.").required(),
        A::new(
            "power",
            Integer(0, 1 << 40),
            "Its weight; 0: no traffic; steps of 64: the highest alive takes everything.",
        )
        .required(),
    ],
    many: true,
    key: "name",
    doc: "The weight of one node.",
    ..ElementRow::BASE
};

static RULE: ElementRow = ElementRow {
    name: "rule",
    attributes: &[
        A::new("virtual_addr", Word, "A virtual address of the module, or * for all.").or("*"),
        A::new("port", Word, "A port, or * for all.").or("*"),
        A::new("proto", Choice(&["tcp", "udp", "arp"]), "Protocol; arp: who answers the question for the address.")
            .required(),
        A::new(
            "filter",
            Choice(&["on_addr", "on_port", "on_ipid"]),
            "What chooses the node: the client's address, its port, or the packet's identification.",
        )
        .required(),
    ],
    many: true,
    doc: "Which traffic, and what spreads it.",
    ..ElementRow::BASE
};

/// `<vhost>`: a host name of the module's own.
pub static VHOST: ElementRow = ElementRow {
    name: "vhost",
    children: &[&VIRTUALHOSTNAME],
    needs: &["virtualhostname"],
    support: NotYet("the application sees the node's own name; let it listen on the virtual address"),
    doc: "A host name that follows the application.",
    ..ElementRow::BASE
};

static VIRTUALHOSTNAME: ElementRow = ElementRow {
    name: "virtualhostname",
    attributes: &[
        A::new("name", Word, "The name the application sees.").required(),
        A::new("envfile", Word, "File that the scripts source for it.").required(),
        A::new("when", Choice(&["prim", "second", "both"]), "Where the module is while it holds.").or("prim"),
    ],
    many: true,
    key: "name",
    doc: "The name and where it is set.",
    ..ElementRow::BASE
};
