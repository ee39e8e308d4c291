//! `cargo xtask bench replication`: what mirroring costs, and what its peers and the bare wire cost beside it.

use super::figure::{Figure, Goal, number, report, results, table};
use super::gluster::Volume;
use super::mariadb;
use super::plane::{NAMES, Place, Plane, join};
use super::postgresql::Server;
use super::stage::{self, Disk, Running, Stage, Storage, start};
use crate::shell::{must, wait_for};
use crate::{build, packages};
use anyhow::Context;
use model::orders::{AckPolicy, Begin};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const FULL: Begin = Begin::Resync { full: true, quarantine: false };
/// A RAM disk of a candidate: the database, its log, the streams.
const DISK_MB: u32 = 1_280;
/// Files by which the memory of a million is measured.
const INODES: u32 = 100_000;

const NATIVE: &str = "native ext4";
/// While no processor sleeps: what `idlepoll` gives everybody on the machine.
const AWAKE: &str = "native, awake";
const MOUNT: &str = "mount, no peer";
const WRITE: &str = "mirror write";
const COMMIT: &str = "mirror commit";
const GLUSTER: &str = "GlusterFS";
const FLOOR: &str = "floor";
const CANDIDATES: [&str; 10] = [NATIVE, AWAKE, MOUNT, WRITE, COMMIT, GLUSTER, FLOOR, BESIDE[0], BESIDE[1], BESIDE[2]];
/// Another build of ours: mount, `write`, `commit`.
const BESIDE: [&str; 3] = ["beside: mount", "beside: write", "beside: commit"];

/// (load, writers, milliseconds, figures of it: name, unit).
type Load = (&'static str, usize, u64, &'static [(&'static str, &'static str)]);

const LATENCY: &[(&str, &str)] = &[("p50", "µs"), ("p99", "µs"), ("per_s", "/s")];
const LOADS: &[Load] = &[
    ("ask", 1, 200, &[("p50", "µs")]),
    ("fsync", 1, 700, LATENCY),
    ("fsync", 4, 700, LATENCY),
    ("direct", 1, 500, LATENCY),
    ("stream", 1, 0, &[("mib_per_s", "MiB/s")]),
    ("buffered", 1, 0, &[("mib_per_s", "MiB/s")]),
    ("cached", 1, 400, &[("per_s", "/s")]),
    ("cold", 1, 0, &[("mib_per_s", "MiB/s")]),
    ("small", 1, 700, &[("create", "/s"), ("stat_read", "/s"), ("unlink", "/s")]),
    ("small", 8, 700, &[("create", "/s"), ("stat_read", "/s"), ("unlink", "/s")]),
    ("tree", 1, 700, &[("per_s", "/s")]),
];
const SQLITE_COMMITS: u32 = 60;

/// Everything measured: (what, candidate) → one value per round.
#[derive(Default)]
struct Measured {
    values: BTreeMap<(String, &'static str), Vec<f64>>,
    units: BTreeMap<String, &'static str>,
}

impl Measured {
    fn add(&mut self, what: String, unit: &'static str, candidate: &'static str, value: f64) {
        self.units.insert(what.clone(), unit);
        self.values.entry((what, candidate)).or_default().push(value);
    }

    fn of(&self, what: &str, candidate: &'static str) -> &[f64] {
        self.values.get(&(what.to_string(), candidate)).map_or(&[], Vec::as_slice)
    }

    /// Round by round.
    fn ratio(&self, what: &str, one: &'static str, other: &'static str) -> Figure {
        let values = self.of(what, one).iter().zip(self.of(what, other)).map(|(a, b)| a / b);
        Figure::new(format!("{what}: {one} / {other}"), "×").values(values)
    }

    /// Medians of everything, a column per candidate.
    fn table(&self) -> String {
        let here: Vec<_> = CANDIDATES.into_iter().filter(|c| self.values.keys().any(|(_, k)| k == c)).collect();
        let mut text = format!("| figure | unit | {} |\n|---|---|{}\n", here.join(" | "), "---|".repeat(here.len()));
        for (what, unit) in &self.units {
            let cell = |c: &&'static str| {
                let mut values = self.of(what, c).to_vec();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).map_or_else(|| "–".into(), |v| number(*v))
            };
            let cells: Vec<String> = here.iter().map(cell).collect();
            text += &format!("| {what} | {unit} | {} |\n", cells.join(" | "));
        }
        text
    }
}

/// See the module's page.
pub fn run(quick: bool, json: Option<&Path>, beside: Option<&Path>, only: Option<&str>) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::POSTGRESQL)?;
    packages::ensure(packages::MIRROR_PEERS)?;
    packages::ensure(packages::MARIADB)?;
    let programs = build::measuring()?;
    stage::apart(&programs, |programs| match only {
        Some("memory") => seen(programs, beside),
        Some("stand") => stand(programs, beside),
        Some(other) => {
            anyhow::bail!(
                "there is no part '{other}': memory (of inodes seen) or stand (raise the candidates for a profiler, and wait)"
            )
        }
        None => inside(programs, quick, json, beside),
    })
}

/// For a profiler: the candidates stand until standard input ends; the measuring hand is beside them.
fn stand(programs: &Path, beside: Option<&Path>) -> anyhow::Result<()> {
    let field = raise(Storage::Ram, programs, beside)?;
    println!("nsenter -t {} -m -n: loads by {}", std::process::id(), programs.join("stead-bench").display());
    for candidate in &field.candidates {
        println!("{}: {}", candidate.name, candidate.dir.display());
    }
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn seen(programs: &Path, beside: Option<&Path>) -> anyhow::Result<()> {
    let (stage, tls) = set(Storage::Ram, programs, DISK_MB)?;
    let builds = [(MOUNT, Some(programs.join("stead"))), (BESIDE[0], beside.map(Path::to_path_buf))];
    for (port, (name, stead)) in (5620..).zip(builds) {
        let Some(stead) = stead else { continue };
        let (inodes, mebibytes) = memory(&Place { stage: &stage, stead, tls: tls.clone() }, port, INODES)?;
        println!("{name}: {mebibytes:.0} MiB per million inodes seen, by {inodes}");
    }
    Ok(())
}

fn inside(programs: &Path, quick: bool, json: Option<&Path>, beside: Option<&Path>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let ram = on(Storage::Ram, programs, beside, quick)?;
    let mut figures = goals(&ram);
    let mut text = format!("RAM-backed (ext4 on a loop device on tmpfs):\n\n{}\n{}", table(&figures), ram.table());
    if !quick {
        let disk = on(Storage::Disk, programs, beside, quick)?;
        text += &format!("\nThe real disk, shared by all candidates:\n\n{}", disk.table());
        figures.extend(goals(&disk).into_iter().map(|f| f.without_goal().renamed("real disk: ")));
    }
    println!("\n{text}");
    println!("took {} s", begin.elapsed().as_secs());
    report(&figures, json)?;
    let words = "`cargo xtask bench replication`: interleaved rounds, medians; a ratio is taken within each round. Two data planes \
                 (`stead mirrorfs`, TLS on) on two network namespaces joined by a cable, both on this machine: every copy is \
                 paid for by the same processors. *mount, no peer* records changes, as a node does that is ALONE. *floor*: \
                 write here and there and sync both over one TLS connection, without any file system between. fsync: 4 KiB \
                 write + fsync; direct: 4 KiB written with O_DIRECT; stream, buffered: a new file of 64 MiB in pieces of 1 MiB and \
                 4 KiB, synced once at the end; ask: one request that needs no work; the number behind a load is that of its \
                 writers. *native, awake*: the bare directory while no processor sleeps, which is what a busy mirrorfs asks the kernel \
                 for on a machine like this one (`idlepoll`). pgbench: two clients; MariaDB: sysbench oltp_read_write, two clients.";
    if quick { Ok(()) } else { results("Replication", &format!("{words}\n\n{text}")) }
}

fn goals(m: &Measured) -> Vec<Figure> {
    let mut figures = vec![
        m.ratio("pgbench", MOUNT, NATIVE).goal(Goal::AtLeast(0.8)),
        m.ratio("small 1 create", MOUNT, NATIVE).goal(Goal::AtLeast(0.45)),
        m.ratio("buffered 1", MOUNT, NATIVE).goal(Goal::AtLeast(0.45)),
        m.ratio("pgbench", COMMIT, MOUNT).goal(Goal::AtLeast(0.9)),
        m.ratio("pgbench", WRITE, MOUNT),
        m.ratio("buffered 1", COMMIT, MOUNT).goal(Goal::AtLeast(0.9)),
        m.ratio("buffered 1", WRITE, MOUNT),
        m.ratio("small 8 create", COMMIT, MOUNT).goal(Goal::AtLeast(0.7)),
        m.ratio("small 8 create", WRITE, MOUNT).goal(Goal::AtLeast(0.7)),
        m.ratio("fsync 1 p50", COMMIT, FLOOR).goal(Goal::AtMost(1.5)),
        m.ratio("fsync 1 p50", WRITE, FLOOR).goal(Goal::AtMost(2.5)),
        m.ratio("stream 1", COMMIT, NATIVE).goal(Goal::AtLeast(0.3)),
        m.ratio("stream 1", WRITE, NATIVE),
        m.ratio("pgbench", COMMIT, GLUSTER).goal(Goal::AtLeast(5.0)),
        m.ratio("pgbench", WRITE, GLUSTER),
        m.ratio("pgbench", COMMIT, NATIVE).goal(Goal::AtLeast(0.75)),
        m.ratio("pgbench", WRITE, NATIVE),
        m.ratio("pgbench", AWAKE, NATIVE),
        m.ratio("pgbench", COMMIT, AWAKE),
        m.ratio("small 1 create", MOUNT, AWAKE),
        m.ratio("buffered 1", MOUNT, AWAKE),
        m.ratio("MariaDB", MOUNT, NATIVE),
        m.ratio("MariaDB", COMMIT, NATIVE),
        m.ratio("MariaDB", WRITE, NATIVE),
        m.ratio("MariaDB", COMMIT, GLUSTER),
        m.ratio("cached 1", COMMIT, NATIVE).goal(Goal::AtLeast(0.97)),
        Figure::new("memory per million inodes seen", "MiB")
            .values(m.of("memory per million inodes", MOUNT).iter().copied())
            .goal(Goal::AtMost(200.0)),
    ];
    for what in m.units.keys() {
        let pairs = [MOUNT, WRITE, COMMIT].into_iter().zip(BESIDE);
        figures.extend(pairs.map(|(ours, other)| m.ratio(what, ours, other)).filter(Figure::is_measured));
    }
    figures
}

/// One candidate: where its loads run, and what of it is below a mount.
struct Candidate {
    name: &'static str,
    dir: PathBuf,
    lower: Option<PathBuf>,
    database: Option<Server>,
    mariadb: Option<mariadb::Server>,
}

/// Everything that runs, in the order in which it must end.
struct Field {
    candidates: Vec<Candidate>,
    _planes: Vec<Plane>,
    _gluster: Option<Volume>,
    _floor: Running,
    stage: Stage,
    floor: (PathBuf, PathBuf),
}

fn on(storage: Storage, programs: &Path, beside: Option<&Path>, quick: bool) -> anyhow::Result<Measured> {
    let (rounds, seconds, scale, inodes) = if quick { (3, 2, 2, 20_000) } else { (5, 6, 10, INODES) };
    let begin = Instant::now();
    let mut field = raise(storage, programs, beside)?;
    for candidate in &mut field.candidates {
        let sockets = field.stage.path(&format!("sockets-{}", candidate.name.replace([' ', ','], "")));
        let server = Server::start(&candidate.dir, sockets, scale);
        candidate.database = Some(server.with_context(|| format!("PostgreSQL on {}", candidate.name))?);
    }
    let template = field.stage.path("mariadb");
    mariadb::template(&template)?;
    for candidate in &mut field.candidates {
        let sockets = field.stage.path(&format!("sockets-{}", candidate.name.replace([' ', ','], "")));
        let server = mariadb::Server::start(&template, &candidate.dir, &sockets);
        candidate.mariadb = Some(server.with_context(|| format!("MariaDB on {}", candidate.name))?);
    }
    warm(&field, programs)?;
    println!("{storage:?}: everything stands after {} s", begin.elapsed().as_secs());
    let mut measured = Measured::default();
    for round in 1..=rounds {
        let begin = Instant::now();
        play(&field, programs, (seconds, if quick { 2 } else { 1 }), &mut measured)?;
        println!("{storage:?}: round {round} of {rounds} took {} s", begin.elapsed().as_secs());
    }
    let place = Place { stage: &field.stage, stead: programs.join("stead"), tls: field.stage.path("tls") };
    match memory(&place, 5620, inodes) {
        Ok((_, mebibytes)) => measured.add("memory per million inodes".into(), "MiB", MOUNT, mebibytes),
        Err(e) => println!("memory per inode is left out: {inodes} files could not be seen ({e})"),
    }
    Ok(measured)
}

/// Two networks, and what proves who is who in them.
fn set(storage: Storage, programs: &Path, megabytes: u32) -> anyhow::Result<(Stage, PathBuf)> {
    let mut stage = Stage::new(storage, megabytes)?;
    stage.networks()?;
    let tls = stage.path("tls");
    let mut certificates = Command::new(programs.join("stead-bench"));
    must(certificates.arg("certificates").arg(&tls).args(NAMES).arg("floor"), Duration::from_secs(30))?;
    Ok((stage, tls))
}

/// Everything stands.
fn raise(storage: Storage, programs: &Path, beside: Option<&Path>) -> anyhow::Result<Field> {
    let (stage, tls) = set(storage, programs, 14 * DISK_MB)?;
    let mut candidates = Vec::new();
    let native = stage.disk("native", DISK_MB)?;
    candidates.push(Candidate { name: NATIVE, dir: native.data, lower: None, database: None, mariadb: None });
    let mut planes = Vec::new();
    let mut builds = vec![(programs.join("stead"), [MOUNT, WRITE, COMMIT], 5600)];
    builds.extend(beside.map(|stead| (stead.to_path_buf(), BESIDE, 5610)));
    for (stead, names, port) in builds {
        let place = Place { stage: &stage, stead, tls: tls.clone() };
        for (kind, name) in names.into_iter().enumerate() {
            let ack = if kind == 2 { AckPolicy::Commit } else { AckPolicy::Write };
            let disk = |node| stage.disk(&format!("{port}-{kind}{node}"), DISK_MB);
            let port = port + kind as u16;
            let mut leader = Plane::start(&place, 0, disk(0)?, port, ack)?;
            leader.alone(1, true)?;
            if kind > 0 {
                let mut follower = Plane::start(&place, 1, disk(1)?, port, ack)?;
                join(&mut leader, &mut follower, (1, 1), FULL)?;
                planes.push(follower);
            }
            let Disk { data, lower, .. } = leader.disk.clone();
            planes.push(leader);
            candidates.push(Candidate { name, dir: data, lower: Some(lower), database: None, mariadb: None });
        }
    }
    let mut volume = None;
    if beside.is_none() {
        let bricks = [stage.disk("g0", DISK_MB)?, stage.disk("g1", DISK_MB)?];
        match Volume::start(&stage, &bricks) {
            Ok(started) => {
                let (dir, lower) = (started.mount.clone(), bricks[0].root.join("brick"));
                candidates.push(Candidate { name: GLUSTER, dir, lower: Some(lower), database: None, mariadb: None });
                volume = Some(started);
            }
            Err(e) => println!("GlusterFS is left out: it does not run here ({e:#})"),
        }
    }
    let far = stage.disk("f1", 64)?;
    let near = stage.disk("f0", 64)?;
    let mut serve = stage.on(1, &programs.join("stead-bench"));
    serve.args(["floor-serve", "10.99.0.2:5700"]).arg(tls.join("floor")).arg(far.data.join("file"));
    let floor = Running(start(&mut serve, None)?);
    Ok(Field {
        candidates,
        _planes: planes,
        _gluster: volume,
        _floor: floor,
        stage,
        floor: (tls.join("floor"), near.data.join("file")),
    })
}

/// Not measured: memory that was never touched is slow at its first use, and the streams touch most.
fn warm(field: &Field, programs: &Path) -> anyhow::Result<()> {
    for load in ["stream", "cached", "fsync"] {
        for c in &field.candidates {
            let mut command = Command::new(programs.join("stead-bench"));
            command.args(["load", load]).arg(c.dir.join("load")).args(["--ms", "50", "--writers", "1"]);
            figures(&mut command).with_context(|| format!("{load} on {}", c.name))?;
        }
    }
    Ok(())
}

/// One round: every load, and within it every candidate.
fn play(field: &Field, programs: &Path, (seconds, part): (u64, u64), measured: &mut Measured) -> anyhow::Result<()> {
    let bench = programs.join("stead-bench");
    for (load, writers, ms, names) in LOADS {
        for (c, name, _awake) in turns(field) {
            let mut command = Command::new(&bench);
            command.args(["load", load]).arg(c.dir.join("load"));
            command.args(["--ms", &(ms / part).to_string(), "--writers", &writers.to_string()]);
            if let Some(lower) = &c.lower {
                command.arg("--lower").arg(lower.join("load"));
            }
            let figures = figures(&mut command).with_context(|| format!("{load} on {}", c.name))?;
            for (figure, unit) in *names {
                let what = if names.len() == 1 { String::new() } else { format!(" {figure}") };
                measured.add(format!("{load} {writers}{what}"), unit, name, figures[*figure]);
            }
        }
        if (*load, *writers) == ("fsync", 1) {
            let mut floor = field.stage.on(0, &bench);
            floor.args(["floor", "10.99.0.2:5700"]).arg(&field.floor.0).arg(&field.floor.1).args(["--ms", "700"]);
            let figures = wait_for("the floor", Duration::from_secs(10), || Ok(figures(&mut floor).ok()))?;
            for (figure, unit) in *names {
                measured.add(format!("fsync 1 {figure}"), unit, FLOOR, figures[*figure]);
            }
        }
    }
    for (c, name, _awake) in turns(field) {
        measured.add("SQLite commits".into(), "/s", name, sqlite(&c.dir)?);
    }
    for (c, name, _awake) in turns(field) {
        if let Some(database) = &c.database {
            measured.add("pgbench".into(), "tps", name, database.pgbench(seconds)?);
        }
    }
    for (c, name, _awake) in turns(field) {
        if let Some(mariadb) = &c.mariadb {
            measured.add("MariaDB".into(), "tps", name, mariadb.transactions(seconds)?);
        }
    }
    Ok(())
}

/// Every candidate in turn; the native directory once more while no processor sleeps (until the file is closed).
fn turns(field: &Field) -> impl Iterator<Item = (&Candidate, &'static str, Option<File>)> {
    field.candidates.iter().flat_map(|candidate| {
        let again = (candidate.name == NATIVE).then_some(AWAKE);
        std::iter::once(candidate.name).chain(again).map(move |name| {
            let awake = (name == AWAKE).then(|| {
                let mut file = File::options().write(true).open("/dev/cpu_dma_latency").ok()?;
                file.write_all(&0_i32.to_ne_bytes()).ok()?;
                Some(file)
            });
            (candidate, name, awake.flatten())
        })
    })
}

fn figures(command: &mut Command) -> anyhow::Result<BTreeMap<String, f64>> {
    Ok(serde_json::from_str(&must(command, Duration::from_secs(120))?)?)
}

/// One commit per row, SQLite's default journal.
fn sqlite(dir: &Path) -> anyhow::Result<f64> {
    let file = dir.join("ledger.sqlite");
    let shell = |sql: &str| must(Command::new("sqlite3").arg(&file).arg(sql), Duration::from_secs(120));
    shell("create table if not exists t (x); delete from t;")?;
    let begin = Instant::now();
    shell(&"insert into t values (randomblob(200));".repeat(SQLITE_COMMITS as usize))?;
    Ok(f64::from(SQLITE_COMMITS) / begin.elapsed().as_secs_f64())
}

/// What a process of ours holds for a million files that the kernel knows, in MiB; by how many files. They come from
/// below the mount: what it remembers of changes besides is not by the million (`MADE_MAX`), and what it freed after a
/// look at all files, as at its start, would be used for them.
fn memory(place: &Place<'_>, port: u16, inodes: u32) -> anyhow::Result<(u32, f64)> {
    /// What is needed once, by the first requests, is not measured.
    const FIRST: u32 = 2_000;
    // One descriptor each, of which a container may allow few; the kernel is asked to forget at three quarters.
    let inodes = inodes.min((descriptors()? / 4 * 3).saturating_sub(FIRST + 1_000));
    let all = inodes + FIRST;
    let disk = place.stage.small_files(&format!("inodes-{port}"), DISK_MB / 4, all + all / 100)?;
    let mut plane = Plane::start(place, 0, disk.clone(), port, AckPolicy::Write)?;
    plane.alone(1, true)?;
    let file = |dir: &Path, n: u32| dir.join((n / 1_000).to_string()).join(format!("file-{n}"));
    for n in 0..all {
        if n % 1_000 == 0 {
            std::fs::create_dir(disk.lower.join((n / 1_000).to_string()))?;
        }
        std::fs::File::create(file(&disk.lower, n))?;
    }
    let see = |numbers: std::ops::Range<u32>| -> anyhow::Result<u64> {
        for n in numbers {
            file(&disk.data, n).symlink_metadata()?;
        }
        plane.held_kib()
    };
    let before = see(0..FIRST)?;
    let grown = see(FIRST..all)?.saturating_sub(before);
    Ok((inodes, grown as f64 / 1024.0 * 1e6 / f64::from(inodes)))
}

/// How many a process may have here.
fn descriptors() -> anyhow::Result<u32> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).context("no limit of open files")?;
    Ok(line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok()).unwrap_or(u32::MAX))
}
