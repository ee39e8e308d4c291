//! A host's disk: a sparse ext4 image, and how its power is cut.
//!
//! **Invariant:** the shutdown ioctl is sent only to a file system on the loop device of this very image. Sent to
//! any other it would stop the machine's own disk.

use crate::LabError;
use crate::error::Context;
use crate::{loopdev, tools};
use rustix::fs::{Mode, OFlags};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `FS_IOC_SHUTDOWN`: the file system goes down and takes nothing more.
const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// Not even the journal in memory is written: as when the power goes.
const NOLOGFLUSH: u32 = 2;
/// Descriptor number under which the host's PID 1 keeps the root of its disk open.
pub const DISK_FD: i32 = 4;

/// Makes the image. Sparse: it grows with what the host writes.
pub fn make(image: &Path, mib: u64) -> Result<(), LabError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(image)
        .what(|| format!("cannot make {}", image.display()))?;
    file.set_len(mib << 20).what(|| format!("cannot size {}", image.display()))?;
    drop(file);
    // Lazy inits: the image is sparse, zeros are zeros already. discard would only punch holes into holes.
    let output = tools::command("mkfs.ext4")
        .args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-m", "0"])
        .arg(image)
        .output()
        .what(|| "cannot start mkfs.ext4".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Tool { tool: "mkfs.ext4", output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Stops the disk under a running host: what was not flushed is lost, every further access fails.
pub fn cut_power(pid: i32, image: &Path, number: u32) -> Result<(), LabError> {
    let path = format!("/proc/{pid}/fd/{DISK_FD}");
    let what = || format!("cannot stop the disk {}", image.display());
    let root =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).what(what)?;
    let device = rustix::fs::fstat(&root).what(what)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if (major, minor) != (loopdev::MAJOR, number) || loopdev::backing_file(number).as_deref() != Some(image) {
        return Err(LabError::Machine(format!(
            "{path} is on device {major}:{minor}, not on loop{number} with {}: not touched",
            image.display()
        )));
    }
    let how = NOLOGFLUSH;
    // SAFETY: the argument is a valid u32 that outlives the call; the file system was checked above.
    if unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const how) } != 0 {
        return Err(io::Error::last_os_error()).what(what);
    }
    Ok(())
}
