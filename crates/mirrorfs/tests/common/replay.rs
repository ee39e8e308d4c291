//! The simplest possible peer: an outlet that applies each op to another directory, by id, as it comes.
//!
//! Now and then it forgets every id it knows, as at the beginning of a session, and must bind them again.

use super::sh;
use mirrorfs::forest::Forest;
use mirrorfs::front::Front;
use mirrorfs::gate::Gate;
use mirrorfs::outlet::{Completion, Outlet, Touch};
use mirrorfs::session::Session;
use mirrorfs::store;
use mirrorfs::tree::Tree;
use model::orders::{AckPolicy, ReplicatedDir};
use replica::op::{FileId, Op, Owner, Time};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

/// Ops between two beginnings of a session.
const SESSION: usize = 97;

pub struct Replay {
    forest: OnceLock<Weak<Forest>>,
    peer: Mutex<Peer>,
}

struct Peer {
    known: HashMap<FileId, OwnedFd>,
    touched: HashSet<FileId>,
    ops: usize,
}

impl Outlet for Replay {
    fn touch(&self, what: &Touch<'_>) -> std::io::Result<()> {
        self.peer.lock().unwrap().touched.insert(what.file);
        Ok(())
    }

    fn submit(&self, op: Op<'_>, done: Completion) -> Option<Completion> {
        let mut peer = self.peer.lock().unwrap();
        peer.ops += 1;
        if peer.ops.is_multiple_of(SESSION) {
            peer.known.retain(|id, _| id.0 < FileId::FIRST.0);
        }
        for id in op.needs().into_iter().flatten() {
            self.bind(&mut peer, id);
        }
        let changed = op.needs()[0].expect("every op of the front changes something");
        assert!(peer.touched.contains(&changed), "{op:?} was not announced");
        peer.apply(&op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
        Some(done)
    }

    fn purge(&self, _parent: FileId, _name: &[u8], _parent_mtime: Time, _done: Completion) -> Option<Completion> {
        unreachable!("everything is replicated");
    }

    fn diverged(&self, reason: String) {
        panic!("{reason}");
    }

    fn barrier(&self, _file: Option<FileId>, _data_only: bool, done: Completion) {
        done.run(Ok(()));
    }

    fn keep(&self, file: FileId) {
        self.bind(&mut self.peer.lock().unwrap(), file);
    }

    fn forgotten(&self, file: FileId) {
        self.peer.lock().unwrap().known.remove(&file);
    }

    fn close(&self) {}
}

impl Replay {
    fn bind(&self, peer: &mut Peer, id: FileId) {
        if peer.known.contains_key(&id) {
            return;
        }
        let forest = self.forest.get().and_then(Weak::upgrade).expect("alive");
        let (parent, name) = forest.place(id).unwrap_or_else(|| panic!("{id:?} changes and has no name"));
        self.bind(peer, parent);
        let fd = store::open_child(&peer.known[&parent], &name).unwrap_or_else(|e| panic!("bind {id:?}: {e}"));
        peer.known.insert(id, fd);
    }
}

impl Peer {
    fn made(
        &mut self,
        id: FileId,
        parent: FileId,
        name: &[u8],
        owner: &Owner,
        mtime: Time,
        parent_mtime: Time,
    ) -> store::Answer<()> {
        let fd = store::open_child(&self.known[&parent], name)?;
        store::set_owner(fd.as_fd(), Some(owner.uid), Some(owner.gid))?;
        if store::kind(&store::stat(&fd)?) != libc::S_IFLNK {
            store::set_mode(fd.as_fd(), owner.mode)?;
        }
        set_mtime(&fd, None, Some(mtime))?;
        self.known.insert(id, fd);
        set_mtime(&self.known[&parent], None, Some(parent_mtime))
    }

    fn apply(&mut self, op: &Op<'_>) -> store::Answer<()> {
        let mode = Mode::from_raw_mode(0o600);
        match *op {
            Op::Bind { .. } | Op::Unbind { .. } => unreachable!("the front never makes it"),
            Op::Create { id, parent, name, owner, mtime, parent_mtime } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                fs::openat(&self.known[&parent], name, flags, mode)?;
                self.made(id, parent, name, &owner, mtime, parent_mtime)
            }
            Op::Mkdir { id, parent, name, owner, mtime, parent_mtime } => {
                fs::mkdirat(&self.known[&parent], name, mode)?;
                self.made(id, parent, name, &owner, mtime, parent_mtime)
            }
            Op::Mknod { id, parent, name, kind, rdev, owner, mtime, parent_mtime } => {
                fs::mknodat(&self.known[&parent], name, FileType::from_raw_mode(kind), mode, rdev)?;
                self.made(id, parent, name, &owner, mtime, parent_mtime)
            }
            Op::Symlink { id, parent, name, target, owner, mtime, parent_mtime } => {
                fs::symlinkat(target, &self.known[&parent], name)?;
                self.made(id, parent, name, &owner, mtime, parent_mtime)
            }
            Op::Link { id, parent, name, parent_mtime } => {
                fs::linkat(&self.known[&id], "", &self.known[&parent], name, AtFlags::EMPTY_PATH)?;
                set_mtime(&self.known[&parent], None, Some(parent_mtime))
            }
            Op::Unlink { parent, name, parent_mtime } => {
                fs::unlinkat(&self.known[&parent], name, AtFlags::empty())?;
                set_mtime(&self.known[&parent], None, Some(parent_mtime))
            }
            Op::Rmdir { parent, name, parent_mtime } => {
                fs::unlinkat(&self.known[&parent], name, AtFlags::REMOVEDIR)?;
                set_mtime(&self.known[&parent], None, Some(parent_mtime))
            }
            Op::Rename { from, from_name, to, to_name, flags, from_mtime, to_mtime } => {
                let flags = RenameFlags::from_bits_retain(flags);
                fs::renameat_with(&self.known[&from], from_name, &self.known[&to], to_name, flags)?;
                set_mtime(&self.known[&from], None, Some(from_mtime))?;
                set_mtime(&self.known[&to], None, Some(to_mtime))
            }
            Op::Write { id, offset, data, mtime } => {
                let file = store::reopen(self.known[&id].as_fd(), OFlags::WRONLY)?;
                assert_eq!(store::write_at(&file, data, offset)?, data.len());
                set_mtime(&self.known[&id], None, Some(mtime))
            }
            Op::SetAttr { id, mode, uid, gid, size, atime, mtime } => {
                let fd = &self.known[&id];
                if uid.is_some() || gid.is_some() {
                    store::set_owner(fd.as_fd(), uid, gid)?;
                }
                if let Some(mode) = mode {
                    store::set_mode(fd.as_fd(), mode)?;
                }
                if let Some(size) = size {
                    fs::ftruncate(store::reopen(fd.as_fd(), OFlags::WRONLY)?, size)?;
                }
                set_mtime(fd, atime, mtime)
            }
            Op::Fallocate { id, mode, offset, len, mtime } => {
                let file = store::reopen(self.known[&id].as_fd(), OFlags::WRONLY)?;
                fs::fallocate(file, FallocateFlags::from_bits_retain(mode), offset, len)?;
                set_mtime(&self.known[&id], None, Some(mtime))
            }
            Op::SetXattr { id, name, value } => {
                fs::setxattr(store::proc_path(self.known[&id].as_fd()), name, value, fs::XattrFlags::empty())
            }
            Op::RemoveXattr { id, name } => fs::removexattr(store::proc_path(self.known[&id].as_fd()), name),
        }
    }
}

fn set_mtime(fd: &OwnedFd, atime: Option<Time>, mtime: Option<Time>) -> store::Answer<()> {
    let spec = |time: Option<Time>| match time {
        Some(time) => Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() },
        None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
    };
    store::set_times(fd.as_fd(), &Timestamps { last_access: spec(atime), last_modification: spec(mtime) })
}

/// Serves `dir`, replaying into `target`; says so by making the file `ready`; until it is killed.
pub fn serve(dir: &str, target: &str, ready: &str) -> ! {
    sh(&format!("mkdir -p {target}"));
    let dir = ReplicatedDir { path: dir.into(), tocheck: vec![], notreplicated: vec![], notreplicated_names: vec![] };
    let lower = mirrorfs::cover::prepare(&dir, &platform::mounts::Bare::of(std::path::Path::new("/nonexistent/data")))
        .expect("cover");
    let forest = Forest::new(vec![(dir.clone(), lower)]).expect("roots");
    let root = store::open_child(CWD, target.as_bytes()).expect("target");
    let peer = Peer { known: HashMap::from([(FileId::root(0), root)]), touched: HashSet::new(), ops: 0 };
    let outlet = Arc::new(Replay { forest: OnceLock::new(), peer: Mutex::new(peer) });
    let _ = outlet.forest.set(Arc::downgrade(&forest));
    forest.order().set_outlet(outlet);
    let gate = Arc::new(Gate::new());
    gate.lease(Duration::from_secs(3600));
    gate.open();
    rustix::process::umask(Mode::empty());
    let front = Front::new(forest.clone(), 0, gate.clone(), AckPolicy::Write, Arc::new(|e| panic!("{e}")));
    let lower = forest.roots()[0].node.clone();
    let _session = Session::start(&dir.path, "replay", lower.fd(), gate, Arc::new(front)).expect("mount");
    std::fs::write(Path::new(ready), "").expect("ready");
    loop {
        std::thread::park();
    }
}
