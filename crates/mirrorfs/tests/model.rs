//! The reference model: whatever is done through the mount has the result it has in a plain directory.
//!
//! Random operations, the same on both; results and errors compared at each step, trees at the end. Every
//! seed that ever failed stays in the list. `MIRRORFS_SEED=n` plays one more.

mod common;

use common::play::{Detail, Random, picture, play, same, seeds};
use common::{Agent, Bench, Replaying, be_mirrorfs_if_asked};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

#[test]
fn random_operations_have_the_results_of_a_plain_directory() {
    let bench = Bench::new(512);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    for seed in seeds() {
        let (above, plain) = (bench.data().join(format!("t{seed}")), bench.path(&format!("lower/plain{seed}")));
        play(seed, &above, &plain);
        same("mount and model", seed, &picture(&above, Detail::Model), &picture(&plain, Detail::Model));
        let below = bench.lower().join(format!("t{seed}"));
        same("mount and store", seed, &picture(&above, Detail::Same), &picture(&below, Detail::Same));
    }
}

#[test]
fn the_changes_handed_over_make_an_equal_tree_elsewhere() {
    let bench = Bench::new(512);
    let replica = bench.path("lower/replica");
    let _replaying = Replaying::start(&bench, &replica);
    for seed in seeds() {
        let (above, plain) = (bench.data().join(format!("t{seed}")), bench.path(&format!("lower/plain{seed}")));
        play(seed, &above, &plain);
        let (below, elsewhere) = (bench.lower().join(format!("t{seed}")), replica.join(format!("t{seed}")));
        same("store and replica", seed, &picture(&below, Detail::Replica), &picture(&elsewhere, Detail::Replica));
    }
}

/// Several writers of one file, by `write` and by shared mapping, with truncation in between: afterwards the
/// mount, the store and the memory of the writers agree.
#[test]
fn writes_truncations_and_mappings_of_one_file_agree() {
    const SIZE: usize = 1 << 20;
    let bench = Bench::new(64);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    let (path, below) = (bench.data().join("f"), bench.lower().join("f"));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("create");
    let mut expected = vec![0u8; SIZE];
    file.set_len(SIZE as u64).expect("size");
    let mut random = Random(77);
    for round in 0..600 {
        let (at, length) = (random.below(SIZE as u64) as usize, random.below(70_000) as usize);
        let length = length.min(SIZE - at);
        let byte = random.next() as u8;
        match random.below(6) {
            0 | 1 => {
                file.write_all_at(&vec![byte; length], at as u64).expect("write");
                expected[at..at + length].fill(byte);
            }
            2 | 3 if length > 0 => {
                map(&file, SIZE, |memory, flush| {
                    memory[at..at + length].fill(byte);
                    if byte & 1 == 0 {
                        flush();
                    }
                });
                expected[at..at + length].fill(byte);
            }
            4 => {
                file.set_len(at as u64).expect("shrink");
                file.set_len(SIZE as u64).expect("grow");
                expected[at..].fill(0);
            }
            _ => {
                let mut read = vec![0; length];
                file.read_exact_at(&mut read, at as u64).expect("read");
                assert!(read == expected[at..at + length], "round {round}: read at {at}");
            }
        }
    }
    file.sync_all().expect("fsync");
    assert!(fs::read(&path).expect("read") == expected, "through the mount");
    assert!(fs::read(&below).expect("read below") == expected, "in the store");
}

fn map(file: &File, size: usize, work: impl FnOnce(&mut [u8], &dyn Fn())) {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    // SAFETY: a fresh shared mapping of a file of at least this size, not shrunk while mapped, unmapped below.
    unsafe {
        let at = mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
            .expect("mmap");
        work(std::slice::from_raw_parts_mut(at.cast::<u8>(), size), &|| {
            msync(at, size, MsyncFlags::SYNC).expect("msync")
        });
        munmap(at, size).expect("munmap");
    }
}
