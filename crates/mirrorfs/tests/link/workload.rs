//! A seeded application: makes, writes, renames, links and removes things in a few directories.
#![allow(dead_code)] // each test uses its part

use super::front::{Front, ROOT, Wait};
use replica::op::FileId;

pub struct Workload {
    seed: u64,
    dirs: Vec<(FileId, FileId, Vec<u8>)>,
    files: Vec<(FileId, FileId, Vec<u8>)>,
    count: u64,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        Self { seed: seed.wrapping_mul(2).wrapping_add(1), dirs: Vec::new(), files: Vec::new(), count: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % n as u64) as usize
    }

    fn dir(&mut self) -> FileId {
        let n = self.below(self.dirs.len() + 1);
        self.dirs.get(n).map_or(ROOT, |d| d.0)
    }

    /// Files that are there already take part.
    pub fn adopt(&mut self, front: &Front, names: &[&[u8]]) {
        for name in names {
            self.files.push((front.look(ROOT, name), ROOT, name.to_vec()));
        }
    }

    /// One change; its wait.
    pub fn step(&mut self, front: &Front) -> Wait {
        self.count += 1;
        let name = format!("n{}", self.count).into_bytes();
        let what = self.below(100);
        if what < 15 || self.files.is_empty() {
            let dir = self.dir();
            let mode = 0o600 + self.below(64) as u32;
            let (id, w) = front.create(dir, &name, mode);
            self.files.push((id, dir, name));
            return w;
        }
        let i = self.below(self.files.len());
        let (file, dir, old) = self.files[i].clone();
        match what {
            15..=22 => {
                let parent = self.dir();
                let (id, w) = front.mkdir(parent, &name);
                self.dirs.push((id, parent, name));
                w
            }
            23..=62 => {
                let offset = self.below(400_000) as u64;
                let len = 1 + self.below(100_000);
                let fill = self.below(256) as u8;
                front.write(file, offset, &vec![fill; len])
            }
            63..=67 => {
                let size = self.below(300_000) as u64;
                front.truncate(file, size)
            }
            68..=72 => {
                let mode = 0o600 + self.below(64) as u32;
                front.chmod(file, mode)
            }
            73..=82 => {
                let to = self.dir();
                self.files[i] = (file, to, name.clone());
                front.rename(dir, &old, to, &name)
            }
            83..=86 if self.files.len() > 1 => {
                // Over another one.
                let j = (i + 1) % self.files.len();
                let (_, to, to_name) = self.files[j].clone();
                self.files[i] = (file, to, to_name.clone());
                self.files.remove(j);
                front.rename(dir, &old, to, &to_name)
            }
            87..=88 => front.symlink(dir, &name, b"../some where"),
            89..=92 => {
                let to = self.dir();
                front.link(file, to, &name)
            }
            93 if !self.dirs.is_empty() => {
                // A whole directory elsewhere in the root: never below itself.
                let d = self.below(self.dirs.len());
                let (id, parent, old) = self.dirs[d].clone();
                self.dirs[d] = (id, ROOT, name.clone());
                front.rename(parent, &old, ROOT, &name)
            }
            _ => {
                self.files.remove(i);
                front.unlink(dir, &old)
            }
        }
    }
}
