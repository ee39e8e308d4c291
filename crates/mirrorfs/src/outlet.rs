//! The boundary between the front (who makes changes) and whoever must know of them before the application
//! gets its answer: nobody, the change map, or the peer.
//!
//! The front calls an [`Outlet`] with the order lock held, so the outlet sees changes in the order in which
//! the local store took them. **Invariant:** a [`Completion`] runs exactly once; one that is dropped answers
//! `EIO`, because an application must never wait for ever.

use replica::op::{FileId, Op, Time};
use rustix::io::Errno;
use std::fmt;

/// What answers the application once the policy is met. Run it from any thread; it never blocks for long.
pub struct Completion(Option<Answer>);

/// What runs once it is known whether the policy is met.
type Answer = Box<dyn FnOnce(Result<(), Errno>) + Send>;

impl Completion {
    /// Runs `answer` once.
    pub fn new(answer: impl FnOnce(Result<(), Errno>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Nobody waits for this one.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// The policy is met (`Ok`), or it never will be (fenced: `EIO`). A peer's error is never given here:
    /// the peer is let go instead.
    pub fn run(mut self, result: Result<(), Errno>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Errno::IO));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Completion(waiting)" } else { "Completion(none)" })
    }
}

/// Identity of an inode of the local store: survives renames and restarts, not deletion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InodeKey {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// The part of a file that is about to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Bytes `offset..offset + len`; a truncation says `len = u64::MAX - offset`.
    Data {
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
    },
    /// Mode, owner, times, extended attributes.
    Attributes,
    /// The entries of this directory.
    Entries,
    /// Its place: it gets a name in this directory, having been elsewhere before (renamed, exchanged, linked).
    Moved {
        /// The directory.
        to: InodeKey,
    },
}

/// What is about to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch<'a> {
    /// The file or directory.
    pub file: FileId,
    /// Its inode in the local store.
    pub key: InodeKey,
    /// Which part.
    pub part: Part,
    /// Of what moves and has one name: its directory and its name there.
    pub was: Option<(InodeKey, &'a [u8])>,
}

/// Free space of the peer's copy, in bytes and inodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes an ordinary user may still write.
    pub available_bytes: u64,
    /// Free bytes, root's reserve included.
    pub free_bytes: u64,
    /// Inodes that can still be made.
    pub free_inodes: u64,
}

/// Where changes go after the local store took them.
pub trait Outlet: Send + Sync {
    /// Before the local apply, with the order lock held: record the zone in the change map if this mode
    /// needs it. A rename touches both directories, then what it moves.
    ///
    /// # Errors
    /// The map could not be made durable: the change is refused (`EIO`), nothing was applied.
    fn touch(&self, what: &Touch<'_>) -> std::io::Result<()>;

    /// After the local apply succeeded, with the order lock held: assigns the Lsn; runs `done` once the
    /// policy is met. `Some`: it is met already; run it, after the order lock was given back (whoever is woken by it
    /// must not find the lock taken). May wait for room in the window, but must come back at once when fenced. Ids the peer
    /// does not know yet are bound by the outlet, from the name the tree gives for them.
    #[must_use = "an answer that is met"]
    fn submit(&self, op: Op<'_>, done: Completion) -> Option<Completion>;

    /// As [`Self::submit`], of a change that introduces nothing; `op` is asked for only if somebody hears of it (`None`: there
    /// is nothing to be told).
    #[must_use = "an answer that is met"]
    fn submit_if_heard<'a>(&self, op: &dyn Fn() -> Option<Op<'a>>, done: Completion) -> Option<Completion> {
        match op() {
            Some(op) => self.submit(op, done),
            None => Some(done),
        }
    }

    /// As [`Self::submit`]: the entry left what is replicated, with everything below it (order lock held).
    #[must_use = "an answer that is met"]
    fn purge(&self, parent: FileId, name: &[u8], parent_mtime: Time, done: Completion) -> Option<Completion>;

    /// What was submitted last as made is older than that here (order lock held): nothing may be concluded from its age.
    fn is_older(&self, file: FileId) {
        let _ = file;
    }

    /// Is it worth telling what is applied already (order lock held)? `false`: nobody listens, and whoever did begins
    /// anew, by comparing.
    fn listens(&self) -> bool {
        true
    }

    /// A change was applied that the peer cannot be told of (order lock held): its copy must not count as complete.
    fn diverged(&self, reason: String);

    /// Runs `done` when everything submitted so far about `file` (`None`: about every file) is where `fsync`
    /// must have it on the peer; `data_only`: where `fdatasync` must. Called without the order lock.
    fn barrier(&self, file: Option<FileId>, data_only: bool, done: Completion);

    /// Runs `done` when the peer has everything submitted so far. Called without the order lock.
    fn delivered(&self, done: Completion) {
        self.barrier(None, false, done);
    }

    /// After the order lock was given back: what was submitted and is waited for leaves now.
    fn push_out(&self) {}

    /// With the order lock held, before an unlink or a rename takes away one of several names of `file`. A complete peer
    /// is to know it by now, later it would have to be searched for; a target, which may have another file under each
    /// name, is to know it by one that stays.
    fn keep(&self, file: FileId);

    /// The tree dropped this id and will never use it again. Called without the order lock.
    fn forgotten(&self, file: FileId);

    /// This node's disk answered a call like this, and the application was told.
    fn disk_answered(&self, errno: Errno) {
        let _ = errno;
    }

    /// Space left on the peer, when it is known.
    fn peer_space(&self) -> Option<Space> {
        None
    }

    /// Fenced or stopping: every completion still waiting runs with `EIO`, every call that waits returns.
    fn close(&self);
}

/// Nobody else has to know: answers at once.
#[derive(Debug, Default)]
pub struct LocalOutlet;

impl Outlet for LocalOutlet {
    fn touch(&self, _what: &Touch<'_>) -> std::io::Result<()> {
        Ok(())
    }
    fn submit(&self, _op: Op<'_>, done: Completion) -> Option<Completion> {
        Some(done)
    }
    fn submit_if_heard<'a>(&self, _op: &dyn Fn() -> Option<Op<'a>>, done: Completion) -> Option<Completion> {
        Some(done)
    }
    fn purge(&self, _parent: FileId, _name: &[u8], _parent_mtime: Time, done: Completion) -> Option<Completion> {
        Some(done)
    }
    fn listens(&self) -> bool {
        false
    }
    fn diverged(&self, _reason: String) {}
    fn barrier(&self, _file: Option<FileId>, _data_only: bool, done: Completion) {
        done.run(Ok(()));
    }
    fn keep(&self, _file: FileId) {}
    fn forgotten(&self, _file: FileId) {}
    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_lost_completion_answers_eio_and_a_run_one_answers_once() {
        let (tx, rx) = channel();
        let sender = tx.clone();
        drop(Completion::new(move |r| sender.send(r).expect("receiver lives")));
        Completion::new(move |r| tx.send(r).expect("receiver lives")).run(Ok(()));
        assert_eq!(rx.iter().collect::<Vec<_>>(), vec![Err(Errno::IO), Ok(())]);
    }

    #[test]
    fn what_nobody_hears_is_not_asked_for() {
        let op = || -> Option<Op<'_>> { unreachable!("who asks makes the next write dear") };
        assert!(LocalOutlet.submit_if_heard(&op, Completion::none()).is_some());
    }
}
