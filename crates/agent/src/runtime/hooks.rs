//! Scripts of a module that belong to commands, not to its life: `confcheck`, `config`, `postconfig`, `deconfig`, `state`, `level`.
//!
//! Each is bounded in time and in output, and leaves nothing running, whoever asked and hung up. **Invariants:** none of them runs on
//! a node whose module has no `<user>`, like any other script; of one module one runs at a time, because its end ends what is left
//! of it.

use super::agent::Agent;
use super::instance::ModulePlaces;
use crate::cluster_config::causes;
use crate::modules::Active;
use crate::modules::environment::{script_environment, user_var};
use model::ModuleName;
use model::api::{Code, Problem};
use platform::process::cgroup::{CgroupError, ModuleCgroup};
use platform::process::script::{ScriptEnd, ScriptError, ScriptOutcome, ScriptRun, run};
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Those that check or prepare: shorter than what a node waits for another one's answer.
pub const CHANGE: Duration = Duration::from_secs(20);
/// Those that only tell.
pub const LOOK: Duration = Duration::from_secs(3);
/// What is kept of a hook's output, and shown of it.
const OUTPUT_MAX: u64 = 64 * 1024;
const SHOWN_MAX: u64 = 16 * 1024;
/// As an offset from its end.
const FROM_END: i64 = -16 * 1024;
const _: () = assert!(SHOWN_MAX.checked_add_signed(FROM_END).is_some());
/// Characters of a script's last line in a sentence.
const WORDS_MAX: usize = 200;
/// A killed process is gone within this.
const KILLED: Duration = Duration::from_secs(5);

/// Whose turn it is, by module.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<ModuleName, Arc<tokio::sync::Mutex<()>>>>);

/// What became of a hook, and of what it left running.
type Played = (Result<ScriptOutcome, ScriptError>, Result<bool, CgroupError>);

impl Turns {
    /// Runs it to its end, and ends what it left, even if nobody waits for that any more. `None`: another one of the module's ran for so long.
    async fn play(&self, module: &ModuleName, wanted: ScriptRun, group: ModuleCgroup) -> Option<Played> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(module.clone()).or_default())
        };
        let turn = tokio::time::timeout(wanted.timeout, turn.lock_owned()).await.ok()?;
        let playing = tokio::spawn(async move {
            let outcome = run(&wanted, &group).await;
            let left = tokio::task::spawn_blocking(move || group.end(Duration::ZERO, KILLED)).await;
            drop(turn);
            // A panic aborts the process: what was begun here has ended.
            (outcome, left.unwrap_or(Ok(false)))
        });
        playing.await.ok()
    }
}

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
    if active.is_altered(name) {
        return Err(Failed(super::application::altered(active, name)));
    }
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
    let Some((outcome, left)) = agent.hooks.play(&active.name, wanted, group).await else {
        return Err(failed(format!(
            "another script of the module that belongs to a command has run for {} s",
            within.as_secs()
        )));
    };
    if let Err(error) = left {
        agent.warn(causes(&error));
    }
    match outcome {
        Ok(ScriptOutcome::Missing) if active.has_applied(name) => Err(Failed(super::application::lost(active, name))),
        Ok(ScriptOutcome::Missing) => Ok(None),
        Ok(ScriptOutcome::Ended { end: ScriptEnd::Exited(0), log, .. }) => {
            Ok(log.as_deref().map(|log| said(log, SeekFrom::Start(0))))
        }
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
    let text = said(log, SeekFrom::End(FROM_END));
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    // What the application prints is anybody's: as text it is shown, not as orders to a terminal.
    let shown = |line: &str| super::chronicle::printed(line).chars().take(WORDS_MAX).collect::<String>();
    last.map(|line| format!(" and said: {}", shown(line))).unwrap_or_default()
}

/// What stands in it from there on, at most [`SHOWN_MAX`] bytes.
fn said(log: &Path, from: SeekFrom) -> String {
    let mut text = Vec::new();
    // A file that went away meanwhile said nothing.
    if let Ok(mut file) = std::fs::File::open(log) {
        // Shorter than that: all of it.
        let _ = file.seek(from).or_else(|_| file.rewind().map(|()| 0));
        let _ = file.take(SHOWN_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::process::CgroupTree;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A module's group and directory; gone at the end. Needs root and a cgroup2 mount.
    struct Bench {
        tree: PathBuf,
        group: ModuleCgroup,
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let base = CgroupTree::discover().expect("control groups").base().to_path_buf();
            let tree = base.join(format!("stead-test-{name}-{}", std::process::id()));
            std::fs::create_dir(&tree).expect("a group of its own");
            let group = CgroupTree::at(&tree).module(&module()).expect("a group");
            Self { tree, group, dir: tempfile::tempdir().expect("a directory") }
        }

        fn script(&self, name: &str, body: &str) -> ScriptRun {
            let script = self.dir.path().join(name);
            std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).expect("a script");
            std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("it runs");
            ScriptRun {
                script,
                args: Vec::new(),
                env: Vec::new(),
                cwd: self.dir.path().into(),
                timeout: Duration::from_secs(60),
                runs_dir: None,
                output_max: OUTPUT_MAX,
            }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = self.group.end(Duration::ZERO, KILLED);
            let _ = self.group.remove();
            for dir in ["modules", ""] {
                let _ = std::fs::remove_dir(self.tree.join(dir));
            }
        }
    }

    fn module() -> ModuleName {
        ModuleName::new("am").expect("a name")
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(tokio::time::Instant::now() < end, "never so: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_look_does_not_end_the_script_of_a_command_beside_it() {
        let bench = Bench::new("hooks-beside");
        let (turns, am) = (Turns::default(), module());
        let slow = format!(
            "touch {0}; until [ -e {1} ]; do sleep 0.01; done",
            bench.at("begun").display(),
            bench.at("go").display()
        );
        let slow = turns.play(&am, bench.script("config", &slow), bench.group.clone());
        let look = async {
            until("the first has begun", || bench.at("begun").exists()).await;
            let look = turns.play(&am, bench.script("state", "exit 0"), bench.group.clone());
            tokio::pin!(look);
            // It waits for its turn.
            assert!(tokio::time::timeout(Duration::from_millis(300), &mut look).await.is_err(), "both ran at once");
            std::fs::write(bench.at("go"), b"").expect("a file");
            look.await
        };
        let (slow, look) = tokio::join!(slow, look);
        for played in [slow, look] {
            let (outcome, left) = played.expect("its turn");
            let end = outcome.expect("it ran");
            assert!(matches!(end, ScriptOutcome::Ended { end: ScriptEnd::Exited(0), .. }), "{end:?}");
            assert!(!left.expect("an end"), "nothing was left");
        }
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_nothing_running() {
        let bench = Bench::new("hooks-hung-up");
        let (turns, am) = (Turns::default(), module());
        let wanted = ScriptRun {
            timeout: Duration::from_secs(2),
            ..bench.script("state", &format!("touch {}; sleep 1000", bench.at("begun").display()))
        };
        let asked = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                _ = turns.play(&am, wanted, bench.group.clone()) => {}
                () = until("it has begun", || bench.at("begun").exists()) => {}
            }
        });
        asked.await.expect("it begins");
        assert!(!bench.group.is_empty().expect("the group"), "it runs");
        until("it has ended", || bench.group.is_empty().expect("the group")).await;
        // And the next one's turn comes.
        let next = turns.play(&am, bench.script("level", "exit 3"), bench.group.clone()).await;
        let (outcome, _) = next.expect("its turn");
        assert!(matches!(outcome, Ok(ScriptOutcome::Ended { end: ScriptEnd::Exited(3), .. })), "{outcome:?}");
    }

    #[test]
    fn the_last_words_of_a_long_speech_are_those_of_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        for lines in [1, 10_000] {
            std::fs::write(&log, "still trying\n".repeat(lines) + "no route to it\n").expect("a file");
            assert_eq!(last_words(&log), " and said: no route to it", "after {lines} lines");
        }
        std::fs::write(&log, "x".repeat(100_000)).expect("a file");
        assert_eq!(last_words(&log), format!(" and said: {}", "x".repeat(WORDS_MAX)));
        assert_eq!(last_words(&dir.path().join("gone")), "");
    }

    #[test]
    fn what_the_application_prints_is_no_order_to_a_terminal() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        std::fs::write(&log, b"\x1b]0;title\x07 bad \x1b[2J\xc2\x9b31m end\n\n").expect("a file");
        let words = last_words(&log);
        assert!(
            words.starts_with(" and said: ") && words.ends_with(" end") && !words.contains(char::is_control),
            "{words:?}"
        );
    }
}
