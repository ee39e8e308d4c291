//! The application of one module: its scripts, one after the other, in its own control group.
//!
//! Which ones, in which order, with which arguments: `cluster::scripts` says. What a start script leaves running is in the
//! group of its pair; what is still there after the stop script is ended, first by request, then by force.
//! **Invariant:** after `Stopped` nothing of the application runs.

use super::agent::Agent;
use super::chronicle::Chronicle;
use super::hooks::last_words;
use super::instance::ModulePlaces;
use super::module::Input;
use super::requests::{Asked, Requested, Requests, Wish, requests};
use crate::cluster_config::causes;
use crate::modules::Active;
use crate::modules::environment::{script_environment, user_var};
use cluster::mirror::{App, AppReport, Event};
use cluster::scripts::{Kind, Pair, Run, Scripts, Step, Why};
use model::ModuleState;
use model::api::LogLevel;
use model::schema::Mode;
use platform::process::cgroup::ModuleCgroup;
use platform::process::script::{ScriptEnd, ScriptOutcome, ScriptRun, run_until};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long any script may take whose module says nothing.
const SCRIPT: Duration = Duration::from_secs(300);
/// What the application leaves after its graceful stop script gets this long after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// A killed process is gone within this, unless the kernel holds it.
const KILLED: Duration = Duration::from_secs(10);
/// Handle of the module's loop.
#[derive(Clone)]
pub struct Application {
    requests: Requests,
    /// What the next restart is of.
    only: Arc<Mutex<Option<Vec<String>>>>,
    /// Counts forced stops: whatever was wanted before one is killed, or not begun any more.
    force: Arc<watch::Sender<u64>>,
    /// Counts wishes, with the state of the last one: the starts of a role that is left already are broken off.
    ahead: Arc<watch::Sender<Ahead>>,
    group: Option<ModuleCgroup>,
    lives: Lives,
}

/// How far the module is ahead of its scripts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ahead {
    wishes: u64,
    state: ModuleState,
}

/// What an agent leaves to the next one of this boot.
#[derive(Serialize, Deserialize)]
struct Kept {
    scripts: Scripts,
    /// Its start scripts are through and left no process in the group: systemd, or nobody, has it.
    outside: bool,
    /// Scripts of the application run, or ran when the agent ended: of its start and stop (`PRIM`, `UP`), or before and after (`STOP`).
    #[serde(default)]
    under_way: Option<ModuleState>,
}

/// Whose scripts run, by the file that keeps where they are: a loop that is begun anew does not begin its own beside those of the one
/// before.
static TURNS: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());

fn turn(kept: &Path) -> Arc<tokio::sync::Mutex<()>> {
    Arc::clone(TURNS.lock().unwrap_or_else(PoisonError::into_inner).entry(kept.to_path_buf()).or_default())
}

/// What ran when the agent before this one ended: nobody knows how it went on, or what it does beside the next.
fn cut_off(kept: &Path) -> Option<ModuleState> {
    read(kept)?.under_way.filter(|_| turn(kept).try_lock().is_ok())
}

/// What tells whether the application runs.
#[derive(Clone)]
struct Lives {
    group: Option<ModuleCgroup>,
    kept: PathBuf,
    /// Half started, or half stopped, by the agent before this one: it is being ended.
    is_cut_off: Arc<AtomicBool>,
}

struct Runner {
    active: Active,
    env: Vec<(String, String)>,
    run: PathBuf,
    runs: PathBuf,
    group: Option<ModuleCgroup>,
    chronicle: Arc<Mutex<Chronicle>>,
    own: mpsc::Sender<Input>,
    force: watch::Receiver<u64>,
    ahead: watch::Receiver<Ahead>,
    /// Forced stops up to the wish that is being done.
    wished: u64,
    /// Number of the wish that is being done, when it is a change of role beside the application.
    role: Option<u64>,
    /// Where its scripts are; kept in a file, so that the next agent knows.
    scripts: Scripts,
    /// As [`Kept::outside`].
    outside: bool,
    /// What the next restart is of; empty: everything.
    only: Vec<String>,
    /// `/run/…/scripts`.
    kept: PathBuf,
    /// As [`Kept::under_way`].
    under_way: Option<ModuleState>,
    /// What the agent before this one left in the middle.
    cut_off: Option<ModuleState>,
    /// As [`Lives::is_cut_off`].
    is_cut_off: Arc<AtomicBool>,
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
        let (requests, requested) = requests();
        let (force, forced) = watch::channel(0);
        let (ahead, aheads) = watch::channel(Ahead { wishes: 0, state: ModuleState::Stop });
        let kept = places.run.join("scripts");
        // Of an agent that kept none: what runs is the application.
        let Kept { scripts, outside, under_way } = read(&kept).unwrap_or_else(|| {
            let lives = group.as_ref().is_some_and(|g| !g.is_empty().unwrap_or(true));
            let scripts = if lives { Scripts::of(ModuleState::Prim) } else { Scripts::default() };
            Kept { scripts, outside: false, under_way: None }
        });
        let cut_off = cut_off(&kept);
        let is_cut_off = Arc::new(AtomicBool::new(cut_off.is_some()));
        let lives = Lives { group: group.clone(), kept: kept.clone(), is_cut_off: Arc::clone(&is_cut_off) };
        let runner = Runner {
            env: script_environment(active, &places.run),
            active: active.clone(),
            run: places.run.clone(),
            runs: places.runs(),
            group: group.clone(),
            chronicle,
            own,
            force: forced,
            ahead: aheads,
            wished: 0,
            role: None,
            scripts,
            outside,
            only: Vec::new(),
            kept,
            under_way,
            cut_off,
            is_cut_off,
        };
        tokio::spawn(runner.serve(requested));
        Self { requests, only: Arc::default(), force: Arc::new(force), ahead: Arc::new(ahead), group, lives }
    }

    /// A wanted situation; the outcome comes to the loop. A forced stop ends a script that runs now.
    pub fn want(&self, wanted: App, state: ModuleState) {
        if matches!(wanted, App::Stop { force: true, .. }) {
            self.force.send_modify(|count| *count += 1);
            // Without waiting for the runner: what holds the mount must die before anything else can go on.
            if let Some(group) = &self.group {
                let _ = group.kill();
            }
        }
        let force = *self.force.borrow();
        let state_then = match wanted {
            App::Role { to, .. } => to,
            App::Start => state,
            App::Prepare | App::Stop { .. } | App::Release { .. } => ModuleState::Wait,
        };
        self.ahead.send_modify(|ahead| *ahead = Ahead { wishes: ahead.wishes + 1, state: state_then });
        let number = self.ahead.borrow().wishes;
        // What is refused meanwhile changes nothing of a restart that is under way.
        let restarts = matches!(wanted, App::Stop { why: Why::Restart, .. });
        let only = restarts.then(|| self.next_restart().take().unwrap_or_default());
        self.requests.push(Asked::Wish(Wish { wanted, state, force, number, only }));
    }

    fn next_restart(&self) -> MutexGuard<'_, Option<Vec<String>>> {
        self.only.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What scripts run with from the next one on; those before it run with what held when they were wanted.
    pub fn configure(&self, active: Active) {
        self.requests.push(Asked::Configure(Box::new(active)));
    }

    /// The restart that is wanted next is of these services only; empty: of everything.
    pub fn restart_only(&self, services: Vec<String>) {
        *self.next_restart() = Some(services);
    }

    /// Runs `update`, when its turn comes.
    pub fn update(&self) {
        self.requests.push(Asked::Update);
    }

    /// Is anything of it running? What scripts of another pair have left running is not it.
    #[must_use]
    pub fn lives(&self) -> bool {
        let populated = |g: &ModuleCgroup| !g.is_empty().unwrap_or(true);
        let Some(group) = &self.lives.group else { return false };
        if self.lives.is_cut_off.load(Ordering::Acquire) {
            return false;
        }
        match read(&self.lives.kept) {
            Some(kept) => {
                let is_there = || kept.outside || group.part(Pair::Prim.name()).is_ok_and(|g| populated(&g));
                kept.scripts.is_up(Pair::Prim) && is_there()
            }
            None => populated(group),
        }
    }

    /// Its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let pids = self.group.as_ref().and_then(|g| g.pids().ok()).unwrap_or_default();
        pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect()
    }
}

impl Runner {
    async fn serve(mut self, mut requested: Requested) {
        let turn = turn(&self.kept);
        {
            let _turn = turn.lock().await;
            // Those of a loop before this one may have gone on until now.
            if let Some(kept) = read(&self.kept).filter(|_| self.cut_off.is_none()) {
                (self.scripts, self.outside) = (kept.scripts, kept.outside);
            }
            self.end_cut_off().await;
        }
        while let Some(asked) = requested.next().await {
            let _turn = turn.lock().await;
            let Wish { wanted, state, force, number, only } = match asked {
                Asked::Wish(wish) => wish,
                Asked::Configure(active) => {
                    self.env = script_environment(&active, &self.run);
                    self.active = *active;
                    self.wished = *self.force.borrow();
                    self.update().await;
                    continue;
                }
                Asked::Update => {
                    self.wished = *self.force.borrow();
                    self.update().await;
                    continue;
                }
            };
            self.wished = force;
            if let Some(services) = only {
                self.only = services;
            }
            self.role = matches!(wanted, App::Role { .. }).then_some(number);
            let Some(report) = self.reach(wanted, state).await else { continue };
            if self.own.send(Input::Event(Event::App(report))).await.is_err() {
                return;
            }
        }
    }

    /// The agent before this one ended while scripts of the application ran: they go on, and nobody would hear how they end. All of it is
    /// ended, as after a stop that failed, before anything else runs here.
    async fn end_cut_off(&mut self) {
        let Some(of) = self.cut_off.take() else { return };
        self.log(
            LogLevel::C,
            "the agent ended while a script of the module ran: the script and what it left are ended",
        );
        self.end(None, true).await;
        self.scripts = Scripts::of(of);
        if of != ModuleState::Stop {
            self.wished = *self.force.borrow();
            let _ = self.reach(App::Stop { force: true, why: Why::Restart }, ModuleState::Wait).await;
        }
        self.under_way = None;
        self.keep();
        self.is_cut_off.store(false, Ordering::Release);
    }

    /// Runs what is wanted, and keeps for the next agent that it runs.
    async fn reach(&mut self, wanted: App, state: ModuleState) -> Option<AppReport> {
        self.under_way = match wanted {
            App::Start | App::Stop { .. } if self.active.configuration.mode == Mode::Mirror => Some(ModuleState::Prim),
            App::Start | App::Stop { .. } => Some(ModuleState::Up),
            App::Prepare | App::Release { .. } => Some(ModuleState::Stop),
            App::Role { .. } => None,
        };
        let report = self.run_plan(wanted, state).await;
        if self.under_way.take().is_some() {
            self.keep();
        }
        report
    }

    /// Runs what is wanted. A start that fails ends the plan: the automaton hears of it, and stops what was begun.
    async fn run_plan(&mut self, wanted: App, state: ModuleState) -> Option<AppReport> {
        let plan = self.narrowed(wanted, self.scripts.clone().plan(wanted, state));
        self.scripts.plan(wanted, state);
        if !plan.is_empty() {
            // A change of role beside the application changes nothing of where it runs.
            self.outside &= matches!(wanted, App::Role { .. });
            self.keep();
        }
        if let Some(reason) = self.altered(wanted, &plan).await {
            self.log(LogLevel::C, &reason);
            return Some(AppReport::StartFailed { reason });
        }
        for step in plan {
            match step {
                Step::End { pair, kill } => self.end(pair, kill).await,
                Step::Run(run) => {
                    if self.is_left(&run) {
                        self.break_off(&run, false).await;
                        continue;
                    }
                    let outcome = self.script(&run).await;
                    if self.is_left(&run) && outcome.is_err() {
                        self.break_off(&run, true).await;
                        continue;
                    }
                    let Err(reason) = outcome else { continue };
                    match (wanted, run.kind) {
                        (App::Prepare, Kind::Prepare) | (App::Start, Kind::Start(_)) => {
                            if wanted == App::Prepare || self.is_lost(&run.script) {
                                self.log(LogLevel::C, &reason);
                            }
                            return Some(AppReport::StartFailed { reason });
                        }
                        _ => self.log(LogLevel::C, &reason),
                    }
                }
            }
        }
        match wanted {
            App::Prepare => Some(AppReport::Prepared),
            App::Start => {
                let prim = self.group.as_ref().and_then(|group| group.part(Pair::Prim.name()).ok());
                self.outside = prim.is_some_and(|group| group.is_empty().unwrap_or(false));
                self.keep();
                Some(AppReport::Started)
            }
            App::Stop { .. } => Some(AppReport::Stopped),
            App::Release { .. } => Some(AppReport::Released),
            App::Role { .. } => None,
        }
    }

    /// A restart of some services leaves everything else alone: the application's two scripts run, and know which they are.
    fn narrowed(&mut self, wanted: App, plan: Vec<Step>) -> Vec<Step> {
        let is_part = matches!(wanted, App::Start | App::Stop { force: false, why: Why::Restart });
        if !is_part {
            self.only.clear();
        }
        if self.only.is_empty() {
            return plan;
        }
        let named = ["-Services".to_string(), self.only.join(", ")];
        let of_these = |step| match step {
            Step::Run(mut run) if matches!(run.kind, Kind::Start(Pair::Prim) | Kind::Stop(Pair::Prim)) => {
                run.args.extend(named.clone());
                Some(Step::Run(run))
            }
            _ => None,
        };
        let plan = plan.into_iter().filter_map(of_these).collect();
        if wanted == App::Start {
            self.only.clear();
        }
        plan
    }

    /// Does this start belong to a role that the module has left already? (A stop is done for what follows, and what is told is told.)
    fn is_left(&self, run: &Run) -> bool {
        matches!(run.kind, Kind::Start(_)) && self.role.is_some_and(|number| self.ahead.borrow().wishes != number)
    }

    /// A run of a role that was left: killed, or not begun.
    async fn break_off(&mut self, run: &Run, begun: bool) {
        let how = if begun { "was broken off" } else { "was not run" };
        self.log(LogLevel::E, &format!("Script {} {how}: the module goes on without waiting for it", run.script));
        let next = self.ahead.borrow().state;
        if let Kind::Start(pair) = run.kind
            && self.scripts.broken_off(pair, next, begun)
        {
            self.end(Some(pair), true).await;
        }
        self.keep();
    }

    /// `update`: another configuration is in force, and the module goes on as it is.
    async fn update(&mut self) {
        let at = self.scripts.at().to_string();
        let run = Run { script: "update".into(), args: vec![at.clone(), at, "update".into()], kind: Kind::Tell };
        if let Err(reason) = self.script(&run).await {
            self.log(LogLevel::C, &reason);
        }
    }

    /// Before the first script: an agent that dies now is followed by one that knows what was begun.
    fn keep(&self) {
        let kept = Kept { scripts: self.scripts.clone(), outside: self.outside, under_way: self.under_way };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        if let Err(error) = platform::store::write_atomic(&self.kept, &text, 0o600) {
            tracing::error!(%error, "cannot keep which scripts have run");
        }
    }

    fn timeout(&self, run: &Run) -> Duration {
        let Some(user) = &self.active.configuration.user else { return SCRIPT };
        Duration::from_millis(match run.kind {
            Kind::Stop(_) => user.nice_stop_timeout_ms,
            Kind::Force(_) => user.force_stop_timeout_ms,
            Kind::Tell if run.script == "transition" => user.transition_timeout_ms,
            Kind::Prepare | Kind::Start(_) | Kind::Tell => user.start_timeout_ms,
        })
    }

    /// Ends what is still in the group of this pair, or of the module.
    async fn end(&self, pair: Option<Pair>, kill: bool) {
        let Some(group) = self.group.clone() else { return };
        // What was asked by force meanwhile is not kept waiting.
        let at_once = kill || *self.force.borrow() != self.wished;
        let grace = if at_once { Duration::ZERO } else { GRACE };
        let ended = tokio::task::spawn_blocking(move || {
            let group = if let Some(pair) = pair { group.part(pair.name())? } else { group };
            group.end(grace, KILLED)
        });
        match ended.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => self.log(LogLevel::I, "what the stop script left running was killed"),
            Ok(Err(error)) => self.log(LogLevel::C, &causes(&error)),
            Err(error) => self.log(LogLevel::C, &error.to_string()),
        }
    }

    /// What is about to start the module here is not what was applied: a script may call any other file in `bin`.
    async fn altered(&self, wanted: App, plan: &[Step]) -> Option<String> {
        if !matches!(wanted, App::Prepare | App::Start) || plan.is_empty() {
            return None;
        }
        let active = self.active.clone();
        // What cannot be looked at is found out by running it.
        tokio::task::spawn_blocking(move || active.altered()).await.ok().flatten()
    }

    /// It was applied, and its file is not there any more.
    fn is_lost(&self, script: &str) -> bool {
        self.active.has_applied(script) && !self.active.bin_dir().join(script).is_file()
    }

    /// One run; a script that the module never had is no error.
    async fn script(&mut self, run: &Run) -> Result<(), String> {
        let (name, timeout) = (&run.script, self.timeout(run));
        let Some(path) = self.active.script(name) else { return Ok(()) };
        if self.active.is_altered(name) {
            return Err(altered(&self.active, name));
        }
        let Some(group) = &self.group else {
            return Err(format!("{name} was not run: this node has no control groups (stead state -v)"));
        };
        let group = match run.kind {
            Kind::Start(pair) | Kind::Stop(pair) | Kind::Force(pair) => {
                group.part(pair.name()).map_err(|error| causes(&error))?
            }
            Kind::Prepare | Kind::Tell => group.clone(),
        };
        let starts = matches!(run.kind, Kind::Start(_));
        let var = user_var(&self.active);
        // Both may have been taken away with the module's state.
        for dir in [&var, &self.runs] {
            std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        let run = ScriptRun {
            script: path,
            args: run.args.clone(),
            env: self.env.clone(),
            cwd: self.active.bin_dir(),
            timeout,
            runs_dir: self.active.configuration.user.as_ref().is_none_or(|u| u.logging).then(|| self.runs.clone()),
            output_max: output_max(&self.active),
        };
        let wished = self.wished;
        let mut force = self.force.clone();
        if *force.borrow() != wished {
            return Err(format!("script {name} was not run: an end by force was asked for"));
        }
        let mut ahead = self.ahead.clone();
        let role = self.role.filter(|_| starts);
        let aborted = async move {
            let left = async {
                match role {
                    Some(number) => drop(ahead.wait_for(|ahead| ahead.wishes != number).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = force.wait_for(|count| *count != wished) => {}
                () = left => {}
            }
        };
        match run_until(&run, &group, aborted).await {
            Ok(ScriptOutcome::Missing) if self.active.has_applied(name) => Err(lost(&self.active, name)),
            Ok(ScriptOutcome::Missing) => Ok(()),
            Ok(ScriptOutcome::Ended { end, log, took_ms }) => {
                let file = log.as_ref().map(|log| log.file_name().unwrap_or_default().to_string_lossy());
                self.log(LogLevel::S, &super::texts::script(name, file.as_deref()));
                let how = match end {
                    ScriptEnd::Exited(0) => return Ok(()),
                    ScriptEnd::Exited(code) => format!("ended with exit code {code}"),
                    ScriptEnd::Killed(signal) => format!("was killed by signal {signal}"),
                    ScriptEnd::TimedOut => format!("took longer than {} s and was killed", timeout.as_secs()),
                    ScriptEnd::Aborted => format!("was ended by force after {took_ms} ms"),
                };
                Err(match log {
                    Some(log) => format!("script {name} {how}{}; its output is in {}", last_words(&log), log.display()),
                    None => format!("script {name} {how}; its output is not kept (<user logging=\"none\">)"),
                })
            }
            Err(error) => Err(causes(&error)),
        }
    }

    fn log(&self, level: LogLevel, text: &str) {
        self.chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("userplug", level, text);
    }
}

/// A script that was applied and is not there any more, and how it comes back.
pub(super) fn lost(active: &Active, script: &str) -> String {
    format!(
        "script {script} is missing: {} was there when the configuration was applied; `stead module export -m {module} --to NODE` \
         on the other node brings it back, or `stead config -m {module}` here",
        active.bin_dir().join(script).display(),
        module = active.name,
    )
}

/// A script that is another one than was applied, and how that one comes back.
pub(super) fn altered(active: &Active, script: &str) -> String {
    format!(
        "script {script} is not run: {} is not what was applied; `stead config -m {}` writes it anew",
        active.bin_dir().join(script).display(),
        active.name,
    )
}

/// Bytes kept of what one script, and what it left running, prints.
#[must_use]
pub(super) fn output_max(active: &Active) -> u64 {
    active.configuration.user.as_ref().map_or(2 * 1024 * 1024, |user| user.user_log_bytes)
}

/// What an agent kept of the scripts of this boot.
fn read(kept: &Path) -> Option<Kept> {
    serde_json::from_slice(&std::fs::read(kept).ok()?).ok()
}
