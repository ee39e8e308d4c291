//! The XML Schema made from the table, held against `xmllint`: what the checker accepts, an editor accepts too.

use agent::configuration::{read_cluster, read_module};
use model::schema::Surroundings;
use model::schema::cluster_table::CLUSTER;
use model::schema::table::{ElementRow, Kind, SAFE};
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
    let around = Surroundings { module: "app", cluster: None, subnets: &[], others: &[] };
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
        let fine = if of_cluster { read_cluster(&bytes, "x").value.is_some() } else { accepts(&bytes) };
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
