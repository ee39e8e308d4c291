//! What became of frames while each view was in force: the filter counts without an end, and here stands how far it was when each view began.
//!
//! Pure. **Invariants:** the newest view is last; no more than [`GENERATIONS_MAX`] are remembered. A frame that is counted within the microseconds
//! between the filter's change and the look at its counters is the view's before.

use model::api::FarmGenerationView;
use model::farm::Fate;
use model::limits::GENERATIONS_MAX;
use std::collections::VecDeque;

type Counters = Vec<(Fate, u64)>;

/// Of one filter.
#[derive(Default)]
pub struct Generations(VecDeque<(u64, Counters)>);

impl Generations {
    /// From now on this view decides (0: none); `so_far`: the filter's counters.
    pub fn begin(&mut self, view: u64, so_far: Counters) {
        // Shown again, because something else about it is news.
        if self.0.back().is_some_and(|(last, _)| *last == view) {
            return;
        }
        if self.0.len() == GENERATIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((view, so_far));
    }

    /// Newest first; `now`: the filter's counters.
    #[must_use]
    pub fn views(&self, now: &[(Fate, u64)]) -> Vec<FarmGenerationView> {
        let mut end = now;
        let mut views = Vec::new();
        for (view, begin) in self.0.iter().rev() {
            let at = |counters: &[(Fate, u64)], fate: Fate| {
                counters.iter().find(|(it, _)| *it == fate).map_or(0, |(_, count)| *count)
            };
            // Who spoke as a virtual address is known only later for a stranger or a member.
            let of_it = end.iter().filter(|(fate, _)| *fate != Fate::Conflict);
            let counters = of_it.map(|(fate, count)| (*fate, count.saturating_sub(at(begin, *fate)))).collect();
            views.push(FarmGenerationView { view: *view, counters });
            end = begin;
        }
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(accepted: u64, passed: u64) -> Counters {
        vec![(Fate::Accepted, accepted), (Fate::Passed, passed), (Fate::Conflict, 7)]
    }

    #[test]
    fn each_view_has_what_came_while_it_was_in_force() {
        let mut generations = Generations::default();
        assert!(generations.views(&counters(3, 0)).is_empty(), "none was shown");
        generations.begin(0, counters(3, 0));
        generations.begin(7, counters(10, 1));
        generations.begin(7, counters(12, 1));
        generations.begin(8, counters(20, 5));
        let told = generations.views(&counters(21, 5));
        let told: Vec<_> = told.iter().map(|it| (it.view, it.counters.clone())).collect();
        let of = |accepted, passed| vec![(Fate::Accepted, accepted), (Fate::Passed, passed)];
        assert_eq!(told, [(8, of(1, 0)), (7, of(10, 4)), (0, of(7, 1))]);
    }

    #[test]
    fn so_many_are_remembered() {
        let mut generations = Generations::default();
        for view in 1..100 {
            generations.begin(view, counters(view, 0));
        }
        let told = generations.views(&counters(100, 0));
        assert_eq!(told.len(), GENERATIONS_MAX);
        assert!(told.iter().all(|it| it.counters[0] == (Fate::Accepted, 1)), "{told:?}");
        assert_eq!(told.first().map(|it| it.view), Some(99));
    }
}
