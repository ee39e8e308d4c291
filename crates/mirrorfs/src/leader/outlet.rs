//! What the front calls. Everything except `barrier`, `forgotten` and `close` comes with the order lock held.

use super::{Barrier, Inner, Leader, Mode, lock};
use crate::outlet::{Completion, Outlet, Part, Space, Touch};
use crate::{map, sys};
use replica::map::Record;
use replica::op::{FileId, Op};
use replica::wire::{EVERYTHING, Message};
use rustix::io::Errno;
use std::sync::MutexGuard;
use std::time::Instant;

/// Deeper trees exist, but not among ids the front knows all parents of.
const DEPTH_MAX: usize = 4_096;

impl Outlet for Leader {
    fn touch(&self, what: &Touch) -> std::io::Result<()> {
        let Some(record) = map::record(what) else { return Ok(()) };
        let mut inner = lock(&self.inner);
        match inner.mode {
            Mode::Closed => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            Mode::Alone | Mode::Target => {
                let is_new = matches!(what.part, Part::Data { .. }) && inner.fresh.contains(&what.file);
                drop(inner);
                let mut map = self.map();
                if is_new {
                    // Its directory is in the log already, durably.
                    map.touch_new_file(Record::Zones { key: map::key(what.key), first: 0, end: u64::MAX })
                } else {
                    map.touch([record])
                }
            }
            Mode::Held | Mode::Committing { .. } | Mode::Mirrored => {
                if inner.touches.last() != Some(&record) {
                    inner.touches.push(record);
                }
                Ok(())
            }
        }
    }

    fn submit(&self, op: Op<'_>, done: Completion) {
        let inner = lock(&self.inner);
        match inner.mode {
            Mode::Closed => {
                drop(inner);
                done.run(Err(Errno::IO));
            }
            Mode::Alone => {
                self.note_alone(inner, &op);
                done.run(Ok(()));
            }
            Mode::Target => {
                self.note_alone(inner, &op);
                for (dir, name) in moved_entries(&op).into_iter().flatten() {
                    let path = self.path_of(dir);
                    if let Some(events) = &lock(&self.inner).events
                        && let Some(path) = path
                    {
                        events.moved(path, name.to_vec());
                    }
                }
                self.send(lock(&self.inner), &op, None);
                done.run(Ok(()));
            }
            Mode::Mirrored if self.acks_at_once() => {
                self.send(inner, &op, None);
                done.run(Ok(()));
            }
            Mode::Held | Mode::Committing { .. } | Mode::Mirrored => self.send(inner, &op, Some(done)),
        }
    }

    fn barrier(&self, file: Option<FileId>, done: Completion) {
        let mut inner = lock(&self.inner);
        match inner.mode {
            Mode::Closed => {
                drop(inner);
                done.run(Err(Errno::IO));
            }
            Mode::Alone | Mode::Target => {
                drop(inner);
                done.run(Ok(()));
            }
            Mode::Held | Mode::Committing { .. } => inner.parked.push((file, done)),
            Mode::Mirrored => {
                let over = self.ask(&mut inner, file, done);
                drop(inner);
                if let Some(done) = over {
                    done.run(Ok(()));
                }
            }
        }
    }

    fn keep(&self, file: FileId) {
        let inner = lock(&self.inner);
        if matches!(inner.mode, Mode::Target | Mode::Mirrored | Mode::Committing { .. } | Mode::Held) {
            drop(self.bind(inner, &[Some(file)]));
        }
    }

    fn forgotten(&self, file: FileId) {
        let mut inner = lock(&self.inner);
        inner.fresh.remove(&file);
        if inner.known.remove(file) {
            let frame = Self::frame(&inner, &Message::Op(Op::Unbind { id: file }));
            // Not waited for: it makes things smaller.
            self.push(&mut inner, frame, None, Vec::new());
        }
    }

    fn peer_space(&self) -> Option<Space> {
        let inner = lock(&self.inner);
        inner.space.filter(|_| inner.mode == Mode::Mirrored)
    }

    fn close(&self) {
        self.fence();
    }
}

impl Leader {
    /// Asks the peer to make it durable; gives the completion back if there is nothing to wait for.
    pub(super) fn ask(&self, inner: &mut Inner, file: Option<FileId>, done: Completion) -> Option<Completion> {
        if !self.syncs_peer() {
            if inner.window.is_empty() {
                return Some(done);
            }
            let last = inner.window.last();
            inner.after.push_back((last, done));
            return None;
        }
        let id = file.filter(|id| inner.known.has(*id)).unwrap_or(EVERYTHING);
        let frame = Self::frame(inner, &Message::Sync { id });
        let lsn = self.push(inner, frame, None, Vec::new());
        inner.barriers.insert(lsn.0, Barrier { file, done, since: Instant::now() });
        None
    }

    /// What the map must know beyond what was touched: files that are new as a whole, or under a new name.
    fn note_alone(&self, mut inner: MutexGuard<'_, Inner>, op: &Op<'_>) {
        inner.touches.clear();
        if let Op::Create { id, .. } = op {
            inner.fresh.insert(*id);
        }
        drop(inner);
        let records: Vec<Record> =
            moved_entries(op).into_iter().flatten().filter_map(|e| self.moved_record(e)).collect();
        if let Err(e) = self.map().touch(records) {
            // The map counts as "everything" from here on; its next use says so to whoever asks.
            self.report(model::orders::Report::LocalFault { reason: format!("cannot write the change map: {e}") });
        }
    }

    /// What is under this name now was elsewhere before: it counts as changed as a whole.
    fn moved_record(&self, (dir, name): (FileId, &[u8])) -> Option<Record> {
        let fd = self.path_of(dir).and_then(|path| path.open(self.roots()).ok());
        match fd.and_then(|fd| sys::stat_entry(&fd, name).ok()) {
            Some(None) => None,
            Some(Some(st)) if sys::kind(&st) != sys::S_IFDIR => {
                let key = replica::map::FileKey { dev: st.st_dev, ino: st.st_ino };
                Some(Record::Zones { key, first: 0, end: u64::MAX })
            }
            // A directory with all that is below it, or we cannot tell.
            _ => Some(Record::Everything),
        }
    }

    /// Puts a change of the front into the stream, binding first what the peer does not know.
    fn send(&self, inner: MutexGuard<'_, Inner>, op: &Op<'_>, done: Option<Completion>) {
        let inner = self.wait_for_room(inner, op.weight() + 256);
        let (mut inner, bound) = self.bind(inner, &op.needs());
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
                self.note_alone(lock(&self.inner), op);
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
        let frame = Self::frame(&inner, &Message::Op(*op));
        self.push(&mut inner, frame, done, touches);
        if let Some(id) = op.introduces() {
            self.introduce(&mut inner, id);
        }
    }

    fn introduce(&self, inner: &mut Inner, id: FileId) {
        if let Some(old) = inner.known.insert(id) {
            let frame = Self::frame(inner, &Message::Op(Op::Unbind { id: old }));
            self.push(inner, frame, None, Vec::new());
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
