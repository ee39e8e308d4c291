//! Heartbeats between two network namespaces: two networks, one cut, one direction cut, an interface that comes late.
//! Needs root; leaves nothing behind.

#[path = "../../platform/tests/common/mod.rs"]
mod common;

use agent::heartbeat::{Config, Event, Heartbeat, Network, PORT, Peer, Snapshot};
use cluster::detector::Signal;
use common::{Space, wait_until};
use model::limits::Timing;
use model::{ClusterId, NodeId};
use std::net::{IpAddr, Ipv4Addr};
use tokio::sync::mpsc::Receiver;

struct Pair {
    nodes: [Space; 2],
}

fn ip(network: u8, node: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, network, node))
}

impl Pair {
    /// Two cables: net1 (10.0.1.0/24) and net2 (10.0.2.0/24).
    fn new() -> Self {
        let pair = Self { nodes: [Space::new(), Space::new()] };
        for network in 1..=2 {
            let name = format!("net{network}");
            pair.nodes[0].cable(&name, &pair.nodes[1], &name);
            for (node, space) in (1..).zip(&pair.nodes) {
                space.ip(&format!("addr add {}/24 dev {name}", ip(network, node)));
            }
        }
        pair
    }

    fn start(&self, node: u8) -> (Heartbeat, Receiver<Event>) {
        self.nodes[usize::from(node) - 1].run(move || {
            let config = Config {
                cluster: ClusterId(5),
                node: NodeId(u16::from(node)),
                incarnation: 1,
                key: [9; 32],
                port: PORT,
                networks: (1..=2)
                    .map(|network| Network { name: format!("net{network}"), local: ip(network, node) })
                    .collect(),
                peers: vec![Peer {
                    node: NodeId(u16::from(3 - node)),
                    addresses: (1..=2).map(|network| Some(ip(network, 3 - node))).collect(),
                }],
                timing: Timing::DEFAULT,
                others: vec![],
            };
            Heartbeat::start(config, vec![]).unwrap()
        })
    }
}

fn links(snapshot: &Snapshot) -> Vec<bool> {
    snapshot.peers.first().map(|peer| peer.links.iter().map(|link| link.is_up).collect()).unwrap_or_default()
}

fn signals(events: &mut Receiver<Event>) -> Vec<Signal> {
    let mut found = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Signals { signals, .. } = event {
            found.extend(signals.into_iter().map(|(_, signal)| signal));
        }
    }
    found
}

#[test]
fn both_networks_carry_and_the_loss_of_one_is_no_loss_of_the_peer() {
    let pair = Pair::new();
    let (one, mut at_one) = pair.start(1);
    let (two, mut at_two) = pair.start(2);
    wait_until("both links up on both nodes", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [true, true]));
    signals(&mut at_one);
    signals(&mut at_two);
    pair.nodes[0].ip("link set net1 down");
    wait_until("net1 is down, net2 is not", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [false, true]));
    for found in [signals(&mut at_one), signals(&mut at_two)] {
        assert!(found.contains(&Signal::LinkDown(0)) && !found.contains(&Signal::PeerSilent), "{found:?}");
    }
    assert!(one.snapshot().networks[0].problem.is_some(), "sending into a dead interface is told");
    pair.nodes[0].ip("link set net1 up");
    wait_until("net1 is back", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [true, true]));
    wait_until("and no problem stands", || one.snapshot().networks.iter().all(|network| network.problem.is_none()));
}

#[test]
fn a_cut_in_one_direction_is_seen_as_no_link_by_both() {
    let pair = Pair::new();
    let (one, mut at_one) = pair.start(1);
    let (two, mut at_two) = pair.start(2);
    wait_until("both links up on both nodes", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [true, true]));
    // What node 1 sends on net1 goes to a station that does not exist; what node 2 sends arrives.
    pair.nodes[0].ip("neigh replace 10.0.1.2 lladdr 02:00:00:00:00:77 dev net1 nud permanent");
    wait_until("net1 does not count on either node", || {
        [&one, &two].iter().all(|it| links(&it.snapshot()) == [false, true])
    });
    let link = one.snapshot().peers[0].links[0];
    assert!(
        link.heard_ms_ago.is_some_and(|ago| ago < 500) && !link.hears_us,
        "node 1 hears, and knows it is not heard: {link:?}"
    );
    for found in [signals(&mut at_one), signals(&mut at_two)] {
        assert!(!found.contains(&Signal::PeerSilent), "{found:?}");
    }
    // The other network in the other direction: now neither has a whole link, though each hears or is heard.
    pair.nodes[1].ip("neigh replace 10.0.2.1 lladdr 02:00:00:00:00:77 dev net2 nud permanent");
    wait_until("no link counts", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [false, false]));
    wait_until("so the peer counts as silent", || signals(&mut at_one).contains(&Signal::PeerSilent));
    wait_until("on both nodes", || signals(&mut at_two).contains(&Signal::PeerSilent));
    pair.nodes[0].ip("neigh del 10.0.1.2 dev net1");
    pair.nodes[1].ip("neigh del 10.0.2.1 dev net2");
    wait_until("all is well again", || [&one, &two].iter().all(|it| links(&it.snapshot()) == [true, true]));
}

#[test]
fn an_address_that_comes_late_is_taken_up() {
    let pair = Pair::new();
    pair.nodes[0].ip("addr del 10.0.1.1/24 dev net1");
    pair.nodes[0].ip("addr del 10.0.2.1/24 dev net2");
    let (one, _at_one) = pair.start(1);
    let (_two, _at_two) = pair.start(2);
    wait_until("the problem is told", || {
        one.snapshot().networks.iter().filter(|network| network.problem.is_some()).count() == 2
    });
    pair.nodes[0].ip("addr add 10.0.2.1/24 dev net2");
    wait_until("net2 is up", || links(&one.snapshot()) == [false, true]);
    pair.nodes[0].ip("addr add 10.0.1.1/24 dev net1");
    wait_until("net1 too", || links(&one.snapshot()) == [true, true]);
    // And goes and comes back while it runs.
    pair.nodes[0].ip("addr del 10.0.1.1/24 dev net1");
    wait_until("net1 is gone", || links(&one.snapshot()) == [false, true]);
    pair.nodes[0].ip("addr add 10.0.1.1/24 dev net1");
    wait_until("net1 is back", || links(&one.snapshot()) == [true, true]);
}
