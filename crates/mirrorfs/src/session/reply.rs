//! Answers on their way back to the kernel.

use super::Buffer;
use crate::abi::{self, InHeader, OutHeader};
use crate::gate::{Gate, Verdict};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::IntoBytes;

/// `/dev/fuse`, and the gate its answers pass.
pub struct Channel {
    device: OwnedFd,
    gate: Arc<Gate>,
    flags: AtomicU32,
}

impl Channel {
    pub(super) fn new(device: OwnedFd, gate: Arc<Gate>) -> Self {
        Self { device, gate, flags: AtomicU32::new(0) }
    }

    pub(super) fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    pub(super) fn negotiated(&self, flags: u32) {
        self.flags.store(flags, Ordering::Release);
    }

    /// What was agreed on (`abi::init`).
    pub(super) fn features(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }

    /// Asks for everything again that is not answered yet. Nobody may have read from the connection.
    pub(super) fn ask_again(&self) -> Result<(), Errno> {
        let head = OutHeader { len: size_of::<OutHeader>() as u32, error: abi::NOTIFY_RESEND, unique: 0 };
        rustix::io::write(&self.device, head.as_bytes()).map(drop)
    }

    /// Tells the kernel something that it did not ask for.
    pub(super) fn notify(&self, what: i32, body: &[&[u8]]) -> Result<(), Errno> {
        let length = size_of::<OutHeader>() + body.iter().map(|part| part.len()).sum::<usize>();
        let head = OutHeader { len: length as u32, error: what, unique: 0 };
        let parts: Vec<_> = std::iter::once(head.as_bytes()).chain(body.iter().copied()).map(IoSlice::new).collect();
        rustix::io::writev(&self.device, &parts).map(drop)
    }

    /// A feature (`abi::init`) was agreed on.
    #[must_use]
    pub fn has(&self, feature: u32) -> bool {
        self.flags.load(Ordering::Acquire) & feature != 0
    }

    /// The next request's length; it is in `buffer` then.
    pub(super) fn receive(&self, buffer: &mut Buffer) -> Result<usize, Errno> {
        loop {
            match rustix::io::read(&self.device, &mut *buffer.request()) {
                Ok(length) if length >= size_of::<InHeader>() => return Ok(length),
                // ENOENT: the request was interrupted before we had it.
                Ok(_) | Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn send(&self, unique: u64, error: i32, body: &[u8]) {
        let length = size_of::<OutHeader>() + body.len();
        let head = OutHeader { len: u32::try_from(length).expect("an answer is at most 1 MiB"), error, unique };
        if let Some(whole) = Small::new(&head, body) {
            // As below.
            let _ = rustix::io::write(&self.device, whole.bytes());
            return;
        }
        // ENOENT: the request was aborted meanwhile; ENODEV: unmounted. Nobody waits for it in either case.
        let _ = rustix::io::writev(&self.device, &[IoSlice::new(head.as_bytes()), IoSlice::new(body)]);
    }
}

/// A short answer in one piece: the kernel looks up the memory of every piece, which costs it more than we save by not copying.
#[repr(align(512))]
struct Small {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Small {
    /// With the length beside it 512 bytes: never on two pages.
    const MOST: usize = 512 - size_of::<usize>();

    /// `None`: it is too long.
    fn new(head: &OutHeader, body: &[u8]) -> Option<Self> {
        const HEAD: usize = size_of::<OutHeader>();
        let length = HEAD + body.len();
        let mut bytes = [0; Self::MOST];
        bytes[..HEAD].copy_from_slice(head.as_bytes());
        bytes.get_mut(HEAD..length)?.copy_from_slice(body);
        Some(Self { bytes, length })
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The right to answer one request, once. Dropped unused, it answers `EIO`.
pub struct Reply {
    channel: Option<Arc<Channel>>,
    unique: u64,
}

impl Reply {
    pub(super) fn new(channel: Arc<Channel>, unique: u64) -> Self {
        Self { channel: Some(channel), unique }
    }

    /// What the mount that asks can be told besides; `None`: it was answered.
    pub fn notices(&self) -> Option<super::Notices> {
        self.channel.clone().map(super::Notices::new)
    }

    /// For requests that have no answer.
    pub(super) fn silent(_channel: Arc<Channel>) -> Self {
        Self { channel: None, unique: 0 }
    }

    /// Success, once the gate lets it.
    pub fn ok(mut self, body: &[u8]) {
        let Some(channel) = self.channel.take() else { return };
        let unique = self.unique;
        if channel.gate.is_open() {
            return channel.send(unique, 0, body);
        }
        let (body, gate) = (body.to_vec(), channel.gate.clone());
        gate.answer(Box::new(move |verdict| match verdict {
            Verdict::Send => channel.send(unique, 0, &body),
            Verdict::Refuse => channel.send(unique, -Errno::IO.raw_os_error(), &[]),
        }));
    }

    /// Success of something that tells and changes nothing: not gated.
    pub fn ok_at_once(mut self, body: &[u8]) {
        if let Some(channel) = self.channel.take() {
            channel.send(self.unique, 0, body);
        }
    }

    /// An error. Also gated (an error tells of the tree as well), except `EIO` and `ENOSYS`.
    pub fn err(mut self, errno: Errno) {
        let Some(channel) = self.channel.take() else { return };
        let unique = self.unique;
        let gated = !matches!(errno, Errno::IO | Errno::NOSYS);
        if !gated || channel.gate.is_open() {
            return channel.send(unique, -errno.raw_os_error(), &[]);
        }
        let gate = channel.gate.clone();
        gate.answer(Box::new(move |verdict| {
            let errno = if verdict == Verdict::Send { errno } else { Errno::IO };
            channel.send(unique, -errno.raw_os_error(), &[]);
        }));
    }

    /// The gate of this connection.
    #[must_use]
    pub fn gate(&self) -> Option<&Gate> {
        self.channel.as_deref().map(|channel| &*channel.gate)
    }

    /// A feature was agreed on.
    #[must_use]
    pub fn has(&self, feature: u32) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.has(feature))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.send(self.unique, -Errno::IO.raw_os_error(), &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_answer_is_one_piece_on_one_page_and_a_long_one_is_none() {
        let head = OutHeader { len: 20, error: 0, unique: 7 };
        let small = Small::new(&head, b"body").unwrap();
        assert_eq!(small.bytes(), [head.as_bytes(), b"body"].concat());
        assert!(small.bytes().as_ptr().addr() % 4096 + Small::MOST <= 4096);
        let most = Small::MOST - size_of::<OutHeader>();
        assert!(Small::new(&head, &vec![1; most]).is_some_and(|small| small.bytes().ends_with(&[1, 1])));
        assert!(Small::new(&head, &vec![1; most + 1]).is_none());
    }
}
