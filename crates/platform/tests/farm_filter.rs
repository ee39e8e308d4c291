//! The farm's packet filter: the kernel's program against its twin in Rust, frame by frame; and on real interfaces.
//!
//! Needs root, and clang to build. Leaves nothing behind.

mod common;

use cluster::farm::filter::{Around, Connection, Verdict, judge};
use cluster::farm::member::{Action, Event, Member};
use cluster::farm::picture::Plan;
use cluster::farm::shares::Shares;
use common::Space;
use model::NodeId;
use model::farm::{Fate, Filter as By, NOBODY, Picture, Proto, Rule, Station, Wish};
use platform::farm::{Filter, Place, Way, detach};
use platform::net::Announcer;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const FRAMES: usize = 120_000;

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

const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 101);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x100);

fn mac(member: u8) -> [u8; 6] {
    [2, 0, 0, 0, 7, member]
}

fn rule(vip: Option<u8>, port: Option<u16>, proto: Proto, filter: By, group: u8) -> Rule {
    Rule { vip, port, proto, filter, group }
}

/// Four members; this node is the second. Group 0: three shares with a past; group 1: other powers; group 2: nobody serves.
fn picture(number: u64, arp_group: Option<u8>) -> Picture {
    let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
    let equal: Vec<(NodeId, u64)> = nodes.iter().map(|node| (*node, 1)).collect();
    let past = [nodes.clone(), nodes[1..].to_vec(), vec![nodes[0], nodes[2]], nodes.clone()];
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
        vips: vec![IpAddr::V4(VIP4), IpAddr::V4(OTHER4), IpAddr::V6(VIP6)],
        rules: vec![
            rule(None, Some(80), Proto::Tcp, By::OnAddr, 0),
            rule(Some(0), Some(443), Proto::Tcp, By::OnPort, 1),
            rule(None, Some(53), Proto::Udp, By::OnIpid, 0),
            rule(Some(2), Some(443), Proto::Tcp, By::OnPort, 0),
            rule(Some(1), None, Proto::Udp, By::OnPort, 1),
            rule(Some(1), Some(9), Proto::Tcp, By::OnAddr, 2),
        ],
        arp_group,
        tables,
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
            _ => mac(1),
        };
        let from = match self.random.below(4) {
            0 => self.random.of(&[mac(0), mac(2), mac(3), mac(1)]),
            _ => [2, 9, 9, 9, self.random.next() as u8, 1],
        };
        [&to[..], &from[..], &kind.to_be_bytes()].concat()
    }

    fn ports(&mut self) -> (u16, u16) {
        (1024 + self.random.below(60_000) as u16, self.random.of(&[80, 80, 443, 443, 53, 9, 22, 8080]))
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
        head[4..6].copy_from_slice(&(self.random.next() as u16).to_be_bytes());
        if self.random.one_in(8) {
            let fragment = self.random.of(&[0x2000, 0x2005, 0x0005, 0x4000, 0x8000, 0x1fff]);
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
        let ports = self.ports();
        match proto {
            6 => self.tcp(ports),
            17 => self.udp(ports),
            _ => (0..12).map(|_| self.random.next() as u8).collect(),
        }
    }

    fn four(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 6, 17, 17, 1, 132]);
        let (from, to, body) = (self.ip4(), self.vip4(), self.body(proto));
        let (eth, head) = (self.eth(0x0800), self.head4(from, to, proto, body.len()));
        [eth, head, body].concat()
    }

    fn six(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 6, 17, 58, 59]);
        let (from, body) = (self.ip6(), self.body(proto));
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
        let (client, router, ports) = (self.ip4(), self.ip4(), self.ports());
        let body = if proto == 6 { self.tcp((ports.1, ports.0)) } else { self.udp((ports.1, ports.0)) };
        let inner = [self.head4(inner_vip, client, proto, body.len()), body[..8].to_vec()].concat();
        let kind = self.random.of(&[3, 3, 11, 12, 5, 0, 8]);
        let (eth, head) = (self.eth(0x0800), self.head4(router, vip, 1, 8 + inner.len()));
        [eth, head, vec![kind, 4, 0, 0, 0, 0, 5, 220], inner].concat()
    }

    fn error6(&mut self) -> Vec<u8> {
        let proto = self.random.of(&[6, 6, 17, 58]);
        let (client, router, ports) = (self.ip6(), self.ip6(), self.ports());
        let body = if proto == 6 { self.tcp((ports.1, ports.0)) } else { self.udp((ports.1, ports.0)) };
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
        let head = self.head6(from, to, 58, hops);
        [
            eth,
            head,
            vec![self.random.of(&[135, 135, 136, 133]), 0, 0, 0, 0, 0, 0, 0],
            self.random.of(&[VIP6.octets(), target]).to_vec(),
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
        // Without a picture everything passes.
        assert_eq!(filter.play(&maker.four()).unwrap().0, -1);
        for (number, (arp_group, is_leased, count)) in
            (1..).zip([(None, true, FRAMES / 2), (Some(0), true, FRAMES / 2 - 5_000), (None, false, 5_000)])
        {
            let picture = picture(number, arp_group);
            filter.show(&picture).unwrap();
            filter.renew(if is_leased { Duration::from_secs(3_600) } else { Duration::ZERO }).unwrap();
            let has_socket = |connection: Connection| known.contains(&connection);
            let around = Around { picture: &picture, is_leased, has_socket: &has_socket };
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
        (counted, verdicts, refused, filter.counters().unwrap(), filter.claim().unwrap())
    });
    let (counted, verdicts, refused, counters, claim) =
        played.recv_timeout(Duration::from_secs(120)).expect("see above");
    println!("{verdicts:?}\n{counted:?}\nnot played by the kernel: {refused}");
    assert!(refused < FRAMES / 20, "{refused} frames were not played");
    for fate in Fate::ALL {
        // Every branch was taken, often enough to mean something.
        assert!(counted.get(&fate).is_some_and(|count| *count >= 50), "{fate:?}: {counted:?}");
        assert_eq!(counters[fate as usize], (fate, counted[&fate]));
    }
    assert!(verdicts.values().all(|count| *count >= 3_000), "{verdicts:?}");
    assert_eq!(claim.unwrap().count, counted[&Fate::Conflict]);
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

/// A client and three members on one switch; each member answers with its number on port 80.
struct Farm {
    members: Vec<Space>,
    client: Space,
    dir: tempfile::TempDir,
}

const MEMBERS: u8 = 3;

impl Farm {
    fn new() -> Self {
        let client = Space::new();
        client.ip("link add br0 type bridge forward_delay 0");
        client.ip("link set br0 up");
        client.ip("addr add 10.0.1.9/24 dev br0");
        client.ip("-6 addr add fd00:1::9/64 dev br0 nodad");
        let members: Vec<Space> = (0..MEMBERS).map(|_| Space::new()).collect();
        for (index, member) in (0..MEMBERS).zip(&members) {
            let number = index + 1;
            member.cable("net1", &client, &format!("port{number}"));
            client.ip(&format!("link set port{number} master br0"));
            member.ip(&format!("link set net1 address {}", platform::net::Mac(mac(index))));
            // Who asks for a client's hardware address says so in its own name.
            member.command("sysctl", "-q -w net.ipv4.conf.all.arp_announce=2");
            member.ip(&format!("addr add 10.0.1.{number}/24 dev net1"));
            member.ip(&format!("-6 addr add fd00:1::{number}/64 dev net1 nodad"));
        }
        Self { members, client, dir: tempfile::tempdir().unwrap() }
    }

    fn place(&self, member: usize) -> Place {
        Place { dir: self.dir.path().join(format!("bpf{member}")), name: "web.1".into(), id: 3 }
    }

    /// The virtual IPs, behind the filter; and the application.
    fn serve(&self, member: usize) {
        self.members[member].ip("addr add 10.0.1.100/32 dev net1");
        self.members[member].ip("-6 addr add fd00:1::100/128 dev net1 nodad preferred_lft 0");
        self.members[member].run(move || {
            for vip in [SocketAddr::from((VIP4, 80)), SocketAddr::from((VIP6, 80))] {
                let listener = TcpListener::bind(vip).unwrap();
                std::thread::spawn(move || {
                    while let Ok((mut stream, _)) = listener.accept() {
                        std::thread::spawn(move || {
                            let mut byte = [0];
                            while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                                if stream.write_all(&[member as u8]).is_err() {
                                    return;
                                }
                            }
                        });
                    }
                });
            }
            for vip in [SocketAddr::from((VIP4, 53)), SocketAddr::from((VIP6, 53))] {
                let socket = UdpSocket::bind(vip).unwrap();
                std::thread::spawn(move || {
                    let mut datagram = vec![0; 65_536];
                    while let Ok((_, from)) = socket.recv_from(&mut datagram) {
                        socket.send_to(&[member as u8], from).ok();
                    }
                });
            }
        });
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            rustix::mount::unmount(self.place(member).dir, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }
}

/// The picture of `me` when `serving` own the traffic, after `before` did.
fn seen_by(me: usize, serving: &[u8], before: &[&[u8]]) -> Picture {
    let nodes = |members: &[u8]| members.iter().map(|index| NodeId(u16::from(*index) + 1)).collect::<Vec<_>>();
    let all: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let shares = Shares::new(&all.iter().map(|node| (*node, 1)).collect::<Vec<_>>());
    let past: Vec<Vec<NodeId>> = std::iter::once(nodes(serving)).chain(before.iter().map(|it| nodes(it))).collect();
    Picture {
        number: 1 + before.len() as u64,
        me: me as u8,
        director: serving[0],
        stations: (0..3).zip(&all).map(|(index, node)| Station { node: *node, mac: mac(index) }).collect(),
        vips: vec![IpAddr::V4(VIP4), IpAddr::V6(VIP6)],
        rules: vec![rule(None, Some(80), Proto::Tcp, By::OnPort, 0), rule(None, Some(53), Proto::Udp, By::OnAddr, 0)],
        arp_group: None,
        tables: vec![shares.table(&all, &past)],
    }
}

/// So many connections to the virtual IP, each asked once; who answered how often.
fn ask(connections: &mut [TcpStream]) -> Vec<Option<u8>> {
    let answer = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.write_all(&[1]).ok()?;
        stream.read_exact(&mut byte).ok()?;
        Some(byte[0])
    };
    connections.iter_mut().map(answer).collect()
}

fn connect(vip: IpAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), Duration::from_secs(3)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
        .collect()
}

fn farm_serves(way: Way) {
    let farm = Farm::new();
    let mut filters = Vec::new();
    for member in 0..3 {
        let place = farm.place(member);
        // The filter first: the address must never be there without it.
        filters.push(farm.members[member].run(move || {
            let mut filter = Filter::load().unwrap();
            filter.show(&seen_by(member, &[0, 1, 2], &[])).unwrap();
            filter.renew(Duration::from_secs(60)).unwrap();
            filter.attach_by("net1", &place, way).unwrap();
            filter
        }));
        farm.serve(member);
    }
    let counts = |answers: &[Option<u8>]| {
        (0..3).map(|it| answers.iter().filter(|a| **a == Some(it)).count()).collect::<Vec<_>>()
    };
    // Both families: every connection is answered, by all three members, and stays with its own.
    let mut held = farm.client.run(|| {
        [connect(VIP4.into(), 150), connect(VIP6.into(), 150)].map(|mut streams| {
            let answers = ask(&mut streams);
            (streams, answers)
        })
    });
    for (_, answers) in &held {
        let shares = counts(answers);
        assert!(shares.iter().sum::<usize>() == 150 && shares.iter().all(|share| *share >= 25), "{shares:?}");
    }
    // UDP by address, and in fragments: one member answers both.
    let answered = farm.client.run(|| {
        let mut answered = Vec::new();
        for (vip, from) in [(SocketAddr::from((VIP4, 53)), "0.0.0.0:0"), (SocketAddr::from((VIP6, 53)), "[::]:0")] {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let by = [100, 6_000, 20_000].map(|bytes| {
                let mut byte = [9];
                socket.send_to(&vec![0; bytes], vip).unwrap();
                socket.recv_from(&mut byte).unwrap();
                byte[0]
            });
            answered.push(by);
        }
        answered
    });
    assert!(answered.iter().all(|by| by.iter().all(|it| it == &by[0])), "{answered:?}");
    // Member 2 leaves and comes back, in the pictures only: its connections live on there. Nobody is moved.
    for (serving, before) in [(&[0u8, 1][..], &[&[0u8, 1, 2][..]][..]), (&[0, 1, 2], &[&[0, 1], &[0, 1, 2]])] {
        for (member, filter) in filters.iter_mut().enumerate() {
            filter.show(&seen_by(member, serving, before)).unwrap();
        }
        held = farm.client.run(move || {
            held.map(|(mut streams, expected)| {
                assert_eq!(ask(&mut streams), expected, "connections stay where they are");
                (streams, expected)
            })
        });
    }
    // The filter outlives its process; another process puts its own in its place, without a gap.
    drop(filters);
    let (mut streams, expected) = {
        let [first, second] = held;
        drop(second);
        first
    };
    streams = farm.client.run({
        let expected = expected.clone();
        move || {
            assert_eq!(ask(&mut streams), expected, "the filter serves on without its process");
            streams
        }
    });
    for member in 0..3 {
        let place = farm.place(member);
        let lease = if member == 1 { Duration::ZERO } else { Duration::from_secs(60) };
        farm.members[member].run(move || {
            let mut filter = Filter::load().unwrap();
            filter.show(&seen_by(member, &[0, 1, 2], &[])).unwrap();
            filter.renew(lease).unwrap();
            filter.attach_by("net1", &place, way).unwrap();
        });
    }
    // The second member has no lease: it accepts nothing; the others' connections serve.
    let (mut leased, mut unleased): (Vec<_>, Vec<_>) =
        streams.into_iter().zip(expected).partition(|(_, expected)| *expected != Some(1));
    unleased.truncate(5);
    farm.client.run(move || {
        for (stream, expected) in &mut leased {
            assert_eq!(ask(std::slice::from_mut(stream)), [*expected]);
        }
        for (stream, _) in &mut unleased {
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert_eq!(ask(std::slice::from_mut(stream)), [None]);
        }
        assert_eq!(unleased.len(), 5);
    });
    for member in 0..3 {
        let place = farm.place(member);
        farm.members[member].run(move || {
            detach("net1", &place).unwrap();
            detach("net1", &place).unwrap();
        });
        assert!(!farm.members[member].command("tc", "filter show dev net1 ingress").contains("stead_farm"));
    }
}

#[test]
fn a_farm_of_three_serves_by_tcx() {
    farm_serves(Way::Tcx);
}

#[test]
fn a_farm_of_three_serves_by_clsact() {
    farm_serves(Way::Clsact);
}

/// Three members with the automaton that production has; heartbeats are carried by hand, so that time plays no part.
struct Running {
    farm: Farm,
    plan: Plan,
    members: Vec<Option<Member>>,
    filters: Vec<Filter>,
}

impl Running {
    fn new() -> Self {
        let farm = Farm::new();
        let all: Vec<(NodeId, u64)> = (1..=3).map(|node| (NodeId(node), 1)).collect();
        let plan = Plan {
            vips: vec![IpAddr::V4(VIP4), IpAddr::V6(VIP6)],
            rules: vec![rule(None, Some(80), Proto::Tcp, By::OnPort, 0)],
            arp_group: None,
            groups: vec![Shares::new(&all)],
        };
        let filters = (0..3)
            .map(|member| {
                let place = farm.place(member);
                farm.members[member].run(move || {
                    let mut filter = Filter::load().unwrap();
                    filter.renew(Duration::from_secs(120)).unwrap();
                    filter.attach("net1", &place).unwrap();
                    filter
                })
            })
            .collect();
        let mut running = Self { farm, plan, members: vec![None, None, None], filters };
        for member in 0..3 {
            running.start(member, 1);
        }
        for member in 0..3 {
            running.farm.serve(member);
        }
        running
    }

    fn start(&mut self, member: usize, instance: u32) {
        let mut started = Member::new(NodeId(member as u16 + 1), instance, (1..=3).map(NodeId));
        started.handle(Event::Wished(Wish::In));
        self.members[member] = Some(started);
        self.settle();
    }

    fn wish(&mut self, member: usize, wish: Wish) {
        let actions = self.members[member].as_mut().unwrap().handle(Event::Wished(wish));
        self.obey(member, actions);
        self.settle();
    }

    /// The cable goes, and with it the node.
    fn die(&mut self, member: usize) {
        self.farm.client.ip(&format!("link set port{} down", member + 1));
        self.members[member] = None;
        self.settle();
    }

    fn obey(&mut self, member: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Show(view, _) => {
                    let picture =
                        self.plan.picture(&view, NodeId(member as u16 + 1), |node| Some(mac(node.0 as u8 - 1)));
                    self.filters[member].show(&picture.unwrap()).unwrap();
                }
                Action::Announce => self.farm.members[member].wait(|| async {
                    for vip in [IpAddr::V4(VIP4), IpAddr::V6(VIP6)] {
                        drop(Announcer::start("net1", vip).unwrap());
                    }
                }),
                Action::Hide | Action::Tell => {}
            }
        }
    }

    /// Heartbeats, until nobody has anything new to say.
    fn settle(&mut self) {
        for _ in 0..12 {
            let words: Vec<_> = self.members.iter().map(|member| member.as_ref().map(Member::word)).collect();
            for to in 0..3 {
                for (from, word) in (1..).map(NodeId).zip(&words).filter(|(from, _)| usize::from(from.0) != to + 1) {
                    let events = match word {
                        Some(word) => vec![Event::Heard(from), Event::Said { from, word: word.clone() }],
                        None => vec![Event::Silent(from)],
                    };
                    for event in events {
                        let actions = self.members[to].as_mut().map(|member| member.handle(event)).unwrap_or_default();
                        self.obey(to, actions);
                    }
                }
            }
            if words == self.members.iter().map(|member| member.as_ref().map(Member::word)).collect::<Vec<_>>() {
                return;
            }
        }
        panic!("no peace: {:?}", self.members);
    }

    fn director(&self) -> u16 {
        self.members.iter().flatten().find_map(Member::view).unwrap().director.0
    }
}

/// Asks all, and counts: answered by whom it was before, by another or not at all; the former are kept.
fn survivors(farm: &Farm, mut held: Vec<(TcpStream, u8)>, gone: Option<u8>) -> (Vec<(TcpStream, u8)>, usize, usize) {
    held.retain(|(_, by)| Some(*by) != gone);
    let all = held.len();
    let kept: Vec<_> = farm.client.run(move || {
        held.into_iter()
            .filter_map(|(mut stream, by)| {
                (ask(std::slice::from_mut(&mut stream)) == [Some(by)]).then_some((stream, by))
            })
            .collect()
    });
    let count = kept.len();
    (kept, count, all)
}

fn more(farm: &Farm, vip: IpAddr, count: usize) -> Vec<(TcpStream, u8)> {
    farm.client.run(move || {
        let mut streams = connect(vip, count);
        let answers = ask(&mut streams);
        streams.into_iter().zip(answers.into_iter().map(|by| by.expect("answered"))).collect()
    })
}

#[test]
fn connections_survive_death_return_planned_stop_and_the_directors_death() {
    let mut running = Running::new();
    assert_eq!(running.director(), 1);
    let mut held = more(&running.farm, VIP4.into(), 200);
    held.extend(more(&running.farm, VIP6.into(), 100));
    for member in 0..3 {
        let share = held.iter().filter(|(_, by)| *by == member).count();
        assert!((60..=140).contains(&share), "a third of 300 is not {share}");
    }
    let mut told = Vec::new();
    let mut check = |running: &Running, event: &'static str, held: Vec<(TcpStream, u8)>, gone: Option<u8>| {
        let (kept, count, all) = survivors(&running.farm, held, gone);
        told.push(format!("{event}: {count} of {all} connections"));
        assert_eq!(count, all, "{told:?}");
        kept
    };

    running.die(2);
    held = check(&running, "a member dies (the survivors')", held, Some(2));
    let fresh = more(&running.farm, VIP4.into(), 100);
    assert!(fresh.iter().all(|(_, by)| *by != 2), "nobody is sent to the dead");
    held.extend(fresh);

    running.farm.client.ip("link set port3 up");
    running.start(2, 2);
    held = check(&running, "it returns", held, None);
    let fresh = more(&running.farm, VIP6.into(), 100);
    assert!(fresh.iter().any(|(_, by)| *by == 2), "it serves again");
    held.extend(fresh);

    running.wish(1, Wish::Drain);
    held = check(&running, "planned stop: draining", held, None);
    let fresh = more(&running.farm, VIP4.into(), 100);
    assert!(fresh.iter().all(|(_, by)| *by != 1), "no new connections while it drains");
    held.extend(fresh);
    running.wish(1, Wish::Out);
    held = check(&running, "planned stop: over (the others')", held, Some(1));
    running.wish(1, Wish::In);
    held = check(&running, "it starts again", held, None);
    held.extend(more(&running.farm, VIP4.into(), 60));

    assert_eq!(running.director(), 1);
    running.die(0);
    assert_eq!(running.director(), 2);
    held = check(&running, "the director dies (the survivors')", held, Some(0));
    let fresh = more(&running.farm, VIP4.into(), 60);
    assert!(fresh.iter().all(|(_, by)| *by != 0));
    held.extend(fresh);

    running.farm.client.ip("link set port1 up");
    running.start(0, 2);
    assert_eq!(running.director(), 2, "who directs stays director");
    held = check(&running, "it returns", held, None);
    running.wish(1, Wish::Drain);
    assert_eq!(running.director(), 1, "a director that drains hands over first");
    held = check(&running, "planned stop of the director: draining", held, None);
    println!("{}", told.join("\n"));
    drop(held);
}
