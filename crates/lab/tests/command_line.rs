//! The command line, as a person and as a script use it. This program plays `stead` itself, so it has no test
//! harness: without arguments it runs the tests one after the other.

#[path = "../../stead/src/lab_command.rs"]
mod lab_command;
mod stand_in;

use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

/// The options every verb of `stead` takes: they must not clash with the lab's.
#[derive(clap::Args)]
struct Global {
    #[arg(short = 'm', long = "module", global = true)]
    module: Option<String>,
    #[arg(short = 'H', long = "nodes", global = true, value_name = "NODES")]
    nodes: Option<String>,
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Lab(lab_command::LabArgs),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("lab") => {
            let Cli { global, command: Verb::Lab(args) } = Cli::parse();
            let _ = (global.module, global.nodes, global.json);
            lab_command::run(args).unwrap_or_else(|error| {
                eprintln!("{error}");
                ExitCode::FAILURE
            })
        }
        Some("agent" | "witness") => stand_in::agent(),
        Some("cluster") => stand_in::cluster(&args[1..]),
        _ => tests(args.iter().find(|arg| !arg.starts_with('-')).map_or("", String::as_str)),
    }
}

fn tests(filter: &str) -> ExitCode {
    type Test = fn(&Stead);
    let all: [(&str, Test); 5] = [
        ("a_lab_from_up_to_down", a_lab_from_up_to_down),
        ("up_pairs_the_nodes", up_pairs_the_nodes),
        ("up_that_fails_tells_why_and_leaves_nothing", up_that_fails_tells_why_and_leaves_nothing),
        ("an_interrupted_up_leaves_nothing", an_interrupted_up_leaves_nothing),
        ("a_killed_up_leaves_nothing", a_killed_up_leaves_nothing),
    ];
    for (name, test) in all.into_iter().filter(|(name, _)| name.contains(filter)) {
        let stead = Stead::new(name);
        println!("test {name} ...");
        test(&stead);
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// `stead` with a lab name and a shared directory of its own; both go with it, also when a test fails.
struct Stead {
    lab: String,
    dir: PathBuf,
}

impl Stead {
    fn new(test: &str) -> Self {
        let lab = format!("c{}-{}", test.len(), std::process::id());
        let dir = PathBuf::from(format!("/tmp/stead-lab-test-{lab}"));
        std::fs::create_dir_all(&dir).unwrap();
        Self { lab, dir }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // --name is taken anywhere before `--`.
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        command.arg("lab").args(&words[..at]).args(["--name", &self.lab]).args(&words[at..]);
        command.env("STEAD_TEST_DIR", &self.dir).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn fine(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, words: &[&str], with: &str) {
        let output = self.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(text.contains(with), "{words:?}: {text}");
    }

    fn recorded(&self) -> String {
        std::fs::read_to_string(self.dir.join("commands")).unwrap_or_default()
    }

    #[track_caller]
    fn nothing_remains(&self) {
        let cgroup = self.cgroup();
        until("the lab is gone", || !self.place().exists() && !cgroup.exists());
    }

    fn place(&self) -> PathBuf {
        Path::new("/var/tmp/stead-lab").join(&self.lab)
    }

    fn cgroup(&self) -> PathBuf {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap().split(' ').nth(1).unwrap();
        Path::new(root).join("stead-lab").join(&self.lab)
    }
}

impl Drop for Stead {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_lab_from_up_to_down(stead: &Stead) {
    stead.refused(&["status"], "stead lab up");
    let note = stead.run(&["down"]);
    assert!(note.status.success() && String::from_utf8_lossy(&note.stderr).contains("nothing to do"), "{note:?}");

    let begun = Instant::now();
    let text = stead.fine(&["up", "--no-agents", "--nodes", "3"]);
    println!("up took {:?}", begun.elapsed());
    assert!(text.contains("node3") && text.contains("10.0.1.3") && text.contains("10.0.1.119"), "{text}");
    stead.refused(&["up", "--no-agents"], "already up");

    let json: serde_json::Value = serde_json::from_str(&stead.fine(&["status", "--json"])).unwrap();
    assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
    let node = &json["nodes"][0];
    assert_eq!((node["name"].as_str(), node["state"].as_str()), (Some("node1"), Some("up")));
    assert_eq!(node["addrs"], serde_json::json!({"net1": "10.0.1.1"}));
    let pid = node["pid"].as_i64().unwrap();
    assert!(std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok());
    assert!(json["client"]["addrs"]["net1"].is_string() && json["client"]["pid"].is_i64());
    assert_eq!(json["vip_pool"][0], "10.0.1.100");
    assert!(json.get("witness").is_none());

    // exec: code, streams, environment.
    let output = stead.run(&["exec", "node2", "--", "sh", "-c", "hostname; echo err >&2; exit 42"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(42), &b"node2\n"[..], &b"err\n"[..])
    );
    assert_eq!(stead.run(&["exec", "node1", "--", "no-such-program"]).status.code(), Some(127));
    assert_eq!(stead.run(&["exec", "node1", "--", "/etc/passwd"]).status.code(), Some(126));
    assert_eq!(stead.run(&["exec", "node8", "--", "true"]).status.code(), Some(125));
    assert_eq!(stead.run(&["exec", "node1", "--", "sh", "-c", "kill -TERM $$"]).status.code(), Some(128 + 15));
    let mut child =
        stead.command(&["exec", "client", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
    let exe = std::env::current_exe().unwrap();
    let path = stead.fine(&["exec", "node1", "--", "sh", "-c", "echo $PATH"]);
    assert!(path.starts_with(exe.parent().unwrap().to_str().unwrap()), "{path}");

    // A signal to the command goes to the program; the end of the command is the end of the program.
    let mut child = stead
        .command(&[
            "exec",
            "node1",
            "--",
            "sh",
            "-c",
            "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_ready(&mut child);
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let mut child = stead
        .command(&["exec", "node1", "--", "sh", "-c", "echo ready; echo $$ > /run/pid; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_ready(&mut child);
    until("its pid", || stead.run(&["exec", "node1", "--", "test", "-s", "/run/pid"]).status.success());
    child.kill().unwrap();
    child.wait().unwrap();
    until("the program ends", || {
        !stead.run(&["exec", "node1", "--", "sh", "-c", "kill -0 $(cat /run/pid) 2>/dev/null"]).status.success()
    });

    // Faults.
    let state = |host: usize| {
        let json: serde_json::Value = serde_json::from_str(&stead.fine(&["status", "--json"])).unwrap();
        json["nodes"][host]["state"].as_str().unwrap().to_owned()
    };
    stead.fine(&["freeze", "node2", "--userspace"]);
    assert_eq!(state(1), "frozen");
    stead.fine(&["thaw", "node2"]);
    stead.fine(&["power", "cut", "node2"]);
    assert_eq!(state(1), "off");
    stead.refused(&["freeze", "node2"], "stead lab power on node2");
    stead.fine(&["power", "on", "node2"]);
    assert_eq!(state(1), "up");
    let ping = |to: &str| stead.run(&["exec", "node1", "--", "ping", "-n", "-c", "1", "-W", "1", to]).status.success();
    until("node2 is back", || ping("10.0.1.2"));
    stead.fine(&["link", "cut", "node1", "net1"]);
    assert!(!ping("10.0.1.2"));
    assert!(stead.fine(&["status"]).contains("net1: cut"));
    stead.fine(&["link", "heal", "node1"]);
    stead.fine(&["link", "cut", "node1", "--carrier"]);
    stead.fine(&["link", "heal", "node1", "net1"]);
    stead.fine(&["link", "oneway", "node1", "node2"]);
    assert!(!ping("10.0.1.2") && ping("10.0.1.3"));
    stead.fine(&["link", "heal", "node1"]);
    until("healed", || ping("10.0.1.2"));
    stead.refused(&["link", "cut", "node1", "net2"], "it has net1");
    stead.refused(&["power", "cut", "node4"], "node1, node2, node3, client");

    let begun = Instant::now();
    stead.fine(&["down"]);
    println!("down took {:?}", begun.elapsed());
    stead.nothing_remains();
    let refused = stead.run(&["up", "--nodes", "many"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("many"), "{refused:?}");
}

fn up_pairs_the_nodes(stead: &Stead) {
    let begun = Instant::now();
    stead.fine(&["up", "--networks", "2", "--witness"]);
    println!("up with agents took {:?}", begun.elapsed());
    let said = stead.recorded();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(
        said,
        [
            "node1: init --name node1 --addr 10.0.1.1 --addr 10.0.2.1 --json",
            "node2: join 10.0.1.1 --token T1",
            "node1: token --json",
            "witness: join 10.0.1.1 --token T3 --witness",
            "node1: state --json",
            "node2: state --json",
        ]
    );
    let json: serde_json::Value = serde_json::from_str(&stead.fine(&["status", "--json"])).unwrap();
    assert_eq!(json["witness"]["name"], "witness");
    assert_eq!(json["nodes"][0]["addrs"], serde_json::json!({"net1": "10.0.1.1", "net2": "10.0.2.1"}));
}

fn up_that_fails_tells_why_and_leaves_nothing(stead: &Stead) {
    // A token that does not work: pairing fails with the command and what it said.
    std::fs::create_dir(stead.dir.join("token")).unwrap();
    let output = stead.run(&["up"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("could not be paired") && text.contains("cluster init"), "{text}");
    assert!(text.contains("agent of node1 starts"), "the agent's log: {text}");
    stead.nothing_remains();
}

fn an_interrupted_up_leaves_nothing(stead: &Stead) {
    // Agents that never answer: `up` waits for them until it is interrupted.
    std::fs::write(stead.dir.join("no-agents"), "").unwrap();
    let child = stead.command(&["up"]).stderr(Stdio::piped()).spawn().unwrap();
    until("the lab is being raised", || stead.cgroup().join("node2").exists());
    signal(&child, rustix::process::Signal::INT);
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    println!("interruption took {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(!stead.place().exists() && !stead.cgroup().exists());
}

fn a_killed_up_leaves_nothing(stead: &Stead) {
    std::fs::write(stead.dir.join("no-agents"), "").unwrap();
    let mut child = stead.command(&["up"]).spawn().unwrap();
    until("the hosts run", || stead.cgroup().join("node2/service").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    stead.nothing_remains();
}

fn wait_for_ready(child: &mut Child) {
    let mut word = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    assert_eq!(&word, b"ready\n");
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
