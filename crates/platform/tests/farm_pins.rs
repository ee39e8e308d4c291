//! Flows of UDP in the farm's packet filter: they stay with their member, for a time, and so many of them.
//!
//! Needs root, and clang to build. What one frame becomes: `farm_filter.rs`.

mod common;

use cluster::farm::shares::Shares;
use common::farm::{VIP4, mac, rule};
use model::NodeId;
use model::farm::{Filter as By, PINS_MAX, Picture, Proto, Station};
use platform::farm::Filter;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The director's picture of three members: these serve now, those before.
fn pins_picture(number: u64, serving: &[u16], since: [u64; 3], pin_ms: u64) -> Picture {
    let all: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let shares = Shares::new(&all.iter().map(|node| (*node, 1)).collect::<Vec<_>>());
    Picture {
        number,
        me: 0,
        director: 0,
        stations: (0u8..).zip(&all).map(|(index, node)| Station { node: *node, mac: mac(index) }).collect(),
        since: since.to_vec(),
        vips: vec![IpAddr::V4(VIP4)],
        vmacs: vec![None],
        pin_ms,
        part_ms: 2_000,
        doubts: false,
        rules: vec![rule(None, Some(53), Proto::Udp, By::OnPort, 0)],
        arp_group: None,
        tables: vec![shares.table(&all, &[serving.iter().copied().map(NodeId).collect()])],
    }
}

/// A datagram of this flow; or the error that a router sends about an answer to it, which is no sign of life.
fn datagram(flow: u32, is_error: bool) -> Vec<u8> {
    let client = Ipv4Addr::from(0x0a00_0200 + flow / 1000).octets();
    let port = (10_000 + (flow % 1000) as u16).to_be_bytes();
    let head = |proto: u8, from: [u8; 4], to: [u8; 4], length: u8| {
        [&[0x45, 0, 0, length, 0, 0, 0, 0, 64, proto, 0, 0][..], &from, &to].concat()
    };
    let eth = [&mac(0)[..], &[2, 9, 9, 9, 9, 9, 8, 0]].concat();
    if is_error {
        let inner = [head(17, VIP4.octets(), client, 28), [&[0, 53], &port[..], &[0, 8, 0, 0]].concat()].concat();
        return [eth, head(1, [10, 0, 0, 1], VIP4.octets(), 56), vec![3, 1, 0, 0, 0, 0, 0, 0], inner].concat();
    }
    [eth, head(17, client, VIP4.octets(), 28), [&port[..], &[0, 53, 0, 8, 0, 0]].concat()].concat()
}

#[test]
fn a_flow_of_udp_stays_where_it_is_while_its_member_does_and_is_forgotten_in_time() {
    let mut filter = Filter::load().unwrap();
    filter.renew(Duration::from_secs(3_600)).unwrap();
    let owners = |filter: &mut Filter, flows: std::ops::Range<u32>, is_error: bool| -> Vec<u8> {
        let owner = |flow| match filter.play(&datagram(flow, is_error)).unwrap() {
            (0, _) => 0,
            (7, after) => after[5],
            other => panic!("{other:?}"),
        };
        flows.map(owner).collect()
    };
    const LONG: u64 = 3_600_000;
    filter.show(&pins_picture(1, &[1, 2], [1; 3], LONG)).unwrap();
    let first = owners(&mut filter, 0..300, false);
    let count = |filter: &Filter, within| filter.pins().count(within).unwrap();
    assert_eq!(count(&filter, Duration::from_millis(LONG)), 300);
    assert!([0, 1].iter().all(|member| first.iter().filter(|owner| *owner == member).count() > 100), "{first:?}");
    // The third serves: it has its share of new flows, and none of those that stand. So have errors about them.
    filter.show(&pins_picture(2, &[1, 2, 3], [1; 3], LONG)).unwrap();
    assert_eq!(owners(&mut filter, 0..300, false), first);
    assert_eq!(owners(&mut filter, 0..300, true), first);
    assert!(owners(&mut filter, 300..600, false).iter().filter(|owner| **owner == 2).count() > 60);
    // What nobody ever sent is no flow: an error about it goes to the owner, and makes none.
    let by_table = owners(&mut filter, 900..1000, true);
    filter.show(&pins_picture(3, &[1, 2], [1; 3], LONG)).unwrap();
    assert!(owners(&mut filter, 900..1000, true).iter().zip(&by_table).all(|(now, then)| *now != 2 && *then < 3));
    // The second left and came back: its flows are nobody's; the first one's stay.
    filter.show(&pins_picture(4, &[1, 2, 3], [1, 4, 1], LONG)).unwrap();
    let after = owners(&mut filter, 0..300, true);
    assert!(first.iter().zip(&after).all(|(was, is)| *was == 1 || is == was), "{after:?}");
    assert!(first.iter().zip(&after).any(|(was, is)| *was == 1 && *is == 2), "{after:?}");
    // Silent for longer than they are kept: as new ones. (Errors keep no flow alive.)
    filter.show(&pins_picture(5, &[2, 3], [1, 4, 1], 20)).unwrap();
    let begin = std::time::Instant::now();
    while owners(&mut filter, 0..300, true).contains(&0) {
        assert!(begin.elapsed() < Duration::from_secs(10), "flows are not forgotten");
    }
    // More than are remembered: none is refused.
    filter.show(&pins_picture(6, &[1, 2, 3], [1, 4, 1], LONG)).unwrap();
    let many = PINS_MAX as u32 * 2;
    owners(&mut filter, 1_000..1_000 + many, false);
    filter.show(&pins_picture(7, &[2, 3], [1, 4, 1], LONG)).unwrap();
    let kept = owners(&mut filter, 1_000..1_000 + many, true).iter().filter(|owner| **owner == 0).count();
    assert!(kept > 0 && kept <= PINS_MAX, "{kept} flows are remembered");
    let counted = count(&filter, Duration::from_millis(LONG));
    assert!(counted > PINS_MAX / 2 && counted <= PINS_MAX, "{counted} flows are counted");
    let begin = std::time::Instant::now();
    while count(&filter, Duration::from_millis(20)) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "silent flows are counted");
    }
}
