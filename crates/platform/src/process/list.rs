//! What runs on this machine, by name and command line, as `/proc` says it at one moment.

use super::names::is_called;
use super::tree;
use model::patterns::Expression;
pub use rustix::process::Signal;
use std::io::Read;

/// Bound on one pass.
const PIDS_MAX: usize = 32_768;
/// As much of a command line as is looked at.
const ARGUMENTS_MAX: u64 = 64 * 1024;

/// One process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// Its command line, with spaces between; empty for those of the kernel.
    pub arguments: String,
}

/// All of them, by number. One that ends meanwhile is left out.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).take(PIDS_MAX);
    let mut found: Vec<Process> = pids.filter_map(of).collect();
    found.sort_unstable_by_key(|process| process.pid);
    found
}

/// Those of this name (all: `None`) whose command line matches; never the one that asks.
#[must_use]
pub fn matching(name: Option<&str>, arguments: Option<&Expression>) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    all()
        .into_iter()
        .filter(|it| it.pid != own)
        .filter(|it| name.is_none_or(|name| is_called(it.pid, it.name.as_bytes(), name.as_bytes())))
        .filter(|it| arguments.is_none_or(|wanted| wanted.is_in(it.arguments.as_bytes())))
        .collect()
}

/// Signals it, if it is still the one that was found.
pub fn signal(process: &Process, signal: Signal) {
    tree::signal_if(process.pid, signal, |pid| of(pid).is_some_and(|now| now.name == process.name));
}

/// It and all below it, parents first.
#[must_use]
pub fn with_descendants(root: &Process) -> Vec<Process> {
    let below = tree::descendants(root.pid);
    std::iter::once(root.clone()).chain(below.into_iter().filter_map(of)).collect()
}

fn of(pid: i32) -> Option<Process> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_string();
    let parent = tree::parent_of(pid)?;
    let mut bytes = Vec::new();
    std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?.take(ARGUMENTS_MAX).read_to_end(&mut bytes).ok()?;
    let arguments = String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_string();
    Some(Process { pid, parent, name, arguments })
}
