//! What netlink says, as plain values. Pure.

use super::OURS;
use crate::net::{Mac, host_prefix, is_in_subnet};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use std::net::{IpAddr, Ipv4Addr};

/// An address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Set by Stead (a virtual IP).
    pub is_ours: bool,
}

impl Address {
    /// Is it one of the node's own whose subnet contains `ip`?
    #[must_use]
    pub fn has_in_its_network(&self, ip: IpAddr) -> bool {
        !self.is_ours && self.prefix < host_prefix(self.ip) && is_in_subnet(ip, self.ip, self.prefix)
    }
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; `None` for loopback, tunnels.
    pub mac: Option<Mac>,
    /// Switched on by the administrator.
    pub is_up: bool,
    /// The other end of the cable is there (false while not up).
    pub has_carrier: bool,
    /// All its addresses.
    pub addresses: Vec<Address>,
}

impl Interface {
    /// May packets pass: up and with carrier.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_up && self.has_carrier
    }

    /// Does it hold this address?
    #[must_use]
    pub fn holds(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip == ip)
    }

    /// Its own address (not a virtual one) in the network of `ip`: the sender to use when asking there.
    #[must_use]
    pub fn source_for(&self, ip: IpAddr) -> Option<IpAddr> {
        let fits = |address: &&Address| address.ip != ip && address.has_in_its_network(ip);
        self.addresses.iter().find(fits).map(|address| address.ip)
    }
}

/// A default route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// The router.
    pub ip: IpAddr,
    /// Interface it is reached by.
    pub interface: String,
    /// Lower is preferred.
    pub metric: u32,
}

pub(super) fn interface_of(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_carrier: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) if link.header.link_layer_type == LinkLayerType::Ether => {
                interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    interface
}

/// Does the address carry any mark (also one of the kernel's)?
pub(super) fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| matches!(attribute, AddressAttribute::Protocol(_)))
}

pub(super) fn address_of(message: &AddressMessage) -> Option<Address> {
    let mut address =
        Address { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: message.header.prefix_len, is_ours: false };
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Protocol(AddressProtocol::Other(OURS)) => address.is_ours = true,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end; IPv6 has only `Address`.
    address.ip = local.or(remote)?;
    Some(address)
}

pub(super) fn gateway_of(route: &RouteMessage, interfaces: &[Interface]) -> Option<Gateway> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN || route.header.destination_prefix_length != 0 {
        return None;
    }
    let (mut gateway, mut index, mut metric) = (None, None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let interface = interfaces.iter().find(|interface| Some(interface.index) == index)?.name.clone();
    Some(Gateway { ip: gateway?, interface, metric })
}
