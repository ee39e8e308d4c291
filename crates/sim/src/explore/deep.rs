//! The same search, depth first: a situation costs ten bytes instead of two thousand, so that hundreds of millions fit.
//!
//! A situation is expanded by whoever remembers it first, and everything that is remembered is expanded: the situations
//! visited are exactly those of [`super::explore`], in another order (a test compares the counts), and by several threads. What costs
//! nothing is tried first, so that most situations are met first by who spent least.
//! What is lost: the story that is told is not the shortest.

use super::seen::{Met, Seen};
use super::{Outcome, Space, Spent, describe, highest_epoch, must_heal, steps};
use crate::fingerprint::fingerprint;
use crate::world::World;
use crate::world::step::Step;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// So that two threads rarely want the same part of what is remembered.
const SHARDS: usize = 256;
/// How many situations a thread expands between two questions whether to go on.
const ROUND: u64 = 8_192;

/// One situation on the way down, and what is still to be tried there.
struct Frame {
    world: World,
    by: Option<Step>,
    left: Vec<(Step, Spent)>,
}

struct Shared<'a> {
    space: &'a Space,
    first_epoch: u64,
    cap: u64,
    seen: Vec<Mutex<Seen>>,
    situations: AtomicU64,
    steps: AtomicU64,
    cut_epochs: AtomicU64,
    healed: AtomicU64,
    depth: AtomicU64,
    /// Cut by the cap, by whoever asked, or by a broken promise.
    over: AtomicBool,
    story: Mutex<Option<String>>,
}

/// Searches a space with so many threads, visiting at most `cap` situations, as long as `go_on` says so.
#[must_use]
pub fn explore_deep(space: &Space, cap: u64, threads: usize, go_on: &(dyn Fn(&Outcome) -> bool + Sync)) -> Outcome {
    let start = space.start.world(space.rules.clone());
    let shared = Shared {
        space,
        first_epoch: highest_epoch(&start),
        cap,
        seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
        situations: AtomicU64::new(1),
        steps: AtomicU64::new(0),
        cut_epochs: AtomicU64::new(0),
        healed: AtomicU64::new(0),
        depth: AtomicU64::new(0),
        over: AtomicBool::new(false),
        story: Mutex::new(None),
    };
    shared.meet(&start, &Spent::default());
    std::thread::scope(|scope| {
        for thread in 0..threads.max(1) {
            let (shared, start) = (&shared, start.clone());
            scope.spawn(move || shared.descend(start, thread, go_on));
        }
    });
    let exhausted = !shared.over.load(Ordering::Acquire);
    let counterexample = shared.story.lock().unwrap_or_else(PoisonError::into_inner).take();
    Outcome { exhausted, counterexample, ..shared.outcome() }
}

/// What costs nothing is taken first (from the end); every second thread takes the others of a kind first.
fn by_cost(left: &mut [(Step, Spent)], thread: usize) {
    if thread % 2 == 1 {
        left.reverse();
    }
    left.sort_by_key(|(_, spent)| std::cmp::Reverse((spent.faults, spent.commands.count_ones(), spent.expiries)));
}

impl Shared<'_> {
    fn outcome(&self) -> Outcome {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Outcome {
            situations: of(&self.situations),
            steps: of(&self.steps),
            cut_epochs: of(&self.cut_epochs),
            exhausted: false,
            healed: of(&self.healed),
            depth: u32::try_from(of(&self.depth)).unwrap_or(u32::MAX),
            counterexample: None,
        }
    }

    fn meet(&self, world: &World, spent: &Spent) -> Met {
        let hash = fingerprint(world);
        let shard = &self.seen[(hash >> 56) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner).meet(hash, spent)
    }

    /// Everybody begins at the beginning, each with another step: the situations that another has are left to it.
    fn descend(&self, start: World, thread: usize, go_on: &(dyn Fn(&Outcome) -> bool + Sync)) {
        let mut left = steps(self.space, &start, Spent::default());
        by_cost(&mut left, thread);
        let mut way = vec![Frame { world: start, by: None, left }];
        let mut expanded = 0u64;
        while let Some(frame) = way.last_mut() {
            let Some((step, cost)) = frame.left.pop() else {
                way.pop();
                continue;
            };
            let mut next = frame.world.clone();
            if !next.make(step) {
                continue;
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
            let Some(cost) = cost.with_epochs(self.space, self.first_epoch, &next) else {
                self.cut_epochs.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let met = self.meet(&next, &cost);
            if met == Met::Known {
                continue;
            }
            if let Some(what) = next.violation() {
                return self.broken(&what, &way, step);
            }
            if met == Met::New && self.situations.fetch_add(1, Ordering::Relaxed) >= self.cap {
                self.over.store(true, Ordering::Release);
            }
            expanded += 1;
            if self.space.heal_every > 0 && expanded.is_multiple_of(self.space.heal_every) {
                self.healed.fetch_add(1, Ordering::Relaxed);
                let mut later = next.clone();
                later.heal();
                let whole = later.is_whole() || !must_heal(&next);
                if let Some(what) = later.violation().or_else(|| (!whole).then(|| "P6: does not heal".to_string())) {
                    return self.broken(&what, &way, step);
                }
            }
            self.depth.fetch_max(way.len() as u64, Ordering::Relaxed);
            if expanded.is_multiple_of(ROUND) && thread == 0 && !go_on(&self.outcome()) {
                self.over.store(true, Ordering::Release);
            }
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let mut left = steps(self.space, &next, cost);
            by_cost(&mut left, thread);
            way.push(Frame { world: next, by: Some(step), left });
        }
    }

    fn broken(&self, what: &str, way: &[Frame], last: Step) {
        self.over.store(true, Ordering::Release);
        let mut told = format!("{what}, {}\n", self.space.name);
        let made = way.iter().skip(1).filter_map(|frame| frame.by).chain([last]);
        for ((number, frame), step) in way.iter().enumerate().zip(made) {
            told.push_str(&format!("{:3}. {}\n", number + 1, describe(&frame.world, step)));
        }
        if let Some(frame) = way.last() {
            told.push_str(&frame.world.describe());
        }
        self.story.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
    }
}
