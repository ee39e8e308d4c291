//! How frames leave: with `ack="commit"`, whoever has one that is waited for sends it, together with all that gathered.
//!
//! A change that nobody waits for stays a moment (at most [`CORK`]), so that many share one record of TLS, one system
//! call and one acknowledgement. One thread sends at a time; the session's own thread sends what nobody else does.
//! **Invariant:** frames leave in the order of the window, and no frame stays longer than `CORK` while the wire takes it.

use super::{Inner, Leader, lock};
use crate::link::{FrameWriter, LinkError, beat};
use model::orders::Report;
use replica::wire::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a frame that nobody waits for may stay.
const CORK: Duration = Duration::from_millis(1);
/// Unless so much has gathered.
const CORK_BYTES: usize = 64 << 10;
/// So much is better sent by the thread of its own, while the front does other things.
const HAND_OVER_BYTES: usize = 256 << 10;
/// Bytes handed to the socket before the lock is looked at again.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that a borrowed thread sends before it goes back to its own work.
const BORROWED_BATCHES: u32 = 4;
/// Looks of the sending thread that find nothing, until it sleeps.
const QUIET_LOOKS: u32 = 20;

/// What is known of the frames that are not sent.
#[derive(Default)]
pub(super) struct Sending {
    /// A thread sends, and will look again before it stops.
    busy: bool,
    /// One of them is waited for.
    awaited: bool,
    bytes: usize,
    /// The session's thread is to send now.
    urgent: bool,
    /// It looks every [`CORK`] by itself.
    awake: bool,
}

impl Sending {
    pub fn pushed(&mut self, bytes: usize, awaited: bool) {
        self.bytes += bytes;
        self.awaited |= awaited;
    }

    /// A question to the peer: its answer is waited for.
    pub fn asked(&mut self) {
        self.awaited = true;
    }
}

/// The connection of one session, and when it was last used.
pub(super) struct Outgoing {
    generation: u64,
    writer: FrameWriter,
    heartbeat: Vec<u8>,
    batch: Vec<Arc<Vec<u8>>>,
    sent_at: Instant,
}

impl Leader {
    /// From here on this generation's frames leave by `writer`.
    pub(super) fn send_by(&self, generation: u64, writer: FrameWriter) {
        let mut outgoing = lock(&self.outgoing);
        let mut inner = lock(&self.inner);
        let heartbeat = Self::frame(&inner, &Message::Heartbeat);
        if inner.generation == generation {
            // What gathered before, or is sent again.
            inner.sending = Sending { awaited: true, urgent: true, ..Sending::default() };
            *outgoing = Some(Outgoing { generation, writer, heartbeat, batch: Vec::new(), sent_at: Instant::now() });
        }
    }

    /// The sending thread must be awake: it looks within [`CORK`].
    pub(super) fn rouse(&self, inner: &mut Inner) {
        if !inner.sending.awake {
            inner.sending.awake = true;
            self.work.notify_one();
        }
    }

    /// The sending thread sends now.
    pub(super) fn hurry(&self, inner: &mut Inner) {
        if !inner.sending.urgent {
            inner.sending.urgent = true;
            self.work.notify_one();
        }
    }

    /// Not under the order lock: sends what is waited for, in this thread if that is quicker.
    pub(super) fn send_awaited(&self) {
        let mut inner = lock(&self.inner);
        if inner.sending.busy || inner.live.is_none() || !inner.window.has_unsent() {
            return;
        }
        // With ack="write" every change is waited for, nothing gathers, and a borrowed thread was not seen to be
        // quicker (rather the contrary, at the tail).
        if !self.acks_at_once() || inner.sending.bytes >= HAND_OVER_BYTES {
            return self.hurry(&mut inner);
        }
        if !inner.sending.awaited && inner.sending.bytes < CORK_BYTES {
            return;
        }
        let generation = inner.generation;
        drop(inner);
        self.pump(generation, BORROWED_BATCHES);
    }

    /// The session's own thread.
    pub(super) fn send_all(&self, generation: u64) {
        let (mut quiet, mut seen) = (0, 0);
        let beat = beat(self.configuration.silence());
        loop {
            let mut inner = lock(&self.inner);
            if inner.generation == generation && (!inner.sending.urgent || inner.sending.busy) {
                let pause = if inner.sending.awake { CORK } else { beat };
                inner = self.work.wait_timeout(inner, pause).map_or_else(|e| e.into_inner().0, |w| w.0);
            }
            if inner.generation != generation {
                return;
            }
            // Changes that others sent count: the next one is to find us awake, not to wake us.
            quiet = if inner.frames != seen { 0 } else { quiet + 1 };
            seen = inner.frames;
            inner.sending.urgent = false;
            inner.sending.awake = quiet < QUIET_LOOKS;
            drop(inner);
            self.pump(generation, u32::MAX);
            self.beat(generation);
        }
    }

    /// Sends until nothing is left, unless somebody does already.
    fn pump(&self, generation: u64, batches: u32) {
        {
            let mut inner = lock(&self.inner);
            if inner.generation != generation || inner.sending.busy || !inner.window.has_unsent() {
                return;
            }
            inner.sending.busy = true;
        }
        let mut outgoing = lock(&self.outgoing);
        let Some(out) = outgoing.as_mut().filter(|out| out.generation == generation) else {
            // Between two sessions: the next one's thread begins with what is there.
            let mut inner = lock(&self.inner);
            if inner.generation == generation {
                inner.sending.busy = false;
            }
            return;
        };
        let mut left = batches;
        loop {
            let mut inner = lock(&self.inner);
            if inner.generation != generation {
                return;
            }
            if left == 0 && inner.window.has_unsent() {
                inner.sending.busy = false;
                return self.hurry(&mut inner);
            }
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Some((_, change)) = inner.window.take_unsent()
            {
                bytes += change.frame.len();
                out.batch.push(change.frame.clone());
            }
            if out.batch.is_empty() {
                inner.sending.busy = false;
                return;
            }
            if !inner.window.has_unsent() {
                (inner.sending.bytes, inner.sending.awaited) = (0, false);
            }
            drop(inner);
            if let Err(e) = out.send() {
                drop(outgoing);
                return self.broken(generation, &e);
            }
            left -= 1;
        }
    }

    /// The follower hears of us even when nothing changes.
    fn beat(&self, generation: u64) {
        let mut outgoing = lock(&self.outgoing);
        let Some(out) = outgoing.as_mut().filter(|out| out.generation == generation) else { return };
        if out.sent_at.elapsed() < beat(self.configuration.silence()) {
            return;
        }
        out.batch.push(Arc::new(out.heartbeat.clone()));
        if let Err(e) = out.send() {
            drop(outgoing);
            self.broken(generation, &e);
        }
    }

    fn broken(&self, generation: u64, error: &LinkError) {
        self.lost(generation, |session| Report::LinkLost { session, reason: error.to_string() });
    }
}

impl Outgoing {
    fn send(&mut self) -> Result<(), LinkError> {
        self.sent_at = Instant::now();
        for frame in self.batch.drain(..) {
            self.writer.put(&frame)?;
        }
        self.writer.flush()
    }
}
