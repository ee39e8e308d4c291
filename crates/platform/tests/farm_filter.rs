//! The farm's packet filter: the kernel's program against its twin in Rust, frame by frame.
//!
//! Needs root, and clang to build. Leaves nothing behind. On real interfaces: `farm_serves.rs`.

mod common;

use cluster::farm::filter::{Around, Connection, Parts, Pins, Verdict, judge, speak_as};
use cluster::farm::shares::Shares;
use common::Space;
use common::farm::{VIP4, VIP6, mac, rule};
use model::NodeId;
use model::farm::{Fate, Filter as By, NOBODY, Picture, Proto, Station};
use platform::farm::Filter;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const FRAMES: usize = 150_000;

/// Small and seeded: a failure is found again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

const VMAC4: [u8; 6] = [0x5a, 0xfe, 10, 0, 1, 100];
const VMAC6: [u8; 6] = [0x5a, 0xfe, 0, 0, 1, 0];
const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 101);

/// Four members; this node is the second. Group 0: three shares with a past; group 1: other powers; group 2: nobody serves.
fn picture(number: u64, arp_group: Option<u8>) -> Picture {
    let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
    let equal: Vec<(NodeId, u64)> = nodes.iter().map(|node| (*node, 1)).collect();
    let mut past = [nodes.clone(), nodes[1..].to_vec(), vec![nodes[0], nodes[2]], nodes.clone()];
    // The first one serves again, and has most buckets of another owner's flows.
    past.rotate_left(number as usize % 2);
    let tables = vec![
        Shares::new(&equal).table(&nodes, &past),
        Shares::new(&[(NodeId(1), 5), (NodeId(2), 1), (NodeId(4), 2)]).table(&nodes, &past),
        Shares::new(&[(NodeId(9), 1)]).table(&nodes, &past),
    ];
    Picture {
        number,
        me: 1,
        director: if number.is_multiple_of(2) { 1 } else { 0 },
        stations: (0u8..).zip(&nodes).map(|(index, node)| Station { node: *node, mac: mac(index) }).collect(),
        // The third left between the second view and the third.
        since: vec![1, 1, if number < 3 { 1 } else { 3 }, 1],
        vips: vec![IpAddr::V4(VIP4), IpAddr::V4(OTHER4), IpAddr::V6(VIP6)],
        // In some views all members receive what is for two of them.
        vmacs: if arp_group.is_some() { vec![Some(VMAC4), None, Some(VMAC6)] } else { vec![None; 3] },
        pin_ms: 3_600_000,
        part_ms: 3_600_000,
        rules: vec![
            rule(None, Some(80), Proto::Tcp, By::OnAddr, 0),
            rule(Some(0), Some(443), Proto::Tcp, By::OnPort, 1),
            rule(None, Some(53), Proto::Udp, By::OnIpid, 0),
            rule(Some(2), Some(443), Proto::Tcp, By::OnPort, 0),
            rule(None, Some(8080), Proto::Udp, By::OnAddr, 0),
            rule(Some(1), None, Proto::Udp, By::OnPort, 1),
            rule(Some(1), Some(9), Proto::Tcp, By::OnAddr, 2),
        ],
        arp_group,
        tables,
        doubts: number.is_multiple_of(3),
    }
}

struct Maker {
    random: Random,
    connections: Vec<Connection>,
}

impl Maker {
    fn ip4(&mut self) -> [u8; 4] {
        match self.random.below(8) {
            0..=4 => [10, 0, self.random.below(4) as u8, self.random.next() as u8],
            5 => VIP4.octets(),
            6 => OTHER4.octets(),
            _ => (self.random.next() as u32).to_be_bytes(),
        }
    }

    fn vip4(&mut self) -> [u8; 4] {
        self.random.of(&[VIP4, VIP4, VIP4, OTHER4, Ipv4Addr::new(10, 0, 1, 2)]).octets()
    }

    fn ip6(&mut self) -> [u8; 16] {
        if self.random.one_in(8) {
            return VIP6.octets();
        }
        let mut address = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0).octets();
        address[14..].copy_from_slice(&(self.random.next() as u16).to_be_bytes());
        address
    }

    fn eth(&mut self, kind: u16) -> Vec<u8> {
        let to = match self.random.below(12) {
            0 => mac(0),
            1 => [0xff; 6],
            2 => [0x33, 0x33, 0xff, 0, 1, 0],
            3 | 4 => VMAC4,
            5 => VMAC6,
            _ => mac(1),
        };
        let from = match self.random.below(4) {
            0 => self.random.of(&[mac(0), mac(2), mac(3), mac(1)]),
            _ => [2, 9, 9, 9, self.random.next() as u8, 1],
        };
        [&to[..], &from[..], &kind.to_be_bytes()].concat()
    }

    /// Of few flows of UDP, so that they come again.
    fn client4(&mut self, proto: u8) -> [u8; 4] {
        if proto == 17 { [10, 0, 1, self.random.below(40) as u8] } else { self.ip4() }
    }

    fn client6(&mut self, proto: u8) -> [u8; 16] {
        if proto == 17 {
            Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, self.random.below(40) as u16).octets()
        } else {
            self.ip6()
        }
    }

    fn ports(&mut self) -> (u16, u16) {
        (1024 + self.random.below(60_000) as u16, self.random.of(&[80, 80, 443, 443, 53, 9, 22, 8080, 8080]))
    }

    fn tcp(&mut self, (from, to): (u16, u16)) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[..2].copy_from_slice(&from.to_be_bytes());
        header[2..4].copy_from_slice(&to.to_be_bytes());
        header[12] = 0x50;
        let any = self.random.next() as u8;
        header[13] = self.random.of(&[0x02, 0x10, 0x18, 0x11, 0x04, 0x12, 0xc2, any]);
        header
    }

    fn udp(&mut self, (from, to): (u16, u16)) -> Vec<u8> {
        [&from.to_be_bytes()[..], &to.to_be_bytes()[..], &[0, 8, 0, 0]].concat()
    }

    fn head4(&mut self, from: [u8; 4], to: [u8; 4], proto: u8, length: usize) -> Vec<u8> {
        let options = if self.random.one_in(8) { self.random.below(11) as usize } else { 0 };
        let mut head = vec![0; 20 + 4 * options];
        head[0] = 0x45 + options as u8;
        let whole = (head.len() + length) as u16;
        head[2..4].copy_from_slice(&whole.to_be_bytes());
        let is_part = self.random.one_in(if proto == 17 { 3 } else { 8 });
        // Of few packets, so that parts find their first ones.
        let id = if is_part { self.random.below(3) as u16 } else { self.random.next() as u16 };
        head[4..6].copy_from_slice(&id.to_be_bytes());
        if is_part {
            let fragment = self.random.of(&[0x2000, 0x2000, 0x2005, 0x0005, 0x4000, 0x8000, 0x1fff]);
            head[6..8].copy_from_slice(&u16::to_be_bytes(fragment));
        }
        head[8] = self.random.of(&[64, 64, 64, 128, 255, 2, 1, 0]);
        head[9] = proto;
        // Whatever it is: both must change it in the same way.
        head[10..12].copy_from_slice(&(self.random.next() as u16).to_be_bytes());
        head[12..16].copy_from_slice(&from);
        head[16..20].copy_from_slice(&to);
        head
    }

    /// Header and extensions.
    fn head6(&mut self, from: [u8; 16], to: [u8; 16], proto: u8, hops: u8) -> Vec<u8> {
        let mut head = vec![0x60, 0, 0, 0, 0, 40, proto, hops];
        head.extend(from);
        head.extend(to);
        let mut next_at = 6;
        let count = if self.random.one_in(4) { self.random.below(6) } else { 0 };
        for _ in 0..count {
            let kind = self.random.of(&[0, 43, 60, 60, 44]);
            let words = if kind == 44 { 0 } else { self.random.below(3) as usize };
            let at = head.len();
            head[next_at] = kind;
            head.extend([proto, words as u8]);
            head.resize(at + 8 + 8 * words, 0);
            if kind == 44 {
                let place = self.random.of(&[0u16, 1, 1, 9, 0x58, 0x59]);
                head[at + 2..at + 4].copy_from_slice(&place.to_be_bytes());
                head[at + 7] = self.random.below(3) as u8;
            }
            next_at = at;
        }
        head
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = match self.random.below(20) {
            0..=5 => self.four(),
            6..=9 => self.six(),
            10..=13 => self.known(),
            14 => self.error4(),
            15 => self.error6(),
            16 => self.arp(),
            17 => self.discovery(),
            18 => self.tagged(),
            _ => {
                let kind = self.random.of(&[0x0800, 0x86dd, 0x0806, 0x88cc]);
                let mut frame = self.eth(kind);
                let length = 1 + self.random.below(80) as usize;
                frame.extend((0..length).map(|_| self.random.next() as u8));
                frame
            }
        };
        if self.random.one_in(10) {
            // The kernel plays no frame that is only a head.
            frame.truncate(15 + self.random.below(frame.len() as u64 - 14) as usize);
        }
        if self.random.one_in(12) {
            let at = 12 + self.random.below(frame.len() as u64 - 12) as usize;
            frame[at] = self.random.next() as u8;
        }
        let padding = self.random.below(20) as usize;
        frame.resize(frame.len() + if self.random.one_in(3) { padding } else { 0 }, 0);
        frame
    }

    fn body(&mut self, proto: u8) -> Vec<u8> {
        let (from, to) = self.ports();
        let ports = if proto == 17 { (1024 + from % 8, to) } else { (from, to) };
        match proto {
            6 => self.tcp(ports),
            17 => self.udp(ports),
            _ => (0..12).map(|_| self.random.next() as u8).collect(),
        }
    }

    fn four(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 6, 17, 17, 1, 132]);
        let (from, to, body) = (self.client4(proto), self.vip4(), self.body(proto));
        let (eth, head) = (self.eth(0x0800), self.head4(from, to, proto, body.len()));
        [eth, head, body].concat()
    }

    fn six(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 6, 17, 58, 59]);
        let (from, body) = (self.client6(proto), self.body(proto));
        let to = if self.random.one_in(8) { self.ip6() } else { VIP6.octets() };
        let hops = self.random.of(&[64, 64, 255, 1, 0]);
        let (eth, head) = (self.eth(0x86dd), self.head6(from, to, proto, hops));
        [eth, head, body].concat()
    }

    /// Of a connection that this node has, or nearly.
    fn known(&mut self) -> Vec<u8> {
        let Connection { client, vip } = self.random.of(&self.connections.clone());
        let port = if self.random.one_in(6) { client.1.wrapping_add(1) } else { client.1 };
        let body = self.tcp((port, vip.1));
        match (client.0, vip.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (eth, head) = (self.eth(0x0800), self.head4(from.octets(), to.octets(), 6, body.len()));
                [eth, head, body].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (eth, head) = (self.eth(0x86dd), self.head6(from.octets(), to.octets(), 6, 64));
                [eth, head, body].concat()
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    /// Somebody tells the virtual IP what became of a packet it sent.
    fn error4(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 17, 1]);
        let vip = self.vip4();
        let inner_vip = if self.random.one_in(8) { self.ip4() } else { vip };
        let (client, router, ports) = (self.client4(proto), self.ip4(), self.ports());
        let body = if proto == 6 { self.tcp((ports.1, ports.0)) } else { self.udp((ports.1, 1024 + ports.0 % 8)) };
        let inner = [self.head4(inner_vip, client, proto, body.len()), body[..8].to_vec()].concat();
        let kind = self.random.of(&[3, 3, 11, 12, 5, 0, 8]);
        let (eth, head) = (self.eth(0x0800), self.head4(router, vip, 1, 8 + inner.len()));
        [eth, head, vec![kind, 4, 0, 0, 0, 0, 5, 220], inner].concat()
    }

    fn error6(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 17, 58]);
        let (client, router, ports) = (self.client6(proto), self.ip6(), self.ports());
        let body = if proto == 6 { self.tcp((ports.1, ports.0)) } else { self.udp((ports.1, 1024 + ports.0 % 8)) };
        let inner_vip = if self.random.one_in(8) { self.ip6() } else { VIP6.octets() };
        let inner = [self.head6(inner_vip, client, proto, 60), body[..8].to_vec()].concat();
        let kind = self.random.of(&[1, 2, 3, 4, 5, 128, 129]);
        let (eth, head) = (self.eth(0x86dd), self.head6(router, VIP6.octets(), 58, 64));
        [eth, head, vec![kind, 0, 0, 0, 0, 0, 5, 0], inner].concat()
    }

    fn arp(&mut self) -> Vec<u8> {
        let mut frame = self.eth(0x0806);
        frame.extend([0, 1, 8, 0, 6, 4, 0, self.random.of(&[1, 1, 1, 2])]);
        frame.extend([2, 9, 9, 9, 9, 9]);
        frame.extend(self.ip4());
        frame.extend([0; 6]);
        frame.extend(self.vip4());
        frame
    }

    fn discovery(&mut self) -> Vec<u8> {
        let from = self.ip6();
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100).octets();
        let hops = self.random.of(&[255, 255, 255, 64]);
        let target = self.ip6();
        let eth = self.eth(0x86dd);
        let to = self.random.of(&[to, VIP6.octets()]);
        let from = if self.random.one_in(4) { [0; 16] } else { from };
        let mut head = self.head6(from, to, 58, hops);
        // With the asker's hardware address or without; and a length that lies.
        let option = if self.random.one_in(3) { vec![] } else { vec![1, 1, 2, 9, 9, 9, 9, 9] };
        head[5] = self.random.of(&[24 + option.len() as u8, 24, 32, 40, 8]);
        [
            eth,
            head,
            vec![self.random.of(&[135, 135, 136, 133]), 0, 0, 0, 0, 0, 0, 0],
            self.random.of(&[VIP6.octets(), target]).to_vec(),
            option,
        ]
        .concat()
    }

    /// With a VLAN tag in the frame: another interface's.
    fn tagged(&mut self) -> Vec<u8> {
        let mut frame = self.four();
        frame.splice(12..12, [0x81, 0, 0, 7]);
        frame
    }
}

/// Connections that really stand in this namespace, both ends of each.
fn connections() -> (Vec<Connection>, Vec<(TcpListener, TcpStream, TcpStream)>) {
    let mut known = Vec::new();
    let mut held = Vec::new();
    for (vip, client) in [
        (SocketAddr::from((VIP4, 80)), SocketAddr::from(([10, 0, 1, 9], 0))),
        (SocketAddr::from((OTHER4, 80)), SocketAddr::from(([10, 0, 1, 9], 0))),
        (SocketAddr::from((VIP4, 443)), SocketAddr::from(([10, 0, 1, 9], 0))),
        (SocketAddr::from((VIP6, 443)), SocketAddr::from((Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 9), 0))),
        (SocketAddr::from((VIP6, 80)), SocketAddr::from((Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 9), 0))),
    ] {
        let listener = TcpListener::bind(vip).unwrap();
        for _ in 0..12 {
            let socket = rustix::net::socket(
                if vip.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 },
                rustix::net::SocketType::STREAM,
                None,
            )
            .unwrap();
            rustix::net::bind(&socket, &client).unwrap();
            rustix::net::connect(&socket, &vip).unwrap();
            let stream = TcpStream::from(socket);
            let (accepted, from) = listener.accept().unwrap();
            known.push(Connection { client: (from.ip(), from.port()), vip: (vip.ip(), vip.port()) });
            // The same addresses the other way round are a connection as well: the client's end is here too.
            known.push(Connection { client: (vip.ip(), vip.port()), vip: (from.ip(), from.port()) });
            held.push((listener.try_clone().unwrap(), stream, accepted));
        }
    }
    (known, held)
}

#[test]
fn the_kernel_and_its_twin_decide_alike_on_every_frame() {
    let space = Space::new();
    for address in ["10.0.1.100/32", "10.0.1.101/32", "10.0.1.9/32"] {
        space.ip(&format!("addr add {address} dev lo"));
    }
    for address in ["fd00:1::100/128", "fd00:1::9/128"] {
        space.ip(&format!("addr add {address} dev lo nodad"));
    }
    // Far more than it takes: a verifier's log on a refused program is long.
    let played = space.begin(|| {
        let mut filter = Filter::load().unwrap();
        let (known, _held) = connections();
        let mut maker = Maker { random: Random(0x5eed_f00d), connections: known.clone() };
        let mut counted: BTreeMap<Fate, u64> = BTreeMap::new();
        let mut verdicts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut refused = 0;
        let (pins, parts) = (Pins::default(), Parts::default());
        // Without a picture everything passes.
        assert_eq!(filter.play(&maker.four()).unwrap().0, -1);
        for (number, (arp_group, is_leased, count)) in (1..).zip([
            (None, true, FRAMES / 3),
            (Some(0), true, FRAMES / 3),
            (None, true, FRAMES / 3 - 5_000),
            (None, false, 5_000),
        ]) {
            let picture = picture(number, arp_group);
            filter.show(&picture).unwrap();
            filter.renew(if is_leased { Duration::from_secs(3_600) } else { Duration::ZERO }).unwrap();
            let has_socket = |connection: Connection| known.contains(&connection);
            let around = Around {
                picture: &picture,
                tag: 0,
                is_leased,
                now_ms: 0,
                pins: &pins,
                parts: &parts,
                has_socket: &has_socket,
            };
            for index in 0..count {
                let frame = maker.frame();
                let mut expected = frame.clone();
                let (verdict, fate) = judge(&around, &mut expected);
                if let Some(fate) = fate {
                    *counted.entry(fate).or_default() += 1;
                }
                let (code, name) = match verdict {
                    Verdict::Next => (-1, "next"),
                    Verdict::Accept => (0, "accept"),
                    Verdict::Drop => (2, "drop"),
                    Verdict::Redirect => (7, "redirect"),
                };
                *verdicts.entry(name).or_default() += 1;
                let played = match filter.play(&frame) {
                    Ok(played) => played,
                    // The kernel plays no frame whose IP header is cut off; the network's own path would drop it.
                    Err(_) if frame.len() < if frame[12] == 8 { 34 } else { 54 } => {
                        refused += 1;
                        assert_eq!(verdict, Verdict::Next, "{frame:02x?}");
                        continue;
                    }
                    Err(error) => panic!("{error}: {:?}: {frame:02x?}", std::error::Error::source(&error)),
                };
                assert_eq!(
                    played,
                    (code, expected),
                    "view {number}, frame {index}, expected {verdict:?} {fate:?} of {frame:02x?}"
                );
            }
        }
        println!("pinned: {} flows; {} packets in parts", pins.borrow().len(), parts.borrow().len());
        assert!(pins.borrow().len() > 500 && parts.borrow().len() > 200);
        (counted, verdicts, refused, filter.counters().unwrap(), filter.claims().unwrap())
    });
    let (counted, verdicts, refused, counters, claims) =
        played.recv_timeout(Duration::from_secs(120)).expect("see above");
    println!("{verdicts:?}\n{counted:?}\nnot played by the kernel: {refused}");
    assert!(refused < FRAMES / 20, "{refused} frames were not played");
    for fate in Fate::ALL {
        // Every branch was taken, often enough to mean something.
        assert!(counted.get(&fate).is_some_and(|count| *count >= 50), "{fate:?}: {counted:?}");
        assert_eq!(counters[fate as usize], (fate, counted[&fate]));
    }
    assert!(verdicts.values().all(|count| *count >= 3_000), "{verdicts:?}");
    assert_eq!(claims.len(), 64, "a bounded number of strangers is noted: {claims:?}");
    let noted: u64 = claims.iter().map(|claim| claim.count).sum();
    assert!(noted >= 64 && noted <= counted[&Fate::Conflict], "{noted}: {counted:?}");
}

/// One datagram in parts, of which only the first has ports.
fn parts_of(client_port: u16, port: u16, id: u8, family: u8) -> [Vec<u8>; 3] {
    let udp = [&client_port.to_be_bytes()[..], &port.to_be_bytes(), &[0, 40, 0, 0]].concat();
    let part = |offset: u16, more: bool, body: &[u8]| {
        let eth = [&mac(1)[..], &[2, 9, 9, 9, 9, 9]].concat();
        if family == 4 {
            let place = (offset | u16::from(more) << 13).to_be_bytes();
            let head = [&[0x45, 0, 0, 36, 7, id][..], &place, &[64, 17, 0, 0], &[10, 0, 1, 9], &VIP4.octets()].concat();
            [eth, vec![8, 0], head, body.to_vec()].concat()
        } else {
            let from = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 9).octets();
            let head = [&[0x60, 0, 0, 0, 0, 24, 44, 64][..], &from, &VIP6.octets()].concat();
            let place = (offset << 3 | u16::from(more)).to_be_bytes();
            let extension = [&[17, 0][..], &place, &[1, 2, 3, id]].concat();
            [eth, vec![0x86, 0xdd], head, extension, body.to_vec()].concat()
        }
    };
    [part(0, true, &udp), part(2, true, &[7; 16]), part(4, false, &[7; 16])]
}

/// What is larger than a frame goes where the small datagrams of its flow go, by the rule of its port; for a time, and only in order.
#[test]
fn parts_of_a_datagram_follow_the_first_one() {
    let mut filter = Filter::load().unwrap();
    filter.renew(Duration::from_secs(3_600)).unwrap();
    let all: Vec<NodeId> = (1..=4).map(NodeId).collect();
    let mut shown = Picture {
        rules: vec![
            rule(None, Some(53), Proto::Udp, By::OnPort, 0),
            // Power for one other node alone.
            rule(None, Some(9), Proto::Udp, By::OnAddr, 1),
        ],
        ..picture(1, None)
    };
    shown.tables[1] = Shares::new(&[(NodeId(3), 1)]).table(&all, std::slice::from_ref(&all));
    filter.show(&shown).unwrap();
    let to = |filter: &mut Filter, frame: &[u8]| match filter.play(frame).unwrap() {
        (0, _) => 1,
        (7, after) => usize::from(after[5]),
        (2, _) => 9,
        other => panic!("{other:?}"),
    };
    let mut owners = BTreeSet::new();
    for family in [4, 6] {
        for client_port in 2_000..2_040u16 {
            // Of the same flow, and small.
            let small = {
                let [mut first, ..] = parts_of(client_port, 53, 0, family);
                if family == 4 {
                    first[20] = 0
                } else {
                    first[57] = 0
                }
                first
            };
            let owner = to(&mut filter, &small);
            owners.insert(owner);
            let parts = parts_of(client_port, 53, client_port as u8, family);
            assert_eq!(to(&mut filter, &parts[1]), 9, "before its first one: nobody knows whose it is");
            assert_eq!(parts.each_ref().map(|part| to(&mut filter, part)), [owner; 3], "{client_port} of IPv{family}");
        }
        let [first, later, _] = parts_of(3_000, 9, 200, family);
        assert_eq!([to(&mut filter, &first), to(&mut filter, &later)], [2, 2], "by the rule of its port");
        let [first, later, _] = parts_of(3_000, 10, 201, family);
        assert_eq!([to(&mut filter, &first), to(&mut filter, &later)], [9, 9], "no rule names it");
    }
    assert_eq!(owners, BTreeSet::from([1, 2, 3]), "all that serve have some");
    // A number that comes again later is another datagram's; and a member that left has no first part any more.
    shown.since[2] = 2;
    filter.show(&Picture { number: 2, ..shown.clone() }).unwrap();
    let [first, later, _] = parts_of(3_000, 9, 200, 4);
    assert_eq!(to(&mut filter, &later), 9);
    assert_eq!([to(&mut filter, &first), to(&mut filter, &later)], [2, 2]);
    filter.show(&Picture { number: 3, part_ms: 1, ..shown.clone() }).unwrap();
    let begin = std::time::Instant::now();
    while to(&mut filter, &later) != 9 {
        assert!(begin.elapsed() < Duration::from_secs(10), "first parts are not forgotten");
    }
}

/// A tag with the number 0 says how urgent a frame is, and changes no verdict; with another, the frame is a VLAN's. (The kernel's
/// program cannot be played with a tag: `farm_serves.rs` sends it some.)
#[test]
fn a_tag_counts_only_with_the_number_of_a_vlan() {
    let picture = picture(1, None);
    let connections = vec![Connection { client: (Ipv4Addr::new(10, 0, 1, 9).into(), 40_000), vip: (VIP4.into(), 80) }];
    let mut maker = Maker { random: Random(13), connections };
    let mut verdicts = BTreeSet::new();
    for _ in 0..2_000 {
        let frame = maker.frame();
        let play = |tag: u16| {
            let (pins, parts) = (Pins::default(), Parts::default());
            let around = Around {
                picture: &picture,
                tag,
                is_leased: true,
                now_ms: 0,
                pins: &pins,
                parts: &parts,
                has_socket: &|_| false,
            };
            let mut after = frame.clone();
            (judge(&around, &mut after), after)
        };
        assert_eq!(play(0xe000), play(0), "{frame:x?}");
        assert_eq!(play(0xe005), ((Verdict::Next, None), frame.clone()));
        verdicts.insert(format!("{:?}", play(0).0.0));
    }
    assert_eq!(verdicts.len(), 4, "all kinds were played: {verdicts:?}");
}

/// A question for a client's hardware address that the kernel asks in the virtual IP's name leaves in this node's own.
#[test]
fn what_leaves_is_asked_in_the_nodes_own_name() {
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x200, 0x7ff, 0xfe00, 2);
    let space = Space::new();
    let mut filter = space.run(|| Filter::load().unwrap());
    let picture = picture(1, None);
    filter.show(&picture).unwrap();
    filter.speak_as(Some(own)).unwrap();
    let mut maker = Maker { random: Random(11), connections: vec![] };
    let sum_of = |frame: &[u8]| {
        let pseudo = frame[22..54].chunks(2).chain(frame[54..].chunks(2));
        let words = pseudo.map(|it| u32::from(u16::from_be_bytes([it[0], *it.get(1).unwrap_or(&0)])));
        let sum = words.sum::<u32>() + 58 + (frame.len() as u32 - 54);
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) + (sum >> 16)
    };
    let mut changed = 0;
    for round in 0..20_000 {
        let mut frame = if round % 3 == 0 { maker.six() } else { maker.discovery() };
        if frame.len() < 60 {
            continue;
        }
        // As the kernel makes them: with a right checksum.
        frame[56..58].fill(0);
        let check = !(sum_of(&frame) as u16);
        frame[56..58].copy_from_slice(&check.to_be_bytes());
        let mut expected = frame.clone();
        speak_as(&picture, own, &mut expected);
        if expected != frame {
            changed += 1;
            assert_eq!(sum_of(&expected), 0xffff, "a right checksum stays right: {expected:x?}");
        }
        let (verdict, after) = filter.play_out(&frame).unwrap();
        assert!(verdict == -1 && after == expected, "{frame:x?}\n{after:x?}\n{expected:x?}");
    }
    assert!(changed > 200, "{changed}");
    // Without a name of its own nothing is changed.
    filter.speak_as(None).unwrap();
    for _ in 0..1_000 {
        let frame = maker.discovery();
        assert_eq!(filter.play_out(&frame).unwrap(), (-1, frame));
    }
}

#[test]
fn who_speaks_as_a_virtual_ip_is_noted_by_its_hardware_address() {
    let mut filter = Filter::load().unwrap();
    filter.show(&picture(1, None)).unwrap();
    filter.renew(Duration::from_secs(3_600)).unwrap();
    let mut announce = |from: [u8; 6]| {
        let mut frame = [&[0xff; 6][..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &from, &VIP4.octets()].concat();
        frame.extend([0; 6]);
        frame.extend(VIP4.octets());
        frame.resize(60, 0);
        filter.play(&frame).unwrap().0
    };
    let strangers = [[2, 9, 9, 9, 9, 1], [2, 9, 9, 9, 9, 2]];
    for from in [mac(0), strangers[0], strangers[1], mac(3), strangers[0]] {
        // A member's is another member's question; a stranger's goes nowhere.
        assert_eq!(announce(from), 2);
    }
    let mut claims: Vec<_> = filter.claims().unwrap().into_iter().map(|claim| (claim.mac.0, claim.count)).collect();
    claims.sort_unstable();
    assert_eq!(claims, [(strangers[0], 2), (strangers[1], 1)]);
}

#[test]
fn a_picture_that_does_not_fit_is_refused_and_the_one_before_stays() {
    let mut filter = Filter::load().unwrap();
    filter.show(&picture(1, None)).unwrap();
    filter.renew(Duration::from_secs(3_600)).unwrap();
    for spoil in [
        (|picture: &mut Picture| picture.me = 4) as fn(&mut Picture),
        |picture| picture.vips = vec![IpAddr::V4(VIP4); 17],
        |picture| picture.rules = vec![picture.rules[0]; 65],
        |picture| picture.tables[0][7] = [9, NOBODY, NOBODY, NOBODY],
        |picture| picture.stations.clear(),
        |picture| picture.vmacs.clear(),
        |picture| picture.since.truncate(3),
        |picture| {
            picture.tables.pop();
        },
    ] {
        let mut other = picture(2, None);
        spoil(&mut other);
        let error = filter.show(&other).unwrap_err().to_string();
        assert!(error.contains("view 2"), "{error}");
    }
    let mut maker = Maker { random: Random(1), connections: vec![] };
    let (from, to) = ([10, 0, 1, 9], VIP4.octets());
    let frame = [mac(1).to_vec(), vec![2, 9, 9, 9, 9, 1, 8, 0], maker.head4(from, to, 132, 0)].concat();
    assert_eq!(filter.play(&frame).unwrap().0, 2, "SCTP matches no rule of view 1");
}

/// Later parts have no port: what no rule names is refused at its first part, and never put together.
#[test]
fn a_large_datagram_to_a_port_that_no_rule_names_is_refused_at_its_first_part() {
    let mut filter = Filter::load().unwrap();
    let mut one = picture(1, None);
    one.rules.retain(|rule| rule.proto == Proto::Udp && rule.port.is_some());
    let port = one.rules[0].port.unwrap();
    filter.show(&one).unwrap();
    filter.renew(Duration::from_secs(3_600)).unwrap();
    let frame = |port: u16, place: u16| {
        let mut head = vec![0x45, 0, 5, 0xdc, 1, 1, 0, 0, 64, 17, 0, 0, 10, 0, 1, 9];
        head[6..8].copy_from_slice(&place.to_be_bytes());
        head.extend(VIP4.octets());
        let body = [&40_000u16.to_be_bytes()[..], &port.to_be_bytes()[..], &[0x0f, 0xa0, 0, 0]].concat();
        [mac(1).to_vec(), vec![2, 9, 9, 9, 9, 1, 8, 0], head, body].concat()
    };
    let first = 0x2000;
    let mut verdict = |port, place| filter.play(&frame(port, place)).unwrap().0;
    assert_ne!(verdict(port, first), 2, "a rule names it");
    assert_eq!(verdict(port, first), verdict(port, first | 185), "the parts of a datagram stay together");
    assert_eq!(verdict(40_001, first), 2, "no rule names it");
    assert_eq!(verdict(40_001, 0), 2, "nor as one piece");
}
