//! Nouns of Stead. Everything here is data with a meaning; nothing here acts.
//!
//! `no_std` + `alloc`, because the pure crates stand on it.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod api;
pub mod date;
pub mod farm;
pub mod ids;
pub mod limits;
pub mod marks;
pub mod orders;
pub mod patterns;
pub mod record;
pub mod resource;
pub mod rules;
pub mod schedule;
pub mod schema;
pub mod state;

pub use ids::{ClusterId, DataId, Epoch, Lsn, ModuleId, ModuleName, NameError, NodeId, NodeName};
pub use record::{DataState, Record, Relation, Right, Role, Witnesses};
pub use state::{ModuleState, Status};
