//! Stories of the witness itself: left out, taken in again, and a spare in its place.

use super::{SOON, Stage};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::process::Child;
use std::time::Duration;

/// The witness is taken out of `cluster.xml` under load, and put back: at each moment somebody may arbitrate, never two (R16).
pub(super) fn leaves_and_returns(s: &Stage) -> anyhow::Result<()> {
    let arbiter = |wanted: &str| both_say(s, "arbiter", wanted, SOON);
    let configure = |script: &str| s.cluster.exec(&s.secondary, &["sh", "-c", script]).map(drop);
    arbiter("witness")?;
    configure(
        "stead cluster config > /run/with.xml && grep -v '<witness' /run/with.xml > /run/without.xml && stead cluster config /run/without.xml",
    )?;
    arbiter("proof")?;
    s.serving()?;
    s.act(&["power", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    s.act(&["power", "on", &s.primary])?;
    s.whole()?;
    configure("stead cluster config /run/with.xml")?;
    arbiter("witness")?;
    s.serving()?;
    // The other one serves now, and is cut off: only with the witness's word may this one take its place.
    s.act(&["link", "cut", &s.secondary])?;
    s.state(&s.primary, "ALONE Ready", SOON)?;
    s.serving()?;
    s.act(&["link", "heal", &s.secondary])?;
    s.whole()?;
    ensure!(s.moves() == 2, "{} moves of the service, expected 2", s.moves());
    Ok(())
}

/// The witness loses power, and the pair goes over to a spare: with its word alone the secondary takes the place of a primary that is
/// cut off. The first one returns and stays a spare, until the other leaves.
pub(super) fn spare(s: &Stage) -> anyhow::Result<()> {
    let spare = Spare::join(s)?;
    votes(s, "witness", SOON)?;
    s.act(&["power", "cut", "witness"])?;
    votes(s, "spare", 3 * SOON)?;
    s.serving()?;
    s.act(&["link", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", SOON)?;
    s.serving()?;
    s.act(&["link", "heal", &s.primary])?;
    s.act(&["power", "on", "witness"])?;
    s.whole()?;
    s.serving()?;
    votes(s, "spare", Duration::ZERO)?;
    spare.leave(s)?;
    votes(s, "witness", SOON)?;
    ensure!(s.moves() == 1, "{} moves of the service, expected 1", s.moves());
    Ok(())
}

/// Both nodes go by the word of this one.
fn votes(s: &Stage, name: &str, within: Duration) -> anyhow::Result<()> {
    both_say(s, "voter", name, within)
}

/// This stands in what both nodes show of the module.
fn both_say(s: &Stage, what: &str, wanted: &str, within: Duration) -> anyhow::Result<()> {
    let says = |node| s.cluster.view(node, s.app.module()).is_some_and(|view| view[what] == wanted);
    wait_for(&format!("{what} '{wanted}' on both nodes"), within, || Ok((says("node1") && says("node2")).then_some(())))
}

/// A second `stead witness`, on the clients' machine.
struct Spare(Child);

impl Spare {
    fn join(s: &Stage) -> anyhow::Result<Self> {
        let log = s.load.dir().join("spare.log");
        let witness =
            Self(s.cluster.spawn("client", &["sh", "-c", "echo $$ > /run/spare.pid; exec stead witness"], &log)?);
        wait_for("the second witness", SOON, || {
            Ok(s.cluster.try_exec("client", &["test", "-S", "/run/stead/agent.sock"])?.status.success().then_some(()))
        })?;
        let said = s.cluster.exec("node1", &["stead", "cluster", "token", "--json"])?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let token = said["token"].as_str().context("a token")?;
        let own = s.cluster.addr("client")?;
        let join =
            ["stead", "cluster", "join", "10.0.1.1", "--token", token, "--witness", "--name", "spare", "--addr", &own];
        s.cluster.exec("client", &join)?;
        Ok(witness)
    }

    /// Its line goes; it is not asked.
    fn leave(mut self, s: &Stage) -> anyhow::Result<()> {
        s.cluster.exec("client", &["sh", "-c", "kill $(cat /run/spare.pid)"])?;
        self.0.wait()?;
        let script =
            "stead cluster config | grep -v 'name=\"spare\"' > /run/one.xml && stead cluster config /run/one.xml";
        s.cluster.exec(&s.secondary, &["sh", "-c", script]).map(drop)
    }
}
