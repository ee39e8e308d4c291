//! Running programs: every one has a deadline, and a failure tells its output.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a program of tests says, at most.
const OUTPUT_MAX: u64 = 4 << 20;

/// What a program said.
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs to the end, output captured.
///
/// # Errors
/// When it cannot start, or exceeds its deadline (then it is killed). A failing exit code is no error here.
pub fn capture(command: &mut Command, deadline: Duration) -> anyhow::Result<Output> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().context("no stdout")?));
    let stderr = read(Box::new(child.stderr.take().context("no stderr")?));
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{name} did not end within {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

/// Runs to the end; a failing exit code is an error that tells the output.
pub fn must(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let output = capture(command, deadline)?;
    if !output.status.success() {
        bail!("{name} failed ({}):\n{}{}", output.status, output.stdout, output.stderr);
    }
    Ok(output.stdout)
}

/// Runs with the terminal's own output.
pub fn live(command: &mut Command) -> anyhow::Result<()> {
    let name = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Runs with the terminal's own output, but not for ever: past the deadline it is ended with all it started.
pub fn live_within(command: &mut Command, deadline: Duration) -> anyhow::Result<()> {
    let name = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let status = within(&mut child, &name, deadline)?;
    if status.success() { Ok(()) } else { bail!("{name} failed: {status}") }
}

/// The same, and what it said is the answer, or part of the error.
pub fn told_within(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    // A file, since what it leaves running might hold a pipe open.
    let mut said = nameless_file().context("a file for its output")?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let status = within(&mut child, &name, deadline);
    let mut bytes = Vec::new();
    said.rewind()?;
    said.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches('\n');
    match status {
        Ok(status) if status.success() => Ok(text.into()),
        Ok(status) => bail!("{text}\n{name} failed: {status}"),
        Err(error) => bail!("{text}\n{error:#}"),
    }
}

/// A file that is gone when nobody has it open any more.
fn nameless_file() -> std::io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("stead-xtask-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn within(child: &mut Child, name: &str, deadline: Duration) -> anyhow::Result<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            let below = descendants(child.id());
            let running: Vec<String> = below.iter().map(|pid| command_line(*pid)).collect();
            for pid in std::iter::once(child.id()).chain(below) {
                // SAFETY: kill takes two integers; the processes are ours: children of a child that still runs.
                unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
            }
            child.wait()?;
            bail!("{name} did not end within {deadline:?}; it was running:\n  {}", running.join("\n  "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All processes below this one.
fn descendants(of: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: state, parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![of];
    let mut at = 0;
    while let Some(next) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == next).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Looks again until `look` says yes or the deadline passed.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if start.elapsed() > deadline {
            bail!("{what}: not within {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
