//! Scripts and control groups: what must die dies, what must live lives. Needs root and a cgroup2 mount.

mod common;

use common::wait_until;
use model::ModuleName;
use platform::process::script::{run, run_until};
use platform::process::{CgroupError, CgroupTree, ModuleCgroup, ScriptEnd, ScriptError, ScriptOutcome, ScriptRun};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A module's group and directories, gone at the end with everything that runs in it.
struct Bench {
    tree: PathBuf,
    group: ModuleCgroup,
    directory: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Self {
        let tree = CgroupTree::discover().unwrap().base().join(format!("stead-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&tree).unwrap();
        let group = CgroupTree::at(&tree).module(&ModuleName::new("test").unwrap()).unwrap();
        let directory = PathBuf::from(format!("/tmp/stead-process-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        std::fs::create_dir_all(directory.join("runs")).unwrap();
        Self { tree, group, directory }
    }

    fn script(&self, body: &str) -> ScriptRun {
        let script = self.directory.join("bin/start_prim");
        std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        ScriptRun {
            script,
            args: vec!["one".into(), "two words".into()],
            env: vec![("MODULE".into(), "test; rm -rf".into())],
            cwd: self.directory.clone(),
            timeout: Duration::from_secs(20),
            runs_dir: Some(self.directory.join("runs")),
            output_max: 10_000,
        }
    }

    /// (how it ended, its output)
    fn ended(&self, script: &ScriptRun) -> (ScriptEnd, String) {
        ended(runtime().block_on(run(script, &self.group)).unwrap())
    }
}

fn ended(outcome: ScriptOutcome) -> (ScriptEnd, String) {
    match outcome {
        ScriptOutcome::Ended { end, log, .. } => (end, std::fs::read_to_string(log.unwrap()).unwrap()),
        ScriptOutcome::Missing => panic!("the script is there"),
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.group.kill().ok();
        self.group.wait_empty(Duration::from_secs(10)).ok();
        self.group.remove().ok();
        for path in [self.tree.join("modules"), self.tree.clone()] {
            std::fs::remove_dir(path).ok();
        }
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_alive(pid: i32) -> bool {
    // A zombie nobody waits for is dead for us.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn pid_in(path: &Path) -> i32 {
    let mut pid = None;
    wait_until("the process has told its number", || {
        pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

#[test]
fn output_that_is_not_kept_is_nowhere() {
    let bench = Bench::new("nowhere");
    let script = ScriptRun { runs_dir: None, ..bench.script("echo secret; echo worse >&2; exit 3") };
    let ended = runtime().block_on(run(&script, &bench.group)).unwrap();
    assert!(matches!(ended, ScriptOutcome::Ended { end: ScriptEnd::Exited(3), log: None, .. }), "{ended:?}");
    assert_eq!(std::fs::read_dir(bench.directory.join("runs")).unwrap().count(), 0);
}

#[test]
fn a_script_gets_what_it_is_given_and_its_output_is_kept() {
    let bench = Bench::new("plain");
    let script = bench.script("echo \"$# $2 $MODULE $HOME $(pwd)\"; echo complaint >&2; cat; cat /proc/self/cgroup | grep ^0; ps -o sid= -p $$; echo $$; exit 7");
    let (end, output) = bench.ended(&script);
    assert_eq!(end, ScriptEnd::Exited(7));
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    assert_eq!(lines[0], format!("2 two words test; rm -rf /root {}", bench.directory.display()));
    assert_eq!(lines[1], "complaint");
    assert!(lines[2].ends_with("/modules/test"), "{}", lines[2]);
    assert_eq!(lines[3], lines[4], "leads its own session");
    let again = runtime().block_on(run(&script, &bench.group)).unwrap();
    let ScriptOutcome::Ended { log: Some(log), .. } = again else { panic!() };
    let name = log.file_name().unwrap().to_str().unwrap().to_string();
    assert!(name.starts_with("userlog_2") && name.contains("_start_prim") && name.ends_with(".ulog"), "{name}");
    assert_eq!(std::fs::read_dir(script.runs_dir.as_deref().unwrap()).unwrap().count(), 2, "each run has its own file");
}

#[test]
fn what_a_start_script_leaves_running_lives_on_in_the_group_and_holds_nothing_of_ours() {
    let bench = Bench::new("daemon");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = bench.script("sleep 300 & echo $! > left; setsid sleep 301 & echo $! > detached; exit 0");
    let start = Instant::now();
    assert_eq!(bench.ended(&script).0, ScriptEnd::Exited(0));
    assert!(start.elapsed() < Duration::from_secs(10), "the end of the script is not the end of its output");
    let (left, detached) = (pid_in(&bench.directory.join("left")), pid_in(&bench.directory.join("detached")));
    let mut pids = bench.group.pids().unwrap();
    pids.sort_unstable();
    let mut expected = [left, detached];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    let links = |pid: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        entries.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect()
    };
    let ours = links("self");
    assert!(
        ours.iter().any(|link| link.to_string_lossy().starts_with("socket:")),
        "the listener is there to be inherited"
    );
    for pid in pids {
        for link in links(&pid.to_string()) {
            assert!(link == Path::new("/dev/null") || !ours.contains(&link), "inherited {link:?}");
        }
    }
    drop(listener);
    assert!(!bench.group.is_empty().unwrap());
    assert!(!bench.group.end(Duration::from_secs(10), Duration::from_secs(10)).unwrap(), "SIGTERM is enough for sleep");
    assert!(bench.group.is_empty().unwrap());
    bench.group.remove().unwrap();
    bench.group.remove().unwrap();
    assert!(bench.group.is_empty().unwrap() && bench.group.pids().unwrap().is_empty());
}

#[test]
fn a_script_that_hangs_is_killed_with_its_children_but_not_with_its_daemons() {
    let bench = Bench::new("timeout");
    // The daemon double-forks, as daemons do: its parent is gone when the timeout comes.
    let mut script = bench.script(
        "(setsid sh -c 'sleep 302 & echo $! > daemon') ; sleep 303 & echo $! > child; trap '' TERM; wait; sleep 304",
    );
    script.timeout = Duration::from_secs(1);
    let start = Instant::now();
    assert_eq!(bench.ended(&script).0, ScriptEnd::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let (daemon, child) = (pid_in(&bench.directory.join("daemon")), pid_in(&bench.directory.join("child")));
    wait_until("the child is killed", || !is_alive(child));
    assert!(is_alive(daemon), "the daemon is the application");
    wait_until("only the daemon is left", || bench.group.pids().unwrap() == [daemon]);
}

#[test]
fn a_caller_can_give_up() {
    let bench = Bench::new("abort");
    let script = bench.script("sleep 305");
    let outcome = runtime()
        .block_on(async { run_until(&script, &bench.group, tokio::time::sleep(Duration::from_millis(200))).await });
    assert_eq!(ended(outcome.unwrap()).0, ScriptEnd::Aborted);
    bench.group.wait_empty(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_process_that_ignores_term_and_double_forks_does_not_survive_the_group() {
    let bench = Bench::new("stubborn");
    let script =
        bench.script("(setsid sh -c \"trap '' TERM; while :; do sleep 1; done & echo \\$! > stubborn\") &\nwait");
    assert_eq!(bench.ended(&script).0, ScriptEnd::Exited(0));
    let stubborn = pid_in(&bench.directory.join("stubborn"));
    assert!(matches!(bench.group.wait_empty(Duration::from_millis(50)), Err(CgroupError::NotEmpty { .. })));
    assert!(bench.group.end(Duration::from_millis(300), Duration::from_secs(10)).unwrap(), "force was needed");
    assert!(!is_alive(stubborn));
    assert!(bench.group.is_empty().unwrap());
}

#[test]
fn output_is_bounded_even_from_a_daemon() {
    let bench = Bench::new("bounded");
    let (end, output) = bench.ended(&bench.script("head -c 3000000 /dev/zero | tr '\\0' x; exit 0"));
    assert_eq!(end, ScriptEnd::Exited(0));
    assert!(output.len() < 20_000, "{}", output.len());
    assert!(output.contains("has been cut"));
    let script = bench.script("(while :; do echo more; done) & exit 0");
    let ScriptOutcome::Ended { log: Some(log), .. } = runtime().block_on(run(&script, &bench.group)).unwrap() else {
        panic!()
    };
    wait_until("the daemon has written a lot", || std::fs::metadata(&log).unwrap().len() > 100_000);
    let runs = script.runs_dir.as_deref().unwrap();
    platform::process::script::cut_runs(runs, 10_000);
    wait_until("the daemon goes on after the cut", || std::fs::metadata(&log).unwrap().len() > 100_000);
    bench.group.kill().unwrap();
    bench.group.wait_empty(Duration::from_secs(10)).unwrap();
    platform::process::script::cut_runs(runs, 10_000);
    platform::process::script::remove_old_runs(runs, 1);
    assert!(std::fs::metadata(&log).unwrap().len() < 20_000);
    assert_eq!(std::fs::read_dir(runs).unwrap().count(), 1, "the older run is forgotten");
}

#[test]
fn the_file_of_what_still_runs_is_not_removed_and_no_other_run_cuts_it() {
    let bench = Bench::new("held");
    let application = bench.script("head -c 9000 /dev/zero | tr '\\0' x; sleep 307 & exit 0");
    let ScriptOutcome::Ended { log: Some(log), .. } = runtime().block_on(run(&application, &bench.group)).unwrap()
    else {
        panic!()
    };
    let runs = application.runs_dir.clone().unwrap();
    for number in 0..150 {
        std::fs::write(runs.join(format!("userlog_9999-01-01T00{number:04}_state.ulog")), "").unwrap();
    }
    let look = ScriptRun { output_max: 100, ..bench.script("echo looked") };
    assert_eq!(bench.ended(&look).0, ScriptEnd::Exited(0));
    assert_eq!(std::fs::metadata(&log).unwrap().len(), 9_000, "another run has another bound");
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 102, "a hundred, and the two that were written into");
    bench.group.kill().unwrap();
    bench.group.wait_empty(Duration::from_secs(10)).unwrap();
    assert_eq!(bench.ended(&look).0, ScriptEnd::Exited(0));
    assert!(!log.exists(), "nobody writes into it any more");
}

#[test]
fn a_missing_script_is_nothing_and_an_unsafe_one_is_refused_with_the_remedy() {
    let bench = Bench::new("unsafe");
    let mut script = bench.script("touch ran");
    let real = script.script.clone();
    let refused = |script: &ScriptRun| match runtime().block_on(run(script, &bench.group)) {
        Err(error @ ScriptError::Unsafe { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for (mode, remedy) in [(0o777, "chmod go-w"), (0o775, "chmod go-w"), (0o644, "chmod +x")] {
        std::fs::set_permissions(&real, PermissionsExt::from_mode(mode)).unwrap();
        assert!(refused(&script).contains(remedy), "{mode:o}");
    }
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&real, Some(65534), None).unwrap();
    assert!(refused(&script).contains("chown root"));
    std::os::unix::fs::chown(&real, Some(0), None).unwrap();
    std::fs::set_permissions(real.parent().unwrap(), PermissionsExt::from_mode(0o777)).unwrap();
    assert!(refused(&script).contains("chmod go-w"), "whoever may replace it may write it");
    std::fs::set_permissions(real.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(&real, bench.directory.join("bin/link")).unwrap();
    script.script = bench.directory.join("bin/link");
    assert!(refused(&script).contains("symbolic link"));
    script.script = "bin/start_prim".into();
    assert!(refused(&script).contains("absolute"));
    script.script = bench.directory.join("bin/absent");
    assert_eq!(runtime().block_on(run(&script, &bench.group)).unwrap(), ScriptOutcome::Missing);
    assert!(!bench.directory.join("ran").exists());
    script.script = real;
    script.cwd = "/absent".into();
    assert!(matches!(runtime().block_on(run(&script, &bench.group)), Err(ScriptError::Spawn { .. })));
}

#[test]
fn a_plain_command_is_placed_too() {
    let bench = Bench::new("place");
    let mut command = std::process::Command::new("sleep");
    command.arg("306");
    bench.group.place(&mut command).unwrap();
    let mut child = command.spawn().unwrap();
    assert_eq!(bench.group.pids().unwrap(), [child.id() as i32]);
    bench.group.kill().unwrap();
    child.wait().unwrap();
    bench.group.wait_empty(Duration::from_secs(10)).unwrap();
}
