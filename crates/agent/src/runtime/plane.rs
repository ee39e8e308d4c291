//! The agent's end of one `mirrorfs`: starts the process, adopts a living one, carries orders and reports.
//!
//! Decides nothing. **Invariant:** orders reach the process in the order given, and none is carried over from a
//! process that died to the next one: the module's loop is told of the death and orders anew.

use model::orders::{Configuration, ORDERS_VERSION, Order, Report, Situation};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What the module's loop hears.
#[derive(Debug)]
pub enum PlaneNews {
    /// A report of the process.
    Report(Report),
    /// The process ended (or never came up) without having been told to stop.
    Died {
        /// What is known.
        reason: String,
    },
    /// The same, and its keeper became another one, with the mounts of the dead.
    Replaced {
        /// What is known.
        reason: String,
    },
    /// The process ended after [`Order::Stop`].
    Stopped,
}

enum Wanted {
    /// For the process that lives under this generation.
    Order(u64, Box<Order>),
    /// With its keeper.
    Kill,
    /// The process alone: its keeper becomes the next one, of the program that is on disk now.
    Replace,
}

/// Orders not yet written; more means that the process does not read, and it is killed.
const QUEUE: usize = 256;
/// The longest line either side sends.
const LINE_MAX: u64 = 1024 * 1024;
/// How long a new process may take until it listens.
const START: Duration = Duration::from_secs(5);
/// How long the keeper of a dead process may take until it listens in its place.
const TAKE_OVER: Duration = Duration::from_secs(3);
/// How long a killed process may take to end.
const UNKILLABLE: Duration = Duration::from_secs(2);
/// A process that lives shorter has died at once: what ends it will end the next one too.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Between two that die at once: twice as long each time, up to the second. The first death costs nobody anything.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Orders kept meanwhile for the next process; who gives more is told that it did not come.
const KEPT: usize = 64;
/// How long one order may take to be written.
const WRITE: Duration = Duration::from_secs(2);

/// How to start the process of one module.
#[derive(Clone, Debug)]
pub struct PlaneProgram {
    /// Its socket.
    pub socket: PathBuf,
    /// Its configuration.
    pub configuration: Configuration,
    /// Where its own messages go.
    pub log: PathBuf,
    /// A cgroup's `cgroup.procs` outside the agent's own, so that the process outlives the agent.
    pub cgroup: Option<PathBuf>,
}

impl PlaneProgram {
    /// Somebody is in its group.
    fn lives(&self) -> bool {
        let members = self.cgroup.as_ref().and_then(|procs| std::fs::read_to_string(procs).ok());
        members.is_some_and(|members| !members.trim().is_empty())
    }
}

/// Handle of the module's loop.
pub struct Plane {
    wanted: mpsc::Sender<Wanted>,
    generation: u64,
    task: JoinHandle<()>,
}

impl Plane {
    /// Connects to a living process; `None` when there is none, or none that answers.
    pub async fn adopt(program: &PlaneProgram) -> Option<(Connection, Situation)> {
        let deadline = Instant::now() + TAKE_OVER;
        loop {
            if let Ok(connection) = Connection::open(program).await {
                let situation = connection.situation;
                return Some((connection, situation));
            }
            // It may have died a moment ago, and its keeper not listen yet.
            if !program.lives() || Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The task that owns the process. News arrive in `news`; it ends when the handle is dropped.
    pub fn start(program: PlaneProgram, adopted: Option<Connection>, news: mpsc::Sender<PlaneNews>) -> Self {
        let (wanted, orders) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(program, adopted, orders, news));
        Self { wanted, generation: 0, task }
    }

    /// Lets the process go on by itself. When this returns nobody starts another one.
    pub async fn leave(self) {
        drop(self.wanted);
        // It is bounded by what it may be in the middle of: the start of a process.
        let _ = timeout(START + TAKE_OVER, self.task).await;
    }

    /// Gives an order. A process that reads nothing for [`QUEUE`] orders is killed.
    pub fn order(&self, order: Order) {
        if self.wanted.try_send(Wanted::Order(self.generation, Box::new(order))).is_err() {
            let _ = self.wanted.try_send(Wanted::Kill);
        }
    }

    /// The loop has heard of the process's end: what it orders from here on is meant for the next one.
    pub const fn next_generation(&mut self) {
        self.generation += 1;
    }

    /// Kills the process: the last, certain way to stop writes.
    pub fn kill(&self) {
        let wanted = self.wanted.clone();
        tokio::spawn(async move { wanted.send(Wanted::Kill).await });
    }

    /// Has another process take its place, of the program that is on disk now.
    pub fn replace(&self) {
        let wanted = self.wanted.clone();
        tokio::spawn(async move { wanted.send(Wanted::Replace).await });
    }
}

/// One connection to a living process.
pub struct Connection {
    stream: BufReader<UnixStream>,
    process: Process,
    situation: Situation,
}

/// The process at the other end, held: when it has ended, its number may be a stranger's.
struct Process {
    pid: u32,
    /// `None`: it had ended when it was to be held.
    handle: Option<OwnedFd>,
    /// Process group that it shares with its keeper.
    group: Option<u32>,
    /// `cgroup.procs` of the module's data plane.
    cgroup: Option<PathBuf>,
}

impl Process {
    fn held(pid: u32, group: Option<u32>, cgroup: Option<PathBuf>) -> Self {
        let handle = pid_of(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { pid, handle, group, cgroup }
    }

    /// Alone: its keeper becomes the next one.
    fn kill(&self) {
        if let Some(handle) = &self.handle {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }

    /// With its keeper, for certain: this is what stops writes when nothing else does.
    fn kill_all(&self) {
        let is_in_group = self.cgroup.as_deref().is_some_and(|procs| {
            let members = std::fs::read_to_string(procs).unwrap_or_default();
            let is_there = members.lines().any(|line| line.parse() == Ok(self.pid));
            is_there && std::fs::write(procs.with_file_name("cgroup.kill"), "1").is_ok()
        });
        // Without a control group (or before Linux 5.14) only a number names the keeper. It lives as long as the process does,
        // and an instant longer: that a stranger gets the number of their group in that instant is the smaller risk.
        if !is_in_group && let Some(group) = self.group.and_then(pid_of) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.kill();
    }
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

impl Connection {
    async fn open(program: &PlaneProgram) -> io::Result<Self> {
        let mut stream = BufReader::new(UnixStream::connect(&program.socket).await?);
        let adopted = timeout(Duration::from_secs(2), read(&mut stream)).await??;
        let Report::Adopted { version, pid, group, situation } = adopted else {
            return Err(io::Error::other("mirrorfs did not introduce itself"));
        };
        if version != ORDERS_VERSION {
            return Err(io::Error::other(format!("mirrorfs speaks version {version}, this agent {ORDERS_VERSION}")));
        }
        let configure = Order::Configure { configuration: program.configuration.clone() };
        write(stream.get_mut(), &configure).await?;
        Ok(Self { stream, process: Process::held(pid, group, program.cgroup.clone()), situation })
    }

    /// The process that its keeper becomes after it died; `None`: nobody does.
    async fn successor(program: &PlaneProgram, group: u32) -> Option<Self> {
        let deadline = Instant::now() + TAKE_OVER;
        while lives(group) && Instant::now() < deadline {
            // Until it listens, its predecessor's socket accepts and says nothing, or refuses.
            if let Ok(connection) = Self::open(program).await {
                return Some(connection);
            }
            sleep(Duration::from_millis(1)).await;
        }
        None
    }

    /// Runs another program than this agent, and has a keeper that can become the next one.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let program = |pid: &str| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(format!("/proc/{pid}/exe")).map(|found| (found.dev(), found.ino())).ok()
        };
        self.process.group.is_some() && program(&self.process.pid.to_string()) != program("self")
    }
}

/// Nobody serves the mounts any more: what lies below them shows again, whether the module starts anew or not.
async fn remove_dead(program: &PlaneProgram) {
    let dirs: Vec<_> = program.configuration.dirs.iter().map(|dir| PathBuf::from(&dir.path)).collect();
    let remove = move || {
        for dir in dirs {
            if let Err(error) = platform::mounts::remove_dead(&dir) {
                tracing::error!(%error, "a dead mount stays");
            }
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(remove).await {
        tracing::error!(%error, "dead mounts stay");
    }
}

/// Somebody of this process group does.
fn lives(group: u32) -> bool {
    pid_of(group).is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
}

async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Report> {
    let mut line = Vec::new();
    let mut limited = tokio::io::AsyncReadExt::take(&mut *stream, LINE_MAX);
    if limited.read_until(b'\n', &mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(|e| io::Error::other(format!("mirrorfs said what is no report: {e}")))
}

async fn write(stream: &mut UnixStream, order: &Order) -> io::Result<()> {
    let mut line = serde_json::to_vec(order).map_err(io::Error::other)?;
    line.push(b'\n');
    timeout(WRITE, stream.write_all(&line)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// How fast a process that dies may be begun again.
#[derive(Default)]
struct Pace {
    /// Deaths in a row, each at once.
    deaths: u32,
    begun: Option<Instant>,
    not_before: Option<Instant>,
}

impl Pace {
    fn begins(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    /// It ended by itself, or never came up.
    fn died(&mut self, now: Instant) {
        let is_at_once = self.begun.take().is_some_and(|begun| now.duration_since(begun) < AT_ONCE);
        self.deaths = if is_at_once { self.deaths.saturating_add(1) } else { 0 };
        let pause = match self.deaths {
            0 | 1 => Duration::ZERO,
            more => (AGAIN * 2_u32.saturating_pow(more.min(16) - 2)).min(AGAIN_MAX),
        };
        self.not_before = Some(now + pause);
    }

    /// It was told to end: nothing is known against the next one.
    fn stopped(&mut self) {
        *self = Self::default();
    }
}

/// Waits until another process may begin, with what is ordered of it meanwhile.
///
/// # Errors
/// It is not to begin: by a stop or a kill, or (`None`) because its module has no loop any more.
async fn pause(
    until: Instant,
    orders: &mut mpsc::Receiver<Wanted>,
    generation: u64,
    first: Order,
) -> Result<Vec<Order>, Option<Wanted>> {
    let mut kept = vec![first];
    loop {
        tokio::select! {
            biased;
            () = sleep_until(until) => return Ok(kept),
            wanted = orders.recv() => match wanted {
                None => return Err(None),
                Some(Wanted::Order(older, _)) if older < generation => {}
                Some(Wanted::Order(_, order)) if matches!(*order, Order::Lease { .. } | Order::Verify { .. }) => {}
                Some(Wanted::Replace) => {}
                Some(Wanted::Order(_, order)) if *order != Order::Stop && kept.len() < KEPT => kept.push(*order),
                Some(Wanted::Order(generation, order)) if *order == Order::Stop => {
                    return Err(Some(Wanted::Order(generation, order)));
                }
                Some(_) => return Err(Some(Wanted::Kill)),
            },
        }
    }
}

async fn serve(
    program: PlaneProgram,
    adopted: Option<Connection>,
    mut orders: mpsc::Receiver<Wanted>,
    news: mpsc::Sender<PlaneNews>,
) {
    let mut connection = adopted;
    let mut generation = 0;
    let mut pace = Pace::default();
    loop {
        if connection.is_none() {
            // No process: the next order starts one, and is its first.
            let order = match orders.recv().await {
                None => return,
                // What was ordered before the loop knew of the death was meant for the dead.
                Some(Wanted::Order(older, _)) if older < generation => continue,
                Some(Wanted::Order(_, order)) if *order == Order::Stop => {
                    generation += 1;
                    let _ = news.send(PlaneNews::Stopped).await;
                    continue;
                }
                // A lease holds nothing that is not there; killing nothing is done already.
                Some(Wanted::Order(_, order)) if matches!(*order, Order::Lease { .. } | Order::Verify { .. }) => {
                    continue;
                }
                Some(Wanted::Replace) => continue,
                Some(Wanted::Kill) => {
                    generation += 1;
                    let _ = news.send(PlaneNews::Died { reason: "killed".into() }).await;
                    continue;
                }
                Some(Wanted::Order(_, order)) => *order,
            };
            let kept = match pause(pace.not_before.unwrap_or_else(Instant::now), &mut orders, generation, order).await {
                Ok(kept) => kept,
                Err(None) => return,
                Err(Some(wanted)) => {
                    generation += 1;
                    let is_stop = matches!(wanted, Wanted::Order(..));
                    let killed = || PlaneNews::Died { reason: "killed before it was begun again".into() };
                    let _ = news.send(if is_stop { PlaneNews::Stopped } else { killed() }).await;
                    continue;
                }
            };
            pace.begins(Instant::now());
            match begin(&program, &kept).await {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    pace.died(Instant::now());
                    let reason = format!(
                        "cannot start {}: {error}; its messages are in {}",
                        program.socket.display(),
                        program.log.display()
                    );
                    generation += 1;
                    let _ = news.send(PlaneNews::Died { reason }).await;
                }
            }
            continue;
        }
        if let Some(open) = connection.take() {
            let group = open.process.group;
            let end = talk(open, generation, &mut orders, &news).await;
            generation += 1;
            if let (End::Died { reason, killed: false }, Some(group)) = (&end, group)
                && let Some(next) = Connection::successor(&program, group).await
            {
                connection = Some(next);
                let _ = news.send(PlaneNews::Replaced { reason: reason.clone() }).await;
                continue;
            }
            match end {
                End::Dropped => return,
                End::Stopped => {
                    pace.stopped();
                    let _ = news.send(PlaneNews::Stopped).await;
                }
                End::Died { reason, killed } => {
                    if killed {
                        pace.stopped();
                    } else {
                        pace.died(Instant::now());
                    }
                    remove_dead(&program).await;
                    let _ = news.send(PlaneNews::Died { reason }).await;
                }
            }
        }
    }
}

enum End {
    Dropped,
    Stopped,
    Died {
        reason: String,
        /// By us: nobody is to come after it.
        killed: bool,
    },
}

async fn talk(
    connection: Connection,
    generation: u64,
    orders: &mut mpsc::Receiver<Wanted>,
    news: &mpsc::Sender<PlaneNews>,
) -> End {
    let mut stopping = false;
    let mut killed = false;
    // What came together with its introduction.
    let early = std::io::Cursor::new(connection.stream.buffer().to_vec());
    let (half, mut writer) = connection.stream.into_inner().into_split();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::chain(early, half));
    // Reading a line is not safe to cancel: it has a task of its own.
    let (reports, mut reported) = mpsc::channel(QUEUE);
    let reading = tokio::spawn(async move {
        loop {
            let mut line = Vec::new();
            let mut limited = tokio::io::AsyncReadExt::take(&mut reader, LINE_MAX);
            match limited.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => match serde_json::from_slice::<Report>(&line) {
                    Ok(report) => {
                        if reports.send(report).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "mirrorfs said what is no report"),
                },
            }
        }
    });
    // One that is stuck in the kernel cannot be killed; its mounts can go all the same.
    let mut patience = None;
    let end = loop {
        tokio::select! {
            () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                let reason = format!("mirrorfs (process {}) was killed and does not end", connection.process.pid);
                break End::Died { reason, killed };
            }
            report = reported.recv() => match report {
                Some(report) => {
                    if news.send(PlaneNews::Report(report)).await.is_err() {
                        break End::Dropped;
                    }
                }
                None if stopping => break End::Stopped,
                None => break End::Died { reason: format!("mirrorfs (process {}) ended", connection.process.pid), killed },
            },
            order = orders.recv() => match order {
                None => break End::Dropped,
                Some(Wanted::Kill) => {
                    connection.process.kill_all();
                    (killed, patience) = (true, Some(Instant::now() + UNKILLABLE));
                }
                Some(Wanted::Replace) => connection.process.kill(),
                Some(Wanted::Order(older, _)) if older < generation => {}
                Some(Wanted::Order(_, order)) => {
                    stopping |= *order == Order::Stop;
                    let mut line = serde_json::to_vec(&order).unwrap_or_default();
                    line.push(b'\n');
                    if timeout(WRITE, writer.write_all(&line)).await.is_err() {
                        connection.process.kill_all();
                        (killed, patience) = (true, Some(Instant::now() + UNKILLABLE));
                    }
                }
            },
        }
    };
    reading.abort();
    end
}

async fn begin(program: &PlaneProgram, first: &[Order]) -> io::Result<Connection> {
    // A process that lives already (the agent was replaced) is adopted rather than doubled.
    let mut connection = match Connection::open(program).await {
        Ok(connection) => connection,
        Err(_) => spawn(program).await?,
    };
    for order in first {
        write(connection.stream.get_mut(), order).await?;
    }
    Ok(connection)
}

/// This program. It may have been replaced on disk: the new one has the same path.
pub(super) fn own_program() -> io::Result<String> {
    let own = std::env::current_exe()?.into_os_string().into_string().map_err(|_| io::ErrorKind::InvalidFilename)?;
    Ok(own.strip_suffix(" (deleted)").unwrap_or(&own).to_string())
}

async fn spawn(program: &PlaneProgram) -> io::Result<Connection> {
    if let Some(parent) = program.socket.parent() {
        // Sockets and locks: others must not even open them.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o700))?;
    }
    let _ = std::fs::remove_file(&program.socket);
    let log = rotate(&program.log)?;
    let mut command = Command::new(own_program()?);
    command
        .arg("mirrorfs")
        .arg("-m")
        .arg(program.configuration.module.as_str())
        .arg("--socket")
        .arg(&program.socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(false);
    let cgroup = program.cgroup.clone();
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, and open/write/close of a path
    // that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            let _ = rustix::process::setsid();
            if let Some(procs) = &cgroup {
                std::fs::write(procs, b"0")?;
            }
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + START;
    loop {
        if let Ok(connection) = Connection::open(program).await {
            // Reaped when it ends; its end is noticed by the socket.
            tokio::spawn(async move { child.wait().await });
            return Ok(connection);
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("mirrorfs ended at once ({status})")));
        }
        if Instant::now() > deadline {
            let _ = child.start_kill();
            return Err(io::Error::other(format!("mirrorfs did not listen within {START:?}")));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Opens the log for appending; one older file of at most a mebibyte is kept. Where there is no room for one, what is said is
/// lost: data is served all the same.
fn rotate(path: &Path) -> io::Result<std::fs::File> {
    let opened = |path: &Path| std::fs::OpenOptions::new().create(true).append(true).open(path);
    if std::fs::metadata(path).is_ok_and(|m| m.len() > 1024 * 1024) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    opened(path).or_else(|error| {
        tracing::error!(%error, path = %path.display(), "what the data plane says is not kept");
        std::fs::OpenOptions::new().append(true).open("/dev/null")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    /// Ended, and its number given to another: that one is nobody's business.
    #[test]
    fn a_stranger_with_the_number_of_a_process_that_ended_is_not_killed() {
        let mut first = std::process::Command::new("true").spawn().expect("spawned");
        let held = Process::held(first.id(), None, None);
        first.wait().expect("it ends");
        let before = (first.id() - 1).to_string();
        let mut stranger = (0..1_000)
            .find_map(|_| {
                std::fs::write("/proc/sys/kernel/ns_last_pid", &before).expect("this test needs root");
                let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("spawned");
                if child.id() == first.id() {
                    return Some(child);
                }
                child.kill().and_then(|()| child.wait()).expect("killed");
                None
            })
            .expect("the number is given again");
        held.kill();
        held.kill_all();
        // A KILL that was sent before would be its end.
        let asked = pid_of(stranger.id()).expect("a number");
        rustix::process::kill_process(asked, Signal::TERM).expect("it lives");
        assert_eq!(stranger.wait().expect("it ends").signal(), Some(15));
    }

    #[test]
    fn who_dies_at_once_is_begun_ever_later_and_who_has_lived_at_once() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pace.begins(now);
            now += Duration::from_millis(7);
            pace.died(now);
            let next = pace.not_before.expect("it died");
            pauses.push(next.duration_since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        pace.begins(now);
        now += AT_ONCE;
        pace.died(now);
        assert_eq!(pace.not_before, Some(now), "it has lived");
        pace.begins(now);
        pace.died(now);
        pace.stopped();
        assert_eq!((pace.deaths, pace.not_before), (0, None));
    }

    #[tokio::test]
    async fn what_is_ordered_during_a_pause_is_kept_and_a_stop_ends_it() {
        let (sender, mut orders) = mpsc::channel(8);
        let order = |order| Wanted::Order(0, Box::new(order));
        for wanted in [order(Order::Lease { valid_ms: 1 }), order(Order::Hold), Wanted::Replace] {
            sender.send(wanted).await.expect("there is room");
        }
        let kept = pause(Instant::now() + AGAIN, &mut orders, 0, Order::Idle).await;
        assert_eq!(kept.ok(), Some(vec![Order::Idle, Order::Hold]));
        // What was meant for the dead.
        sender.send(order(Order::Hold)).await.expect("there is room");
        assert_eq!(pause(Instant::now() + AGAIN, &mut orders, 1, Order::Idle).await.ok(), Some(vec![Order::Idle]));
        sender.send(order(Order::Hold)).await.expect("there is room");
        sender.send(order(Order::Stop)).await.expect("there is room");
        let stopped = pause(Instant::now() + AGAIN_MAX, &mut orders, 0, Order::Idle).await;
        assert!(matches!(stopped, Err(Some(Wanted::Order(_, order))) if *order == Order::Stop));
        sender.send(Wanted::Kill).await.expect("there is room");
        assert!(matches!(
            pause(Instant::now() + AGAIN_MAX, &mut orders, 0, Order::Idle).await,
            Err(Some(Wanted::Kill))
        ));
    }
}
