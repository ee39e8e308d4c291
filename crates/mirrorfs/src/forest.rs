//! The replicated directories of one module: roots, nodes, the order of changes, and where changes go.
//!
//! It owns the order lock; it never answers a request. **Invariant:** the local store changes only under the
//! order lock, and what is submitted under one hold of it is in the order of the local changes.

use crate::estate::Estate;
use crate::nodes::{Hint, Node, NodeTable, Scope};
use crate::outlet::{LocalOutlet, Outlet};
use crate::store::{self, Answer};
use crate::tree::{Roots, Tree};
use model::orders::ReplicatedDir;
use replica::op::FileId;
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, OFlags};
use rustix::io::Errno;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// One replicated directory, opened below whatever is mounted over it.
#[derive(Debug)]
pub struct Root {
    /// Its configuration. The path is for messages and mounts, never for access to the tree.
    pub dir: ReplicatedDir,
    /// Its node.
    pub node: Arc<Node>,
}

/// See the module's page.
pub struct Forest {
    roots: Vec<Root>,
    nodes: NodeTable,
    order: Mutex<()>,
    outlet: RwLock<Arc<dyn Outlet>>,
}

/// The order of changes stands still while this lives.
pub struct OrderGuard<'t> {
    forest: &'t Forest,
    _lock: MutexGuard<'t, ()>,
}

/// A node that cannot leave the table while this lives.
pub struct Pinned<'t> {
    forest: &'t Forest,
    node: Arc<Node>,
}

impl Forest {
    /// The directories, each with a descriptor of its lower side (see `cover::open_lower`).
    ///
    /// # Errors
    /// A descriptor that cannot be looked at.
    pub fn new(dirs: Vec<(ReplicatedDir, OwnedFd)>) -> Answer<Arc<Self>> {
        Self::noting(dirs, None)
    }

    /// The same; what becomes known is written down in `estate`.
    ///
    /// # Errors
    /// As [`Forest::new`].
    pub fn noting(dirs: Vec<(ReplicatedDir, OwnedFd)>, estate: Option<Arc<Estate>>) -> Answer<Arc<Self>> {
        let nodes = NodeTable::noting(estate);
        let mut roots = Vec::new();
        for (index, (dir, fd)) in dirs.into_iter().enumerate() {
            let stat = store::stat(&fd)?;
            let scope = Scope::root(&dir);
            let node = nodes.insert_root(index, fd, store::key(&stat), store::kind(&stat), scope);
            roots.push(Root { dir, node });
        }
        let outlet: Arc<dyn Outlet> = Arc::new(LocalOutlet);
        Ok(Arc::new(Self { roots, nodes, order: Mutex::new(()), outlet: RwLock::new(outlet) }))
    }

    /// What the process before this one knew, of the same directories.
    ///
    /// # Errors
    /// `ESTALE`: one of them is not there.
    pub fn inherit(dirs: Vec<ReplicatedDir>, estate: Arc<Estate>) -> Answer<Arc<Self>> {
        let nodes = NodeTable::noting(Some(estate));
        let scopes: Vec<_> = dirs.iter().map(Scope::root).collect();
        nodes.inherit(&scopes);
        // Where everything is replicated a wrong name is found out when it is used.
        if !scopes.iter().all(Scope::hides_nothing) {
            nodes.verify_names();
        }
        let root = |(index, dir)| Ok(Root { dir, node: nodes.get(FileId::root(index)).ok_or(Errno::STALE)? });
        let roots = dirs.into_iter().enumerate().map(root).collect::<Answer<Vec<_>>>()?;
        let outlet: Arc<dyn Outlet> = Arc::new(LocalOutlet);
        Ok(Arc::new(Self { roots, nodes, order: Mutex::new(()), outlet: RwLock::new(outlet) }))
    }

    /// The replicated directories, in the order of the configuration.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Descriptors of the lower side for the other half of the data plane.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share_roots(&self) -> Answer<Roots> {
        let share = |root: &Root| rustix::io::fcntl_dupfd_cloexec(root.node.fd(), 0);
        Ok(Arc::new(self.roots.iter().map(share).collect::<Answer<Vec<_>>>()?))
    }

    /// The node table.
    #[must_use]
    pub fn nodes(&self) -> &NodeTable {
        &self.nodes
    }

    /// Stops the order of changes until the guard is dropped.
    pub fn order(&self) -> OrderGuard<'_> {
        OrderGuard { forest: self, _lock: self.order.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Where changes go now.
    #[must_use]
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        self.outlet.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By number.
    #[must_use]
    pub fn node(&self, id: FileId) -> Option<Arc<Node>> {
        self.nodes.get(id)
    }

    /// The entry `name` of a directory, pinned. Take the order lock first if the name must still be right
    /// when you use it.
    ///
    /// # Errors
    /// `ESTALE` for an unknown directory; as `openat`.
    pub fn resolve(&self, dir: FileId, name: &[u8]) -> Answer<Pinned<'_>> {
        let parent = self.nodes.get(dir).ok_or(Errno::STALE)?;
        let node = self.look(&parent, name)?.0;
        Ok(Pinned { forest: self, node })
    }

    /// Looks an entry up and counts one reference on it.
    ///
    /// # Errors
    /// As `openat`.
    pub fn look(&self, parent: &Arc<Node>, name: &[u8]) -> Answer<(Arc<Node>, rustix::fs::Stat)> {
        let fd = store::open_child(parent.fd(), name)?;
        let stat = store::stat(&fd)?;
        Ok((self.nodes.adopt(fd, store::key(&stat), store::kind(&stat), parent, name, 1), stat))
    }

    /// A name by which the peer can be told of `id` (order lock held). `None`: it has none any more (deleted
    /// but open), so its changes are nobody else's business. Searches the tree when the last known name went
    /// away and the file has others; hard links make that rare.
    ///
    /// # Errors
    /// The directories could not be read.
    pub fn name_of(&self, id: FileId) -> Answer<Option<Hint>> {
        let Some(node) = self.nodes.get(id) else { return Ok(None) };
        if let Some(hint) = node.hint() {
            if self.is_true(&node, &hint) && !self.is_hidden(&hint) {
                return Ok(Some(hint));
            }
            self.set_hint(&node, None);
        }
        if store::stat(node.fd())?.st_nlink == 0 || id.0 < FileId::FIRST.0 {
            return Ok(None);
        }
        let found = self.search(&self.roots[node.root()].node, &node)?;
        if !found {
            // Every name it still has stays on this node.
            self.nodes.set_scope(&node, Scope::Local);
        }
        Ok(node.hint().filter(|_| found))
    }

    /// Stays on this node (order lock held). A file of several names is replicated as soon as one of them is.
    #[must_use]
    pub fn is_local(&self, node: &Arc<Node>) -> bool {
        self.nodes.scope(node).is_local() && !self.has_replicated_name(node)
    }

    /// Only a tree that was linked so before it was replicated has such files: across the edge, `link` refuses.
    fn has_replicated_name(&self, node: &Arc<Node>) -> bool {
        if node.kind() == libc::S_IFDIR || node.is_nameless() || !self.nodes.seek_once(node) {
            return false;
        }
        let several = store::stat(node.fd()).is_ok_and(|stat| stat.st_nlink > 1);
        several && self.search(&self.roots[node.root()].node, node).unwrap_or(false)
    }

    /// Does this name stay on this node?
    fn is_hidden(&self, hint: &Hint) -> bool {
        self.nodes.get(hint.parent).is_none_or(|parent| self.nodes.scope(&parent).child(&hint.name).is_local())
    }

    /// Counts one more reference on a node.
    pub fn pinned(&self, node: &Arc<Node>) -> Pinned<'_> {
        self.nodes.pin(node);
        Pinned { forest: self, node: node.clone() }
    }

    /// Does this name still lead to the node? A lookup outside the order lock can take over a name that is
    /// going at this moment.
    fn is_true(&self, node: &Node, hint: &Hint) -> bool {
        let there = self.nodes.get(hint.parent).map(|parent| store::stat_child(parent.fd(), &hint.name));
        there.is_some_and(|stat| stat.is_ok_and(|stat| store::key(&stat) == node.key))
    }

    /// Index of the replicated directory and path within it, from the hints (order lock held).
    #[must_use]
    pub fn path_of(&self, id: FileId) -> Option<(usize, Vec<u8>)> {
        let mut node = self.nodes.get(id)?;
        let mut parts = Vec::new();
        while node.id.0 >= FileId::FIRST.0 {
            let hint = node.hint()?;
            node = self.nodes.get(hint.parent)?;
            parts.push(hint.name.to_vec());
        }
        parts.reverse();
        Some((node.root(), parts.join(&b'/')))
    }

    /// A readable descriptor of a file or directory.
    ///
    /// # Errors
    /// `ESTALE` for an unknown id; as `open`.
    pub fn open_read(&self, id: FileId) -> Answer<OwnedFd> {
        let node = self.nodes.get(id).ok_or(Errno::STALE)?;
        store::reopen(node.fd(), OFlags::RDONLY)
    }

    /// Gives references back, and tells the outlet which ids are gone.
    pub fn release(&self, node: &Arc<Node>, refs: u64) {
        self.tell_gone(self.nodes.release(node, refs));
    }

    /// From now on the node is known by this name (order lock held).
    pub fn set_hint(&self, node: &Arc<Node>, to: Option<(&Arc<Node>, &[u8])>) {
        self.tell_gone(self.nodes.set_hint(node, to));
    }

    fn tell_gone(&self, gone: Vec<FileId>) {
        if !gone.is_empty() {
            let outlet = self.outlet();
            gone.into_iter().for_each(|id| outlet.forgotten(id));
        }
    }

    /// Depth first, by the inode numbers that directories list; sets the hint when found.
    fn search(&self, dir: &Arc<Node>, wanted: &Arc<Node>) -> Answer<bool> {
        let fd = store::reopen(dir.fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut below = Vec::new();
        let scope = self.nodes.scope(dir);
        for entry in Dir::new(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || scope.child(name).is_local() {
                continue;
            }
            if entry.ino() == wanted.key.ino && store::key(&store::stat_child(dir.fd(), name)?) == wanted.key {
                self.set_hint(wanted, Some((dir, name)));
                self.nodes.set_scope(wanted, scope.child(name));
                return Ok(true);
            }
            if matches!(entry.file_type(), rustix::fs::FileType::Directory | rustix::fs::FileType::Unknown) {
                below.push(name.to_vec());
            }
        }
        for name in below {
            let (child, _) = self.look(dir, &name)?;
            let found = if child.kind() == libc::S_IFDIR { self.search(&child, wanted) } else { Ok(false) };
            self.release(&child, 1);
            if found? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl OrderGuard<'_> {
    /// Changes from here on go to another outlet. Returns the one before.
    pub fn set_outlet(&self, outlet: Arc<dyn Outlet>) -> Arc<dyn Outlet> {
        std::mem::replace(&mut *self.forest.outlet.write().unwrap_or_else(PoisonError::into_inner), outlet)
    }

    /// The directories.
    #[must_use]
    pub fn forest(&self) -> &Forest {
        self.forest
    }
}

impl Deref for Pinned<'_> {
    type Target = Arc<Node>;
    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.forest.release(&self.node, 1);
    }
}

impl Tree for Forest {
    fn with_order(&self, f: &mut dyn FnMut()) {
        let _guard = self.order();
        f();
    }

    fn place(&self, id: FileId) -> Option<(FileId, Vec<u8>)> {
        // A directory that cannot be read while searching is told as "no name": the peer is then let go by
        // the leader, which is right, because what it has could not be described.
        let hint = self.name_of(id).ok().flatten()?;
        Some((hint.parent, hint.name.to_vec()))
    }
}
