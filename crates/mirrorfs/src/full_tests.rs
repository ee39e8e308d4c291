//! The change map and the activity log on a disk that is full. Needs root.

use crate::hot::DiskLog;
use crate::map::DiskMap;
use replica::hot::Hot;
use replica::map::{FileKey, Record};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use std::fs;
use std::path::Path;

/// Plays on a disk of three megabytes that only this thread sees, with what fills it to the last page.
fn on_a_small_disk(play: impl FnOnce(&Path, &dyn Fn()) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: no pointers; moves only this thread to a new mount namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "tests of full disks need root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), c"size=3m").unwrap();
        let filler = dir.path().join("filler");
        play(dir.path(), &|| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
            while file.write_all(&[1; 4096]).is_ok() {}
        });
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    });
    thread.join().unwrap();
}

const fn file(ino: u64) -> FileKey {
    FileKey { dev: 0, ino }
}

fn attributes(from: u64, to: u64) -> impl Iterator<Item = Record> {
    (from..to).map(|ino| Record::Attributes { key: file(ino) })
}

#[test]
fn a_secondary_whose_disk_is_full_begins_its_map_all_the_same() {
    on_a_small_disk(|dir, fill| {
        let (mut map, lost) = DiskMap::open(dir);
        assert!(lost.is_none());
        fill();
        map.begin(true, attributes(1, 4)).unwrap();
        map.touch_data(file(9), 0, 10).unwrap();
        drop(map);
        // Killed, and going on: the disk is as full as it was.
        fill();
        let (mut next, lost) = DiskMap::open(dir);
        assert!(lost.is_none() && !next.map().is_everything());
        assert_eq!(next.map().entries(), 4);
        next.begin(false, attributes(4, 6)).unwrap();
        next.touch(attributes(6, 7)).unwrap();
        let (killed, lost) = DiskMap::open(dir);
        assert!(lost.is_none() && !killed.map().is_everything());
        assert_eq!(killed.map().entries(), 7);
    });
}

#[test]
fn an_emptied_map_keeps_its_room() {
    on_a_small_disk(|dir, fill| {
        let (mut map, _) = DiskMap::open(dir);
        map.begin(true, attributes(1, 100)).unwrap();
        map.clear().unwrap();
        assert!(DiskMap::open(dir).0.map().is_empty());
        fill();
        map.begin(true, attributes(1, 1_000)).unwrap();
        assert_eq!(DiskMap::open(dir).0.map().entries(), 999);
    });
}

#[test]
fn what_finds_no_room_any_more_makes_the_map_say_everything_on_disk_too() {
    on_a_small_disk(|dir, fill| {
        let (mut map, _) = DiskMap::open(dir);
        map.begin(true, []).unwrap();
        fill();
        for ino in 0.. {
            map.touch(attributes(ino, ino + 1)).expect("it goes on");
            if map.map().is_everything() {
                break;
            }
        }
        assert!(map.take_note().unwrap().contains("no room"));
        assert!(map.take_note().is_none(), "said once");
        let (mut killed, lost) = DiskMap::open(dir);
        assert!(lost.is_none() && killed.map().is_everything());
        killed.begin(false, attributes(1, 2)).unwrap();
        killed.touch(attributes(2, 3)).unwrap();
        assert!(DiskMap::open(dir).0.map().is_everything());
    });
}

#[test]
fn an_activity_log_begins_anew_and_gives_up_on_a_full_disk() {
    on_a_small_disk(|dir, fill| {
        let hot = |ino| Hot::Whole { key: file(ino) };
        let (mut log, _) = DiskLog::open(dir);
        log.reset().unwrap();
        assert!(log.touch(&(1..90).map(hot).collect::<Vec<_>>(), 1_000).unwrap());
        fill();
        log.reset().unwrap();
        assert!(DiskLog::open(dir).0.log().is_empty());
        assert!(log.touch(&[hot(7)], 1_000).unwrap());
        log.add(&[hot(8)]).unwrap();
        assert_eq!(DiskLog::open(dir).0.records(), [7, 8].map(|ino| Record::Tree { key: file(ino) }));
        log.lose().unwrap();
        let (mut next, lost) = DiskLog::open(dir);
        assert!(lost.is_none() && next.log().is_everything());
        next.reset().unwrap();
        assert!(next.touch(&[hot(9)], 1_000).unwrap());
        assert_eq!(DiskLog::open(dir).0.records(), [Record::Tree { key: file(9) }]);
    });
}
