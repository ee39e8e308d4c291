//! `stead cluster init` and `stead cluster token`, and what pairing keeps.

use super::addresses;
use super::messages::Conversation;
use super::token::Token;
use super::tokens::{Now, TOKEN_LIFE, Tokens};
use crate::api::Answer;
use crate::cluster_config::{Applied, Applier, ClusterStore, Member, causes, first_configuration};
use crate::identity::{Authority, CertificateError, Identity, IdentityFiles, NodeKey, fingerprint_of_pem, random};
use crate::places::Places;
use crate::transport::{JoinDoor, PeerRole};
use model::api::{Code, InitAnswer, InitRequest, Problem, TokenAnswer};
use model::{ClusterId, NodeId, NodeName};
use platform::clock::wall_ms;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Makes a cluster, gives out tokens, lets machines in, enters. Cheap to clone.
#[derive(Clone)]
pub struct Pairing(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Arc<ClusterStore>,
    pub applier: Applier,
    pub tokens: Tokens,
    /// Machines that have proven a token and not entered yet, by TLS channel.
    pub greeted: Mutex<HashMap<[u8; 32], Greeted>>,
    /// One machine enters (or this one does) at a time.
    pub entering: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
pub(super) struct Greeted {
    pub at: Instant,
    pub token_id: String,
    pub key: [u8; 32],
    pub conversation: Conversation,
    /// Set when it has entered.
    pub node: Option<NodeId>,
}

impl Pairing {
    /// Over the node's files; `applier` tells the other members of a newcomer.
    #[must_use]
    pub fn new(store: Arc<ClusterStore>, applier: Applier) -> Self {
        let tokens = Tokens::open(store.places());
        Self(Arc::new(Inner {
            store,
            applier,
            tokens,
            greeted: Mutex::default(),
            entering: tokio::sync::Mutex::new(()),
        }))
    }

    /// What [`crate::transport::Server`] needs to let strangers reach the join endpoint, and only while a token is open.
    #[must_use]
    pub fn join_door(&self) -> JoinDoor {
        let pairing = self.clone();
        JoinDoor { is_open: Arc::new(move || pairing.0.tokens.any_open()), router: super::admit::routes(self.clone()) }
    }

    /// Makes a cluster of this one node, and the first join token.
    ///
    /// # Errors
    /// Already in a cluster; a name or an address that cannot be; the disk. Then nothing has changed.
    pub async fn init(&self, request: InitRequest) -> Answer<InitAnswer> {
        let what = "no cluster was made";
        let _entering = self.0.entering.lock().await;
        self.not_in_a_cluster(what)?;
        let lans = lans(what, &request.addrs)?;
        for (_, addr) in &lans {
            if !addresses::is_local(*addr) {
                return Err(Problem::new(Code::Invalid, what, format!("{addr} is not an address of this machine"))
                    .with_help("see its addresses with: ip address"));
            }
        }
        let failed = |error: CertificateError| certificate_problem(what, &error);
        let cluster = ClusterId(u64::from_be_bytes(random()));
        let (authority, ca_key_pem) = Authority::create(cluster).map_err(failed)?;
        let key = NodeKey::create().map_err(failed)?;
        let node = NodeId(1);
        let certificate_pem =
            authority.sign(&key.request, cluster, node, &request.name, PeerRole::Node).map_err(failed)?;
        let own = Member {
            id: node,
            name: request.name.clone(),
            role: PeerRole::Node,
            confirmed: true,
            certificate: Some(fingerprint_of_pem(&certificate_pem).map_err(failed)?),
        };
        let identity = Identity::new(
            cluster,
            node,
            request.name.clone(),
            PeerRole::Node,
            authority.pem().to_owned(),
            Some(ca_key_pem),
            certificate_pem,
            key.pem,
            random(),
        );
        let applied = Applied {
            version: crate::cluster_config::APPLIED_VERSION,
            applied_unix_ms: wall_ms(),
            by: request.name.clone(),
            next_node: 2,
            members: vec![own],
            names: Default::default(),
            xml: first_configuration(&request.name, &lans),
        };
        self.0.store.enter(identity, applied).map_err(|error| disk(what, &error))?;
        tracing::info!(node = %request.name, cluster = format!("{:016x}", cluster.0), "cluster made");
        Ok(InitAnswer { cluster, node: request.name, token: self.token()? })
    }

    /// Another join token, good for an hour and one machine.
    ///
    /// # Errors
    /// This machine belongs to no cluster, or is its witness; the disk.
    pub fn token(&self) -> Answer<TokenAnswer> {
        let what = "no join token was made";
        let cluster = self.0.store.current().ok_or_else(|| {
            Problem::new(Code::Refused, what, "this machine belongs to no cluster")
                .with_help("stead cluster init --name NODE --addr ADDRESS makes one")
        })?;
        let Some(ca_key) = &cluster.identity.ca_key_pem else {
            return Err(Problem::new(Code::Refused, what, "this machine is the witness")
                .with_help("run stead cluster token on a node"));
        };
        // Before a token is given away that nobody can use.
        Authority::load(&cluster.identity.ca_pem, ca_key)
            .map_err(|error| authority_problem(what, self.0.store.places(), ca_key, &error))?;
        let ca = CertificateDer::from_pem_slice(cluster.identity.ca_pem.as_bytes())
            .map_err(|error| Problem::new(Code::Internal, what, format!("ca.pem: {error}")))?;
        let token = Token::create(&ca);
        let now = Now::read();
        self.0.tokens.give(&token, &now).map_err(|error| disk(what, &error))?;
        Ok(TokenAnswer {
            token: token.to_string(),
            addrs: cluster.configuration.addrs_of(&cluster.identity.name).iter().map(ToString::to_string).collect(),
            expires_unix_ms: now.unix_ms + TOKEN_LIFE.as_millis() as u64,
        })
    }

    pub(super) fn not_in_a_cluster(&self, what: &str) -> Answer<()> {
        let Some(cluster) = self.0.store.current() else { return Ok(()) };
        let why = format!(
            "this machine is '{}' of cluster {:016x} already",
            cluster.identity.name, cluster.identity.cluster.0
        );
        Err(Problem::new(Code::Refused, what, why).with_help(
            "to let another machine in: stead cluster token; to leave this cluster for good: stop the agent, remove /etc/stead/cluster, start it",
        ))
    }
}

/// `IP` or `LAN=IP` each; those without a name become net1, net2, … by their place.
fn lans(what: &str, addrs: &[String]) -> Answer<Vec<(String, IpAddr)>> {
    if addrs.is_empty() {
        return Err(Problem::new(Code::Invalid, what, "no address was given")
            .with_help("stead cluster init --name NODE --addr ADDRESS [--addr ADDRESS_ON_A_SECOND_NETWORK]"));
    }
    let mut lans: Vec<(String, IpAddr)> = Vec::new();
    for (i, text) in addrs.iter().enumerate() {
        let (lan, addr) = named_addr(what, text)?;
        let lan = lan.unwrap_or_else(|| format!("net{}", i + 1));
        if lans.iter().any(|(other, _)| *other == lan) || NodeName::new(&lan).is_err() {
            return Err(Problem::new(Code::Invalid, what, format!("'{lan}' cannot name this network"))
                .with_help("give each address a network of its own: --addr net1=10.0.1.1 --addr net2=10.0.2.1"));
        }
        if lans.iter().any(|(_, other)| *other == addr) {
            return Err(Problem::new(Code::Invalid, what, format!("{addr} was given twice")));
        }
        lans.push((lan, addr));
    }
    Ok(lans)
}

/// `IP` or `LAN=IP`.
pub(super) fn named_addr(what: &str, text: &str) -> Answer<(Option<String>, IpAddr)> {
    let (lan, addr) = match text.split_once('=') {
        Some((lan, addr)) => (Some(lan.to_owned()), addr),
        None => (None, text),
    };
    let bare = addr.strip_prefix('[').and_then(|addr| addr.strip_suffix(']')).unwrap_or(addr);
    match bare.parse::<IpAddr>() {
        Ok(addr) if addr.is_loopback() => {
            Err(Problem::new(Code::Invalid, what, format!("no other machine reaches this one at {addr}"))
                .with_help("give the address it has on the network between the nodes: ip address"))
        }
        Ok(addr) if !addr.is_unspecified() && !addr.is_multicast() => Ok((lan, addr)),
        _ => Err(Problem::new(Code::Invalid, what, format!("'{text}' is not an address of a machine"))
            .with_help("an address is given as 10.0.1.1 or net1=10.0.1.1")),
    }
}

pub(super) fn certificate_problem(what: &str, error: &CertificateError) -> Problem {
    match error {
        CertificateError::Name(_) => {
            Problem::new(Code::Invalid, what, error.to_string()).with_help("give another name with --name")
        }
        _ => Problem::new(Code::Internal, what, causes(error)),
    }
}

/// The authority's key is the same on every node: what is wrong with this one's is mended by another's.
pub(super) fn authority_problem(what: &str, places: &Places, key: &str, error: &CertificateError) -> Problem {
    let path = IdentityFiles::of(places).ca_key;
    let why = if key.trim().is_empty() { "it is empty".to_string() } else { causes(error) };
    Problem::new(
        Code::Internal,
        what,
        format!("the key of the cluster's authority, {}, is damaged: {why}", path.display()),
    )
    .with_help(format!("copy {} from another node of this cluster, then systemctl restart stead", path.display()))
}

pub(super) fn disk(what: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(Code::Internal, what, causes(error)).with_help("is the disk full or read-only? df -h /etc /var/lib")
}
