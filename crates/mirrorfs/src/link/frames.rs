//! Frames on a channel, whole ones only.

use super::{Channel, LinkError};
use replica::wire::{Envelope, HEADER_BYTES, Header, Message, decode, encode};

/// Small frames are gathered up to here before they are handed to TLS.
const GATHER_BYTES: usize = 64 * 1024;

/// Reads frames.
pub struct FrameReader {
    channel: Channel,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    /// Takes the channel over.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel, buffer: vec![0; GATHER_BYTES], start: 0, end: 0 }
    }

    /// The channel below.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Gives the channel back, with whatever was read ahead (a follower may speak right after its greeting).
    #[must_use]
    pub fn into_channel(mut self) -> Channel {
        self.channel.unread(&self.buffer[self.start..self.end]);
        self.channel
    }

    /// Is at least the beginning of another frame here already?
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.end > self.start || self.channel.has_more()
    }

    /// The next frame, at most `payload_max` long.
    ///
    /// # Errors
    /// Closed, silent, garbage. The connection is of no further use.
    pub fn next(&mut self, payload_max: u32) -> Result<(Header, Message<'_>), LinkError> {
        let header = self.header(payload_max)?;
        let whole = HEADER_BYTES + header.length as usize;
        self.need(whole)?;
        let payload = &self.buffer[self.start + HEADER_BYTES..self.start + whole];
        self.start += whole;
        Ok((header, decode(&header, payload, crc32c::crc32c)?))
    }

    /// The next frame's header, which stays where it is.
    fn header(&mut self, payload_max: u32) -> Result<Header, LinkError> {
        self.need(HEADER_BYTES)?;
        let head: &[u8; HEADER_BYTES] =
            self.buffer[self.start..self.end].first_chunk().expect("need() brought a whole header");
        let header = Header::decode(head)?;
        if header.length > payload_max {
            return Err(replica::wire::WireError::TooLong { length: header.length }.into());
        }
        Ok(header)
    }

    /// Appends the next frame as it came (its check sum is not looked at) at `batch[*len..]`, which grows when it must.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn take(&mut self, payload_max: u32, batch: &mut Vec<u8>, len: &mut usize) -> Result<Header, LinkError> {
        let header = self.header(payload_max)?;
        let end = *len + HEADER_BYTES + header.length as usize;
        if batch.len() < end {
            batch.resize(end, 0);
        }
        let here = (end - *len).min(self.end - self.start);
        batch[*len..*len + here].copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        // The rest comes where it is wanted.
        let mut at = *len + here;
        while at < end {
            at += self.channel.read_some(&mut batch[at..end])?;
        }
        *len = end;
        Ok(header)
    }

    fn need(&mut self, bytes: usize) -> Result<(), LinkError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + bytes > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if bytes > self.buffer.len() {
                self.buffer.resize(bytes.next_power_of_two(), 0);
            }
        }
        while self.end - self.start < bytes {
            self.end += self.channel.read_some(&mut self.buffer[self.end..])?;
        }
        Ok(())
    }
}

/// Writes frames.
pub struct FrameWriter {
    channel: Channel,
    gathered: Vec<u8>,
}

impl FrameWriter {
    /// Takes the channel over.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel, gathered: Vec::with_capacity(GATHER_BYTES) }
    }

    /// Gives the channel back, when nothing is gathered.
    #[must_use]
    pub fn into_channel(self) -> Channel {
        self.channel
    }

    /// One encoded frame; it may wait for [`Self::flush`].
    ///
    /// # Errors
    /// The connection is gone.
    pub fn put(&mut self, frame: &[u8]) -> Result<(), LinkError> {
        if self.gathered.len() + frame.len() > GATHER_BYTES {
            self.flush()?;
        }
        if frame.len() >= GATHER_BYTES {
            self.channel.write_all(frame)?;
        } else {
            self.gathered.extend_from_slice(frame);
        }
        Ok(())
    }

    /// One message, pushed out at once.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, message: &Message<'_>, envelope: &Envelope) -> Result<(), LinkError> {
        encode(message, envelope, crc32c::crc32c, &mut self.gathered);
        self.flush()
    }

    /// One message that may wait for the next [`Self::send`] or [`Self::flush`].
    pub fn gather(&mut self, message: &Message<'_>, envelope: &Envelope) {
        encode(message, envelope, crc32c::crc32c, &mut self.gathered);
    }

    /// Pushes out what was gathered.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        if !self.gathered.is_empty() {
            self.channel.write_all(&self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }
}
