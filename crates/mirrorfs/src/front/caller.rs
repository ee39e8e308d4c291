//! Who asks: making entries as the caller, so that owner, group inheritance and umask are the kernel's own
//! business, and the few questions of permission that the kernel leaves to us.
//!
//! The worker thread borrows the caller's file-system ids for one call and keeps its capabilities, because
//! the kernel has already checked the caller's permission (`default_permissions`).

use crate::abi::InHeader;
use rustix::fs::Stat;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Is this the caller's group, or one of its supplementary groups? Root is in every group. A caller that is
/// gone, or in another pid namespace's clothes, is in none: it loses a bit, never wins one.
pub(super) fn in_group(head: &InHeader, gid: u32) -> bool {
    if head.uid == 0 || head.gid == gid {
        return true;
    }
    status(head, "Groups:").split_whitespace().any(|group| group.parse() == Ok(gid))
}

/// May the caller know of `trusted.*`? Who is gone may not.
pub(super) fn is_admin(head: &InHeader) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    u64::from_str_radix(status(head, "CapEff:").trim(), 16).is_ok_and(|held| held >> CAP_SYS_ADMIN & 1 == 1)
}

/// What the kernel says of the caller under this word; nothing of one that is gone.
fn status(head: &InHeader, word: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", head.pid)).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default().to_owned()
}

/// May the caller write this file, by its mode?
pub(super) fn may_write(head: &InHeader, stat: &Stat) -> bool {
    head.uid == 0
        || head.uid == stat.st_uid
        || stat.st_mode & libc::S_IWOTH != 0
        || (stat.st_mode & libc::S_IWGRP != 0 && in_group(head, stat.st_gid))
}

/// Runs `make` with the caller's ids and umask.
pub(super) fn as_caller<T>(head: &InHeader, umask: u32, make: impl FnOnce() -> T) -> T {
    // SAFETY: no pointers. The worker has its own umask (CLONE_FS).
    unsafe { libc::umask(umask) };
    if head.uid == 0 && head.gid == 0 {
        return make();
    }
    set_ids(head.uid, head.gid);
    raise_capabilities();
    let made = make();
    set_ids(0, 0);
    made
}

/// Of this thread only: the raw system calls, not libc's wrappers for the whole process.
fn set_ids(uid: u32, gid: u32) {
    // SAFETY: no pointers; these never fail for root, and what a failure leaves is checked by the reply's stat.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Leaving uid 0 took the file-system capabilities out of the effective set: back to all permitted ones.
fn raise_capabilities() {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 takes a header and two data elements; both live across the calls. pid 0: this thread.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) == 0 {
            data.iter_mut().for_each(|d| d.effective = d.permitted);
            libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr());
        }
    }
}
