//! A rename across the edge of what is replicated: to the peer, what was renamed is made, or goes.
//!
//! It owns the telling of a whole tree; it never copies here. **Invariant:** the peer shows all of it or nothing: what
//! arrives is made there beside its place, under a name of ours, and gets its own name, in place of whatever had it,
//! in one step when it is complete; what leaves goes in one step.

use super::entries::mtime_after;
use super::{Call, Front, Sent};
use crate::arriving;
use crate::forest::{OrderGuard, Pinned};
use crate::nodes::Node;
use crate::outlet::{Completion, InodeKey, Part};
use crate::store::{self, Answer};
use crate::sys;
use replica::op::{FileId, Op, Time};
use rustix::fs::{self, RenameFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// A directory with more entries below it than this is copied by whoever moves it (`EXDEV`): while it is told to the
/// peer, everybody waits.
pub const ENTRIES_MAX: u64 = 10_000;
/// The same, of bytes that would have to be sent, of a file too.
pub const BYTES_MAX: u64 = 1 << 30;

/// From where to where.
pub(super) struct Names<'a> {
    pub from: &'a Arc<Node>,
    pub from_name: &'a [u8],
    pub to: &'a Arc<Node>,
    pub to_name: &'a [u8],
}

impl Front {
    /// `arrives`: the new name is replicated, the old one is not; else the other way round.
    pub(super) fn rename_across(
        &self,
        call: &mut Call<'_, '_>,
        order: OrderGuard<'_>,
        names: &Names<'_>,
        flags: RenameFlags,
        arrives: bool,
    ) -> Answer<Sent> {
        let Names { from, from_name, to, to_name } = *names;
        if flags.intersects(RenameFlags::EXCHANGE | RenameFlags::WHITEOUT) {
            return Err(Errno::XDEV);
        }
        let source = store::stat_child(from.fd(), from_name)?;
        can_cross(from, from_name, &source, arrives)?;
        // Before the rename, so that nothing can be missing after it.
        let moved = self.forest.resolve(from.id, from_name)?;
        let target = store::stat_child(to.fd(), to_name).ok();
        self.touch(from, Part::Entries)?;
        self.touch(to, Part::Entries)?;
        if arrives {
            self.touch_moved(&source, None, to.key)?;
        }
        let replaced = target.as_ref().and_then(|stat| self.name_going(to, to_name, stat));
        fs::renameat_with(from.fd(), from_name, to.fd(), to_name, flags)?;
        if let Some(stat) = &target {
            self.last_name_went(stat);
        }
        if let Some(node) = replaced {
            self.forest.set_hint(&node, None);
        }
        self.forest.set_hint(&moved, Some((to, to_name)));
        self.forest.nodes().crossed(&moved, to, to_name);
        if arrives { self.arrived(call, order, names, moved) } else { Ok(self.left(call, names, &source)) }
    }

    fn left(&self, call: &mut Call<'_, '_>, names: &Names<'_>, source: &Stat) -> Sent {
        let Names { from, from_name, to, .. } = *names;
        if from.id != to.id {
            self.tell_dir_time(to);
        }
        let (parent, name, parent_mtime) = (from.id, from_name, mtime_after(from));
        if store::kind(source) != libc::S_IFDIR {
            return self.submit(call, Op::Unlink { parent, name, parent_mtime }, Vec::new());
        }
        let Some(reply) = call.reply.take() else { return Sent::Already };
        let done = Completion::new(move |result| match result {
            Ok(()) => reply.ok(&[]),
            Err(errno) => reply.err(errno),
        });
        self.forest.outlet().purge(parent, name, parent_mtime, done).map_or(Sent::Already, Sent::Met)
    }

    /// Answered when the peer has it as durably as `fsync` may have promised under the old name.
    fn arrived(
        &self,
        call: &mut Call<'_, '_>,
        order: OrderGuard<'_>,
        names: &Names<'_>,
        moved: Pinned<'_>,
    ) -> Answer<Sent> {
        let Names { from, to, to_name, .. } = *names;
        if let Err(e) = self.tell_arrival(&moved, to, to_name) {
            // It is renamed here, and the peer cannot be told of it: it must not be taken for complete.
            self.forest.outlet().diverged(format!(
                "{} was renamed to a replicated name and could not be read to be sent: {e}",
                self.label(&moved)
            ));
        }
        if from.id != to.id {
            self.tell_dir_time(from);
        }
        let file = (moved.kind() == libc::S_IFREG).then_some(moved.id);
        drop(order);
        Ok(self.settle(call, file, Vec::new()))
    }

    fn tell_arrival(&self, node: &Arc<Node>, to: &Arc<Node>, to_name: &[u8]) -> Answer<()> {
        if !self.forest.outlet().listens() {
            return Ok(());
        }
        let mtime = mtime_after(to);
        let name = arriving::name(node.id);
        self.tell_tree(node, to.id, &name, mtime)?;
        self.submit_part(Op::Rename {
            from: to.id,
            from_name: &name,
            to: to.id,
            to_name,
            flags: 0,
            from_mtime: mtime,
            to_mtime: mtime,
        });
        Ok(())
    }

    /// The node as `name` in `parent`, with everything replicated below it.
    fn tell_tree(&self, node: &Arc<Node>, parent: FileId, name: &[u8], parent_mtime: Time) -> Answer<()> {
        // Files with several names stay known until all their names are told.
        let mut links: HashMap<InodeKey, Pinned<'_>> = HashMap::new();
        let mut todo = Vec::new();
        self.tell_one(node, parent, name, parent_mtime)?;
        if node.kind() == libc::S_IFDIR {
            todo.push(self.forest.pinned(node));
        }
        while let Some(dir) = todo.pop() {
            let (scope, mtime) = (self.forest.nodes().scope(&dir), mtime_after(&dir));
            for name in sys::names(dir.fd())? {
                if scope.child(&name).is_local() {
                    continue;
                }
                let child = self.forest.resolve(dir.id, &name)?;
                if links.contains_key(&child.key) {
                    self.submit_part(Op::Link { id: child.id, parent: dir.id, name: &name, parent_mtime: mtime });
                    continue;
                }
                self.tell_one(&child, dir.id, &name, mtime)?;
                if child.kind() == libc::S_IFDIR {
                    todo.push(child);
                } else if store::stat(child.fd())?.st_nlink > 1 {
                    links.insert(child.key, child);
                }
            }
        }
        Ok(())
    }

    /// One entry with all that is its own.
    fn tell_one(&self, node: &Arc<Node>, parent: FileId, name: &[u8], parent_mtime: Time) -> Answer<()> {
        let stat = store::stat(node.fd())?;
        let (id, owner, mtime, kind) = (node.id, store::owner(&stat), store::mtime(&stat), node.kind());
        match kind {
            libc::S_IFREG => self.submit_part(Op::Create { id, parent, name, owner, mtime, parent_mtime }),
            libc::S_IFDIR => self.submit_part(Op::Mkdir { id, parent, name, owner, mtime, parent_mtime }),
            libc::S_IFLNK => {
                let target = sys::link_target(node.fd())?;
                self.submit_part(Op::Symlink { id, parent, name, target: &target, owner, mtime, parent_mtime });
            }
            _ => {
                let rdev = stat.st_rdev;
                self.submit_part(Op::Mknod { id, parent, name, kind, rdev, owner, mtime, parent_mtime });
            }
        }
        self.forest.outlet().is_older(id);
        if kind == libc::S_IFREG {
            self.tell_content(node, 0, u64::MAX)?;
        }
        let mode = (kind != libc::S_IFLNK).then_some(owner.mode);
        let size = (kind == libc::S_IFREG).then_some(stat.st_size as u64);
        let atime = Some(store::atime(&stat));
        self.submit_part(Op::SetAttr { id, mode, uid: None, gid: None, size, atime, mtime: Some(mtime) });
        self.tell_xattrs(node)
    }

    /// Entries that stay local come and go in a replicated directory: the peer's shows the same time.
    pub(super) fn tell_dir_time(&self, dir: &Arc<Node>) {
        if !self.forest.is_local(dir) && !dir.is_nameless() {
            let mtime = Some(mtime_after(dir));
            let (id, none) = (dir.id, None);
            self.submit_part(Op::SetAttr { id, mode: none, uid: none, gid: none, size: None, atime: None, mtime });
        }
    }
}

/// Can it be told as a whole? A file with a name on each side of the edge would have to be both.
fn can_cross(from: &Node, name: &[u8], source: &Stat, arrives: bool) -> Answer<()> {
    if store::kind(source) != libc::S_IFDIR {
        let large = arrives && source.st_blocks as u64 * 512 > BYTES_MAX;
        return if large || source.st_nlink > 1 { Err(Errno::XDEV) } else { Ok(()) };
    }
    let mut links: HashMap<InodeKey, u64> = HashMap::new();
    let (mut entries, mut bytes) = (0, 0);
    let mut todo = vec![store::open_child(from.fd(), name)?];
    while let Some(dir) = todo.pop() {
        for name in sys::names(&dir)? {
            let Some(stat) = sys::stat_entry(&dir, &name)? else { continue };
            entries += 1;
            bytes += stat.st_blocks as u64 * 512;
            if stat.st_dev != source.st_dev || entries > ENTRIES_MAX || (arrives && bytes > BYTES_MAX) {
                return Err(Errno::XDEV);
            }
            if store::kind(&stat) == libc::S_IFDIR {
                todo.push(sys::open_entry(&dir, &name)?);
            } else if stat.st_nlink > 1 {
                *links.entry(store::key(&stat)).or_insert(stat.st_nlink) -= 1;
            }
        }
    }
    if links.values().all(|elsewhere| *elsewhere == 0) { Ok(()) } else { Err(Errno::XDEV) }
}
