//! The cluster's shape, `cluster.xml`: read, checked, kept, applied on all nodes or none.
//!
//! **Invariant:** `applied.json` is the one authority (members, text of the configuration, date); `cluster.xml` beside it
//! is a copy for people, which they may edit and apply again.

mod applied;
mod apply;
mod check;
mod edit;
mod store;
mod turn;

pub use applied::{APPLIED_VERSION, Applied, AppliedError, Member};
pub(crate) use apply::witness_routes;
pub use apply::{Applier, FindsUnfit, Modules, Needs, Unfit, routes};
pub(crate) use edit::{first_configuration, with_node, with_witness};
pub use model::schema::{ClusterConfiguration, Lan, LanNode, WitnessPlace};
pub(crate) use store::causes;
pub use store::{Cluster, ClusterStore, ClusterWatch, StoreError};
pub(crate) use turn::Turn;

use model::api::Diagnostic;
use model::schema::names::Answers;

/// Reads a `cluster.xml`: the configuration with what a person should know, or everything that is wrong with it.
pub(crate) fn read(text: &str, names: &Answers) -> Result<(ClusterConfiguration, Vec<Diagnostic>), Vec<Diagnostic>> {
    let checked = crate::configuration::read_cluster(text.as_bytes(), "cluster.xml", names);
    let found = crate::configuration::for_api(&checked.diagnostics, text.as_bytes());
    match checked.value {
        Some(configuration) => Ok((configuration, found)),
        None => Err(found),
    }
}
