//! See the description in Cargo.toml; filled by its first slice.
