//! What the target could not do: which entries must be compared again, and of which files it may have missed a change.
//!
//! A change goes to a file by whatever name the front knows; the target may have that file under another name, which
//! nobody mentions. **Invariant:** a file of which a change was missed is compared under every name it has, after that
//! change, before the commit.

use super::events::{Found, Touched};
use super::walker::Walker;
use super::{Resync, Stop};
use crate::sys;
use replica::map::{FileKey, Record};
use replica::op::FileId;
use replica::wire::LINKS_FROM;

/// More doubtful files than this: everything is compared again.
const DOUBTFUL_MAX: usize = 100_000;

impl Resync {
    /// The target could not do something: compare the entry again (its id is bound anew by its next use).
    pub(super) fn absent(&mut self, found: Found) -> Result<(), Stop> {
        if Walker::is_ours(found.id) {
            self.walker.invalidate(found.id);
            // It begins anew.
            self.files.retain(|task| task.id() != Some(found.id));
        } else if found.id.0 >= LINKS_FROM
            && let Some(link) = self.links.by_number(found.id.0)
        {
            link.known = false;
        }
        let (id, dir) = (found.id, FileId(found.offset));
        let leader = self.walker.leader.clone();
        let (said, now) = self.walker.with_order(|walker| {
            // Where it is now: it may have moved since it was bound (or could not be).
            let now = match walker.place(id) {
                Some(place) => Some(place),
                None if id.0 >= FileId::FIRST.0 && id.0 < LINKS_FROM => {
                    let place = leader.tree().and_then(|tree| tree.place(id));
                    place.and_then(|(parent, name)| leader.path_of(parent).map(|path| (path, name)))
                }
                None => None,
            };
            if found.name.is_empty() {
                return (None, now);
            }
            let dir = match walker.place(dir) {
                Some((path, name)) => Some(path.join(&name)),
                None => leader.path_of(dir),
            };
            (dir.map(|dir| (dir, found.name.clone())), now)
        })?;
        self.settled = false;
        if said.is_none() && !found.name.is_empty() {
            // Its directory is gone or unknown by now: something may have been missed.
            self.walk_again();
        }
        if Walker::is_ours(id) && now.is_none() {
            // Of so long ago that its place is forgotten.
            self.walk_again();
        }
        let now = now.filter(|now| Some(now) != said.as_ref());
        // It may have other names there, under which it misses the change, and none of these here any more.
        let mut missed = if Walker::is_ours(id) {
            self.walker.key(id).into_iter().collect()
        } else if id.0 < LINKS_FROM {
            match self.events.touched(id, (dir, &found.name)) {
                Touched::These(keys) => keys,
                // Nothing of it was changed.
                Touched::Never => Vec::new(),
                Touched::Forgotten => {
                    self.compare_everything_again();
                    Vec::new()
                }
            }
        } else {
            Vec::new()
        };
        for place in said.into_iter().chain(now) {
            let there = self.own_entry(&place.0, &place.1);
            let key = there.map(|st| FileKey { dev: st.st_dev, ino: st.st_ino });
            if there.is_none_or(|st| sys::kind(&st) == sys::S_IFDIR) {
                // A directory has one name, and is compared by it.
                missed.retain(|it| Some(*it) != key);
                self.verified.clear();
            } else {
                missed.extend(key);
            }
            if !place.1.is_empty() {
                self.again.push(place);
            }
        }
        missed.into_iter().for_each(|key| self.doubt(key));
        Ok(())
    }

    pub(super) fn doubt(&mut self, key: FileKey) {
        self.verified.remove(&key);
        if self.doubtful.len() >= DOUBTFUL_MAX {
            self.doubtful.clear();
            self.compare_everything_again();
        }
        // What the map says of it is not enough any more.
        self.mark_whole(key);
        self.doubts += 1;
        self.doubtful.insert(key, self.doubts);
    }

    pub(super) fn mark_whole(&mut self, key: FileKey) {
        if !self.full {
            let key = self.walker.leader.devices().key(key.dev, key.ino);
            self.map.mark(Record::Tree { key });
        }
    }

    /// Every name and every attribute; of files, what the map names.
    fn walk_again(&mut self) {
        self.verified.clear();
        self.rewalk = true;
    }

    /// Every byte.
    pub(super) fn compare_everything_again(&mut self) {
        self.full = true;
        self.walk_again();
    }

    /// Every name that doubtful files have by now: no change of one is missed any more, so it is compared for good.
    /// `false`: there are none.
    pub(super) fn seek_doubtful(&mut self) -> Result<bool, Stop> {
        if self.doubtful.is_empty() {
            return Ok(false);
        }
        let keys = std::mem::take(&mut self.doubtful);
        let found = self.names_of(keys.keys())?;
        for (dir, name) in found.into_iter().filter_map(|place| place.split()) {
            if !self.is_ignored(&dir, &name) {
                self.again.push((dir, name));
            }
        }
        Ok(true)
    }
}
