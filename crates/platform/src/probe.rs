//! One look at something a module depends on: a port, a page, its processes. Judges nothing: several looks make a
//! verdict elsewhere.

pub mod http;
pub mod process;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// What one look found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// Well.
    Well,
    /// Not well, and there is no doubt: the machine itself says so.
    Gone(String),
    /// Not well, as far as one look tells.
    Silent(String),
}

impl Look {
    /// No answer in time.
    #[must_use]
    pub fn late(within: Duration) -> Self {
        Self::Silent(format!("no answer within {} ms", within.as_millis()))
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Gone("connection refused".into()),
            io::ErrorKind::ConnectionReset => Self::Silent("connection reset".into()),
            _ => Self::Silent(error.to_string()),
        }
    }
}

/// Connects, and hangs up.
pub async fn tcp(host: &str, port: u16, within: Duration) -> Look {
    match tokio::time::timeout(within, connect(host, port)).await {
        Ok(Ok(_)) => Look::Well,
        Ok(Err(error)) => Look::of(&error),
        Err(_) => Look::late(within),
    }
}

/// A connection to the first address of a host that takes it.
///
/// # Errors
/// That of the last address.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for addr in addresses(host, port).await? {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Addresses of a host; an address is its own.
///
/// # Errors
/// The resolver's.
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.take(8).collect())
}
