//! The table of nodes: sharded, so that lookups and reads of different files never meet.
//!
//! Lock order: a key's shard, then an id's shard, then what a node knows.

use super::room::Room;
use super::{Hint, Known, NAMELESS, Name, Node, Scope};
use crate::estate::{Estate, NodeSlot};
use crate::outlet::InodeKey;
use replica::op::FileId;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

const SHARDS: usize = 64;

/// Numbers fall into so many parts, of which a shard has eight to fifteen: a shard doubles when it is full, and if all
/// did so at once, half of the table would be empty after it, and every request would wait for some shard.
const PARTS: usize = SHARDS / 8 * (8 + 9 + 10 + 11 + 12 + 13 + 14 + 15);
/// Numbers that follow each other are of different shards. It has no divisor in common with the parts.
const STRIDE: usize = 101;

const SHARD_OF: [u8; PARTS] = {
    let mut shard_of = [0; PARTS];
    let (mut part, mut shard) = (0, 0);
    while shard < SHARDS {
        let end = part + 8 + shard % 8;
        while part < end {
            shard_of[part * STRIDE % PARTS] = shard as u8;
            part += 1;
        }
        shard += 1;
    }
    assert!(part == PARTS);
    shard_of
};

fn shard_of(number: u64) -> usize {
    SHARD_OF[(number % PARTS as u64) as usize].into()
}

/// As of no number of crossings: asked anew. Where the count of them ends (after four thousand million), everything is.
const ANEW: u32 = u32::MAX;

/// See the module's page.
#[derive(Debug)]
pub struct NodeTable {
    by_key: Vec<Mutex<HashSet<ByKey>>>,
    by_id: Vec<RwLock<HashSet<ById>>>,
    /// Directories that were renamed across the edge of what is replicated: scopes found before are asked anew.
    crossings: AtomicU32,
    /// Where nodes are written down for the next process.
    estate: Option<Arc<Estate>>,
    room: Arc<Room>,
}

/// A node that is found by its identity: its key is in the node and nowhere else.
#[derive(Debug)]
struct ByKey(Arc<Node>);

/// A node that is found by its number, as [`ByKey`].
#[derive(Debug)]
struct ById(Arc<Node>);

impl Borrow<InodeKey> for ByKey {
    fn borrow(&self) -> &InodeKey {
        &self.0.key
    }
}

impl Borrow<FileId> for ById {
    fn borrow(&self) -> &FileId {
        &self.0.id
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.hash(hasher);
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.id.hash(hasher);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ByKey {}
impl Eq for ById {}

/// Numbers are never used twice while the process lives, whatever is mounted and unmounted meanwhile.
static NEXT: AtomicU64 = AtomicU64::new(FileId::FIRST.0);

impl Drop for NodeTable {
    fn drop(&mut self) {
        // Before their descriptors are closed, and the numbers given to something else. What left the table before was
        // forgotten then.
        for shard in &mut self.by_id {
            for ById(node) in shard.get_mut().unwrap_or_else(PoisonError::into_inner).iter() {
                note(&self.estate, node, Estate::forget);
            }
        }
    }
}

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
            crossings: AtomicU32::new(0),
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
            (node.kind() == libc::S_IFDIR) == directories && node.id >= FileId::FIRST && Arc::strong_count(node) == 2
        };
        shard.iter().map(|ById(node)| node).filter(is_idle).cloned().collect()
    }

    /// Parts of the table.
    pub const SHARDS: usize = SHARDS;

    /// What the process before this one knew. `scopes` are those of the replicated directories. Call it once, on an
    /// empty table, before anybody else uses it.
    pub fn inherit(&self, scopes: &[Scope]) {
        let Some(estate) = &self.estate else { return };
        let everything = Scope::everything();
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
                (_, false) => everything.clone(),
            };
            let hint = slot.hint.and_then(|(parent, name)| {
                let name = name.or_else(|| crate::store::name_of(&fd))?;
                Some(Hint { parent: FileId(parent), name: Name::from(&*name) })
            });
            let known = Known { hint, scope, asof: ANEW, sought: ANEW };
            let node = Arc::new(Node {
                id: FileId(slot.id),
                key,
                refs: AtomicU64::new(slot.refs),
                known: Mutex::new(known),
                fd,
                root: root_in(slot.root),
                kind: kind_in(slot.kind),
                state: AtomicU8::new(if slot.nameless { NAMELESS } else { 0 }),
            });
            self.keys(key).replace(ByKey(node.clone()));
            self.room.taken();
            self.ids(node.id).write().unwrap_or_else(PoisonError::into_inner).replace(ById(node));
        }
    }

    /// A name that was changed at the moment of a death may be noted as it was before: what it does not lead to is not
    /// known by it, and counts as replicated until its name is looked for. Call it after [`Self::inherit`].
    pub fn verify_names(&self) {
        let nodes = || self.by_id.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        let named: Vec<_> =
            nodes().flat_map(|shard| shard.iter().map(|ById(node)| node.clone()).collect::<Vec<_>>()).collect();
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
        let node = if let Some(ByKey(node)) = keys.get(&key) {
            self.count(node, node.refs.load(Ordering::Relaxed) + refs);
            node.clone()
        } else {
            let id = self.next_id();
            self.insert(&mut keys, id, fd, key, kind, parent.root(), (asof, scope), refs)
        };
        drop(keys);
        let is_unnamed = node.known().hint.is_none();
        if is_unnamed && node.id.0 >= FileId::FIRST.0 {
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
        let node = self.insert(&mut keys, id, fd, key, kind, parent.root(), (0, scope), 1);
        self.set_nameless(&node, true);
        node
    }

    /// Its last name went, or its first one came (order lock held).
    pub fn set_nameless(&self, node: &Node, nameless: bool) {
        node.set(NAMELESS, nameless);
        self.note(node, |estate, fd| estate.nameless(fd, nameless));
    }

    /// Replicated or not, by the name it is known by. Certain under the order lock.
    #[must_use]
    pub fn scope(&self, node: &Node) -> Scope {
        let now = self.crossings.load(Ordering::Acquire);
        let hint = {
            let known = node.known();
            match &known.hint {
                // A root's never changes; without a name there is nothing to ask by.
                Some(hint) if node.id >= FileId::FIRST && !is_current(known.asof, now) => hint.clone(),
                _ => return known.scope.clone(),
            }
        };
        let Some(parent) = self.get(hint.parent) else { return Scope::Local };
        let scope = self.scope(&parent).child(&hint.name);
        self.set_scope_asof(node, scope.clone(), now);
        scope
    }

    /// The node is known by a name on the other side of the edge now (order lock held).
    pub fn crossed(&self, node: &Node, parent: &Node, name: &[u8]) {
        if node.kind() == libc::S_IFDIR {
            // With everything below it. At its end the count stays there.
            let _ = self.crossings.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_add(1));
        } else {
            self.set_scope(node, self.scope(parent).child(name));
        }
    }

    /// From now on it is this (order lock held).
    pub fn set_scope(&self, node: &Node, scope: Scope) {
        self.set_scope_asof(node, scope, self.crossings.load(Ordering::Acquire));
    }

    fn set_scope_asof(&self, node: &Node, scope: Scope, asof: u32) {
        self.note(node, |estate, fd| estate.local(fd, scope.is_local()));
        let mut known = node.known();
        (known.scope, known.asof) = (scope, asof);
    }

    /// `true` once per node (and after directories crossed).
    pub fn seek_once(&self, node: &Node) -> bool {
        let now = self.crossings.load(Ordering::Acquire);
        !is_current(std::mem::replace(&mut node.known().sought, now), now)
    }

    /// By number.
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<Arc<Node>> {
        self.ids(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).map(|ById(node)| node.clone())
    }

    /// By inode.
    #[must_use]
    pub fn find(&self, key: InodeKey) -> Option<Arc<Node>> {
        self.keys(key).get(&key).map(|ByKey(node)| node.clone())
    }

    /// One more reference on a node that has one.
    pub fn pin(&self, node: &Arc<Node>) {
        let _keys = self.keys(node.key);
        self.count(node, node.refs.load(Ordering::Relaxed) + 1);
    }

    /// Under the lock of its key's shard.
    fn count(&self, node: &Node, refs: u64) {
        node.refs.store(refs, Ordering::Relaxed);
        self.note(node, |estate, fd| estate.references(fd, refs));
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
            self.count(&node, left);
            if left > 0 {
                break;
            }
            keys.remove(&node.key);
            self.note(&node, Estate::forget);
            self.ids(node.id).write().unwrap_or_else(PoisonError::into_inner).remove(&node.id);
            drop(keys);
            self.room.given();
            gone.push(node.id);
            let hint = node.known().hint.take();
            next = hint.and_then(|hint| self.get(hint.parent)).map(|parent| (parent, 1));
        }
        gone
    }

    /// From now on the node is known by this name (`None`: by none). Returns ids that left the table by it.
    pub fn set_hint(&self, node: &Arc<Node>, to: Option<(&Arc<Node>, &[u8])>) -> Vec<FileId> {
        if let Some((parent, _)) = to {
            self.pin(parent);
        }
        let hint = to.map(|(parent, name)| Hint { parent: parent.id, name: Name::from(name) });
        let before = {
            let mut known = node.known();
            self.note(node, |estate, fd| estate.hint(fd, hint.as_ref().map(|hint| (hint.parent.0, &*hint.name))));
            std::mem::replace(&mut known.hint, hint)
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
    #[allow(clippy::mutable_key_type)] // what is hashed of a node never changes
    fn insert(
        &self,
        keys: &mut HashSet<ByKey>,
        id: FileId,
        fd: OwnedFd,
        key: InodeKey,
        kind: u32,
        root: usize,
        (asof, scope): (u32, Scope),
        refs: u64,
    ) -> Arc<Node> {
        let local = scope.is_local();
        let node = Arc::new(Node {
            id,
            key,
            refs: AtomicU64::new(refs),
            known: Mutex::new(Known { hint: None, scope, asof, sought: ANEW }),
            fd,
            root: root_in(root),
            kind: kind_in(kind),
            state: AtomicU8::new(0),
        });
        self.note(&node, |estate, fd| {
            let (id, ino, dev) = (id.0, key.ino, key.dev);
            estate.node(fd, &NodeSlot { id, ino, dev, kind, root, refs, nameless: false, local, hint: None });
        });
        self.room.taken();
        keys.replace(ByKey(node.clone()));
        self.ids(id).write().unwrap_or_else(PoisonError::into_inner).replace(ById(node.clone()));
        node
    }

    fn note(&self, node: &Node, what: impl FnOnce(&Estate, RawFd)) {
        note(&self.estate, node, what);
    }

    fn keys(&self, key: InodeKey) -> MutexGuard<'_, HashSet<ByKey>> {
        self.by_key[shard_of(key.ino ^ key.dev.rotate_left(17))].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self, id: FileId) -> &RwLock<HashSet<ById>> {
        &self.by_id[shard_of(id.0)]
    }
}

fn note(estate: &Option<Arc<Estate>>, node: &Node, what: impl FnOnce(&Estate, RawFd)) {
    if let Some(estate) = estate {
        what(estate, node.fd.as_raw_fd());
    }
}

/// What was found as of one number of crossings still holds as of another.
fn is_current(asof: u32, now: u32) -> bool {
    asof == now && now != ANEW
}

fn root_in(index: usize) -> u16 {
    u16::try_from(index).expect("the numbers below `FileId::FIRST` are all the directories there can be")
}

/// See [`Node::kind`].
fn kind_in(kind: u32) -> u8 {
    (kind >> 12) as u8
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
