//! Programs are killed or replaced while the application works: it must not notice more than a pause.

use crate::app::{App, Load};
use crate::build;
use crate::cluster::Cluster;
use crate::packages;
use crate::stories::now_ms;
use anyhow::ensure;
use std::path::Path;
use std::time::Duration;

/// What is done to the programs of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// `kill -9` of the data plane where the application runs.
    Primary,
    /// The same on the other node.
    Secondary,
    /// `kill -9` of the agent where the application runs.
    Agent,
    /// A new program is put in the place of the old one and the agent is restarted, as an upgrade does.
    Program,
}

impl Blow {
    const fn what(self) -> &'static str {
        match self {
            Self::Primary => "mirrorfs of the primary killed",
            Self::Secondary => "mirrorfs of the secondary killed",
            Self::Agent => "agent of the primary killed",
            Self::Program => "program of the primary replaced",
        }
    }

    fn strike(self, cluster: &Cluster, primary: &str, secondary: &str) -> anyhow::Result<()> {
        let (node, program) = match self {
            Self::Primary => (primary, "stead mirrorfs"),
            Self::Secondary => (secondary, "stead mirrorfs"),
            Self::Agent => (primary, "stead agent"),
            Self::Program => {
                replace(&cluster.programs().join("stead"))?;
                (primary, "stead agent")
            }
        };
        cluster.exec(node, &["pkill", "-KILL", "-f", program]).map(drop)
    }
}

/// The same bytes in a new file, in one step: to the kernel, another program.
pub fn replace(program: &Path) -> anyhow::Result<()> {
    let next = program.with_extension("next");
    std::fs::copy(program, &next)?;
    Ok(std::fs::rename(next, program)?)
}

/// Strikes so often, each time a whole pair under load; the application must go on where it runs, unharmed. Gives the
/// longest pause between two acknowledgements of each blow, in milliseconds.
pub fn strike(cluster: &Cluster, app: App, load: &Load, blow: Blow, times: u32) -> anyhow::Result<Vec<u64>> {
    let mut pauses = Vec::new();
    for _ in 0..times {
        let (primary, secondary) = cluster.wait_whole(app.module(), Duration::from_secs(90))?;
        load.wait_more(20, Duration::from_secs(30))?;
        let before = application(cluster, app, &primary)?;
        let data_plane = data_plane(cluster, &primary)?;
        let at = now_ms();
        blow.strike(cluster, &primary, &secondary)?;
        load.wait_more(50, Duration::from_secs(30))?;
        if matches!(blow, Blow::Primary | Blow::Program) {
            crate::shell::wait_for("another process serves", Duration::from_secs(30), || {
                Ok((self::data_plane(cluster, &primary)? != data_plane).then_some(()))
            })?;
            load.wait_more(20, Duration::from_secs(30))?;
        }
        let (after, _) = cluster.wait_whole(app.module(), Duration::from_secs(90))?;
        ensure!(after == primary, "{}: the service moved from {primary} to {after}", blow.what());
        ensure!(
            application(cluster, app, &primary)? == before,
            "{}: the application was restarted on {primary}",
            blow.what()
        );
        pauses.push(load.outage_ms(at));
    }
    println!("      {} {times} times, pauses in ms: {pauses:?}", blow.what());
    Ok(pauses)
}

/// Identity of the application's first process: another one after it was restarted.
fn application(cluster: &Cluster, app: App, node: &str) -> anyhow::Result<String> {
    match app {
        App::Postgresql => cluster.exec(node, &["pgrep", "-o", "-x", "postgres"]),
        App::Ledger => cluster.exec(node, &["pgrep", "-of", "stead-ledger serve"]),
    }
}

fn data_plane(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    Ok(cluster.try_exec(node, &["pgrep", "-f", "stead mirrorfs"])?.stdout)
}

/// `cargo xtask soak --handover`: so many blows of each kind.
pub fn soak(times: u32, app: App, release: bool) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::POSTGRESQL)?;
    let programs = build::programs(release)?;
    let cluster = Cluster::up(&programs, "handover", &[])?;
    app.install(&cluster)?;
    let mut load = app.load(&cluster, "handover", 2)?;
    let mut worst = 0;
    for blow in [Blow::Primary, Blow::Agent, Blow::Secondary, Blow::Program] {
        let pauses = strike(&cluster, app, &load, blow, times).inspect_err(|_| cluster.print_logs(app.module()))?;
        worst = worst.max(pauses.into_iter().max().unwrap_or(0));
    }
    load.stop()?;
    let (acknowledged, lost) = load.check(&cluster)?;
    ensure!(lost == 0, "{lost} of {acknowledged} acknowledged entries are lost");
    if app == App::Postgresql {
        app.sql(&cluster, "checkpoint")?;
    }
    cluster.compare_trees(app.module(), app.dir())?;
    println!("\nblows {}, acknowledged {acknowledged}, lost 0, trees equal, longest pause {worst} ms", times * 4);
    Ok(())
}
