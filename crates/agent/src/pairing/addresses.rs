//! Which addresses are this machine's, and which of them is a neighbour of another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Is it an address of this machine now? (Asked of the kernel: only own addresses can be bound.)
pub(crate) fn is_local(addr: IpAddr) -> bool {
    !addr.is_unspecified() && UdpSocket::bind(SocketAddr::new(addr, 0)).is_ok()
}

/// This machine's address on the network that `neighbour` is on; `None` when `neighbour` is on none of ours (it would
/// be reached through a router, or not at all).
pub(crate) fn in_subnet_of(neighbour: IpAddr) -> Option<IpAddr> {
    let own = towards(neighbour)?;
    (on_link(neighbour) && own != neighbour).then_some(own)
}

/// The address this machine would speak to `other` from. Nothing is sent.
pub(crate) fn towards(other: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if other.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(other, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn on_link(addr: IpAddr) -> bool {
    if addr.is_loopback() {
        return true;
    }
    match addr {
        IpAddr::V4(addr) => on_link_v4(&std::fs::read_to_string("/proc/net/route").unwrap_or_default(), addr),
        IpAddr::V6(addr) => on_link_v6(&std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default(), addr),
    }
}

/// `/proc/net/route`: Iface Destination Gateway Flags … Mask …, little-endian hexadecimal. The longest prefix decides.
fn on_link_v4(table: &str, addr: Ipv4Addr) -> bool {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((hex(fields.get(1)?)?, hex(fields.get(2)?)?, hex(fields.get(7)?)?))
        })
        .filter(|(destination, _, mask)| u32::from(addr) & mask == *destination)
        .max_by_key(|(_, _, mask)| *mask)
        .is_some_and(|(_, gateway, mask)| gateway == 0 && mask != 0)
}

/// `/proc/net/ipv6_route`: destination, prefix length, …, next hop (field 4), …
fn on_link_v6(table: &str, addr: Ipv6Addr) -> bool {
    let hex = |field: &str| u128::from_str_radix(field, 16).ok();
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((hex(fields.first()?)?, u32::from_str_radix(fields.get(1)?, 16).ok()?, hex(fields.get(4)?)?))
        })
        .filter(|(destination, length, _)| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            u128::from(addr) & mask == *destination
        })
        .max_by_key(|(_, length, _)| *length)
        .is_some_and(|(_, length, next_hop)| next_hop == 0 && length != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn a_neighbour_is_told_from_a_machine_behind_a_router() {
        assert!(on_link_v4(TABLE, "10.0.0.7".parse().unwrap()));
        assert!(!on_link_v4(TABLE, "10.0.1.7".parse().unwrap()));
        assert!(!on_link_v4("", "10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn own_addresses_are_known_by_the_kernel() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
