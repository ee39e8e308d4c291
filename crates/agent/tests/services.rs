//! The generic module's scripts with SERVICES, over a stand-in for `systemctl` on PATH that remembers what runs.

use std::path::{Path, PathBuf};
use std::process::Command;

struct Stand {
    root: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let run = root.path().join("run");
        std::fs::create_dir(&run).expect("made");
        let said = root.path().join("said");
        // A service 'broken' does not start.
        let program = format!(
            "#!/bin/sh\necho \"$*\" >> {said}\nfor last; do :; done\ncase $1 in\n  start) [ $last = broken ] && exit 1; : > {run}/$last ;;\n  stop|kill) rm -f {run}/$last ;;\n  is-active) [ -e {run}/$last ] ;;\nesac\n",
            said = said.display(),
            run = run.display(),
        );
        let path = root.path().join("systemctl");
        std::fs::write(&path, program).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        Self { root }
    }

    /// Exit code, and what the service manager was told.
    fn run(&self, script: &str, args: &[&str], services: &str) -> (i32, Vec<String>) {
        let said = self.root.path().join("said");
        let _ = std::fs::remove_file(&said);
        let bin: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modules/mirror/bin");
        let status = Command::new(bin.join(script))
            .args(args)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.root.path().display()))
            .env("SERVICES", services)
            .env("SAFEUSERBIN", &bin)
            .status()
            .expect("it runs");
        let told = std::fs::read_to_string(&said).unwrap_or_default();
        (status.code().expect("it exits"), told.lines().map(String::from).collect())
    }
}

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(ToString::to_string).collect()
}

#[test]
fn services_start_in_order_and_stop_in_reverse() {
    let stand = Stand::new();
    let started = stand.run("start_prim", &["WAIT", "ALONE", "start"], "db, app");
    let told = ["start db", "is-active --quiet db", "start app", "is-active --quiet app"];
    assert_eq!(started, (0, lines(&told)));
    let stopped = stand.run("stop_prim", &["PRIM", "WAIT", "stop"], "db, app");
    assert_eq!(stopped, (0, lines(&["is-active --quiet app", "stop app", "is-active --quiet db", "stop db"])));
    // Nothing runs any more.
    assert_eq!(stand.run("stop_prim", &["PRIM", "WAIT", "stop"], "db").0, 0);
}

#[test]
fn one_that_does_not_start_fails_the_start() {
    let stand = Stand::new();
    let (code, told) = stand.run("start_prim", &["WAIT", "ALONE", "start"], "db, broken, app");
    assert_eq!(code, 1);
    assert!(!told.iter().any(|line| line == "start app"), "{told:?}");
}

#[test]
fn only_the_named_services_are_restarted() {
    let stand = Stand::new();
    stand.run("start_prim", &["WAIT", "ALONE", "start"], "db, app, web");
    let some = ["-Services", "app, web"];
    let stopped = stand.run("stop_prim", &[["PRIM", "PRIM", "stop"].as_slice(), &some].concat(), "db, app, web");
    assert_eq!(stopped.1, lines(&["is-active --quiet web", "stop web", "is-active --quiet app", "stop app"]));
    let started = stand.run("start_prim", &[["PRIM", "PRIM", "start"].as_slice(), &some].concat(), "db, app, web");
    assert_eq!(started.0, 0);
    assert!(!started.1.iter().any(|line| line.contains("db")), "{started:?}");
}
