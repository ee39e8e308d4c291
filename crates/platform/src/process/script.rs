//! Runs one script of a module: in the module's group, in a session of its own, with its output in a file.
//!
//! What a start script leaves running *is* the application: it outlives the script and the agent. So output goes
//! to a file and never through a pipe of ours, nothing of ours is inherited, and only a script that takes too
//! long (or is aborted) is killed — with its process group and its children, not with the daemons it detached.

mod output;
mod permission;

pub use output::{cut_runs, remove_old_runs};
pub use permission::check as may_run;

use super::cgroup::{self, CgroupError, ModuleCgroup};
use super::tree;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::time::{interval, sleep, timeout};

/// Between SIGTERM and SIGKILL of a script that takes too long.
const GRACE: Duration = Duration::from_secs(1);
/// A killed script that has not ended after this waits for something in the kernel (a disk, a file system): nobody waits for it.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// How often the size of the output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Files of output kept per module.
const RUNS_MAX: usize = 100;

/// One run of one script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptRun {
    /// Absolute path; its file name names the output.
    pub script: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// The whole environment, added to `PATH`, `HOME=/root`, `LANG=C.UTF-8`.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// After this the script is killed.
    pub timeout: Duration,
    /// Directory of the output files (made by the caller); `None`: the output is not kept.
    pub runs_dir: Option<PathBuf>,
    /// Output beyond this many bytes is cut while it runs; what it leaves running is the caller's to bound ([`cut_runs`]).
    pub output_max: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScriptEnd {
    /// Exit code; 0 is success.
    Exited(i32),
    /// By a signal that was not ours.
    Killed(i32),
    /// It took longer than allowed and was killed.
    TimedOut,
    /// The caller gave up waiting and it was killed.
    Aborted,
}

/// What became of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScriptOutcome {
    /// There is no such script: nothing to do, not an error.
    Missing,
    /// It ran.
    Ended {
        /// How it ended.
        end: ScriptEnd,
        /// Its output; `None`: it was not kept.
        log: Option<PathBuf>,
        /// Milliseconds it took.
        took_ms: u64,
    },
}

impl ScriptOutcome {
    /// Missing, or ended with exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Missing | Self::Ended { end: ScriptEnd::Exited(0), .. })
    }
}

/// Why a script was not run. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Whoever may write the script would be root.
    #[error("refused to run {path}: {why}; {remedy}")]
    Unsafe {
        /// The script or its directory.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
        /// The command that helps.
        remedy: String,
    },
    /// The file for its output could not be made.
    #[error("cannot keep the output of the script in {path}")]
    Output {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its control group is not usable.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// It could not be started (no interpreter, no working directory, no memory).
    #[error("cannot run {path} (in {cwd})")]
    Spawn {
        /// The script.
        path: PathBuf,
        /// Its working directory.
        cwd: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that its first line names is not there.
    #[error("cannot run {path}: its first line names {interpreter}, which is not on this node")]
    Interpreter {
        /// The script.
        path: PathBuf,
        /// As written, made printable.
        interpreter: String,
    },
    /// It was started, and then could not be waited for: its end is unknown.
    #[error("cannot wait for {path}")]
    Wait {
        /// The script.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs the script to its end or its timeout. Dropping the future leaves the script running.
///
/// # Errors
/// [`ScriptError`]. A failing script is not an error but a [`ScriptEnd`].
pub async fn run(run: &ScriptRun, group: &ModuleCgroup) -> Result<ScriptOutcome, ScriptError> {
    run_until(run, group, std::future::pending()).await
}

/// As [`run`], and kills the script when `abort` comes first.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    run: &ScriptRun,
    group: &ModuleCgroup,
    abort: impl Future<Output = ()>,
) -> Result<ScriptOutcome, ScriptError> {
    if !permission::check(&run.script)? {
        return Ok(ScriptOutcome::Missing);
    }
    let output = match &run.runs_dir {
        Some(directory) => output::Output::create(directory, &run.script, run.output_max)?,
        None => output::Output::nowhere()?,
    };
    let start = Instant::now();
    let mut child = spawn(run, group, &output)?;
    let wait_error = |source| ScriptError::Wait { path: run.script.clone(), source };

    let deadline = sleep(run.timeout);
    tokio::pin!(deadline, abort);
    let mut look = interval(LOOK_EVERY);
    let end = loop {
        tokio::select! {
            status = child.wait() => break end_of(status.map_err(wait_error)?),
            () = &mut deadline => {
                kill(&mut child).await.map_err(wait_error)?;
                break ScriptEnd::TimedOut;
            }
            () = &mut abort => {
                kill(&mut child).await.map_err(wait_error)?;
                break ScriptEnd::Aborted;
            }
            _ = look.tick() => output.cut(),
        }
    };
    output.cut();
    if let Some(directory) = &run.runs_dir {
        remove_old_runs(directory, RUNS_MAX);
    }
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ScriptOutcome::Ended { end, log: run.runs_dir.is_some().then_some(output.path), took_ms })
}

fn spawn(run: &ScriptRun, group: &ModuleCgroup, output: &output::Output) -> Result<Child, ScriptError> {
    let keep = |source| ScriptError::Output { path: output.path.clone(), source };
    let mut command = std::process::Command::new(&run.script);
    command
        .args(&run.args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .envs(run.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&run.cwd)
        .stdin(Stdio::null())
        .stdout(output.file.try_clone().map_err(keep)?)
        .stderr(output.file.try_clone().map_err(keep)?);
    let procs = group.procs_file()?;
    // SAFETY: `prepare` makes only async-signal-safe system calls and touches no memory of other threads.
    unsafe { command.pre_exec(move || prepare(&procs)) };
    tokio::process::Command::from(command).kill_on_drop(false).spawn().map_err(|source| {
        let path = run.script.clone();
        match interpreter(&path).filter(|it| source.kind() == io::ErrorKind::NotFound && !Path::new(it).exists()) {
            // The kernel says "no such file" of the script, which is there.
            Some(it) => ScriptError::Interpreter { path, interpreter: it.escape_debug().to_string() },
            None => ScriptError::Spawn { path, cwd: run.cwd.clone(), source },
        }
    })
}

/// The program that a script's first line names.
#[must_use]
pub fn interpreter(script: &Path) -> Option<String> {
    let mut head = [0; 256];
    let read = std::fs::File::open(script).and_then(|mut file| file.read(&mut head)).ok()?;
    let line = head[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.split([' ', '\t']).find(|word| !word.is_empty()).map(ToString::to_string)
}

/// In the child, between fork and exec: nothing of the agent but its rights goes over to the application.
fn prepare(procs: &std::fs::File) -> io::Result<()> {
    // First of all: from here on the module's group holds it, whatever happens.
    cgroup::join(procs)?;
    // SAFETY: plain system calls with constant arguments; `setsid` cannot fail in a new child, and the other
    // three are improvements whose failure leaves a script that works.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        // Everything is opened close-on-exec already; this is for what a library forgot.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 4 /* CLOSE_RANGE_CLOEXEC */);
        // The agent may be protected from the out-of-memory killer; the application decides for itself.
        let adjust = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if adjust >= 0 {
            libc::write(adjust, c"0".as_ptr().cast(), 1);
            libc::close(adjust);
        }
    }
    Ok(())
}

/// SIGTERM to the script's process group and its descendants, a second of grace, SIGKILL to the same. Bounded, whatever they wait for.
async fn kill(child: &mut Child) -> io::Result<()> {
    // Not yet waited for, so its number (and that of its group) cannot have been given to another.
    let Some(root) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
    let mut tree = tree::descendants(root);
    signal(root, &tree, Signal::TERM);
    if let Ok(ended) = timeout(GRACE, ended_without_reaping(root)).await {
        ended?;
    }
    tree.extend(tree::descendants(root));
    signal(root, &tree, Signal::KILL);
    // Whoever still holds it is killed already, and its end is taken note of when it comes.
    timeout(UNKILLABLE, child.wait()).await.map_or(Ok(()), |ended| ended.map(|_| ()))
}

/// The script has ended but is not waited for: as long as it is a zombie its group keeps its number.
async fn ended_without_reaping(root: i32) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(root) else { return Ok(()) };
    loop {
        let options = rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT;
        if rustix::process::waitid(rustix::process::WaitId::Pid(pid), options)?.is_some() {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn signal(root: i32, tree: &[i32], signal: Signal) {
    if let Some(group) = Pid::from_raw(root) {
        kill_process_group(group, signal).ok();
    }
    for pid in tree {
        // One that has left the group is still our script's child; one that was adopted by another is a daemon.
        tree::signal_if(*pid, signal, |pid| tree::is_in_session_or_below(pid, root, tree));
    }
}

fn end_of(status: ExitStatus) -> ScriptEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => ScriptEnd::Exited(code),
        (None, signal) => ScriptEnd::Killed(signal.unwrap_or(0)),
    }
}
