//! Is a situation known by its fingerprint? A search that takes two situations for one must find the same in both.

use super::{Space, Spent, describe, highest_epoch, steps};
use crate::fingerprint::fingerprint;
use crate::world::World;
use crate::world::step::Step;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Visits a space and compares, wherever a fingerprint is met again, what can follow from both situations (as if nothing
/// had been spent yet: a fingerprint says nothing of that).
///
/// # Errors
/// Two situations with one fingerprint and different futures, in words.
pub fn exact(space: &Space, cap: usize) -> Result<usize, String> {
    let start = space.start.world(space.rules.clone());
    let first_epoch = highest_epoch(&start);
    let mut known: HashMap<u64, (World, Vec<u64>)> = HashMap::new();
    let mut todo = VecDeque::from([(start, Spent::default())]);
    let mut met_again = 0;
    while let Some((world, spent)) = todo.pop_back() {
        let print = fingerprint(&world);
        if let Some((other, theirs)) = known.get(&print) {
            if *other == world {
                continue;
            }
            met_again += 1;
            let mine = futures(space, &world);
            if mine.iter().map(|(_, print)| *print).collect::<BTreeSet<_>>() != theirs.iter().copied().collect() {
                let step = mine.iter().find(|(_, print)| !theirs.contains(print));
                let step = step.map(|(step, _)| describe(&world, *step)).unwrap_or_default();
                return Err(format!(
                    "one fingerprint, but not one future ({step}):\n{}{}",
                    differences(other, &world),
                    world.describe()
                ));
            }
            continue;
        }
        if known.len() >= cap {
            continue;
        }
        let all = futures(space, &world).into_iter().map(|(_, print)| print).collect();
        for (step, cost) in steps(space, &world, spent) {
            let mut next = world.clone();
            if next.make(step)
                && let Some(cost) = cost.with_epochs(space, first_epoch, &next)
            {
                todo.push_back((next, cost));
            }
        }
        known.insert(print, (world, all));
    }
    Ok(met_again)
}

fn futures(space: &Space, world: &World) -> Vec<(Step, u64)> {
    let possible = steps(space, world, Spent::default()).into_iter();
    possible
        .filter_map(|(step, _)| {
            let mut next = world.clone();
            next.make(step).then(|| (step, fingerprint(&next)))
        })
        .collect()
}

fn differences(one: &World, other: &World) -> String {
    let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
    let different = one.lines().zip(other.lines()).filter(|(a, b)| a != b);
    different.map(|(a, b)| format!("  {} | {}\n", a.trim(), b.trim())).collect()
}
