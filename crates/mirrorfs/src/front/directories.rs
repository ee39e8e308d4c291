//! Listing directories, with or without the attributes of what is in them.

use super::{Call, Front, Sent, input};
use crate::abi;
use crate::nodes::Node;
use crate::store::Answer;
use rustix::fd::AsFd;
use rustix::fs::{self, FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError};
use zerocopy::IntoBytes;

impl Front {
    pub(super) fn opendir(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let node = self.node(call.head.nodeid)?;
        let fh = self.open_once(call, &node, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Sent::Now(abi::OpenOut { fh, open_flags: abi::FOPEN_KEEP_CACHE, padding: 0 }.as_bytes().to_vec()))
    }

    pub(super) fn readdir(&self, call: &mut Call<'_, '_>, plus: bool) -> Answer<Sent> {
        let (ask, _) = input::<abi::ReadIn>(call)?;
        let handle = self.handles.get(ask.fh)?;
        let limit = (ask.size as usize).min(abi::MAX_WRITE);
        let mut position = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
        if *position != Some(ask.offset) {
            fs::seek(&handle.fd, SeekFrom::Start(ask.offset))?;
        }
        *position = None;
        let mut listed = Vec::with_capacity(limit.min(32 << 10));
        let mut memory = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(handle.fd.as_fd(), &mut memory);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let head = abi::DirentHead {
                ino: entry.ino(),
                off: entry.next_entry_cookie(),
                namelen: u32::try_from(name.len()).map_err(|_| Errno::OVERFLOW)?,
                kind: kind_of(entry.file_type()),
            };
            let fixed = size_of::<abi::DirentHead>() + if plus { size_of::<abi::EntryOut>() } else { 0 };
            if listed.len() + (fixed + name.len()).next_multiple_of(8) > limit {
                return Ok(Sent::Now(listed));
            }
            if plus {
                listed.extend_from_slice(self.entry_of(&handle.node, name).as_bytes());
            }
            listed.extend_from_slice(head.as_bytes());
            listed.extend_from_slice(name);
            listed.resize(listed.len().next_multiple_of(8), 0);
        }
        Ok(Sent::Now(listed))
    }

    /// Counts a lookup. Node 0 where there is nothing to know: the kernel then asks when it needs it.
    fn entry_of(&self, directory: &Arc<Node>, name: &[u8]) -> abi::EntryOut {
        if matches!(name, b"." | b"..") {
            return abi::EntryOut::default();
        }
        match self.forest.look(directory, name) {
            Ok((node, stat)) => self.entry(&node, &stat),
            Err(_) => abi::EntryOut::default(),
        }
    }
}

/// `DT_*` of a directory entry.
fn kind_of(kind: FileType) -> u32 {
    match kind {
        FileType::Unknown => 0,
        known => (known.as_raw_mode() & libc::S_IFMT) >> 12,
    }
}
