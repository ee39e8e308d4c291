//! One group: who is in it, ending them, waiting until it is empty.

use super::{CgroupError, join};
use crate::process::tree;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Sub-groups an application may nest below its own; deeper is refused.
const DEPTH_MAX: usize = 16;

/// The group of one module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleCgroup {
    path: PathBuf,
}

impl ModuleCgroup {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A group below it, made if needed.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn part(&self, name: &str) -> Result<Self, CgroupError> {
        let path = self.path.join(name);
        super::make(&path)?;
        Ok(Self { path })
    }

    /// Makes `command` run inside: the child moves itself before it executes anything. Spawning fails if it cannot.
    ///
    /// # Errors
    /// [`CgroupError::Os`] when the group is gone.
    pub fn place(&self, command: &mut Command) -> Result<(), CgroupError> {
        let procs = self.procs_file()?;
        // SAFETY: between fork and exec only `write(2)` on a descriptor opened before is called.
        unsafe { command.pre_exec(move || join(&procs)) };
        Ok(())
    }

    /// `cgroup.procs`, open for writing; closed on exec.
    pub(in crate::process) fn procs_file(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.procs");
        File::options().write(true).open(&path).map_err(|error| CgroupError::os("open", &path, error))
    }

    /// Pids in the group and in groups below it (those of another pid namespace, which the kernel shows as 0,
    /// are left out). Empty if it is gone.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        for group in self.groups()? {
            match std::fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => {
                    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0))
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(CgroupError::os("list the processes of", &group, error)),
            }
        }
        Ok(pids)
    }

    /// Is anything running in it?
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn is_empty(&self) -> Result<bool, CgroupError> {
        Ok(self.events()?.is_none_or(|(_, populated)| !populated))
    }

    /// Asks everything in it to end (SIGTERM).
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn terminate(&self) -> Result<(), CgroupError> {
        self.signal(Signal::TERM)
    }

    /// Kills everything in it at once, whatever it forks meanwhile (`cgroup.kill`; before Linux 5.14 one by one).
    /// Returns before they are gone: [`ModuleCgroup::wait_empty`].
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        match std::fs::write(self.path.join("cgroup.kill"), "1") {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => self.signal(Signal::KILL),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(CgroupError::os("kill", &self.path, error)),
        }
    }

    /// Waits until nothing runs in it. Blocking: call by `spawn_blocking`.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] at the deadline, naming a process; [`CgroupError::Os`].
    pub fn wait_empty(&self, deadline: Duration) -> Result<(), CgroupError> {
        let end = Instant::now() + deadline;
        let Some((mut events, mut is_populated)) = self.events()? else { return Ok(()) };
        while is_populated {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let pids = self.pids()?;
                let example = pids.first().map_or_else(|| "(already gone)".into(), |pid| describe(*pid));
                return Err(CgroupError::NotEmpty {
                    path: self.path.clone(),
                    left: pids.len(),
                    example,
                    waited_ms: deadline.as_millis() as u64,
                });
            }
            // The kernel wakes us when the file changes; the bound is for kernels that forget.
            let step = left.min(Duration::from_millis(200));
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(step.subsec_nanos()) };
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(CgroupError::os("watch", &self.path, error.into())),
            }
            is_populated = self.read_populated(&mut events)?;
        }
        Ok(())
    }

    /// The end of a stop: what is still there gets `grace` after SIGTERM, then is killed, then `deadline` to vanish.
    /// Blocking. Returns whether force was needed.
    ///
    /// # Errors
    /// As [`ModuleCgroup::wait_empty`].
    pub fn end(&self, grace: Duration, deadline: Duration) -> Result<bool, CgroupError> {
        if self.is_empty()? {
            return Ok(false);
        }
        if !grace.is_zero() {
            self.terminate()?;
            match self.wait_empty(grace) {
                Err(CgroupError::NotEmpty { .. }) => {}
                other => return other.map(|()| false),
            }
        }
        self.kill()?;
        self.wait_empty(deadline)?;
        Ok(true)
    }

    /// Removes the (empty) group and groups below it. Idempotent.
    ///
    /// # Errors
    /// [`CgroupError::Os`] (EBUSY: something runs in it).
    pub fn remove(&self) -> Result<(), CgroupError> {
        for group in self.groups()?.iter().rev() {
            match std::fs::remove_dir(group) {
                Err(error) if !is_gone(&error) => return Err(CgroupError::os("remove", group, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what is empty of the groups below it, and leaves the rest: something runs there.
    pub fn sweep(&self) {
        let below = self.groups().unwrap_or_default();
        below.iter().skip(1).rev().for_each(|group| drop(std::fs::remove_dir(group)));
    }

    fn signal(&self, signal: Signal) -> Result<(), CgroupError> {
        for pid in self.pids()? {
            tree::signal_if(pid, signal, |pid| self.pids().is_ok_and(|pids| pids.contains(&pid)));
        }
        Ok(())
    }

    /// This group and those below it, parents first.
    fn groups(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let mut groups = vec![self.path.clone()];
        let mut at = 0;
        while let Some(group) = groups.get(at).cloned() {
            at += 1;
            let entries = match std::fs::read_dir(&group) {
                Ok(entries) => entries,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(CgroupError::os("list", &group, error)),
            };
            let is_deep = group.components().count() >= self.path.components().count() + DEPTH_MAX;
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if is_deep {
                        return Err(CgroupError::os("follow", &group, io::Error::other("groups are nested too deep")));
                    }
                    groups.push(entry.path());
                }
            }
        }
        Ok(groups)
    }

    /// `cgroup.events`, open for waiting, and whether it says "populated"; `None` when the group is gone.
    fn events(&self) -> Result<Option<(File, bool)>, CgroupError> {
        match File::open(self.path.join("cgroup.events")) {
            Ok(mut events) => {
                let is_populated = self.read_populated(&mut events)?;
                Ok(Some((events, is_populated)))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(CgroupError::os("watch", &self.path, error)),
        }
    }

    fn read_populated(&self, events: &mut File) -> Result<bool, CgroupError> {
        let mut text = String::new();
        match events.rewind().and_then(|()| events.read_to_string(&mut text)) {
            Ok(_) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(CgroupError::os("watch", &self.path, error)),
        }
    }
}

/// ENOENT, or ENODEV: what reads and writes on a removed group's files answer.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn describe(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} '{}'", name.trim())
}
