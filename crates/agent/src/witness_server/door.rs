//! The witness process: its port for the nodes, and a root-only socket for `stead cluster join --witness`.

use super::ledgers::{Asked, Ledgers, Pulsed, WitnessState};
use crate::api::{Answer as ApiAnswer, Caller, Reply};
use crate::cluster_config::{self, Applier, ClusterStore, StoreError, causes};
use crate::pairing::Pairing;
use crate::places::Places;
use crate::transport::{Peer, PeerClient, PeerRole, Serve, Server, ServerError, WITNESS_PORT};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::witness::Answer;
use model::api::{ClusterView, Code, JoinAnswer, JoinRequest, MemberView, NetworkView, NodeView, Problem};
use model::limits::MODULES_MAX;
use std::future::Future;
use std::sync::Arc;

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

#[derive(Clone)]
struct Door {
    store: Arc<ClusterStore>,
    applier: Applier,
    pairing: Pairing,
    ledgers: Ledgers,
}

/// Runs the witness until `shutdown` ends.
///
/// # Errors
/// [`WitnessError`]; nothing was answered then.
pub async fn run(places: Places, shutdown: impl Future<Output = ()>) -> Result<(), WitnessError> {
    let store = ClusterStore::open(places.clone())?;
    if let Some(cluster) = store.current().filter(|cluster| cluster.identity.role == PeerRole::Node) {
        return Err(WitnessError::IsNode(cluster.identity.name.clone()));
    }
    let applier = Applier::new(Arc::clone(&store), PeerClient::new(store.watch()));
    let pairing = Pairing::new(Arc::clone(&store), applier.clone());
    let door = Door { store: Arc::clone(&store), applier: applier.clone(), pairing, ledgers: Ledgers::open(&places) };
    let serve =
        Serve { port: WITNESS_PORT, router: routes(door).merge(cluster_config::routes(applier.clone())), join: None };
    let server = Server::start(&places, &store, serve)?;
    let settle = tokio::spawn(applier.settle_promises());
    match store.current() {
        Some(cluster) => tracing::info!(witness = %cluster.identity.name, "witness running"),
        None => {
            tracing::info!("witness running, in no cluster yet: stead cluster join ADDRESS --token TOKEN --witness")
        }
    }
    shutdown.await;
    settle.abort();
    server.stop().await;
    Ok(())
}

fn routes(door: Door) -> Router {
    Router::new()
        .route("/v1/witness/ask", post(ask))
        .route("/v1/witness/pulse", post(pulse))
        .route("/v1/witness/state", get(state))
        .route("/v1/cluster/join", post(join))
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
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<JoinRequest>,
) -> Reply<JoinAnswer> {
    let answer = match caller {
        Caller::Local { .. } if request.witness => door.pairing.join(request).await,
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
