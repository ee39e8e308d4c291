//! A bench for one node: its own mount namespace, an ext4 image on a loop device, a `mirrorfs` process, and a
//! stand-in for its agent. Everything goes away with the bench, also after a failed test.
#![allow(dead_code, unreachable_pub)]

pub mod pair;
pub mod play;
pub mod replay;
pub mod tls;

use model::ids::{DataId, Epoch, ModuleName, NodeId};
use model::orders::{AckPolicy, AsyncPolicy, Configuration, ORDERS_VERSION, Order, ReplicatedDir, Report};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const DEADLINE: Duration = Duration::from_secs(60);
const SOCKET: &str = "MIRRORFS_TEST_SOCKET";
const REPLAY: &str = "MIRRORFS_TEST_REPLAY";
/// Pid of the test whose `mirrorfs` it is.
const OF: &str = "MIRRORFS_TEST_OF";

/// The body of the test `mirrorfs_process` that every test binary has: it is the `mirrorfs` of the others.
pub fn be_mirrorfs_if_asked() {
    if let Ok(socket) = std::env::var(SOCKET) {
        end_with_the_test();
        mirrorfs::run(Path::new(&socket)).expect("mirrorfs runs");
        std::process::exit(0);
    }
    if let Ok(three) = std::env::var(REPLAY) {
        let [dir, target, ready] = three.split('\n').collect::<Vec<_>>()[..] else { panic!("{three}") };
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            std::process::abort();
        }));
        replay::serve(dir, target, ready);
    }
}

/// A test that is killed takes its `mirrorfs` along, and the keeper, which would go on with its mounts.
fn end_with_the_test() {
    let test: i32 = std::env::var(OF).expect("whose it is").parse().expect("a pid");
    // SAFETY: no pointers; the descriptor is new.
    let test = unsafe { libc::syscall(libc::SYS_pidfd_open, test, 0) };
    let Ok(fd @ 0..) = i32::try_from(test) else { panic!("the test has ended: {}", std::io::Error::last_os_error()) };
    std::thread::spawn(move || {
        let mut ended = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to a local; the process group is this process's own.
        unsafe {
            while libc::poll(&raw mut ended, 1, -1) < 1 {}
            libc::kill(0, libc::SIGKILL);
        }
    });
}

/// A process that serves the bench's directory and replays every change into `target`. Kill it by dropping.
pub struct Replaying(Child);

impl Replaying {
    pub fn start(bench: &Bench, target: &Path) -> Self {
        let ready = bench.path("ready");
        let show = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let three = [show(&bench.data()), show(target), show(&ready)].join("\n");
        let child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "mirrorfs_process", "--nocapture"])
            .env(REPLAY, three)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let replaying = Self(child);
        let deadline = Instant::now() + DEADLINE;
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the replaying process does not serve");
            std::thread::sleep(Duration::from_millis(5));
        }
        replaying
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn sh(command: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(command).output().expect("sh");
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    /// Moves this thread (and what it starts) into a mount namespace of its own.
    pub fn new(megabytes: u32) -> Self {
        rustix_unshare();
        sh("mount --make-rprivate /");
        let home = tempfile::tempdir().expect("temporary directory");
        let bench = Self { home };
        let (h, image) = (bench.home.path().display(), bench.path("image"));
        sh(&format!(
            "mkdir {h}/disk {h}/lower; truncate -s {megabytes}M {i}; mkfs.ext4 -q -b 4096 -O ^has_journal -E lazy_itable_init=0 {i};
             mount -o loop {i} {h}/disk; mkdir {h}/disk/data; mount --bind {h}/disk {h}/lower",
            i = image.display()
        ));
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The replicated directory, as applications see it.
    pub fn data(&self) -> PathBuf {
        self.path("disk/data")
    }

    /// The same directory without what is mounted over it.
    pub fn lower(&self) -> PathBuf {
        self.path("lower/data")
    }

    pub fn configuration(&self) -> Configuration {
        tls::make(&self.path(""));
        Configuration {
            version: ORDERS_VERSION,
            module: ModuleName::new("test").expect("valid"),
            dirs: vec![ReplicatedDir {
                path: self.data().to_str().expect("UTF-8").into(),
                tocheck: vec![],
                notreplicated: vec![],
                notreplicated_names: vec![],
            }],
            state_dir: self.path("state").to_str().expect("UTF-8").into(),
            quarantine_dir: self.path("quarantine").to_str().expect("UTF-8").into(),
            tls_ca: self.path("ca.pem").to_str().expect("UTF-8").into(),
            tls_cert: self.path("cert.pem").to_str().expect("UTF-8").into(),
            tls_key: self.path("key.pem").to_str().expect("UTF-8").into(),
            peer_name: tls::NAME.into(),
            peer_number: String::new(),
            peer_certificate: String::new(),
            peer_addrs: vec![],
            listen_addrs: vec![],
            ack: AckPolicy::Write,
            sync: AsyncPolicy::None,
            resync_bytes_per_s: 0,
            silent_ms: model::limits::LOST_MS,
            idle_poll: false,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let h = self.home.path().display();
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!("for i in 1 2 3; do umount -l {h}/disk/data; done; umount -l {h}/lower; umount -l {h}/disk"))
            .stderr(Stdio::null())
            .status();
    }
}

fn rustix_unshare() {
    // SAFETY: no pointers; moves only this thread to a new mount namespace.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "tests of mounts need root");
}

/// A `mirrorfs` process and its agent's end of the socket.
pub struct Agent {
    pub child: Child,
    /// First report of this connection.
    pub adopted: Report,
    stream: UnixStream,
    reports: Receiver<Report>,
    seen: Vec<Report>,
    leasing: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    writer: Arc<Mutex<UnixStream>>,
    /// The process group ends with this value.
    ours: bool,
}

impl Agent {
    pub fn start(socket: &Path) -> Self {
        Self::start_with(socket, |_| ())
    }

    /// A process that may not raise its number of descriptors.
    pub fn start_with_descriptors(socket: &Path, most: u64) -> Self {
        let limit = move || {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: the pointer is to a local; no other pointers.
            let set = unsafe {
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
                    && libc::prctl(libc::PR_CAPBSET_DROP, 24 /* CAP_SYS_RESOURCE */, 0, 0, 0) == 0
            };
            if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: only system calls between fork and exec.
        Self::start_with(socket, |command| unsafe {
            command.pre_exec(limit);
        })
    }

    fn start_with(socket: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        prepare(&mut command);
        command.args(["--exact", "mirrorfs_process", "--nocapture"]).env(SOCKET, socket);
        command.env(OF, std::process::id().to_string()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // The test runner has threads before `run` can block the signal for all of them, as it does in `stead`.
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let mut set = std::mem::zeroed::<libc::sigset_t>();
                libc::sigaddset(&raw mut set, libc::SIGTERM);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                Ok(())
            });
        }
        let child = command.spawn().expect("mirrorfs starts");
        Self::connect(socket, child)
    }

    /// A new agent for a running `mirrorfs`.
    pub fn connect(socket: &Path, child: Child) -> Self {
        let deadline = Instant::now() + DEADLINE;
        // One that is dying accepts nobody any more.
        let (stream, reader, first) = loop {
            let attempt = UnixStream::connect(socket).and_then(|stream| {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut first = String::new();
                match reader.read_line(&mut first)? {
                    0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok((stream, reader, first)),
                }
            });
            match attempt {
                Ok(connected) => break connected,
                Err(e) => assert!(Instant::now() < deadline, "mirrorfs does not listen: {e}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let (tx, reports) = channel();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if tx.send(serde_json::from_str(&line).expect("a report")).is_err() {
                    break;
                }
            }
        });
        let writer = Arc::new(Mutex::new(stream.try_clone().expect("clone")));
        let (leasing, ending) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (w, l, e) = (writer.clone(), leasing.clone(), ending.clone());
        std::thread::spawn(move || {
            while !e.load(Ordering::Acquire) {
                if l.load(Ordering::Acquire) {
                    send(&w, &Order::Lease { valid_ms: 2_000 });
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let adopted = serde_json::from_str(&first).expect("a report");
        assert!(matches!(adopted, Report::Adopted { .. }), "{adopted:?}");
        Self { child, adopted, stream, reports, seen: Vec::new(), leasing, ending, writer, ours: true }
    }

    /// Renew the lease or let it lapse.
    pub fn lease(&self, on: bool) {
        self.leasing.store(on, Ordering::Release);
    }

    pub fn order(&self, order: &Order) {
        send(&self.writer, order);
    }

    /// Process group of the `mirrorfs` that answered, its keeper included.
    pub fn group(&self) -> i32 {
        match self.adopted {
            Report::Adopted { group: Some(group), .. } => group.try_into().expect("a pid"),
            _ => panic!("no group: {:?}", self.adopted),
        }
    }

    /// Kills it with its keeper: nobody comes after it.
    pub fn end(&mut self) {
        // SAFETY: no pointers; the group was made by that process for itself.
        unsafe { libc::kill(-self.group(), libc::SIGKILL) };
        let _ = self.child.wait();
    }

    /// Kills it, and nobody else.
    pub fn kill(&self) {
        // SAFETY: no pointers.
        unsafe { libc::kill(self.serial().try_into().expect("a pid"), libc::SIGKILL) };
    }

    /// The next `mirrorfs` that serves the same mounts, after the present one was killed.
    pub fn follow(&mut self, socket: &Path) {
        let child = self.give_child();
        let mut before = std::mem::replace(self, Self::connect(socket, child));
        // The group goes on.
        before.ours = false;
    }

    /// Process id of the `mirrorfs` that answered.
    pub fn serial(&self) -> u32 {
        match self.adopted {
            Report::Adopted { pid, .. } => pid,
            _ => unreachable!("checked at the connection"),
        }
    }

    /// For the next agent; this one ends nothing any more.
    pub fn give_child(&mut self) -> Child {
        self.ours = false;
        let placeholder = Command::new("true").spawn().expect("true");
        std::mem::replace(&mut self.child, placeholder)
    }

    pub fn raw(&self, bytes: &[u8]) {
        self.writer.lock().expect("not poisoned").write_all(bytes).expect("write");
    }

    /// `mirrorfs` has closed the connection.
    pub fn is_closed(&self) -> bool {
        matches!(self.reports.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    }

    /// Waits for a report; anything else is kept for later questions.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return self.seen.remove(at);
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) if wanted(&report) => return report,
                Ok(report) => self.seen.push(report),
                Err(e) => panic!("no {what}: {e}; seen: {:?}", self.seen),
            }
        }
    }

    /// All that was said and nobody waited for; what comes again and again left out.
    pub fn unasked(&mut self) -> Vec<Report> {
        self.seen.extend(self.reports.try_iter());
        let often = |r: &Report| matches!(r, Report::Counters { .. } | Report::Progress { .. });
        self.seen.drain(..).filter(|report| !often(report)).collect()
    }

    /// Was it said, among what nobody waited for?
    pub fn has_seen(&self, what: impl Fn(&Report) -> bool) -> bool {
        self.seen.iter().any(what)
    }

    /// Gives an order and waits for its outcome.
    pub fn obey(&mut self, order: &Order) -> Report {
        self.order(order);
        self.wait("outcome", |r| matches!(r, Report::Reached { .. } | Report::Refused { .. } | Report::Synced { .. }))
    }

    #[track_caller]
    pub fn reach(&mut self, order: &Order) {
        let report = self.obey(order);
        assert!(!matches!(report, Report::Refused { .. }), "{report:?}");
    }

    /// Configured and serving alone, freshly stamped.
    pub fn serve(&mut self, configuration: Configuration) {
        self.reach(&Order::Configure { configuration });
        self.reach(&alone(true));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if self.ours {
            self.end();
        }
    }
}

fn send(writer: &Mutex<UnixStream>, order: &Order) {
    let mut line = serde_json::to_vec(order).expect("plain data");
    line.push(b'\n');
    // A closed connection shows at the next wait.
    let _ = writer.lock().expect("not poisoned").write_all(&line);
}

pub fn alone(stamp: bool) -> Order {
    Order::ServeAlone { epoch: epoch(1), data_id: DataId(42), stamp, fresh_map: true }
}

pub fn epoch(counter: u64) -> Epoch {
    Epoch { counter, node: NodeId(1), random: 7 }
}

/// Stores bytes at an offset of a page of a file by way of a shared mapping, which is gone afterwards.
pub fn store_mapped(file: &std::fs::File, at: u64, bytes: &[u8]) {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    const PAGE: usize = 4096;
    assert!(at.is_multiple_of(PAGE as u64) && bytes.len() <= PAGE);
    // SAFETY: a fresh mapping of one page, written within its bounds and unmapped once; the file reaches beyond it.
    unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let memory = mmap(std::ptr::null_mut(), PAGE, prot, MapFlags::SHARED, file, at).expect("mmap");
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast(), bytes.len());
        munmap(memory, PAGE).expect("munmap");
    }
}

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shell command at the end of a test, whatever happens: no database outlives its test.
pub struct AtEnd(pub String);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _ = std::process::Command::new("sh").arg("-c").arg(format!("{} >/dev/null 2>&1", self.0)).status();
    }
}
