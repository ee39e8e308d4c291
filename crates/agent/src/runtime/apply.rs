//! `stead config`: validate → plan → apply, on all nodes or on none.
//!
//! Every node validates, plans and stages, then every node commits; one refusal aborts all. **Invariant:** a module
//! that runs takes only changes that the table calls dynamic, and on every node the same.

use super::agent::Agent;
use super::configure::{Concerned, concerned, json, meant, names_now, peers, raw, subnets};
use super::copies::{dirs_of, end_plane, give_back};
use super::hooks;
use crate::api::Answer;
use crate::cluster_config::{Turn, causes};
use crate::modules::{Active, Around, Package, StoreError, Token, differences, smallest_free_id};
use model::api::{ChangeAnswer, Code, ConfigRequest, NodeResult, Problem};
use model::schema::plan::Change;
use model::schema::{Mode, ModuleConfiguration, Signature};
use model::{ModuleId, ModuleName, ModuleState, NodeName, Status};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one node prepared.
#[derive(Serialize, Deserialize, Debug)]
pub struct PreparedHere {
    /// For commit or abort.
    pub token: Token,
    /// The same everywhere.
    pub signature: String,
    /// What would change there; `None`: nothing is in force there.
    #[serde(default)]
    pub plan: Option<Vec<Change>>,
    /// It is in force there already, file by file.
    #[serde(default)]
    pub in_force: bool,
    /// Files that were edited there, are in force nowhere, and would be overwritten.
    #[serde(default)]
    pub edited: Vec<String>,
}

/// What one node has in force now.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Committed {
    /// The same everywhere.
    pub signature: String,
    /// What the module's own `postconfig` did not do there.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// A commit's answer between nodes: as the version before says and understands it, while there is nothing more to say.
#[derive(Serialize, Deserialize, Debug)]
#[serde(untagged)]
pub enum Said {
    /// The signature.
    Well(String),
    /// With what was not done.
    All(Committed),
}

impl From<Committed> for Said {
    fn from(committed: Committed) -> Self {
        if committed.problem.is_none() { Self::Well(committed.signature) } else { Self::All(committed) }
    }
}

fn what(module: &ModuleName) -> String {
    format!("the configuration of module {module} is not applied")
}

/// Where the module is here; `None`: it has no loop.
async fn place(agent: &Agent, module: &ModuleName) -> Option<(ModuleState, Status)> {
    let instances = agent.instances.read().await;
    let published = instances.get(module)?.published.borrow();
    Some((published.mirror.state, published.mirror.status))
}

/// Its copies know which of them is newer.
async fn has_served(agent: &Agent, module: &ModuleName) -> bool {
    let instances = agent.instances.read().await;
    instances.get(module).is_some_and(|instance| instance.published.borrow().mirror.epoch.is_some())
}

async fn mode(agent: &Agent, module: &ModuleName) -> Option<Mode> {
    agent.instances.read().await.get(module).map(|instance| instance.active().configuration.mode)
}

/// Refuses what a module that runs here cannot take.
async fn must_fit(agent: &Agent, module: &ModuleName, plan: Option<&[Change]>) -> Result<(), Problem> {
    let Some((state, status)) = place(agent, module).await.filter(|(state, _)| *state != ModuleState::Stop) else {
        return Ok(());
    };
    let node = agent.cluster.current().map_or_else(|| "this node".into(), |c| c.identity.name.to_string());
    let blocking: Vec<String> =
        plan.unwrap_or_default().iter().filter(|c| c.needs_stop).map(|c| format!("{}: {}", c.path, c.what)).collect();
    if plan.is_none() || !blocking.is_empty() {
        let why =
            format!("module {module} is started ({state}) on {node}, and this needs a stop: {}", blocking.join("; "));
        // Of a farm it may be this node alone that has to stop: the others serve on.
        let help = match mode(agent, module).await {
            Some(Mode::Farm) => format!("stead stop -m {module} -H {node}, then again (if all have to stop: -H '*')"),
            _ => format!("stead stop -m {module} -H '*'"),
        };
        return Err(Problem::new(Code::Refused, what(module), why).with_help(help));
    }
    if status == Status::Transient {
        let why = format!("module {module} is changing its state on {node} ({state} {status})");
        return Err(
            Problem::new(Code::Busy, what(module), why).with_help(format!("stead state -m {module}, then again"))
        );
    }
    Ok(())
}

/// First phase on this node. Where the module runs is looked at with `dry_run` too, and told instead of refused.
///
/// # Errors
/// What is wrong with the configuration, with lines; or that the module runs and would have to stop.
pub async fn prepare_here(
    agent: &Arc<Agent>,
    module: &ModuleName,
    archive: &[u8],
    id: ModuleId,
    dry_run: bool,
) -> Answer<(PreparedHere, Vec<model::api::Diagnostic>)> {
    let problem = |e: StoreError| e.problem(what(module));
    let package =
        Package::from_archive(archive).map_err(|e| Problem::new(Code::Invalid, what(module), e.to_string()))?;
    let cluster = agent.cluster.current();
    let subnets = subnets(agent).await;
    // Host names were looked up where the command was given: the package says what they are, the same on every node.
    let around = Around { cluster: cluster.as_ref().map(|c| &c.configuration), subnets: &subnets, names: None };
    let prepared = agent.store.prepare(module, archive, id, around).map_err(problem)?;
    let mut plan = agent.store.plan(module, &package).map_err(problem);
    if in_force_now(agent, module).await.is_some_and(|signature| signature == prepared.signature)
        && let Ok(plan) = &mut plan
    {
        let gone = || vec![Change { path: "active".into(), what: "put back as it was".into(), needs_stop: false }];
        plan.get_or_insert_with(gone).iter_mut().for_each(|change| change.needs_stop = false);
    }
    let link = by_a_link(&prepared.configuration).await.map(|(dir, real)| {
        let node = cluster.as_ref().map_or("this node", |it| it.identity.name.as_str());
        Problem::new(Code::Misconfigured, what(module), linked(&dir, &real, node)).with_help(name_itself(&real))
    });
    let mount = by_a_mount(agent, module, &prepared.configuration).await.map(|(dir, other, there)| {
        let node = cluster.as_ref().map_or("this node", |it| it.identity.name.as_str());
        let (dir, there) = (dir.display(), there.display());
        let why = format!("{dir} and {there} of module {other} are one directory on {node}, by a mount: two modules must not replicate it");
        Problem::new(Code::Misconfigured, what(module), why).with_help(format!("see on {node}: findmnt -T {dir}; findmnt -T {there}"))
    });
    let fits = match (&plan, link.or(mount)) {
        (Err(problem), _) => Err(problem.clone()),
        (_, Some(problem)) => Err(problem),
        (Ok(_), None) if dry_run => Ok(()),
        (Ok(plan), None) => must_fit(agent, module, plan.as_deref()).await,
    };
    let fits = match fits {
        Ok(()) if !dry_run => config_hook(agent, module, &prepared.token).await,
        other => other,
    };
    if let Err(problem) = fits {
        let _ = agent.store.abort(&prepared.token);
        return Err(problem);
    }
    let notes = crate::configuration::for_api(&prepared.diagnostics, b"");
    let in_force = agent.store.is_in_force(module, &package);
    let edited = agent.store.edited_otherwise(module, &package);
    let (token, signature) = (prepared.token, prepared.signature.0);
    Ok((PreparedHere { token, signature, plan: plan?, in_force, edited }, notes))
}

/// The first replicated directory that a symbolic link leads to here, and what it leads to.
pub(super) async fn by_a_link(configuration: &ModuleConfiguration) -> Option<(PathBuf, PathBuf)> {
    let dirs = configuration.rfs.iter().flat_map(|rfs| &rfs.dirs).map(|dir| PathBuf::from(&dir.path));
    super::copies::by_a_link(dirs.collect()).await
}

/// The first replicated directory that another module of this node has by another name, and whose it is.
async fn by_a_mount(
    agent: &Agent,
    module: &ModuleName,
    configuration: &ModuleConfiguration,
) -> Option<(PathBuf, ModuleName, PathBuf)> {
    let dirs = |it: &ModuleConfiguration| -> Vec<PathBuf> {
        it.rfs.iter().flat_map(|rfs| &rfs.dirs).map(|dir| PathBuf::from(&dir.path)).collect()
    };
    let others = agent.store.list().into_iter().filter(|it| it.name != *module);
    let others = others.filter_map(|it| agent.store.active(&it.name).ok()).flat_map(|active| {
        let named = |dir| (active.name.clone(), dir);
        dirs(&active.configuration).into_iter().map(named).collect::<Vec<_>>()
    });
    super::copies::by_a_mount(dirs(configuration), others.collect()).await
}

/// Why a start would refuse it.
pub(super) fn linked(dir: &Path, real: &Path, node: &str) -> String {
    format!("a symbolic link leads to {} on {node}, to {}: the start refuses that", dir.display(), real.display())
}

/// What helps.
pub(super) fn name_itself(real: &Path) -> String {
    format!("name the directory itself: <replicated dir=\"{}\"/>", real.display())
}

/// What its loop runs, whatever became of the files; without a loop, what the files say. The same once more puts back what
/// was lost or changed behind our back, and needs no stop: nothing that runs was started by others.
async fn in_force_now(agent: &Agent, module: &ModuleName) -> Option<Signature> {
    match agent.instance(module).await {
        Some(instance) => Some(instance.active().signature.clone()),
        None => agent.store.active(module).ok().map(|active| active.signature),
    }
}

/// The module's own word on what is about to be in force here.
async fn config_hook(agent: &Agent, module: &ModuleName, token: &Token) -> Result<(), Problem> {
    let staged = agent.store.prepared(token).map_err(|e| e.problem(what(module)))?;
    hooks::play(agent, &staged, "config", &[], hooks::CHANGE).await.map_err(|failed| failed.problem(what(module)))?;
    Ok(())
}

/// What is in force here was told to the module; `Some`: it did not do what it should.
async fn postconfig_hook(agent: &Agent, active: &Active) -> Option<Problem> {
    let told = hooks::play(agent, active, "postconfig", &[], hooks::CHANGE).await;
    let problem = |failed: hooks::Failed| {
        failed
            .problem(format!(
                "the configuration of module {} is in force, and what it asks of this node is not done",
                active.name
            ))
            .with_help(format!("repair it, then once more: stead config -m {}", active.name))
    };
    told.err().map(problem)
}

/// Second phase on this node: the new configuration is in force, and its loop goes on with it. `foreign`: it was not made of
/// this node's editable copy, and what was edited in that is kept.
///
/// # Errors
/// The old one is in force.
pub async fn commit_here(agent: &Arc<Agent>, module: &ModuleName, token: &Token, foreign: bool) -> Answer<Committed> {
    if foreign {
        agent.store.keep_edited(module, token).map_err(|e| e.problem(what(module)))?;
    }
    // Compared with what is in force now, not with what was when it was prepared: it may have been started since.
    let old = agent.store.active_package(module).ok();
    let before = agent.store.active(module).ok();
    let was_in_force = in_force_now(agent, module).await;
    let active = agent.store.commit(token).map_err(|e| e.problem(what(module)))?;
    let problem = postconfig_hook(agent, &active).await;
    let committed = Committed { signature: active.signature.0.clone(), problem };
    let changes = old.zip(agent.store.active_package(module).ok()).map(|(old, new)| differences(&old, &new));
    let takes = |changes: Vec<Change>| changes.iter().all(|change| !change.needs_stop);
    if (was_in_force.as_ref() == Some(&active.signature) || changes.is_some_and(takes))
        && let Some(instance) = agent.instance(module).await
    {
        instance.reconfigure(active).await;
        return Ok(committed);
    }
    let dropped = before.map(|before| dirs_no_more(&before, &active)).unwrap_or_default();
    if !dropped.is_empty() && place(agent, module).await.is_none_or(|(state, _)| state == ModuleState::Stop) {
        let old = agent.instances.write().await.remove(module);
        if let Some(old) = old {
            old.leave().await;
        }
        end_plane(agent, module).await;
        for dir in dropped {
            if let Err(error) = give_back(&dir).await {
                agent.warn(format!("{} is replicated no more, and stays covered: {}", dir.display(), causes(&error)));
            }
        }
    }
    agent.begin_module_anew(active).await;
    Ok(committed)
}

/// Replicated directories that are none any more.
fn dirs_no_more(before: &Active, now: &Active) -> Vec<std::path::PathBuf> {
    let kept = dirs_of(now);
    dirs_of(before).into_iter().filter(|dir| !kept.contains(dir)).collect()
}

/// What is to be applied, and where besides here.
struct Wanted {
    package: Package,
    /// Whether this node takes it too (not when it is exported from here).
    here: bool,
    others: Concerned,
}

fn wanted(agent: &Agent, module: &ModuleName, request: &ConfigRequest) -> Answer<Wanted> {
    // Who has a part in what is in force, and who will have one.
    let parts = |package: &Package| -> Vec<ModuleConfiguration> {
        let active = agent.store.active(module).ok().map(|active| active.configuration);
        meant(module, package).map(|new| active.into_iter().chain([new]).collect()).unwrap_or_default()
    };
    let problem = |e: StoreError| e.problem(what(module));
    let invalid = |why: &str, help: &str| Problem::new(Code::Invalid, what(module), why).with_help(help.to_string());
    if let Some(nodes) = &request.export {
        if !request.set.is_empty() || request.restore.is_some() || request.local {
            return Err(invalid("an export takes what is in force here, unchanged", "stead module export MODULE"));
        }
        let known = peers(agent);
        if let Some(stranger) = nodes.iter().find(|node| !known.contains(node)) {
            let why = format!("{stranger} is no other node of this cluster");
            return Err(Problem::new(Code::NotFound, what(module), why).with_help("stead cluster state"));
        }
        let altered = agent.store.active(module).map_err(problem)?.altered();
        if let Some(altered) = altered {
            let why = format!("what is in force here would be brought to the others, and {altered}");
            return Err(Problem::new(Code::Refused, what(module), why).with_help(format!("stead config -m {module}")));
        }
        let package = agent.store.active_package(module).map_err(problem)?;
        // Those that are named are meant.
        let others = if nodes.is_empty() {
            concerned(agent, &parts(&package))
        } else {
            Concerned { ask: nodes.clone(), ..Concerned::nobody() }
        };
        return Ok(Wanted { package, here: false, others });
    }
    let package = match request.restore {
        Some(_) if !request.set.is_empty() => {
            return Err(invalid(
                "a restored configuration is taken as it was",
                "stead config --restore, then stead config --set",
            ));
        }
        Some(number) => agent.store.past_package(module, number),
        None if request.set.is_empty() => agent.store.editable(module),
        None => agent.store.with_macros(module, &request.set),
    };
    let package = package.map_err(problem)?;
    let others = if request.local { Concerned::nobody() } else { concerned(agent, &parts(&package)) };
    Ok(Wanted { package, here: true, others })
}

/// `stead config -m AM`.
///
/// # Errors
/// The first node's refusal; nothing has changed anywhere then.
pub async fn configure(agent: &Arc<Agent>, module: &ModuleName, request: &ConfigRequest) -> Answer<ChangeAnswer> {
    let _one = agent.changing.lock().await;
    let others = wanted(agent, module, request)?.others.ask;
    // Before pairing there is nobody to take turns with.
    if agent.cluster.current().is_none() {
        return configure_in_turn(agent, module, request, None).await;
    }
    let change = format!("the configuration of module {module}");
    let turn = agent.applier.turn(&what(module), &change, &others, &agent.client).await?;
    let done = configure_in_turn(agent, module, request, Some(&turn)).await;
    turn.end().await;
    done
}

async fn configure_in_turn(
    agent: &Arc<Agent>,
    module: &ModuleName,
    request: &ConfigRequest,
    turn: Option<&Turn>,
) -> Answer<ChangeAnswer> {
    // Now, not before: the change before this one may have brought another copy.
    let Wanted { mut package, here, others } = wanted(agent, module, request)?;
    // What is exported or restored is taken as it was.
    if request.export.is_none() && request.restore.is_none() {
        let names = names_now(&package).await;
        if names.0.values().any(Result::is_err) {
            return Err(agent.store.refusal(module, &package, &names).problem(what(module)));
        }
        package = package.with_names(&names);
    }
    let archive =
        package.to_archive(module.as_str()).map_err(|e| Problem::new(Code::Invalid, what(module), e.to_string()))?;
    let listed = agent.store.list().into_iter().find(|it| it.name == *module);
    let id = match listed.and_then(|it| it.id) {
        Some(id) => id,
        None => smallest_free_id(agent.store.numbers()).map_err(|e| e.problem(what(module)))?,
    };
    let own = agent.cluster.current().map(|c| c.identity.name.clone());
    // An export is prepared here as well: what this version cannot read is not sent away.
    let (mine, mut diagnostics) = prepare_here(agent, module, &archive, id, request.dry_run || !here).await?;
    // What the archive has no more: lines as Windows ends them.
    diagnostics.extend(crate::configuration::for_api(&package.findings(&agent.store.shown(module), None), b""));
    let mut prepared: Vec<(NodeName, PreparedHere)> = Vec::new();
    let mut refusal = None;
    for node in &others.ask {
        let path = format!("/v1/peer/modules/{module}/prepare?id={}&dry_run={}", id.0, request.dry_run);
        match raw(agent, node, "POST", &path, archive.clone()).await {
            Ok(answer) => prepared.push((node.clone(), answer)),
            Err(problem) => {
                refusal = Some(or_only_here(problem, module, request));
                break;
            }
        }
    }
    if let Some((node, _)) = prepared.iter().find(|(_, p)| p.signature != mine.signature) {
        let why = format!("{node} understood the configuration differently: its version of stead is another");
        refusal = refusal.or_else(|| Some(Problem::new(Code::Refused, what(module), why)));
    }
    if let (None, false, Some(turn)) = (&refusal, request.dry_run, turn) {
        refusal = turn.confirm(&what(module)).await.err();
    }
    let plans: Vec<(Option<&NodeName>, Option<&[Change]>)> = (here.then_some((own.as_ref(), mine.plan.as_deref())))
        .into_iter()
        .chain(prepared.iter().map(|(node, p)| (Some(node), p.plan.as_deref())))
        .collect();
    let needs_stop = plans.iter().any(|(_, plan)| plan.is_some_and(|changes| changes.iter().any(|c| c.needs_stop)));
    let mut changes = told(&plans);
    let left_out = others.told(&format!("stead module export {module} --to NODE"));
    // Made of this node's own copy, it has what was edited here.
    let own_edits = request.restore.is_some().then_some((own.as_ref(), mine.edited.as_slice()));
    let edits: Vec<String> = own_edits
        .into_iter()
        .chain(prepared.iter().map(|(node, p)| (Some(node), p.edited.as_slice())))
        .filter(|(_, paths)| !paths.is_empty())
        .map(|(node, paths)| edited_sentence(module, node, paths, request.dry_run))
        .collect();
    if refusal.is_some() || request.dry_run {
        abort(agent, module, &mine.token, &prepared).await;
        if let Some(problem) = refusal {
            return Err(problem);
        }
        changes.push(if changes.is_empty() {
            "nothing would change".to_string()
        } else {
            format!("{} would come into force", mine.signature)
        });
        changes.extend(edits);
        changes.extend(left_out);
        let all = here.then_some(own).flatten().map(|node| (node, mine.signature));
        let all = all.into_iter().chain(prepared.into_iter().map(|(node, p)| (node, p.signature)));
        let nodes = all.map(|(node, signature)| NodeResult { node, signature, problem: None }).collect();
        let started = place(agent, module).await.is_some_and(|(state, _)| state != ModuleState::Stop);
        let next = if needs_stop && started {
            format!("stead stop -m {module} -H '*', then {}", command_of(module, request))
        } else {
            command_of(module, request)
        };
        return Ok(ChangeAnswer { applied: false, changes, needs_stop, nodes, diagnostics, next });
    }
    // Nothing to do: no loop is disturbed, and no place among the last three is taken.
    if mine.in_force && prepared.iter().all(|(_, p)| p.in_force) {
        abort(agent, module, &mine.token, &prepared).await;
        let result = |node: NodeName| NodeResult { node, signature: mine.signature.clone(), problem: None };
        let nodes =
            own.filter(|_| here).into_iter().chain(prepared.into_iter().map(|(node, _)| node)).map(result).collect();
        let changes = std::iter::once("it was in force already".to_string()).chain(left_out).collect();
        return Ok(ChangeAnswer { applied: true, changes, nodes, diagnostics, ..ChangeAnswer::default() });
    }
    // The others first: this node's own commit is the one least likely to fail.
    let mut nodes = Vec::new();
    for (node, prepared) in &prepared {
        let committed: Answer<Said> =
            json(agent, node, &format!("/v1/peer/modules/{module}/commit"), &prepared.token).await;
        let (signature, problem) = match committed {
            Ok(Said::All(Committed { signature, problem })) => (signature, problem),
            Ok(Said::Well(signature)) => (signature, None),
            Err(problem) => (String::new(), Some(problem)),
        };
        nodes.push(NodeResult { node: node.clone(), signature, problem });
    }
    if here {
        let foreign = request.restore.is_some();
        let Committed { signature, problem } = commit_here(agent, module, &mine.token, foreign).await?;
        if let Some(node) = own {
            nodes.insert(0, NodeResult { node, signature, problem });
        }
    } else {
        let _ = agent.store.abort(&mine.token);
    }
    changes.extend(edits);
    changes.extend(left_out);
    let next = match place(agent, module).await {
        Some((state, _)) if state != ModuleState::Stop => format!("stead state -v -m {module}"),
        _ if has_served(agent, module).await => format!("stead start -m {module} -H '*'"),
        _ => first_start(module, mode(agent, module).await),
    };
    Ok(ChangeAnswer { applied: true, changes, needs_stop, nodes, diagnostics, next })
}

/// What somebody edited on a node, and another's copy takes the place of.
fn edited_sentence(module: &ModuleName, node: Option<&NodeName>, paths: &[String], dry_run: bool) -> String {
    let node = node.map_or("this node", NodeName::as_str);
    let after = if dry_run {
        "it would be overwritten".to_string()
    } else {
        format!("overwritten, and kept: stead confinfo -m {module} -H {node}")
    };
    format!("on {node}: edited there and not applied: {}; {after}", paths.join(", "))
}

/// What comes after the first configuration.
fn first_start(module: &ModuleName, mode: Option<Mode>) -> String {
    match mode {
        Some(Mode::Farm) => format!("stead start -m {module} -H '*'"),
        Some(Mode::Light) => format!("stead start -m {module} on each node that is to run it"),
        Some(Mode::Mirror) | None => {
            format!("stead prim -m {module} on the node that has the good data, stead start -m {module} on the other")
        }
    }
}

async fn abort(agent: &Agent, module: &ModuleName, mine: &Token, prepared: &[(NodeName, PreparedHere)]) {
    let _ = agent.store.abort(mine);
    for (node, prepared) in prepared {
        let _: Answer<()> = json(agent, node, &format!("/v1/peer/modules/{module}/abort"), &prepared.token).await;
    }
}

/// The plans in sentences: what is the same on all nodes once, the rest with its node.
fn told(plans: &[(Option<&NodeName>, Option<&[Change]>)]) -> Vec<String> {
    let sentences = |plan: &Option<&[Change]>| -> Vec<String> {
        plan.map_or_else(
            || vec!["the module's first configuration".to_string()],
            |it| it.iter().map(Change::sentence).collect(),
        )
    };
    let mut found: Vec<(String, Vec<&NodeName>)> = Vec::new();
    for (node, plan) in plans {
        for sentence in sentences(plan) {
            match found.iter_mut().find(|(known, _)| *known == sentence) {
                Some((_, nodes)) => nodes.extend(*node),
                None => found.push((sentence, node.iter().copied().collect())),
            }
        }
    }
    let everywhere = |nodes: &[&NodeName]| nodes.len() == plans.len() || nodes.is_empty();
    found
        .into_iter()
        .map(|(sentence, nodes)| {
            if everywhere(&nodes) {
                return sentence;
            }
            let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
            format!("on {}: {sentence}", names.join(", "))
        })
        .collect()
}
/// A node that is off for long must not keep the others as they are.
fn or_only_here(problem: Problem, module: &ModuleName, request: &ConfigRequest) -> Problem {
    if problem.code != Code::Unreachable || request.export.is_some() {
        return problem;
    }
    let local = command_of(module, &ConfigRequest { local: true, ..request.clone() });
    let help = format!("{}; to change this node only, and the other when it is back: {local}", problem.help);
    problem.with_help(help)
}

/// What applies that which was only looked at.
fn command_of(module: &ModuleName, request: &ConfigRequest) -> String {
    if let Some(nodes) = &request.export {
        let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
        let to = if names.is_empty() { String::new() } else { format!(" --to {}", names.join(",")) };
        return format!("stead module export -m {module}{to}");
    }
    let mut command = format!("stead config -m {module}");
    for (name, value) in &request.set {
        let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:,".contains(c));
        let value = if is_plain { value.clone() } else { format!("'{}'", value.replace('\'', "'\\''")) };
        command.push_str(&format!(" --set {name}={value}"));
    }
    if let Some(number) = request.restore {
        command.push_str(&format!(" --restore {number}"));
    }
    if request.local {
        command.push_str(" --local");
    }
    command
}
