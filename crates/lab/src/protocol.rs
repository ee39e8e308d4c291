//! What commands ask of the supervisor: one JSON line there, one back, over the lab's control socket.

use crate::status::Status;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A wanted situation; repeating one changes nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Answer: [`Answer::Status`].
    Status,
    /// How to enter a host. Answer: [`Answer::Entry`].
    Enter { host: String },
    /// Power away.
    PowerCut { host: String },
    /// Boot.
    PowerOn { host: String },
    /// Stop all processes; `userspace`: only them, the host's kernel still answers.
    Freeze { host: String, userspace: bool },
    /// Let them go on.
    Thaw { host: String },
    /// Drop all frames; `carrier`: the host sees the link go down.
    LinkCut { host: String, net: Option<String>, carrier: bool },
    /// Everything wrong with these links is over.
    LinkHeal { host: String, net: Option<String> },
    /// `host` no longer hears `peer`.
    LinkOneway { host: String, peer: String, net: Option<String> },
    /// Everything ends; the answer comes before the supervisor itself ends.
    Down,
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Done (or already so: then the note says it).
    Done { note: Option<String> },
    /// The state of everything.
    Status { status: Box<Status> },
    /// How to enter a host.
    Entry { entry: Entry },
    /// Not done, and why.
    Refused { reason: String },
}

/// What is needed to run something inside a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// PID 1 of the host.
    pub pid: i32,
    /// When it started (clock ticks since boot): tells it from a reused number.
    pub start_time: u64,
    /// Where the new process belongs.
    pub cgroup: PathBuf,
    /// The host's PATH.
    pub path: String,
}
