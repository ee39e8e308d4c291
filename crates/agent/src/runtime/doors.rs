//! The agent's doors: the API on the Unix socket and over mutual TLS, what nodes ask of each other, the health URL.

use super::agent::Agent;
use super::backend::Door;
use super::{apply, configure};
use crate::api::{Answer, Caller, Reply, router};
use crate::modules::Token;
use crate::transport::{API_PORT, Serve, Server, ServerError};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::mirror::Message;
use cluster::watch::RESOURCES_MAX;
use model::api::{Code, ConfigSignature, PACKAGE_MAX, Problem};
use model::resource::{Value, is_name};
use model::{ModuleId, ModuleName, ModuleState, Status};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a step of another node's change waits for what this node is about: beside the script that the step may run, less than the
/// other waits.
const TURN: Duration = Duration::from_secs(4);

/// Open as long as it is kept.
pub struct Doors {
    _server: Server,
    _health: crate::health::HealthServer,
}

/// Opens all doors.
///
/// # Errors
/// Only the Unix socket's: another agent runs.
pub fn open(agent: &Arc<Agent>) -> Result<Doors, ServerError> {
    let api = router(Arc::new(Door(Arc::clone(agent))))
        .merge(between_nodes(Arc::clone(agent)))
        .merge(crate::cluster_config::routes(agent.applier.clone()));
    let serve = Serve { port: API_PORT, router: api, join: Some(agent.pairing.join_door()) };
    let server = Server::start(&agent.places, &agent.cluster, serve)?;
    tokio::spawn(agent.applier.clone().settle_promises());
    let watched = Arc::clone(agent);
    let health = crate::health::HealthServer::start(Arc::new(move |module: &str| is_ready(&watched, module)));
    Ok(Doors { _server: server, _health: health })
}

/// The one bit of the health URL.
fn is_ready(agent: &Agent, module: &str) -> bool {
    let (Ok(name), Ok(instances)) = (ModuleName::new(module), agent.instances.try_read()) else { return false };
    instances.get(&name).is_some_and(|instance| {
        let published = instance.published.borrow();
        let serves = matches!(published.mirror.state, ModuleState::Prim | ModuleState::Alone | ModuleState::Up);
        serves && published.mirror.status == Status::Ready
    })
}

/// What only members may ask.
fn between_nodes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/peer/modules/{module}/message", post(message))
        .route("/v1/peer/modules/{module}/resources", post(resources))
        .route("/v1/peer/modules/{module}/prepare", post(prepare).layer(DefaultBodyLimit::max(PACKAGE_MAX)))
        .route("/v1/peer/modules/{module}/commit", post(commit))
        .route("/v1/peer/modules/{module}/abort", post(abort))
        .route("/v1/peer/modules/{module}/signature", get(signature))
        .route("/v1/peer/numbers", get(numbers))
        .route("/v1/peer/version", get(version))
        .with_state(agent)
}

fn member(caller: Option<Extension<Caller>>) -> Answer<model::NodeName> {
    match caller {
        Some(Extension(Caller::Node(node))) => Ok(node),
        _ => Err(Problem::new(Code::Forbidden, "this is for nodes", "only another node of the cluster may ask it")
            .with_help("stead --help")),
    }
}

fn name(module: &str) -> Answer<ModuleName> {
    ModuleName::new(module).map_err(|e| Problem::new(Code::Invalid, "no module can have this name", e.to_string()))
}

async fn message(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
    Json(message): Json<Message>,
) -> Reply<()> {
    Reply(take_message(&agent, caller, &module, message).await)
}

async fn take_message(agent: &Agent, caller: Option<Extension<Caller>>, module: &str, message: Message) -> Answer<()> {
    let from = member(caller)?;
    let module = name(module)?;
    let instance = agent.instance(&module).await;
    let what = "the message is not delivered";
    let instance =
        instance.ok_or_else(|| Problem::new(Code::NotFound, what, format!("module {module} does not run here")))?;
    if instance.peer.as_ref() != Some(&from) {
        return Err(Problem::new(Code::Forbidden, what, format!("{from} is not the other node of module {module}")));
    }
    instance.hear(message).await;
    Ok(())
}

async fn resources(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
    Json(theirs): Json<BTreeMap<String, Value>>,
) -> Reply<()> {
    Reply(take_resources(&agent, caller, &module, theirs).await)
}

async fn take_resources(
    agent: &Agent,
    caller: Option<Extension<Caller>>,
    module: &str,
    theirs: BTreeMap<String, Value>,
) -> Answer<()> {
    let (from, module) = (member(caller)?, name(module)?);
    let instances = agent.instances.read().await;
    let what = "the resources are not taken";
    let instance = instances
        .get(&module)
        .filter(|instance| instance.peer.as_ref() == Some(&from))
        .ok_or_else(|| Problem::new(Code::NotFound, what, format!("module {module} does not run here with {from}")))?;
    if theirs.len() > RESOURCES_MAX || !theirs.keys().all(|name| is_name(name)) {
        return Err(Problem::new(Code::Invalid, what, "they are too many, or their names are none"));
    }
    instance.hear_resources(theirs);
    Ok(())
}

#[derive(Deserialize)]
struct Number {
    id: ModuleId,
    /// Where the module runs is no refusal then.
    #[serde(default)]
    dry_run: bool,
}

/// What changes on this node by itself (its start, a new cluster) comes to its end first: a module would have two loops.
async fn turn_here<'a>(agent: &'a Agent, what: &str) -> Answer<tokio::sync::MutexGuard<'a, ()>> {
    tokio::time::timeout(TURN, agent.changing.lock()).await.map_err(|_| {
        Problem::new(Code::Busy, what, "modules of this node are being begun")
            .with_help("stead module list, then again")
    })
}

async fn prepare(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
    Query(number): Query<Number>,
    archive: Bytes,
) -> Reply<apply::PreparedHere> {
    let prepared = async {
        let (from, module) = (member(caller)?, name(&module)?);
        let what = format!("the configuration of module {module} is not prepared here");
        agent.applier.lets_in(&from, &what)?;
        let _one = turn_here(&agent, &what).await?;
        let prepared = apply::prepare_here(&agent, &module, &archive, number.id, number.dry_run).await;
        prepared.map(|(prepared, _)| prepared)
    };
    Reply(prepared.await)
}

async fn commit(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
    Json(token): Json<Token>,
) -> Reply<apply::Said> {
    let committed = async {
        let (from, module) = (member(caller)?, name(&module)?);
        let what = format!("the configuration of module {module} is not applied here");
        agent.applier.lets_in(&from, &what)?;
        let _one = turn_here(&agent, &what).await?;
        apply::commit_here(&agent, &module, &token, true).await.map(apply::Said::from)
    };
    Reply(committed.await)
}

async fn abort(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
    Json(token): Json<Token>,
) -> Reply<()> {
    let aborted = || {
        member(caller)?;
        agent
            .store
            .abort(&token)
            .map_err(|e| e.problem(format!("the prepared configuration of module {module} is not dropped")))
    };
    Reply(aborted())
}

async fn signature(
    State(agent): State<Arc<Agent>>,
    caller: Option<Extension<Caller>>,
    Path(module): Path<String>,
) -> Reply<ConfigSignature> {
    Reply(member(caller).and_then(|_| name(&module)).and_then(|module| configure::signature_here(&agent, &module)))
}

async fn version(caller: Option<Extension<Caller>>) -> Reply<String> {
    Reply(member(caller).map(|_| env!("CARGO_PKG_VERSION").to_string()))
}

async fn numbers(State(agent): State<Arc<Agent>>, caller: Option<Extension<Caller>>) -> Reply<Vec<ModuleId>> {
    Reply(member(caller).map(|_| agent.store.numbers()))
}
