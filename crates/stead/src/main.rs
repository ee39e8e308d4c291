//! The `stead` binary: reads the command line, runs the verb, prints, and exits with a documented code.
//!
//! Holds no logic of the cluster: looks and changes go to the agent's API, roles to their crates.

mod cli;
mod client;
mod commands;
mod lab_command;
mod output;
mod roles;
mod show;

use cli::Asked;
use model::api::{Code, Problem};
use output::Output;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // The helpers of scripts are this program under other names; SafeKit's users also reach them by `safekit -r NAME`.
    let program = args.next().unwrap_or_default();
    let rest: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(tool) = agent::tools::find(&program) {
        return ExitCode::from(agent::tools::run(tool, &rest));
    }
    match rest.as_slice() {
        [option, name, words @ ..] if option == "-r" => {
            return ExitCode::from(match agent::tools::find(name.as_ref()) {
                Some(tool) => agent::tools::run(tool, words),
                None => tool_unknown(name),
            });
        }
        _ => {}
    }
    let output = Output::detect();
    match cli::parse(std::env::args_os()) {
        Ok(Asked::Now(cli)) => commands::run(*cli, &output),
        Ok(Asked::Later { verb, json }) => output.refuse(&verb.problem(), json, output::FAILED),
        Err(error) if error.use_stderr() && std::env::args().any(|word| word == "--json") => {
            output.refuse(&usage_problem(&error), true, usage_code())
        }
        Err(error) => {
            // Help and version go to stdout and are no failure; a failed write leaves nobody to tell.
            drop(error.print());
            ExitCode::from(if error.use_stderr() { usage_code() } else { output::DONE })
        }
    }
}

fn tool_unknown(name: &str) -> u8 {
    let text = format!("stead -r: there is no helper '{name}': boundcmd, exitcode, gencron, processtree");
    drop(writeln!(std::io::stderr(), "{text}"));
    output::USAGE
}

/// Wrong usage, for a program that reads: clap's first sentence, without its colours.
fn usage_problem(error: &clap::Error) -> Problem {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let why: Vec<&str> = first.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Problem::new(Code::Invalid, "wrong usage", why.join(" ")).with_help("stead --help")
}

/// Wrong usage is 2, except where 2 would say "ALONE or UP" to a monitoring script.
fn usage_code() -> u8 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quiet = |a: &String| a == "--quiet" || (a.starts_with('-') && !a.starts_with("--") && a.contains('q'));
    if arguments.iter().any(|a| a == "state") && arguments.iter().any(quiet) {
        output::QUIET_FAILED
    } else {
        output::USAGE
    }
}
