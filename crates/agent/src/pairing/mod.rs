//! Making a cluster, and letting machines into it.
//!
//! A token carries the fingerprint of the cluster's authority and a secret used once. The joining machine checks the
//! fingerprint before it says anything; both sides then prove the secret over the channel they are on, so that neither
//! a machine in the middle nor a repeated conversation gets anywhere. **Invariant:** nothing of the cluster (names,
//! addresses, keys) leaves a node before the secret is proven.

mod addresses;
mod admit;
pub(crate) mod hostile;
mod init;
mod join;
mod messages;
mod token;
mod tokens;

pub(crate) use addresses::is_local;
pub use init::Pairing;
pub use token::{Token, TokenError};
