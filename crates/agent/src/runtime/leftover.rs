//! What still runs of a module that gets no loop (its configuration cannot be read, its cluster is another) is ended: nobody
//! would watch it here, and the other node would wait for ever for a node that lives and says nothing.
//!
//! In the order of a stop by force: application, data plane, its mounts, virtual IPs. The covers stay: nobody writes behind
//! anybody's back. **Invariant:** only what is this module's is touched: its control groups, the mounts of its data plane, its addresses.

use super::agent::Agent;
use super::instance::ModulePlaces;
use crate::cluster_config::causes;
use crate::modules::Active;
use model::ModuleName;
use platform::mounts::FSTYPE;
use platform::process::cgroup::ModuleCgroup;
use std::path::PathBuf;
use std::time::Duration;

/// Between the request to end and force.
const GRACE: Duration = Duration::from_secs(5);
/// A killed process is gone within this, unless the kernel holds it.
const KILLED: Duration = Duration::from_secs(5);

/// Ends it. `None`: nothing of it ran. Otherwise what an operator is to read; the configuration is not needed for it, but tells
/// the addresses.
pub(super) async fn end(agent: &Agent, module: &ModuleName, active: Option<&Active>) -> Option<String> {
    let places = ModulePlaces::of(agent, module);
    let (application, plane) = (agent.application_group(module), agent.plane_group(module));
    let mounts = mounts_of(module);
    let lives = |group: &Option<ModuleCgroup>| group.as_ref().is_some_and(|group| !group.is_empty().unwrap_or(true));
    if !places.running().exists() && mounts.is_empty() && !lives(&plane) {
        return None;
    }
    let mut stays = Vec::new();
    let ended = tokio::task::spawn_blocking(move || {
        let mut stays = Vec::new();
        for (group, grace) in [(application, GRACE), (plane, Duration::ZERO)] {
            if let Some(Err(error)) = group.map(|group| group.end(grace, KILLED)) {
                stays.push(causes(&error));
            }
        }
        for dir in mounts {
            if let Err(error) = platform::mounts::remove_dead(&dir) {
                stays.push(causes(&error));
            }
        }
        stays
    });
    match ended.await {
        Ok(found) => stays.extend(found),
        Err(error) => stays.push(error.to_string()),
    }
    for vip in active.iter().flat_map(|active| &active.configuration.vips) {
        if let Err(error) = agent.network.vip_down(vip.addr).await {
            stays.push(causes(&error));
        }
    }
    if let Some(active) = active {
        agent.forget(active.id);
    }
    if !stays.is_empty() {
        return Some(format!("what ran of it could not be ended: {}", stays.join("; ")));
    }
    // The next loop begins in STOP.
    for mark in [places.running(), places.run.join("scripts"), places.run.join("serving")] {
        let _ = std::fs::remove_file(mark);
    }
    Some("what ran of it on this node was ended".to_string())
}

/// Where a data plane of this module serves, by the mount table.
fn mounts_of(module: &ModuleName) -> Vec<PathBuf> {
    let source = format!("stead:{module}");
    let all = platform::mounts::list().unwrap_or_default();
    all.into_iter().filter(|it| it.fstype == FSTYPE && it.source == source).map(|it| it.mountpoint).collect()
}
