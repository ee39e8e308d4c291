//! What can go wrong, said so that a person knows what to do next.

use std::io;
use std::time::Duration;

/// Every error of a lab. Unless said otherwise: state unchanged, retry safe.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, loop devices and cgroups need root.
    #[error("a lab needs root (namespaces, loop devices, cgroups): run it with sudo")]
    NotRoot,
    /// Programs the lab runs are not installed.
    #[error("the lab needs programs that are not installed: {tools}; run: apt-get install {packages}")]
    MissingTools {
        /// Names of the programs.
        tools: String,
        /// Debian packages that bring them.
        packages: String,
    },
    /// The machine lacks something the lab stands on.
    #[error("{0}")]
    Machine(String),
    /// A lab's name is part of paths.
    #[error(
        "'{0}' is not a valid lab name: use 1 to 32 of the characters a-z 0-9 -, beginning with a letter or a digit"
    )]
    BadName(String),
    /// An option is out of range.
    #[error("{0}")]
    BadOption(String),
    /// `up` of a lab that is up.
    #[error(
        "the lab '{0}' is already up: look at it with `stead lab status --name {0}`, end it with `stead lab down --name {0}`"
    )]
    AlreadyUp(String),
    /// Somebody else is building or removing this lab right now.
    #[error("the lab '{0}' is being built or removed by another process: try again in a moment")]
    Busy(String),
    /// No such lab, or only its remains.
    #[error("the lab '{0}' is not up: start it with `stead lab up --name {0}`")]
    NotUp(String),
    /// No such host in this lab.
    #[error("there is no host '{host}' in this lab: it has {known}")]
    UnknownHost {
        /// What was asked for.
        host: String,
        /// What there is.
        known: String,
    },
    /// No such network in this lab.
    #[error("there is no network '{net}' in this lab: it has {known}")]
    UnknownNet {
        /// What was asked for.
        net: String,
        /// What there is.
        known: String,
    },
    /// The host is powered off.
    #[error("{host} is off: switch it on with `stead lab power on {host}`")]
    Off {
        /// Which.
        host: String,
    },
    /// The program could not be started inside the host.
    #[error("cannot run '{program}' on {host}: {source}")]
    Exec {
        /// Which host.
        host: String,
        /// What.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A bounded wait ended. The lab may be half way: `down` is always safe.
    #[error("{what}: not within {} ms", .limit.as_millis())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A system call or a tool failed.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `ip`, `nft` or `mkfs.ext4` refused.
    #[error("`{tool}` failed: {output}")]
    Tool {
        /// Which.
        tool: &'static str,
        /// What it said.
        output: String,
    },
    /// The supervisor refused or failed.
    #[error("{0}")]
    Refused(String),
    /// The nodes did not become a cluster. The lab has been removed again.
    #[error("the nodes could not be paired: {0}")]
    Pairing(String),
}

/// Gives an `io::Error` the sentence of what was attempted.
pub(crate) trait Context<T> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|source| LabError::Os { what: what(), source: source.into() })
    }
}
