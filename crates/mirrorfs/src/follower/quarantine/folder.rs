//! One folder of the quarantine, by descriptor: whatever is kept has a place there, however long its path was.
//!
//! **Invariant:** what has a name here is complete; what was being copied when somebody stopped is of no use, and goes.

use crate::follower::removal::{open_dir, remove_tree};
use crate::sys;
use model::api::{QUARANTINE_ATTRIBUTES, QUARANTINE_NOTE, QuarantineNote};
use model::date::file_name as date;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What is being copied has such a name, in the folder itself.
const PARTIAL: &str = ".partial-";

/// Longest name of an entry.
const NAME_MAX: usize = 255;

/// A note is one line.
const NOTE_BYTES_MAX: u64 = 1 << 20;

pub(super) struct Folder {
    pub path: PathBuf,
    dir: OwnedFd,
}

impl Folder {
    /// That of the last try to become a copy of the same history, or a new one.
    pub fn open(base: &Path, note: &QuarantineNote) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        match Self::last(base, note)? {
            Some(folder) => Ok(folder),
            None => Self::new(base, note),
        }
    }

    fn last(base: &Path, note: &QuarantineNote) -> io::Result<Option<Self>> {
        let mut names: Vec<_> = std::fs::read_dir(base)?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let Some(name) = names.last() else { return Ok(None) };
        let path = base.join(name);
        let mut text = Vec::new();
        // Whatever cannot be read or understood is another one's.
        let is_read =
            File::open(path.join(QUARANTINE_NOTE)).and_then(|f| f.take(NOTE_BYTES_MAX).read_to_end(&mut text));
        if is_read.is_err() || serde_json::from_slice::<QuarantineNote>(&text).ok().as_ref() != Some(note) {
            return Ok(None);
        }
        let dir = open_dir(File::open(base)?, name.as_bytes())?;
        for name in sys::names(&dir)? {
            if name.starts_with(PARTIAL.as_bytes()) {
                remove_tree(dir.as_fd(), &name)?;
            }
        }
        Ok(Some(Self { path, dir }))
    }

    fn new(base: &Path, note: &QuarantineNote) -> io::Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut path = base.join(date(now));
        if path.symlink_metadata().is_ok() {
            path = base.join(format!("{}-{:08x}", date(now), sys::random() as u32));
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        let mut file = sys::create_own(&path.join(QUARANTINE_NOTE))?;
        file.write_all(&serde_json::to_vec(note).map_err(io::Error::other)?)?;
        file.sync_all()?;
        let above = File::open(base)?;
        let dir = open_dir(&above, path.file_name().unwrap_or_default().as_bytes())?;
        rustix::fs::fsync(&dir)?;
        above.sync_all()?;
        Ok(Self { path, dir })
    }

    /// One more line of the list of attributes.
    pub fn note(&self, line: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let list = rustix::fs::openat(&self.dir, QUARANTINE_ATTRIBUTES, flags, Mode::RUSR | Mode::WUSR)?;
        let mut list = File::from(list);
        let (mut last, end) = ([b'\n'], list.metadata()?.len());
        if end > 0 {
            list.read_exact_at(&mut last, end - 1)?;
        }
        // There was no room for the rest of it.
        let torn: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
        list.write_all(&[torn, line].concat())
    }

    /// Before what is kept here counts as kept.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.dir)
    }

    /// A free name for what was at this path (names from the folder down); its directory exists.
    pub fn name_for(&self, path: &[&[u8]], inode: u64) -> Result<(OwnedFd, Vec<u8>), Errno> {
        let (name, above) = path.split_last().expect("a path has a last name");
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&self.dir, 3)?;
        for part in above {
            match rustix::fs::mkdirat(&dir, OsStr::from_bytes(part), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            dir = match open_dir(&dir, part) {
                Ok(dir) => dir,
                // A file that was kept earlier has the name of this one's directory.
                Err(Errno::NOTDIR | Errno::LOOP) => return self.by_number(inode),
                Err(e) => return Err(e),
            };
        }
        if sys::stat_entry(&dir, name)?.is_none() {
            return Ok((dir, name.to_vec()));
        }
        let other = [name, format!(".{}", sys::random()).as_bytes()].concat();
        if other.len() > NAME_MAX { self.by_number(inode) } else { Ok((dir, other)) }
    }

    /// For what has no path that can be said.
    pub fn by_number(&self, inode: u64) -> Result<(OwnedFd, Vec<u8>), Errno> {
        let dir = rustix::io::fcntl_dupfd_cloexec(&self.dir, 3)?;
        let name = format!("inode-{inode}");
        Ok(match sys::stat_entry(&dir, name.as_bytes())? {
            None => (dir, name.into_bytes()),
            Some(_) => (dir, format!("{name}-{}", sys::random()).into_bytes()),
        })
    }

    /// What `copy` makes under a name that nobody takes for complete gets its own when it is on the disk.
    pub fn bring(
        &self,
        to: (OwnedFd, Vec<u8>),
        copy: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let partial = format!("{PARTIAL}{}", sys::random());
        if let Err(e) = copy(self.dir.as_fd(), partial.as_bytes()) {
            // The room is needed. What cannot be removed now goes at the next try.
            let _ = remove_tree(self.dir.as_fd(), partial.as_bytes());
            return Err(e);
        }
        let (dir, name) = to;
        if sys::stat_entry(&self.dir, partial.as_bytes())?.is_none() {
            return Ok(());
        }
        rustix::fs::renameat(&self.dir, partial.as_str(), &dir, OsStr::from_bytes(&name))?;
        // Before the original goes, which may be on another disk.
        rustix::fs::syncfs(&self.dir)
    }

    /// Is this one of what was brought here?
    pub fn has(&self, path: &[u8]) -> bool {
        let own = self.path.canonicalize();
        own.is_ok_and(|own| Path::new(OsStr::from_bytes(path)).starts_with(own))
    }
}

/// One entry, like the other; of a directory itself, empty.
pub(super) fn copy_entry(from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let st = sys::stat(from)?;
    let to = OsStr::from_bytes(name);
    match sys::kind(&st) {
        sys::S_IFREG => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(dir, to, flags, Mode::RUSR | Mode::WUSR)?);
            copy_content(&sys::reopen_to_read(from)?, &file, st.st_size as u64)?;
            be_like(from, &file)
        }
        sys::S_IFLNK => {
            let target = sys::link_target(from)?;
            rustix::fs::symlinkat(OsStr::from_bytes(&target), dir, to)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(st.st_uid), rustix::fs::Gid::from_raw(st.st_gid));
            rustix::fs::chownat(dir, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        sys::S_IFDIR => rustix::fs::mkdirat(dir, to, Mode::RWXU),
        _ => {
            let mode = Mode::from_raw_mode(st.st_mode & 0o777);
            match rustix::fs::mknodat(dir, to, FileType::from_raw_mode(st.st_mode), mode, st.st_rdev) {
                Ok(()) => {}
                // A device without content, where none may be made: there is nothing to keep.
                Err(Errno::PERM) => return Ok(()),
                Err(e) => return Err(e),
            }
            let (uid, gid) = (rustix::fs::Uid::from_raw(st.st_uid), rustix::fs::Gid::from_raw(st.st_gid));
            rustix::fs::chownat(dir, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

/// What is there, holes left out.
fn copy_content(from: &OwnedFd, to: &File, size: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while let Some(data) = sys::next_data(from, at)?.filter(|data| *data < size) {
        let end = sys::next_hole(from, data)?.min(size);
        at = data;
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            let n = sys::read_at(from, &mut buffer[..want], at)?;
            if n == 0 {
                break;
            }
            std::os::unix::fs::FileExt::write_all_at(to, &buffer[..n], at)
                .map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
            at += n as u64;
        }
        at = at.max(end);
    }
    rustix::fs::ftruncate(to, size)
}

/// Owner, permissions (no right to become somebody else by it), extended attributes, time.
pub(super) fn be_like(from: impl AsFd + Copy, to: impl AsFd + Copy) -> Result<(), Errno> {
    let st = sys::stat(from)?;
    sys::set_owner(to, Some(st.st_uid), Some(st.st_gid))?;
    sys::set_mode(to, st.st_mode & 0o777)?;
    for (name, value) in sys::xattrs(from)? {
        let is_right = name == b"security.capability";
        match if is_right { Ok(()) } else { sys::set_xattr(to, &name, &value) } {
            Ok(()) => {}
            // The quarantine's file system knows fewer of them; the content is kept all the same.
            Err(e @ (Errno::NOTSUP | Errno::PERM | Errno::NOSPC | Errno::TOOBIG)) => {
                tracing::warn!(name = %String::from_utf8_lossy(&name), %e, "an extended attribute is not kept in the quarantine");
            }
            Err(e) => return Err(e),
        }
    }
    sys::set_times(to, None, Some(sys::mtime(&st)))
}
