//! Where things are, and building them.

use crate::{packages, shell};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A cold build of everything takes a fifth of it on two idle cores.
const BUILD_MAX: Duration = Duration::from_secs(2700);

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

/// A program of tests.
pub struct TestProgram {
    /// The crate it belongs to.
    pub package: String,
    /// `lib`, or the file's name.
    pub name: String,
    /// Where its tests expect to run.
    pub folder: PathBuf,
    /// What to run.
    pub path: PathBuf,
}

/// Builds all programs and all tests at once (one choice of features: nothing is compiled twice), and gives the
/// directory of the programs, and the tests.
pub fn workspace() -> anyhow::Result<(PathBuf, Vec<TestProgram>)> {
    packages::ensure(packages::BUILD)?;
    let mut build = cargo();
    build.args(["build", "--quiet", "--workspace", "--all-targets", "--features", "xtask/ledger"]);
    build.arg("--message-format=json-render-diagnostics");
    let path = std::env::temp_dir().join(format!("stead-xtask-build-{}", std::process::id()));
    let built = shell::live_within(build.stdout(std::fs::File::create(&path)?), BUILD_MAX);
    let lines = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    built?;
    let mut programs = None;
    let mut tests = Vec::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).context("what cargo said")?;
        let Some(path) = line["executable"].as_str().map(PathBuf::from) else { continue };
        let target = &line["target"];
        let (name, manifest) = (target["name"].as_str(), line["manifest_path"].as_str().map(Path::new));
        let (Some(name), Some(folder)) = (name, manifest.and_then(Path::parent)) else { continue };
        if line["profile"]["test"].as_bool() == Some(true) {
            let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = if target["kind"][0] == "lib" { "lib".into() } else { name.to_owned() };
            tests.push(TestProgram { package, name, folder: folder.into(), path });
        } else if name == "stead" && target["kind"][0] == "bin" {
            programs = path.parent().map(Path::to_owned);
        }
    }
    tests.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    Ok((programs.context("cargo names no program 'stead'")?, tests))
}

/// What a lab of the tests runs: with everything else, or, when only some stories are told, by itself.
pub fn for_lab(only: Option<&str>) -> anyhow::Result<PathBuf> {
    match only {
        None => workspace().map(|(programs, _)| programs),
        Some(_) => programs(false),
    }
}

/// Builds `stead` and the ledger (optimised when asked), and says in which directory they are.
pub fn programs(release: bool) -> anyhow::Result<PathBuf> {
    packages::ensure(packages::BUILD)?;
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    shell::live(cargo().args(["build", "--quiet", "-p", "stead"]).args(profile))?;
    shell::live(
        cargo()
            .args(["build", "--quiet", "-p", "xtask", "--features", "ledger", "--bin", "stead-ledger"])
            .args(profile),
    )?;
    directory(release)
}

/// Builds `stead` and the measuring hand, optimised.
pub fn measuring() -> anyhow::Result<PathBuf> {
    packages::ensure(packages::BUILD)?;
    // Built already, by ourselves outside the namespaces.
    if let Some(programs) = std::env::var_os(crate::bench::INSIDE) {
        return Ok(programs.into());
    }
    shell::live(cargo().args(["build", "--quiet", "--release", "-p", "stead"]))?;
    shell::live(
        cargo()
            .args(["build", "--quiet", "--release", "-p", "xtask", "--features", "bench"])
            .args(["--bin", "stead-bench"]),
    )?;
    directory(true)
}

/// Where cargo puts what it builds.
fn directory(release: bool) -> anyhow::Result<PathBuf> {
    let metadata =
        shell::must(cargo().args(["metadata", "--no-deps", "--format-version", "1"]), Duration::from_secs(60))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join(if release { "release" } else { "debug" }))
}
