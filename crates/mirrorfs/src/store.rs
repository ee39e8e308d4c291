//! The local store, by descriptor: the only place of the front where file system calls are made.
//!
//! Everything goes through an `O_PATH` descriptor of the inode or of its directory, never through a path of
//! the tree: a path would lead through our own mount, and wait for ourselves. It keeps no state.

use crate::outlet::InodeKey;
use replica::op::{Owner, Time};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat, Timestamps};
use rustix::io::Errno;
use std::io::IoSliceMut;

/// Result of a call into the store; errno is what the application gets.
pub type Answer<T> = Result<T, Errno>;

/// Attributes hidden from applications.
const HIDDEN: &[u8] = b"trusted.stead.";
/// Attributes for administrators.
const TRUSTED: &[u8] = b"trusted.";

/// `O_PATH` descriptor of an entry (symbolic links not followed).
///
/// # Errors
/// As `openat`.
pub fn open_child(dir: impl AsFd, name: &[u8]) -> Answer<OwnedFd> {
    fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// `fstat`, also of `O_PATH` descriptors.
///
/// # Errors
/// As `fstat`.
pub fn stat(fd: impl AsFd) -> Answer<Stat> {
    fs::fstat(fd)
}

/// `fstatat` of an entry, not followed.
///
/// # Errors
/// As `fstatat`.
pub fn stat_child(dir: impl AsFd, name: &[u8]) -> Answer<Stat> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Identity of what was `stat`ed.
#[must_use]
pub fn key(stat: &Stat) -> InodeKey {
    InodeKey { dev: stat.st_dev, ino: stat.st_ino }
}

/// `S_IFMT` part of the mode.
#[must_use]
pub fn kind(stat: &Stat) -> u32 {
    stat.st_mode & libc::S_IFMT
}

/// Modification time.
#[must_use]
pub fn mtime(stat: &Stat) -> Time {
    Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 }
}

/// Access time.
#[must_use]
pub fn atime(stat: &Stat) -> Time {
    Time { sec: stat.st_atime, nsec: stat.st_atime_nsec as u32 }
}

/// Modification time of an inode.
///
/// # Errors
/// As `fstat`.
pub fn mtime_of(fd: impl AsFd) -> Answer<Time> {
    Ok(mtime(&stat(fd)?))
}

/// Permission bits and owners.
#[must_use]
pub fn owner(stat: &Stat) -> Owner {
    Owner { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
}

/// The kernel's name of one of our descriptors. (`/proc` is not the tree.)
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The last part of the name by which a descriptor's inode is known to the kernel; `None` if that is gone.
#[must_use]
pub fn name_of(fd: impl AsFd) -> Option<Box<[u8]>> {
    let path = fs::readlink(proc_path(fd.as_fd()), Vec::new()).ok()?.into_bytes();
    // A name that ends like this by itself is asked for again when it is needed.
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    (!name.is_empty() && !name.ends_with(b" (deleted)")).then(|| name.into())
}

/// A descriptor for input and output, from an `O_PATH` one.
///
/// # Errors
/// As `open`.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Answer<OwnedFd> {
    fs::open(proc_path(fd), (flags | OFlags::CLOEXEC) - OFlags::NOFOLLOW, Mode::empty())
}

/// `O_PATH` descriptor of an open file.
///
/// # Errors
/// As `open`.
pub fn path_fd(fd: BorrowedFd<'_>) -> Answer<OwnedFd> {
    fs::open(proc_path(fd), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Writes all of `data`, or as much as there is room for; an error only if nothing was written.
///
/// # Errors
/// As `pwrite`.
pub fn write_at(fd: impl AsFd, data: &[u8], offset: u64) -> Answer<usize> {
    let fd = fd.as_fd();
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Fills `buffer` as far as the file reaches.
///
/// # Errors
/// As `pread`.
pub fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Answer<usize> {
    let fd = fd.as_fd();
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::preadv(fd, &mut [IoSliceMut::new(&mut buffer[done..])], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Sets the times of any inode, symbolic links included.
///
/// # Errors
/// As `utimensat`.
pub fn set_times(fd: BorrowedFd<'_>, times: &Timestamps) -> Answer<()> {
    fs::utimensat(fs::CWD, proc_path(fd), times, AtFlags::empty())
}

/// Sets the permission bits.
///
/// # Errors
/// As `chmod`.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Answer<()> {
    fs::chmod(proc_path(fd), Mode::from_raw_mode(mode & 0o7777))
}

/// Sets owner and group, each if given.
///
/// # Errors
/// As `fchownat`.
pub fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Answer<()> {
    let (uid, gid) = (uid.map(fs::Uid::from_raw), gid.map(fs::Gid::from_raw));
    fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
}

/// Clears suid and sgid, as a write by an ordinary user does. Set-group-id of a file that its group may not
/// execute means something else and stays if `in_group` says so of the caller. `Some`: the new mode.
///
/// # Errors
/// As `chmod`.
pub fn kill_suid_sgid(fd: BorrowedFd<'_>, in_group: impl FnOnce(u32) -> bool) -> Answer<Option<u32>> {
    let stat = stat(fd)?;
    let before = stat.st_mode & 0o7777;
    let mut after = before & !libc::S_ISUID;
    if before & libc::S_ISGID != 0 && (before & libc::S_IXGRP != 0 || !in_group(stat.st_gid)) {
        after &= !libc::S_ISGID;
    }
    if after == before {
        return Ok(None);
    }
    set_mode(fd, after)?;
    Ok(Some(after))
}

/// An attribute that belongs to Stead.
#[must_use]
pub fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(HIDDEN)
}

/// A list of attribute names without the hidden ones, and without the administrator's for everybody else, as the kernel's
/// own file systems do it.
#[must_use]
pub fn visible(names: &[u8], is_admin: impl Fn() -> bool) -> Vec<u8> {
    let is_shown = |name: &[u8]| !is_hidden(name) && (!name.starts_with(TRUSTED) || is_admin());
    let shown = names.split_inclusive(|&b| b == 0).filter(|name| is_shown(name));
    shown.flatten().copied().collect()
}
