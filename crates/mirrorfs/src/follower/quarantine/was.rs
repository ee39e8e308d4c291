//! How an entry was whose attributes are overwritten while its content stays: a line for people, and enough to make a copy like it.

use crate::sys;
use model::api::QuarantineAttributes;
use replica::op::Time;
use rustix::fs::Stat;
use rustix::io::Errno;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};

/// Owner, permissions and time, as they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Was {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: Time,
}

impl Was {
    pub fn of(st: &Stat) -> Self {
        Self { uid: st.st_uid, gid: st.st_gid, mode: st.st_mode & 0o7777, mtime: sys::mtime(st) }
    }

    /// A kept copy becomes like it (without a right to become somebody else).
    pub fn restore(self, copy: BorrowedFd<'_>) -> Result<(), Errno> {
        sys::set_owner(copy, Some(self.uid), Some(self.gid))?;
        sys::set_mode(copy, self.mode & 0o777)?;
        sys::set_times(copy, None, Some(self.mtime))
    }

    /// One line of the list, its end included.
    pub fn line(self, path: &[u8], entry: impl AsFd) -> std::io::Result<Vec<u8>> {
        let xattrs = sys::xattrs(entry)?;
        let attributes = QuarantineAttributes {
            path: String::from_utf8_lossy(path).into_owned(),
            mode: format!("{:04o}", self.mode),
            uid: self.uid,
            gid: self.gid,
            mtime: format!("{}.{:09}", self.mtime.sec, self.mtime.nsec),
            xattrs: xattrs
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), hex(value)))
                .collect(),
        };
        let mut line = serde_json::to_vec(&attributes).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok(line)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
