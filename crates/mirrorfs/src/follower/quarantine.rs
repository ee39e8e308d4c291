//! What a target loses is kept: under `QUARANTINE/DATE/INDEX/PATH`, before it is removed or overwritten.
//!
//! Without a quarantine (the copies have one history, the target only missed changes) things are just removed.
//! **Invariant:** never silently: if something cannot be kept, the change fails and the leader is told.

use super::trouble::Trouble;
use crate::sys;
use model::api::{QUARANTINE_NOTE, QuarantineNote};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(super) struct Quarantine {
    /// `None`: nothing is kept.
    place: Option<PathBuf>,
    /// Where the replicated directories are, to name what is kept.
    roots: Vec<Vec<u8>>,
    /// Files that hold nothing of the old copy (any more).
    ours: HashSet<(u64, u64)>,
    /// Written into the folder when it is made; empty: it is there.
    note: RefCell<Vec<u8>>,
}

impl Quarantine {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self { place: None, roots: Vec::new(), ours: HashSet::new(), note: RefCell::default() }
    }

    /// Everything is kept under `base/DATE`.
    pub fn new(base: &Path, roots: &[OwnedFd], note: &QuarantineNote) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let roots = roots.iter().map(|r| path_of(r.as_fd()).unwrap_or_default()).collect();
        let note = RefCell::new(serde_json::to_vec(note).unwrap_or_default());
        Self { place: Some(base.join(date(now))), roots, ours: HashSet::new(), note }
    }

    /// This file was made by the leader.
    pub fn is_ours(&mut self, fd: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.place.is_some() {
            let st = sys::stat(fd)?;
            self.ours.insert((st.st_dev, st.st_ino));
        }
        Ok(())
    }

    /// Before the content of a file changes.
    pub fn keep_content(&mut self, fd: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.place.is_none() {
            return Ok(());
        }
        let st = sys::stat(fd)?;
        if !self.ours.contains(&(st.st_dev, st.st_ino)) {
            if sys::kind(&st) == sys::S_IFREG && st.st_size > 0 {
                let to = self.name_for(fd)?;
                copy_file(fd, &to)?;
            }
            self.ours.insert((st.st_dev, st.st_ino));
        }
        Ok(())
    }

    /// Was this file brought here, with the name it was opened by? What is kept stays as it is: nobody links to it.
    pub fn has(&self, fd: BorrowedFd<'_>) -> bool {
        let Some(place) = self.place.as_ref().and_then(|place| place.canonicalize().ok()) else { return false };
        path_of(fd).is_ok_and(|path| Path::new(OsStr::from_bytes(&path)).starts_with(place))
    }

    /// Removes an entry and everything below it, keeping it if that is wanted. Nothing there is fine.
    pub fn remove(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Trouble> {
        let Some(st) = sys::stat_entry(dir, name)? else { return Ok(()) };
        let is_ours = self.ours.contains(&(st.st_dev, st.st_ino)) && sys::kind(&st) != sys::S_IFDIR;
        if self.place.is_some() && !is_ours {
            let to = self.name_for(sys::open_entry(dir, name)?.as_fd())?;
            match rustix::fs::renameat(dir, OsStr::from_bytes(name), rustix::fs::CWD, &to) {
                Ok(()) => return Ok(()),
                Err(Errno::XDEV) => copy_tree(dir, name, &to)?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(remove_tree(dir, name)?)
    }

    /// The folder with its note, before the first file.
    fn begin(&self, place: &Path) -> Result<(), Trouble> {
        let note = self.note.take();
        if !note.is_empty() {
            DirBuilder::new().recursive(true).mode(0o700).create(place)?;
            let mut file = File::create(place.join(QUARANTINE_NOTE))?;
            file.write_all(&note)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// A free name in the quarantine for what is at `fd`; its directory exists.
    fn name_for(&self, fd: BorrowedFd<'_>) -> Result<PathBuf, Trouble> {
        let place = self.place.as_ref().expect("only asked while something is kept");
        self.begin(place)?;
        let path = path_of(fd)?;
        let within = self.roots.iter().enumerate().find_map(|(i, root)| {
            let rest = match root.as_slice() {
                // A root that is a mount of its own has no name but this; two of them cannot be told apart.
                b"/" if self.roots.len() == 1 => path.strip_prefix(b"/")?,
                b"/" => return None,
                root => path.strip_prefix(root)?.strip_prefix(b"/")?,
            };
            Some(Path::new(&i.to_string()).join(OsStr::from_bytes(rest)))
        });
        let st = sys::stat(fd)?;
        let within = within.unwrap_or_else(|| PathBuf::from(format!("inode-{}", st.st_ino)));
        let wanted = place.join(within);
        let parent = wanted.parent().expect("it is below the quarantine");
        // A file kept earlier may have the name of this one's directory.
        if DirBuilder::new().recursive(true).mode(0o700).create(parent).is_err() {
            DirBuilder::new().recursive(true).mode(0o700).create(place)?;
            return Ok(place.join(format!("inode-{}-{}", st.st_ino, sys::random())));
        }
        if wanted.symlink_metadata().is_ok() {
            let mut again = wanted.into_os_string();
            again.push(format!(".{}", sys::random()));
            return Ok(again.into());
        }
        Ok(wanted)
    }
}

fn path_of(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlink(sys::proc_path(fd), Vec::new()).map(std::ffi::CString::into_bytes)
}

fn copy_file(from: BorrowedFd<'_>, to: &Path) -> Result<(), Trouble> {
    let mut source = File::from(sys::reopen(from, OFlags::RDONLY)?);
    let mut target = std::fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    std::io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    let st = sys::stat(from)?;
    sys::set_owner(&target, Some(st.st_uid), Some(st.st_gid))?;
    sys::set_mode(&target, st.st_mode & 0o777)?;
    Ok(sys::set_times(&target, None, Some(sys::mtime(&st)))?)
}

/// Copies an entry with everything below it; special files have no content and are left out.
fn copy_tree(dir: BorrowedFd<'_>, name: &[u8], to: &Path) -> Result<(), Trouble> {
    let mut todo = vec![(sys::open_entry(dir, name)?, to.to_path_buf())];
    while let Some((fd, to)) = todo.pop() {
        match sys::kind(&sys::stat(&fd)?) {
            sys::S_IFREG => copy_file(fd.as_fd(), &to)?,
            sys::S_IFLNK => {
                let target = sys::link_target(&fd)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &to)?;
            }
            sys::S_IFDIR => {
                DirBuilder::new().mode(0o700).create(&to)?;
                for name in sys::names(&fd)? {
                    let child = sys::open_entry(&fd, &name)?;
                    todo.push((child, to.join(std::ffi::OsString::from_vec(name))));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes an entry with everything below it, however deep, without crossing a mount point.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let first = match rustix::fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => open_dir(dir, name)?,
        Err(e) => return Err(e),
    };
    // (directory, its name in the one before)
    let mut stack = vec![(first, name.to_vec())];
    while let Some((here, _)) = stack.last() {
        let mut below = None;
        for entry in sys::names(here)? {
            match rustix::fs::unlinkat(here, OsStr::from_bytes(&entry), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    below = Some((open_dir(here.as_fd(), &entry)?, entry));
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        if let Some(below) = below {
            stack.push(below);
            continue;
        }
        let (_, name) = stack.pop().expect("the loop looked at it");
        let parent = stack.last().map_or(dir, |(fd, _)| fd.as_fd());
        rustix::fs::unlinkat(parent, OsStr::from_bytes(&name), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(dir, OsStr::from_bytes(name), flags, Mode::empty(), sys::CONFINED)
}

/// `2026-11-22T07-30-00Z`: sorts, and is a file name everywhere (civil-from-days, Hinnant).
fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}-{m:02}-{s:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(super::date(0), "1970-01-01T00-00-00Z");
        assert_eq!(super::date(951_826_154), "2000-02-29T12-09-14Z");
        assert_eq!(super::date(1_795_332_600), "2026-11-22T07-30-00Z");
    }
}
