//! One TLS connection with deadlines, used by one thread; another may only close it.

use super::{HANDSHAKE_MS, Identity, LinkError};
use rustls::{ClientConnection, Connection, ServerConnection};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Unacknowledged data (or a closed receive window) for this long ends a connection. Longer than any stall
/// we tolerate: silence is noticed by heartbeats, this only frees a thread that writes into the void.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A TLS connection whose handshake is done and whose peer is the peer.
pub struct Channel {
    tls: Connection,
    socket: TcpStream,
    deadline: Option<Instant>,
    /// Read, and given back: comes first next time.
    ahead: Vec<u8>,
    /// Ciphertext that rustls was not given yet: it takes 4 KiB at a time, the socket gives more.
    cipher: Box<[u8]>,
    from: usize,
    to: usize,
}

/// Ciphertext read at once.
const CIPHER_BYTES: usize = 128 << 10;

/// Ends a [`Channel`] from another thread; its reads and writes fail at once.
pub struct Closer(TcpStream);

impl Closer {
    /// Repeatable.
    pub fn close(&self) {
        // Fails only if it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let s = SockRef::from(socket);
    s.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    s.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2)))
}

impl Channel {
    /// Connects, proves who we are, checks who answers.
    ///
    /// # Errors
    /// No answer in time, or not the peer.
    pub fn connect(addr: SocketAddr, identity: &Identity) -> Result<Self, LinkError> {
        let deadline = Instant::now() + Duration::from_millis(HANDSHAKE_MS);
        let socket = TcpStream::connect_timeout(&addr, Duration::from_millis(HANDSHAKE_MS))?;
        prepare(&socket)?;
        let tls = ClientConnection::new(identity.client.clone(), identity.peer.clone())?;
        let mut channel = Self::new(tls.into(), socket, deadline);
        channel.handshake()?;
        identity.is_peer(channel.tls.peer_certificates())?;
        Ok(channel)
    }

    /// The other end of [`Self::connect`]: whoever connected must be the peer and nobody else of the cluster.
    ///
    /// # Errors
    /// Garbage, a stranger, or too slow.
    pub fn accept(socket: TcpStream, identity: &Identity) -> Result<Self, LinkError> {
        let deadline = Instant::now() + Duration::from_millis(HANDSHAKE_MS);
        socket.set_nonblocking(false)?;
        prepare(&socket)?;
        let tls = ServerConnection::new(identity.server.clone())?;
        let mut channel = Self::new(tls.into(), socket, deadline);
        channel.handshake()?;
        identity.is_peer(channel.tls.peer_certificates())?;
        Ok(channel)
    }

    fn new(tls: Connection, socket: TcpStream, deadline: Instant) -> Self {
        let cipher = vec![0; CIPHER_BYTES].into_boxed_slice();
        Self { tls, socket, deadline: Some(deadline), ahead: Vec::new(), cipher, from: 0, to: 0 }
    }

    /// Something came already that [`Self::read_some`] did not give yet.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.to > self.from || !self.ahead.is_empty()
    }

    fn handshake(&mut self) -> Result<(), LinkError> {
        while self.tls.is_handshaking() {
            self.flush_tls()?;
            if self.tls.is_handshaking() {
                self.fill()?;
            }
        }
        Ok(self.flush_tls()?)
    }

    /// From here on a read that gets nothing for `silence` fails; no other deadline.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_silence(&mut self, silence: Duration) -> io::Result<()> {
        self.deadline = None;
        SockRef::from(&self.socket).set_tcp_user_timeout(Some(USER_TIMEOUT.max(silence + USER_TIMEOUT / 4)))?;
        self.socket.set_read_timeout(Some(silence))
    }

    /// For whoever must end the connection from outside.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn closer(&self) -> io::Result<Closer> {
        self.socket.try_clone().map(Closer)
    }

    fn flush_tls(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Decrypts what came, or waits for something.
    fn fill(&mut self) -> Result<(), LinkError> {
        if self.from == self.to {
            let n = self.receive()?;
            (self.from, self.to) = (0, n);
        }
        self.from += self.tls.read_tls(&mut &self.cipher[self.from..self.to])?;
        let outcome = self.tls.process_new_packets();
        // An alert explains to the other side why we go.
        if outcome.is_err() {
            let _ = self.flush_tls();
        }
        outcome?;
        Ok(self.flush_tls()?)
    }

    /// Waits for ciphertext.
    fn receive(&mut self) -> Result<usize, LinkError> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.socket.set_read_timeout(Some(left))?;
        }
        loop {
            match self.socket.read(&mut self.cipher) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection").into());
                }
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has been silent for too long").into());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads at least one byte.
    ///
    /// # Errors
    /// Closed, silent, or not TLS.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.ahead[..n]);
            self.ahead.drain(..n);
            return Ok(n);
        }
        loop {
            match self.tls.reader().read(buffer) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection").into());
                }
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.fill()?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Gives back what was read too far.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.ahead.splice(..0, bytes.iter().copied());
    }

    /// Writes everything and pushes it out.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.tls.writer().write(bytes)?;
            bytes = &bytes[n..];
            self.flush_tls()?;
        }
        Ok(())
    }
}
