//! Where things are, and building them.

use crate::shell;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// `cargo`, as it was called.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds `stead` and the ledger (optimised when asked), and says in which directory they are.
pub fn programs(release: bool) -> anyhow::Result<PathBuf> {
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    shell::live(cargo().args(["build", "--quiet", "-p", "stead"]).args(profile))?;
    shell::live(
        cargo()
            .args(["build", "--quiet", "-p", "xtask", "--features", "ledger", "--bin", "stead-ledger"])
            .args(profile),
    )?;
    let metadata =
        shell::must(cargo().args(["metadata", "--no-deps", "--format-version", "1"]), Duration::from_secs(60))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join(if release { "release" } else { "debug" }))
}
