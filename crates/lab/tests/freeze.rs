//! A frozen host is a paused virtual machine; with --userspace only its processes stop.

mod support;
use lab::HostState;
use std::time::Duration;
use support::{SECOND, options, raise, reaches, says, until};

#[test]
fn a_frozen_host_does_nothing_and_answers_nothing() {
    let lab = raise(&options("freeze"));
    says(
        &lab,
        "node1",
        "(while :; do date +%s%N > /dev/shm/new; mv /dev/shm/new /dev/shm/tick; sleep 0.02; done) >/dev/null 2>&1 &",
    );
    // Seen from the machine: nothing can be run inside while it is frozen.
    let pid = lab.status().unwrap().host("node1").unwrap().pid.unwrap();
    let tick = || std::fs::read_to_string(format!("/proc/{pid}/root/dev/shm/tick")).unwrap_or_default();
    until(2 * SECOND, "ticks", || !tick().is_empty());

    for userspace in [false, true] {
        lab.freeze("node1", userspace).unwrap();
        assert_eq!(lab.status().unwrap().host("node1").unwrap().state, HostState::Frozen);
        let frozen_at = tick();
        assert_eq!(
            reaches(&lab, "node2", "10.0.1.1"),
            userspace,
            "only the kernel of a host frozen with --userspace answers"
        );
        let waiting = lab.spawn("node1", &["true"], [lab::Stdio::Null; 3]).unwrap();
        assert_eq!(waiting.wait(Duration::from_millis(300)).unwrap(), None, "a program waits like everything else");
        assert_eq!(tick(), frozen_at);
        lab.thaw("node1").unwrap();
        assert!(waiting.wait(2 * SECOND).unwrap().unwrap().is_success());
        until(2 * SECOND, "ticks again", || tick() != frozen_at);
        assert!(reaches(&lab, "node2", "10.0.1.1"));
        assert_eq!(lab.status().unwrap().host("node1").unwrap().state, HostState::Up);
    }
    assert!(lab.thaw("node1").unwrap().unwrap().contains("not frozen"));

    // A cut link stays cut over a thaw; a frozen host can lose power, and is not frozen when it comes back.
    lab.link_cut("node1", None, false).unwrap();
    lab.freeze("node1", false).unwrap();
    lab.thaw("node1").unwrap();
    assert!(!reaches(&lab, "node2", "10.0.1.1"));
    lab.freeze("node1", false).unwrap();
    lab.link_heal("node1", None).unwrap();
    assert!(!reaches(&lab, "node2", "10.0.1.1"), "healing a link wakes nobody");
    lab.power_cut("node1").unwrap();
    lab.power_on("node1").unwrap();
    assert!(reaches(&lab, "node2", "10.0.1.1"));
}
