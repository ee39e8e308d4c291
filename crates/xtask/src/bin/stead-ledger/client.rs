//! The client: appends one entry after the other and writes a line for every acknowledgement.
//!
//! A line is written only after the server answered, so the file is what the user was promised.

use crate::server::{Appended, Entry};
use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How to append.
#[derive(clap::Args)]
pub struct Options {
    /// `IP:PORT` of the ledger.
    #[arg(long)]
    pub to: String,
    /// Name of this client.
    #[arg(long)]
    name: String,
    /// File that gets one JSON line per acknowledged entry.
    #[arg(long)]
    record: PathBuf,
    /// Append while this file exists.
    #[arg(long)]
    while_exists: Option<PathBuf>,
    /// Append for so long at most.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// An answer that takes longer is given up, and the entry sent again.
    #[arg(long, default_value_t = 200)]
    timeout_ms: u64,
    /// Pause between two entries.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

/// One acknowledged entry.
#[derive(Serialize, Deserialize, Debug)]
pub struct Acknowledged {
    /// The client.
    pub client: String,
    /// The entry's number.
    pub seq: i64,
    /// Which host committed it.
    pub node: String,
    /// When, in milliseconds of the wall clock (all clients and nodes of a lab share it).
    pub at_ms: u128,
}

/// Where entries go: one kind of server.
pub trait Target {
    /// Appends one entry; the answer names the host that committed it. After an error the next call connects anew.
    async fn append(&mut self, entry: &Entry) -> anyhow::Result<String>;
    /// Forget the connection: its answer did not come.
    fn disconnect(&mut self);
}

/// Appends; ends when told. Errors of the server are no errors of the client: it tries again.
pub async fn append_all(options: &Options, target: &mut impl Target) -> anyhow::Result<()> {
    let mut record =
        std::fs::File::create(&options.record).with_context(|| format!("creating {}", options.record.display()))?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let timeout = Duration::from_millis(options.timeout_ms);
    let mut entry = Entry { client: options.name.clone(), seq: 1 };
    while Instant::now() < end && options.while_exists.as_ref().is_none_or(|f| f.exists()) {
        match tokio::time::timeout(timeout, target.append(&entry)).await {
            Ok(Ok(node)) => {
                let at_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
                let line = Acknowledged { client: entry.client.clone(), seq: entry.seq, node, at_ms };
                writeln!(record, "{}", serde_json::to_string(&line)?)?;
                entry.seq += 1;
                if options.pause_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(options.pause_ms)).await;
                }
            }
            Ok(Err(_)) => {
                target.disconnect();
                // A refused connection returns at once: do not spin while nobody serves.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(_) => target.disconnect(),
        }
    }
    Ok(())
}

struct Http<'a> {
    to: &'a str,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Target for Http<'_> {
    async fn append(&mut self, entry: &Entry) -> anyhow::Result<String> {
        let post = hyper::Request::post("/append")
            .header("host", self.to)
            .header("content-type", "application/json")
            .body(Full::from(serde_json::to_vec(entry)?))?;
        Ok(serde_json::from_slice::<Appended>(&request(self.to, &mut self.connection, post).await?)?.node)
    }
    fn disconnect(&mut self) {
        self.connection = None;
    }
}

/// The client of the SQLite ledger.
pub async fn run(options: Options) -> anyhow::Result<()> {
    append_all(&options, &mut Http { to: &options.to, connection: None }).await
}

/// One request; the connection is kept for the next one.
pub async fn request(
    to: &str,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    request: hyper::Request<Full<Bytes>>,
) -> anyhow::Result<Bytes> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            let stream = tokio::net::TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (sender, task) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(task);
            sender
        }
    };
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    *connection = Some(sender);
    Ok(body)
}

/// Prints one JSON object: how many were acknowledged, which are lost.
pub async fn check(to: &str, records: &[PathBuf]) -> anyhow::Result<()> {
    compare(records, async |client: &str| {
        let get = hyper::Request::get(format!("/entries?client={client}")).header("host", to).body(Full::default())?;
        Ok(serde_json::from_slice(&request(to, &mut None, get).await?)?)
    })
    .await
}

/// Compares the records with what `entries` says a client has; exit code 1 when something is lost.
pub async fn compare(
    records: &[PathBuf],
    entries: impl AsyncFn(&str) -> anyhow::Result<Vec<i64>>,
) -> anyhow::Result<()> {
    let (mut acknowledged, mut lost) = (0u64, Vec::new());
    for path in records {
        let lines =
            std::io::BufReader::new(std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?);
        let recorded = lines
            .lines()
            .map(|l| Ok(serde_json::from_str::<Acknowledged>(&l?)?))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let Some(first) = recorded.first() else {
            continue;
        };
        let present = tokio::time::timeout(Duration::from_secs(30), entries(&first.client))
            .await
            .context("the ledger did not answer in 30 s")??;
        let present: HashSet<i64> = present.into_iter().collect();
        acknowledged += recorded.len() as u64;
        lost.extend(recorded.into_iter().filter(|e| !present.contains(&e.seq)));
    }
    println!("{}", serde_json::json!({"acknowledged": acknowledged, "lost": lost.len(), "first_lost": lost.first()}));
    if !lost.is_empty() {
        std::process::exit(1);
    }
    Ok(())
}
