//! `stead journal replay`.

use crate::cli::{ReplayArgs, WhatIfArgs};
use crate::output::{DONE, Done, FAILED};
use crate::show::when_us;
use agent::replay::Would;
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
    if let Some(otherwise) = &told.otherwise {
        text.push_str(&format!("if {}:\n", otherwise.well));
    }
    text.push_str(&lines(&told.would));
    let mut document = json!({ "what": what, "would": rows(&told.would) });
    if let Some(otherwise) = &told.otherwise {
        text.push_str(&format!("if {}:\n{}", otherwise.not_well, lines(&otherwise.would)));
        document["if"] = json!(otherwise.well);
        document["otherwise"] = json!({ "if": otherwise.not_well, "would": rows(&otherwise.would) });
    }
    Ok(Done::new(text, document))
}

fn lines(would: &[Would]) -> String {
    if would.is_empty() {
        return "nothing would change on this node\n".into();
    }
    would.iter().map(|it| format!("{:>8.1} s  {}\n", it.after_ms as f64 / 1000.0, it.said)).collect()
}

fn rows(would: &[Would]) -> Vec<serde_json::Value> {
    would.iter().map(|it| json!({ "after_ms": it.after_ms, "said": it.said })).collect()
}

/// Replays and compares.
pub fn replay(args: &ReplayArgs, module: Option<&ModuleName>) -> Result<Done, Problem> {
    let file = file(args.file.as_ref(), module)?;
    let played = agent::replay::replay(&file).map_err(|error| {
        Problem::new(Code::NotFound, format!("{} cannot be replayed", file.display()), error.to_string())
            .with_help("stead journal replay FILE")
    })?;
    if played.begins + played.decisions + played.skipped == 0 {
        let why = match played.unreadable {
            0 => "there is nothing in it".to_string(),
            lines => format!("none of its {lines} lines is one of a journal"),
        };
        return Err(Problem::new(Code::Invalid, format!("{} is not replayed", file.display()), why)
            .with_help("stead journal replay -m MODULE, or a file named journal"));
    }
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
