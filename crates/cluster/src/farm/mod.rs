//! The farm: which of N nodes owns which traffic, and who says so.
//!
//! Pure. **Invariant:** the same view gives the same table on every node, byte for byte.
//!
//! | file | holds |
//! |---|---|
//! | `hash` | client → bucket, as the kernel's filter computes it |
//! | `shares` | bucket → owners, from a view and its past |
//! | `member` | views: who is in, who directs, joining, draining, death, partition, healing |
//! | `module` | one node: commands, application, addresses, draining |
//! | `doubt` | when connections may stand where this node does not see them |
//! | `foreign` | nodes with another configuration: who waits |
//! | `imagine` | what would follow from something: the farm lives through it, in a world where everything else goes well |
//! | `order` | the others act on a new view first, then the director, last who directed before |
//! | `picture` | from a view and the configuration to what the filter reads |
//! | `filter` | the packet decision: the twin of `platform/src/farm/filter.c` |

mod doubt;
pub mod filter;
mod foreign;
pub mod hash;
pub mod imagine;
pub mod member;
pub mod module;
pub mod order;
pub mod picture;
pub mod shares;
