//! Resyncs of more files than either node may hold descriptors, or ids, for.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;

use pair::Pair;
use std::fs;

/// Of this process, which is both nodes here.
const DESCRIPTORS: u64 = 4_096;
/// More than a follower keeps ids for.
const FILES: usize = 17_000;
const LINKED: usize = 5_000;

fn few_descriptors() {
    let limits = rustix::process::Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("a limit");
}

#[test]
fn a_directory_of_more_files_than_ids_is_copied_onto_an_empty_copy_and_completed_in_another() {
    few_descriptors();
    let mut p = Pair::in_memory();
    let (a, b) = (p.tree("a"), p.tree("b"));
    for (dir, there) in [("fresh", false), ("lacking", true)] {
        fs::create_dir(a.join(dir)).unwrap();
        if there {
            fs::create_dir(b.join(dir)).unwrap();
        }
        for f in 0..FILES {
            fs::write(a.join(dir).join(format!("f{f}")), format!("{f}")).unwrap();
        }
    }
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    p.commit(session);
    p.assert_equal();
}

#[test]
fn more_linked_files_than_descriptors_stay_linked() {
    few_descriptors();
    let mut p = Pair::in_memory();
    let (a, b) = (p.tree("a"), p.tree("b"));
    for f in 0..LINKED {
        fs::write(a.join(format!("f{f}")), format!("{f}")).unwrap();
        fs::hard_link(a.join(format!("f{f}")), a.join(format!("g{f}"))).unwrap();
        // Linked there, linked to the wrong one, two files, one missing.
        let there = b.join(format!("f{f}"));
        fs::write(&there, format!("{f}")).unwrap();
        match f % 4 {
            0 => fs::hard_link(&there, b.join(format!("g{f}"))).unwrap(),
            1 => fs::hard_link(&there, b.join(format!("g{}", (f + 4) % LINKED))).unwrap(),
            2 => fs::write(b.join(format!("g{f}")), "another").unwrap(),
            _ => {}
        }
    }
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    p.commit(session);
    p.assert_equal();
}
