//! What `stead` prints about itself: completions and manual pages, made from the same definition as the help.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::output::Done;
use clap::{Command, CommandFactory as _};
use model::api::{Code, Problem};
use serde_json::json;
use std::path::Path;

/// `stead completions SHELL`.
pub fn completions(args: &CompletionsArgs) -> Result<Done, Problem> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "stead", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let json = json!({ "shell": args.shell.to_string(), "completions": text });
    Ok(Done::new(text, json))
}

/// `stead man [--dir DIR]`.
pub fn man(args: &ManArgs) -> Result<Done, Problem> {
    let mut whole = visible();
    whole.build();
    let Some(dir) = &args.dir else {
        let text = page(&whole, "stead")?;
        let json = json!({ "man": text });
        return Ok(Done::new(text, json));
    };
    let failed = |error: &std::io::Error| {
        Problem::new(Code::Internal, format!("cannot write the manual pages into {}", dir.display()), error.to_string())
            .with_help("stead man --dir DIR, with a directory that can be written")
    };
    std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
    let mut written = Vec::new();
    write_pages(&whole, "stead", dir, &mut written).map_err(|error| failed(&error))?;
    Ok(Done::new(
        format!("{} pages written into {}\n", written.len(), dir.display()),
        json!({ "dir": dir, "pages": written }),
    ))
}

/// Without the verbs that are only there to be refused.
fn visible() -> Command {
    Cli::command().bin_name("stead")
}

fn write_pages(command: &Command, name: &str, dir: &Path, written: &mut Vec<String>) -> std::io::Result<()> {
    let file = format!("{name}.1");
    let text = page(command, name).map_err(|problem| std::io::Error::other(problem.why))?;
    std::fs::write(dir.join(&file), text)?;
    written.push(file);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), dir, written)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> Result<String, Problem> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_string()))
        .render(&mut text)
        .map_err(|error| Problem::new(Code::Internal, "cannot make the manual page", error.to_string()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
