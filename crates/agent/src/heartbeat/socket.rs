//! One UDP socket per network, bound to this node's own address there. Absent addresses are tried again each
//! second, without noise: the problem stands in the snapshot until it is gone.

use super::{Counters, endpoint};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

const RETRY_MS: u64 = 1_000;
/// CS6, "network control": switches and queues that look at it let heartbeats pass first.
const TOS: u32 = 0xc0;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) id: u32,
    local: IpAddr,
    port: u16,
    socket: Option<UdpSocket>,
    retry_ms: u64,
    pub(super) problem: Option<String>,
    pub(super) counters: Counters,
}

impl Port {
    pub(super) fn new(name: &str, id: u32, local: IpAddr, port: u16) -> Self {
        Self {
            name: name.into(),
            id,
            local,
            port,
            socket: None,
            retry_ms: 0,
            problem: None,
            counters: Counters::default(),
        }
    }

    /// Opens the socket if it is not, at most once a second.
    pub(super) fn open(&mut self, now_ms: u64) {
        if self.socket.is_some() || now_ms < self.retry_ms {
            return;
        }
        self.retry_ms = now_ms + RETRY_MS;
        match bind(endpoint(self.local, self.port)) {
            Ok(socket) => (self.socket, self.problem) = (Some(socket), None),
            Err(error) => self.problem = Some(format!("cannot listen on {} port {}: {error}", self.local, self.port)),
        }
    }

    pub(super) const fn socket(&self) -> Option<&UdpSocket> {
        self.socket.as_ref()
    }

    /// Sends, or notes why not. A lost datagram is nothing: the next follows.
    pub(super) fn send(&mut self, datagram: &[u8], to: IpAddr) {
        let Some(socket) = &self.socket else { return };
        match socket.send_to(datagram, endpoint(to, self.port)) {
            Ok(_) => {
                self.counters.sent += 1;
                self.problem = None;
            }
            // What an earlier datagram met (nobody listens there): says nothing of this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                let is_new = self.problem.is_none();
                if is_new {
                    self.problem = Some(format!("cannot send from {} to {to}: {error}", self.local));
                }
                // The address has gone: bind anew when it is back.
                if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EINVAL | libc::ENODEV)) {
                    self.socket = None;
                }
            }
        }
    }

    /// The next datagram waiting; its true length may exceed the buffer's.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, IpAddr)> {
        let socket = self.socket.as_ref()?;
        for _ in 0..16 {
            match socket.recv_from(buffer) {
                Ok((length, from)) => return Some((length, from.ip())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // ECONNREFUSED and the like: reports about datagrams sent earlier, each read once.
                Err(_) => {}
            }
        }
        None
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    // No SO_REUSEADDR: on UDP it would let another process take our datagrams.
    if address.is_ipv4() {
        socket.set_tos_v4(TOS).ok();
    } else {
        socket.set_tclass_v6(TOS).ok();
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
