//! From a verb to the agent and back: which node, which module, which call, which words.
//!
//! Decides nothing about modules. **Invariant:** with `--json`, stdout gets one document (`log -f`: one per line).

mod checkers;
mod cluster;
mod config;
mod control;
mod documents;
mod farm;
mod hook;
mod install;
mod journal;
mod log;
mod progress;
mod quarantine;
mod rfssync;
mod scripts;
mod several;
mod state;
mod template;
mod verify;
mod watch;

use crate::cli::{Cli, GetArgs, Global, JournalVerb, LogArgs, ModuleVerb, Verb};
use crate::client::Client;
use crate::output::{DONE, Done, FAILED, Output, exit_code, refusal};
use crate::{roles, show};
use model::api::{ClusterView, Code, DEFAULT_SOCKET, ModuleList, Problem, WatchRequest};
use model::{ModuleName, NodeName};
#[cfg(test)]
pub use scripts::boot;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// What every verb needs to know; one per target node.
#[derive(Clone)]
pub struct Context {
    /// The agent, on the target node's behalf.
    pub client: Client,
    /// `-m`, or the environment's.
    pub module: Option<ModuleName>,
    /// The target of `-H`; `None`: this node.
    pub node: Option<NodeName>,
    /// `--json`.
    pub json: bool,
    /// Several nodes work at the same time: progress names its node.
    pub several: bool,
    /// Streams.
    pub output: Output,
}

impl Context {
    /// The module meant: named, or the only one.
    pub async fn module(&self) -> Result<ModuleName, Problem> {
        if let Some(module) = &self.module {
            return Ok(module.clone());
        }
        let list: ModuleList = self.client.get("modules").await?;
        match list.modules.as_slice() {
            [only] => Ok(only.module.clone()),
            [] => Err(Problem::new(Code::NotFound, "no module is named", "and none is installed on this node")
                .with_help("stead module install NAME|X.safe|DIR")),
            many => {
                let names: Vec<&str> = many.iter().map(|m| m.module.as_str()).collect();
                Err(Problem::new(
                    Code::Invalid,
                    "no module is named",
                    format!("there are {}: {}", names.len(), names.join(", ")),
                )
                .with_help(format!("name it: -m {}", names[0])))
            }
        }
    }
}

/// Runs a verb to its exit code.
pub fn run(cli: Cli, output: &Output) -> ExitCode {
    let json = cli.global.json;
    if let Some(problem) = cli.global.on.as_ref().and_then(|_| several::elsewhere(&cli.verb)) {
        return output.refuse(&problem, json, FAILED);
    }
    match cli.verb {
        Verb::Lab(args) => crate::lab_command::run(args).unwrap_or_else(|error| {
            output.refuse(&Problem::new(Code::Internal, format!("{error:#}"), ""), json, FAILED)
        }),
        Verb::Agent(args) => output.finish(roles::agent(&args, &cli.global), json),
        Verb::Mirrorfs(args) => output.finish(roles::mirrorfs(&args, &cli.global), json),
        Verb::Witness(args) => output.finish(roles::witness(&args, &cli.global), json),
        Verb::Completions(args) => output.finish(documents::completions(&args), json),
        Verb::Man(args) => output.finish(documents::man(&args), json),
        Verb::Kill(args) if cli.global.on.is_none() => output.finish(scripts::kill(&args), json),
        Verb::Journal(JournalVerb::Replay(args)) => {
            let module = named_module(&cli.global);
            output.finish(module.and_then(|module| journal::replay(&args, module.as_ref())), json)
        }
        Verb::WhatIf(args) => {
            let module = named_module(&cli.global);
            output.finish(module.and_then(|module| journal::what_if(&args, module.as_ref())), json)
        }
        Verb::Module(ModuleVerb::New(args)) => output.finish(template::new(&args), json),
        verb => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(ask(verb, &cli.global, output)),
                Err(error) => {
                    let problem = Problem::new(Code::Internal, "cannot start", error.to_string());
                    output.refuse(&problem, json, FAILED)
                }
            }
        }
    }
}

async fn ask(verb: Verb, global: &Global, output: &Output) -> ExitCode {
    let quiet = matches!(&verb, Verb::State(args) if args.quiet);
    let client = Client::new(
        global.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET)),
        global.deadline.map(Duration::from_secs),
    );
    let module = match named_module(global) {
        Ok(module) => module,
        Err(problem) => return state::refuse(&problem, quiet, global.json, output),
    };
    let here =
        Context { client: client.clone(), module, node: None, json: global.json, several: false, output: *output };
    // One node that does not know of it would take over all the same.
    let everywhere = matches!(verb, Verb::Failover(_)).then(|| "*".to_string());
    let Some(wanted) = global.on.as_ref().or(everywhere.as_ref()) else {
        let result = one(&verb, &here).await;
        return match result {
            Err(problem) => state::refuse(&problem, quiet, global.json, output),
            done => output.finish(done, global.json),
        };
    };
    match targets(wanted, &client).await {
        Ok(nodes) => on_nodes(verb, nodes, &here).await,
        Err(problem) => state::refuse(&problem, quiet, global.json, output),
    }
}

/// The same verb on every named node at the same time (but see [`several::turns`]); sections in the order they were named.
async fn on_nodes(verb: Verb, nodes: Vec<NodeName>, here: &Context) -> ExitCode {
    if nodes.len() > 1
        && let Some(problem) = several::on_several(&verb)
    {
        return here.output.refuse(&problem, here.json, FAILED);
    }
    let on = |node: &NodeName| Context {
        client: here.client.on(node.clone()),
        node: Some(node.clone()),
        several: nodes.len() > 1,
        ..here.clone()
    };
    let contexts: Vec<Context> = nodes.iter().map(on).collect();
    let turns = several::turns(&verb, &contexts).await;
    let verb = Arc::new(verb);
    let mut results = std::collections::BTreeMap::new();
    let mut failed: Option<NodeName> = None;
    for turn in 0..nodes.len() {
        let of_turn = || contexts.iter().enumerate().filter(|(place, _)| turns.of[*place] == turn);
        if let Some(failed) = failed.as_ref().filter(|_| turns.is_chain) {
            results
                .extend(of_turn().map(|(place, _)| (place, Err(several::not_followed(&verb, &nodes[place], failed)))));
            continue;
        }
        let running: Vec<_> = of_turn()
            .map(|(place, context)| {
                let (verb, context) = (Arc::clone(&verb), context.clone());
                (place, tokio::spawn(async move { one(&verb, &context).await }))
            })
            .collect();
        for (place, task) in running {
            let ended_badly = |error: tokio::task::JoinError| {
                Err(Problem::new(Code::Internal, "the request ended badly", error.to_string()))
            };
            let result = task.await.unwrap_or_else(ended_badly);
            if result.as_ref().map_or(true, |done| done.exit != 0) {
                failed.get_or_insert_with(|| nodes[place].clone());
            }
            results.insert(place, result);
        }
    }
    let mut whole = Done { json: json!({ "nodes": {} }), ..Done::default() };
    for (node, result) in nodes.iter().zip(results.into_values()) {
        let (text, json, exit) = match result {
            Ok(done) => (done.text, done.json, done.exit),
            Err(problem) => (refusal(&problem), json!({ "error": problem }), exit_code(&problem)),
        };
        whole.text.push_str(&format!("[{node}]\n{text}"));
        whole.json["nodes"][node.as_str()] = json;
        whole.exit = whole.exit.max(exit);
    }
    here.output.finish(Ok(whole), here.json)
}

async fn one(verb: &Verb, context: &Context) -> Result<Done, Problem> {
    match verb {
        Verb::State(args) => state::state(context, args).await,
        Verb::Level => {
            let node: model::api::NodeView = context.client.get("node").await?;
            let mut text = show::level(&node, env!("CARGO_PKG_VERSION"));
            let mut document = json!(node);
            // Of a module only when one is named: its script `level` says which version of the application runs.
            if let Some(module) = &context.module
                && let Some(said) = hook::told(context, module, "level").await
            {
                text.push_str(&format!("module {module}\n{}", hook::block("level", &said)));
                document["module_level"] = json!(said);
            }
            Ok(Done::new(text, document))
        }
        Verb::Log(args) => log::log(context, args).await,
        Verb::Logview(args) => log::log(context, &LogArgs { follow: true, ..args.clone() }).await,
        Verb::Logsave(args) => log::save(context, args).await,
        Verb::Why => {
            let module = context.module().await?;
            let view: model::api::WhyView = context.client.get(&format!("modules/{module}/why")).await?;
            Ok(Done::new(show::why(&view), &view))
        }
        Verb::Config(args) => config::config(context, args).await,
        Verb::Confinfo => config::confinfo(context).await,
        Verb::Confcheck(args) => config::confcheck(context, args).await,
        Verb::Module(verb) => install::module(context, verb).await,
        Verb::Rfsdiff => {
            let module = context.module().await?;
            let view: model::api::DiffView = context.client.get(&format!("modules/{module}/diff")).await?;
            Ok(Done::new(show::diff(&view), &view))
        }
        Verb::Rfsverify(args) => verify::verify(context, args).await,
        Verb::Rfssync(args) => rfssync::rfssync(context, args).await,
        Verb::Checker(verb) => checkers::checker(context, verb).await,
        Verb::Errd(verb) => checkers::errd(context, verb).await,
        Verb::Failover(verb) => checkers::failover(context, *verb).await,
        Verb::Printi(args) => scripts::print(context, args, false).await,
        Verb::Printe(args) => scripts::print(context, args, true).await,
        Verb::Update => checkers::ask(context, WatchRequest::Update).await,
        Verb::Boot(verb) => checkers::ask(context, scripts::boot(verb)?).await,
        Verb::Deconfig => scripts::deconfig(context).await,
        Verb::Shutdown(args) => scripts::shutdown(context, args).await,
        Verb::Kill(_) => {
            Err(Problem::new(Code::Invalid, "nothing is killed", "it ends processes of this machine only")
                .with_help("stead kill, on that machine"))
        }
        Verb::Incloop(args) => checkers::incloop(context, args).await,
        Verb::Resetloop => checkers::resetloop(context).await,
        Verb::Checkloop => checkers::get(context, &GetArgs { resource: Some("heart.stopstartloop".into()) }).await,
        Verb::Get(args) => checkers::get(context, args).await,
        Verb::Set(args) => checkers::set(context, args).await,
        Verb::Rules(verb) => checkers::rules(context, verb).await,
        Verb::Farm(verb) => farm::farm(context, verb).await,
        Verb::Quarantine(verb) => quarantine::quarantine(context, verb).await,
        Verb::Cluster(verb) => cluster::cluster(context, verb).await,
        Verb::Lab(_) | Verb::Agent(_) | Verb::Mirrorfs(_) | Verb::Witness(_) | Verb::Completions(_) | Verb::Man(_) => {
            Ok(Done { exit: DONE, ..Done::default() })
        }
        verb => control::control(context, verb).await,
    }
}

fn named_module(global: &Global) -> Result<Option<ModuleName>, Problem> {
    if global.module.is_some() {
        return Ok(global.module.clone());
    }
    for variable in ["STEAD_MODULE", "SAFEMODULE"] {
        match std::env::var(variable) {
            Ok(name) if !name.is_empty() => {
                return ModuleName::new(&name).map(Some).map_err(|error| {
                    Problem::new(Code::Invalid, format!("the variable {variable} names no module"), error.to_string())
                        .with_help("stead module list")
                });
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The nodes `-H` means.
async fn targets(wanted: &str, client: &Client) -> Result<Vec<NodeName>, Problem> {
    if wanted.trim() == "*" {
        let cluster: ClusterView = client.get("cluster").await?;
        let nodes: Vec<NodeName> = cluster.members.into_iter().filter(|m| !m.witness).map(|m| m.name).collect();
        if nodes.is_empty() {
            return Err(Problem::new(Code::Refused, "cannot ask all nodes", "this machine is in no cluster")
                .with_help("stead cluster init, or stead cluster join ADDR --token T"));
        }
        return Ok(nodes);
    }
    let mut nodes = Vec::new();
    for name in wanted.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let node = NodeName::new(name).map_err(|error| {
            Problem::new(Code::Invalid, "cannot run on these nodes", error.to_string())
                .with_help("stead cluster state lists the nodes; all: -H '*'")
        })?;
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if nodes.is_empty() {
        return Err(Problem::new(Code::Invalid, "cannot run on no node", "-H names none")
            .with_help("stead cluster state lists the nodes; all: -H '*'"));
    }
    Ok(nodes)
}
