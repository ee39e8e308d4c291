//! MariaDB in a candidate's directory, and sysbench beside it. The server runs as long as the guard lives.

use super::stage::{Running, sh, start};
use crate::shell::{must, wait_for};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Rows of each of the two tables.
const ROWS: u32 = 5_000;

/// One server.
pub struct Server {
    socket: PathBuf,
    process: Running,
}

/// An empty database, made once and copied to every candidate.
pub fn template(at: &Path) -> anyhow::Result<()> {
    let (dir, log) = (at.display(), at.with_extension("log"));
    // No `mysql` group of the candidates' directories is needed: the server runs as its own user.
    sh(&format!(
        "mkdir -p {dir}; chown mysql {dir}
         mariadb-install-db --no-defaults --user=mysql --datadir={dir} --skip-test-db --innodb-log-file-size=32M \
           --auth-root-authentication-method=normal > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}",
        log = log.display()
    ))
    .context("mariadb-install-db")
}

impl Server {
    /// Serves a copy of `template` in `dir/my`; `sockets` is on no measured disk.
    pub fn start(template: &Path, dir: &Path, sockets: &Path) -> anyhow::Result<Self> {
        let (data, socket) = (dir.join("my"), sockets.join("my.sock"));
        sh(&format!(
            "mkdir -p {s}; chmod 777 {s}; chmod 755 {d}; cp -a {t} {p}",
            s = sockets.display(),
            d = dir.display(),
            t = template.display(),
            p = data.display()
        ))?;
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--user=mysql", "--skip-networking", "--innodb-buffer-pool-size=64M"]);
        command.args(["--innodb-log-file-size=32M", "--performance-schema=OFF", "--skip-log-bin"]);
        command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
        command.arg(format!("--pid-file={}", sockets.join("my.pid").display()));
        let process = Running(start(&mut command, Some(&sockets.join("my.log")))?);
        let server = Self { socket, process };
        wait_for("MariaDB answers", Duration::from_secs(90), || {
            Ok(server.client(&["-e", "create database if not exists sbtest"]).is_ok().then_some(()))
        })?;
        server.sysbench("prepare", 0)?;
        Ok(server)
    }

    fn client(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-uroot"]).arg(format!("--socket={}", self.socket.display()));
        must(command.args(arguments), Duration::from_secs(30))
    }

    fn sysbench(&self, what: &str, seconds: u64) -> anyhow::Result<String> {
        let mut command = Command::new("sysbench");
        command.args(["oltp_read_write", "--mysql-user=root", "--tables=2", "--threads=2", "--rand-seed=7"]);
        command.arg(format!("--table-size={ROWS}")).arg(format!("--mysql-socket={}", self.socket.display()));
        command.arg(format!("--time={seconds}"));
        must(command.arg(what), Duration::from_secs(seconds + 240))
    }

    /// Transactions per second of two clients.
    pub fn transactions(&self, seconds: u64) -> anyhow::Result<f64> {
        let said = self.sysbench("run", seconds)?;
        // transactions:                        1234   (617.01 per sec.)
        let line = said.lines().find(|l| l.trim_start().starts_with("transactions:"));
        let rate = line.and_then(|l| l.split_once('(')).and_then(|(_, rate)| rate.split(' ').next());
        rate.context("sysbench tells no transactions")?.parse().context("transactions are a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In good order, before the file system goes away below it; a server that does not end is killed after.
        let _ = self.client(&["-e", "shutdown"]);
        let _ = wait_for("MariaDB ends", Duration::from_secs(20), || Ok(self.process.0.try_wait()?));
    }
}
