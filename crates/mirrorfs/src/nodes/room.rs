//! How many nodes there may be: each holds a descriptor, and a process has so many and no more.
//!
//! The kernel keeps what it looked up until *memory* is short, which may be never. So it is asked to forget when three
//! quarters of the descriptors are nodes, and who would make more of them waits a moment at seven eighths; the rest is for
//! what is open. **Invariant:** nobody waits here with a lock held, nor for longer than [`WAITS`] times [`WAIT`].

use rustix::process::{Resource, getrlimit};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a lookup waits for room. Where nothing goes meanwhile it goes on: an eighth is left.
const WAIT: Duration = Duration::from_millis(500);
/// How often, while others take the room that is made.
const WAITS: usize = 10;

/// How long what the kernel forgot may be on its way.
const SETTLE: Duration = Duration::from_millis(20);

/// See the module's page.
#[derive(Debug)]
pub struct Room {
    nodes: AtomicUsize,
    /// How many went, ever.
    gone: AtomicUsize,
    most: usize,
    crowded: AtomicBool,
    over: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Room {
    /// What the limits of this process allow.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::new(getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize))
    }

    fn new(most: usize) -> Self {
        let (crowded, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            nodes: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            most,
            crowded,
            over,
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Acquire)
    }

    /// One more.
    pub(super) fn taken(&self) {
        let nodes = self.nodes.fetch_add(1, Ordering::AcqRel) + 1;
        if nodes > self.most / 4 * 3 && !self.crowded.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// One less.
    pub(super) fn given(&self) {
        self.nodes.fetch_sub(1, Ordering::AcqRel);
        self.gone.fetch_add(1, Ordering::Relaxed);
        if self.crowded.load(Ordering::Acquire) {
            self.wake();
        }
    }

    fn wake(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits, for a moment at most, while there are too many.
    pub fn wait(&self) {
        let is_full = || self.nodes() > self.most / 8 * 7;
        for _ in 0..WAITS {
            let gone = self.gone.load(Ordering::Relaxed);
            if !is_full() {
                return;
            }
            self.wait_while(WAIT, is_full);
            if self.gone.load(Ordering::Relaxed) == gone {
                return;
            }
        }
    }

    fn wait_while(&self, at_most: Duration, condition: impl Fn() -> bool) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |(): &mut ()| condition() && !self.over.load(Ordering::Acquire);
        drop(self.changed.wait_timeout_while(guard, at_most, waiting));
    }

    /// For whoever makes room: waits until there is a need. `false`: it is over.
    pub fn is_needed(&self) -> bool {
        while !self.over.load(Ordering::Acquire) {
            if self.crowded.load(Ordering::Acquire) {
                return true;
            }
            self.wait_while(Duration::from_secs(60), || !self.crowded.load(Ordering::Acquire));
        }
        false
    }

    /// For whoever makes room: does `ask`, which asks so many away, and waits until most of them went, or will not. `true`:
    /// there is enough now.
    pub fn make(&self, asked: usize, ask: impl FnOnce()) -> bool {
        let before = self.nodes();
        ask();
        let enough = || self.nodes() <= self.most / 8 * 5;
        self.wait_while(SETTLE, || !enough() && before.saturating_sub(self.nodes()) < asked / 2);
        if enough() {
            self.crowded.store(false, Ordering::Release);
        }
        enough()
    }

    /// For whoever makes room: everything was asked away that can be, and it is not enough. Not again at once.
    pub fn rest(&self) {
        self.wait_while(Duration::from_secs(1), || true);
    }

    /// Nobody makes room any more.
    pub fn close(&self) {
        self.over.store(true, Ordering::Release);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn who_makes_room_is_called_at_three_quarters_and_is_done_at_five_eighths() {
        let room = Arc::new(Room::new(80));
        let maker = std::thread::spawn({
            let room = room.clone();
            move || {
                let mut given = 0;
                while room.is_needed() {
                    loop {
                        given += 1;
                        if room.make(1, || room.given()) {
                            break;
                        }
                    }
                    room.close();
                }
                given
            }
        });
        (0..60).for_each(|_| room.taken());
        assert!(!room.crowded.load(Ordering::Acquire));
        room.taken();
        assert_eq!(maker.join().unwrap(), 11);
        assert!(!room.crowded.load(Ordering::Acquire));
        // Nobody makes room any more: who waits is not kept.
        (0..20).for_each(|_| room.taken());
        room.wait();
    }
}
