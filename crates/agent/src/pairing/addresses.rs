//! Which addresses are this machine's, and which of them is in another's subnet.

use platform::net::{Address, NetError, Network};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Is it an address of this machine now? (Asked of the kernel: only own addresses can be bound.)
pub(crate) fn is_local(addr: IpAddr) -> bool {
    !addr.is_unspecified() && UdpSocket::bind(SocketAddr::new(addr, 0)).is_ok()
}

/// This machine's addresses, without virtual ones: those follow a module and are no place to be found at.
pub(super) async fn own() -> Result<Vec<Address>, NetError> {
    let interfaces = Network::open()?.interfaces().await?;
    Ok(interfaces.into_iter().flat_map(|interface| interface.addresses).filter(|address| !address.is_ours).collect())
}

/// The address in the subnet of `neighbour` (the longest prefix decides); `None` when it is on none of our networks.
pub(super) fn in_subnet_of(own: &[Address], neighbour: IpAddr) -> Option<IpAddr> {
    let same = |address: &&Address| address.ip != neighbour && prefix_is_shared(address.ip, neighbour, address.prefix);
    own.iter().filter(same).max_by_key(|address| address.prefix).map(|address| address.ip)
}

fn prefix_is_shared(own: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => {
            (1..32).contains(&prefix) && (u32::from(own) ^ u32::from(other)) >> (32 - prefix) == 0
        }
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            (1..128).contains(&prefix) && (u128::from(own) ^ u128::from(other)) >> (128 - prefix) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, prefix: u8) -> Address {
        Address { ip: text.parse().expect("an address"), prefix, is_ours: false }
    }

    #[test]
    fn a_neighbour_is_told_from_a_machine_behind_a_router() {
        let own = [
            address("127.0.0.1", 8),
            address("10.0.0.2", 8),
            address("10.0.1.2", 24),
            address("10.0.1.99", 32),
            address("fd00::2", 64),
        ];
        let of = |other: &str| in_subnet_of(&own, other.parse().expect("an address")).map(|own| own.to_string());
        assert_eq!(of("10.0.1.1").as_deref(), Some("10.0.1.2"), "the longest prefix, and no host route");
        assert_eq!(of("10.7.7.7").as_deref(), Some("10.0.0.2"));
        assert_eq!(of("fd00::1").as_deref(), Some("fd00::2"));
        assert_eq!(of("192.0.2.1"), None);
        assert_eq!(of("10.0.1.2").as_deref(), Some("10.0.0.2"), "its own address is nobody's neighbour");
    }

    #[test]
    fn own_addresses_are_known_by_the_kernel() {
        assert!(is_local("127.0.0.1".parse().expect("an address")));
        assert!(!is_local("192.0.2.1".parse().expect("an address")));
    }
}
