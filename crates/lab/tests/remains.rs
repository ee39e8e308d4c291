//! Whatever happens to a lab, nothing of it remains.
//!
//! One test: what it counts is the whole machine's, so it looks only for what carries this lab's name or came new.

mod support;
use lab::{Lab, Options};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{SECOND, options, raise, says, until};

#[test]
fn nothing_remains() {
    let options = Options { networks: 2, witness: true, ..options("remains") };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();

    // An orderly down, with a process running, a host off and another frozen.
    let lab = raise(&options);
    let spaces = namespaces(&lab);
    assert_eq!(spaces.len(), 4 * 5 + 1, "four hosts of five namespaces, and the switch");
    says(&lab, "node1", "sleep 1000 >/dev/null 2>&1 &");
    lab.power_cut("node2").unwrap();
    lab.freeze("node1", false).unwrap();
    let begun = Instant::now();
    assert!(Lab::down(&options.name).unwrap());
    println!("down took {:?}", begun.elapsed());
    check(&options.name, &spaces);
    assert!(!Lab::down(&options.name).unwrap(), "a second down finds nothing");

    // The supervisor is killed: the kernel ends the hosts; down, then up, sweep the rest.
    for sweep_by_up in [false, true] {
        let lab = raise(&options);
        says(&lab, "node1", "sleep 1000 >/dev/null 2>&1 &");
        let spaces = namespaces(&lab);
        kill_process(supervisor(&lab), Signal::KILL).unwrap();
        until(5 * SECOND, "the hosts end with the supervisor", || namespaces_alive(&spaces).is_empty());
        let error = lab.status().unwrap_err().to_string();
        assert!(error.contains("stead lab up"), "{error}");
        if sweep_by_up {
            let again = raise(&options);
            says(&again, "node1", "true");
        } else {
            assert!(Lab::down(&options.name).unwrap());
        }
        drop(lab);
        check(&options.name, &spaces);
    }

    let now = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(mounts, now, "the machine's mounts are as before");
}

/// Inode numbers of all namespaces of a lab.
fn namespaces(lab: &Lab) -> BTreeSet<String> {
    let status = lab.status().unwrap();
    let mut all = BTreeSet::new();
    for pid in status.hosts().filter_map(|host| host.pid) {
        for kind in ["net", "mnt", "pid", "uts", "ipc"] {
            all.insert(link(pid, kind));
        }
    }
    all.insert(link(supervisor(lab).as_raw_nonzero().get(), "net"));
    all
}

fn link(pid: i32, kind: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn supervisor(lab: &Lab) -> Pid {
    let cgroup = lab.status().unwrap().nodes[0].cgroup.clone();
    let procs = Path::new(&cgroup).parent().unwrap().join("supervisor/cgroup.procs");
    let pid = std::fs::read_to_string(procs).unwrap().trim().parse().unwrap();
    Pid::from_raw(pid).unwrap()
}

/// Which of these namespaces some process still is in.
fn namespaces_alive(spaces: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for kind in ["net", "mnt", "pid", "uts", "ipc", "pid_for_children"] {
            if let Ok(link) = std::fs::read_link(entry.path().join("ns").join(kind)) {
                let link = link.display().to_string();
                if spaces.contains(&link) {
                    found.push(format!("{link} of {}", entry.path().display()));
                }
            }
        }
    }
    found
}

fn check(name: &str, spaces: &BTreeSet<String>) {
    assert_eq!(namespaces_alive(spaces), Vec::<String>::new());
    assert!(!Path::new("/var/tmp/stead-lab").join(name).exists());
    let cgroups = std::fs::read_to_string("/proc/mounts").unwrap();
    let root = cgroups.lines().find(|line| line.contains(" cgroup2 ")).unwrap().split(' ').nth(1).unwrap();
    assert!(!Path::new(root).join("stead-lab").join(name).exists());
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        assert!(!file.contains(&format!("/{name}/")), "{file}");
    }
    // No process carries its name or holds its image; zombies of ours are reaped by their parent, this process.
    let end = Instant::now() + 2 * SECOND;
    loop {
        let left: Vec<_> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                entry.path().join("comm").exists()
                    && entry.path() != Path::new("/proc").join(std::process::id().to_string())
            })
            .filter(|entry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default() == "lab-roles\n")
            .filter(|entry| std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default().contains(name))
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its network is gone: no interface of it came out into the machine's.
    let interfaces: Vec<_> =
        std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    assert!(!interfaces.iter().any(|name| name.contains("net1")), "{interfaces:?}");
}
