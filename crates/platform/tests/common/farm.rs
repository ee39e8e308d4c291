//! What the tests of the farm's filter have in common: addresses, members' hardware addresses, rules.

use model::farm::{Filter as By, Proto, Rule};
use std::net::{Ipv4Addr, Ipv6Addr};

pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x100);

pub fn mac(member: u8) -> [u8; 6] {
    [2, 0, 0, 0, 7, member]
}

pub fn rule(vip: Option<u8>, port: Option<u16>, proto: Proto, filter: By, group: u8) -> Rule {
    Rule { vip, port, proto, filter, group }
}
