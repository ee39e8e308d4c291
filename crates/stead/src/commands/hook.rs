//! What a module's own scripts `state`, `level` and `confcheck` say.

use super::Context;
use model::ModuleName;
use model::api::{Code, HookView, Problem};
use std::time::Duration;

/// Longer than the agent lets a script run that checks.
const PATIENT: Duration = Duration::from_secs(25);

/// The script's words; `None`: the module has no such script, or the agent is older and knows of none.
pub async fn hook(context: &Context, module: &ModuleName, name: &str) -> Result<Option<String>, Problem> {
    match context.client.get_within::<HookView>(&format!("modules/{module}/hook/{name}"), PATIENT).await {
        Ok(view) => Ok(view.output),
        Err(problem) if problem.code == Code::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The same for people who asked for something else: a script that fails is told, and hides nothing.
pub async fn told(context: &Context, module: &ModuleName, name: &str) -> Option<String> {
    match hook(context, module, name).await {
        Ok(output) => output.filter(|text| !text.trim().is_empty()),
        Err(problem) => Some(problem.why),
    }
}

/// Lines of a script below what it belongs to.
pub fn block(name: &str, text: &str) -> String {
    text.lines().map(|line| format!("  {name}: {line}\n")).collect()
}
