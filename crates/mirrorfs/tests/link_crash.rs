//! A crash of either node: only what was hot is compared, and the trees are equal afterwards (GUARANTEES 1, 5; R5).
//!
//! What a power cut does to a disk is played by changing the crashed node's tree behind everybody's back, within what
//! was hot there.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;

use front::ROOT;
use model::orders::{Begin, Progress, Report};
use pair::{Pair, done, wait};
use std::fs;
use std::os::unix::fs::FileExt;

const CHANGES: Begin = Begin::Resync { full: false, quarantine: false };
/// Files nobody touches; comparing them all would be seen in the counters.
const COLD: usize = 200;

/// A mirrored pair with a tree in which nothing is hot.
fn cold_pair() -> Pair {
    let mut p = Pair::new();
    for i in 0..COLD {
        let dir = p.tree("a").join(format!("d{}", i % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("cold{i}")), vec![i as u8; 10_000]).unwrap();
    }
    fs::write(p.tree("a").join("d0/big"), vec![1; 20 << 20]).unwrap();
    fs::write(p.tree("a").join("d1/replaced"), b"old content").unwrap();
    p.mirror();
    p.cool();
    p
}

/// The two that are written to, the one that is made, the one that is replaced.
fn work(p: &Pair) {
    let d0 = p.front.look(ROOT, b"d0");
    let big = p.front.look(d0, b"big");
    done(&p.front.write(big, 9 << 20, b"changed in the third extent"));
    let d1 = p.front.look(ROOT, b"d1");
    let (new, w) = p.front.create(d1, b"new", 0o600);
    done(&w);
    done(&p.front.write(new, 0, b"NEW content"));
    done(&p.front.rename(d1, b"new", d1, b"replaced"));
    let (made, w) = p.front.mkdir(d1, b"sub");
    done(&w);
    let (below, w) = p.front.create(made, b"below", 0o600);
    done(&w);
    done(&p.front.write(below, 0, &[7; 5_000]));
}

/// The disk lost some of it: any state between before and after is possible.
fn lose(tree: &std::path::Path) {
    let times = fs::metadata(tree.join("d1/replaced")).unwrap().modified().unwrap();
    fs::remove_file(tree.join("d1/replaced")).unwrap();
    fs::write(tree.join("d1/replaced"), b"old content").unwrap();
    // Same size and time as the new one: no date tells.
    fs::File::options().write(true).open(tree.join("d1/replaced")).unwrap().set_modified(times).unwrap();
    let big = fs::OpenOptions::new().write(true).open(tree.join("d0/big")).unwrap();
    let times = big.metadata().unwrap().modified().unwrap();
    big.write_all_at(&[1; 40], 9 << 20).unwrap();
    big.set_modified(times).unwrap();
    fs::write(tree.join("d1/sub/below"), [0; 5_000]).unwrap();
}

fn assert_few(progress: Progress) {
    // Roots, d0 and d1 with their entries, and what was made: not the other eight directories.
    assert!(progress.entries < COLD as u64 / 2, "only hot directories are listed: {progress:?}");
    assert!(progress.bytes_compared <= 4 << 20 | 100_000, "one extent and the new files: {progress:?}");
    assert!(progress.bytes_sent <= 300_000, "{progress:?}");
}

fn lost_link(p: &Pair) {
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
}

#[test]
fn after_a_crash_of_the_secondary_only_what_was_hot_is_compared() {
    let mut p = cold_pair();
    work(&p);
    p.assert_equal();
    p.follower.stop();
    lost_link(&p);
    lose(&p.tree("b"));
    p.restart_follower();
    p.leader.hold();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(CHANGES);
    let progress = p.commit(session);
    p.assert_equal();
    assert_few(progress);
}

#[test]
fn after_a_crash_of_the_primary_its_unsent_changes_are_gone_and_only_what_was_hot_is_compared() {
    let mut p = cold_pair();
    p.follower.stop();
    lost_link(&p);
    // Made here, never sent: the application got no answer.
    let d0 = p.front.look(ROOT, b"d0");
    let big = p.front.look(d0, b"big");
    let _unanswered = p.front.write(big, 13 << 20, b"never sent");
    let d1 = p.front.look(ROOT, b"d1");
    let (_, _unanswered) = p.front.create(d1, b"never sent", 0o600);
    let (new, _unanswered) = p.front.create(d1, b"tmp", 0o600);
    let _unanswered = p.front.write(new, 0, b"OLD CONTENT");
    let _unanswered = p.front.rename(d1, b"tmp", d1, b"replaced");
    let same = fs::metadata(p.tree("b").join("d1/replaced")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(p.tree("a").join("d1/replaced")).unwrap().set_modified(same).unwrap();
    p.restart_leader();
    // b was promoted and becomes the source: the names of the two change places, their files stay.
    p.swap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(CHANGES);
    let progress = p.commit(session);
    p.assert_equal();
    assert_eq!(fs::read(p.tree("a").join("d1/replaced")).unwrap(), b"old content");
    assert_few(progress);
}

#[test]
fn after_a_crash_of_both_what_was_hot_on_either_is_compared() {
    let mut p = cold_pair();
    work(&p);
    p.follower.stop();
    lost_link(&p);
    lose(&p.tree("b"));
    let d2 = p.tree("a").join("d0/big");
    fs::OpenOptions::new().write(true).open(d2).unwrap().write_all_at(&[9; 10], (9 << 20) + 100).unwrap();
    p.restart_follower();
    p.restart_leader();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(CHANGES);
    let progress = p.commit(session);
    p.assert_equal();
    assert_few(progress);
}

#[test]
fn a_log_that_cannot_be_read_means_that_everything_is_compared() {
    for node in ["a", "b"] {
        let mut p = cold_pair();
        work(&p);
        p.follower.stop();
        lost_link(&p);
        // Not even hot: only a comparison of everything finds it.
        fs::write(p.tree("b").join("d5/cold5"), vec![77; 10_000]).unwrap();
        let log = p.base.path().join(node).join("state/hot");
        let mut bytes = fs::read(&log).unwrap();
        bytes.truncate(4096 * 20);
        fs::write(&log, bytes).unwrap();
        p.restart_follower();
        p.restart_leader();
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        let session = p.begin(CHANGES);
        let progress = p.commit(session);
        p.assert_equal();
        assert!(progress.entries >= COLD as u64, "{progress:?}");
    }
}

/// The random walk of the explorer found it: what a source wrote alone is in its map, not in its log.
#[test]
fn a_source_that_crashes_before_it_cleared_its_map_is_compared_by_its_map() {
    let mut p = cold_pair();
    p.follower.stop();
    lost_link(&p);
    p.leader.hold();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let d5 = p.front.look(ROOT, b"d5");
    let cold = p.front.look(d5, b"cold5");
    done(&p.front.write(cold, 0, b"written alone"));
    let kept = fs::read(p.base.path().join("a/state/changes")).unwrap();
    p.forget_reports();
    let session = p.begin(CHANGES);
    p.commit(session);
    p.assert_equal();
    // Its power went before the map was cleared and the write was on its disk.
    fs::write(p.base.path().join("a/state/changes"), kept).unwrap();
    let file = fs::File::options().write(true).open(p.tree("a").join("d5/cold5")).unwrap();
    let times = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[5; 13], 0).unwrap();
    file.set_modified(times).unwrap();
    p.swap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(CHANGES);
    let progress = p.commit(session);
    p.assert_equal();
    assert_few(progress);
}

#[test]
fn a_full_resync_that_was_cut_is_followed_by_a_full_one() {
    let mut p = Pair::new();
    fs::write(p.tree("a").join("f"), b"here").unwrap();
    fs::write(p.tree("b").join("f"), b"else").unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    p.begin(pair::FULL);
    wait(&p.from_leader, "ResyncThrough", |r| matches!(r, Report::ResyncThrough { .. }));
    p.follower.stop();
    lost_link(&p);
    p.forget_reports();
    fs::write(p.tree("b").join("f"), b"lost").unwrap();
    p.restart_follower();
    let session = p.begin(CHANGES);
    p.commit(session);
    p.assert_equal();
}

#[test]
fn what_is_hot_is_bounded_cools_on_both_nodes_and_costs_a_flush_only_when_cold() {
    let p = cold_pair();
    let d0 = p.front.look(ROOT, b"d0");
    let big = p.front.look(d0, b"big");
    done(&p.front.write(big, 0, b"cold"));
    let flushes = p.leader.log().lock().unwrap().flushes();
    for i in 0..50 {
        done(&p.front.write(big, i * 7, b"hot"));
    }
    assert!(p.leader.log().lock().unwrap().flushes() <= flushes + 1, "a round may have ended meanwhile");
    assert!(p.follower.counters().hot > 0 && p.leader.counters().hot > 0);
    // More extents than may be hot: changes wait for a round, none is refused.
    let (sparse, w) = p.front.create(ROOT, b"sparse", 0o600);
    done(&w);
    p.cool();
    for i in 0..model::limits::HOT_MAX as u64 + 40 {
        done(&p.front.write(sparse, i * model::limits::EXTENT_BYTES, b"x"));
        assert!(p.leader.hot() <= model::limits::HOT_MAX);
    }
    assert!(p.follower.counters().hot <= model::limits::HOT_TABLE as u64);
    p.cool();
    p.assert_equal();
}
