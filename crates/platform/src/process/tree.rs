//! Reading `/proc` for the descendants of a process, and killing through handles that cannot hit a stranger.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;

/// Bound on one pass; a fork bomb is the cgroup's business.
const PIDS_MAX: usize = 32_768;

/// All living descendants of `root` (not `root` itself), by parenthood as it is now. A process whose parent has
/// ended (a daemon) is nobody's descendant any more.
pub(super) fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).take(PIDS_MAX) {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found: Vec<i32> = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// Is it in the session of `root` (a session leader), or still a child of `root` or of one of `tree`? Asked again
/// when a process is held by a descriptor: its number may have been given to a stranger meanwhile.
pub(super) fn is_in_session_or_below(pid: i32, root: i32, tree: &[i32]) -> bool {
    let Some(fields) = stat_of(pid) else { return false };
    fields.session == root || fields.parent == root || tree.contains(&fields.parent)
}

struct Stat {
    parent: i32,
    session: i32,
}

pub(super) fn parent_of(pid: i32) -> Option<i32> {
    stat_of(pid).map(|stat| stat.parent)
}

fn stat_of(pid: i32) -> Option<Stat> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // "pid (any ) name) S ppid pgrp session …": the name may hold anything, so look from its last parenthesis.
    let after = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(after + 1..)?).ok()?.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { parent, session })
}

/// Signals a process if it still satisfies `is_target` once we hold it by a descriptor (so that its number cannot
/// have been given to another). Errors mean it is gone.
pub(super) fn signal_if(pid: i32, signal: Signal, is_target: impl Fn(i32) -> bool) {
    let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    if is_target(pid) {
        pidfd_send_signal(handle, signal).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_and_strangers_are_not() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 50 & wait"]).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let root = i32::try_from(shell.id()).unwrap();
        let mut found = descendants(root);
        while found.is_empty() {
            assert!(std::time::Instant::now() < deadline);
            found = descendants(root);
        }
        assert_eq!(found.len(), 1);
        assert!(descendants(std::process::id() as i32).contains(&found[0]));
        assert!(!found.contains(&root));
        signal_if(found[0], Signal::KILL, |_| false);
        assert!(shell.try_wait().unwrap().is_none(), "not a target: not killed");
        signal_if(found[0], Signal::KILL, |pid| parent_of(pid) == Some(root));
        shell.wait().unwrap();
    }
}
