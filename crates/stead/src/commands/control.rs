//! The verbs that move a module: send, then watch until it has settled and say what came of it.

use super::Context;
use super::watch::{Aim, Goal, Limit, SETTLED_FOR, goal, missed, watch};
use crate::cli::{ControlArgs, FullSync, Verb};
use crate::client::COMMAND;
use crate::output::Done;
use model::api::{Code, Command, CommandAnswer, CommandRequest, ModuleView, Problem};
use model::{ModuleName, ModuleState};
use serde_json::json;
use std::time::{Duration, Instant};

/// The agent answers at once when the module settles within this.
const FIRST_WAIT: Duration = Duration::from_millis(1_000);

/// start, stop, …, waitstate.
pub async fn control(context: &Context, verb: &Verb) -> Result<Done, Problem> {
    let module = context.module().await?;
    let command = CommandRequest::of;
    let by = |command, who: &Option<String>| CommandRequest {
        identity: who.clone().unwrap_or_default(),
        ..CommandRequest::of(command)
    };
    let (request, args) = match verb {
        Verb::Start(args) => (command(Command::Start), args),
        Verb::Stop(args) => (by(Command::Stop, &args.identity), &args.control),
        Verb::Restart(args) => (by(Command::Restart, &args.identity), &args.control),
        Verb::Stopstart(args) => (by(Command::StopStart, &args.identity), &args.control),
        Verb::Swap(args) => (by(Command::Swap, &args.identity), &args.control),
        Verb::Primforce(args) => (CommandRequest { force: true, ..command(Command::Prim) }, args),
        Verb::Secondforce(args) => (CommandRequest { full: true, ..command(Command::Second) }, &args.control),
        Verb::Forcestop(args) => (command(Command::ForceStop), args),
        Verb::Release(args) => (command(Command::Release), args),
        Verb::Second(args) => (CommandRequest { full: full(args.full), ..command(Command::Second) }, &args.control),
        Verb::Prim(args) => {
            (CommandRequest { full: full(args.full), force: args.force, ..command(Command::Prim) }, &args.control)
        }
        Verb::Waitstart(args) => return wait(context, &module, Goal::Serving, args.timeout).await,
        Verb::Waitstop(args) => {
            return wait(context, &module, Goal::At(ModuleState::Stop), args.timeout).await;
        }
        Verb::Waitstate(args) => {
            return wait(context, &module, Goal::At(args.state), args.wait.timeout).await;
        }
        _ => {
            return Err(Problem::new(Code::Internal, "not a verb that moves a module", ""));
        }
    };
    // A script of the module that waited for what it asked for would wait for its own end.
    let from_script = ControlArgs { no_wait: true, ..args.clone() };
    let args = if !request.identity.is_empty() || is_script_of(&module) { &from_script } else { args };
    command_and_watch(context, &module, request, args).await
}

/// Does a script of this module run the program? A person may have named the module in the environment; where its scripts keep what they
/// keep, only they are told.
fn is_script_of(module: &ModuleName) -> bool {
    std::env::var("SAFEMODULE").is_ok_and(|name| name == module.as_str()) && std::env::var_os("SAFEUSERRUN").is_some()
}

const fn full(asked: Option<FullSync>) -> bool {
    matches!(asked, Some(FullSync::Fullsync))
}

pub(super) async fn command_and_watch(
    context: &Context,
    module: &ModuleName,
    mut request: CommandRequest,
    args: &ControlArgs,
) -> Result<Done, Problem> {
    let before: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    if !args.no_wait {
        request.wait_ms = FIRST_WAIT.as_millis() as u64;
    }
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/command"), &request, COMMAND).await?;
    let verb = request.command;
    if args.no_wait || verb == Command::Release {
        let text = format!(
            "{}\n",
            if answer.sentence.is_empty() { format!("{verb} accepted") } else { answer.sentence.clone() }
        );
        return Ok(Done::new(text, json!({ "command": verb, "sentence": answer.sentence, "module": answer.module })));
    }
    let goal = goal(verb, &before);
    let aim =
        Aim { goal, since: matches!(verb, Command::Restart | Command::StopStart).then_some(before.since_unix_ms) };
    let last = if answer.settled && aim.is_reached(&answer.module) {
        answer.module
    } else {
        let stall = Duration::from_secs(args.timeout);
        watch(context, answer.module, aim, Some(SETTLED_FOR), Limit::Stalled(stall)).await?
    };
    if goal.is_reached(&last) || goal.is_accepted(&last) {
        return Ok(Done::new(outcome(&last), json!({ "command": verb, "sentence": answer.sentence, "module": last })));
    }
    Err(missed(&format!("{verb} of module {module} on {}", last.node), &last))
}

async fn wait(context: &Context, module: &ModuleName, goal: Goal, timeout_s: u64) -> Result<Done, Problem> {
    let first: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    if let Goal::At(state) = goal
        && let Some(states) = states_of(&first.mode)
        && !states.contains(&state)
    {
        let words: Vec<String> = states.iter().map(ToString::to_string).collect();
        let why = format!("a {} module is never {state}: it is {}", first.mode, words.join(", "));
        return Err(Problem::new(Code::Invalid, format!("nobody waits for module {module}"), why)
            .with_help(format!("stead waitstart -m {module}")));
    }
    let limit = Limit::At(Instant::now() + Duration::from_secs(timeout_s));
    let last = watch(context, first, Aim { goal, since: None }, None, limit).await?;
    Ok(Done::new(outcome(&last), json!({ "module": last })))
}

/// Where a module of this mode can be; `None`: the mode is not known here.
fn states_of(mode: &str) -> Option<&'static [ModuleState]> {
    use ModuleState::{Alone, Prim, Second, Stop, Up, Wait};
    match mode {
        "mirror" => Some(&[Stop, Wait, Alone, Prim, Second]),
        "farm" | "light" => Some(&[Stop, Wait, Up]),
        _ => None,
    }
}

fn outcome(view: &ModuleView) -> String {
    let mut text = format!("{} on {} is {} {}", view.module, view.node, view.state, view.status);
    if !view.reason.is_empty() {
        text.push_str(&format!(": {}", view.reason));
    }
    text.push('\n');
    if !view.remedy.is_empty() {
        text.push_str(&format!("  next: {}\n", view.remedy));
    }
    text
}
