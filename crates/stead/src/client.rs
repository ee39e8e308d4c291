//! One request to the agent of this machine: HTTP/1.1 over its Unix socket, within a deadline.
//!
//! Never interprets an answer beyond JSON or bytes. **Invariant:** whatever answers (nobody, garbage, too slowly, too
//! much), the result is a [`Problem`] that says so.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::NodeName;
use model::api::{BODY_MAX, Code, PACKAGE_MAX, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Deadline of a look.
pub const LOOK: Duration = Duration::from_secs(5);
/// Deadline of a command, beyond the waiting it asks for.
pub const COMMAND: Duration = Duration::from_secs(20);
/// Deadline of a change on all nodes: each may run two scripts of the module.
pub const CHANGE: Duration = Duration::from_secs(120);

/// Talks to the agent, about this node or through it about another.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Option<Duration>,
    node: Option<NodeName>,
}

impl Client {
    /// A client of the agent behind `socket`; `deadline` replaces those of the calls.
    pub fn new(socket: &Path, deadline: Option<Duration>) -> Self {
        Self { socket: socket.into(), deadline, node: None }
    }

    /// The same, for another node through this one's agent.
    pub fn on(&self, node: NodeName) -> Self {
        Self { node: Some(node), ..self.clone() }
    }

    /// The same, no more patient than this.
    pub fn within(&self, deadline: Duration) -> Self {
        Self { deadline: Some(self.deadline.map_or(deadline, |own| own.min(deadline))), ..self.clone() }
    }

    /// `GET` of JSON. `path` comes after `/v1/`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.json("GET", path, Vec::new(), LOOK).await
    }

    /// The same, more patiently.
    pub async fn get_within<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, Problem> {
        self.json("GET", path, Vec::new(), within).await
    }

    /// `GET` of bytes.
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Problem> {
        self.call("GET", path, Vec::new(), CHANGE, PACKAGE_MAX).await
    }

    /// `POST` of JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::new(Code::Internal, "cannot write the request", error.to_string()))?;
        self.json("POST", path, body, within).await
    }

    /// `POST` of bytes.
    pub async fn upload<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Problem> {
        self.json("POST", path, body, CHANGE).await
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.json("DELETE", path, Vec::new(), CHANGE).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<T, Problem> {
        let answer = self.call(method, path, body, within, BODY_MAX).await?;
        serde_json::from_slice(&answer).map_err(|error| self.nonsense(error.to_string()))
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        within: Duration,
        most: usize,
    ) -> Result<Vec<u8>, Problem> {
        let path = match &self.node {
            Some(node) => format!("/v1/nodes/{node}/{path}"),
            None => format!("/v1/{path}"),
        };
        let within = self.deadline.unwrap_or(within);
        match tokio::time::timeout(within, self.exchange(method, &path, body, most)).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::new(
                Code::Timeout,
                format!("the agent did not answer {method} {path} within {} s", within.as_secs_f64()),
                "it is stopped, overloaded, or waits for something itself",
            )
            .with_help("stead log -v; a longer wait: --deadline SECONDS")),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: Vec<u8>, most: usize) -> Result<Vec<u8>, Problem> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_agent(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.nonsense(chain(&error)))?;
        // Ends with the exchange: both live on the same runtime, and dropping the sender closes it.
        let connection = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "stead")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Problem::new(Code::Invalid, format!("cannot ask for {path}"), error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| if has_hung_up(&error) { hung_up(method, path) } else { self.nonsense(chain(&error)) })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), most)
            .collect()
            .await
            .map_err(|error| self.nonsense(chain(error.as_ref())))?
            .to_bytes();
        connection.abort();
        if status.is_success() {
            return Ok(body.into());
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(problem),
            Err(_) => Err(self.nonsense(format!("HTTP {status} without an explanation"))),
        }
    }

    fn no_agent(&self, error: &std::io::Error) -> Problem {
        let socket = self.socket.display();
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Problem::new(Code::Forbidden, format!("cannot open {socket}"), "only root may talk to the agent")
                .with_help("sudo stead …");
        }
        Problem::new(Code::NoAgent, "no agent answers on this machine", format!("{socket}: {error}"))
            .with_help("systemctl start stead (or, in the foreground: stead agent)")
    }

    fn nonsense(&self, why: String) -> Problem {
        Problem::new(
            Code::Internal,
            format!(
                "what answers on {} does not speak the API of stead {}",
                self.socket.display(),
                env!("CARGO_PKG_VERSION")
            ),
            why,
        )
        .with_help("compare the versions: stead level, stead --version; which process: ss -lxp")
    }
}

/// Was the connection closed before there was any answer?
fn has_hung_up(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || cause.is_some_and(|cause| matches!(cause.kind(), ConnectionReset | BrokenPipe))
}

fn hung_up(method: &str, path: &str) -> Problem {
    let why = match method {
        "GET" => "it was stopped or restarted, or it died",
        _ => "it was stopped or restarted, or it died: what was asked may have been done, or not",
    };
    Problem::new(Code::Unreachable, format!("the agent ended before it answered {method} {path}"), why)
        .with_help("stead state shows where things stand; systemctl status stead")
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
