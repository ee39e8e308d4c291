//! Ending FUSE mounts nobody answers for any more.
//!
//! A process that waits for a FUSE answer cannot be killed while the connection lives; aborting the connection
//! (through fusectl, mounted for nobody to see) wakes it with an error.

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::collections::BTreeSet;
use std::io::Write;

/// FUSE connections mounted in a process's namespace.
pub fn connections(pid: i32) -> BTreeSet<u32> {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")) else { return BTreeSet::new() };
    text.lines().filter_map(connection).collect()
}

/// The connection number of one line of mountinfo: the minor of the device of a FUSE mount.
fn connection(line: &str) -> Option<u32> {
    let (head, tail) = line.split_once(" - ")?;
    let kind = tail.split(' ').next()?;
    if kind != "fuse" && !kind.starts_with("fuse.") {
        return None;
    }
    head.split(' ').nth(2)?.strip_prefix("0:")?.parse().ok()
}

/// Aborts; what is gone already needs none.
pub fn abort(connections: &BTreeSet<u32>) {
    if connections.is_empty() {
        return;
    }
    let control = (|| {
        let fs = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    })();
    let Ok(control) = control else { return };
    for number in connections {
        let file = rustix::fs::openat(
            &control,
            format!("{number}/abort"),
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        if let Ok(file) = file {
            let _ = std::fs::File::from(file).write_all(b"1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::connection;

    #[test]
    fn only_fuse_mounts_have_a_connection() {
        let fuse = "94 35 0:61 / /srv/stead/data rw,nosuid shared:1 - fuse.stead /dev/fuse rw,user_id=0";
        assert_eq!(connection(fuse), Some(61));
        assert_eq!(connection("94 35 0:62 / /mnt rw - fuseblk /dev/loop0 rw"), None);
        assert_eq!(connection("30 24 7:0 / /srv/stead rw - ext4 /dev/loop0 rw"), None);
        assert_eq!(connection("30 24 0:5 / /sys/fs/fuse/connections rw - fusectl fusectl rw"), None);
    }
}
