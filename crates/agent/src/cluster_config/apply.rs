//! Changing the configuration on all members or on none, in two steps: all check and keep it, then all put it in force.
//!
//! The node that was asked decides: once the change is in force there, the others must take it, and one that was cut
//! off between the two steps asks for the outcome when it comes back. **Invariant:** a member that has promised takes
//! no other change until it knows the outcome, or until its promise is so old that the asker must have given up.

use super::applied::{Applied, Member};
use super::check::{against_members, changes, check_here, wrong};
use super::store::{Cluster, ClusterStore, causes};
use super::turn::{self, Turn, Turns};
use super::{ClusterConfiguration, read};
use crate::api::{Answer, Caller, Reply};
use crate::configuration::names;
use crate::identity::write_atomic;
use crate::transport::{CallError, Peer, PeerClient, PeerRole};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::join_all;
use model::NodeName;
use model::api::{ChangeAnswer, ClusterConfig, ClusterConfigRequest, Code, ConfInfo, ConfInfoRow, NodeResult, Problem};
use platform::clock::wall_ms;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One member's answer to one step.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// A member that does not answer within this is not there.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// A promise older than this binds nobody: the asker gave up long ago.
const PROMISE_MAX_MS: u64 = 30_000;
/// How often an open promise is asked about.
const OUTCOME_EVERY: Duration = Duration::from_secs(1);

/// What is kept between the two steps.
#[derive(Clone, Serialize, Deserialize)]
struct Promise {
    version: u32,
    made_unix_ms: u64,
    asker: NodeName,
    applied: Applied,
}

#[derive(Serialize, Deserialize)]
struct Prepare {
    applied: Applied,
}

#[derive(Serialize, Deserialize)]
struct Named {
    signature: String,
}

/// What a member has in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InForce {
    signature: String,
    applied_unix_ms: u64,
    /// A change is being made here now: its outcome is not known yet.
    #[serde(default)]
    changing: bool,
}

/// Names the module that needs a member, if one does.
pub type Needs = Box<dyn Fn(&NodeName) -> Option<String> + Send + Sync>;
/// Names the first module that could not run any more when the one configuration becomes the other.
pub type FindsUnfit = Box<dyn Fn(&ClusterConfiguration, &ClusterConfiguration) -> Option<Unfit> + Send + Sync>;

/// What this node's modules say of a change.
pub struct Modules {
    /// The module that needs a member, if one does.
    pub needs: Needs,
    /// The first that could not run any more when the one becomes the other: it, and its nodes before and after.
    pub unfit: FindsUnfit,
}

/// A mirror that would have more nodes than two, or fewer.
pub struct Unfit {
    /// Its name.
    pub module: String,
    /// On which it runs.
    pub before: Vec<NodeName>,
    /// On which its networks would be.
    pub after: Vec<NodeName>,
}

/// Shows and changes the configuration. Cheap to clone.
#[derive(Clone)]
pub struct Applier {
    store: Arc<ClusterStore>,
    client: PeerClient,
    modules: Arc<OnceLock<Modules>>,
    turns: Arc<Turns>,
}

/// Endpoints that members call on each other (merge into the API's router).
pub fn routes(applier: Applier) -> Router {
    Router::new()
        .route("/v1/cluster/in-force", get(async |State(a): State<Applier>| Reply(a.in_force())))
        .route("/v1/cluster/prepare", post(prepare))
        .route("/v1/cluster/commit", post(commit))
        .route("/v1/cluster/abandon", post(abandon))
        .route("/v1/cluster/turn", post(turn_asked))
        .route("/v1/cluster/turn/end", post(turn_ended))
        .layer(DefaultBodyLimit::max(1024 * 1024))
        .with_state(applier)
}

/// The one thing a witness may ask a node: which configuration is in force.
pub(crate) fn witness_routes(store: Arc<ClusterStore>) -> Router {
    Router::new()
        .route("/v1/cluster/in-force", get(async |State(store): State<Arc<ClusterStore>>| Reply(in_force(&store))))
        .with_state(store)
}

type FromMember = Option<Extension<Peer>>;
type Told<T> = Result<Json<T>, JsonRejection>;

async fn prepare(State(applier): State<Applier>, from: FromMember, told: Told<Prepare>) -> Reply<Named> {
    Reply(told_by(from, told).and_then(|(peer, ask)| applier.promise(&peer.name, ask.applied)))
}

async fn commit(State(applier): State<Applier>, from: FromMember, told: Told<Named>) -> Reply<Named> {
    Reply(told_by(from, told).and_then(|(_, named)| applier.keep_promise(&named.signature)))
}

async fn abandon(State(applier): State<Applier>, from: FromMember, told: Told<Named>) -> Reply<Named> {
    Reply(told_by(from, told).and_then(|(_, named)| applier.drop_promise(&named.signature)))
}

async fn turn_asked(State(applier): State<Applier>, from: FromMember, told: Told<turn::Asked>) -> Reply<()> {
    Reply(
        told_by(from, told).and_then(|(peer, asked)| {
            turn::asked(&applier.turns, &applier.cluster()?.identity.name, &peer.name, &asked)
        }),
    )
}

async fn turn_ended(State(applier): State<Applier>, from: FromMember, told: Told<turn::Asked>) -> Reply<()> {
    Reply(told_by(from, told).map(|(_, asked)| turn::ended(&applier.turns, &asked)))
}

/// Only members make each other promise; root on the machine has `stead cluster config`.
fn told_by<T>(from: FromMember, told: Told<T>) -> Answer<(Peer, T)> {
    let what = "the step of a configuration change is refused";
    let Some(Extension(peer)) = from else {
        return Err(Problem::new(Code::Forbidden, what, "only nodes ask this of each other")
            .with_help("stead cluster config FILE"));
    };
    let Json(told) = told.map_err(|rejection| Problem::new(Code::Invalid, what, rejection.body_text()))?;
    Ok((peer, told))
}

impl Applier {
    /// Over the node's files, calling the others through `client`.
    #[must_use]
    pub fn new(store: Arc<ClusterStore>, client: PeerClient) -> Self {
        Self { store, client, modules: Arc::default(), turns: Arc::default() }
    }

    /// From now on no change is taken that a module of this node cannot live with.
    pub fn ask_modules(&self, modules: Modules) {
        // Set once, when the agent starts.
        let _ = self.modules.set(modules);
    }

    /// Nobody here needs those whom this configuration leaves out, and what runs on two nodes still does.
    fn modules_agree(&self, cluster: &Cluster, applied: &Applied) -> Answer<()> {
        let Some(modules) = self.modules.get() else { return Ok(()) };
        let own = &cluster.identity.name;
        for gone in cluster.applied.members.iter().filter(|member| applied.member(&member.name).is_none()) {
            if let Some(module) = (modules.needs)(&gone.name) {
                let what = format!("{own} does not let {} go", gone.name);
                return Err(Problem::new(Code::Refused, what, format!("module {module} runs on {}", gone.name)).with_help(format!(
                    "stead module uninstall {module}; or let another machine take its place: stead cluster join … --name {} --replace",
                    gone.name
                )));
            }
        }
        let wanted = applied.read().map_err(|found| wrong("the cluster configuration is not applied", found))?;
        let Some(Unfit { module, before, after }) = (modules.unfit)(&cluster.configuration, &wanted) else {
            return Ok(());
        };
        let listed = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        let why = format!(
            "mirror module {module} runs on {}, and its networks would have {}: it could not run any more",
            listed(&before),
            if after.is_empty() { "no node".to_string() } else { listed(&after) }
        );
        Err(Problem::new(Code::Refused, format!("{own} does not take the configuration"), why).with_help(format!(
            "give it a network that only its two nodes are on first: a <lan> of both in cluster.xml (stead cluster config FILE), named in the module's <heart> (<heartbeat name=\"LAN\"/>), stead config -m {module}; then again"
        )))
    }

    /// Who has the turn on this node.
    pub(super) const fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    pub(super) fn cluster(&self) -> Answer<Arc<Cluster>> {
        self.store.current().ok_or_else(not_paired)
    }

    /// `stead cluster config`.
    ///
    /// # Errors
    /// This machine belongs to no cluster.
    pub fn show(&self) -> Answer<ClusterConfig> {
        let cluster = self.cluster()?;
        Ok(ClusterConfig {
            xml: cluster.applied.xml.clone(),
            signature: cluster.signature.clone(),
            names: cluster.applied.names.clone(),
        })
    }

    /// `stead cluster confinfo`: every member is asked at once.
    ///
    /// # Errors
    /// This machine belongs to no cluster; a member that does not answer has its problem in its row.
    pub async fn confinfo(&self) -> Answer<ConfInfo> {
        let cluster = self.cluster()?;
        // A witness that is left out has nothing to say.
        let named =
            |member: &&Member| member.role == PeerRole::Node || cluster.configuration.witness(&member.name).is_some();
        let rows = cluster.applied.members.iter().filter(named).map(|member| {
            let cluster = &cluster;
            async move {
                let answer = if member.id == cluster.identity.node {
                    self.in_force()
                } else {
                    let asked = self
                        .client
                        .call::<(), InForce>(&member.name, "GET", "/v1/cluster/in-force", None, STEP_WITHIN)
                        .await;
                    asked.map_err(|error| error.into_problem(format!("cannot ask {}", member.name)))
                };
                let node = member.name.clone();
                match answer {
                    Ok(had) => ConfInfoRow {
                        node,
                        signature: had.signature,
                        applied_unix_ms: Some(had.applied_unix_ms),
                        problem: None,
                    },
                    Err(problem) => {
                        ConfInfoRow { node, signature: String::new(), applied_unix_ms: None, problem: Some(problem) }
                    }
                }
            }
        });
        Ok(ConfInfo { nodes: join_all(rows).await })
    }

    /// `stead cluster config FILE`: on all members or none.
    ///
    /// # Errors
    /// What is wrong with the file, with lines; or which member cannot take it and why. Then nothing has changed.
    pub async fn configure(&self, request: ClusterConfigRequest, caller: &Caller) -> Answer<ChangeAnswer> {
        let cluster = self.cluster()?;
        let what = "the cluster configuration is not applied";
        // Looked up here, once: all members take the same addresses, and keep them until the next change.
        let names = names::look_up(names::of_cluster(request.xml.as_bytes()), &cluster.applied.names).await;
        let (configuration, notes) = read(&request.xml, &names).map_err(|found| wrong(what, found))?;
        let members = remaining(&cluster, &configuration, &request.forget, what)?;
        let found = against_members(&configuration, &members, &request.xml);
        if !found.is_empty() {
            return Err(wrong(what, found));
        }
        let mut changes = changes(&cluster.configuration, &configuration);
        changes.extend(request.forget.iter().map(|gone| {
            format!("no longer a member: {gone}; its certificate opens nothing any more, but it could still forge heartbeats: remove /etc/stead/cluster there")
        }));
        let applied = Applied {
            applied_unix_ms: wall_ms(),
            by: cluster.identity.name.clone(),
            members,
            xml: request.xml,
            names: names.addresses(),
            ..cluster.applied.clone()
        };
        tracing::info!(%caller, dry_run = request.dry_run, "cluster configuration");
        let nodes = self.apply(applied, request.dry_run).await?;
        Ok(ChangeAnswer {
            applied: !request.dry_run,
            changes,
            nodes,
            diagnostics: notes,
            next: if request.dry_run { String::new() } else { "stead cluster confinfo".into() },
            needs_stop: false,
        })
    }

    /// Puts `applied` in force on every present member, or on none.
    pub(crate) async fn apply(&self, applied: Applied, dry_run: bool) -> Answer<Vec<NodeResult>> {
        let what = "the cluster configuration is not applied";
        let cluster = self.cluster()?;
        let wanted = applied.read().map_err(|found| wrong(what, found))?;
        // Members that this change admits are not asked: they get it with their admission. Nor is a witness that has no part in
        // it: it may be gone for good, and one that is there stays where it can be found when it is taken in again.
        let asked: Vec<Member> = cluster
            .others()
            .filter(|member| applied.members.iter().any(|kept| kept.id == member.id))
            .filter(|member| member.role == PeerRole::Node || wanted.witness(&member.name).is_some())
            .cloned()
            .collect();
        // A witness changes nothing by itself.
        let nodes = asked.iter().filter(|member| member.role == PeerRole::Node).map(|member| member.name.clone());
        let (nodes, asked) = (nodes.collect::<Vec<_>>(), asked.iter().map(|m| m.name.clone()).collect::<Vec<_>>());
        let client = self.client.knowing(&[&cluster.configuration, &wanted], &asked);
        let turn = self.turn(what, "the cluster configuration", &nodes, &client).await?;
        let done = self.apply_in_turn(applied, dry_run, &cluster, &asked, &client, &turn).await;
        turn.end().await;
        done
    }

    async fn apply_in_turn(
        &self,
        applied: Applied,
        dry_run: bool,
        before: &Cluster,
        asked: &[NodeName],
        client: &PeerClient,
        turn: &Turn,
    ) -> Answer<Vec<NodeResult>> {
        let what = "the cluster configuration is not applied";
        let Some(_changing) = self.store.try_change() else {
            return Err(Problem::new(Code::Busy, what, "another change is being made on this node")
                .with_help("try again in a moment"));
        };
        let cluster = self.cluster()?;
        // The text was made of what was in force then.
        if cluster.signature != before.signature {
            let why = format!("{} has changed it meanwhile", cluster.applied.by);
            return Err(Problem::new(Code::Busy, what, why)
                .with_help("look at what is in force (stead cluster config), then again"));
        }
        let signature = applied.signature();
        let local = check_here(&cluster, &applied).and_then(|()| self.modules_agree(&cluster, &applied));
        let ask = Prepare { applied };
        let prepared = join_all(asked.iter().map(|node| async {
            client.call::<_, Named>(node, "POST", "/v1/cluster/prepare", Some(&ask), STEP_WITHIN).await
        }));
        let mut problems: Vec<NodeResult> = match local {
            Ok(()) => prepared
                .await
                .into_iter()
                .zip(asked)
                .filter_map(|(answer, node)| {
                    let problem = answer.err()?.into_problem(format!("{node} cannot take the configuration"));
                    Some(NodeResult { node: node.clone(), signature: String::new(), problem: Some(problem) })
                })
                .collect(),
            Err(problem) => {
                vec![NodeResult {
                    node: cluster.identity.name.clone(),
                    signature: String::new(),
                    problem: Some(problem),
                }]
            }
        };
        if let (false, true, Err(problem)) = (dry_run, problems.is_empty(), turn.confirm(what).await) {
            problems.push(NodeResult {
                node: cluster.identity.name.clone(),
                signature: String::new(),
                problem: Some(problem),
            });
        }
        if dry_run || !problems.is_empty() {
            tell_all(client, asked, "/v1/cluster/abandon", &signature).await;
            if problems.is_empty() {
                return Ok(Vec::new());
            }
            return Err(refusal(what, &mut problems));
        }
        // The decision: from here on the change is made.
        let cluster = self.store.replace(ask.applied.clone()).map_err(|error| {
            Problem::new(Code::Internal, what, causes(&error)).with_help("look at the disk of this node (df -h /etc)")
        });
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(problem) => {
                tell_all(client, asked, "/v1/cluster/abandon", &signature).await;
                return Err(problem);
            }
        };
        let mut results =
            vec![NodeResult { node: cluster.identity.name.clone(), signature: signature.clone(), problem: None }];
        for (node, answer) in asked.iter().zip(tell_all(client, asked, "/v1/cluster/commit", &signature).await) {
            results.push(match answer {
                Ok(named) => NodeResult { node: node.clone(), signature: named.signature, problem: None },
                Err(error) => {
                    let problem = error
                        .into_problem(format!("{node} has promised to take the configuration and was not heard since"))
                        .with_help("it takes it as soon as it reaches this node; check with: stead cluster confinfo");
                    NodeResult { node: node.clone(), signature: String::new(), problem: Some(problem) }
                }
            });
        }
        Ok(results)
    }

    fn in_force(&self) -> Answer<InForce> {
        in_force(&self.store)
    }

    /// Does this member answer at all?
    pub(crate) async fn is_alive(&self, member: &NodeName) -> bool {
        let asked =
            self.client.insisting().request(member, "GET", "/v1/cluster/in-force", Vec::new(), ALIVE_WITHIN).await;
        !matches!(asked, Err(CallError::Unreachable { .. } | CallError::Timeout { .. } | CallError::Tls { .. }))
    }

    // ---- the promising side ----

    fn promise_path(&self) -> PathBuf {
        self.store.places().cluster_dir().join("promise.json")
    }

    fn open_promise(&self) -> Option<Promise> {
        let text = std::fs::read_to_string(self.promise_path()).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn promise(&self, asker: &NodeName, applied: Applied) -> Answer<Named> {
        let cluster = self.cluster()?;
        let name = &cluster.identity.name;
        let what = format!("{name} does not take the configuration");
        self.lets_in(asker, &what)?;
        let Some(_changing) = self.store.try_change() else {
            return Err(Problem::new(Code::Busy, what, format!("a change is being made on {name}"))
                .with_help("try again in a moment"));
        };
        // One that is kept already came back with a power cut: that the file went was not on disk yet.
        if let Some(open) = self.open_promise().filter(|open| open.applied.signature() != cluster.signature) {
            let age = wall_ms().abs_diff(open.made_unix_ms);
            if open.asker != *asker && age < PROMISE_MAX_MS {
                return Err(Problem::new(Code::Busy, what, format!("{} is making a change", open.asker))
                    .with_help("try again in a moment"));
            }
        }
        check_here(&cluster, &applied)?;
        self.modules_agree(&cluster, &applied)?;
        let signature = applied.signature();
        let promise = Promise { version: 1, made_unix_ms: wall_ms(), asker: asker.clone(), applied };
        let json = serde_json::to_vec(&promise).expect("plain data becomes JSON");
        write_atomic(&self.promise_path(), &json, 0o600).map_err(|error| {
            Problem::new(Code::Internal, what, error.to_string()).with_help("look at that node's disk (df -h /etc)")
        })?;
        Ok(Named { signature })
    }

    fn keep_promise(&self, signature: &str) -> Answer<Named> {
        let cluster = self.cluster()?;
        if cluster.signature == signature {
            return self.drop_promise(signature);
        }
        let what = format!("{} cannot put the configuration in force", cluster.identity.name);
        let promise =
            self.open_promise().filter(|promise| promise.applied.signature() == signature).ok_or_else(|| {
                Problem::new(Code::Refused, what.clone(), "it has promised no such change")
                    .with_help("apply it again: stead cluster config FILE")
            })?;
        self.store
            .replace(promise.applied.all_confirmed())
            .map_err(|error| Problem::new(Code::Internal, what, causes(&error)))?;
        let _ = std::fs::remove_file(self.promise_path());
        Ok(Named { signature: signature.to_owned() })
    }

    fn drop_promise(&self, signature: &str) -> Answer<Named> {
        if self.open_promise().is_some_and(|promise| promise.applied.signature() == signature) {
            let _ = std::fs::remove_file(self.promise_path());
        }
        Ok(Named { signature: signature.to_owned() })
    }

    /// Settles promises whose outcome was not heard; runs as long as the agent does.
    pub async fn settle_promises(self) {
        loop {
            tokio::time::sleep(OUTCOME_EVERY).await;
            let Some(promise) = self.open_promise() else { continue };
            // The asker is still within its own deadlines.
            if wall_ms().abs_diff(promise.made_unix_ms) < 2 * STEP_WITHIN.as_millis() as u64 {
                continue;
            }
            let signature = promise.applied.signature();
            let outcome =
                self.client.call::<(), InForce>(&promise.asker, "GET", "/v1/cluster/in-force", None, STEP_WITHIN).await;
            match outcome {
                Ok(outcome) if outcome.signature == signature => match self.keep_promise(&signature) {
                    Ok(_) => {
                        tracing::info!(asker = %promise.asker, "cluster configuration taken after an interruption")
                    }
                    Err(problem) => tracing::warn!(%problem, "cluster configuration"),
                },
                Ok(outcome) if !outcome.changing => {
                    let _ = self.drop_promise(&signature);
                }
                _ => {}
            }
        }
    }
}

/// The members without those who have left.
fn remaining(
    cluster: &Cluster,
    configuration: &ClusterConfiguration,
    forget: &[NodeName],
    what: &str,
) -> Answer<Vec<Member>> {
    for gone in forget {
        let refused = |why: String, help: &str| Err(Problem::new(Code::Refused, what, why).with_help(help));
        if cluster.applied.member(gone).is_none() {
            return refused(format!("'{gone}' is no member of the cluster"), "stead cluster confinfo");
        }
        if *gone == cluster.identity.name {
            return refused(format!("'{gone}' is this node itself"), "run it on a node that stays");
        }
        if configuration.places_of(gone).next().is_some() || configuration.witness(gone).is_some() {
            return refused(format!("the file still has a line of '{gone}'"), "remove every line of it, then again");
        }
    }
    Ok(cluster.applied.members.iter().filter(|member| !forget.contains(&member.name)).cloned().collect())
}

async fn tell_all(
    client: &PeerClient,
    nodes: &[NodeName],
    path: &str,
    signature: &str,
) -> Vec<Result<Named, CallError>> {
    let named = Named { signature: signature.to_owned() };
    join_all(nodes.iter().map(|node| client.call::<_, Named>(node, "POST", path, Some(&named), STEP_WITHIN))).await
}

fn in_force(store: &ClusterStore) -> Answer<InForce> {
    let cluster = store.current().ok_or_else(not_paired)?;
    Ok(InForce {
        signature: cluster.signature.clone(),
        applied_unix_ms: cluster.applied.applied_unix_ms,
        changing: store.is_changing(),
    })
}

fn not_paired() -> Problem {
    Problem::new(Code::Refused, "there is no cluster configuration", "this machine belongs to no cluster")
        .with_help("stead cluster init --name NODE --addr ADDRESS, or stead cluster join ADDRESS --token TOKEN")
}

/// One refusal out of several: the first one's words, everybody's diagnostics.
fn refusal(what: &str, problems: &mut Vec<NodeResult>) -> Problem {
    let first = problems.remove(0).problem.unwrap_or_default();
    let mut why = if first.why.is_empty() { first.what.clone() } else { format!("{}: {}", first.what, first.why) };
    for other in problems.iter().filter_map(|result| result.problem.as_ref()) {
        why = format!("{why}; {}: {}", other.what, other.why);
    }
    Problem::new(first.code, what, why).with_help(first.help).with_diagnostics(first.diagnostics)
}
