//! A data plane as the agent drives it: one `stead mirrorfs` process, orders in, reports out.

use super::stage::{Disk, Running, Stage, start};
use crate::shell::wait_for;
use anyhow::{Context, bail};
use model::ids::{DataId, Epoch, ModuleName, NodeId};
use model::orders::{
    AckPolicy, AsyncPolicy, Begin, Configuration, ORDERS_VERSION, Order, Progress, ReplicatedDir, Report, Session,
};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(120);
const DATA: DataId = DataId(42);

/// What names the two nodes of one pair.
pub struct Place<'a> {
    /// Where it happens.
    pub stage: &'a Stage,
    /// The program that is measured.
    pub stead: PathBuf,
    /// Certificates: `NAME/{ca,cert,key}.pem`.
    pub tls: PathBuf,
}

/// TLS names of the two nodes.
pub const NAMES: [&str; 2] = ["a.bench.stead", "b.bench.stead"];

/// A `mirrorfs` process and its agent's end of the socket.
pub struct Plane {
    /// Its process, and what must not outlive it.
    pub process: Running,
    /// Its disk.
    pub disk: Disk,
    writer: Arc<Mutex<UnixStream>>,
    reports: Receiver<Report>,
    seen: Vec<Report>,
}

impl Plane {
    /// Node 0 leads, node 1 follows; `port` is the pair's.
    pub fn start(place: &Place<'_>, node: usize, disk: Disk, port: u16, ack: AckPolicy) -> anyhow::Result<Self> {
        let socket = disk.root.join("socket");
        let mut command = place.stage.on(node, &place.stead);
        command.args(["mirrorfs", "--socket"]).arg(&socket).env("STEAD_LOG", "warn,mirrorfs::behind=info");
        let process = Running(start(&mut command, Some(&disk.root.join("log")))?);
        let stream = wait_for("mirrorfs listens", Duration::from_secs(30), || Ok(UnixStream::connect(&socket).ok()))?;
        let (tell, reports) = channel();
        let reader = BufReader::new(stream.try_clone()?);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Report::Counters { .. } | Report::Progress { .. }) => {}
                    Ok(report) => {
                        if tell.send(report).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        });
        let writer = Arc::new(Mutex::new(stream));
        let leasing = Arc::downgrade(&writer);
        std::thread::spawn(move || {
            while let Some(writer) = leasing.upgrade() {
                if send(&writer, &Order::Lease { valid_ms: 20_000 }).is_err() {
                    return;
                }
                drop(writer);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let mut plane = Self { process, disk, writer, reports, seen: Vec::new() };
        plane.reach(&Order::Configure { configuration: plane.configuration(place, node, port, ack) })?;
        Ok(plane)
    }

    fn configuration(&self, place: &Place<'_>, node: usize, port: u16, ack: AckPolicy) -> Configuration {
        let text = |path: PathBuf| path.display().to_string();
        let tls = place.tls.join(NAMES[node]);
        Configuration {
            version: ORDERS_VERSION,
            module: ModuleName::new("bench").expect("a valid name"),
            dirs: vec![ReplicatedDir {
                path: text(self.disk.data.clone()),
                tocheck: vec![],
                notreplicated: vec![],
                notreplicated_names: vec![],
            }],
            state_dir: text(self.disk.root.join("state")),
            quarantine_dir: text(self.disk.root.join("quarantine")),
            tls_ca: text(tls.join("ca.pem")),
            tls_cert: text(tls.join("cert.pem")),
            tls_key: text(tls.join("key.pem")),
            peer_name: NAMES[1 - node].into(),
            peer_number: String::new(),
            peer_certificate: String::new(),
            peer_addrs: vec![format!("10.99.0.{}:{port}", 2 - node)],
            listen_addrs: vec![format!("10.99.0.{}:{port}", 1 + node)],
            ack,
            sync: AsyncPolicy::None,
            resync_bytes_per_s: 0,
            silent_ms: model::limits::LOST_MS,
            idle_poll: true,
        }
    }

    /// Gives an order.
    pub fn order(&self, order: &Order) -> anyhow::Result<()> {
        send(&self.writer, order)
    }

    /// Waits for a report; a complaint ends the benchmark.
    pub fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Report) -> Option<T>) -> anyhow::Result<T> {
        if let Some((at, found)) = self.seen.iter().enumerate().find_map(|(i, r)| Some((i, wanted(r)?))) {
            self.seen.remove(at);
            return Ok(found);
        }
        let until = Instant::now() + DEADLINE;
        loop {
            let report = self
                .reports
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .with_context(|| format!("waiting for {what}; reported so far: {:?}", self.seen))?;
            if let Some(found) = wanted(&report) {
                return Ok(found);
            }
            if matches!(
                report,
                Report::Refused { .. }
                    | Report::PeerFault { .. }
                    | Report::LocalFault { .. }
                    | Report::PeerStalled { .. }
            ) {
                bail!("waiting for {what}, mirrorfs says: {report:?}");
            }
            self.seen.push(report);
        }
    }

    /// Gives an order and waits until it is followed.
    pub fn reach(&mut self, order: &Order) -> anyhow::Result<()> {
        self.seen.retain(|r| !matches!(r, Report::Reached { .. }));
        self.order(order)?;
        self.wait(&format!("{order:?}"), |r| matches!(r, Report::Reached { .. } | Report::Synced { .. }).then_some(()))
    }

    /// Serves without a peer.
    pub fn alone(&mut self, counter: u64, stamp: bool) -> anyhow::Result<()> {
        self.reach(&Order::ServeAlone { epoch: epoch(counter), data_id: DATA, stamp, fresh_map: true })
    }

    /// The last look for changes behind a stopped module's back: entries, and milliseconds it took.
    pub fn scanned(&self) -> Option<(f64, f64)> {
        let log = std::fs::read_to_string(self.disk.root.join("log")).ok()?;
        let said = log.lines().rev().find_map(|line| line.split_once("without cover: ").map(|(_, said)| said))?;
        let (_, rest) = said.split_once(" of ")?;
        let entries = rest.split(' ').next()?.parse().ok()?;
        let ms = rest.rsplit_once('(')?.1.split(' ').next()?.parse().ok()?;
        Some((entries, ms))
    }

    /// Memory that is its own, in KiB. Pages of its program count as resident too, but they come and go with how short of
    /// memory the machine is.
    pub fn held_kib(&self) -> anyhow::Result<u64> {
        Ok(self.memory_kib("RssAnon:")? + self.memory_kib("RssShmem:")?)
    }

    /// Processor time it has used so far, in user space and for its system calls.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id()))?;
        let fields = stat.rsplit_once(')').context("a stat line")?.1.split_whitespace();
        // utime and stime, in hundredths of a second.
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / 100.0)
    }

    /// A line of the process's status, in KiB.
    pub fn memory_kib(&self, which: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix(which)).with_context(|| format!("no {which}"))?;
        line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{which} is a number"))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.order(&Order::Fence);
    }
}

fn epoch(counter: u64) -> Epoch {
    Epoch { counter, node: NodeId(1), random: 7 }
}

/// How the secondary came in: the whole of it, and what it cost.
pub struct Joined {
    /// From the order until both are mirrored.
    pub took: Duration,
    /// What the leader counted.
    pub progress: Progress,
}

/// `from` serves alone; `to` becomes its secondary. Both agents' parts.
pub fn join(from: &mut Plane, to: &mut Plane, (counter, number): (u64, u64), begin: Begin) -> anyhow::Result<Joined> {
    let session = Session { epoch: epoch(counter), number };
    let started = Instant::now();
    to.reach(&Order::Follow { session, begin, data_id: DATA, lost: None })?;
    from.order(&Order::Lead { session, begin })?;
    from.wait("the resync is through", |r| {
        matches!(r, Report::ResyncThrough { session: s } if *s == session).then_some(())
    })?;
    from.order(&Order::SendCommit { session })?;
    to.wait("COMMIT", |r| matches!(r, Report::CommitReceived { session: s } if *s == session).then_some(()))?;
    to.order(&Order::ConfirmCommit { session })?;
    let progress = from.wait("COMMITTED", |r| match r {
        Report::Committed { session: s, progress } if *s == session => Some(*progress),
        _ => None,
    })?;
    Ok(Joined { took: started.elapsed(), progress })
}

fn send(writer: &Mutex<UnixStream>, order: &Order) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(&line)?;
    Ok(())
}
