//! Latencies of one load: how many, and where the middle and the tail are.

use std::collections::BTreeMap;
use std::time::Duration;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// Sorted when asked.
#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// One more.
    pub fn add(&mut self, one: Duration) {
        self.0.push(one.as_nanos() as u64);
    }

    /// Those of another writer.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// `p50` and `p99` in microseconds, `per_s` over the time it took all.
    pub fn figures(mut self, took: Duration) -> Figures {
        self.0.sort_unstable();
        let at = |part: f64| {
            let index = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
            self.0.get(index).map_or(f64::NAN, |nanos| *nanos as f64 / 1000.0)
        };
        let per_s = self.0.len() as f64 / took.as_secs_f64();
        Figures::from([("p50".into(), at(0.5)), ("p99".into(), at(0.99)), ("per_s".into(), per_s)])
    }
}
