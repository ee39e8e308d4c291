//! The shapes that `filter.c` reads. A size that differs is refused when the maps are opened.

use model::farm::{BUCKETS, DEPTH, Filter, MEMBERS_MAX, NOBODY, Owners, Picture, Proto};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Keys begin anew with each view: `slot` keeps both apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct VipKey {
    address: [u8; 16],
    slot: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct MacKey {
    mac: [u8; 6],
    slot: u16,
}

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
    unused: [u8; 2],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct View {
    number: u64,
    members: [Member; MEMBERS_MAX],
    vip_count: u8,
    me: u8,
    director: u8,
    arp_group: u8,
    unused: [u8; 4],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Table([[u8; DEPTH]; BUCKETS]);

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Foe {
    pub count: u64,
    pub mac: [u8; 6],
    unused: [u8; 2],
}

// SAFETY: plain bytes without padding (asserted below), valid for every bit pattern.
unsafe impl aya::Pod for View {}
// SAFETY: an array of bytes.
unsafe impl aya::Pod for Table {}
// SAFETY: as `View`.
unsafe impl aya::Pod for Foe {}
// SAFETY: as `View`.
unsafe impl aya::Pod for VipKey {}
// SAFETY: as `View`.
unsafe impl aya::Pod for MacKey {}
// SAFETY: as `View`.
unsafe impl aya::Pod for RuleKey {}
// SAFETY: as `View`.
unsafe impl aya::Pod for Rule {}

const _: () = {
    assert!(size_of::<VipKey>() == 24 && size_of::<MacKey>() == 8 && size_of::<RuleKey>() == 8);
    assert!(size_of::<Rule>() == 4 && size_of::<Member>() == 8 && size_of::<Foe>() == 16);
    assert!(size_of::<View>() == 8 + 8 * MEMBERS_MAX + 8);
    assert!(size_of::<Table>() == BUCKETS * DEPTH);
};

impl View {
    /// Of a picture that fits.
    pub fn of(picture: &Picture) -> Self {
        let mut view = Self {
            number: picture.number,
            members: [Member::default(); MEMBERS_MAX],
            vip_count: picture.vips.len() as u8,
            me: picture.me,
            director: picture.director,
            arp_group: picture.arp_group.unwrap_or(NOBODY),
            unused: [0; 4],
        };
        for (to, station) in view.members.iter_mut().zip(&picture.stations) {
            to.mac = station.mac;
        }
        view
    }
}

/// What is found by hash: entries of one slot.
#[derive(Clone, Default, Debug)]
pub struct Entries {
    pub vips: BTreeMap<VipKey, u32>,
    pub macs: BTreeMap<MacKey, u32>,
    pub rules: BTreeMap<RuleKey, Rule>,
}

impl Entries {
    /// Of a picture that fits. "The first rule that matches" is worked out here, for every address, protocol and port that is named.
    pub fn of(picture: &Picture, slot: u32) -> Self {
        let mut entries = Self::default();
        for (index, vip) in (0u32..).zip(&picture.vips) {
            let address = match vip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            // Of two equal ones the first.
            entries.vips.entry(VipKey { address, slot: slot.into() }).or_insert(index);
        }
        for (index, station) in (0u32..).zip(&picture.stations) {
            entries.macs.insert(MacKey { mac: station.mac, slot: slot as u16 }, index);
        }
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
        self.vips.extend(&other.vips);
        self.macs.extend(&other.macs);
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
