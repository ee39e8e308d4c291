//! What a person may write in `userconfig.xml` and `cluster.xml`, and what it means.
//!
//! One declarative table ([`table`]) says which elements and attributes exist, their type, unit, default and
//! since when; [`check`] compares a tree with it; [`module`] and [`cluster`] make typed values of what is right.
//! Nothing here reads a file: the agent turns XML into [`tree::Element`] and passes it in.
//!
//! **Invariant:** every problem is reported with its place, not just the first; nothing a person wrote is
//! dropped silently (unknown = error; known and not acted on yet, or without meaning here = note).

mod brought;
pub mod canonical;
pub mod check;
pub mod checkers;
pub mod cluster;
pub mod cluster_table;
pub mod diagnostic;
pub mod farm;
pub mod form;
pub mod macros;
pub mod module;
pub mod names;
pub mod normal;
pub mod places;
pub mod plan;
pub mod reference;
pub mod relations;
mod relations_parts;
pub mod suggest;
pub mod table;
pub mod table_check;
pub mod table_farm;
pub mod table_rfs;
pub mod tree;
pub mod typed;
pub mod units;
pub mod xsd;

pub use canonical::Signature;
pub use cluster::{ClusterConfiguration, Lan, LanNode, WITNESSES_MAX, WitnessPlace};
pub use diagnostic::{Checked, Diagnostic, Severity};
pub use module::{Boot, DefaultPrim, Heartbeat, Mode, ModuleConfiguration, Replication, Timings, User, Variable, Vip};
pub use relations::{OtherModule, Subnet, Surroundings};
pub use tree::{Attribute, Element, Position};
