//! Addresses, ARP, echo and resets, between real network namespaces. Needs root; leaves nothing behind.

mod common;

use common::{Lan, Space, wait_until};
use platform::net::tcp_reset::{Reset, reset_connections};
use platform::net::{Announcer, NetError, Network, neighbour, ping};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const VIP: IpAddr = v4(10, 0, 1, 100);
const NODE1: IpAddr = v4(10, 0, 1, 1);
const VIP6: IpAddr = v6(0x100);
const NODE1_6: IpAddr = v6(1);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// On the network fd00:1::/64.
const fn v6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host))
}

/// Every module asks, through one connection: the kernel gives one listing at a time.
#[test]
fn many_listings_at_once_are_all_answered() {
    let lan = Lan::new();
    lan.nodes[0].wait(|| async {
        let network = std::sync::Arc::new(Network::open().unwrap());
        let asking: Vec<_> = (0..64)
            .map(|number| {
                let network = std::sync::Arc::clone(&network);
                tokio::spawn(async move {
                    match number % 3 {
                        0 => network.default_gateways().await.map(drop),
                        1 => network.vip_down(VIP).await.map(drop),
                        _ => network.interfaces().await.map(drop),
                    }
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_virtual_ip_is_a_situation_not_a_gesture() {
    let lan = Lan::new();
    lan.nodes[0].ip("link add other type veth peer name end");
    lan.nodes[0].ip("link set other up");
    lan.nodes[0].wait(|| async {
        let network = Network::open().unwrap();
        assert_eq!(network.interface_for(VIP).await.unwrap().unwrap().name, "net1");
        assert_eq!(network.interface_for(v4(192, 168, 7, 7)).await.unwrap(), None);
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
        let ip = |last| v4(10, 0, 1, last);
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
    assert_eq!((gateways.len(), gateways[0].ip, gateways[0].interface.as_str()), (1, v4(10, 0, 1, 9), "net1"));
    lan.client.ip("link set port1 down");
    wait_until("carrier is lost", || !look().0.has_carrier);
    assert!(look().0.is_up, "switched on all the same");
    lan.client.ip("link set port1 up");
    wait_until("carrier is back", || look().0.is_usable());
}

/// Checkers, proofs and modules ask as they like: none is told that the kernel is busy with another one's question.
#[test]
fn many_may_ask_at_once() {
    let space = Space::new();
    for n in 0..20 {
        space.ip(&format!("link add a{n} type veth peer name b{n}"));
        space.ip(&format!("addr add 10.1.{n}.1/24 dev a{n}"));
    }
    let failed = space.wait(|| async {
        let network = std::sync::Arc::new(Network::open().unwrap());
        let asked: Vec<_> = (0..200)
            .map(|n| {
                let network = std::sync::Arc::clone(&network);
                tokio::spawn(async move {
                    match n % 3 {
                        0 => network.interfaces().await.map(|all| assert!(all.len() > 40)),
                        1 => network.holder_of(v4(10, 1, 7, 1)).await.map(|held| assert!(held.is_some())),
                        _ => network.default_gateways().await.map(drop),
                    }
                })
            })
            .collect();
        let mut failed = Vec::new();
        for asked in asked {
            failed.extend(asked.await.unwrap().err().map(|error| error.to_string()));
        }
        failed
    });
    assert!(failed.is_empty(), "{} were refused: {:?}", failed.len(), failed.first());
}

#[test]
fn a_duplicate_probe_finds_the_owner_and_its_absence_in_time() {
    let lan = Lan::new();
    lan.nodes[1].ip("addr add 10.0.1.100/32 dev net1");
    let owner = lan.mac(1);
    let (found, took) = lan.nodes[0].run(|| {
        let start = Instant::now();
        (neighbour::probe_duplicate("net1", VIP).unwrap(), start.elapsed())
    });
    assert_eq!(found.map(|mac| mac.to_string()), Some(owner.clone()));
    assert!(took < Duration::from_millis(150), "{took:?}");
    assert!(lan.nodes[1].ip("neigh show").is_empty(), "a probe leaves nothing in the owner's cache");

    // Who the peer is, to tell it from a stranger.
    let peer =
        lan.nodes[0].run(|| neighbour::resolve("net1", NODE1, v4(10, 0, 1, 2), Duration::from_millis(500)).unwrap());
    assert_eq!(peer.map(|mac| mac.to_string()), Some(owner));

    lan.nodes[1].ip("addr del 10.0.1.100/32 dev net1");
    let (found, took) = lan.nodes[0].run(|| {
        let start = Instant::now();
        (neighbour::probe_duplicate("net1", VIP).unwrap(), start.elapsed())
    });
    assert_eq!(found, None);
    // Three probes of 50 ms each; the upper bound is generous for a busy machine.
    assert!(took >= Duration::from_millis(145) && took < Duration::from_millis(400), "{took:?}");
}

#[test]
fn asking_where_no_question_can_be_asked_is_an_error_not_an_absence() {
    let space = Space::new();
    space.run(|| {
        assert!(matches!(neighbour::probe_duplicate("absent0", VIP), Err(NetError::NoInterface { .. })));
        assert!(matches!(neighbour::probe_duplicate("lo", VIP), Err(NetError::NotEthernet { .. })));
    });
    space.ip("link add down0 type veth peer name down1");
    space.run(|| assert!(neighbour::probe_duplicate("down0", VIP).is_err(), "an interface that is down hears nobody"));
}

#[test]
fn an_announcement_moves_a_client_to_the_new_holder() {
    let lan = Lan::new();
    let take = |node: usize| {
        lan.nodes[node].wait(|| async { Network::open().unwrap().vip_up("net1", VIP, 32).await.unwrap() });
        lan.nodes[node].run(|| neighbour::announce("net1", VIP).unwrap());
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
            neighbour::announce("net1", VIP).unwrap();
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
        let client = v4(10, 0, 1, 9);
        assert!(ping::ping(client, Some(NODE1), limit).unwrap().is_some());
        assert!(ping::ping(client, None, limit).unwrap().is_some());
        let start = Instant::now();
        assert_eq!(ping::ping(v4(10, 0, 1, 77), None, limit).unwrap(), None);
        assert!(start.elapsed() >= limit && start.elapsed() < limit * 2);
        assert_eq!(ping::ping(v4(192, 168, 1, 1), None, limit).unwrap(), None, "no route: no answer");
        assert!(ping::ping(client, Some(v4(10, 9, 9, 9)), limit).is_err(), "not our address: an error");
    });
}

#[test]
fn connections_of_a_leaving_address_are_closed_on_both_ends() {
    let lan = Lan::new();
    lan.nodes[0].ip("addr add 10.0.1.100/32 dev net1");
    let listener = lan.nodes[0].run(|| TcpListener::bind("[::]:7000").unwrap());
    let connect = |to: IpAddr| {
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

/// The same network with IPv6 as well; addresses are usable when this returns.
fn dual() -> Lan {
    let lan = Lan::new();
    lan.client.ip("-6 addr add fd00:1::9/64 dev br0 nodad");
    for (node, space) in (1..).zip(&lan.nodes) {
        space.ip(&format!("-6 addr add fd00:1::{node}/64 dev net1 nodad"));
    }
    lan
}

#[test]
fn an_ipv6_virtual_address_is_usable_at_once_and_never_the_source_by_itself() {
    let lan = dual();
    lan.nodes[0].wait(|| async {
        let network = Network::open().unwrap();
        assert_eq!(network.interface_for(VIP6).await.unwrap().unwrap().name, "net1");
        assert_eq!(network.interface_for("fe80::77".parse().unwrap()).await.unwrap(), None, "every interface has that");
        assert!(network.vip_up("net1", VIP6, 128).await.unwrap() && !network.vip_up("net1", VIP6, 128).await.unwrap());
        let holder = network.holder_of(VIP6).await.unwrap().unwrap();
        assert!(holder.addresses.iter().any(|address| address.ip == VIP6 && address.is_ours));
        assert_eq!(holder.source_for(VIP6), Some(NODE1_6));
    });
    let shown = lan.nodes[0].ip("-6 addr show dev net1");
    let line = shown.lines().find(|line| line.contains("fd00:1::100/128")).unwrap();
    assert!(!line.contains("tentative") && line.contains("nodad") && line.contains("deprecated"), "{line}");
    let route = lan.nodes[0].ip("-6 route get fd00:1::9");
    assert!(route.contains("src fd00:1::1 "), "{route}");
    let (gone, kept) = lan.nodes[0].wait(|| async {
        let network = Network::open().unwrap();
        network.vip_up("net1", v6(0x101), 128).await.unwrap();
        let removed = network.remove_stray_vips(&[NODE1_6], &[v6(0x101)]).await.unwrap();
        assert!(matches!(network.vip_down(NODE1_6).await, Err(NetError::Foreign { .. })));
        (removed, network.interface("net1").await.unwrap())
    });
    assert_eq!(gone, [VIP6]);
    assert!(kept.holds(v6(0x101)) && kept.holds(NODE1_6));
}

#[test]
fn an_ipv6_probe_finds_the_owner_and_its_absence_in_time() {
    let lan = dual();
    lan.nodes[1].ip("-6 addr add fd00:1::100/128 dev net1 nodad");
    let owner = lan.mac(1);
    let probe = || {
        let start = Instant::now();
        (neighbour::probe_duplicate("net1", VIP6).unwrap(), start.elapsed())
    };
    let (found, took) = lan.nodes[0].run(probe);
    assert_eq!(found.map(|mac| mac.to_string()), Some(owner.clone()));
    assert!(took < Duration::from_millis(150), "{took:?}");
    let peer = lan.nodes[0].run(|| neighbour::resolve("net1", NODE1_6, v6(2), Duration::from_millis(500)).unwrap());
    assert_eq!(peer.map(|mac| mac.to_string()), Some(owner));
    lan.nodes[1].ip("-6 addr del fd00:1::100/128 dev net1");
    let (found, took) = lan.nodes[0].run(probe);
    assert_eq!(found, None);
    assert!(took >= Duration::from_millis(145) && took < Duration::from_millis(400), "{took:?}");
}

#[test]
fn an_ipv6_announcement_moves_a_client_and_a_competitor_is_noticed() {
    let lan = dual();
    let take = |node: usize| {
        lan.nodes[node].wait(|| async { Network::open().unwrap().vip_up("net1", VIP6, 128).await.unwrap() });
        lan.nodes[node].run(|| neighbour::announce("net1", VIP6).unwrap());
    };
    let known = || lan.client.ip("-6 neigh show fd00:1::100");
    take(0);
    lan.client.command("ping", "-6 -c1 -W2 fd00:1::100");
    wait_until("the client knows the first holder", || known().contains(&lan.mac(0)));
    lan.nodes[0].wait(|| async { Network::open().unwrap().vip_down(VIP6).await.unwrap() });
    take(1);
    wait_until("the client knows the second holder", || known().contains(&lan.mac(1)));
    lan.client.command("ping", "-6 -c1 -W2 fd00:1::100");

    let competitor = lan.mac(0);
    let rival = lan.nodes[0].begin(|| {
        for _ in 0..100 {
            neighbour::announce("net1", VIP6).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let report = lan.nodes[1].wait(|| async {
        let announcer = Announcer::start("net1", VIP6).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        while announcer.report().sent < 4 || announcer.report().competitor.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", announcer.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        announcer.report()
    });
    assert_eq!(report.competitor.map(|mac| mac.to_string()), Some(competitor));
    assert!(report.competing_lately);
    rival.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn an_ipv6_echo_is_answered_or_not_and_connections_of_an_ipv6_address_are_closed() {
    let lan = dual();
    lan.nodes[0].run(|| {
        let limit = Duration::from_millis(600);
        // Until the bridge forwards groups.
        wait_until("the client answers", || ping::ping(v6(9), Some(NODE1_6), limit).unwrap().is_some());
        assert_eq!(ping::ping(v6(0x77), None, limit).unwrap(), None);
    });
    lan.nodes[0].ip("-6 addr add fd00:1::100/128 dev net1 nodad");
    let listener = lan.nodes[0].run(|| TcpListener::bind("[::]:7000").unwrap());
    let mut client =
        lan.client.run(|| TcpStream::connect_timeout(&SocketAddr::from((VIP6, 7000)), Duration::from_secs(5)).unwrap());
    let (_served, _) = listener.accept().unwrap();
    let reset = lan.nodes[0].run(|| reset_connections(VIP6).unwrap());
    if reset == Reset::Unsupported {
        eprintln!("this kernel has no SOCK_DESTROY: nothing to see");
        return;
    }
    assert_eq!(reset, Reset::Closed(1));
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "reset");
}
