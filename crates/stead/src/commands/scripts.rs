//! What scripts and service managers call: printi, printe, update, shutdown, kill, boot, deconfig.

use super::Context;
use super::watch::{Aim, Goal, Limit, watch};
use crate::cli::{BootVerb, KillArgs, Level, PrintArgs, ShutdownArgs};
use crate::client::COMMAND;
use crate::output::{Done, FAILED};
use model::ModuleState;
use model::api::{
    Code, Command, CommandAnswer, CommandRequest, ModuleList, ModuleView, PortList, Problem, WatchRequest,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// `stead printi`, `stead printe`.
pub async fn print(context: &Context, args: &PrintArgs, error: bool) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = WatchRequest::Print { error, text: args.text.join(" ") };
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/watch"), &request, COMMAND).await?;
    // A script prints often, and nobody reads what this prints.
    Ok(Done::new(String::new(), json!({ "module": module, "sentence": answer.sentence })))
}

/// `stead boot`.
pub fn boot(verb: &BootVerb) -> Result<WatchRequest, Problem> {
    match verb {
        BootVerb::On => Ok(WatchRequest::Boot { on: Some(true) }),
        BootVerb::Off => Ok(WatchRequest::Boot { on: Some(false) }),
        BootVerb::Status => Ok(WatchRequest::Boot { on: None }),
        BootVerb::Other(words) => {
            let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            let what = format!("boot {word} is refused");
            Err(match word.as_str() {
                "webon" | "weboff" | "webstatus" => {
                    Problem::new(Code::NotYet, what, "there is no web server beside the agent")
                        .with_help("systemctl is-enabled stead")
                }
                "snmpon" | "snmpoff" | "snmpstatus" => {
                    Problem::new(Code::NotYet, what, "SNMP comes with a later version")
                        .with_help("stead state --json, from your monitoring")
                }
                _ => Problem::new(Code::Invalid, what, "it is on, off or status").with_help("stead boot --help"),
            })
        }
    }
}

/// `stead deconfig`.
pub async fn deconfig(context: &Context) -> Result<Done, Problem> {
    let module = context.module().await?;
    let none = serde_json::Value::Null;
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/deconfig"), &none, COMMAND).await?;
    let text = format!("{}\n  next: stead deconfig -m {module} -H '*', or stead config -m {module}\n", answer.sentence);
    Ok(Done::new(text, &answer))
}

/// `stead shutdown`: the modules one after the other, the one with the highest number first, within one bound.
pub async fn shutdown(context: &Context, args: &ShutdownArgs) -> Result<Done, Problem> {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let mut modules: Vec<ModuleView> = context.client.get::<ModuleList>("modules").await?.modules;
    let ports: PortList = context.client.get("modules/getports").await?;
    let number =
        |view: &ModuleView| ports.ports.iter().find(|it| it.module.as_ref() == Some(&view.module)).map(|it| it.port);
    modules.sort_by_key(|view| std::cmp::Reverse(number(view)));
    let (mut text, mut stopped, mut failed) = (String::new(), Vec::new(), Vec::new());
    for view in modules.into_iter().filter(|view| view.state != ModuleState::Stop) {
        let module = view.module.clone();
        match stop(context, view, until).await {
            Ok(()) => {
                text.push_str(&format!("{module} is stopped\n"));
                stopped.push(module);
            }
            Err(problem) => {
                text.push_str(&format!("{module} is not stopped: {}: {}\n", problem.what, problem.why));
                failed.push(module);
            }
        }
    }
    if stopped.is_empty() && failed.is_empty() {
        text.push_str("no module was started on this node\n");
    }
    if !failed.is_empty() {
        text.push_str("  next: stead forcestop -m MODULE\n");
    }
    let exit = if failed.is_empty() { 0 } else { FAILED };
    Ok(Done::new(text, json!({ "stopped": stopped, "not_stopped": failed })).exit(exit))
}

async fn stop(context: &Context, view: ModuleView, until: Instant) -> Result<(), Problem> {
    let module = view.module.clone();
    let request = CommandRequest { wait_ms: 1_000, ..CommandRequest::of(Command::Shutdown) };
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/command"), &request, COMMAND).await?;
    let aim = Aim { goal: Goal::At(ModuleState::Stop), since: None };
    let last = watch(context, answer.module, aim, None, Limit::At(until)).await?;
    if last.state == ModuleState::Stop {
        return Ok(());
    }
    Err(Problem::new(Code::Busy, "time is up", last.reason))
}

/// `stead kill`: on this machine, without the agent.
pub fn kill(args: &KillArgs) -> Result<Done, Problem> {
    let invalid = |why: String| {
        Problem::new(Code::Invalid, "nothing is killed", why).with_help("stead kill --name NAME --level test")
    };
    let killed = agent::tools::kill(
        &args.name,
        args.argregex.as_deref(),
        match args.level {
            Level::Test => None,
            Level::Terminate | Level::Term => Some(false),
            Level::Kill => Some(true),
        },
    )
    .map_err(invalid)?;
    let mut text: String = killed.iter().map(|(pid, command)| format!("{pid} {command}\n")).collect();
    if killed.is_empty() {
        text.push_str(&format!("no process '{}' runs here\n", args.name));
    }
    let found: Vec<_> = killed.iter().map(|(pid, command)| json!({ "pid": pid, "command": command })).collect();
    Ok(Done::new(text, json!({ "processes": found })))
}
