//! The pair and the farm, on a laptop: explorers of every situation of the small models, and player of text stories.
//!
//! Everything that decides is the production code of `cluster`; the rest of the world is abstract and small.

pub mod crash;
pub mod explore;
pub mod farm;
mod fingerprint;
pub mod matrix;
pub mod scenario;
pub mod suite;
pub mod table;
pub mod world;
