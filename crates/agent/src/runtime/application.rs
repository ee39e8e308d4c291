//! The application of one module: its scripts, one after the other, in its own control group.
//!
//! What a start script leaves running is the application; what is still there after the stop scripts is ended, first
//! by request, then by force. **Invariant:** after `Stopped` nothing of the application runs.

use super::agent::Agent;
use super::chronicle::Chronicle;
use super::instance::ModulePlaces;
use super::module::Input;
use crate::cluster_config::causes;
use crate::modules::Active;
use crate::modules::environment::script_environment;
use cluster::mirror::{App, AppReport, Event};
use model::ModuleState;
use model::api::LogLevel;
use model::schema::Mode;
use platform::process::cgroup::ModuleCgroup;
use platform::process::script::{ScriptEnd, ScriptOutcome, ScriptRun, run_until};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long `prestart`, `start_prim` and `poststop` may take: as SafeKit's stop scripts.
const SCRIPT: Duration = Duration::from_secs(300);
/// What the application leaves after its graceful stop script gets this long after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// A killed process is gone within this, unless the kernel holds it.
const KILLED: Duration = Duration::from_secs(10);
/// Wishes not yet begun.
const QUEUE: usize = 16;

/// Handle of the module's loop.
#[derive(Clone)]
pub struct Application {
    wishes: mpsc::Sender<Asked>,
    /// Counts forced stops: whatever was wanted before one is killed, or not begun any more.
    force: Arc<watch::Sender<u64>>,
    group: Option<ModuleCgroup>,
}

enum Asked {
    Wish(Wish),
    /// From the next script on.
    Configure(Box<Active>),
}

struct Wish {
    wanted: App,
    /// Of the module, when it was wanted.
    state: ModuleState,
    /// Forced stops up to then.
    force: u64,
}

struct Runner {
    active: Active,
    env: Vec<(String, String)>,
    program: PathBuf,
    run: PathBuf,
    runs: PathBuf,
    group: Option<ModuleCgroup>,
    chronicle: Arc<Mutex<Chronicle>>,
    own: mpsc::Sender<Input>,
    force: watch::Receiver<u64>,
    /// Forced stops up to the wish that is being done.
    wished: u64,
    started: bool,
}

impl Application {
    /// The task that runs the scripts; it ends with the handle.
    #[must_use]
    pub fn new(
        agent: &Agent,
        active: &Active,
        places: &ModulePlaces,
        chronicle: Arc<Mutex<Chronicle>>,
        own: mpsc::Sender<Input>,
    ) -> Self {
        let group = agent.application_group(&active.name);
        let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/stead".into());
        let (wishes, wanted) = mpsc::channel(QUEUE);
        let (force, forced) = watch::channel(0);
        let lives = group.as_ref().is_some_and(|g| !g.is_empty().unwrap_or(true));
        let runner = Runner {
            env: script_environment(active, &program, &places.run),
            active: active.clone(),
            program,
            run: places.run.clone(),
            runs: places.runs(),
            group: group.clone(),
            chronicle,
            own,
            force: forced,
            wished: 0,
            started: lives,
        };
        tokio::spawn(runner.serve(wanted));
        Self { wishes, force: Arc::new(force), group }
    }

    /// A wanted situation; the outcome comes to the loop. A forced stop ends a script that runs now.
    pub fn want(&self, wanted: App, state: ModuleState) {
        if matches!(wanted, App::Stop { force: true }) {
            self.force.send_modify(|count| *count += 1);
            // Without waiting for the runner: what holds the mount must die before anything else can go on.
            if let Some(group) = &self.group {
                let _ = group.kill();
            }
        }
        let force = *self.force.borrow();
        if self.wishes.try_send(Asked::Wish(Wish { wanted, state, force })).is_err() {
            tracing::error!("the application's scripts do not keep up");
        }
    }

    /// What scripts run with from the next one on; those before it run with what held when they were wanted.
    pub async fn configure(&self, active: Active) {
        if self.wishes.send(Asked::Configure(Box::new(active))).await.is_err() {
            tracing::error!("the application's scripts are not told of the new configuration");
        }
    }

    /// Is anything of it running?
    #[must_use]
    pub fn lives(&self) -> bool {
        self.group.as_ref().is_some_and(|g| !g.is_empty().unwrap_or(true))
    }

    /// Its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let pids = self.group.as_ref().and_then(|g| g.pids().ok()).unwrap_or_default();
        pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect()
    }
}

impl Runner {
    async fn serve(mut self, mut wishes: mpsc::Receiver<Asked>) {
        while let Some(asked) = wishes.recv().await {
            let Wish { wanted, state, force } = match asked {
                Asked::Wish(wish) => wish,
                Asked::Configure(active) => {
                    self.env = script_environment(&active, &self.program, &self.run);
                    self.active = *active;
                    continue;
                }
            };
            self.wished = force;
            let report = self.reach(wanted, state).await;
            if self.own.send(Input::Event(Event::App(report))).await.is_err() {
                return;
            }
        }
    }

    async fn reach(&mut self, wish: App, state: ModuleState) -> AppReport {
        let state = state.to_string();
        let (start, _) = self.names();
        match wish {
            App::Prepare => match self.script("prestart", &[&state, "WAIT", "start"], SCRIPT).await {
                Ok(()) => AppReport::Prepared,
                Err(reason) => {
                    self.log(LogLevel::C, &reason);
                    AppReport::StartFailed { reason }
                }
            },
            App::Start if self.started => AppReport::Started,
            App::Start => match self.script(start, &["WAIT", &state, "start"], SCRIPT).await {
                Ok(()) => {
                    self.started = true;
                    AppReport::Started
                }
                Err(reason) => AppReport::StartFailed { reason },
            },
            App::Stop { force } => {
                self.stop(force, &state).await;
                self.started = false;
                AppReport::Stopped
            }
            App::Release => {
                if let Err(reason) = self.script("poststop", &[&state, "STOP", "stop"], SCRIPT).await {
                    self.log(LogLevel::C, &reason);
                }
                AppReport::Released
            }
        }
    }

    /// What starts and what stops the application.
    fn names(&self) -> (&'static str, &'static str) {
        match self.active.configuration.mode {
            Mode::Mirror => ("start_prim", "stop_prim"),
            Mode::Farm | Mode::Light => ("start_both", "stop_both"),
        }
    }

    async fn stop(&mut self, force: bool, state: &str) {
        let (_, stop) = self.names();
        let user = self.active.configuration.user.as_ref();
        let nice = user.map_or(SCRIPT, |u| Duration::from_millis(u.nice_stop_timeout_ms));
        let forced = user.map_or(SCRIPT, |u| Duration::from_millis(u.force_stop_timeout_ms));
        if !force {
            if let Err(reason) = self.script(stop, &[state, "WAIT", "stop"], nice).await {
                self.log(LogLevel::C, &reason);
            }
            // What was asked by force meanwhile is not kept waiting.
            let forced_meanwhile = *self.force.borrow() != self.wished;
            self.end(if forced_meanwhile { Duration::ZERO } else { GRACE }).await;
            // The second pass finds leftovers that are not processes of the group (sockets, locks, mounts).
            if let Err(reason) = self.script(stop, &["force", state, "WAIT", "stop"], forced).await {
                self.log(LogLevel::C, &reason);
            }
        }
        self.end(Duration::ZERO).await;
    }

    /// Ends what is still in the group.
    async fn end(&self, grace: Duration) {
        let Some(group) = self.group.clone() else { return };
        let ended = tokio::task::spawn_blocking(move || group.end(grace, KILLED)).await;
        match ended {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => self.log(LogLevel::I, "what the stop script left running was killed"),
            Ok(Err(error)) => self.log(LogLevel::C, &causes(&error)),
            Err(error) => self.log(LogLevel::C, &error.to_string()),
        }
    }

    /// One run; a missing script is no error.
    async fn script(&mut self, name: &str, args: &[&str], timeout: Duration) -> Result<(), String> {
        let Some(path) = self.active.script(name) else { return Ok(()) };
        let Some(group) = &self.group else {
            return Err(format!("{name} was not run: this node has no control groups (stead state -v)"));
        };
        let run = ScriptRun {
            script: path,
            args: args.iter().map(ToString::to_string).collect(),
            env: self.env.clone(),
            cwd: self.active.bin_dir(),
            timeout,
            runs_dir: self.runs.clone(),
            output_max: self.active.configuration.user.as_ref().map_or(2 * 1024 * 1024, |u| u.user_log_bytes),
        };
        let wished = self.wished;
        let mut force = self.force.clone();
        if *force.borrow() != wished {
            return Err(format!("script {name} was not run: an end by force was asked for"));
        }
        let aborted = async move {
            let _ = force.wait_for(|count| *count != wished).await;
        };
        match run_until(&run, group, aborted).await {
            Ok(ScriptOutcome::Missing) => Ok(()),
            Ok(ScriptOutcome::Ended { end, log, took_ms }) => {
                self.log(
                    LogLevel::S,
                    &format!("Script {name} > {}", log.file_name().unwrap_or_default().to_string_lossy()),
                );
                let how = match end {
                    ScriptEnd::Exited(0) => return Ok(()),
                    ScriptEnd::Exited(code) => format!("ended with exit code {code}"),
                    ScriptEnd::Killed(signal) => format!("was killed by signal {signal}"),
                    ScriptEnd::TimedOut => format!("took longer than {} s and was killed", timeout.as_secs()),
                    ScriptEnd::Aborted => format!("was ended by force after {took_ms} ms"),
                };
                Err(format!("script {name} {how}; its output is in {}", log.display()))
            }
            Err(error) => Err(causes(&error)),
        }
    }

    fn log(&self, level: LogLevel, text: &str) {
        self.chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("userplug", level, text);
    }
}
