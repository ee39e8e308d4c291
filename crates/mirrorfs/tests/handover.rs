//! `kill -9` of the process that serves the mount, again and again, while applications work: each sees a pause and
//! nothing else. The keeper becomes the next process.
//!
//! `MIRRORFS_KILLS=n` kills more often.

mod common;

use common::pair::{FULL, hand_over_mirrored, join, kills, pair_with, session};
use common::play::play;
use common::{Agent, Bench, alone, be_mirrorfs_if_asked, epoch};
use model::ids::DataId;
use model::orders::{AckPolicy, Order, Report, Situation};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// Kills it and lets the next one go on, as the agent does.
fn hand_over(agent: &mut Agent, bench: &Bench) {
    let before = agent.serial();
    agent.kill();
    agent.follow(&bench.path("socket"));
    assert_ne!(agent.serial(), before);
    assert!(
        matches!(agent.adopted, Report::Adopted { situation: Situation::Holding { epoch: e }, .. } if e == Some(epoch(1))),
        "{:?}",
        agent.adopted
    );
    agent.reach(&Order::Configure { configuration: bench.configuration() });
    agent.reach(&Order::ServeAlone { epoch: epoch(1), data_id: DataId(42), stamp: false, fresh_map: false });
}

/// Something that works until it is told to end, and panics when it sees what it should not.
struct Work {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Work {
    fn start(mut step: impl FnMut(u64) + Send + 'static) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (over.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Acquire) {
                step(count.load(Ordering::Acquire));
                count.fetch_add(1, Ordering::AcqRel);
            }
        });
        Self { thread, over, done }
    }

    fn wait_more(&self, steps: u64) {
        let now = self.done.load(Ordering::Acquire);
        common::eventually("the work goes on", || {
            self.done.load(Ordering::Acquire) >= now + steps || self.thread.is_finished()
        });
    }

    fn end(self) -> u64 {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("the application saw nothing but a pause");
        self.done.load(Ordering::Acquire)
    }
}

/// Blocks written, synced and read back.
fn blocks(path: &Path) -> Work {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("open");
    Work::start(move |n| {
        let block = [(n % 251) as u8; 3000];
        let at = n % 64 * 3000;
        file.write_all_at(&block, at).expect("write");
        file.sync_data().expect("fdatasync");
        let mut back = [0; 3000];
        file.read_exact_at(&mut back, at).expect("read");
        assert!(back == block, "block {n} is not what was written");
    })
}

/// Changes of names, each of which must be made exactly once.
fn names(dir: &Path) -> Work {
    fs::create_dir(dir).expect("mkdir");
    let dir = dir.to_owned();
    Work::start(move |n| {
        let path = |name: &str| dir.join(format!("{name}{n}"));
        let (a, b, c) = (path("a"), path("b"), path("c"));
        drop(File::options().write(true).create_new(true).open(&a).expect("exclusive create"));
        fs::write(&b, n.to_string()).expect("write");
        fs::hard_link(&a, &c).expect("link");
        assert_eq!(fs::metadata(&c).expect("stat").nlink(), 2);
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchange");
        assert_eq!(fs::read_to_string(&a).expect("read"), n.to_string());
        rustix::fs::setxattr(&b, "user.once", b"1", XattrFlags::CREATE).expect("set once");
        rustix::fs::removexattr(&b, "user.once").expect("remove");
        fs::rename(&a, path("d")).expect("rename");
        fs::remove_file(path("d")).expect("unlink");
        fs::remove_file(&b).expect("unlink");
        fs::remove_file(&c).expect("unlink");
        fs::create_dir(&a).expect("mkdir");
        std::os::unix::fs::symlink("x", a.join("s")).expect("symlink");
        assert_eq!(fs::read_dir(&a).expect("readdir").count(), 1);
        fs::remove_file(a.join("s")).expect("unlink");
        fs::remove_dir(&a).expect("rmdir");
    })
}

/// Files without a name: made so, or deleted while open.
fn nameless(dir: &Path) -> Work {
    fs::create_dir(dir).expect("mkdir");
    let dir = dir.to_owned();
    let gone = dir.join("gone");
    let held = File::options().read(true).write(true).create_new(true).open(&gone).expect("create");
    fs::remove_file(&gone).expect("unlink");
    Work::start(move |n| {
        held.write_all_at(&n.to_le_bytes(), n % 8 * 8).expect("write to what was deleted long ago");
        let fd = rustix::fs::open(&dir, OFlags::RDWR | OFlags::TMPFILE, Mode::from_raw_mode(0o600)).expect("O_TMPFILE");
        rustix::io::pwrite(&fd, b"content", 0).expect("write");
        let name = dir.join(format!("n{n}"));
        rustix::fs::linkat(&fd, "", CWD, &name, AtFlags::EMPTY_PATH).expect("first name");
        let mut file = File::open(&name).expect("open");
        fs::remove_file(&name).expect("unlink");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "content");
    })
}

#[test]
fn applications_see_a_pause_and_nothing_else_when_mirrorfs_is_killed() {
    let bench = Bench::new(256);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    let data = bench.data();
    fs::write(data.join("a name that is longer than what the estate has room for"), "x").expect("write");
    let works = [blocks(&data.join("blocks")), names(&data.join("names")), nameless(&data.join("nameless"))];
    let mut played: Vec<JoinHandle<()>> = Vec::new();
    for seed in 0..kills() {
        if seed % 2 == 0 {
            let (above, model) = (data.join(format!("p{seed}")), bench.path(&format!("lower/model{seed}")));
            played.push(std::thread::spawn(move || play(u64::from(seed), &above, &model)));
        }
        for work in &works {
            work.wait_more(20);
        }
        let before = Instant::now();
        hand_over(&mut agent, &bench);
        let served = before.elapsed();
        works[0].wait_more(1);
        println!("kill {seed}: served again after {served:?}, a write after {:?}", before.elapsed());
    }
    for work in works {
        println!("{} steps", work.end());
    }
    for played in played {
        played.join().expect("what was played is as on a plain directory");
    }
    let found = mirrorfs::tree_diff(&data, &bench.lower()).expect("both can be read");
    assert!(found.is_empty(), "{found:#?}");
    agent.reach(&Order::Idle);
    // Nothing was left open by all that died.
    agent.reach(&alone(false));
    assert_eq!(fs::metadata(data.join("blocks")).expect("stat").len(), 64 * 3000);
}

fn mirrored(ack: AckPolicy) {
    let (mut a, mut b) = pair_with(256, |_, configuration| configuration.ack = ack);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    let data = a.bench.data();
    let works = [blocks(&data.join("blocks")), names(&data.join("names")), nameless(&data.join("nameless"))];
    // Answered at once with `commit`, and never synced: what was not sent yet died with the process.
    // Round and round: nothing else bounds it while the others wait for a slow disk.
    const PAGES: u64 = 4096;
    let path = data.join("stream");
    let stream = File::create(&path).expect("create");
    let streaming =
        Work::start(move |n| stream.write_all_at(&[(n / PAGES) as u8; 4096], n % PAGES * 4096).expect("write"));
    for kill in 0..4 {
        for work in works.iter().chain([&streaming]) {
            work.wait_more(20);
        }
        hand_over_mirrored(&mut a, &mut b, kill + 2);
    }
    let written = streaming.end();
    for work in works {
        work.end();
    }
    let found = fs::read(&path).expect("read");
    assert_eq!(found.len() as u64, written.min(PAGES) * 4096);
    for (at, page) in (0..).zip(found.chunks(4096)) {
        let last = at + (written - 1 - at) / PAGES * PAGES;
        assert!(page.iter().all(|byte| *byte == (last / PAGES) as u8), "page {at} is not what was written last");
    }
    // What is behind this is on the other node.
    File::open(&path).expect("open").sync_all().expect("fsync");
    common::eventually("both are equal", || {
        mirrorfs::tree_diff(&a.bench.lower(), &b.bench.lower()).expect("both can be read").is_empty()
    });
}

#[test]
fn nothing_that_was_answered_is_missing_on_the_other_node_after_handovers() {
    mirrored(AckPolicy::Write);
}

#[test]
fn what_was_answered_and_not_sent_reaches_the_other_node_after_a_handover() {
    mirrored(AckPolicy::Commit);
}

#[test]
fn what_is_closed_after_a_handover_is_closed_and_what_is_gone_is_forgotten() {
    let bench = Bench::new(64);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    let path = |n| bench.data().join(format!("f{n}"));
    let open = |agent: &Agent| fs::read_dir(format!("/proc/{}/fd", agent.serial())).expect("proc").count();
    // Held open: otherwise the kernel forgets them when it likes.
    let held: Vec<_> = (0..500).map(|n| File::create(path(n)).expect("create")).collect();
    assert!(open(&agent) > 1000, "a descriptor for each node and each open file");
    hand_over(&mut agent, &bench);
    assert!(open(&agent) > 1000, "the next one has what the last one had");
    drop(held);
    for n in 0..500 {
        fs::remove_file(path(n)).expect("unlink");
    }
    common::eventually("what is gone is closed", || open(&agent) < 200);
}
