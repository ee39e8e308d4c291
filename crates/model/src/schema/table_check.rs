//! The rows of software failure detection: `<errd>`, `<check>`, `<failover>`.
//!
//! Checked and kept. What acts on them says so by taking `NotYet` off its row, and nothing else changes here.

use super::table::{AttributeRow as A, ElementRow, Kind, Support, YEAR_MS};
use super::units::Unit;
use Kind::{Addresses, Choice, Host, Integer, Name, OnOff, Pattern, Signed, Text, Time, Url, Word};
use Support::NotYet;

const NO_CHECKERS: Support =
    NotYet("no checker runs in this version: the module moves when its node, its data plane or its start script fails");

const TICK: Kind = Time(Unit::Second, 1, 86_400_000);
const ACTION: Kind = Choice(&["stop", "stopstart", "restart", "wait", "noaction"]);
const ACTION_DOC: &str = "What its failure does; wait only with when=\"pre\".";
const IDENT_DOC: &str = "Name of the resource.";
const WHEN: Kind = Choice(&["prim", "second", "both", "pre"]);
const WHEN_DOC: &str = "Where the module is while it runs: prim (serving), second (following), both, pre (always, from before the start scripts).";
const PORT: Kind = Integer(1, 65_535);

/// `<check>` and the checkers in it.
pub static CHECK: ElementRow = ElementRow {
    name: "check",
    children: &[&SPLITBRAIN, &TCP, &HTTP, &PING, &INTF, &IP, &CUSTOM, &MODULE],
    dynamic: true,
    doc: "Checkers: each sets a resource to up or down.",
    ..ElementRow::BASE
};

static SPLITBRAIN: ElementRow = ElementRow {
    name: "splitbrain",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).or("witness"),
        A::new("exec", Choice(&["ping"]), "How the addresses are asked.").or("ping"),
        A::new("arg", Addresses, "Addresses outside the pair (a router): one that answers is enough to serve alone.")
            .required(),
    ],
    doc: "Pings an address to notice one's own isolation before serving alone. An input of the takeover proof; it arbitrates nothing: `stead witness` does.",
    ..ElementRow::BASE
};

static TCP: ElementRow = ElementRow {
    name: "tcp",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).required(),
        A::new("when", WHEN, WHEN_DOC).required(),
        A::new("action", ACTION, ACTION_DOC).or("restart"),
    ],
    children: &[&TO_PORT],
    needs: &["to"],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Connects to a TCP port. Resource tcp.IDENT, rule t_IDENT.",
    ..ElementRow::BASE
};

static TO_PORT: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name.").required(),
        A::new("port", PORT, "Port.").required(),
        A::new("interval", TICK, "Time between two checks.").or("10s"),
        A::new("timeout", TICK, "Longest wait for an answer.").or("5s"),
    ],
    doc: "What is connected to.",
    ..ElementRow::BASE
};

static HTTP: ElementRow = ElementRow {
    name: "http",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).required(),
        A::new("when", WHEN, WHEN_DOC).required(),
        A::new("action", ACTION, ACTION_DOC).or("restart"),
    ],
    children: &[&TO_URL],
    needs: &["to"],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Fetches a page (not in SafeKit). Resource http.IDENT, rule h_IDENT.",
    ..ElementRow::BASE
};

static TO_URL: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("url", Url, "http:// or https:// address.").required(),
        A::new("status", Integer(100, 599), "The status it must answer with; without it, any from 200 to 399."),
        A::new("body", Pattern, "What must be found in the page's first 64 KiB."),
        A::new("expires", Time(Unit::Hour, 0, YEAR_MS), "https: how long the certificate must still be good.").or("0"),
        A::new("interval", TICK, "Time between two checks.").or("10s"),
        A::new("timeout", TICK, "Longest wait for an answer.").or("5s"),
    ],
    doc: "What is fetched.",
    ..ElementRow::BASE
};

static PING: ElementRow = ElementRow {
    name: "ping",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).required(),
        A::new("when", WHEN, WHEN_DOC).or("pre"),
        A::new("action", ACTION, ACTION_DOC).or("wait"),
    ],
    children: &[&TO_ADDR],
    needs: &["to"],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Pings an address. Resource ping.IDENT, rule p_IDENT.",
    ..ElementRow::BASE
};

static TO_ADDR: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name.").required(),
        A::new("interval", TICK, "Time between two checks.").or("10s"),
        A::new("timeout", TICK, "Longest wait for an answer.").or("5s"),
    ],
    doc: "What is pinged.",
    ..ElementRow::BASE
};

static INTF: ElementRow = ElementRow {
    name: "intf",
    attributes: &[A::new("ident", Name, IDENT_DOC).required(), A::new("when", Choice(&["pre"]), WHEN_DOC).or("pre")],
    children: &[&TO_LOCAL],
    needs: &["to"],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Watches the carrier of the interface that has an address. Resource intf.IDENT, rule interface_failure: wait.",
    ..ElementRow::BASE
};

static TO_LOCAL: ElementRow = ElementRow {
    name: "to",
    attributes: &[A::new("local_addr", Host, "Address of this node, or the network's (192.168.0.0).").required()],
    doc: "The interface.",
    ..ElementRow::BASE
};

static IP: ElementRow = ElementRow {
    name: "ip",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).required(),
        A::new("when", Choice(&["prim", "both"]), WHEN_DOC).or("prim"),
    ],
    children: &[&TO_IP],
    needs: &["to"],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Watches a local address: there, and nobody else's. Resource ip.IDENT, rule ip_failure: stopstart.",
    ..ElementRow::BASE
};

static TO_IP: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name.").required(),
        A::new("interval", TICK, "Time between two checks.").or("10s"),
    ],
    doc: "The address.",
    ..ElementRow::BASE
};

static CUSTOM: ElementRow = ElementRow {
    name: "custom",
    attributes: &[
        A::new("ident", Name, IDENT_DOC).required(),
        A::new("when", WHEN, WHEN_DOC).required(),
        A::new("exec", Word, "Program in the module's bin, or a path.").required(),
        A::new("arg", Text, "Its arguments, behind the module's and the resource's names."),
        A::new("action", ACTION, ACTION_DOC).or("noaction"),
    ],
    many: true,
    key: "ident",
    support: NO_CHECKERS,
    doc: "Runs a program that sets its resource. Resource custom.IDENT, rule c_IDENT.",
    ..ElementRow::BASE
};

static MODULE: ElementRow = ElementRow {
    name: "module",
    attributes: &[
        A::new("ident", Name, "Name of the resource; without it, the module's, with _ADDR behind it."),
        A::new("name", Name, "The other module.").required(),
    ],
    children: &[&TO_MODULE],
    many: true,
    key: "name",
    support: NO_CHECKERS,
    doc: "Watches another module, here or elsewhere. Resource module.IDENT, rule module_failure: wait; stopstart when the other one restarted.",
    ..ElementRow::BASE
};

static TO_MODULE: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name of its node.").required(),
        A::new("port", PORT, "Port of its API.").or("9453"),
        A::new("interval", TICK, "Time between two checks.").or("10s"),
        A::new("timeout", TICK, "Longest wait for an answer.").or("5s"),
        A::new("secure", OnOff, "Over TLS.").or("on"),
    ],
    doc: "Where the other module is; without it, on this node.",
    ..ElementRow::BASE
};

/// `<errd>`: processes and services.
pub static ERRD: ElementRow = ElementRow {
    name: "errd",
    attributes: &[A::new("polltimer", TICK, "Time between two looks, where no event tells of a death.").or("30s")],
    children: &[&PROC],
    dynamic: true,
    support: NO_CHECKERS,
    doc: "Processes and services whose death is an error. Needs <user>.",
    ..ElementRow::BASE
};

static PROC: ElementRow = ElementRow {
    name: "proc",
    attributes: &[
        A::new("name", Word, "Name of the process (15 characters at most) or of the service. Resource proc.NAME.").required(),
        A::new("service", Choice(&["no", "yes"]), "yes: the name is a service's.").or("no"),
        A::new("nameregex", Pattern, "Which process names are meant, instead of the name itself."),
        A::new("argregex", Pattern, "What the command line must match."),
        A::new("atleast", Integer(0, 100_000), "Fewer are an error.").or("1"),
        A::new("atmax", Signed(-1, 100_000), "More are an error; -1: any number is fine.").or("-1"),
        A::new("action", Word, "stopstart, restart, stop, noaction, or a program of the module that handles it.").or("stopstart"),
        A::new("restart_services", Kind::Names, "With action=\"restart\": only these services are restarted."),
        A::new("class", Name, "prim, both, pre, second, sec: watched while the scripts of that name have run; another: `stead errd enable CLASS`.").or("prim"),
        A::new("start_after", Integer(1, 100_000), "Look for the first time after this many polls.").or("1"),
    ],
    many: true,
    key: "name",
    doc: "One kind of process, or a service.",
    ..ElementRow::BASE
};

/// `<failover>`: the module's own rules.
pub static FAILOVER: ElementRow = ElementRow {
    name: "failover",
    attributes: &[
        A::new("extends", Choice(&["yes", "no"]), "no: without the built-in rules.").or("yes"),
        A::new(
            "period",
            Time(Unit::Millisecond, 100, 86_400_000),
            "Period of the evaluation; besides, at every change of a resource.",
        )
        .or("5000ms"),
        A::new(
            "handle_time",
            Time(Unit::Millisecond, 0, 86_400_000),
            "How long an action must be asked for before it is taken; a multiple of the period.",
        )
        .or("0"),
    ],
    text: true,
    support: NotYet("the module's own rules are not evaluated in this version; the built-in ones stay"),
    doc: "Failover rules: `label: if (expression) then action;`.",
    ..ElementRow::BASE
};
