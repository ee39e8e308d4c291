//! The promises of a farm's membership, in every situation of three nodes within stated bounds, and in random games of up to 64.
//!
//! `cargo test -p sim --test farm -- --nocapture` shows the numbers. `STEAD_WALKS=100000` walks more.

use model::NodeId;
use sim::farm::{Farm, Fault, Space, Step, explore, walk};
use std::time::Instant;

const fn space(
    name: &'static str,
    is_whole: bool,
    faults: &'static [Fault],
    most_faults: u8,
    at_least: usize,
) -> Space {
    Space { name, is_whole, faults, most_faults, waits: false, budget: 3 * at_least, at_least }
}

/// The same with a director that waits for the others.
const fn waiting(space: Space) -> Space {
    Space { waits: true, ..space }
}

#[test]
fn three_nodes_agree_again_from_every_situation() {
    use Fault::*;
    // The membership by itself, and with a director that waits for the others. What is not whole is searched breadth first.
    for (space, is_whole) in [
        (space("three nodes boot, in any order", false, &[Power], 3, 50_000), false),
        (space("two power cuts or boots", true, &[Power], 2, 50_000), false),
        (space("two changes of cables", true, &[Cable], 2, 27_000), true),
        (space("an operator's two wishes", true, &[Operator], 2, 150_000), true),
        (waiting(space("three nodes boot, a director waits", false, &[Power], 3, 20_000)), false),
        (waiting(space("two power cuts or boots, a director waits", true, &[Power], 2, 20_000)), false),
        (waiting(space("two changes of cables, a director waits", true, &[Cable], 2, 52_000)), true),
        (space("one sleeps, twice", true, &[Sleep], 2, 30_000), false),
        (space("one sleeps, and a cable is cut or power", true, &[Sleep, Cable, Power], 2, 50_000), false),
        (waiting(space("an operator's two wishes, a director waits", true, &[Operator], 2, 20_000)), false),
    ] {
        let clock = Instant::now();
        let outcome = explore(&space, 3);
        println!(
            "{:>8} situations, {:>9} steps, longest story {:>2}, peace within {} rounds, {}: {} ({:.1} s)",
            outcome.situations,
            outcome.steps,
            outcome.depth,
            outcome.rounds,
            if outcome.is_exhausted { "all of them" } else { "NOT all, cut by the budget" },
            space.name,
            clock.elapsed().as_secs_f64()
        );
        if let Some(story) = outcome.counterexample {
            panic!("a promise is broken: {story}");
        }
        assert!(outcome.situations >= space.at_least, "the search has become blind: {outcome:?}");
        assert!(outcome.is_exhausted || !is_whole, "not all situations fit into the budget: {outcome:?}");
    }
}

#[test]
fn random_games_of_up_to_64_nodes_find_peace() {
    let seeds = std::env::var("STEAD_WALKS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400u64);
    for (nodes, seeds, steps) in
        [(2, seeds, 400), (3, 2 * seeds, 400), (5, seeds, 600), (8, seeds / 2, 800), (64, 1 + seeds / 200, 3_000)]
    {
        let mut most = 0;
        for seed in 1..=seeds {
            most = most.max(walk(nodes, seed, steps).unwrap_or_else(|why| panic!("{why}")));
        }
        println!("{nodes} nodes, {seeds} games: peace within {most} rounds");
    }
}

#[test]
fn who_directs_stays_director_when_a_lower_node_returns() {
    let mut farm = Farm::whole(3);
    assert_eq!(farm.view(0).unwrap().director, NodeId(1));
    farm.make(Step::Off(0)).unwrap();
    farm.heal(true).unwrap();
    assert_eq!(farm.view(1).unwrap().director, NodeId(2), "the lowest that is left");
    let counter = farm.view(1).unwrap().counter;
    farm.make(Step::On(0)).unwrap();
    farm.heal(true).unwrap();
    let view = farm.view(0).unwrap();
    assert!(view.director == NodeId(2) && view.counter == counter + 1, "one change for one return: {view:?}");
    assert_eq!(
        view.past.iter().map(|set| set.len()).take(2).collect::<Vec<_>>(),
        [3, 2],
        "and the past is known to who returns"
    );
}

#[test]
fn a_director_that_drains_hands_over_and_stays_until_it_is_out() {
    let mut farm = Farm::whole(3);
    farm.make(Step::Wish(0, model::farm::Wish::Drain)).unwrap();
    farm.heal(true).unwrap();
    let view = farm.view(0).unwrap();
    assert!(view.director == NodeId(2) && view.present.len() == 3 && !view.serving().has(NodeId(1)), "{view:?}");
    farm.make(Step::Wish(0, model::farm::Wish::Out)).unwrap();
    farm.heal(true).unwrap();
    assert!(farm.view(0).is_none());
    assert_eq!(farm.view(2).unwrap().present.len(), 2);
}
