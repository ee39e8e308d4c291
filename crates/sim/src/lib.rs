//! The pair, on a laptop: explorer of every situation of the small model, and player of text stories.
//!
//! Everything that decides is the production code of `cluster`; the rest of the world is abstract and small.

pub mod crash;
pub mod explore;
mod fingerprint;
pub mod scenario;
pub mod suite;
pub mod table;
pub mod world;
