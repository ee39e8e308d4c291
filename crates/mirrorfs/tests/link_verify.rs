//! The comparison while mirrored: finds and repairs what differs on the secondary, under an application that writes,
//! and takes nothing for a difference that is none.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;
#[path = "link/workload.rs"]
mod workload;

use model::orders::{Report, VerifyProgress};
use pair::{Pair, done, wait};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use workload::Workload;

fn verified(p: &Pair, repair: bool) -> VerifyProgress {
    p.leader.verify(repair, 0, false).expect("the pair is mirrored");
    match wait(&p.from_leader, "Verified", |r| matches!(r, Report::Verified { verify } if !verify.running)) {
        Report::Verified { verify } => verify,
        _ => unreachable!(),
    }
}

/// Mirrored, with some files of which the application will leave `quiet*` alone.
fn mirrored() -> Pair {
    // Not what is tested: on a machine with more to do than processors, a thread waits longer than a second for its turn.
    let mut p = Pair::with(|c| c.silent_ms = pair::PATIENT_MS);
    for i in 0..30u8 {
        fs::create_dir_all(p.tree("a").join(format!("d{}", i % 4))).unwrap();
        fs::write(p.tree("a").join(format!("d{}/f{i}", i % 4)), vec![i; usize::from(i) * 9_001]).unwrap();
    }
    fs::create_dir(p.tree("a").join("quiet")).unwrap();
    for i in 0..4u8 {
        fs::write(p.tree("a").join(format!("quiet/{i}")), vec![i; 400_000]).unwrap();
    }
    let sparse = fs::File::create(p.tree("a").join("quiet/sparse")).unwrap();
    sparse.write_all_at(b"end", 3_000_000).unwrap();
    fs::hard_link(p.tree("a").join("quiet/0"), p.tree("a").join("quiet/linked")).unwrap();
    p.mirror();
    p
}

/// One bit, with the times as they were: as a bad disk does it.
fn flip(p: &Pair, name: &str, at: u64) {
    let path = p.tree("b").join(name);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.set_modified(before).unwrap();
}

#[test]
fn a_flipped_byte_is_found_and_repaired_under_load_and_nothing_else_is_reported() {
    for seed in 1..=4u64 {
        let p = mirrored();
        let stop = AtomicBool::new(false);
        let mut workload = Workload::new(seed);
        let front = p.front.clone();
        let outcome = std::thread::scope(|scope| {
            let application = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    done(&workload.step(&front));
                }
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let clean = verified(&p, false);
                assert_eq!((clean.differences, clean.failed.as_str()), (0, ""), "seed {seed}: {clean:?}");
                flip(&p, "quiet/2", 123_456);
                let found = verified(&p, false);
                assert_eq!((found.differences, found.stubborn), (1, 0), "seed {seed}: {found:?}");
                assert!(found.examples[0].ends_with("quiet/2"), "{found:?}");
                let repaired = verified(&p, true);
                assert_eq!((repaired.differences, repaired.stubborn), (1, 0), "seed {seed}: {repaired:?}");
                let again = verified(&p, false);
                assert_eq!(again.differences, 0, "seed {seed}: {again:?}");
            }));
            stop.store(true, Ordering::Relaxed);
            application.join().expect("the application");
            outcome
        });
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        p.assert_equal();
    }
}

/// The end of a file is compared once: what is appended meanwhile is in the stream, and an odd place is no place to go on
/// from (the other node closed the link at such a frame).
#[test]
fn a_file_that_grows_meanwhile_is_compared_and_the_link_stands() {
    let p = mirrored();
    let (log, made) = p.front.create(front::ROOT, b"log", 0o644);
    done(&made);
    let stop = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                done(&p.front.write(log, at, b"one more line\n"));
                at += 14;
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..150 {
                let clean = verified(&p, round % 2 == 0);
                assert_eq!((clean.differences, clean.failed.as_str()), (0, ""), "round {round}: {clean:?}");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    p.assert_equal();
}

#[test]
fn attributes_are_repaired_in_the_session() {
    let p = mirrored();
    fs::set_permissions(p.tree("b").join("quiet/1"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // The replicated directory itself, too.
    fs::set_permissions(p.tree("b"), std::os::unix::fs::PermissionsExt::from_mode(0o701)).unwrap();
    let repaired = verified(&p, true);
    assert_eq!((repaired.differences, repaired.stubborn, repaired.resync), (2, 0, 0), "{repaired:?}");
    p.assert_equal();
    assert_eq!(fs::metadata(p.tree("b")).unwrap().mode() & 0o777, fs::metadata(p.tree("a")).unwrap().mode() & 0o777);
}

/// What is missing, extra or of another type on the secondary: named; and with `repair` the session ends, and the resync that
/// follows makes both equal, without looking at anything else.
#[test]
fn missing_and_extra_entries_and_other_types_are_named_and_repaired_by_a_resync_of_just_them() {
    let mut p = mirrored();
    p.cool();
    let b = p.tree("b");
    fs::remove_file(b.join("d1/f1")).unwrap();
    fs::write(b.join("quiet/extra"), "x").unwrap();
    fs::create_dir(b.join("quiet/extras")).unwrap();
    fs::write(b.join("quiet/extras/deep"), "x").unwrap();
    fs::remove_dir_all(b.join("d3")).unwrap();
    fs::remove_file(b.join("quiet/3")).unwrap();
    fs::create_dir(b.join("quiet/3")).unwrap();
    let wanted = ["d1/f1", "quiet/extra", "quiet/extras", "d3", "quiet/3"];
    let named = |found: &VerifyProgress| {
        let names: Vec<_> = found.examples.iter().filter_map(|e| e.split_once("/tree/").map(|(_, n)| n)).collect();
        wanted.iter().all(|name| names.contains(name))
    };
    let found = verified(&p, false);
    assert!(named(&found) && found.resync == 0 && found.failed.is_empty(), "{found:?}");
    // Nobody asked for a repair: the pair is still mirrored, and what the application does is there too.
    let (_, w) = p.front.create(front::ROOT, b"after", 0o644);
    done(&w);
    assert!(b.join("after").exists());
    p.cool();

    p.leader.verify(true, 0, false).expect("the pair is mirrored");
    let (mut ended, mut repaired) = (false, None);
    while !ended || repaired.is_none() {
        match p.from_leader.recv_timeout(pair::DEADLINE).expect("it ends") {
            Report::PeerFault { reason, .. } => ended = reason.contains("of another type"),
            Report::Verified { verify } if !verify.running => repaired = Some(verify),
            _ => {}
        }
    }
    let repaired = repaired.expect("just seen");
    assert!(named(&repaired) && repaired.failed.is_empty(), "{repaired:?}");
    assert!(repaired.resync >= wanted.len() as u64, "{repaired:?}");

    p.forget_reports();
    p.leader.serve_alone(model::ids::Epoch { counter: 4, ..pair::EPOCH }, true).unwrap();
    p.restart_follower();
    let session = p.begin(model::orders::Begin::Resync { full: false, quarantine: false });
    let progress = p.commit(session);
    p.assert_equal();
    // What was missing is 1.4 MB, and the file with two names is compared by both; the rest of 5.5 MB is not read again.
    assert!(progress.bytes_compared < 1_000_000 && progress.bytes_sent < 1_500_000, "only those: {progress:?}");
    let clean = verified(&p, false);
    assert_eq!((clean.differences, clean.failed.as_str()), (0, ""), "{clean:?}");
}

#[test]
fn without_a_complete_secondary_it_is_refused_and_a_lost_link_ends_it() {
    let p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    assert!(p.leader.verify(false, 0, false).is_err());
    let p = mirrored();
    // So slow that it cannot be through.
    p.leader.verify(false, 1, false).unwrap();
    assert!(p.leader.verify(false, 0, false).is_err(), "one at a time");
    p.follower.stop();
    let mut ended = None;
    while ended.is_none() {
        match p.from_leader.recv_timeout(pair::DEADLINE).expect("it ends") {
            Report::Verified { verify } if !verify.running => ended = Some(verify),
            _ => {}
        }
    }
    assert!(!ended.expect("just seen").failed.is_empty());
}
