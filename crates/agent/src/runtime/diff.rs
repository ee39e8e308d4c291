//! What the next resync would cost: `stead rfsdiff`. An estimate, from the change map and a walk over the tree.

use model::api::{DiffCost, Reckoned};
use model::limits::{EXTENT_BYTES, HOT_TABLE, RECKON_MS, ZONE_BYTES};
use model::orders::{Counters, Progress};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Nothing was measured yet: a modest disk.
const ASSUMED_BYTES_PER_S: u64 = 100 << 20;
/// A walk that is given up after [`RECKON_MS`] has answered by then.
const RECKON: Duration = Duration::from_millis(RECKON_MS + 1_000);

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

/// What changed; `None`: that is not known. What was overwritten the data plane counts more finely than its map on disk, a moment ago.
#[must_use]
pub fn changed(reckoned: &Reckoned, counters: &Counters, bytes_per_s: u64) -> Option<DiffCost> {
    let finer = counters.dirty_zones.saturating_mul(ZONE_BYTES);
    let written = if finer > 0 { finer.min(reckoned.written) } else { reckoned.written };
    let cost = reckoned.changed.filter(|_| !counters.dirty_everything)?;
    let bytes = cost.bytes.saturating_sub(reckoned.written) + written;
    Some(DiffCost { bytes, eta_ms: eta(bytes, bytes_per_s), ..cost })
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

/// With the time it takes.
#[must_use]
pub fn timed(cost: DiffCost, bytes_per_s: u64) -> DiffCost {
    DiffCost { eta_ms: eta(cost.bytes, bytes_per_s), ..cost }
}

/// Asks a data plane of its own, which only looks, what is to be compared.
///
/// # Errors
/// Why it does not say.
pub async fn reckon(state_dir: &Path, dirs: &[String]) -> Result<Reckoned, String> {
    let program = super::plane::own_program().map_err(|error| error.to_string())?;
    let mut command = tokio::process::Command::new(program);
    command.args(["mirrorfs", "--json", "--reckon"]).arg(state_dir);
    command.args(dirs.iter().flat_map(|dir| ["--tree", dir]));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(RECKON, command.output()).await;
    let output = asked.map_err(|_| format!("no answer within {RECKON:?}"))?.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{} ({})", said.trim(), output.status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_last_resync_and_the_map_is_believed_only_when_it_can_tell() {
        let last = Progress { bytes_compared: 4_000, elapsed_ms: 2_000, ..Progress::default() };
        assert_eq!(rate(Some(&last)), (2_000, true));
        assert_eq!(rate(None), (ASSUMED_BYTES_PER_S, false));
        let counters = Counters { dirty_zones: 2, ..Counters::default() };
        let found = DiffCost { entries: 3, bytes: 5 * ZONE_BYTES, ..DiffCost::default() };
        let reckoned = Reckoned { changed: Some(found), written: 4 * ZONE_BYTES, whole: DiffCost::default() };
        let cost = changed(&reckoned, &counters, ZONE_BYTES).expect("the map can tell");
        assert_eq!((cost.entries, cost.bytes, cost.eta_ms), (3, 3 * ZONE_BYTES, 3_000), "what is new, and two zones");
        let fresh = changed(&reckoned, &Counters::default(), ZONE_BYTES).expect("the map can tell");
        assert_eq!(fresh.bytes, 5 * ZONE_BYTES, "it has not counted yet");
        let of = |entries, bytes| DiffCost { entries, bytes, ..DiffCost::default() };
        let (hot, small) = (HOT_TABLE as u64, of(100, 5_000));
        assert_eq!(crashed(of(3, 10), small, 1_000), DiffCost { eta_ms: 5_000, ..small });
        let large = crashed(of(3, 10), of(u64::MAX, u64::MAX), ZONE_BYTES);
        assert_eq!((large.entries, large.bytes), (3 + hot, 10 + hot * EXTENT_BYTES));
        assert_eq!(changed(&reckoned, &Counters { dirty_everything: true, ..counters }, 1), None);
    }
}
