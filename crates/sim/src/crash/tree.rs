//! A file system in memory: inodes, names, zones. And the changes an application makes.

use std::collections::BTreeMap;

/// The replicated directory.
pub const ROOT: u64 = 1;

/// Names from the root, at most two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    names: [u8; 3],
    len: u8,
}

impl Path {
    /// These names.
    #[must_use]
    pub fn new(names: &[u8]) -> Self {
        let mut path = Self { names: [0; 3], len: names.len() as u8 };
        path.names[..names.len()].copy_from_slice(names);
        path
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &[u8] {
        &self.names[..usize::from(self.len)]
    }
}

/// One change of the application (or a sync, or a round of the activity log).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // they are what they are called
pub enum Op {
    Create(Path),
    Mkdir(Path),
    Write(Path, u64, u16),
    Truncate(Path),
    Remove(Path),
    Rename(Path, Path),
    Fsync,
    Round,
}

/// Two halves of a zone: a write may be torn between them.
pub type Zone = [u16; 2];

/// A file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// When it was made, on the clock of its node.
    pub born_ms: u64,
    /// Tells it from another one under the same number.
    pub uid: u64,
    /// What is in it.
    pub body: Body,
}

/// See [`Inode`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Body {
    Dir(BTreeMap<u8, u64>),
    File { size: u64, zones: BTreeMap<u64, Zone> },
}

/// A change of names and sizes, as a journal orders them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Meta {
    Make { dir: u64, name: u8, ino: u64, uid: u64, born_ms: u64, is_dir: bool },
    Remove { dir: u64, name: u8 },
    Rename { from: u64, from_name: u8, to: u64, to_name: u8 },
    Size { uid: u64, ino: u64, size: u64 },
}

/// What a tree shows: path → content (`None`: a directory).
pub type Listing = BTreeMap<Vec<u8>, Option<(u64, BTreeMap<u64, Zone>)>>;

/// The inodes.
#[derive(Clone, Debug)]
pub struct Tree {
    /// By number.
    pub inodes: BTreeMap<u64, Inode>,
}

impl Tree {
    /// Only the root.
    pub fn new() -> Self {
        let root = Inode { born_ms: 0, uid: 0, body: Body::Dir(BTreeMap::new()) };
        Self { inodes: BTreeMap::from([(ROOT, root)]) }
    }

    /// The lowest number that is free: numbers are used again at once.
    pub fn free(&self) -> u64 {
        (ROOT + 1..).find(|n| !self.inodes.contains_key(n)).unwrap_or(u64::MAX)
    }

    pub fn dir(&self, ino: u64) -> Option<&BTreeMap<u8, u64>> {
        match self.inodes.get(&ino).map(|i| &i.body) {
            Some(Body::Dir(entries)) => Some(entries),
            _ => None,
        }
    }

    pub fn child(&self, dir: u64, name: u8) -> Option<u64> {
        self.dir(dir)?.get(&name).copied()
    }

    pub fn find(&self, names: &[u8]) -> Option<u64> {
        names.iter().try_fold(ROOT, |dir, name| self.child(dir, *name))
    }

    /// The directory of a path, and its last name.
    pub fn place(&self, path: Path) -> Option<(u64, u8)> {
        let (name, dir) = path.names().split_last()?;
        let dir = self.find(dir).filter(|ino| self.dir(*ino).is_some())?;
        Some((dir, *name))
    }

    fn dir_mut(&mut self, ino: u64) -> &mut BTreeMap<u8, u64> {
        match &mut self.inodes.get_mut(&ino).expect("the journal is in order").body {
            Body::Dir(entries) => entries,
            Body::File { .. } => unreachable!("the journal is in order"),
        }
    }

    pub fn apply(&mut self, meta: Meta) {
        match meta {
            Meta::Make { dir, name, ino, uid, born_ms, is_dir } => {
                let body =
                    if is_dir { Body::Dir(BTreeMap::new()) } else { Body::File { size: 0, zones: BTreeMap::new() } };
                self.inodes.insert(ino, Inode { born_ms, uid, body });
                self.dir_mut(dir).insert(name, ino);
            }
            Meta::Remove { dir, name } => {
                if let Some(ino) = self.dir_mut(dir).remove(&name) {
                    self.inodes.remove(&ino);
                }
            }
            Meta::Rename { from, from_name, to, to_name } => {
                if let Some(ino) = self.dir_mut(from).remove(&from_name)
                    && let Some(gone) = self.dir_mut(to).insert(to_name, ino)
                {
                    self.inodes.remove(&gone);
                }
            }
            Meta::Size { uid, ino, size } => {
                if let Some(Inode { uid: known, body: Body::File { size: now, zones }, .. }) = self.inodes.get_mut(&ino)
                    && *known == uid
                {
                    *now = size;
                    zones.retain(|zone, _| *zone < size);
                }
            }
        }
    }

    /// Removes what is under a name, with everything below.
    pub fn remove_tree(&mut self, dir: u64, name: u8) {
        if let Some(ino) = self.child(dir, name) {
            let names: Vec<u8> = self.dir(ino).map(|d| d.keys().copied().collect()).unwrap_or_default();
            names.into_iter().for_each(|name| self.remove_tree(ino, name));
            self.apply(Meta::Remove { dir, name });
        }
    }

    /// Every place.
    pub fn listing(&self) -> Listing {
        let mut out = Listing::new();
        let mut todo = vec![(ROOT, Vec::new())];
        while let Some((ino, path)) = todo.pop() {
            match &self.inodes[&ino].body {
                Body::Dir(entries) => {
                    for (name, ino) in entries {
                        let mut path = path.clone();
                        path.push(*name);
                        todo.push((*ino, path));
                    }
                    out.insert(path, None);
                }
                Body::File { size, zones } => {
                    let zones = zones.iter().filter(|(z, v)| **z < *size && **v != [0; 2]).map(|(z, v)| (*z, *v));
                    out.insert(path, Some((*size, zones.collect())));
                }
            }
        }
        out
    }

    /// Is this directory `below` that one (or the same)?
    pub fn is_below(&self, ino: u64, ancestor: u64) -> bool {
        ino == ancestor
            || self.dir(ancestor).is_some_and(|entries| entries.values().any(|child| self.is_below(ino, *child)))
    }
}
