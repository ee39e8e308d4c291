//! An agent that cannot start (a damaged file, a full disk) is begun again and again; what its modules replicate is served by nobody here
//! meanwhile: nothing answers since the lease is over, and the link has ended ([`AGENTLESS_MS`]).
//!
//! Then their virtual IPs are given back: they were all that could keep the other node from serving when somebody tells it to.
//! **Invariant:** only for modules with replicated directories (what else runs here serves its clients without an agent), and never
//! beside an agent that lives.

use crate::modules::Store;
use crate::places::Places;
use model::api::LogLevel;
use model::limits::AGENTLESS_MS;
use platform::net::Network;
use std::path::PathBuf;
use std::time::Duration;

/// Between two attempts to start.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Since when no agent could start in this boot.
fn mark(places: &Places) -> PathBuf {
    places.run.join("cannot-start")
}

/// An agent runs.
pub(super) fn is_over(places: &Places) {
    let _ = std::fs::remove_file(mark(places));
}

/// One more that could not start.
pub(super) async fn again(places: &Places) {
    let now_ms = platform::clock::boot_ms();
    let since_ms = std::fs::read_to_string(mark(places)).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let Some(since_ms) = since_ms else {
        if let Err(error) = std::fs::write(mark(places), now_ms.to_string()) {
            tracing::error!(%error, "since when no agent could start is not known");
        }
        return;
    };
    let one_lives = tokio::net::UnixStream::connect(places.agent_socket()).await.is_ok();
    if one_lives || now_ms.saturating_sub(since_ms) < AGENTLESS_MS {
        return;
    }
    let Ok(network) = Network::open() else { return };
    let store = Store::new(places.etc.join("modules"), places.var.join("modules"));
    for active in store.list().into_iter().filter_map(|it| store.active(&it.name).ok()) {
        if active.configuration.rfs.is_none() {
            continue;
        }
        for vip in &active.configuration.vips {
            let said = match network.vip_down(vip.addr).await {
                Ok(false) => continue,
                Ok(true) => format!(
                    "Virtual IP <{} of {}> removed: no agent could start for {} s, and nothing is answered here",
                    vip.addr,
                    active.name,
                    AGENTLESS_MS / 1000
                ),
                Err(error) => crate::cluster_config::causes(&error),
            };
            tracing::error!("{said}");
            let var = places.var.join("modules").join(active.name.as_str());
            super::chronicle::Chronicle::open(&var).line("vipplug", LogLevel::C, &said);
        }
    }
}
