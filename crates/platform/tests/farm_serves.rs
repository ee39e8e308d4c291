//! The farm's packet filter and its membership on real interfaces: three members on a switch, and a client's TCP connections.
//!
//! Needs root, and clang to build. Leaves nothing behind. The decision frame by frame: `farm_filter.rs`.

mod common;

use cluster::farm::member::{Action, Event, Member};
use cluster::farm::picture::{Plan, Presence};
use cluster::farm::shares::Shares;
use common::Space;
use common::farm::{VIP4, VIP6, mac, rule};
use model::NodeId;
use model::farm::{Filter as By, Picture, Proto, Station, Wish};
use platform::farm::{Filter, Place, Way, detach};
use platform::net::tcp_reset::reset_connections;
use platform::net::{Announcer, neighbour};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

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

/// A member's own address.
fn own6(member: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, member as u16 + 1)
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
        since: vec![1; 3],
        vips: vec![IpAddr::V4(VIP4), IpAddr::V6(VIP6)],
        vmacs: vec![None; 2],
        pin_ms: 0,
        part_ms: 2_000,
        doubts: false,
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
            filter.speak_as(Some(own6(member))).unwrap();
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
    presence: [Presence; 3],
}

impl Running {
    fn new() -> Self {
        let farm = Farm::new();
        let all: Vec<(NodeId, u64)> = (1..=3).map(|node| (NodeId(node), 1)).collect();
        let plan = Plan {
            vips: vec![IpAddr::V4(VIP4), IpAddr::V6(VIP6)],
            vmacs: vec![None; 2],
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
                    filter.speak_as(Some(own6(member))).unwrap();
                    filter.attach("net1", &place).unwrap();
                    filter
                })
            })
            .collect();
        let mut running = Self { farm, plan, members: vec![None, None, None], filters, presence: Default::default() };
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

    /// The cable goes, and with it the node: it comes back without memory.
    fn die(&mut self, member: usize) {
        self.farm.client.ip(&format!("link set port{} down", member + 1));
        self.forget_connections(member);
        self.members[member] = None;
        self.settle();
    }

    /// What it still believed to have would answer for connections that others serve meanwhile: a client uses its ports again.
    fn forget_connections(&self, member: usize) {
        self.farm.members[member].run(|| [VIP4.into(), VIP6.into()].map(|vip| reset_connections(vip).unwrap()));
    }

    fn obey(&mut self, member: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Show(view, _) => {
                    self.presence[member].see(&view);
                    let picture = self.plan.picture(&view, &self.presence[member], NodeId(member as u16 + 1), |node| {
                        Some(mac(node.0 as u8 - 1))
                    });
                    self.filters[member].show(&picture.unwrap()).unwrap();
                }
                Action::Announce => self.farm.members[member].wait(|| async {
                    for vip in [IpAddr::V4(VIP4), IpAddr::V6(VIP6)] {
                        drop(Announcer::start("net1", vip).unwrap());
                    }
                }),
                Action::Hide => self.forget_connections(member),
                Action::Tell => {}
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
    let (kept, lost): (Vec<_>, Vec<String>) = farm.client.run(move || {
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for (mut stream, by) in held {
            let mut byte = [0];
            let answer = stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut byte));
            match answer {
                Ok(()) if byte[0] == by => kept.push((stream, by)),
                Ok(()) => lost.push(format!("{by} of {:?}: answered by {}", stream.local_addr(), byte[0])),
                Err(error) => lost.push(format!("{by} of {:?}: {error}", stream.local_addr())),
            }
        }
        (kept, lost)
    });
    if !lost.is_empty() {
        println!("lost: {lost:#?}\n{}", farm.client.command("ip", "neigh show"));
    }
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

/// A member that has to ask for a client's hardware address, to answer it from the virtual IP, asks in its own name: the client stays where it is.
#[test]
fn who_answers_an_ipv6_client_does_not_become_the_virtual_ip_for_it() {
    let running = Running::new();
    let at = |address: &str| running.farm.client.command("ip", &format!("-6 neigh show {address} dev br0"));
    let mut seen = BTreeSet::new();
    for round in 0..10 {
        // Nobody knows the client any more.
        for member in &running.farm.members {
            member.ip("-6 neigh flush dev net1");
        }
        seen.extend(more(&running.farm, VIP6.into(), 9).into_iter().map(|(_, by)| by));
        let entry = at("fd00:1::100");
        assert!(entry.contains(&platform::net::Mac(mac(0)).to_string()), "round {round}: the director is at {entry}");
    }
    assert_eq!(seen.len(), 3, "all answered");
}

/// `proto="arp"`: each client finds its own member; one announcement brings a client to the director, whoever its member is. So that is not repeated.
#[test]
fn a_client_finds_its_own_member_until_the_director_announces_itself() {
    let farm = Farm::new();
    let mut filters = Vec::new();
    for member in 0..3 {
        let place = farm.place(member);
        filters.push(farm.members[member].run(move || {
            let mut filter = Filter::load().unwrap();
            filter.show(&Picture { arp_group: Some(0), ..seen_by(member, &[0, 1, 2], &[]) }).unwrap();
            filter.renew(Duration::from_secs(60)).unwrap();
            filter.attach("net1", &place).unwrap();
            filter
        }));
        farm.serve(member);
    }
    // Forty clients' questions.
    let found: Vec<_> = farm.client.run(|| {
        let ask = |host: u8| {
            let client = IpAddr::from([10, 0, 1, host]);
            neighbour::resolve("br0", client, VIP4.into(), Duration::from_secs(3)).unwrap().expect("an answer")
        };
        (20..60).map(|host| (host, ask(host))).collect()
    });
    let members: BTreeSet<_> = found.iter().map(|(_, who)| *who).collect();
    assert_eq!(members.len(), 3, "{found:?}");
    let director = platform::net::Mac(mac(0));
    let (host, own) = found.into_iter().find(|(_, who)| *who != director).expect("not all are the director's");
    farm.client.ip("addr flush dev br0");
    farm.client.ip(&format!("addr add 10.0.1.{host}/24 dev br0"));
    drop(more(&farm, VIP4.into(), 1));
    let known = || farm.client.ip("-4 neigh show 10.0.1.100 dev br0");
    assert!(known().contains(&own.to_string()), "{}", known());
    farm.members[0].wait(|| async {
        drop(Announcer::start_briefly("net1", VIP4.into()).unwrap());
    });
    common::wait_until("the client goes to the director", || known().contains(&director.to_string()));
    // Wherever it goes, it is served.
    drop(more(&farm, VIP4.into(), 30));
}

/// A socket for whole frames, bound to the client's interface and to what comes with `kind` in it.
fn raw(interface: &str, kind: u16) -> OwnedFd {
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: plain system calls; the address is a whole `sockaddr_ll` that outlives the call.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(kind.to_be()));
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = kind.to_be();
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let size = size_of::<libc::sockaddr_ll>() as u32;
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size), 0);
        socket
    }
}

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];
const VIP_QUESTION: [u8; 4] = [10, 0, 1, 100];

/// With a tag that only says how urgent it is (802.1p: number 0).
fn urgent(to: [u8; 6], kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &CLIENT, &[0x81, 0, 0xe0, 0], &kind.to_be_bytes(), rest].concat();
    frame.resize(frame.len().max(64), 0);
    frame
}

/// Clients that mark their frames (802.1p) are spread as all others: the kernel delivers such frames as if they had no tag.
#[test]
fn frames_with_a_priority_and_no_vlan_are_the_farms() {
    let farm = Farm::new();
    farm.client.ip(&format!("link set br0 address {}", platform::net::Mac(CLIENT)));
    let mut filters = Vec::new();
    for member in 0..3 {
        let place = farm.place(member);
        filters.push(farm.members[member].run(move || {
            let mut filter = Filter::load().unwrap();
            let rules = vec![rule(None, Some(53), Proto::Udp, By::OnPort, 0)];
            filter.show(&Picture { rules, ..seen_by(member, &[0, 1, 2], &[]) }).unwrap();
            filter.renew(Duration::from_secs(60)).unwrap();
            filter.attach("net1", &place).unwrap();
            filter
        }));
        farm.serve(member);
    }
    // Who answers the question for the virtual IP; each member's answer for its own address comes after what it had to say.
    let answers: Vec<([u8; 4], [u8; 6])> = farm.client.run(|| {
        let (socket, all) = (raw("br0", 0x0806), [VIP_QUESTION, [10, 0, 1, 1], [10, 0, 1, 2], [10, 0, 1, 3]]);
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(10)),
        )
        .unwrap();
        for asked in all {
            let question = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &CLIENT, &[10, 0, 1, 9], &[0; 6], &asked].concat();
            rustix::io::write(&socket, &urgent([0xff; 6], 0x0806, &question)).unwrap();
        }
        let (mut answers, mut own) = (Vec::new(), 0);
        while own < 3 {
            let mut frame = [0; 256];
            let length = rustix::io::read(&socket, &mut frame).expect("every member answers for its own address");
            if length >= 42 && frame[20..22] == [0, 2] {
                let (address, mac) = (frame[28..32].try_into().unwrap(), frame[22..28].try_into().unwrap());
                own += usize::from(address != VIP_QUESTION);
                answers.push((address, mac));
            }
        }
        answers
    });
    let for_vip: Vec<_> = answers.iter().filter(|(address, _)| *address == VIP_QUESTION).map(|(_, mac)| *mac).collect();
    assert_eq!(for_vip, [mac(0)], "the director answers, and nobody else: {answers:x?}");
    // What reaches the director is passed on to its owner.
    let answered: BTreeSet<u8> = farm.client.run(|| {
        let frames = raw("br0", 0x0800);
        let ask = |_| {
            let socket = UdpSocket::bind("10.0.1.9:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let [high, low] = socket.local_addr().unwrap().port().to_be_bytes();
            let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 9, 10, 0, 1, 100];
            let sum: u32 = packet.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]]))).sum();
            let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
            packet.extend([high, low, 0, 53, 0, 9, 0, 0, 1]);
            rustix::io::write(&frames, &urgent(mac(0), 0x0800, &packet)).unwrap();
            let mut byte = [9];
            socket.recv_from(&mut byte).expect("an answer");
            byte[0]
        };
        (0..40).map(ask).collect()
    });
    assert_eq!(answered, BTreeSet::from([0, 1, 2]));
}
