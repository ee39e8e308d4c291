//! Agents' network side in one process, each on a loopback address of its own (every 127.x.y.z is ours to bind).

#![allow(dead_code, reason = "each test file uses its part")]

use agent::api::Caller;
use agent::cluster_config::{Applier, ClusterStore, routes};
use agent::pairing::Pairing;
use agent::places::Places;
use agent::transport::{API_PORT, CallError, PeerClient, Serve, Server};
use axum::routing::{get, post};
use axum::{Extension, Router};
use model::NodeName;
use model::api::{InitRequest, JoinAnswer, JoinRequest, Problem};
use std::sync::Arc;
use std::time::Duration;

pub struct Node {
    pub dir: tempfile::TempDir,
    pub addr: String,
    pub store: Arc<ClusterStore>,
    pub applier: Applier,
    pub pairing: Pairing,
    pub client: PeerClient,
    pub server: Option<Server>,
}

pub fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a valid name")
}

impl Node {
    pub fn new(addr: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::at(dir, addr)
    }

    pub fn at(dir: tempfile::TempDir, addr: &str) -> Self {
        let places = Places::below(dir.path());
        let store = ClusterStore::open(places.clone()).expect("files that can be read");
        let client = PeerClient::new(store.watch());
        let applier = Applier::new(Arc::clone(&store), client.clone());
        let pairing = Pairing::new(Arc::clone(&store), applier.clone());
        let router = Router::new()
            .route("/v1/whoami", get(async |Extension(caller): Extension<Caller>| axum::Json(caller.to_string())))
            .route("/v1/length", post(async |body: axum::body::Bytes| axum::Json(body.len())))
            .merge(routes(applier.clone()));
        let serve = Serve { port: API_PORT, router, join: Some(pairing.join_door()) };
        let server = Server::start(&places, &store, serve).expect("a socket");
        Self { dir, addr: addr.into(), store, applier, pairing, client, server: Some(server) }
    }

    pub async fn init(&self, node: &str) -> String {
        let request = InitRequest { name: name(node), addrs: vec![self.addr.clone()] };
        let answer = self.pairing.init(request).await.expect("a cluster");
        self.listening().await;
        answer.token.token
    }

    pub fn join_request(&self, at: &str, token: &str, node: &str) -> JoinRequest {
        JoinRequest {
            addr: at.into(),
            token: token.into(),
            name: Some(name(node)),
            addrs: vec![self.addr.clone()],
            witness: false,
        }
    }

    pub async fn join(&self, at: &str, token: &str, node: &str) -> Result<JoinAnswer, Problem> {
        let answer = self.pairing.join(self.join_request(at, token, node)).await?;
        self.listening().await;
        Ok(answer)
    }

    /// Waits until the port accepts.
    pub async fn listening(&self) {
        let addr = format!("{}:{API_PORT}", self.addr);
        eventually("the port to accept", async || tokio::net::TcpStream::connect(&addr).await.is_ok()).await;
    }

    pub async fn whoami_at(&self, node: &str) -> Result<String, CallError> {
        self.client.call::<(), String>(&name(node), "GET", "/v1/whoami", None, Duration::from_secs(3)).await
    }
}

/// Two paired nodes.
pub async fn pair(addr1: &str, addr2: &str) -> (Node, Node) {
    let (one, two) = (Node::new(addr1), Node::new(addr2));
    let token = one.init("node1").await;
    two.join(addr1, &token, "node2").await.expect("node2 joins");
    (one, two)
}

/// Waits for a condition, ten seconds at most.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited 10 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
