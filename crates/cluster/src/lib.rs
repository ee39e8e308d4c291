//! See the description in Cargo.toml; filled by its first slice.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
