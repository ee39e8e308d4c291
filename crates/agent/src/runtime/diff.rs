//! What the next resync would cost: `stead rfsdiff`. An estimate, from the change map and a walk over the tree.

use model::api::DiffCost;
use model::limits::{EXTENT_BYTES, HOT_TABLE, ZONE_BYTES};
use model::orders::{Counters, Progress};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Nothing was measured yet: a modest disk.
const ASSUMED_BYTES_PER_S: u64 = 100 << 20;
/// The walk is given up after this, within what a client waits for a look.
const WALK_MAX: Duration = Duration::from_secs(3);

/// Bytes per second of the last resync; `false`: assumed.
#[must_use]
pub fn rate(last: Option<&Progress>) -> (u64, bool) {
    let bytes = |p: &Progress| p.bytes_compared.max(p.bytes_sent);
    match last {
        // A short one says nothing of a long one.
        Some(p) if p.elapsed_ms >= 1_000 && bytes(p) > 0 => {
            let rate = u128::from(bytes(p)) * 1_000 / u128::from(p.elapsed_ms);
            (u64::try_from(rate).unwrap_or(u64::MAX).max(1), true)
        }
        _ => (ASSUMED_BYTES_PER_S, false),
    }
}

/// What the change map names; `None`: it cannot.
#[must_use]
pub fn changed(counters: &Counters, bytes_per_s: u64) -> Option<DiffCost> {
    let bytes = counters.dirty_zones.saturating_mul(ZONE_BYTES);
    let cost = DiffCost { entries: counters.dirty_entries, bytes, at_least: false, eta_ms: eta(bytes, bytes_per_s) };
    (!counters.dirty_everything).then_some(cost)
}

/// The same, and whatever the other node's activity log may hold: no more than there is.
#[must_use]
pub fn crashed(changed: DiffCost, whole: DiffCost, bytes_per_s: u64) -> DiffCost {
    let entries = changed.entries.saturating_add(HOT_TABLE as u64).min(whole.entries);
    let bytes = changed.bytes.saturating_add(HOT_TABLE as u64 * EXTENT_BYTES).min(whole.bytes);
    DiffCost { entries, bytes, at_least: false, eta_ms: eta(bytes, bytes_per_s) }
}

fn eta(bytes: u64, bytes_per_s: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000 / u128::from(bytes_per_s.max(1))).unwrap_or(u64::MAX)
}

/// Everything below these directories, without crossing a mount point or following a link.
#[must_use]
pub fn whole(dirs: &[PathBuf], bytes_per_s: u64) -> DiffCost {
    let begun = Instant::now();
    let mut cost = DiffCost::default();
    for root in dirs {
        let Ok(device) = root.symlink_metadata().map(|m| m.dev()) else { continue };
        let mut todo = vec![root.clone()];
        while let Some(dir) = todo.pop() {
            if begun.elapsed() > WALK_MAX {
                cost.at_least = true;
                break;
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Ok(found) = entry.metadata() else { continue };
                if found.dev() != device {
                    continue;
                }
                cost.entries += 1;
                if found.is_dir() {
                    todo.push(entry.path());
                } else if found.is_file() {
                    cost.bytes += found.len().min(found.blocks() * 512);
                }
            }
        }
    }
    cost.eta_ms = eta(cost.bytes, bytes_per_s);
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_last_resync_and_the_map_is_believed_only_when_it_can_tell() {
        let last = Progress { bytes_compared: 4_000, elapsed_ms: 2_000, ..Progress::default() };
        assert_eq!(rate(Some(&last)), (2_000, true));
        assert_eq!(rate(None), (ASSUMED_BYTES_PER_S, false));
        let counters = Counters { dirty_zones: 2, dirty_entries: 3, ..Counters::default() };
        let cost = changed(&counters, ZONE_BYTES).expect("the map can tell");
        assert_eq!((cost.entries, cost.bytes, cost.eta_ms), (3, 2 * ZONE_BYTES, 2_000));
        let of = |entries, bytes| DiffCost { entries, bytes, ..DiffCost::default() };
        let (hot, small) = (HOT_TABLE as u64, of(100, 5_000));
        assert_eq!(crashed(of(3, 10), small, 1_000), DiffCost { eta_ms: 5_000, ..small });
        let large = crashed(of(3, 10), of(u64::MAX, u64::MAX), ZONE_BYTES);
        assert_eq!((large.entries, large.bytes), (3 + hot, 10 + hot * EXTENT_BYTES));
        assert_eq!(changed(&Counters { dirty_everything: true, ..counters }, 1), None);
    }

    #[test]
    fn the_walk_counts_what_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("sub")).expect("a directory");
        std::fs::write(dir.path().join("sub/file"), [1; 8_192]).expect("a file");
        let cost = whole(&[dir.path().to_path_buf()], 8_192);
        assert_eq!((cost.entries, cost.bytes, cost.at_least, cost.eta_ms), (2, 8_192, false, 1_000));
    }
}
