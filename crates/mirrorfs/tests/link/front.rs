//! A stand-in for the front: makes changes on a plain directory and tells the outlet, as the front would.
#![allow(dead_code)] // each test uses its part

use mirrorfs::outlet::{Completion, InodeKey, Outlet, Part, Touch};
use mirrorfs::tree::Tree;
use replica::op::{FileId, Op, Owner, Time};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};

pub type Wait = Receiver<Result<(), Errno>>;

pub struct Front {
    root: PathBuf,
    order: Mutex<()>,
    /// The resync wants the order lock: a kernel's round trip would leave it a moment for that.
    asked: AtomicUsize,
    places: Mutex<HashMap<FileId, (FileId, Vec<u8>)>>,
    next: Mutex<u64>,
    outlet: Arc<dyn Outlet>,
}

impl Tree for Front {
    fn with_order(&self, f: &mut dyn FnMut()) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _order = self.order.lock().unwrap();
        self.asked.fetch_sub(1, Ordering::SeqCst);
        f();
    }
    fn place(&self, id: FileId) -> Option<(FileId, Vec<u8>)> {
        self.places.lock().unwrap().get(&id).cloned()
    }
}

pub const ROOT: FileId = FileId::root(0);

fn time(m: &fs::Metadata) -> Time {
    Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 }
}

fn owner(m: &fs::Metadata) -> Owner {
    Owner { mode: m.mode() & 0o7777, uid: m.uid(), gid: m.gid() }
}

impl Front {
    pub fn new(root: &Path, outlet: Arc<dyn Outlet>) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            order: Mutex::new(()),
            asked: AtomicUsize::new(0),
            places: Mutex::new(HashMap::new()),
            next: Mutex::new(FileId::FIRST.0),
            outlet,
        })
    }

    fn order(&self) -> MutexGuard<'_, ()> {
        while self.asked.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        self.order.lock().unwrap()
    }

    pub fn path(&self, id: FileId) -> PathBuf {
        if id == ROOT {
            return self.root.clone();
        }
        let (parent, name) = self.place(id).expect("a file of this test");
        self.path(parent).join(OsStr::from_bytes(&name))
    }

    fn meta(&self, path: &Path) -> fs::Metadata {
        fs::symlink_metadata(path).unwrap()
    }

    fn touch(&self, file: FileId, path: &Path, part: Part) {
        let m = self.meta(path);
        self.outlet.touch(&Touch { file, key: InodeKey { dev: m.dev(), ino: m.ino() }, part, was: None }).unwrap();
    }

    fn fresh(&self, parent: FileId, name: &[u8]) -> FileId {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let id = FileId(*next);
        self.places.lock().unwrap().insert(id, (parent, name.to_vec()));
        id
    }

    fn submit(&self, op: Op<'_>) -> Wait {
        let (tx, rx) = channel();
        if let Some(met) = self.outlet.submit(op, Completion::new(move |r| tx.send(r).unwrap_or(()))) {
            met.run(Ok(()));
        }
        rx
    }

    /// The id of something that is there already.
    pub fn look(&self, parent: FileId, name: &[u8]) -> FileId {
        let known = self.places.lock().unwrap().iter().find(|(_, p)| **p == (parent, name.to_vec())).map(|(id, _)| *id);
        known.unwrap_or_else(|| self.fresh(parent, name))
    }

    pub fn create(&self, parent: FileId, name: &[u8], mode: u32) -> (FileId, Wait) {
        let _order = self.order();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        let path = dir.join(OsStr::from_bytes(name));
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
        let id = self.fresh(parent, name);
        let (m, p) = (self.meta(&path), self.meta(&dir));
        let op = Op::Create { id, parent, name, owner: owner(&m), mtime: time(&m), parent_mtime: time(&p) };
        (id, self.submit(op))
    }

    pub fn mkdir(&self, parent: FileId, name: &[u8]) -> (FileId, Wait) {
        let _order = self.order();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        let path = dir.join(OsStr::from_bytes(name));
        fs::create_dir(&path).unwrap();
        let id = self.fresh(parent, name);
        let (m, p) = (self.meta(&path), self.meta(&dir));
        let op = Op::Mkdir { id, parent, name, owner: owner(&m), mtime: time(&m), parent_mtime: time(&p) };
        (id, self.submit(op))
    }

    pub fn symlink(&self, parent: FileId, name: &[u8], target: &[u8]) -> Wait {
        let _order = self.order();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        let path = dir.join(OsStr::from_bytes(name));
        std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).unwrap();
        let id = self.fresh(parent, name);
        let (m, p) = (self.meta(&path), self.meta(&dir));
        let op = Op::Symlink { id, parent, name, target, owner: owner(&m), mtime: time(&m), parent_mtime: time(&p) };
        self.submit(op)
    }

    pub fn write(&self, id: FileId, offset: u64, data: &[u8]) -> Wait {
        let _order = self.order();
        let path = self.path(id);
        self.touch(id, &path, Part::Data { offset, len: data.len() as u64 });
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(data, offset).unwrap();
        let m = self.meta(&path);
        self.submit(Op::Write { id, offset, data, mtime: time(&m) })
    }

    pub fn truncate(&self, id: FileId, size: u64) -> Wait {
        let _order = self.order();
        let path = self.path(id);
        self.touch(id, &path, Part::Data { offset: size, len: u64::MAX - size });
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
        let m = self.meta(&path);
        let (mode, uid, gid, atime) = (None, None, None, None);
        self.submit(Op::SetAttr { id, mode, uid, gid, size: Some(size), atime, mtime: Some(time(&m)) })
    }

    pub fn chmod(&self, id: FileId, mode: u32) -> Wait {
        let _order = self.order();
        let path = self.path(id);
        self.touch(id, &path, Part::Attributes);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (uid, gid, size, atime, mtime) = (None, None, None, None, None);
        self.submit(Op::SetAttr { id, mode: Some(mode), uid, gid, size, atime, mtime })
    }

    pub fn rename(&self, from: FileId, from_name: &[u8], to: FileId, to_name: &[u8]) -> Wait {
        let _order = self.order();
        let (a, b) = (self.path(from), self.path(to));
        self.touch(from, &a, Part::Entries);
        self.touch(to, &b, Part::Entries);
        let moved = a.join(OsStr::from_bytes(from_name));
        let id = self.look(from, from_name);
        let m = self.meta(&b);
        self.touch(id, &moved, Part::Moved { to: InodeKey { dev: m.dev(), ino: m.ino() } });
        fs::rename(a.join(OsStr::from_bytes(from_name)), b.join(OsStr::from_bytes(to_name))).unwrap();
        {
            let mut places = self.places.lock().unwrap();
            places.retain(|_, p| *p != (to, to_name.to_vec()));
            for place in places.values_mut() {
                if *place == (from, from_name.to_vec()) {
                    *place = (to, to_name.to_vec());
                }
            }
        }
        let (from_mtime, to_mtime) = (time(&self.meta(&a)), time(&self.meta(&b)));
        self.submit(Op::Rename { from, from_name, to, to_name, flags: 0, from_mtime, to_mtime })
    }

    pub fn link(&self, id: FileId, parent: FileId, name: &[u8]) -> Wait {
        self.link_when(id, parent, name, || {})
    }

    /// The same, after `say`, and when the resync waits for the order lock because of it.
    pub fn link_before_the_resync(&self, id: FileId, parent: FileId, name: &[u8], say: impl FnOnce()) -> Wait {
        self.link_when(id, parent, name, || {
            say();
            while self.asked.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
        })
    }

    fn link_when(&self, id: FileId, parent: FileId, name: &[u8], first: impl FnOnce()) -> Wait {
        let _order = self.order();
        first();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        let m = self.meta(&dir);
        self.touch(id, &self.path(id), Part::Moved { to: InodeKey { dev: m.dev(), ino: m.ino() } });
        fs::hard_link(self.path(id), dir.join(OsStr::from_bytes(name))).unwrap();
        self.submit(Op::Link { id, parent, name, parent_mtime: time(&self.meta(&dir)) })
    }

    pub fn unlink(&self, parent: FileId, name: &[u8]) -> Wait {
        let _order = self.order();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        fs::remove_file(dir.join(OsStr::from_bytes(name))).unwrap();
        self.places.lock().unwrap().retain(|_, p| *p != (parent, name.to_vec()));
        self.submit(Op::Unlink { parent, name, parent_mtime: time(&self.meta(&dir)) })
    }

    /// One of several names of `file`, which is known by another from here on.
    pub fn unlink_one(&self, file: FileId, parent: FileId, name: &[u8], other: (FileId, &[u8])) -> Wait {
        {
            let _order = self.order();
            self.places.lock().unwrap().insert(file, (other.0, other.1.to_vec()));
            self.outlet.keep(file);
        }
        self.unlink(parent, name)
    }

    pub fn rmdir(&self, parent: FileId, name: &[u8]) -> Wait {
        let _order = self.order();
        let dir = self.path(parent);
        self.touch(parent, &dir, Part::Entries);
        fs::remove_dir(dir.join(OsStr::from_bytes(name))).unwrap();
        self.places.lock().unwrap().retain(|_, p| *p != (parent, name.to_vec()));
        self.submit(Op::Rmdir { parent, name, parent_mtime: time(&self.meta(&dir)) })
    }

    pub fn fsync(&self, id: FileId) -> Wait {
        let (tx, rx) = channel();
        self.outlet.barrier(Some(id), false, Completion::new(move |r| tx.send(r).unwrap_or(())));
        rx
    }

    pub fn close(&self, _file: FileId) -> Wait {
        let (tx, rx) = channel();
        self.outlet.delivered(Completion::new(move |r| tx.send(r).unwrap_or(())));
        rx
    }
}
