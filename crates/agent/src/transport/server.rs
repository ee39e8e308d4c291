//! The listener: root's Unix socket at once, and TCP on this node's addresses as soon as it belongs to a cluster.
//!
//! Addresses and members are followed as the cluster changes; nothing needs a restart. **Invariant:** a connection
//! whose member is taken off the list is closed, and no request passes without a verified certificate except a join.

use super::connection::{self, Doors};
use super::seats::Seats;
use crate::api;
use crate::cluster_config::{Cluster, ClusterStore, ClusterWatch};
use crate::places::Places;
use axum::Router;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// TCP port of the API between nodes.
pub const API_PORT: u16 = 9453;
/// TCP port of the witness.
pub const WITNESS_PORT: u16 = 9454;
/// How often a missing address is looked for again.
const REBIND_EVERY: Duration = Duration::from_secs(1);
/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 256;

/// The door for machines that want to join: open or not, and what answers there.
#[derive(Clone)]
pub struct JoinDoor {
    /// Is a token open now? While it is not, clients without a certificate are refused in the handshake.
    pub is_open: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The join endpoint; the only thing strangers reach.
    pub router: Router,
}

/// What a listener serves.
#[derive(Clone)]
pub struct Serve {
    /// TCP port on each of the node's addresses.
    pub port: u16,
    /// Answers members and root.
    pub router: Router,
    /// Answers machines that want to join; `None`: nobody can join here.
    pub join: Option<JoinDoor>,
}

/// The socket cannot be had. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The Unix socket.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why; `AddrInUse`: another agent runs.
        source: io::Error,
    },
}

/// A running listener; stops when it is dropped or told to.
pub struct Server {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the Unix socket (root only) and follows the cluster for TCP.
    ///
    /// # Errors
    /// Only the Unix socket's; TCP addresses that are missing are retried each second.
    pub fn start(places: &Places, store: &Arc<ClusterStore>, serve: Serve) -> Result<Self, ServerError> {
        let path = places.agent_socket();
        let listener = api::bind_unix(&path).map_err(|source| ServerError::Socket { path, source })?;
        let mut server = Self::start_tcp(store, serve.clone());
        let mut stop = server.stop.subscribe();
        server.tasks.push(tokio::spawn(async move {
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            if let Err(error) = api::serve_unix(listener, serve.router, stopped).await {
                tracing::error!(%error, "the API socket failed: restart the agent");
            }
        }));
        Ok(server)
    }

    /// TCP alone (the witness has its own socket name and no command line API).
    #[must_use]
    pub fn start_tcp(store: &Arc<ClusterStore>, serve: Serve) -> Self {
        let (stop, stopped) = watch::channel(false);
        let follow = Follow {
            doors: Arc::new(Doors::new(Arc::clone(store), serve.router, serve.join)),
            seats: Seats::default(),
            port: serve.port,
            cluster: store.watch(),
            stopped,
        };
        Self { stop, tasks: vec![tokio::spawn(follow.run())] }
    }

    /// Stops accepting, closes every connection, and waits for that.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

struct Follow {
    doors: Arc<Doors>,
    seats: Seats,
    port: u16,
    cluster: ClusterWatch,
    stopped: watch::Receiver<bool>,
}

impl Follow {
    async fn run(mut self) {
        let mut listeners: HashMap<IpAddr, JoinHandle<()>> = HashMap::new();
        // Addresses whose absence has been said once.
        let mut missing: Vec<IpAddr> = Vec::new();
        loop {
            let cluster = self.cluster.borrow_and_update().clone();
            let wanted = cluster.as_deref().map(wanted).unwrap_or_default();
            listeners.retain(|addr, task| {
                let keep = wanted.contains(addr) && !task.is_finished();
                if !keep {
                    task.abort();
                }
                keep
            });
            missing.retain(|addr| wanted.contains(addr));
            for addr in wanted {
                if listeners.contains_key(&addr) {
                    continue;
                }
                match listen(SocketAddr::new(addr, self.port)) {
                    Ok(listener) => {
                        tracing::info!(%addr, port = self.port, "listening");
                        missing.retain(|other| *other != addr);
                        let (doors, seats) = (Arc::clone(&self.doors), self.seats.clone());
                        let (cluster, stopped) = (self.cluster.clone(), self.stopped.clone());
                        listeners.insert(addr, tokio::spawn(accept(listener, doors, seats, cluster, stopped)));
                    }
                    Err(error) if !missing.contains(&addr) => {
                        missing.push(addr);
                        tracing::warn!(%addr, port = self.port, %error, "cannot listen yet; trying again each second");
                    }
                    Err(_) => {}
                }
            }
            let ended = tokio::select! {
                ended = self.stopped.wait_for(|stop| *stop) => { drop(ended); true }
                changed = self.cluster.changed() => changed.is_err(),
                () = tokio::time::sleep(REBIND_EVERY) => false,
            };
            if ended {
                for (_, task) in listeners {
                    task.abort();
                    let _ = task.await;
                }
                return;
            }
        }
    }
}

fn wanted(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.own_addrs().into_iter().map(|(_, addr)| addr).collect()
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts until aborted; the handshake happens in a task of its own, so that nobody waits for a silent client.
async fn accept(
    listener: TcpListener,
    doors: Arc<Doors>,
    seats: Seats,
    cluster: ClusterWatch,
    stopped: watch::Receiver<bool>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let seat = seats.stranger(source.ip());
                tokio::spawn(connection::serve(
                    stream,
                    source.ip(),
                    Arc::clone(&doors),
                    seats.clone(),
                    seat,
                    cluster.clone(),
                    stopped.clone(),
                ));
            }
            // Out of descriptors or memory: the next may succeed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
