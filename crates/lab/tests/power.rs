//! A power cut is honest, and a boot is a boot.

mod support;
use lab::{Agents, HostState, Options, Stdio};
use std::io::Read;
use std::time::{Duration, Instant};
use support::{ROLES, SECOND, options, raise, reaches, says, sh, until};

#[test]
fn a_power_cut_loses_what_was_not_flushed_and_keeps_the_rest() {
    let lab = raise(&options("power"));
    says(
        &lab,
        "node1",
        "for d in /srv/stead /etc/stead /var/lib/stead /etc; do echo kept > $d/kept; sync $d/kept $d; done; \
        echo lost > /srv/stead/lost; echo lost > /etc/lost; echo more >> /srv/stead/kept",
    );
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let before = says(&lab, "node1", boot_id);
    assert_ne!(before, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    assert_eq!(before, says(&lab, "node1", boot_id), "stays the same during a boot");
    let mac = says(&lab, "node1", "cat /sys/class/net/net1/address");

    let begun = Instant::now();
    lab.power_cut("node1").unwrap();
    println!("power cut took {:?}", begun.elapsed());
    let status = lab.status().unwrap();
    let node1 = status.host("node1").unwrap();
    assert_eq!((node1.state, node1.pid), (HostState::Off, None));
    assert!(!reaches(&lab, "node2", "10.0.1.1"));
    let error = lab.exec("node1", &["true"], SECOND).unwrap_err().to_string();
    assert!(error.contains("power on node1"), "{error}");
    assert!(lab.power_cut("node1").unwrap().unwrap().contains("already"));

    lab.power_on("node1").unwrap();
    assert_eq!(says(&lab, "node1", "cat /srv/stead/kept"), "kept");
    assert_eq!(says(&lab, "node1", "cat /etc/stead/kept /var/lib/stead/kept /etc/kept"), "kept\nkept\nkept");
    assert_eq!(sh(&lab, "node1", "ls /srv/stead/lost").exit.code, 2, "what was not flushed is lost");
    assert_eq!(sh(&lab, "node1", "ls /etc/lost").exit.code, 2, "what was not flushed is lost");
    assert_ne!(says(&lab, "node1", boot_id), before);
    assert_eq!(says(&lab, "node1", "cat /sys/class/net/net1/address"), mac);
    assert!(reaches(&lab, "node2", "10.0.1.1"));
    assert!(lab.power_on("node1").unwrap().unwrap().contains("already"));
    // Again and again.
    for _ in 0..3 {
        lab.power_cut("node1").unwrap();
        lab.power_on("node1").unwrap();
    }
    assert_eq!(says(&lab, "node1", "cat /srv/stead/kept"), "kept");
}

#[test]
fn nothing_whose_fsync_returned_is_lost() {
    let lab = raise(&Options { nodes: 1, ..options("fsync") });
    let writer = "i=$(tail -n 1 /srv/stead/log 2>/dev/null); i=${i:-0}; \
        while :; do i=$((i+1)); echo $i >> /srv/stead/log; sync /srv/stead/log || exit; echo $i; done";
    let mut acknowledged = 0;
    for round in 0..8_u32 {
        let mut running = lab.spawn("node1", &["sh", "-c", writer], [Stdio::Null, Stdio::Piped, Stdio::Null]).unwrap();
        let mut said = running.stdout.take().unwrap();
        // A different moment each time, always under way.
        let mut begun = [0; 64];
        for _ in 0..=round * 3 {
            assert!(said.read(&mut begun).unwrap() > 0);
        }
        lab.power_cut("node1").unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let last = rest.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0);
        acknowledged = acknowledged.max(last);
        lab.power_on("node1").unwrap();
        let found: u64 = says(&lab, "node1", "tail -n 1 /srv/stead/log").parse().unwrap();
        assert!(found >= acknowledged, "round {round}: {acknowledged} was synced, the disk has {found}");
    }
    println!("{acknowledged} synced");
}

#[test]
fn connections_hear_nothing_of_a_power_cut() {
    let lab = raise(&options("silent"));
    let pipe = [Stdio::Null, Stdio::Piped, Stdio::Inherit];
    let mut listener = lab.spawn("node1", &[ROLES, "listen", "10.0.1.1:7000"], pipe).unwrap();
    expect(&mut listener.stdout, "listening");
    let mut peer = lab.spawn("node2", &[ROLES, "connect", "10.0.1.1:7000"], pipe).unwrap();
    expect(&mut peer.stdout, "connected");
    let heard = "cat /sys/class/net/net1/statistics/rx_packets";
    says(&lab, "client", "ip neigh flush all");
    lab.power_cut("node1").unwrap();
    let before: u64 = says(&lab, "client", heard).parse().unwrap();
    assert_eq!(peer.wait(SECOND).unwrap(), None, "the connection of node2 must still stand: no FIN, no RST");
    let after: u64 = says(&lab, "client", heard).parse().unwrap();
    assert!(after - before < 5, "{} frames reached the client", after - before);
    peer.kill();
}

#[test]
fn not_even_a_process_stuck_in_a_dead_mount_holds_up_a_power_cut() {
    let lab = raise(&Options { nodes: 1, ..options("stuck") });
    let mut stuck =
        lab.spawn("node1", &[ROLES, "stuck", "/srv/stead/m"], [Stdio::Null, Stdio::Piped, Stdio::Inherit]).unwrap();
    expect(&mut stuck.stdout, "taken");
    // Frozen on top: the freezer waits for it in vain, bounded.
    let begun = Instant::now();
    lab.freeze("node1", false).unwrap();
    lab.power_cut("node1").unwrap();
    println!("freeze and power cut took {:?}", begun.elapsed());
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    lab.power_on("node1").unwrap();
    assert_eq!(lab.status().unwrap().host("node1").unwrap().state, HostState::Up);
    assert!(reaches(&lab, "client", "10.0.1.1"));
}

#[test]
fn a_service_that_dies_is_started_again_at_once() {
    // Not paired: the test's service listens, but knows no cluster.
    let lab = raise(&Options { nodes: 1, agents: Agents::Unpaired, ..options("service") });
    let pid = || sh(&lab, "node1", "cat /run/agent.pid").stdout;
    until(5 * SECOND, "the service runs", || !pid().is_empty());
    for _ in 0..3 {
        let before = pid();
        says(&lab, "node1", &format!("rm /run/agent.pid; kill -9 {before}"));
        until(Duration::from_millis(500), "started again", || !matches!(pid(), new if new.is_empty() || new == before));
    }
    let log = std::fs::read_to_string(lab.status().unwrap().host("node1").unwrap().log.clone()).unwrap();
    assert_eq!(log.matches("agent started").count(), 4, "{log}");
    assert!(log.contains("signal: 9"), "{log}");
    let cgroup = says(&lab, "node1", "grep ^0 /proc/$(cat /run/agent.pid)/cgroup");
    assert!(cgroup.ends_with("/node1/service"), "{cgroup}");
    // Its end is the host's business only; the end of PID 1 is a power failure.
    lab.power_cut("node1").unwrap();
    lab.power_on("node1").unwrap();
    until(5 * SECOND, "the service runs after a boot", || !pid().is_empty());
}

#[test]
fn a_host_whose_pid_1_dies_is_off_and_can_be_switched_on() {
    let lab = raise(&Options { nodes: 1, ..options("init") });
    let pid = lab.status().unwrap().host("node1").unwrap().pid.unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(5 * SECOND, "off", || lab.status().unwrap().host("node1").unwrap().state == HostState::Off);
    lab.power_on("node1").unwrap();
    assert!(reaches(&lab, "client", "10.0.1.1"));
}

/// Reads until the word is there.
fn expect(pipe: &mut Option<std::fs::File>, word: &str) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(word) {
        assert_eq!(pipe.as_mut().unwrap().read(&mut byte).unwrap(), 1, "ended after {seen:?}");
        seen.push(byte[0]);
    }
}
