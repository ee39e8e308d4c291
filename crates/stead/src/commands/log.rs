//! `stead log`, and following it.

use super::Context;
use crate::cli::LogArgs;
use crate::output::{Done, out};
use crate::show;
use model::api::{LogPage, Problem};
use std::time::{Duration, Instant};

/// Between two looks while following.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How long the agent may be gone (restarted) while we follow.
const AGENT_GONE: Duration = Duration::from_secs(10);

/// The verb.
pub async fn log(context: &Context, args: &LogArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let base = format!("modules/{module}/log?verbose={}", args.verbose);
    let page: LogPage = context.client.get(&format!("{base}&lines={}", args.lines)).await?;
    if !args.follow {
        let text: String = page.lines.iter().map(show::log_line).collect();
        return Ok(Done::new(text, &page));
    }
    let mut page = page;
    loop {
        for line in &page.lines {
            match serde_json::to_string(line) {
                Ok(text) if context.json => out(&format!("{text}\n")),
                _ => out(&show::log_line(line)),
            }
        }
        page = next(context, &format!("{base}&lines={}&after={}", model::api::LOG_LINES_MAX, page.next)).await?;
    }
}

/// The next page; an agent that is being replaced is waited for.
async fn next(context: &Context, path: &str) -> Result<LogPage, Problem> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        match context.client.get(path).await {
            Err(_) if begun.elapsed() < AGENT_GONE => {}
            answer => return answer,
        }
    }
}
