//! ICMP echo: the split-brain checker and the gateway. Needs root (raw socket).

use super::NetError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recvfrom, sendto, socket_with,
};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Questions within one deadline: the loss of one packet is not an absence.
const ATTEMPTS: u32 = 3;
/// So that two pings of this process never take each other's answers.
static IDENTIFIER: AtomicU16 = AtomicU16::new(0);

/// Does `ip` answer an echo within `deadline`? Three questions, evenly spaced; returns at the first answer with
/// the time since the first question. Blocking: call by `spawn_blocking`. An unreachable network is `None`.
///
/// # Errors
/// [`NetError::Os`] when no question could be asked at all (no right to, source address not ours).
pub fn ping(ip: IpAddr, source: Option<IpAddr>, deadline: Duration) -> Result<Option<Duration>, NetError> {
    let os = |error: rustix::io::Errno| NetError::os("ping", ip, error);
    let (family, protocol) = match ip {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))
        .map_err(os)?;
    if let Some(source) = source {
        bind(&socket, &SocketAddr::new(source, 0)).map_err(os)?;
    }
    let identifier =
        (std::process::id() as u16).wrapping_add(IDENTIFIER.fetch_add(1, Ordering::Relaxed).wrapping_mul(257));
    let start = Instant::now();
    for attempt in 1..=ATTEMPTS {
        let question = echo_request(ip.is_ipv6(), identifier, attempt as u16);
        match sendto(&socket, &question, SendFlags::DONTWAIT, &SocketAddr::new(ip, 0)) {
            Ok(_) => {}
            // No route, link down, ARP failed before: the answer to the question is "no".
            Err(
                rustix::io::Errno::NETUNREACH
                | rustix::io::Errno::HOSTUNREACH
                | rustix::io::Errno::NETDOWN
                | rustix::io::Errno::AGAIN
                | rustix::io::Errno::NOBUFS,
            ) => {}
            Err(error) => return Err(os(error)),
        }
        if is_answered(&socket, ip, identifier, start + deadline * attempt / ATTEMPTS).map_err(os)? {
            return Ok(Some(start.elapsed()));
        }
    }
    Ok(None)
}

fn is_answered(socket: &OwnedFd, ip: IpAddr, identifier: u16, until: Instant) -> rustix::io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut packet = [0u8; 256];
        match recvfrom(socket, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((_, length, Some(from))) if SocketAddr::try_from(from.clone()).is_ok_and(|from| from.ip() == ip) => {
                if is_echo_reply(ip.is_ipv6(), &packet[..length.min(packet.len())], identifier) {
                    return Ok(true);
                }
            }
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::HOSTUNREACH | rustix::io::Errno::NETUNREACH | rustix::io::Errno::CONNREFUSED) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Of IPv6 the kernel makes the checksum: it is over addresses that we do not know.
fn echo_request(v6: bool, identifier: u16, sequence: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = if v6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..].copy_from_slice(b"stead...");
    let sum = if v6 { 0 } else { checksum(&packet) };
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A raw socket delivers the IP header too, of IPv4.
fn is_echo_reply(v6: bool, packet: &[u8], identifier: u16) -> bool {
    let header = if v6 { 0 } else { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) };
    let Some(icmp) = packet.get(header..) else {
        return false;
    };
    let reply = if v6 { 129 } else { 0 };
    (v6 || header >= 20) && icmp.first() == Some(&reply) && icmp.get(4..6) == Some(&identifier.to_be_bytes()[..])
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero_and_only_its_own_reply_counts() {
        let request = echo_request(false, 0x1234, 7);
        assert_eq!(checksum(&request), 0);
        let mut reply = vec![0x45; 1];
        reply.resize(20, 0);
        reply.extend_from_slice(&request);
        reply[20] = 0;
        assert!(is_echo_reply(false, &reply, 0x1234));
        assert!(!is_echo_reply(false, &reply, 0x1235));
        reply[20] = 8;
        assert!(!is_echo_reply(false, &reply, 0x1234), "our own question on loopback is no answer");
        let mut reply = echo_request(true, 0x1234, 7);
        assert!(!is_echo_reply(true, &reply, 0x1234));
        reply[0] = 129;
        assert!(is_echo_reply(true, &reply, 0x1234) && !is_echo_reply(true, &[], 0x1234));
        assert!(!is_echo_reply(false, &[], 1) && !is_echo_reply(false, &[0x4f; 10], 1));
    }
}
