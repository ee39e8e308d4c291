//! A client that sees how long nobody serves: every few milliseconds an append on a connection of its own.
//!
//! Attempts overlap, so one that hangs (a lost SYN is sent again after a second) hides nothing: the next one is on its way.

use crate::client::{Acknowledged, request};
use crate::server::{Appended, Entry};
use anyhow::Context;
use http_body_util::Full;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// An attempt that takes longer is given up. What is answered later was answered by nobody.
const PATIENCE: Duration = Duration::from_millis(400);

/// How to probe.
#[derive(clap::Args)]
pub struct Options {
    /// `IP:PORT` of the ledger.
    #[arg(long)]
    to: String,
    /// Name of this client.
    #[arg(long)]
    name: String,
    /// File that gets one JSON line per acknowledged entry.
    #[arg(long)]
    record: PathBuf,
    /// Probe while this file exists.
    #[arg(long)]
    while_exists: PathBuf,
    /// Between two attempts.
    #[arg(long, default_value_t = 10)]
    every_ms: u64,
}

/// Probes until told to end.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let record =
        std::fs::File::create(&options.record).with_context(|| format!("creating {}", options.record.display()))?;
    let (record, to) = (Arc::new(Mutex::new(record)), Arc::new(options.to));
    let mut ticks = tokio::time::interval(Duration::from_millis(options.every_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut seq = 0;
    while options.while_exists.exists() {
        ticks.tick().await;
        seq += 1;
        let (record, to) = (Arc::clone(&record), Arc::clone(&to));
        let entry = Entry { client: options.name.clone(), seq };
        // At most PATIENCE / every_ms of them live at once.
        tokio::spawn(async move {
            if let Ok(Ok(line)) = tokio::time::timeout(PATIENCE, attempt(&to, entry)).await
                && let Ok(mut record) = record.lock()
            {
                // Its reader is who started this program, and sees what is missing.
                let _ = writeln!(record, "{line}");
            }
        });
    }
    Ok(())
}

async fn attempt(to: &str, entry: Entry) -> anyhow::Result<String> {
    let post = hyper::Request::post("/append")
        .header("host", to)
        .header("content-type", "application/json")
        .body(Full::from(serde_json::to_vec(&entry)?))?;
    let node = serde_json::from_slice::<Appended>(&request(to, &mut None, post).await?)?.node;
    let at_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    Ok(serde_json::to_string(&Acknowledged { client: entry.client, seq: entry.seq, node, at_ms })?)
}
