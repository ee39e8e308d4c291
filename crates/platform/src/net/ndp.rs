//! Neighbour Discovery (RFC 4861, 4862) for IPv6 over Ethernet: as bytes, and spoken on one interface.

use super::link::LinkSocket;
use super::{Mac, NetError};
use std::net::Ipv6Addr;
use std::time::Instant;

const ETH_P_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Ethernet and IPv6 header.
const HEADERS: usize = 14 + 40;
/// Type, code, checksum, flags, target.
const MESSAGE: usize = 24;
/// Source or target link-layer address.
const OPTION: usize = 8;
/// Neighbour Discovery is for this link only: a router lowers it.
const HOPS: u8 = 255;
/// Answer of a request; and "in place of what you have".
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Lets Neighbour Advertisements through, and solicitations (who speaks as an address has it).
const FILTER: [libc::sock_filter; 7] = [
    step(0x30, 0, 0, 20),            // A = next header
    step(0x15, 0, 4, ICMPV6 as u32), // else: drop
    step(0x30, 0, 0, 54),            // A = ICMPv6 type
    step(0x15, 1, 0, ADVERTISEMENT as u32),
    step(0x15, 0, 1, SOLICITATION as u32),
    step(0x06, 0, 0, 160),
    step(0x06, 0, 0, 0),
];

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

pub(super) fn open(interface: &str) -> Result<LinkSocket, NetError> {
    let socket = LinkSocket::open(interface, ETH_P_IPV6, &FILTER)?;
    // Answers to a probe, and what others announce, are for everybody.
    socket.join(group_mac(ALL_NODES))?;
    Ok(socket)
}

/// Asks who has `ip`. A probe comes from the unspecified address, so that nobody's cache is touched (RFC 4862, 5.4).
pub(super) fn ask(socket: &LinkSocket, source: Ipv6Addr, ip: Ipv6Addr) -> Result<(), NetError> {
    let group = solicited_node(ip);
    // Without a source there must be no option either.
    let told = (!source.is_unspecified()).then_some((1, socket.mac));
    let frame = frame(SOLICITATION, 0, (socket.mac, source), (group_mac(group), group), ip, told);
    socket.send(&frame, group_mac(group))
}

/// Who speaks as `ip` in this frame: by an advertisement of it, or as the sender.
pub(super) fn speaker_of(frame: &[u8], ip: Ipv6Addr) -> Option<Mac> {
    let message = frame.get(HEADERS..HEADERS + MESSAGE)?;
    let valid =
        frame[12..14] == ETH_P_IPV6.to_be_bytes() && frame[20] == ICMPV6 && frame[21] == HOPS && message[1] == 0;
    let speaks = match message[0] {
        ADVERTISEMENT => message[8..24] == ip.octets(),
        // A probe for it by somebody else claims it as well (its source is unspecified), but does not have it yet.
        SOLICITATION => frame[22..38] == ip.octets(),
        _ => false,
    };
    (valid && speaks).then(|| Mac(frame[6..12].try_into().expect("six bytes")))
}

pub(super) fn answer(socket: &LinkSocket, ip: Ipv6Addr, until: Instant) -> Result<Option<Mac>, NetError> {
    socket.receive(until, |frame| speaker_of(frame, ip))
}

/// One unsolicited advertisement to all nodes, which says that `ip` is at `mac`.
pub(super) fn announce(socket: &LinkSocket, ip: Ipv6Addr, mac: Mac) -> Result<(), NetError> {
    let to = (group_mac(ALL_NODES), ALL_NODES);
    let frame = frame(ADVERTISEMENT, OVERRIDE, (socket.mac, ip), to, ip, Some((2, mac)));
    socket.send(&frame, to.0)
}

/// The group in which whoever has `ip` listens.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

fn frame(
    kind: u8,
    flags: u8,
    from: (Mac, Ipv6Addr),
    to: (Mac, Ipv6Addr),
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
) -> Vec<u8> {
    let length = MESSAGE + if option.is_some() { OPTION } else { 0 };
    let mut frame = Vec::with_capacity(HEADERS + length);
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETH_P_IPV6.to_be_bytes());
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, length as u8, ICMPV6, HOPS]);
    frame.extend_from_slice(&from.1.octets());
    frame.extend_from_slice(&to.1.octets());
    frame.extend_from_slice(&[kind, 0, 0, 0, flags & (SOLICITED | OVERRIDE), 0, 0, 0]);
    frame.extend_from_slice(&target.octets());
    if let Some((option, mac)) = option {
        frame.extend_from_slice(&[option, 1]);
        frame.extend_from_slice(&mac.0);
    }
    let sum = checksum(&frame[22..]);
    frame[HEADERS + 2..HEADERS + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Over the pseudo-header too (RFC 8200, 8.1): `bytes` begin with both addresses.
fn checksum(bytes: &[u8]) -> u16 {
    let length = bytes.len() - 32;
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>() + length as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn groups_are_those_of_the_standard() {
        assert_eq!(solicited_node(ip("2001:db8::1:800:200e:8c6c")), ip("ff02::1:ff0e:8c6c"));
        assert_eq!(group_mac(ip("ff02::1:ff0e:8c6c")).to_string(), "33:33:ff:0e:8c:6c");
        assert_eq!(group_mac(ALL_NODES).to_string(), "33:33:00:00:00:01");
    }

    #[test]
    fn an_advertisement_names_its_speaker_and_nothing_else_does() {
        let vip = ip("fd00:1::100");
        let to = (group_mac(ALL_NODES), ALL_NODES);
        let said = frame(ADVERTISEMENT, OVERRIDE, (OWN, vip), to, vip, Some((2, OWN)));
        assert_eq!(checksum(&said[22..]), 0, "the checksum makes the sum nothing");
        assert_eq!(speaker_of(&said, vip), Some(OWN));
        assert_eq!(speaker_of(&said, ip("fd00:1::101")), None);
        for length in 0..HEADERS + MESSAGE {
            assert_eq!(speaker_of(&said[..length], vip), None);
        }
        let mut routed = said.clone();
        routed[21] = 64;
        assert_eq!(speaker_of(&routed, vip), None, "from another link");
        let probe = frame(SOLICITATION, 0, (OWN, Ipv6Addr::UNSPECIFIED), to, vip, None);
        assert_eq!(speaker_of(&probe, vip), None, "who asks for it does not have it");
        let question = frame(SOLICITATION, 0, (OWN, vip), to, ip("fd00:1::9"), Some((1, OWN)));
        assert_eq!(speaker_of(&question, vip), Some(OWN), "who asks as it has it");
    }
}
