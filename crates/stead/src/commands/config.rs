//! `stead config` and `stead confinfo`.

use super::Context;
use crate::cli::ConfigArgs;
use crate::client::CHANGE;
use crate::output::Done;
use crate::show;
use model::api::{ChangeAnswer, ConfigRequest, ConfigView, Problem};

/// Checks and applies.
pub async fn config(context: &Context, args: &ConfigArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = ConfigRequest { set: args.set.clone(), dry_run: args.dry_run, local: args.local };
    let answer: ChangeAnswer = context.client.post(&format!("modules/{module}/config"), &request, CHANGE).await?;
    Ok(Done::new(show::changes(&format!("configuration of module {module}"), &answer, args.dry_run), &answer))
}

/// Shows.
pub async fn confinfo(context: &Context) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ConfigView = context.client.get(&format!("modules/{module}/config")).await?;
    Ok(Done::new(show::configuration(&view), &view))
}
