//! What a host sees: its disk, its own /proc, /sys, /run and /dev/shm, and the machine's programs.
//!
//! /etc, /var/lib and /var/log are overlays: the machine's content below, the host's own changes on its own
//! disk, so that nothing the host writes there reaches the machine, and a power cut loses what was not flushed.
//! /srv, /srv/stead, /etc/stead and /var/lib/stead are directories of the disk itself. Runs in the host's PID 1, in its
//! own mount namespace, whose propagation is private.

use crate::LabError;
use crate::disk::DISK_FD;
use crate::error::Context;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, mount_change,
    move_mount, open_tree, unmount,
};
use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the disk is mounted while the parts are put together; gone afterwards.
const DISK: &str = "/run/lab-disk";
const OVERLAYS: [&str; 3] = ["/etc", "/var/lib", "/var/log"];
/// Directory of the disk → place in the host.
const PLACES: [(&str, &str); 4] =
    [("srv", "/srv"), ("data", "/srv/stead"), ("etc-stead", "/etc/stead"), ("var-lib-stead", "/var/lib/stead")];
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Builds the host's file tree.
pub fn build(device: &Path, boot_id: &str) -> Result<(), LabError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .what(|| "cannot make the mounts private".to_owned())?;
    let packages = directories("/run");
    tmpfs("/run", c"mode=0755")?;
    for (dir, meta) in packages {
        own_like(&dir, &meta).what(|| format!("cannot make {}", dir.display()))?;
    }
    make_dir("/run/lock".as_ref(), 0o1777)?;
    tmpfs("/dev/shm", c"mode=1777")?;
    disk(device)?;
    sys()?;
    forget("/proc");
    attach("proc", "/proc".as_ref(), "proc", c"")?;
    give_boot_id(boot_id)
}

/// What a boot finds in an empty /run: the directories the machine's packages have there (systemd-tmpfiles would
/// make them), empty; nothing of what runs on the machine.
fn directories(dir: &str) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name() != "stead")
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .filter(|(_, meta)| meta.is_dir())
        .collect()
}

/// A directory with the owner and mode of another.
fn own_like(dir: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    rustix::fs::chown(dir, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))?;
    fs::set_permissions(dir, meta.permissions())
}

fn disk(device: &Path) -> Result<(), LabError> {
    make_dir(DISK.as_ref(), 0o700)?;
    // noinit_itable: no background writer that would make a quiet disk busy.
    attach(device, DISK.as_ref(), "ext4", c"noinit_itable")?;
    keep_open()?;
    for (index, place) in OVERLAYS.iter().enumerate() {
        overlay(Path::new(place), &Path::new(DISK).join(format!("overlay{index}")))?;
    }
    for (dir, place) in PLACES {
        let dir = Path::new(DISK).join(dir);
        make_dir(&dir, 0o755)?;
        make_dir(place.as_ref(), 0o755)?;
        mount_bind(&dir, place).what(|| format!("cannot mount {place}"))?;
    }
    // The parts hold it; out of sight, so that nobody writes past them.
    unmount(DISK, UnmountFlags::DETACH).what(|| format!("cannot detach {DISK}"))?;
    fs::remove_dir(DISK).what(|| format!("cannot remove {DISK}"))
}

/// The supervisor cuts the disk's power through this descriptor of PID 1: no path of the host can be in its way.
fn keep_open() -> Result<(), LabError> {
    let what = || "cannot keep the disk open".to_owned();
    let root =
        rustix::fs::open(DISK, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).what(what)?;
    // SAFETY: PID 1 opened nothing else under this number; the value is given up again at once below.
    let mut place = unsafe { OwnedFd::from_raw_fd(DISK_FD) };
    let done = rustix::io::dup3(&root, &mut place, rustix::io::DupFlags::CLOEXEC).what(what);
    let _ = place.into_raw_fd();
    done
}

fn overlay(place: &Path, dir: &Path) -> Result<(), LabError> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let below = fs::metadata(place).what(|| format!("the machine has no {}", place.display()))?;
    // The top of an overlay shows the upper directory's owner and mode: they must be the machine's.
    own_like(&upper, &below).what(|| format!("cannot make {}", upper.display()))?;
    fs::create_dir_all(&work).what(|| format!("cannot make {}", work.display()))?;
    // xino: files and directories show one device, as those of a file system do.
    let options =
        format!("lowerdir={},upperdir={},workdir={},xino=on", place.display(), upper.display(), work.display());
    let options = CString::new(options).expect("paths of ours have no NUL");
    attach("overlay", place, "overlay", &options)
}

/// An own sysfs, because /sys/class/net shows the network of whoever mounted it; what the machine has mounted
/// below /sys (cgroups above all) comes along.
fn sys() -> Result<(), LabError> {
    let mut kept = Vec::new();
    for place in mounts_below("/sys/")? {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        if let Ok(tree) = open_tree(rustix::fs::CWD, &place, flags) {
            kept.push((tree, place));
        }
    }
    forget("/sys");
    attach("sysfs", "/sys".as_ref(), "sysfs", c"")?;
    for (tree, place) in kept {
        move_mount(tree, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .what(|| format!("cannot bring along {}", place.display()))?;
    }
    Ok(())
}

/// Mount points below a directory that are not below one another.
fn mounts_below(dir: &str) -> Result<Vec<PathBuf>, LabError> {
    let text = fs::read_to_string("/proc/self/mounts").what(|| "cannot read /proc/self/mounts".to_owned())?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| place.starts_with(dir))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup_by(|later, kept| later.starts_with(&*kept));
    Ok(found)
}

/// The kernel's boot id is the machine's; a host that lost power must see another one.
fn give_boot_id(boot_id: &str) -> Result<(), LabError> {
    let file = "/run/lab-boot-id";
    fs::write(file, format!("{boot_id}\n")).what(|| format!("cannot write {file}"))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o444)).what(|| format!("cannot protect {file}"))?;
    mount_bind(file, BOOT_ID).what(|| format!("cannot mount {BOOT_ID}"))?;
    // Reached through /proc only, where it cannot be changed by accident.
    rustix::mount::mount_remount(BOOT_ID, MountFlags::BIND | MountFlags::RDONLY, "")
        .what(|| format!("cannot protect {BOOT_ID}"))
}

/// Takes away what the machine has mounted there, with all below: covered only, it would still be listed, and
/// whoever searches the list of mounts would find the wrong one. Not a mount point: nothing to take away.
fn forget(place: &str) {
    while unmount(place, UnmountFlags::DETACH).is_ok() {}
}

fn tmpfs(place: &str, options: &std::ffi::CStr) -> Result<(), LabError> {
    forget(place);
    attach("tmpfs", place.as_ref(), "tmpfs", options)
}

fn attach(source: impl AsRef<Path>, place: &Path, kind: &str, options: &std::ffi::CStr) -> Result<(), LabError> {
    mount(source.as_ref(), place, kind, MountFlags::empty(), Some(options))
        .what(|| format!("cannot mount {kind} on {}", place.display()))
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), LabError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).what(|| format!("cannot make {}", dir.display())),
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(mode))
            .what(|| format!("cannot protect {}", dir.display())),
    }
}
