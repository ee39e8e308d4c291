//! What a resync of changes compares: what the map names here, and what the target says a crash may have left there.
//!
//! **Invariant:** whatever differs is in one of the two (protocol.md R5), or in a directory named there and made since
//! it was touched; where that cannot be said, everything is compared.

use super::content::Ranges;
use super::entries::{Below, DirTask, Seen};
use super::walker::Held;
use super::{Estimate, Resync, Stop, TreePath};
use crate::locate;
use crate::sys;
use model::limits::ZONE_BYTES;
use replica::map::{FileKey, Record};
use replica::wire::HotPart;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// One thing the target says may differ there.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub what: HotPart,
    pub root: u64,
    pub range: (u64, u64),
    pub path: Vec<u8>,
}

impl Resync {
    /// Fills the plan, from what is known on both sides.
    pub(super) fn seed(&mut self) -> Result<(), Stop> {
        let leader = self.walker.leader.clone();
        if let Some(behind) = leader.behind() {
            while !behind.wait(Duration::from_millis(100)) {
                self.look()?;
                self.report_progress();
            }
            self.map = leader.map().map().clone();
            if self.map.is_everything() && !self.full {
                self.full = true;
                self.estimate = Some(Estimate::start(leader.roots().clone()));
            }
        }
        if !self.full {
            while !self.events.wait(Duration::from_millis(500), |news| news.told_all) {
                self.report_progress();
            }
        }
        let told = self.events.take_told();
        if !self.full && told.is_none() {
            tracing::info!("the target cannot say what a crash left different: everything is compared");
            self.full = true;
            self.estimate = Some(Estimate::start(self.walker.leader.roots().clone()));
        }
        let Some(told) = told.filter(|_| !self.full) else {
            self.walk_everything();
            return Ok(());
        };
        let mut seeds: BTreeMap<TreePath, bool> = BTreeMap::new();
        for item in told {
            if let Some((place, moved)) = self.told(item) {
                *seeds.entry(place).or_default() |= moved;
            }
        }
        let leader = self.walker.leader.clone();
        let found = locate::places(leader.roots(), leader.devices(), self.map.keys());
        let found = found.map_err(|e| Stop::Failed(format!("cannot look for what changed: {e}")))?;
        self.plan_moves(&found);
        for (key, places) in found {
            for place in places {
                *seeds.entry(place).or_default() |= self.map.is_moved(key);
            }
        }
        self.sow(&seeds);
        self.meter.set_total(self.map.count() * ZONE_BYTES);
        Ok(())
    }

    /// Takes in what the target said; gives the place, and whether everything there must be compared.
    fn told(&mut self, item: Told) -> Option<(TreePath, bool)> {
        let root = usize::try_from(item.root).ok()?;
        if root >= self.walker.leader.roots().len() {
            return None;
        }
        let names = item.path.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        let place = TreePath { root, names };
        let key = self.key_of(&place);
        match item.what {
            HotPart::Whole => {
                if let Some(key) = key {
                    self.map.mark(Record::Tree { key });
                }
            }
            HotPart::Extents => {
                let (offset, len) = item.range;
                let (first, end) = replica::map::zones(offset, len);
                if let Some(key) = key.filter(|_| first < end) {
                    self.map.mark(Record::Zones { key, first, end });
                }
            }
            HotPart::Entries | HotPart::Everything | HotPart::End => {}
        }
        Some((place, item.what == HotPart::Whole))
    }

    /// Directories are listed; an entry of its own is asked about only where its directory is not.
    fn sow(&mut self, seeds: &BTreeMap<TreePath, bool>) {
        let roots = self.walker.leader.roots().clone();
        let listed: HashSet<&TreePath> = seeds.keys().filter(|place| place.open(&roots).is_ok()).collect();
        for (place, moved) in seeds {
            let with_its_directory = place.split().filter(|(dir, _)| listed.contains(dir)).is_some();
            if listed.contains(place) && !moved {
                self.dirs.push(DirTask { path: place.clone(), fresh: false, below: Below::Nothing });
            } else if !with_its_directory {
                self.seed_place(place.clone(), *moved);
            }
        }
    }

    /// Compares what is at this place here; with all that is below if it was `moved`.
    fn seed_place(&mut self, place: TreePath, moved: bool) {
        let directory = place.names.is_empty() || place.open(self.walker.leader.roots()).is_ok();
        if directory && (!moved || place.names.is_empty()) {
            self.dirs.push(DirTask { path: place, fresh: false, below: Below::Nothing });
        } else if let Some((dir, name)) = place.split() {
            self.again.push((dir, name));
        }
    }

    /// What the map calls what is at this place.
    fn key_of(&self, place: &TreePath) -> Option<FileKey> {
        let (dir, name) = place.split()?;
        let st = self.own_entry(&dir, &name)?;
        Some(self.walker.leader.devices().key(st.st_dev, st.st_ino))
    }

    /// All names that these files have by now.
    pub(super) fn names_of<'a>(&self, keys: impl Iterator<Item = &'a FileKey>) -> Result<Vec<TreePath>, Stop> {
        let leader = &self.walker.leader;
        let devices = leader.devices();
        let found = locate::places(leader.roots(), devices, keys.map(|key| devices.key(key.dev, key.ino)));
        let found = found.map_err(|e| Stop::Failed(format!("cannot look for the names of a file: {e}")))?;
        Ok(found.into_values().flatten().collect())
    }

    /// All names of files with several, where only some directories are compared: they must lead to one file there
    /// as well. `false`: that is done.
    pub(super) fn seek_names(&mut self) -> Result<bool, Stop> {
        if self.full {
            return Ok(false);
        }
        let sought = &self.sought;
        let new: Vec<FileKey> = self.links.keys().filter(|key| !sought.contains(key)).copied().collect();
        if new.is_empty() {
            return Ok(false);
        }
        let found = self.names_of(new.iter())?;
        self.sought.extend(new);
        for place in found {
            self.seed_place(place, false);
        }
        Ok(true)
    }

    /// Which bytes of a file must be compared.
    pub(super) fn ranges(&self, entry: &Seen, dir: &Held, below: Below, changed: bool) -> Option<Ranges> {
        if self.full || below == Below::Everything || self.is_new(entry, dir) {
            return Some(Ranges::All);
        }
        let key = self.walker.leader.devices().key(entry.key.dev, entry.key.ino);
        let stretches = self.map.stretches_of(key);
        if !stretches.is_empty() {
            // The same file under the same name as when the map began (what was moved is marked as a whole).
            return Some(Ranges::These(stretches));
        }
        changed.then_some(Ranges::All)
    }

    /// What must be compared below a directory that is there on both sides.
    pub(super) fn below(&self, entry: &Seen, dir: &Held, asked: Below, again: bool) -> Below {
        match asked {
            Below::Everything => Below::Everything,
            _ if !self.full && self.is_new(entry, dir) => Below::Everything,
            Below::Nothing if !again => Below::Nothing,
            _ => Below::Entries,
        }
    }

    /// Moved, or made since its directory was touched: what the target has under this name may be something else.
    fn is_new(&self, entry: &Seen, dir: &Held) -> bool {
        let devices = self.walker.leader.devices();
        self.map.is_moved(devices.key(entry.key.dev, entry.key.ino))
            || self.map.since(devices.key(dir.key.dev, dir.key.ino)).is_some_and(|since_ms| {
                // What cannot be looked at is gone, and told of by whoever took it.
                sys::is_made_since(&dir.fd, &entry.name, since_ms).unwrap_or(true)
            })
    }
}
