//! A mirror without a virtual address for its clients: HAProxy asks both nodes' health URL, as a cloud's load balancer does.

use super::{RESYNC, Stage, now_ms};
use crate::balancer::{Balancer, EVERY_MS, Mode, THRESHOLD};
use crate::packages;
use anyhow::ensure;
use std::time::Duration;

/// For the clients' new connections, and for us to see what the pair has done.
const SLACK_MS: u64 = 2_000;

/// The primary loses power, and the repaired pair is swapped: each time the clients' connections follow it.
pub(super) fn mirror(s: &Stage) -> anyhow::Result<()> {
    packages::ensure(packages::BALANCER)?;
    let port = s.app.port();
    let address = |node: &str| anyhow::Ok(format!("{}:{port}", s.cluster.addr(node)?));
    let servers = [("node1", address("node1")?), ("node2", address("node2")?)];
    let _balancer = Balancer::start(s.cluster, s.load.dir(), s.app.module(), (Mode::Tcp, port), &servers)?;
    let mut load = s.app.load_at(s.cluster, "balanced", &format!("127.0.0.1:{port}"), 2)?;
    load.wait_more(20, Duration::from_secs(30))?;
    // From the moment at which a node serves, until its probes say so, and the clients have come.
    let probed_ms = EVERY_MS * (THRESHOLD + 1) + SLACK_MS;
    let follow = |what: &str, from: u64, served: u64| {
        load.wait_more(20, Duration::from_secs(30))?;
        let (outage, most) = (load.outage_ms(from), served - from + probed_ms);
        println!(
            "      {what}: clients paused for {outage} ms; the other node was seen to serve after {} ms",
            served - from
        );
        ensure!(outage <= most, "the clients paused for {outage} ms behind the load balancer, expected at most {most}");
        anyhow::Ok(outage)
    };

    let cut = now_ms();
    s.act(&["power", "cut", &s.primary])?;
    s.state(&s.secondary, "ALONE Ready", RESYNC)?;
    follow("power cut", cut, now_ms())?;
    s.act(&["power", "on", &s.primary])?;
    s.whole()?;
    let swapped = now_ms();
    s.cluster.exec(&s.secondary, &["stead", "swap", "-m", s.app.module()])?;
    s.state(&s.primary, "PRIM Ready", RESYNC)?;
    follow("planned swap", swapped, now_ms())?;
    s.whole()?;
    load.stop()?;
    ensure!(load.unexpected_moves(2) == 0, "the load balancer sent clients to both nodes in turn");
    let (acknowledged, lost) = load.check(s.cluster)?;
    ensure!(
        acknowledged > 0 && lost == 0,
        "{lost} of {acknowledged} entries are lost that came through the load balancer"
    );
    Ok(())
}
