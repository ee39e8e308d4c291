//! Scripts of a module that belong to commands, not to its life: `confcheck`, `config`, `postconfig`, `deconfig`, `state`, `level`.
//!
//! Each is bounded in time and in output, and leaves nothing running. **Invariant:** none of them runs on a node whose
//! module has no `<user>`, like any other script.

use super::agent::Agent;
use super::instance::ModulePlaces;
use crate::cluster_config::causes;
use crate::modules::Active;
use crate::modules::environment::{script_environment, user_var};
use model::api::{Code, Problem};
use platform::process::script::{ScriptEnd, ScriptOutcome, ScriptRun, run};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Those that check or prepare: shorter than what a node waits for another one's answer.
pub const CHANGE: Duration = Duration::from_secs(20);
/// Those that only tell.
pub const LOOK: Duration = Duration::from_secs(3);
/// What is kept of a hook's output, and shown of it.
const OUTPUT_MAX: u64 = 64 * 1024;
const SHOWN_MAX: u64 = 16 * 1024;
/// Characters of a script's last line in a sentence.
const WORDS_MAX: usize = 200;
/// A killed process is gone within this.
const KILLED: Duration = Duration::from_secs(5);

/// How a hook that failed ended, with the end of what it said.
#[derive(Debug)]
pub struct Failed(pub String);

impl Failed {
    /// The command is refused because of it.
    #[must_use]
    pub fn problem(self, what: String) -> Problem {
        Problem::new(Code::Refused, what, self.0)
    }
}

/// Runs one of the module's hooks as `active` has it (what is in force, or what is about to be). `None`: it has none of
/// that name.
///
/// # Errors
/// [`Failed`]: it could not be run, took too long, or ended with another code than 0.
pub async fn play(
    agent: &Agent,
    active: &Active,
    name: &str,
    args: &[&str],
    within: Duration,
) -> Result<Option<String>, Failed> {
    let Some(script) = active.script(name) else { return Ok(None) };
    let failed = |why: String| Failed(format!("the module's script {name} was not run: {why}"));
    let group = agent
        .application_group(&active.name)
        .ok_or_else(|| failed("this node has no control groups (stead level)".into()))?;
    let group = group.part("hook").map_err(|error| failed(causes(&error)))?;
    let places = ModulePlaces::of(agent, &active.name);
    // What is being applied for the first time has none of them yet; its state is where it will be, not where it is staged.
    let home = Active { dir: places.var.join("active"), ..active.clone() };
    for dir in [&places.run, &places.runs(), &user_var(&home)] {
        std::fs::create_dir_all(dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    }
    let mut env = script_environment(&home, &places.run);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    for (variable, dir) in [("SAFEUSERBIN", active.bin_dir()), ("SAFEUSERCONF", active.conf_dir())] {
        env.retain(|(known, _)| known != variable);
        env.push((variable.to_string(), text(&dir)));
    }
    let wanted = ScriptRun {
        script,
        args: args.iter().map(ToString::to_string).collect(),
        env,
        cwd: active.bin_dir(),
        timeout: within,
        runs_dir: Some(places.runs()),
        output_max: OUTPUT_MAX,
    };
    let outcome = run(&wanted, &group).await;
    let left = tokio::task::spawn_blocking(move || group.end(Duration::ZERO, KILLED)).await;
    if let Ok(Err(error)) = left {
        agent.warn(causes(&error));
    }
    match outcome {
        Ok(ScriptOutcome::Missing) => Ok(None),
        Ok(ScriptOutcome::Ended { end: ScriptEnd::Exited(0), log, .. }) => Ok(log.as_deref().map(said)),
        Ok(ScriptOutcome::Ended { end, log, .. }) => {
            let how = match end {
                ScriptEnd::Exited(code) => format!("ended with exit code {code}"),
                ScriptEnd::Killed(signal) => format!("was killed by signal {signal}"),
                ScriptEnd::TimedOut | ScriptEnd::Aborted => format!("took longer than {} s", within.as_secs()),
            };
            let log = log.unwrap_or_default();
            Err(Failed(format!(
                "the module's script {name} {how}{}; its output is in {}",
                last_words(&log),
                log.display()
            )))
        }
        Err(error) => Err(failed(causes(&error))),
    }
}

/// How a script explains itself: its last line, as the end of a sentence. Empty when it said nothing.
pub fn last_words(log: &Path) -> String {
    let text = said(log);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map(|line| format!(" and said: {}", line.chars().take(WORDS_MAX).collect::<String>())).unwrap_or_default()
}

fn said(log: &Path) -> String {
    let mut text = Vec::new();
    // A file that went away meanwhile said nothing.
    if let Ok(file) = std::fs::File::open(log) {
        let _ = file.take(SHOWN_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
