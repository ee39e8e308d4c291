//! Compares this copy with what the leader says, at exactly the position where it says it. Changes nothing.

use super::ids::Ids;
use super::trouble::Trouble;
use crate::kept::Kept;
use crate::sys;
use model::limits::ZONE_BYTES;
use replica::op::FileId;
use replica::wire::{Chunk, Difference, Entries, Entry};
use rustix::fs::{OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Something that differs: what, whose id, range, name.
pub(super) struct Finding {
    pub what: Difference,
    pub id: FileId,
    pub offset: u64,
    pub len: u64,
    pub name: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Checker {
    /// Names of the directory that is being compared in chunks.
    seen: HashSet<Vec<u8>>,
    links: Links,
    buffer: Vec<u8>,
    /// The file whose content is compared, open: the kernel reads ahead from one check to the next.
    open: Option<((u64, u64), OwnedFd)>,
}

/// Which file here is which file there, for files with several names.
#[derive(Default)]
struct Links {
    /// Leader's number → inode here.
    here: HashMap<u64, ((u64, u64), Kept)>,
    there: HashMap<(u64, u64), u64>,
    /// By device: a directory to find kept files by.
    beside: HashMap<u64, OwnedFd>,
    /// All stay open: by what name each was opened matters.
    stay_open: bool,
}

impl Checker {
    /// Where lost files are kept: one that was taken away is known by the name it was opened by.
    pub fn beside_quarantine() -> Self {
        Self { links: Links { stay_open: true, ..Links::default() }, ..Self::default() }
    }

    pub fn entries(
        &mut self,
        ids: &Ids,
        dir: FileId,
        part: Chunk,
        entries: Entries<'_>,
        found: &mut Vec<Finding>,
    ) -> Result<(), Trouble> {
        let fd = ids.dir(dir)?;
        if part.first {
            self.seen.clear();
        }
        let mut finding =
            |what, name: &[u8]| found.push(Finding { what, id: dir, offset: 0, len: 0, name: name.to_vec() });
        for entry in entries.iter() {
            if entry.name.is_empty() {
                let st = sys::stat(fd)?;
                if attributes_differ(&entry, &st) {
                    finding(Difference::Attributes, b"");
                }
                if sys::digest(&sys::xattrs(fd)?) != entry.xattrs {
                    finding(Difference::Xattrs, b"");
                }
                continue;
            }
            let differs = self.entry(fd, &entry)?;
            if let Some(what) = differs {
                finding(what, entry.name);
            }
            if matches!(differs, None | Some(Difference::Attributes))
                && entry.mode != 0
                && sys::kind_of(entry.mode) != sys::S_IFDIR
                && self.xattrs_differ(fd, &entry)?
            {
                finding(Difference::Xattrs, entry.name);
            }
            if part.first || part.last || !self.seen.is_empty() {
                self.seen.insert(entry.name.to_vec());
            }
        }
        if part.last {
            for name in sys::names(fd)? {
                if !self.seen.contains(&name) {
                    finding(Difference::Extra, &name);
                }
            }
            self.seen = HashSet::new();
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Result<Option<Difference>, Trouble> {
        let Some(st) = sys::stat_entry(dir, entry.name)? else {
            return Ok((entry.mode != 0).then_some(Difference::Missing));
        };
        if entry.mode == 0 {
            return Ok(Some(Difference::Extra));
        }
        let kind = sys::kind(&st);
        if kind != sys::kind_of(entry.mode) {
            return Ok(Some(Difference::Type));
        }
        match kind {
            // A directory's own attributes are compared with its entries.
            sys::S_IFDIR => return Ok(None),
            sys::S_IFLNK if sys::link_target(sys::open_entry(dir, entry.name)?)? != entry.target => {
                return Ok(Some(Difference::Type));
            }
            sys::S_IFREG | sys::S_IFLNK => {}
            _ if st.st_rdev != entry.rdev => return Ok(Some(Difference::Type)),
            _ => {}
        }
        if !self.links.agree(dir, entry, &st)? {
            return Ok(Some(Difference::Link));
        }
        Ok(attributes_differ(entry, &st).then_some(Difference::Attributes))
    }

    fn xattrs_differ(&self, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Result<bool, Trouble> {
        let fd = match sys::open_entry(dir, entry.name) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        Ok(sys::digest(&sys::xattrs(&fd)?) != entry.xattrs)
    }

    /// The file that is known under this number, if it still has a name and was not taken `away` with it.
    pub fn linked(&mut self, number: u64, away: impl Fn(BorrowedFd<'_>) -> bool) -> Result<OwnedFd, Trouble> {
        let fd = self.links.find(number)?.ok_or(Trouble::Absent(FileId(number)))?;
        if away(fd.as_fd()) {
            self.links.forget(number);
            return Err(Trouble::Absent(FileId(number)));
        }
        Ok(fd)
    }

    pub fn blocks(
        &mut self,
        ids: &Ids,
        id: FileId,
        (offset, len, last): (u64, u64, bool),
        hashes: &[u8],
        found: &mut Vec<Finding>,
    ) -> Result<(), Trouble> {
        let Some((path, st)) = regular(ids, id)? else { return Ok(()) };
        let inode = (st.st_dev, st.st_ino);
        let fd = match self.open.take() {
            Some((open, fd)) if open == inode => fd,
            _ => sys::reopen_to_read(path)?,
        };
        self.buffer.resize(ZONE_BYTES as usize, 0);
        let mut run: Option<(u64, u64)> = None;
        let mut zone = offset;
        for hash in hashes.chunks_exact(32) {
            let wanted = ZONE_BYTES.min(offset + len - zone) as usize;
            let n = sys::read_at(&fd, &mut self.buffer[..wanted], zone)?;
            let differs = n != wanted || blake3::hash(&self.buffer[..n]).as_bytes()[..] != *hash;
            run = match run {
                Some((s, e)) if differs => Some((s, e + wanted as u64)),
                Some((s, e)) => {
                    found.push(Finding { what: Difference::Blocks, id, offset: s, len: e - s, name: Vec::new() });
                    None
                }
                None => differs.then_some((zone, zone + wanted as u64)),
            };
            zone += wanted as u64;
        }
        if let Some((s, e)) = run {
            found.push(Finding { what: Difference::Blocks, id, offset: s, len: e - s, name: Vec::new() });
        }
        size(id, &st, offset + len, last, found);
        self.open = (!last).then_some((inode, fd));
        Ok(())
    }

    pub fn hole(
        &mut self,
        ids: &Ids,
        id: FileId,
        (offset, len, last): (u64, u64, bool),
        found: &mut Vec<Finding>,
    ) -> Result<(), Trouble> {
        let Some((fd, st)) = regular(ids, id)? else { return Ok(()) };
        let fd = sys::reopen(fd, OFlags::RDONLY)?;
        match rustix::fs::seek(&fd, SeekFrom::Data(offset)) {
            Ok(data) if data < offset + len => {
                found.push(Finding { what: Difference::Hole, id, offset, len, name: Vec::new() });
            }
            Ok(_) | Err(Errno::NXIO) => {}
            Err(e) => return Err(e.into()),
        }
        size(id, &st, offset + len, last, found);
        Ok(())
    }
}

fn regular(ids: &Ids, id: FileId) -> Result<Option<(BorrowedFd<'_>, Stat)>, Trouble> {
    let (fd, kind) = ids.get(id)?;
    if kind != sys::S_IFREG {
        return Ok(None);
    }
    Ok(Some((fd, sys::stat(fd)?)))
}

fn size(id: FileId, st: &Stat, end: u64, last: bool, found: &mut Vec<Finding>) {
    let here = st.st_size as u64;
    if here < end || (last && here != end) {
        found.push(Finding { what: Difference::Attributes, id, offset: 0, len: 0, name: Vec::new() });
    }
}

fn attributes_differ(e: &Entry<'_>, st: &Stat) -> bool {
    let mode_matters = sys::kind(st) != sys::S_IFLNK;
    (mode_matters && e.mode != st.st_mode)
        || (e.uid, e.gid, e.mtime) != (st.st_uid, st.st_gid, sys::mtime(st))
        || (sys::kind(st) == sys::S_IFREG && e.size != st.st_size as u64)
}

impl Links {
    /// Do this name here and there belong to the same file as their other names?
    fn agree(&mut self, dir: BorrowedFd<'_>, entry: &Entry<'_>, st: &Stat) -> Result<bool, Trouble> {
        let inode = (st.st_dev, st.st_ino);
        // Of a file that is gone: its inode may be another's by now, which nobody has called anything.
        if let Some(number) = self.there.get(&inode).copied() {
            self.find(number)?;
        }
        if entry.link == 0 {
            // One name there, several here, or the only one left here of another file: it gets its own, or what is
            // written to one would be in the other.
            return Ok(st.st_nlink == 1 && !self.there.contains_key(&inode));
        }
        self.find(entry.link)?;
        match (self.here.get(&entry.link), self.there.get(&inode)) {
            (Some((known, _)), _) => Ok(*known == inode),
            (None, Some(_)) => Ok(false),
            (None, None) => self.remember(entry.link, inode, dir, entry.name),
        }
    }

    fn remember(&mut self, number: u64, inode: (u64, u64), dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Trouble> {
        let fd = sys::open_entry(dir, name)?;
        if let Slot::Vacant(none) = self.beside.entry(inode.0) {
            none.insert(sys::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?);
        }
        self.here.insert(number, (inode, if self.stay_open { Kept::Open(fd) } else { Kept::of(fd) }));
        self.there.insert(inode, number);
        Ok(true)
    }

    /// The file of this number, which is forgotten when it has no name any more.
    fn find(&mut self, number: u64) -> Result<Option<OwnedFd>, Trouble> {
        let Some((inode, kept)) = self.here.get(&number) else { return Ok(None) };
        let Some(beside) = self.beside.get(&inode.0) else { return Ok(None) };
        if let Some(fd) = kept.open(beside)?
            && sys::stat(&fd)?.st_nlink > 0
        {
            return Ok(Some(fd));
        }
        self.forget(number);
        Ok(None)
    }

    fn forget(&mut self, number: u64) {
        if let Some((inode, _)) = self.here.remove(&number) {
            self.there.remove(&inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mail is written, linked to its place and unlinked, and the next one gets its inode: that one has a single name on both nodes.
    #[test]
    fn the_next_file_of_an_inode_is_not_the_one_that_had_several_names() {
        let dir = tempfile::tempdir().unwrap();
        let here = std::fs::File::open(dir.path()).unwrap();
        for name in ["gone", "new"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let st = sys::stat_entry(&here, b"new").unwrap().unwrap();
        let inode = (st.st_dev, st.st_ino);
        let mut links = Links::default();
        let entry = |link| Entry {
            name: b"new",
            mode: st.st_mode,
            uid: st.st_uid,
            gid: st.st_gid,
            size: st.st_size as u64,
            mtime: sys::mtime(&st),
            rdev: 0,
            link,
            xattrs: [0; 16],
            target: b"",
        };
        assert!(links.remember(7, inode, here.as_fd(), b"gone").unwrap());
        assert!(!links.agree(here.as_fd(), &entry(0), &st).unwrap(), "its number says that it had several names");
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        assert!(links.agree(here.as_fd(), &entry(0), &st).unwrap(), "that was another file, which is gone");
        assert!(links.agree(here.as_fd(), &entry(8), &st).unwrap() && links.here.contains_key(&8));
    }
}
