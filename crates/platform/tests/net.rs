//! Addresses, ARP, echo and resets, between real network namespaces. Needs root; leaves nothing behind.

mod common;

use common::{Lan, Space, wait_until};
use platform::net::tcp_reset::{Reset, reset_connections};
use platform::net::{Announcer, NetError, Network, arp, ping};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const NODE1: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

#[test]
fn a_virtual_ip_is_a_situation_not_a_gesture() {
    let lan = Lan::new();
    lan.nodes[0].ip("link add other type veth peer name end");
    lan.nodes[0].ip("link set other up");
    lan.nodes[0].wait(|| async {
        let network = Network::open().unwrap();
        assert_eq!(network.interface_for(VIP).await.unwrap().unwrap().name, "net1");
        assert_eq!(network.interface_for(Ipv4Addr::new(192, 168, 7, 7)).await.unwrap(), None);
        assert!(network.vip_up("net1", VIP, 32).await.unwrap(), "the first time something changes");
        assert!(!network.vip_up("net1", VIP, 32).await.unwrap(), "the second time nothing does");
        let holder = network.holder_of(VIP).await.unwrap().unwrap();
        assert_eq!(holder.name, "net1");
        assert!(holder.addresses.iter().any(|address| address.ip == VIP && address.is_ours));
        assert_eq!(holder.source_for(VIP), Some(NODE1));
        assert!(holder.addresses.iter().any(|address| address.ip == NODE1 && !address.is_ours));
        assert!(network.vip_up("other", VIP, 32).await.unwrap());
        assert_eq!(network.holder_of(VIP).await.unwrap().unwrap().name, "other", "moved, not doubled");
        assert!(network.vip_down(VIP).await.unwrap());
        assert!(!network.vip_down(VIP).await.unwrap());
        assert_eq!(network.holder_of(VIP).await.unwrap(), None);
        assert!(matches!(network.vip_up("absent0", VIP, 32).await, Err(NetError::NoInterface { .. })));
        for wrong in [network.vip_up("net1", NODE1, 32).await, network.vip_down(NODE1).await] {
            assert!(matches!(wrong, Err(NetError::Foreign { ref interface, .. }) if interface == "net1"), "{wrong:?}");
        }
        assert!(network.remove_stray_vips(&[NODE1], &[]).await.unwrap().is_empty());
        assert!(network.interface("net1").await.unwrap().holds(NODE1), "a node never loses its own address");
    });
}

#[test]
fn an_agent_that_starts_removes_the_addresses_it_should_not_hold() {
    let lan = Lan::new();
    lan.nodes[0].ip("addr add 10.0.1.102/32 dev net1"); // Configured, without our mark (an older kernel, a hand).
    lan.nodes[0].wait(|| async {
        let ip = |last| Ipv4Addr::new(10, 0, 1, last);
        let network = Network::open().unwrap();
        for kept_or_stray in [ip(100), ip(101)] {
            network.vip_up("net1", kept_or_stray, 32).await.unwrap();
        }
        let mut removed = network.remove_stray_vips(&[ip(102), ip(103)], &[ip(100)]).await.unwrap();
        removed.sort();
        assert_eq!(removed, [ip(101), ip(102)]);
        assert!(network.remove_stray_vips(&[ip(102)], &[ip(100)]).await.unwrap().is_empty());
        let interface = network.interface("net1").await.unwrap();
        assert!(interface.holds(ip(100)) && interface.holds(NODE1), "what is kept and what is not ours stays");
    });
}

#[test]
fn carrier_and_default_gateway_are_seen() {
    let lan = Lan::new();
    lan.nodes[0].ip("route add default via 10.0.1.9");
    let look = || {
        lan.nodes[0].wait(|| async {
            let network = Network::open().unwrap();
            (network.interface("net1").await.unwrap(), network.default_gateways().await.unwrap())
        })
    };
    wait_until("carrier is up", || look().0.is_usable());
    let gateways = look().1;
    assert_eq!(
        (gateways.len(), gateways[0].ip, gateways[0].interface.as_str()),
        (1, Ipv4Addr::new(10, 0, 1, 9), "net1")
    );
    lan.client.ip("link set port1 down");
    wait_until("carrier is lost", || !look().0.has_carrier);
    assert!(look().0.is_up, "switched on all the same");
    lan.client.ip("link set port1 up");
    wait_until("carrier is back", || look().0.is_usable());
}

#[test]
fn a_duplicate_probe_finds_the_owner_and_its_absence_in_time() {
    let lan = Lan::new();
    lan.nodes[1].ip("addr add 10.0.1.100/32 dev net1");
    let owner = lan.mac(1);
    let (found, took) = lan.nodes[0].run(|| {
        let start = Instant::now();
        (arp::probe_duplicate("net1", VIP).unwrap(), start.elapsed())
    });
    assert_eq!(found.map(|mac| mac.to_string()), Some(owner.clone()));
    assert!(took < Duration::from_millis(150), "{took:?}");
    assert!(lan.nodes[1].ip("neigh show").is_empty(), "a probe leaves nothing in the owner's cache");

    // Who the peer is, to tell it from a stranger.
    let peer = lan.nodes[0]
        .run(|| arp::resolve("net1", NODE1, Ipv4Addr::new(10, 0, 1, 2), Duration::from_millis(500)).unwrap());
    assert_eq!(peer.map(|mac| mac.to_string()), Some(owner));

    lan.nodes[1].ip("addr del 10.0.1.100/32 dev net1");
    let (found, took) = lan.nodes[0].run(|| {
        let start = Instant::now();
        (arp::probe_duplicate("net1", VIP).unwrap(), start.elapsed())
    });
    assert_eq!(found, None);
    // Three probes of 50 ms each; the upper bound is generous for a busy machine.
    assert!(took >= Duration::from_millis(145) && took < Duration::from_millis(400), "{took:?}");
}

#[test]
fn asking_where_no_question_can_be_asked_is_an_error_not_an_absence() {
    let space = Space::new();
    space.run(|| {
        assert!(matches!(arp::probe_duplicate("absent0", VIP), Err(NetError::NoInterface { .. })));
        assert!(matches!(arp::probe_duplicate("lo", VIP), Err(NetError::NotEthernet { .. })));
    });
    space.ip("link add down0 type veth peer name down1");
    space.run(|| assert!(arp::probe_duplicate("down0", VIP).is_err(), "an interface that is down hears nobody"));
}

#[test]
fn an_announcement_moves_a_client_to_the_new_holder() {
    let lan = Lan::new();
    let take = |node: usize| {
        lan.nodes[node].wait(|| async { Network::open().unwrap().vip_up("net1", VIP, 32).await.unwrap() });
        lan.nodes[node].run(|| arp::announce("net1", VIP).unwrap());
    };
    take(0);
    lan.client.command("ping", "-c1 -W2 10.0.1.100");
    wait_until("the client knows the first holder", || lan.client_knows(VIP).contains(&lan.mac(0)));
    lan.nodes[0].wait(|| async { Network::open().unwrap().vip_down(VIP).await.unwrap() });
    take(1);
    wait_until("the client knows the second holder", || lan.client_knows(VIP).contains(&lan.mac(1)));
    lan.client.command("ping", "-c1 -W2 10.0.1.100");
}

#[test]
fn a_holder_keeps_announcing_and_answers_a_competitor() {
    let lan = Lan::new();
    let competitor = lan.mac(1);
    let rival = lan.nodes[1].begin(|| {
        // Speaks as the address again and again, until the holder has certainly heard it.
        for _ in 0..100 {
            arp::announce("net1", VIP).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let reports = lan.nodes[0].wait(|| async {
        let announcer = Announcer::start("net1", VIP).unwrap();
        let first = announcer.report();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        // Steps at 0, 100, 500 ms, one reaction at least, and one asked for.
        while announcer.report().sent < 4 || announcer.report().competitor.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", announcer.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = announcer.report().sent;
        announcer.announce_now();
        while announcer.report().sent == before {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", announcer.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (first, announcer.report())
    });
    assert_eq!(reports.0.sent, 1, "the first announcement is out when start returns");
    assert_eq!(reports.1.competitor.map(|mac| mac.to_string()), Some(competitor));
    assert!(reports.1.sent < 30, "it does not answer every shout: {:?}", reports.1);
    rival.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn an_echo_is_answered_or_not_within_the_deadline() {
    let lan = Lan::new();
    lan.nodes[0].run(|| {
        let limit = Duration::from_millis(600);
        let client = Ipv4Addr::new(10, 0, 1, 9);
        assert!(ping::ping(client, Some(NODE1), limit).unwrap().is_some());
        assert!(ping::ping(client, None, limit).unwrap().is_some());
        let start = Instant::now();
        assert_eq!(ping::ping(Ipv4Addr::new(10, 0, 1, 77), None, limit).unwrap(), None);
        assert!(start.elapsed() >= limit && start.elapsed() < limit * 2);
        assert_eq!(ping::ping(Ipv4Addr::new(192, 168, 1, 1), None, limit).unwrap(), None, "no route: no answer");
        assert!(ping::ping(client, Some(Ipv4Addr::new(10, 9, 9, 9)), limit).is_err(), "not our address: an error");
    });
}

#[test]
fn connections_of_a_leaving_address_are_closed_on_both_ends() {
    let lan = Lan::new();
    lan.nodes[0].ip("addr add 10.0.1.100/32 dev net1");
    let listener = lan.nodes[0].run(|| TcpListener::bind("[::]:7000").unwrap());
    let connect = |to: Ipv4Addr| {
        let client = lan
            .client
            .run(move || TcpStream::connect_timeout(&SocketAddr::from((to, 7000)), Duration::from_secs(5)).unwrap());
        let (server, _) = listener.accept().unwrap();
        (client, server)
    };
    let (mut through_vip, mut served) = connect(VIP);
    let (other, _other_end) = connect(NODE1);
    let reset = lan.nodes[0].run(|| reset_connections(VIP).unwrap());
    if reset == Reset::Unsupported {
        eprintln!("this kernel has no SOCK_DESTROY: nothing to see");
        return;
    }
    assert_eq!(reset, Reset::Closed(1));
    for end in [&mut through_vip, &mut served] {
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let kind = end.read(&mut [0]).unwrap_err().kind();
        assert!(
            matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionAborted),
            "{kind:?}"
        );
    }
    other.set_nonblocking(true).unwrap();
    assert_eq!(
        (&other).read(&mut [0]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "another address keeps its connections"
    );
    assert_eq!(lan.nodes[0].run(|| reset_connections(VIP).unwrap()), Reset::Closed(0));
}
