//! See the description in Cargo.toml; filled by its first slice.
pub mod api;
pub mod heartbeat;
pub mod cluster_config;
pub mod identity;
pub mod pairing;
pub mod places;
pub mod transport;
pub mod configuration;
pub mod modules;
pub mod health;
pub mod witness_client;
pub mod witness_server;
