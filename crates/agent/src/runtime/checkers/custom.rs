//! Programs of the module that look for themselves: run again and again for their exit code, or kept running while they
//! set their resource by `stead set`. They belong to the agent, not to the application: a stop of that leaves them.

use super::super::module::Input;
use super::look::Around;
use crate::cluster_config::causes;
use platform::probe::Look;
use platform::process::cgroup::{CgroupError, ModuleCgroup};
use platform::process::script::may_run;
use rustix::process::{Pid, Signal};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A program that should not end is begun again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// A handler of `<errd>` may take this long.
const HANDLER: Duration = Duration::from_secs(60);
/// Where in the module's group the application is.
const PART: &str = "prim";
/// What a program said before it ended is read within this.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Words of a program that are shown.
const SAID_MAX: usize = 200;

fn program(exec: &str, around: &Around) -> PathBuf {
    if exec.starts_with('/') { exec.into() } else { around.bin.join(exec) }
}

/// Run as root: what others may change is refused, as it is for scripts. A link in the system's directories is followed first.
fn command(exec: &str, arg: &str, resource: &str, around: &Around) -> Result<Command, String> {
    let path = program(exec, around);
    // What is not there is found out by the attempt to run it.
    let path = path.canonicalize().unwrap_or(path);
    may_run(&path).map_err(|error| causes(&error))?;
    let mut command = Command::new(path);
    command.args([around.module.as_str(), resource]).args(arg.split_whitespace());
    command.env_clear().envs(around.env.iter().cloned()).current_dir(&around.bin);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.process_group(0);
    // SAFETY: prctl(2) with these arguments only sets a flag of the calling process; async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // Whoever kills the agent leaves no orphan that goes on setting resources.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    Ok(command)
}

/// What a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(1);
/// The same, when an agent begins: it is not kept from its work.
const GONE_SOON: Duration = Duration::from_millis(500);
/// Groups of processes that took longer (a disk hangs): tried again with every later run. More are left to the next agent.
static LEFT: Mutex<Vec<ModuleCgroup>> = Mutex::new(Vec::new());
const LEFT_MAX: usize = 1_000;

/// A program and what it started, which ends with it: a checker is often a pipeline, and some start what detaches itself.
struct Group {
    leader: Option<Pid>,
    all: Option<ModuleCgroup>,
}

/// Begins it, in a group of its own.
fn begin(mut command: Command, resource: &str, around: &Around) -> Result<(Child, Group), String> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let all = around.agent.upgrade().and_then(|agent| agent.checker_group(&around.module, resource, run));
    let mut group = Group { leader: None, all };
    if let Some(all) = &group.all {
        all.place(command.as_std_mut()).map_err(|error| causes(&error))?;
    }
    let child = command.spawn().map_err(|error| error.to_string())?;
    group.leader = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok((child, group))
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // Either the leader is not waited for yet, or it was a moment ago: its number is nobody else's. All of it may be gone.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
        if let Some(all) = self.all.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let ended = all.kill();
            // The group goes when they are gone. What an agent leaves that ends meanwhile, the next one finds.
            runtime.spawn_blocking(move || {
                let ended = ended.and_then(|()| all.wait_empty(GONE)).and_then(|()| all.remove());
                let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
                left.retain(|group| group.remove().is_err());
                if let Err(error) = ended
                    && left.len() < LEFT_MAX
                {
                    tracing::warn!("what a checker started is not gone yet: {}", causes(&error));
                    left.push(all);
                }
            });
        }
    }
}

/// What checkers of an earlier agent have left.
///
/// # Errors
/// As [`ModuleCgroup::end`].
pub fn end_all(checkers: &ModuleCgroup) -> Result<(), CgroupError> {
    let ended = checkers.end(Duration::ZERO, GONE_SOON);
    checkers.sweep();
    ended.map(drop)
}

/// Runs it to its end: 0 is well.
pub async fn once(exec: &str, arg: &str, resource: &str, around: &Around, within: Duration) -> Look {
    let begun = command(exec, arg, resource, around).and_then(|mut command| {
        command.stdout(Stdio::piped());
        begin(command, resource, around)
    });
    let (mut child, _group) = match begun {
        Ok(begun) => begun,
        Err(error) => return Look::Gone(format!("{exec} cannot be run: {error}")),
    };
    let out = child.stdout.take();
    let ended = async {
        let mut said = Vec::new();
        let status = {
            let reading = async {
                if let Some(out) = out {
                    // More than this is not read: the program gets SIGPIPE.
                    let _ = out.take(SAID_MAX as u64).read_to_end(&mut said).await;
                }
            };
            tokio::pin!(reading);
            let status = tokio::select! {
                status = child.wait() => Some(status),
                () = &mut reading => None,
            };
            match status {
                // What it has left behind may hold its output for ever, and says nothing for it.
                Some(status) => {
                    let _ = tokio::time::timeout(LAST_WORDS, reading).await;
                    status
                }
                None => child.wait().await,
            }
        };
        (status, String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_string())
    };
    match tokio::time::timeout(within, ended).await {
        Ok((Ok(status), _)) if status.success() => Look::Well,
        Ok((Ok(status), said)) => {
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            Look::Silent(format!("{exec} ended with {status}{said}"))
        }
        Ok((Err(error), _)) => Look::Silent(format!("{exec}: {error}")),
        Err(_) => Look::late(within),
    }
}

/// Keeps it running. What it said does not outlive it.
pub async fn keep(exec: &str, arg: &str, resource: &str, around: &Around, own: &mpsc::Sender<Input>) {
    loop {
        let begun = command(exec, arg, resource, around).and_then(|command| begin(command, resource, around));
        let why = match begun {
            Ok((mut child, _group)) => match child.wait().await {
                Ok(status) => format!("{exec} ended with {status}"),
                Err(error) => format!("{exec} cannot be waited for: {error}"),
            },
            Err(error) => format!("{exec} cannot be run: {error}"),
        };
        let _ = own.try_send(Input::Lost { resource: resource.into(), why: format!("{why}; it is begun again") });
        tokio::time::sleep(AGAIN).await;
    }
}

/// The program that handles the failure of a process: 0 means that all is well again.
///
/// # Errors
/// Why it is not.
pub async fn handle(handler: &str, resource: &str, around: &Around) -> Result<(), String> {
    let mut command = command(handler, "", resource, around).map_err(|error| format!("handler {handler}: {error}"))?;
    // What it starts in the place of what died is the application's, not the agent's: there it is looked for, and ended.
    let group = around.agent.upgrade().and_then(|agent| agent.application_group(&around.module));
    if let Some(group) = group.and_then(|group| group.part(PART).ok()) {
        group.place(command.as_std_mut()).map_err(|error| format!("handler {handler}: {}", causes(&error)))?;
    }
    let mut child = command.spawn().map_err(|error| format!("handler {handler} cannot be run: {error}"))?;
    match tokio::time::timeout(HANDLER, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("handler {handler} ended with {status}")),
        Ok(Err(error)) => Err(format!("handler {handler}: {error}")),
        Err(_) => Err(format!("handler {handler} did not end within {} s", HANDLER.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::sync::{Arc, Weak};

    /// Needs root.
    #[tokio::test]
    async fn a_program_that_others_may_change_is_not_run_as_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let around = Around {
            agent: Weak::new(),
            module: model::ModuleName::new("am").expect("a name"),
            peer: None,
            heartbeats: Vec::new(),
            network: Arc::new(platform::net::Network::open().expect("netlink")),
            peer_macs: Vec::new(),
            peer_may_answer: Arc::default(),
            shared_macs: Vec::new(),
            bin: dir.path().into(),
            env: Vec::new(),
        };
        let program = dir.path().join("look");
        let write = |mode| {
            std::fs::write(&program, "#!/bin/sh\ntouch \"$0.ran\"\n").expect("a file");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).expect("its mode");
        };
        let ran = || std::fs::remove_file(dir.path().join("look.ran")).is_ok();
        let look = async |exec: &str| once(exec, "", "custom.x", &around, Duration::from_secs(20)).await;
        write(0o755);
        assert_eq!((look("look").await, ran()), (Look::Well, true));
        // A link is followed, to what it leads to.
        std::os::unix::fs::symlink(&program, dir.path().join("link")).expect("a link");
        assert_eq!((look("link").await, ran()), (Look::Well, true));
        for (mode, owner, because) in
            [(0o757, 0, "others than root may change it"), (0o755, 7, "does not belong to root")]
        {
            write(mode);
            chown(&program, Some(owner), None).expect("another owner");
            for exec in ["look", "link"] {
                let said = look(exec).await;
                assert!(matches!(&said, Look::Gone(why) if why.contains(because)), "{said:?}");
            }
            let handled = handle("look", "proc.x", &around).await;
            assert!(handled.as_ref().is_err_and(|why| why.contains(because)) && !ran(), "{handled:?}");
        }
        // A helper that it leaves behind holds its output, and ends with it.
        let leaves = |ends: &str| {
            std::fs::write(
                &program,
                format!("#!/bin/sh\nsleep 3111 &\necho $! > \"$0.pid\"\necho said\nexit {ends}\n"),
            )
            .expect("a file");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("its mode");
            chown(&program, Some(0), None).expect("its owner");
        };
        for (ends, well) in [("0", true), ("3", false)] {
            leaves(ends);
            let found = look("look").await;
            assert!(
                if well { found == Look::Well } else { matches!(&found, Look::Silent(why) if why.ends_with(": said")) },
                "{found:?}"
            );
            let pid = std::fs::read_to_string(dir.path().join("look.pid")).expect("its number");
            // It was killed; that is a moment until it is gone.
            let lives = || {
                let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
                !(state.is_empty() || state.contains(") Z") || state.contains(") X"))
            };
            let until = tokio::time::Instant::now() + Duration::from_secs(20);
            while lives() {
                assert!(tokio::time::Instant::now() < until, "the helper lives on");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let said = look("none").await;
        assert!(matches!(&said, Look::Gone(why) if why.contains("No such file")), "{said:?}");
    }
}
