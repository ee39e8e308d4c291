//! Processes: the control groups that hold a module's application, running its scripts, and our own priority.
//!
//! Nothing here decides when to start or kill: it places, runs, lists and kills what it is told.

pub mod cgroup;
pub mod events;
pub mod list;
pub mod names;
pub mod realtime;
pub mod script;

mod tree;

pub use cgroup::{CgroupError, CgroupTree, ModuleCgroup};
pub use realtime::{Realtime, Scheduling};
pub use script::{ScriptEnd, ScriptError, ScriptOutcome, ScriptRun};
