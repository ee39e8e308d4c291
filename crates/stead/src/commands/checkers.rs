//! `stead checker`, `errd`, `get`, `set`, `rules`.

use super::Context;
use crate::cli::{
    CheckerVerb, ErrdVerb, FailoverVerb, GetArgs, IncloopArgs, OffArgs, RulesTestArgs, RulesVerb, SetArgs,
};
use crate::client::COMMAND;
use crate::output::{Done, FAILED, findings};
use crate::show;
use agent::rules::Refused;
use model::api::{Code, CommandAnswer, ModuleView, Problem, ResourceView, Switch, WatchRequest};
use model::resource::Value;
use serde_json::json;
use std::path::PathBuf;

/// Where module folders are.
const MODULES: &str = agent::modules::EDITABLE;

/// `stead checker`.
pub async fn checker(context: &Context, verb: &CheckerVerb) -> Result<Done, Problem> {
    let switch = match verb {
        CheckerVerb::On => on(),
        CheckerVerb::Off(args) => off(args),
    };
    ask(context, WatchRequest::Checker(switch)).await
}

/// `stead errd`.
pub async fn errd(context: &Context, verb: &ErrdVerb) -> Result<Done, Problem> {
    let request = match verb {
        ErrdVerb::On => WatchRequest::Errd(on()),
        ErrdVerb::Off(args) => WatchRequest::Errd(off(args)),
        ErrdVerb::Enable(args) => WatchRequest::Class { name: args.class.clone(), on: true },
        ErrdVerb::Disable(args) => WatchRequest::Class { name: args.class.clone(), on: false },
        ErrdVerb::List => return list(context, |it| it.name.starts_with("proc.")).await,
    };
    ask(context, request).await
}

/// `stead failover`.
pub async fn failover(context: &Context, verb: FailoverVerb) -> Result<Done, Problem> {
    ask(context, WatchRequest::Failover { on: verb == FailoverVerb::On }).await
}

/// `stead incloop`.
pub async fn incloop(context: &Context, args: &IncloopArgs) -> Result<Done, Problem> {
    ask(context, WatchRequest::CountLoop { by: args.identity.clone() }).await
}

/// `stead resetloop`.
pub async fn resetloop(context: &Context) -> Result<Done, Problem> {
    ask(context, WatchRequest::ForgetLoops).await
}

/// `stead get`.
pub async fn get(context: &Context, args: &GetArgs) -> Result<Done, Problem> {
    let Some(wanted) = &args.resource else { return list(context, |_| true).await };
    let wanted = wanted.strip_prefix("local.").unwrap_or(wanted);
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    let found = view.resources.into_iter().find(|it| it.name == wanted).ok_or_else(|| {
        let what = format!("module {module} has no resource {wanted}");
        match (wanted.strip_prefix("remote."), &view.peer) {
            (Some(there), Some(peer)) => {
                let why = "the other node tells its resources only while a rule of the module looks at one of them";
                Problem::new(Code::NotFound, what, why)
                    .with_help(format!("stead get -m {module} -r {there} -H {}", peer.node))
            }
            _ => Problem::new(Code::NotFound, what, "nothing has set it").with_help(format!("stead get -m {module}")),
        }
    })?;
    Ok(Done::new(format!("{}\n", found.value), &found))
}

/// `stead set`.
pub async fn set(context: &Context, args: &SetArgs) -> Result<Done, Problem> {
    let value = Value::new(&args.value).filter(|value| !matches!(value, Value::Word(_))).ok_or_else(|| {
        let why = "checkers say whether something is well, and nothing else";
        Problem::new(Code::Invalid, format!("'{}' is no value of a resource", args.value), why)
            .with_help("up, down, init or unknown")
    })?;
    let request = WatchRequest::Set { resource: args.resource.clone(), value, by: args.identity.clone() };
    ask(context, request).await
}

/// `stead rules`.
pub async fn rules(context: &Context, verb: &RulesVerb) -> Result<Done, Problem> {
    let RulesVerb::Test(RulesTestArgs { file, steps }) = verb;
    let (file, module) = match (file, &context.module) {
        (Some(file), module) => (file.clone(), module.as_ref().map_or("module".to_string(), ToString::to_string)),
        (None, Some(module)) => {
            (PathBuf::from(MODULES).join(module.as_str()).join("conf/userconfig.xml"), module.to_string())
        }
        (None, None) => {
            let module = context.module().await?;
            (PathBuf::from(MODULES).join(module.as_str()).join("conf/userconfig.xml"), module.to_string())
        }
    };
    let name = file.display().to_string();
    let text = std::fs::read(&file).map_err(|error| {
        Problem::new(Code::NotFound, format!("{name} cannot be read"), error.to_string())
            .with_help("stead rules test --file userconfig.xml STEP…")
    })?;
    match agent::rules::play(&text, &name, &module, steps) {
        Ok(played) => {
            let steps = played.steps.iter().map(|(step, followed)| json!({ "step": step, "followed": followed }));
            let steps: Vec<_> = steps.collect();
            let text = show::played(&played.rules, &played.steps);
            Ok(Done::new(text, json!({ "rules": played.rules, "steps": steps })))
        }
        Err(Refused::File(found)) => {
            let found = agent::configuration::for_api(&found, &text);
            Ok(Done::new(findings(&found), &found).exit(FAILED))
        }
        Err(Refused::Step(why)) => {
            Err(Problem::new(Code::Invalid, "the steps cannot be played", why).with_help("stead rules test --help"))
        }
    }
}

fn on() -> Switch {
    Switch { on: true, ..Switch::default() }
}

fn off(args: &OffArgs) -> Switch {
    Switch { on: false, for_ms: args.time.unwrap_or(0), reason: args.reason.clone() }
}

/// An operator's word to the module's loop.
pub async fn ask(context: &Context, request: WatchRequest) -> Result<Done, Problem> {
    let module = context.module().await?;
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/watch"), &request, COMMAND).await?;
    Ok(Done::new(format!("{module} on {}: {}\n", answer.module.node, answer.sentence), &answer))
}

async fn list(context: &Context, wanted: impl Fn(&ResourceView) -> bool) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    let found: Vec<ResourceView> = view.resources.into_iter().filter(|it| wanted(it)).collect();
    Ok(Done::new(show::resources(&found), &found))
}
