//! A resync while the application goes on: at the commit the trees are equal, without a pause.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;
#[path = "link/workload.rs"]
mod workload;

use model::orders::{Begin, Report};
use pair::{Pair, done, wait};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use workload::Workload;

/// Ends the application of a test, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two trees with much in common and much that is not.
fn furnish(a: &Path, b: &Path, seed: u64) {
    for i in 0..40u64 {
        let (x, y) = ((seed + i) % 5, (seed * 7 + i) % 3);
        for (tree, different) in [(a, false), (b, true)] {
            let dir = tree.join(format!("dir{x}/sub{y}"));
            fs::create_dir_all(&dir).unwrap();
            let mut content = vec![i as u8; (i as usize * 20_011) % 500_000];
            if different
                && i % 3 == 0
                && let Some(byte) = content.get_mut(i as usize * 100)
            {
                *byte ^= 1;
            }
            if !(different && i % 7 == 0) {
                fs::write(dir.join(format!("f{i}")), content).unwrap();
            }
            if different && i % 5 == 0 {
                fs::write(dir.join(format!("extra{i}")), "extra").unwrap();
                fs::create_dir_all(dir.join(format!("extradir{i}/deep/er"))).unwrap();
            }
        }
    }
    for i in 0..6 {
        fs::write(a.join(format!("top{i}")), vec![i; 100_000]).unwrap();
    }
    // The same names on the target lead to one file; one is a directory; one is missing.
    fs::write(b.join("top0"), "0").unwrap();
    fs::hard_link(b.join("top0"), b.join("top1")).unwrap();
    fs::hard_link(b.join("top0"), b.join("dir0/another name")).unwrap();
    fs::create_dir_all(b.join("top2/full/of")).unwrap();
    fs::hard_link(a.join("top3"), a.join("dir1/linked")).unwrap();
    fs::write(b.join("top3"), "three").unwrap();
    fs::write(b.join("dir1/linked"), "not the same file").unwrap();
}

/// Eight games in each run; `STEAD_SEEDS=100..900` plays others.
fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("STEAD_SEEDS").ok();
    let wanted = wanted.as_deref().and_then(|text| text.split_once("..")).map(|(a, b)| (a.parse(), b.parse()));
    match wanted {
        Some((Ok(first), Ok(end))) => first..end,
        _ => 1..9,
    }
}

const TOP: [&[u8]; 6] = [b"top0", b"top1", b"top2", b"top3", b"top4", b"top5"];

/// The application goes on from before the first byte of the resync until after its commit.
fn resync_under(p: &mut Pair, workload: &mut Workload, begin: Begin, seed: u64) {
    let stop = AtomicBool::new(false);
    let steps = AtomicU64::new(0);
    let front = p.front.clone();
    let waits = std::thread::scope(|scope| {
        let application = scope.spawn(|| {
            let mut last = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let w = workload.step(&front);
                steps.fetch_add(1, Ordering::Relaxed);
                last.push(w);
                // As fast as this test may go: the application of a machine with two cores has to share.
                std::thread::yield_now();
                // A few at a time, as an application has.
                if last.len() > 4 {
                    done(&last.remove(0));
                }
            }
            last
        });
        let end = End(&stop);
        // The application has touched things before the first byte of the resync.
        while steps.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        let session = p.begin(begin);
        let progress = p.commit(session);
        println!("seed {seed}: {} steps, {progress:?}", steps.load(Ordering::Relaxed));
        let before = steps.load(Ordering::Relaxed);
        while steps.load(Ordering::Relaxed) < before + 50 {
            std::thread::yield_now();
        }
        drop(end);
        application.join().unwrap()
    });
    waits.iter().for_each(done);
    let found = p.differences();
    assert!(found.is_empty(), "seed {seed}: the trees differ:\n{}", found.join("\n"));
}

#[test]
fn trees_are_equal_after_a_resync_under_a_random_application() {
    for seed in seeds() {
        let mut p = Pair::new();
        furnish(&p.tree("a"), &p.tree("b"), seed);
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        let mut workload = Workload::new(seed);
        workload.adopt(&p.front, &TOP);
        resync_under(&mut p, &mut workload, Begin::Resync { full: true, quarantine: seed % 2 == 0 }, seed);
    }
}

/// What differs was changed while the target was away, and what is not compared is changed now.
#[test]
fn trees_are_equal_after_a_resync_of_changes_under_a_random_application() {
    for seed in seeds() {
        let mut p = Pair::new();
        furnish(&p.tree("a"), &p.tree("b"), seed);
        p.mirror();
        let mut workload = Workload::new(seed);
        workload.adopt(&p.front, &TOP);
        for _ in 0..300 {
            done(&workload.step(&p.front));
        }
        p.follower.stop();
        wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
        p.leader.hold();
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        resync_under(&mut p, &mut workload, Begin::Resync { full: false, quarantine: false }, seed);
    }
}

#[test]
fn what_changed_alone_is_brought_over_and_nothing_else_is_read() {
    for seed in 1..=8u64 {
        let mut p = Pair::new();
        furnish(&p.tree("a"), &p.tree("b"), seed);
        p.mirror();
        let mut workload = Workload::new(seed);
        workload.adopt(&p.front, &TOP);
        for _ in 0..100 {
            done(&workload.step(&p.front));
        }
        p.assert_equal();
        p.follower.stop();
        wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
        p.leader.hold();
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        for _ in 0..100 {
            done(&workload.step(&p.front));
        }
        let begin = Begin::Resync { full: false, quarantine: false };
        let session = p.begin(begin);
        for _ in 0..60 {
            done(&workload.step(&p.front));
        }
        let progress = p.commit(session);
        println!("seed {seed}: {progress:?}");
        let found = p.differences();
        assert!(found.is_empty(), "seed {seed}: the trees differ:\n{}", found.join("\n"));
    }
}

#[test]
fn a_resync_that_is_cut_again_and_again_gets_through_in_the_end() {
    let mut p = Pair::new();
    furnish(&p.tree("a"), &p.tree("b"), 3);
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let mut workload = Workload::new(99);
    for _ in 0..5 {
        p.begin(pair::FULL);
        wait(&p.from_leader, "LinkUp", |r| matches!(r, Report::LinkUp { .. }));
        for _ in 0..20 {
            done(&workload.step(&p.front));
        }
        p.follower.stop();
        wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
        // The application never noticed.
        done(&workload.step(&p.front));
    }
    let session = p.begin(pair::FULL);
    p.commit(session);
    p.assert_equal();
}

/// Its pieces are read without the order lock: what is written between the look and the sending must not be undone.
#[test]
fn a_file_that_is_written_while_it_is_sent_is_what_it_is_here() {
    const BLOCKS: u64 = 6_000;
    let mut p = Pair::new();
    fs::write(p.tree("a").join("big"), vec![7; BLOCKS as usize * 4_096]).unwrap();
    // Mostly like the other, so that blocks are compared and sent one by one as well.
    fs::write(p.tree("a").join("seeded"), vec![7; BLOCKS as usize * 4_096]).unwrap();
    fs::write(p.tree("b").join("seeded"), [vec![7; BLOCKS as usize * 2_048], vec![8; 9_000_000]].concat()).unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let stop = AtomicBool::new(false);
    let front = p.front.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = replica::op::FileId::root(0);
            let files = [front.look(root, b"big"), front.look(root, b"seeded")];
            let mut seed = 5u64;
            while !stop.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (file, block) = (files[(seed >> 60 & 1) as usize], (seed >> 33) % BLOCKS);
                done(&front.write(file, block * 4_096, &[(seed >> 40) as u8; 4_096]));
                if seed >> 52 == 0 {
                    done(&front.truncate(file, block * 4_096));
                }
            }
        });
        let end = End(&stop);
        let session = p.begin(Begin::Resync { full: true, quarantine: false });
        p.commit(session);
        drop(end);
    });
    p.assert_equal();
}
