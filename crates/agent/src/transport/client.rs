//! Calling another member: HTTP/1.1 over mutual TLS, one network after the other, every call with a deadline.
//!
//! **Invariant:** a request is sent at most once. It is repeated on another connection only when nothing of it can
//! have been executed; otherwise the caller is told that it may have been.

use super::seats::{PER_MEMBER, STRANGERS_PER_SOURCE};
use super::tls::{self, TlsError};
use super::{API_PORT, PeerRole, WITNESS_PORT, tune};
use crate::api::RawAnswer;
use crate::cluster_config::{Cluster, ClusterConfiguration, ClusterWatch, Member};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use model::NodeName;
use model::api::{Code, PACKAGE_MAX, Problem};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// One address may take this long to answer TCP and TLS before the next is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// An address that did not answer is tried after the others for this long.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// A kept connection is used again within this time. A machine that lost power says goodbye to nobody, and answers a question on
/// a connection of before with a reset, which does not tell whether it was done; it needs longer than this to come back.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Connections kept open per address.
const KEPT_PER_ADDR: usize = 2;
/// Calls to one member at a time; more wait their turn within their deadline. Below what a listener seats per member.
const CALLS_PER_MEMBER: usize = 16;
const _: () = assert!(CALLS_PER_MEMBER + KEPT_PER_ADDR <= PER_MEMBER && CALLS_PER_MEMBER < STRANGERS_PER_SOURCE);

/// A call that brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// This machine belongs to no cluster. State unchanged.
    #[error("this machine belongs to no cluster")]
    NotPaired,
    /// Not a member. State unchanged.
    #[error("'{0}' is not a member of the cluster")]
    NotMember(NodeName),
    /// The heartbeats say that it is silent: it was not asked. Nothing was executed; retry is safe.
    #[error("no heartbeat from {node} for {}", Lasted(.lasted))]
    Silent {
        /// Who.
        node: NodeName,
        /// How long by now.
        lasted: Duration,
    },
    /// No address answered. Nothing was executed; retry is safe.
    #[error("{node} does not answer ({})", Tried(.tried))]
    Unreachable {
        /// Who.
        node: NodeName,
        /// Every address tried, and what happened there.
        tried: Vec<(SocketAddr, String)>,
    },
    /// It answered, and one side refused the other's certificate. Nothing was executed.
    #[error("{node} at {addr} refused the connection: {reason}")]
    Tls {
        /// Who.
        node: NodeName,
        /// Where.
        addr: SocketAddr,
        /// What TLS says.
        reason: String,
    },
    /// The connection broke after the request was sent: it may have been executed.
    #[error("{node} was asked, and the connection broke before its answer: {reason}")]
    Lost {
        /// Who.
        node: NodeName,
        /// Why.
        reason: String,
    },
    /// No answer in time: it may have been executed.
    #[error("{node} did not answer within {} ms", .within.as_millis())]
    Timeout {
        /// Who.
        node: NodeName,
        /// The deadline.
        within: Duration,
    },
    /// It answered with a refusal.
    #[error("{node}: {problem}")]
    Refused {
        /// Who.
        node: NodeName,
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// Its answer makes no sense to this version.
    #[error("{node} gave an answer that makes no sense: {reason}")]
    Nonsense {
        /// Who.
        node: NodeName,
        /// What is wrong with it.
        reason: String,
    },
}

impl CallError {
    /// As the API passes it on; `what` is what was attempted.
    #[must_use]
    pub fn into_problem(self, what: impl Into<String>) -> Problem {
        let text = self.to_string();
        match self {
            Self::Refused { problem, .. } => problem,
            Self::NotPaired => {
                Problem::new(Code::Refused, what, text).with_help("stead cluster init, or stead cluster join")
            }
            Self::NotMember(_) => {
                Problem::new(Code::NotFound, what, text).with_help("stead cluster confinfo lists the members")
            }
            Self::Unreachable { node, .. } => Problem::new(Code::Unreachable, what, text).with_help(format!(
                "is the agent running on {node} (systemctl status stead), and is TCP {API_PORT} open between the nodes?"
            )),
            Self::Silent { node, .. } => Problem::new(Code::Unreachable, what, text).with_help(format!(
                "is {node} on, and does its agent run (there: systemctl status stead)? which networks are heard: stead level"
            )),
            Self::Tls { .. } => Problem::new(Code::Unreachable, what, text)
                .with_help("stead cluster confinfo shows whether both nodes have the same cluster"),
            Self::Timeout { .. } | Self::Lost { .. } => {
                Problem::new(Code::Timeout, what, text).with_help("look before you repeat it: stead state")
            }
            Self::Nonsense { .. } => Problem::new(Code::Unreachable, what, text)
                .with_help("compare the versions: stead --version on both nodes"),
        }
    }
}

struct Lasted<'a>(&'a Duration);
impl fmt::Display for Lasted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            s @ 0..120 => write!(f, "{s}.{} s", self.0.subsec_millis() / 100),
            s @ 120..7_200 => write!(f, "{} min", s / 60),
            s => write!(f, "{} h", s / 3_600),
        }
    }
}

struct Tried<'a>(&'a Vec<(SocketAddr, String)>);
impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it has no address in cluster.xml");
        }
        for (i, (addr, reason)) in self.0.iter().enumerate() {
            write!(f, "{}{addr}: {reason}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

type Sender = SendRequest<Full<Bytes>>;

#[derive(Default)]
struct Kept {
    identity: Option<(Arc<crate::identity::Identity>, Arc<ClientConfig>)>,
    idle: HashMap<(NodeName, SocketAddr), Vec<(Sender, Instant)>>,
    turns: HashMap<NodeName, Arc<Semaphore>>,
    /// Addresses that did not answer, and when: tried last for a while.
    silent: HashMap<(NodeName, SocketAddr), Instant>,
}

/// For how long a member has been silent; `None`: it is heard, or nobody knows.
pub type Silence = Box<dyn Fn(&NodeName) -> Option<Duration> + Send + Sync>;

/// Addresses of a member on networks where it is not heard now.
pub type Unheard = Box<dyn Fn(&NodeName) -> Vec<IpAddr> + Send + Sync>;

/// Calls members; cheap to clone, connections are shared.
#[derive(Clone)]
pub struct PeerClient {
    cluster: ClusterWatch,
    kept: Arc<Mutex<Kept>>,
    silence: Option<Arc<OnceLock<Silence>>>,
    unheard: Arc<OnceLock<Unheard>>,
    /// Addresses beside those of the configuration in force.
    also: Arc<[(NodeName, IpAddr)]>,
}

impl PeerClient {
    /// Follows the cluster for names and addresses.
    #[must_use]
    pub fn new(cluster: ClusterWatch) -> Self {
        Self {
            cluster,
            kept: Arc::default(),
            silence: Some(Arc::default()),
            unheard: Arc::default(),
            also: Arc::default(),
        }
    }

    /// From now on a member that is known to be silent is not asked: nobody waits for a machine without power.
    pub fn ask_first(&self, silence: Silence) {
        if let Some(asked) = &self.silence {
            // Set once, when the agent starts.
            let _ = asked.set(silence);
        }
    }

    /// From now on a network on which a member is not heard is tried last: a call on a connection that was cut waits its whole time.
    pub fn try_last(&self, unheard: Unheard) {
        // Set once, when the agent starts.
        let _ = self.unheard.set(unheard);
    }

    /// The same, and asks whoever is silent all the same.
    #[must_use]
    pub fn insisting(&self) -> Self {
        Self { silence: None, ..self.clone() }
    }

    /// The same, and finds members where other configurations have them too: one that a change leaves out, or takes in again.
    #[must_use]
    pub fn knowing(&self, configurations: &[&ClusterConfiguration], members: &[NodeName]) -> Self {
        let places = configurations.iter().flat_map(|it| {
            members.iter().flat_map(|name| it.addrs_of(name).into_iter().map(|addr| (name.clone(), addr)))
        });
        Self { also: places.collect(), ..self.clone() }
    }

    /// JSON in, JSON out. `path` begins with `/v1/`. `None` sends no body.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been executed.
    pub async fn call<Q: Serialize + ?Sized + Sync, A: DeserializeOwned>(
        &self,
        node: &NodeName,
        method: &str,
        path: &str,
        question: Option<&Q>,
        within: Duration,
    ) -> Result<A, CallError> {
        let body =
            question.map(serde_json::to_vec).transpose().map_err(|error| nonsense(node, error))?.unwrap_or_default();
        let answer = self.request(node, method, path, body, within).await?;
        if (200..300).contains(&answer.status) {
            return serde_json::from_slice(&answer.body).map_err(|error| nonsense(node, error));
        }
        let problem = serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
            Problem::new(
                Code::Unreachable,
                format!("{node} refused {method} {path}"),
                format!("it answered HTTP {}", answer.status),
            )
        });
        Err(CallError::Refused { node: node.clone(), status: answer.status, problem })
    }

    /// The answer as it came, whatever its status.
    ///
    /// # Errors
    /// [`CallError`], never `Refused`.
    pub async fn request(
        &self,
        node: &NodeName,
        method: &str,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<RawAnswer, CallError> {
        let until = Instant::now() + within;
        let late = |_| CallError::Timeout { node: node.clone(), within };
        let body = Bytes::from(body);
        // Only members get a queue: names come from outside.
        let cluster = self.cluster.borrow().clone().ok_or(CallError::NotPaired)?;
        cluster.applied.member(node).ok_or_else(|| CallError::NotMember(node.clone()))?;
        if let Some(lasted) = self.silence.as_ref().and_then(|silence| silence.get()).and_then(|silent| silent(node)) {
            return Err(CallError::Silent { node: node.clone(), lasted });
        }
        let turns = Arc::clone(
            self.kept().turns.entry(node.clone()).or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_MEMBER))),
        );
        let _turn = timeout_at(until, turns.acquire()).await.map_err(late)?;
        let (mut sender, key, response) = self.send(node, method, path, body, until).await?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("application/octet-stream")
            .to_owned();
        let whole = timeout_at(until, Limited::new(response.into_body(), PACKAGE_MAX).collect()).await.map_err(late)?;
        let body = whole.map_err(|error| CallError::Lost { node: node.clone(), reason: error.to_string() })?.to_bytes();
        // Kept only when the other side has not closed it.
        if timeout(Duration::from_millis(50), sender.ready()).await.is_ok_and(|ready| ready.is_ok()) {
            self.keep(key, sender);
        }
        Ok(RawAnswer { status, content_type, body: body.into() })
    }

    async fn send(
        &self,
        node: &NodeName,
        method: &str,
        path: &str,
        body: Bytes,
        until: Instant,
    ) -> Result<(Sender, (NodeName, SocketAddr), Response<Incoming>), CallError> {
        let cluster = self.cluster.borrow().clone().ok_or(CallError::NotPaired)?;
        let member = cluster.applied.member(node).ok_or_else(|| CallError::NotMember(node.clone()))?;
        let port = if member.role == PeerRole::Witness { WITNESS_PORT } else { API_PORT };
        let mut addrs: Vec<SocketAddr> =
            cluster.configuration.addrs_of(node).into_iter().map(|addr| SocketAddr::new(addr, port)).collect();
        for (_, addr) in self.also.iter().filter(|(name, _)| name == node) {
            let addr = SocketAddr::new(*addr, port);
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        let unheard = self.unheard.get().map(|unheard| unheard(node)).unwrap_or_default();
        addrs.sort_by_key(|addr| (unheard.contains(&addr.ip()), self.was_silent(node, *addr)));
        let config = self.config(&cluster).map_err(|error| nonsense(node, error))?;
        let name = ServerName::try_from(cluster.identity.dns_name_of(node)).map_err(|error| nonsense(node, error))?;
        let whom = Whom { name, identity: Arc::clone(&cluster.identity), member: member.clone() };
        let whole = until.saturating_duration_since(Instant::now());
        let request = || {
            Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, "stead")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
        };
        let mut tried = Vec::new();
        let mut refused = None;
        for (i, addr) in addrs.iter().enumerate() {
            let key = (node.clone(), *addr);
            // A kept connection may have died meanwhile: then nothing was sent, and a fresh one is tried.
            while let Some(mut sender) = self.idle(&key) {
                if sender.ready().await.is_err() {
                    continue;
                }
                match timeout_at(until, sender.try_send_request(request().map_err(|error| nonsense(node, error))?))
                    .await
                {
                    Ok(Ok(response)) => return Ok((sender, key, response)),
                    Ok(Err(mut error)) => match error.take_message() {
                        Some(_unsent) => {}
                        None => return Err(lost(node, *addr, error.into_error())),
                    },
                    Err(_) => {
                        self.heard(&key, false);
                        return Err(CallError::Timeout { node: node.clone(), within: whole });
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let share = (left / u32::try_from(addrs.len() - i).unwrap_or(1)).min(CONNECT_MAX);
            let (mut sender, connection) = match timeout(share, connect(*addr, &whom, Arc::clone(&config))).await {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) => {
                    if let Some(reason) = tls::rustls_error(&error) {
                        refused = Some((*addr, reason.to_string()));
                    }
                    tried.push((*addr, error.to_string()));
                    self.heard(&key, false);
                    continue;
                }
                Err(_) => {
                    tried.push((*addr, format!("no answer within {} ms", share.as_millis())));
                    self.heard(&key, false);
                    continue;
                }
            };
            return match timeout_at(until, sender.send_request(request().map_err(|error| nonsense(node, error))?)).await
            {
                Ok(Ok(response)) => {
                    self.heard(&key, true);
                    Ok((sender, key, response))
                }
                Ok(Err(error)) => Err(lost(node, *addr, cause(error, connection).await)),
                Err(_) => {
                    self.heard(&key, false);
                    Err(CallError::Timeout { node: node.clone(), within: whole })
                }
            };
        }
        match refused {
            Some((addr, reason)) => Err(CallError::Tls { node: node.clone(), addr, reason }),
            None => Err(CallError::Unreachable { node: node.clone(), tried }),
        }
    }

    fn was_silent(&self, node: &NodeName, addr: SocketAddr) -> bool {
        self.kept().silent.get(&(node.clone(), addr)).is_some_and(|since| since.elapsed() < SILENT_FOR)
    }

    /// Remembers whether an address answers; connections to a silent one are not used again.
    fn heard(&self, key: &(NodeName, SocketAddr), answered: bool) {
        let mut kept = self.kept();
        kept.silent.retain(|_, since| since.elapsed() < SILENT_FOR);
        if answered {
            kept.silent.remove(key);
        } else {
            kept.silent.insert(key.clone(), Instant::now());
            kept.idle.remove(key);
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self, key: &(NodeName, SocketAddr)) -> Option<Sender> {
        let mut kept = self.kept();
        let senders = kept.idle.get_mut(key)?;
        while let Some((sender, since)) = senders.pop() {
            if !sender.is_closed() && since.elapsed() < KEPT_FOR {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, key: (NodeName, SocketAddr), sender: Sender) {
        let mut kept = self.kept();
        let senders = kept.idle.entry(key).or_default();
        senders.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < KEPT_FOR);
        if senders.len() < KEPT_PER_ADDR {
            senders.push((sender, Instant::now()));
        }
    }

    fn config(&self, cluster: &Cluster) -> Result<Arc<ClientConfig>, TlsError> {
        let mut kept = self.kept();
        match &kept.identity {
            Some((identity, config)) if Arc::ptr_eq(identity, &cluster.identity) => Ok(Arc::clone(config)),
            _ => {
                let config = tls::client_config(&cluster.identity)?;
                kept.identity = Some((Arc::clone(&cluster.identity), Arc::clone(&config)));
                kept.idle.clear();
                Ok(config)
            }
        }
    }
}

type Connection = JoinHandle<Result<(), hyper::Error>>;

/// Who must answer.
struct Whom {
    name: ServerName<'static>,
    identity: Arc<crate::identity::Identity>,
    member: Member,
}

async fn connect(addr: SocketAddr, whom: &Whom, config: Arc<ClientConfig>) -> std::io::Result<(Sender, Connection)> {
    let stream = TcpStream::connect(addr).await?;
    tune(&stream);
    let stream = TlsConnector::from(config).connect(whom.name.clone(), stream).await?;
    // TLS has looked at the name. It may have been another machine's before; number and certificate were nobody else's.
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    if shown.and_then(|certificate| tls::member_of(&whom.identity, [&whom.member], certificate)).is_none() {
        let wrong = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, wrong));
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    Ok((sender, tokio::spawn(connection)))
}

/// Why a request failed: when the connection was lost before the request could leave, the connection knows.
pub(crate) async fn cause(error: hyper::Error, connection: Connection) -> hyper::Error {
    if tls::rustls_error(&error).is_some() {
        return error;
    }
    match timeout(Duration::from_millis(200), connection).await {
        Ok(Ok(Err(cause))) => cause,
        _ => error,
    }
}

fn lost(node: &NodeName, addr: SocketAddr, error: hyper::Error) -> CallError {
    match tls::rustls_error(&error) {
        Some(reason) => CallError::Tls { node: node.clone(), addr, reason: reason.to_string() },
        None => CallError::Lost { node: node.clone(), reason: crate::cluster_config::causes(&error) },
    }
}

fn nonsense(node: &NodeName, error: impl fmt::Display) -> CallError {
    CallError::Nonsense { node: node.clone(), reason: error.to_string() }
}
