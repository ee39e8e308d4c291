//! `stead config`, `stead confinfo` and `stead confcheck`.

use super::Context;
use crate::cli::{ConfcheckArgs, ConfigArgs};
use crate::client::CHANGE;
use crate::output::{Done, FAILED, findings};
use crate::show;
use agent::configuration::{for_api, is_cluster, names, read_cluster, read_module};
use agent::modules::Package;
use model::api::{ChangeAnswer, Code, ConfigRequest, ConfigView, Diagnostic, Problem, Severity};
use model::schema::Surroundings;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Checks and applies.
pub async fn config(context: &Context, args: &ConfigArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = ConfigRequest {
        set: args.set.clone(),
        dry_run: args.dry_run,
        local: args.local,
        restore: args.restore,
        export: None,
    };
    let answer: ChangeAnswer = context.client.post(&format!("modules/{module}/config"), &request, CHANGE).await?;
    let done = Done::new(show::changes(&format!("configuration of module {module}"), &answer, args.dry_run), &answer);
    // In force, and not everywhere as it should be.
    Ok(if answer.nodes.iter().any(|node| node.problem.is_some()) { done.exit(FAILED) } else { done })
}

/// Shows.
pub async fn confinfo(context: &Context) -> Result<Done, Problem> {
    let module = context.module().await?;
    let view: ConfigView = context.client.get(&format!("modules/{module}/config")).await?;
    Ok(Done::new(show::configuration(&view), &view))
}

/// Only checks: what a path holds, here; else the module's editable copy, on the node.
pub async fn confcheck(context: &Context, args: &ConfcheckArgs) -> Result<Done, Problem> {
    let (name, diagnostics, module) = match &args.path {
        Some(path) => (path.display().to_string(), at(path, context).await?, None),
        None => {
            let module = context.module().await?;
            let view: ConfigView = context.client.get(&format!("modules/{module}/config")).await?;
            (format!("module {module}"), view.diagnostics, Some(module))
        }
    };
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let mut text = findings(&diagnostics);
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let notes = count(diagnostics.len() - errors, "note");
    text.push_str(&match errors {
        0 => format!("{name}: right, {notes}\n"),
        _ => format!("{name}: {}, {notes}\n", count(errors, "error")),
    });
    let mut document = json!({ "errors": errors, "diagnostics": diagnostics });
    // The module's own check, of what is right so far.
    if let Some(module) = module.filter(|_| errors == 0)
        && let Some(said) = super::hook::hook(context, &module, "confcheck").await?
    {
        text.push_str(&super::hook::block("confcheck", &said));
        document["module_confcheck"] = json!(said);
    }
    let done = Done::new(text, document);
    Ok(if errors == 0 { done } else { done.exit(FAILED) })
}

/// A folder, an archive, or the file itself, which may be a `cluster.xml`. Names of nodes and networks are not known
/// here, and not checked.
async fn at(path: &Path, context: &Context) -> Result<Vec<Diagnostic>, Problem> {
    let refused = |why: String, help: &str| {
        Problem::new(Code::Invalid, format!("{} is not checked", path.display()), why).with_help(help.to_string())
    };
    let whole = |bytes: Vec<u8>| Package::from_archive(&bytes);
    let unreadable = |error: std::io::Error| refused(error.to_string(), "stead confcheck DIR|X.safe|FILE.xml");
    let is_archive = path.extension().is_some_and(|end| end == "safe" || end == "zip");
    let (bytes, shown, package) = if path.is_dir() || is_archive {
        let package =
            if path.is_dir() { Package::from_folder(path) } else { whole(std::fs::read(path).map_err(unreadable)?) };
        let package = package.map_err(|error| refused(error.to_string(), error.help()))?;
        (package.userconfig().to_vec(), path.join(agent::modules::package::USERCONFIG), Some(package))
    } else {
        (std::fs::read(path).map_err(unreadable)?, path.to_path_buf(), None)
    };
    let module = context.module.as_ref().map_or("MODULE", model::ModuleName::as_str);
    let shown = shown.to_string_lossy();
    let found = if is_cluster(&bytes) {
        let names = names::look_up(names::of_cluster(&bytes), &BTreeMap::new()).await;
        read_cluster(&bytes, &shown, &names).diagnostics
    } else {
        let names = names::look_up(names::of_module(&bytes), &BTreeMap::new()).await;
        let around = Surroundings { module, cluster: None, subnets: &[], others: &[], names: &names };
        let checked = read_module(&bytes, &shown, &around);
        let checkers = checked.value.as_ref().map(|it| &it.checkers);
        let files = package.map(|package| package.findings(&shown, checkers)).unwrap_or_default();
        checked.diagnostics.into_iter().chain(files).collect()
    };
    Ok(for_api(&found, &bytes))
}
