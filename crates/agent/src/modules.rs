//! Application modules on this node: packages, the editable copy, the active copy.
//!
//! Synchronous; the agent calls it from a blocking thread. It never starts or stops anything, and never
//! touches replicated data.
//! **Invariant:** a crash at any step leaves the old or the new module, never half of one.

mod change;
pub mod delivered;
pub mod disk;
pub mod environment;
pub mod error;
pub mod package;
mod package_zip;
mod plan;
pub mod signature;
pub mod source;
pub mod store;
mod two_phase;
mod unaltered;

/// Folder of the modules' editable copies.
pub const EDITABLE: &str = "/etc/stead/modules";

pub use error::StoreError;
pub use package::{Package, PackageError};
pub use plan::differences;
pub use source::{Staged, stage};
pub use store::{Active, Around, Installed, Prepared, Store, Token, smallest_free_id};
pub use unaltered::Looks;
