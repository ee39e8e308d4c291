//! What the tests of the lab share.
#![allow(dead_code, reason = "each test file uses a part")]

use lab::{Agents, Lab, LabGuard, Options, Output};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const SECOND: Duration = Duration::from_secs(1);
pub const ROLES: &str = env!("CARGO_BIN_EXE_lab-roles");

/// Options for a small lab without agents, named after the test and this process.
pub fn options(tag: &str) -> Options {
    Options {
        name: format!("t-{tag}-{}", std::process::id()),
        agents: Agents::None,
        disk_mib: 256,
        ..Options::new(PathBuf::from(ROLES))
    }
}

pub fn raise(options: &Options) -> LabGuard {
    LabGuard::up(options).expect("a lab needs root, iproute2, nftables, e2fsprogs")
}

/// Runs a shell script inside a host.
pub fn sh(lab: &Lab, host: &str, script: &str) -> Output {
    lab.exec(host, &["sh", "-c", script], 20 * SECOND).expect("the script runs")
}

/// Its trimmed output, when it must succeed.
#[track_caller]
pub fn says(lab: &Lab, host: &str, script: &str) -> String {
    let output = sh(lab, host, script);
    assert!(output.exit.is_success(), "{script} on {host}: {output:?}");
    output.stdout.trim().to_owned()
}

/// One ping from a clean neighbour table: false means that not even ARP was answered.
pub fn reaches(lab: &Lab, host: &str, addr: &str) -> bool {
    let script = format!(
        "ip neigh flush all; ping -n -c 1 -W 1 {addr} >/dev/null && exit 0; \
         ip neigh show {addr} | grep -q lladdr && exit 2; exit 1"
    );
    match sh(lab, host, &script) {
        output if output.exit.is_success() => true,
        output if output.exit.code == 1 => false,
        output => panic!("{host} got an ARP answer from {addr} but no ping answer: {output:?}"),
    }
}

#[track_caller]
pub fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
