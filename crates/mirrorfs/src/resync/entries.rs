//! Directories and their entries: asking about them, and repairing what is missing, extra or different.

use super::content::{FileTask, Ranges};
use super::events::Found;
use super::lacking::Lacking;
use super::links::Links;
use super::walker::Held;
use super::{Check, Resync, Stop, TreePath, is_ours, present, unreadable};
use crate::sys;
use replica::map::FileKey;
use replica::op::{Op, Owner, is_entry_name};
use replica::wire::{Chunk, Difference, EntriesWriter, Entry, Message, XattrsWriter};
use rustix::fs::Stat;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Entries in one check.
pub(super) const CHUNK_ENTRIES: usize = 512;
/// Bytes of one check.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What is compared below a directory that is there on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Below {
    /// Its entries, not what is in them.
    Nothing,
    /// Everything's entries and attributes; of files what the map names.
    Entries,
    /// Every byte.
    Everything,
}

/// A directory to compare.
pub(super) struct DirTask {
    pub path: TreePath,
    pub below: Below,
    /// The target has just made it: nothing to ask, only to send.
    pub fresh: bool,
}

/// One entry as it was when the target was asked.
pub(super) struct Seen {
    pub name: Vec<u8>,
    pub kind: u32,
    pub key: FileKey,
    pub size: u64,
    linked: bool,
    /// It has no other name here.
    single: bool,
}

/// What a check of entries asked.
pub(super) struct Asked {
    path: TreePath,
    dir: Arc<Held>,
    seen: Vec<Seen>,
    /// One entry, compared once more.
    again: bool,
    below: Below,
    /// Doubts there were when it was asked.
    doubts: u64,
}

impl Resync {
    /// Asks about a directory and all its entries (or sends them, if it is fresh).
    pub(super) fn directory(&mut self, task: DirTask) -> Result<(), Stop> {
        let DirTask { path, fresh, below } = task;
        if self.walker.leader.scope(&path).is_local() {
            return Ok(());
        }
        let at = path.clone();
        let Some(dir) = self.walker.with_order(|w| w.resolve(&at))?? else { return Ok(()) };
        let Some(names) = present(sys::names(&dir.fd))? else { return Ok(()) };
        if fresh {
            // The target has none of them.
            let entries: VecDeque<_> = names.into_iter().map(|name| (name, Place::Fresh)).collect();
            self.lacking.push_back(Lacking { path, dir, entries });
            return Ok(());
        }
        let mut entries = EntriesWriter::default();
        let own = sys::stat(&dir.fd).map_err(unreadable)?;
        if describe(&mut self.links, &path, &dir, b"", &own, &mut entries)?.is_none() {
            return Ok(());
        }
        let mut seen = Vec::new();
        let mut first = true;
        for name in names {
            if !is_entry_name(&name) || self.is_ignored(&path, &name) {
                continue;
            }
            let Some(st) = sys::stat_entry(&dir.fd, &name).map_err(unreadable)? else { continue };
            if !is_ours(&path, &dir, &name, st.st_dev)? {
                continue;
            }
            if let Some(entry) = describe(&mut self.links, &path, &dir, &name, &st, &mut entries)? {
                seen.push(entry);
            }
            if seen.len() >= CHUNK_ENTRIES || entries.len() >= CHUNK_BYTES {
                self.ask(&path, &dir, (Chunk { first, last: false }, below), &mut entries, &mut seen)?;
                first = false;
                // No other directory is asked about in between: the target notes one listing.
                self.make_room()?;
            }
        }
        self.ask(&path, &dir, (Chunk { first, last: true }, below), &mut entries, &mut seen)
    }

    /// Asks about one entry, as it is at exactly that position: what then differs there does differ.
    pub(super) fn check_entry(&mut self, path: &TreePath, name: &[u8]) -> Result<(), Stop> {
        if self.is_ignored(path, name) {
            return Ok(());
        }
        let (links, doubts) = (&mut self.links, self.doubts);
        let asked = self.walker.with_order(|w| {
            let Some(dir) = w.resolve(path)? else { return Ok(None) };
            let mut entries = EntriesWriter::default();
            let mut seen = Vec::new();
            match sys::stat_entry(&dir.fd, name).map_err(unreadable)? {
                Some(st) => seen.extend(describe(links, path, &dir, name, &st, &mut entries)?),
                None => entries.push(&Entry { name, ..absent() }),
            }
            let message = Message::CheckEntries { dir: dir.id, part: Chunk::ENTRIES, entries: entries.entries() };
            let lsn = w.emit(&message)?;
            let (path, below) = (path.clone(), Below::Nothing);
            Ok::<_, Stop>(Some((lsn, Asked { path, dir, seen, again: true, below, doubts })))
        })??;
        if let Some((lsn, asked)) = asked {
            self.meter.entries(asked.seen.len() as u64);
            self.plan.sent(lsn, Check::Entries(asked));
        }
        Ok(())
    }

    fn ask(
        &mut self,
        path: &TreePath,
        dir: &Arc<Held>,
        (part, below): (Chunk, Below),
        entries: &mut EntriesWriter,
        seen: &mut Vec<Seen>,
    ) -> Result<(), Stop> {
        let lsn = self.walker.emit(&Message::CheckEntries { dir: dir.id, part, entries: entries.entries() })?;
        self.meter.entries(seen.len() as u64);
        entries.clear();
        let (path, dir, seen, doubts) = (path.clone(), dir.clone(), std::mem::take(seen), self.doubts);
        let asked = Asked { path, dir, seen, again: false, below, doubts };
        self.plan.sent(lsn, Check::Entries(asked));
        Ok(())
    }

    /// The target compared: repair, and go on with what is below.
    pub(super) fn entries_answered(&mut self, asked: Asked, found: Vec<Found>) -> Result<(), Stop> {
        let Asked { path, dir, seen, again, below, doubts } = asked;
        let mut differs: HashMap<Vec<u8>, Vec<Difference>> = HashMap::new();
        for f in found {
            differs.entry(f.name).or_default().push(f.what);
        }
        if differs.remove(&b""[..]).is_some() {
            let dir = dir.clone();
            self.walker.with_order(|w| w.send_attributes(&dir))??;
        }
        let is_wrong = |d: &&Difference| matches!(d, Difference::Missing | Difference::Type | Difference::Link);
        // First what the target has under one name, so that the other names are linked and not sent.
        for entry in seen.iter().filter(|e| e.linked) {
            let right = differs.get(&entry.name).is_none_or(|what| !what.iter().any(|d| is_wrong(&d)));
            if right && let Some(link) = self.links.get_mut(entry.key) {
                link.known = true;
            }
        }
        let mut lacking = VecDeque::new();
        for entry in seen {
            let what = differs.remove(&entry.name).unwrap_or_default();
            // Asked with the order lock held, after whatever of it the target is known to have missed.
            let is_older = self.doubtful.get(&entry.key).is_some_and(|doubt| *doubt <= doubts);
            let doubted = again && entry.single && is_older && self.doubtful.remove(&entry.key).is_some();
            if let Some(why) = what.iter().find(is_wrong) {
                if *why == Difference::Link {
                    self.link_is_open(entry.key);
                }
                if again {
                    self.count_repair(&path, &entry.name)?;
                }
                let place = if *why == Difference::Link { Place::Another } else { Place::Unknown };
                lacking.push_back((entry.name, place));
                continue;
            }
            if entry.kind == sys::S_IFDIR {
                let below = self.below(&entry, &dir, below, again);
                if below != Below::Nothing {
                    self.dirs.push(DirTask { path: path.join(&entry.name), fresh: false, below });
                }
                continue;
            }
            let changed = !what.is_empty();
            if changed {
                let (path, name, dir) = (path.clone(), entry.name.clone(), dir.clone());
                self.walker.with_order(|w| match w.hold(&dir, &path, &name)? {
                    Some(held) => w.send_attributes(&held),
                    None => Ok(()),
                })??;
            }
            if entry.kind == sys::S_IFREG {
                let ranges = if doubted { Some(Ranges::All) } else { self.ranges(&entry, &dir, below, changed) };
                match ranges.filter(|_| entry.size > 0 || changed) {
                    Some(_) if !changed && !doubted && self.verified.contains(&entry.key) => {}
                    Some(ranges) => self.files.push_back(FileTask::compare(path.clone(), entry.name, ranges)),
                    None => self.set_verified(entry.key),
                }
            }
        }
        if !lacking.is_empty() {
            self.lacking.push_back(Lacking { path: path.clone(), dir: dir.clone(), entries: lacking });
        }
        // What is left was never mentioned, or should not be there.
        for (name, what) in differs {
            if self.is_ignored(&path, &name)
                || !what.iter().any(|d| matches!(d, Difference::Extra | Difference::Missing))
            {
                continue;
            }
            self.remove_if_gone(&dir, &name)?;
        }
        Ok(())
    }

    /// The target has a name we do not have now.
    fn remove_if_gone(&mut self, dir: &Arc<Held>, name: &[u8]) -> Result<(), Stop> {
        self.walker.with_order(|w| {
            if !is_entry_name(name) || sys::stat_entry(&dir.fd, name).map_err(unreadable)?.is_some() {
                return Ok(());
            }
            let st = sys::stat(&dir.fd).map_err(unreadable)?;
            w.emit(&Message::Purge { parent: dir.id, name, parent_mtime: sys::mtime(&st) })?;
            Ok::<_, Stop>(())
        })??;
        Ok(())
    }
}

/// What the target has where an entry is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Nothing: it has just made the directory.
    Fresh,
    /// Nothing, or something that may be taken over.
    Unknown,
    /// A name of another file.
    Another,
}

/// What [`super::walker::Walker::restore`] did.
pub(super) enum Made {
    /// It is gone here.
    Nothing,
    /// Another name of a file the target has.
    Linked(FileKey),
    /// An empty directory.
    Directory,
    /// An empty file (with several names?).
    File(Arc<Held>, bool),
    /// Something without content (with several names: which).
    Other(Option<FileKey>),
}

impl super::walker::Walker {
    /// Attributes and extended attributes as they are now. Under the order lock.
    pub(super) fn send_attributes(&mut self, held: &Held) -> Result<(), Stop> {
        let st = sys::stat(&held.fd).map_err(unreadable)?;
        self.change(Op::SetAttr {
            id: held.id,
            mode: (held.kind != sys::S_IFLNK).then_some(st.st_mode & 0o7777),
            uid: Some(st.st_uid),
            gid: Some(st.st_gid),
            size: (held.kind == sys::S_IFREG).then_some(st.st_size as u64),
            atime: None,
            mtime: Some(sys::mtime(&st)),
        })?;
        self.send_xattrs(held)
    }

    /// Extended attributes as they are now: after content, size and owner, each of which takes `security.capability` away.
    /// Under the order lock.
    pub(super) fn send_xattrs(&mut self, held: &Held) -> Result<(), Stop> {
        let mut list = XattrsWriter::default();
        for (name, value) in sys::xattrs(&held.fd).map_err(unreadable)? {
            if !list.push(&name, &value) {
                tracing::warn!("an extended attribute is too large to be replicated");
            }
        }
        self.emit(&Message::Xattrs { id: held.id, list: list.list() })?;
        Ok(())
    }

    /// Under the order lock: the entry as it is here at this moment.
    pub(super) fn restore(
        &mut self,
        path: &TreePath,
        dir: &Arc<Held>,
        name: &[u8],
        place: Place,
        number: Option<(FileKey, u64)>,
    ) -> Result<Made, Stop> {
        let Some(fd) = present(sys::open_entry(&dir.fd, name))? else { return Ok(Made::Nothing) };
        let (st, parent_st) = (sys::stat(&fd).map_err(unreadable)?, sys::stat(&dir.fd).map_err(unreadable)?);
        let (kind, key) = (sys::kind(&st), FileKey { dev: st.st_dev, ino: st.st_ino });
        let (mtime, parent_mtime, parent) = (sys::mtime(&st), sys::mtime(&parent_st), dir.id);
        let owner = Owner { mode: st.st_mode & 0o7777, uid: st.st_uid, gid: st.st_gid };
        if place == Place::Another {
            // The name leads to another file there.
            self.emit(&Message::Purge { parent, name, parent_mtime })?;
        }
        // Ids bound by this name, ours or the front's, may mean what was there before.
        self.leader.bind_anew();
        self.forget_key(key);
        if let Some((of, number)) = number
            && of == key
        {
            let id = replica::op::FileId(number);
            self.emit(&Message::Restore(Op::Link { id, parent, name, parent_mtime }))?;
            return Ok(Made::Linked(key));
        }
        let target = if kind == sys::S_IFLNK { sys::link_target(&fd).map_err(unreadable)? } else { Vec::new() };
        self.note_names(&st, key);
        let held = self.adopt(fd, kind, key, (parent, path), name)?;
        let id = held.id;
        let op = match kind {
            sys::S_IFREG => Op::Create { id, parent, name, owner, mtime, parent_mtime },
            sys::S_IFDIR => Op::Mkdir { id, parent, name, owner, mtime, parent_mtime },
            sys::S_IFLNK => Op::Symlink { id, parent, name, target: &target, owner, mtime, parent_mtime },
            _ => Op::Mknod { id, parent, name, kind, rdev: st.st_rdev, owner, mtime, parent_mtime },
        };
        self.emit(&Message::Restore(op))?;
        // What is new there has nothing yet, and gets everything with its content.
        if kind == sys::S_IFREG && place == Place::Fresh && st.st_nlink == 1 {
            return Ok(Made::File(held, false));
        }
        if kind == sys::S_IFREG {
            // It may have taken over a file that was there: content comes whole.
            let size = Some(0);
            self.change(Op::SetAttr { id, mode: None, uid: None, gid: None, size, atime: None, mtime: Some(mtime) })?;
        }
        self.send_attributes(&held)?;
        Ok(match kind {
            sys::S_IFREG => Made::File(held, st.st_nlink > 1),
            sys::S_IFDIR => Made::Directory,
            _ => Made::Other((st.st_nlink > 1).then_some(key)),
        })
    }
}

/// `None`: it has just vanished.
pub(super) fn describe(
    links: &mut Links,
    path: &TreePath,
    dir: &Held,
    name: &[u8],
    st: &Stat,
    out: &mut EntriesWriter,
) -> Result<Option<Seen>, Stop> {
    let kind = sys::kind(st);
    let key = FileKey { dev: st.st_dev, ino: st.st_ino };
    let mut target = Vec::new();
    let mut xattrs = [0; 16];
    let mut link = 0;
    if name.is_empty() {
        xattrs = sys::digest(&sys::xattrs(&dir.fd).map_err(unreadable)?);
    } else if kind != sys::S_IFDIR {
        let Some(fd) = present(sys::open_entry(&dir.fd, name))? else { return Ok(None) };
        if kind == sys::S_IFLNK {
            match sys::link_target(&fd) {
                Ok(text) => target = text,
                // Replaced by something else this moment: it is compared when that arrives.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(None),
                Err(e) => return Err(unreadable(e)),
            }
        }
        xattrs = sys::digest(&sys::xattrs(&fd).map_err(unreadable)?);
        let several = st.st_nlink > 1;
        if (several || links.contains(key))
            && let Some(entry) = links.of(key, fd, several)
        {
            if !entry.done {
                entry.names.insert((path.clone(), name.to_vec()));
            }
            link = entry.number;
        }
    }
    out.push(&Entry {
        name,
        mode: st.st_mode,
        uid: st.st_uid,
        gid: st.st_gid,
        size: st.st_size as u64,
        mtime: sys::mtime(st),
        rdev: st.st_rdev,
        link,
        xattrs,
        target: &target,
    });
    let (size, linked, single) = (st.st_size as u64, link != 0, st.st_nlink == 1);
    Ok(Some(Seen { name: name.to_vec(), kind, key, size, linked, single }))
}

pub(super) fn absent() -> Entry<'static> {
    let mtime = replica::op::Time::default();
    Entry { name: b"", mode: 0, uid: 0, gid: 0, size: 0, mtime, rdev: 0, link: 0, xattrs: [0; 16], target: b"" }
}
