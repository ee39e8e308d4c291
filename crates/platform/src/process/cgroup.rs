//! Control groups (version 2): one per module, holding everything its scripts leave running.
//!
//! ```text
//! BASE/            where the service manager (or the lab) put us
//!   agent/         this process
//!   modules/AM/    the application of module AM: survives the agent
//!   mirrorfs/AM/   its data plane, likewise
//!   checkers/…/    one run of one checker's own program: ends with it
//! ```
//! Only grouping, killing and "is it empty" are used: no controllers are needed. The mount is found in
//! `/proc/self/mountinfo`, never assumed.
//! **Invariant:** a process of a module is in the module's group before its first instruction.

mod module;

pub use module::ModuleCgroup;

use crate::mounts;
use model::ModuleName;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

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
        self.of("modules", module)
    }

    /// The group of a module's data plane, beside the agent's own.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn plane(&self, module: &ModuleName) -> Result<ModuleCgroup, CgroupError> {
        self.of("mirrorfs", module)
    }

    /// A group for one run of a checker's own program, and all that it starts. `run`: unique among those of this agent.
    ///
    /// # Errors
    /// [`CgroupError::Os`].
    pub fn checker(&self, module: &ModuleName, resource: &str, run: u64) -> Result<ModuleCgroup, CgroupError> {
        let all = self.checkers();
        make(all.path())?;
        all.part(&format!("{module}.{resource}.{run}"))
    }

    /// The group around all of these.
    #[must_use]
    pub fn checkers(&self) -> ModuleCgroup {
        ModuleCgroup::new(self.base.join("checkers"))
    }

    fn of(&self, kind: &str, module: &ModuleName) -> Result<ModuleCgroup, CgroupError> {
        make(&self.base.join(kind))?;
        let path = self.base.join(kind).join(module.as_str());
        make(&path)?;
        Ok(ModuleCgroup::new(path))
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::os("make", path, error)),
        _ => Ok(()),
    }
}

/// For the child between fork and exec: moves itself into the group. Async-signal-safe.
pub(super) fn join(procs: &File) -> io::Result<()> {
    // SAFETY: the buffer is a literal of the given length, the descriptor is open (it is closed on exec only).
    let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
