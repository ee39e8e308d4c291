//! Whether the tasks of this process still run: heartbeats have a thread of their own, and must not say that all is well
//! for an agent in which everything else waits for a file that nobody gives.

use platform::clock::boot_ms;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When the tasks ran last; 0: nobody has begun to say so.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Between two signs of life.
const EVERY: Duration = Duration::from_millis(100);

/// Says so as long as the runtime does its work.
pub async fn tell() {
    loop {
        LAST.store(boot_ms(), Ordering::Relaxed);
        tokio::time::sleep(EVERY).await;
    }
}

/// For how long no task has run.
pub(super) fn asleep_ms() -> u64 {
    match LAST.load(Ordering::Relaxed) {
        0 => 0,
        last => boot_ms().saturating_sub(last),
    }
}
