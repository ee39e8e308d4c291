//! Control groups (version 2): one per module, holding everything its scripts leave running.
//!
//! ```text
//! BASE/            where the service manager (or the lab) put us
//!   agent/         this process
//!   modules/AM/    the application of module AM: survives the agent
//! ```
//! Only grouping, killing and "is it empty" are used: no controllers are needed. The mount is found in
//! `/proc/self/mountinfo`, never assumed.
//! **Invariant:** a process of a module is in the module's group before its first instruction.

use super::tree;
use crate::mounts;
use model::ModuleName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Sub-groups an application may nest below its own; deeper is refused.
const DEPTH_MAX: usize = 16;

/// Why a control group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup version 2 is mounted. Nothing was changed.
    #[error(
        "no cgroup version 2 file system is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// Our own group is not visible in the mount. Nothing was changed.
    #[error(
        "this process is in the control group '{group}', which is not visible under {mount}: start the agent in a cgroup namespace that matches the mount"
    )]
    NotVisible {
        /// From `/proc/self/cgroup`.
        group: String,
        /// Mount point of cgroup2.
        mount: PathBuf,
    },
    /// Processes remained at the deadline. They may be in uninterruptible sleep; retry safe.
    #[error("{left} process(es) of control group {path} are still there after {waited_ms} ms: {example}")]
    NotEmpty {
        /// The group.
        path: PathBuf,
        /// How many.
        left: usize,
        /// One of them: pid and command.
        example: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The operating system refused. Retry safe.
    #[error("cannot {action} control group {path}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CgroupError {
    fn os(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Os { action, path: path.into(), source }
    }
}

/// The part of the hierarchy that is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CgroupTree {
    base: PathBuf,
}

impl CgroupTree {
    /// Finds the mount and our own group. A process that is already in a leaf `agent` (a restart by exec)
    /// finds the same base again.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`], [`CgroupError::NotVisible`], [`CgroupError::Os`].
    pub fn discover() -> Result<Self, CgroupError> {
        let own_file = Path::new("/proc/self/cgroup");
        let text = std::fs::read_to_string(own_file)
            .map_err(|error| CgroupError::os("read the name of our", own_file, error))?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NotMounted)?;
        let mounts = mounts::list().unwrap_or_default();
        let mount = mounts.iter().rfind(|mount| mount.fstype == "cgroup2").ok_or(CgroupError::NotMounted)?;
        let invisible = || CgroupError::NotVisible { group: own.into(), mount: mount.mountpoint.clone() };
        // The mount may show only a part of the hierarchy (a container): our path is relative to that part.
        let below = Path::new(own).strip_prefix(&mount.root).map_err(|_| invisible())?;
        let mut base = mount.mountpoint.join(below);
        if base.file_name().is_some_and(|name| name == "agent") && base != mount.mountpoint {
            base.pop();
        }
        if !base.join("cgroup.procs").exists() {
            return Err(invisible());
        }
        Ok(Self { base })
    }

    /// A tree at a given group; for a service manager that delegates another one, and for tests.
    #[must_use]
    pub fn at(base: &Path) -> Self {
        Self { base: base.into() }
    }

    /// Where it begins.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Moves this process (all its threads) into the leaf `agent`, so that modules can have groups beside it.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn enter_agent(&self) -> Result<(), CgroupError> {
        let path = self.base.join("agent");
        make(&path)?;
        std::fs::write(path.join("cgroup.procs"), "0")
            .map_err(|error| CgroupError::os("move this process into", &path, error))
    }

    /// The group of a module, made if needed.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn module(&self, module: &ModuleName) -> Result<ModuleCgroup, CgroupError> {
        make(&self.base.join("modules"))?;
        let path = self.base.join("modules").join(module.as_str());
        make(&path)?;
        Ok(ModuleCgroup { path })
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::os("make", path, error)),
        _ => Ok(()),
    }
}

/// The group of one module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleCgroup {
    path: PathBuf,
}

impl ModuleCgroup {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
    pub(super) fn procs_file(&self) -> Result<File, CgroupError> {
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

/// For the child between fork and exec: moves itself into the group. Async-signal-safe.
pub(super) fn join(procs: &File) -> io::Result<()> {
    // SAFETY: the buffer is a literal of the given length, the descriptor is open (it is closed on exec only).
    let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
