//! Agents' network side in one process, each on an address of its own, in a network namespace that lives as long as the
//! test's thread (needs root). Every address of 10.0.0.0/8 is this machine's there, none of 192.0.2.0/24 is.

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
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Runs a test in a network of its own; threads and commands it starts are in it too.
pub fn in_network(test: impl Future<Output = ()>) {
    // SAFETY: only the network namespace of this thread changes; no descriptor or memory is affected.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("these tests need root");
    ip("link set lo up");
    ip("route add local 10.0.0.0/8 dev lo");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// `ip …`
pub fn ip(arguments: &str) {
    let done = std::process::Command::new("ip").args(arguments.split(' ')).status().expect("the program ip");
    assert!(done.success(), "ip {arguments}");
}

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
        let serve = || Serve { port: API_PORT, router: router.clone(), join: Some(pairing.join_door()) };
        let server = once_free(|| Server::start(&places, &store, serve()));
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
            replace: false,
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

/// Takes what is closed here, and what a child that another test starts may have for a moment: from its fork to its exec.
pub fn once_free<T, E: std::fmt::Display>(mut take: impl FnMut() -> Result<T, E>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match take() {
            Ok(taken) => return taken,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a condition, ten seconds at most.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited 10 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `stead witness`, without its process.
pub struct Witness {
    pub dir: tempfile::TempDir,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    pub async fn start(dir: tempfile::TempDir) -> Self {
        let places = Places::below(dir.path());
        let socket = places.agent_socket();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let run = agent::witness_server::run(places, async {
                let _ = stopped.await;
            });
            run.await.expect("the witness runs");
        });
        eventually("the witness's socket", async || tokio::net::UnixStream::connect(&socket).await.is_ok()).await;
        Self { dir, stop, task }
    }

    pub async fn stop(self) -> tempfile::TempDir {
        let _ = self.stop.send(());
        self.task.await.expect("it stops");
        self.dir
    }

    /// As the command line does it: JSON to the Unix socket.
    pub async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Problem> {
        let stream =
            tokio::net::UnixStream::connect(Places::below(self.dir.path()).agent_socket()).await.expect("the socket");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = hyper::Request::post(path)
            .header("host", "stead")
            .header("content-type", "application/json")
            .body(axum::body::Body::from(serde_json::to_vec(body).expect("JSON")))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&bytes).expect("the answer's JSON"));
        }
        Err(serde_json::from_slice(&bytes).expect("a problem's JSON"))
    }

    pub async fn join(&self, at: &str, token: &str, own: &str) -> Result<JoinAnswer, Problem> {
        self.join_as("witness", at, token, own, false).await
    }

    pub async fn join_as(
        &self,
        called: &str,
        at: &str,
        token: &str,
        own: &str,
        replace: bool,
    ) -> Result<JoinAnswer, Problem> {
        let request = JoinRequest {
            addr: at.into(),
            token: token.into(),
            name: Some(name(called)),
            addrs: vec![own.into()],
            witness: true,
            replace,
        };
        self.post("/v1/cluster/join", &request).await
    }
}
