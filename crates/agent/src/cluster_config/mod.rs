//! The cluster's shape, `cluster.xml`: read, checked, kept, applied on all nodes or none.
//!
//! **Invariant:** `applied.json` is the one authority (members, text of the configuration, date); `cluster.xml` beside it
//! is a copy for people, which they may edit and apply again.

mod applied;
mod apply;
mod edit;
mod store;
mod xml;

pub use applied::{APPLIED_VERSION, Applied, AppliedError, Member};
pub use apply::{Applier, routes};
pub(crate) use apply::now_unix_ms;
pub(crate) use edit::{first_configuration, with_node, with_witness};
pub(crate) use store::causes;
pub use store::{Cluster, ClusterStore, ClusterWatch, StoreError};
pub use xml::{ClusterConfiguration, Lan, LanNode, WitnessPlace};
