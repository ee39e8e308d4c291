//! Closing the TCP connections of an address that is about to leave (`SOCK_DESTROY` by netlink `sock_diag`).
//!
//! Both ends learn at once: the application here gets ECONNABORTED, the client a reset — *if* the address is still
//! set, so call this before `vip_down`. Listening sockets stay. Kernels without `CONFIG_INET_DIAG_DESTROY`
//! answer [`Reset::Unsupported`]: nothing is closed, clients notice by their own timeouts.

use super::NetError;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const IPPROTO_TCP: u8 = 6;
/// All states of a TCP socket but LISTEN (10) and CLOSE (7).
const STATES: u32 = 0x1fff & !(1 << 10) & !(1 << 7) & !1;
/// Of these, the ones in which somebody still has something to say: SYN_RECV, ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING.
const STANDING: u32 = 1 << 3 | 1 << 1 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 11;
/// An answer takes microseconds.
const DEADLINE: Duration = Duration::from_secs(1);
/// `inet_diag_sockid`: ports, addresses, interface, cookie.
const ID_BYTES: usize = 48;
/// More connections than this on one address are left to the second call.
const CONNECTIONS_MAX: usize = 65_536;

/// What became of the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// So many were closed.
    Closed(usize),
    /// This kernel cannot close connections of others, or only those that are over; nothing was done.
    Unsupported,
}

/// Closes every TCP connection whose local address is `ip` (also through dual-stack sockets). Idempotent.
/// Blocking, short: call by `spawn_blocking`.
///
/// # Errors
/// [`NetError::Os`]; some may have been closed, retry safe.
pub fn reset_connections(ip: IpAddr) -> Result<Reset, NetError> {
    let os = |error: io::Error| NetError::os("close the connections of", ip, error);
    let mut found = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        found.extend(connections(family, ip, STATES).map_err(os)?.into_iter().map(|id| (family, id)));
    }
    close(found.into_iter().map(|(family, id)| destroy(family, &id))).map_err(os)
}

/// Kernels before 6.0 close what stands and refuse what only waits for its end (TIME_WAIT): that stops nothing.
fn close(each: impl Iterator<Item = io::Result<Destroyed>>) -> io::Result<Reset> {
    let (mut closed, mut refused) = (0, 0);
    for destroyed in each {
        match destroyed? {
            Destroyed::Yes => closed += 1,
            Destroyed::Gone => {}
            Destroyed::Unsupported => refused += 1,
        }
    }
    Ok(if closed == 0 && refused > 0 { Reset::Unsupported } else { Reset::Closed(closed) })
}

/// TCP connections whose local address is `ip` and that are not over yet. Blocking, short.
///
/// # Errors
/// [`NetError::Os`].
pub fn standing_connections(ip: IpAddr) -> Result<usize, NetError> {
    let of = |family| connections(family, ip, STANDING);
    let both = of(libc::AF_INET as u8).and_then(|v4| Ok(v4.len() + of(libc::AF_INET6 as u8)?.len()));
    both.map_err(|error| NetError::os("count the connections of", ip, error))
}

enum Destroyed {
    Yes,
    Gone,
    Unsupported,
}

fn open() -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DEADLINE))?;
    Ok(socket)
}

fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID_BYTES]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + 8 + ID_BYTES);
    message.extend_from_slice(&(16 + 8 + ID_BYTES as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // Sequence and port: one question at a time on this socket.
    message.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    message.extend_from_slice(&states.to_ne_bytes());
    message.extend_from_slice(id);
    message
}

/// Splits an answer into (type, body).
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn error_code(body: &[u8]) -> i32 {
    body.get(..4).and_then(|code| code.try_into().ok()).map_or(libc::EPROTO, |code| -i32::from_ne_bytes(code))
}

fn connections(family: u8, ip: IpAddr, states: u32) -> io::Result<Vec<[u8; ID_BYTES]>> {
    let socket = open()?;
    send(&socket, &request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, states, &[0; ID_BYTES]), SendFlags::empty())?;
    let mut wanted = [0; 16];
    match ip {
        IpAddr::V4(ip) if family == libc::AF_INET as u8 => wanted[..4].copy_from_slice(&ip.octets()),
        IpAddr::V4(ip) => wanted.copy_from_slice(&ip.to_ipv6_mapped().octets()),
        IpAddr::V6(_) if family == libc::AF_INET as u8 => return Ok(Vec::new()),
        IpAddr::V6(ip) => wanted.copy_from_slice(&ip.octets()),
    }
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&buffer[..length.min(buffer.len())]) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(io::Error::from_raw_os_error(error_code(body))),
                _ => {
                    // inet_diag_msg: family, state, timer, retransmissions, then the id: ports, source, …
                    let id: Option<[u8; ID_BYTES]> = body.get(4..4 + ID_BYTES).and_then(|id| id.try_into().ok());
                    if let Some(id) = id
                        && id[4..20] == wanted
                        && found.len() < CONNECTIONS_MAX
                    {
                        found.push(id);
                    }
                }
            }
        }
    }
}

fn destroy(family: u8, id: &[u8; ID_BYTES]) -> io::Result<Destroyed> {
    let socket = open()?;
    send(&socket, &request(SOCK_DESTROY, NLM_F_ACK, family, STATES, id), SendFlags::empty())?;
    let mut buffer = [0; 4096];
    let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let code = messages(&buffer[..length.min(buffer.len())])
        .find(|(kind, _)| *kind == NLMSG_ERROR)
        .map(|(_, body)| error_code(body));
    match code {
        Some(0) => Ok(Destroyed::Yes),
        Some(libc::ENOENT) => Ok(Destroyed::Gone),
        Some(libc::EOPNOTSUPP) => Ok(Destroyed::Unsupported),
        Some(other) => Err(io::Error::from_raw_os_error(other)),
        None => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Destroyed::{Gone, Unsupported, Yes};

    #[test]
    fn what_an_older_kernel_refuses_to_close_leaves_nothing_else_standing() {
        let closed = |each: Vec<Destroyed>| close(each.into_iter().map(Ok)).unwrap();
        assert_eq!(closed(vec![Unsupported, Yes, Unsupported, Gone, Yes]), Reset::Closed(2));
        assert_eq!(closed(vec![Unsupported, Unsupported]), Reset::Unsupported);
        assert_eq!(closed(vec![Gone]), Reset::Closed(0));
    }
}
