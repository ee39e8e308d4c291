//! One UDP socket per network, bound to this node's own address there. Absent addresses are tried again each
//! second, without noise: the problem stands in the snapshot until it is gone.

use super::{Counters, endpoint};
use platform::net::sources;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

const RETRY_MS: u64 = 1_000;
/// CS6, "network control": switches and queues that look at it let heartbeats pass first.
const TOS: u32 = 0xc0;
/// Room for what waits while the thread does something else: whoever sends as a peer (an address is easily forged) takes of it.
const WAITING_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) id: u32,
    local: IpAddr,
    port: u16,
    /// Addresses of the other nodes on this network: nobody else is heard.
    peers: Vec<IpAddr>,
    socket: Option<UdpSocket>,
    /// What the kernel has not given to this socket so far.
    dropped: u32,
    retry_ms: u64,
    pub(super) problem: Option<String>,
    pub(super) counters: Counters,
}

impl Port {
    pub(super) fn new(name: &str, id: u32, local: IpAddr, port: u16, peers: Vec<IpAddr>) -> Self {
        Self {
            name: name.into(),
            id,
            local,
            port,
            peers,
            socket: None,
            dropped: 0,
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
            Ok(socket) => {
                (self.socket, self.problem, self.dropped) = (Some(socket), None, 0);
                self.hear_peers();
            }
            Err(error) => self.problem = Some(format!("cannot listen on {} port {}: {error}", self.local, self.port)),
        }
    }

    /// Other peers from now on.
    pub(super) fn expect(&mut self, peers: Vec<IpAddr>) {
        if self.peers != peers {
            self.peers = peers;
            self.hear_peers();
        }
    }

    /// What strangers send takes no room, and wakes nobody.
    fn hear_peers(&self) {
        if let Some(socket) = &self.socket
            && let Err(error) = sources::hear_only(socket, &self.peers, self.local.is_ipv6())
        {
            tracing::warn!(%error, network = %self.name, "strangers' datagrams are looked at one by one");
        }
    }

    /// Counts what the kernel has not given to the socket since the last call.
    pub(super) fn count_strangers(&mut self) {
        let Some(socket) = &self.socket else { return };
        let dropped = sources::dropped(socket);
        self.counters.strangers += u64::from(dropped.wrapping_sub(self.dropped));
        self.dropped = dropped;
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
    // More than the system's limit needs root; with less it works, too.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, WAITING_BYTES).is_err() {
        socket.set_recv_buffer_size(WAITING_BYTES).ok();
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
