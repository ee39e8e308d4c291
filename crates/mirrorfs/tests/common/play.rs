//! Random operations on two trees, compared step by step, and pictures of trees.

use super::sh;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const STEPS: usize = 2_500;
const SEEDS: [u64; 3] = [1, 2, 20_261_122];

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// Few names, so that things meet.
    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| ["a", "b", "c", "d e", "é"][self.below(5) as usize]).collect::<Vec<_>>().join("/")
    }
    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(10) {
            0 => 0,
            1 => 1 << 20,
            2..=4 => self.below(200_000),
            _ => self.below(5_000),
        };
        let byte = self.next() as u8;
        (0..length).map(|i| byte.wrapping_add(i as u8)).collect()
    }
}

type Outcome = Result<Vec<u8>, i32>;

fn outcome<T>(result: std::io::Result<T>, show: impl FnOnce(T) -> Vec<u8>) -> Outcome {
    result.map(show).map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn nothing<T>(result: std::io::Result<T>) -> Outcome {
    outcome(result, |_| Vec::new())
}

/// One side: a root, and files that stay open whatever happens to their names.
struct Side {
    root: PathBuf,
    open: Vec<File>,
}

/// One step, decided before it is done on both sides.
#[derive(Debug)]
enum Step {
    Create(String, bool),
    Keep(String),
    Write(String, u64, Vec<u8>),
    Append(String, Vec<u8>),
    WriteOpen(usize, u64, Vec<u8>),
    TruncateOpen(usize, u64),
    ReadOpen(usize, u64, usize),
    SyncOpen(usize),
    Read(String),
    Overwrite(String, Vec<u8>),
    Truncate(String, u64),
    Punch(usize, u64, u64),
    Unlink(String),
    Mkdir(String),
    Rmdir(String),
    Rename(String, String),
    Exchange(String, String),
    Link(String, String),
    Symlink(String, String),
    Chmod(String, u32),
    Touch(String, i64),
    SetXattr(String, Vec<u8>),
    RemoveXattr(String),
    List(String),
    Copy(String, String),
}

fn choose(r: &mut Random, open: usize) -> Step {
    use Step::*;
    let which = r.below(if open == 0 { 20 } else { 26 });
    let file = if open == 0 { 0 } else { r.below(open as u64) as usize };
    match which {
        0 => Create(r.path(), r.below(2) == 0),
        1 => Keep(r.path()),
        2 => Write(r.path(), r.below(300_000), r.bytes()),
        3 => Append(r.path(), r.bytes()),
        4 => Read(r.path()),
        5 => Overwrite(r.path(), r.bytes()),
        6 => Truncate(r.path(), r.below(400_000)),
        7 => Unlink(r.path()),
        8 | 9 => Mkdir(r.path()),
        10 => Rmdir(r.path()),
        11 | 12 => Rename(r.path(), r.path()),
        13 => Exchange(r.path(), r.path()),
        14 => Link(r.path(), r.path()),
        15 => Symlink(r.path(), r.path()),
        16 => Chmod(r.path(), 0o600 | (r.below(512) as u32)),
        17 => Touch(r.path(), r.below(2_000_000_000) as i64),
        18 if r.below(2) == 0 => SetXattr(r.path(), r.bytes().into_iter().take(500).collect()),
        18 => RemoveXattr(r.path()),
        19 if r.below(2) == 0 => List(r.path()),
        19 => Copy(r.path(), r.path()),
        20 | 21 => WriteOpen(file, r.below(300_000), r.bytes()),
        22 => TruncateOpen(file, r.below(400_000)),
        23 => ReadOpen(file, r.below(300_000), r.below(100_000) as usize),
        24 => SyncOpen(file),
        _ => Punch(file, r.below(100_000), 1 + r.below(100_000)),
    }
}

impl Side {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn play(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Create(p, exclusive) => {
                let mut options = File::options();
                options.write(true).create(true).create_new(*exclusive);
                nothing(options.open(self.at(p)))
            }
            Step::Keep(p) => {
                let file = File::options().read(true).write(true).create(true).truncate(false).open(self.at(p));
                outcome(file, |file| {
                    if self.open.len() < 12 {
                        self.open.push(file);
                    }
                    Vec::new()
                })
            }
            Step::Write(p, at, data) => {
                nothing(File::options().write(true).open(self.at(p)).and_then(|f| f.write_all_at(data, *at)))
            }
            Step::Append(p, data) => {
                use std::io::Write;
                nothing(File::options().append(true).open(self.at(p)).and_then(|mut f| f.write_all(data)))
            }
            Step::WriteOpen(i, at, data) => nothing(self.open[*i].write_all_at(data, *at)),
            Step::TruncateOpen(i, size) => nothing(self.open[*i].set_len(*size)),
            Step::ReadOpen(i, at, length) => {
                let mut buffer = vec![0; *length];
                let read = self.open[*i].read_at(&mut buffer, *at);
                outcome(read, |n| buffer[..n].to_vec())
            }
            Step::SyncOpen(i) => nothing(self.open[*i].sync_data()),
            Step::Read(p) => outcome(fs::read(self.at(p)), |data| data),
            Step::Overwrite(p, data) => nothing(fs::write(self.at(p), data)),
            Step::Truncate(p, size) => {
                nothing(File::options().write(true).open(self.at(p)).and_then(|f| f.set_len(*size)))
            }
            Step::Punch(i, at, length) => {
                use rustix::fs::FallocateFlags as F;
                let punch = rustix::fs::fallocate(&self.open[*i], F::PUNCH_HOLE | F::KEEP_SIZE, *at, *length);
                nothing(punch.map_err(Into::into))
            }
            Step::Unlink(p) => nothing(fs::remove_file(self.at(p))),
            Step::Mkdir(p) => nothing(fs::create_dir(self.at(p))),
            Step::Rmdir(p) => nothing(fs::remove_dir(self.at(p))),
            Step::Rename(a, b) => nothing(fs::rename(self.at(a), self.at(b))),
            Step::Exchange(a, b) => {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                let exchange = renameat_with(CWD, self.at(a), CWD, self.at(b), RenameFlags::EXCHANGE);
                nothing(exchange.map_err(Into::into))
            }
            Step::Link(a, b) => nothing(fs::hard_link(self.at(a), self.at(b))),
            Step::Symlink(target, p) => nothing(symlink(target, self.at(p))),
            Step::Chmod(p, mode) => {
                // Not through symbolic links: their targets are relative to somewhere else.
                let Ok(stat) = fs::symlink_metadata(self.at(p)) else { return Err(libc::ENOENT) };
                if stat.is_symlink() {
                    return Ok(Vec::new());
                }
                // Directories stay enterable, also for the comparison.
                let mode = if stat.is_dir() { mode | 0o700 } else { *mode };
                nothing(fs::set_permissions(self.at(p), fs::Permissions::from_mode(mode)))
            }
            Step::Touch(p, at) => {
                use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
                let time = Timespec { tv_sec: *at, tv_nsec: 123_456_789 };
                let times = Timestamps { last_access: time, last_modification: time };
                nothing(utimensat(CWD, self.at(p), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into))
            }
            Step::SetXattr(p, value) => {
                let set = rustix::fs::lsetxattr(self.at(p), "user.x", value, rustix::fs::XattrFlags::empty());
                nothing(set.map_err(Into::into))
            }
            Step::RemoveXattr(p) => nothing(rustix::fs::lremovexattr(self.at(p), "user.x").map_err(Into::into)),
            Step::List(p) => outcome(names(&self.at(p)), |names| names.join("\n").into_bytes()),
            Step::Copy(a, b) => nothing(fs::copy(self.at(a), self.at(b)).map(|_| ())),
        }
    }
}

fn names(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// How much two trees have in common.
#[derive(Clone, Copy, PartialEq)]
pub enum Detail {
    /// Done alike, at other times.
    Model,
    /// A replica: the same times of modification.
    Replica,
    /// Two views of one tree.
    Same,
}

/// Everything a reader can see of a tree.
pub fn picture(root: &Path, detail: Detail) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(at) = todo.pop() {
        let path = root.join(&at);
        let stat = fs::symlink_metadata(&path).expect("stat");
        let mut text = format!("{:o} {} {} ", stat.mode(), stat.uid(), stat.gid());
        let mut value = vec![0u8; 4096];
        if let Ok(length) = rustix::fs::lgetxattr(&path, "user.x", &mut value[..]) {
            text.push_str(&format!("x={:?} ", &value[..length]));
        }
        if stat.is_dir() {
            todo.extend(
                names(&path)
                    .expect("list")
                    .into_iter()
                    .map(|name| format!("{at}/{name}"))
                    .map(|p| p.trim_start_matches('/').to_owned()),
            );
        } else if stat.is_symlink() {
            text.push_str(&format!("-> {:?}", fs::read_link(&path).expect("readlink")));
        } else {
            let data = fs::read(&path).expect("read");
            text.push_str(&format!("nlink {} size {} sum {}", stat.nlink(), stat.size(), checksum(&data)));
        }
        if detail != Detail::Model {
            text.push_str(&format!(" mtime {}.{}", stat.mtime(), stat.mtime_nsec()));
        }
        if detail == Detail::Same {
            text.push_str(&format!(
                " ino {} nlink {} ctime {}.{}",
                stat.ino(),
                stat.nlink(),
                stat.ctime(),
                stat.ctime_nsec()
            ));
        }
        seen.insert(at, text);
    }
    seen
}

fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub fn same(what: &str, seed: u64, a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) {
    for key in a.keys().chain(b.keys()) {
        assert_eq!(a.get(key), b.get(key), "{what}, seed {seed}: {key:?}");
    }
}

pub fn seeds() -> Vec<u64> {
    let chosen = std::env::var("MIRRORFS_SEED").ok();
    chosen.map_or_else(|| SEEDS.to_vec(), |seed| vec![seed.parse().expect("a number")])
}

/// Plays the same random steps on both sides and compares every result.
pub fn play(seed: u64, mirrored: &Path, model: &Path) {
    for root in [mirrored, model] {
        fs::create_dir(root).expect("mkdir");
    }
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut mirrored = Side { root: mirrored.into(), open: Vec::new() };
    let mut model = Side { root: model.into(), open: Vec::new() };
    let mut done = 0;
    for number in 0..STEPS {
        let step = choose(&mut random, model.open.len());
        let (is, should) = (mirrored.play(&step), model.play(&step));
        let told = format!("{step:?}").chars().take(200).collect::<String>();
        assert!(
            is == should,
            "seed {seed} step {number} {told}: {:?}, a plain directory gives {:?}",
            brief(&is),
            brief(&should)
        );
        done += usize::from(is.is_ok());
        if number % 500 == 499 {
            // The kernel forgets what nobody has open: our numbers change, nothing else may.
            sh("echo 2 > /proc/sys/vm/drop_caches");
            if random.below(2) == 0 {
                mirrored.open.clear();
                model.open.clear();
            }
        }
    }
    assert!(done > STEPS / 4, "only {done} of {STEPS} steps did something");
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(data) => format!("ok, {} bytes, sum {}", data.len(), checksum(data)),
        Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
    }
}
