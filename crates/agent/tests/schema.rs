//! The XML Schema made from the table, held against `xmllint`: what the checker accepts, an editor accepts too.

use agent::configuration::{read_cluster, read_module};
use model::schema::Surroundings;
use model::schema::cluster_table::CLUSTER;
use model::schema::names::NO_NAMES;
use model::schema::table::{ElementRow, Kind, SAFE, Support};
use model::schema::xsd::xsd;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Schemas(tempfile::TempDir);

impl Schemas {
    fn written() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        for (name, root) in [("userconfig", &SAFE), ("cluster", &CLUSTER)] {
            fs::write(folder.path().join(format!("{name}.xsd")), xsd(root)).expect("writable");
        }
        Self(folder)
    }

    /// What xmllint says, when it refuses the file.
    fn refuses(&self, schema: &str, file: &Path) -> Option<String> {
        let output = Command::new("xmllint")
            .args(["--noout", "--nonet", "--schema"])
            .arg(self.0.path().join(format!("{schema}.xsd")))
            .arg(file)
            .output()
            .expect("xmllint, from the package libxml2-utils (cargo xtask test installs it)");
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn accepts(bytes: &[u8]) -> bool {
    let around = Surroundings { module: "app", cluster: None, subnets: &[], others: &[], names: &NO_NAMES };
    read_module(bytes, "userconfig.xml", &around).value.is_some()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(folder).expect("the folder").flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

#[test]
fn every_shipped_module_is_valid() {
    let schemas = Schemas::written();
    let modules: Vec<PathBuf> = files("../../modules").into_iter().map(|m| m.join("conf/userconfig.xml")).collect();
    assert!(modules.len() >= 3, "{modules:?}");
    for file in modules {
        assert_eq!(schemas.refuses("userconfig", &file), None, "{}", file.display());
    }
}

#[test]
fn what_the_checker_accepts_is_valid_and_what_has_unknown_names_is_not() {
    let schemas = Schemas::written();
    let (mut accepted, mut refused) = (0, 0);
    for file in files("tests/configuration").into_iter().filter(|f| f.extension().is_some_and(|e| e == "xml")) {
        let (bytes, name) = (fs::read(&file).expect("readable"), file.file_stem().expect("named").to_string_lossy());
        let of_cluster = name.starts_with("cluster");
        let schema = if of_cluster { "cluster" } else { "userconfig" };
        let fine = if of_cluster { read_cluster(&bytes, "x", &NO_NAMES).value.is_some() } else { accepts(&bytes) };
        let said = schemas.refuses(schema, &file);
        if fine {
            assert_eq!(said, None, "{}", file.display());
            accepted += 1;
        } else if ["unknown-names", "wrong-values", "root"].contains(&&*name) {
            assert!(said.is_some(), "{} is valid for the schema", file.display());
            refused += 1;
        }
    }
    assert!(accepted >= 6 && refused == 3, "{accepted} accepted, {refused} refused");
}

/// A document with every element and attribute of the table. Nothing in the table is forgotten by the schema, and
/// each sample is a value that the checker takes.
#[test]
fn a_document_with_everything_of_the_table_is_valid() {
    let schemas = Schemas::written();
    for (name, root) in [("userconfig", &SAFE), ("cluster", &CLUSTER)] {
        let mut text = String::new();
        everything(&mut text, root);
        let file = schemas.0.path().join(format!("{name}.xml"));
        fs::write(&file, &text).expect("writable");
        assert_eq!(schemas.refuses(name, &file), None, "{text}");
    }
}

fn everything(text: &mut String, row: &'static ElementRow) {
    let _ = write!(text, "<{}", row.name);
    for attribute in row.attributes {
        let value = attribute.default.unwrap_or_else(|| sample(attribute.kind));
        assert_eq!(model::schema::typed::problem(attribute.kind, value), None, "{} {}", row.name, attribute.name);
        let _ = write!(text, " {}=\"{value}\"", attribute.name);
    }
    text.push('>');
    row.children.iter().for_each(|child| everything(text, child));
    if row.text {
        text.push_str("<![CDATA[ a && b ]]>");
    }
    let _ = write!(text, "</{}>", row.name);
}

fn sample(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "any text",
        Kind::Word | Kind::Name | Kind::Identifier | Kind::RelativePath | Kind::NamePattern | Kind::Pattern => "word",
        Kind::OnOff => "on",
        Kind::Choice(words) => words[0],
        Kind::Integer(min, _) => {
            ["0", "1"].into_iter().find(|n| n.parse::<u64>().is_ok_and(|n| n >= min)).unwrap_or("200")
        }
        Kind::Signed(..) => "-1",
        Kind::Time(_, _, max) if max < 3_600_000 => "1s",
        Kind::Time(..) => "1h",
        Kind::Address | Kind::AddressToFill => "10.0.1.100",
        Kind::Addresses => "10.0.1.254 [fd00::1]",
        Kind::Host => "db.example.com",
        Kind::Mac => "5a:fe:0a:00:01:64",
        Kind::Netmask => "255.255.255.0",
        Kind::AbsolutePath => "/srv/a",
        Kind::Names => "a, b",
        Kind::Url => "https://10.0.1.100:8443/health",
        Kind::Schedule => "30 3 * * *",
    }
}

/// Elements and attributes of the guide's chapter on userconfig.xml, in its order (SafeKit 8.2; `shared/reference/safekit.md` §3).
const GUIDE: &[(&str, &str)] = &[
    ("safe/macro", "name value"),
    ("safe/service", "mode boot boot_delay failover defaultprim maxloop loop_interval automatic_reboot"),
    ("safe/service/heart", "port pulse timeout permanent_arp"),
    ("safe/service/heart/heartbeat", "name ident pulse timeout"),
    ("safe/service/heart/server", "addr"),
    ("safe/service/farm", "port pulse mlost_count slost_count"),
    ("safe/service/farm/lan", "name"),
    ("safe/service/vip", "tcpreset scriptcontrol"),
    ("safe/service/vip/interface_list/interface", "check arpreroute arpinterval arpelapse name"),
    ("safe/service/vip/interface_list/interface/real_interface/virtual_addr", "addr where check connections netmask"),
    ("safe/service/vip/interface_list/interface/virtual_interface", "type addr"),
    (
        "safe/service/vip/interface_list/interface/virtual_interface/virtual_addr",
        "addr where check connections netmask",
    ),
    ("safe/service/vip/loadbalancing_list/group", "name"),
    ("safe/service/vip/loadbalancing_list/group/cluster/host", "name power"),
    ("safe/service/vip/loadbalancing_list/group/rule", "virtual_addr port proto filter"),
    (
        "safe/service/rfs",
        "acl async iotimeout roflags locktimeout sendtimeout nbrei ruzone_blocksize reipacketsize packetsize namespacepolicy reitimeout reicommit reidetail allocthreshold nbremconn checktime checkintv nfsbox_options scripts reiallowedbw syncdelta syncat mountoversuffix mountover",
    ),
    ("safe/service/rfs/replicated", "dir mode"),
    ("safe/service/rfs/replicated/tocheck", "path"),
    ("safe/service/rfs/replicated/notreplicated", "path regexpath"),
    ("safe/service/rfs/flow", "name"),
    ("safe/service/user", "nicestoptimeout forcestoptimeout logging userlogsize"),
    ("safe/service/user/var", "name value"),
    ("safe/service/vhost/virtualhostname", "name envfile when"),
    ("safe/service/errd", "polltimer"),
    (
        "safe/service/errd/proc",
        "name service nameregex argregex atleast atmax action restart_services class start_after",
    ),
    ("safe/service/check/tcp", "ident when action"),
    ("safe/service/check/tcp/to", "addr port interval timeout"),
    ("safe/service/check/ping", "ident when action"),
    ("safe/service/check/ping/to", "addr interval timeout"),
    ("safe/service/check/intf", "ident when"),
    ("safe/service/check/intf/to", "local_addr"),
    ("safe/service/check/ip", "ident when"),
    ("safe/service/check/ip/to", "addr interval"),
    ("safe/service/check/custom", "ident when exec arg action"),
    ("safe/service/check/module", "ident name"),
    ("safe/service/check/module/to", "addr port interval timeout secure"),
    ("safe/service/check/splitbrain", "ident exec arg"),
    ("safe/service/failover", "extends period handle_time"),
];

/// Each works, or says why it does nothing here: an imported module loses nothing without a word.
#[test]
fn every_attribute_of_the_guide_is_in_the_table_with_what_becomes_of_it() {
    let mut attributes = 0;
    for (path, names) in GUIDE {
        let mut words = path.split('/');
        assert_eq!(words.next(), Some(SAFE.name));
        let row = words.fold(&SAFE, |row, word| row.child(word).unwrap_or_else(|| panic!("{path}: no <{word}>")));
        for name in names.split(' ') {
            let attribute = row.attribute(name).unwrap_or_else(|| panic!("{path} has no {name}"));
            let sentence = match attribute.support {
                Support::Works => attribute.doc,
                Support::Noted(why) | Support::NotedUnless(_, why) => why,
                Support::NotYet(until) | Support::NotYetUnless(_, until) => until,
            };
            assert!(sentence.len() > 4, "{path} {name}: '{sentence}' tells nobody anything");
            attributes += 1;
        }
    }
    assert_eq!(attributes, 139);
}
