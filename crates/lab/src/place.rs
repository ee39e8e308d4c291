//! Where a lab keeps its files: `/var/tmp/stead-lab/NAME`, root only, gone after `down`.

use std::path::{Path, PathBuf};

/// Parent of all labs.
pub const BASE: &str = "/var/tmp/stead-lab";

/// Directory of one lab.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        Self(Path::new(BASE).join(name))
    }
    pub fn dir(&self) -> &Path {
        &self.0
    }
    /// Where the supervisor answers.
    pub fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
    pub fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }
    pub fn image(&self, host: &str) -> PathBuf {
        self.0.join(format!("{host}.img"))
    }
    /// What the host's PID 1 and its service print.
    pub fn log(&self, host: &str) -> PathBuf {
        self.0.join(format!("{host}.log"))
    }
}
