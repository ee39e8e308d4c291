//! What the two copies of a mirror must agree on: the order of changes, the acknowledgement window, the
//! change map, the activity log, the plan of a resync, and the bytes of the link.
//!
//! Pure (I1): no clock, no I/O, no threads. `mirrorfs` feeds it and does what it says.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod bytes;
mod fine;
pub mod hot;
pub mod map;
pub mod moves;
pub mod op;
pub mod resync;
pub mod window;
pub mod wire;

pub use op::{FileId, Op, Owner, Time};
