//! The labs' part of the cgroup v2 tree: `<cgroup2>/stead-lab/LAB/HOST/{host,service}`.
//!
//! A host's subtree holds every process of that host, so that it can be frozen and killed as one.

use crate::LabError;
use crate::error::Context;
use crate::wait;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PID 1 and what `exec` starts.
pub const HOST: &str = "host";
/// The agent; it makes its own sub-cgroups below.
pub const SERVICE: &str = "service";

/// Where cgroup v2 is mounted: never assumed, it may be beside a v1 tree.
pub fn root() -> Result<PathBuf, LabError> {
    let mounts = std::fs::read_to_string("/proc/mounts").what(|| "cannot read /proc/mounts".to_owned())?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ');
            let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        })
        .ok_or_else(|| {
            LabError::Machine("no cgroup v2 is mounted here: mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned())
        })
}

/// Subtree of one lab.
pub fn lab(name: &str) -> Result<PathBuf, LabError> {
    Ok(root()?.join("stead-lab").join(name))
}

/// Makes a cgroup, its parents included.
pub fn make(dir: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(dir).what(|| format!("cannot make the cgroup {}", dir.display()))
}

/// Moves the calling process.
pub fn enter(dir: &Path) -> Result<(), LabError> {
    std::fs::write(dir.join("cgroup.procs"), "0").what(|| format!("cannot enter the cgroup {}", dir.display()))
}

/// Stops or continues everything below, without waiting.
pub fn set_frozen(dir: &Path, frozen: bool) -> Result<(), LabError> {
    std::fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        .what(|| format!("cannot freeze or thaw the cgroup {}", dir.display()))
}

/// Waits until all is stopped. False: something waits in the kernel (a FUSE answer) and stops when that returns.
pub fn wait_frozen(dir: &Path, limit: Duration) -> bool {
    wait::until(limit, || event(dir, "frozen 1"))
}

/// SIGKILL to everything below, frozen or not. A cgroup that is gone has nobody left.
pub fn kill(dir: &Path) {
    let _ = std::fs::write(dir.join("cgroup.kill"), "1");
}

/// Somebody lives below.
pub fn is_populated(dir: &Path) -> bool {
    event(dir, "populated 1")
}

/// Every process below.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mut all = Vec::new();
    for dir in subtree(dir) {
        if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
    }
    all
}

/// Removes a subtree nobody lives in; waits a little for the kernel to let go of the last dead.
pub fn remove(dir: &Path, limit: Duration) -> Result<(), LabError> {
    let mut last: io::Result<()> = Ok(());
    let gone = wait::until(limit, || {
        last = Ok(());
        for dir in subtree(dir).into_iter().rev() {
            match std::fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => last = Err(error),
                _ => {}
            }
        }
        last.is_ok()
    });
    if gone { Ok(()) } else { last.what(|| format!("cannot remove the cgroup {}", dir.display())) }
}

fn event(dir: &Path, line: &str) -> bool {
    std::fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|text| text.lines().any(|found| found == line))
}

/// Parents before children.
fn subtree(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if let Ok(entries) = std::fs::read_dir(&all[next]) {
            all.extend(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        next += 1;
    }
    all
}
