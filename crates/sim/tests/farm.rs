//! The promises of a farm's membership, in every situation of three nodes within stated bounds, and in random games of up to 64.
//!
//! `cargo test -p sim --test farm -- --nocapture` shows the numbers. `STEAD_WALKS=100000` walks more.

use cluster::farm::shares::Shares;
use model::NodeId;
use model::farm::{BUCKETS, NOBODY, NodeSet, View};
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
        (space("two changes of cables", true, &[Cable], 2, 60_000), true),
        (space("an operator's two wishes", true, &[Operator], 2, 150_000), true),
        (waiting(space("three nodes boot, a director waits", false, &[Power], 3, 20_000)), false),
        (waiting(space("two power cuts or boots, a director waits", true, &[Power], 2, 20_000)), false),
        (waiting(space("two changes of cables, a director waits", true, &[Cable], 2, 120_000)), true),
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

/// Who owns each bucket by this view.
fn owners(shares: &Shares, view: &View) -> Vec<NodeId> {
    let present: Vec<NodeId> = view.present.nodes().collect();
    let past: Vec<Vec<NodeId>> = view.past.iter().map(|set| set.nodes().collect()).collect();
    let table = shares.table(&present, &past);
    assert!(table.len() == BUCKETS && table.iter().all(|list| list[0] != NOBODY), "each bucket has an owner");
    table.iter().map(|list| present[usize::from(list[0])]).collect()
}

/// Deaths, returns, a partition and its healing, nodes that join: in each part that agrees, each bucket has one owner, one of that part; and who goes
/// or comes moves no bucket but its own.
#[test]
fn each_bucket_has_one_owner_in_farms_of_up_to_64() {
    for (count, seed) in [(9usize, 1u64), (16, 2), (33, 3), (64, 4), (64, 5)] {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let shares = Shares::new(&(1..=count as u16).map(|node| (NodeId(node), 1)).collect::<Vec<_>>());
        let nodes = |of: &dyn Fn(usize) -> bool| (0..count).filter(|node| of(*node)).collect::<Vec<_>>();
        // Each of these is one part.
        let agree = |farm: &Farm, part: &[usize]| {
            let view = farm.view(part[0]).expect("serves").clone();
            assert!(part.iter().all(|node| farm.view(*node) == Some(&view)), "{count} nodes, seed {seed}");
            let expected: NodeSet = part.iter().map(|node| NodeId(*node as u16 + 1)).collect();
            assert_eq!(view.serving(), expected, "{count} nodes, seed {seed}");
            owners(&shares, &view)
        };
        let moved_only = |before: &[NodeId], after: &[NodeId], may: NodeSet| {
            let others = before.iter().zip(after).filter(|(was, is)| was != is && !may.has(**was) && !may.has(**is));
            assert_eq!(others.count(), 0, "{count} nodes, seed {seed}");
        };
        // Half of them begin, the others join.
        let mut farm = Farm::new(count);
        (0..count / 2).for_each(|node| farm.make(Step::On(node)).unwrap());
        farm.heal(false).unwrap();
        agree(&farm, &nodes(&|node| node < count / 2));
        (count / 2..count).for_each(|node| farm.make(Step::On(node)).unwrap());
        farm.heal(false).unwrap();
        let all = agree(&farm, &nodes(&|_| true));
        // Some die, the director among them, and return.
        let mut dead: Vec<usize> = (0..count / 4).map(|_| random(count)).collect();
        dead.push(0);
        let gone: NodeSet = dead.iter().map(|node| NodeId(*node as u16 + 1)).collect();
        dead.iter().for_each(|node| farm.make(Step::Off(*node)).unwrap());
        farm.heal(false).unwrap();
        let left = agree(&farm, &nodes(&|node| !dead.contains(&node)));
        moved_only(&all, &left, gone);
        dead.sort_unstable();
        dead.dedup();
        dead.iter().for_each(|node| farm.make(Step::On(*node)).unwrap());
        farm.heal(false).unwrap();
        assert_eq!(agree(&farm, &nodes(&|_| true)), all, "all are as they were");
        // A partition anywhere; and whole again.
        let side: Vec<bool> = (0..count).map(|node| node == 1 || (node > 1 && random(3) == 0)).collect();
        let between: Vec<(usize, usize)> =
            (0..count).flat_map(|b| (0..b).map(move |a| (a, b))).filter(|(a, b)| side[*a] != side[*b]).collect();
        between.iter().for_each(|(a, b)| farm.make(Step::Cut(*a, *b)).unwrap());
        farm.heal(true).unwrap();
        for is in [true, false] {
            let part = nodes(&|node| side[node] == is);
            let gone = (0..count).filter(|node| side[*node] != is).map(|node| NodeId(node as u16 + 1)).collect();
            moved_only(&all, &agree(&farm, &part), gone);
        }
        farm.heal(false).unwrap();
        assert_eq!(agree(&farm, &nodes(&|_| true)), all);
    }
}
