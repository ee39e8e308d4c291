//! The probing client, and what it saw.

use crate::app::Acknowledged;
use crate::cluster::Cluster;
use crate::shell::wait_for;
use anyhow::Context;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

/// Entries by which a service is believed to be back.
const ENOUGH: usize = 30;

/// Runs until it is dropped.
pub struct Probe {
    dir: PathBuf,
    child: Child,
}

impl Probe {
    /// Starts it, and waits until it is answered.
    pub fn start(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("stead-probe-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("running"), "")?;
        let [ledger, record, running] =
            [cluster.programs().join("stead-ledger"), dir.join("record"), dir.join("running")]
                .map(|path| path.to_string_lossy().into_owned());
        let to = format!("{}:8080", cluster.vip);
        let client = format!("{name}-{}", crate::stories::now_ms());
        let arguments =
            [ledger.as_str(), "probe", "--to", &to, "--name", &client, "--record", &record, "--while-exists", &running];
        let child = cluster.spawn("client", &arguments, &dir.join("log"))?;
        let probe = Self { dir, child };
        wait_for("the probe is answered", Duration::from_secs(30), || {
            Ok((probe.seen()?.len() >= ENOUGH).then_some(()))
        })?;
        Ok(probe)
    }

    fn seen(&self) -> anyhow::Result<Vec<Acknowledged>> {
        let text = std::fs::read_to_string(self.dir.join("record")).unwrap_or_default();
        let mut seen: Vec<Acknowledged> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        seen.sort_by_key(|it| it.at_ms);
        Ok(seen)
    }

    /// The longest time between two acknowledgements of which the later one came after `since_ms`; waits until enough
    /// came after `struck_ms` (from another node than `not_from`).
    pub fn outage_ms(&self, since_ms: u64, struck_ms: u64, not_from: Option<&str>) -> anyhow::Result<f64> {
        wait_for("the service is back", Duration::from_secs(60), || {
            let back =
                self.seen()?.iter().filter(|it| it.at_ms > struck_ms && Some(it.node.as_str()) != not_from).count();
            Ok((back >= ENOUGH).then_some(()))
        })?;
        let seen = self.seen()?;
        let gaps = seen.windows(2).filter(|pair| pair[1].at_ms >= since_ms).map(|pair| pair[1].at_ms - pair[0].at_ms);
        Ok(gaps.max().context("nothing was acknowledged")? as f64)
    }

    /// Which node answered last.
    pub fn serving(&self) -> anyhow::Result<String> {
        Ok(self.seen()?.last().context("nothing was acknowledged")?.node.clone())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.dir.join("running"));
        if wait_for("the probe ends", Duration::from_secs(5), || Ok(self.child.try_wait()?)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
