//! Modules on the nodes: what is configured, install and uninstall — on all nodes of the cluster or on none.
//!
//! Applying a configuration is [`super::apply`].

use super::agent::Agent;
use super::instance::{Instance, ModulePlaces};
use crate::api::{Answer, Caller};
use crate::configuration::names;
use crate::modules::{Around, Package, smallest_free_id};
use model::api::{
    ChangeAnswer, Code, ConfigSignature, ConfigView, InstallAnswer, InstallQuery, MacroView, NodeResult, Problem,
};
use model::schema::names::Answers;
use model::schema::{Diagnostic, ModuleConfiguration, Position, Subnet, Surroundings};
use model::{ModuleId, ModuleName, ModuleState, NodeName};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long another node may take for one step.
const STEP: Duration = Duration::from_secs(30);
/// How long the peer of a module that was stopped may take to go on alone: its question, its disk, its record.
const GOES_ON: Duration = Duration::from_secs(10);
/// Between two looks at what it says in its heartbeats.
const LOOKS: Duration = Duration::from_millis(50);
const _: () = assert!(STEP.as_secs() > super::hooks::CHANGE.as_secs());

pub(super) async fn subnets(agent: &Agent) -> Vec<Subnet> {
    let interfaces = agent.network.interfaces().await.unwrap_or_default();
    interfaces
        .iter()
        .flat_map(|i| &i.addresses)
        .filter(|a| !a.is_ours)
        .map(|a| Subnet { addr: a.ip, prefix: a.prefix })
        .collect()
}

/// What the host names of a module stand for now: what they stood for when it was applied, where that is still right.
pub(super) async fn names_now(package: &Package) -> Answers {
    let wanted = names::of_module(package.userconfig());
    if wanted.is_empty() {
        return Answers::default();
    }
    names::look_up(wanted, &package.names().addresses()).await
}

/// Waits until the module's peer, if it lives, goes on without this node's copy.
async fn has_gone_on(agent: &Agent, instance: &Instance) -> bool {
    let until = tokio::time::Instant::now() + GOES_ON;
    while super::heart::counts_on_us(agent, instance) {
        if tokio::time::Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOKS).await;
    }
    true
}

/// Refuses when the module is started here.
async fn must_be_stopped(agent: &Agent, module: &ModuleName, what: &str) -> Result<(), Problem> {
    let instance = agent.instances.read().await.get(module).cloned();
    match instance.as_ref().map(|it| it.state()) {
        // Without a loop nobody here would give the other node the word that it may go on.
        None | Some(ModuleState::Stop) => match instance {
            Some(instance) if !has_gone_on(agent, &instance).await => {
                let peer = instance.peer.as_ref().map_or("the other node", |peer| peer.as_str());
                Err(Problem::new(
                    Code::Refused,
                    what,
                    format!("{peer} still counts on the copy of module {module} here"),
                )
                .with_help(format!("stead state -m {module} -H '*'")))
            }
            _ => Ok(()),
        },
        Some(state) => {
            let node = agent.cluster.current().map_or_else(|| "this node".into(), |c| c.identity.name.to_string());
            Err(Problem::new(Code::Refused, what, format!("module {module} is started ({state}) on {node}"))
                .with_help(format!("stead stop -m {module} -H '*'")))
        }
    }
}

/// `GET /v1/modules/{m}/config`.
///
/// # Errors
/// Not installed.
pub async fn view(agent: &Arc<Agent>, module: &ModuleName) -> Answer<ConfigView> {
    let problem = |e: crate::modules::StoreError| e.problem(format!("module {module} has no configuration"));
    let macros = match agent.store.macros(module) {
        // What cannot be read has none; why it cannot, the check says.
        Err(crate::modules::StoreError::Macros { .. }) => Vec::new(),
        read => read.map_err(problem)?,
    };
    let subnets = subnets(agent).await;
    let cluster = agent.cluster.current();
    let names = names_now(&agent.store.editable(module).map_err(problem)?).await;
    let around = Around { cluster: cluster.as_ref().map(|c| &c.configuration), subnets: &subnets, names: Some(&names) };
    let (mut checked, editable) = agent.store.check(module, around).map_err(problem)?;
    if let Some(configuration) = &checked.value
        && let Some((dir, real)) = super::apply::by_a_link(configuration).await
    {
        let node = cluster.as_ref().map_or("this node", |it| it.identity.name.as_str());
        let found =
            Diagnostic::error(&agent.store.shown(module), Position::default(), super::apply::linked(&dir, &real, node));
        checked.diagnostics.push(found.with_help(super::apply::name_itself(&real)));
    }
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
        history: agent.store.past(module),
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

/// The node whose change of all nodes this is a part of; `None`: it is the change itself, asked for here or, by an operator elsewhere, of
/// this node.
const fn part_of<'a>(query: &InstallQuery, caller: &'a Caller) -> Option<&'a NodeName> {
    match caller {
        Caller::Node(node) if query.local => Some(node),
        _ => None,
    }
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
    let part_of = part_of(&query, caller);
    let _one = match part_of {
        Some(node) => {
            agent.applier.lets_in(node, &what)?;
            None
        }
        None => Some(agent.changing.lock().await),
    };
    let configurations: Vec<ModuleConfiguration> =
        Package::from_archive(&archive).ok().and_then(|package| meant(module, &package)).into_iter().collect();
    let others = if query.local { Concerned::nobody() } else { concerned(agent, &configurations) };
    let left_out = others.told(&format!("stead module export {module} --to NODE"));
    let others = others.ask;
    if part_of.is_some() {
        return install_in_turn(agent, module, &archive, &query, name, &others, left_out).await;
    }
    let change = format!("the installation of module {module}");
    let turn = agent.applier.turn(&what, &change, &others, &agent.client).await?;
    let done = install_in_turn(agent, module, &archive, &query, name, &others, left_out).await;
    turn.end().await;
    done
}

async fn install_in_turn(
    agent: &Agent,
    module: &ModuleName,
    archive: &[u8],
    query: &InstallQuery,
    name: NodeName,
    others: &[NodeName],
    left_out: Vec<String>,
) -> Answer<InstallAnswer> {
    let what = format!("module {module} is not installed");
    // A number that is free on every node.
    let mut taken = agent.store.numbers();
    for node in others {
        taken.extend(get::<Vec<ModuleId>>(agent, node, "/v1/peer/numbers").await?);
    }
    let known = agent.store.list().into_iter().find(|it| it.name == *module).and_then(|it| it.id);
    let id = match query.id.or(known) {
        Some(id) => id,
        None => smallest_free_id(taken).map_err(|e| e.problem(what.clone()))?,
    };
    let mut nodes = Vec::new();
    let mut done: Vec<&NodeName> = Vec::new();
    // To give back what was replaced: an uninstallation would take the module's state with it.
    let before = query.replace.then(|| agent.store.package(module).ok()).flatten();
    let mut refusal = agent.store.install(module, archive, id, query.replace).err().map(|e| e.problem(what));
    if refusal.is_none() {
        nodes.push(NodeResult { node: name, signature: String::new(), problem: None });
        for node in others {
            let path = format!("/v1/modules/{module}/install?local=true&id={}&replace={}", id.0, query.replace);
            match raw::<InstallAnswer>(agent, node, "POST", &path, archive.to_vec()).await {
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
        match before {
            _ if refusal.is_none() => {}
            Some(before) => {
                let _ = agent.store.install(module, &before, id, true);
                for node in done {
                    let path = format!("/v1/modules/{module}/install?local=true&id={}&replace=true", id.0);
                    let _: Answer<InstallAnswer> = raw(agent, node, "POST", &path, before.clone()).await;
                }
            }
            None => {
                let _ = agent.store.uninstall(module, false);
                for node in done {
                    let _: Answer<ChangeAnswer> =
                        raw(agent, node, "DELETE", &format!("/v1/modules/{module}?local=true"), Vec::new()).await;
                }
            }
        }
    }
    refusal.map_or_else(|| Ok(InstallAnswer { module: module.clone(), id, nodes, left_out }), Err)
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
    let part_of = part_of(&query, caller);
    let _one = match part_of {
        Some(node) => {
            agent.applier.lets_in(node, &what)?;
            None
        }
        None => Some(agent.changing.lock().await),
    };
    let others =
        if query.local { Concerned::nobody() } else { concerned(agent, &configurations_here(agent, module).await) };
    if part_of.is_some() || agent.cluster.current().is_none() {
        return uninstall_in_turn(agent, module, others).await;
    }
    let change = format!("the removal of module {module}");
    let turn = agent.applier.turn(&what, &change, &others.ask, &agent.client).await?;
    let done = uninstall_in_turn(agent, module, others).await;
    turn.end().await;
    done
}

async fn uninstall_in_turn(agent: &Agent, module: &ModuleName, others: Concerned) -> Answer<ChangeAnswer> {
    let what = format!("module {module} is not uninstalled");
    must_be_stopped(agent, module, &what).await?;
    let own = agent.paired(&what).ok().map(|cluster| cluster.identity.name.clone());
    let mut nodes = Vec::new();
    let mut changes = Vec::new();
    changes.extend(others.told(&format!("stead module uninstall {module} --local, there")));
    all_may_lose(agent, module, &others.ask, &what).await?;
    for node in others.ask {
        let answer: Answer<ChangeAnswer> =
            raw(agent, &node, "DELETE", &format!("/v1/modules/{module}?local=true"), Vec::new()).await;
        match answer {
            Ok(_) => nodes.push(NodeResult { node, signature: String::new(), problem: None }),
            Err(problem) if problem.code == Code::NotFound => {}
            Err(problem) => return Err(problem),
        }
    }
    let active = agent.store.active(module).ok();
    let old = agent.instances.write().await.remove(module);
    if let Some(old) = old {
        let id = old.active().id;
        old.leave().await;
        agent.forget_words(id);
    }
    super::copies::end_plane(agent, module).await;
    for dir in active.iter().flat_map(|active| &active.configuration.rfs).flat_map(|rfs| &rfs.dirs) {
        if let Err(error) = super::copies::give_back(std::path::Path::new(&dir.path)).await {
            let why = crate::cluster_config::causes(&error);
            changes.push(format!("{} on this node is still read-only: {why}; umount {}", dir.path, dir.path));
            agent.warn(why);
        }
    }
    let removed = agent.store.uninstall(module, false).map_err(|e| e.problem(what))?;
    let places = ModulePlaces::of(agent, module);
    let _ = std::fs::remove_dir_all(&places.run);
    super::copies::forget(agent, module, &places);
    let here = |node| NodeResult { node, signature: String::new(), problem: None };
    nodes.splice(0..0, own.map(here));
    changes.push(format!(
        "its state and a package of it are in {}; replicated directories are untouched",
        removed.display()
    ));
    Ok(ChangeAnswer { applied: true, changes, nodes, next: "stead module list".into(), ..ChangeAnswer::default() })
}

/// What is in force here, and what was edited here.
async fn configurations_here(agent: &Agent, module: &ModuleName) -> Vec<ModuleConfiguration> {
    let active = agent.store.active(module).ok().map(|active| active.configuration);
    let names = match agent.store.editable(module) {
        Ok(package) => names_now(&package).await,
        Err(_) => return active.into_iter().collect(),
    };
    let edited = agent.store.check(module, Around { names: Some(&names), ..Around::default() });
    let edited = edited.ok().and_then(|(checked, _)| checked.value);
    active.into_iter().chain(edited).collect()
}

/// Each of the other nodes answers, and it is started on none: from all nodes, or from none.
async fn all_may_lose(agent: &Agent, module: &ModuleName, nodes: &[NodeName], what: &str) -> Result<(), Problem> {
    for node in nodes {
        let refused = |why: String, help: String| Err(Problem::new(Code::Refused, what, why).with_help(help));
        match raw::<model::api::ModuleView>(agent, node, "GET", &format!("/v1/modules/{module}/state"), Vec::new())
            .await
        {
            Ok(view) if view.state != ModuleState::Stop => {
                let why = format!("module {module} is started ({}) on {node}", view.state);
                return refused(why, format!("stead stop -m {module} -H '*'"));
            }
            Err(problem) if matches!(problem.code, Code::Unreachable | Code::Timeout | Code::NoAgent) => {
                let why = format!("{}: {}; nothing was removed anywhere", problem.what, problem.why);
                return refused(why, format!("stead module uninstall {module} --local, on the nodes that are there"));
            }
            // Not installed there, or not configured: nothing that could be in the way.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// `stead deconfig`: what is in force on this node is in force no more; refused while it is started here.
///
/// # Errors
/// The refusal, or what could not be removed.
pub async fn deconfigure(agent: &Arc<Agent>, module: &ModuleName, caller: &Caller) -> Answer<()> {
    let what = format!("module {module} is not deconfigured");
    let _one = agent.changing.lock().await;
    if agent.cluster.current().is_none() {
        return deconfigure_in_turn(agent, module, caller, what).await;
    }
    let change = format!("the removal of the configuration of module {module}");
    let turn = agent.applier.turn(&what, &change, &[], &agent.client).await?;
    let done = deconfigure_in_turn(agent, module, caller, what).await;
    turn.end().await;
    done
}

async fn deconfigure_in_turn(agent: &Arc<Agent>, module: &ModuleName, caller: &Caller, what: String) -> Answer<()> {
    must_be_stopped(agent, module, &what).await?;
    if let Ok(active) = agent.store.active(module) {
        // While it is still configured, so that it finds what it made; a module that cannot be got rid of helps nobody.
        if let Err(failed) = super::hooks::play(agent, &active, "deconfig", &[], super::hooks::CHANGE).await {
            agent.warn(format!("module {module}: {}", failed.0));
        }
    }
    let old = agent.instances.write().await.remove(module);
    if let Some(old) = &old {
        old.log(&format!("Action deconfig called by {caller}"));
        old.leave().await;
    }
    // Also of one that nobody watched: whoever enters its mount would wait for ever.
    super::copies::end_plane(agent, module).await;
    if let Some(old) = old {
        // Whoever has no configuration guards no directory.
        super::copies::release(&old.active(), &ModulePlaces::of(agent, module))?;
    }
    agent.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(module);
    let places = ModulePlaces::of(agent, module);
    // Gone at the next boot anyway.
    let _ = std::fs::remove_dir_all(&places.run);
    // A mark that stays would start the module at a boot after the next configuration.
    platform::store::remove_durably(&places.wanted()).map_err(|e| {
        Problem::new(Code::Internal, what.clone(), crate::cluster_config::causes(&e)).with_help("stead deconfig")
    })?;
    agent.store.deconfigure(module).map_err(|e| e.problem(what))
}

/// The other nodes that a change of a module goes to.
pub(super) struct Concerned {
    /// Asked.
    pub ask: Vec<NodeName>,
    /// Not heard, and without a part in the module: nobody waits for them.
    pub left_out: Vec<NodeName>,
}

impl Concerned {
    /// Only this node.
    pub(super) const fn nobody() -> Self {
        Self { ask: Vec::new(), left_out: Vec::new() }
    }

    /// Of these nodes, which may be silent; `parts`: who has one, as far as that is known.
    fn of(peers: impl Iterator<Item = (NodeName, bool)>, parts: Option<&Vec<NodeName>>) -> Self {
        let mut it = Self::nobody();
        for (node, is_silent) in peers {
            let is_needed = parts.is_none_or(|parts| parts.contains(&node));
            if is_needed || !is_silent { it.ask.push(node) } else { it.left_out.push(node) }
        }
        it
    }

    /// What a person should know of those that were not asked.
    pub(super) fn told(&self, help: &str) -> Vec<String> {
        let told = |node: &NodeName| {
            format!("{node} was not asked: it is not heard, and has no part in the module; when it is back: {help}")
        };
        self.left_out.iter().map(told).collect()
    }
}

/// Those that have a part in one of these configurations (none: it is not known, all have) must answer; the others, if they are heard.
pub(super) fn concerned(agent: &Agent, configurations: &[ModuleConfiguration]) -> Concerned {
    let Some(cluster) = agent.cluster.current() else { return Concerned::nobody() };
    let parts: Vec<NodeName> = configurations.iter().flat_map(|it| it.nodes(&cluster.configuration)).collect();
    let peers = cluster.peers().map(|member| (member.name.clone(), super::heart::is_silent(agent, member.id)));
    Concerned::of(peers, (!configurations.is_empty()).then_some(&parts))
}

/// What a package says of its module, as far as that can be read without the machine it will run on.
pub(super) fn meant(module: &ModuleName, package: &Package) -> Option<ModuleConfiguration> {
    let names = package.names();
    let around = Surroundings { module: module.as_str(), cluster: None, subnets: &[], others: &[], names: &names };
    crate::configuration::read_module(package.userconfig(), "", &around).value
}

pub(super) fn peers(agent: &Agent) -> Vec<NodeName> {
    agent.cluster.current().map(|c| c.peers().map(|m| m.name.clone()).collect()).unwrap_or_default()
}

async fn get<A: for<'a> Deserialize<'a>>(agent: &Agent, node: &NodeName, path: &str) -> Answer<A> {
    agent
        .client
        .call::<(), A>(node, "GET", path, None, STEP)
        .await
        .map_err(|e| e.into_problem(format!("{node} cannot be asked")))
}

pub(super) async fn json<A: for<'a> Deserialize<'a>>(
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

pub(super) async fn raw<A: for<'a> Deserialize<'a>>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_waited_for_only_if_it_has_a_part_or_may_have_one() {
        let node = |name: &str| NodeName::new(name).expect("a name");
        let peers = || [(node("node2"), false), (node("node3"), true), (node("node4"), false)].into_iter();
        let parts = vec![node("node1"), node("node2")];
        let asked = Concerned::of(peers(), Some(&parts));
        assert_eq!(asked.ask, [node("node2"), node("node4")], "whoever is there gets it too");
        assert_eq!(asked.left_out, [node("node3")]);
        assert!(asked.told("later")[0].starts_with("node3 was not asked"));
        let all = vec![node("node1"), node("node3")];
        assert!(Concerned::of(peers(), Some(&all)).left_out.is_empty(), "it has a part");
        assert!(Concerned::of(peers(), None).left_out.is_empty(), "nobody knows whose it is");
    }
}
