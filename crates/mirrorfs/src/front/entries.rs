//! Names: lookup, and the changes of directories.

use super::caller::as_caller;
use super::crossing::Names;
use super::{Call, Front, Sent, input, name_in, user_device};
use crate::abi::{self, init};
use crate::forest::OrderGuard;
use crate::nodes::Node;
use crate::outlet::Part;
use crate::store::{self, Answer};
use crate::sys;
use replica::op::{Op, Owner, Time};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// An entry that was just made, and what the peer must know of it.
pub(super) struct Made {
    pub node: Arc<Node>,
    pub stat: Stat,
    pub owner: Owner,
    pub mtime: Time,
    pub parent_mtime: Time,
}

impl Front {
    pub(super) fn lookup(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (name, _) = name_in(call.body)?;
        let parent = self.node(call.head.nodeid)?;
        self.forest.nodes().room().wait();
        let entry = match self.forest.look(&parent, name) {
            Ok((node, stat)) => self.entry(&node, &stat),
            // Node 0: "not there", and the kernel may remember it.
            Err(Errno::NOENT) => abi::EntryOut { entry_valid: super::TTL_S, ..Default::default() },
            Err(e) => return Err(e),
        };
        Ok(Sent::Now(entry.as_bytes().to_vec()))
    }

    pub(super) fn create(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::CreateIn>(call)?;
        let (name, _) = name_in(rest)?;
        let umask = self.umask(call, ask.umask);
        let parent = self.node(call.head.nodeid)?;
        let order = self.enter()?;
        if let Some(answer) = self.created_before(call)? {
            return Ok(Sent::Now(answer.as_bytes().to_vec()));
        }
        self.touch(&parent, Part::Entries)?;
        let mode = Mode::from_raw_mode(ask.mode & 0o7777);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = as_caller(&call.head, umask, || fs::openat(parent.fd(), name, flags, mode));
        let file = match made {
            // The kernel asked for a name that was free: this is what was made then.
            Err(Errno::EXIST) if call.is_resent() => {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fs::openat(parent.fd(), name, flags, Mode::empty())?
            }
            Err(Errno::EXIST) if ask.flags & libc::O_EXCL as u32 == 0 => {
                drop(order);
                return self.open_existing(call, &parent, name, &ask);
            }
            other => other?,
        };
        // By its name, which is what was made under the order lock: the way by the other descriptor costs three times as much.
        let made = self.made(&parent, name, false, || store::open_child(parent.fd(), name))?;
        let inherits = fs::fgetxattr_query(&file, sys::ACCESS_ACL).is_ok();
        if !call.is_resent() {
            made.node.set_plain(true);
        }
        let answer = abi::CreateOut {
            entry: self.entry(&made.node, &made.stat),
            open: abi::OpenOut {
                fh: self.handles.open(made.node.clone(), file, call.request()),
                open_flags: abi::FOPEN_KEEP_CACHE,
                padding: 0,
            },
        };
        let Made { owner, mtime, parent_mtime, .. } = made;
        let op = Op::Create { id: made.node.id, parent: parent.id, name, owner, mtime, parent_mtime };
        Ok(self.submit_entry(call, &parent, (&made.node, inherits), op, answer.as_bytes()))
    }

    /// The kernel thought the name was free and did not ask for `O_EXCL`.
    fn open_existing(
        &self,
        call: &mut Call<'_, '_>,
        parent: &Arc<Node>,
        name: &[u8],
        ask: &abi::CreateIn,
    ) -> Answer<Sent> {
        let (node, stat) = self.forest.look(parent, name)?;
        let opened = self.open_node(call, &node, ask.flags & !(libc::O_CREAT as u32));
        if opened.is_err() {
            self.forest.release(&node, 1);
        }
        let answer = abi::CreateOut { entry: self.entry(&node, &stat), open: opened? };
        self.truncate_at_open(call, &node, ask.flags, ask.open_flags, answer.as_bytes().to_vec())
    }

    pub(super) fn mkdir(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::MkdirIn>(call)?;
        let (name, _) = name_in(rest)?;
        let umask = self.umask(call, ask.umask);
        let parent = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        self.touch(&parent, Part::Entries)?;
        let mode = Mode::from_raw_mode(ask.mode & 0o7777);
        call.made_before(as_caller(&call.head, umask, || fs::mkdirat(parent.fd(), name, mode)))?;
        let made = self.made(&parent, name, true, || store::open_child(parent.fd(), name))?;
        let Made { owner, mtime, parent_mtime, .. } = made;
        let op = Op::Mkdir { id: made.node.id, parent: parent.id, name, owner, mtime, parent_mtime };
        let answer = self.entry(&made.node, &made.stat);
        Ok(self.submit_entry(call, &parent, (&made.node, true), op, answer.as_bytes()))
    }

    pub(super) fn mknod(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::MknodIn>(call)?;
        let (name, _) = name_in(rest)?;
        let umask = self.umask(call, ask.umask);
        let parent = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        self.touch(&parent, Part::Entries)?;
        let (kind, mode) = (ask.mode & libc::S_IFMT, Mode::from_raw_mode(ask.mode & 0o7777));
        let rdev = user_device(ask.rdev);
        let file_type = FileType::from_raw_mode(kind);
        call.made_before(as_caller(&call.head, umask, || fs::mknodat(parent.fd(), name, file_type, mode, rdev)))?;
        let made = self.made(&parent, name, false, || store::open_child(parent.fd(), name))?;
        let Made { owner, mtime, parent_mtime, .. } = made;
        let id = made.node.id;
        let op = if kind == libc::S_IFREG || kind == 0 {
            Op::Create { id, parent: parent.id, name, owner, mtime, parent_mtime }
        } else {
            Op::Mknod { id, parent: parent.id, name, kind, rdev, owner, mtime, parent_mtime }
        };
        let answer = self.entry(&made.node, &made.stat);
        Ok(self.submit_entry(call, &parent, (&made.node, true), op, answer.as_bytes()))
    }

    pub(super) fn symlink(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (name, rest) = name_in(call.body)?;
        let (target, _) = abi::take_name(rest).ok_or(Errno::INVAL)?;
        let parent = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        self.touch(&parent, Part::Entries)?;
        call.made_before(as_caller(&call.head, 0, || fs::symlinkat(target, parent.fd(), name)))?;
        let made = self.made(&parent, name, false, || store::open_child(parent.fd(), name))?;
        let Made { owner, mtime, parent_mtime, .. } = made;
        let op = Op::Symlink { id: made.node.id, parent: parent.id, name, target, owner, mtime, parent_mtime };
        let answer = self.entry(&made.node, &made.stat);
        Ok(self.submit_entry(call, &parent, (&made.node, false), op, answer.as_bytes()))
    }

    pub(super) fn link(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::LinkIn>(call)?;
        let (name, _) = name_in(rest)?;
        let (node, parent) = (self.node(ask.oldnodeid)?, self.node(call.head.nodeid)?);
        let order = self.enter()?;
        let local = self.is_local_name(&parent, name);
        // A file with a name on each side of the edge would be replicated and not.
        if node.root() != parent.root() || (!node.is_nameless() && self.forest.is_local(&node) != local) {
            return Err(Errno::XDEV);
        }
        self.touch(&parent, Part::Entries)?;
        self.touch(&node, Part::Moved { to: parent.key })?;
        if node.is_nameless() {
            self.forest.nodes().crossed(&node, &parent, name);
            return self.first_link(call, order, &node, &parent, name);
        }
        call.made_before(fs::linkat(node.fd(), "", parent.fd(), name, AtFlags::EMPTY_PATH))?;
        let made = self.made(&parent, name, false, || store::open_child(parent.fd(), name))?;
        let op = Op::Link { id: node.id, parent: parent.id, name, parent_mtime: made.parent_mtime };
        let answer = self.entry(&made.node, &made.stat);
        Ok(self.submit_entry(call, &parent, (&made.node, false), op, answer.as_bytes()))
    }

    /// A file made without a name gets one: the only way a file without names comes back.
    fn first_link(
        &self,
        call: &mut Call<'_, '_>,
        order: OrderGuard<'_>,
        node: &Arc<Node>,
        parent: &Arc<Node>,
        name: &[u8],
    ) -> Answer<Sent> {
        self.forest.nodes().set_nameless(node, false);
        let made = self
            .touch(node, Part::Data { offset: 0, len: u64::MAX })
            .and_then(|()| call.made_before(fs::linkat(node.fd(), "", parent.fd(), name, AtFlags::EMPTY_PATH)))
            .and_then(|()| self.made(parent, name, false, || store::open_child(parent.fd(), name)));
        let made = made.inspect_err(|_| self.forest.nodes().set_nameless(node, true))?;
        let answer = self.entry(&made.node, &made.stat).as_bytes().to_vec();
        if self.forest.is_local(node) {
            self.tell_dir_time(parent);
            return Ok(Sent::Now(answer));
        }
        if let Err(errno) = self.tell_whole(node, parent.id, name, &made) {
            // The peer would have half a file: here it has no name again, and there neither.
            fs::unlinkat(parent.fd(), name, AtFlags::empty()).expect("what was linked a moment ago can be removed");
            self.last_name_went(&made.stat);
            self.forest.set_hint(node, None);
            self.submit_part(Op::Unlink { parent: parent.id, name, parent_mtime: mtime_after(parent) });
            self.forest.release(node, 1);
            return Err(errno);
        }
        drop(order);
        Ok(self.settle(call, Some(node.id), answer))
    }

    /// After the last name of a file, or the name of a directory, was taken away.
    pub(super) fn last_name_went(&self, before: &Stat) {
        if (before.st_nlink <= 1 || store::kind(before) == libc::S_IFDIR)
            && let Some(node) = self.forest.nodes().find(store::key(before))
        {
            self.forest.nodes().set_nameless(&node, true);
        }
    }

    pub(super) fn remove(&self, call: &mut Call<'_, '_>, directory: bool) -> Answer<Sent> {
        let (name, _) = name_in(call.body)?;
        let parent = self.node(call.head.nodeid)?;
        let _order = self.enter()?;
        let stat = match store::stat_child(parent.fd(), name) {
            // The kernel asked to remove what was there: it was removed then.
            Err(Errno::NOENT) if call.is_resent() => return Ok(Sent::Now(Vec::new())),
            other => other?,
        };
        self.touch(&parent, Part::Entries)?;
        let renamed = self.name_going(&parent, name, &stat);
        fs::unlinkat(parent.fd(), name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        self.last_name_went(&stat);
        if let Some(node) = renamed {
            self.forest.set_hint(&node, None);
        }
        if self.is_local_name(&parent, name) {
            self.tell_dir_time(&parent);
            return Ok(Sent::Now(Vec::new()));
        }
        let (id, parent_mtime) = (parent.id, mtime_after(&parent));
        let op = if directory {
            Op::Rmdir { parent: id, name, parent_mtime }
        } else {
            Op::Unlink { parent: id, name, parent_mtime }
        };
        Ok(self.submit(call, op, Vec::new()))
    }

    pub(super) fn rename(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (newdir, raw, rest) = if call.head.opcode == abi::op::RENAME2 {
            let (ask, rest) = input::<abi::Rename2In>(call)?;
            (ask.newdir, ask.flags, rest)
        } else {
            let (ask, rest) = input::<abi::RenameIn>(call)?;
            (ask.newdir, 0, rest)
        };
        let (from_name, rest) = name_in(rest)?;
        let (to_name, _) = name_in(rest)?;
        let (from, to) = (self.node(call.head.nodeid)?, self.node(newdir)?);
        let flags = RenameFlags::from_bits(raw).ok_or(Errno::INVAL)?;
        let order = self.enter()?;
        let nodes = self.forest.nodes();
        if call.is_resent() && store::stat_child(from.fd(), from_name).is_err_and(|e| e == Errno::NOENT) {
            self.renamed_before(&to, to_name)?;
            return Ok(Sent::Now(Vec::new()));
        }
        let scope = nodes.scope(&from).child(from_name);
        let to_scope = nodes.scope(&to).child(to_name);
        if from.root() == to.root() && scope.is_local() != to_scope.is_local() {
            let names = Names { from: &from, from_name, to: &to, to_name };
            return self.rename_across(call, order, &names, flags, scope.is_local());
        }
        // Between two replicated directories, and where other things below it would stay local than before, a rename
        // would be a copy: let the application make it.
        if scope != to_scope || from.root() != to.root() {
            return Err(Errno::XDEV);
        }
        let source = store::stat_child(from.fd(), from_name)?;
        let target = store::stat_child(to.fd(), to_name).ok();
        self.touch(&from, Part::Entries)?;
        self.touch(&to, Part::Entries)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !scope.is_local() {
            self.touch_moved(&source, Some((from.key, from_name)), to.key)?;
            if exchange && let Some(target) = &target {
                self.touch_moved(target, Some((to.key, to_name)), from.key)?;
            }
        }
        let same = target.as_ref().is_some_and(|target| store::key(target) == store::key(&source));
        let replaced = match &target {
            Some(stat) if !exchange && !same => self.name_going(&to, to_name, stat),
            _ => None,
        };
        let rename = || fs::renameat_with(from.fd(), from_name, to.fd(), to_name, flags);
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        if whiteout || exchange {
            // The old name does not go: what it leads to tells.
            let is_made = |before: u64| before != source.st_ino;
            // The entry that a whiteout leaves behind belongs to the caller.
            let rename = || if whiteout { as_caller(&call.head, 0, rename) } else { rename() };
            self.once(call, source.st_ino, is_made, rename)?;
        } else {
            rename()?;
        }
        if !same {
            if let Some(stat) = target.as_ref().filter(|_| !exchange) {
                self.last_name_went(stat);
            }
            // Two names of one inode: POSIX says nothing happens, and both names are still right.
            if let Some(node) = replaced {
                self.forest.set_hint(&node, None);
            }
            if let Some(node) = self.forest.nodes().find(store::key(&source)) {
                self.forest.set_hint(&node, Some((&to, to_name)));
            }
            if exchange && let Some(node) = target.and_then(|stat| self.forest.nodes().find(store::key(&stat))) {
                self.forest.set_hint(&node, Some((&from, from_name)));
            }
        }
        if scope.is_local() {
            self.tell_dir_time(&from);
            if from.id != to.id {
                self.tell_dir_time(&to);
            }
            return Ok(Sent::Now(Vec::new()));
        }
        let (from_mtime, to_mtime) = (mtime_after(&from), mtime_after(&to));
        let flags = (flags - RenameFlags::WHITEOUT).bits();
        let op = Op::Rename { from: from.id, from_name, to: to.id, to_name, flags, from_mtime, to_mtime };
        if !whiteout || same {
            return Ok(self.submit(call, op, Vec::new()));
        }
        // To the peer, a whiteout is what it is to everybody: a device 0:0 under the old name.
        self.submit_part(op);
        let (node, stat) = self.forest.look(&from, from_name)?;
        let op = Op::Mknod {
            id: node.id,
            parent: from.id,
            name: from_name,
            kind: store::kind(&stat),
            rdev: stat.st_rdev,
            owner: store::owner(&stat),
            mtime: store::mtime(&stat),
            parent_mtime: from_mtime,
        };
        let sent = self.submit_made(call, &node, op, Vec::new());
        drop(order);
        self.forest.release(&node, 1);
        Ok(sent)
    }

    /// The node whose known name is about to go. That it has other names is told, whichever goes.
    pub(super) fn name_going(&self, parent: &Node, name: &[u8], stat: &Stat) -> Option<Arc<Node>> {
        let node = self.forest.nodes().find(store::key(stat))?;
        if stat.st_nlink > 1 && store::kind(stat) != libc::S_IFDIR && !self.forest.is_local(&node) {
            self.forest.outlet().keep(node.id);
        }
        let hint = node.hint()?;
        (hint.parent == parent.id && *hint.name == *name).then_some(node)
    }

    /// Takes a new entry into the table. If that is impossible (no descriptor left) the entry is taken back,
    /// because the peer could never be told of it.
    fn made(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        directory: bool,
        open: impl FnOnce() -> Answer<OwnedFd>,
    ) -> Answer<Made> {
        let opened = open().and_then(|fd| Ok((store::stat(&fd)?, fd)));
        match opened.and_then(|(stat, fd)| Ok((stat, fd, store::mtime_of(parent.fd())?))) {
            Ok((stat, fd, parent_mtime)) => {
                let (key, kind) = (store::key(&stat), store::kind(&stat));
                let node = self.forest.nodes().adopt(fd, key, kind, parent, name, 1);
                Ok(Made { node, owner: store::owner(&stat), mtime: store::mtime(&stat), stat, parent_mtime })
            }
            Err(e) => {
                let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                fs::unlinkat(parent.fd(), name, flags)
                    .expect("what was made a moment ago, under the order lock, can be removed");
                Err(e)
            }
        }
    }

    fn submit_entry(
        &self,
        call: &mut Call<'_, '_>,
        parent: &Arc<Node>,
        (node, inherits): (&Arc<Node>, bool),
        op: Op<'_>,
        answer: &[u8],
    ) -> Sent {
        if self.forest.is_local(node) {
            self.tell_dir_time(parent);
            return Sent::Now(answer.to_vec());
        }
        let is_resent = call.is_resent();
        let sent = if inherits {
            self.submit_made(call, node, op, answer.to_vec())
        } else {
            self.submit(call, op, answer.to_vec())
        };
        if is_resent {
            // Perhaps it was made by the process before this one.
            self.forest.outlet().is_older(node.id);
        }
        sent
    }

    /// As [`Self::submit`], of something that was made: with what its directory gave it, which the peer's is not asked for.
    fn submit_made(&self, call: &mut Call<'_, '_>, node: &Node, op: Op<'_>, answer: Vec<u8>) -> Sent {
        let acls = sys::acls(node.fd()).unwrap_or_else(|e| {
            let name = self.label(node);
            self.forest.outlet().diverged(format!("{name} was made and its ACLs could not be read to be sent: {e}"));
            Vec::new()
        });
        let id = node.id;
        let mut last = op;
        for (name, value) in &acls {
            self.submit_part(std::mem::replace(&mut last, Op::SetXattr { id, name: name.as_bytes(), value }));
        }
        self.submit(call, last, answer)
    }

    /// Does an entry of this name stay on this node?
    fn is_local_name(&self, parent: &Node, name: &[u8]) -> bool {
        self.forest.nodes().scope(parent).child(name).is_local()
    }

    /// Without `DONT_MASK` the kernel has applied it already.
    pub(super) fn umask(&self, call: &Call<'_, '_>, umask: u32) -> u32 {
        if call.reply.as_ref().is_some_and(|reply| reply.has(init::DONT_MASK)) { umask } else { 0 }
    }
}

/// After a change of its entries was applied. There is no way back from there: a directory that is open and
/// cannot be looked at is a broken kernel, and dying (the agent then holds) is right.
pub(super) fn mtime_after(directory: &Node) -> Time {
    store::mtime_of(directory.fd()).expect("fstat of an open directory")
}
