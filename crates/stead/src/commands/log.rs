//! `stead log`, and following it.

use super::Context;
use crate::cli::{LogArgs, LogsaveArgs};
use crate::output::{Done, out};
use crate::show;
use model::api::{Code, LogPage, Problem};
use serde_json::json;
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

/// `stead logsave`: everything that is kept, into a file.
pub async fn save(context: &Context, args: &LogsaveArgs) -> Result<Done, Problem> {
    let done = log(context, &LogArgs { follow: false, ..args.log.clone() }).await?;
    let (file, lines) = (&args.file, done.text.lines().count());
    std::fs::write(file, &done.text).map_err(|error| {
        Problem::new(Code::Internal, format!("cannot write {}", file.display()), error.to_string())
            .with_help("stead log > FILE")
    })?;
    Ok(Done::new(format!("{lines} lines in {}\n", file.display()), json!({ "file": file, "lines": lines })))
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
