//! Reading `/proc/thread-self/mountinfo`: what is mounted, where, in which order.

use super::MountError;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// One line of the mount table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// The kernel's number of this mount.
    pub id: u32,
    /// Number of the mount it lies on.
    pub parent: u32,
    /// `major:minor` of the file system.
    pub device: String,
    /// Directory of that file system which is shown.
    pub root: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// This mount is read-only (whatever its file system is).
    pub read_only: bool,
    /// `ext4`, `fuse.stead`, `cgroup2`, …
    pub fstype: String,
    /// The device or name given to mount.
    pub source: String,
}

/// Absolute, without `.` and `..`, as the mount table writes paths.
pub(super) fn is_normal(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// All mounts of this process's namespace, in the table's order.
///
/// # Errors
/// [`MountError::Os`] when `/proc` is not mounted.
pub fn list() -> Result<Vec<Mount>, MountError> {
    let table = Path::new("/proc/thread-self/mountinfo");
    let text = std::fs::read(table).map_err(|error| MountError::os("read the mount table", table, error))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// Mounts strictly below a directory.
///
/// # Errors
/// As [`list`].
pub fn below(path: &Path) -> Result<Vec<Mount>, MountError> {
    let mut mounts = list()?;
    mounts.retain(|mount| mount.mountpoint != path && mount.mountpoint.starts_with(path));
    Ok(mounts)
}

/// The mounts one sees through at `path`, bottom first: the mount that contains it, then what lies exactly
/// on it. More than one element means something is mounted on `path` itself — or, if `path` is a
/// mount point, that the first element is what it was mounted on.
///
/// # Errors
/// As [`list`].
pub fn stack(path: &Path) -> Result<Vec<Mount>, MountError> {
    Ok(stack_in(&list()?, path))
}

/// The same, by a table that was read already ([`list`]).
#[must_use]
pub fn stack_in(mounts: &[Mount], path: &Path) -> Vec<Mount> {
    let exact: Vec<&Mount> = mounts.iter().filter(|mount| mount.mountpoint == path).collect();
    // Each lies on the one before: the bottom is the one whose parent is elsewhere.
    let Some(bottom) = exact.iter().find(|mount| !exact.iter().any(|other| other.id == mount.parent)) else {
        return containing(mounts, path).cloned().into_iter().collect();
    };
    let mut stack: Vec<Mount> =
        mounts.iter().filter(|mount| mount.id == bottom.parent && mount.id != bottom.id).cloned().collect();
    let mut next = Some(*bottom);
    while let Some(mount) = next {
        stack.push(mount.clone());
        next = exact.iter().find(|other| other.parent == mount.id && other.id != mount.id).copied();
    }
    stack
}

/// Are these two, or is one inside the other, one directory under two names: by a bind mount, whatever lies on either of them? (By links that is found
/// elsewhere.)
#[must_use]
pub fn share_a_place(mounts: &[Mount], one: &Path, other: &Path) -> bool {
    // What one sees, and below what Stead serves there what it serves. A network file system does not say which directory of it is shown.
    let places = |path: &Path| -> Vec<(String, PathBuf)> {
        let mut places = Vec::new();
        for mount in stack_in(mounts, path).into_iter().rev() {
            let Ok(below) = path.strip_prefix(&mount.mountpoint) else { break };
            let root = if below.as_os_str().is_empty() { mount.root } else { mount.root.join(below) };
            if mount.fstype.starts_with("nfs") {
                break;
            }
            places.push((mount.device, root));
            if mount.fstype != super::FSTYPE {
                break;
            }
        }
        places
    };
    let others = places(other);
    let is_one = |(device, path): &(String, PathBuf)| {
        others.iter().any(|(other, there)| device == other && (path.starts_with(there) || there.starts_with(path)))
    };
    places(one).iter().any(is_one)
}

/// The topmost mount whose point is the longest prefix of `path`.
fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let point = mounts
        .iter()
        .map(|mount| &mount.mountpoint)
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.components().count())?;
    mounts.iter().filter(|mount| mount.mountpoint == *point).find(|mount| {
        !mounts.iter().any(|other| other.mountpoint == *point && other.parent == mount.id && other.id != mount.id)
    })
}

/// `36 35 98:0 /root /point ro,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue`
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field).into_owned());
    Some(Mount {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?,
        root: unescape(fields.get(3)?),
        mountpoint: unescape(fields.get(4)?),
        read_only: fields.get(5)?.split(|&byte| byte == b',').any(|option| option == b"ro"),
        fstype: text(dash + 1)?,
        source: text(dash + 2)?,
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(field[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_spaces_and_options_is_read() {
        let mount =
            parse(br"36 35 98:0 /my\040root /mnt/a\040b ro,noatime shared:1 master:2 - ext3 /dev/root rw").unwrap();
        assert_eq!(mount.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(mount.root, Path::new("/my root"));
        assert!(mount.read_only, "the mount is read-only though its file system is not");
        assert_eq!((mount.id, mount.parent, mount.fstype.as_str()), (36, 35, "ext3"));
    }

    #[test]
    fn a_directory_is_one_whatever_it_is_called() {
        let lines: [&[u8]; 10] = [
            b"1 1 0:1 / / rw - ext4 /dev/a rw",
            b"3 1 0:2 / /srv rw - ext4 /dev/b rw",
            b"8 1 0:3 / /net/one rw - nfs4 server:/one rw",
            b"9 1 0:3 / /net/other rw - nfs4 server:/other rw",
            b"10 3 0:2 /e /srv/hidden rw - ext4 /dev/b rw",
            b"11 10 0:4 / /srv/hidden rw - ext4 /dev/c rw",
            b"4 3 0:2 /d /srv/d ro - ext4 /dev/b rw",
            b"5 4 0:9 / /srv/d rw - fuse.stead stead rw",
            b"6 3 0:2 /d/sub /srv/bound rw - ext4 /dev/b rw",
            b"7 3 0:9 / /srv/front rw - fuse.stead stead rw",
        ];
        let mounts: Vec<Mount> = lines.iter().filter_map(|line| parse(line)).collect();
        let is_one = |one: &str, other: &str| {
            let [one, other] = [one, other].map(Path::new);
            assert_eq!(share_a_place(&mounts, one, other), share_a_place(&mounts, other, one));
            share_a_place(&mounts, one, other)
        };
        assert!(is_one("/srv/d", "/srv/d") && is_one("/srv/d", "/srv/bound"), "below what is served");
        assert!(is_one("/srv/d", "/srv/front"), "what is served, once more");
        assert!(!is_one("/srv/d", "/srv/dd") && !is_one("/srv/e", "/srv/bound") && !is_one("/else", "/srv/d"));
        assert!(!is_one("/srv/e", "/srv/hidden"), "another disk lies over it");
        assert!(!is_one("/net/one", "/net/other"), "two exports of one server");
    }

    #[test]
    fn a_stack_is_listed_from_the_bottom() {
        let lines: [&[u8]; 4] = [
            b"1 1 0:1 / / rw - ext4 /dev/a rw",
            b"5 4 0:9 / /srv/d rw - fuse stead rw",
            b"4 3 0:2 /d /srv/d ro - ext4 /dev/b rw",
            b"3 1 0:2 / /srv rw - ext4 /dev/b rw",
        ];
        let mounts: Vec<Mount> = lines.iter().filter_map(|line| parse(line)).collect();
        let ids = |path: &str| stack_in(&mounts, Path::new(path)).iter().map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(ids("/srv/d"), [3, 4, 5]);
        assert_eq!(ids("/srv/d/below"), [5]);
        assert_eq!(ids("/srv"), [1, 3]);
        assert_eq!(ids("/else"), [1]);
    }
}
