//! `cargo xtask test`: every layer, cheapest first, with its time.

use crate::build::{self, cargo};
use crate::cluster::Cluster;
use crate::packages;
use crate::shell;
use crate::stories::{Lab, STORIES, tell};
use anyhow::{Context, bail};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One layer: its name, and what runs.
type Layer = (&'static str, fn(Option<&str>) -> anyhow::Result<()>);

/// A layer that takes longer hangs: it is ended, and fails.
const LAYER_MAX: Duration = Duration::from_secs(1500);
/// So does a program of tests.
const PROGRAM_MAX: Duration = Duration::from_secs(600);

/// So many programs of tests run side by side: many of them wait more than they work.
const AT_A_TIME: usize = 2;
/// Its tests count what there is on the machine (namespaces, mounts): nobody else makes any meanwhile.
const ALONE: &str = "lab";
/// Those that take longest, longest first.
const LONG: &[&str] = &["sim explore", "sim farm"];

/// Crates that wait for nothing and touch nothing.
const PURE: &[&str] = &["model", "cluster", "replica", "sim"];

const LAYERS: &[Layer] = &[
    ("format", |_| live(cargo().args(["fmt", "--all", "--check"]))),
    ("lint", |_| {
        crate::dependencies::check()?;
        live(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    }),
    ("build", |_| build::workspace().map(drop)),
    ("pure", |only| tests(only, |package| PURE.contains(&package))),
    ("crates", |only| tests(only, |package| !PURE.contains(&package))),
    ("suites", |_| crate::suites::run(1)),
    ("refusals", crate::refusals::run),
    ("e2e", end_to_end),
];

fn live(command: &mut std::process::Command) -> anyhow::Result<()> {
    shell::live_within(command, LAYER_MAX)
}

/// A program of tests, under the name that a person sees.
type Named<'a> = (String, &'a build::TestProgram);

/// The tests of these crates, program by program, two at a time, each with its time.
fn tests(only: Option<&str>, is_chosen: fn(&str) -> bool) -> anyhow::Result<()> {
    let (_, programs) = build::workspace()?;
    let chosen = programs.iter().filter(|p| is_chosen(&p.package));
    let named = chosen.map(|program| (format!("{} {}", program.package, program.name), program));
    let named = named.filter(|(name, _)| only.is_none_or(|only| name.contains(only)));
    let (alone, mut beside): (Vec<_>, Vec<_>) = named.partition(|(_, program)| program.package == ALONE);
    // Taken from the end: the long ones begin, so that none of them is waited for alone.
    beside.sort_by_key(|(name, _)| LONG.iter().rev().position(|long| long == name).map_or(0, |place| place + 1));
    let failed = [run_programs(beside, AT_A_TIME), run_programs(alone, 1)].concat();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Runs them, so many at a time; says which failed.
fn run_programs(programs: Vec<Named<'_>>, at_a_time: usize) -> Vec<String> {
    let (left, failed) = (Mutex::new(programs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((name, program)) = next else { return };
                    if !passes(&name, program) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn passes(name: &str, program: &build::TestProgram) -> bool {
    let start = Instant::now();
    let mut command = std::process::Command::new(&program.path);
    command.arg("--quiet").current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    let outcome = shell::told_within(&mut command, PROGRAM_MAX);
    let seconds = start.elapsed().as_secs_f64();
    match &outcome {
        Ok(said) => println!("   {name}\n{said}\n      {seconds:.1} s"),
        Err(error) => println!("   {name}\n{error:#}\n      FAILED after {seconds:.1} s"),
    }
    outcome.is_ok()
}

/// Runs all layers, or one.
pub fn run(layer: Option<&str>, only: Option<&str>) -> anyhow::Result<()> {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::POSTGRESQL)?;
    packages::ensure(packages::SUITES)?;
    packages::ensure(packages::SCHEMA)?;
    let layer = layer.or(only.map(|_| "e2e"));
    let chosen: Vec<&Layer> = LAYERS.iter().filter(|(name, _)| layer.is_none_or(|l| l == *name)).collect();
    if chosen.is_empty() {
        bail!(
            "no layer '{}': {}",
            layer.unwrap_or_default(),
            LAYERS.iter().map(|l| l.0).collect::<Vec<_>>().join(", ")
        );
    }
    let mut times = Vec::new();
    for (name, play) in chosen {
        println!("== {name}");
        let start = Instant::now();
        play(only).with_context(|| format!("layer {name}"))?;
        times.push((name, start.elapsed()));
    }
    println!("\nlayer      seconds");
    for (name, time) in &times {
        println!("{name:<10} {:>7.1}", time.as_secs_f64());
    }
    println!("{:<10} {:>7.1}", "all", times.iter().map(|(_, t)| t.as_secs_f64()).sum::<f64>());
    Ok(())
}

/// The stories, most of them with PostgreSQL; labs are shared: without a witness, with one, with two networks.
fn end_to_end(only: Option<&str>) -> anyhow::Result<()> {
    let programs = build::for_lab(only)?;
    for lab in Lab::ALL {
        let stories: Vec<_> =
            STORIES.iter().filter(|s| s.lab == lab && only.is_none_or(|o| s.name.contains(o))).collect();
        if stories.is_empty() {
            continue;
        }
        let app = lab.app();
        let cluster = Cluster::up(&programs, "e2e", lab.arguments())?;
        app.install(&cluster)?;
        for story in stories {
            let start = Instant::now();
            println!("   {}", story.name);
            tell(&cluster, app, story).inspect_err(|_| cluster.print_logs(app.module())).with_context(|| story.name)?;
            println!("      {:.1} s", start.elapsed().as_secs_f64());
        }
        drop(cluster);
        nothing_remains("e2e")?;
    }
    crate::farm::stories(only)?;
    Ok(())
}

/// After a lab of this name: no mount, no loop device, no directory, no process in its control groups.
pub fn nothing_remains(lab: &str) -> anyhow::Result<()> {
    let lab = &crate::cluster::lab_name(lab);
    let dir = format!("/var/tmp/stead-lab/{lab}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    if let Some(line) = mounts.lines().find(|l| l.contains(&format!("{dir}/"))) {
        bail!("a mount remains: {line}");
    }
    let loops = shell::must(
        std::process::Command::new("losetup").args(["-l", "-n", "-O", "BACK-FILE"]),
        Duration::from_secs(10),
    )?;
    if let Some(line) = loops.lines().find(|l| l.starts_with(&format!("{dir}/"))) {
        bail!("a loop device remains: {line}");
    }
    if std::path::Path::new(&dir).exists() {
        bail!("{dir} remains");
    }
    let group = mounts.lines().find_map(|l| {
        let mut words = l.split(' ');
        (words.clone().nth(2) == Some("cgroup2")).then(|| words.nth(1).unwrap_or_default().to_string())
    });
    if let Some(left) =
        group.map(|root| format!("{root}/stead-lab/{lab}")).filter(|path| std::path::Path::new(path).exists())
    {
        bail!("a control group remains: {left}");
    }
    Ok(())
}

/// Writes the generated pages and schemas.
pub fn docs() -> anyhow::Result<()> {
    shell::live(
        cargo().args(["test", "--quiet", "-p", "model", "--lib", "reference"]).env("STEAD_WRITE_EXPECTED", "1"),
    )?;
    shell::live(cargo().args(["test", "--quiet", "-p", "sim", "--test", "transitions"]).env("UPDATE", "1"))
}
