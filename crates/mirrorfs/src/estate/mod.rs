//! What a killed `mirrorfs` leaves to the next one: memory that the process shares with its keeper.
//!
//! The keeper ([`keeper`]) has the same table of descriptors as the process, so everything that was open stays open;
//! what is written here says what each descriptor is. One slot per descriptor number, nothing is searched, nothing is
//! flushed: it costs a few stores per lookup or open. **Invariants:** a slot is complete before the kernel hears of
//! what it describes, and empty before its descriptor is closed; counts may be too high after a death, never too low.

pub mod keeper;
mod slots;

pub use slots::{HandleSlot, NodeSlot};

use model::ids::{Epoch, NodeId};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Names the descriptor in the environment of whoever inherits.
const VARIABLE: &str = "STEAD_ESTATE";
/// What the memory begins with: changes with its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"stead-e1");
/// Descriptors with a slot; beyond, nothing can be inherited.
const SLOTS: usize = 1 << 20;
/// Changes that were applied and may not be answered yet. More are not under way: each has a caller that waits.
const APPLIED: usize = 1024;
const HEAD: usize = 16 << 10;
const DEVICES: usize = 16;
/// Deaths in a row before anything was served in between: whatever kills it would do so for ever.
const DEATHS_MAX: u32 = 8;

/// Words of one slot.
const WORDS: usize = 8;
type Slot = [AtomicU64; WORDS];

#[repr(C)]
struct Head {
    magic: AtomicU64,
    /// Next number for a node.
    next_id: AtomicU64,
    /// Slots in use lie below.
    high: AtomicU64,
    /// Mounts that can be taken over.
    mounts: AtomicU32,
    /// Something could not be noted.
    spoilt: AtomicU32,
    deaths: AtomicU32,
    padding: AtomicU32,
    /// What is mounted: a hash of the directories' paths.
    dirs: AtomicU64,
    /// Last epoch served under: present, counter, node, random.
    epoch: [AtomicU64; 4],
    /// File systems, by their index in a slot.
    file_systems: [AtomicU64; DEVICES],
    /// The change that is being made: request, and the inode it is about.
    under_way: [AtomicU64; 2],
    applied_at: AtomicU64,
    applied: [AtomicU64; APPLIED],
}

const _: () = assert!(size_of::<Head>() <= HEAD);

/// See the module's page.
pub struct Estate {
    memory: NonNull<u8>,
    fd: OwnedFd,
    /// What was under way when the process before this one died.
    before: (u64, u64),
}

// SAFETY: the memory is shared, holds atomics only, and is mapped as long as the value lives.
unsafe impl Send for Estate {}
// SAFETY: as above.
unsafe impl Sync for Estate {}

impl std::fmt::Debug for Estate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Estate")
    }
}

impl Estate {
    /// Empty.
    ///
    /// # Errors
    /// No memory.
    pub fn create() -> std::io::Result<Arc<Self>> {
        let fd = rustix::fs::memfd_create("stead-estate", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, (HEAD + SLOTS * size_of::<Slot>()) as u64)?;
        let estate = Self::map(fd)?;
        estate.head().next_id.store(replica::op::FileId::FIRST.0, Ordering::Relaxed);
        estate.head().magic.store(MAGIC, Ordering::Release);
        Ok(Arc::new(estate))
    }

    /// What the process before this one left, if it left something that this program understands.
    ///
    /// What is not understood is closed, whole: a mount that stayed open without being served would never answer.
    /// Call it before anything else is opened.
    #[must_use]
    pub fn inherited() -> Option<Arc<Self>> {
        let number: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
        let estate = Self::inherit(number);
        if estate.as_ref().is_none_or(|estate| estate.mounts() == 0) {
            drop(estate);
            // SAFETY: no pointers; nothing that this program uses is open yet but the standard three.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
            return None;
        }
        estate
    }

    fn inherit(number: RawFd) -> Option<Arc<Self>> {
        // SAFETY: the keeper passed this descriptor on, and nobody else in this process knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
        let expected = (HEAD + SLOTS * size_of::<Slot>()) as u64;
        if rustix::fs::fstat(&fd).ok()?.st_size as u64 != expected {
            return None;
        }
        let mut estate = Self::map(fd).ok()?;
        if estate.head().magic.load(Ordering::Acquire) != MAGIC {
            return None;
        }
        let [who, what] = &estate.head().under_way;
        estate.before = (who.load(Ordering::Acquire), what.load(Ordering::Acquire));
        Some(Arc::new(estate))
    }

    fn map(fd: OwnedFd) -> std::io::Result<Self> {
        let length = HEAD + SLOTS * size_of::<Slot>();
        // SAFETY: a new mapping of our own file, chosen by the kernel.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )?
        };
        let memory = NonNull::new(memory.cast()).ok_or_else(|| std::io::Error::other("mapped at zero"))?;
        Ok(Self { memory, fd, before: (0, 0) })
    }

    fn head(&self) -> &Head {
        // SAFETY: mapped, aligned to a page, of atomics only, for which any bytes are valid.
        unsafe { self.memory.cast::<Head>().as_ref() }
    }

    fn slot(&self, fd: RawFd) -> Option<&Slot> {
        let number = usize::try_from(fd).ok().filter(|n| *n < SLOTS)?;
        // SAFETY: as for the head; the number is within the mapping.
        unsafe { Some(self.memory.add(HEAD).cast::<Slot>().add(number).as_ref()) }
    }

    /// The slot of a descriptor that is about to be described.
    fn slot_to_fill(&self, fd: RawFd) -> Option<&Slot> {
        let slot = self.slot(fd);
        let Some(slot) = slot else {
            self.head().spoilt.store(1, Ordering::Release);
            return None;
        };
        let above = fd as u64 + 1;
        if self.head().high.load(Ordering::Relaxed) < above {
            self.head().high.fetch_max(above, Ordering::AcqRel);
        }
        Some(slot)
    }

    /// A number that was never used before, also not by the processes before this one.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.head().next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Nothing is mounted: whoever comes next begins anew.
    pub fn clear(&self) {
        let head = self.head();
        head.mounts.store(0, Ordering::Release);
        for number in 0..head.high.load(Ordering::Acquire) {
            if let Some(slot) = self.slot(number as RawFd)
                && slot[0].load(Ordering::Relaxed) != 0
            {
                slot[0].store(0, Ordering::Release);
            }
        }
        head.high.store(0, Ordering::Release);
        head.spoilt.store(0, Ordering::Release);
        head.epoch[0].store(0, Ordering::Release);
    }

    /// Everything is mounted and written down: from here on another process can go on.
    pub fn complete(&self, mounts: usize, dirs: u64) {
        self.head().dirs.store(dirs, Ordering::Release);
        self.head().mounts.store(mounts as u32, Ordering::Release);
    }

    /// The mounts are about to go: from here on no other process can go on.
    pub fn close(&self) {
        self.head().mounts.store(0, Ordering::Release);
    }

    /// Mounts that wait for a process, of these directories.
    #[must_use]
    pub fn mounts(&self) -> usize {
        if self.head().spoilt.load(Ordering::Acquire) != 0 {
            return 0;
        }
        self.head().mounts.load(Ordering::Acquire) as usize
    }

    /// See [`Self::complete`].
    #[must_use]
    pub fn dirs(&self) -> u64 {
        self.head().dirs.load(Ordering::Acquire)
    }

    /// Something was served: what killed the process before this one is over.
    pub fn lives(&self) {
        self.head().deaths.store(0, Ordering::Release);
    }

    /// The epoch under which is served.
    pub fn serve_under(&self, epoch: Epoch) {
        let words = [epoch.counter, u64::from(epoch.node.0), u64::from(epoch.random)];
        for (word, value) in self.head().epoch[1..].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.head().epoch[0].store(1, Ordering::Release);
    }

    /// The epoch last served under.
    #[must_use]
    pub fn served_under(&self) -> Option<Epoch> {
        let [present, counter, node, random] = &self.head().epoch;
        if present.load(Ordering::Acquire) == 0 {
            return None;
        }
        let node = NodeId(node.load(Ordering::Relaxed).try_into().ok()?);
        Some(Epoch {
            counter: counter.load(Ordering::Relaxed),
            node,
            random: u32::try_from(random.load(Ordering::Relaxed)).ok()?,
        })
    }

    /// A change that cannot be recognised by its effect is about to be made, by this request, to this inode (order
    /// lock held).
    pub fn begin(&self, request: u64, inode: u64) {
        let [who, what] = &self.head().under_way;
        who.store(0, Ordering::Release);
        what.store(inode, Ordering::Release);
        who.store(request, Ordering::Release);
    }

    /// It is made (order lock held).
    pub fn applied(&self, request: u64) {
        let head = self.head();
        let at = head.applied_at.load(Ordering::Relaxed);
        head.applied[at as usize % APPLIED].store(request, Ordering::Release);
        head.applied_at.store(at + 1, Ordering::Release);
    }

    /// The process before this one made that change.
    #[must_use]
    pub fn was_applied(&self, request: u64) -> bool {
        self.head().applied.iter().any(|applied| applied.load(Ordering::Acquire) == request)
    }

    /// The process before this one was about to make, or just had made, that change, to this inode.
    #[must_use]
    pub fn was_under_way(&self, request: u64) -> Option<u64> {
        (self.before.0 == request).then_some(self.before.1)
    }

    /// Its descriptor.
    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        // SAFETY: mapped by us, with this length; nobody holds a reference into it any more. A failure leaks it.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), HEAD + SLOTS * size_of::<Slot>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::IntoRawFd;

    #[test]
    fn what_was_noted_is_read_and_what_was_cleared_is_gone() {
        let estate = Estate::create().unwrap();
        let node = NodeSlot {
            id: 1030,
            ino: 77,
            dev: 5,
            kind: libc::S_IFREG,
            root: 2,
            refs: 3,
            nameless: false,
            local: true,
            hint: Some((1, Some(b"name".as_slice().into()))),
        };
        estate.node(9, &node);
        let read = |estate: &Estate| estate.nodes().collect::<Vec<_>>();
        assert_eq!(read(&estate), [(9, node.clone())]);
        estate.references(9, 12);
        estate.hint(9, Some((1031, &[b'x'; 40])));
        estate.nameless(9, true);
        let expected = NodeSlot { refs: 12, hint: Some((1031, None)), nameless: true, ..node };
        assert_eq!(read(&estate), [(9, expected)]);
        estate.handle(12, &HandleSlot { fh: 4, node: 1030, root: 2, request: 600 });
        estate.device(13, 1, 0xff);
        assert_eq!(estate.handles().collect::<Vec<_>>().len(), 1);
        assert_eq!(estate.devices(), [(13, 1, 0xff)]);
        estate.forget(9);
        assert!(read(&estate).is_empty());
        estate.clear();
        assert!(estate.devices().is_empty() && estate.handles().next().is_none());
    }

    #[test]
    fn a_descriptor_without_a_slot_spoils_the_estate() {
        let estate = Estate::create().unwrap();
        estate.complete(1, 7);
        assert_eq!(estate.mounts(), 1);
        estate.device(SLOTS as RawFd, 0, 0);
        assert_eq!(estate.mounts(), 0);
    }

    #[test]
    fn an_applied_change_is_remembered_and_the_last_one_begun_too() {
        let estate = Estate::create().unwrap();
        estate.begin(10, 99);
        assert!(!estate.was_applied(10));
        let next = || Estate::inherit(rustix::io::fcntl_dupfd_cloexec(&estate.fd, 0).unwrap().into_raw_fd()).unwrap();
        assert_eq!((next().was_under_way(10), next().was_under_way(12)), (Some(99), None));
        estate.applied(10);
        assert!(next().was_applied(10));
    }
}
