//! A real database on the mount: made, used, killed, recovered, and its files checked below the mount.

mod common;

use common::{Agent, AtEnd, Bench, be_mirrorfs_if_asked, sh};
use std::path::Path;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

const BIN: &str = "/usr/lib/postgresql/15/bin";

#[test]
fn postgresql_works_survives_a_kill_and_its_checksums_are_right_below() {
    assert!(Path::new(BIN).exists(), "PostgreSQL 15 is needed: apt-get install postgresql-15");
    let bench = Bench::new(768);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    let (home, data) = (bench.path(""), bench.data());
    let as_user = "setpriv --reuid postgres --regid postgres --init-groups env -C / LC_ALL=C.UTF-8";
    let (h, d) = (home.display(), data.display());
    sh(&format!("chmod 755 {h} {h}/disk; mkdir {h}/run; chown postgres {h}/run; mkdir {d}/pg; chown postgres {d}/pg"));
    let pg = |command: &str| {
        sh(&format!("{as_user} {BIN}/{command} >> {h}/run/out 2>&1 || {{ tail -20 {h}/run/* >&2; exit 1; }}"))
    };
    let start = || {
        pg(&format!(
            "pg_ctl -D {d}/pg -w -t 60 -l {h}/run/log -o '-k {h}/run -c listen_addresses= -c shared_buffers=32MB' start"
        ));
    };
    pg(&format!("initdb -k -D {d}/pg"));
    let _ended = AtEnd(format!("{as_user} {BIN}/pg_ctl -D {d}/pg -m immediate -w stop"));
    start();
    pg(&format!("pgbench -h {h}/run -i -s 2 postgres"));
    pg(&format!("pgbench -h {h}/run -c 4 -j 2 -t 150 postgres"));
    let count = |table: &str| {
        sh(&format!("{as_user} psql -h {h}/run -Atc 'select count(*) from {table}' postgres")).trim().to_owned()
    };
    assert_eq!(count("pgbench_history"), "600");
    pg(&format!("pg_ctl -D {d}/pg -m immediate -w stop"));
    start();
    assert_eq!(count("pgbench_history"), "600", "after a crash of the database");
    assert_eq!(count("pgbench_accounts"), "200000");
    pg(&format!("pg_ctl -D {d}/pg -m fast -w stop"));
    let lower = bench.lower();
    pg(&format!("pg_checksums --check -D {}/pg", lower.display()));
    sh(&format!("diff -r {d}/pg {}/pg", lower.display()));
}
