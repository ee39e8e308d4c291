//! Are two trees equal? Names, types, bytes, modes, owners, times, extended attributes, hard links.
//!
//! Used by tests and by whoever wants to be sure; changes nothing.

use crate::sys;
use rustix::fs::{OFlags, Stat};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Differences listed before the comparison stops.
pub const DIFFERENCES_MAX: usize = 20;

/// The first differences between two directories, one sentence each; empty: they are equal.
///
/// # Errors
/// One of the trees could not be read.
pub fn tree_diff(a: &Path, b: &Path) -> io::Result<Vec<String>> {
    let open =
        |p: &Path| rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    tree_diff_at(open(a)?.as_fd(), open(b)?.as_fd())
}

/// The same by descriptor, for directories that are covered by a mount.
///
/// # Errors
/// One of the trees could not be read.
pub fn tree_diff_at(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut diff = Diff { found: Vec::new(), links: HashMap::new() };
    let mut todo =
        vec![(rustix::io::fcntl_dupfd_cloexec(a, 3)?, rustix::io::fcntl_dupfd_cloexec(b, 3)?, String::from("."))];
    while let Some((a, b, path)) = todo.pop() {
        diff.directory(&a, &b, &path, &mut todo)?;
        if diff.found.len() >= DIFFERENCES_MAX {
            break;
        }
    }
    Ok(diff.found)
}

struct Diff {
    found: Vec<String>,
    /// Inode of `a` → inode of `b`, for files with several names.
    links: HashMap<u64, u64>,
}

impl Diff {
    fn say(&mut self, path: &str, what: impl std::fmt::Display) {
        if self.found.len() < DIFFERENCES_MAX {
            self.found.push(format!("{path}: {what}"));
        }
    }

    fn directory(
        &mut self,
        a: &OwnedFd,
        b: &OwnedFd,
        path: &str,
        todo: &mut Vec<(OwnedFd, OwnedFd, String)>,
    ) -> io::Result<()> {
        self.attributes(&sys::stat(a)?, &sys::stat(b)?, path);
        self.xattrs(a, b, path)?;
        let in_a: BTreeSet<_> = sys::names(a)?.into_iter().collect();
        let in_b: BTreeSet<_> = sys::names(b)?.into_iter().collect();
        for name in in_a.symmetric_difference(&in_b) {
            let side = if in_a.contains(name) { "only in the first tree" } else { "only in the second tree" };
            self.say(&format!("{path}/{}", String::from_utf8_lossy(name)), side);
        }
        for name in in_a.intersection(&in_b) {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            let (fa, fb) = (sys::open_entry(a, name)?, sys::open_entry(b, name)?);
            let (sa, sb) = (sys::stat(&fa)?, sys::stat(&fb)?);
            if sys::kind(&sa) != sys::kind(&sb) {
                self.say(&path, format!("type {:o} and {:o}", sys::kind(&sa), sys::kind(&sb)));
                continue;
            }
            match sys::kind(&sa) {
                sys::S_IFDIR => {
                    todo.push((fa, fb, path));
                    continue;
                }
                sys::S_IFLNK if sys::link_target(&fa)? != sys::link_target(&fb)? => self.say(&path, "another target"),
                sys::S_IFLNK => {}
                sys::S_IFREG => self.content(&fa, &fb, &path)?,
                _ if sa.st_rdev != sb.st_rdev => self.say(&path, "another device"),
                _ => {}
            }
            self.xattrs(&fa, &fb, &path)?;
            self.attributes(&sa, &sb, &path);
            if sa.st_nlink > 1 || sb.st_nlink > 1 {
                let known = *self.links.entry(sa.st_ino).or_insert(sb.st_ino);
                if sa.st_nlink != sb.st_nlink || known != sb.st_ino {
                    self.say(&path, format!("{} and {} names, or names of another file", sa.st_nlink, sb.st_nlink));
                }
            }
        }
        Ok(())
    }

    fn attributes(&mut self, a: &Stat, b: &Stat, path: &str) {
        if a.st_mode != b.st_mode {
            self.say(path, format!("mode {:o} and {:o}", a.st_mode, b.st_mode));
        }
        if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid) {
            self.say(path, format!("owner {}:{} and {}:{}", a.st_uid, a.st_gid, b.st_uid, b.st_gid));
        }
        if sys::kind(a) == sys::S_IFREG && a.st_size != b.st_size {
            self.say(path, format!("{} and {} bytes", a.st_size, b.st_size));
        }
        if sys::mtime(a) != sys::mtime(b) {
            self.say(path, format!("modified {:?} and {:?}", sys::mtime(a), sys::mtime(b)));
        }
    }

    fn xattrs(&mut self, a: impl AsFd, b: impl AsFd, path: &str) -> io::Result<()> {
        if sys::xattrs(a)? != sys::xattrs(b)? {
            self.say(path, "other extended attributes");
        }
        Ok(())
    }

    fn content(&mut self, a: &OwnedFd, b: &OwnedFd, path: &str) -> io::Result<()> {
        let (a, b) = (sys::reopen(a, OFlags::RDONLY)?, sys::reopen(b, OFlags::RDONLY)?);
        let (mut x, mut y) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let mut offset = 0;
        loop {
            let (n, m) = (sys::read_at(&a, &mut x, offset)?, sys::read_at(&b, &mut y, offset)?);
            if x[..n] != y[..m] {
                let at = x[..n].iter().zip(&y[..m]).position(|(p, q)| p != q).unwrap_or(n.min(m));
                self.say(path, format!("other bytes from {} on", offset + at as u64));
                return Ok(());
            }
            if n == 0 {
                return Ok(());
            }
            offset += n as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn equal_trees_have_no_difference_and_each_difference_is_seen() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let time = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        let settle = || {
            for d in [a.path(), b.path()] {
                for e in fs::read_dir(d).unwrap() {
                    fs::File::open(e.unwrap().path()).unwrap().set_times(time).unwrap();
                }
                fs::File::open(d).unwrap().set_times(time).unwrap();
            }
        };
        let seen = || {
            settle();
            tree_diff(a.path(), b.path()).unwrap()
        };
        for d in [&a, &b] {
            fs::write(d.path().join("f"), "same").unwrap();
            fs::create_dir(d.path().join("d")).unwrap();
        }
        assert_eq!(seen(), Vec::<String>::new());
        fs::write(b.path().join("f"), "samE").unwrap();
        assert!(seen()[0].contains("other bytes from 3 on"), "{:?}", seen());
        fs::write(b.path().join("f"), "same").unwrap();
        fs::hard_link(a.path().join("f"), a.path().join("g")).unwrap();
        fs::write(b.path().join("g"), "same").unwrap();
        assert!(seen().iter().any(|d| d.contains("names")), "{:?}", seen());
        fs::remove_file(b.path().join("g")).unwrap();
        assert!(seen().iter().any(|d| d.contains("only in the first")), "{:?}", seen());
    }
}
