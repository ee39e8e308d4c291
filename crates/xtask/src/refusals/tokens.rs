//! Wrong tokens at `stead cluster join`, in a lab whose agents belong to no cluster.

use super::{Check, SOON, Site, rfs, vip, write_module};
use crate::cluster::Cluster;
use crate::shell::Output;
use anyhow::{Context, ensure};

pub(super) const CHECKS: &[Check] = &[
    ("tokens: typo, foreign, name taken, already in a cluster", tokens),
    ("a third node beside a mirror; a dead machine's place taken at another address", third_node),
    ("a primary that was cut off and replaced gives its address back", replaced_primary),
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

impl Unpaired {
    fn stead_ok(&self, node: &str, words: &[&str]) -> anyhow::Result<String> {
        self.0.exec(node, &[&["stead"], words].concat())
    }

    fn token(&self) -> anyhow::Result<String> {
        token_in(&self.ok("node1", &["token"])?)
    }

    /// node1 and node2, and a module that node1 or node2 leads; a third machine belongs to nobody.
    fn pair(&self, site: &Site, service: &str, leads: &str) -> anyhow::Result<()> {
        let first = token_in(&self.ok("node1", &["init", "--name", "node1", "--addr", "10.0.1.1"])?)?;
        self.ok("node2", &["join", "10.0.1.1", "--token", &first, "--name", "node2", "--addr", "10.0.1.2"])?;
        for node in ["node1", "node2", "node3"] {
            self.0.exec(node, &["mkdir", "-p", "/srv/stead/data"])?;
        }
        write_module(&site.folder, "kept", service, &[])?;
        self.stead_ok("node1", &["module", "install", &site.folder.join("kept").to_string_lossy()])?;
        self.stead_ok("node1", &["config", "-m", "kept"])?;
        let follows = if leads == "node1" { "node2" } else { "node1" };
        self.stead_ok(leads, &["prim", "-m", "kept"])?;
        self.stead_ok(follows, &["start", "-m", "kept"])?;
        self.0.wait_states("kept", &[(leads, "PRIM Ready"), (follows, "SECOND Ready")], SOON)
    }

    /// node3 takes the place of node2, which does not answer, and follows node1.
    fn replace(&self) -> anyhow::Result<()> {
        let place =
            ["join", "10.0.1.1", "--token", &self.token()?, "--name", "node2", "--addr", "10.0.1.3", "--replace"];
        self.ok("node3", &place)?;
        self.stead_ok("node1", &["module", "export", "-m", "kept", "--to", "node2"])?;
        self.stead_ok("node3", &["start", "-m", "kept"])?;
        self.0.wait_states("kept", &[("node1", "PRIM Ready"), ("node3", "SECOND Ready")], SOON)
    }
}

/// A join never takes away what runs; and who takes the place of a dead machine is found where it is.
fn third_node(site: &Site) -> anyhow::Result<()> {
    let arguments = ["--no-pairing", "--nodes", "3", "--disk", "256"];
    let lab = Unpaired(Cluster::up(site.cluster.programs(), "refusals3", &arguments)?);
    lab.pair(site, &rfs("/srv/stead/data"), "node1")?;
    lab.stays_out("node3", "node3", &lab.token()?, &["kept runs on node1, node2", "heartbeat"])?;
    ensure!(lab.0.state("node1", "kept") == "PRIM Ready", "a join that was refused ended what ran");
    ensure!(!lab.ok("node1", &["confinfo"])?.contains("node3"), "it is a member all the same");
    lab.0.act(&["power", "cut", "node2"])?;
    lab.0.wait_states("kept", &[("node1", "ALONE Ready")], SOON)?;
    lab.0.exec("node1", &["sh", "-c", "echo kept > /srv/stead/data/f; sync /srv/stead/data/f"])?;
    lab.replace()?;
    lab.0.exec("node3", &["grep", "-q", "kept", "/srv/stead/data/f"]).map(drop)
}

/// A primary is only cut off, and another machine gets its place: when its network works again it gives the address back.
fn replaced_primary(site: &Site) -> anyhow::Result<()> {
    let arguments = ["--no-pairing", "--nodes", "3", "--disk", "256", "--witness"];
    let lab = Unpaired(Cluster::up(site.cluster.programs(), "refusals4", &arguments)?);
    let service = format!("{}{}", vip("10.0.1.150"), rfs("/srv/stead/data"));
    lab.pair(site, &service, "node2")?;
    lab.ok("witness", &["join", "10.0.1.1", "--token", &lab.token()?, "--witness", "--name", "w"])?;
    // The witness grants nothing before both have spoken to it.
    crate::shell::wait_for("the witness knows both", SOON, || {
        let told = lab.stead_ok("node1", &["state", "-v", "-m", "kept"])?;
        Ok((!told.contains("L3")).then_some(()))
    })?;
    lab.0.act(&["link", "cut", "node2"])?;
    lab.0.wait_states("kept", &[("node1", "ALONE Ready")], SOON)?;
    lab.replace()?;
    let holds = || lab.0.exec("node2", &["ip", "-o", "addr", "show", "to", "10.0.1.150"]).map(|told| !told.is_empty());
    ensure!(holds()?, "the primary that was cut off does not hold the address: nothing to give back");
    lab.0.act(&["link", "heal", "node2"])?;
    lab.0.wait_states("kept", &[("node2", "WAIT NotReady")], SOON)?;
    let told = lab.stead_ok("node2", &["state", "-v", "-m", "kept"])?;
    ensure!(told.contains("no longer a member"), "it says: {told}");
    ensure!(!holds()?, "it keeps the address");
    ensure!(lab.0.state("node1", "kept") == "PRIM Ready", "the pair that serves was disturbed");
    Ok(())
}
