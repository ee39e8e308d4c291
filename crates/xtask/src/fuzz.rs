//! `cargo xtask fuzz`: every target of `fuzz/` for a while, without cargo-fuzz and with the workspace's own compiler.
//!
//! What cargo-fuzz adds is the compiler's flags; those that a stable one knows are enough to be led by what was reached.

use crate::build::{cargo, root};
use crate::{packages, shell};
use anyhow::{Context, bail, ensure};
use std::process::Command;
use std::time::Duration;

/// Counters at every edge: what libFuzzer is led by.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing \
                     -Ccodegen-units=16";
/// Everything once more, with those flags.
const BUILD_MAX: Duration = Duration::from_secs(2_700);

/// Each target (or those whose name contains `only`) for so many seconds.
pub fn run(seconds: u32, only: Option<&str>) -> anyhow::Result<()> {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::FUZZ)?;
    let folder = root().join("fuzz");
    // With a target named, programs that run while others are built (build scripts) are spared the flags.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo();
    build.current_dir(&folder).args(["build", "--quiet", "--target", &target]).env("RUSTFLAGS", FLAGS);
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    shell::live_within(&mut build, BUILD_MAX)?;
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.retain(|name| only.is_none_or(|only| name.contains(only)));
    names.sort();
    ensure!(!names.is_empty(), "no target of fuzz/ has a name like that");
    let mut failed = Vec::new();
    for name in &names {
        // What was found interesting stays, and is where the next run begins.
        let corpus = folder.join("corpus").join(name);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let mut fuzz = Command::new(folder.join("target").join(&target).join("debug").join(name));
        fuzz.arg(format!("-max_total_time={seconds}")).args([
            "-rss_limit_mb=2048",
            "-timeout=20",
            "-print_final_stats=1",
        ]);
        fuzz.arg(format!("-artifact_prefix={}/found-{name}-", folder.display())).arg(&corpus);
        println!("{name}: {seconds} s");
        if let Err(e) = shell::live_within(&mut fuzz, Duration::from_secs(u64::from(seconds) + 60)) {
            println!("{name}: {e:#}");
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("found something: {} (fuzz/found-*)", failed.join(", ")) }
}
