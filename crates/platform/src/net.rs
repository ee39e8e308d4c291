//! The network as this machine sees it: addresses, ARP, echo, resets. IPv4 for now.
//!
//! Nothing here decides whether an address may be taken: it takes, gives back, asks and tells.

pub mod addresses;
pub mod arp;
pub mod ping;
pub mod tcp_reset;

mod announcer;
mod packet;

pub use addresses::{Address, Gateway, Interface, Network};
pub use announcer::{Announcer, AnnouncerReport};

use std::net::Ipv4Addr;

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
    /// The interface has no Ethernet address (loopback, tunnel): no ARP there. State unchanged.
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
        ip: Ipv4Addr,
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
fn is_in_subnet(ip: Ipv4Addr, address: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    ip.to_bits() & mask == address.to_bits() & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(is_in_subnet(ip("10.0.1.100"), ip("10.0.1.1"), 24));
        assert!(!is_in_subnet(ip("10.0.2.100"), ip("10.0.1.1"), 24));
        assert!(is_in_subnet(ip("1.2.3.4"), ip("9.9.9.9"), 0));
        assert!(!is_in_subnet(ip("10.0.1.2"), ip("10.0.1.1"), 32));
    }
}
