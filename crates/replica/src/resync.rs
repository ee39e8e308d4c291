//! The plan of a resync: which checks are outstanding, how far it is, when it may end.
//!
//! What a check is about is the caller's (`C`). **Invariant:** the copies are equal when every check has been
//! answered, every difference has been repaired by a later change of the stream, and nothing was found since.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use model::ids::Lsn;
use model::orders::Progress;

/// Checks that wait for their answer, at most: enough to keep both disks busy, little enough that changes of
/// the application do not queue behind hashing for long.
pub const OUTSTANDING_MAX: usize = 16;

/// Outstanding checks, and what was found for each.
#[derive(Debug)]
pub struct Plan<C, F> {
    checks: BTreeMap<Lsn, (C, Vec<F>)>,
}

impl<C, F> Default for Plan<C, F> {
    fn default() -> Self {
        Self { checks: BTreeMap::new() }
    }
}

impl<C, F> Plan<C, F> {
    /// A check was sent at this position.
    pub fn sent(&mut self, lsn: Lsn, check: C) {
        self.checks.insert(lsn, (check, Vec::new()));
    }

    /// The target found something at this position. `false`: nothing was asked there.
    pub fn found(&mut self, lsn: Lsn, what: F) -> bool {
        match self.checks.get_mut(&lsn) {
            Some((_, found)) => {
                found.push(what);
                true
            }
            None => false,
        }
    }

    /// What was asked at this position could not be looked at.
    pub fn forget(&mut self, lsn: Lsn) {
        self.checks.remove(&lsn);
    }

    /// The oldest check the target is past, with everything it found (findings come before the
    /// acknowledgement).
    pub fn answered(&mut self, applied: Lsn) -> Option<(C, Vec<F>)> {
        let oldest = self.checks.first_entry().filter(|e| *e.key() <= applied)?;
        Some(oldest.remove())
    }

    /// May another check be sent?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.checks.len() < OUTSTANDING_MAX
    }

    /// Has every check been answered?
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.checks.is_empty()
    }
}

/// How far it is. Time is an argument (I1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    progress: Progress,
    begun_ms: u64,
}

impl Meter {
    /// Begins now; `bytes_total` is an estimate, 0 if there is none.
    #[must_use]
    pub fn new(now_ms: u64, bytes_total: u64) -> Self {
        Self { progress: Progress { bytes_total, ..Progress::default() }, begun_ms: now_ms }
    }

    /// A better estimate of the whole.
    pub fn set_total(&mut self, bytes_total: u64) {
        self.progress.bytes_total = bytes_total;
    }

    /// Entries were compared or made.
    pub fn entries(&mut self, n: u64) {
        self.progress.entries += n;
    }

    /// Content was compared by hash.
    pub fn compared(&mut self, bytes: u64) {
        self.progress.bytes_compared += bytes;
    }

    /// Content was sent.
    pub fn sent(&mut self, bytes: u64) {
        self.progress.bytes_sent += bytes;
    }

    /// Bytes that cost something so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.bytes_compared + self.progress.bytes_sent
    }

    /// For the report.
    #[must_use]
    pub fn progress(&self, now_ms: u64) -> Progress {
        let elapsed_ms = now_ms.saturating_sub(self.begun_ms);
        let done = self.progress.bytes_done();
        let left = self.progress.bytes_total.saturating_sub(done);
        let (wide, done) = (u128::from(elapsed_ms), u128::from(done));
        let fits = |value: u128| value.min(u128::from(u64::MAX)) as u64;
        let bytes_per_s = if elapsed_ms == 0 { 0 } else { fits(done * 1_000 / wide) };
        // Below a second any estimate is noise.
        let eta_ms = (elapsed_ms >= 1_000 && done > 0 && self.progress.bytes_total > 0)
            .then(|| fits(wide * u128::from(left) / done));
        Progress { elapsed_ms, bytes_per_s, eta_ms, ..self.progress }
    }

    /// How long to wait so that `bytes_per_s` (0: no cap) is kept, in milliseconds.
    #[must_use]
    pub fn pause_ms(&self, now_ms: u64, bytes_per_s: u64) -> u64 {
        if bytes_per_s == 0 {
            return 0;
        }
        let due_ms = u128::from(self.bytes()) * 1_000 / u128::from(bytes_per_s);
        (due_ms as u64).saturating_sub(now_ms.saturating_sub(self.begun_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_check_is_answered_with_all_its_findings_and_in_order() {
        let mut plan: Plan<&str, u8> = Plan::default();
        plan.sent(Lsn(5), "a");
        plan.sent(Lsn(9), "b");
        assert!(plan.found(Lsn(9), 1) && plan.found(Lsn(5), 2) && plan.found(Lsn(5), 3));
        assert!(!plan.found(Lsn(6), 4), "nothing was asked at 6");
        assert_eq!(plan.answered(Lsn(4)), None);
        assert_eq!(plan.answered(Lsn(9)), Some(("a", vec![2, 3])));
        assert!(!plan.is_through());
        assert_eq!(plan.answered(Lsn(9)), Some(("b", vec![1])));
        assert!(plan.is_through());
    }

    #[test]
    fn the_estimate_follows_the_speed_and_the_cap_is_kept() {
        let mut meter = Meter::new(1_000, 10_000);
        assert_eq!(meter.progress(1_500).eta_ms, None);
        meter.compared(2_500);
        assert_eq!(meter.progress(3_000).eta_ms, Some(6_000));
        assert_eq!(meter.progress(3_000).bytes_per_s, 1_250);
        assert_eq!(meter.pause_ms(3_000, 500), 3_000);
        assert_eq!(meter.pause_ms(3_000, 0), 0);
    }
}
