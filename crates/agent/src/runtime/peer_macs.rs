//! Which hardware addresses are the peer's: learnt from its own addresses while it lives, remembered when it is gone.

use platform::net::{Mac, Network, neighbour};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More would mean that somebody answers for the peer with ever new addresses: the one not seen for longest goes.
const MAX: usize = 64;
/// A card that was not seen for so long, while the peer answered with another one at the same address, is its own no more: it
/// may be in another machine now, and that one is no fenced peer.
const FORGET: Duration = Duration::from_secs(60 * 60);

/// The peer's hardware addresses, as far as they were seen.
#[derive(Default)]
pub struct PeerMacs {
    known: Mutex<BTreeMap<[u8; 6], Seen>>,
}

/// When, and at which address.
struct Seen {
    ip: IpAddr,
    at: Instant,
}

impl PeerMacs {
    fn known(&self) -> MutexGuard<'_, BTreeMap<[u8; 6], Seen>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it one of the peer's?
    #[must_use]
    pub fn contains(&self, mac: Mac) -> bool {
        self.known().contains_key(&mac.0)
    }

    /// None was ever seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
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
                self.seen(peer, ip, mac, Instant::now());
            }
        }
    }

    fn seen(&self, peer: &[IpAddr], ip: IpAddr, mac: Mac, now: Instant) {
        let mut known = self.known();
        // Silence forgets nothing: only what answers in its place does.
        known.retain(|_, seen| {
            (seen.ip != ip && peer.contains(&seen.ip)) || now.saturating_duration_since(seen.at) < FORGET
        });
        known.insert(mac.0, Seen { ip, at: now });
        if known.len() > MAX
            && let Some(oldest) = known.iter().min_by_key(|(_, seen)| seen.at).map(|(mac, _)| *mac)
        {
            known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_card_at_the_same_address_is_forgotten_in_time_and_silence_forgets_nothing() {
        let macs = PeerMacs::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 1, 2]));
        let (start, both) = (Instant::now(), [one, two]);
        let (old, new, other) = (Mac([1; 6]), Mac([2; 6]), Mac([3; 6]));
        macs.seen(&both, one, old, start);
        macs.seen(&both, two, other, start);
        macs.seen(&both, one, new, start + FORGET / 2);
        assert!(macs.contains(old), "it may only have been a moment");
        macs.seen(&both, one, new, start + FORGET);
        assert!(!macs.contains(old) && macs.contains(new));
        assert!(macs.contains(other), "that network was silent, and says nothing of who is on it");
        macs.seen(&[one], one, new, start + FORGET);
        assert!(!macs.contains(other), "the peer has no such address any more");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let macs = PeerMacs::default();
        let (ip, start) = (IpAddr::from([10, 0, 0, 2]), Instant::now());
        for last in 0..=u8::try_from(MAX).expect("small") {
            macs.seen(&[ip], ip, Mac([last; 6]), start + Duration::from_millis(last.into()));
        }
        assert!(!macs.contains(Mac([0; 6])) && macs.contains(Mac([64; 6])), "the card of today is known");
        assert_eq!(macs.known().len(), MAX);
    }
}
