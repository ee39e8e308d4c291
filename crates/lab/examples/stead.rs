//! `stead lab` alone, for trying the lab while nothing else is built: cargo run -p lab --example stead -- lab up --no-agents

use clap::Parser;
use std::process::ExitCode;

#[path = "../../stead/src/lab_command.rs"]
mod lab_command;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Lab(lab_command::LabArgs),
}

fn main() -> ExitCode {
    let Command::Lab(args) = Cli::parse().command;
    lab_command::run(args).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
