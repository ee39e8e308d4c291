//! Resources, and what operators say about checkers.

use crate::resource::Value;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One resource of a module on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceView {
    /// `tcp.http`
    pub name: String,
    /// init, down, up, unknown, or a word.
    pub value: Value,
    /// Why, in a few words; may be empty.
    #[serde(default)]
    pub why: String,
    /// Since when.
    #[serde(default)]
    pub since_unix_ms: u64,
    /// What it was before, the oldest first.
    #[serde(default)]
    pub past: Vec<PastView>,
}

/// What a resource was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastView {
    /// The value.
    pub value: Value,
    /// From when on.
    pub at_unix_ms: u64,
}

/// `POST /v1/modules/{m}/watch`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchRequest {
    /// All checkers of `<check>`, for maintenance.
    Checker(Switch),
    /// All of `<errd>`.
    Errd(Switch),
    /// Whether a secondary takes over by itself, until it is said otherwise or the configuration changes.
    Failover {
        /// It does.
        on: bool,
    },
    /// An automatic action of somebody else: counts with those of the module, which stops when there are too many in a row.
    CountLoop {
        /// Who acted.
        by: String,
    },
    /// Automatic actions are forgotten.
    ForgetLoops,
    /// A line of a script in the module's log.
    Print {
        /// Level E; otherwise I.
        error: bool,
        /// One line.
        text: String,
    },
    /// A farm's script (`scriptcontrol`) opens the traffic to this node, or closes it.
    Traffic {
        /// Which.
        open: bool,
    },
    /// Run the module's script `update`.
    Update,
    /// Whether the module starts with the node, where its configuration leaves that open.
    Boot {
        /// Said from now on; `None`: only asked.
        on: Option<bool>,
    },
    /// One class of one's own.
    Class {
        /// Its name.
        name: String,
        /// Watched, or not.
        on: bool,
    },
    /// A resource gets a value.
    Set {
        /// `custom.NAME` or `user.NAME`.
        resource: String,
        /// What it becomes.
        value: Value,
        /// Who says so.
        #[serde(default)]
        by: String,
    },
}

/// On or off.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Switch {
    /// On.
    pub on: bool,
    /// Off only for so long; 0: until switched on again.
    #[serde(default)]
    pub for_ms: u64,
    /// Why, for those who ask later.
    #[serde(default)]
    pub reason: String,
}
