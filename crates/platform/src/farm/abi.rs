//! The shapes that `filter.c` reads. A size that differs is refused when the maps are opened.

use model::farm::{BUCKETS, DEPTH, Filter, MEMBERS_MAX, NOBODY, NODE_MAX, Owners, Picture, Proto};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const VIP_PLACES: usize = 64;
const MAC_PLACES: usize = 1024;
const RULE_PLACES: usize = 64;
const NODES: usize = 256;
const _: () = assert!((NODE_MAX as usize) < NODES);
/// Of 16 addresses in 64 places every eighth seed does, as of 64 in 1024: this many fail once in 10¹⁸ farms.
const SEEDS: u64 = 300;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VipPlace {
    address: [u64; 2],
    index: u64,
}

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct RulePlace {
    key: u32,
    filter: u16,
    group: u16,
}

/// `slot` keeps two views' rules apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct RuleKey {
    port: u16,
    vip: u8,
    proto: u8,
    slot: u8,
    is_fragment: u8,
    unused: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rule {
    filter: u16,
    group: u16,
}

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Member {
    mac: [u8; 6],
    node: u8,
    unused: u8,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct View {
    number: u64,
    members: [Member; MEMBERS_MAX],
    vip_seed: u64,
    mac_seed: u64,
    vips: [VipPlace; VIP_PLACES],
    macs: [u64; MAC_PLACES],
    rules: [RulePlace; RULE_PLACES],
    since: [u64; MEMBERS_MAX],
    place_of: [u8; NODES],
    pin_ns: u64,
    part_ns: u64,
    vip_count: u8,
    me: u8,
    director: u8,
    arp_group: u8,
    doubts: u8,
    unused: [u8; 3],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Table([[u8; DEPTH]; BUCKETS]);

// SAFETY: plain bytes without padding (asserted below), valid for every bit pattern.
unsafe impl aya::Pod for View {}
// SAFETY: an array of bytes.
unsafe impl aya::Pod for Table {}
// SAFETY: as `View`.
unsafe impl aya::Pod for RuleKey {}
// SAFETY: as `View`.
unsafe impl aya::Pod for Rule {}

const _: () = {
    assert!(size_of::<VipPlace>() == 24 && size_of::<RulePlace>() == 8 && size_of::<RuleKey>() == 8);
    assert!(size_of::<Rule>() == 4 && size_of::<Member>() == 8);
    let tables = 8 * MEMBERS_MAX + 16 + 24 * VIP_PLACES + 8 * MAC_PLACES + 8 * RULE_PLACES + 8 * MEMBERS_MAX + NODES;
    assert!(size_of::<View>() == 8 + tables + 16 + 8);
    assert!(size_of::<Table>() == BUCKETS * DEPTH);
};

impl View {
    /// Of a picture that fits; `None`: no seed keeps its addresses apart.
    pub fn of(picture: &Picture, rules: &BTreeMap<RuleKey, Rule>) -> Option<Self> {
        let mut view = Self {
            number: picture.number,
            members: [Member::default(); MEMBERS_MAX],
            vip_seed: 0,
            mac_seed: 0,
            vips: [VipPlace { address: [0; 2], index: NOBODY.into() }; VIP_PLACES],
            macs: [0; MAC_PLACES],
            rules: [RulePlace::default(); RULE_PLACES],
            since: [0; MEMBERS_MAX],
            place_of: [NOBODY; NODES],
            pin_ns: picture.pin_ms.saturating_mul(1_000_000),
            part_ns: picture.part_ms.saturating_mul(1_000_000),
            vip_count: picture.vips.len() as u8,
            me: picture.me,
            director: picture.director,
            arp_group: picture.arp_group.unwrap_or(NOBODY),
            doubts: picture.doubts.into(),
            unused: [0; 3],
        };
        for (index, (station, since)) in picture.stations.iter().zip(&picture.since).enumerate() {
            let node = usize::from(station.node.0) % NODES;
            view.members[index] = Member { mac: station.mac, node: node as u8, unused: 0 };
            view.since[index] = *since;
            view.place_of[node] = index as u8;
        }
        // Of two equal ones the first.
        let mut vips: Vec<[u64; 2]> = Vec::new();
        for address in picture.vips.iter().map(|vip| halves(*vip)) {
            if !vips.contains(&address) {
                vips.push(address);
            }
        }
        let macs: BTreeSet<u64> = picture.stations.iter().map(|station| whole(station.mac)).collect();
        view.vip_seed = seed_for(vips.iter().map(|address| mixed(*address)), VIP_PLACES)?;
        view.mac_seed = seed_for(macs.iter().copied(), MAC_PLACES)?;
        for address in vips {
            let index = picture.vips.iter().position(|vip| halves(*vip) == address)?;
            view.vips[place(mixed(address), view.vip_seed, VIP_PLACES)] =
                VipPlace { address, index: picture.vmacs[index].map_or(0, bytes_of_mac) << 16 | index as u64 };
        }
        for mac in macs {
            view.macs[place(mac, view.mac_seed, MAC_PLACES)] = mac;
        }
        for (rule, to) in rules.iter().filter(|(rule, _)| rule.is_fragment == 0 && rule.port != 0) {
            let key = u32::from(rule.port) << 16 | u32::from(rule.vip) << 8 | u32::from(rule.proto);
            let free = &mut view.rules[(key.wrapping_mul(0x9e37_79b1) >> 26) as usize % RULE_PLACES];
            // Who comes too late is found in the map.
            if free.key == 0 {
                *free = RulePlace { key, filter: to.filter, group: to.group };
            }
        }
        Some(view)
    }
}

fn halves(ip: IpAddr) -> [u64; 2] {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let both = u128::from_ne_bytes(bytes);
    let parts = [both as u64, (both >> 64) as u64];
    if cfg!(target_endian = "little") { parts } else { [parts[1], parts[0]] }
}

const fn mixed(address: [u64; 2]) -> u64 {
    (address[0] ^ address[1] >> 7).wrapping_add(address[1])
}

/// As the program reads it: two parts in this machine's order.
fn bytes_of_mac([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from(u32::from_ne_bytes([a, b, c, d])) | u64::from(u16::from_ne_bytes([e, f])) << 32
}

/// With a bit that no free place has.
fn whole(mac: [u8; 6]) -> u64 {
    bytes_of_mac(mac) | 1 << 63
}

const fn place(key: u64, seed: u64, places: usize) -> usize {
    (key.wrapping_mul(seed) >> (64 - places.trailing_zeros())) as usize
}

/// The first seed that gives each key a place of its own.
fn seed_for(keys: impl Iterator<Item = u64> + Clone, places: usize) -> Option<u64> {
    let seeds = (1..=SEEDS).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut taken = vec![0u64; places];
    for (round, seed) in (1..).zip(seeds) {
        let is_alone = |key: u64| std::mem::replace(&mut taken[place(key, seed, places)], round) != round;
        if keys.clone().all(is_alone) {
            return Some(seed);
        }
    }
    None
}

/// Rules by key: entries of one slot.
#[derive(Clone, Default, Debug)]
pub struct Entries {
    pub rules: BTreeMap<RuleKey, Rule>,
}

impl Entries {
    /// Of a picture that fits. "The first rule that matches" is worked out here, for every address, protocol and port that is named.
    pub fn of(picture: &Picture, slot: u32) -> Self {
        let mut entries = Self::default();
        let ports: BTreeSet<u16> = picture.rules.iter().filter_map(|rule| rule.port).collect();
        let is_of = |rule: &model::farm::Rule, vip: u8, proto: Proto| {
            rule.proto == proto && rule.vip.is_none_or(|only| only == vip)
        };
        for vip in 0..picture.vips.len() as u8 {
            for proto in [Proto::Tcp, Proto::Udp] {
                let mut put = |port: u16, is_fragment: bool, matches: &dyn Fn(&model::farm::Rule) -> bool| {
                    let key = RuleKey {
                        port,
                        vip,
                        proto: proto.number(),
                        slot: slot as u8,
                        is_fragment: is_fragment.into(),
                        unused: 0,
                    };
                    if let Some(rule) = picture.rules.iter().find(|rule| is_of(rule, vip, proto) && matches(rule)) {
                        let filter = match rule.filter {
                            Filter::OnAddr => 0,
                            Filter::OnPort => 1,
                            Filter::OnIpid => 2,
                        };
                        entries.rules.insert(key, Rule { filter, group: rule.group.into() });
                    }
                };
                for port in &ports {
                    put(*port, false, &|rule| rule.port.is_none_or(|only| only == *port));
                }
                put(0, false, &|rule| rule.port.is_none());
                put(0, true, &|_| true);
            }
        }
        entries
    }

    /// These as well.
    pub fn add(&mut self, other: &Self) {
        self.rules.extend(&other.rules);
    }
}

impl Table {
    /// Of a table with [`BUCKETS`] entries.
    pub fn of(owners: &Owners) -> Self {
        let mut table = Self([[NOBODY; DEPTH]; BUCKETS]);
        for (to, entry) in table.0.iter_mut().zip(owners) {
            *to = *entry;
        }
        table
    }
}
