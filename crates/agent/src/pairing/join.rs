//! The new machine's side of a join.
//!
//! **Invariant:** it says nothing before the server has shown the authority that the token names, and stores nothing
//! before the server has proven the token.

use super::addresses;
use super::init::{Pairing, certificate_problem, disk, named_addr};
use super::messages::{Conversation, Done, Enter, EnterAnswer, Hello, HelloAnswer, JOIN_VERSION, Sealed, Step};
use super::token::Token;
use crate::api::Answer;
use crate::cluster_config::causes;
use crate::identity::{Identity, NodeKey, from_hex, random, to_hex};
use crate::transport::{API_PORT, BINDING_LABEL, PeerRole, cause, tls, tune};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use model::NodeName;
use model::api::{Code, JoinAnswer, JoinRequest, Problem};
use platform::clock::wall_ms;
use platform::net::Address;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// TCP and TLS.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// One answer; entering waits for the other members.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Largest answer.
const ANSWER_MAX: usize = 1024 * 1024;
/// Clocks further apart than this are worth a warning.
const SKEW_WARNED_MS: u64 = 60_000;

const WHAT: &str = "cannot join the cluster";

impl Pairing {
    /// Enters the cluster of the machine at `request.addr`.
    ///
    /// # Errors
    /// Says what is wrong with token, name, addresses or reachability, and what to do. Then nothing was stored here.
    pub async fn join(&self, request: JoinRequest) -> Answer<JoinAnswer> {
        let _entering = self.0.entering.lock().await;
        self.not_in_a_cluster(WHAT)?;
        let token: Token = request.token.parse().map_err(|error: super::TokenError| {
            Problem::new(Code::Invalid, WHAT, format!("this is not a join token: {error}"))
                .with_help("copy the whole token again, or make another on a node of the cluster: stead cluster token")
        })?;
        let server = server_addr(&request.addr)?;
        let name = match request.name {
            Some(name) => name,
            None => host_name()?,
        };
        let explicit = request.addrs.iter().map(|text| named_addr(WHAT, text)).collect::<Answer<Vec<_>>>()?;
        for (_, addr) in &explicit {
            if !addresses::is_local(*addr) {
                return Err(Problem::new(Code::Invalid, WHAT, format!("{addr} is not an address of this machine"))
                    .with_help("see its addresses with: ip address"));
            }
        }
        let key = NodeKey::create().map_err(|error| certificate_problem(WHAT, &error))?;

        let mut channel = Channel::open(server, &token).await?;
        let nonce: [u8; 32] = random();
        let mut hello = channel.conversation.seal(&token.key(), Step::Hello, &Hello { nonce: to_hex(&nonce) });
        hello.token_id = to_hex(&token.id());
        channel.conversation.nonces = nonce.to_vec();
        let greeted: HelloAnswer = channel.ask("/v1/join/hello", &hello, Step::HelloAnswer, &token).await?;
        let theirs = from_hex::<32>(&greeted.nonce).ok_or_else(|| not_proven(server))?;
        channel.conversation.nonces.extend(theirs);

        let addrs = if request.witness {
            let addr = match explicit.first() {
                Some((_, addr)) => *addr,
                None => channel.own_addr,
            };
            vec![(String::new(), addr)]
        } else if explicit.is_empty() {
            automatic(&greeted, &own().await?)?
        } else {
            assigned(&greeted, explicit, &own().await?)?
        };
        let enter = Enter {
            name: name.clone(),
            addrs,
            witness: request.witness,
            replace: request.replace,
            request: to_hex(&key.request),
            now_unix_ms: wall_ms(),
        };
        let enter = channel.conversation.seal(&token.key(), Step::Enter, &enter);
        let entered: EnterAnswer = channel.ask("/v1/join/enter", &enter, Step::EnterAnswer, &token).await?;

        let warnings = clock_warning(&greeted.node, wall_ms(), entered.now_unix_ms);
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let role = if request.witness { PeerRole::Witness } else { PeerRole::Node };
        let secret = match &entered.secret {
            Some(secret) => from_hex(secret).ok_or_else(|| not_proven(server))?,
            None => random(),
        };
        let identity = Identity::new(
            entered.cluster,
            entered.node,
            name.clone(),
            role,
            entered.ca_pem,
            entered.ca_key_pem,
            entered.certificate_pem,
            key.pem,
            secret,
        );
        let members = entered.applied.members.iter().map(|member| member.name.clone()).collect();
        self.0.store.enter(identity, entered.applied.all_confirmed()).map_err(|error| disk(WHAT, &error))?;
        tracing::info!(node = %name, cluster = format!("{:016x}", entered.cluster.0), "joined the cluster");
        let done = channel.conversation.seal(&token.key(), Step::Done, &Done { node: entered.node });
        // It is on disk here: if this last word is lost, our first call as a member says the same.
        if let Err(problem) = channel.ask::<Done>("/v1/join/done", &done, Step::DoneAnswer, &token).await {
            tracing::debug!(%problem, "the last word of joining was not heard");
        }
        Ok(JoinAnswer { cluster: entered.cluster, node: name, members, modules: Vec::new(), warnings })
    }
}

struct Channel {
    server: SocketAddr,
    own_addr: IpAddr,
    sender: SendRequest<Full<Bytes>>,
    connection: Option<JoinHandle<Result<(), hyper::Error>>>,
    conversation: Conversation,
}

impl Channel {
    async fn open(server: SocketAddr, token: &Token) -> Answer<Self> {
        let unreachable = |why: String| {
            Problem::new(Code::Unreachable, WHAT, format!("no agent answers at {} on TCP port {}: {why}", server.ip(), server.port()))
                .with_help(format!(
                    "is the address right, does the agent run there (systemctl status stead), is it in a cluster, is port {} open?",
                    server.port()
                ))
        };
        let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(server)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("nothing within {} s", CONNECT_WITHIN.as_secs()))),
        };
        tune(&stream);
        let own_addr = stream.local_addr().map_err(|error| unreachable(error.to_string()))?.ip();
        let config =
            tls::joiner_config(token.clone()).map_err(|error| Problem::new(Code::Internal, WHAT, error.to_string()))?;
        let connecting = TlsConnector::from(config).connect(ServerName::from(server.ip()), stream);
        let stream = match timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(refused_by_tls(server, &error).unwrap_or_else(|| unreachable(error.to_string())));
            }
            Err(_) => return Err(unreachable("it accepts connections and says nothing".into())),
        };
        let (_, tls) = stream.get_ref();
        let certificates: Vec<CertificateDer<'static>> = tls.peer_certificates().unwrap_or_default().to_vec();
        let ca =
            certificates.iter().find(|certificate| token.is_of(certificate)).ok_or_else(|| other_cluster(server))?;
        let server_der = certificates.first().ok_or_else(|| other_cluster(server))?;
        let conversation = Conversation {
            binding: tls
                .export_keying_material([0; 32], BINDING_LABEL, None)
                .map_err(|error| Problem::new(Code::Internal, WHAT, error.to_string()))?,
            ca_der: ca.to_vec(),
            server_der: server_der.to_vec(),
            nonces: Vec::new(),
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        Ok(Self { server, own_addr, sender, connection: Some(tokio::spawn(connection)), conversation })
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        path: &str,
        sealed: &Sealed,
        step: Step,
        token: &Token,
    ) -> Answer<T> {
        let server = self.server;
        let broken = |why: String| {
            Problem::new(Code::Unreachable, WHAT, format!("the connection to {server} broke: {why}"))
                .with_help("run the command again")
        };
        let body = serde_json::to_vec(sealed).expect("plain data becomes JSON");
        let request = Request::post(path)
            .header(header::HOST, "stead")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(error.to_string()))?;
        let answer = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = match timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let error = match self.connection.take() {
                    Some(connection) => cause(error, connection).await,
                    None => error,
                };
                return Err(refused_by_tls(server, &error).unwrap_or_else(|| broken(causes(&error))));
            }
            Err(_) => return Err(broken("no answer in time".into())),
        };
        let status = response.status();
        let body = match timeout(ANSWER_WITHIN, Limited::new(response.into_body(), ANSWER_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(broken(error.to_string())),
            Err(_) => return Err(broken("no answer in time".into())),
        };
        if !status.is_success() {
            return Err(serde_json::from_slice::<Problem>(&body)
                .unwrap_or_else(|_| broken(format!("it answered HTTP {status}"))));
        }
        let sealed: Sealed = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
        if sealed.version != JOIN_VERSION {
            return Err(Problem::new(Code::Refused, WHAT, "the node speaks another version of joining")
                .with_help("install the same version of stead on both"));
        }
        self.conversation.open(&token.key(), step, &sealed).ok_or_else(|| not_proven(server))
    }
}

/// Nothing of the cluster depends on wall clocks, people who compare logs do.
fn clock_warning(node: &NodeName, here: u64, there: u64) -> Vec<String> {
    if here.abs_diff(there) <= SKEW_WARNED_MS {
        return Vec::new();
    }
    let (seconds, side) = (here.abs_diff(there) / 1000, if here > there { "ahead of" } else { "behind" });
    vec![format!(
        "the clock of this machine is {seconds} s {side} {node}'s: nothing of the cluster depends on it, but logs are hard to compare (timedatectl set-ntp true)"
    )]
}

async fn own() -> Answer<Vec<Address>> {
    addresses::own().await.map_err(|error| Problem::new(Code::Internal, WHAT, causes(&error)))
}

/// The node's address on each network decides ours.
fn automatic(greeted: &HelloAnswer, own: &[Address]) -> Answer<Vec<(String, IpAddr)>> {
    greeted
        .lans
        .iter()
        .map(|(lan, theirs)| match addresses::in_subnet_of(own, *theirs) {
            Some(own) => Ok((lan.clone(), own)),
            None => Err(Problem::new(
                Code::Refused,
                WHAT,
                format!(
                    "no address of this machine is in the subnet of {theirs}, which is {}'s on network {lan}",
                    greeted.node
                ),
            )
            .with_help(format!("say which address it has on each network it is on: --addr {lan}=ADDRESS"))),
        })
        .collect()
}

/// Addresses with a network's name go there; the others by subnet, else in the order of the networks.
fn assigned(
    greeted: &HelloAnswer,
    explicit: Vec<(Option<String>, IpAddr)>,
    own: &[Address],
) -> Answer<Vec<(String, IpAddr)>> {
    let mut assigned: Vec<(String, IpAddr)> = Vec::new();
    for (lan, addr) in explicit {
        let free = |lan: &String| assigned.iter().all(|(other, _)| other != lan);
        let lan = match lan {
            Some(lan) => lan,
            None => {
                let mut lans = greeted.lans.iter().filter(|(lan, _)| free(lan));
                let by_subnet = lans.clone().find(|(_, theirs)| addresses::in_subnet_of(own, *theirs) == Some(addr));
                by_subnet.or_else(|| lans.next()).map(|(lan, _)| lan.clone()).ok_or_else(|| {
                    Problem::new(
                        Code::Invalid,
                        WHAT,
                        format!("{addr} is one address more than {} has networks", greeted.node),
                    )
                    .with_help("give one address for each network: --addr NETWORK=ADDRESS")
                })?
            }
        };
        if !free(&lan) {
            return Err(Problem::new(Code::Invalid, WHAT, format!("two addresses were given for network {lan}")));
        }
        assigned.push((lan, addr));
    }
    Ok(assigned)
}

fn server_addr(text: &str) -> Answer<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(addr), _) => Ok(SocketAddr::new(addr, API_PORT)),
        (_, Ok(addr)) => Ok(addr),
        _ => Err(Problem::new(Code::Invalid, WHAT, format!("'{text}' is not the address of a machine"))
            .with_help("stead cluster join ADDRESS --token TOKEN, with an address of a node of the cluster")),
    }
}

fn host_name() -> Answer<NodeName> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    NodeName::new(&name).map_err(|error| {
        Problem::new(
            Code::Invalid,
            WHAT,
            format!("this machine's host name cannot be its name in the cluster: {error}"),
        )
        .with_help("give one with --name")
    })
}

fn other_cluster(server: SocketAddr) -> Problem {
    Problem::new(
        Code::Unauthenticated,
        WHAT,
        format!(
            "the machine at {server} does not belong to the cluster this token was made in, or somebody stands between"
        ),
    )
    .with_help("make a token on the very node you join at: stead cluster token there")
}

fn not_proven(server: SocketAddr) -> Problem {
    Problem::new(
        Code::Unauthenticated,
        WHAT,
        format!("the machine at {server} could not prove that it knows the token"),
    )
    .with_help("do not join there; make another token on a node you trust: stead cluster token")
}

fn refused_by_tls(server: SocketAddr, error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    let problem = match tls::rustls_error(error)? {
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => Problem::new(
            Code::Unauthenticated,
            WHAT,
            format!("the node at {server} lets nobody in now: no join token is open there (expired, used, or made on another node)"),
        )
        .with_help("make one on that node: stead cluster token"),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => other_cluster(server),
        rustls::Error::InvalidMessage(_) => Problem::new(
            Code::Unreachable,
            WHAT,
            format!("what answers at {} on TCP port {} is not a stead agent", server.ip(), server.port()),
        )
        .with_help("is the address right?"),
        other => Problem::new(Code::Unreachable, WHAT, format!("the node at {server} refused the connection: {other}"))
            .with_help("compare the versions: stead --version on both machines"),
    };
    Some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_far_apart_are_told_and_refuse_nothing() {
        let node = NodeName::new("node1").expect("a name");
        assert!(clock_warning(&node, 1_000_000, 1_050_000).is_empty());
        let warned = clock_warning(&node, 1_000_000, 8_200_000);
        assert!(warned[0].contains("7200 s behind node1's"), "{warned:?}");
    }
}
