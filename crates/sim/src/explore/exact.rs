//! Is a situation known by its fingerprint? A search that takes two situations for one must find the same in both.

use super::{Space, Spent, describe, highest_epoch, steps};
use crate::fingerprint::fingerprint;
use crate::world::World;
use crate::world::step::Step;
use std::collections::HashMap;

/// Visits a space and compares, wherever a fingerprint is met again, what can follow from both situations.
///
/// # Errors
/// Two situations with one fingerprint and different futures, in words.
pub fn exact(space: &Space, cap: usize) -> Result<usize, String> {
    let start = space.start.world(space.rules.clone());
    let first_epoch = highest_epoch(&start);
    let mut known: HashMap<u64, (World, Vec<u64>)> = HashMap::new();
    let mut todo = vec![(start, Spent::default())];
    let mut met_again = 0;
    while let Some((world, spent)) = todo.pop() {
        let followers: Vec<(Step, World, Spent)> = steps(space, &world, spent)
            .into_iter()
            .filter_map(|(step, cost)| {
                let mut next = world.clone();
                next.make(step).then_some((step, next, cost))
            })
            .filter(|(_, next, _)| highest_epoch(next) < first_epoch + space.most_epochs)
            .collect();
        let mut futures: Vec<u64> = followers.iter().map(|(_, next, cost)| fingerprint(next, cost)).collect();
        futures.sort_unstable();
        futures.dedup();
        let print = fingerprint(&world, &spent);
        if let Some((other, theirs)) = known.get(&print) {
            met_again += 1;
            if *theirs != futures {
                let step = followers.iter().find(|(_, next, cost)| !theirs.contains(&fingerprint(next, cost)));
                let step = step.map(|(step, ..)| describe(&world, *step)).unwrap_or_default();
                return Err(format!(
                    "one fingerprint, but not one future ({step}):\n{}{}",
                    differences(other, &world),
                    world.describe()
                ));
            }
            continue;
        }
        if known.len() < cap {
            known.insert(print, (world, futures));
            todo.extend(followers.into_iter().map(|(_, next, cost)| (next, cost)));
        }
    }
    Ok(met_again)
}

fn differences(one: &World, other: &World) -> String {
    let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
    let different = one.lines().zip(other.lines()).filter(|(a, b)| a != b);
    different.map(|(a, b)| format!("  {} | {}\n", a.trim(), b.trim())).collect()
}
