//! `stead rfsverify`: begins on the node that serves, and tells how far it is and what came of it.

use super::Context;
use crate::cli::VerifyArgs;
use crate::client::COMMAND;
use crate::output::{DONE, Done, FAILED, err};
use crate::show;
use model::api::{Code, ModuleView, Problem, VerifyRequest};
use model::orders::VerifyProgress;
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// The verb.
pub async fn verify(context: &Context, args: &VerifyArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = VerifyRequest { repair: args.repair, bytes_per_s: args.bandwidth.saturating_mul(1024) };
    let mut view: ModuleView = context.client.post(&format!("modules/{module}/verify"), &request, COMMAND).await?;
    // The node that serves tells; it may not be the one that was asked.
    let there = context.client.on(view.node.clone());
    if args.no_wait {
        return Ok(Done::new(
            format!("the comparison runs\n  next: stead state -v -m {module} -H {}\n", view.node),
            &view,
        ));
    }
    loop {
        view = there.get(&format!("modules/{module}/state")).await?;
        let Some(said) = view.replication.as_ref().and_then(|r| r.verify.clone()) else {
            // Whatever else it means, it does not mean that both copies are equal.
            let what = format!("what came of the comparison of module {module} is not known");
            let why = format!("the agent of {} tells of none: it was started anew meanwhile", view.node);
            return Err(Problem::new(Code::Refused, what, why).with_help(format!("stead rfsverify -m {module}")));
        };
        if !said.running {
            return ended(&module, &said);
        }
        if context.output.live && !context.json {
            err(&format!("\r{}\x1b[K", show::progress(&said.progress)));
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn ended(module: &model::ModuleName, said: &VerifyProgress) -> Result<Done, Problem> {
    if !said.failed.is_empty() {
        let what = format!("the comparison of module {module} ended early");
        return Err(
            Problem::new(Code::Refused, what, said.failed.clone()).with_help(format!("stead state -m {module}"))
        );
    }
    let clean = said.differences == 0 || (said.repair && (said.stubborn == 0 || said.resync > 0));
    Ok(Done::new(show::verified(said), said).exit(if clean { DONE } else { FAILED }))
}
