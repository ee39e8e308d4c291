//! One AF_PACKET socket on one Ethernet interface, for one protocol. Needs root (CAP_NET_RAW).

use super::{Mac, NetError};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

/// Frames looked at in one go: a flood must not keep us, the caller comes back when the socket is readable.
const LOOKS_MAX: u32 = 64;

/// A non-blocking socket bound to one interface. The kernel does not deliver our own frames back to it.
#[derive(Debug)]
pub struct LinkSocket {
    fd: OwnedFd,
    index: i32,
    protocol: u16,
    /// The interface's name.
    pub interface: String,
    /// The interface's address.
    pub mac: Mac,
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for LinkSocket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl LinkSocket {
    /// Opens the socket on an interface of this thread's network namespace. `filter` lets only some frames through
    /// (classic BPF; empty: all of this protocol).
    ///
    /// # Errors
    /// [`NetError::NoInterface`], [`NetError::NotEthernet`], [`NetError::Os`].
    pub fn open(interface: &str, protocol: u16, filter: &[libc::sock_filter]) -> Result<Self, NetError> {
        const ACTION: &str = "open a packet socket";
        let os = |error: io::Error| NetError::os(ACTION, interface, error);
        // SAFETY: a plain system call; the result is checked before it becomes an owned descriptor.
        let raw = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                i32::from(protocol.to_be()),
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
        let socket = Self { fd, index, protocol, interface: interface.into(), mac };
        socket.let_through(filter).map_err(os)?;
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
        while socket.try_receive(|_| Some(())).map_err(os)?.is_some() {}
        Ok(socket)
    }

    fn let_through(&self, filter: &[libc::sock_filter]) -> io::Result<()> {
        if filter.is_empty() { Ok(()) } else { attach(self.fd.as_fd(), filter) }
    }

    /// Hears what is sent to this group as well.
    ///
    /// # Errors
    /// [`NetError::Os`].
    pub fn join(&self, group: Mac) -> Result<(), NetError> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group.0);
        let membership = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        // SAFETY: the kernel reads the membership, which lives across the call; its size is passed.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        let failed = || NetError::os("listen to a group", &self.interface, io::Error::last_os_error());
        if set == 0 { Ok(()) } else { Err(failed()) }
    }

    /// Sends one frame to `to`. A full queue or a link that is down drops it, as the wire would: the caller
    /// repeats anyway.
    ///
    /// # Errors
    /// [`NetError::Os`] when the interface is gone or refuses.
    pub fn send(&self, frame: &[u8], to: Mac) -> Result<(), NetError> {
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
            _ => Err(NetError::os("send", &self.interface, error)),
        }
    }

    /// What `read` makes of the next frame waiting of which it makes anything; `None` when there is none.
    ///
    /// # Errors
    /// The socket's error (interface down or gone).
    pub fn try_receive<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        for _ in 0..LOOKS_MAX {
            let mut frame = [0u8; 160];
            match rustix::net::recv(&self.fd, &mut frame[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    let frame = &frame[..length.min(frame.len())];
                    // Our own words, reflected by a bridge or a virtual switch, are nobody's answer.
                    if frame.get(6..12) != Some(&self.mac.0)
                        && let Some(found) = read(frame)
                    {
                        return Ok(Some(found));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Waits for the next frame that `read` makes something of, at most until `deadline`.
    ///
    /// # Errors
    /// [`NetError::Os`].
    pub fn receive<T>(&self, deadline: Instant, read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, NetError> {
        let os = |error: io::Error| NetError::os("receive", &self.interface, error);
        loop {
            if let Some(found) = self.try_receive(&read).map_err(os)? {
                return Ok(Some(found));
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
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: bytes,
        }
    }
}

/// Only what this program (classic BPF) lets through comes to the socket from now on; it replaces an earlier one.
pub(super) fn attach(socket: BorrowedFd<'_>, filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program, which lives across the call; its size is passed.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
