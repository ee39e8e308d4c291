//! Every wrong input of the corpus gets the findings written beside it, all of them, at their places.
//!
//! `configuration/NAME.xml` → `configuration/NAME.expected`. After a wanted change of a sentence:
//! `STEAD_WRITE_EXPECTED=1 cargo test -p agent --test configuration`, and read the difference.

use agent::configuration::{read_cluster, read_module};
use model::ids::ModuleName;
use model::schema::names::{Answers, NO_NAMES, choose};
use model::schema::{Checked, ClusterConfiguration, Diagnostic, OtherModule, Subnet, Surroundings};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configuration")
}

const CLUSTER: &str = r#"<cluster><lans>
  <lan name="net1"><node name="node1" addr="10.0.1.1"/><node name="node2" addr="10.0.1.2"/></lan>
  <lan name="net2"><node name="node1" addr="10.0.2.1"/><node name="node2" addr="10.0.2.2"/></lan>
</lans></cluster>"#;

const OTHER: &str = r#"<safe><service mode="mirror">
  <vip><interface_list><interface><real_interface><virtual_addr addr="10.0.1.50"/></real_interface></interface></interface_list></vip>
  <rfs><replicated dir="/srv/stead/web"/></rfs>
</service></safe>"#;

fn cluster() -> ClusterConfiguration {
    read_cluster(CLUSTER.as_bytes(), "cluster.xml", &NO_NAMES).value.expect("the test's own cluster is right")
}

/// What the test's resolver knows.
fn names() -> Answers {
    let known: [(&str, &[&str]); 5] = [
        ("node1.example.com", &["10.0.1.1"]),
        ("node2.example.com", &["10.0.1.2"]),
        ("vip.example.com", &["10.0.1.101", "10.0.1.100", "127.0.1.1"]),
        ("here.example.com", &["127.0.1.1"]),
        ("empty.example.com", &[]),
    ];
    let answer =
        |found: &[&str]| choose(&found.iter().map(|addr| addr.parse().expect("valid")).collect::<Vec<_>>(), None);
    let mut answers = Answers(known.iter().map(|(name, found)| ((*name).to_string(), answer(found))).collect());
    let gone = "is not known to this node's resolver: Name or service not known".to_string();
    answers.0.insert("gone.example.com".into(), Err(gone));
    answers
}

/// A module "app" on node1 of a cluster with two lans and another module "web".
fn check(bytes: &[u8]) -> Checked<model::schema::ModuleConfiguration> {
    let cluster = cluster();
    let web = ModuleName::new("web").expect("valid");
    let alone = Surroundings { module: "web", cluster: None, subnets: &[], others: &[], names: &NO_NAMES };
    let other = read_module(OTHER.as_bytes(), "web", &alone).value.expect("the test's other module is right");
    let subnets = ["10.0.1.1", "10.0.2.1"].map(|addr| Subnet { addr: addr.parse().expect("valid"), prefix: 24 });
    let others = [OtherModule { name: &web, configuration: &other }];
    let around =
        Surroundings { module: "app", cluster: Some(&cluster), subnets: &subnets, others: &others, names: &names() };
    read_module(bytes, "userconfig.xml", &around)
}

fn transcript<T>(checked: &Checked<T>, value: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for finding in &checked.diagnostics {
        let _ = writeln!(text, "{finding}");
    }
    match &checked.value {
        None => text.push_str("refused\n"),
        Some(it) => {
            let _ = write!(text, "accepted\n{}", value(it));
        }
    }
    text
}

/// The peer is lost when the most patient lan is silent, and pulses leave as the quickest wants.
#[test]
fn a_lans_own_rhythm_counts() {
    let rhythm = |name: &str| {
        let bytes = fs::read(corpus().join(name)).expect("readable");
        let it = check(&bytes).value.expect("it is right").rhythm();
        (it.pulse_ms, it.timeout_ms)
    };
    assert_eq!(rhythm("several-heartbeats.xml"), (50, 2_000));
    assert_eq!(rhythm("imported-postgresql.xml"), (100, 5_000));
}

#[test]
fn the_corpus_gets_the_findings_written_beside_it() {
    let rewrite = std::env::var_os("STEAD_WRITE_EXPECTED").is_some();
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus()).expect("the corpus").flatten().map(|e| e.path()).collect();
    inputs.retain(|path| path.extension().is_some_and(|e| e == "xml"));
    inputs.sort();
    assert!(inputs.len() >= 25, "the corpus is there");
    let mut wrong = Vec::new();
    for input in inputs {
        let bytes = fs::read(&input).expect("readable");
        let name = input.file_stem().expect("a name").to_string_lossy().into_owned();
        let found = if name.starts_with("cluster") {
            transcript(&read_cluster(&bytes, "cluster.xml", &names()), ClusterConfiguration::to_xml)
        } else {
            transcript(&check(&bytes), model::schema::ModuleConfiguration::canonical)
        };
        let expected = input.with_extension("expected");
        if rewrite {
            fs::write(&expected, &found).expect("writable");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("--- {name}\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "findings differ from the expected files:\n{}", wrong.join("\n"));
}

/// Nothing of the table is silently forgotten by the reader: each attribute of the SafeKit-style module either
/// shows in the canonical text or has a finding.
#[test]
fn the_import_of_a_safekit_module_loses_nothing_silently() {
    let bytes = fs::read(corpus().join("safekit-attributes.xml")).expect("readable");
    let checked = check(&bytes);
    let errors: Vec<&Diagnostic> = checked.errors().collect();
    assert!(errors.is_empty(), "{errors:?}");
    let configuration = checked.value.expect("accepted");
    assert_eq!(configuration.notes, checked.diagnostics);
    assert_eq!(configuration.flow.as_deref(), Some("net2"));
    assert_eq!(
        configuration.timings.timeout_ms, 30_000,
        "what is written is honoured, and a note says that it is slow"
    );
    assert_eq!(configuration.vips[0].prefix, Some(24));
    let rfs = configuration.rfs.as_ref().expect("replicated");
    assert_eq!(rfs.resync_bytes_per_s, 20_000 * 1024);
    assert_eq!(rfs.syncdelta_ms, 600_000);
    assert_eq!(rfs.syncat.as_ref().map(model::schedule::Schedule::text), Some("0 3 * * *"));
    assert_eq!(rfs.dirs[0].notreplicated, ["tmp", "log/local"]);
    assert_eq!(rfs.dirs[0].notreplicated_names, [r".*\.tmp$", "!^(data|log)"]);
    let noted = |attribute: &str| checked.diagnostics.iter().any(|d| d.message.starts_with(&format!("{attribute}=")));
    for attribute in [
        "port",
        "permanent_arp",
        "arpinterval",
        "iotimeout",
        "ruzone_blocksize",
        "mountoversuffix",
        "nbrei",
        "nbremconn",
        "locktimeout",
        "sendtimeout",
        "reitimeout",
        "reicommit",
        "reipacketsize",
        "packetsize",
        "namespacepolicy",
        "checktime",
        "checkintv",
        "allocthreshold",
        "roflags",
        "nfsbox_options",
        "reidetail",
        "mode",
    ] {
        assert!(noted(attribute), "{attribute} is accepted without a word");
    }
}

#[test]
fn the_same_meaning_has_the_same_canonical_text() {
    let spelt = |text: &str| check(text.as_bytes()).value.expect("right").canonical();
    let plain = spelt(r#"<safe><service mode="mirror"><heart pulse="100ms" timeout="1s"/><user/></service></safe>"#);
    let other = spelt(
        "<!DOCTYPE safe>\r\n<safe><!-- c --><macro name='P' value='100'/>\r\n<service\tfailover='on' mode='mirror'><heart timeout='1000' pulse='%P%'/><user></user></service></safe>",
    );
    assert_eq!(plain, other);
    let changed = spelt(
        r#"<safe><service mode="mirror"><vip tcpreset="off"><interface_list><interface><real_interface><virtual_addr addr="10.0.1.9"/></real_interface></interface></interface_list></vip><user/></service></safe>"#,
    );
    assert_ne!(plain, changed);
}

#[test]
fn a_cluster_configuration_survives_its_own_xml() {
    let cluster = cluster();
    assert_eq!(read_cluster(cluster.to_xml().as_bytes(), "cluster.xml", &NO_NAMES).value, Some(cluster));
}

mod hostile {
    use super::*;
    use std::time::{Duration, Instant};

    /// Refused, with a sentence, and at once: a second is generous for what must cost milliseconds.
    fn refused(bytes: &[u8], because: &str) {
        let begin = Instant::now();
        let checked = check(bytes);
        let elapsed = begin.elapsed();
        assert!(checked.value.is_none());
        let said = checked.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(said.contains(because), "{said}");
        assert!(said.len() < 100_000, "a finding is a sentence, not a copy of the input");
        assert!(elapsed < Duration::from_secs(5), "took {elapsed:?}");
    }

    #[test]
    fn billion_laughs() {
        let mut text = String::from("<!DOCTYPE safe [<!ENTITY a0 \"ha\">");
        for level in 1..30 {
            let _ = write!(text, "<!ENTITY a{level} \"&a{0};&a{0};&a{0};&a{0};\">", level - 1);
        }
        text.push_str("]><safe>&a29;</safe>");
        refused(text.as_bytes(), "internal subset");
        refused(b"<safe><!DOCTYPE safe [<!ENTITY a 'b'>]><service/></safe>", "internal subset");
        refused(b"<!doctype safe [<!ENTITY a 'b'>]><safe/>", "internal subset");
        refused(b"<!ENTITY a 'b'><safe/>", "no place here");
    }

    #[test]
    fn deep_nesting() {
        refused("<safe>".repeat(100_000).as_bytes(), "nested deeper");
        refused(format!("{}{}", "<a>".repeat(40), "</a>".repeat(40)).as_bytes(), "nested deeper");
    }

    #[test]
    fn floods() {
        refused(format!("<safe>{}</safe>", "<a/>".repeat(50_000)).as_bytes(), "elements");
        let attributes: String = (0..50_000).fold(String::new(), |mut text, n| {
            let _ = write!(text, " a{n}=''");
            text
        });
        refused(format!("<safe{attributes}/>").as_bytes(), "attributes");
        let namespaces: String = (0..50_000).fold(String::new(), |mut text, n| {
            let _ = write!(text, " xmlns:a{n}='u'");
            text
        });
        refused(format!("<safe{namespaces}/>").as_bytes(), "attributes");
        refused(&vec![b' '; 100 * 1024 * 1024], "bytes");
        refused(format!("<safe {}=''/>", "x".repeat(900_000)).as_bytes(), "has no attribute");
    }

    #[test]
    fn macros_that_grow() {
        let mut text = String::from("<safe><macro name='A0' value='0123456789012345678901234567890123456789'/>");
        for level in 1..40 {
            let _ = write!(
                text,
                "<macro name='A{level}' value='%A{0}%%A{0}%%A{0}%%A{0}%%A{0}%%A{0}%%A{0}%%A{0}%'/>",
                level - 1
            );
        }
        text.push_str("<service mode='mirror'><user><var name='X' value='%A39%'/></user></service></safe>");
        refused(text.as_bytes(), "grows past");
    }

    #[test]
    fn not_text() {
        refused(b"\xff\xfe<\0s\0", "UTF-16");
        refused(b"\0\0\0\0", "not XML");
        refused(&[0xc3], "not UTF-8");
        for cut in 0..OTHER.len() {
            let _ = check(&OTHER.as_bytes()[..cut]);
        }
    }
}

/// What `check`, `name`, `netmask` and `connections` of a virtual address stand for.
#[test]
fn a_virtual_address_brings_its_checkers() {
    let resources = |interface: &str, addr: &str, checkers: &str| -> Vec<String> {
        let text = format!(
            "<safe><service mode=\"mirror\"><vip><interface_list><interface {interface}><real_interface>\
             <virtual_addr addr=\"10.0.1.100\" where=\"one_side_alias\" {addr}/></real_interface></interface></interface_list></vip>\
             <user/><check>{checkers}</check></service></safe>"
        );
        let checked = check(text.as_bytes());
        let configuration = checked.value.unwrap_or_else(|| panic!("{:?}", checked.diagnostics));
        configuration.checkers.checks.into_iter().map(|check| check.resource).collect()
    };
    let tcp = "<tcp ident=\"a\" when=\"prim\"><to addr=\"10.0.1.100\" port=\"80\"/></tcp>";
    assert_eq!(resources("", "", tcp), ["tcp.a", "intf.10.0.1.100", "ip.10.0.1.100"]);
    assert_eq!(resources("", "netmask=\"255.255.255.0\"", tcp), ["tcp.a", "intf.10.0.1.0", "ip.10.0.1.100"]);
    assert_eq!(
        resources("name=\"bond0\"", "connections=\"on\"", tcp),
        ["tcp.a", "intf.bond0", "ip.10.0.1.100", "connections.10.0.1.100"]
    );
    assert_eq!(resources("check=\"off\"", "check=\"off\"", tcp), ["tcp.a"]);
    // Watched by name already: once is enough.
    let own = "<intf ident=\"lan\"><to local_addr=\"10.0.1.100\"/></intf><ip ident=\"v\" when=\"prim\"><to addr=\"10.0.1.100\"/></ip>";
    assert_eq!(resources("", "", own), ["intf.lan", "ip.v"]);
}

#[test]
fn rules_on_the_replication_are_checked_against_what_is_set() {
    let rules = |rule: &str| {
        let text = format!(
            "<safe><service mode=\"mirror\"><heart><heartbeat name=\"net1\" ident=\"flow\"/></heart><rfs>\
             <replicated dir=\"/srv/d\"/></rfs><failover><![CDATA[ r: if ({rule}) then noaction(); ]]></failover>\
             <user/></service></safe>"
        );
        check(text.as_bytes())
    };
    for known in ["rfs.degraded == up", "rfs.synced == down", "rfs.? == down", "heartbeat.flow == down"] {
        let checked = rules(known);
        assert!(checked.value.is_some(), "{known}: {:?}", checked.diagnostics);
        assert!(
            !checked.diagnostics.iter().any(|d| d.message.contains("rule r")),
            "{known}: {:?}",
            checked.diagnostics
        );
    }
    let checked = rules("rfs.reintegre_failed == up");
    let noted: Vec<&Diagnostic> = checked.diagnostics.iter().filter(|d| d.message.contains("rule r")).collect();
    assert!(checked.value.is_some(), "a module of SafeKit's loads all the same: {:?}", checked.diagnostics);
    assert!(noted.len() == 1 && noted[0].message.contains("rfs.reintegre_failed"), "{noted:?}");
    let heartbeats = &checked.value.as_ref().expect("accepted").heartbeats;
    let named = |lan| model::schema::module::heartbeat_name(heartbeats, lan);
    assert_eq!((named("net1"), named("net2")), (Some("flow"), None));
    assert_eq!(model::schema::module::heartbeat_name(&[], "net2"), Some("net2"));
}

#[test]
fn a_mirror_on_the_networks_of_three_nodes_is_told() {
    let node = |n: u8| format!("<node name=\"node{n}\" addr=\"10.0.1.{n}\"/>");
    let three = format!("<cluster><lans><lan name=\"net1\">{}{}{}</lan></lans></cluster>", node(1), node(2), node(3));
    let three = read_cluster(three.as_bytes(), "cluster.xml", &NO_NAMES).value.expect("right");
    let said = |service: &str| {
        let around = Surroundings { module: "app", cluster: Some(&three), subnets: &[], others: &[], names: &NO_NAMES };
        let text = format!("<safe><service {service}><user/></service></safe>");
        let checked = read_module(text.as_bytes(), "userconfig.xml", &around);
        assert!(checked.value.is_some(), "{:?}", checked.diagnostics);
        checked.diagnostics.iter().any(|it| it.message.contains("a mirror has two nodes, and 3"))
    };
    assert!(said("mode=\"mirror\""));
    assert!(!said("mode=\"light\""));
}

#[test]
fn a_cluster_has_64_nodes_at_most() {
    let of = |count: u8| {
        let nodes: String = (1..=count).map(|n| format!("<node name=\"node{n}\" addr=\"10.0.1.{n}\"/>")).collect();
        let text = format!("<cluster><lans><lan name=\"net1\">{nodes}</lan></lans></cluster>");
        read_cluster(text.as_bytes(), "cluster.xml", &NO_NAMES)
    };
    assert_eq!(of(64).value.expect("right").lans[0].nodes.len(), 64);
    let refused = of(65);
    let said: Vec<&str> = refused.errors().map(|error| error.message.as_str()).collect();
    assert_eq!(said, ["the cluster has 65 nodes: 64 are possible"]);
}
