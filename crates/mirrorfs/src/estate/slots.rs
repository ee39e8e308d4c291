//! The slots of an estate: which descriptor is which node, which open file, which mount.
//!
//! Word 0 says what it is and its number; it is written last and cleared first, so that what a death interrupts is not
//! there. Of a node: 1 parent, 2 inode, 3 counters and flags, 4 to 7 its name.

use super::{DEVICES, Estate, Slot};
use rustix::fd::RawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const NODE: u64 = 1 << 56;
const HANDLE: u64 = 2 << 56;
const DEVICE: u64 = 3 << 56;
const NUMBER: u64 = NODE - 1;

const REFS: u64 = u32::MAX as u64;
const ROOT: u32 = 32;
const KIND: u32 = 40;
const NAMELESS: u64 = 1 << 44;
const LOCAL: u64 = 1 << 45;
const FILE_SYSTEM: u32 = 48;
const LENGTH: u32 = 56;
const NAME_MAX: usize = 32;
/// Length of a name that is not noted: the descriptor itself knows it.
const ELSEWHERE: u64 = 0xff;

/// A parent and a name, or a name too long to be noted.
pub type HintSlot = (u64, Option<Box<[u8]>>);

/// A node, as noted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // as in `nodes::Node`
pub struct NodeSlot {
    pub id: u64,
    pub ino: u64,
    pub dev: u64,
    pub kind: u32,
    pub root: usize,
    pub refs: u64,
    pub nameless: bool,
    pub local: bool,
    pub hint: Option<HintSlot>,
}

/// An open file, as noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandleSlot {
    /// Its number.
    pub fh: u64,
    /// Its node.
    pub node: u64,
    /// Its replicated directory.
    pub root: usize,
    /// The request that opened it.
    pub request: u64,
}

impl Estate {
    /// This descriptor is this node.
    pub fn node(&self, fd: RawFd, node: &NodeSlot) {
        let Some(slot) = self.slot_to_fill(fd) else { return };
        let Some(file_system) = self.file_system(node.dev) else { return };
        slot[1].store(0, Relaxed);
        slot[2].store(node.ino, Relaxed);
        let flags = if node.nameless { NAMELESS } else { 0 } | if node.local { LOCAL } else { 0 };
        let kind = u64::from(node.kind >> 12) << KIND;
        let word = node.refs.min(REFS) | (node.root as u64) << ROOT | kind | flags | file_system << FILE_SYSTEM;
        slot[3].store(word, Relaxed);
        if let Some((parent, Some(name))) = &node.hint {
            name_in(slot, *parent, name);
        }
        slot[0].store(NODE | node.id, Release);
    }

    /// It is counted so often. (One caller at a time for each node.)
    pub fn references(&self, fd: RawFd, refs: u64) {
        self.change(fd, |word| word & !REFS | refs.min(REFS));
    }

    /// It is known by this name. (One caller at a time for each node.)
    pub fn hint(&self, fd: RawFd, hint: Option<(u64, &[u8])>) {
        let Some(slot) = self.slot(fd) else { return };
        slot[1].store(0, Release);
        if let Some((parent, name)) = hint {
            name_in(slot, parent, name);
        }
    }

    /// It has no name (any more).
    pub fn nameless(&self, fd: RawFd, nameless: bool) {
        self.change(fd, |word| if nameless { word | NAMELESS } else { word & !NAMELESS });
    }

    /// It stays on this node.
    pub fn local(&self, fd: RawFd, local: bool) {
        self.change(fd, |word| if local { word | LOCAL } else { word & !LOCAL });
    }

    /// This descriptor is this open file.
    pub fn handle(&self, fd: RawFd, handle: &HandleSlot) {
        let Some(slot) = self.slot_to_fill(fd) else { return };
        slot[1].store(handle.node, Relaxed);
        slot[2].store(handle.request, Relaxed);
        slot[3].store((handle.root as u64) << ROOT, Relaxed);
        slot[0].store(HANDLE | handle.fh, Release);
    }

    /// This descriptor is the connection of that directory's mount, with these features.
    pub fn device(&self, fd: RawFd, root: usize, features: u32) {
        let Some(slot) = self.slot_to_fill(fd) else { return };
        slot[1].store(u64::from(features), Relaxed);
        slot[0].store(DEVICE | root as u64, Release);
    }

    /// This descriptor is about to be closed.
    pub fn forget(&self, fd: RawFd) {
        if let Some(slot) = self.slot(fd) {
            slot[0].store(0, Release);
        }
    }

    /// All nodes, with their descriptors.
    pub fn nodes(&self) -> impl Iterator<Item = (RawFd, NodeSlot)> + '_ {
        self.slots(NODE).map(|(fd, id, slot)| {
            let word = slot[3].load(Relaxed);
            let parent = slot[1].load(Acquire);
            let node = NodeSlot {
                id,
                ino: slot[2].load(Relaxed),
                dev: self.head().file_systems[(word >> FILE_SYSTEM) as usize % DEVICES].load(Relaxed),
                kind: ((word >> KIND) as u32 & 0xf) << 12,
                root: (word >> ROOT) as usize & 0xff,
                refs: word & REFS,
                nameless: word & NAMELESS != 0,
                local: word & LOCAL != 0,
                hint: (parent != 0).then(|| (parent, name_of(slot))),
            };
            (fd, node)
        })
    }

    /// All open files, with their descriptors.
    pub fn handles(&self) -> impl Iterator<Item = (RawFd, HandleSlot)> + '_ {
        self.slots(HANDLE).map(|(fd, fh, slot)| {
            let root = (slot[3].load(Relaxed) >> ROOT) as usize;
            (fd, HandleSlot { fh, node: slot[1].load(Relaxed), request: slot[2].load(Relaxed), root })
        })
    }

    /// All mounts: descriptor, directory, features.
    #[must_use]
    pub fn devices(&self) -> Vec<(RawFd, usize, u32)> {
        let found = self.slots(DEVICE);
        found.map(|(fd, root, slot)| (fd, root as usize, slot[1].load(Relaxed) as u32)).collect()
    }

    /// Calls `each` with every descriptor that is to be inherited. Neither allocates nor locks.
    pub(super) fn for_each_descriptor(&self, each: impl Fn(RawFd)) {
        each(self.raw());
        for fd in 0..self.head().high.load(Acquire) {
            if self.slot(fd as RawFd).is_some_and(|slot| slot[0].load(Acquire) != 0) {
                each(fd as RawFd);
            }
        }
    }

    fn slots(&self, kind: u64) -> impl Iterator<Item = (RawFd, u64, &Slot)> + '_ {
        (0..self.head().high.load(Acquire) as RawFd).filter_map(move |fd| {
            let slot = self.slot(fd)?;
            let word = slot[0].load(Acquire);
            (word & !NUMBER == kind).then_some((fd, word & NUMBER, slot))
        })
    }

    fn change(&self, fd: RawFd, to: impl Fn(u64) -> u64) {
        if let Some(slot) = self.slot(fd) {
            // Cannot fail: the closure never says no.
            let _ = slot[3].fetch_update(Release, Relaxed, |word| Some(to(word)));
        }
    }

    fn file_system(&self, dev: u64) -> Option<u64> {
        for (index, known) in self.head().file_systems.iter().enumerate() {
            // No file system has the number 0.
            let seen = match known.load(Acquire) {
                0 => known.compare_exchange(0, dev, Release, Acquire).map_or_else(|other| other, |_| dev),
                seen => seen,
            };
            if seen == dev {
                return Some(index as u64);
            }
        }
        self.head().spoilt.store(1, Release);
        None
    }
}

/// The parent last: without it there is no name.
fn name_in(slot: &Slot, parent: u64, name: &[u8]) {
    let length = if name.len() <= NAME_MAX { name.len() as u64 } else { ELSEWHERE };
    if length != ELSEWHERE {
        for (word, chunk) in slot[4..].iter().zip(name.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Relaxed);
        }
    }
    // Cannot fail: the closure never says no.
    let _ = slot[3].fetch_update(Release, Relaxed, |word| Some(word & !(0xff << LENGTH) | length << LENGTH));
    slot[1].store(parent, Release);
}

fn name_of(slot: &Slot) -> Option<Box<[u8]>> {
    let length = slot[3].load(Relaxed) >> LENGTH;
    if length > NAME_MAX as u64 {
        return None;
    }
    let bytes: Vec<u8> = slot[4..].iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    Some(bytes[..length as usize].into())
}
