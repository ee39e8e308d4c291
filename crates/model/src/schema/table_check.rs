//! The rows of software failure detection: `<errd>`, `<check>`, `<failover>`.
//!
//! What they mean is [`super::checkers`]; what comes of it is decided in crate `cluster`.

use super::table::{AttributeRow as A, ElementRow, Kind, Support, YEAR_MS};
use super::units::Unit;
use Kind::{Addresses, Choice, Host, Integer, Name, OnOff, Pattern, Signed, Text, Time, Url, Word};
use Support::NotedUnless;

const TICK: Kind = Time(Unit::Second, 1, 86_400_000);
const ACTION: Kind = Choice(&["stop", "stopstart", "restart", "wait", "swap", "noaction"]);
const ACTION_DOC: &str = "What its failure does; wait only with when=\"pre\".";
const IDENT_DOC: &str = "Name of the resource.";
const WHEN: Kind = Choice(&["prim", "second", "both", "pre"]);
const WHEN_DOC: &str = "Where the module is while it runs: prim (serving), second (following), both, pre (always, from before the start scripts).";
const PORT: Kind = Integer(1, 65_535);
const DOWN_AFTER: A = A::new(
    "down_after",
    Integer(1, 1_000),
    "Failures in a row before the resource is down. Without it: 3, or 1 when there is no doubt (connection refused, no carrier). Not in SafeKit.",
);
const UP_AFTER: A =
    A::new("up_after", Integer(1, 1_000), "Successes in a row before it is up again. Not in SafeKit.").or("1");
const GRACE: A = A::new("grace", Time(Unit::Second, 0, 86_400_000), "How long an application that was just started may fail before it counts. Not in SafeKit; with when=\"pre\" there is none, nor for a program without interval, which says itself what is well.").or("10s");
const INTERVAL: A = A::new("interval", TICK, "Time between two checks (SafeKit: 10s).").or("1s");
const TIMEOUT: A = A::new("timeout", TICK, "Longest wait for an answer (SafeKit: 5s).").or("1s");

/// Of a checker that looks at the application itself.
static OF_THE_APPLICATION: [A; 6] = [
    A::new("ident", Name, IDENT_DOC).required(),
    A::new("when", WHEN, WHEN_DOC).required(),
    A::new("action", ACTION, ACTION_DOC).or("restart"),
    DOWN_AFTER,
    UP_AFTER,
    GRACE,
];

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
    attributes: &OF_THE_APPLICATION,
    children: &[&TO_PORT],
    needs: &["to"],
    many: true,
    key: "ident",
    doc: "Connects to a TCP port. Resource tcp.IDENT, rule t_IDENT.",
    ..ElementRow::BASE
};

static TO_PORT: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name.").required(),
        A::new("port", PORT, "Port.").required(),
        INTERVAL,
        TIMEOUT,
    ],
    doc: "What is connected to.",
    ..ElementRow::BASE
};

static HTTP: ElementRow = ElementRow {
    name: "http",
    attributes: &OF_THE_APPLICATION,
    children: &[&TO_URL],
    needs: &["to"],
    many: true,
    key: "ident",
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
        INTERVAL,
        TIMEOUT,
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
        DOWN_AFTER,
        UP_AFTER,
        GRACE,
    ],
    children: &[&TO_ADDR],
    needs: &["to"],
    many: true,
    key: "ident",
    doc: "Pings an address. Resource ping.IDENT, rule p_IDENT.",
    ..ElementRow::BASE
};

static TO_ADDR: ElementRow = ElementRow {
    name: "to",
    attributes: &[A::new("addr", Host, "Address or name.").required(), INTERVAL, TIMEOUT],
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
        DOWN_AFTER,
        UP_AFTER,
    ],
    children: &[&TO_IP],
    needs: &["to"],
    many: true,
    key: "ident",
    doc: "Watches a local address: there, and nobody else's. Resource ip.IDENT, rule ip_failure: stopstart.",
    ..ElementRow::BASE
};

static TO_IP: ElementRow = ElementRow {
    name: "to",
    attributes: &[A::new("addr", Host, "Address or name.").required(), INTERVAL],
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
        A::new(
            "interval",
            TICK,
            "The program ends, and its exit code is what it found (0: up); it is run again after this time. Without it, it runs as long as the checker and sets its resource itself (stead set). Not in SafeKit.",
        ),
        A::new("timeout", TICK, "With interval: longest run.").or("5s"),
        DOWN_AFTER,
        UP_AFTER,
        GRACE,
    ],
    many: true,
    key: "ident",
    doc: "Runs a program of the module. Resource custom.IDENT, rule c_IDENT.",
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
    doc: "Watches another module, here or elsewhere. Resource module.IDENT: up where the other one serves (ALONE, PRIM or UP, Ready). Rule module_failure: wait; on one node also when its application was started again, so that this one stops, and starts behind it.",
    ..ElementRow::BASE
};

static TO_MODULE: ElementRow = ElementRow {
    name: "to",
    attributes: &[
        A::new("addr", Host, "Address or name of its node.").required(),
        A::new("port", PORT, "Port of its health URL.").or("9010"),
        INTERVAL,
        TIMEOUT,
        A::new("secure", OnOff, "Over TLS.")
            .or("off")
            .but(NotedUnless(&["off"], "the health URL of the other module's node is asked: one bit, without TLS")),
    ],
    doc: "Where the other module is; without it, on this node.",
    ..ElementRow::BASE
};

/// `<errd>`: processes and services.
pub static ERRD: ElementRow = ElementRow {
    name: "errd",
    attributes: &[A::new("polltimer", TICK, "How long a process may take to appear after the start scripts, times start_after (SafeKit: time between two looks, 30s). A death is noticed by an event, at once.").or("10s")],
    children: &[&PROC],
    dynamic: true,
    doc: "Processes and services whose death is an error. Needs <user>.",
    ..ElementRow::BASE
};

static PROC: ElementRow = ElementRow {
    name: "proc",
    attributes: &[
        A::new("name", Word, "Name of the process or of the service. The kernel keeps 15 characters of a process's name: a longer one is compared with the program's file and the first words of its command line as well. Resource proc.NAME.").required(),
        A::new("service", Choice(&["no", "yes"]), "yes: the name is a service's: the service manager is asked every second.").or("no"),
        A::new("nameregex", Pattern, "Which process names are meant, instead of the name itself."),
        A::new("argregex", Pattern, "What the command line must match."),
        A::new("atleast", Integer(0, 100_000), "Fewer are an error.").or("1"),
        A::new("atmax", Signed(-1, 100_000), "More are an error; -1: any number is fine.").or("-1"),
        A::new("action", Word, "stopstart, restart, stop, noaction, or a program of the module that handles it.").or("stopstart"),
        A::new("restart_services", Kind::Names, "With action=\"restart\": the scripts stop_prim and start_prim get `-Services \"A, B\"` and restart only these."),
        A::new("class", Name, "prim, both, pre, second, sec: watched while the scripts of that name have run; another: `stead errd enable CLASS`.").or("prim"),
        A::new("start_after", Integer(1, 100_000), "A process that never appeared is missed after this many polls.").or("1"),
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
    doc: "Failover rules: `label: if (expression) then action;`.",
    ..ElementRow::BASE
};
