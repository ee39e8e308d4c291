//! The doors: HTTP/1.1 on a connection that somebody has already authenticated.
//!
//! Bounded (I7): connections, header size and time, body size, life of an idle connection.

use super::backend::Caller;
use axum::Router;
use axum::extract::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections on the Unix socket at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection must have sent its request line and headers within this; also how long it may idle between requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Longest life of one connection: above the longest wait a client may ask for.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Listens on a root-only Unix socket; the parent directory is made 0700 if it is missing, and a socket that a dead
/// agent left behind is replaced.
///
/// # Errors
/// `AddrInUse` when another agent answers there; otherwise the operating system's.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another agent answers on {}; stop it first", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves root (and the agent's own user) until `shutdown` ends; connections in progress are given up then.
///
/// # Errors
/// The operating system's, when the listener itself fails.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let seat = tokio::select! {
            () = &mut shutdown => return Ok(()),
            seat = Arc::clone(&seats).acquire_owned() => seat.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of descriptors or memory: the next one may succeed, and the agent must not die of it.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the API socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(caller) = allowed(&stream) else {
            continue;
        };
        let router = router.clone();
        connections.spawn(async move {
            serve_connection(stream, router, caller).await;
            drop(seat);
        });
    }
}

/// Serves one connection, already authenticated as `caller` (mutual TLS: [`Caller::Node`] with the certificate's name).
/// Ends when the client does, or at the end of the connection's longest life; errors concern that client only.
pub async fn serve_connection<S>(stream: S, router: Router, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "API connection ended badly"),
        Err(_) => tracing::debug!("API connection outlived its time"),
    }
}

/// The socket's mode already keeps others out; this also covers a socket whose mode somebody changed.
fn allowed(stream: &UnixStream) -> Option<Caller> {
    let uid = stream.peer_cred().ok()?.uid();
    let own = rustix::process::geteuid().as_raw();
    (uid == 0 || uid == own).then_some(Caller::Local { uid })
}
