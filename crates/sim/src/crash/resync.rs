//! The resync of changes, as `mirrorfs::resync` plans it: what the map and the target's log name, and what was made in
//! hot directories since.

use super::Breach;
use super::node::{Node, key};
use super::tree::{Body, Meta, ROOT};
use model::limits::{EXTENT_BYTES, ZONE_BYTES};
use replica::hot::Hot;
use replica::map::{ChangeMap, Record};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    Entries,
    Everything,
}

struct Resync<'n> {
    source: &'n Node,
    target: &'n mut Node,
    map: ChangeMap,
    breach: Option<Breach>,
    compared: u64,
}

/// Brings the target up to date; how many files and directories were looked at.
pub fn resync(source: &Node, target: &mut Node, map: ChangeMap, breach: Option<Breach>) -> u64 {
    let mut seeds: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let mut r = Resync { source, target, map, breach, compared: 0 };
    if breach != Some(Breach::TargetNotAsked) {
        r.ask(&mut seeds);
    }
    for (ino, path) in source.paths() {
        if r.map.keys().any(|k| k == key(ino)) {
            *seeds.entry(path).or_default() |= r.map.is_moved(key(ino));
        }
    }
    for (path, moved) in seeds {
        let Some(ino) = source.tree.find(&path) else { continue };
        if source.tree.dir(ino).is_some() && (!moved || path.is_empty()) {
            if r.reach(&path) {
                r.directory(&path, Below::Nothing);
            }
        } else if let Some((name, dir)) = path.split_last()
            && r.reach(dir)
        {
            r.entry(dir, *name, Below::Nothing, true);
        }
    }
    r.compared
}

impl Resync<'_> {
    /// What the target says of itself.
    fn ask(&mut self, seeds: &mut BTreeMap<Vec<u8>, bool>) {
        let mut whole = Vec::new();
        for (hot, path) in self.target.told() {
            seeds.entry(path.clone()).or_default();
            match hot {
                Hot::Whole { .. } => whole.push(path),
                Hot::Extents { first, end, .. } => {
                    let zones = EXTENT_BYTES / ZONE_BYTES;
                    let end = if end == u32::MAX { u64::MAX } else { u64::from(end) * zones };
                    if let Some(ino) = self.source.tree.find(&path) {
                        self.map.mark(Record::Zones { key: key(ino), first: u64::from(first) * zones, end });
                    }
                }
                Hot::Entries { since_ms, key: dir } => {
                    let entries = self.target.tree.dir(dir.ino).into_iter().flatten();
                    let new = |ino: &u64| {
                        self.breach != Some(Breach::NewIsOld) && self.target.tree.inodes[ino].born_ms >= since_ms
                    };
                    whole.extend(entries.filter(|(_, ino)| new(ino)).map(|(name, _)| {
                        let mut path = path.clone();
                        path.push(*name);
                        path
                    }));
                }
            }
        }
        for path in whole {
            if let Some(ino) = self.source.tree.find(&path) {
                self.map.mark(Record::Tree { key: key(ino) });
            }
            seeds.insert(path, true);
        }
    }

    /// Is the directory there on the target? Otherwise the first of its ancestors that is not is compared.
    fn reach(&mut self, path: &[u8]) -> bool {
        for n in 0..path.len() {
            let there = self.target.tree.find(&path[..=n]);
            if there.is_none_or(|ino| self.target.tree.dir(ino).is_none()) {
                self.entry(&path[..n], path[n], Below::Nothing, true);
            }
        }
        self.target.tree.find(path).is_some()
    }

    fn directory(&mut self, path: &[u8], below: Below) {
        let (Some(here), Some(there)) = (self.source.tree.find(path), self.target.tree.find(path)) else { return };
        self.compared += 1;
        let names: Vec<u8> = self.source.tree.dir(here).map(|d| d.keys().copied().collect()).unwrap_or_default();
        let theirs: Vec<u8> = self.target.tree.dir(there).map(|d| d.keys().copied().collect()).unwrap_or_default();
        for name in theirs.into_iter().filter(|name| !names.contains(name)) {
            self.target.tree.remove_tree(there, name);
        }
        for name in names {
            self.entry(path, name, below, false);
        }
    }

    fn entry(&mut self, path: &[u8], name: u8, below: Below, again: bool) {
        let (Some(dir), Some(there)) = (self.source.tree.find(path), self.target.tree.find(path)) else { return };
        self.compared += 1;
        let Some(ino) = self.source.tree.child(dir, name) else {
            self.target.tree.remove_tree(there, name);
            return;
        };
        let is_dir = self.source.tree.dir(ino).is_some();
        let theirs = self.target.tree.child(there, name);
        let whole = below == Below::Everything || self.is_new(dir, ino);
        let mut child = path.to_vec();
        child.push(name);
        match theirs {
            Some(theirs) if self.target.tree.dir(theirs).is_some() == is_dir => {
                let below = match below {
                    _ if whole => Below::Everything,
                    Below::Nothing if !again => Below::Nothing,
                    _ => Below::Entries,
                };
                if is_dir && below != Below::Nothing {
                    self.directory(&child, below);
                } else if !is_dir {
                    self.file(ino, theirs, whole);
                }
            }
            _ => {
                self.target.tree.remove_tree(there, name);
                let made = self.target.tree.free();
                self.target.tree.apply(Meta::Make { dir: there, name, ino: made, uid: u64::MAX, born_ms: 0, is_dir });
                if is_dir {
                    self.directory(&child, Below::Everything);
                } else {
                    self.file(ino, made, true);
                }
            }
        }
    }

    fn file(&mut self, ino: u64, theirs: u64, whole: bool) {
        let (Body::File { size, zones }, Some(Body::File { size: their_size, zones: there })) =
            (&self.source.tree.inodes[&ino].body, self.target.tree.inodes.get_mut(&theirs).map(|i| &mut i.body))
        else {
            return;
        };
        let named = self.map.stretches_of(key(ino));
        let all = whole || (named.is_empty() && *size != *their_size);
        *their_size = *size;
        there.retain(|zone, _| *zone < *size);
        for zone in 0..*size {
            if all || named.iter().any(|s| s.start <= zone * EXTENT_BYTES && zone * EXTENT_BYTES < s.end) {
                there.insert(zone, zones.get(&zone).copied().unwrap_or_default());
            }
        }
    }

    fn is_new(&self, dir: u64, ino: u64) -> bool {
        let born_ms = self.source.tree.inodes[&ino].born_ms;
        ino != ROOT
            && (self.map.is_moved(key(ino))
                || (self.breach != Some(Breach::NewIsOld)
                    && self.map.since(key(dir)).is_some_and(|since_ms| since_ms <= born_ms)))
    }
}
