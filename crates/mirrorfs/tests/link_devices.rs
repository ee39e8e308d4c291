//! A file system whose files belong to another device than their directory, without a mount between: nothing of it is skipped
//! in silence. Needs root; everything is in a mount namespace of one thread.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;

use model::orders::{ReplicatedDir, Report};
use pair::{EPOCH, FULL, Pair};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// In a mount namespace of its own, with an overlay of two file systems as the primary's tree.
fn on_an_overlay(test: impl FnOnce(Pair) + Send + 'static) {
    let played = std::thread::spawn(move || {
        // SAFETY: this thread alone; no other one relies on what it shares with it.
        let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
        unshared.expect("tests of mounts need root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
        let base = tempfile::tempdir().expect("a directory");
        let other = base.path().join("other");
        fs::create_dir_all(&other).expect("writable");
        mount("tmpfs", &other, "tmpfs", MountFlags::empty(), None).expect("a second file system");
        let tree = base.path().join("a/tree");
        let parts = ["lower", "upper", "work"].map(|part| base.path().join(part));
        for dir in parts.iter().chain([&tree]) {
            fs::create_dir_all(dir).expect("writable");
        }
        let [_, upper, work] = parts.map(|part| part.display().to_string());
        let options = format!("lowerdir={},upperdir={upper},workdir={work},xino=off", other.display());
        let options = CString::new(options).expect("no NUL");
        mount("overlay", &tree, "overlay", MountFlags::empty(), Some(options.as_c_str())).expect("an overlay");
        test(Pair::below(base, |_| {}));
    });
    if let Err(panic) = played.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn it_is_refused_before_it_serves() {
    on_an_overlay(|p| {
        let lower: OwnedFd = fs::File::open(p.tree("a")).expect("there").into();
        let dir = |node| ReplicatedDir {
            path: p.tree(node).display().to_string(),
            tocheck: vec![],
            notreplicated: vec![],
            notreplicated_names: vec![],
        };
        let refused = mirrorfs::cover::check(&dir("a"), &lower).expect_err("its files are of other devices");
        assert!(refused.to_string().contains("an overlay of several"), "{refused}");
        let plain: OwnedFd = fs::File::open(p.tree("b")).expect("there").into();
        mirrorfs::cover::check(&dir("b"), &plain).expect("one device");
    });
}

/// It was served all the same (by an older version): no resync claims to be through without its files.
#[test]
fn no_resync_passes_without_its_files() {
    on_an_overlay(|mut p| {
        let file = p.tree("a").join("file");
        fs::write(&file, "content").expect("writable");
        let devices = [&file, &p.tree("a")].map(|path| fs::metadata(path).expect("there").dev());
        assert_ne!(devices[0], devices[1], "this overlay is none of several devices");
        p.leader.serve_alone(EPOCH, true).expect("it serves");
        p.begin(FULL);
        let why = loop {
            match p.from_leader.recv_timeout(pair::DEADLINE).expect("it ends") {
                Report::LinkLost { reason, .. } => break reason,
                Report::ResyncThrough { .. } => panic!("a resync is through, and the file is not there"),
                _ => {}
            }
        };
        assert!(why.contains("file is of another device"), "{why}");
    });
}
