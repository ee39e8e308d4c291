//! The witness process: its port for the nodes of one or many clusters, and a root-only socket for `stead cluster join --witness`.

use super::ledgers::{Asked, Ledgers, Pulsed, WitnessState};
use crate::api::{Answer as ApiAnswer, Caller, Reply};
use crate::cluster_config::{self, Applier, ClusterStore, StoreError, causes};
use crate::pairing::Pairing;
use crate::places::Places;
use crate::transport::{Peer, PeerClient, PeerRole, Server, ServerError, Tenant, WITNESS_PORT};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::witness::Answer;
use model::api::{ClusterView, Code, JoinAnswer, JoinRequest, MemberView, NetworkView, NodeView, Problem};
use model::limits::MODULES_MAX;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The witness cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its socket: another agent or witness runs on this machine.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It belongs to a cluster as a node.
    #[error("this machine is node '{0}' of its cluster and cannot be a witness as well: a witness is a third machine")]
    IsNode(model::NodeName),
}

/// What it is for one cluster.
#[derive(Clone)]
struct Door {
    store: Arc<ClusterStore>,
    applier: Applier,
    pairing: Pairing,
    ledgers: Ledgers,
}

/// Clusters one witness may serve: with [`MODULES_MAX`] modules each.
const CLUSTERS_MAX: u32 = 256;

/// All its clusters. One that is joined later gets files of its own, below those of the first.
struct House {
    places: Places,
    doors: Mutex<Vec<Door>>,
    tenants: watch::Sender<Arc<Vec<Tenant>>>,
    /// One machine joins one cluster at a time.
    joining: tokio::sync::Mutex<()>,
}

/// Runs the witness until `shutdown` ends.
///
/// # Errors
/// [`WitnessError`]; nothing was answered then.
pub async fn run(places: Places, shutdown: impl Future<Output = ()>) -> Result<(), WitnessError> {
    let first = Door::open(places.clone())?;
    if let Some(cluster) = first.store.current().filter(|cluster| cluster.identity.role == PeerRole::Node) {
        return Err(WitnessError::IsNode(cluster.identity.name.clone()));
    }
    let mut doors = vec![first];
    for number in numbers(&places) {
        // A join that was cut off before it was through left nothing that counts.
        doors.extend(Some(Door::open(places.of_cluster(number))?).filter(|door| door.store.current().is_some()));
    }
    let tenants: Vec<Tenant> = doors.iter().map(Door::tenant).collect();
    let (sender, watched) = watch::channel(Arc::new(tenants));
    let settle: Vec<_> = doors.iter().map(|door| tokio::spawn(door.applier.clone().settle_promises())).collect();
    for cluster in doors.iter().filter_map(|door| door.store.current()) {
        tracing::info!(witness = %cluster.identity.name, cluster = %format!("{:016x}", cluster.identity.cluster.0), "witness running");
    }
    if doors.iter().all(|door| door.store.current().is_none()) {
        tracing::info!("witness running, in no cluster yet: stead cluster join ADDRESS --token TOKEN --witness");
    }
    let house = House {
        places: places.clone(),
        doors: Mutex::new(doors),
        tenants: sender,
        joining: tokio::sync::Mutex::new(()),
    };
    let server = Server::start_for(&places, watched, WITNESS_PORT, local(Arc::new(house)))?;
    shutdown.await;
    settle.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await;
    Ok(())
}

/// Of the clusters that were joined after the first, in the order in which they were.
fn numbers(places: &Places) -> Vec<u32> {
    let entries = std::fs::read_dir(places.etc.join("clusters")).into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found.truncate(CLUSTERS_MAX as usize);
    found
}

/// What root may ask on this machine.
fn local(house: Arc<House>) -> Router {
    type At = State<Arc<House>>;
    Router::new()
        .route("/v1/witness/state", get(async |State(house): At| state(State(house.first())).await))
        .route("/v1/witness/clusters", get(async |State(house): At| Reply(Ok(house.views()))))
        .route("/v1/cluster/join", post(join))
        .route("/v1/cluster", get(async |State(house): At| Reply(Ok(house.first().view()))))
        .route("/v1/cluster/config", get(async |State(house): At| Reply(house.first().applier.show())))
        .route("/v1/cluster/confinfo", get(async |State(house): At| Reply(house.first().applier.confinfo().await)))
        .route("/v1/node", get(async |State(house): At| Reply(Ok(house.node()))))
        .layer(DefaultBodyLimit::max(4 * 1024 * 1024))
        .fallback(async || Reply::<()>(Err(nothing_else())))
        .with_state(house)
}

impl House {
    fn doors(&self) -> Vec<Door> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn first(&self) -> Door {
        self.doors().swap_remove(0)
    }

    fn views(&self) -> Vec<ClusterView> {
        self.doors().iter().filter(|door| door.store.current().is_some()).map(Door::view).collect()
    }

    fn node(&self) -> NodeView {
        let clusters = self.views();
        let mut node = self.first().node();
        if clusters.len() > 1 {
            let named = |view: &ClusterView| {
                let name = view.node.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{:016x} as {name}", view.cluster.map_or(0, |cluster| cluster.0))
            };
            let all: Vec<String> = clusters.iter().map(named).collect();
            node.warnings.push(format!("this witness serves {} clusters: {}", all.len(), all.join(", ")));
        }
        node
    }

    /// Into the first place that is free.
    async fn join(&self, request: JoinRequest) -> ApiAnswer<JoinAnswer> {
        let _one = self.joining.lock().await;
        if self.first().store.current().is_none() {
            return self.first().pairing.join(request).await;
        }
        let what = "this witness does not join the cluster";
        let problem = |why: String| Problem::new(Code::Refused, what, why);
        let number = numbers(&self.places).last().map_or(2, |last| last + 1);
        if self.doors().len() >= CLUSTERS_MAX as usize {
            return Err(problem(format!("it serves {CLUSTERS_MAX} clusters already"))
                .with_help("run stead witness on another machine"));
        }
        let places = self.places.of_cluster(number);
        let door = Door::open(places.clone()).map_err(|error| problem(causes(&error)))?;
        let joined = door.pairing.join(request).await;
        let Some(cluster) = door.store.current() else {
            // Nothing of it counts; what cannot be removed is passed over at the next start.
            let _ = std::fs::remove_dir_all(&places.etc);
            let _ = std::fs::remove_dir_all(&places.var);
            return joined;
        };
        tracing::info!(cluster = %format!("{:016x}", cluster.identity.cluster.0), "another cluster is served");
        tokio::spawn(door.applier.clone().settle_promises());
        let tenant = door.tenant();
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
        self.tenants.send_modify(|tenants| Arc::make_mut(tenants).push(tenant));
        joined
    }
}

fn routes(door: Door) -> Router {
    Router::new()
        .route("/v1/witness/ask", post(ask))
        .route("/v1/witness/pulse", post(pulse))
        .route("/v1/witness/state", get(state))
        .route("/v1/cluster", get(async |State(door): State<Door>| Reply(Ok(door.view()))))
        .route("/v1/cluster/config", get(async |State(door): State<Door>| Reply(door.applier.show())))
        .route("/v1/cluster/confinfo", get(async |State(door): State<Door>| Reply(door.applier.confinfo().await)))
        .route("/v1/node", get(async |State(door): State<Door>| Reply(Ok(door.node()))))
        .layer(DefaultBodyLimit::max(4 * 1024 * 1024))
        .fallback(async || Reply::<()>(Err(nothing_else())))
        .with_state(door)
}

fn nothing_else() -> Problem {
    Problem::new(Code::NotFound, "cannot do that here", "this machine runs stead witness: it has no modules")
        .with_help("run the command on a node, or with -H NODE there")
}

async fn ask(State(door): State<Door>, from: Option<Extension<Peer>>, Json(asked): Json<Asked>) -> Reply<Answer> {
    Reply(door.answer(from, vec![asked]).await.and_then(|mut answers| {
        answers.pop().ok_or_else(|| Problem::new(Code::Internal, "the witness does not answer", "there is no answer"))
    }))
}

async fn pulse(
    State(door): State<Door>,
    from: Option<Extension<Peer>>,
    Json(pulsed): Json<Pulsed>,
) -> Reply<Vec<Answer>> {
    if pulsed.pulses.len() > MODULES_MAX {
        return Reply(Err(Problem::new(
            Code::TooLarge,
            "the witness does not answer",
            "more pulses than there can be modules",
        )));
    }
    Reply(door.answer(from, pulsed.pulses).await)
}

async fn state(State(door): State<Door>) -> Reply<WitnessState> {
    let ledgers = door.ledgers.clone();
    let state = tokio::task::spawn_blocking(move || ledgers.state()).await;
    Reply(state.map_err(|error| Problem::new(Code::Internal, "the witness cannot be shown", error.to_string())))
}

async fn join(
    State(house): State<Arc<House>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<JoinRequest>,
) -> Reply<JoinAnswer> {
    let answer = match caller {
        Caller::Local { .. } if request.witness => house.join(request).await,
        Caller::Local { .. } => {
            Err(Problem::new(Code::Refused, "cannot join the cluster as a node", "this machine runs stead witness")
                .with_help("add --witness to the command; or stop the witness and run the agent (stead agent)"))
        }
        Caller::Node(_) => {
            Err(Problem::new(Code::Forbidden, "cannot join the cluster", "that is decided on the machine itself"))
        }
    };
    Reply(answer)
}

impl Door {
    /// Reads what is there of one cluster.
    fn open(places: Places) -> Result<Self, StoreError> {
        let store = ClusterStore::open(places.clone())?;
        let applier = Applier::new(Arc::clone(&store), PeerClient::new(store.watch()));
        let pairing = Pairing::new(Arc::clone(&store), applier.clone());
        Ok(Self { store, applier, pairing, ledgers: Ledgers::open(&places) })
    }

    fn tenant(&self) -> Tenant {
        let router = routes(self.clone()).merge(cluster_config::routes(self.applier.clone()));
        Tenant::new(&self.store, router, None)
    }

    async fn answer(&self, from: Option<Extension<Peer>>, asked: Vec<Asked>) -> ApiAnswer<Vec<Answer>> {
        let Some(Extension(from)) = from else {
            return Err(Problem::new(
                Code::Forbidden,
                "the witness does not answer",
                "only nodes of the cluster may ask",
            ));
        };
        let ledgers = self.ledgers.clone();
        // The disk may take its time: never on a thread that others wait for.
        let answers =
            tokio::task::spawn_blocking(move || asked.iter().map(|asked| ledgers.answer(asked, &from)).collect());
        answers
            .await
            .unwrap_or_else(|error| Err(Problem::new(Code::Internal, "the witness does not answer", causes(&error))))
    }

    fn view(&self) -> ClusterView {
        let Some(cluster) = self.store.current() else { return ClusterView::default() };
        let networks = |name: &model::NodeName| {
            let places = cluster.configuration.places_of(name);
            places
                .map(|(lan, node)| NetworkView {
                    name: lan.to_owned(),
                    addr: node.addr.to_string(),
                    ..NetworkView::default()
                })
                .collect()
        };
        let members = cluster.applied.members.iter().map(|member| MemberView {
            id: member.id,
            name: member.name.clone(),
            witness: member.role == PeerRole::Witness,
            networks: networks(&member.name),
            seen: member.id == cluster.identity.node,
        });
        ClusterView {
            paired: true,
            cluster: Some(cluster.identity.cluster),
            node: Some(cluster.identity.name.clone()),
            members: members.collect(),
        }
    }

    fn node(&self) -> NodeView {
        let cluster = self.store.current();
        NodeView {
            version: env!("CARGO_PKG_VERSION").into(),
            name: cluster.as_ref().map(|cluster| cluster.identity.name.clone()),
            id: cluster.as_ref().map(|cluster| cluster.identity.node),
            paired: cluster.is_some(),
            cluster: cluster.as_ref().map(|cluster| cluster.identity.cluster),
            ..NodeView::default()
        }
    }
}
