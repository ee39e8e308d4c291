//! The leader's own ids for what it compares and repairs, apart from the front's.
//!
//! Each is pinned by a descriptor here and bound on the target, under the order lock, by the name it has at
//! that moment: so it means the same file on both sides for as long as it lives.

use super::{Stop, TreePath, present, unreadable};
use crate::leader::{Gone, Leader};
use crate::sys;
use replica::map::FileKey;
use replica::op::{FileId, Op};
use replica::wire::Message;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Ids of ours the target holds a descriptor for (besides those in use, and those on the way to the deepest directory: whoever comes to
/// that once more would bind each of them anew, for every directory on its way).
const CACHE_MAX: usize = 512;
/// A way longer than this is bound anew each time: descriptors are bounded.
const DEPTH_MAX: usize = 8_192;
/// Names remembered of ids that are bound no more, for late answers.
const PLACES_MAX: usize = 16_384;
/// Our ids never meet the front's.
const FIRST: u64 = 1 << 63;

/// One file or directory, the same on both sides.
#[derive(Debug)]
pub(super) struct Held {
    pub id: FileId,
    pub fd: OwnedFd,
    pub kind: u32,
    pub key: FileKey,
}

pub(super) struct Walker {
    pub leader: Arc<Leader>,
    pub generation: u64,
    cache: HashMap<FileKey, Arc<Held>>,
    order: VecDeque<FileKey>,
    /// Ids that mean nothing new any more, to be unbound when nobody uses them.
    retired: Vec<Arc<Held>>,
    several: HashSet<FileKey>,
    places: HashMap<FileId, Place>,
    place_order: VecDeque<FileId>,
    /// The directory of the last of them: most of its neighbours have the same.
    path: Arc<TreePath>,
    /// The deepest directory that was come to.
    deepest: usize,
    next: u64,
}

/// Where an id was bound.
struct Place {
    key: FileKey,
    /// The id of its directory then.
    dir: FileId,
    path: Arc<TreePath>,
    name: Vec<u8>,
}

impl Walker {
    pub fn new(leader: Arc<Leader>, generation: u64) -> Self {
        Self {
            leader,
            generation,
            cache: HashMap::new(),
            order: VecDeque::new(),
            retired: Vec::new(),
            several: HashSet::new(),
            places: HashMap::new(),
            place_order: VecDeque::new(),
            path: Arc::default(),
            deepest: 0,
            next: FIRST,
        }
    }

    /// Sends one ordered message.
    pub fn emit(&self, message: &Message<'_>) -> Result<model::ids::Lsn, Gone> {
        self.leader.emit(self.generation, message)
    }

    /// A change of ours.
    pub fn change(&self, op: Op<'_>) -> Result<(), Gone> {
        self.emit(&Message::Op(op)).map(drop)
    }

    /// The directory at `path`. Under the order lock. `None`: it is not there (any more).
    pub fn resolve(&mut self, path: &TreePath) -> Result<Option<Arc<Held>>, Stop> {
        let Some(root) = self.leader.roots().get(path.root) else { return Ok(None) };
        let fd = rustix::io::fcntl_dupfd_cloexec(root, 3).map_err(unreadable)?;
        let st = sys::stat(root).map_err(unreadable)?;
        let key = FileKey { dev: st.st_dev, ino: st.st_ino };
        let mut held = Arc::new(Held { id: FileId::root(path.root), fd, kind: sys::S_IFDIR, key });
        self.deepest = self.deepest.max(path.names.len());
        let mut at = TreePath::root(path.root);
        for name in &path.names {
            match self.hold(&held, &at, name)? {
                Some(next) if next.kind == sys::S_IFDIR => held = next,
                _ => return Ok(None),
            }
            at.names.push(name.clone());
        }
        Ok(Some(held))
    }

    /// The entry `name` of `dir`, bound on the target. Under the order lock.
    pub fn hold(&mut self, dir: &Held, path: &TreePath, name: &[u8]) -> Result<Option<Arc<Held>>, Stop> {
        let Some(fd) = present(sys::open_entry(&dir.fd, name))? else { return Ok(None) };
        let st = sys::stat(&fd).map_err(unreadable)?;
        let key = FileKey { dev: st.st_dev, ino: st.st_ino };
        self.note_names(&st, key);
        let by_this_name = |id| self.places.get(&id).is_some_and(|place| place.dir == dir.id && place.name == name);
        if let Some(held) = self.cache.get(&key).filter(|held| !self.several.contains(&key) && by_this_name(held.id)) {
            return Ok(Some(held.clone()));
        }
        let held = self.adopt(fd, sys::kind(&st), key, (dir.id, path), name)?;
        self.change(Op::Bind { id: held.id, parent: dir.id, name, kind: held.kind })?;
        Ok(Some(held))
    }

    /// A file that has, or had, several names may be several files there: the name decides, each time.
    pub fn note_names(&mut self, st: &rustix::fs::Stat, key: FileKey) {
        if st.st_nlink > 1 && sys::kind(st) != sys::S_IFDIR {
            self.several.insert(key);
        }
    }

    /// An id for something the next message introduces.
    pub fn adopt(
        &mut self,
        fd: OwnedFd,
        kind: u32,
        key: FileKey,
        (dir, path): (FileId, &TreePath),
        name: &[u8],
    ) -> Result<Arc<Held>, Gone> {
        self.next += 1;
        let held = Arc::new(Held { id: FileId(self.next), fd, kind, key });
        if let Some(old) = self.cache.insert(key, held.clone()) {
            self.retired.push(old);
        } else {
            self.order.push_back(key);
        }
        if *self.path != *path {
            self.path = Arc::new(path.clone());
        }
        self.places.insert(held.id, Place { key, dir, path: Arc::clone(&self.path), name: name.to_vec() });
        self.place_order.push_back(held.id);
        if self.place_order.len() > PLACES_MAX
            && let Some(old) = self.place_order.pop_front()
        {
            self.places.remove(&old);
        }
        self.shrink()?;
        Ok(held)
    }

    fn shrink(&mut self) -> Result<(), Gone> {
        let (unused, used): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.retired).into_iter().partition(|held| Arc::strong_count(held) == 1);
        self.retired = used;
        for held in unused {
            self.change(Op::Unbind { id: held.id })?;
        }
        let most = CACHE_MAX + self.deepest.min(DEPTH_MAX);
        for _ in 0..self.order.len().saturating_sub(most).min(8) {
            let Some(key) = self.order.pop_front() else { break };
            match self.cache.get(&key) {
                Some(held) if Arc::strong_count(held) > 1 => self.order.push_back(key),
                Some(held) => {
                    let id = held.id;
                    self.cache.remove(&key);
                    self.change(Op::Unbind { id })?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The target does not know it, or knows it as something else: the next use binds it anew.
    pub fn invalidate(&mut self, id: FileId) {
        let key = self.cache.values().find(|h| h.id == id).map(|h| h.key);
        if let Some(key) = key {
            self.forget_key(key);
        }
    }

    /// The next use of every file gets a new id. Whoever still uses an old one may finish with it.
    pub fn bind_anew(&mut self) {
        self.retired.extend(self.cache.drain().map(|(_, held)| held));
        self.order.clear();
    }

    /// The target may forget all of ours.
    pub fn unbind_all(&mut self) -> Result<(), Gone> {
        self.bind_anew();
        for held in std::mem::take(&mut self.retired) {
            self.change(Op::Unbind { id: held.id })?;
        }
        Ok(())
    }

    /// Does its id still mean the file it means here?
    pub fn is_current(&self, held: &Held) -> bool {
        self.cache.get(&held.key).is_some_and(|h| h.id == held.id)
    }

    /// The next use of this file gets a new id.
    pub fn forget_key(&mut self, key: FileKey) {
        if let Some(held) = self.cache.remove(&key) {
            self.order.retain(|k| *k != key);
            self.retired.push(held);
        }
    }

    /// Where an id of ours was bound.
    pub fn place(&self, id: FileId) -> Option<(TreePath, Vec<u8>)> {
        self.places.get(&id).map(|place| (TreePath::clone(&place.path), place.name.clone()))
    }

    /// Which file an id of ours was bound to.
    pub fn key(&self, id: FileId) -> Option<FileKey> {
        self.places.get(&id).map(|place| place.key)
    }

    /// Is it one of ours?
    pub fn is_ours(id: FileId) -> bool {
        id.0 >= FIRST
    }

    /// Runs `f` with the order lock held.
    pub fn with_order<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Result<T, Gone> {
        let tree = self.leader.tree().ok_or(Gone)?;
        let mut f = Some(f);
        let mut out = None;
        tree.with_order(&mut || {
            if let Some(f) = f.take() {
                out = Some(f(self));
            }
        });
        out.ok_or(Gone)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
