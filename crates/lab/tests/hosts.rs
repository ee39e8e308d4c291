//! A host is a machine of its own that sees the machine's programs.

mod support;
use lab::{Lab, LabError, Options, Stdio};
use std::time::Duration;
use support::{SECOND, options, raise, reaches, says, sh};

#[test]
fn a_host_is_a_machine_of_its_own() {
    let lab = raise(&Options { networks: 2, witness: true, ..options("host") });
    let own = |ns: &str| says(&lab, "node1", &format!("readlink /proc/self/ns/{ns}"));
    for ns in ["net", "mnt", "pid", "uts", "ipc"] {
        let here = std::fs::read_link(format!("/proc/self/ns/{ns}")).unwrap();
        assert_ne!(own(ns), here.to_str().unwrap(), "{ns}");
        assert_ne!(own(ns), says(&lab, "node2", &format!("readlink /proc/self/ns/{ns}")), "{ns}");
    }
    assert_eq!(says(&lab, "node2", "hostname; cat /etc/hostname"), "node2\nnode2");
    assert_eq!(says(&lab, "witness", "hostname"), "witness");
    assert_eq!(says(&lab, "node1", "cat /proc/1/comm"), "lab-roles");
    assert_eq!(says(&lab, "node1", "ls /sys/class/net"), "lo\nnet1\nnet2");
    assert_eq!(
        says(&lab, "node1", "find /run -mindepth 1 ! -type d"),
        "/run/lab-boot-id",
        "nothing of the machine's /run"
    );
    assert!(says(&lab, "node1", "cat /proc/self/cgroup").contains("/node1/"));
    let device = |host, place: &str| says(&lab, host, &format!("stat -c %d {place}"));
    assert_eq!(device("node1", "/srv/stead"), device("node1", "/etc/stead"));
    assert_eq!(device("node1", "/srv/stead"), device("node1", "/var/lib/stead"));
    assert_ne!(device("node1", "/srv/stead"), device("node2", "/srv/stead"));
    assert_eq!(says(&lab, "node1", "stat -f -c %T /srv/stead; ls -A /srv/stead"), "ext2/ext3");

    // The agent makes cgroups of its own below the one it is in.
    says(
        &lab,
        "node1",
        "set -e; c=$(grep ' cgroup2 ' /proc/mounts | cut -d' ' -f2)$(grep ^0 /proc/self/cgroup | cut -d: -f3); \
         mkdir $c/module; sleep 100 >/dev/null 2>&1 & echo $! > $c/module/cgroup.procs; grep -q $! $c/module/cgroup.procs",
    );

    // Nothing of what a host writes in the machine's directories reaches the machine or another host; /tmp does.
    let name = format!("stead-lab-test-{}", std::process::id());
    says(&lab, "node1", &format!("touch /etc/{name} /var/lib/{name} /srv/{name} /srv/stead/{name} /dev/shm/{name}"));
    for dir in ["/etc", "/var/lib", "/srv", "/srv/stead", "/dev/shm"] {
        let path = format!("{dir}/{name}");
        assert!(!std::path::Path::new(&path).exists(), "{path} leaked");
        assert_eq!(sh(&lab, "node2", &format!("test -e {path}")).exit.code, 1, "{path} leaked to node2");
    }
    says(&lab, "node1", &format!("echo x > /tmp/{name}"));
    let shared = std::fs::remove_file(format!("/tmp/{name}"));
    assert!(shared.is_ok(), "/tmp is the machine's");
    says(&lab, "node1", "mount -t tmpfs none /mnt");
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(" /mnt tmpfs"), "a mount leaked");

    // Everybody reaches everybody, by name too, and the gateway.
    for (from, to) in [
        ("node1", "10.0.1.2"),
        ("node2", "10.0.2.1"),
        ("client", "10.0.1.1"),
        ("witness", "10.0.2.2"),
        ("client", "10.0.1.254"),
        ("node1", "10.0.2.254"),
    ] {
        assert!(reaches(&lab, from, to), "{from} to {to}");
    }
    says(&lab, "client", "ping -n -c 1 -W 1 node2");
    assert_eq!(says(&lab, "node1", "ip route show default"), "default via 10.0.1.254 dev net1");
}

#[test]
fn exec_passes_on_what_the_program_says_and_how_it_ends() {
    let lab = raise(&Options { nodes: 1, ..options("exec") });
    let output = lab.exec("node1", &["sh", "-c", "echo out; echo err >&2; exit 7"], 5 * SECOND).unwrap();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.exit.code), ("out\n", "err\n", 7));
    assert_eq!(sh(&lab, "node1", "kill -KILL $$").exit.code, 128 + 9);

    let own = std::path::Path::new(support::ROLES).parent().unwrap().to_str().unwrap();
    assert!(says(&lab, "node1", "echo $PATH").starts_with(&format!("{own}:")));
    says(&lab, "node1", "command -v lab-roles");

    let error = lab.exec("node1", &["no-such-program"], SECOND).unwrap_err();
    assert!(
        matches!(&error, LabError::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    let error = lab.exec("node7", &["true"], SECOND).unwrap_err().to_string();
    assert!(error.contains("node7") && error.contains("node1, client"), "{error}");

    let begun = std::time::Instant::now();
    let error = lab.exec("node1", &["sh", "-c", "echo early; exec sleep 60"], SECOND / 5).unwrap_err().to_string();
    assert!(error.contains("early") && begun.elapsed() < 5 * SECOND, "{error}");
    // What a program leaves running does not hold its output open for the caller.
    let begun = std::time::Instant::now();
    assert_eq!(says(&lab, "node1", "sleep 60 & echo done"), "done");
    assert!(begun.elapsed() < 5 * SECOND);

    let mut running = lab.spawn("node1", &["cat"], [Stdio::Piped, Stdio::Piped, Stdio::Null]).unwrap();
    assert_eq!(running.wait(Duration::from_millis(50)).unwrap(), None);
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"through").unwrap();
    assert_eq!(running.output(5 * SECOND).unwrap().stdout, "through");
}

#[test]
fn labs_with_the_same_addresses_stand_side_by_side() {
    let (one, two) = (options("one"), options("two"));
    let first = raise(&one);
    let second = raise(&two);
    says(&first, "node1", "echo first > /srv/stead/x");
    says(&second, "node1", "echo second > /srv/stead/x");
    assert_eq!(says(&first, "node1", "cat /srv/stead/x"), "first");
    assert!(reaches(&second, "node2", "10.0.1.1"));
    let error = Lab::up(&one).unwrap_err();
    assert!(matches!(error, LabError::AlreadyUp(_)), "{error}");
    assert!(reaches(&first, "node2", "10.0.1.1"), "a second up must not disturb the first");
    drop(first);
    assert!(reaches(&second, "node2", "10.0.1.1"), "down of one must not disturb the other");
    assert!(matches!(Lab::open(&one.name), Err(LabError::NotUp(_))));
}
