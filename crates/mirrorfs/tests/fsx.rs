//! One file, every way to read and change it, checked byte by byte against memory: `write`, shared mappings,
//! `O_DIRECT`, appends, truncation, holes, zeroed ranges, copies of ranges. At the end both nodes hold it.
//!
//! `MIRRORFS_SEED=n` plays another seed, `MIRRORFS_STEPS=n` a longer game, `MIRRORFS_KILLS=n` kills more often. A failure prints the first two.

mod common;

use common::be_mirrorfs_if_asked;
use common::pair::{Mirror, equal, hand_over_mirrored, kills, replace_secondary};
use common::play::{Random, seeds};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The file never grows beyond this.
const SIZE: usize = 1 << 20;
const PAGE: usize = 4096;

/// The file that a process of its own plays with.
const PLAY: &str = "MIRRORFS_PLAY";
const LONGEST: &str = "longest step";

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
    play_if_asked();
}

#[test]
fn every_way_to_change_a_file_agrees_with_memory_and_on_both_nodes() {
    let steps = std::env::var("MIRRORFS_STEPS").map_or(1_500, |steps| steps.parse().expect("a number"));
    let mirror = Mirror::new(128);
    for seed in seeds() {
        let path = mirror.a.bench.data().join(format!("fsx{seed}"));
        Game::new(&path, seed).play(steps);
        equal(&format!("seed {seed}"), &mirror.a, &mirror.b);
    }
    mirror.done();
}

/// While the game is played, the process that serves the mount is killed again and again, and so is the other node's.
///
/// The game is another process's, as an application is: the end of a mapping waits for the data plane with the address space
/// locked, and an agent in that address space could start no thread to restart what is waited for.
#[test]
fn the_game_goes_on_over_kills_of_either_node_s_data_plane() {
    let mut mirror = Mirror::new(128);
    // Its processes are to be others.
    assert!(!mirror.is_late());
    let mut game = Playing::start(&mirror.a.bench.data().join("killed"));
    for kill in 0..kills() {
        game.steps(20);
        let counter = u64::from(kill) + 2;
        match kill % 3 {
            2 => replace_secondary(&mut mirror.a, &mut mirror.b, counter),
            _ => hand_over_mirrored(&mut mirror.a, &mut mirror.b, counter),
        }
    }
    println!("{} kills, {}", kills(), game.end());
    equal("after the kills", &mirror.a, &mirror.b);
    mirror.done();
}

/// A process that plays until its input ends, and tells each step.
struct Playing {
    child: Child,
    told: Receiver<String>,
}

impl Playing {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "mirrorfs_process", "--nocapture"])
            .env(PLAY, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, told }
    }

    fn next(&mut self, what: &str) -> String {
        self.told.recv_timeout(common::DEADLINE).unwrap_or_else(|e| panic!("{what}: {e}"))
    }

    /// So many more.
    fn steps(&mut self, many: usize) {
        // What was told before is of the time before.
        while self.told.try_recv().is_ok() {}
        (0..many).for_each(|_| drop(self.next("a step")));
    }

    /// Its last words, when memory and file agreed to the end.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let last = loop {
            let line = self.next("the end of the game");
            if line.contains(LONGEST) {
                break line;
            }
        };
        assert!(self.child.wait().expect("its own child").success(), "{last}");
        last
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Not waited for without end: what hangs in the kernel does not end by this.
        let _ = self.child.try_wait();
    }
}

/// This process is the one of [`Playing`].
fn play_if_asked() {
    let Some(path) = std::env::var_os(PLAY) else { return };
    let over = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let over = over.clone();
        move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Release);
        }
    });
    let (mut game, mut longest) = (Game::new(Path::new(&path), 1), Duration::ZERO);
    for step in 0.. {
        if over.load(Ordering::Acquire) {
            game.end();
            println!("{step} steps, {LONGEST} {longest:?}");
            std::process::exit(0);
        }
        let begun = Instant::now();
        game.turn(step);
        longest = longest.max(begun.elapsed());
        println!("{step}");
    }
}

/// Memory at a page boundary, as direct I/O wants it.
#[repr(align(4096))]
struct Page(#[allow(dead_code)] [u8; PAGE]);

struct Pages(Vec<Page>);

impl Pages {
    fn new() -> Self {
        Self((0..SIZE / PAGE).map(|_| Page([0; PAGE])).collect())
    }
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are one allocation of initialised bytes, borrowed as long as self.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), SIZE) }
    }
}

struct Game {
    random: Random,
    file: File,
    direct: File,
    append: File,
    expected: Vec<u8>,
    pages: Pages,
    name: String,
    told: String,
}

impl Game {
    fn new(path: &Path, seed: u64) -> Self {
        let open = |flags: OFlags| {
            let mode = Mode::from_raw_mode(0o644);
            File::from(rustix::fs::open(path, flags | OFlags::CREATE | OFlags::CLOEXEC, mode).expect("open"))
        };
        Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            file: open(OFlags::RDWR),
            direct: open(OFlags::RDWR | OFlags::DIRECT),
            append: open(OFlags::WRONLY | OFlags::APPEND),
            expected: Vec::new(),
            pages: Pages::new(),
            name: format!("seed {seed}"),
            told: String::new(),
        }
    }

    fn play(&mut self, steps: usize) {
        (0..steps).for_each(|step| self.turn(step));
        self.end();
    }

    fn turn(&mut self, step: usize) {
        self.told = format!("{}, step {step}", self.name);
        self.step();
        let size = self.file.metadata().expect("fstat").len();
        assert_eq!(size, self.expected.len() as u64, "{}: size", self.told);
        if step % 50 == 49 {
            self.check(0, SIZE);
        }
    }

    fn end(&mut self) {
        self.file.sync_all().expect("fsync");
        self.check(0, SIZE);
    }

    /// A place and a length, of any alignment, within what the file may become.
    fn place(&mut self) -> (usize, usize) {
        let at = self.random.below(SIZE as u64 - 1) as usize;
        let length = match self.random.below(4) {
            0 => 1 + self.random.below(100),
            1 => 1 + self.random.below(300_000),
            _ => 1 + self.random.below(20_000),
        };
        (at, (length as usize).min(SIZE - at))
    }

    fn aligned(&mut self) -> (usize, usize) {
        let (at, length) = self.place();
        let at = at / PAGE * PAGE;
        (at, length.next_multiple_of(PAGE).min(SIZE - at))
    }

    fn fresh(&mut self, length: usize) -> Vec<u8> {
        let first = self.random.next() as u8;
        (0..length).map(|i| first.wrapping_add((i % 251) as u8) | 1).collect()
    }

    fn expect(&mut self, at: usize, data: &[u8]) {
        if self.expected.len() < at + data.len() {
            self.expected.resize(at + data.len(), 0);
        }
        self.expected[at..at + data.len()].copy_from_slice(data);
    }

    fn step(&mut self) {
        let which = self.random.below(14);
        let (at, length) = self.place();
        match which {
            0 | 1 => {
                let data = self.fresh(length);
                self.say("write", at, length);
                self.file.write_all_at(&data, at as u64).expect("write");
                self.expect(at, &data);
            }
            2 => self.map_write(at, length),
            3 | 4 => {
                let (at, length) = self.aligned();
                let data = self.fresh(length);
                self.say("direct write", at, length);
                self.pages.bytes()[..length].copy_from_slice(&data);
                let Self { direct, pages, .. } = self;
                direct.write_all_at(&pages.bytes()[..length], at as u64).expect("direct write");
                self.expect(at, &data);
            }
            5 => {
                let (at, length) = self.aligned();
                self.say("direct read", at, length);
                let Self { direct, pages, .. } = self;
                let n = direct.read_at(&mut pages.bytes()[..length], at as u64).expect("direct read");
                let end = self.expected.len().clamp(at, at + length);
                let should = self.expected.get(at..end).unwrap_or_default();
                assert!(self.pages.bytes()[..n] == *should, "{}: {} bytes, should be {}", self.told, n, should.len());
            }
            6 => {
                self.say("truncate", at, 0);
                self.file.set_len(at as u64).expect("truncate");
                self.expected.resize(at, 0);
            }
            7 => {
                let room = SIZE - self.expected.len();
                let data = self.fresh(length.min(room));
                self.say("append", self.expected.len(), data.len());
                std::io::Write::write_all(&mut &self.append, &data).expect("append");
                self.expect(self.expected.len(), &data);
            }
            8 => {
                self.say("punch", at, length);
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, mode, at as u64, length as u64).expect("punch");
                self.clear(at, length);
            }
            9 => {
                let keep = self.random.below(2) == 0;
                self.say(if keep { "zero, keep" } else { "zero" }, at, length);
                let keep_size = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
                fallocate(&self.file, FallocateFlags::ZERO_RANGE | keep_size, at as u64, length as u64).expect("zero");
                self.clear(at, length);
                if !keep && self.expected.len() < at + length {
                    self.expected.resize(at + length, 0);
                }
            }
            10 => {
                let keep = self.random.below(2) == 0;
                self.say(if keep { "allocate, keep" } else { "allocate" }, at, length);
                let mode = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
                fallocate(&self.file, mode, at as u64, length as u64).expect("allocate");
                if !keep && self.expected.len() < at + length {
                    self.expected.resize(at + length, 0);
                }
            }
            11 => self.copy(at, length),
            12 => {
                self.say("sync", 0, 0);
                if length % 2 == 0 { self.file.sync_all() } else { self.file.sync_data() }.expect("fsync");
            }
            _ => self.check(at, length),
        }
    }

    fn clear(&mut self, at: usize, length: usize) {
        let end = self.expected.len().min(at + length);
        if at < end {
            self.expected[at..end].fill(0);
        }
    }

    /// Within the file: a mapping cannot make it longer.
    fn map_write(&mut self, at: usize, length: usize) {
        let end = self.expected.len().min(at + length);
        if at >= end {
            return;
        }
        self.say("mapped write", at, end - at);
        let data = self.fresh(end - at);
        let size = self.expected.len();
        let flush = self.random.below(3) == 0;
        // SAFETY: a fresh shared mapping of the file as long as it is now; nothing shrinks it meanwhile.
        unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let memory = mmap(std::ptr::null_mut(), size, prot, MapFlags::SHARED, &self.file, 0).expect("mmap");
            std::slice::from_raw_parts_mut(memory.cast::<u8>(), size)[at..end].copy_from_slice(&data);
            if flush {
                msync(memory, size, MsyncFlags::SYNC).expect("msync");
            }
            munmap(memory, size).expect("munmap");
        }
        self.expect(at, &data);
    }

    /// Within the file, to a place that does not overlap.
    fn copy(&mut self, from: usize, length: usize) {
        let (to, _) = self.place();
        let end = self.expected.len().min(from + length);
        if from >= end {
            return;
        }
        let length = (end - from).min(SIZE - to).min(from.abs_diff(to));
        self.say(&format!("copy to {to}"), from, length);
        let mut done = 0;
        while done < length {
            let (mut source, mut target) = ((from + done) as u64, (to + done) as u64);
            let left = length - done;
            let copied =
                rustix::fs::copy_file_range(&self.file, Some(&mut source), &self.file, Some(&mut target), left);
            let copied = copied.expect("copy_file_range");
            assert!(copied > 0, "{}: nothing was copied", self.told);
            done += copied;
        }
        let data = self.expected[from..from + length].to_vec();
        self.expect(to, &data);
    }

    fn check(&mut self, at: usize, length: usize) {
        let mut data = vec![0; length];
        let mut read = 0;
        loop {
            let n = self.file.read_at(&mut data[read..], (at + read) as u64).expect("read");
            read += n;
            if n == 0 {
                break;
            }
        }
        let should = self.expected.get(at..self.expected.len().min(at + length)).unwrap_or_default();
        assert_eq!(read, should.len(), "{}: bytes at {at}", self.told);
        let wrong = data[..read].iter().zip(should).position(|(is, should)| is != should);
        assert_eq!(wrong.map(|i| at + i), None, "{}: first wrong byte", self.told);
    }

    fn say(&mut self, what: &str, at: usize, length: usize) {
        use std::fmt::Write;
        write!(self.told, " {what} {at}+{length}").expect("a string grows");
    }
}
