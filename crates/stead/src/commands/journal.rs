//! `stead journal replay`.

use crate::cli::{ReplayArgs, WhatIfArgs};
use crate::output::{DONE, Done, FAILED};
use crate::show::when_us;
use model::ModuleName;
use model::api::{Code, Problem};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Where modules keep their state.
const MODULES: &str = "/var/lib/stead/modules";
/// Differences that are told in full.
const TOLD_MAX: usize = 20;

fn file(named: Option<&PathBuf>, module: Option<&ModuleName>) -> Result<PathBuf, Problem> {
    match (named, module) {
        (Some(file), _) => Ok(file.clone()),
        (None, Some(module)) => Ok(Path::new(MODULES).join(module.as_str()).join("journal")),
        (None, None) => Err(Problem::new(Code::Invalid, "no journal is read", "neither a file nor a module is named")
            .with_help("name the module: -m MODULE")),
    }
}

/// Lives through something in imagination.
pub fn what_if(args: &WhatIfArgs, module: Option<&ModuleName>) -> Result<Done, Problem> {
    let file = file(args.file.as_ref(), module)?;
    let what = args.what.join(" ");
    let told = agent::replay::what_if(&file, &what)
        .map_err(|why| Problem::new(Code::Invalid, "nothing is imagined", why).with_help("stead what-if --help"))?;
    let mut text = String::new();
    for (after_ms, said) in &told {
        text.push_str(&format!("{:>8.1} s  {said}\n", *after_ms as f64 / 1000.0));
    }
    if told.is_empty() {
        text.push_str("nothing would change on this node\n");
    }
    let told: Vec<_> = told.iter().map(|(after_ms, said)| json!({ "after_ms": after_ms, "said": said })).collect();
    Ok(Done::new(text, json!({ "what": what, "would": told })))
}

/// Replays and compares.
pub fn replay(args: &ReplayArgs, module: Option<&ModuleName>) -> Result<Done, Problem> {
    let file = file(args.file.as_ref(), module)?;
    let played = agent::replay::replay(&file).map_err(|error| {
        Problem::new(Code::NotFound, format!("{} cannot be replayed", file.display()), error.to_string())
            .with_help("stead journal replay FILE")
    })?;
    let mut text = String::new();
    if args.sentences {
        for (at, sentence) in &played.sentences {
            text.push_str(&format!("{}  {sentence}\n", when_us(*at)));
        }
    }
    for it in played.differences.iter().take(TOLD_MAX) {
        text.push_str(&format!(
            "line {}, {}: {}\n  then: {}\n  now:  {}\n",
            it.line,
            when_us(it.at_unix_us),
            it.event,
            it.recorded,
            it.now
        ));
    }
    text.push_str(&format!(
        "{}: {} decisions replayed from {} beginnings, {} differ\n",
        file.display(),
        played.decisions,
        played.begins,
        played.differences.len()
    ));
    if played.skipped > 0 {
        text.push_str(&format!(
            "  {} decisions were not replayed: no beginning in this file before them\n",
            played.skipped
        ));
    }
    if played.unreadable > 0 {
        text.push_str(&format!("  {} lines are of another version of Stead, or torn\n", played.unreadable));
    }
    let differences: Vec<_> = played
        .differences
        .iter()
        .map(|it| {
            json!({ "line": it.line, "at_unix_us": it.at_unix_us, "event": it.event, "then": it.recorded, "now": it.now })
        })
        .collect();
    let sentences: Vec<_> =
        played.sentences.iter().map(|(at, said)| json!({ "at_unix_us": at, "said": said })).collect();
    let json = json!({
        "decisions": played.decisions, "begins": played.begins, "skipped": played.skipped,
        "unreadable": played.unreadable, "differences": differences, "sentences": sentences,
    });
    let exit = if played.differences.is_empty() { DONE } else { FAILED };
    Ok(Done::new(text, json).exit(exit))
}
