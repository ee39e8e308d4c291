//! Remembers which file something was, without a descriptor where its file system can find it again.
//!
//! An inode number alone does not say: it is given to another file as soon as the first is gone.

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `MAX_HANDLE_SZ` of the kernel.
const HANDLE_MAX: usize = 128;

/// Of `enum fid_type`: number and generation, 32 bits each.
const FILEID_INO32_GEN: i32 = 1;

/// One file.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Its handle: number and generation, as its file system writes them.
    Handle(Vec<u8>),
    /// Of a file system that gives none: while it is open, its number is not given to another.
    Open(OwnedFd),
}

/// `struct file_handle` with its bytes.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_MAX],
}

impl Kept {
    pub fn of(fd: OwnedFd) -> Self {
        handle(&fd).map_or(Self::Open(fd), Self::Handle)
    }

    /// Whichever file has this number now, where ext2 to ext4 are asked: generation 0 is any for them. `None`: no such number.
    pub fn numbered(ino: u64) -> Option<Self> {
        let number = u32::try_from(ino).ok()?;
        Some(Self::Handle([FILEID_INO32_GEN.to_ne_bytes(), number.to_ne_bytes(), [0; 4]].concat()))
    }

    /// Is this the same file, of those that have its number?
    pub fn is(&self, fd: impl AsFd) -> bool {
        match self {
            Self::Handle(known) => handle(fd).is_some_and(|handle| handle == *known),
            Self::Open(_) => true,
        }
    }

    /// An `O_PATH` descriptor; `None`: it is gone. `beside`: anything of the same file system, opened for reading.
    pub fn open(&self, beside: impl AsFd) -> Result<Option<OwnedFd>, Errno> {
        let known = match self {
            Self::Open(fd) => return rustix::io::fcntl_dupfd_cloexec(fd, 3).map(Some),
            Self::Handle(known) => known,
        };
        let mut handle = Handle { bytes: known.len() as u32 - 4, kind: 0, handle: [0; HANDLE_MAX] };
        let (kind, bytes) = known.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
        handle.kind = i32::from_ne_bytes(*kind);
        handle.handle[..bytes.len()].copy_from_slice(bytes);
        let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        // SAFETY: `handle` lives through the call and holds as many bytes as it says.
        let fd = unsafe { libc::open_by_handle_at(beside.as_fd().as_raw_fd(), (&raw mut handle).cast(), flags) };
        if fd >= 0 {
            // SAFETY: the kernel has just given it to us.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        match std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error) {
            Errno::STALE | Errno::NOENT => Ok(None),
            other => Err(other),
        }
    }
}

/// Kind and bytes of a file's handle; `None`: its file system has none.
fn handle(fd: impl AsFd) -> Option<Vec<u8>> {
    let mut handle = Handle { bytes: HANDLE_MAX as u32, kind: 0, handle: [0; HANDLE_MAX] };
    let mut mount = 0;
    // SAFETY: the path is an empty C string, the others live through the call, and `handle` has room for as much as it says.
    let done = unsafe {
        libc::name_to_handle_at(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    let bytes = handle.handle.get(..handle.bytes as usize).filter(|_| done == 0)?;
    Some([&handle.kind.to_ne_bytes()[..], bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_found_by_any_name_it_has_and_not_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "a").unwrap();
        let beside = fs::File::open(dir.path()).unwrap();
        let entry = |name: &str| crate::sys::open_entry(&beside, name.as_bytes()).unwrap();
        let kept = Kept::of(entry("a"));
        fs::rename(at("a"), at("b")).unwrap();
        fs::write(at("c"), "c").unwrap();
        assert!(kept.is(entry("b")) && !kept.is(entry("c")));
        let found = kept.open(&beside).unwrap().expect("it is there");
        assert_eq!(crate::sys::stat(&found).unwrap().st_ino, crate::sys::stat(entry("b")).unwrap().st_ino);
        drop(found);
        fs::remove_file(at("b")).unwrap();
        assert!(kept.open(&beside).unwrap().is_none());
        assert!(matches!(kept, Kept::Handle(_)), "the tests' file system gives handles");
    }
}
