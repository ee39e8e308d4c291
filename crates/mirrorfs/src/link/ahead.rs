//! Frames that a thread of their own receives and decrypts while others are made here: a target has much to write.
//!
//! Only as long as a resync lasts. Once the copies are equal a change is waited for, and handing it from one thread to
//! another would cost more than is won. **Invariant:** the thread reads nothing behind the frame that it was told is the
//! last one, so that its reader goes on where it stopped.

use super::{FrameReader, LinkError};
use replica::wire::{HEADER_BYTES, Header, Kind, Message, decode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Batches received and not made yet.
const AHEAD_MAX: usize = 8;
/// A batch is handed over when it has so much, or when nothing more is here; it is longer by one frame at most.
const BATCH_BYTES: usize = 256 << 10;

/// Whole frames: bytes, and how many of them count.
type Batch = (Vec<u8>, usize);

/// Where a follower's frames come from.
pub enum Frames<'s> {
    /// Read when they are asked for.
    Asked(Box<FrameReader>),
    /// Read by a thread.
    Ahead(Ahead<'s>),
}

/// The receiving end of the thread.
pub struct Ahead<'s> {
    batches: Receiver<Result<Batch, LinkError>>,
    /// Buffers go back: they are large, and new memory is slow. No more than are under way.
    used: Sender<Vec<u8>>,
    current: Batch,
    /// So much of it was given.
    at: usize,
    waiting: Arc<AtomicUsize>,
    thread: ScopedJoinHandle<'s, Box<FrameReader>>,
}

impl<'s> Frames<'s> {
    /// From here on a thread of `scope` reads, until a frame of the kind `last`.
    pub fn ahead<'e>(scope: &'s Scope<'s, 'e>, reader: Box<FrameReader>, payload_max: u32, last: Kind) -> Self {
        let (give, batches) = sync_channel(AHEAD_MAX);
        let (used, free) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let thread = scope.spawn(move || read(reader, &give, &free, &counter, (payload_max, last)));
        Self::Ahead(Ahead { batches, used, current: Batch::default(), at: 0, waiting, thread })
    }

    /// The thread has read its last frame, and it was made: its reader goes on.
    #[must_use]
    pub fn asked(self) -> Self {
        match self {
            Self::Asked(reader) => Self::Asked(reader),
            Self::Ahead(ahead) => {
                drop(ahead.batches);
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
                if ahead.at == ahead.current.1 {
                    // The thread may be gone, with its last frame given.
                    let _ = ahead.used.send(std::mem::take(&mut ahead.current).0);
                    ahead.at = 0;
                    ahead.current = ahead.batches.recv().map_err(|_| ended())??;
                    ahead.waiting.fetch_sub(1, Ordering::AcqRel);
                }
                let rest = &ahead.current.0[ahead.at..ahead.current.1];
                let (head, rest) = rest.split_first_chunk::<HEADER_BYTES>().ok_or_else(ended)?;
                let header = Header::decode(head)?;
                let payload = rest.get(..header.length as usize).ok_or_else(ended)?;
                ahead.at += HEADER_BYTES + payload.len();
                Ok((header, decode(&header, payload, crc32c::crc32c)?))
            }
        }
    }

    /// Is at least the beginning of another frame here already?
    #[must_use]
    pub fn has_more(&self) -> bool {
        match self {
            Self::Asked(reader) => reader.has_more(),
            Self::Ahead(ahead) => ahead.at < ahead.current.1 || ahead.waiting.load(Ordering::Acquire) > 0,
        }
    }
}

/// Until the last frame, an error, or nobody wants more.
fn read(
    mut reader: Box<FrameReader>,
    give: &SyncSender<Result<Batch, LinkError>>,
    free: &Receiver<Vec<u8>>,
    waiting: &AtomicUsize,
    (payload_max, last): (u32, Kind),
) -> Box<FrameReader> {
    loop {
        let (mut batch, mut len) = (free.try_recv().unwrap_or_default(), 0);
        let ended = loop {
            match reader.take(payload_max, &mut batch, &mut len) {
                Ok(header) if header.kind == last => break Some(None),
                Ok(_) if len >= BATCH_BYTES || !reader.has_more() => break None,
                Ok(_) => {}
                Err(e) => break Some(Some(e)),
            }
        };
        // What came whole is made, whatever came after it.
        let whole = (len > 0).then_some(Ok((batch, len)));
        let is_over = ended.is_some();
        for part in whole.into_iter().chain(ended.flatten().map(Err)) {
            waiting.fetch_add(1, Ordering::AcqRel);
            if give.send(part).is_err() {
                return reader;
            }
        }
        if is_over {
            return reader;
        }
    }
}
