//! How long this process has been waiting for its disk: whoever depends on it must know when it does not answer.

use crate::clock::boot_ms;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When each write under way began. Locked for an instant only: the heartbeat's thread asks.
static BEGAN: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

fn began() -> MutexGuard<'static, BTreeMap<u64, u64>> {
    BEGAN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A write of a state file or a journal that has not returned yet.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub struct UnderWay(u64);

impl UnderWay {
    /// It begins now.
    pub fn begin() -> Self {
        let mut all = began();
        let key = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(key, boot_ms());
        Self(key)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        began().remove(&self.0);
    }
}

/// Age of the oldest write under way, in milliseconds; 0: none.
#[must_use]
pub fn longest_write_ms() -> u64 {
    let oldest = began().values().min().copied();
    oldest.map_or(0, |oldest| boot_ms().saturating_sub(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_write_counts_until_it_is_over() {
        let first = UnderWay::begin();
        let waited = || longest_write_ms() >= 20;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !waited() && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        let second = UnderWay::begin();
        assert!(waited());
        drop(first);
        // Other tests write too, but none for so long.
        let since = boot_ms();
        while longest_write_ms() > boot_ms() - since + 15 {
            assert!(std::time::Instant::now() < end, "an ended write still counts");
        }
        drop(second);
    }
}
