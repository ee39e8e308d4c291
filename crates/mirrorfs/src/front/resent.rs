//! Requests that the kernel gives again, because the process that had them died: they may have been carried out.
//!
//! Most can be made a second time (`write`, `chmod`, `fsync`…), because the kernel holds the inode's lock until the
//! answer: nobody changed it in between. Of the others the tree says whether they were made: the kernel never asks for
//! a name that it knows to be there, nor for the removal of one that is not, and nobody else changes names. Where not
//! even the tree tells, the estate does ([`Front::once`]). Whether the peer has the change is no question here: nothing
//! is answered before what was hot when the process died is in the change map.

use super::{Call, Front};
use crate::abi;
use crate::nodes::Node;
use crate::store::{self, Answer};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::sync::Arc;

impl Call<'_, '_> {
    /// It was given to a process before this one.
    pub(super) fn is_resent(&self) -> bool {
        self.head.unique & abi::UNIQUE_RESEND != 0
    }

    /// Number of the request, however often it is given.
    pub(super) fn request(&self) -> u64 {
        self.head.unique & !abi::UNIQUE_RESEND
    }

    /// What making an entry came to: one that is there already was made for this very request.
    pub(super) fn made_before(&self, made: Answer<()>) -> Answer<()> {
        match made {
            Err(Errno::EXIST) if self.is_resent() => Ok(()),
            other => other,
        }
    }
}

impl Front {
    /// Makes a change whose effect does not show whether it was made: never twice. `inode`: which one it finds;
    /// `is_made`: does the tree look as if that had happened to it? (Order lock held.)
    pub(super) fn once(
        &self,
        call: &Call<'_, '_>,
        inode: u64,
        is_made: impl FnOnce(u64) -> bool,
        make: impl FnOnce() -> Answer<()>,
    ) -> Answer<()> {
        let Some(estate) = &self.estate else { return make() };
        // Every mount counts its own requests.
        let request = call.request() | self.root.0 << 56;
        if call.is_resent() && (estate.was_applied(request) || estate.was_under_way(request).is_some_and(is_made)) {
            return Ok(());
        }
        estate.begin(request, inode);
        make()?;
        estate.applied(request);
        Ok(())
    }

    /// A rename whose old name is gone was made; what was not done after it is done now. (Order lock held.)
    pub(super) fn renamed_before(&self, to: &Arc<Node>, to_name: &[u8]) -> Answer<()> {
        let (node, _) = self.forest.look(to, to_name)?;
        self.forest.set_hint(&node, Some((to, to_name)));
        self.forest.nodes().crossed(&node, to, to_name);
        self.forest.release(&node, 1);
        Ok(())
    }

    /// Opens the lower file, unless that was done for this very request already.
    pub(super) fn open_once(&self, call: &Call<'_, '_>, node: &Arc<Node>, flags: OFlags) -> Answer<u64> {
        if let Some((fh, _)) = self.opened_before(call) {
            return Ok(fh);
        }
        let fd = store::reopen(node.fd(), flags)?;
        Ok(self.handles.open(node.clone(), fd, call.request()))
    }

    /// What an open file answers that was opened for this very request.
    fn opened_before(&self, call: &Call<'_, '_>) -> Option<(u64, Arc<Node>)> {
        if !call.is_resent() {
            return None;
        }
        let (fh, handle) = self.handles.opened_before(call.request())?;
        Some((fh, handle.node.clone()))
    }

    /// The same of one that was made with it.
    pub(super) fn created_before(&self, call: &Call<'_, '_>) -> Answer<Option<abi::CreateOut>> {
        let Some((fh, node)) = self.opened_before(call) else { return Ok(None) };
        let entry = self.entry(&node, &store::stat(node.fd())?);
        let open = abi::OpenOut { fh, open_flags: abi::FOPEN_KEEP_CACHE, padding: 0 };
        Ok(Some(abi::CreateOut { entry, open }))
    }
}
