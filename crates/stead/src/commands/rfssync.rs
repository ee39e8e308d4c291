//! `stead rfssync`: a copy seeded from a backup, or brought up to date as a whole.
//!
//! Nothing has to be remembered between backup and restore, because blocks are compared by hash: on the primary this only
//! leaves a line in the log, and says what comes next.

use super::{Context, control};
use crate::cli::{ControlArgs, ExternalArgs, RfssyncArgs, RfssyncHow, Seeding};
use crate::client::COMMAND;
use crate::output::Done;
use model::ModuleState;
use model::api::{Code, Command, CommandAnswer, CommandRequest, ModuleView, Problem, WatchRequest};
use serde_json::json;

/// The verb.
pub async fn rfssync(context: &Context, args: &RfssyncArgs) -> Result<Done, Problem> {
    if args.how.is_none() && args.date.is_none() {
        return usual(context).await;
    }
    let how = args.asked().map_err(|why| {
        Problem::new(Code::Invalid, "cannot bring the copy up to date", why)
            .with_help("stead rfssync external second UID, stead rfssync full")
    })?;
    match how {
        RfssyncHow::Full(args) => full(context, &args).await,
        RfssyncHow::External(ExternalArgs { role: Seeding::Prim, uid, .. }) => prim(context, &uid).await,
        RfssyncHow::External(ExternalArgs { role: Seeding::Second, uid, control }) => {
            second(context, &uid, &control).await
        }
    }
}

/// SafeKit shows here what is chosen for the next resync. Nothing is chosen before: say what it would be.
async fn usual(context: &Context) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    let sentence = "the next resync is the usual one: only what changed, or what may have";
    let text = format!(
        "{sentence}\n  otherwise: stead rfssync full | external prim|second UID -m {module}\n  what it would cost: stead rfsdiff -m {module}\n"
    );
    Ok(Done::new(text, json!({ "module": module, "node": view.node, "mode": "usual", "sentence": sentence })))
}

/// Before the backup: this copy must be one that is worth it.
async fn prim(context: &Context, uid: &str) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    if !matches!(view.state, ModuleState::Alone | ModuleState::Prim | ModuleState::Second) {
        let what = format!("a backup of module {module} on {} would be no seed", view.node);
        let why = format!("it is {} {} there: its copy may be old", view.state, view.status);
        return Err(Problem::new(Code::Refused, what, why)
            .with_help("on the node that serves: stead rfssync external prim UID"));
    }
    note(context, &format!("rfssync external prim {uid}: a backup is taken from this node")).await?;
    let text = format!(
        "take the backup '{uid}' of module {module} on {} now; nothing has to be noted for it\n  next, on the other node: stead stop -m {module}, \
         stead release -m {module}, restore it (cp -a, rsync -a: with owners, times and attributes), then stead rfssync external second {uid} -m {module}\n",
        view.node
    );
    Ok(Done::new(text, json!({ "module": module, "node": view.node, "uid": uid, "role": "prim" })))
}

/// After it was restored.
async fn second(context: &Context, uid: &str, args: &ControlArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    if !matches!(view.state, ModuleState::Stop | ModuleState::Wait) {
        let what = format!("module {module} on {} cannot begin from a backup", view.node);
        let why = format!("it is {} {}: nothing can have been restored under it", view.state, view.status);
        return Err(Problem::new(Code::Refused, what, why)
            .with_help(format!("stead stop -m {module}, stead release -m {module}, restore, then again")));
    }
    note(context, &format!("rfssync external second {uid}: this copy begins from a backup")).await?;
    full(context, args).await
}

async fn full(context: &Context, args: &ControlArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = CommandRequest { full: true, ..CommandRequest::of(Command::Second) };
    control::command_and_watch(context, &module, request, args).await
}

async fn note(context: &Context, text: &str) -> Result<(), Problem> {
    let module = context.module().await?;
    let request = WatchRequest::Print { error: true, text: text.into() };
    let _: CommandAnswer = context.client.post(&format!("modules/{module}/watch"), &request, COMMAND).await?;
    Ok(())
}
