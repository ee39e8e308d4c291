//! Identities and counters. A bare integer or string never crosses a module boundary.

use alloc::string::{String, ToString};
use core::fmt;
use serde::{Deserialize, Serialize};

/// A server of the cluster: assigned at pairing, never reused, 1-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

/// The identity of a cluster, made by `stead cluster init`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

/// A module's small number: the same on all nodes, decides its replication port. 1..=256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModuleId(pub u16);

impl ModuleId {
    /// TCP port of the module's replication link (`5600 + 4·(id − 1)`).
    #[must_use]
    pub const fn replication_port(self) -> u16 {
        5600 + 4 * (self.0 - 1)
    }

    /// The module whose port this is.
    #[must_use]
    pub const fn of_replication_port(port: u16) -> Option<Self> {
        match port.checked_sub(5600) {
            Some(above) if above % 4 == 0 => Some(Self(above / 4 + 1)),
            _ => None,
        }
    }
}

/// Stamp of one lineage of replicated data; stored on the replicated directories and in the record.
/// Zero means "never initialised".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataId(pub u64);

/// Position of a change in the total order of one session, starting at 1. Zero: nothing yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

/// Counts primaryships and fences old ones. Never compare counters to decide who is newer: ask
/// whether one is in the other's history (protocol.md, R17).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// One more than every counter the node had seen.
    pub counter: u64,
    /// The node that holds (or held) this primaryship.
    pub node: NodeId,
    /// So that a restored backup cannot forge an epoch.
    pub random: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:08x}", self.counter, self.node.0, self.random)
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    /// The refused text.
    pub name: String,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a valid name: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and do not begin with a dot or a dash",
            self.name
        )
    }
}
impl core::error::Error for NameError {}

fn is_valid_name(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && !s.starts_with(['.', '-'])
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `[A-Za-z0-9_.-]{1,64}`, not beginning with `.` or `-`.
            ///
            /// # Errors
            /// [`NameError`] names the text and the rule.
            pub fn new(name: &str) -> Result<Self, NameError> {
                if is_valid_name(name) { Ok(Self(name.to_string())) } else { Err(NameError { name: name.to_string() }) }
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }
        impl core::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// Name of a module: folder under `/etc/stead/modules`, value of `-m`.
    ModuleName
);
name!(
    /// Name of a node in `cluster.xml`.
    NodeName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "-x", ".hidden", "a b", "é", "a\0b"] {
            assert!(ModuleName::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!(ModuleName::new("postgresql-15_a.b").unwrap().as_str(), "postgresql-15_a.b");
    }

    #[test]
    fn ports_are_the_documented_ones() {
        assert_eq!(ModuleId(1).replication_port(), 5600);
        assert_eq!(ModuleId(256).replication_port(), 6620);
    }
}
