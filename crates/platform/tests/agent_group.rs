//! Finding and entering our own control group. One test per process: entering moves the whole of it.

use model::ModuleName;
use platform::process::{CgroupError, CgroupTree};
use std::time::{Duration, Instant};

/// Goes back where it came from and removes what it made, whatever happens.
struct Home(CgroupTree, std::path::PathBuf);
impl Drop for Home {
    fn drop(&mut self) {
        std::fs::write(self.0.base().join("cgroup.procs"), "0").ok();
        // The kernel lets go of an ended thread a moment after it was joined.
        let deadline = Instant::now() + Duration::from_secs(5);
        for group in ["agent", "modules/app", "modules", "."] {
            let path = if group == "." { self.1.clone() } else { self.1.join(group) };
            while path.exists() && std::fs::remove_dir(&path).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn the_agent_enters_its_leaf_finds_it_again_and_modules_live_beside_it() {
    let home = CgroupTree::discover().unwrap();
    let base = home.base().join(format!("stead-test-agent-{}", std::process::id()));
    std::fs::create_dir(&base).unwrap();
    let _home = Home(home, base.clone());
    let tree = CgroupTree::at(&base);
    tree.enter_agent().unwrap();
    tree.enter_agent().unwrap();
    let again = CgroupTree::discover().unwrap();
    assert_eq!(again, tree, "a restart by exec finds the same base");
    let group = again.module(&ModuleName::new("app").unwrap()).unwrap();
    assert_eq!(group.path(), base.join("modules/app"));
    let mut command = std::process::Command::new("sleep");
    command.arg("60");
    group.place(&mut command).unwrap();
    let mut child = command.spawn().unwrap();
    assert!(group.end(Duration::ZERO, Duration::from_secs(10)).unwrap());
    child.wait().unwrap();

    // Without a cgroup2 mount (in a mount namespace of one thread, which takes it away for itself only).
    let mount = platform::mounts::list().unwrap().into_iter().rfind(|mount| mount.fstype == "cgroup2").unwrap();
    let error = std::thread::spawn(move || {
        use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
        // SAFETY: only this thread leaves the shared mount namespace.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
        }
        .unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        unmount(&mount.mountpoint, UnmountFlags::DETACH).unwrap();
        CgroupTree::discover().unwrap_err()
    })
    .join()
    .unwrap();
    assert!(matches!(error, CgroupError::NotMounted), "{error}");
    assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
}
