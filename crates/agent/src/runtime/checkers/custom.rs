//! Programs of the module that look for themselves: run again and again for their exit code, or kept running while they
//! set their resource by `stead set`. They belong to the agent, not to the application: a stop of that leaves them.

use super::look::Around;
use platform::probe::Look;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A program that should not end is begun again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// A handler of `<errd>` may take this long.
const HANDLER: Duration = Duration::from_secs(60);
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

/// Runs it to its end: 0 is well.
pub async fn once(exec: &str, arg: &str, resource: &str, around: &Around, within: Duration) -> Look {
    let mut child = match command(exec, arg, resource, around).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Look::Gone(format!("{exec} cannot be run: {error}")),
    };
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

/// Keeps it running.
pub async fn keep(exec: &str, arg: &str, resource: &str, around: &Around) {
    loop {
        match command(exec, arg, resource, around).spawn() {
            Ok(mut child) => match child.wait().await {
                Ok(status) => tracing::warn!(%resource, %exec, %status, "a checker's program ended; it is begun again"),
                Err(error) => tracing::warn!(%resource, %exec, %error, "a checker's program cannot be waited for"),
            },
            Err(error) => tracing::warn!(%resource, %exec, %error, "a checker's program cannot be run"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The program that handles the failure of a process: 0 means that all is well again.
///
/// # Errors
/// Why it is not.
pub async fn handle(handler: &str, resource: &str, around: &Around) -> Result<(), String> {
    match once(handler, "", resource, around, HANDLER).await {
        Look::Well => Ok(()),
        Look::Gone(why) | Look::Silent(why) => Err(format!("handler {why}")),
    }
}
