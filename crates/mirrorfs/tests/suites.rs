//! Public suites, in the mirror and in a plain directory: `stress-ng`'s file-system stressors, `fio` with
//! verification, `dbench`, `pjdfstest`, `fsx` and MariaDB's own tests. What fails here and not there is our fault; afterwards both nodes hold the same tree.
//!
//! They need Debian packages and programs, so `cargo xtask suites` runs them (`cargo xtask test` a short form of them).
//! `STEAD_SUITES_SECONDS=n`: how long each stressor runs (default 1).

mod common;

use common::be_mirrorfs_if_asked;
use common::pair::{Mirror, equal};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

fn seconds() -> u32 {
    std::env::var("STEAD_SUITES_SECONDS").map_or(1, |n| n.parse().expect("a number"))
}

/// Everything `stress-ng` does to files, except what wants a disk of its own or needs a quarter of an hour.
/// First those that change most: one second each leaves it at them.
const STRESSORS: &[&str] = &[
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "fallocate",
    "filename",
    "fpunch",
    "hdd",
    "iomix",
    "link",
    "mknod",
    "msync",
    "rename",
    "seek",
    "sync-file",
    "touch",
    "utime",
    "xattr",
    "access",
    "aiol",
    "chattr",
    "chdir",
    "dirdeep",
    "dirmany",
    "dup",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "flock",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "inode-flags",
    "io",
    "lease",
    "locka",
    "lockf",
    "lockofd",
    "mmap",
    "mmapaddr",
    "open",
    "readahead",
    "revio",
    "sendfile",
    "splice",
    "symlink",
    "verity",
];

/// Of [`STRESSORS`], in the short form.
const FIRST: usize = 19;

fn outcome(program: &str, arguments: &[String], at: &Path) -> (Option<i32>, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(at)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; `cargo xtask suites` installs it"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs it in both places; a sentence if only the mirror fails.
fn compare(mirror: &Mirror, name: &str, program: &str, arguments: impl Fn(&Path) -> Vec<String>) -> Option<String> {
    let places = [mirror.a.bench.path("lower/plain").join(name), mirror.a.bench.data().join(name)];
    let [plain, mirrored] = places.map(|at| {
        std::fs::create_dir(&at).expect("mkdir");
        outcome(program, &arguments(&at), &at)
    });
    let verdict = if mirrored.0 == plain.0 { "as plain" } else { "differs" };
    println!("   {program} {name}: {:?} (plain {:?}) {verdict}", mirrored.0, plain.0);
    (mirrored.0 != plain.0).then(|| format!("{name}: plain {:?}, mirrored {:?}\n{}", plain.0, mirrored.0, mirrored.1))
}

#[test]
#[ignore = "needs the package stress-ng: cargo xtask suites"]
fn stress_ng_fails_nowhere_that_a_plain_directory_does_not() {
    let mirror = Mirror::new(512);
    let mut failed = Vec::new();
    let short = if seconds() == 1 { FIRST } else { STRESSORS.len() };
    for stressor in &STRESSORS[..short] {
        let arguments = |at: &Path| {
            let at = at.display();
            let text = format!(
                "--{stressor} 2 --timeout {}s --verify --temp-path {at} --hdd-bytes 16M --fallocate-bytes 16M \
                 --iomix-bytes 16M --aiol-requests 4 --no-rand-seed --oomable",
                seconds()
            );
            text.split_whitespace().map(str::to_owned).collect()
        };
        failed.extend(compare(&mirror, stressor, "stress-ng", arguments));
        let found = mirrorfs::tree_diff(&mirror.a.bench.lower(), &mirror.b.bench.lower()).expect("readable");
        if !found.is_empty() {
            failed.push(format!("{stressor}: the nodes differ: {found:#?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    mirror.done();
}

#[test]
#[ignore = "needs the package fio: cargo xtask suites"]
fn fio_verifies_what_it_wrote_by_every_engine() {
    let mirror = Mirror::new(512);
    let mut failed = Vec::new();
    let megabytes = 4 * seconds().clamp(1, 8);
    for (name, engine) in [
        ("buffered", "--ioengine=psync --rw=randwrite --bs=512-70k --fsync=32"),
        ("vectored", "--ioengine=pvsync --rw=write --bs=1M --end_fsync=1"),
        ("direct", "--ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --bs=4k"),
        ("synchronous", "--ioengine=psync --sync=dsync --rw=randwrite --bs=16k"),
        ("mapped", "--ioengine=mmap --rw=randwrite --bs=4k --fsync=64"),
        ("mixed", "--ioengine=psync --rw=randrw --bs=8k --fdatasync=16"),
    ] {
        let arguments = |at: &Path| {
            let text = format!(
                "--name={name} --directory={} {engine} --size={megabytes}M --numjobs=2 --verify=crc32c \
                 --do_verify=1 --verify_fatal=1 --allow_mounted_write=1 --randrepeat=1 --group_reporting",
                at.display()
            );
            text.split_whitespace().map(str::to_owned).collect()
        };
        failed.extend(compare(&mirror, name, "fio", arguments));
        equal(name, &mirror.a, &mirror.b);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    mirror.done();
}

/// What a file server does for offices, recorded once: many clients make, write, rename, read and remove in one tree.
#[test]
#[ignore = "needs the package dbench: cargo xtask suites"]
fn dbench_plays_its_clients_in_both_places() {
    let mirror = Mirror::new(512);
    let failed = compare(&mirror, "dbench", "dbench", |at| {
        let at = at.display();
        let text = format!("-t {} -D {at} -c /usr/share/dbench/client.txt --sync-dir 4", 2 * seconds());
        text.split_whitespace().map(str::to_owned).collect()
    });
    assert!(failed.is_none(), "{failed:?}");
    equal("after dbench", &mirror.a, &mirror.b);
    mirror.done();
}

/// MariaDB's own tests that are about files: tables made, renamed, repaired, cut to nothing, altered, in every engine; then,
/// in the long form, servers that are killed.
const MARIADB: &[&str] = &[
    "main.rename",
    "archive.archive",
    "innodb.innodb_bug30919",
    "main.repair",
    "main.alter_table_errors",
    "csv.csv",
    "maria.maria3",
    "maria.maria-recover",
    "innodb.rename_table",
    "innodb.innodb-truncate",
    "innodb.group_commit_crash",
    "innodb.alter_missing_tablespace",
    "innodb.missing_tablespaces",
    "innodb.recovery_shutdown",
    "innodb.read_only_recovery",
    "innodb.innodb_force_recovery",
    "innodb.tablespace_per_table_not_windows",
    "innodb.alter_table",
    "main.backup_locks",
];

/// Of [`MARIADB`], in the short form.
const MARIADB_FIRST: usize = 3;

/// Verdict of each test at `at`, and all that was said.
fn mariadb(at: &Path, tests: &[&str]) -> (BTreeMap<String, String>, String) {
    let options =
        ["--force", "--parallel=1", "--nocheck-testcases", "--retry=0", "--max-test-fail=0"].map(str::to_owned);
    let vardir = format!("--vardir={}", at.display());
    let arguments: Vec<String> = ["./mysql-test-run.pl".to_owned(), vardir]
        .into_iter()
        .chain(options)
        .chain(tests.iter().map(|t| (*t).to_owned()))
        .collect();
    let (_, said) = outcome("perl", &arguments, Path::new("/usr/share/mysql/mysql-test"));
    let verdict = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace)?;
        let word = rest.trim().strip_prefix("[ ")?.split(' ').next()?.to_owned();
        tests.contains(&name).then(|| (name.to_owned(), word))
    };
    (said.lines().filter_map(verdict).collect(), said)
}

#[test]
#[ignore = "needs the package mariadb-test: cargo xtask suites"]
fn mariadb_s_own_tests_say_of_the_mirror_what_they_say_of_a_plain_directory() {
    let mirror = Mirror::new(1_024);
    let tests = if seconds() == 1 { &MARIADB[..MARIADB_FIRST] } else { MARIADB };
    let (plain, _) = mariadb(&mirror.a.bench.path("lower/plain/mariadb"), tests);
    let (mirrored, said) = mariadb(&mirror.a.bench.data().join("mariadb"), tests);
    let passed = plain.values().filter(|verdict| *verdict == "pass").count();
    println!("   mariadb-test: {} tests, {passed} pass in a plain directory", plain.len());
    assert!(passed * 3 >= tests.len() * 2, "the suite ran: {plain:#?}");
    assert_eq!(plain, mirrored, "{said}");
    equal("after MariaDB's tests", &mirror.a, &mirror.b);
    mirror.done();
}

/// Verdict of each test of `pjdfstest` at `at`, and all that it said.
fn pjdfstest(at: &Path) -> (BTreeMap<String, String>, String) {
    let configuration = at.with_extension("toml");
    // Two users that every Debian has. No remounts: the mount is not the suite's.
    let text = "[features]\nposix_fallocate = {}\nrename_ctime = {}\nutimensat = {}\nutime_now = {}\n\
                [settings]\nnaptime = 0.01\nallow_remount = false\n\
                [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n";
    std::fs::write(&configuration, text).expect("write");
    std::fs::create_dir(at).expect("mkdir");
    let words = ["-c", configuration.to_str().expect("UTF-8"), "-p", at.to_str().expect("UTF-8")];
    let (_, said) = outcome("pjdfstest", &words.map(str::to_owned), at);
    let verdicts = said.lines().filter_map(|line| line.rsplit_once(' '));
    let verdicts = verdicts.filter(|(name, verdict)| {
        name.contains("::") && !name.starts_with([' ', '\t']) && matches!(*verdict, "ok" | "FAILED" | "skipped")
    });
    (verdicts.map(|(name, verdict)| (name.trim().to_owned(), verdict.to_owned())).collect(), said)
}

#[test]
#[ignore = "needs the program pjdfstest: cargo xtask suites"]
fn pjdfstest_says_of_the_mirror_what_it_says_of_a_plain_directory() {
    let mirror = Mirror::new(512);
    let (plain, _) = pjdfstest(&mirror.a.bench.path("lower/plain/pjdfstest"));
    let (mirrored, said) = pjdfstest(&mirror.a.bench.data().join("pjdfstest"));
    let passed = plain.values().filter(|verdict| *verdict == "ok").count();
    println!("   pjdfstest: {} tests, {passed} pass in a plain directory", plain.len());
    assert!(passed > 300, "the suite ran: {plain:#?}");
    // glibc answers LINK_MAX by the type of the file system, and knows none for FUSE: the suite skips it.
    let unknown = |name: &str| name == "link::link_count_max" && mirrored[name] == "skipped";
    let differs = plain.iter().filter(|(name, verdict)| mirrored.get(*name) != Some(*verdict) && !unknown(name));
    let differs: Vec<_> = differs.map(|(name, plain)| (name, plain, mirrored.get(name))).collect();
    let why =
        |name: &str| said.split_once(name).map_or("", |(_, rest)| rest.split_once("\n\n").map_or(rest, |it| it.0));
    let told: Vec<_> = differs.iter().map(|(name, ..)| why(name)).collect();
    assert!(differs.is_empty(), "test, plain, mirrored: {differs:#?}\n{}", told.join("\n\n"));
    equal("after pjdfstest", &mirror.a, &mirror.b);
    mirror.done();
}

#[test]
#[ignore = "needs the program fsx: cargo xtask suites"]
fn fsx_reads_what_it_wrote_by_every_operation() {
    let mirror = Mirror::new(512);
    let data = mirror.a.bench.data();
    let configuration = mirror.a.bench.path("fsx.toml");
    let weights = "invalidate = 0.1\nmapread = 1\nmapwrite = 1\nread = 1\nwrite = 1\ntruncate = 0.5\nclose_open = 0.2\nfsync = 0.2\n\
                   fdatasync = 0.2\nposix_fallocate = 0.5\npunch_hole = 0.5\nsendfile = 0.5\nposix_fadvise = 0.1\ncopy_file_range = 0.5\n";
    std::fs::write(&configuration, format!("flen = 1048576\n[weights]\n{weights}")).expect("write");
    for seed in 1..=4 {
        let file = data.join(format!("fsx{seed}"));
        let (steps, file) = ((2_500 * seconds()).to_string(), file.to_str().expect("UTF-8"));
        let seed = seed.to_string();
        let words = ["-f", configuration.to_str().expect("UTF-8"), "-N", &steps, "-S", &seed, file];
        let (code, said) = outcome("fsx", &words.map(str::to_owned), &mirror.a.bench.path(""));
        assert_eq!(code, Some(0), "fsx with seed {seed}\n{said}");
    }
    println!("   fsx: 4 games of {} steps", 2_500 * seconds());
    equal("after fsx", &mirror.a, &mirror.b);
    mirror.done();
}
