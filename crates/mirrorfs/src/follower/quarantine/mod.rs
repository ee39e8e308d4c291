//! What a target loses is kept: under `QUARANTINE/DATE/INDEX/PATH`, before it is removed or overwritten.
//!
//! Without a quarantine (the copies have one history, the target only missed changes) things are just removed.
//! **Invariant:** never silently: if something cannot be kept, the change fails and the leader is told.

mod folder;
mod tree;
mod was;

use super::removal::remove_tree;
use super::trouble::Trouble;
use crate::sys;
use folder::Folder;
use model::api::QuarantineNote;
use rustix::fs::Stat;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use was::Was;

/// Device and inode.
type Key = (u64, u64);

pub(super) struct Quarantine {
    /// `None`: nothing is kept.
    wanted: Option<Wanted>,
    /// Once something is.
    folder: Option<Folder>,
    /// Where the replicated directories are, to name what is kept.
    roots: Vec<Vec<u8>>,
    /// Files that hold nothing of the old copy (any more).
    ours: HashSet<Key>,
    /// Of which attributes have been overwritten and noted.
    noted: HashSet<Key>,
    /// How those of them were whose content may be kept yet.
    was: HashMap<Key, Was>,
}

struct Wanted {
    base: PathBuf,
    note: QuarantineNote,
}

impl Quarantine {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self {
            wanted: None,
            folder: None,
            roots: Vec::new(),
            ours: HashSet::new(),
            noted: HashSet::new(),
            was: HashMap::new(),
        }
    }

    /// Everything is kept under `base/DATE`.
    pub fn new(base: &Path, roots: &[OwnedFd], note: QuarantineNote) -> Self {
        let roots = roots.iter().map(|root| sys::path_of(root).unwrap_or_default()).collect();
        let wanted = Some(Wanted { base: base.to_path_buf(), note });
        Self { wanted, folder: None, roots, ours: HashSet::new(), noted: HashSet::new(), was: HashMap::new() }
    }

    /// This file was made by the leader.
    pub fn is_ours(&mut self, fd: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.wanted.is_some() {
            let st = sys::stat(fd)?;
            self.ours.insert((st.st_dev, st.st_ino));
        }
        Ok(())
    }

    /// Before the content of a file changes.
    pub fn keep_content(&mut self, fd: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.wanted.is_none() {
            return Ok(());
        }
        let st = sys::stat(fd)?;
        if !self.ours.contains(&(st.st_dev, st.st_ino)) {
            if sys::kind(&st) == sys::S_IFREG && st.st_size > 0 {
                let was = self.was.get(&(st.st_dev, st.st_ino)).copied();
                self.keep(fd, |folder, to| {
                    folder.bring(to, |dir, name| {
                        folder::copy_entry(fd, dir, name)?;
                        was.map_or(Ok(()), |was| was.restore(sys::open_entry(dir, name)?.as_fd()))
                    })
                })?;
            }
            self.ours.insert((st.st_dev, st.st_ino));
            self.was.remove(&(st.st_dev, st.st_ino));
        }
        Ok(())
    }

    /// Before what was lost counts as kept: a copy that is complete is compared no more.
    pub fn sync(&self) -> Result<(), Errno> {
        self.folder.as_ref().map_or(Ok(()), Folder::sync)
    }

    /// Before attributes of an entry change, if the change is one.
    pub fn keep_attributes(
        &mut self,
        fd: BorrowedFd<'_>,
        is_change: impl FnOnce(&Stat) -> Result<bool, Errno>,
    ) -> Result<(), Trouble> {
        if self.wanted.is_none() {
            return Ok(());
        }
        let st = sys::stat(fd)?;
        let key = (st.st_dev, st.st_ino);
        if self.ours.contains(&key) || self.noted.contains(&key) || !is_change(&st)? {
            return Ok(());
        }
        let was = Was::of(&st);
        self.in_folder(fd, |folder, names| {
            let path = names.map_or_else(|| format!("inode-{}", st.st_ino).into_bytes(), |names| names.join(&b'/'));
            folder.note(&was.line(&path, fd)?)
        })?;
        self.noted.insert(key);
        if sys::kind(&st) == sys::S_IFREG && st.st_size > 0 {
            self.was.insert(key, was);
        }
        Ok(())
    }

    /// Was this file brought here, with the name it was opened by? What is kept stays as it is: nobody links to it.
    pub fn has(&self, fd: BorrowedFd<'_>) -> bool {
        self.folder.as_ref().is_some_and(|folder| sys::path_of(fd).is_ok_and(|path| folder.has(&path)))
    }

    /// Is anything to be kept?
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Removes an entry and everything below it, keeping it if that is wanted. Nothing there is fine.
    pub fn remove(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Trouble> {
        let Some(st) = sys::stat_entry(dir, name)? else { return Ok(()) };
        let is_ours = self.ours.contains(&(st.st_dev, st.st_ino)) && sys::kind(&st) != sys::S_IFDIR;
        if self.wanted.is_some() && !is_ours {
            let entry = sys::open_entry(dir, name)?;
            let is_moved = self.keep(entry.as_fd(), |folder, (parent, to)| {
                match rustix::fs::renameat(dir, OsStr::from_bytes(name), &parent, OsStr::from_bytes(&to)) {
                    Ok(()) => Ok(true),
                    Err(Errno::XDEV) => {
                        folder.bring((parent, to), |parent, to| tree::copy_tree(dir, name, parent, to)).map(|()| false)
                    }
                    Err(e) => Err(e),
                }
            })?;
            if is_moved {
                return Ok(());
            }
        }
        Ok(remove_tree(dir, name)?)
    }

    /// Gives `how` a free name for what is at `fd`.
    fn keep<T>(
        &mut self,
        fd: BorrowedFd<'_>,
        how: impl FnOnce(&Folder, (OwnedFd, Vec<u8>)) -> Result<T, Errno>,
    ) -> Result<T, Trouble> {
        self.in_folder(fd, |folder, names| {
            let inode = sys::stat(fd)?.st_ino;
            let to = match names {
                Some(names) => folder.name_for(names, inode)?,
                None => folder.by_number(inode)?,
            };
            Ok(how(folder, to)?)
        })
    }

    /// With the names from the folder down to what is at `fd`, if it has any. Whatever fails here is no difference between two copies.
    fn in_folder<T>(
        &mut self,
        fd: BorrowedFd<'_>,
        how: impl FnOnce(&Folder, Option<&[&[u8]]>) -> std::io::Result<T>,
    ) -> Result<T, Trouble> {
        let path = sys::path_of(fd).ok();
        let Self { wanted, folder, roots, .. } = self;
        let wanted = wanted.as_ref().expect("only asked while something is kept");
        let kept = (|| {
            if folder.is_none() {
                *folder = Some(Folder::open(&wanted.base, &wanted.note)?);
            }
            let folder = folder.as_ref().expect("it was opened");
            match path.as_deref().and_then(|path| within(roots, path)) {
                Some((root, below)) => {
                    let root = root.to_string();
                    let names: Vec<&[u8]> =
                        std::iter::once(root.as_bytes()).chain(below.split(|b| *b == b'/')).collect();
                    how(folder, Some(&names))
                }
                None => how(folder, None),
            }
        })();
        kept.map_err(|e| {
            // What protects it may be taken off.
            if e.raw_os_error() == Some(libc::EPERM) {
                return Trouble::Os(Errno::PERM);
            }
            let path = path.map_or_else(|| "a file".into(), |path| String::from_utf8_lossy(&path).into_owned());
            let place = wanted.base.display();
            Trouble::fatal(format!(
                "cannot keep {path} in the quarantine {place}: {e}: make room there (stead quarantine list, drop)"
            ))
        })
    }
}

/// Which root, and where below it.
fn within<'a>(roots: &[Vec<u8>], path: &'a [u8]) -> Option<(usize, &'a [u8])> {
    roots.iter().enumerate().find_map(|(i, root)| {
        let rest = match root.as_slice() {
            // A root that is a mount of its own has no name but this; two of them cannot be told apart.
            b"/" if roots.len() == 1 => path.strip_prefix(b"/")?,
            b"/" => return None,
            root => path.strip_prefix(root)?.strip_prefix(b"/")?,
        };
        Some((i, rest))
    })
}
