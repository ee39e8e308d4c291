//! Fields inside a payload: little-endian integers, times, and bytes with their length. Leaves of the codec.

use super::WireError;
use crate::op::{Owner, Time, is_entry_name};
use alloc::vec::Vec;

pub(super) struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn time(&mut self, t: Time) {
        self.u64(t.sec.cast_unsigned());
        self.u32(t.nsec);
    }
    pub fn owner(&mut self, o: Owner) {
        self.u32(o.mode);
        self.u32(o.uid);
        self.u32(o.gid);
    }
    pub fn optional<T>(&mut self, v: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(v.is_some()));
        if let Some(v) = v {
            put(self, v);
        }
    }
    /// Two bytes of length, then the bytes. Callers stay below 64 KiB (names, targets, keys).
    pub fn short(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= usize::from(u16::MAX));
        let len = bytes.len().min(usize::from(u16::MAX));
        self.u16(len as u16);
        self.0.extend_from_slice(&bytes[..len]);
    }
    pub fn rest(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

#[derive(Clone)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        if n > self.0.len() {
            return Err(WireError::Short);
        }
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut a = [0; N];
        a.copy_from_slice(self.take(N)?);
        Ok(a)
    }
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn bytes16(&mut self) -> Result<[u8; 16], WireError> {
        self.array()
    }
    pub fn time(&mut self) -> Result<Time, WireError> {
        let sec = self.u64()?.cast_signed();
        let nsec = self.u32()?;
        if nsec >= 1_000_000_000 {
            return Err(WireError::Value);
        }
        Ok(Time { sec, nsec })
    }
    pub fn owner(&mut self) -> Result<Owner, WireError> {
        let mode = self.u32()?;
        if mode & !0o7777 != 0 {
            return Err(WireError::Value);
        }
        Ok(Owner { mode, uid: self.u32()?, gid: self.u32()? })
    }
    pub fn optional<T>(&mut self, get: impl FnOnce(&mut Self) -> Result<T, WireError>) -> Result<Option<T>, WireError> {
        match self.u8()? {
            0 => Ok(None),
            1 => get(self).map(Some),
            _ => Err(WireError::Value),
        }
    }
    pub fn short(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
    /// A name that cannot lead out of its directory.
    pub fn name(&mut self) -> Result<&'a [u8], WireError> {
        let name = self.short()?;
        if is_entry_name(name) { Ok(name) } else { Err(WireError::Name) }
    }
    /// An extended attribute's name: no NUL, not empty, at most 255 bytes.
    pub fn key(&mut self) -> Result<&'a [u8], WireError> {
        let key = self.short()?;
        if key.is_empty() || key.len() > 255 || key.contains(&0) { Err(WireError::Name) } else { Ok(key) }
    }
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
    pub fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}
