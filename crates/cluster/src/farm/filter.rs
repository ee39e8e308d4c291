//! The packet decision of a farm, frame in, verdict and rewritten frame out: the twin of `platform/src/farm/filter.c`.
//!
//! It runs in no kernel; it is what the kernel's program is compared with (`platform/tests/farm_filter.rs`), and the place to read.
//! **Invariant:** a frame for a virtual IP is kept, passed to exactly one member, or dropped and counted.

mod answers;

use super::hash::{bucket_of, bytes_of};
use alloc::collections::BTreeMap;
use core::cell::RefCell;
use core::net::{IpAddr, Ipv6Addr};
use model::NodeId;
use model::farm::{DEPTH, Fate, Filter, NOBODY, Picture, Rule};

/// What happens to a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not the farm's business.
    Next,
    /// Kept.
    Accept,
    /// Gone.
    Drop,
    /// Sent out again, as rewritten.
    Redirect,
}

/// Both ends of a TCP connection, or of a flow of UDP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection {
    /// Address and port of the client.
    pub client: (IpAddr, u16),
    /// Virtual IP and port.
    pub vip: (IpAddr, u16),
}

/// Where flows of UDP are pinned to. The kernel's forgets whoever was silent for longest when it is full.
pub type Pins = RefCell<BTreeMap<Connection, Pin>>;

/// A flow of UDP, kept where its client's datagrams arrive first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// Its last datagram.
    pub at_ms: u64,
    /// Whose it is.
    pub node: NodeId,
    /// [`Picture::since`] of that node then: once it left, it has forgotten the flow.
    pub since: u64,
}

/// Where first parts of packets went: only these have ports. The kernel's forgets the oldest when it is full.
pub type Parts = RefCell<BTreeMap<Whole, Pin>>;

/// What parts of one packet have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Whole {
    client: [u8; 16],
    vip_index: usize,
    id: u32,
    proto: u8,
}

/// What surrounds a frame.
pub struct Around<'a> {
    /// Who owns what.
    pub picture: &'a Picture,
    /// The tag that the kernel took off the frame (`vlan_tci`); 0: there was none.
    pub tag: u16,
    /// The agent has been heard of lately.
    pub is_leased: bool,
    /// Now.
    pub now_ms: u64,
    /// Flows of UDP.
    pub pins: &'a Pins,
    /// Packets in parts.
    pub parts: &'a Parts,
    /// Has this node that connection (a listener does not count)? The kernel is asked again for the same one after a second, or in another
    /// view.
    pub has_socket: &'a dyn Fn(Connection) -> bool,
}

const NEXT: (Verdict, Option<Fate>) = (Verdict::Next, None);
type Outcome = (Verdict, Option<Fate>);

const fn dropped(fate: Fate) -> Outcome {
    (Verdict::Drop, Some(fate))
}
const fn accepted(fate: Fate) -> Outcome {
    (Verdict::Accept, Some(fate))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it.
    Whole,
    /// The one with the ports.
    First,
    Later,
}

impl Part {
    const fn of(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            _ => Self::Later,
        }
    }
}

#[derive(Clone, Copy)]
struct Flow {
    is_v4: bool,
    client: [u8; 16],
    vip: [u8; 16],
    vip_index: usize,
    client_port: u16,
    vip_port: u16,
    /// The packet's identification; of IPv6 only in parts.
    id: u32,
    proto: u8,
    part: Part,
    may_have_socket: bool,
    /// Sent to the hardware address that every member receives.
    to_all: bool,
    /// An ICMP error speaks of it.
    is_quoted: bool,
    ttl: u8,
}

/// Decides, and rewrites the frame when it is passed on.
#[must_use]
pub fn judge(around: &Around<'_>, frame: &mut [u8]) -> Outcome {
    let Some(eth) = part::<14>(frame, 0) else { return NEXT };
    let judge = Judge { around, eth };
    match be16(&eth, 12) {
        // A VLAN's interface has a filter of its own; number 0 only says how urgent a frame is.
        _ if around.tag & 0xfff != 0 || around.picture.vips.is_empty() => NEXT,
        0x0806 => judge.arp(frame),
        0x0800 => judge.four(frame),
        0x86dd => judge.six(frame),
        _ => NEXT,
    }
}

/// What leaves: a question for a client's hardware address in a virtual IP's name is asked in this node's own (`own`), so that the client does
/// not take this node's hardware address for the virtual IP's.
pub fn speak_as(picture: &Picture, own: Ipv6Addr, frame: &mut [u8]) {
    let Some(start) = part::<58>(frame, 0) else { return };
    let source: [u8; 16] = core::array::from_fn(|at| start[22 + at]);
    let is_question = be16(&start, 12) == 0x86dd && start[20] == 58 && start[21] == 255 && start[54] == 135;
    if !is_question || !picture.vips.iter().any(|vip| bytes_of(*vip) == source) {
        return;
    }
    let own = own.octets();
    let words = |of: &[u8; 16], at: usize| u32::from(be16(of, 2 * at));
    let mut sum = u32::from(!be16(&start, 56));
    sum += (0..8).map(|at| (words(&source, at) ^ 0xffff) + words(&own, at)).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[22..38].copy_from_slice(&own);
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

struct Judge<'a> {
    around: &'a Around<'a>,
    eth: [u8; 14],
}

impl Judge<'_> {
    fn picture(&self) -> &Picture {
        self.around.picture
    }

    fn vip_of(&self, address: [u8; 16]) -> Option<usize> {
        self.picture().vips.iter().position(|vip| bytes_of(*vip) == address)
    }

    fn is_from_member(&self) -> bool {
        self.picture().stations.iter().any(|station| station.mac == self.eth[6..12])
    }

    fn own_mac(&self) -> Option<[u8; 6]> {
        self.picture().stations.get(usize::from(self.picture().me)).map(|station| station.mac)
    }

    fn vmac_of(&self, vip: usize) -> Option<[u8; 6]> {
        self.picture().vmacs.get(vip).copied().flatten()
    }

    /// Was a frame for this virtual IP sent to all members? Or why it is not looked into.
    fn sent_to_all(&self, vip: usize) -> Result<bool, Fate> {
        let is_to = |mac: Option<[u8; 6]>| mac.is_some_and(|mac| mac == self.eth[..6]);
        match () {
            () if !self.around.is_leased => Err(Fate::Lease),
            () if is_to(self.own_mac()) => Ok(false),
            () if is_to(self.vmac_of(vip)) => Ok(true),
            () => Err(Fate::Flooded),
        }
    }

    fn entry(&self, group: u8, client: [u8; 16], extra: u64) -> [u8; DEPTH] {
        self.picture().tables.get(usize::from(group)).map_or([NOBODY; DEPTH], |table| table[bucket_of(client, extra)])
    }

    fn asked(&self, client: [u8; 16]) -> Outcome {
        if !self.around.is_leased {
            return dropped(Fate::Lease);
        }
        let picture = self.picture();
        let answers = picture.arp_group.map_or(picture.director, |group| self.entry(group, client, 0)[0]);
        if answers == picture.me { accepted(Fate::Answered) } else { dropped(Fate::Silent) }
    }

    fn arp(&self, frame: &mut [u8]) -> Outcome {
        let Some(it) = part::<28>(frame, 14) else { return NEXT };
        if be16(&it, 0) != 1 || be16(&it, 2) != 0x0800 || it[4] != 6 || it[5] != 4 {
            return NEXT;
        }
        let speaks = self.vip_of(v4(&it[14..18])).is_some();
        if speaks && !self.is_from_member() {
            return dropped(Fate::Conflict);
        }
        let Some(vip) = self.vip_of(v4(&it[24..28])).filter(|_| be16(&it, 6) == 1) else { return NEXT };
        match self.vmac_of(vip) {
            // A member announces it.
            Some(_) if speaks => dropped(Fate::Silent),
            vmac => match (self.asked(v4(&it[14..18])), vmac, self.own_mac()) {
                ((Verdict::Accept, fate), Some(vmac), Some(mac)) => {
                    answers::four(frame, &self.eth, &it, mac, vmac);
                    (Verdict::Redirect, fate)
                }
                (asked, ..) => asked,
            },
        }
    }

    fn four(&self, frame: &mut [u8]) -> Outcome {
        let Some(it) = part::<20>(frame, 14) else { return NEXT };
        let vip = v4(&it[16..20]);
        let Some(vip_index) = self.vip_of(vip) else { return NEXT };
        let to_all = match self.sent_to_all(vip_index) {
            Ok(to_all) => to_all,
            Err(fate) => return dropped(fate),
        };
        if it[0] >> 4 != 4 || it[0] & 15 < 5 {
            return dropped(Fate::Malformed);
        }
        let flow = Flow {
            is_v4: true,
            client: v4(&it[12..16]),
            vip,
            vip_index,
            client_port: 0,
            vip_port: 0,
            id: be16(&it, 4).into(),
            proto: it[9],
            part: Part::of(be16(&it, 6) & 0x1fff, it[6] & 0x20 != 0),
            may_have_socket: false,
            to_all,
            is_quoted: false,
            ttl: it[8],
        };
        self.transport(frame, flow, 14 + 4 * usize::from(it[0] & 15))
    }

    fn six(&self, frame: &mut [u8]) -> Outcome {
        let Some(it) = part::<40>(frame, 14) else { return NEXT };
        // Neighbour discovery counts only from this very network.
        if it[6] == 58
            && it[7] == 255
            && let Some(nd) = part::<24>(frame, 54)
            && matches!(nd[0], 135 | 136)
        {
            // Of others: also what is answered to a question that the kernel asked in the virtual IP's name.
            let Some(vip) = self.vip_of(v6(&nd[8..24])) else { return NEXT };
            return match (nd[0], self.vmac_of(vip), self.own_mac()) {
                (135, Some(vmac), Some(mac)) => match self.asked(v6(&it[8..24])) {
                    (Verdict::Accept, fate) => {
                        answers::six(frame, &self.eth, &it, &nd, mac, vmac);
                        (Verdict::Redirect, fate)
                    }
                    left => left,
                },
                (135, ..) => self.asked(v6(&it[8..24])),
                _ if self.is_from_member() => dropped(Fate::Silent),
                _ => dropped(Fate::Conflict),
            };
        }
        let vip = v6(&it[24..40]);
        let Some(vip_index) = self.vip_of(vip) else { return NEXT };
        let to_all = match self.sent_to_all(vip_index) {
            Ok(to_all) => to_all,
            Err(fate) => return dropped(fate),
        };
        if it[0] >> 4 != 6 {
            return dropped(Fate::Malformed);
        }
        let Some((proto, part, id, at)) = behind_extensions(frame, 54, it[6]) else {
            return dropped(Fate::Malformed);
        };
        let flow = Flow {
            is_v4: false,
            client: v6(&it[8..24]),
            vip,
            vip_index,
            client_port: 0,
            vip_port: 0,
            id,
            proto,
            part,
            may_have_socket: false,
            to_all,
            is_quoted: false,
            ttl: it[7],
        };
        self.transport(frame, flow, at)
    }

    fn transport(&self, frame: &mut [u8], mut flow: Flow, at: usize) -> Outcome {
        match (flow.proto, flow.is_v4) {
            (1, true) | (58, false) => {
                if flow.part != Part::Whole {
                    return dropped(Fate::NoRule);
                }
                let Some(it) = part::<8>(frame, at) else { return dropped(Fate::Malformed) };
                match (it[0], flow.is_v4) {
                    // An echo is answered by whom it reaches; of all whom it reaches, by one.
                    (8, true) | (128, false) if flow.to_all && self.picture().director != self.picture().me => {
                        return dropped(Fate::Others);
                    }
                    (8, true) | (128, false) => return accepted(Fate::Accepted),
                    (3 | 11 | 12, true) | (1..=4, false) => {}
                    _ => return dropped(Fate::NoRule),
                }
                match embedded(frame, at + 8, flow) {
                    Some(spoken_of) => self.decide(frame, spoken_of),
                    None => dropped(Fate::Malformed),
                }
            }
            _ if flow.part == Part::Later => self.follow(frame, flow),
            (6, _) => {
                let Some(it) = part::<14>(frame, at) else { return dropped(Fate::Malformed) };
                flow.client_port = be16(&it, 0);
                flow.vip_port = be16(&it, 2);
                // SYN without ACK begins a connection: its owner takes it.
                flow.may_have_socket = it[13] & 0x12 != 0x02;
                self.decide(frame, flow)
            }
            (17, _) => {
                let Some(it) = part::<8>(frame, at) else { return dropped(Fate::Malformed) };
                flow.client_port = be16(&it, 0);
                flow.vip_port = be16(&it, 2);
                self.decide(frame, flow)
            }
            _ => dropped(Fate::NoRule),
        }
    }

    /// The first rule that names it; without a port, the first of its protocol.
    fn rule_of(&self, flow: &Flow, port: Option<u16>) -> Option<&Rule> {
        self.picture().rules.iter().find(|rule| {
            rule.proto.number() == flow.proto
                && rule.vip.is_none_or(|vip| usize::from(vip) == flow.vip_index)
                && port.is_none_or(|port| rule.port.is_none_or(|named| named == port))
        })
    }

    fn decide(&self, frame: &mut [u8], flow: Flow) -> Outcome {
        let picture = self.picture();
        // An error quotes a later part of what the virtual IP sent: it goes by address, under the first rule of its protocol.
        let has_ports = flow.part != Part::Later;
        let port = has_ports.then_some(flow.vip_port);
        let Some(rule) = self.rule_of(&flow, port) else { return dropped(Fate::NoRule) };
        let extra = match rule.filter {
            Filter::OnPort if has_ports => 1 << 16 | u64::from(flow.client_port),
            Filter::OnIpid if flow.is_v4 => 2 << 16 | u64::from(flow.id),
            _ => 0,
        };
        let entry = self.entry(rule.group, flow.client, extra);
        let is_pinned = flow.proto == 17 && rule.filter != Filter::OnIpid && has_ports;
        let me = picture.me;
        let (mut to, mut fate) = (entry[0], Fate::Accepted);
        if to == NOBODY {
            return dropped(Fate::Nobody);
        } else if flow.to_all {
            // Its owner has received it as well.
            fate = if to == me { Fate::Accepted } else { Fate::Others };
        } else if !self.is_from_member() {
            // What comes from a member has been dealt out.
            to = if is_pinned { self.pinned(&flow, to) } else { to };
            fate = if to == me { Fate::Accepted } else { Fate::Passed };
        }
        let mut next = None;
        if fate == Fate::Accepted {
            to = me;
            // Only to the entry after mine; who is not in the list, or last, answers itself, unless it is in doubt.
            let mine = entry.iter().position(|at| *at == me);
            next = mine.and_then(|at| entry.get(at + 1)).copied().filter(|next| *next != NOBODY);
        }
        if flow.may_have_socket && (next.is_some() || picture.doubts) {
            if (self.around.has_socket)(flow.connection()) {
                // In doubt whoever owns it: it may have been passed here by one whom this view does not know.
                (to, fate) = (me, Fate::Accepted);
            } else if fate == Fate::Accepted {
                let Some(next) = next else { return dropped(Fate::Nobody) };
                (to, fate) = (next, Fate::SecondChance);
            }
        }
        if flow.part == Part::First {
            self.remember(&flow, to);
        }
        self.sent(frame, flow, to, fate)
    }

    /// The other parts go there as well.
    fn remember(&self, flow: &Flow, to: u8) {
        let (picture, to) = (self.picture(), usize::from(to));
        if let (Some(station), Some(since)) = (picture.stations.get(to), picture.since.get(to)) {
            let made = Pin { at_ms: self.around.now_ms, node: station.node, since: *since };
            self.around.parts.borrow_mut().insert(flow.whole(), made);
        }
    }

    /// A part without ports goes where the first one of its packet went, from here on. One that came before it is lost, and with it the packet:
    /// a sender sends them in order, and what no rule names must not come in.
    fn follow(&self, frame: &mut [u8], flow: Flow) -> Outcome {
        let (picture, now_ms) = (self.picture(), self.around.now_ms);
        let parts = self.around.parts.borrow();
        let first = parts.get(&flow.whole()).filter(|first| now_ms - first.at_ms < picture.part_ms);
        match first.and_then(|first| self.place_of(first)) {
            None => dropped(Fate::Astray),
            Some(to) if to == picture.me => accepted(Fate::Accepted),
            Some(to) => self.sent(frame, flow, to, if flow.to_all { Fate::Others } else { Fate::Passed }),
        }
    }

    fn sent(&self, frame: &mut [u8], flow: Flow, to: u8, fate: Fate) -> Outcome {
        match fate {
            Fate::Accepted => accepted(fate),
            Fate::Others => dropped(fate),
            _ => self.passed(frame, flow, to, fate),
        }
    }

    /// The member of a pin; `None`: it is not there any more.
    fn place_of(&self, pin: &Pin) -> Option<u8> {
        let picture = self.picture();
        let place = picture.stations.iter().position(|station| station.node == pin.node)?;
        // Whoever left and came back has forgotten it.
        (picture.since.get(place) == Some(&pin.since)).then_some(place as u8)
    }

    /// Where a flow of UDP is pinned to, or is from now on; `owner` otherwise.
    fn pinned(&self, flow: &Flow, owner: u8) -> u8 {
        let (picture, now_ms) = (self.picture(), self.around.now_ms);
        let mut pins = self.around.pins.borrow_mut();
        if let Some(pin) = pins.get_mut(&flow.connection()).filter(|pin| now_ms - pin.at_ms < picture.pin_ms)
            && let Some(place) = self.place_of(pin)
        {
            if !flow.is_quoted {
                pin.at_ms = now_ms;
            }
            return place;
        }
        let place = usize::from(owner);
        if let (Some(station), Some(since), false) =
            (picture.stations.get(place), picture.since.get(place), flow.is_quoted)
        {
            pins.insert(flow.connection(), Pin { at_ms: now_ms, node: station.node, since: *since });
        }
        owner
    }

    fn passed(&self, frame: &mut [u8], flow: Flow, to: u8, fate: Fate) -> Outcome {
        if flow.ttl <= 1 {
            return dropped(Fate::Ttl);
        }
        let stations = &self.picture().stations;
        let (Some(to), Some(me)) = (stations.get(usize::from(to)), stations.get(usize::from(self.picture().me))) else {
            return dropped(Fate::Nobody);
        };
        frame[..6].copy_from_slice(&to.mac);
        // The source must be this node's own: a switch learns where it is, a hypervisor forbids any other.
        frame[6..12].copy_from_slice(&me.mac);
        if flow.is_v4 {
            frame[22] = flow.ttl - 1;
            let sum = u32::from(be16(frame, 24)) + 0x100;
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
        } else {
            frame[21] = flow.ttl - 1;
        }
        (Verdict::Redirect, Some(fate))
    }
}

impl Flow {
    fn whole(&self) -> Whole {
        Whole { client: self.client, vip_index: self.vip_index, id: self.id, proto: self.proto }
    }

    fn connection(&self) -> Connection {
        let ip = |bytes: [u8; 16]| {
            let ip = core::net::Ipv6Addr::from(bytes);
            if self.is_v4 { ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4) } else { IpAddr::V6(ip) }
        };
        Connection { client: (ip(self.client), self.client_port), vip: (ip(self.vip), self.vip_port) }
    }
}

/// The flow that an ICMP error speaks of: what it carries was sent by the virtual IP.
fn embedded(frame: &[u8], at: usize, outer: Flow) -> Option<Flow> {
    let mut flow = outer;
    let ports;
    if outer.is_v4 {
        let it = part::<20>(frame, at)?;
        if it[0] >> 4 != 4 || it[0] & 15 < 5 || v4(&it[12..16]) != outer.vip {
            return None;
        }
        flow.client = v4(&it[16..20]);
        flow.proto = it[9];
        flow.part = Part::of(be16(&it, 6) & 0x1fff, false);
        ports = at + 4 * usize::from(it[0] & 15);
    } else {
        let it = part::<40>(frame, at)?;
        if it[0] >> 4 != 6 || v6(&it[8..24]) != outer.vip {
            return None;
        }
        flow.client = v6(&it[24..40]);
        (flow.proto, flow.part, _, ports) = behind_extensions(frame, at + 40, it[6])?;
        if flow.part == Part::First {
            flow.part = Part::Whole;
        }
    }
    // Counted by the sender, not by the client: says nothing of the client's packets.
    flow.id = 0;
    if flow.part == Part::Whole && matches!(flow.proto, 6 | 17) {
        let both = part::<4>(frame, ports)?;
        flow.vip_port = be16(&both, 0);
        flow.client_port = be16(&both, 2);
        flow.may_have_socket = flow.proto == 6;
        flow.is_quoted = true;
    }
    Some(flow)
}

/// Protocol, which part and of what, and place of what follows; `None`: cut off, or too deep.
fn behind_extensions(frame: &[u8], mut at: usize, mut proto: u8) -> Option<(u8, Part, u32, usize)> {
    for _ in 0..4 {
        match proto {
            0 | 43 | 60 => {
                let it = part::<8>(frame, at)?;
                proto = it[0];
                at += 8 + 8 * usize::from(it[1]);
            }
            // What follows in a later part is no header.
            44 => {
                let it = part::<8>(frame, at)?;
                let id = u32::from_be_bytes([it[4], it[5], it[6], it[7]]);
                return Some((it[0], Part::of(be16(&it, 2) & 0xfff8, it[3] & 1 != 0), id, at + 8));
            }
            _ => return Some((proto, Part::Whole, 0, at)),
        }
    }
    (!matches!(proto, 0 | 43 | 44 | 60)).then_some((proto, Part::Whole, 0, at))
}

fn part<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn v4(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address[10..12].fill(0xff);
    address[12..].copy_from_slice(bytes);
    address
}

fn v6(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(bytes);
    address
}
