//! The few system calls both halves of the link need, by descriptor, confined to the replicated tree.
//!
//! **Invariant:** no path longer than one entry name is ever resolved, symbolic links are never followed, and
//! no resolution crosses a mount point.

use replica::op::Time;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// `st_mode` type bits.
pub const S_IFMT: u32 = 0o170_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// Extended attributes with this prefix belong to the node, not to the data.
pub const LOCAL_XATTRS: &[u8] = b"trusted.stead.";

/// Resolution stays below the descriptor it began at.
pub const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Does this say that there is nothing, or nothing of ours? Any other error says that it could not be looked at.
pub fn is_absent(e: Errno) -> bool {
    matches!(e, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE)
}

/// `O_PATH` descriptor of one entry, whatever it is.
pub fn open_entry(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        dir,
        OsStr::from_bytes(name),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        CONFINED,
    )
}

/// Opens what an `O_PATH` descriptor of a regular file or directory stands for.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(proc_path(fd.as_fd()), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// Where it is, as the kernel says it in text; a name that is gone has a suffix.
pub fn path_of(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    Ok(rustix::fs::readlink(proc_path(fd.as_fd()), Vec::new())?.into_bytes())
}

/// A descriptor to read a whole file by, from front to back.
pub fn reopen_to_read(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = reopen(fd, OFlags::RDONLY)?;
    // A hint: whoever does not take it reads ahead less.
    let _ = rustix::fs::fadvise(&fd, 0, None, rustix::fs::Advice::Sequential);
    Ok(fd)
}

/// These parts (first byte, length) are read soon: the disk may begin with all of them.
pub fn will_need(fd: impl AsFd, parts: impl Iterator<Item = (u64, u64)>) {
    for (offset, len) in parts {
        let _ = rustix::fs::fadvise(&fd, offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    }
}

/// The disk may begin to write this, so that a sync has less to do.
pub fn begin_writing(fd: impl AsFd, offset: u64, len: u64) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
    // SAFETY: takes no pointer, and the descriptor is borrowed. A hint: what it cannot do, the sync does.
    unsafe { libc::sync_file_range(fd, offset as i64, len as i64, libc::SYNC_FILE_RANGE_WRITE) };
}

/// The magic link that leads to a descriptor.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A file of this program's own, empty: whatever the umask is (it is the application's business here), nobody else's.
pub fn create_own(path: &Path) -> std::io::Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The same with what is in it.
pub fn open_own(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Has the disk keep room for the first `bytes` of a file, however long it is now. `false`: it has none, or its file
/// system cannot.
pub fn reserve(file: &File, bytes: u64) -> bool {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes).is_ok()
}

/// No room, or none that this process may have.
pub fn is_full(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// `fstat`.
pub fn stat(fd: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(fd)
}

/// `fstatat` without following; `None`: no such entry.
pub fn stat_entry(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(st) => Ok(Some(st)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Did somebody mount something on this entry?
pub fn is_mount(dir: impl AsFd, name: &[u8]) -> Result<bool, Errno> {
    use rustix::fs::{StatxAttributes, StatxFlags};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let st = rustix::fs::statx(dir, OsStr::from_bytes(name), flags, StatxFlags::TYPE)?;
    Ok(st.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Do files that are made in this directory belong to the same device? `true` where the file system makes no nameless one to see.
pub fn is_one_device(dir: impl AsFd) -> Result<bool, Errno> {
    let own = stat(&dir)?.st_dev;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, ".", flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(stat(file)?.st_dev == own),
        Err(_) => Ok(true),
    }
}

/// Was this entry made at that time or later? Where the file system does not say, it may have been.
pub fn is_made_since(dir: impl AsFd, name: &[u8], since_ms: u64) -> Result<bool, Errno> {
    use rustix::fs::StatxFlags;
    match rustix::fs::statx(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) {
        Ok(st) if st.stx_mask & StatxFlags::BTIME.bits() == 0 => Ok(true),
        Ok(st) => Ok(crate::map::millis(st.stx_btime.tv_sec, i64::from(st.stx_btime.tv_nsec)) >= since_ms),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Type bits.
pub fn kind(st: &Stat) -> u32 {
    st.st_mode & S_IFMT
}

/// Modification time.
pub fn mtime(st: &Stat) -> Time {
    Time { sec: st.st_mtime, nsec: st.st_mtime_nsec as u32 }
}

/// Sets times by descriptor (`O_PATH` too). `None`: leave.
pub fn set_times(fd: impl AsFd, atime: Option<Time>, mtime: Option<Time>) -> Result<(), Errno> {
    let spec = |t: Option<Time>| match t {
        Some(t) => Timespec { tv_sec: t.sec, tv_nsec: i64::from(t.nsec) },
        None => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
    };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
}

/// Changes the owner by descriptor (`O_PATH` too).
pub fn set_owner(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
}

/// Changes permission bits by descriptor (`O_PATH` too; not a symbolic link).
pub fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmod(proc_path(fd.as_fd()), Mode::from_raw_mode(mode & 0o7777))
}

/// The entries of a directory, `.` and `..` left out, in no order.
pub fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let fd = reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Target of the symbolic link a descriptor stands for.
pub fn link_target(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(fd, "", Vec::new()).map(CString::into_bytes)
}

/// (name, value)
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The ACLs it has.
pub fn acls(fd: impl AsFd) -> Result<Vec<(&'static str, Vec<u8>)>, Errno> {
    let path = proc_path(fd.as_fd());
    let mut acls = Vec::new();
    for name in [ACCESS_ACL, DEFAULT_ACL] {
        if let Some(value) = xattr(&path, name.as_bytes())? {
            acls.push((name, value));
        }
    }
    Ok(acls)
}

/// All replicated extended attributes, sorted by name. Empty where there are none or cannot be any.
pub fn xattrs(fd: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    let path = proc_path(fd.as_fd());
    // Never an empty buffer: rustix answers 0 for one, not the size.
    let mut list = vec![0u8; 256];
    loop {
        match rustix::fs::listxattr(&path, &mut list[..]) {
            Ok(n) => {
                list.truncate(n);
                break;
            }
            Err(Errno::RANGE) if list.len() <= replica::op::XATTR_MAX => list = vec![0; list.len() * 4],
            Err(Errno::NOTSUP | Errno::LOOP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
    }
    let mut all = Vec::new();
    for name in list.split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(LOCAL_XATTRS)) {
        if let Some(value) = xattr(&path, name)? {
            all.push((name.to_vec(), value));
        }
    }
    all.sort();
    Ok(all)
}

fn xattr(path: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::getxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(n) => {
                value.truncate(n);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() <= replica::op::XATTR_MAX => value = vec![0; value.len() * 16],
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Sets an extended attribute.
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(proc_path(fd.as_fd()), OsStr::from_bytes(name), value, XattrFlags::empty())
}

/// Removes an extended attribute; one that is not there is no error.
pub fn remove_xattr(fd: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::removexattr(proc_path(fd.as_fd()), OsStr::from_bytes(name)) {
        Err(Errno::NODATA) | Ok(()) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Gives a file exactly these extended attributes. They must fit in the end, not on the way: the file system has so much
/// room for all of a file's (ext4: 4 KiB and a little), and where each is stored depends on the order they came in.
pub fn replace_xattrs(fd: BorrowedFd<'_>, wanted: &[(&[u8], &[u8])]) -> Result<(), Errno> {
    let here = xattrs(fd)?;
    let before = |name: &[u8]| here.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice());
    for (name, _) in here.iter().filter(|(name, _)| !wanted.iter().any(|(w, _)| w == name)) {
        remove_xattr(fd, name)?;
    }
    // What shrinks makes room for what grows.
    let mut differ: Vec<_> = wanted.iter().copied().filter(|(name, value)| before(name) != Some(*value)).collect();
    differ.sort_by_key(|(name, value)| value.len() as i64 - before(name).map_or(0, |v| v.len() as i64));
    let mut outcome = set_xattrs(fd, &differ);
    // All of them anew. The large ones fit in one place only, and the small ones where these left room, or the reverse.
    let mut all = wanted.to_vec();
    all.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for _ in 0..2 {
        if !outcome.is_err_and(has_no_room) {
            return outcome;
        }
        for (name, _) in &all {
            // What cannot be removed is written over.
            let _ = remove_xattr(fd, name);
        }
        outcome = set_xattrs(fd, &all);
        all.reverse();
    }
    outcome
}

fn set_xattrs(fd: BorrowedFd<'_>, list: &[(&[u8], &[u8])]) -> Result<(), Errno> {
    list.iter().try_for_each(|(name, value)| set_xattr(fd, name, value))
}

/// Sets one of several extended attributes, that may lie here in another order than there.
pub fn fit_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let outcome = set_xattr(fd, name, value);
    if !outcome.is_err_and(has_no_room) {
        return outcome;
    }
    let here = xattrs(fd)?;
    let others = here.iter().filter(|(n, _)| n != name).map(|(n, v)| (n.as_slice(), v.as_slice()));
    replace_xattrs(fd, &others.chain([(name, value)]).collect::<Vec<_>>())
}

fn has_no_room(e: Errno) -> bool {
    matches!(e, Errno::NOSPC | Errno::TOOBIG)
}

/// POSIX ACLs, by the names they travel under: of anything but a symbolic link, and of a directory.
pub const ACCESS_ACL: &str = "system.posix_acl_access";
/// What a directory gives to what is made in it.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Takes from what was made a moment ago what its directory gave it beside the mode.
pub fn disinherit(fd: impl AsFd) -> Result<(), Errno> {
    let path = proc_path(fd.as_fd());
    for acl in [ACCESS_ACL, DEFAULT_ACL] {
        // A look costs less than removing what is not there.
        if rustix::fs::getxattr_query(&path, acl).is_ok() {
            remove_xattr(&fd, acl.as_bytes())?;
        }
    }
    Ok(())
}

/// The same of an open file, which costs less.
pub fn disinherit_file(file: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::fgetxattr_query(file, ACCESS_ACL) {
        Ok(_) => rustix::fs::fremovexattr(file, ACCESS_ACL),
        Err(_) => Ok(()),
    }
}

/// A short stand-in for a set of extended attributes; zero for the empty set.
pub fn digest(xattrs: &[Xattr]) -> [u8; 16] {
    let mut out = [0; 16];
    if !xattrs.is_empty() {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in xattrs {
            for part in [name, value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    }
    out
}

/// Where the next data begins; `None`: only a hole follows.
pub fn next_data(fd: &OwnedFd, offset: u64) -> Result<Option<u64>, Errno> {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes has data everywhere.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some(offset)),
        Err(e) => Err(e),
    }
}

/// Where the data that begins here ends.
pub fn next_hole(fd: &OwnedFd, data: u64) -> Result<u64, Errno> {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Hole(data)) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(u64::MAX),
        other => other,
    }
}

/// Reads until `buffer` is full or the file ends.
pub fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut n = 0;
    while n < buffer.len() {
        match rustix::io::pread(&fd, &mut buffer[n..], offset + n as u64) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// Writes everything.
pub fn write_at(fd: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(&fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes the file systems of these directories durable.
pub fn sync_all(roots: &[OwnedFd]) -> Result<(), Errno> {
    for root in roots {
        let dir = reopen(root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::syncfs(&dir)?;
    }
    Ok(())
}

/// Free space of the directories' file systems: the smallest of them.
pub fn space(roots: &[OwnedFd]) -> Option<crate::outlet::Space> {
    let mut least: Option<crate::outlet::Space> = None;
    for root in roots {
        let v = rustix::fs::fstatvfs(root).ok()?;
        let this = crate::outlet::Space {
            available_bytes: v.f_bavail.saturating_mul(v.f_frsize),
            free_bytes: v.f_bfree.saturating_mul(v.f_frsize),
            free_inodes: v.f_ffree,
        };
        if least.is_none_or(|l| this.available_bytes < l.available_bytes) {
            least = Some(this);
        }
    }
    least
}

/// A random number that is never 0.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    loop {
        // The pool is initialised long before any of our processes runs; an interruption is tried again.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) == Ok(8) && bytes != [0; 8] {
            return u64::from_ne_bytes(bytes);
        }
    }
}

/// Type bits of a mode.
pub fn kind_of(mode: u32) -> u32 {
    mode & S_IFMT
}

/// As many descriptors as the system lets us have: an id is a descriptor.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    // Root may have more than it was given; who may not keeps the limit there is.
    if let Some(most) = most
        && setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) }).is_ok()
    {
        return;
    }
    let now = getrlimit(Resource::Nofile);
    // A refusal only means that the limit stays; running out is reported where it happens.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}
