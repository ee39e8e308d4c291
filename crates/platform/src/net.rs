//! The network as this machine sees it: addresses, who has them, echo, resets. IPv4 and IPv6.
//!
//! Nothing here decides whether an address may be taken: it takes, gives back, asks and tells.

pub mod addresses;
pub mod link_events;
pub mod neighbour;
pub mod ping;
pub mod sources;
pub mod tcp_reset;

mod announcer;
mod arp;
mod link;
mod ndp;

pub use addresses::{Address, Gateway, Interface, Network};
pub use announcer::{Announcer, AnnouncerReport};

use std::net::IpAddr;

/// A hardware (Ethernet) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone on the network.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why something on the network could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No such interface. State unchanged.
    #[error("cannot {action}: there is no interface '{interface}' on this node (`ip link` lists them)")]
    NoInterface {
        /// What was attempted.
        action: &'static str,
        /// The name.
        interface: String,
    },
    /// The interface has no Ethernet address (loopback, tunnel): nobody can be asked there. State unchanged.
    #[error("cannot {action} on {interface}: it is not an Ethernet interface")]
    NotEthernet {
        /// What was attempted.
        action: &'static str,
        /// The name.
        interface: String,
    },
    /// It would have to take an address away that is not a virtual IP. State unchanged.
    #[error(
        "{ip} is an ordinary address of this node (on {interface}), not a virtual IP: choose another virtual IP, or take it from the node (`ip address del {ip} dev {interface}`)"
    )]
    Foreign {
        /// The address.
        ip: IpAddr,
        /// Who holds it.
        interface: String,
    },
    /// The kernel did not answer within the deadline. The situation is unknown: ask again (idempotent).
    #[error("cannot {action}: the kernel did not answer within {deadline_ms} ms")]
    Deadline {
        /// What was attempted.
        action: &'static str,
        /// How long was waited.
        deadline_ms: u64,
    },
    /// The operating system refused. Retry safe.
    #[error("cannot {action}: {subject}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        subject: String,
        /// Why.
        source: std::io::Error,
    },
}

impl NetError {
    fn os(action: &'static str, subject: impl std::fmt::Display, error: impl Into<std::io::Error>) -> Self {
        Self::Os { action, subject: subject.to_string(), source: error.into() }
    }
}

/// Is `ip` in the network of `address`/`prefix`?
fn is_in_subnet(ip: IpAddr, address: IpAddr, prefix: u8) -> bool {
    match (ip, address) {
        (IpAddr::V4(ip), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            ip.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            ip.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

/// Length of the prefix that contains nothing but the address.
#[must_use]
pub const fn host_prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_in_subnet(ip("10.0.1.100"), ip("10.0.1.1"), 24));
        assert!(!is_in_subnet(ip("10.0.2.100"), ip("10.0.1.1"), 24));
        assert!(is_in_subnet(ip("1.2.3.4"), ip("9.9.9.9"), 0));
        assert!(!is_in_subnet(ip("10.0.1.2"), ip("10.0.1.1"), 32));
        assert!(is_in_subnet(ip("fd00:1::100"), ip("fd00:1::1"), 64));
        assert!(!is_in_subnet(ip("fd00:2::100"), ip("fd00:1::1"), 64));
        assert!(!is_in_subnet(ip("fd00::1"), ip("fd00::2"), 128) && is_in_subnet(ip("fe80::1"), ip("::1"), 0));
        assert!(!is_in_subnet(ip("0.0.0.1"), ip("::1"), 0), "different families");
    }
}
