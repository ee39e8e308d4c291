//! Network namespaces for tests: each belongs to one thread and vanishes with it, whatever happens.
#![allow(dead_code)]

pub mod farm;

use std::net::IpAddr;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace without a name, held by one thread that runs what it is given.
pub struct Space {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    tid: i32,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, tid) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: only this thread's network namespace changes; nothing else depends on which it is in.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .expect("tests of the network need root");
            ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            work.into_iter().for_each(|job| job());
        });
        let space = Self { jobs: Some(jobs), thread: Some(thread), tid: tid.recv().unwrap() };
        space.ip("link set lo up");
        space
    }

    /// Begins something inside; the receiver gets its result (or a hang-up, if it panicked).
    pub fn begin<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (answer, result) = mpsc::channel();
        let job = move || {
            if let Ok(value) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                answer.send(value).ok();
            }
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        result
    }

    /// Runs something inside and waits for it.
    pub fn run<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(body).recv_timeout(Duration::from_secs(30)).expect("panicked or took too long inside its namespace")
    }

    /// Runs a future inside, on a runtime of its own.
    pub fn wait<T: Send + 'static, F: Future<Output = T>>(&self, body: impl FnOnce() -> F + Send + 'static) -> T {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body()))
    }

    /// `ip ARGS` inside; panics if it fails.
    pub fn ip(&self, args: &str) -> String {
        self.command("ip", args)
    }

    pub fn command(&self, program: &str, args: &str) -> String {
        let (program, args) = (program.to_string(), args.to_string());
        self.run(move || {
            let output = Command::new(&program).args(args.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// A cable from `mine` here to `theirs` in the other one.
    pub fn cable(&self, mine: &str, other: &Self, theirs: &str) {
        self.ip(&format!("link add {mine} type veth peer name {theirs} netns {}", other.tid));
        self.ip(&format!("link set {mine} up"));
        other.ip(&format!("link set {theirs} up"));
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Waits until `is_so`, or panics after ten seconds.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "still not so after 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Two nodes (10.0.1.1 and 10.0.1.2 on `net1`) and a client (10.0.1.9 on `br0`, which joins them).
pub struct Lan {
    pub nodes: [Space; 2],
    pub client: Space,
}

impl Lan {
    pub fn new() -> Self {
        let lan = Self { nodes: [Space::new(), Space::new()], client: Space::new() };
        lan.client.ip("link add br0 type bridge forward_delay 0");
        lan.client.ip("link set br0 up");
        lan.client.ip("addr add 10.0.1.9/24 dev br0");
        for (node, space) in (1..).zip(&lan.nodes) {
            space.cable("net1", &lan.client, &format!("port{node}"));
            lan.client.ip(&format!("link set port{node} master br0"));
            space.ip(&format!("addr add 10.0.1.{node}/24 dev net1"));
        }
        lan
    }

    /// Ethernet address of a node's `net1`, as the kernel writes it.
    pub fn mac(&self, node: usize) -> String {
        let text = self.nodes[node].ip("-o link show net1");
        text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_string()
    }

    /// What the client's neighbour cache says of an address.
    pub fn client_knows(&self, ip: IpAddr) -> String {
        self.client.ip(&format!("neigh show {ip}"))
    }
}
