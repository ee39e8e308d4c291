//! The health URL, the one thing answered without authentication: `GET /var/modules/AM/ready.txt` on TCP 9010 is 200 when
//! the module serves here and is Ready, 404 otherwise.
//!
//! **Invariant:** no input but the path, one bit of output, every connection short, their number and rate bounded, each source's for
//! itself: whoever says nothing, or asks without end, keeps no load balancer out.

use crate::transport::{StrangerSeat, StrangerSeats};
use axum::http::{Method, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::ModuleName;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// TCP port of the health URL.
pub const HEALTH_PORT: u16 = 9010;
/// From accept to answer.
const WITHIN: Duration = Duration::from_secs(2);
/// Answers to one source within a second; a load balancer asks a few times.
const PER_SOURCE: u32 = 50;
/// And to all of them.
const IN_TOTAL: u32 = 1_000;
/// Sources counted in a second; more share what is left of the total.
const SOURCES_MAX: usize = 1_024;

/// Whether this module serves here and is Ready.
pub type IsReady = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A running health URL; stops when dropped.
pub struct HealthServer {
    tasks: Vec<JoinHandle<()>>,
}

impl HealthServer {
    /// On all addresses; a port that is taken is tried again each second.
    #[must_use]
    pub fn start(is_ready: IsReady) -> Self {
        let shared = Arc::new(Shared { is_ready, rate: Mutex::default(), seats: StrangerSeats::default() });
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let serve = |addr| tokio::spawn(serve(SocketAddr::new(addr, HEALTH_PORT), Arc::clone(&shared)));
        Self { tasks: any.into_iter().map(serve).collect() }
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Shared {
    is_ready: IsReady,
    rate: Mutex<Rate>,
    seats: StrangerSeats,
}

#[derive(Default)]
struct Rate {
    second: Option<Instant>,
    total: u32,
    sources: HashMap<IpAddr, u32>,
}

impl Rate {
    /// One more answer to this source?
    fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            *self = Self { second: Some(now), ..Self::default() };
        }
        // More sources than are counted share what is left of the total.
        if self.sources.len() < SOURCES_MAX || self.sources.contains_key(&source) {
            let of_source = self.sources.entry(source).or_default();
            if *of_source >= PER_SOURCE {
                return false;
            }
            *of_source += 1;
        }
        // What is refused is no answer: nobody uses up the others' by asking too often.
        let allowed = self.total < IN_TOTAL;
        self.total += u32::from(allowed);
        allowed
    }
}

async fn serve(addr: SocketAddr, shared: Arc<Shared>) {
    let mut said = false;
    let listener = loop {
        match listen(addr) {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%addr, %error, "the health URL cannot listen yet; trying again each second");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    loop {
        match listener.accept().await {
            // Closed at once, so that a crowd costs nothing.
            Ok((stream, source)) => {
                if !shared.rate.lock().unwrap_or_else(PoisonError::into_inner).allows(source.ip(), Instant::now()) {
                    continue;
                }
                let seat = shared.seats.stranger(source.ip());
                tokio::spawn(attend(stream, Arc::clone(&shared), seat));
            }
            Err(error) => {
                tracing::debug!(%error, "the health URL cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if addr.is_ipv6() {
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.bind(addr)?;
    socket.listen(128)
}

async fn attend(stream: TcpStream, shared: Arc<Shared>, seat: StrangerSeat) {
    tokio::select! {
        _ = tokio::time::timeout(WITHIN, answer(stream, shared)) => {}
        () = seat.evicted.notified() => {}
    }
}

async fn answer(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let ready =
            matches!(*request.method(), Method::GET | Method::HEAD) && is_ready(&shared.is_ready, request.uri().path());
        async move {
            let (status, text) =
                if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::NOT_FOUND, "not ready\n") };
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WITHIN)
        .keep_alive(false)
        .max_buf_size(8 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn is_ready(is_ready: &IsReady, path: &str) -> bool {
    path.strip_prefix("/var/modules/")
        .and_then(|rest| rest.strip_suffix("/ready.txt"))
        .is_some_and(|module| ModuleName::new(module).is_ok() && is_ready(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_path_asks_and_only_with_a_name() {
        let ask: IsReady = Arc::new(|module| module == "am");
        assert!(is_ready(&ask, "/var/modules/am/ready.txt"));
        for path in [
            "/",
            "/var/modules/other/ready.txt",
            "/var/modules/../am/ready.txt",
            "/var/modules//ready.txt",
            "/var/modules/am/ready.txt/",
        ] {
            assert!(!is_ready(&ask, path), "{path}");
        }
    }

    #[test]
    fn a_noisy_source_is_bounded_and_the_others_are_heard() {
        let mut rate = Rate::default();
        let (now, noisy, calm) = (Instant::now(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let answered = (0..50_000).filter(|_| rate.allows(noisy, now)).count();
        assert_eq!(answered, PER_SOURCE as usize);
        assert!(rate.allows(calm, now));
        assert!(rate.allows(noisy, now + Duration::from_secs(1)));
        let many = (0..5_000_u32).filter(|i| rate.allows(IpAddr::from((0x0b00_0000 + i).to_be_bytes()), now)).count();
        assert!(many <= IN_TOTAL as usize && rate.sources.len() <= SOURCES_MAX);
    }
}
