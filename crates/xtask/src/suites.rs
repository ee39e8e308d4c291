//! `cargo xtask suites`: public file-system suites in a mirror and beside it in a plain directory.
//!
//! The suites are Debian packages and programs that are built once; what runs them and compares is `crates/mirrorfs/tests/suites.rs`.

use crate::{build, packages, shell};
use anyhow::Context;
use std::process::Command;
use std::time::Duration;

/// Longer than this, for each second of a stressor, is a hang.
const MAX_PER_SECOND: Duration = Duration::from_secs(600);

/// Each stressor for this long; with more than a second, also long games of our own tests.
pub fn run(seconds: u32) -> anyhow::Result<()> {
    packages::ensure(packages::SUITES)?;
    let (ours, programs) = build::workspace()?;
    let bin = packages::suite_programs(&ours.with_file_name("suites"))?;
    let test = |name: &str| {
        let program = programs.iter().find(|p| p.package == "mirrorfs" && p.name == name);
        let program = program.with_context(|| format!("mirrorfs has no tests '{name}'"))?;
        let mut command = Command::new(&program.path);
        command.current_dir(&program.folder);
        anyhow::Ok(command)
    };
    let max = MAX_PER_SECOND * seconds;
    let mut suites = test("suites")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    suites.env("PATH", std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?);
    suites.args(["--ignored", "--nocapture", "--test-threads=1"]);
    shell::live_within(suites.env("STEAD_SUITES_SECONDS", seconds.to_string()), max)?;
    if seconds > 1 {
        let steps = u64::from(seconds) * 3_000;
        shell::live_within(test("fsx")?.env("MIRRORFS_STEPS", steps.to_string()), max)?;
        shell::live_within(test("table")?.env("MIRRORFS_EVERY", "1"), max)?;
    }
    Ok(())
}
