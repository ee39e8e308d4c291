//! What stands between the kernel's requests and their answers: hold, open, fenced, and the agent's lease.
//!
//! It owns the waiting of requests and the answers that may not leave yet; it decides nothing.
//! **Invariant (I9):** nothing is answered while held or while the lease has lapsed; everything is answered
//! `EIO`, at once, when fenced. Every wait here ends with [`Gate::fence`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Fenced: the request is answered `EIO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced;

/// What becomes of an answer that was parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Send it as it is.
    Send,
    /// Send `EIO` instead.
    Refuse,
}

/// An answer that waits for its [`Verdict`].
pub type Parked = Box<dyn FnOnce(Verdict) + Send>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Held,
    Open,
    Fenced,
}

struct Inner {
    state: State,
    /// Boot-time nanoseconds at which the lease ends.
    lease_until: u64,
    parked: Vec<Parked>,
}

/// See the module's page.
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Boot-time nanoseconds until which requests may pass; zero while not open. Read without the lock.
    open_until: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// Held, no lease.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Mutex::new(Inner { state: State::Held, lease_until: 0, parked: Vec::new() }),
            changed: Condvar::new(),
            open_until: AtomicU64::new(0),
        }
    }

    /// Waits until requests may pass.
    ///
    /// # Errors
    /// [`Fenced`].
    pub fn pass(&self) -> Result<(), Fenced> {
        loop {
            if self.is_open() {
                return Ok(());
            }
            let inner = self.lock();
            match inner.state {
                State::Fenced => return Err(Fenced),
                State::Open if now() < inner.lease_until => return Ok(()),
                // Woken by every change of state and every lease; the timeout only bounds a missed wake-up.
                _ => drop(self.changed.wait_timeout(inner, Duration::from_secs(1))),
            }
        }
    }

    /// Open, and the lease is valid right now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        now() < self.open_until.load(Ordering::Acquire)
    }

    /// Sends `answer` now if answers may leave, refuses it if fenced, and keeps it until then otherwise.
    /// Never blocks. (At most one parked answer per request the kernel has outstanding.)
    pub fn answer(&self, answer: Parked) {
        if self.is_open() {
            return answer(Verdict::Send);
        }
        let mut inner = self.lock();
        match inner.state {
            State::Fenced => {
                drop(inner);
                answer(Verdict::Refuse);
            }
            State::Open if now() < inner.lease_until => {
                drop(inner);
                answer(Verdict::Send);
            }
            _ => inner.parked.push(answer),
        }
    }

    /// No answer leaves from here on.
    pub fn hold(&self) {
        self.set(Some(State::Held), None);
    }

    /// Requests pass, as far as the lease reaches. A fenced gate stays fenced.
    pub fn open(&self) {
        self.set(Some(State::Open), None);
    }

    /// Everything waiting, and everything to come, is answered `EIO`. Final until [`Gate::reset`].
    pub fn fence(&self) {
        self.set(Some(State::Fenced), None);
    }

    /// Held again after a fence, once nothing of what was fenced is left.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.state = State::Held;
        self.open_until.store(0, Ordering::Release);
    }

    /// The agent is alive: answers may leave for this long.
    pub fn lease(&self, valid: Duration) {
        self.set(None, Some(valid));
    }

    /// For how long an open gate that had a lease has let nothing pass for want of it.
    #[must_use]
    pub fn lapsed(&self) -> Duration {
        let inner = self.lock();
        let counts = inner.state == State::Open && inner.lease_until > 0;
        Duration::from_nanos(if counts { now().saturating_sub(inner.lease_until) } else { 0 })
    }

    /// Fenced for good.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.state() == State::Fenced
    }

    fn state(&self) -> State {
        self.lock().state
    }

    fn set(&self, state: Option<State>, lease: Option<Duration>) {
        let mut inner = self.lock();
        if let Some(state) = state
            && inner.state != State::Fenced
        {
            inner.state = state;
        }
        if let Some(valid) = lease {
            let nanos = u64::try_from(valid.as_nanos()).unwrap_or(u64::MAX);
            inner.lease_until = now().saturating_add(nanos);
        }
        let open_until = if inner.state == State::Open { inner.lease_until } else { 0 };
        self.open_until.store(open_until, Ordering::Release);
        let verdict = match inner.state {
            State::Fenced => Some(Verdict::Refuse),
            State::Open if now() < open_until => Some(Verdict::Send),
            _ => None,
        };
        let ready = if verdict.is_some() { std::mem::take(&mut inner.parked) } else { Vec::new() };
        drop(inner);
        self.changed.notify_all();
        if let Some(verdict) = verdict {
            ready.into_iter().for_each(|answer| answer(verdict));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process (I8): poison is never seen.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds of the boot-time clock: it counts while the machine is suspended or the process frozen.
#[must_use]
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
