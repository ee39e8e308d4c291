//! A load for a web server: requests over connections that stay or one connection each, and streams; and a server that answers them.
//!
//! One thread and one `poll` for all connections: what it costs is the client's, the same for every candidate.

use crate::latency::{Figures, Latencies};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n";
const PIECE: usize = 1 << 18;
/// An answer that does not come is an error after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// A probe is given up after this: the next asks again.
const PROBE: Duration = Duration::from_millis(250);

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Load {
    /// One request after the other on connections that stay.
    KeepAlive,
    /// A connection for every request.
    Connections,
    /// One stream to the server.
    Upload,
    /// One stream from the server.
    Download,
}

/// An address of the client, and the interface it speaks through.
#[derive(Clone, Debug)]
pub struct Near {
    addr: Ipv4Addr,
    interface: Option<String>,
}

impl std::str::FromStr for Near {
    type Err = std::net::AddrParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, interface) = text.split_once('@').map_or((text, None), |(addr, name)| (addr, Some(name.to_owned())));
        Ok(Self { addr: addr.parse()?, interface })
    }
}

impl From<Ipv4Addr> for Near {
    fn from(addr: Ipv4Addr) -> Self {
        Self { addr, interface: None }
    }
}

/// A connection from an address of this machine.
pub fn connect(from: Option<&Near>, to: SocketAddr) -> std::io::Result<TcpStream> {
    connect_within(from, to, PATIENCE)
}

fn connect_within(from: Option<&Near>, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let (SocketAddr::V4(to4), Some(near)) = (to, from) else { return TcpStream::connect(to) };
    let failed = |result: libc::c_int| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) };
    let address = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: a new descriptor of our own; all that is pointed to lives through the calls that read it.
    unsafe {
        let socket =
            OwnedFd::from_raw_fd(failed(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?);
        let set = |level, name, value: *const libc::c_void, size: usize| {
            failed(libc::setsockopt(socket.as_raw_fd(), level, name, value, size as libc::socklen_t))
        };
        // The port is chosen at connect, when the other end is known: one address has more connections than ports.
        let yes: libc::c_int = 1;
        set(libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const yes).cast(), 4)?;
        // It bounds connect() as well.
        let patience =
            libc::timeval { tv_sec: patience.as_secs() as libc::time_t, tv_usec: patience.subsec_micros().into() };
        set(libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const patience).cast(), size_of::<libc::timeval>())?;
        if let Some(interface) = &near.interface {
            set(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_ptr().cast(), interface.len())?;
        }
        let near = address(near.addr, 0);
        failed(libc::bind(socket.as_raw_fd(), (&raw const near).cast(), length))?;
        let far = address(*to4.ip(), to4.port());
        failed(libc::connect(socket.as_raw_fd(), (&raw const far).cast(), length))?;
        Ok(TcpStream::from(socket))
    }
}

pub fn run(to: &[SocketAddr], load: Load, from: &[Near], at_once: usize, last: Duration) -> anyhow::Result<Figures> {
    match load {
        Load::Upload | Load::Download => stream(to[0], load, from.first(), last),
        _ => requests(to, load, from, at_once, last),
    }
}

fn requests(to: &[SocketAddr], load: Load, from: &[Near], at_once: usize, last: Duration) -> anyhow::Result<Figures> {
    let mut turn = 0usize;
    let mut open = || {
        // Not in step: every client speaks with every server.
        let client = (!from.is_empty()).then(|| &from[turn % from.len()]);
        let stream = connect(client, to[(turn + turn / from.len().max(1)) % to.len()])?;
        turn += 1;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    let request = if load == Load::KeepAlive { REQUEST } else { LAST };
    let mut clients = Vec::new();
    for _ in 0..at_once {
        let mut stream = open()?;
        stream.write_all(request)?;
        clients.push((stream, Instant::now()));
    }
    let (mut latencies, mut failed, begin) = (Latencies::default(), 0u64, Instant::now());
    let mut answer = vec![0u8; 16_384];
    let mut polled: Vec<libc::pollfd> = Vec::new();
    while begin.elapsed() < last {
        polled.clear();
        polled.extend(clients.iter().map(|(stream, _)| libc::pollfd {
            fd: stream.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }));
        // SAFETY: the descriptors are ours, the slice lives through the call.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 100) };
        if ready < 0 {
            return Err(std::io::Error::last_os_error()).context("poll");
        }
        for (client, polled) in clients.iter_mut().zip(&polled) {
            let is_answered = match polled.revents {
                0 if client.1.elapsed() <= PATIENCE => continue,
                0 => false,
                _ => match client.0.read(&mut answer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    // Answers are small: they come in one piece.
                    read => read.is_ok_and(|count| count > 0),
                },
            };
            if is_answered {
                latencies.add(client.1.elapsed());
            } else {
                failed += 1;
            }
            if load == Load::Connections || !is_answered {
                client.0 = open().context("a connection")?;
            }
            client.1 = Instant::now();
            if client.0.write_all(request).is_err() {
                failed += 1;
            }
            if failed > 100 {
                bail!("more than a hundred requests failed");
            }
        }
    }
    let mut figures = latencies.figures(begin.elapsed());
    let seconds = begin.elapsed().as_secs_f64();
    figures.insert("requests".into(), figures["per_s"] * seconds);
    figures.insert("failed".into(), failed as f64);
    Ok(figures)
}

fn stream(to: SocketAddr, load: Load, from: Option<&Near>, last: Duration) -> anyhow::Result<Figures> {
    let mut stream = connect(from, to)?;
    stream.write_all(if load == Load::Upload { b"PUT / HTTP/1.1\r\n\r\n" } else { b"GET /stream HTTP/1.1\r\n\r\n" })?;
    let (mut piece, mut bytes, begin) = (vec![7u8; PIECE], 0u64, Instant::now());
    while begin.elapsed() < last {
        let moved = if load == Load::Upload { stream.write(&piece)? } else { stream.read(&mut piece)? };
        if moved == 0 {
            bail!("the stream ended");
        }
        bytes += moved as u64;
    }
    Ok(Figures::from([
        ("gbit_per_s".into(), bytes as f64 * 8.0 / 1e9 / begin.elapsed().as_secs_f64()),
        ("mib".into(), bytes as f64 / f64::from(1 << 20)),
    ]))
}

/// Answers every request with its name; takes what is put; sends for ever what is asked for as a stream.
pub fn serve(at: SocketAddr, name: &str) -> anyhow::Result<()> {
    for socket in TcpListener::bind(at)?.incoming() {
        let socket = socket?;
        let name = name.to_owned();
        std::thread::spawn(move || answer(socket, &name));
    }
    Ok(())
}

fn answer(mut socket: TcpStream, name: &str) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut piece = vec![0u8; PIECE];
    loop {
        let count = socket.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        if piece.starts_with(b"PUT") {
            while socket.read(&mut piece)? > 0 {}
            return Ok(());
        }
        if piece.starts_with(b"GET /stream") {
            loop {
                socket.write_all(&piece)?;
            }
        }
        let close = piece[..count].windows(6).any(|word| word == b"close\r");
        let head = if close { "Connection: close\r\n" } else { "" };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n{name}\n", name.len() + 1)?;
        if close {
            return Ok(());
        }
    }
}

/// See the command's help.
pub fn outage(to: SocketAddr, running: &Path, record: &Path, from: &[Near]) -> anyhow::Result<()> {
    let record = std::sync::Mutex::new(std::fs::File::create(record)?);
    std::thread::scope(|scope| {
        for near in from {
            let record = &record;
            // One thread asks, others wait for what does not come: an attempt is given up after 250 ms, so they are thirty at most.
            scope.spawn(move || {
                while running.exists() {
                    scope.spawn(move || {
                        let Ok(who) = ask(near, to) else { return };
                        let at = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
                        let mut record = record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        let _ = writeln!(record, "{at} {} {who}", near.addr);
                    });
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    Ok(())
}

fn ask(near: &Near, to: SocketAddr) -> std::io::Result<String> {
    let mut stream = connect_within(Some(near), to, PROBE)?;
    stream.set_read_timeout(Some(PROBE))?;
    stream.write_all(LAST)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    text.split_whitespace().last().map(str::to_owned).ok_or_else(|| ErrorKind::UnexpectedEof.into())
}
