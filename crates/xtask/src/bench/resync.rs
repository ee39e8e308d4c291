//! `cargo xtask bench resync`: how long a secondary takes to come back, beside `rsync -a` and a plain copy.
//!
//! RAM disks only: what the software costs. Each comparison is made in the same round.

use super::figure::{Figure, Goal, report, results, table};
use super::plane::{Joined, NAMES, Place, Plane, join};
use super::stage::{self, Disk, Stage, Storage, sh};
use crate::shell::must;
use crate::{build, packages};
use anyhow::{Context, ensure};
use model::limits::HOT_TABLE;
use model::orders::{AckPolicy, Begin, Order, Report};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FULL: Begin = Begin::Resync { full: true, quarantine: false };
const CHANGES: Begin = Begin::Resync { full: false, quarantine: false };
const PORT: u16 = 5600;
/// Files changed while the secondary is away.
const CHANGED: usize = 100;
const SMALL_BYTES: usize = 300;
const ZONE: f64 = 65_536.0;
const MEMORY: Goal = Goal::AtMost(200.0);

/// See the module's page.
pub fn run(quick: bool, json: Option<&Path>, only: Option<&str>) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::MIRROR_PEERS)?;
    let programs = build::measuring()?;
    stage::apart(&programs, |programs| inside(programs, quick, json, only))
}

fn inside(programs: &Path, quick: bool, json: Option<&Path>, only: Option<&str>) -> anyhow::Result<()> {
    let (rounds, files, mebibytes) = if quick { (3, 100_000, 1_024) } else { (5, 1_000_000, 4_096) };
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut figures = if wanted("small") { small(programs, rounds, files)? } else { Vec::new() };
    if wanted("large") {
        figures.extend(large(programs, rounds, mebibytes)?);
    }
    report(&figures, json)?;
    if only.is_some() {
        return Ok(());
    }
    let words = format!(
        "`cargo xtask bench resync{}`: {files} small files with {CHANGED} changed, and one file of {mebibytes} MiB, on RAM disks (ext4 on a \
         loop device on tmpfs); interleaved rounds, each ratio taken within a round. Times run from the order to the commit on \
         both nodes. Memory: the most a process held since it started, beyond what it held before, by million of files.",
        if quick { " --quick" } else { "" },
    );
    results("Resync", &format!("{words}\n\n{}", table(&figures)))
}

/// Two planes, the one that serves first, and how often one has gone on alone.
struct Pair<'a> {
    place: Place<'a>,
    server: Plane,
    target: Plane,
    /// Node number of the server.
    node: usize,
    epoch: u64,
    session: u64,
}

impl<'a> Pair<'a> {
    /// The first disk serves, with what is on it.
    fn start(place: Place<'a>, disks: [Disk; 2]) -> anyhow::Result<Self> {
        let [a, b] = disks;
        let mut server = Plane::start(&place, 0, a, PORT, AckPolicy::Write)?;
        server.alone(1, true)?;
        let target = Plane::start(&place, 1, b, PORT, AckPolicy::Write)?;
        Ok(Self { place, server, target, node: 0, epoch: 1, session: 0 })
    }

    fn join(&mut self, begin: Begin) -> anyhow::Result<Joined> {
        self.session += 1;
        join(&mut self.server, &mut self.target, (self.epoch, self.session), begin)
    }

    /// The most memory each process has held, server first.
    fn peaks_kib(&self) -> anyhow::Result<[u64; 2]> {
        Ok([self.server.memory_kib("VmHWM:")?, self.target.memory_kib("VmHWM:")?])
    }

    /// Processor time of both so far.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(self.server.cpu_seconds()? + self.target.cpu_seconds()?)
    }

    /// The secondary leaves in good order; the primary goes on alone.
    fn part(&mut self) -> anyhow::Result<()> {
        self.target.reach(&Order::Idle)?;
        self.go_on()
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        self.server.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }).then_some(()))?;
        self.epoch += 1;
        self.server.reach(&Order::Hold)?;
        self.server.reach(&Order::Sync { ticket: self.epoch })?;
        self.server.alone(self.epoch, false)
    }

    /// Another process, the same disk.
    fn restart_target(&mut self) -> anyhow::Result<()> {
        self.target.process.end();
        self.target = Plane::start(&self.place, 1 - self.node, self.target.disk.clone(), PORT, AckPolicy::Write)?;
        Ok(())
    }

    /// The secondary is killed and comes back.
    fn crash_of_the_secondary(&mut self) -> anyhow::Result<()> {
        self.restart_target()?;
        self.go_on()
    }

    /// The secondary leaves in good order, and for a moment anybody could change its directories.
    fn bare_secondary(&mut self) -> anyhow::Result<()> {
        self.part()?;
        self.target.process.end();
        sh(&format!("while umount -l {} 2> /dev/null; do :; done", self.target.disk.data.display()))?;
        self.restart_target()
    }

    /// The primary is killed; the secondary serves, and the primary comes back behind it.
    fn crash_of_the_primary(&mut self) -> anyhow::Result<()> {
        std::mem::swap(&mut self.server, &mut self.target);
        self.node = 1 - self.node;
        self.target.process.end();
        self.server.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }).then_some(()))?;
        self.epoch += 1;
        self.server.reach(&Order::Idle)?;
        self.server.reach(&Order::Sync { ticket: self.epoch })?;
        self.server.alone(self.epoch, false)?;
        // What the killed process left mounted.
        sh(&format!("umount -l {}", self.target.disk.data.display()))?;
        self.restart_target()
    }
}

fn stage_and_tls(programs: &Path, megabytes: u32) -> anyhow::Result<Stage> {
    let mut stage = Stage::new(Storage::Ram, megabytes)?;
    stage.networks()?;
    let mut certificates = Command::new(programs.join("stead-bench"));
    must(certificates.arg("certificates").arg(stage.path("tls")).args(NAMES), Duration::from_secs(30))?;
    Ok(stage)
}

fn seconds(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// A million files (or a tenth), a hundred changed.
fn small(programs: &Path, rounds: usize, files: usize) -> anyhow::Result<Vec<Figure>> {
    // A block, an inode, and room for directories and the journal.
    let megabytes = ((files as u64 * 1_600) >> 20) as u32 + 300;
    let stage = stage_and_tls(programs, 3 * megabytes + 200)?;
    let disk = |name: &str| stage.small_files(name, megabytes, files as u32 * 11 / 10);
    let (a, b, c) = (disk("a")?, disk("b")?, disk("c")?);
    for n in 0..files {
        let dir = a.data.join(format!("d{}", n / 1_000));
        if n % 1_000 == 0 {
            std::fs::create_dir_all(&dir)?;
        }
        std::fs::write(dir.join(format!("f{n}")), format!("{n:0>SMALL_BYTES$}"))?;
    }
    let copied = seconds(|| sh(&format!("cp -a {}/. {}; sync -f {0}", a.data.display(), c.data.display())))?;
    let place = Place { stage: &stage, stead: programs.join("stead"), tls: stage.path("tls") };
    let mut pair = Pair::start(place, [a, b])?;
    let before = pair.peaks_kib()?;
    let first = pair.join(FULL)?;
    let per_million = |kib: u64| kib as f64 / 1024.0 * 1e6 / files as f64;
    let grown: Vec<f64> =
        before.iter().zip(pair.peaks_kib()?).map(|(b, a)| per_million(a.saturating_sub(*b))).collect();
    println!("{files} small files: first copy {:?}, cp -a {copied:.1} s", first.took);
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        let mut add = |name, value| values.entry(name).or_default().push(value);
        pair.part()?;
        change(&pair.server.disk.data, files, round * 10)?;
        let joined = pair.join(CHANGES)?;
        add("clean", joined.took.as_secs_f64());
        add("sent", joined.progress.bytes_sent as f64 / (CHANGED as f64 * ZONE));
        let (from, to) = (pair.server.disk.lower.display().to_string(), c.data.display().to_string());
        add("rsync", seconds(|| sh(&format!("rsync -a --exclude .stead* {from}/ {to}/; sync -f {to}")))?);
        // Written until the very crash: hot on both nodes.
        change(&pair.server.disk.data, files, round * 10 + 3)?;
        pair.crash_of_the_secondary()?;
        change(&pair.server.disk.data, files, round * 10 + 1)?;
        let joined = pair.join(CHANGES)?;
        add("secondary", joined.took.as_secs_f64());
        add("secondary-entries", joined.progress.entries as f64);
        change(&pair.server.disk.data, files, round * 10 + 4)?;
        pair.crash_of_the_primary()?;
        change(&pair.server.disk.data, files, round * 10 + 2)?;
        let joined = pair.join(CHANGES)?;
        add("primary", joined.took.as_secs_f64());
        add("primary-entries", joined.progress.entries as f64);
        pair.bare_secondary()?;
        pair.join(CHANGES)?;
        // It has looked at every inode meanwhile.
        let (entries, ms) = pair.target.scanned().context("no look for changes behind the back")?;
        ensure!(entries > files as f64, "only {entries} entries were looked at");
        add("scan", ms / 1_000.0 * 1e6 / entries);
        println!("round {} of {rounds}: {:?}", round + 1, values);
    }
    let mut figure =
        |key: &str, name: String, unit| Figure::new(name, unit).values(values.remove(key).unwrap_or_default());
    // What may be hot on the crashed node, and what was changed after it.
    let bound = Goal::AtMost((HOT_TABLE + CHANGED) as f64);
    Ok(vec![
        figure("clean", format!("{files} files, {CHANGED} changed, after a clean stop"), "s").goal(Goal::AtMost(2.0)),
        figure("sent", "bytes sent / changed bytes rounded to 64 KiB".into(), "×").goal(Goal::AtMost(1.1)),
        figure("secondary", "the same after a kill of the secondary, as many files hot".into(), "s")
            .goal(Goal::AtMost(2.0)),
        figure("secondary-entries", "entries compared after a kill of the secondary".into(), "").goal(bound),
        figure("primary", "the same after a kill of the primary, as many files hot".into(), "s")
            .goal(Goal::AtMost(2.0)),
        figure("primary-entries", "entries compared after a kill of the primary".into(), "").goal(bound),
        figure("rsync", "the same with rsync -a".into(), "s"),
        figure("scan", "a look for changes behind a stopped module's back, per million entries".into(), "s"),
        Figure::new(format!("{files} files onto an empty copy"), "s").values([first.took.as_secs_f64()]),
        Figure::new("the same with cp -a".to_string(), "s").values([copied]),
        Figure::new("memory of the primary during that, per million files", "MiB").values([grown[0]]).goal(MEMORY),
        Figure::new("memory of the secondary during that, per million files", "MiB").values([grown[1]]).goal(MEMORY),
    ])
}

/// Spread over the whole tree, other content each time.
fn change(data: &Path, files: usize, seed: usize) -> anyhow::Result<()> {
    for i in 0..CHANGED {
        let n = i * (files / CHANGED) + seed % (files / CHANGED);
        let path = data.join(format!("d{}", n / 1_000)).join(format!("f{n}"));
        std::fs::write(path, format!("{seed} {n:0>SMALL_BYTES$}"))?;
    }
    Ok(())
}

/// One large file.
fn large(programs: &Path, rounds: usize, mebibytes: u64) -> anyhow::Result<Vec<Figure>> {
    let megabytes = mebibytes as u32 * 5 / 4 + 300;
    let stage = stage_and_tls(programs, 3 * megabytes + 200)?;
    let (a, b, c) = (stage.disk("a", megabytes)?, stage.disk("b", megabytes)?, stage.disk("c", megabytes)?);
    fill(&a.data.join("large"), mebibytes)?;
    let place = Place { stage: &stage, stead: programs.join("stead"), tls: stage.path("tls") };
    let bench = programs.join("stead-bench");
    let gibibytes = mebibytes as f64 / 1024.0;
    let mut pair = Pair::start(place, [a, b])?;
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        let mut add = |name, value| values.entry(name).or_default().push(value);
        let (source, copy) = (pair.server.disk.lower.join("large"), c.data.join("large"));
        let copied = seconds(|| sh(&format!("cp {} {}; sync -f {1}", source.display(), copy.display())))?;
        add("copied-s", copied);
        if round > 0 {
            pair.part()?;
            pair.restart_target()?;
            sh(&format!("rm -rf {0}/* {0}/.stead*", pair.target.disk.lower.display()))?;
        }
        let quiet = latency(&bench, &pair.server.disk.data, 500)?;
        let mut load = Command::new(&bench);
        load.args(["load", "fsync"]).arg(pair.server.disk.data.join("load")).args(["--ms", "500"]);
        load.stdout(std::process::Stdio::piped());
        let load = load.spawn()?;
        let cpu = pair.cpu_seconds()?;
        let empty = pair.join(FULL)?.took.as_secs_f64();
        add("empty-cpu", (pair.cpu_seconds()? - cpu) / gibibytes);
        add("empty-s", empty);
        let said = load.wait_with_output()?.stdout;
        let said: BTreeMap<String, f64> = serde_json::from_slice(&said)?;
        add("empty", copied / empty);
        add("latency", said["p50"] / quiet);

        pair.part()?;
        let read = seconds(|| {
            let (s, t) = (source.display(), pair.target.disk.lower.join("large"));
            sh(&format!("cat {s} > /dev/null")).and_then(|()| sh(&format!("cat {} > /dev/null", t.display())))
        })? / 2.0;
        let cpu = pair.cpu_seconds()?;
        let seeded = pair.join(FULL)?;
        add("seeded-cpu", (pair.cpu_seconds()? - cpu) / gibibytes);
        add("seeded-s", seeded.took.as_secs_f64());
        add("read-s", read);
        add("seeded", seeded.took.as_secs_f64() / read);
        add("seeded-sent", seeded.progress.bytes_sent as f64 / (mebibytes as f64 * 1_048_576.0) * 100.0);

        pair.part()?;
        let blocks = mebibytes * 256 / 100;
        write_blocks(&pair.server.disk.data.join("large"), mebibytes, blocks, round as u8)?;
        let joined = pair.join(CHANGES)?.took.as_secs_f64();
        let bare = seconds(|| copy_blocks(&source, &copy, mebibytes, blocks))?;
        add("blocks", joined / bare);
        add("blocks-s", joined);
        add(
            "rsync",
            seconds(|| {
                sh(&format!(
                    "rsync -a --inplace --whole-file --ignore-times {} {}; sync -f {1}",
                    source.display(),
                    copy.display()
                ))
            })?,
        );
        println!("round {} of {rounds}: {:?}", round + 1, values);
    }
    let mut figure =
        |key: &str, name: &str, unit| Figure::new(name, unit).values(values.remove(key).unwrap_or_default());
    Ok(vec![
        figure("empty", "onto an empty copy: speed / that of a plain copy", "×").goal(Goal::AtLeast(0.9)),
        figure("latency", "write+fsync p50 during that resync / alone before it", "×").goal(Goal::AtMost(2.0)),
        figure("empty-s", "onto an empty copy", "s"),
        figure("copied-s", "a plain copy of it", "s"),
        figure("empty-cpu", "processor time of both nodes' programs for that, per GiB", "s"),
        figure("seeded", "onto a seeded copy: time / reading one copy", "×").goal(Goal::AtMost(1.2)),
        figure("seeded-s", "onto a seeded copy", "s"),
        figure("read-s", "reading one copy (out of the page cache)", "s"),
        figure("seeded-cpu", "processor time of both nodes' programs for that, per GiB", "s"),
        figure("seeded-sent", "of the seeded copy sent", "%").goal(Goal::AtMost(1.0)),
        figure("blocks", "1 % of its blocks changed: time / copying just those blocks", "×").goal(Goal::AtMost(1.3)),
        figure("blocks-s", "1 % of its blocks changed", "s"),
        figure("rsync", "the same with rsync -a --inplace --whole-file --ignore-times", "s"),
    ])
}

fn latency(bench: &Path, data: &Path, ms: u64) -> anyhow::Result<f64> {
    let mut load = Command::new(bench);
    load.args(["load", "fsync"]).arg(data.join("load")).args(["--ms", &ms.to_string()]);
    let figures: BTreeMap<String, f64> = serde_json::from_str(&must(&mut load, Duration::from_secs(60))?)?;
    Ok(figures["p50"])
}

/// Bytes that repeat nowhere.
fn fill(path: &Path, mebibytes: u64) -> anyhow::Result<()> {
    let file = std::fs::File::create(path)?;
    let mut piece = vec![0u8; 1 << 20];
    for n in 0..mebibytes {
        for (i, block) in piece.chunks_exact_mut(4096).enumerate() {
            block.fill(i as u8 ^ n as u8);
            block[..8].copy_from_slice(&(n << 20 | i as u64).to_le_bytes());
        }
        file.write_all_at(&piece, n << 20)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Offsets of the changed blocks: the same in every round.
fn places(mebibytes: u64, blocks: u64) -> impl Iterator<Item = u64> {
    let mut seed = 17u64;
    (0..blocks).map(move |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % (mebibytes * 256) * 4096
    })
}

fn write_blocks(path: &Path, mebibytes: u64, blocks: u64, round: u8) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    for at in places(mebibytes, blocks) {
        file.write_all_at(&[round.wrapping_add(100); 4096], at)?;
    }
    file.sync_all()?;
    Ok(())
}

fn copy_blocks(from: &Path, to: &Path, mebibytes: u64, blocks: u64) -> anyhow::Result<()> {
    let (from, to) = (std::fs::File::open(from)?, std::fs::OpenOptions::new().write(true).open(to)?);
    let mut block = [0; 4096];
    for at in places(mebibytes, blocks) {
        from.read_exact_at(&mut block, at)?;
        to.write_all_at(&block, at)?;
    }
    to.sync_all()?;
    Ok(())
}
