//! The processes of one kind: found in `/proc`, and their ends awaited through descriptors, so that a death is known
//! within milliseconds and a number given to another process misleads nobody. Where the kernel tells of starts as well
//! ([`crate::process::events`]), `/proc` is read when something happened instead of every second.
//!
//! Those of the module's own control group count; only where there never were any (a service of the system), those
//! outside all modules.

use crate::process::events::Notice;
use crate::process::names::{is_called, kept};
use model::ModuleName;
use model::patterns::Expression;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;

/// Ends that are awaited one by one; the others are found by the next look.
const AWAITED_MAX: usize = 64;
/// Between two looks because of starts.
const APART: Duration = Duration::from_millis(20);
/// Bound on one pass through `/proc`.
const PIDS_MAX: usize = 32_768;
/// As much of a command line as is looked at.
const ARGUMENTS_MAX: u64 = 64 * 1024;

/// Which processes are meant.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Of this module.
    pub module: ModuleName,
    /// Their name, when there is no expression; of more than 15 characters, as the program's file is called.
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
    /// The processes of the last look, when it was, and what the kernel told since.
    found: BTreeSet<i32>,
    looked: Option<Instant>,
    notices: Option<broadcast::Receiver<Notice>>,
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
        Self {
            kind,
            own_seen: false,
            awaited: BTreeSet::new(),
            ends: JoinSet::new(),
            found: BTreeSet::new(),
            looked: None,
            notices: None,
        }
    }

    /// Hears of starts as well, beginning with those before the first look.
    #[must_use]
    pub fn hearing(self, notices: broadcast::Receiver<Notice>) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Does the kernel tell of starts?
    #[must_use]
    pub const fn hears(&self) -> bool {
        self.notices.is_some()
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
        self.found = found.iter().copied().collect();
        self.looked = Some(Instant::now());
        found
    }

    /// Returns when one of those found has ended, when one may have appeared, or when it is time to look again anyway.
    pub async fn wait(&mut self, at_most: Duration) {
        let Self { kind, ends, found, looked, notices, .. } = self;
        let is_over = tokio::select! {
            Some(ended) = ends.join_next() => {
                if let Ok(pid) = ended {
                    self.awaited.remove(&pid);
                }
                false
            }
            is_over = told(notices, kind, found, *looked) => is_over,
            () = tokio::time::sleep(at_most) => false,
        };
        if is_over {
            self.notices = None;
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

/// Returns when something was told of such processes; `true` when nothing will be told any more.
async fn told(
    notices: &mut Option<broadcast::Receiver<Notice>>,
    kind: &Kind,
    found: &BTreeSet<i32>,
    looked: Option<Instant>,
) -> bool {
    let Some(notices) = notices else { return std::future::pending().await };
    loop {
        match notices.recv().await {
            Ok(Notice::Appeared { name, .. }) if kind.is_named(&name) => break,
            Ok(Notice::Ended { pid }) if found.contains(&pid) => break,
            Ok(Notice::Missed) | Err(RecvError::Lagged(_)) => break,
            Ok(_) => {}
            Err(RecvError::Closed) => return true,
        }
    }
    // A crowd that starts is one look, not one each.
    let next = looked.map(|it| it + APART);
    tokio::time::sleep(next.map_or(Duration::ZERO, |it| it.saturating_duration_since(Instant::now()))).await;
    false
}

impl Kind {
    fn is(&self, pid: i32) -> bool {
        let Some(name) = living_name(pid) else { return false };
        self.is_named(&name)
            && (self.name_regex.is_some() || is_called(pid, &name, self.name.as_bytes()))
            && self.arg_regex.as_ref().is_none_or(|it| it.is_in(&arguments(pid)))
    }

    /// May it be one of them, as far as the kernel's name for it says?
    fn is_named(&self, name: &[u8]) -> bool {
        self.name_regex.as_ref().map_or_else(|| name == kept(self.name.as_bytes()), |it| it.is_in(name))
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
pub(crate) fn living_name(pid: i32) -> Option<Vec<u8>> {
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
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

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
    async fn a_start_that_is_told_of_ends_the_wait_and_others_do_not() {
        let marker = format!("99{}", std::process::id());
        let (tell, notices) = broadcast::channel(8);
        let mut watcher = Watcher::new(kind("sleep", &marker)).hearing(notices);
        assert!(watcher.look().is_empty());
        tell.send(Notice::Appeared { pid: 1, name: b"init".to_vec() }).unwrap();
        tell.send(Notice::Ended { pid: 1 }).unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(50), watcher.wait(Duration::from_secs(600))).await;
        assert!(waited.is_err(), "neither is one of ours");
        let mut child = std::process::Command::new("sleep").arg(&marker).spawn().unwrap();
        let begun = Instant::now();
        tell.send(Notice::Appeared { pid: child.id() as i32, name: b"sleep".to_vec() }).unwrap();
        while watcher.look().is_empty() {
            // Told again: the first may have come before the program was in place.
            tell.send(Notice::Missed).unwrap();
            watcher.wait(Duration::from_secs(600)).await;
        }
        child.kill().unwrap();
        watcher.wait(Duration::from_secs(600)).await;
        assert!(watcher.look().is_empty());
        child.wait().unwrap();
        drop(tell);
        watcher.wait(Duration::from_secs(600)).await;
        assert!(!watcher.hears(), "from here on somebody has to look");
        assert!(begun.elapsed() < Duration::from_secs(300));
    }

    #[tokio::test]
    async fn of_a_long_name_the_kernel_keeps_the_beginning_and_the_program_tells_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::copy("/bin/sleep", place("very_long_process_name_daemon")).unwrap();
        std::fs::write(place("very_long_process_name_script"), "#!/bin/sh\nread line\n").unwrap();
        std::fs::set_permissions(place("very_long_process_name_script"), PermissionsExt::from_mode(0o755)).unwrap();
        let program = Command::new(place("very_long_process_name_daemon")).arg("600").spawn().unwrap();
        let script = Command::new(place("very_long_process_name_script")).stdin(Stdio::piped()).spawn().unwrap();
        for (name, mut child) in [("very_long_process_name_daemon", program), ("very_long_process_name_script", script)]
        {
            let mut watcher = Watcher::new(kind(name, ""));
            let begun = Instant::now();
            while watcher.look().is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{name} is never seen");
                watcher.wait(Duration::from_millis(5)).await;
            }
            assert_eq!(watcher.look(), [child.id() as i32], "{name}: both are one to the kernel");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(watcher.look().is_empty());
        }
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
