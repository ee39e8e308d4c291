//! Where a node keeps its files. Every path of the agent is derived here, so that a lab or a test can
//! give a whole node another root.

use std::path::{Path, PathBuf};

/// The three roots of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Configuration, edited by people: `/etc/stead`.
    pub etc: PathBuf,
    /// State that outlives a reboot: `/var/lib/stead`.
    pub var: PathBuf,
    /// Sockets, gone after a reboot: `/run/stead`.
    pub run: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { etc: "/etc/stead".into(), var: "/var/lib/stead".into(), run: "/run/stead".into() }
    }
}

impl Places {
    /// All three roots below one directory (`DIR/etc`, `DIR/var`, `DIR/run`).
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { etc: root.join("etc"), var: root.join("var"), run: root.join("run") }
    }

    /// Cluster identity and configuration: `/etc/stead/cluster`.
    #[must_use]
    pub fn cluster_dir(&self) -> PathBuf {
        self.etc.join("cluster")
    }

    /// Of a witness: the same for another cluster than the first, below this one's. The socket is the machine's.
    #[must_use]
    pub fn of_cluster(&self, number: u32) -> Self {
        let below = |root: &Path| root.join("clusters").join(number.to_string());
        Self { etc: below(&self.etc), var: below(&self.var), run: self.run.clone() }
    }

    /// State of the witness role: `/var/lib/stead/witness`.
    #[must_use]
    pub fn witness_dir(&self) -> PathBuf {
        self.var.join("witness")
    }

    /// The programs that scripts call (SAFEBIN): `/run/stead/bin`.
    #[must_use]
    pub fn script_bin(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// The agent's Unix socket: `/run/stead/agent.sock`.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }
}
