//! One FUSE connection: mounted, negotiated, read by a few threads.
//!
//! It owns `/dev/fuse` and the mount; it knows nothing of files. **Invariant:** every request that wants an
//! answer gets exactly one, and a request's answer passes the gate.

mod buffer;
mod mount;
mod notices;
mod reply;

pub use buffer::Buffer;
pub use mount::{FSTYPE, MountError, attach, detach};
pub use notices::Notices;
pub use reply::{Channel, Reply};

use crate::abi::{self, InHeader, init, op};
use crate::gate::Gate;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// `linux/prctl.h`; 5.6 and newer.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Threads that take requests from one mount. They do not wait for the peer, only for the disk and the gate.
pub const WORKERS: usize = 12;

/// One request, borrowed from its worker's buffer.
pub struct Request<'b> {
    /// Header.
    pub head: InHeader,
    /// What follows it.
    pub body: &'b [u8],
}

/// What to do with requests.
pub trait Handler: Send + Sync {
    /// Serves one request: sends `reply`, or gives it to a completion. `scratch` is the worker's own.
    fn serve(&self, request: &Request<'_>, reply: Reply, scratch: &mut Buffer);
}

/// A mounted, negotiated connection with its workers.
pub struct Session {
    channel: Arc<Channel>,
    workers: Vec<JoinHandle<()>>,
    path: String,
    resends: bool,
}

impl Session {
    /// Mounts over `path` (the topmost thing there) and serves it with `handler`.
    ///
    /// # Errors
    /// [`MountError`]; nothing stays mounted.
    pub fn start(
        path: &str,
        name: &str,
        lower: impl AsFd,
        gate: Arc<Gate>,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, MountError> {
        let device = attach(path, name, lower)?;
        let channel = Arc::new(Channel::new(device, gate));
        let resends = handshake(&channel).inspect_err(|_| {
            let _ = detach(path, true);
        })?;
        Self::serve(channel, path, resends, handler)
    }

    /// Goes on with a connection that another process had, from what it has not answered.
    ///
    /// # Errors
    /// [`MountError`]; the mount stays, without anybody who serves it.
    pub fn inherit(
        device: OwnedFd,
        features: u32,
        path: &str,
        gate: Arc<Gate>,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, MountError> {
        let channel = Arc::new(Channel::new(device, gate));
        channel.negotiated(features);
        channel.ask_again().map_err(MountError::Handshake)?;
        Self::serve(channel, path, true, handler)
    }

    fn serve(channel: Arc<Channel>, path: &str, resends: bool, handler: Arc<dyn Handler>) -> Result<Self, MountError> {
        let mut workers = Vec::with_capacity(WORKERS);
        for number in 0..WORKERS {
            let (channel, handler) = (channel.clone(), handler.clone());
            let worker = thread::Builder::new().name(format!("fuse-{number}"));
            workers.push(worker.spawn(move || work(&channel, &*handler)).map_err(MountError::Worker)?);
        }
        Ok(Self { channel, workers, path: path.to_owned(), resends })
    }

    /// The kernel can be asked for its requests again: another process can go on when this one dies.
    #[must_use]
    pub const fn resends(&self) -> bool {
        self.resends
    }

    /// `/dev/fuse`, and the features agreed on.
    #[must_use]
    pub fn connection(&self) -> (BorrowedFd<'_>, u32) {
        (self.channel.device(), self.channel.features())
    }

    /// What the kernel can be told without a question.
    #[must_use]
    pub fn notices(&self) -> Notices {
        Notices::new(self.channel.clone())
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes the mount away. `force`: now, whoever is in it, aborting what is not answered. Otherwise only if
    /// nobody uses it (`EBUSY`), after the kernel wrote back what it had: that needs an open gate.
    ///
    /// # Errors
    /// As `umount2`. The session goes on.
    pub fn unmount(&self, force: bool) -> Result<(), Errno> {
        detach(&self.path, force)
    }

    /// Waits for the workers after [`Session::unmount`]. `false`: the deadline passed, one is stuck.
    #[must_use]
    pub fn join(self, deadline: Instant) -> bool {
        let all_ended = || self.workers.iter().all(JoinHandle::is_finished);
        while !all_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        all_ended()
    }
}

/// The first request is `INIT`; nothing else comes before its answer. `true`: the kernel can give requests again.
fn handshake(channel: &Arc<Channel>) -> Result<bool, MountError> {
    let mut buffer = Buffer::new();
    loop {
        let length = channel.receive(&mut buffer).map_err(MountError::Handshake)?;
        let Some((head, body)) = abi::take::<InHeader>(buffer.bytes(length)) else { continue };
        if head.opcode != op::INIT {
            Reply::new(channel.clone(), head.unique).err(Errno::IO);
            continue;
        }
        let Some((hello, rest)) = abi::take::<abi::InitIn>(body) else {
            return Err(MountError::Handshake(Errno::PROTO));
        };
        let reply = Reply::new(channel.clone(), head.unique);
        if hello.major > abi::MAJOR {
            // The kernel asks again with our major.
            reply.ok_at_once(zerocopy::IntoBytes::as_bytes(&abi::InitOut { major: abi::MAJOR, ..Default::default() }));
            continue;
        }
        if hello.major < abi::MAJOR || hello.minor < abi::MINOR_MIN {
            reply.err(Errno::PROTO);
            return Err(MountError::TooOld { major: hello.major, minor: hello.minor });
        }
        // Nothing to agree on: it is there or not.
        let more =
            if hello.flags & init::INIT_EXT == 0 { 0 } else { abi::take::<u32>(rest).map_or(0, |(more, _)| more) };
        // Not ASYNC_DIO: pages that somebody reads while such a write is under way are not forgotten when it ends, so a backup
        // would read old data for good (xfstests generic/451). Connections of an earlier program may have it.
        // Not ATOMIC_O_TRUNC: the kernel would have the file truncated before it looks whether the open is refused
        // (ETXTBSY). Connections of an earlier program may have it.
        let wanted = init::ASYNC_READ
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::POSIX_ACL
            | init::MAX_PAGES
            | init::CACHE_SYMLINKS
            | init::EXPLICIT_INVAL_DATA
            | init::HANDLE_KILLPRIV_V2
            | init::SETXATTR_EXT;
        let flags = hello.flags & wanted;
        channel.negotiated(flags);
        let answer = abi::InitOut {
            major: abi::MAJOR,
            minor: hello.minor.min(abi::MINOR),
            max_readahead: hello.max_readahead.min(abi::MAX_WRITE as u32),
            flags,
            max_background: 64,
            congestion_threshold: 48,
            max_write: abi::MAX_WRITE as u32,
            time_gran: 1,
            max_pages: (abi::MAX_WRITE / 4096) as u16,
            ..Default::default()
        };
        reply.ok_at_once(zerocopy::IntoBytes::as_bytes(&answer));
        return Ok(more & init::HAS_RESEND != 0);
    }
}

fn work(channel: &Arc<Channel>, handler: &dyn Handler) {
    // A umask of its own: it is the caller's for the length of one create.
    // SAFETY: no pointers; affects only this thread.
    unsafe { libc::unshare(libc::CLONE_FS) };
    // We are in the write-back path of our own mount: memory reclaim must not wait for us.
    // SAFETY: no pointers; affects only this thread. Without the capability it fails and costs only the hint.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    let mut buffer = Buffer::new();
    buffer.populate();
    let mut scratch = Buffer::new();
    // Ends with ENODEV: unmounted or aborted.
    while let Ok(length) = channel.receive(&mut buffer) {
        let Some((head, body)) = abi::take::<InHeader>(buffer.bytes(length)) else { continue };
        let reply = match head.opcode {
            op::FORGET | op::BATCH_FORGET => Reply::silent(channel.clone()),
            _ => Reply::new(channel.clone(), head.unique),
        };
        handler.serve(&Request { head, body }, reply, &mut scratch);
    }
}
