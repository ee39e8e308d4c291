//! Every call on every kind of entry, in every kind of directory, by every kind of user: the same errno and the
//! same attributes afterwards as in a plain directory. (What pjdfstest asks one by one, asked as a product.)
//!
//! Fifteen thousand cases: every eleventh of them, or with `MIRRORFS_EVERY=1` all. `MIRRORFS_CALL=x`: only calls
//! whose name contains x.

mod common;

use common::be_mirrorfs_if_asked;
use common::pair::{Log, Mirror, as_user};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

const OWNER: u32 = 1000;
const GROUP: u32 = 70;

/// The entry `t` before the call. It belongs to OWNER:GROUP.
const KINDS: &[&str] =
    &["none", "file", "suid", "closed", "dir", "full", "fifo", "socket", "device", "link", "dangling", "loop", "two"];

/// Mode and owner of the directory it is in.
const PARENTS: &[(&str, u32, u32)] = &[
    ("root's", 0o755, 0),
    ("everybody's", 0o777, 0),
    ("sticky", 0o1777, 0),
    ("setgid", 0o2777, 0),
    ("own", 0o700, OWNER),
];

/// uid, gid, other groups.
const USERS: &[(u32, u32, &[u32])] = &[(0, 0, &[]), (OWNER, OWNER, &[]), (1001, 1001, &[GROUP]), (1002, 1002, &[])];

type Call = fn(&Path) -> Result<u64, Errno>;

fn open(path: &Path, flags: OFlags) -> Result<u64, Errno> {
    rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::from_raw_mode(0o6754)).map(|_| 0)
}

fn done<T>(_: T) -> u64 {
    0
}

fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits)
}

fn own(path: &Path, uid: Option<u32>, gid: Option<u32>, flags: AtFlags) -> Result<u64, Errno> {
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    rustix::fs::chownat(CWD, path, uid, gid, flags).map(done)
}

fn time(path: &Path, atime: i64, mtime: i64) -> Result<u64, Errno> {
    let spec = |nsec| Timespec { tv_sec: 77, tv_nsec: nsec };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map(done)
}

fn beside(path: &Path, name: &str) -> std::path::PathBuf {
    path.with_file_name(name)
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<u64, Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags).map(done)
}

/// `f`: a file, `d`: an empty directory, `e`: a directory with an entry, all OWNER's, are beside `t`.
const CALLS: &[(&str, Call)] = &[
    ("open r", |t| open(t, OFlags::RDONLY)),
    ("open w", |t| open(t, OFlags::WRONLY)),
    ("open rw append", |t| open(t, OFlags::RDWR | OFlags::APPEND)),
    ("open w trunc", |t| open(t, OFlags::WRONLY | OFlags::TRUNC)),
    ("open create", |t| open(t, OFlags::WRONLY | OFlags::CREATE)),
    ("open create trunc", |t| open(t, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)),
    ("open create excl", |t| open(t, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)),
    ("open directory", |t| open(t, OFlags::RDONLY | OFlags::DIRECTORY)),
    ("open nofollow", |t| open(t, OFlags::RDONLY | OFlags::NOFOLLOW)),
    ("open noatime", |t| open(t, OFlags::RDONLY | OFlags::NOATIME)),
    ("open below", |t| open(&t.join("x"), OFlags::WRONLY | OFlags::CREATE)),
    ("tmpfile", |t| open(t, OFlags::TMPFILE | OFlags::RDWR)),
    ("write", |t| {
        let file = rustix::fs::open(t, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, mode(0))?;
        rustix::io::write(&file, b"x").map(|n| n as u64)
    }),
    ("mkdir", |t| rustix::fs::mkdirat(CWD, t, mode(0o7757)).map(done)),
    ("mkdir below", |t| rustix::fs::mkdirat(CWD, t.join("x"), mode(0o755)).map(done)),
    ("rmdir", |t| rustix::fs::unlinkat(CWD, t, AtFlags::REMOVEDIR).map(done)),
    ("unlink", |t| rustix::fs::unlinkat(CWD, t, AtFlags::empty()).map(done)),
    ("mkfifo", |t| rustix::fs::mknodat(CWD, t, FileType::Fifo, mode(0o6666), 0).map(done)),
    ("mknod", |t| rustix::fs::mknodat(CWD, t, FileType::CharacterDevice, mode(0o600), 259).map(done)),
    ("symlink", |t| rustix::fs::symlinkat("x", CWD, t).map(done)),
    ("readlink", |t| rustix::fs::readlinkat(CWD, t, Vec::new()).map(|target| target.as_bytes().len() as u64)),
    ("link", |t| rustix::fs::linkat(CWD, t, CWD, beside(t, "new"), AtFlags::empty()).map(done)),
    ("link target", |t| rustix::fs::linkat(CWD, t, CWD, beside(t, "new"), AtFlags::SYMLINK_FOLLOW).map(done)),
    ("link over", |t| rustix::fs::linkat(CWD, beside(t, "f"), CWD, t, AtFlags::empty()).map(done)),
    ("rename", |t| rename(t, &beside(t, "new"), RenameFlags::empty())),
    ("rename to file", |t| rename(t, &beside(t, "f"), RenameFlags::empty())),
    ("rename to dir", |t| rename(t, &beside(t, "d"), RenameFlags::empty())),
    ("rename to full", |t| rename(t, &beside(t, "e"), RenameFlags::empty())),
    ("rename into", |t| rename(t, &beside(t, "d").join("x"), RenameFlags::empty())),
    ("file over", |t| rename(&beside(t, "f"), t, RenameFlags::empty())),
    ("dir over", |t| rename(&beside(t, "d"), t, RenameFlags::empty())),
    ("file over, not", |t| rename(&beside(t, "f"), t, RenameFlags::NOREPLACE)),
    ("exchange", |t| rename(t, &beside(t, "e"), RenameFlags::EXCHANGE)),
    ("white", |t| rename(t, &beside(t, "new"), RenameFlags::WHITEOUT)),
    ("chmod", |t| rustix::fs::chmod(t, mode(0o7777)).map(done)),
    ("chmod down", |t| rustix::fs::chmod(t, mode(0)).map(done)),
    ("chown", |t| own(t, Some(1002), None, AtFlags::empty())),
    ("chown same", |t| own(t, Some(OWNER), None, AtFlags::SYMLINK_NOFOLLOW)),
    ("chgrp member", |t| own(t, None, Some(GROUP), AtFlags::empty())),
    ("chgrp own", |t| own(t, None, Some(1000), AtFlags::SYMLINK_NOFOLLOW)),
    ("chown both", |t| own(t, Some(0), Some(0), AtFlags::SYMLINK_NOFOLLOW)),
    ("truncate", |t| truncate(t, 0)),
    ("truncate up", |t| truncate(t, 12_345)),
    ("truncate huge", |t| truncate(t, i64::MAX)),
    ("truncate below zero", |t| truncate(t, -1)),
    ("touch", |t| time(t, UTIME_NOW, UTIME_NOW)),
    ("touch one", |t| time(t, UTIME_OMIT, UTIME_NOW)),
    ("set times", |t| time(t, 1, 2)),
    ("omit times", |t| time(t, UTIME_OMIT, UTIME_OMIT)),
    ("access r", |t| rustix::fs::accessat(CWD, t, rustix::fs::Access::READ_OK, AtFlags::EACCESS).map(done)),
    ("access w", |t| rustix::fs::accessat(CWD, t, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).map(done)),
    ("access x", |t| rustix::fs::accessat(CWD, t, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS).map(done)),
    ("setxattr user", |t| rustix::fs::lsetxattr(t, "user.x", b"1", XattrFlags::empty()).map(done)),
    ("setxattr trusted", |t| rustix::fs::lsetxattr(t, "trusted.x", b"1", XattrFlags::empty()).map(done)),
    ("getxattr", |t| rustix::fs::lgetxattr(t, "user.y", &mut [0u8; 8][..]).map(|n| n as u64)),
    ("removexattr", |t| rustix::fs::lremovexattr(t, "user.y").map(done)),
    ("listxattr", |t| rustix::fs::llistxattr(t, &mut [0u8; 99][..]).map(|n| n as u64)),
];

fn truncate(path: &Path, size: i64) -> Result<u64, Errno> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
    // SAFETY: a path with its NUL.
    if unsafe { libc::truncate(path.as_ptr(), size) } == 0 { Ok(0) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).expect("an errno")
}

fn prepare(dir: &Path, kind: &str) {
    let t = dir.join("t");
    match kind {
        "none" => {}
        "file" | "suid" | "closed" | "two" => fs::write(&t, "content").expect("write"),
        "dir" => fs::create_dir(&t).expect("mkdir"),
        "full" => {
            fs::create_dir(&t).expect("mkdir");
            fs::write(t.join("in it"), "x").expect("write");
        }
        "fifo" => rustix::fs::mknodat(CWD, &t, FileType::Fifo, mode(0o644), 0).expect("mkfifo"),
        "socket" => rustix::fs::mknodat(CWD, &t, FileType::Socket, mode(0o644), 0).expect("socket"),
        "device" => rustix::fs::mknodat(CWD, &t, FileType::CharacterDevice, mode(0o644), 259).expect("mknod"),
        "link" => symlink("f", &t).expect("symlink"),
        "dangling" => symlink("nothing", &t).expect("symlink"),
        "loop" => symlink("t", &t).expect("symlink"),
        _ => unreachable!("{kind}"),
    }
    if kind == "none" {
        return;
    }
    own(&t, Some(OWNER), Some(GROUP), AtFlags::SYMLINK_NOFOLLOW).expect("chown");
    match kind {
        "suid" => fs::set_permissions(&t, fs::Permissions::from_mode(0o6775)).expect("chmod"),
        "closed" => fs::set_permissions(&t, fs::Permissions::from_mode(0o0)).expect("chmod"),
        "two" => fs::hard_link(&t, dir.join("t2")).expect("link"),
        "file" => {
            rustix::fs::setxattr(&t, "user.y", b"1", XattrFlags::empty()).expect("setxattr");
        }
        _ => {}
    }
}

fn play(root: &Path, calls: &[(&str, Call)], every: usize, log: &mut Log) {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut number = 0;
    for (parent, bits, owner) in PARENTS {
        for kind in KINDS {
            for (uid, gid, groups) in USERS {
                for (name, call) in calls {
                    number += 1;
                    if number % every != 0 {
                        continue;
                    }
                    let dir = root.join(number.to_string());
                    fs::create_dir(&dir).expect("mkdir");
                    fs::write(dir.join("f"), "f").expect("write");
                    fs::create_dir(dir.join("d")).expect("mkdir");
                    fs::create_dir_all(dir.join("e/x")).expect("mkdir");
                    for beside in ["f", "d", "e"] {
                        own(&dir.join(beside), Some(OWNER), Some(GROUP), AtFlags::empty()).expect("chown");
                    }
                    prepare(&dir, kind);
                    own(&dir, Some(*owner), Some(GROUP), AtFlags::empty()).expect("chown");
                    fs::set_permissions(&dir, fs::Permissions::from_mode(*bits)).expect("chmod");
                    let t = dir.join("t");
                    for old in [&t, &dir] {
                        let _ = time(old, 5, 5);
                    }
                    let result = as_user(*uid, *gid, groups, || {
                        // SAFETY: no pointers; of this thread only, or restored below for root.
                        unsafe { libc::umask(0o022) };
                        call(&t)
                    });
                    let mut line = format!("{parent} {kind} by {uid}: {name}: {result:?};");
                    for entry in [".", "t", "f", "d", "e", "new", "t2"] {
                        line.push_str(&seen(&dir.join(entry), entry));
                    }
                    log.say(line);
                    if number % 37 != 0 {
                        fs::remove_dir_all(&dir).expect("remove");
                    }
                }
            }
        }
    }
}

fn seen(path: &Path, name: &str) -> String {
    let Ok(stat) = fs::symlink_metadata(path) else { return String::new() };
    let size = if stat.is_dir() { 0 } else { stat.len() };
    let touched = if stat.mtime() == 77 && stat.mtime_nsec() == 5 { "" } else { "*" };
    let touched = if matches!(name, "." | "t") { touched } else { "" };
    format!(" {name}{touched}={:o},{},{},{},{size}", stat.mode(), stat.uid(), stat.gid(), stat.nlink())
}

#[test]
fn every_call_on_every_kind_of_entry_by_every_kind_of_user() {
    let mirror = Mirror::new(256);
    let chosen = std::env::var("MIRRORFS_CALL").unwrap_or_default();
    let calls: Vec<_> = CALLS.iter().filter(|(name, _)| name.contains(&chosen)).copied().collect();
    let every = std::env::var("MIRRORFS_EVERY").map_or(11, |n| n.parse().expect("a number"));
    mirror.like_plain("table", |root, log| play(root, &calls, every, log));
    mirror.done();
}
