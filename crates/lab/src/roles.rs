//! The two processes of a lab, as hidden subcommands of `stead lab`: what the binary dispatches to.

use std::process::ExitCode;

/// `stead lab __supervisor`: holds the switch, owns the hosts. Talks to `up` over its standard input.
pub const SUPERVISOR: &str = "__supervisor";
/// `stead lab __init`: PID 1 of a host.
pub const INIT: &str = "__init";

/// Runs the supervisor.
#[must_use]
pub fn supervisor() -> ExitCode {
    finish("supervisor", crate::supervisor::run())
}

/// Runs PID 1 of a host.
#[must_use]
pub fn init() -> ExitCode {
    finish("init", crate::init::run())
}

fn finish(role: &str, result: Result<(), crate::LabError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stead lab {role}: {error}");
            ExitCode::FAILURE
        }
    }
}
