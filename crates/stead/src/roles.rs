//! Entry points of the long-running roles: thin adapters from arguments to the crates that do the work.

use crate::cli::{AgentArgs, Global, MirrorfsArgs, WitnessArgs};
use crate::output::Done;
use model::api::{Code, Problem};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// `stead agent`.
pub fn agent(_: &AgentArgs, _: &Global) -> Result<Done, Problem> {
    Err(missing("agent"))
}

/// `stead witness`.
pub fn witness(_: &WitnessArgs, _: &Global) -> Result<Done, Problem> {
    Err(missing("witness"))
}

/// `stead mirrorfs`: listens for its agent's orders on `--socket`, or where the agent of this machine expects `-m`.
pub fn mirrorfs(_: &MirrorfsArgs, global: &Global) -> Result<Done, Problem> {
    let socket = match (&global.socket, &global.module) {
        (Some(socket), _) => socket.clone(),
        (None, Some(module)) => PathBuf::from(format!("/run/stead/mirrorfs/{module}.sock")),
        (None, None) => {
            return Err(Problem::new(Code::Invalid, "cannot run the data plane", "no module is named")
                .with_help("the agent starts it; by hand: stead mirrorfs -m MODULE"));
        }
    };
    trace();
    mirrorfs::run(&socket).map(|()| Done::default()).map_err(|error| failed("the data plane", &error))
}

/// Logs go to stderr, where the service manager keeps them; `STEAD_LOG` chooses how much.
fn trace() {
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only a second subscriber is refused, and there is one.
    drop(subscriber.try_init());
}

fn failed(role: &str, error: &dyn std::error::Error) -> Problem {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    Problem::new(Code::Internal, format!("{role} ends: {error}"), causes.join(": "))
}

fn missing(role: &str) -> Problem {
    Problem::new(Code::NotYet, format!("cannot run {role}"), "this build does not have it").with_help("stead --version")
}
