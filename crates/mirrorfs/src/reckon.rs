//! What a resync of changes would compare: reckoned beside the data plane, from its map on disk and a walk over the tree as anybody sees it.
//!
//! An estimate. The map on disk names extents where the one in memory knows blocks, so of what was overwritten it says too much; the rest is
//! what [`crate::resync`] compares as well: what was moved, and what was made since its directory was touched.

use crate::map::{self, millis};
use model::api::{DiffCost, Reckoned};
use model::limits::ZONE_BYTES;
use replica::map::{ChangeMap, FileKey};
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Walks these replicated directories for so long at most.
///
/// # Errors
/// The map cannot be read.
pub fn reckon(state_dir: &Path, dirs: &[PathBuf], within: Duration) -> io::Result<Reckoned> {
    let map = map::on_disk(state_dir)?;
    let named: HashSet<FileKey> = map.keys().collect();
    let until = Instant::now() + within;
    let mut walk = Walk { map: &map, named, changed: DiffCost::default(), written: 0, whole: DiffCost::default() };
    for (number, root) in dirs.iter().enumerate() {
        walk.tree(number as u64, root, until);
    }
    let Walk { changed, written, whole, .. } = walk;
    Ok(Reckoned { changed: (!map.is_everything()).then_some(changed), written, whole })
}

struct Walk<'a> {
    map: &'a ChangeMap,
    named: HashSet<FileKey>,
    changed: DiffCost,
    /// Of the changed bytes, those of extents that were overwritten.
    written: u64,
    whole: DiffCost,
}

impl Walk<'_> {
    /// Without crossing a mount point or following a link.
    fn tree(&mut self, root: u64, path: &Path, until: Instant) {
        let Ok(about) = path.symlink_metadata() else { return };
        let first = self.key(root, about.ino());
        let mut todo = vec![(path.to_path_buf(), first, false)];
        while let Some((dir, key, is_new)) = todo.pop() {
            let since = key.and_then(|key| self.map.since(key));
            // What goes while we look is nothing to compare.
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if Instant::now() > until {
                    (self.whole.at_least, self.changed.at_least) = (true, true);
                    return;
                }
                let Ok(found) = entry.metadata() else { continue };
                if found.dev() != about.dev() {
                    continue;
                }
                let key = self.key(root, found.ino());
                let is_new = is_new
                    || key.is_some_and(|key| self.map.is_moved(key))
                    || since.is_some_and(|since| is_made_since(&found, since));
                self.count(&found, key, is_new || since.is_some(), is_new);
                if found.is_dir() {
                    todo.push((entry.path(), key, is_new));
                }
            }
        }
    }

    fn count(&mut self, found: &std::fs::Metadata, key: Option<FileKey>, is_listed: bool, is_new: bool) {
        let bytes = if found.is_file() { found.len().min(found.blocks() * 512) } else { 0 };
        self.whole.entries += 1;
        self.whole.bytes += bytes;
        if !is_listed && key.is_none() {
            return;
        }
        self.changed.entries += 1;
        if is_new {
            self.changed.bytes += bytes;
        } else if let Some(key) = key {
            let zones = self.map.zones_of(key);
            let within = |zone: u64| zone.saturating_mul(ZONE_BYTES).min(found.len());
            let written: u64 = zones.map(|(first, end)| within(end) - within(first)).sum();
            self.changed.bytes += written;
            self.written += written;
        }
    }

    /// What the map calls it, if it names it. Seen through the mount, directories on one device have different ones, and the map calls them by the
    /// first: any up to this one may be meant.
    fn key(&self, root: u64, ino: u64) -> Option<FileKey> {
        (0..=root).map(|dev| FileKey { dev, ino }).find(|key| self.named.contains(key))
    }
}

/// Where the kernel does not say through the mount when it was made, the last change has to do.
fn is_made_since(found: &std::fs::Metadata, since_ms: u64) -> bool {
    let Ok(made) = found.created() else { return millis(found.ctime(), found.ctime_nsec()) >= since_ms };
    let made = made.duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(i64::try_from(made.as_secs()).unwrap_or(i64::MAX), i64::from(made.subsec_nanos())) >= since_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{DiskMap, now_ms};
    use replica::map::Record;
    use std::fs;

    #[test]
    fn what_is_new_moved_overwritten_or_in_a_changed_directory_is_to_be_compared() {
        let base = tempfile::tempdir().unwrap();
        let [state, tree] = ["state", "tree"].map(|name| base.path().join(name));
        for dir in [&state, &tree, &tree.join("moved"), &tree.join("still")] {
            fs::create_dir(dir).unwrap();
        }
        for name in ["moved/file", "still/file", "overwritten"] {
            fs::write(tree.join(name), vec![1; 4 * ZONE_BYTES as usize]).unwrap();
        }
        let key = |name: &str| FileKey { dev: 0, ino: tree.join(name).metadata().unwrap().ino() };
        let reckoned = |within| reckon(&state, std::slice::from_ref(&tree), within).unwrap();
        let long = Duration::from_secs(60);
        let of = |entries, zones: u64| DiffCost { entries, bytes: zones * ZONE_BYTES, ..DiffCost::default() };
        let whole = of(5, 12);
        assert_eq!(reckoned(long), Reckoned { changed: Some(of(0, 0)), written: 0, whole });
        let (mut map, _) = DiskMap::open(&state);
        map.begin(true, []).unwrap();
        let moved = key("moved");
        map.touch([Record::Tree { key: moved }]).unwrap();
        assert_eq!(reckoned(long).changed, Some(of(2, 4)), "the directory and what is below it");
        map.touch([Record::Zones { key: key("overwritten"), first: 1, end: 3 }]).unwrap();
        assert_eq!((reckoned(long).changed, reckoned(long).written), (Some(of(3, 6)), 2 * ZONE_BYTES));
        // Made later than what was there.
        while now_ms() <= millis_of(&tree.join("still/file")) {
            std::thread::yield_now();
        }
        map.touch([Record::Entries { key: key("still"), since_ms: now_ms() }]).unwrap();
        fs::write(tree.join("still/new"), vec![1; ZONE_BYTES as usize]).unwrap();
        assert_eq!(reckoned(long).changed, Some(of(6, 7)), "the directory, what was in it before, and what is new");
        map.touch([Record::Everything]).unwrap();
        assert_eq!(reckoned(long), Reckoned { changed: None, written: 0, whole: of(6, 13) });
        assert!(reckoned(Duration::ZERO).whole.at_least);
    }

    fn millis_of(path: &Path) -> u64 {
        let made = path.metadata().unwrap().created().unwrap().duration_since(UNIX_EPOCH).unwrap();
        millis(made.as_secs() as i64, i64::from(made.subsec_nanos()))
    }
}
