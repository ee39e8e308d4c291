//! What a message is about: its name, and which inodes and names it means here.

use super::ids::Ids;
use super::trouble::Trouble;
use crate::sys;
use replica::op::{FileId, Op};
use replica::wire::Message;
use std::os::fd::OwnedFd;

pub(super) fn describe(message: &Message<'_>) -> &'static str {
    match message {
        Message::Op(op) | Message::Restore(op) => match op {
            Op::Bind { .. } => "bind",
            Op::Unbind { .. } => "unbind",
            Op::Create { .. } => "create",
            Op::Mkdir { .. } => "mkdir",
            Op::Mknod { .. } => "mknod",
            Op::Symlink { .. } => "symlink",
            Op::Link { .. } => "link",
            Op::Unlink { .. } => "unlink",
            Op::Rmdir { .. } => "rmdir",
            Op::Rename { .. } => "rename",
            Op::Write { .. } => "write",
            Op::SetAttr { .. } => "setattr",
            Op::Fallocate { .. } => "fallocate",
            Op::SetXattr { .. } => "setxattr",
            Op::RemoveXattr { .. } => "removexattr",
        },
        Message::Sync { .. } => "sync",
        Message::CheckEntries { .. } | Message::CheckBlocks { .. } | Message::CheckHole { .. } => "check",
        Message::Purge { .. } => "purge",
        Message::Xattrs { .. } => "xattrs",
        Message::Commit => "commit",
        _ => "a message outside the order",
    }
}

/// Where in the tree a change is made, for a person; empty: nowhere that is known.
pub(super) fn place(message: &Message<'_>, ids: &Ids) -> String {
    let last = places(message, ids).pop().and_then(|fd| sys::path_of(&fd).ok());
    last.map(|path| format!(" of {}", String::from_utf8_lossy(&path))).unwrap_or_default()
}

/// The inodes of a change that are here: directories first, then what is in them.
pub(super) fn places(message: &Message<'_>, ids: &Ids) -> Vec<OwnedFd> {
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

/// What must be bound and compared again after a change could not be made: (id, directory, name).
pub(super) fn suspects<'a>(message: &Message<'a>, trouble: &Trouble) -> Vec<(FileId, FileId, &'a [u8])> {
    let mut list = Vec::new();
    if let Trouble::Absent(id) = trouble {
        list.push((*id, FileId(0), &b""[..]));
    }
    match *message {
        Message::Op(
            Op::Bind { id, parent, name, .. }
            | Op::Create { id, parent, name, .. }
            | Op::Mkdir { id, parent, name, .. }
            | Op::Mknod { id, parent, name, .. }
            | Op::Symlink { id, parent, name, .. },
        )
        | Message::Restore(
            Op::Bind { id, parent, name, .. }
            | Op::Create { id, parent, name, .. }
            | Op::Mkdir { id, parent, name, .. }
            | Op::Mknod { id, parent, name, .. }
            | Op::Symlink { id, parent, name, .. },
        ) => list.push((id, parent, name)),
        Message::Op(Op::Link { id, parent, name, .. }) => {
            list.push((FileId(0), parent, name));
            list.push((id, FileId(0), b""));
        }
        Message::Restore(Op::Link { id, parent, name, .. }) => list.push((id, parent, name)),
        Message::Op(Op::Rename { to, to_name, from, from_name, .. }) => {
            list.push((FileId(0), to, to_name));
            list.push((FileId(0), from, from_name));
        }
        Message::Op(
            Op::Write { id, .. }
            | Op::SetAttr { id, .. }
            | Op::Fallocate { id, .. }
            | Op::SetXattr { id, .. }
            | Op::RemoveXattr { id, .. },
        )
        | Message::Xattrs { id, .. } => list.push((id, FileId(0), b"")),
        _ => {}
    }
    list
}
