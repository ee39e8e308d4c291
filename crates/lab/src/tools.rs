//! Root, and the programs of the distribution the lab runs.

use crate::LabError;
use crate::error::Context;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TOOLS: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("mkfs.ext4", "e2fsprogs")];
/// Looked at after PATH: `su` without `-` leaves the system directories out.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Refuses without root or without the programs, naming what to install.
pub fn require() -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |of: fn(&(&'static str, &'static str)) -> &'static str| {
        missing.iter().map(|pair| of(pair)).collect::<Vec<_>>().join(" ")
    };
    Err(LabError::MissingTools { tools: list(|pair| pair.0), packages: list(|pair| pair.1) })
}

/// PATH for the hosts: the program's own directory first, then ours, then the system's.
pub fn path_for(program: &Path) -> String {
    let own = program.parent().unwrap_or(Path::new("/usr/bin")).display();
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{own}:{path}:{SYSTEM}"),
        _ => format!("{own}:{SYSTEM}"),
    }
}

/// Runs a tool with a script on its standard input.
pub fn feed(tool: &'static str, args: &[&str], script: &str) -> Result<(), LabError> {
    let mut child = command(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .what(|| format!("cannot start {tool}"))?;
    // A tool that refuses early closes its end: its own words say more than our EPIPE.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().what(|| format!("cannot wait for {tool}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LabError::Tool { tool, output: format!("{text} (input: {})", script.trim().replace('\n', "; ")) });
    }
    written.what(|| format!("cannot write to {tool}"))
}

/// A command with its full path.
pub fn command(tool: &'static str) -> Command {
    let mut command = Command::new(find(tool).unwrap_or_else(|| PathBuf::from(tool)));
    command.stdin(Stdio::null());
    command
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(SYSTEM.split(':')).filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(tool)).find(
        |candidate| {
            use std::os::unix::fs::PermissionsExt;
            candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        },
    )
}
