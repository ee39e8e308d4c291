use super::*;

/// Of a node that is told to be gone and was never found silent nobody says that it is heard again: the farm would stay without it.
#[test]
fn a_farm_is_deserted_when_each_of_its_nodes_was_found_silent_and_none_has_said_that_it_leaves() {
    let (now, judge) = (Instant::now(), Judge::by_any(Timing::DEFAULT));
    let farm = [2, 3].map(NodeId);
    let mut heard = Heard::default();
    let mut find = |node, is_heard| {
        heard.peers.insert((NodeId(node), judge.clone()), is_heard);
        heard.is_deserted(&farm, &judge, now)
    };
    assert!(!find(2, false), "of node 3 nothing is known yet");
    assert!(!find(3, true), "node 3 has missed a few pulses, no more");
    assert!(find(3, false));
    heard.away.insert(NodeId(3), now + Duration::from_secs(1));
    assert!(!heard.is_deserted(&farm, &judge, now), "an agent is replaced, its filter serves on");
    assert!(heard.is_deserted(&farm, &judge, now + Duration::from_secs(1)));
}
