//! Wrong tokens at `stead cluster join`, in a lab whose agents belong to no cluster.

use super::{Check, SOON, Site, rfs, write_module};
use crate::cluster::Cluster;
use crate::shell::Output;
use anyhow::{Context, ensure};

pub(super) const CHECKS: &[Check] = &[
    ("tokens: typo, foreign, name taken, already in a cluster", tokens),
    ("a third node beside a mirror; a dead machine's place taken at another address", third_node),
];

struct Unpaired(Cluster);

impl Unpaired {
    fn stead(&self, node: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut all = vec!["stead", "cluster"];
        all.extend(arguments);
        self.0.try_exec(node, &all)
    }

    fn ok(&self, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.stead(node, arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}{}", output.stdout, output.stderr);
        Ok(output.stdout)
    }

    fn refused(&self, node: &str, arguments: &[&str], words: &[&str]) -> anyhow::Result<()> {
        let output = self.stead(node, arguments)?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}{}", output.stdout, output.stderr);
        for word in words {
            ensure!(output.stderr.contains(word), "{arguments:?} does not say '{word}': {}", output.stderr);
        }
        Ok(())
    }

    /// `join` with this token, refused with these words.
    fn stays_out(&self, node: &str, name: &str, token: &str, words: &[&str]) -> anyhow::Result<()> {
        let addr = format!("10.0.1.{}", node.trim_start_matches("node"));
        self.refused(node, &["join", "10.0.1.1", "--token", token, "--name", name, "--addr", &addr], words)
    }
}

/// The one word in it that is a token.
fn token_in(text: &str) -> anyhow::Result<String> {
    text.split_whitespace().find(|w| w.len() == 56).map(str::to_string).with_context(|| format!("no token in: {text}"))
}

fn tokens(site: &Site) -> anyhow::Result<()> {
    let lab = Unpaired(Cluster::up(
        site.cluster.programs(),
        "refusals2",
        &["--no-pairing", "--nodes", "3", "--disk", "256"],
    )?);
    lab.stays_out("node2", "node2", "short", &["token", "stead cluster token"])?;
    let first = token_in(&lab.ok("node1", &["init", "--name", "node1", "--addr", "10.0.1.1"])?)?;
    lab.refused("node1", &["init", "--name", "node1", "--addr", "10.0.1.1"], &["already"])?;
    let mut typo = first.clone().into_bytes();
    typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
    lab.stays_out("node2", "node2", &String::from_utf8(typo)?, &["typing error"])?;
    // A token of another cluster: right in itself, and nobody's here.
    let foreign = token_in(&lab.ok("node3", &["init", "--name", "node3", "--addr", "10.0.1.3"])?)?;
    lab.stays_out("node2", "node2", &foreign, &["stead cluster token"])?;
    lab.stays_out("node3", "node3", &first, &["already"])?;
    lab.stays_out("node2", "node1", &first, &["node1"])?;
    lab.ok("node2", &["join", "10.0.1.1", "--token", &first, "--name", "node2", "--addr", "10.0.1.2"])?;
    let used = lab.stead("client", &["state"])?;
    ensure!(used.status.code() == Some(100), "the client has an agent");
    lab.refused(
        "node2",
        &["join", "10.0.1.1", "--token", &foreign, "--name", "node2", "--addr", "10.0.1.2"],
        &["already"],
    )?;
    lab.ok("node1", &["state"]).map(drop)
}

/// A join never takes away what runs; and who takes the place of a dead machine is found where it is.
fn third_node(site: &Site) -> anyhow::Result<()> {
    let arguments = ["--no-pairing", "--nodes", "3", "--disk", "256"];
    let lab = Unpaired(Cluster::up(site.cluster.programs(), "refusals3", &arguments)?);
    let (ok, token) = (
        |node: &str, words: &[&str]| lab.0.exec(node, &[&["stead"], words].concat()),
        || token_in(&lab.ok("node1", &["token"])?),
    );
    let first = token_in(&lab.ok("node1", &["init", "--name", "node1", "--addr", "10.0.1.1"])?)?;
    lab.ok("node2", &["join", "10.0.1.1", "--token", &first, "--name", "node2", "--addr", "10.0.1.2"])?;
    for node in ["node1", "node2", "node3"] {
        lab.0.exec(node, &["mkdir", "-p", "/srv/stead/data"])?;
    }
    write_module(&site.folder, "kept", &rfs("/srv/stead/data"), &[])?;
    ok("node1", &["module", "install", &site.folder.join("kept").to_string_lossy()])?;
    ok("node1", &["config", "-m", "kept"])?;
    ok("node1", &["prim", "-m", "kept"])?;
    ok("node2", &["start", "-m", "kept"])?;
    lab.0.wait_states("kept", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")], SOON)?;
    lab.stays_out("node3", "node3", &token()?, &["kept runs on node1, node2", "heartbeat"])?;
    ensure!(lab.0.state("node1", "kept") == "PRIM Ready", "a join that was refused ended what ran");
    ensure!(!lab.ok("node1", &["confinfo"])?.contains("node3"), "it is a member all the same");
    lab.0.act(&["power", "cut", "node2"])?;
    lab.0.wait_states("kept", &[("node1", "ALONE Ready")], SOON)?;
    lab.0.exec("node1", &["sh", "-c", "echo kept > /srv/stead/data/f; sync /srv/stead/data/f"])?;
    let place = ["join", "10.0.1.1", "--token", &token()?, "--name", "node2", "--addr", "10.0.1.3", "--replace"];
    lab.ok("node3", &place)?;
    ok("node1", &["module", "export", "-m", "kept", "--to", "node2"])?;
    ok("node3", &["start", "-m", "kept"])?;
    lab.0.wait_states("kept", &[("node1", "PRIM Ready"), ("node3", "SECOND Ready")], SOON)?;
    lab.0.exec("node3", &["grep", "-q", "kept", "/srv/stead/data/f"]).map(drop)
}
