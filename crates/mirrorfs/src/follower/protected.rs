//! What `chattr +i` or `+a` protects here, and what a change is about.
//!
//! The flags are not replicated: the leader's file has none, or the change would not have been made there. A target that they
//! stop would never become a copy. So it takes them off whatever the leader changes, and nothing else.

use super::ids::Ids;
use super::removal::open_dir;
use crate::sys;
use replica::op::{FileId, Op};
use replica::wire::Message;
use rustix::fs::{IFlags, OFlags, StatxAttributes};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Takes the flags off whatever this change is about; `false`: there were none.
pub(super) fn unprotect(message: &Message<'_>, ids: &Ids) -> bool {
    let taken = places(message, ids).into_iter().map(|place| take_off(&place));
    taken.fold(false, |any, taken| any | taken.unwrap_or(false))
}

/// Where in the tree a change is made, for a person; empty: nowhere that is known.
pub(super) fn place(message: &Message<'_>, ids: &Ids) -> String {
    let last = places(message, ids).pop().and_then(|fd| sys::path_of(&fd).ok());
    last.map(|path| format!(" of {}", String::from_utf8_lossy(&path))).unwrap_or_default()
}

/// The inodes of a change that are here: directories first, then what is in them.
fn places(message: &Message<'_>, ids: &Ids) -> Vec<OwnedFd> {
    let mut names: Vec<(FileId, &[u8])> = Vec::new();
    let mut of: Vec<FileId> = Vec::new();
    match *message {
        Message::Op(ref op) | Message::Restore(ref op) => {
            of.extend(op.needs().into_iter().flatten());
            match *op {
                Op::Bind { parent, name, .. }
                | Op::Create { parent, name, .. }
                | Op::Mkdir { parent, name, .. }
                | Op::Mknod { parent, name, .. }
                | Op::Symlink { parent, name, .. }
                | Op::Link { parent, name, .. }
                | Op::Unlink { parent, name, .. }
                | Op::Rmdir { parent, name, .. } => names.push((parent, name)),
                Op::Rename { from, from_name, to, to_name, .. } => {
                    names.extend([(from, from_name), (to, to_name)]);
                }
                _ => {}
            }
        }
        Message::Purge { parent, name, .. } => {
            of.push(parent);
            names.push((parent, name));
        }
        Message::Xattrs { id, .. } => of.push(id),
        _ => {}
    }
    let known = of.into_iter().filter_map(|id| ids.get(id).ok()?.0.try_clone_to_owned().ok());
    known.chain(names.into_iter().filter_map(|(dir, name)| sys::open_entry(ids.dir(dir).ok()?, name).ok())).collect()
}

/// Both flags, of a file or a directory. `false`: it has none.
pub(super) fn take_off(fd: impl AsFd + Copy) -> Result<bool, Errno> {
    let protected = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    let seen = rustix::fs::statx(fd, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::TYPE)?;
    if !seen.stx_attributes.intersects(protected) {
        return Ok(false);
    }
    let open = match sys::kind(&sys::stat(fd)?) {
        sys::S_IFDIR => open_dir(fd, b".")?,
        sys::S_IFREG => sys::reopen(fd, OFlags::RDONLY)?,
        _ => return Ok(false),
    };
    let flags = rustix::fs::ioctl_getflags(&open)?;
    rustix::fs::ioctl_setflags(&open, flags - (IFlags::IMMUTABLE | IFlags::APPEND))?;
    let path = sys::path_of(&open).unwrap_or_default();
    tracing::warn!(path = %String::from_utf8_lossy(&path), "its immutable or append-only flag is taken off: the leader changes it");
    Ok(true)
}
