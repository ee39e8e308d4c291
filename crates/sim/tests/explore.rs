//! The promises of mirror.md (P1 to P4, P6), in every situation within the bounds of `sim::suite`.
//!
//! `cargo test -p sim -- --nocapture` shows the numbers. `STEAD_WALKS=100000` walks more; `STEAD_EXPLORE=5000000` searches the large spaces as well, each to that
//! many situations.

use sim::explore::{exact, explore, explore_deep, walk};
use sim::suite::{Search, large, mutations, standard};
use std::time::Instant;

fn search(searches: &[Search]) {
    let (mut all, mut blind, began) = (0, Vec::new(), Instant::now());
    // While one space is worked on: `STEAD_SPACE=syncdelta cargo test -p sim --test explore`.
    let only = std::env::var("STEAD_SPACE").unwrap_or_default();
    for Search { space, budget, at_least, exhaustive } in searches.iter().filter(|it| it.space.name.contains(&only)) {
        let clock = Instant::now();
        let outcome = explore(space, *budget);
        all += outcome.situations;
        println!(
            "{:>9} situations, {:>9} steps, {:>5} healed, longest story {:>2}, {}{}: {} ({:.1} s)",
            outcome.situations,
            outcome.steps,
            outcome.healed,
            outcome.depth,
            if outcome.exhausted { "all of them" } else { "NOT all, cut by the budget" },
            if outcome.cut_epochs > 0 {
                format!(" (cut at a fourth epoch {} times)", outcome.cut_epochs)
            } else {
                String::new()
            },
            space.name,
            clock.elapsed().as_secs_f64(),
        );
        if let Some(story) = outcome.counterexample {
            panic!("a promise is broken: {story}");
        }
        if outcome.situations < *at_least {
            blind.push(format!("{}: only {} situations, not {at_least}", space.name, outcome.situations));
        }
        if *exhaustive && !outcome.exhausted {
            blind.push(format!("{}: was exhausted once, and is not within {budget}", space.name));
        }
    }
    assert!(blind.is_empty(), "the search has become blind:\n{}", blind.join("\n"));
    println!("{all} situations in {:.0} s", began.elapsed().as_secs_f64());
}

#[test]
fn the_promises_hold_in_every_situation_of_the_small_model() {
    search(&standard());
    if let Some(budget) = std::env::var("STEAD_EXPLORE").ok().and_then(|budget| budget.parse().ok()) {
        search(&large(budget));
    }
}

#[test]
fn depth_first_visits_the_same_situations_and_finds_broken_rules() {
    let spaces = standard();
    let Search { space, budget, .. } =
        spaces.iter().find(|s| s.space.name.contains("no witness; one cut of the network")).expect("a small space");
    let (broad, deep) = (explore(space, *budget), explore_deep(space, *budget, 2, &|_| true));
    assert!(broad.exhausted && deep.exhausted && deep.counterexample.is_none(), "{deep:?}");
    assert_eq!(broad.situations, deep.situations);
    assert_eq!(broad.cut_epochs, deep.cut_epochs);
    let mutation = &mutations()[0];
    let found = explore_deep(&mutation.space, 50 * mutation.budget, 2, &|_| true);
    assert!(found.counterexample.is_some_and(|story| story.contains("1. ")), "{:?} is not found", mutation.broken);
}

#[test]
fn situations_taken_for_one_have_one_future() {
    let (mut blind, mut all) = (Vec::new(), 0);
    for Search { space, .. } in standard().iter().filter(|s| s.exhaustive).step_by(3) {
        let met_again = exact(space, 12_000).unwrap_or_else(|why| panic!("{}: {why}", space.name));
        println!("{met_again:>6} met again in another form: {}", space.name);
        all += 1;
        if met_again < 300 {
            blind.push(space.name);
        }
    }
    // Where nothing is written and nobody fails there may be only one way to a situation.
    assert!(all >= 6 && blind.len() <= 1, "hardly anything was met again: {blind:?}");
}

#[test]
fn random_walks_keep_the_promises_and_heal() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = match number("STEAD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STEAD_WALKS").unwrap_or(10_000),
    };
    for space in sim::suite::wild() {
        let mut steps = 0;
        for seed in seeds.clone() {
            let again = format!("STEAD_SEED={seed} cargo test -p sim --test explore random_walks");
            steps += walk(&space, seed, 120).unwrap_or_else(|story| panic!("{story}\nagain: {again}"));
        }
        let walks = seeds.end - seeds.start;
        println!("{walks} walks, {steps} steps: {}", space.name);
        assert!(walks == 1 || steps as u64 > walks * 40, "the walks have become short");
    }
}

#[test]
fn a_broken_rule_is_found() {
    for mutation in mutations() {
        let outcome = explore(&mutation.space, mutation.budget);
        let Some(story) = outcome.counterexample else {
            panic!("{:?}: not found in {} situations", mutation.broken, outcome.situations);
        };
        println!(
            "{:?}: {} ({} situations)",
            mutation.broken,
            story.lines().take(2).collect::<String>(),
            outcome.situations
        );
    }
}
