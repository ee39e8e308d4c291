//! Two nodes on one machine, and what their agents order to make them a pair.

use super::{Agent, Bench, epoch, sh};
use model::ids::DataId;
use model::orders::{Begin, Configuration, Order, Progress, Report, Session};
use std::cell::RefCell;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub const DATA: DataId = DataId(42);
pub const FULL: Begin = Begin::Resync { full: true, quarantine: false };
pub const CHANGES: Begin = Begin::Resync { full: false, quarantine: false };

/// One of the two, while its process lives.
pub struct Node {
    pub bench: Bench,
    pub configuration: Configuration,
    pub agent: Agent,
}

impl Node {
    pub fn restart(&mut self) {
        self.agent.end();
        self.agent = Agent::start(&self.bench.path("socket"));
        self.agent.reach(&Order::Configure { configuration: self.configuration.clone() });
    }

    pub fn alone(&mut self, counter: u64, stamp: bool) {
        self.agent.reach(&Order::ServeAlone { epoch: epoch(counter), data_id: DATA, stamp, fresh_map: true });
    }
}

/// A port that nobody uses, below those the kernel hands out to whoever connects.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 200) as u16 * 100;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

pub fn pair(megabytes: u32) -> (Node, Node) {
    pair_with(megabytes, |_, _| {})
}

/// `prepare` may add to the disk and to the configuration.
pub fn pair_with(megabytes: u32, prepare: impl Fn(&Bench, &mut Configuration)) -> (Node, Node) {
    // Both benches first: what is mounted later must be seen by everybody.
    let benches = [Bench::new(megabytes), Bench::new(megabytes)];
    let ports = [format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port())];
    let [a, b] = [0, 1].map(|i| {
        let mut configuration = benches[i].configuration();
        configuration.listen_addrs = vec![ports[i].clone()];
        configuration.peer_addrs = vec![ports[1 - i].clone()];
        prepare(&benches[i], &mut configuration);
        configuration
    });
    let [bench_a, bench_b] = benches;
    let node = |bench: Bench, configuration: Configuration| {
        let mut agent = Agent::start(&bench.path("socket"));
        agent.reach(&Order::Configure { configuration: configuration.clone() });
        Node { bench, configuration, agent }
    };
    (node(bench_a, a), node(bench_b, b))
}

/// `from` serves alone; `to` becomes its secondary.
pub fn join(from: &mut Node, to: &mut Node, session: Session, begin: Begin) -> Progress {
    to.agent.reach(&Order::Follow { session, begin, data_id: DATA, lost: None });
    from.agent.order(&Order::Lead { session, begin });
    from.agent.wait("the resync is through", |r| matches!(r, Report::ResyncThrough { session: s } if *s == session));
    from.agent.order(&Order::SendCommit { session });
    to.agent.wait("COMMIT", |r| matches!(r, Report::CommitReceived { session: s } if *s == session));
    to.agent.order(&Order::ConfirmCommit { session });
    let through = from.agent.wait("COMMITTED", |r| matches!(r, Report::Committed { session: s, .. } if *s == session));
    let Report::Committed { progress, .. } = through else { unreachable!("it was waited for") };
    progress
}

/// How often a data plane is killed.
pub fn kills() -> u32 {
    std::env::var("MIRRORFS_KILLS").map_or(10, |kills| kills.parse().expect("a number"))
}

/// The data plane of the primary is killed. Its agent orders, as that of a replaced one: hold, a new epoch by consent, a resync of
/// what was hot.
pub fn hand_over_mirrored(a: &mut Node, b: &mut Node, counter: u64) {
    a.agent.kill();
    a.agent.follow(&a.bench.path("socket"));
    b.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    a.agent.reach(&Order::Configure { configuration: a.configuration.clone() });
    join_again(a, b, counter);
}

/// That of the secondary is, and another is started: nothing is served there that a keeper would go on with.
pub fn replace_secondary(a: &mut Node, b: &mut Node, counter: u64) {
    b.restart();
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    join_again(a, b, counter);
}

fn join_again(a: &mut Node, b: &mut Node, counter: u64) {
    a.agent.reach(&Order::Hold);
    b.agent.reach(&Order::Idle);
    a.agent.reach(&Order::Sync { ticket: counter });
    a.alone(counter, false);
    join(a, b, session(counter, counter), CHANGES);
}

pub fn session(counter: u64, number: u64) -> Session {
    Session { epoch: epoch(counter), number }
}

pub fn equal(what: &str, a: &Node, b: &Node) {
    let found = mirrorfs::tree_diff(&a.bench.lower(), &b.bench.lower()).expect("both trees can be read");
    assert!(found.is_empty(), "{what}: {found:#?}");
}

/// Silence after which a link counts as lost, where a test is of something else: on a machine with more to do than processors, a process
/// waits longer than a second for its turn.
const PATIENT_MS: u64 = 20_000;
/// All that is played in one mirror.
const PLAYED: Duration = Duration::from_secs(300);

/// A joined pair beside a plain directory: what is done in the mirror gives what it gives there.
pub struct Mirror {
    pub a: Node,
    pub b: Node,
    failures: RefCell<Vec<String>>,
    /// Before the nodes go: it ends them no more.
    watch: Option<Watch>,
}

/// A call that hangs in a mount is ended by nobody but the process that serves it: when its time is over both are killed, and the call
/// fails where it stands.
struct Watch {
    through: Sender<()>,
    task: JoinHandle<bool>,
}

impl Watch {
    fn over(groups: [i32; 2], patience: Duration) -> Self {
        let (through, ended) = channel();
        let task = std::thread::spawn(move || {
            let is_late = ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            if is_late {
                eprintln!("what is played in the mirror is not through after {patience:?}: its processes are killed");
                for group in groups {
                    // SAFETY: no pointers; the groups were made by those processes for themselves.
                    unsafe { libc::kill(-group, libc::SIGKILL) };
                }
            }
            is_late
        });
        Self { through, task }
    }

    /// Was it late?
    fn end(self) -> bool {
        drop(self.through);
        self.task.join().expect("the watch ends")
    }
}

impl Mirror {
    pub fn new(megabytes: u32) -> Self {
        Self::with(megabytes, |_, _| {})
    }

    /// As [`pair_with`].
    pub fn with(megabytes: u32, prepare: impl Fn(&Bench, &mut Configuration)) -> Self {
        Self::within(PLAYED, megabytes, prepare)
    }

    /// For what is not through after `patience` the test fails, and does not hang.
    pub fn within(patience: Duration, megabytes: u32, prepare: impl Fn(&Bench, &mut Configuration)) -> Self {
        let (mut a, mut b) = pair_with(megabytes, |bench, configuration| {
            configuration.silent_ms = PATIENT_MS;
            prepare(bench, configuration);
        });
        a.alone(1, true);
        join(&mut a, &mut b, session(1, 1), FULL);
        for node in [&a, &b] {
            let h = node.bench.path("").display().to_string();
            sh(&format!("chmod 755 {h} {h}/disk {h}/lower; mkdir {h}/lower/plain; chmod 755 {h}/lower/plain"));
        }
        let watch = Some(Watch::over([a.agent.group(), b.agent.group()], patience));
        Self { a, b, failures: RefCell::default(), watch }
    }

    /// `play` writes down what it sees, in the mirrored directory and in a plain one; then both nodes have the
    /// same tree.
    pub fn like_plain(&self, name: &str, play: impl Fn(&Path, &mut Log)) {
        let side = |root: PathBuf| {
            std::fs::create_dir(&root).expect("mkdir");
            let mut log = Log::default();
            play(&root, &mut log);
            log.0
        };
        let plain = side(self.a.bench.path("lower/plain").join(name));
        let mirrored = side(self.a.bench.data().join(name));
        let differences: Vec<String> = plain
            .iter()
            .zip(&mirrored)
            .filter(|(p, m)| p != m)
            .map(|(p, m)| format!("plain:    {p}\nmirrored: {m}"))
            .collect();
        if !differences.is_empty() || plain.len() != mirrored.len() {
            let (wrong, all) = (differences.len(), plain.len());
            let first = differences.into_iter().take(40).collect::<Vec<_>>().join("\n");
            self.failures.borrow_mut().push(format!("{name}: {wrong} of {all} observations differ\n{first}"));
        }
        assert!(!plain.is_empty(), "{name}: nothing was observed");
        let found = mirrorfs::tree_diff(&self.a.bench.lower(), &self.b.bench.lower()).expect("readable");
        if !found.is_empty() {
            self.failures.borrow_mut().push(format!("{name}: the nodes differ: {found:#?}"));
        }
    }

    /// Fails with all that differed.
    #[track_caller]
    pub fn done(mut self) {
        let mut failures = self.failures.take();
        failures.extend(self.is_late().then(|| "it was not through in its time".to_string()));
        if !failures.is_empty() {
            let said = [&mut self.a, &mut self.b].map(|node| node.agent.unasked());
            failures.push(format!("said meanwhile: by the leader {:?}, by the follower {:?}", said[0], said[1]));
        }
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    }

    /// Its processes were killed, because what was played was not through. From here on nobody watches.
    pub fn is_late(&mut self) -> bool {
        self.watch.take().is_some_and(Watch::end)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The processes go next, and their numbers may be others'.
        self.is_late();
    }
}

/// What was seen, in order.
#[derive(Default)]
pub struct Log(pub Vec<String>);

impl Log {
    pub fn say(&mut self, what: impl std::fmt::Display) {
        self.0.push(what.to_string());
    }

    /// An outcome: what it gave, or the errno.
    pub fn got<T: std::fmt::Debug, E: Into<std::io::Error>>(&mut self, what: &str, result: Result<T, E>) {
        match result.map_err(Into::into) {
            Ok(value) => self.0.push(format!("{what}: {value:?}")),
            Err(e) => self.0.push(format!("{what}: {e}")),
        }
    }

    /// Attributes as everybody sees them.
    pub fn look(&mut self, path: &Path) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.got(&name, std::fs::symlink_metadata(path).map(|stat| attributes(&stat)));
    }
}

pub fn attributes(stat: &std::fs::Metadata) -> String {
    let size = if stat.is_dir() { 0 } else { stat.len() };
    format!("{:o} {}:{} nlink {} size {size} rdev {}", stat.mode(), stat.uid(), stat.gid(), stat.nlink(), stat.rdev())
}

/// Runs `work` on a thread that is this user.
pub fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    if uid == 0 {
        return work();
    }
    std::thread::scope(|scope| {
        let be = move || {
            // SAFETY: the raw calls change this thread only; the pointer is to `groups`, which outlives them.
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), 0);
                assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
                libc::unshare(libc::CLONE_FS);
                libc::umask(0);
            }
            work()
        };
        scope.spawn(be).join().expect("the user's work ends")
    })
}
