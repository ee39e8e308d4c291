//! Where a module keeps its files on this node.

use super::agent::Agent;
use model::ModuleName;
use std::path::PathBuf;

/// Where a module keeps its things.
#[derive(Clone, Debug)]
pub struct ModulePlaces {
    /// `/var/lib/stead/modules/AM`.
    pub var: PathBuf,
    /// `/run/stead/modules/AM`: there while the module runs; gone after a reboot.
    pub run: PathBuf,
    /// Socket of its data plane.
    pub socket: PathBuf,
}

impl ModulePlaces {
    /// Of this module.
    #[must_use]
    pub fn of(agent: &Agent, module: &ModuleName) -> Self {
        Self {
            var: agent.places.var.join("modules").join(module.as_str()),
            run: agent.places.run.join("modules").join(module.as_str()),
            socket: agent.places.run.join("mirrorfs").join(format!("{module}.sock")),
        }
    }

    /// Present while the module runs in this boot.
    #[must_use]
    pub fn running(&self) -> PathBuf {
        self.run.join("running")
    }

    /// Present from the order to stop until the module is stopped: an agent that dies meanwhile leaves the rest of it to the next. What is
    /// in it says how.
    #[must_use]
    pub fn stopping(&self) -> PathBuf {
        self.run.join("stopping")
    }

    /// Present when an operator wants the module started.
    #[must_use]
    pub fn wanted(&self) -> PathBuf {
        self.var.join("wanted")
    }

    /// Present from a boot until the module's start that was put off (`boot_delay`).
    #[must_use]
    pub fn delayed(&self) -> PathBuf {
        self.run.join("delayed")
    }

    /// Present when an operator took the covers off.
    #[must_use]
    pub fn released(&self) -> PathBuf {
        self.var.join("released")
    }

    /// Output of script runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.var.join("runs")
    }
}
