//! What the front calls. Everything except `barrier`, `forgotten` and `close` comes with the order lock held.

use super::rounds::{self, Cover};
use super::{Barrier, Inner, Leader, Mode, Wanted, lock};
use crate::outlet::{Completion, Outlet, Part, Space, Touch};
use crate::resync::Events;
use crate::{map, sys};
use model::orders::Report;
use replica::map::FileKey;
use replica::op::{FileId, Op, Time};
use replica::wire::{EVERYTHING, Message};
use rustix::io::Errno;
use std::sync::MutexGuard;
use std::time::Instant;

/// Deeper trees exist, but not among ids the front knows all parents of.
const DEPTH_MAX: usize = 4_096;
/// Records of the change that is being made; calls that fail one after the other must not gather theirs for ever.
const TOUCHES_MAX: usize = 64;

impl Outlet for Leader {
    fn touch(&self, what: &Touch<'_>) -> std::io::Result<()> {
        let key = self.devices.key(what.key.dev, what.key.ino);
        let now_ms = map::now_ms();
        let Some(record) = map::record(key, what.part, now_ms) else { return Ok(()) };
        let mut inner = lock(&self.inner);
        if let Some((watched, touched)) = &mut inner.watched {
            *touched |= *watched == what.key;
        }
        if matches!(inner.mode, Mode::Target | Mode::Committing { .. })
            && let Some(events) = &inner.events
        {
            events.touch(what.file, FileKey { dev: what.key.dev, ino: what.key.ino }, what.part);
        }
        let alone = match inner.mode {
            Mode::Closed => return Err(std::io::Error::from_raw_os_error(libc::EIO)),
            Mode::Alone | Mode::Target => true,
            Mode::Held | Mode::Committing { .. } | Mode::Mirrored => {
                if inner.touches.last() != Some(&record) {
                    // The oldest are of changes that failed here: no change touches nearly as much.
                    if inner.touches.len() >= TOUCHES_MAX {
                        inner.touches.remove(0);
                    }
                    inner.touches.push(record);
                }
                false
            }
        };
        let cover = self.cover(&inner, what, alone);
        match what.part {
            Part::Entries => inner.made.enter(what.file, key, cover, now_ms),
            Part::Moved { .. } => match cover {
                Some(cover) => inner.made.moved(what.file, cover),
                None => inner.made.forget(what.file),
            },
            Part::Data { .. } | Part::Attributes => {}
        }
        if let Some(cover) = cover.filter(|_| !alone) {
            // A round that begins before this change is made must not cool what covers it.
            inner.hots.push(replica::hot::Hot::Entries { key: cover.dir, since_ms: cover.made_ms });
        }
        drop(inner);
        match (cover, alone) {
            (Some(_), _) => Ok(()),
            (None, true) => {
                let marked = match what.part {
                    Part::Data { offset, len } => self.map().touch_data(key, offset, len),
                    Part::Moved { .. } => {
                        let was = what.was.filter(|(dir, _)| dir.dev == what.key.dev);
                        let origin = was.map(|(dir, name)| replica::moves::records(key, dir.ino, name));
                        self.map().touch([record].into_iter().chain(origin.into_iter().flatten()))
                    }
                    _ => self.map().touch([record]),
                };
                self.tell_map_note();
                marked
            }
            (None, false) => self.touch_log(&[rounds::items(key, what.part, now_ms)]),
        }
    }

    fn submit(&self, op: Op<'_>, done: Completion) -> Option<Completion> {
        self.hand_over(&Change::Op(op), done)
    }

    fn submit_if_heard<'a>(&self, op: &dyn Fn() -> Option<Op<'a>>, done: Completion) -> Option<Completion> {
        {
            // What `hand_over` does with it; whoever begins to listen after this compares.
            let mut inner = lock(&self.inner);
            if inner.mode == Mode::Alone {
                inner.hots.clear();
                inner.touches.clear();
                return Some(done);
            }
        }
        match op() {
            Some(op) => self.submit(op, done),
            None => Some(done),
        }
    }

    fn purge(&self, parent: FileId, name: &[u8], parent_mtime: Time, done: Completion) -> Option<Completion> {
        self.hand_over(&Change::Purge { parent, name, parent_mtime }, done)
    }

    fn is_older(&self, file: FileId) {
        lock(&self.inner).made.forget(file);
    }

    fn listens(&self) -> bool {
        let mut inner = lock(&self.inner);
        if inner.live.is_none() {
            inner.peer = None;
        }
        inner.live.is_some()
    }

    fn diverged(&self, reason: String) {
        let generation = {
            let mut inner = lock(&self.inner);
            // It cannot go on from here: what it lacks is hot, so the map will name it.
            inner.peer = None;
            inner.generation
        };
        self.lost(generation, |session| Report::PeerFault { session, reason });
    }

    fn barrier(&self, file: Option<FileId>, data_only: bool, done: Completion) {
        let wanted = Wanted { file, data_only, done };
        let mut inner = lock(&self.inner);
        match inner.mode {
            Mode::Closed => {
                drop(inner);
                wanted.done.run(Err(Errno::IO));
            }
            Mode::Alone | Mode::Target => {
                drop(inner);
                wanted.done.run(Ok(()));
            }
            Mode::Held | Mode::Committing { .. } => inner.parked.push(wanted),
            Mode::Mirrored => {
                let over = self.ask(&mut inner, wanted);
                drop(inner);
                self.send_awaited();
                if let Some(done) = over {
                    done.run(Ok(()));
                }
            }
        }
    }

    fn delivered(&self, done: Completion) {
        let mut inner = lock(&self.inner);
        match inner.mode {
            Mode::Mirrored if !inner.window.is_empty() => {
                let last = inner.window.last();
                inner.after.push_back((last, done));
                inner.sending.asked();
                drop(inner);
                self.send_awaited();
            }
            Mode::Mirrored | Mode::Closed | Mode::Alone | Mode::Target => {
                let result = if inner.mode == Mode::Closed { Err(Errno::IO) } else { Ok(()) };
                drop(inner);
                done.run(result);
            }
            Mode::Held | Mode::Committing { .. } => inner.parked.push(Wanted { file: None, data_only: false, done }),
        }
    }

    fn push_out(&self) {
        self.send_awaited();
    }

    fn keep(&self, file: FileId) {
        let inner = lock(&self.inner);
        match inner.mode {
            Mode::Target => self.unbind(inner, file),
            Mode::Mirrored | Mode::Committing { .. } | Mode::Held => drop(self.bind(inner, &[Some(file)])),
            Mode::Closed | Mode::Alone => {}
        }
    }

    fn disk_answered(&self, errno: Errno) {
        self.disk.answered(errno);
    }

    fn forgotten(&self, file: FileId) {
        let mut inner = lock(&self.inner);
        inner.made.forget(file);
        self.unbind(inner, file);
    }

    fn peer_space(&self) -> Option<Space> {
        let inner = lock(&self.inner);
        inner.space.filter(|_| inner.mode == Mode::Mirrored)
    }

    fn close(&self) {
        self.fence();
    }
}

/// What the front made.
enum Change<'a> {
    Op(Op<'a>),
    /// An entry went, with everything below it.
    Purge {
        parent: FileId,
        name: &'a [u8],
        parent_mtime: Time,
    },
}

impl<'a> Change<'a> {
    fn message(&self) -> Message<'a> {
        match *self {
            Self::Op(op) => Message::Op(op),
            Self::Purge { parent, name, parent_mtime } => Message::Purge { parent, name, parent_mtime },
        }
    }

    /// Ids the peer must know beforehand.
    fn needs(&self) -> [Option<FileId>; 2] {
        match *self {
            Self::Op(op) => op.needs(),
            Self::Purge { parent, .. } => [Some(parent), None],
        }
    }

    fn weight(&self) -> usize {
        match *self {
            Self::Op(op) => op.weight(),
            Self::Purge { name, .. } => name.len(),
        }
    }

    fn introduces(&self) -> Option<FileId> {
        match self {
            Self::Op(op) => op.introduces(),
            Self::Purge { .. } => None,
        }
    }
}

impl Leader {
    fn hand_over(&self, change: &Change<'_>, done: Completion) -> Option<Completion> {
        let mut inner = lock(&self.inner);
        Self::note_made(&mut inner, change);
        match inner.mode {
            Mode::Closed => {
                drop(inner);
                done.run(Err(Errno::IO));
                None
            }
            Mode::Alone => {
                inner.touches.clear();
                Some(done)
            }
            Mode::Target => {
                inner.touches.clear();
                drop(inner);
                let events = lock(&self.inner).events.clone();
                let moved = matches!((&events, change), (Some(events), Change::Op(op)) if self.tell_resync(events, op));
                self.send(lock(&self.inner), change, None);
                match events {
                    Some(events) if moved => {
                        events.answer(done);
                        None
                    }
                    _ => Some(done),
                }
            }
            Mode::Mirrored if self.acks_at_once() => {
                self.send(inner, change, None);
                Some(done)
            }
            Mode::Held | Mode::Committing { .. } | Mode::Mirrored => {
                // A commit may be withdrawn: which file it was is asked then.
                if let (Mode::Committing { .. }, Some(events), Change::Op(op)) = (inner.mode, &inner.events, change) {
                    events.renamed(moved_entries(op));
                }
                self.send(inner, change, Some(done));
                None
            }
        }
    }

    /// The directory that says enough about this change already, because the file was made since it is in the map
    /// or the log. A file that moves keeps its cover only if it is new where it was and where it comes to.
    fn cover(&self, inner: &Inner, what: &Touch<'_>, alone: bool) -> Option<Cover> {
        let covers = |cover: Cover| {
            let covered = if alone {
                self.map().map().since(cover.dir).is_some_and(|since_ms| since_ms <= cover.made_ms)
            } else {
                lock(&self.log).is_covered(cover.dir, cover.made_ms)
            };
            covered.then_some(cover)
        };
        let cover = covers(inner.made.cover(what.file)?)?;
        let Part::Moved { to } = what.part else { return Some(cover) };
        let to = self.devices.key(to.dev, to.ino);
        let there = inner.made.entered(to)?;
        covers(if there.dir == to { Cover { dir: to, made_ms: cover.made_ms } } else { there })
    }

    /// Asks the peer to make it durable; gives the completion back if there is nothing to wait for.
    pub(super) fn ask(&self, inner: &mut Inner, wanted: Wanted) -> Option<Completion> {
        if !self.syncs_peer() {
            if inner.window.is_empty() {
                return Some(wanted.done);
            }
            let last = inner.window.last();
            inner.after.push_back((last, wanted.done));
            inner.sending.asked();
            return None;
        }
        let id = wanted.file.filter(|id| inner.known.has(*id)).unwrap_or(EVERYTHING);
        let frame = Self::frame(inner, &Message::Sync { id, data_only: wanted.data_only });
        let lsn = self.push(inner, frame, None, Vec::new());
        inner.sending.asked();
        inner.barriers.insert(lsn.0, Barrier { wanted, since: Instant::now() });
        None
    }

    /// What a resync that goes on must know of this change. `true`: something is to be compared because of it.
    fn tell_resync(&self, events: &Events, op: &Op<'_>) -> bool {
        if let Op::Create { parent, name, .. } = *op
            && let Some(Ok(fd)) = self.path_of(parent).map(|path| path.open(self.roots()))
            && let Ok(Some(st)) = sys::stat_entry(&fd, name)
        {
            events.created(FileKey { dev: st.st_dev, ino: st.st_ino });
        }
        let mut moved = false;
        let entries = moved_entries(op);
        events.renamed(entries);
        for (dir, name) in entries.into_iter().flatten() {
            if let Some(path) = self.path_of(dir) {
                events.moved(path, name.to_vec());
                moved = true;
            }
        }
        moved
    }

    /// The change is made: what it made is new.
    fn note_made(inner: &mut Inner, change: &Change<'_>) {
        inner.hots.clear();
        if let Change::Op(
            Op::Create { id, parent, .. }
            | Op::Mkdir { id, parent, .. }
            | Op::Mknod { id, parent, .. }
            | Op::Symlink { id, parent, .. },
        ) = *change
        {
            inner.made.made(id, parent);
        }
    }

    /// Puts a change of the front into the stream, binding first what the peer does not know.
    fn send(&self, inner: MutexGuard<'_, Inner>, change: &Change<'_>, done: Option<Completion>) {
        let inner = self.wait_for_room(inner, change.weight() + 256);
        let (mut inner, bound) = self.bind(inner, &change.needs());
        let touches = std::mem::take(&mut inner.touches);
        match inner.mode {
            Mode::Closed => {
                drop(inner);
                if let Some(done) = done {
                    done.run(Err(Errno::IO));
                }
                return;
            }
            // The order to go on alone came while we waited.
            Mode::Alone => {
                drop(inner);
                let outcome = self.map().touch(touches);
                if let Some(done) = done {
                    done.run(outcome.map_err(|_| Errno::IO));
                }
                return;
            }
            _ => {}
        }
        if !bound {
            // A file without a name that the peer has never seen: it will never have one there.
            let frame = Self::frame(&inner, &Message::Op(Op::Unbind { id: FileId(u64::MAX) }));
            self.push(&mut inner, frame, done, touches);
            return;
        }
        let frame = Self::frame(&inner, &change.message());
        self.push(&mut inner, frame, done, touches);
        if let Some(id) = change.introduces() {
            self.introduce(&mut inner, id);
        }
    }

    fn introduce(&self, inner: &mut Inner, id: FileId) {
        if let Some(old) = inner.known.insert(id) {
            let frame = Self::frame(inner, &Message::Op(Op::Unbind { id: old }));
            self.push(inner, frame, None, Vec::new());
        }
    }

    /// The next use of it binds it anew. Not waited for: it makes things smaller.
    fn unbind(&self, mut inner: MutexGuard<'_, Inner>, file: FileId) {
        if inner.known.remove(file) {
            let frame = Self::frame(&inner, &Message::Op(Op::Unbind { id: file }));
            self.push(&mut inner, frame, None, Vec::new());
        }
    }

    /// Binds ids the peer does not know, parents first. `false`: one of them has no name.
    fn bind<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, ids: &[Option<FileId>]) -> (MutexGuard<'a, Inner>, bool) {
        for id in ids.iter().copied().flatten() {
            if inner.known.has(id) {
                continue;
            }
            let Some(tree) = self.tree() else { return (inner, false) };
            // The names are asked for without our lock: the order lock keeps them as they are.
            drop(inner);
            let mut chain = Vec::new();
            let mut next = id;
            loop {
                let Some((parent, name)) = tree.place(next) else { return (lock(&self.inner), false) };
                chain.push((next, parent, name));
                if chain.len() > DEPTH_MAX {
                    return (lock(&self.inner), false);
                }
                if lock(&self.inner).known.peek(parent) {
                    break;
                }
                next = parent;
            }
            let kinds: Vec<u32> = chain.iter().map(|(id, parent, name)| self.kind(*id, *parent, name)).collect();
            inner = lock(&self.inner);
            for ((id, parent, name), kind) in chain.into_iter().zip(kinds).rev() {
                let frame = Self::frame(&inner, &Message::Op(Op::Bind { id, parent, name: &name, kind }));
                self.push(&mut inner, frame, None, Vec::new());
                self.introduce(&mut inner, id);
            }
        }
        (inner, true)
    }

    /// The type of an entry; 0 (which the peer finds nowhere) if it is gone.
    fn kind(&self, _id: FileId, parent: FileId, name: &[u8]) -> u32 {
        self.path_of(parent)
            .and_then(|path| path.open(self.roots()).ok())
            .and_then(|dir| sys::stat_entry(&dir, name).ok().flatten())
            .map_or(0, |st| sys::kind(&st))
    }

    /// Where a directory of the front is now. Under the order lock, not under ours.
    pub(crate) fn path_of(&self, dir: FileId) -> Option<crate::resync::TreePath> {
        let tree = self.tree()?;
        let mut names = Vec::new();
        let mut next = dir;
        while next >= FileId::FIRST {
            let (parent, name) = tree.place(next)?;
            names.push(name);
            next = parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        let root = (next.0 as usize).checked_sub(1)?;
        Some(crate::resync::TreePath { root, names })
    }
}

/// Entries whose file was elsewhere before: what is below them was perhaps never compared there.
fn moved_entries<'a>(op: &Op<'a>) -> [Option<(FileId, &'a [u8])>; 2] {
    match *op {
        // The old name too: it is still there after an exchange, or if both were names of one file.
        Op::Rename { from, from_name, to, to_name, .. } => [Some((to, to_name)), Some((from, from_name))],
        Op::Link { parent, name, .. } => [Some((parent, name)), None],
        _ => [None, None],
    }
}
