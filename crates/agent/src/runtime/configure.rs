//! Changes of modules: install, configure, uninstall — on all nodes of the cluster or on none.
//!
//! `config` has two phases: every node validates and stages, then every node commits; one refusal aborts all.

use super::agent::Agent;
use super::instance::ModulePlaces;
use crate::api::{Answer, Caller};
use crate::modules::{Around, Token, smallest_free_id};
use model::api::{
    ChangeAnswer, Code, ConfigRequest, ConfigSignature, ConfigView, InstallAnswer, InstallQuery, MacroView, NodeResult,
    Problem,
};
use model::schema::Subnet;
use model::{ModuleId, ModuleName, ModuleState, NodeName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long another node may take for one step.
const STEP: Duration = Duration::from_secs(15);

/// What one node prepared.
#[derive(Serialize, Deserialize, Debug)]
pub struct PreparedHere {
    /// For commit or abort.
    pub token: Token,
    /// The same everywhere.
    pub signature: String,
}

async fn subnets(agent: &Agent) -> Vec<Subnet> {
    let interfaces = agent.network.interfaces().await.unwrap_or_default();
    interfaces
        .iter()
        .flat_map(|i| &i.addresses)
        .filter(|a| !a.is_ours)
        .map(|a| Subnet { addr: a.ip, prefix: a.prefix })
        .collect()
}

/// Refuses when the module is started here.
async fn must_be_stopped(agent: &Agent, module: &ModuleName, what: &str) -> Result<(), Problem> {
    let state = agent.instances.read().await.get(module).map(|i| i.state());
    match state {
        None | Some(ModuleState::Stop) => Ok(()),
        Some(state) => {
            let node = agent.cluster.current().map_or_else(|| "this node".into(), |c| c.identity.name.to_string());
            Err(Problem::new(Code::Refused, what, format!("module {module} is started ({state}) on {node}"))
                .with_help(format!("stead stop -m {module} -H '*'")))
        }
    }
}

/// First phase on this node.
///
/// # Errors
/// What is wrong with the configuration, with lines; or that the module is started.
pub async fn prepare_here(
    agent: &Arc<Agent>,
    module: &ModuleName,
    archive: &[u8],
    id: ModuleId,
) -> Answer<(PreparedHere, Vec<model::api::Diagnostic>)> {
    let what = format!("the configuration of module {module} is not applied");
    must_be_stopped(agent, module, &what).await?;
    let cluster = agent.cluster.current();
    let configuration =
        cluster.as_ref().map(|c| crate::configuration::read_cluster(c.applied.xml.as_bytes(), "cluster.xml").value);
    let subnets = subnets(agent).await;
    let around = Around { cluster: configuration.as_ref().and_then(Option::as_ref), subnets: &subnets };
    let prepared = agent.store.prepare(module, archive, id, around).map_err(|e| e.problem(what))?;
    let notes = crate::configuration::for_api(&prepared.diagnostics, b"");
    Ok((PreparedHere { token: prepared.token, signature: prepared.signature.0 }, notes))
}

/// Second phase on this node: the new configuration is in force, and its loop runs with it.
///
/// # Errors
/// The old one is in force.
pub async fn commit_here(agent: &Arc<Agent>, module: &ModuleName, token: &Token) -> Answer<String> {
    let active = agent
        .store
        .commit(token)
        .map_err(|e| e.problem(format!("the configuration of module {module} is not applied")))?;
    let signature = active.signature.0.clone();
    agent.begin_module_anew(active).await;
    Ok(signature)
}

/// `stead config -m AM`.
///
/// # Errors
/// The first node's refusal; nothing has changed anywhere then.
pub async fn configure(agent: &Arc<Agent>, module: &ModuleName, request: &ConfigRequest) -> Answer<ChangeAnswer> {
    let _one = agent.changing.lock().await;
    let what = format!("the configuration of module {module} is not applied");
    let problem = |e: crate::modules::StoreError| e.problem(what.clone());
    let package = if request.set.is_empty() {
        agent.store.editable(module)
    } else {
        agent.store.with_macros(module, &request.set)
    };
    let archive = package
        .map_err(problem)?
        .to_archive(module.as_str())
        .map_err(|e| Problem::new(Code::Invalid, what.clone(), e.to_string()))?;
    let listed = agent.store.list().into_iter().find(|it| it.name == *module);
    let id = match listed.as_ref().and_then(|it| it.id) {
        Some(id) => id,
        None => smallest_free_id(agent.store.numbers()).map_err(problem)?,
    };
    let (here, diagnostics) = prepare_here(agent, module, &archive, id).await?;
    let unchanged = listed.and_then(|it| it.active).is_some_and(|active| active.0 == here.signature);
    let mut prepared: Vec<(NodeName, PreparedHere)> = Vec::new();
    let others: Vec<NodeName> = if request.local { Vec::new() } else { peers(agent) };
    let mut refusal = None;
    for node in &others {
        let path = format!("/v1/peer/modules/{module}/prepare?id={}", id.0);
        match raw(agent, node, "POST", &path, archive.clone()).await {
            Ok(answer) => prepared.push((node.clone(), answer)),
            Err(problem) => {
                refusal = Some(problem);
                break;
            }
        }
    }
    if let Some((node, _)) = prepared.iter().find(|(_, p)| p.signature != here.signature) {
        refusal = refusal.or_else(|| {
            Some(Problem::new(
                Code::Refused,
                what.clone(),
                format!("{node} understood the configuration differently: its version of stead is another"),
            ))
        });
    }
    if refusal.is_some() || request.dry_run {
        let _ = agent.store.abort(&here.token);
        for (node, prepared) in &prepared {
            let _: Answer<()> = json(agent, node, &format!("/v1/peer/modules/{module}/abort"), &prepared.token).await;
        }
        if let Some(problem) = refusal {
            return Err(problem);
        }
        let changes = vec![if unchanged {
            "nothing would change".to_string()
        } else {
            format!("{} would come into force", here.signature)
        }];
        let own = agent.cluster.current().map(|c| (c.identity.name.clone(), here.signature.clone()));
        let all = own.into_iter().chain(prepared.into_iter().map(|(node, p)| (node, p.signature)));
        let nodes = all.map(|(node, signature)| NodeResult { node, signature, problem: None }).collect();
        return Ok(ChangeAnswer {
            applied: false,
            changes,
            nodes,
            diagnostics,
            next: format!("stead config -m {module}"),
        });
    }
    // The others first: this node's own commit is the one least likely to fail.
    let mut nodes = Vec::new();
    for (node, prepared) in &prepared {
        let committed: Answer<String> =
            json(agent, node, &format!("/v1/peer/modules/{module}/commit"), &prepared.token).await;
        let (signature, problem) = match committed {
            Ok(signature) => (signature, None),
            Err(problem) => (String::new(), Some(problem)),
        };
        nodes.push(NodeResult { node: node.clone(), signature, problem });
    }
    let own = agent.cluster.current().map(|c| c.identity.name.clone());
    let signature = commit_here(agent, module, &here.token).await?;
    if let Some(node) = own {
        nodes.insert(0, NodeResult { node, signature, problem: None });
    }
    let changes = request.set.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let next =
        format!("stead prim -m {module} on the node that has the good data, stead start -m {module} on the other");
    Ok(ChangeAnswer { applied: true, changes, nodes, diagnostics, next })
}

/// `GET /v1/modules/{m}/config`.
///
/// # Errors
/// Not installed.
pub async fn view(agent: &Arc<Agent>, module: &ModuleName) -> Answer<ConfigView> {
    let problem = |e: crate::modules::StoreError| e.problem(format!("module {module} has no configuration"));
    let macros = agent.store.macros(module).map_err(problem)?;
    let subnets = subnets(agent).await;
    let cluster = agent
        .cluster
        .current()
        .and_then(|c| crate::configuration::read_cluster(c.applied.xml.as_bytes(), "cluster.xml").value);
    let (checked, editable) =
        agent.store.check(module, Around { cluster: cluster.as_ref(), subnets: &subnets }).map_err(problem)?;
    let text = agent.store.editable(module).map_err(problem)?;
    let installed = agent.store.list().into_iter().find(|it| it.name == *module);
    let mut nodes = Vec::new();
    if let Some(cluster) = agent.cluster.current() {
        nodes.push(ConfigSignature {
            node: cluster.identity.name.clone(),
            active: installed.as_ref().and_then(|i| i.active.clone()).map(|s| s.0).unwrap_or_default(),
            editable: editable.map(|s| s.0).unwrap_or_default(),
            applied_unix_ms: installed.as_ref().and_then(|i| i.applied_unix_ms),
            problem: None,
        });
        for peer in peers(agent) {
            let path = format!("/v1/peer/modules/{module}/signature");
            let row = match get::<ConfigSignature>(agent, &peer, &path).await {
                Ok(row) => row,
                Err(problem) => ConfigSignature {
                    node: peer,
                    active: String::new(),
                    editable: String::new(),
                    applied_unix_ms: None,
                    problem: Some(problem),
                },
            };
            nodes.push(row);
        }
    }
    Ok(ConfigView {
        module: module.clone(),
        id: installed.and_then(|i| i.id),
        mode: checked.value.as_ref().map_or("mirror", |it| it.mode.word()).into(),
        macros: macros.into_iter().map(|m| MacroView { name: m.name, value: m.value }).collect(),
        nodes,
        diagnostics: crate::configuration::for_api(&checked.diagnostics, text.userconfig()),
    })
}

/// This node's row of [`ConfigView::nodes`].
pub fn signature_here(agent: &Agent, module: &ModuleName) -> Answer<ConfigSignature> {
    let cluster = agent.paired("no signature")?;
    let installed = agent.store.list().into_iter().find(|it| it.name == *module);
    let installed = installed.ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            format!("there is no module {module} on {}", cluster.identity.name),
            "it is not installed",
        )
    })?;
    let editable = agent.store.check(module, Around::default()).ok().and_then(|(_, signature)| signature);
    Ok(ConfigSignature {
        node: cluster.identity.name.clone(),
        active: installed.active.map(|s| s.0).unwrap_or_default(),
        editable: editable.map(|s| s.0).unwrap_or_default(),
        applied_unix_ms: installed.applied_unix_ms,
        problem: None,
    })
}

/// `stead module install`: the editable copy, under the same number everywhere.
///
/// # Errors
/// The first node's refusal; what other nodes had installed is taken back.
pub async fn install(
    agent: &Arc<Agent>,
    module: &ModuleName,
    archive: Vec<u8>,
    query: InstallQuery,
    caller: &Caller,
) -> Answer<InstallAnswer> {
    let what = format!("module {module} is not installed");
    let name = agent.paired(&what)?.identity.name.clone();
    let local = query.local || matches!(caller, Caller::Node(_));
    let one = if matches!(caller, Caller::Node(_)) { None } else { Some(agent.changing.lock().await) };
    let others = if local { Vec::new() } else { peers(agent) };
    // A number that is free on every node.
    let mut taken = agent.store.numbers();
    for node in &others {
        taken.extend(get::<Vec<ModuleId>>(agent, node, "/v1/peer/numbers").await?);
    }
    let known = agent.store.list().into_iter().find(|it| it.name == *module).and_then(|it| it.id);
    let id = match query.id.or(known) {
        Some(id) => id,
        None => smallest_free_id(taken).map_err(|e| e.problem(what.clone()))?,
    };
    let mut nodes = Vec::new();
    let mut done: Vec<&NodeName> = Vec::new();
    let mut refusal = agent.store.install(module, &archive, id, false).err().map(|e| e.problem(what));
    if refusal.is_none() {
        nodes.push(NodeResult { node: name, signature: String::new(), problem: None });
        for node in &others {
            let path = format!("/v1/modules/{module}/install?local=true&id={}", id.0);
            match raw::<InstallAnswer>(agent, node, "POST", &path, archive.clone()).await {
                Ok(_) => {
                    done.push(node);
                    nodes.push(NodeResult { node: node.clone(), signature: String::new(), problem: None });
                }
                Err(problem) => {
                    refusal = Some(problem);
                    break;
                }
            }
        }
        if refusal.is_some() {
            let _ = agent.store.uninstall(module, false);
            for node in done {
                let _: Answer<ChangeAnswer> =
                    raw(agent, node, "DELETE", &format!("/v1/modules/{module}?local=true"), Vec::new()).await;
            }
        }
    }
    drop(one);
    refusal.map_or_else(|| Ok(InstallAnswer { module: module.clone(), id, nodes }), Err)
}

/// `stead module uninstall`: refused while it is started anywhere.
///
/// # Errors
/// The first node's refusal.
pub async fn uninstall(
    agent: &Arc<Agent>,
    module: &ModuleName,
    query: InstallQuery,
    caller: &Caller,
) -> Answer<ChangeAnswer> {
    let what = format!("module {module} is not uninstalled");
    let local = query.local || matches!(caller, Caller::Node(_));
    let _one = if matches!(caller, Caller::Node(_)) { None } else { Some(agent.changing.lock().await) };
    must_be_stopped(agent, module, &what).await?;
    let mut nodes = Vec::new();
    let mut changes = Vec::new();
    if !local {
        for node in peers(agent) {
            let answer: Answer<ChangeAnswer> =
                raw(agent, &node, "DELETE", &format!("/v1/modules/{module}?local=true"), Vec::new()).await;
            match answer {
                Ok(_) => nodes.push(NodeResult { node, signature: String::new(), problem: None }),
                Err(problem) if problem.code == Code::NotFound => {}
                Err(problem) => return Err(problem),
            }
        }
    }
    let old = agent.instances.write().await.remove(module);
    if let Some(old) = old {
        let active = old.active.clone();
        old.leave().await;
        for dir in active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs) {
            if let Err(error) = platform::mounts::uncover(std::path::Path::new(&dir.path)) {
                agent.warn(crate::cluster_config::causes(&error));
            }
        }
    }
    let removed = agent.store.uninstall(module, false).map_err(|e| e.problem(what))?;
    let _ = std::fs::remove_dir_all(&ModulePlaces::of(agent, module).run);
    changes.push(format!(
        "its state and a package of it are in {}; replicated directories are untouched",
        removed.display()
    ));
    Ok(ChangeAnswer { applied: true, changes, nodes, diagnostics: Vec::new(), next: "stead module list".into() })
}

fn peers(agent: &Agent) -> Vec<NodeName> {
    agent.cluster.current().map(|c| c.peers().map(|m| m.name.clone()).collect()).unwrap_or_default()
}

async fn get<A: for<'a> Deserialize<'a>>(agent: &Agent, node: &NodeName, path: &str) -> Answer<A> {
    agent
        .client
        .call::<(), A>(node, "GET", path, None, STEP)
        .await
        .map_err(|e| e.into_problem(format!("{node} cannot be asked")))
}

async fn json<A: for<'a> Deserialize<'a>>(
    agent: &Agent,
    node: &NodeName,
    path: &str,
    body: &(impl Serialize + Sync),
) -> Answer<A> {
    agent
        .client
        .call(node, "POST", path, Some(body), STEP)
        .await
        .map_err(|e| e.into_problem(format!("{node} cannot be asked")))
}

async fn raw<A: for<'a> Deserialize<'a>>(
    agent: &Agent,
    node: &NodeName,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Answer<A> {
    let answer = agent
        .client
        .request(node, method, path, body, STEP)
        .await
        .map_err(|e| e.into_problem(format!("{node} cannot be asked")))?;
    let nonsense = |e: serde_json::Error| {
        Problem::new(Code::Unreachable, format!("{node} gave an answer that makes no sense"), e.to_string())
    };
    if (200..300).contains(&answer.status) {
        serde_json::from_slice(&answer.body).map_err(nonsense)
    } else {
        Err(serde_json::from_slice(&answer.body).map_err(nonsense)?)
    }
}
