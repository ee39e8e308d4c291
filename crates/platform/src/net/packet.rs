//! One AF_PACKET socket that sends and receives ARP on one interface. Needs root (CAP_NET_RAW).

use super::{Mac, NetError};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

const ETH_P_ARP: u16 = 0x0806;
/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;
const FRAME_BYTES: usize = 14 + ARP_BYTES;

/// Question or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// "Who has?"
    Request = 1,
    /// "It is at …"
    Reply = 2,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Question or answer.
    pub operation: Operation,
    /// Who speaks.
    pub sender: (Mac, Ipv4Addr),
    /// Of whom, or to whom.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    fn to_frame(self, to: Mac) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let parts: [&[u8]; 9] = [
            &to.0,
            &self.sender.0.0,
            &ETH_P_ARP.to_be_bytes(),
            // Ethernet, IPv4, lengths 6 and 4.
            &[0, 1, 0x08, 0, 6, 4, 0, self.operation as u8],
            &self.sender.0.0,
            &self.sender.1.octets(),
            &self.target.0.0,
            &self.target.1.octets(),
            &[],
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

/// A non-blocking ARP socket bound to one interface. The kernel does not deliver our own frames back to it.
#[derive(Debug)]
pub struct ArpSocket {
    fd: OwnedFd,
    index: i32,
    /// The interface's name.
    pub interface: String,
    /// The interface's address.
    pub mac: Mac,
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for ArpSocket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl ArpSocket {
    /// Opens the socket on an interface of this thread's network namespace.
    ///
    /// # Errors
    /// [`NetError::NoInterface`], [`NetError::NotEthernet`], [`NetError::Os`].
    pub fn open(interface: &str) -> Result<Self, NetError> {
        const ACTION: &str = "open an ARP socket";
        let os = |error: io::Error| NetError::os(ACTION, interface, error);
        // SAFETY: a plain system call; the result is checked before it becomes an owned descriptor.
        let raw = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                i32::from(ETH_P_ARP.to_be()),
            )
        };
        if raw < 0 {
            return Err(os(io::Error::last_os_error()));
        }
        // SAFETY: `raw` is a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let index = rustix::net::netdevice::name_to_index(&fd, interface)
            .map_err(|_| NetError::NoInterface { action: ACTION, interface: interface.into() })?;
        let index = i32::try_from(index).map_err(|error| os(io::Error::other(error)))?;
        let mac = hardware_address(&fd, interface).map_err(os)?;
        let mac = mac.ok_or_else(|| NetError::NotEthernet { action: ACTION, interface: interface.into() })?;
        let socket = Self { fd, index, interface: interface.into(), mac };
        let address = socket.link_address(Mac::BROADCAST);
        // SAFETY: the pointer is to a live sockaddr_ll whose exact size is passed.
        let bound = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound != 0 {
            return Err(os(io::Error::last_os_error()));
        }
        // Frames that came in between `socket` and `bind` may be of any interface.
        while socket.try_receive().map_err(os)?.is_some() {}
        Ok(socket)
    }

    /// Sends one packet to `to`. A full queue or a link that is down drops it, as the wire would: the caller
    /// repeats anyway.
    ///
    /// # Errors
    /// [`NetError::Os`] when the interface is gone or refuses.
    pub fn send(&self, packet: Arp, to: Mac) -> Result<(), NetError> {
        let frame = packet.to_frame(to);
        let address = self.link_address(to);
        // SAFETY: pointers and lengths describe `frame` and `address`, which live for the whole call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if sent >= 0 => Ok(()),
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Ok(()),
            _ => Err(NetError::os("send ARP", &self.interface, error)),
        }
    }

    /// The next packet waiting, `None` when there is none. What is not ARP for IPv4 is skipped.
    ///
    /// # Errors
    /// The socket's error (interface down or gone).
    pub fn try_receive(&self) -> io::Result<Option<Arp>> {
        // A flood must not keep us here: the caller comes back when the socket is readable.
        for _ in 0..64 {
            let mut frame = [0u8; 128];
            match rustix::net::recv(&self.fd, &mut frame[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    let packet = Arp::from_frame(&frame[..length.min(frame.len())]);
                    // Our own words, reflected by a bridge or a virtual switch, are nobody's answer.
                    if let Some(packet) = packet.filter(|packet| packet.sender.0 != self.mac) {
                        return Ok(Some(packet));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Waits for the next packet that `is_wanted`, at most until `deadline`.
    ///
    /// # Errors
    /// [`NetError::Os`].
    pub fn receive(&self, deadline: Instant, is_wanted: impl Fn(&Arp) -> bool) -> Result<Option<Arp>, NetError> {
        let os = |error: io::Error| NetError::os("receive ARP", &self.interface, error);
        loop {
            while let Some(packet) = self.try_receive().map_err(os)? {
                if is_wanted(&packet) {
                    return Ok(Some(packet));
                }
                if Instant::now() >= deadline {
                    return Ok(None);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout =
                rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(os(error.into())),
            }
        }
    }

    fn link_address(&self, to: Mac) -> libc::sockaddr_ll {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&to.0);
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ETH_P_ARP.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: bytes,
        }
    }
}

/// `SIOCGIFHWADDR`: `None` when the interface is not Ethernet.
fn hardware_address(fd: &OwnedFd, interface: &str) -> io::Result<Option<Mac>> {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which lives for the whole call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after a successful SIOCGIFHWADDR the hardware address is the member that was written.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok((address.sa_family == libc::ARPHRD_ETHER).then_some(Mac(mac)))
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
        let frame = packet.to_frame(Mac::BROADCAST);
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
