//! The two lists that travel inside frames: directory entries and extended attributes.

use super::body::{Reader, Writer};
use super::{Entries, Entry, WireError, XattrList};
use crate::op::{TARGET_MAX, XATTR_MAX};
use alloc::vec::Vec;

/// Collects [`Entry`]s for one [`super::Message::CheckEntries`].
#[derive(Clone, Debug, Default)]
pub struct EntriesWriter(Vec<u8>);

impl EntriesWriter {
    /// Adds one.
    pub fn push(&mut self, e: &Entry<'_>) {
        let mut w = Writer(&mut self.0);
        w.short(e.name);
        w.u32(e.mode);
        w.u32(e.uid);
        w.u32(e.gid);
        w.u64(e.size);
        w.time(e.mtime);
        w.u64(e.rdev);
        w.u64(e.link);
        w.rest(&e.xattrs);
        w.short(e.target);
    }
    /// Bytes so far: begin another chunk before [`super::PAYLOAD_MAX`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// For the message.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries(&self.0)
    }
    /// For the next chunk.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

fn entry<'a>(r: &mut Reader<'a>) -> Result<Entry<'a>, WireError> {
    let name = r.short()?;
    if !name.is_empty() && !crate::op::is_entry_name(name) {
        return Err(WireError::Name);
    }
    let e = Entry {
        name,
        mode: r.u32()?,
        uid: r.u32()?,
        gid: r.u32()?,
        size: r.u64()?,
        mtime: r.time()?,
        rdev: r.u64()?,
        link: r.u64()?,
        xattrs: r.bytes16()?,
        target: r.short()?,
    };
    if e.target.len() > TARGET_MAX || e.mode > 0o177_777 {
        return Err(WireError::Value);
    }
    Ok(e)
}

impl<'a> Entries<'a> {
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader(bytes);
        while !r.0.is_empty() {
            entry(&mut r)?;
        }
        Ok(Entries(bytes))
    }
    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut r = Reader(self.0);
        core::iter::from_fn(move || if r.0.is_empty() { None } else { entry(&mut r).ok() })
    }
}

/// Collects the extended attributes of one file.
#[derive(Clone, Debug, Default)]
pub struct XattrsWriter(Vec<u8>);

impl XattrsWriter {
    /// Adds one; `false`: it does not fit into a frame and was left out.
    #[must_use]
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> bool {
        if value.len() > XATTR_MAX || self.0.len() + name.len() + value.len() + 8 > super::PAYLOAD_MAX as usize {
            return false;
        }
        let mut w = Writer(&mut self.0);
        w.short(name);
        w.u32(value.len() as u32);
        w.rest(value);
        true
    }
    /// For the message.
    #[must_use]
    pub fn list(&self) -> XattrList<'_> {
        XattrList(&self.0)
    }
}

fn xattr<'a>(r: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let key = r.key()?;
    let n = r.u32()? as usize;
    if n > XATTR_MAX {
        return Err(WireError::Value);
    }
    Ok((key, r.take(n)?))
}

impl<'a> XattrList<'a> {
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader(bytes);
        while !r.0.is_empty() {
            xattr(&mut r)?;
        }
        Ok(XattrList(bytes))
    }
    /// (name, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut r = Reader(self.0);
        core::iter::from_fn(move || if r.0.is_empty() { None } else { xattr(&mut r).ok() })
    }
}
