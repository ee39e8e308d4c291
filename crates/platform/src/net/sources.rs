//! Which sources a UDP socket hears: what is of anybody else is dropped by the kernel, takes no room in the socket's buffer and wakes nobody.
//!
//! An address proves nothing. It only makes a flood of strangers cheap.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// Offset of the network header in a program at a socket that begins with the transport's.
const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;
/// `SO_MEMINFO`, and what it answers: so many numbers, one of which counts drops.
const SO_MEMINFO: libc::c_int = 55;
const NUMBERS: usize = 9;
const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NETWORK_HEADER.wrapping_add(offset))
}

/// Goes on when the word is `k`, else past the next `further` steps.
const fn is(k: u32, further: u8) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, further, k)
}

const fn end(bytes: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

/// Addresses of the other family than the socket's are left out: nothing of theirs can come.
fn program(sources: &[IpAddr], v6: bool) -> Vec<libc::sock_filter> {
    let mut steps = Vec::new();
    for source in sources {
        match source {
            IpAddr::V4(source) if !v6 => steps.extend([load(12), is(source.to_bits(), 1), end(u32::MAX)]),
            IpAddr::V6(source) if v6 => {
                for (word, further) in (0..4_u8).zip([7, 5, 3, 1]) {
                    let bits = (source.to_bits() >> (96 - 32 * u32::from(word))) as u32;
                    steps.extend([load(8 + 4 * u32::from(word)), is(bits, further)]);
                }
                steps.push(end(u32::MAX));
            }
            _ => {}
        }
    }
    steps.push(end(0));
    steps
}

/// From now on `socket`, of UDP and bound to an address of this family, hears these only. A later call replaces an earlier one.
///
/// # Errors
/// As the kernel says; it hears what it heard.
pub fn hear_only(socket: impl AsFd, sources: &[IpAddr], v6: bool) -> io::Result<()> {
    super::link::attach(socket.as_fd(), &program(sources, v6))
}

/// How many datagrams the kernel has not given to this socket: of others, or for want of room.
#[must_use]
pub fn dropped(socket: impl AsFd) -> u32 {
    let mut numbers = [0_u32; NUMBERS];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `numbers`, which lives across the call.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if got == 0 { numbers[DROPS] } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn heard(socket: &UdpSocket) -> Option<Vec<u8>> {
        let mut buffer = [0; 64];
        socket.recv_from(&mut buffer).ok().map(|(length, _)| buffer[..length].to_vec())
    }

    #[test]
    fn a_flood_of_strangers_takes_no_room_from_those_who_are_expected() {
        let here = UdpSocket::bind("127.49.1.1:0").unwrap();
        here.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = here.local_addr().unwrap();
        let [peer, other, stranger] =
            ["127.49.1.2:0", "127.49.1.3:0", "127.49.1.9:0"].map(|own| UdpSocket::bind(own).unwrap());
        let sources: Vec<IpAddr> = (0..64_u8).map(|n| IpAddr::from([127, 49, 2, n])).collect();
        let ours = [peer.local_addr().unwrap().ip(), "fd00::1".parse().unwrap(), other.local_addr().unwrap().ip()];
        hear_only(&here, &[sources, ours.to_vec()].concat(), false).unwrap();
        let noise = [7; 1_200];
        for _ in 0..2_000 {
            stranger.send_to(&noise, to).unwrap();
        }
        peer.send_to(b"one", to).unwrap();
        other.send_to(b"two", to).unwrap();
        assert_eq!([heard(&here), heard(&here)], [Some(b"one".to_vec()), Some(b"two".to_vec())]);
        assert_eq!(dropped(&here), 2_000);
        // Another list replaces it.
        hear_only(&here, &[stranger.local_addr().unwrap().ip()], false).unwrap();
        peer.send_to(b"three", to).unwrap();
        stranger.send_to(b"four", to).unwrap();
        assert_eq!(heard(&here), Some(b"four".to_vec()));
    }

    #[test]
    fn of_ipv6_as_well() {
        let here = UdpSocket::bind("[::1]:0").unwrap();
        here.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = here.local_addr().unwrap();
        let from = UdpSocket::bind("[::1]:0").unwrap();
        let near: Vec<IpAddr> =
            ["::2", "1::1", "0:1::1", "::1:0:0:1", "127.0.0.1"].map(|it| it.parse().unwrap()).to_vec();
        hear_only(&here, &near, true).unwrap();
        from.send_to(b"stranger", to).unwrap();
        hear_only(&here, &[near, vec![from.local_addr().unwrap().ip()]].concat(), true).unwrap();
        from.send_to(b"peer", to).unwrap();
        assert_eq!((heard(&here), dropped(&here)), (Some(b"peer".to_vec()), 1));
    }
}
