//! What the two copies of a mirror must agree on: the order of changes, the acknowledgement window, the
//! change map, the plan of a resync, and the bytes of the link.
//!
//! Pure (I1): no clock, no I/O, no threads. `mirrorfs` feeds it and does what it says.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod op;

pub use op::{FileId, Op, Owner, Time};
