//! `stead state`: this node's modules, and the other nodes' when they answer.

use super::Context;
use crate::cli::StateArgs;
use crate::output::{Done, NO_AGENT, Output, QUIET_FAILED, exit_code};
use crate::show::{self, StateRow};
use model::ModuleName;
use model::api::{ClusterView, Code, MemberView, ModuleList, ModuleView, Problem};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Another node that does not answer within this is shown as silent: a look must not take longer than a failover.
const OTHER_NODE: Duration = Duration::from_millis(900);

/// The verb.
pub async fn state(context: &Context, args: &StateArgs) -> Result<Done, Problem> {
    if args.quiet {
        let module = context.module().await?;
        let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
        return Ok(Done::new(format!("{}\n", view.state), json!({ "state": view.state })).exit(view.state.exit_code()));
    }
    let own = views(context, context.module.as_ref()).await?;
    let mut rows: Vec<StateRow> = own.iter().cloned().map(|view| StateRow::Known(Box::new(view))).collect();
    if !args.local && context.node.is_none() {
        rows.extend(others(context, &own).await);
        // Module by module; a stable sort keeps this node first.
        rows.sort_by(|a, b| module_of(a).cmp(module_of(b)));
    }
    let (mut text, mut document) = (text(&rows, args, context), document(&rows));
    // The module's own word is asked for only when everything is wanted: it is a program that runs.
    if let (true, Some(module)) = (args.verbose, &context.module)
        && let Some(said) = super::hook::told(context, module, "state").await
    {
        text.push_str(&super::hook::block("state", &said));
        document["module_state"] = json!(said);
    }
    Ok(Done::new(text, document))
}

/// Refusals of `-q` must not look like a state.
pub fn refuse(problem: &Problem, quiet: bool, json: bool, output: &Output) -> ExitCode {
    let exit = match problem.code {
        Code::NoAgent => NO_AGENT,
        _ if quiet => QUIET_FAILED,
        _ => exit_code(problem),
    };
    output.refuse(problem, json, exit)
}

async fn views(context: &Context, module: Option<&ModuleName>) -> Result<Vec<ModuleView>, Problem> {
    match module {
        Some(module) => Ok(vec![context.client.get(&format!("modules/{module}/state")).await?]),
        None => Ok(context.client.get::<ModuleList>("modules").await?.modules),
    }
}

async fn others(context: &Context, own: &[ModuleView]) -> Vec<StateRow> {
    // Before pairing there is nobody else, and a failure here must not hide what this node said.
    let Ok(cluster) = context.client.within(OTHER_NODE).get::<ClusterView>("cluster").await else {
        return Vec::new();
    };
    let mut asked = Vec::new();
    for member in cluster.members.into_iter().filter(|m| !m.witness && Some(&m.name) != cluster.node.as_ref()) {
        let there = Context { client: context.client.on(member.name.clone()).within(OTHER_NODE), ..context.clone() };
        asked.push(tokio::spawn(async move {
            if !member.seen {
                let why = "no heartbeat from this node";
                return (member, Err(Problem::new(Code::Unreachable, "not asked", why)));
            }
            let answer = views(&there, there.module.as_ref()).await;
            (member, answer)
        }));
    }
    let mut rows = Vec::new();
    for task in asked {
        let Ok((member, answer)) = task.await else {
            continue;
        };
        match answer {
            Ok(views) => {
                let has = |module: &ModuleName| views.iter().any(|view| view.module == *module);
                let missing = Problem::new(Code::NotFound, "no state", "it is not installed there");
                rows.extend(own.iter().filter(|view| !has(&view.module)).map(|view| silent(view, &member, &missing)));
                rows.extend(views.into_iter().map(|view| StateRow::Known(Box::new(view))));
            }
            Err(problem) => rows.extend(own.iter().map(|view| silent(view, &member, &problem))),
        }
    }
    rows
}

/// What is known of a node that does not answer: what its peer last heard.
fn silent(view: &ModuleView, member: &MemberView, problem: &Problem) -> StateRow {
    let mut problem = problem.clone();
    if let Some(peer) = view.peer.as_ref().filter(|peer| peer.node == member.name) {
        let said = match (peer.state, peer.status) {
            (Some(state), Some(status)) => format!("; it last said {state} {status}"),
            _ => String::new(),
        };
        let why = if problem.why.is_empty() { &problem.what } else { &problem.why };
        problem.why = match peer.seen_ms_ago {
            Some(ms) => format!("{why}, last heard {} ago{said}", show::duration(ms)),
            None => why.clone(),
        };
    }
    StateRow::Silent { module: view.module.clone(), node: member.name.clone(), problem }
}

const fn module_of(row: &StateRow) -> &ModuleName {
    match row {
        StateRow::Known(view) => &view.module,
        StateRow::Silent { module, .. } => module,
    }
}

fn text(rows: &[StateRow], args: &StateArgs, context: &Context) -> String {
    if rows.is_empty() {
        return "no module is installed on this node\n  next: stead module install NAME|X.safe|DIR\n".into();
    }
    if !args.verbose {
        return show::state_table(rows, context.output.paint);
    }
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let blocks: Vec<String> = rows
        .iter()
        .map(|row| match row {
            StateRow::Known(view) => show::details(view, context.output.paint, now),
            StateRow::Silent { module, node, problem } => {
                format!("{module} on {node}: no answer\n  {:<13}  {problem}\n", "reason")
            }
        })
        .collect();
    blocks.join("\n")
}

fn document(rows: &[StateRow]) -> serde_json::Value {
    let mut modules = Vec::new();
    let mut silent = Vec::new();
    for row in rows {
        match row {
            StateRow::Known(view) => modules.push(json!(view)),
            StateRow::Silent { module, node, problem } => {
                silent.push(json!({ "module": module, "node": node, "problem": problem }))
            }
        }
    }
    json!({ "modules": modules, "silent": silent })
}
