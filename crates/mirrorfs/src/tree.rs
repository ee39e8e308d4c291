//! What the replicating half needs from the front, and the handles both halves share.
//!
//! The front implements [`Tree`]; the leader calls it to stop the world for microseconds (the order lock) and
//! to learn by which name an id can be bound on the peer. **Invariant:** lock order is order lock, then the
//! leader's own lock; a [`crate::outlet::Completion`] is run with neither held by the leader.
//!
//! How the halves fit (control socket → here; each half is made once per process, after Configure):
//! - `Leader::new(&Configuration, Roots, Reports)` → `Arc<Leader>`, an `Outlet`; `leader.attach(Weak<dyn Tree>)`.
//! - orders to a leader: `serve_alone(epoch, fresh_map)`, `hold()`, `lead(session, begin)` (reports `LinkUp`, and
//!   `Reached{Mirrored}` for a resume), `send_commit(session)`, `sync(ticket)` (reports `Synced`; good for a
//!   follower's node as well), `fence()` = `Outlet::close` (EIO; also the end of serving after `drained(deadline)`);
//!   `situation()` and `counters()` tell what it is doing.
//! - `Follower::new(&Configuration, Roots, Reports)`; `follow(session, begin)`, `confirm_commit(session)` (after the
//!   stamp is written), `stop()`, `forget()` before this node serves; `following()`, `counters()`.
//! - extended attributes `trusted.stead.*` (the stamp) are local: never compared, never sent.

use model::orders::Report;
use replica::op::FileId;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Descriptors of the replicated directories *below* the cover, in the order of the configuration.
pub type Roots = Arc<Vec<OwnedFd>>;

/// Where reports go: the control socket, or a test. Never blocks.
pub type Reports = Arc<dyn Fn(Report) + Send + Sync>;

/// The front's tree, as the leader sees it.
pub trait Tree: Send + Sync {
    /// Runs `f` with the order lock held: no change is applied or submitted meanwhile. Not re-entrant.
    fn with_order(&self, f: &mut dyn FnMut());

    /// A current name of `id`: its directory and its name there. `None`: no name is left (unlinked, still
    /// open), or the id is unknown. Never asked for a root. Called with the order lock held.
    fn place(&self, id: FileId) -> Option<(FileId, Vec<u8>)>;
}
