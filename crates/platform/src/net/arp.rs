//! ARP (RFC 826, 5227) for IPv4 over Ethernet: as bytes, and spoken on one interface.

use super::link::LinkSocket;
use super::{Mac, NetError};
use std::net::Ipv4Addr;
use std::time::Instant;

const ETH_P_ARP: u16 = 0x0806;
/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;
const FRAME_BYTES: usize = 14 + ARP_BYTES;

/// Question or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// "Who has?"
    Request = 1,
    /// "It is at …"
    Reply = 2,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Arp {
    operation: Operation,
    /// Who speaks.
    sender: (Mac, Ipv4Addr),
    /// Of whom, or to whom.
    target: (Mac, Ipv4Addr),
}

impl Arp {
    fn to_frame(self, from: Mac, to: Mac) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let parts: [&[u8]; 8] = [
            &to.0,
            &from.0,
            &ETH_P_ARP.to_be_bytes(),
            // Ethernet, IPv4, lengths 6 and 4.
            &[0, 1, 0x08, 0, 6, 4, 0, self.operation as u8],
            &self.sender.0.0,
            &self.sender.1.octets(),
            &self.target.0.0,
            &self.target.1.octets(),
        ];
        let mut at = 0;
        for part in parts {
            frame[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        frame
    }

    fn from_frame(frame: &[u8]) -> Option<Self> {
        let arp = frame.get(14..FRAME_BYTES)?;
        let operation = match arp[..8] {
            [0, 1, 0x08, 0, 6, 4, 0, 1] => Operation::Request,
            [0, 1, 0x08, 0, 6, 4, 0, 2] => Operation::Reply,
            _ => return None,
        };
        let mac = |at: usize| Mac(arp[at..at + 6].try_into().expect("six bytes"));
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&arp[at..at + 4]).expect("four bytes"));
        Some(Self { operation, sender: (mac(8), ip(14)), target: (mac(18), ip(24)) })
    }
}

pub(super) fn open(interface: &str) -> Result<LinkSocket, NetError> {
    LinkSocket::open(interface, ETH_P_ARP, &[])
}

/// Asks who has `ip`. A probe comes from the address zero, so that nobody's cache is touched (RFC 5227).
pub(super) fn ask(socket: &LinkSocket, source: Ipv4Addr, ip: Ipv4Addr) -> Result<(), NetError> {
    let question = Arp { operation: Operation::Request, sender: (socket.mac, source), target: (Mac::default(), ip) };
    socket.send(&question.to_frame(socket.mac, Mac::BROADCAST), Mac::BROADCAST)
}

/// Anything that speaks *as* `ip` is an answer, be it a reply or its own question to someone.
pub(super) fn speaker_of(frame: &[u8], ip: Ipv4Addr) -> Option<Mac> {
    let packet = Arp::from_frame(frame)?;
    (packet.sender.1 == ip).then_some(packet.sender.0)
}

pub(super) fn answer(socket: &LinkSocket, ip: Ipv4Addr, until: Instant) -> Result<Option<Mac>, NetError> {
    socket.receive(until, |frame| speaker_of(frame, ip))
}

/// One gratuitous request and one gratuitous reply, broadcast: some stacks listen to the one, some to the other. They say that `ip` is at
/// `mac`, and come from the interface's own address whatever that is.
pub(super) fn announce(socket: &LinkSocket, ip: Ipv4Addr, mac: Mac) -> Result<(), NetError> {
    let own = (mac, ip);
    let say = |packet: Arp| socket.send(&packet.to_frame(socket.mac, Mac::BROADCAST), Mac::BROADCAST);
    say(Arp { operation: Operation::Request, sender: own, target: (Mac::default(), ip) })?;
    say(Arp { operation: Operation::Reply, sender: own, target: (Mac::BROADCAST, ip) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_its_frame_and_garbage_is_no_packet() {
        let packet = Arp {
            operation: Operation::Reply,
            sender: (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 1, 1)),
            target: (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 1, 2)),
        };
        let frame = packet.to_frame(packet.sender.0, Mac::BROADCAST);
        assert_eq!(&frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(Arp::from_frame(&frame), Some(packet));
        for length in 0..FRAME_BYTES {
            assert_eq!(Arp::from_frame(&frame[..length]), None);
        }
        let mut other = frame;
        other[21] = 9;
        assert_eq!(Arp::from_frame(&other), None, "neither request nor reply");
    }
}
