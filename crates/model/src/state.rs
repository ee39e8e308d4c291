//! What a module shows: state × status, as SafeKit's users know them.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Where a module is on one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ModuleState {
    /// Stopped, ready to be started.
    Stop,
    /// Started, not serving: the reason says what it waits for.
    Wait,
    /// Primary without a secondary.
    Alone,
    /// Primary with a complete secondary.
    Prim,
    /// Complete copy behind a primary (Transient: being resynchronised).
    Second,
    /// Farm member that serves.
    Up,
}

impl ModuleState {
    /// Exit code of `stead state -lq`, as SafeKit's.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Stop => 0,
            Self::Wait => 1,
            Self::Alone | Self::Up => 2,
            Self::Prim => 3,
            Self::Second => 4,
        }
    }
}

impl fmt::Display for ModuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Alone => "ALONE",
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Up => "UP",
        })
    }
}

/// How settled a module is in its state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Status {
    /// Stopped or blocked: the reason says on what.
    NotReady,
    /// On its way: starting, stopping, resynchronising, holding.
    Transient,
    /// Settled.
    Ready,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotReady => "NotReady",
            Self::Transient => "Transient",
            Self::Ready => "Ready",
        })
    }
}
