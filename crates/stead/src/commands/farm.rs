//! `stead farm …`.

use super::{Context, checkers};
use crate::cli::FarmVerb;
use crate::output::Done;
use crate::show;
use model::api::{Code, ModuleView, Problem, WatchRequest};
use serde_json::json;

/// The verb.
pub async fn farm(context: &Context, verb: &FarmVerb) -> Result<Done, Problem> {
    match verb {
        FarmVerb::Show => show_farm(context).await,
        FarmVerb::Open => checkers::ask(context, WatchRequest::Traffic { open: true }).await,
        FarmVerb::Close => checkers::ask(context, WatchRequest::Traffic { open: false }).await,
    }
}

async fn show_farm(context: &Context) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ModuleView = context.client.get(&format!("modules/{module}/state?flows=true")).await?;
    let Some(farm) = &view.farm else {
        let why = if view.mode.is_empty() { view.reason.clone() } else { format!("it is a {} module", view.mode) };
        return Err(Problem::new(Code::Refused, format!("module {module} shows no farm on {}", view.node), why)
            .with_help(format!("stead state -m {module}")));
    };
    let document = json!({
        "module": view.module, "node": view.node, "state": view.state, "status": view.status, "reason": view.reason, "farm": farm
    });
    Ok(Done::new(show::farm(&view, farm), document))
}
