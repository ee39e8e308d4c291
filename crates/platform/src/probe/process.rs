//! The processes of one kind: found in `/proc`, and their ends awaited through descriptors, so that a death is known
//! within milliseconds and a number given to another process misleads nobody.
//!
//! Those of the module's own control group count; only where there never were any (a service of the system), those
//! outside all modules.

use model::ModuleName;
use model::patterns::Expression;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

/// Ends that are awaited one by one; the others are found by the next look.
const AWAITED_MAX: usize = 64;
/// Bound on one pass through `/proc`.
const PIDS_MAX: usize = 32_768;
/// As much of a command line as is looked at.
const ARGUMENTS_MAX: u64 = 64 * 1024;

/// Which processes are meant.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Of this module.
    pub module: ModuleName,
    /// Their name, at most 15 characters, when there is no expression.
    pub name: String,
    /// Or which names.
    pub name_regex: Option<Expression>,
    /// And which command lines.
    pub arg_regex: Option<Expression>,
}

/// Watches one kind of process.
pub struct Watcher {
    kind: Kind,
    /// There was one in the module's own group: others do not count any more.
    own_seen: bool,
    awaited: BTreeSet<i32>,
    ends: JoinSet<i32>,
}

#[derive(PartialEq, Eq)]
enum Place {
    Own,
    Outside,
    Foreign,
}

impl Watcher {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, own_seen: false, awaited: BTreeSet::new(), ends: JoinSet::new() }
    }

    /// The processes there are now. Blocking for as long as `/proc` is read.
    pub fn look(&mut self) -> Vec<i32> {
        let (mut own, mut outside) = (Vec::new(), Vec::new());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).take(PIDS_MAX) {
            if self.kind.is(pid) {
                match self.kind.place(pid) {
                    Some(Place::Own) => own.push(pid),
                    Some(Place::Outside) => outside.push(pid),
                    _ => {}
                }
            }
        }
        self.own_seen |= !own.is_empty();
        let found = if self.own_seen { own } else { outside };
        self.await_ends(&found);
        found
    }

    /// Returns when one of those found has ended, or when it is time to look again anyway.
    pub async fn wait(&mut self, at_most: Duration) {
        if self.ends.is_empty() {
            return tokio::time::sleep(at_most).await;
        }
        if let Ok(Some(Ok(pid))) = tokio::time::timeout(at_most, self.ends.join_next()).await {
            self.awaited.remove(&pid);
        }
    }

    fn await_ends(&mut self, found: &[i32]) {
        for pid in found {
            if self.awaited.len() >= AWAITED_MAX || self.awaited.contains(pid) {
                continue;
            }
            let handle = Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // The number may have changed hands before we held it.
            let Some(handle) = handle.filter(|_| self.kind.is(*pid)) else { continue };
            // SAFETY: the descriptor is owned by what is made here, and is the same and open until that is dropped.
            let handle = unsafe { AsyncFd::<OwnedFd>::register_with_interest(handle, Interest::READABLE) };
            let Ok(handle) = handle else { continue };
            let pid = *pid;
            self.awaited.insert(pid);
            self.ends.spawn(async move {
                let _ = handle.readable().await;
                pid
            });
        }
    }
}

impl Kind {
    fn is(&self, pid: i32) -> bool {
        let Some(name) = living_name(pid) else { return false };
        let named = self.name_regex.as_ref().map_or_else(|| name == self.name.as_bytes(), |it| it.is_in(&name));
        named && self.arg_regex.as_ref().is_none_or(|it| it.is_in(&arguments(pid)))
    }

    fn place(&self, pid: i32) -> Option<Place> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let Some((_, module)) = group.split_once("/modules/") else { return Some(Place::Outside) };
        let module = module.split('/').next()?;
        Some(if module == self.module.as_str() { Place::Own } else { Place::Foreign })
    }
}

/// The name of a process that is no zombie.
fn living_name(pid: i32) -> Option<Vec<u8>> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (stat.iter().position(|b| *b == b'(')?, stat.iter().rposition(|b| *b == b')')?);
    let state = *stat.get(close + 2)?;
    (!matches!(state, b'Z' | b'X')).then(|| stat.get(open + 1..close).map(<[u8]>::to_vec))?
}

/// The command line, with spaces between its words.
fn arguments(pid: i32) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/cmdline")) {
        // What cannot be read matches nothing.
        let _ = file.take(ARGUMENTS_MAX).read_to_end(&mut text);
    }
    text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn kind(name: &str, arguments: &str) -> Kind {
        Kind {
            module: ModuleName::new("app").unwrap(),
            name: name.into(),
            name_regex: None,
            arg_regex: Expression::new(arguments),
        }
    }

    #[tokio::test]
    async fn a_killed_process_is_noticed_at_once_and_a_zombie_is_none() {
        let marker = format!("97{}", std::process::id());
        let mut child = std::process::Command::new("sleep").arg(&marker).spawn().unwrap();
        let mut watcher = Watcher::new(kind("sleep", &marker));
        while watcher.look().is_empty() {
            watcher.wait(Duration::from_millis(5)).await;
        }
        assert_eq!(watcher.look(), [child.id() as i32]);
        let killed = Instant::now();
        child.kill().unwrap();
        watcher.wait(Duration::from_secs(20)).await;
        let noticed = killed.elapsed();
        assert!(watcher.look().is_empty(), "nobody has waited for it: it is a zombie, and counts as gone");
        child.wait().unwrap();
        // Not a measurement: without the event it would be twenty seconds.
        assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    }

    #[tokio::test]
    async fn another_command_line_is_another_process() {
        let marker = format!("98{}", std::process::id());
        let mut child = std::process::Command::new("sleep").arg(&marker).spawn().unwrap();
        let mut watcher = Watcher::new(kind("sleep", &marker));
        while watcher.look().is_empty() {
            watcher.wait(Duration::from_millis(5)).await;
        }
        assert!(Watcher::new(kind("sleep", "no such argument")).look().is_empty());
        assert!(Watcher::new(kind("slee", &marker)).look().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
