//! Two data planes on this machine, joined over loopback, each on its own directory.
#![allow(dead_code)] // each test uses its part

use super::certificates;
use super::front::{Front, Wait};
use mirrorfs::follower::Follower;
use mirrorfs::leader::Leader;
use mirrorfs::tree::{Reports, Roots, Tree};
use model::ids::{DataId, Epoch, ModuleName, NodeId};
use model::orders::{AckPolicy, AsyncPolicy, Begin, Configuration, ORDERS_VERSION, ReplicatedDir, Report, Session};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

pub const DEADLINE: Duration = Duration::from_secs(30);
/// Silence after which a link counts as lost, where a test is of something else.
pub const PATIENT_MS: u64 = 20_000;
pub const EPOCH: Epoch = Epoch { counter: 3, node: NodeId(1), random: 77 };
pub const FULL: Begin = Begin::Resync { full: true, quarantine: false };
#[allow(dead_code)]
pub const DATA: DataId = DataId(5);

pub struct Pair {
    pub base: tempfile::TempDir,
    pub leader: Arc<Leader>,
    pub follower: Follower,
    pub front: Arc<Front>,
    pub from_leader: Receiver<Report>,
    pub from_follower: Receiver<Report>,
    pub configurations: [Configuration; 2],
    sessions: u64,
}

fn channel_of_reports() -> (Reports, Receiver<Report>) {
    let (tx, rx) = channel();
    let tx = Mutex::new(tx);
    (Arc::new(move |report| drop(tx.lock().unwrap().send(report))), rx)
}

fn roots(dir: &Path) -> Roots {
    let fd: OwnedFd = std::fs::File::open(dir).unwrap().into();
    Arc::new(vec![fd])
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn configurations(base: &Path, change: impl Fn(&mut Configuration)) -> [Configuration; 2] {
    let files = certificates::cluster(base, &["a.c.stead", "b.c.stead"]);
    let addr = format!("127.0.0.1:{}", free_port());
    [0, 1].map(|i| {
        let node = base.join(["a", "b"][i]);
        for sub in ["tree", "state", "quarantine"] {
            std::fs::create_dir_all(node.join(sub)).unwrap();
        }
        let text = |p: &Path| p.display().to_string();
        let mut c = Configuration {
            version: ORDERS_VERSION,
            module: ModuleName::new("AM").unwrap(),
            dirs: vec![ReplicatedDir {
                path: text(&node.join("tree")),
                tocheck: vec![],
                notreplicated: vec![],
                notreplicated_names: vec![],
            }],
            state_dir: text(&node.join("state")),
            quarantine_dir: text(&node.join("quarantine")),
            tls_ca: text(&files[i].ca),
            tls_cert: text(&files[i].cert),
            tls_key: text(&files[i].key),
            peer_name: ["b.c.stead", "a.c.stead"][i].into(),
            peer_number: String::new(),
            peer_certificate: String::new(),
            peer_addrs: vec![addr.clone()],
            listen_addrs: vec![addr.clone()],
            ack: AckPolicy::Write,
            sync: AsyncPolicy::None,
            resync_bytes_per_s: 0,
            silent_ms: model::limits::LOST_MS,
            idle_poll: false,
        };
        change(&mut c);
        c
    })
}

impl Pair {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl Fn(&mut Configuration)) -> Self {
        Self::below(tempfile::tempdir().unwrap(), change)
    }

    /// In memory: what is tested is how many files there are, not a disk.
    pub fn in_memory() -> Self {
        Self::below(tempfile::tempdir_in("/dev/shm").unwrap(), |_| {})
    }

    /// In a directory where something is prepared.
    pub fn below(base: tempfile::TempDir, change: impl Fn(&mut Configuration)) -> Self {
        let configurations = configurations(base.path(), change);
        let (tell_leader, from_leader) = channel_of_reports();
        let (tell_follower, from_follower) = channel_of_reports();
        let tree = |n: &str| base.path().join(n).join("tree");
        let leader = Leader::new(&configurations[0], roots(&tree("a")), tell_leader).unwrap();
        let follower = Follower::new(&configurations[1], roots(&tree("b")), tell_follower).unwrap();
        // As after an earlier commit: the change map begins with nothing, not with everything.
        leader.log().lock().unwrap().reset().unwrap();
        let front = Front::new(&tree("a"), leader.clone());
        let weak: Weak<Front> = Arc::downgrade(&front);
        leader.attach(weak as Weak<dyn Tree>);
        Self { base, leader, follower, front, from_leader, from_follower, configurations, sessions: 0 }
    }

    pub fn tree(&self, node: &str) -> PathBuf {
        self.base.path().join(node).join("tree")
    }

    /// The follower's process is another one.
    pub fn restart_follower(&mut self) {
        let (tell, from) = channel_of_reports();
        self.follower = Follower::new(&self.configurations[1], roots(&self.tree("b")), tell).unwrap();
        self.from_follower = from;
    }

    /// The leader's process is another one (its node crashed, and the page cache is as it was).
    pub fn restart_leader(&mut self) {
        let (tell, from) = channel_of_reports();
        self.leader = Leader::new(&self.configurations[0], roots(&self.tree("a")), tell).unwrap();
        self.from_leader = from;
        self.front = Front::new(&self.tree("a"), self.leader.clone());
        let weak: Weak<Front> = Arc::downgrade(&self.front);
        self.leader.attach(weak as Weak<dyn Tree>);
    }

    /// The roles change: who followed leads from here on. Both processes are new ones.
    pub fn swap(&mut self) {
        self.follower.stop();
        let trees = ["b", "a"];
        let turned = |i: usize| {
            let mut c = self.configurations[1 - i].clone();
            (c.peer_addrs, c.listen_addrs) =
                (self.configurations[i].peer_addrs.clone(), self.configurations[i].listen_addrs.clone());
            c
        };
        self.configurations = [turned(0), turned(1)];
        let (tell_leader, from_leader) = channel_of_reports();
        let (tell_follower, from_follower) = channel_of_reports();
        self.leader = Leader::new(&self.configurations[0], roots(&self.tree(trees[0])), tell_leader).unwrap();
        self.follower = Follower::new(&self.configurations[1], roots(&self.tree(trees[1])), tell_follower).unwrap();
        self.front = Front::new(&self.tree(trees[0]), self.leader.clone());
        let weak: Weak<Front> = Arc::downgrade(&self.front);
        self.leader.attach(weak as Weak<dyn Tree>);
        (self.from_leader, self.from_follower) = (from_leader, from_follower);
    }

    /// A round of the activity log ends: what was touched before it is on both disks.
    pub fn cool(&self) {
        let until = Instant::now() + DEADLINE;
        while self.leader.hot() > 0 {
            assert!(Instant::now() < until, "what is hot does not cool");
            self.leader.cool();
            std::thread::yield_now();
        }
    }

    pub fn next_session(&mut self) -> Session {
        self.sessions += 1;
        Session { epoch: EPOCH, number: self.sessions }
    }

    pub fn begin(&mut self, begin: Begin) -> Session {
        let session = self.next_session();
        self.follower.follow(session, begin).unwrap();
        self.leader.lead(session, begin);
        session
    }

    /// Plays both agents from LinkUp to Committed.
    pub fn commit(&self, session: Session) -> model::orders::Progress {
        wait(&self.from_leader, "ResyncThrough", |r| matches!(r, Report::ResyncThrough { .. }));
        self.leader.send_commit(session);
        wait(&self.from_follower, "CommitReceived", |r| matches!(r, Report::CommitReceived { .. }));
        self.follower.confirm_commit(session);
        match wait(&self.from_leader, "Committed", |r| matches!(r, Report::Committed { .. })) {
            Report::Committed { progress, .. } => progress,
            _ => unreachable!(),
        }
    }

    /// What was reported so far is of no interest.
    pub fn forget_reports(&self) {
        self.follower.stop();
        while self.from_follower.try_recv().is_ok() || self.from_leader.try_recv().is_ok() {}
    }

    pub fn mirror(&mut self) -> Session {
        self.leader.serve_alone(EPOCH, true).unwrap();
        let session = self.begin(FULL);
        self.commit(session);
        session
    }

    pub fn differences(&self) -> Vec<String> {
        mirrorfs::tree_diff(&self.tree("a"), &self.tree("b")).unwrap()
    }

    #[track_caller]
    pub fn assert_equal(&self) {
        let found = self.differences();
        assert!(found.is_empty(), "the trees differ:\n{}", found.join("\n"));
    }
}

#[track_caller]
pub fn wait(from: &Receiver<Report>, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let until = Instant::now() + DEADLINE;
    let mut seen = Vec::new();
    loop {
        match from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(report) if wanted(&report) => return report,
            Ok(report) => {
                let bad = matches!(
                    report,
                    Report::LinkLost { .. }
                        | Report::PeerFault { .. }
                        | Report::Refused { .. }
                        | Report::LocalFault { .. }
                );
                assert!(!bad, "waiting for {what}, but: {report:?} after {seen:?}");
                seen.push(report);
            }
            Err(e) => panic!("no {what}: {e}; seen {seen:?}"),
        }
    }
}

#[track_caller]
pub fn done(wait: &Wait) {
    assert_eq!(wait.recv_timeout(DEADLINE), Ok(Ok(())));
}

/// Nothing came, as far as one can see without a clock in the promise: the wait is still open.
pub fn is_waiting(wait: &Wait) -> bool {
    matches!(wait.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty))
}
