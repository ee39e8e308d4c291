//! State survives torn writes, rot and full disks; or says that it does not.

use platform::store::{Journal, StateFile, StateFileHealth, StoreError, write_atomic};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct State {
    epoch: u64,
    note: String,
}

fn state(epoch: u64) -> State {
    State { epoch, note: "a small note".into() }
}

/// A directory that is gone at the end, whatever happens.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/stead-store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn open(directory: &Path) -> Result<(StateFile<State>, Option<State>, StateFileHealth), StoreError> {
    StateFile::open(directory, "state")
}

#[test]
fn what_was_written_is_read_and_readable_with_cat() {
    let scratch = Scratch::new("plain");
    let (mut file, nothing, _) = open(&scratch.0).unwrap();
    assert_eq!(nothing, None);
    for epoch in 1..=5 {
        assert_eq!(file.write(&state(epoch)).unwrap(), StateFileHealth::Whole);
    }
    let (mut file, read, health) = open(&scratch.0).unwrap();
    assert_eq!((read, health), (Some(state(5)), StateFileHealth::Whole));
    file.write(&state(6)).unwrap();
    let text = std::fs::read_to_string(scratch.0.join("state.a")).unwrap();
    assert!(text.starts_with("stead-state 1 6 ") && text.contains("\"epoch\": 6"), "{text}");
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(6)));
}

#[test]
fn any_flipped_or_missing_byte_of_one_copy_leaves_the_same_state_in_the_other() {
    let scratch = Scratch::new("flip");
    let (mut file, ..) = open(&scratch.0).unwrap();
    file.write(&state(1)).unwrap();
    file.write(&state(2)).unwrap();
    for copy in ["state.a", "state.b"] {
        let path = scratch.0.join(copy);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= mask;
                std::fs::write(&path, &broken).unwrap();
                let (_, read, health) = open(&scratch.0).unwrap();
                assert_eq!(read, Some(state(2)), "{copy} byte {at} mask {mask:#x}");
                assert!(matches!(health, StateFileHealth::OneCopy(_)), "{copy} byte {at} mask {mask:#x} went unseen");
            }
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(open(&scratch.0).unwrap().1, Some(state(2)), "{copy} cut at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_torn_write_leaves_the_state_before_and_the_next_write_repairs() {
    let scratch = Scratch::new("torn");
    let (mut file, ..) = open(&scratch.0).unwrap();
    file.write(&state(1)).unwrap();
    let before = std::fs::read(scratch.0.join("state.a")).unwrap();
    file.write(&state(2)).unwrap();
    // As if power had gone while the first copy of state 2 was written: one half of it, the other copy still 1.
    let first = std::fs::read(scratch.0.join("state.a")).unwrap();
    std::fs::write(scratch.0.join("state.a"), &first[..first.len() / 2]).unwrap();
    std::fs::write(scratch.0.join("state.b"), &before).unwrap();
    let (mut file, read, health) = open(&scratch.0).unwrap();
    assert_eq!(read, Some(state(1)));
    assert!(matches!(health, StateFileHealth::OneCopy(_)));
    assert_eq!(file.write(&state(3)).unwrap(), StateFileHealth::Whole);
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(3)));
    // As if power had gone between the two copies: the newer one counts.
    std::fs::write(scratch.0.join("state.b"), &before).unwrap();
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(3)));
}

#[test]
fn two_broken_copies_are_an_error_never_a_guess() {
    let scratch = Scratch::new("both");
    let (mut file, ..) = open(&scratch.0).unwrap();
    file.write(&state(1)).unwrap();
    std::fs::write(scratch.0.join("state.a"), "rubbish").unwrap();
    std::fs::write(scratch.0.join("state.b"), "").unwrap();
    assert!(matches!(open(&scratch.0), Err(StoreError::Unreadable { .. })));
    std::fs::remove_file(scratch.0.join("state.b")).unwrap();
    assert!(
        matches!(open(&scratch.0), Err(StoreError::Unreadable { .. })),
        "one broken, one missing is not 'never written'"
    );
    let mut file = StateFile::<State>::replace_unreadable(&scratch.0, "state").unwrap();
    file.write(&state(9)).unwrap();
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(9)));
    assert!(scratch.0.join("state.a.damaged").exists());
}

#[test]
fn a_newer_format_is_refused_and_named() {
    let scratch = Scratch::new("newer");
    let body = "{}";
    let checksum = blake3::hash(format!("7 1 {body}").as_bytes()).to_hex();
    std::fs::write(scratch.0.join("state.a"), format!("stead-state 7 1 {checksum} {}\n{body}\n", body.len())).unwrap();
    assert!(matches!(open(&scratch.0), Err(StoreError::TooNew { found: 7, .. })));
}

/// Stored bytes of format version 1: every later program must read them.
#[test]
fn version_1_stays_readable() {
    let scratch = Scratch::new("v1");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/state-v1"), scratch.0.join("state.b"))
        .unwrap();
    assert_eq!(open(&scratch.0).unwrap().1, Some(State { epoch: 3, note: "kept for ever".into() }));
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_older_state_stays() {
    let scratch = Scratch::new("full");
    let disk = scratch.0.clone();
    // A private mount namespace for this thread: the tiny disk vanishes with it.
    std::thread::spawn(move || {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        // SAFETY: only this thread leaves the shared namespace.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
        }
        .unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        mount("tiny", &disk, "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
        let (mut file, ..) = open(&disk).unwrap();
        file.write(&state(1)).unwrap();
        write_atomic(&disk.join("small"), b"old", 0o600).unwrap();
        let filler = std::fs::write(disk.join("filler"), vec![0u8; 1 << 20]);
        assert!(filler.is_err(), "the disk must be full now");
        let longer = State { epoch: 2, note: "x".repeat(7_000) };
        assert_eq!(file.write(&longer).unwrap(), StateFileHealth::Whole, "its room was reserved");
        let large = State { epoch: 2, note: "x".repeat(20_000) };
        assert!(matches!(file.write(&large), Err(StoreError::DiskFull { .. })));
        assert_eq!(open(&disk).unwrap().1, Some(longer));
        assert!(matches!(write_atomic(&disk.join("small"), &[1; 9000], 0o600), Err(StoreError::DiskFull { .. })));
        assert_eq!(std::fs::read(disk.join("small")).unwrap(), b"old");
        let names = std::fs::read_dir(&disk).unwrap().count();
        assert_eq!(names, 4, "no temporary file remains");
        std::fs::remove_file(disk.join("filler")).unwrap();
        assert_eq!(file.write(&state(3)).unwrap(), StateFileHealth::Whole, "space is back: both copies are repaired");
        assert_eq!(open(&disk).unwrap().1, Some(state(3)));
    })
    .join()
    .unwrap();
}

#[test]
fn an_atomic_write_replaces_a_link_and_sets_the_mode() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("atomic");
    let victim = scratch.0.join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, scratch.0.join("file")).unwrap();
    write_atomic(&scratch.0.join("file"), b"new", 0o640).unwrap();
    assert_eq!(std::fs::read(scratch.0.join("file")).unwrap(), b"new");
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    let kind = std::fs::symlink_metadata(scratch.0.join("file")).unwrap();
    assert_eq!(kind.permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_journal_is_bounded_and_closes_a_torn_line() {
    let scratch = Scratch::new("journal");
    let path = scratch.0.join("journal");
    let mut journal = Journal::open(&path, 1_000).unwrap();
    for number in 0..200 {
        journal.append(&format!("line {number} with\nan end inside"), number % 50 == 0).unwrap();
    }
    let (now, old) = (std::fs::metadata(&path).unwrap().len(), std::fs::metadata(journal.old_path()).unwrap().len());
    assert!(now <= 1_000 && old <= 1_000, "{now} {old}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("line 199 with an end inside\n"));
    drop(journal);
    std::fs::write(&path, "whole\nto").unwrap();
    Journal::open(&path, 1_000).unwrap().append("next", true).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nto\nnext\n");
}

/// The disk of a rotation was full: the file is renamed, and there is no other one yet.
#[test]
fn a_journal_whose_rotation_was_cut_in_two_begins_another_file() {
    let scratch = Scratch::new("rotation");
    let path = scratch.0.join("journal");
    let mut journal = Journal::open(&path, 100).unwrap();
    journal.append(&"x".repeat(90), false).unwrap();
    std::fs::rename(&path, journal.old_path()).unwrap();
    journal.append(&"y".repeat(90), false).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "y".repeat(90) + "\n");
}

/// Nothing can be written where a directory is, not even by root, and nothing be renamed over it.
#[test]
fn one_copy_that_can_be_written_is_enough_and_an_older_one_is_never_taken_for_it() {
    let scratch = Scratch::new("alone");
    let [a, b] = ["state.a", "state.b"].map(|name| scratch.0.join(name));
    let (mut file, ..) = open(&scratch.0).unwrap();
    file.write(&state(1)).unwrap();
    let old = std::fs::read(&a).unwrap();
    let take_away = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
    };
    take_away(&a);
    for epoch in 2..=4 {
        let health = file.write(&state(epoch)).unwrap();
        assert!(matches!(&health, StateFileHealth::OneCopy(why) if why.contains("state.a")), "{health:?}");
        assert_eq!(open(&scratch.0).unwrap().1, Some(state(epoch)));
    }
    // It can be read again, and is what it was: the other one rots.
    std::fs::remove_dir_all(&a).unwrap();
    std::fs::write(&a, &old).unwrap();
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(4)));
    let newest = std::fs::read(&b).unwrap();
    std::fs::write(&b, &newest[..newest.len() / 2]).unwrap();
    assert!(matches!(open(&scratch.0), Err(StoreError::Unreadable { .. })), "an epoch would be forgotten");
    // It can be written again: both are the same, and either is enough.
    std::fs::write(&b, &newest).unwrap();
    let (mut file, ..) = open(&scratch.0).unwrap();
    assert_eq!(file.write(&state(5)).unwrap(), StateFileHealth::Whole);
    take_away(&b);
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(5)));
    let (mut file, ..) = open(&scratch.0).unwrap();
    assert!(matches!(file.write(&state(6)).unwrap(), StateFileHealth::OneCopy(_)));
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(6)));
    // Neither: the state before is intact.
    let before = std::fs::read(&a).unwrap();
    take_away(&a);
    assert!(file.write(&state(7)).is_err());
    std::fs::remove_dir_all(&a).unwrap();
    std::fs::write(&a, before).unwrap();
    assert_eq!(open(&scratch.0).unwrap().1, Some(state(6)));
}

/// A symbolic link, or a file whose place on the disk is bad, is not written through: another one takes its place.
#[test]
fn a_copy_that_cannot_be_written_in_its_place_is_replaced() {
    let scratch = Scratch::new("replaced");
    let (mut file, ..) = open(&scratch.0).unwrap();
    file.write(&state(1)).unwrap();
    let a = scratch.0.join("state.a");
    std::fs::remove_file(&a).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", &a).unwrap();
    assert_eq!(file.write(&state(2)).unwrap(), StateFileHealth::Whole);
    assert!(a.symlink_metadata().unwrap().is_file());
}

/// Records are counted anew after both copies were set aside: what was said of the old ones is not said of these.
#[test]
fn what_begins_anew_is_not_taken_for_what_was_to_be_forgotten() {
    let scratch = Scratch::new("anew");
    std::fs::write(scratch.0.join("state.a"), "rot").unwrap();
    std::fs::write(scratch.0.join("state.b"), "rot").unwrap();
    std::fs::write(scratch.0.join("state.void"), "a 57\n").unwrap();
    assert!(open(&scratch.0).is_err());
    let mut file = StateFile::<State>::replace_unreadable(&scratch.0, "state").unwrap();
    file.write(&state(1)).unwrap();
    let (_, read, health) = open(&scratch.0).unwrap();
    assert_eq!((read, health), (Some(state(1)), StateFileHealth::Whole));
}
