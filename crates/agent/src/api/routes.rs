//! Every endpoint of v1, in one table.

use super::backend::{Answer, Backend, Caller};
use super::proxy;
use super::reply::{Reply, bytes, problem_response};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use model::ModuleName;
use model::api::{
    BODY_MAX, ClusterConfigRequest, Code, CommandRequest, ConfigRequest, InitRequest, InstallQuery, JoinRequest,
    LOG_LINES_MAX, LogQuery, ModuleList, PACKAGE_MAX, Problem, StateQuery, VerifyRequest, WAIT_MAX_MS, WatchRequest,
};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The API over a backend. The door that serves it must add a [`Caller`] to every request
/// ([`super::serve_connection`] does); without one the caller is an unnamed local user and changes are refused.
pub fn router<B: Backend>(backend: Arc<B>) -> Router {
    let local = Router::new()
        .route("/v1/node", get(async |State(b): State<Arc<B>>| Reply(b.node().await)))
        .route("/v1/modules", get(modules::<B>))
        .route("/v1/modules/getports", get(async |State(b): State<Arc<B>>| Reply(b.ports().await)))
        .route("/v1/modules/{module}", delete(uninstall::<B>))
        .route("/v1/modules/{module}/state", get(state::<B>))
        .route("/v1/modules/{module}/command", post(command::<B>))
        .route("/v1/modules/{module}/log", get(log::<B>))
        .route("/v1/modules/{module}/why", get(why::<B>))
        .route("/v1/modules/{module}/install", post(install::<B>).layer(DefaultBodyLimit::max(PACKAGE_MAX)))
        .route("/v1/modules/{module}/config", get(configuration::<B>).post(configure::<B>))
        .route("/v1/modules/{module}/hook/{name}", get(hook::<B>))
        .route("/v1/modules/{module}/deconfig", post(deconfigure::<B>))
        .route("/v1/modules/{module}/package", get(package::<B>))
        .route("/v1/modules/{module}/watch", post(watch::<B>))
        .route("/v1/modules/{module}/verify", post(verify::<B>))
        .route("/v1/modules/{module}/diff", get(diff::<B>))
        .route("/v1/modules/{module}/quarantine", get(quarantine::<B>))
        .route("/v1/modules/{module}/quarantine/{folder}", get(quarantine_folder::<B>).delete(drop_quarantine::<B>))
        .route("/v1/cluster", get(async |State(b): State<Arc<B>>| Reply(b.cluster().await)))
        .route("/v1/cluster/init", post(cluster_init::<B>))
        .route("/v1/cluster/join", post(cluster_join::<B>))
        .route("/v1/cluster/token", post(cluster_token::<B>))
        .route("/v1/cluster/config", get(cluster_config::<B>).post(set_cluster_config::<B>))
        .route("/v1/cluster/confinfo", get(async |State(b): State<Arc<B>>| Reply(b.cluster_confinfo().await)))
        .route("/v1/cluster/state", get(async |State(b): State<Arc<B>>| Reply(b.cluster_state().await)))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_endpoint)
        .with_state(Arc::clone(&backend));
    let proxy = Router::new()
        .route("/v1/nodes/{node}/{*rest}", any(proxy::forward::<B>))
        .layer(DefaultBodyLimit::max(PACKAGE_MAX))
        .with_state(proxy::Target { backend, local: local.clone() });
    proxy.merge(local)
}

async fn modules<B: Backend>(State(b): State<Arc<B>>) -> Reply<ModuleList> {
    Reply(b.modules().await.map(|modules| ModuleList { modules }))
}

async fn state<B: Backend>(
    State(b): State<Arc<B>>,
    Path(name): Path<String>,
    query: Result<Query<StateQuery>, QueryRejection>,
) -> Response {
    with(name, |module| async move {
        Reply(match parsed(query) {
            Ok(query) => b.module_state(module, query).await,
            Err(problem) => Err(problem),
        })
    })
    .await
}

async fn why<B: Backend>(State(b): State<Arc<B>>, Path(name): Path<String>) -> Response {
    with(name, |module| async move { Reply(b.why(module).await) }).await
}

async fn watch<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    asked(
        name,
        caller,
        body,
        |module, request: WatchRequest, caller| async move { b.watch(module, request, caller).await },
    )
    .await
}

async fn verify<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    asked(name, caller, body, |module, request: VerifyRequest, caller| async move {
        b.verify(module, request, caller).await
    })
    .await
}

async fn hook<B: Backend>(State(b): State<Arc<B>>, Path((name, hook)): Path<(String, String)>) -> Response {
    with(name, |module| async move { Reply(b.hook(module, hook).await) }).await
}

async fn diff<B: Backend>(State(b): State<Arc<B>>, Path(name): Path<String>) -> Response {
    with(name, |module| async move { Reply(b.diff(module).await) }).await
}

async fn quarantine<B: Backend>(State(b): State<Arc<B>>, Path(name): Path<String>) -> Response {
    with(name, |module| async move { Reply(b.quarantine(module).await) }).await
}

async fn quarantine_folder<B: Backend>(
    State(b): State<Arc<B>>,
    Path((name, folder)): Path<(String, String)>,
) -> Response {
    with(name, |module| async move { Reply(b.quarantine_folder(module, folder).await) }).await
}

async fn drop_quarantine<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path((name, folder)): Path<(String, String)>,
) -> Response {
    with(name, |module| async move {
        Reply(match known(caller) {
            Ok(caller) => b.drop_quarantine(module, folder, caller).await,
            Err(problem) => Err(problem),
        })
    })
    .await
}

async fn configuration<B: Backend>(State(b): State<Arc<B>>, Path(name): Path<String>) -> Response {
    with(name, |module| async move { Reply(b.configuration(module).await) }).await
}

async fn package<B: Backend>(State(b): State<Arc<B>>, Path(name): Path<String>) -> Response {
    match module_name(&name) {
        Ok(module) => bytes(b.package(module).await),
        Err(problem) => problem_response(&problem),
    }
}

async fn log<B: Backend>(
    State(b): State<Arc<B>>,
    Path(name): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Response {
    with(name, |module| async move {
        Reply(match parsed(query) {
            Ok(query) => {
                let lines = Some(query.lines.unwrap_or(300).min(LOG_LINES_MAX));
                b.log(module, LogQuery { lines, ..query }).await
            }
            Err(problem) => Err(problem),
        })
    })
    .await
}

async fn command<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    asked(name, caller, body, |module, mut request: CommandRequest, caller| async move {
        request.wait_ms = request.wait_ms.min(WAIT_MAX_MS);
        b.command(module, request, caller).await
    })
    .await
}

async fn configure<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    asked(name, caller, body, |module, request: ConfigRequest, caller| async move {
        b.configure(module, request, caller).await
    })
    .await
}

async fn deconfigure<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
) -> Response {
    with(name, |module| async move {
        Reply(match known(caller) {
            Ok(caller) => b.deconfigure(module, caller).await,
            Err(problem) => Err(problem),
        })
    })
    .await
}

async fn install<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    query: Result<Query<InstallQuery>, QueryRejection>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    with(name, |module| async move {
        Reply(match (parsed(query), known(caller), body.map_err(unread)) {
            (Ok(query), Ok(caller), Ok(body)) => b.install(module, body.into(), query, caller).await,
            (Err(problem), ..) | (_, Err(problem), _) | (.., Err(problem)) => Err(problem),
        })
    })
    .await
}

async fn uninstall<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    Path(name): Path<String>,
    query: Result<Query<InstallQuery>, QueryRejection>,
) -> Response {
    with(name, |module| async move {
        Reply(match (parsed(query), known(caller)) {
            (Ok(query), Ok(caller)) => b.uninstall(module, query, caller).await,
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        })
    })
    .await
}

async fn cluster_init<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    local_only(caller, body, |request: InitRequest| async move { b.cluster_init(request).await }).await
}

async fn cluster_join<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BodyRejection>,
) -> Response {
    local_only(caller, body, |request: JoinRequest| async move { b.cluster_join(request).await }).await
}

async fn cluster_token<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
) -> Reply<model::api::TokenAnswer> {
    Reply(match known(caller) {
        Ok(_) => b.cluster_token().await,
        Err(problem) => Err(problem),
    })
}

async fn cluster_config<B: Backend>(State(b): State<Arc<B>>) -> Reply<model::api::ClusterConfig> {
    Reply(b.cluster_config().await)
}

async fn set_cluster_config<B: Backend>(
    State(b): State<Arc<B>>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BodyRejection>,
) -> Reply<model::api::ChangeAnswer> {
    Reply(match (json::<ClusterConfigRequest>(body), known(caller)) {
        (Ok(request), Ok(caller)) => b.set_cluster_config(request, caller).await,
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    })
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    problem_response(&Problem::new(
        Code::Invalid,
        format!("cannot {method} {}", uri.path()),
        "this endpoint exists, with another method",
    ))
}

async fn no_such_endpoint(method: Method, uri: Uri) -> Response {
    problem_response(
        &Problem::new(Code::NotFound, format!("cannot {method} {}", uri.path()), "this agent has no such endpoint")
            .with_help("compare the versions: stead --version, and 'version' in stead state --json"),
    )
}

type BodyRejection = axum::extract::rejection::BytesRejection;

/// Identity can only be given from the machine itself: a member must not make another machine a member.
async fn local_only<R, T, F>(
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BodyRejection>,
    call: impl FnOnce(R) -> F,
) -> Response
where
    R: DeserializeOwned,
    T: serde::Serialize,
    F: Future<Output = Answer<T>>,
{
    let answer = match (known(caller), json(body)) {
        (Ok(Caller::Local { .. }), Ok(request)) => call(request).await,
        (Ok(Caller::Node(node)), _) => Err(Problem::new(
            Code::Forbidden,
            format!("node {node} asked this machine to enter a cluster"),
            "that is decided on the machine itself",
        )
        .with_help("run it there, without -H")),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    };
    axum::response::IntoResponse::into_response(Reply(answer))
}

/// A change of one module: its name, who asks, and what for.
async fn asked<R, T, F>(
    name: String,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BodyRejection>,
    call: impl FnOnce(ModuleName, R, Caller) -> F,
) -> Response
where
    R: DeserializeOwned,
    T: serde::Serialize,
    F: Future<Output = Answer<T>>,
{
    with(name, |module| async move {
        Reply(match (json(body), known(caller)) {
            (Ok(request), Ok(caller)) => call(module, request, caller).await,
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        })
    })
    .await
}

async fn with<T, F>(name: String, call: impl FnOnce(ModuleName) -> F) -> Response
where
    T: serde::Serialize,
    F: Future<Output = Reply<T>>,
{
    match module_name(&name) {
        Ok(module) => axum::response::IntoResponse::into_response(call(module).await),
        Err(problem) => problem_response(&problem),
    }
}

fn module_name(name: &str) -> Answer<ModuleName> {
    ModuleName::new(name).map_err(|error| {
        Problem::new(Code::Invalid, "no module can have this name", error.to_string()).with_help("stead module list")
    })
}

fn known(caller: Option<Extension<Caller>>) -> Answer<Caller> {
    caller.map(|Extension(caller)| caller).ok_or_else(|| {
        Problem::new(
            Code::Forbidden,
            "cannot change anything",
            "the request came through a door that says not from whom",
        )
    })
}

fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Answer<T> {
    query.map(|Query(query)| query).map_err(|rejection| {
        Problem::new(Code::Invalid, "cannot understand the request's parameters", rejection.body_text())
    })
}

fn json<T: DeserializeOwned>(body: Result<Bytes, BodyRejection>) -> Answer<T> {
    let body = body.map_err(unread)?;
    // A POST without a body means "all defaults" where the type allows it.
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(text)
        .map_err(|error| Problem::new(Code::Invalid, "cannot understand the request's JSON", error.to_string()))
}

fn unread(rejection: BodyRejection) -> Problem {
    let code = if rejection.status().as_u16() == 413 { Code::TooLarge } else { Code::Invalid };
    Problem::new(code, "cannot read the request's body", rejection.body_text())
}
