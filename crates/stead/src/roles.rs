//! Entry points of the long-running roles: thin adapters from arguments to the crates that do the work.

use crate::cli::{AgentArgs, Global, MirrorfsArgs, WitnessArgs};
use crate::output::Done;
use agent::places::Places;
use model::api::{Code, Problem};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// `stead agent`.
pub fn agent(args: &AgentArgs, _: &Global) -> Result<Done, Problem> {
    let places = places(args.root.as_deref());
    on_tokio("the agent", |runtime| runtime.block_on(agent::runtime::run(places)).map_err(|e| failed("the agent", &e)))
}

/// `stead witness`.
pub fn witness(args: &WitnessArgs, _: &Global) -> Result<Done, Problem> {
    let places = places(args.root.as_deref());
    on_tokio("the witness", |runtime| {
        let left = async {
            let _ = agent::runtime::told_to_leave().await;
        };
        runtime.block_on(agent::witness_server::run(places, left)).map_err(|e| failed("the witness", &e))
    })
}

/// `stead mirrorfs`: listens for its agent's orders on `--socket`, or where the agent of this machine expects `-m`.
pub fn mirrorfs(args: &MirrorfsArgs, global: &Global) -> Result<Done, Problem> {
    if let Some(state_dir) = &args.reckon {
        let reckoned = mirrorfs::reckon(state_dir, &args.trees, Duration::from_millis(model::limits::RECKON_MS));
        return reckoned
            .map(|it| Done::new(format!("{it:?}\n"), it))
            .map_err(|error| failed("looking for changes", &error));
    }
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

fn places(root: Option<&Path>) -> Places {
    root.map_or_else(Places::default, Places::below)
}

/// Four threads: one that waits for a slow disk must not keep the others from hearing the world.
fn on_tokio(role: &str, work: impl FnOnce(&tokio::runtime::Runtime) -> Result<(), Problem>) -> Result<Done, Problem> {
    trace();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|e| failed(role, &e))?;
    let done = work(&runtime);
    // Questions still on their way do not keep it from leaving.
    runtime.shutdown_background();
    done.map(|()| Done::default())
}

/// Logs go to stderr, where the service manager keeps them; `STEAD_LOG` chooses how much.
fn trace() {
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // What cannot be written (a full disk, a closed pipe) is lost. The library would complain by `eprintln!`, and that
        // panics where nothing can be written: a full disk of logs killed the data plane.
        .log_internal_errors(false)
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
