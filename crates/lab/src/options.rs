//! What a person may choose when a lab is raised.

use crate::LabError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most nodes of one lab.
pub const NODES_MAX: u8 = 16;

/// What runs on the nodes and on the witness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agents {
    /// Nothing.
    None,
    /// Agents in no cluster yet: for playing `cluster init` and `cluster join` by hand.
    Unpaired,
    /// Agents of one cluster.
    Paired,
}

/// Options of [`crate::Lab::up`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the lab: several can stand side by side.
    pub name: String,
    /// Number of nodes, 1..=[`NODES_MAX`].
    pub nodes: u8,
    /// Number of networks, 1 or 2.
    pub networks: u8,
    /// Add a witness host.
    pub witness: bool,
    /// What runs on the hosts.
    pub agents: Agents,
    /// The `stead` program: started as supervisor, as PID 1 of each host, and as agent inside; its directory comes
    /// first in the hosts' PATH.
    pub program: PathBuf,
    /// Size of each host's (sparse) disk in MiB.
    pub disk_mib: u64,
}

impl Options {
    /// A lab named `lab`: two nodes, one network, no witness, agents started from `program`.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            name: "lab".to_owned(),
            nodes: 2,
            networks: 1,
            witness: false,
            agents: Agents::Paired,
            program,
            disk_mib: 4096,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`LabError::BadName`], [`LabError::BadOption`].
    pub fn check(&self) -> Result<(), LabError> {
        check_name(&self.name)?;
        let refuse = |text: String| Err(LabError::BadOption(text));
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return refuse(format!("--nodes {}: a lab has 1 to {NODES_MAX} nodes", self.nodes));
        }
        if !(1..=2).contains(&self.networks) {
            return refuse(format!("--networks {}: a lab has 1 or 2 networks", self.networks));
        }
        if !(64..=1 << 20).contains(&self.disk_mib) {
            return refuse(format!("a disk of {} MiB: choose 64 MiB to 1 TiB", self.disk_mib));
        }
        if !self.program.is_file() {
            return refuse(format!("the program {} does not exist", self.program.display()));
        }
        Ok(())
    }
}

/// A lab's name becomes part of paths and of cgroup names.
pub(crate) fn check_name(name: &str) -> Result<(), LabError> {
    let fine = (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine { Ok(()) } else { Err(LabError::BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "-x", "A", "a b", "x.y", &"a".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["lab", "t-1", "0"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn ranges_are_named() {
        let fine = Options::new("/proc/self/exe".into());
        assert!(fine.check().is_ok());
        let text = Options { nodes: 17, ..fine.clone() }.check().unwrap_err().to_string();
        assert!(text.contains("1 to 16"), "{text}");
        assert!(Options { networks: 3, ..fine.clone() }.check().is_err());
        assert!(Options { program: "/nonexistent".into(), ..fine }.check().is_err());
    }
}
