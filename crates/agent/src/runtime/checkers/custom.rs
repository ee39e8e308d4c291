//! Programs of the module that look for themselves: run again and again for their exit code, or kept running while they
//! set their resource by `stead set`. They belong to the agent, not to the application: a stop of that leaves them.

use super::super::module::Input;
use super::look::Around;
use crate::cluster_config::causes;
use platform::probe::Look;
use rustix::process::{Pid, Signal};
use std::path::PathBuf;
use std::process::Stdio;
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
/// Words of a program that are shown.
const SAID_MAX: usize = 200;

fn program(exec: &str, around: &Around) -> PathBuf {
    if exec.starts_with('/') { exec.into() } else { around.bin.join(exec) }
}

fn command(exec: &str, arg: &str, resource: &str, around: &Around) -> Command {
    let mut command = Command::new(program(exec, around));
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
    command
}

/// A program and what it started, which ends with it: a checker is often a pipeline.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Either the leader is not waited for yet, or it was a moment ago: its number is nobody else's. All of it may be gone.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs it to its end: 0 is well.
pub async fn once(exec: &str, arg: &str, resource: &str, around: &Around, within: Duration) -> Look {
    let mut child = match command(exec, arg, resource, around).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Look::Gone(format!("{exec} cannot be run: {error}")),
    };
    let _group = Group::of(&child);
    let ended = async {
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            // More than this is not read: the program gets SIGPIPE.
            let _ = out.take(SAID_MAX as u64).read_to_end(&mut said).await;
        }
        (child.wait().await, String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_string())
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
        let why = match command(exec, arg, resource, around).spawn() {
            Ok(mut child) => {
                let _group = Group::of(&child);
                match child.wait().await {
                    Ok(status) => format!("{exec} ended with {status}"),
                    Err(error) => format!("{exec} cannot be waited for: {error}"),
                }
            }
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
    let mut command = command(handler, "", resource, around);
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
