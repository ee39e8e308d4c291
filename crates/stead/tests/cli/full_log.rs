//! A role whose own log is on a full disk goes on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "no {what}");
        std::thread::yield_now();
    }
}

/// Its children, by number.
fn children(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().collect::<Vec<_>>());
        // A zombie is nobody's keeper.
        fields.is_some_and(|fields| fields.first() != Some(&"Z") && fields.get(1) == Some(&of.to_string().as_str()))
    })
    .collect()
}

/// With its keeper, whatever happens.
struct Plane(Child);

impl Drop for Plane {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_data_plane_whose_log_is_on_a_full_disk_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("this kernel has /dev/full");
    let mut plane = Plane(
        Command::new(env!("CARGO_BIN_EXE_stead"))
            .args(["mirrorfs", "--socket"])
            .arg(dir.path().join("plane.sock"))
            .stdin(Stdio::null())
            .stdout(full())
            .stderr(full())
            .spawn()
            .expect("it starts"),
    );
    let pid = plane.0.id();
    let keeper = wait_for("its keeper", || children(pid).first().copied());
    // It warns of that, and nothing takes the warning.
    assert!(Command::new("kill").args(["-KILL", &keeper.to_string()]).status().expect("kill").success());
    let another = wait_for("another keeper, or its end", || {
        if let Some(status) = plane.0.try_wait().expect("it can be waited for") {
            panic!("it ended: {status}");
        }
        children(pid).into_iter().find(|child| *child != keeper)
    });
    assert_ne!(another, keeper);
}
