//! The promises of mirror.md (P1 to P4, P6), in every situation within the bounds of `sim::suite`.
//!
//! `cargo test -p sim -- --nocapture` shows the numbers. `STEAD_WALKS=100000` walks more; `STEAD_EXPLORE=5000000` searches the large spaces as well, each to that
//! many situations.

use sim::explore::{explore, walk};
use sim::suite::{Search, large, mutations, standard};
use std::time::Instant;

fn search(searches: &[Search]) {
    let (mut all, began) = (0, Instant::now());
    for Search { space, budget, at_least, exhaustive } in searches {
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
        assert!(outcome.situations >= *at_least, "only {} situations: the search has become blind", outcome.situations);
        assert!(outcome.exhausted || !exhaustive, "{}: was exhausted once, and is not within {budget}", space.name);
    }
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
fn random_walks_keep_the_promises_and_heal() {
    let seeds = std::env::var("STEAD_WALKS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(4_000);
    for space in sim::suite::wild() {
        let mut steps = 0;
        for seed in 0..seeds {
            steps += walk(&space, seed, 120).unwrap_or_else(|story| panic!("{story}"));
        }
        println!("{seeds} walks, {steps} steps: {}", space.name);
        assert!(steps > seeds as usize * 40, "the walks have become short");
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
