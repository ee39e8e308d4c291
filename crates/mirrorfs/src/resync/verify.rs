//! Compares the secondary with this copy while the pair is mirrored: `stead rfsverify`, and the background scrub.
//!
//! Everything is looked at first without stopping anybody. What seems to differ is looked at again under the order
//! lock, where this copy and the place in the stream are one: what differs then does differ, whatever the application
//! writes. Content, attributes and extended attributes are repaired by changes of the stream. For entries that are missing,
//! extra or of another type the session ends, with them in the activity log: the resync that follows compares them.
//! **Invariant:** ends only when every check is answered, or the link.

use super::entries::{CHUNK_BYTES, CHUNK_ENTRIES, Seen, absent, describe};
use super::events::{Events, Found};
use super::links::Links;
use super::walker::{Held, Walker};
use super::{Stop, TreePath, is_ignored, is_ours, present, unreadable};
use crate::leader::{Gone, Leader};
use crate::map::now_ms;
use crate::sys;
use model::limits::{HOT_TABLE, ZONE_BYTES};
use model::orders::{Report, VERIFY_EXAMPLES_MAX, VerifyProgress};
use replica::hot::Hot;
use replica::op::is_entry_name;
use replica::resync::{Meter, Plan};
use replica::wire::{Chunk, Difference, EntriesWriter, Entry, Message};
use rustix::fs::OFlags;
use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one check: what the follower hashes before the application's next change gets its turn.
const CHECK_BYTES: u64 = 256 * 1024;

/// Why it ended early.
const LOST: &str = "the link to the other node was lost, or replaced: run it again";

/// Places waiting for a second look; more means that a resync is due, not a comparison.
const AGAIN_MAX: usize = 200_000;

/// A file being compared.
struct File {
    path: TreePath,
    name: Vec<u8>,
    open: Option<(Arc<Held>, OwnedFd)>,
    offset: u64,
}

/// What is looked at again, exactly.
enum Again {
    Entry { path: TreePath, name: Vec<u8>, repaired: bool },
    Span { held: Arc<Held>, path: TreePath, name: Vec<u8>, offset: u64, len: u64, repaired: bool },
}

/// What an unanswered check asked.
enum Asked {
    Entries { path: TreePath, seen: Vec<Seen> },
    Entry { path: TreePath, name: Vec<u8>, repaired: bool, is_file: bool },
    Span { held: Arc<Held>, path: TreePath, name: Vec<u8>, offset: u64, len: u64 },
    ExactSpan { held: Arc<Held>, path: TreePath, name: Vec<u8>, offset: u64, len: u64, repaired: bool },
}

/// One comparison of everything.
pub(crate) struct Verify {
    walker: Walker,
    events: Arc<Events>,
    plan: Plan<Asked, Found>,
    bytes_per_s: u64,
    dirs: Vec<TreePath>,
    files: VecDeque<File>,
    again: VecDeque<Again>,
    links: Links,
    told: HashSet<(TreePath, Vec<u8>)>,
    /// What could not be bound there, and was looked at again for it.
    absent: HashSet<(TreePath, Vec<u8>)>,
    /// What the resync that follows compares; more than the activity log can hold means everything.
    suspected: HashSet<Hot>,
    said: VerifyProgress,
    meter: Meter,
    applied: model::ids::Lsn,
    begun: Instant,
    reported: Instant,
    estimate: super::estimate::Estimate,
}

impl Verify {
    pub fn new(
        leader: Arc<Leader>,
        generation: u64,
        events: Arc<Events>,
        said: VerifyProgress,
        bytes_per_s: u64,
    ) -> Self {
        let now = Instant::now();
        let dirs = (0..leader.roots().len()).rev().map(TreePath::root).collect();
        let estimate = super::estimate::Estimate::start(leader.roots().clone());
        Self {
            walker: Walker::new(leader, generation),
            events,
            plan: Plan::default(),
            bytes_per_s,
            dirs,
            files: VecDeque::new(),
            again: VecDeque::new(),
            links: Links::default(),
            told: HashSet::new(),
            absent: HashSet::new(),
            suspected: HashSet::new(),
            said,
            meter: Meter::new(0, 0),
            applied: model::ids::Lsn(0),
            begun: now,
            reported: now,
            estimate,
        }
    }

    pub fn run(mut self) {
        let outcome = self.work();
        self.estimate.stop();
        self.said.running = false;
        self.said.failed = match outcome {
            Ok(()) => String::new(),
            Err(Stop::Gone) => LOST.into(),
            Err(Stop::Failed(why)) => why,
        };
        self.walker.leader.verified(self.walker.generation);
        if self.said.failed.is_empty() && !self.suspected.is_empty() {
            self.said.failed = self.resync_follows().err().unwrap_or_default();
        }
        self.report();
    }

    /// Only a resync makes the other copy equal: it is told what to compare, and the session ends.
    fn resync_follows(&mut self) -> Result<(), String> {
        let suspected: Vec<Hot> = self.suspected.drain().collect();
        let places = self.said.resync;
        let reason = format!("a comparison found {places} entries that are missing, extra or of another type there");
        match self.walker.with_order(|w| w.leader.differs(w.generation, &suspected, reason)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(e))) => Err(format!("what must be compared cannot be written to the activity log: {e}")),
            Ok(Err(Gone)) | Err(Gone) => Err(LOST.into()),
        }
    }

    fn work(&mut self) -> Result<(), Stop> {
        self.report();
        let done = self.walk();
        // Whatever happened: what was asked is answered before somebody else listens.
        while !self.plan.is_through() {
            self.look()?;
            self.wait();
        }
        self.walker.unbind_all()?;
        done
    }

    fn walk(&mut self) -> Result<(), Stop> {
        loop {
            self.look()?;
            if self.reported.elapsed() >= Duration::from_secs(1) {
                self.report();
            }
            let pause = self.meter.pause_ms(self.now_ms(), self.bytes_per_s);
            if pause > 0 {
                self.events.wait(Duration::from_millis(pause.min(100)), |_| false);
            } else if !self.plan.has_room() {
                self.wait();
            } else if let Some(again) = self.again.pop_front() {
                self.exactly(again)?;
            } else if let Some(file) = self.files.pop_front() {
                self.content(file)?;
            } else if let Some(path) = self.dirs.pop() {
                self.directory(path)?;
            } else if self.plan.is_through() {
                return Ok(());
            } else {
                self.wait();
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn wait(&self) {
        let applied = self.applied;
        self.events.wait(Duration::from_millis(100), |news| news.applied > applied);
    }

    fn report(&mut self) {
        self.reported = Instant::now();
        self.meter.set_total(self.estimate.bytes());
        self.said.progress = self.meter.progress(self.now_ms());
        self.walker.leader.report(Report::Verified { verify: self.said.clone() });
    }

    /// Takes in the answers.
    fn look(&mut self) -> Result<(), Stop> {
        let news = self.events.take();
        if news.aborted {
            return Err(Stop::Gone);
        }
        if news.overflow || self.again.len().max(self.absent.len()) > AGAIN_MAX {
            return Err(Stop::Failed("the copies differ in too many places: stead second fullsync, there".into()));
        }
        self.applied = news.applied;
        for found in news.found {
            if found.what == Difference::Absent {
                self.absent(&found)?;
            } else if !self.plan.found(found.lsn, found) {
                return Err(Stop::Failed("the other node answers what was not asked".into()));
            }
        }
        while let Some((asked, found)) = self.plan.answered(self.applied) {
            self.answered(asked, &found)?;
        }
        Ok(())
    }

    /// An id of ours means nothing there: its entry is looked at again, once. Below a directory that is not there either nobody can
    /// say more than that.
    fn absent(&mut self, found: &Found) -> Result<(), Stop> {
        if !Walker::is_ours(found.id) {
            return Ok(());
        }
        // Each stretch of a file that is asked about says so.
        self.files.retain(|file| file.open.as_ref().is_none_or(|(held, _)| held.id != found.id));
        let is_asked = |path: &TreePath, name: &[u8]| match self.again.back() {
            Some(Again::Entry { path: last, name: last_name, .. }) => last == path && last_name == name,
            _ => false,
        };
        let place = self.walker.place(found.id).filter(|(path, name)| !is_asked(path, name));
        self.walker.invalidate(found.id);
        let Some((path, name)) = place else { return Ok(()) };
        if self.absent.insert((path.clone(), name.clone())) {
            self.again.push_back(Again::Entry { path, name, repaired: false });
        } else if self.differs(&path, &name, false) && self.said.repair {
            self.suspect(&path, &name)?;
        }
        Ok(())
    }

    /// First look at a directory: nobody is stopped.
    fn directory(&mut self, path: TreePath) -> Result<(), Stop> {
        let Some(dir) = self.walker.with_order(|w| w.resolve(&path))?? else { return Ok(()) };
        let Some(names) = present(sys::names(&dir.fd))? else { return Ok(()) };
        let own = sys::stat(&dir.fd).map_err(unreadable)?;
        let mut entries = EntriesWriter::default();
        let mut seen = Vec::new();
        let mut first = true;
        describe(&mut self.links, &path, &dir, b"", &own, &mut entries)?;
        for name in names {
            let ignored = is_ignored(&self.walker.leader, &path, &name);
            if !is_entry_name(&name) || ignored {
                continue;
            }
            let Some(st) = sys::stat_entry(&dir.fd, &name).map_err(unreadable)? else { continue };
            if is_ours(&path, &dir, &name, st.st_dev)? {
                seen.extend(describe(&mut self.links, &path, &dir, &name, &st, &mut entries)?);
            }
            if seen.len() >= CHUNK_ENTRIES || entries.len() >= CHUNK_BYTES {
                self.ask(&path, &dir, Chunk { first, last: false }, &mut entries, &mut seen)?;
                first = false;
            }
        }
        self.ask(&path, &dir, Chunk { first, last: true }, &mut entries, &mut seen)
    }

    fn ask(
        &mut self,
        path: &TreePath,
        dir: &Held,
        part: Chunk,
        entries: &mut EntriesWriter,
        seen: &mut Vec<Seen>,
    ) -> Result<(), Stop> {
        let lsn = self.walker.emit(&Message::CheckEntries { dir: dir.id, part, entries: entries.entries() })?;
        self.meter.entries(seen.len() as u64);
        entries.clear();
        self.plan.sent(lsn, Asked::Entries { path: path.clone(), seen: std::mem::take(seen) });
        Ok(())
    }

    /// First look at the next stretch of a file.
    fn content(&mut self, mut file: File) -> Result<(), Stop> {
        if file.open.is_none() {
            let held = self.walker.with_order(|w| match w.resolve(&file.path)? {
                Some(dir) => w.hold(&dir, &file.path, &file.name),
                None => Ok(None),
            })??;
            let Some(held) = held.filter(|held| held.kind == sys::S_IFREG) else { return Ok(()) };
            let fd = sys::reopen(&held.fd, OFlags::RDONLY).map_err(unreadable)?;
            file.open = Some((held, fd));
        }
        let Some((held, fd)) = &file.open else { return Ok(()) };
        let size = sys::stat(fd).map_err(unreadable)?.st_size as u64;
        if file.offset >= size {
            return Ok(());
        }
        let data = sys::next_data(fd, file.offset).map_err(unreadable)?.map_or(size, |d| d / ZONE_BYTES * ZONE_BYTES);
        let (id, offset) = (held.id, file.offset);
        let (len, lsn) = if data > offset {
            let len = data.min(size) - offset;
            (len, self.walker.emit(&Message::CheckHole { id, offset, len, last: offset + len == size })?)
        } else {
            let len = CHECK_BYTES.min(size - offset);
            let hashes = hashes(fd, offset, len)?;
            self.meter.compared(len);
            let last = offset + len == size;
            (len, self.walker.emit(&Message::CheckBlocks { id, offset, len, last, hashes: &hashes })?)
        };
        let asked = Asked::Span { held: held.clone(), path: file.path.clone(), name: file.name.clone(), offset, len };
        self.plan.sent(lsn, asked);
        file.offset += len;
        // The end is looked at once: what is appended from here on is in the stream, and begins anywhere.
        if file.offset < size {
            self.files.push_front(file);
        }
        Ok(())
    }

    /// Second look: what this copy is at exactly this place of the stream.
    fn exactly(&mut self, again: Again) -> Result<(), Stop> {
        match again {
            Again::Entry { path, name, repaired } => {
                let links = &mut self.links;
                let asked = self.walker.with_order(|w| {
                    let Some(dir) = w.resolve(&path)? else { return Ok(None) };
                    let mut entries = EntriesWriter::default();
                    let mut is_file = false;
                    let found =
                        if name.is_empty() { sys::stat(&dir.fd).map(Some) } else { sys::stat_entry(&dir.fd, &name) };
                    match found.map_err(unreadable)? {
                        Some(st) => {
                            is_file = !name.is_empty() && sys::kind(&st) == sys::S_IFREG;
                            if describe(links, &path, &dir, &name, &st, &mut entries)?.is_none() {
                                return Ok(None);
                            }
                        }
                        None => entries.push(&Entry { name: &name, ..absent() }),
                    }
                    let part = Chunk::ENTRIES;
                    let lsn = w.emit(&Message::CheckEntries { dir: dir.id, part, entries: entries.entries() })?;
                    Ok::<_, Stop>(Some((lsn, is_file)))
                })??;
                if let Some((lsn, is_file)) = asked {
                    self.plan.sent(lsn, Asked::Entry { path, name, repaired, is_file });
                }
            }
            Again::Span { held, path, name, offset, len, repaired } => {
                let fd = sys::reopen(&held.fd, OFlags::RDONLY).map_err(unreadable)?;
                let now = CHECK_BYTES.min(len);
                let asked = self.walker.with_order(|w| {
                    let size = sys::stat(&fd).map_err(unreadable)?.st_size as u64;
                    if offset >= size {
                        return Ok(None);
                    }
                    let now = now.min(size - offset);
                    let (hashes, last) = (hashes(&fd, offset, now)?, offset + now == size);
                    let check = Message::CheckBlocks { id: held.id, offset, len: now, last, hashes: &hashes };
                    Ok::<_, Stop>(Some((w.emit(&check)?, now)))
                })??;
                let Some((lsn, asked)) = asked else { return Ok(()) };
                self.meter.compared(asked);
                let exact = Asked::ExactSpan {
                    held: held.clone(),
                    path: path.clone(),
                    name: name.clone(),
                    offset,
                    len: asked,
                    repaired,
                };
                self.plan.sent(lsn, exact);
                if len > now {
                    let (offset, len) = (offset + now, len - now);
                    self.again.push_front(Again::Span { held, path, name, offset, len, repaired });
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, asked: Asked, found: &[Found]) -> Result<(), Stop> {
        match asked {
            Asked::Entries { path, seen } => {
                let differing: HashSet<&[u8]> = found.iter().map(|f| f.name.as_slice()).collect();
                for name in &differing {
                    if !is_ignored(&self.walker.leader, &path, name) {
                        self.again.push_back(Again::Entry { path: path.clone(), name: name.to_vec(), repaired: false });
                    }
                }
                for entry in seen {
                    // What differs is compared below its entry once that is settled.
                    if entry.kind == sys::S_IFDIR {
                        self.dirs.push(path.join(&entry.name));
                    } else if entry.kind == sys::S_IFREG && entry.size > 0 && !differing.contains(&entry.name[..]) {
                        self.compare(path.clone(), entry.name);
                    }
                }
            }
            Asked::Span { held, path, name, offset, len } => {
                for f in found {
                    let (offset, len) = match f.what {
                        Difference::Blocks => (f.offset, f.len),
                        _ => (offset, len),
                    };
                    let (held, path, name) = (held.clone(), path.clone(), name.clone());
                    self.again.push_back(Again::Span { held, path, name, offset, len, repaired: false });
                }
            }
            Asked::Entry { path, name, repaired, is_file } => {
                self.entry_judged(path, name, repaired, is_file, found)?
            }
            Asked::ExactSpan { held, path, name, offset, len, repaired } => {
                if found.is_empty() {
                    return Ok(());
                }
                self.differs(&path, &name, repaired);
                if !self.said.repair || repaired {
                    return Ok(());
                }
                self.send_again(&held, offset, len)?;
                self.again.push_back(Again::Span { held, path, name, offset, len, repaired: true });
            }
        }
        Ok(())
    }

    fn entry_judged(
        &mut self,
        path: TreePath,
        name: Vec<u8>,
        repaired: bool,
        is_file: bool,
        found: &[Found],
    ) -> Result<(), Stop> {
        let light = found.iter().all(|f| matches!(f.what, Difference::Attributes | Difference::Xattrs));
        if !found.is_empty() {
            let is_new = self.differs(&path, &name, repaired);
            if !light && self.said.repair && !repaired {
                // One that was repaired in another way before, and is gone now, is left to the next comparison.
                if is_new { self.suspect(&path, &name)? } else { self.said.stubborn += 1 }
            }
            if light && self.said.repair && !repaired {
                self.walker.with_order(|w| {
                    let Some(dir) = w.resolve(&path)? else { return Ok(()) };
                    let held = if name.is_empty() { Some(dir) } else { w.hold(&dir, &path, &name)? };
                    held.map_or(Ok(()), |held| w.send_attributes(&held))
                })??;
                self.again.push_back(Again::Entry { path, name, repaired: true });
                return Ok(());
            }
        }
        if is_file && light {
            self.compare(path, name);
        }
        Ok(())
    }

    /// An entry that only a resync can repair: its directory's names are compared, and all of what it is here.
    fn suspect(&mut self, path: &TreePath, name: &[u8]) -> Result<(), Stop> {
        self.said.resync += 1;
        if self.suspected.len() > HOT_TABLE {
            return Ok(());
        }
        let found = self.walker.with_order(|w| {
            let Some(dir) = w.resolve(path)? else { return Ok(None) };
            let st = if name.is_empty() { None } else { sys::stat_entry(&dir.fd, name).map_err(unreadable)? };
            Ok::<_, Stop>(Some((dir.key, st.map(|st| w.leader.devices().key(st.st_dev, st.st_ino)))))
        })??;
        if let Some((key, entry)) = found {
            self.suspected.insert(Hot::Entries { key, since_ms: now_ms() });
            self.suspected.extend(entry.map(|key| Hot::Whole { key }));
        }
        Ok(())
    }

    fn compare(&mut self, path: TreePath, name: Vec<u8>) {
        self.files.push_back(File { path, name, open: None, offset: 0 });
    }

    /// Piece by piece: what the file is now.
    fn send_again(&mut self, held: &Arc<Held>, offset: u64, len: u64) -> Result<(), Stop> {
        let fd = sys::reopen(&held.fd, OFlags::RDONLY).map_err(unreadable)?;
        let mut buffer = Vec::new();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let piece = CHECK_BYTES.min(end - at);
            let sent = self.walker.send_ahead(held, &fd, at, piece, &mut buffer)?;
            let sent = sent.map_err(super::content::piece_failed)?;
            self.meter.sent(sent.bytes);
            match sent.next {
                Some(next) => at = next,
                None => break,
            }
        }
        self.walker.with_order(|w| w.send_attributes(held))??;
        Ok(())
    }

    /// Counts a place once, however much of it differs. `true`: it was not known.
    fn differs(&mut self, path: &TreePath, name: &[u8], again: bool) -> bool {
        if again {
            self.said.stubborn += 1;
            return false;
        }
        let is_new = self.told.insert((path.clone(), name.to_vec()));
        if is_new {
            self.said.differences += 1;
            if self.said.examples.len() < VERIFY_EXAMPLES_MAX {
                let dir = self.walker.leader.configuration().dirs.get(path.root).map_or("", |dir| dir.path.as_str());
                self.said.examples.push(format!("{dir}/{}", String::from_utf8_lossy(&path.relative(name))));
            }
        }
        is_new
    }
}

/// The hashes of the zones of a stretch.
fn hashes(fd: &OwnedFd, offset: u64, len: u64) -> Result<Vec<u8>, Stop> {
    let mut hashes = Vec::with_capacity(32 * (CHECK_BYTES / ZONE_BYTES) as usize);
    let mut buffer = vec![0; ZONE_BYTES as usize];
    let mut at = offset;
    while at < offset + len {
        let want = ZONE_BYTES.min(offset + len - at) as usize;
        let n = sys::read_at(fd, &mut buffer[..want], at).map_err(unreadable)?;
        buffer[n..want].fill(0);
        hashes.extend_from_slice(blake3::hash(&buffer[..want]).as_bytes());
        at += want as u64;
    }
    Ok(hashes)
}
