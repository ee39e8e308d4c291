//! The table of nodes: sharded, so that lookups and reads of different files never meet.
//!
//! Lock order: a key's shard, then an id's shard, then a node's hint.

use super::room::Room;
use super::{Hint, Node, Scope};
use crate::estate::{Estate, NodeSlot};
use crate::outlet::InodeKey;
use replica::op::FileId;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

const SHARDS: usize = 64;

/// See the module's page.
#[derive(Debug)]
pub struct NodeTable {
    by_key: Vec<Mutex<HashMap<InodeKey, Arc<Node>>>>,
    by_id: Vec<RwLock<HashMap<FileId, Arc<Node>>>>,
    /// Directories that were renamed across the edge of what is replicated: scopes found before are asked anew.
    crossings: AtomicU64,
    /// Where nodes are written down for the next process.
    estate: Option<Arc<Estate>>,
    room: Arc<Room>,
}

/// Numbers are never used twice while the process lives, whatever is mounted and unmounted meanwhile.
static NEXT: AtomicU64 = AtomicU64::new(FileId::FIRST.0);

impl Default for NodeTable {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeTable {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::noting(None)
    }

    /// Empty; what comes into it is written down in `estate`.
    #[must_use]
    pub fn noting(estate: Option<Arc<Estate>>) -> Self {
        Self {
            estate,
            by_key: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_id: (0..SHARDS).map(|_| RwLock::default()).collect(),
            crossings: AtomicU64::new(0),
            room: Arc::new(Room::of_this_process()),
        }
    }

    /// How many more there may be.
    #[must_use]
    pub const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Those of one shard (of [`Self::SHARDS`]) that the kernel may be asked to forget: the numbers of what nobody has
    /// open, of directories or of everything else.
    #[must_use]
    pub fn idle(&self, shard: usize, directories: bool) -> Vec<Arc<Node>> {
        let shard = self.by_id[shard % SHARDS].read().unwrap_or_else(PoisonError::into_inner);
        // Both maps have it; who has it open is a third.
        let is_idle = |node: &&Arc<Node>| {
            (node.kind == libc::S_IFDIR) == directories && node.id >= FileId::FIRST && Arc::strong_count(node) == 2
        };
        shard.values().filter(is_idle).cloned().collect()
    }

    /// Parts of the table.
    pub const SHARDS: usize = SHARDS;

    /// What the process before this one knew. `scopes` are those of the replicated directories. Call it once, on an
    /// empty table, before anybody else uses it.
    pub fn inherit(&self, scopes: &[Scope]) {
        let Some(estate) = &self.estate else { return };
        for (fd, slot) in estate.nodes() {
            // SAFETY: the slot says that this inherited descriptor is a node's, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // What it costs to have lost it is an exec that inherits it.
            let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
            if slot.refs == 0 {
                // Forgotten a moment before the death.
                estate.forget(fd.as_raw_fd());
                continue;
            }
            let key = InodeKey { dev: slot.dev, ino: slot.ino };
            let scope = match (scopes.get(slot.root), slot.local) {
                (Some(scope), _) if slot.id < FileId::FIRST.0 => scope.clone(),
                (_, true) => Scope::Local,
                (_, false) => Scope::everything(),
            };
            let hint = slot.hint.and_then(|(parent, name)| {
                let name = name.or_else(|| crate::store::name_of(&fd))?;
                Some(Hint { parent: FileId(parent), name })
            });
            let node = Arc::new(Node {
                id: FileId(slot.id),
                key,
                kind: slot.kind,
                root: slot.root,
                // As of no number: asked anew by the name.
                scope: Mutex::new((u64::MAX, scope)),
                sought: AtomicU64::new(0),
                fd,
                hint: Mutex::new(hint),
                refs: AtomicU64::new(slot.refs),
                mutations: AtomicU64::new(0),
                nameless: AtomicBool::new(slot.nameless),
                estate: Some(estate.clone()),
            });
            self.keys(key).insert(key, node.clone());
            self.room.taken();
            self.ids(node.id).write().unwrap_or_else(PoisonError::into_inner).insert(node.id, node);
        }
    }

    /// A name that was changed at the moment of a death may be noted as it was before: what it does not lead to is not
    /// known by it, and counts as replicated until its name is looked for. Call it after [`Self::inherit`].
    pub fn verify_names(&self) {
        let nodes = || self.by_id.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        let named: Vec<_> = nodes().flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect();
        for node in named {
            let Some(hint) = node.hint() else { continue };
            let there = self.get(hint.parent).map(|parent| crate::store::stat_child(parent.fd(), &hint.name));
            if !there.is_some_and(|stat| stat.is_ok_and(|stat| crate::store::key(&stat) == node.key)) {
                self.set_hint(&node, None);
                self.set_scope(&node, Scope::everything());
            }
        }
    }

    /// A number that no node had before.
    fn next_id(&self) -> FileId {
        FileId(self.estate.as_ref().map_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed), |estate| estate.next_id()))
    }

    /// The root of a replicated directory: never forgotten.
    pub fn insert_root(&self, index: usize, fd: OwnedFd, key: InodeKey, kind: u32, scope: Scope) -> Arc<Node> {
        let mut keys = self.keys(key);
        self.insert(&mut keys, FileId::root(index), fd, key, kind, index, (0, scope), 1)
    }

    /// The node of an inode, made if need be, with `refs` more references. `fd` is an `O_PATH` descriptor of
    /// it; `name` in `parent` is a name it has right now.
    pub fn adopt(
        &self,
        fd: OwnedFd,
        key: InodeKey,
        kind: u32,
        parent: &Arc<Node>,
        name: &[u8],
        refs: u64,
    ) -> Arc<Node> {
        // The number before the scope: what crosses meanwhile is seen by the next who asks.
        let asof = self.crossings.load(Ordering::Acquire);
        let scope = self.scope(parent).child(name);
        let mut keys = self.keys(key);
        let node = if let Some(node) = keys.get(&key) {
            Self::count(node, node.refs.load(Ordering::Relaxed) + refs);
            node.clone()
        } else {
            let id = self.next_id();
            self.insert(&mut keys, id, fd, key, kind, parent.root, (asof, scope), refs)
        };
        drop(keys);
        if node.hint().is_none() && node.id.0 >= FileId::FIRST.0 {
            self.set_hint(&node, Some((parent, name)));
        }
        node
    }

    /// The node of a file just made without a name (`O_TMPFILE`) beside the entries of `parent`, with one
    /// reference.
    pub fn adopt_nameless(&self, fd: OwnedFd, key: InodeKey, kind: u32, parent: &Arc<Node>) -> Arc<Node> {
        let scope = if self.scope(parent).is_local() { Scope::Local } else { Scope::everything() };
        let mut keys = self.keys(key);
        let id = self.next_id();
        let node = self.insert(&mut keys, id, fd, key, kind, parent.root, (0, scope), 1);
        node.set_nameless(true);
        node
    }

    /// Replicated or not, by the name it is known by. Certain under the order lock.
    #[must_use]
    pub fn scope(&self, node: &Node) -> Scope {
        let now = self.crossings.load(Ordering::Acquire);
        {
            let known = node.scope.lock().unwrap_or_else(PoisonError::into_inner);
            // A root's never changes; without a name there is nothing to ask by.
            if known.0 == now || node.id.0 < FileId::FIRST.0 || node.hint().is_none() {
                return known.1.clone();
            }
        }
        let parent = node.hint().and_then(|hint| Some((self.get(hint.parent)?, hint.name)));
        let Some((parent, name)) = parent else { return Scope::Local };
        let scope = self.scope(&parent).child(&name);
        node.note(|estate, fd| estate.local(fd, scope.is_local()));
        *node.scope.lock().unwrap_or_else(PoisonError::into_inner) = (now, scope.clone());
        scope
    }

    /// The node is known by a name on the other side of the edge now (order lock held).
    pub fn crossed(&self, node: &Node, parent: &Node, name: &[u8]) {
        if node.kind == libc::S_IFDIR {
            // With everything below it.
            self.crossings.fetch_add(1, Ordering::AcqRel);
        } else {
            self.set_scope(node, self.scope(parent).child(name));
        }
    }

    /// From now on it is this (order lock held).
    pub fn set_scope(&self, node: &Node, scope: Scope) {
        let now = self.crossings.load(Ordering::Acquire);
        node.note(|estate, fd| estate.local(fd, scope.is_local()));
        *node.scope.lock().unwrap_or_else(PoisonError::into_inner) = (now, scope);
    }

    /// `true` once per node (and after directories crossed).
    pub fn seek_once(&self, node: &Node) -> bool {
        let now = self.crossings.load(Ordering::Acquire) + 1;
        node.sought.swap(now, Ordering::AcqRel) != now
    }

    /// By number.
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<Arc<Node>> {
        self.ids(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// By inode.
    #[must_use]
    pub fn find(&self, key: InodeKey) -> Option<Arc<Node>> {
        self.keys(key).get(&key).cloned()
    }

    /// One more reference on a node that has one.
    pub fn pin(&self, node: &Arc<Node>) {
        let _keys = self.keys(node.key);
        Self::count(node, node.refs.load(Ordering::Relaxed) + 1);
    }

    /// Under the lock of its key's shard.
    fn count(node: &Node, refs: u64) {
        node.refs.store(refs, Ordering::Relaxed);
        node.note(|estate, fd| estate.references(fd, refs));
    }

    /// Gives references back. Returns the ids that left the table by it (the node, and parents that only its
    /// hint kept).
    pub fn release(&self, node: &Arc<Node>, refs: u64) -> Vec<FileId> {
        let mut gone = Vec::new();
        let mut next = Some((node.clone(), refs));
        while let Some((node, refs)) = next.take() {
            let mut keys = self.keys(node.key);
            // The kernel never gives back more than it took; a resynchronised count must not wrap.
            let left = node.refs.load(Ordering::Relaxed).saturating_sub(refs);
            Self::count(&node, left);
            if left > 0 {
                break;
            }
            keys.remove(&node.key);
            node.note(Estate::forget);
            self.ids(node.id).write().unwrap_or_else(PoisonError::into_inner).remove(&node.id);
            drop(keys);
            self.room.given();
            gone.push(node.id);
            let hint = node.hint.lock().unwrap_or_else(PoisonError::into_inner).take();
            next = hint.and_then(|hint| self.get(hint.parent)).map(|parent| (parent, 1));
        }
        gone
    }

    /// From now on the node is known by this name (`None`: by none). Returns ids that left the table by it.
    pub fn set_hint(&self, node: &Arc<Node>, to: Option<(&Arc<Node>, &[u8])>) -> Vec<FileId> {
        if let Some((parent, _)) = to {
            self.pin(parent);
        }
        let hint = to.map(|(parent, name)| Hint { parent: parent.id, name: name.into() });
        let before = {
            let mut known = node.hint.lock().unwrap_or_else(PoisonError::into_inner);
            node.note(|estate, fd| estate.hint(fd, hint.as_ref().map(|hint| (hint.parent.0, &*hint.name))));
            std::mem::replace(&mut *known, hint)
        };
        match before.and_then(|hint| self.get(hint.parent)) {
            Some(parent) => self.release(&parent, 1),
            None => Vec::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(clippy::too_many_arguments)] // the parts of one node, nothing else
    fn insert(
        &self,
        keys: &mut HashMap<InodeKey, Arc<Node>>,
        id: FileId,
        fd: OwnedFd,
        key: InodeKey,
        kind: u32,
        root: usize,
        scope: (u64, Scope),
        refs: u64,
    ) -> Arc<Node> {
        let is_local = scope.1.is_local();
        let node = Arc::new(Node {
            id,
            key,
            kind,
            root,
            scope: Mutex::new(scope),
            sought: AtomicU64::new(0),
            fd,
            hint: Mutex::new(None),
            refs: AtomicU64::new(refs),
            mutations: AtomicU64::new(0),
            nameless: AtomicBool::new(false),
            estate: self.estate.clone(),
        });
        node.note(|estate, fd| {
            let (id, ino, dev) = (id.0, key.ino, key.dev);
            let slot = NodeSlot { id, ino, dev, kind, root, refs, nameless: false, local: is_local, hint: None };
            estate.node(fd, &slot);
        });
        self.room.taken();
        keys.insert(key, node.clone());
        self.ids(id).write().unwrap_or_else(PoisonError::into_inner).insert(id, node.clone());
        node
    }

    fn keys(&self, key: InodeKey) -> MutexGuard<'_, HashMap<InodeKey, Arc<Node>>> {
        let shard = (key.ino ^ key.dev.rotate_left(17)) as usize % SHARDS;
        self.by_key[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self, id: FileId) -> &RwLock<HashMap<FileId, Arc<Node>>> {
        &self.by_id[id.0 as usize % SHARDS]
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
