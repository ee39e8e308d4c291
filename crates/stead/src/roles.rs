//! Entry points of the long-running roles: thin adapters from arguments to the crates that do the work.

use crate::cli::{AgentArgs, Global, MirrorfsArgs, WitnessArgs};
use crate::output::Done;
use model::api::{Code, Problem};

/// `stead agent`.
pub fn agent(_: &AgentArgs, _: &Global) -> Result<Done, Problem> {
    Err(missing("agent"))
}

/// `stead mirrorfs`.
pub fn mirrorfs(_: &MirrorfsArgs, _: &Global) -> Result<Done, Problem> {
    Err(missing("mirrorfs"))
}

/// `stead witness`.
pub fn witness(_: &WitnessArgs, _: &Global) -> Result<Done, Problem> {
    Err(missing("witness"))
}

fn missing(role: &str) -> Problem {
    Problem::new(Code::NotYet, format!("cannot run {role}"), "this build does not have it").with_help("stead --version")
}
