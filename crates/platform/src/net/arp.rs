//! Who answers for an address on the wire, and telling everyone that we do.
//!
//! Blocking and short: every function returns within its deadline; call them by `spawn_blocking` from async code.

use super::packet::{Arp, ArpSocket, Operation};
use super::{Mac, NetError};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Probes of one duplicate check, and the time between them: three within 150 ms (mirror.md, "Addresses").
const PROBES: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// Does anyone on this network answer for `ip`? Three ARP probes (RFC 5227: sender address zero, so nobody's
/// cache is touched) within 150 ms; returns as soon as someone answers, with who it is.
///
/// # Errors
/// [`NetError`] when nothing could be asked: that is *not* "nobody".
pub fn probe_duplicate(interface: &str, ip: Ipv4Addr) -> Result<Option<Mac>, NetError> {
    let socket = ArpSocket::open(interface)?;
    ask(&socket, Ipv4Addr::UNSPECIFIED, ip, PROBES, PROBE_EVERY)
}

/// Is `ip` (gateway, peer) alive on this network, and where: ordinary ARP questions from `source`, one of
/// our addresses there, every 50 ms until the deadline.
///
/// # Errors
/// As [`probe_duplicate`].
pub fn resolve(interface: &str, source: Ipv4Addr, ip: Ipv4Addr, deadline: Duration) -> Result<Option<Mac>, NetError> {
    let socket = ArpSocket::open(interface)?;
    let probes = (deadline.as_millis() / PROBE_EVERY.as_millis()).clamp(1, 200) as u32;
    ask(&socket, source, ip, probes, deadline / probes)
}

/// Tells the network that we have `ip`: one gratuitous request and one gratuitous reply, broadcast.
///
/// # Errors
/// [`NetError`]; nothing is assumed of what was heard.
pub fn announce(interface: &str, ip: Ipv4Addr) -> Result<(), NetError> {
    announce_on(&ArpSocket::open(interface)?, ip)
}

pub(super) fn announce_on(socket: &ArpSocket, ip: Ipv4Addr) -> Result<(), NetError> {
    let own = (socket.mac, ip);
    // Some stacks listen to the one, some to the other.
    socket.send(Arp { operation: Operation::Request, sender: own, target: (Mac::default(), ip) }, Mac::BROADCAST)?;
    socket.send(Arp { operation: Operation::Reply, sender: own, target: (Mac::BROADCAST, ip) }, Mac::BROADCAST)
}

fn ask(
    socket: &ArpSocket,
    source: Ipv4Addr,
    ip: Ipv4Addr,
    probes: u32,
    every: Duration,
) -> Result<Option<Mac>, NetError> {
    let question = Arp { operation: Operation::Request, sender: (socket.mac, source), target: (Mac::default(), ip) };
    let start = Instant::now();
    for probe in 1..=probes {
        socket.send(question, Mac::BROADCAST)?;
        // Anything that speaks *as* `ip` is an answer, be it a reply or its own question to someone.
        let answer = socket.receive(start + every * probe, |packet| packet.sender.1 == ip)?;
        if let Some(answer) = answer {
            return Ok(Some(answer.sender.0));
        }
    }
    Ok(None)
}
