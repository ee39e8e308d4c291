//! One TCP connection: handshake with a deadline, then HTTP/1.1 for a member, or the join endpoint for a stranger.

use super::body::Patient;
use super::seats::StrangerSeat;
use super::server::{JoinDoor, Tenant};
use super::tls::{self, TlsError};
use super::{Peer, PeerRole};
use crate::api::{Caller, Reply};
use crate::cluster_config::{Cluster, ClusterStore, ClusterWatch};
use crate::identity::Identity;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::api::{Code, Problem};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tower::ServiceExt as _;

/// TLS must be done within this.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// A member's headers must be there within this; also how long a connection may idle between requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(60);
/// A stranger's headers.
const STRANGER_HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A stranger has one join to make.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Data that the other side does not acknowledge ends the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Header block of one request.
const HEADERS_MAX: usize = 64 * 1024;

/// Set on every request of a machine without certificate.
#[derive(Clone, Debug)]
pub(crate) struct Stranger {
    /// Where it calls from.
    pub source: IpAddr,
    /// Number of the connection's TLS channel, known to its two ends only (RFC 5705 exporter).
    pub binding: [u8; 32],
}

/// Label of the exporter, the same on both sides.
pub(crate) const BINDING_LABEL: &[u8] = b"EXPORTER-stead-join-v1";

/// What lies behind the listener.
pub(crate) struct Doors {
    store: Arc<ClusterStore>,
    router: Router,
    /// What a witness may ask.
    witness_router: Router,
    join: Option<JoinDoor>,
    /// TLS for members only, and with strangers; made once per identity.
    configs: Mutex<Option<Configs>>,
}

struct Configs {
    identity: Arc<Identity>,
    members_only: Arc<ServerConfig>,
    with_strangers: Arc<ServerConfig>,
}

impl Doors {
    pub fn new(store: Arc<ClusterStore>, router: Router, join: Option<JoinDoor>) -> Self {
        let witness_router = crate::cluster_config::witness_routes(Arc::clone(&store));
        Self { store, router, witness_router, join, configs: Mutex::new(None) }
    }

    fn config(&self, cluster: &Cluster) -> Result<Arc<ServerConfig>, TlsError> {
        let strangers = self.join.as_ref().is_some_and(|join| (join.is_open)());
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *configs {
            Some(made) if Arc::ptr_eq(&made.identity, &cluster.identity) => made,
            old => old.insert(Configs {
                identity: Arc::clone(&cluster.identity),
                members_only: tls::server_config(&cluster.identity, false)?,
                with_strangers: tls::server_config(&cluster.identity, true)?,
            }),
        };
        Ok(Arc::clone(if strangers { &made.with_strangers } else { &made.members_only }))
    }
}

/// Serves one connection to its end. Whatever goes wrong concerns this client only.
pub(crate) async fn serve(
    stream: TcpStream,
    source: IpAddr,
    tenants: Arc<Vec<Tenant>>,
    seat: StrangerSeat,
    mut stopped: watch::Receiver<bool>,
) {
    let work = async {
        let evicted = Arc::clone(&seat.evicted);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_WITHIN, handshake(stream, &tenants)) => accepted,
            () = evicted.notified() => return,
        };
        let (stream, Tenant { doors, seats, cluster }, present) = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return tracing::debug!(%source, %error, "TLS handshake refused"),
            Err(_) => return tracing::debug!(%source, "TLS handshake took too long"),
        };
        match caller(&stream, &present) {
            Who::Member(peer) => {
                drop(seat);
                let Some(_seat) = seats.member(peer.node) else {
                    return tracing::debug!(peer = %peer.name, "too many connections of one member");
                };
                if let Err(error) = doors.store.confirm(peer.node) {
                    tracing::debug!(%error, "cannot note that a member was heard");
                }
                let router = if peer.role == PeerRole::Node { &doors.router } else { &doors.witness_router };
                member(stream, peer, router.clone(), cluster).await;
            }
            Who::Stranger(binding) => {
                let Some(join) = &doors.join else { return };
                tokio::select! {
                    () = stranger(stream, Stranger { source, binding }, join.router.clone()) => {}
                    () = evicted.notified() => {}
                }
            }
            Who::Nobody => {
                tracing::debug!(%source, "a certificate of this cluster that is on no list of members");
                tokio::select! {
                    () = nobody(stream) => {}
                    () = evicted.notified() => {}
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn handshake(
    stream: TcpStream,
    tenants: &[Tenant],
) -> std::io::Result<(TlsStream<TcpStream>, Tenant, Arc<Cluster>)> {
    tune(&stream);
    let nobody = || std::io::Error::other("this machine belongs to no cluster");
    if let [tenant] = tenants {
        let present = tenant.cluster.borrow().clone().ok_or_else(nobody)?;
        let config = tenant.doors.config(&present).map_err(std::io::Error::other)?;
        return Ok((TlsAcceptor::from(config).accept(stream).await?, tenant.clone(), present));
    }
    // Several clusters behind one port: the caller's first words name the member it wants, and with it the cluster. They prove nothing;
    // the certificates of that cluster do.
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let asked = hello.client_hello().server_name().map(str::to_string);
    let meant = tenants.iter().find_map(|tenant| {
        let present = tenant.cluster.borrow().clone()?;
        let own = present.identity.dns_name_of(&present.identity.name);
        (Some(own) == asked).then_some((tenant, present))
    });
    let (tenant, present) = meant.ok_or_else(nobody)?;
    let config = tenant.doors.config(&present).map_err(std::io::Error::other)?;
    Ok((hello.into_stream(config).await?, tenant.clone(), present))
}

/// Socket options of both directions: small messages at once, and no connection to a dead machine lives long.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set options of a connection");
    }
}

enum Who {
    Member(Peer),
    Stranger([u8; 32]),
    Nobody,
}

fn caller(stream: &TlsStream<TcpStream>, cluster: &Cluster) -> Who {
    let (_, tls) = stream.get_ref();
    match tls.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => match super::tls::member_of(&cluster.identity, cluster.others(), certificate) {
            Some(peer) => Who::Member(peer),
            None => Who::Nobody,
        },
        None => match tls.export_keying_material([0; 32], BINDING_LABEL, None) {
            Ok(binding) => Who::Stranger(binding),
            // Cannot happen after a finished handshake; nothing is reachable then.
            Err(_) => Who::Nobody,
        },
    }
}

async fn member(stream: TlsStream<TcpStream>, peer: Peer, router: Router, mut cluster: ClusterWatch) {
    let known = peer.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Caller::Node(peer.name.clone()));
        answer(router.clone(), request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let still_member = |cluster: &Option<Arc<Cluster>>| {
        cluster.as_ref().is_some_and(|cluster| {
            cluster.applied.members.iter().any(|member| member.id == known.node && member.name == known.name)
        })
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(peer = %known.name, %error, "a member's connection ended badly");
        },
        _ = cluster.wait_for(|cluster| !still_member(cluster)) => {
            tracing::info!(peer = %known.name, "no longer a member: connection closed");
        }
    }
}

async fn stranger(stream: TlsStream<TcpStream>, stranger: Stranger, router: Router) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(stranger.clone());
        answer(router.clone(), request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(STRANGER_HEADERS_WITHIN)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if !matches!(tokio::time::timeout(STRANGER_LIFE, connection).await, Ok(Ok(()))) {
        tracing::debug!("a joining machine's connection ended badly");
    }
}

/// A machine of this cluster's authority that may not call here gets one answer: why.
async fn nobody(stream: TlsStream<TcpStream>) {
    // Not an async closure: with one here, rustc 1.95 breaks its own incremental builds of this crate.
    let service = service_fn(|_: hyper::Request<Incoming>| {
        let problem = Problem::new(
            Code::NotMember,
            "this member may not call here",
            "by the configuration in force here its certificate belongs to no node of the cluster",
        )
        .with_help("stead cluster confinfo shows whether all nodes have the same configuration");
        std::future::ready(Ok::<_, Infallible>(Reply::<()>(Err(problem)).into_response()))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(STRANGER_HEADERS_WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(STRANGER_HEADERS_WITHIN, connection).await;
}

async fn answer(router: Router, request: hyper::Request<Incoming>) -> Result<axum::response::Response, Infallible> {
    router.oneshot(request.map(|body| Body::new(Patient::new(body)))).await
}
