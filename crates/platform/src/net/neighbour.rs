//! Who answers for an address on the wire, and telling everyone that we do: ARP for IPv4, Neighbour Discovery for IPv6.
//!
//! Blocking and short: every function returns within its deadline; call them by `spawn_blocking` from async code.

use super::link::LinkSocket;
use super::{Mac, NetError, arp, ndp};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Probes of one duplicate check, and the time between them: three within 150 ms (mirror.md, "Addresses").
const PROBES: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// Does anyone on this network answer for `ip`? Three probes, which leave nothing in anybody's cache, within 150 ms;
/// returns as soon as someone answers, with who it is.
///
/// # Errors
/// [`NetError`] when nothing could be asked: that is *not* "nobody".
pub fn probe_duplicate(interface: &str, ip: IpAddr) -> Result<Option<Mac>, NetError> {
    let nobody = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Voice::open(interface, ip)?.ask(nobody, PROBES, PROBE_EVERY)
}

/// Is `ip` (gateway, peer) alive on this network, and where: ordinary questions from `source`, one of
/// our addresses there, every 50 ms until the deadline.
///
/// # Errors
/// As [`probe_duplicate`].
pub fn resolve(interface: &str, source: IpAddr, ip: IpAddr, deadline: Duration) -> Result<Option<Mac>, NetError> {
    let probes = (deadline.as_millis() / PROBE_EVERY.as_millis()).clamp(1, 200) as u32;
    Voice::open(interface, ip)?.ask(source, probes, deadline / probes)
}

/// Tells the network, once, that we have `ip`.
///
/// # Errors
/// [`NetError`]; nothing is assumed of what was heard.
pub fn announce(interface: &str, ip: IpAddr) -> Result<(), NetError> {
    Voice::open(interface, ip)?.announce()
}

/// What speaks of one address on one interface, and hears who else does.
#[derive(Debug)]
pub(super) struct Voice {
    socket: LinkSocket,
    ip: IpAddr,
    /// Where it says that the address is.
    mac: Mac,
}

impl AsRawFd for Voice {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl std::os::fd::AsFd for Voice {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Voice {
    pub fn open(interface: &str, ip: IpAddr) -> Result<Self, NetError> {
        let socket = match ip {
            IpAddr::V4(_) => arp::open(interface),
            IpAddr::V6(_) => ndp::open(interface),
        };
        let socket = socket?;
        Ok(Self { mac: socket.mac, socket, ip })
    }

    /// It says that the address is there, and not at the interface.
    pub fn of(self, mac: Mac) -> Self {
        Self { mac, ..self }
    }

    pub fn announce(&self) -> Result<(), NetError> {
        match self.ip {
            IpAddr::V4(ip) => arp::announce(&self.socket, ip, self.mac),
            IpAddr::V6(ip) => ndp::announce(&self.socket, ip, self.mac),
        }
    }

    /// Who else speaks as this address, among the frames that wait.
    pub fn hear(&self) -> io::Result<Option<Mac>> {
        let other = |who: Option<Mac>| who.filter(|who| *who != self.mac);
        match self.ip {
            IpAddr::V4(ip) => self.socket.try_receive(|frame| other(arp::speaker_of(frame, ip))),
            IpAddr::V6(ip) => self.socket.try_receive(|frame| other(ndp::speaker_of(frame, ip))),
        }
    }

    fn ask(&self, source: IpAddr, probes: u32, every: Duration) -> Result<Option<Mac>, NetError> {
        let start = Instant::now();
        for probe in 1..=probes {
            let until = start + every * probe;
            let answer = match (self.ip, source) {
                (IpAddr::V4(ip), IpAddr::V4(source)) => {
                    arp::ask(&self.socket, source, ip)?;
                    arp::answer(&self.socket, ip, until)
                }
                (IpAddr::V6(ip), IpAddr::V6(source)) => {
                    ndp::ask(&self.socket, source, ip)?;
                    ndp::answer(&self.socket, ip, until)
                }
                _ => Err(NetError::os("ask for an address", self.ip, io::Error::from(io::ErrorKind::InvalidInput))),
            }?;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }
}
