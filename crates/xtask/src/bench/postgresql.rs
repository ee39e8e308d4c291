//! PostgreSQL in a candidate's directory, and pgbench beside it. The server runs as long as the guard lives.

use super::stage::{Running, sh, start};
use crate::shell::{must, wait_for};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One server.
pub struct Server {
    sockets: PathBuf,
    data: PathBuf,
    _process: Running,
}

fn programs() -> anyhow::Result<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .filter_map(Result::ok)
        .map(|e| e.path().join("bin"))
        .collect();
    found.sort();
    found.pop().context("no version of PostgreSQL is installed")
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "env", "-C", "/", "LC_ALL=C.UTF-8"]);
    command.arg(program);
    command
}

impl Server {
    /// Makes a database of this scale in `dir/pg` and serves it; `sockets` is on no measured disk.
    pub fn start(dir: &Path, sockets: PathBuf, scale: u32) -> anyhow::Result<Self> {
        let (data, bin) = (dir.join("pg"), programs()?);
        let deadline = Duration::from_secs(300);
        sh(&format!(
            "chmod 755 {d}; mkdir -p {s} {p}; chown postgres {s} {p}; chmod 700 {p}",
            d = dir.display(),
            s = sockets.display(),
            p = data.display()
        ))?;
        must(as_postgres(&bin.join("initdb")).args(["--no-sync", "-k", "-D"]).arg(&data), deadline)?;
        let mut server = as_postgres(&bin.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&sockets);
        for setting in ["listen_addresses=", "shared_buffers=64MB", "max_wal_size=256MB", "autovacuum=off"] {
            server.args(["-c", setting]);
        }
        let process = Running(start(&mut server, Some(&sockets.join("log")))?);
        let server = Self { sockets, data, _process: process };
        wait_for("PostgreSQL answers", Duration::from_secs(60), || {
            Ok(must(server.client("pg_isready").arg("-q"), Duration::from_secs(10)).is_ok().then_some(()))
        })?;
        must(server.client("pgbench").args(["-i", "-q", "-s", &scale.to_string(), "postgres"]), deadline)?;
        Ok(server)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-h").arg(&self.sockets).args(["-U", "postgres"]);
        command
    }

    /// Transactions per second of two clients.
    pub fn pgbench(&self, seconds: u64) -> anyhow::Result<f64> {
        // Every round begins after a checkpoint: the first touch of a page after one is written whole.
        must(self.client("psql").args(["-qc", "checkpoint", "postgres"]), Duration::from_secs(60))?;
        let said = must(
            self.client("pgbench").args(["-n", "-c", "2", "-j", "2", "-T", &seconds.to_string(), "postgres"]),
            Duration::from_secs(seconds + 60),
        )?;
        let line = said.lines().find_map(|l| l.strip_prefix("tps = ")).context("pgbench tells no tps")?;
        line.split(' ').next().context("pgbench tells no tps")?.parse().context("tps is a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In good order, before the file system goes away below it; a server that does not end is killed after.
        if let Ok(bin) = programs() {
            let mut stop = as_postgres(&bin.join("pg_ctl"));
            stop.args(["-m", "immediate", "-w", "-t", "20", "stop", "-D"]).arg(&self.data);
            let _ = must(&mut stop, Duration::from_secs(30));
        }
    }
}
