//! Frames that a thread of their own receives and decrypts while others are made here: a target has much to write.
//!
//! Only as long as a resync lasts. Once the copies are equal a change is waited for, and handing it from one thread to
//! another would cost more than is won. **Invariant:** the thread reads nothing behind the frame that it was told is the
//! last one, so that its reader goes on where it stopped.

use super::{FrameReader, LinkError};
use replica::wire::{Header, Kind, Message, decode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Frames received and not made yet; each is at most as long as a frame may be.
const AHEAD_MAX: usize = 8;

/// Where a follower's frames come from.
pub enum Frames<'s> {
    /// Read when they are asked for.
    Asked(Box<FrameReader>),
    /// Read by a thread.
    Ahead(Ahead<'s>),
}

/// The receiving end of the thread.
pub struct Ahead<'s> {
    frames: Receiver<Result<(Header, Vec<u8>), LinkError>>,
    /// Buffers go back: they are large, and new memory is slow. No more than are under way.
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    waiting: Arc<AtomicUsize>,
    thread: ScopedJoinHandle<'s, Box<FrameReader>>,
}

impl<'s> Frames<'s> {
    /// From here on a thread of `scope` reads, until a frame of the kind `last`.
    pub fn ahead<'e>(scope: &'s Scope<'s, 'e>, reader: Box<FrameReader>, payload_max: u32, last: Kind) -> Self {
        let (give, frames) = sync_channel(AHEAD_MAX);
        let (used, free) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let thread = scope.spawn(move || read(reader, &give, &free, &counter, (payload_max, last)));
        Self::Ahead(Ahead { frames, used, current: Vec::new(), waiting, thread })
    }

    /// The thread has read its last frame, and it was made: its reader goes on.
    #[must_use]
    pub fn asked(self) -> Self {
        match self {
            Self::Asked(reader) => Self::Asked(reader),
            Self::Ahead(ahead) => {
                drop(ahead.frames);
                // A panic in it has aborted the process already.
                ahead.thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Self::Asked)
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// As [`FrameReader::next`].
    pub fn next(&mut self, payload_max: u32) -> Result<(Header, Message<'_>), LinkError> {
        match self {
            Self::Asked(reader) => reader.next(payload_max),
            Self::Ahead(ahead) => {
                let ended = || LinkError::Protocol("the receiving thread ended".into());
                // The thread may be gone, with its last frame given.
                let _ = ahead.used.send(std::mem::take(&mut ahead.current));
                let (header, payload) = ahead.frames.recv().map_err(|_| ended())??;
                ahead.waiting.fetch_sub(1, Ordering::AcqRel);
                ahead.current = payload;
                Ok((header, decode(&header, &ahead.current[..header.length as usize], crc32c::crc32c)?))
            }
        }
    }

    /// Is at least the beginning of another frame here already?
    #[must_use]
    pub fn has_more(&self) -> bool {
        match self {
            Self::Asked(reader) => reader.has_more(),
            Self::Ahead(ahead) => ahead.waiting.load(Ordering::Acquire) > 0,
        }
    }
}

/// Until the last frame, an error, or nobody wants more.
fn read(
    mut reader: Box<FrameReader>,
    give: &SyncSender<Result<(Header, Vec<u8>), LinkError>>,
    free: &Receiver<Vec<u8>>,
    waiting: &AtomicUsize,
    (payload_max, last): (u32, Kind),
) -> Box<FrameReader> {
    loop {
        let mut payload = free.try_recv().unwrap_or_default();
        let frame = reader.take(payload_max, &mut payload).map(|header| (header, payload));
        let is_last = frame.as_ref().map_or(true, |(header, _)| header.kind == last);
        waiting.fetch_add(1, Ordering::AcqRel);
        if give.send(frame).is_err() || is_last {
            return reader;
        }
    }
}
