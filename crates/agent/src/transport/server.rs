//! The listener: root's Unix socket at once, and TCP on this node's addresses as soon as it belongs to a cluster.
//!
//! Addresses and members are followed as the cluster changes; nothing needs a restart. A witness may listen for several clusters
//! ([`Tenant`]): the name a caller asks for says for which. **Invariant:** a connection
//! whose member is taken off the list is closed, and no request passes without a verified certificate except a join.

use super::connection::{self, Doors};
use super::seats::Seats;
use crate::api;
use crate::cluster_config::{Cluster, ClusterStore, ClusterWatch};
use crate::places::Places;
use axum::Router;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// TCP port of the API between nodes.
pub const API_PORT: u16 = 9453;
/// TCP port of the witness.
pub const WITNESS_PORT: u16 = 9454;
/// How often a missing address, or a socket that was removed, is looked for again.
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

/// One cluster behind a listener.
#[derive(Clone)]
pub struct Tenant {
    pub(super) doors: Arc<Doors>,
    /// Of its members; strangers are counted together.
    pub(super) seats: Seats,
    pub(super) cluster: ClusterWatch,
}

impl Tenant {
    /// What answers the members of this cluster.
    #[must_use]
    pub fn new(store: &Arc<ClusterStore>, router: Router, join: Option<JoinDoor>) -> Self {
        let doors = Arc::new(Doors::new(Arc::clone(store), router, join));
        Self { doors, seats: Seats::default(), cluster: store.watch() }
    }
}

/// All of them; more may come.
pub type Tenants = watch::Receiver<Arc<Vec<Tenant>>>;

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
    /// Ends with the last connection: each holds the other end.
    connections: mpsc::Receiver<Infallible>,
}

impl Server {
    /// Opens the Unix socket (root only) and follows the cluster for TCP.
    ///
    /// # Errors
    /// Only the Unix socket's; TCP addresses that are missing are retried each second.
    pub fn start(places: &Places, store: &Arc<ClusterStore>, serve: Serve) -> Result<Self, ServerError> {
        let tenant = Tenant::new(store, serve.router.clone(), serve.join);
        Self::start_for(places, watch::channel(Arc::new(vec![tenant])).1, serve.port, serve.router)
    }

    /// The same for several clusters; `local` answers root.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_for(places: &Places, tenants: Tenants, port: u16, local: Router) -> Result<Self, ServerError> {
        let path = places.agent_socket();
        let listener = api::bind_unix(&path).map_err(|source| ServerError::Socket { path: path.clone(), source })?;
        let mut server = Self::start_tcp(tenants, port);
        let mut stop = server.stop.subscribe();
        server.tasks.push(tokio::spawn(async move {
            let mut listener = Some(listener);
            while !*stop.borrow() {
                if let Some(listener) = listener.take() {
                    let ended = async {
                        tokio::select! {
                            _ = stop.wait_for(|stop| *stop) => {}
                            () = taken_away(&path) => tracing::warn!(path = %path.display(), "the API socket is gone: it is made anew"),
                        }
                    };
                    if let Err(error) = api::serve_unix(listener, local.clone(), ended).await {
                        tracing::error!(%error, "the API socket failed: restart the agent");
                        return;
                    }
                } else {
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => {}
                        () = tokio::time::sleep(REBIND_EVERY) => {}
                    }
                }
                if !*stop.borrow() {
                    listener = api::bind_unix(&path)
                        .inspect_err(|error| tracing::warn!(%error, "the API socket cannot be made anew yet"))
                        .ok();
                }
            }
        }));
        Ok(server)
    }

    fn start_tcp(tenants: Tenants, port: u16) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let follow = Follow { tenants, strangers: Seats::default(), port, stopped, alive };
        Self { stop, tasks: vec![tokio::spawn(follow.run())], connections }
    }

    /// Stops accepting, closes every connection, and waits for that.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        let _ = self.connections.recv().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Somebody removed the socket, or put something else in its place.
async fn taken_away(path: &Path) {
    let found = || std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let ours = found();
    while found() == ours && ours.is_some() {
        tokio::time::sleep(REBIND_EVERY).await;
    }
}

struct Follow {
    tenants: Tenants,
    strangers: Seats,
    port: u16,
    stopped: watch::Receiver<bool>,
    alive: mpsc::Sender<Infallible>,
}

impl Follow {
    async fn run(mut self) {
        let mut listeners: HashMap<IpAddr, JoinHandle<()>> = HashMap::new();
        // Addresses whose absence has been said once.
        let mut missing: Vec<IpAddr> = Vec::new();
        loop {
            let tenants = Arc::clone(&self.tenants.borrow_and_update());
            let mut watches: Vec<ClusterWatch> = tenants.iter().map(|tenant| tenant.cluster.clone()).collect();
            let mut wanted: Vec<IpAddr> = Vec::new();
            for addr in
                watches.iter_mut().flat_map(|cluster| cluster.borrow_and_update().as_deref().map(addrs)).flatten()
            {
                if !wanted.contains(&addr) {
                    wanted.push(addr);
                }
            }
            self.strangers
                .know(tenants.iter().flat_map(|tenant| members(tenant.cluster.borrow().as_deref())).collect());
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
                        let (tenants, strangers) = (self.tenants.clone(), self.strangers.clone());
                        let (stopped, alive) = (self.stopped.clone(), self.alive.clone());
                        listeners.insert(addr, tokio::spawn(accept(listener, tenants, strangers, stopped, alive)));
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
                () = any_changes(&mut watches) => false,
                // Nobody can add another one: those there are go on.
                _ = self.tenants.changed(), if self.tenants.has_changed().is_ok() => false,
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

/// One of the clusters is another from now on. One whose store is gone never is.
async fn any_changes(watches: &mut [ClusterWatch]) {
    let each = watches.iter_mut().map(|cluster| {
        Box::pin(async move {
            if cluster.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(each).await;
}

fn addrs(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.own_addrs().into_iter().map(|(_, addr)| addr).collect()
}

/// Where members call from.
fn members(cluster: Option<&Cluster>) -> HashSet<IpAddr> {
    let addrs = |cluster: &Cluster| cluster.others().flat_map(|it| cluster.configuration.addrs_of(&it.name)).collect();
    cluster.map(addrs).unwrap_or_default()
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
    tenants: Tenants,
    strangers: Seats,
    stopped: watch::Receiver<bool>,
    alive: mpsc::Sender<Infallible>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let seat = strangers.stranger(source.ip());
                let here = Arc::clone(&tenants.borrow());
                let served = connection::serve(stream, source.ip(), here, seat, stopped.clone());
                let alive = alive.clone();
                tokio::spawn(async move {
                    served.await;
                    drop(alive);
                });
            }
            // Out of descriptors or memory: the next may succeed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
