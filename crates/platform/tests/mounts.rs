//! A covered directory cannot be changed by path, can by a descriptor opened before, and says who holds it.
//! Needs root. Every test works in its own mount namespace (one thread unshared), so nothing can remain.

use platform::mounts::{self, MountError};
use rustix::fs::{Mode, OFlags, openat};
use std::path::{Path, PathBuf};

/// Runs `body` in a thread with a private mount namespace and a tmpfs of its own at the given directory.
fn in_namespace(name: &str, body: impl FnOnce(&Path) + Send + 'static) {
    let base = PathBuf::from(format!("/tmp/stead-mounts-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let inner = base.clone();
    let result = std::thread::spawn(move || {
        // SAFETY: only this thread leaves the shared namespace, and it owns no file-system state of others.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
        }
        .unwrap();
        use rustix::mount::{MountFlags, MountPropagationFlags};
        rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        rustix::mount::mount("stead-test", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
        // /proc/self is the process; the mount table asked for must be this thread's.
        body(&inner);
    })
    .join();
    std::fs::remove_dir_all(&base).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn can_write(path: &Path) -> bool {
    std::fs::write(path.join("probe"), "x").is_ok()
}

#[test]
fn a_cover_stops_writers_by_path_but_not_an_older_descriptor() {
    in_namespace("cover", |base| {
        let directory = base.join("with space");
        std::fs::create_dir(&directory).unwrap();
        let before = openat(rustix::fs::CWD, &directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(!mounts::is_covered(&directory).unwrap());
        mounts::cover(&directory).unwrap();
        mounts::cover(&directory).unwrap();
        assert!(mounts::is_covered(&directory).unwrap());
        assert!(!can_write(&directory));
        openat(&before, "made-behind", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        assert!(directory.join("made-behind").exists(), "the cover shows what is written behind it");

        let behind = mounts::open_writable(&directory).unwrap();
        openat(&behind, "made-later", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        assert!(directory.join("made-later").exists());
        assert!(!can_write(&directory), "open_writable must not open the path to others");

        mounts::uncover(&directory).unwrap();
        mounts::uncover(&directory).unwrap();
        assert!(!mounts::is_covered(&directory).unwrap());
        assert!(can_write(&directory));
    });
}

#[test]
fn a_mount_point_and_what_is_mounted_below_it_are_covered() {
    in_namespace("nested", |base| {
        std::fs::create_dir(base.join("sub")).unwrap();
        rustix::mount::mount("inner", base.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        assert_eq!(mounts::below(base).unwrap().len(), 1);
        mounts::cover(base).unwrap();
        assert!(!can_write(base) && !can_write(&base.join("sub")));
        mounts::uncover(base).unwrap();
        assert!(can_write(base) && can_write(&base.join("sub")));
        assert_eq!(mounts::below(base).unwrap().len(), 1, "the mount below is still there");
    });
}

#[test]
fn a_mount_over_the_cover_hides_it_and_is_named() {
    in_namespace("hidden", |base| {
        let directory = base.join("d");
        std::fs::create_dir(&directory).unwrap();
        mounts::cover(&directory).unwrap();
        rustix::mount::mount("over", &directory, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        assert!(mounts::is_covered(&directory).unwrap(), "still covered, underneath");
        assert!(matches!(mounts::uncover(&directory), Err(MountError::Hidden { by, .. }) if by == "tmpfs"));
        rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::empty()).unwrap();
        assert!(!can_write(&directory), "when the upper mount goes, the cover is there");
        mounts::uncover(&directory).unwrap();
    });
}

#[test]
fn a_symbolic_link_is_refused() {
    in_namespace("link", |base| {
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink(base.join("real"), base.join("link")).unwrap();
        for path in [base.join("link"), base.join("real/../real"), PathBuf::from("real")] {
            assert!(matches!(mounts::cover(&path), Err(MountError::NotReal { .. })), "{path:?}");
        }
        assert!(matches!(mounts::cover(&base.join("absent")), Err(MountError::Os { .. })));
    });
}

#[test]
fn a_process_that_holds_the_tree_is_named() {
    let base = PathBuf::from(format!("/tmp/stead-holders-{}", std::process::id()));
    std::fs::create_dir_all(base.join("in")).unwrap();
    std::fs::write(base.join("in/file"), "x").unwrap();
    assert!(mounts::holders(&base).is_empty());
    let file = std::fs::File::open(base.join("in/file")).unwrap();
    let mut by_file = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
    let mut by_cwd = std::process::Command::new("sleep").arg("61").current_dir(base.join("in")).spawn().unwrap();
    let holders = mounts::holders(&base);
    for child in [&mut by_file, &mut by_cwd] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    std::fs::remove_dir_all(&base).unwrap();
    let how: Vec<_> = holders.iter().map(|holder| (holder.pid, holder.how, holder.command.as_str())).collect();
    assert!(how.contains(&(by_file.id(), "open", "sleep 60")), "{how:?}");
    assert!(how.contains(&(by_cwd.id(), "cwd", "sleep 61")), "{how:?}");
    assert_eq!(holders.len(), 2, "a sibling directory with the same beginning is not held: {how:?}");
}
