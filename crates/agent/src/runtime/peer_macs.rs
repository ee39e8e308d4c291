//! Which hardware addresses are the peer's: learnt from its own addresses while it lives, remembered when it is gone.

use platform::net::{Mac, Network, neighbour};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// More would mean that somebody answers for the peer with ever new addresses.
const MAX: usize = 64;

/// The peer's hardware addresses, as far as they were seen.
#[derive(Default)]
pub struct PeerMacs {
    known: Mutex<BTreeSet<[u8; 6]>>,
}

impl PeerMacs {
    /// Is it one of the peer's?
    #[must_use]
    pub fn contains(&self, mac: Mac) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&mac.0)
    }

    /// None was ever seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Asks on every network for the peer's addresses; what answers is remembered.
    pub async fn learn(&self, network: &Network, peer: &[IpAddr]) {
        for ip in peer.iter().copied() {
            let Ok(Some(interface)) = network.interface_for(ip).await else { continue };
            let Some(source) = interface.source_for(ip) else { continue };
            let asked = tokio::task::spawn_blocking(move || {
                neighbour::resolve(&interface.name, source, ip, Duration::from_millis(300))
            })
            .await;
            if let Ok(Ok(Some(mac))) = asked {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() < MAX {
                    known.insert(mac.0);
                }
            }
        }
    }
}
