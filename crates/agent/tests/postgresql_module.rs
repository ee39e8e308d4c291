//! The scripts of the delivered module `postgresql`, run as the agent runs them, against the real PostgreSQL.
//!
//! Needs root and the distribution's PostgreSQL (`apt-get install postgresql`). Everything lives in a temporary
//! directory and ends with the test, also when it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Module {
    root: TempDir,
    port: u16,
    trust: &'static str,
}

impl Module {
    fn new(trust: &'static str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let installed = fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut versions| versions.next().is_some());
        assert!(installed, "this test needs PostgreSQL: apt-get install postgresql");
        // In memory: a database is synced often, and whatever else this machine writes must not be waited for.
        let root = TempDir::new_in("/dev/shm").expect("a temporary directory");
        // PostgreSQL's user has to get through.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        Self { root, port, trust }
    }

    /// The replicated directory: with a space and a bracket, which shells and patterns trip over.
    fn directory(&self) -> PathBuf {
        self.root.path().join("srv/data [1] dir")
    }

    fn run(&self, script: &str, args: &[&str]) -> Output {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modules/postgresql/bin");
        let begin = Instant::now();
        // One that hangs fails, with what it said.
        let output = Command::new("/usr/bin/timeout")
            .args(["--kill-after=1", "60"])
            .arg(bin.join(script))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SAFEMODULE", "pgtest")
            .env("SAFEUSERBIN", &bin)
            .env("SAFEUSERRUN", self.root.path().join("run"))
            .env("PGDIR", self.directory())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("TRUST_NETWORK", self.trust)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        println!("{script} {args:?}: {} in {} ms\n{}", output.status, begin.elapsed().as_millis(), text(&output));
        output
    }

    fn ok(&self, script: &str, args: &[&str]) -> String {
        let output = self.run(script, args);
        assert!(output.status.success(), "{script}: {}", text(&output));
        text(&output)
    }

    fn start(&self) -> String {
        self.ok("start_prim", &["WAIT", "ALONE", "start"])
    }

    fn sql(&self, statement: &str) -> String {
        let output = Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "psql", "-h", "/run/postgresql", "-p"])
            .arg(self.port.to_string())
            .args(["-Atqc", statement, "postgres"])
            .current_dir("/")
            .output()
            .expect("psql is there");
        assert!(output.status.success(), "{statement}: {}", text(&output));
        text(&output).trim().to_string()
    }

    /// PostgreSQL's processes of this directory that still run.
    fn processes(&self) -> Vec<i32> {
        let data = self.directory().join("data");
        let pids = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)).collect()
    }

    fn postmaster(&self) -> i32 {
        let file = fs::read_to_string(self.directory().join("data/postmaster.pid")).expect("it runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("its first line is the process")
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, "-KILL");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn kill(pid: i32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
}

#[test]
fn a_database_is_made_served_stopped_and_found_again_after_every_kind_of_end() {
    let module = Module::new("10.99.0.0/24");
    module.ok("prestart", &["STOP", "WAIT", "start"]);
    assert!(module.directory().is_dir(), "prestart makes a missing directory");
    module.start();
    let access = fs::read_to_string(module.directory().join("data/pg_hba.conf")).expect("readable");
    assert!(access.contains("host all all 10.99.0.0/24 trust\nhost all all 0.0.0.0/0 scram-sha-256\n"), "{access}");
    assert_eq!(module.sql("show listen_addresses; show fsync; show data_checksums"), "*\non\non");
    module.sql("create table t(x int); insert into t select generate_series(1, 1000)");
    assert!(module.start().contains("accepts connections"), "a second start is no harm");

    // In order.
    module.ok("stop_prim", &["ALONE", "WAIT", "stop"]);
    assert!(module.processes().is_empty());
    module.ok("stop_prim", &["force", "ALONE", "WAIT", "stop"]);
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1000");

    // At once.
    module.sql("insert into t values (0)");
    module.ok("stop_prim", &["force", "ALONE", "WAIT", "stop"]);
    assert!(module.processes().is_empty());
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1001");

    // Everything killed: the lock files of the dead stay.
    module.sql("insert into t values (0)");
    for pid in module.processes() {
        kill(pid, "-KILL");
    }
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1002");

    // Only the postmaster killed: its children hold the shared memory, and a start would be refused.
    kill(module.postmaster(), "-KILL");
    module.ok("prestart", &["STOP", "WAIT", "start"]);
    assert!(module.processes().is_empty(), "prestart kills what belongs to this directory");
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1002");

    // The same while a client's query works: what is left would end with it only, and keeps nobody from a clean end here.
    let mut client = Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "psql", "-h", "/run/postgresql", "-p"])
        .arg(module.port.to_string())
        .args(["-Atqc", "select count(*) from generate_series(1, 4000000000)", "postgres"])
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql is there");
    let until = Instant::now() + Duration::from_secs(20);
    while module
        .sql("select count(*) from pg_stat_activity where query like '%4000000000%' and pid <> pg_backend_pid()")
        != "1"
    {
        assert!(Instant::now() < until, "the query does not begin");
    }
    kill(module.postmaster(), "-KILL");
    module.ok("stop_prim", &["ALONE", "ALONE", "restart"]);
    assert!(module.processes().is_empty(), "stop_prim ends what a dead PostgreSQL left");
    let _ = client.wait();
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1002");

    // A lock file that names a living process of somebody else, as after a failover from another machine.
    module.ok("stop_prim", &["ALONE", "WAIT", "stop"]);
    let lock = format!("{}\n{}\n1\n{}\n", std::process::id(), module.directory().join("data").display(), module.port);
    fs::write(module.directory().join("data/postmaster.pid"), lock).expect("written");
    module.start();
    assert_eq!(module.sql("select count(*) from t"), "1002");
    module.ok("stop_prim", &["ALONE", "WAIT", "stop"]);
    module.ok("poststop", &["WAIT", "STOP", "stop"]);
    assert!(module.processes().is_empty());
}

#[test]
fn what_is_wrong_is_said_and_left_alone() {
    let module = Module::new("");
    fs::create_dir_all(module.directory().join("data")).expect("made");
    fs::write(module.directory().join("data/letter.txt"), "important").expect("written");
    let output = module.run("start_prim", &["WAIT", "ALONE", "start"]);
    assert!(!output.status.success() && text(&output).contains("not a PostgreSQL data directory"), "{}", text(&output));
    assert!(module.directory().join("data/letter.txt").exists());
    fs::remove_dir_all(module.directory().join("data")).expect("removed");

    // A database being made when the power went: it is made anew.
    fs::create_dir_all(module.directory().join(".new-database")).expect("made");
    fs::write(module.directory().join(".new-database/PG_VERSION"), "15").expect("written");
    module.start();
    assert!(!module.directory().join(".new-database").exists());
    let access = fs::read_to_string(module.directory().join("data/pg_hba.conf")).expect("readable");
    assert!(
        !access.lines().any(|line| line.starts_with("host all all") && line.ends_with("trust")),
        "no trust unless asked: {access}"
    );
    module.ok("stop_prim", &["ALONE", "WAIT", "stop"]);

    let configuration = module.directory().join("data/postgresql.conf");
    let right = fs::read_to_string(&configuration).expect("readable");
    fs::write(&configuration, format!("{right}\nbogus = 1\n")).expect("written");
    let output = module.run("start_prim", &["WAIT", "ALONE", "start"]);
    assert!(!output.status.success() && text(&output).contains("bogus"), "{}", text(&output));
    fs::write(&configuration, right).expect("written");
    module.start();
    module.ok("stop_prim", &["force", "ALONE", "WAIT", "stop"]);
}

#[test]
fn another_postgresql_on_the_port_is_stopped_before_the_start_and_one_elsewhere_is_not() {
    let (stranger, mut ours, neighbour) = (Module::new(""), Module::new(""), Module::new(""));
    ours.port = stranger.port;
    for it in [&stranger, &neighbour] {
        fs::create_dir_all(it.directory()).expect("made");
        it.start();
    }
    stranger.sql("create table kept(x int)");
    let said = ours.ok("prestart", &["STOP", "WAIT", "start"]);
    assert!(said.contains("stopping it"), "{said}");
    assert!(stranger.processes().is_empty());
    assert_eq!(neighbour.sql("select 1"), "1");
    let log = fs::read_dir(stranger.directory().join("data/log")).expect("a log").flatten().next().expect("one file");
    assert!(fs::read_to_string(log.path()).expect("readable").contains("database system is shut down"), "cleanly");
    ours.start();
    assert_eq!(ours.sql("select count(*) from pg_class where relname = 'kept'"), "0");
}
