//! Extended attributes, POSIX ACLs among them. Stead's own are not shown and cannot be changed.

use super::caller::is_admin;
use super::{Call, Front, Sent, input, is_nameless};
use crate::abi::{self, init};
use crate::nodes::Node;
use crate::outlet::Part;
use crate::store::{self, Answer};
use replica::op::Op;
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use zerocopy::IntoBytes;

/// What a program may do beyond its user. The kernel asks for it before the first write to each file.
const CAPABILITY: &[u8] = b"security.capability";

/// Kernel's limit of a value and of a list (`XATTR_SIZE_MAX`).
const SIZE_MAX: usize = 64 << 10;

impl Front {
    pub(super) fn setxattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let extended = call.reply.as_ref().is_some_and(|reply| reply.has(init::SETXATTR_EXT));
        let (size, flags, more, rest) = if extended {
            let (ask, rest) = input::<abi::SetxattrIn>(call)?;
            (ask.size, ask.flags, ask.setxattr_flags, rest)
        } else {
            let (ask, rest) = input::<abi::SetxattrCompatIn>(call)?;
            (ask.size, ask.flags, 0, rest)
        };
        let (name, rest) = attribute(rest)?;
        let value = rest.get(..size as usize).ok_or(Errno::INVAL)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let node = self.changeable(call.head.nodeid, name)?;
        let _order = self.enter()?;
        self.touch(&node, Part::Attributes)?;
        node.set_plain(false);
        let path = store::proc_path(node.fd());
        let is_there = || fs::getxattr_query(&path, name).is_ok();
        let set = || fs::setxattr(&path, name, value, flags);
        if !flags.contains(XattrFlags::CREATE) || (!call.is_resent() && is_there()) {
            set()?;
        } else {
            // It is not there, unless this very request set it.
            self.once(call, 0, |_| is_there(), set)?;
        }
        let mut stat = store::stat(node.fd()).expect("fstat of an open inode");
        let cleared = more & abi::SETXATTR_ACL_KILL_SGID != 0 && stat.st_mode & libc::S_ISGID != 0;
        if cleared {
            store::set_mode(node.fd(), stat.st_mode & !libc::S_ISGID)?;
            stat.st_mode &= !libc::S_ISGID;
        }
        if self.forest.is_local(&node) || is_nameless(&stat) {
            return Ok(Sent::Now(Vec::new()));
        }
        let op = Op::SetXattr { id: node.id, name, value };
        if !cleared {
            return Ok(self.submit(call, op, Vec::new()));
        }
        self.submit_part(op);
        let mode = Some(stat.st_mode & 0o7777);
        let op = Op::SetAttr { id: node.id, mode, uid: None, gid: None, size: None, atime: None, mtime: None };
        Ok(self.submit(call, op, Vec::new()))
    }

    pub(super) fn removexattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (name, _) = attribute(call.body)?;
        let node = self.changeable(call.head.nodeid, name)?;
        let _order = self.enter()?;
        self.touch(&node, Part::Attributes)?;
        let path = store::proc_path(node.fd());
        let is_there = || fs::getxattr_query(&path, name).is_ok();
        let remove = || fs::removexattr(&path, name);
        if !call.is_resent() && !is_there() {
            remove()?;
        } else {
            // It is there, unless this very request removed it.
            self.once(call, 0, |_| !is_there(), remove)?;
        }
        if self.forest.is_local(&node) || is_nameless(&store::stat(node.fd()).expect("fstat of an open inode")) {
            return Ok(Sent::Now(Vec::new()));
        }
        Ok(self.submit(call, Op::RemoveXattr { id: node.id, name }, Vec::new()))
    }

    pub(super) fn getxattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, rest) = input::<abi::GetxattrIn>(call)?;
        let (name, _) = attribute(rest)?;
        if store::is_hidden(name) {
            return Err(Errno::NODATA);
        }
        let node = self.node(call.head.nodeid)?;
        if name == CAPABILITY && node.is_plain() {
            return Err(Errno::NODATA);
        }
        let mut value = Vec::with_capacity(if ask.size == 0 { 0 } else { SIZE_MAX });
        if ask.size == 0 {
            let size = fs::getxattr_query(store::proc_path(node.fd()), name)?;
            return Ok(sized(size));
        }
        fs::getxattr(store::proc_path(node.fd()), name, rustix::buffer::spare_capacity(&mut value))?;
        within(value, ask.size)
    }

    pub(super) fn listxattr(&self, call: &mut Call<'_, '_>) -> Answer<Sent> {
        let (ask, _) = input::<abi::GetxattrIn>(call)?;
        let node = self.node(call.head.nodeid)?;
        let mut names = Vec::with_capacity(SIZE_MAX);
        fs::listxattr(store::proc_path(node.fd()), rustix::buffer::spare_capacity(&mut names))?;
        let names = store::visible(&names, || is_admin(&call.head));
        if ask.size == 0 {
            return Ok(sized(names.len()));
        }
        within(names, ask.size)
    }

    fn changeable(&self, nodeid: u64, name: &[u8]) -> Answer<std::sync::Arc<Node>> {
        if store::is_hidden(name) {
            return Err(Errno::PERM);
        }
        self.node(nodeid)
    }
}

fn attribute(bytes: &[u8]) -> Answer<(&[u8], &[u8])> {
    abi::take_name(bytes).ok_or(Errno::INVAL)
}

fn sized(size: usize) -> Sent {
    Sent::Now(abi::GetxattrOut { size: size as u32, padding: 0 }.as_bytes().to_vec())
}

fn within(value: Vec<u8>, room: u32) -> Answer<Sent> {
    if value.len() > room as usize { Err(Errno::RANGE) } else { Ok(Sent::Now(value)) }
}
