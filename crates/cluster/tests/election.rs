//! The election, over every pair of a large set of copies.

use cluster::mirror::election::{How, Nobody, Verdict, begin, elect, must_step_down};
use cluster::mirror::{Facts, Serving, Wish};
use model::orders::Begin;
use model::{DataId, DataState, Epoch, NodeId, Record, Relation, Right, Role};

fn epoch(counter: u64, node: u16) -> Epoch {
    Epoch { counter, node: NodeId(node), random: 0 }
}

fn copies(node: u16) -> Vec<Facts> {
    let histories = [vec![], vec![epoch(1, 1)], vec![epoch(1, 1), epoch(2, 1)], vec![epoch(1, 1), epoch(2, 2)]];
    let mut copies = vec![];
    for history in histories {
        for data in [DataState::Full, DataState::Crashed, DataState::Inconsistent, DataState::Unknown] {
            for role in [Role::Second, Role::Primary, Role::Alone] {
                for serving in [Serving::Stopped, Serving::No, Serving::Hold, Serving::Alone] {
                    for yielded in [false, true] {
                        for wish in [Wish::None, Wish::Prim { force: false }, Wish::Second { full: false }] {
                            let mut facts = Facts::of_record(NodeId(node), &Record::empty());
                            facts.data_id = DataId(1);
                            facts.epoch = history.last().copied();
                            facts.history.clone_from(&history);
                            facts.data = data;
                            facts.role = role;
                            facts.serving = serving;
                            facts.yielded = yielded;
                            facts.wish = wish;
                            facts.right = if role == Role::Alone { Right::Witness } else { Right::None };
                            copies.push(facts);
                        }
                    }
                }
            }
        }
    }
    copies
}

/// What a running automaton can say of itself: it serves only what it is complete in.
fn can_be(facts: &Facts) -> bool {
    match facts.serving {
        Serving::Hold | Serving::Alone => facts.data == DataState::Full && facts.epoch.is_some() && !facts.yielded,
        Serving::Stopped | Serving::No => facts.data != DataState::Full || facts.epoch.is_some(),
    }
}

#[test]
fn both_sides_see_the_same_leader_and_no_unusable_or_stopped_copy_leads() {
    let (ours, theirs) = (copies(1), copies(2));
    let mut seen = 0u64;
    for a in ours.iter().filter(|facts| can_be(facts)) {
        for b in theirs.iter().filter(|facts| can_be(facts)) {
            seen += 1;
            let verdict = elect(a, b);
            assert_eq!(verdict, elect(b, a), "{a:?}\n{b:?}");
            let Verdict::Leads(leader, _) = verdict else { continue };
            let (leader, other) = if leader == a.node { (a, b) } else { (b, a) };
            assert_ne!(leader.serving, Serving::Stopped, "{a:?}\n{b:?}");
            let first_prim = leader.epoch.is_none() && other.epoch.is_none();
            assert!(first_prim || leader.is_usable(), "{a:?}\n{b:?}");
            assert_ne!(leader.relation_to(other), Relation::Older, "a stale copy never leads\n{a:?}\n{b:?}");
            assert!(!(must_step_down(a, b) && must_step_down(b, a)), "one of two stays\n{a:?}\n{b:?}");
        }
    }
    assert!(seen > 100_000, "{seen}");
}

#[test]
fn what_was_written_into_a_released_copy_is_kept_and_everything_is_compared() {
    let epoch = copies(1).iter().find_map(|facts| facts.epoch).expect("some copy has an epoch");
    let mut source = Facts::of_record(NodeId(1), &Record::empty());
    source.data_id = DataId(1);
    source.epoch = Some(epoch);
    source.history = vec![epoch];
    source.data = DataState::Full;
    let mut target = source.clone();
    target.node = NodeId(2);
    // The source went on alone, and its map names all it did since: nothing but the release asks for more.
    let next = Epoch { counter: epoch.counter + 1, ..epoch };
    source.epoch = Some(next);
    source.history = vec![epoch, next];
    source.map_since = Some(epoch);
    let kept = |target: &Facts| match begin(&source, target) {
        Begin::Resync { full, quarantine } => (full, quarantine),
        Begin::Resume => panic!("a resync was asked for"),
    };
    assert_eq!(kept(&target), (false, false));
    target.released = true;
    assert_eq!(kept(&target), (true, true));
    target.data = DataState::Inconsistent;
    assert_eq!(kept(&target), (true, true), "an interrupted resync does not forget it");
    target.tree_empty = true;
    assert_eq!(kept(&target), (true, false), "there is nothing to keep");
}

/// Two configurations make no pair; and what serves, or is a pair already, is not disturbed by the difference.
#[test]
fn a_node_with_another_configuration_does_not_join_and_nothing_else_changes() {
    let (ours, theirs) = (copies(1), copies(2));
    let (mut refused, mut same) = (0u64, 0u64);
    for a in ours.iter().filter(|facts| can_be(facts)) {
        for b in theirs.iter().filter(|facts| can_be(facts)) {
            let before = elect(a, b);
            let (mut a, mut b) = (a.clone(), b.clone());
            (a.configuration, b.configuration) = (1, 2);
            let (one, other) = (elect(&a, &b), elect(&b, &a));
            assert_eq!(one, other, "{a:?}\n{b:?}");
            if matches!(before, Verdict::Leads(_, How::Join(_))) {
                assert_eq!(one, Verdict::Neither(Nobody::OtherConfiguration), "{a:?}\n{b:?}");
                refused += 1;
            } else {
                assert_eq!(one, before, "{a:?}\n{b:?}");
                same += 1;
            }
            b.configuration = 0;
            assert_eq!(elect(&a, &b), before, "what is not known is no reason");
        }
    }
    assert!(refused > 1_000 && same > 1_000, "{refused} {same}");
}
