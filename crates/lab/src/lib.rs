//! A whole cluster on one machine: each host is a set of namespaces with its own disk, joined by bridges.
//!
//! Owns: namespaces, veth pairs, loop devices and cgroups of labs, and `/var/tmp/stead-lab/NAME`. Touches nothing
//! else on the machine. A lab lives exactly as long as its supervisor process: when that dies, the kernel takes
//! everything else down with it, and what is left on disk is swept by the next `up` or `down`.
//!
//! Start at [`Lab`]. The supervisor ([`supervisor`]) holds the switch; the PID 1 of each host is [`init`].

pub mod error;
pub mod interrupt;
pub mod lab;
pub mod options;
pub mod roles;
pub mod status;

mod cgroup;
mod disk;
mod exec;
mod foreground;
mod fuse;
mod host;
mod init;
mod loopdev;
mod mounts;
mod pairing;
mod place;
mod plan;
mod protocol;
mod spawn;
mod supervisor;
mod sweep;
mod switch;
mod tools;
mod wait;

pub use error::LabError;
pub use exec::{Exit, Output, Running, Stdio};
pub use lab::{Lab, LabGuard};
pub use options::{Agents, Options};
pub use status::{HostState, HostStatus, Status};
