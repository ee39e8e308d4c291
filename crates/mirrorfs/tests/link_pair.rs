//! Leader and follower over loopback, on two plain directories: the stream, the commit, the loss of the link.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;

use front::ROOT;
use model::orders::{AckPolicy, AsyncPolicy, Begin, Report, Situation};
use pair::{Pair, done, is_waiting, wait};
use std::fs;
use std::process::Command;
use std::time::Instant;

#[test]
fn an_answered_change_is_on_both_nodes() {
    let mut p = Pair::new();
    p.mirror();
    let (dir, w) = p.front.mkdir(ROOT, b"d");
    done(&w);
    let (file, w) = p.front.create(dir, b"caf\xe9 \n", 0o640);
    done(&w);
    done(&p.front.write(file, 0, b"hello"));
    done(&p.front.write(file, 100_000, &[7; 300_000]));
    p.assert_equal();
    done(&p.front.fsync(file));
    done(&p.front.chmod(file, 0o600));
    done(&p.front.link(file, ROOT, b"second"));
    done(&p.front.rename(ROOT, b"d", ROOT, b"e"));
    done(&p.front.truncate(file, 12));
    done(&p.front.symlink(dir, b"l", b"../anywhere"));
    p.assert_equal();
    done(&p.front.unlink(dir, b"caf\xe9 \n"));
    done(&p.front.unlink(dir, b"l"));
    done(&p.front.rmdir(ROOT, b"e"));
    p.assert_equal();
    assert!(p.tree("b").join("second").exists());
}

#[test]
fn a_full_resync_makes_any_two_trees_equal() {
    let mut p = Pair::new();
    let (a, b) = (p.tree("a"), p.tree("b"));
    fs::create_dir_all(a.join("x/y/z")).unwrap();
    fs::write(a.join("x/y/z/same"), vec![1; 200_000]).unwrap();
    fs::write(a.join("x/changed"), vec![2; 3_000_000]).unwrap();
    fs::write(a.join("type"), "a file here").unwrap();
    fs::hard_link(a.join("x/changed"), a.join("x/other name")).unwrap();
    fs::write(a.join("one"), "1").unwrap();
    fs::write(a.join("two"), "2").unwrap();
    std::os::unix::fs::symlink("one", a.join("link")).unwrap();
    let sparse = fs::File::create(a.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 30) - 3).unwrap();
    fs::write(a.join("empty"), "").unwrap();

    fs::create_dir_all(b.join("x/y/z")).unwrap();
    fs::write(b.join("x/y/z/same"), vec![1; 200_000]).unwrap();
    let mut other = vec![2; 3_000_000];
    other[1_500_000] = 3;
    fs::write(b.join("x/changed"), other).unwrap();
    fs::create_dir_all(b.join("type/with/content")).unwrap();
    fs::write(b.join("one"), "1").unwrap();
    fs::hard_link(b.join("one"), b.join("two")).unwrap();
    fs::create_dir_all(b.join("extra/deep")).unwrap();
    fs::write(b.join("extra/deep/file"), "gone").unwrap();
    std::os::unix::fs::symlink("two", b.join("link")).unwrap();

    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    let progress = p.commit(session);
    p.assert_equal();
    use std::os::unix::fs::MetadataExt;
    assert!(fs::metadata(b.join("sparse")).unwrap().blocks() * 512 < 1 << 20, "sparse stays sparse");
    assert!(progress.bytes_sent < 1_000_000, "only differences are sent: {progress:?}");
    assert_eq!(p.leader.situation(), Some(Situation::Mirrored { session }));
    assert_eq!(p.follower.following(), Some((session, true)));
    let file = p.front.look(ROOT, b"one");
    done(&p.front.write(file, 1, b"after"));
    p.assert_equal();
}

#[test]
fn nothing_is_answered_while_the_peer_is_lost_and_a_resume_loses_nothing() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    let held = [p.front.write(file, 0, b"one"), p.front.write(file, 3, b"two")];
    let (_, created) = p.front.create(ROOT, b"g", 0o600);
    let synced = p.front.fsync(file);
    assert!(held.iter().all(is_waiting) && is_waiting(&created) && is_waiting(&synced));
    assert!(matches!(p.leader.situation(), Some(Situation::Holding { .. })));
    p.begin(Begin::Resume);
    wait(&p.from_leader, "Mirrored", |r| matches!(r, Report::Reached { situation: Situation::Mirrored { .. } }));
    held.iter().for_each(done);
    done(&created);
    done(&synced);
    p.assert_equal();
    done(&p.front.write(file, 6, b"three"));
    p.assert_equal();
}

/// The two agents order the same session, and not at the same moment. The leader was refused for that, and a resume that never
/// comes to a link is not tried again: the secondary had to be resynchronised.
#[test]
fn a_leader_that_comes_before_it_is_expected_resumes_all_the_same() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    let held = p.front.write(file, 0, b"one");
    // Another session is expected still.
    let (other, session) = (p.next_session(), p.next_session());
    p.follower.follow(other, Begin::Resume).unwrap();
    p.leader.lead(session, Begin::Resume);
    let early = p.from_leader.recv_timeout(std::time::Duration::from_millis(300));
    assert!(early.is_err(), "it did not wait: {early:?}");
    assert!(is_waiting(&held));
    p.follower.follow(session, Begin::Resume).unwrap();
    wait(&p.from_leader, "Mirrored", |r| matches!(r, Report::Reached { situation: Situation::Mirrored { .. } }));
    done(&held);
    p.assert_equal();
}

#[test]
fn another_process_cannot_resume() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    let held = p.front.write(file, 0, b"x");
    p.restart_follower();
    p.begin(Begin::Resume);
    wait(&p.from_leader, "CannotResume", |r| matches!(r, Report::CannotResume { .. }));
    assert!(is_waiting(&held), "still nothing is promised");
}

#[test]
fn going_on_alone_records_what_was_in_flight_and_the_next_resync_finds_it() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    done(&p.front.write(file, 0, &[1; 1_000_000]));
    let (other, w) = p.front.create(ROOT, b"other", 0o600);
    done(&w);
    done(&p.front.write(other, 0, &[9; 500_000]));
    p.cool();
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    let held = p.front.write(file, 500_000, b"changed in flight");
    p.leader.hold();
    p.leader.sync(9);
    wait(&p.from_leader, "Synced", |r| matches!(r, Report::Synced { ticket: 9 }));
    assert!(is_waiting(&held));
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    done(&held);
    done(&p.front.write(file, 900_000, b"changed alone"));
    let (new, w) = p.front.create(ROOT, b"new", 0o644);
    done(&w);
    done(&p.front.write(new, 0, b"content"));
    done(&p.front.fsync(new));
    assert!(p.leader.counters().dirty_zones >= 2);
    let session = p.begin(Begin::Resync { full: false, quarantine: false });
    let progress = p.commit(session);
    p.assert_equal();
    assert!(progress.bytes_compared <= 1_500_000, "only what the map and the hot set name: {progress:?}");
    assert_eq!(p.leader.counters().dirty_zones, 0, "the map is empty after the commit");
}

#[test]
fn a_fence_answers_eio_and_nothing_enters_any_more() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    let held = p.front.write(file, 0, b"x");
    p.leader.fence();
    assert_eq!(held.recv_timeout(pair::DEADLINE), Ok(Err(rustix::io::Errno::IO)));
    assert_eq!(p.leader.situation(), None);
}

#[test]
fn what_a_diverged_target_loses_is_kept() {
    let mut p = Pair::new();
    let (a, b) = (p.tree("a"), p.tree("b"));
    fs::write(a.join("both"), "the winner's").unwrap();
    fs::write(b.join("both"), "the loser's").unwrap();
    fs::create_dir_all(b.join("only/here")).unwrap();
    fs::write(b.join("only/here/f"), "precious").unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(Begin::Resync { full: true, quarantine: true });
    p.commit(session);
    p.assert_equal();
    let kept = fs::read_dir(p.base.path().join("b/quarantine")).unwrap().next().unwrap().unwrap().path().join("0");
    assert_eq!(fs::read_to_string(kept.join("both")).unwrap(), "the loser's");
    assert_eq!(fs::read_to_string(kept.join("only/here/f")).unwrap(), "precious");
}

/// The content of a file that only has another mode is not kept once more; one that has another content is kept with its own time.
#[test]
fn attributes_that_a_diverged_target_loses_are_noted() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut p = Pair::new();
    let (a, b) = (p.tree("a"), p.tree("b"));
    for tree in [&a, &b] {
        for name in ["mode", "time", "acl", "same", "content"] {
            fs::write(tree.join(name), "as it was").unwrap();
            sh(&format!("touch -d @1700000000 {}", tree.join(name).display()));
        }
        fs::create_dir(tree.join("dir")).unwrap();
    }
    fs::write(a.join("content"), "the winne").unwrap();
    // What only the winner has was never the loser's.
    fs::create_dir(a.join("made")).unwrap();
    fs::write(a.join("made/file"), "new").unwrap();
    std::os::unix::fs::symlink("nowhere", a.join("made/link")).unwrap();
    sh(&format!("mkfifo {0}/made/fifo; touch -h -d @1600000000 {0}/made/* {0}/made", a.display()));
    let loser = b.display();
    sh(&format!("cd {loser}; echo 'the lose' >content; touch -d @1700000001.5 content; touch -d @1700000002 time"));
    sh(&format!(
        "cd {loser}; chmod 751 mode; touch -d @1700000000 mode; chown 7:8 dir; setfattr -n user.note -v kept acl"
    ));
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(Begin::Resync { full: true, quarantine: true });
    p.commit(session);
    p.assert_equal();
    let folder = fs::read_dir(p.base.path().join("b/quarantine")).unwrap().next().unwrap().unwrap().path();
    let list = fs::read_to_string(folder.join(model::api::QUARANTINE_ATTRIBUTES)).unwrap();
    let lines = list.lines().map(|line| serde_json::from_str::<model::api::QuarantineAttributes>(line).unwrap());
    let noted: std::collections::BTreeMap<_, _> = lines.map(|it| (it.path.clone(), it)).collect();
    let names: Vec<&str> = noted.keys().map(String::as_str).collect();
    assert_eq!(names, ["0/acl", "0/content", "0/dir", "0/mode", "0/time"]);
    assert_eq!(noted["0/mode"].mode, "0751");
    assert_eq!((noted["0/dir"].uid, noted["0/dir"].gid), (7, 8));
    assert_eq!(noted["0/time"].mtime, "1700000002.000000000");
    assert_eq!(noted["0/acl"].xattrs["user.note"], "0x6b657074");
    let kept = fs::metadata(folder.join("0/content")).unwrap();
    assert_eq!(fs::read_to_string(folder.join("0/content")).unwrap(), "the lose\n");
    assert_eq!(
        (kept.mtime(), kept.mtime_nsec(), kept.permissions().mode() & 0o777),
        (1_700_000_001, 500_000_000, 0o644)
    );
    assert!(["mode", "time", "acl", "same"].iter().all(|name| !folder.join("0").join(name).exists()));
}

/// Their flags are not replicated: the leader's files have none.
#[test]
fn what_chattr_protects_on_a_target_gives_way_to_the_leaders_changes() {
    for quarantine in [false, true] {
        let mut p = Pair::new();
        let (a, b) = (p.tree("a"), p.tree("b"));
        for tree in [&a, &b] {
            fs::create_dir_all(tree.join("dir/below")).unwrap();
            for name in ["changed", "grown", "renamed", "removed", "dir/below/gone"] {
                fs::write(tree.join(name), "before").unwrap();
            }
        }
        fs::write(a.join("changed"), "after").unwrap();
        fs::write(a.join("grown"), "before and after").unwrap();
        fs::rename(a.join("renamed"), a.join("new name")).unwrap();
        fs::remove_file(a.join("removed")).unwrap();
        fs::remove_dir_all(a.join("dir")).unwrap();
        let b = b.display();
        sh(&format!("cd {b}; chattr +i changed renamed dir/below/gone dir/below; chattr +a grown removed"));
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        let session = p.begin(Begin::Resync { full: true, quarantine });
        p.commit(session);
        p.assert_equal();
        sh(&format!("chattr -R -ia {}", p.base.path().display()));
    }
}

/// Whoever comes to a directory comes by all that it is in: what was said of those is not said again for each.
#[test]
fn a_tree_of_many_levels_is_compared_level_by_level() {
    const LEVELS: u64 = 700;
    let mut p = Pair::new();
    for node in ["a", "b"] {
        let mut deep = fs::File::open(p.tree(node)).unwrap();
        for _ in 0..LEVELS {
            rustix::fs::mkdirat(&deep, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            deep = fs::File::from(rustix::fs::openat(&deep, "d", flags, rustix::fs::Mode::empty()).unwrap());
        }
    }
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(Begin::Resync { full: true, quarantine: false });
    let said = p.leader.counters().frames;
    p.commit(session);
    p.assert_equal();
    assert!(said < 20 * LEVELS, "{said} messages about {LEVELS} directories");
}

/// Any user can make a path that no text can say; and a second try is not a second history.
#[test]
fn what_a_diverged_target_loses_is_kept_however_deep_and_by_every_try_in_one_folder() {
    let mut p = Pair::new();
    let b = p.tree("b");
    let part = "d".repeat(200);
    let enter = |dir: &fs::File| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        fs::File::from(rustix::fs::openat(dir, part.as_str(), flags, rustix::fs::Mode::empty()).unwrap())
    };
    let mut deep = fs::File::open(&b).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&deep, part.as_str(), rustix::fs::Mode::RWXU).unwrap();
        deep = enter(&deep);
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
    rustix::fs::openat(&deep, "bottom", flags, rustix::fs::Mode::RWXU).unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let folders = |p: &Pair| fs::read_dir(p.base.path().join("b/quarantine")).unwrap().count();
    for lost in ["first", "second"] {
        fs::write(b.join(lost), "the loser's").unwrap();
        let session = p.begin(Begin::Resync { full: true, quarantine: true });
        p.commit(session);
        p.assert_equal();
        assert_eq!(folders(&p), 1, "after the {lost} try");
        p.forget_reports();
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
    }
    let kept = fs::read_dir(p.base.path().join("b/quarantine")).unwrap().next().unwrap().unwrap().path().join("0");
    for lost in ["first", "second"] {
        assert_eq!(fs::read_to_string(kept.join(lost)).unwrap(), "the loser's");
    }
    let mut deep = fs::File::open(&kept).unwrap();
    (0..40).for_each(|_| deep = enter(&deep));
    rustix::fs::statat(&deep, "bottom", rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn the_peers_full_disk_is_not_the_applications_error() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    // Somebody removed the file under the follower's feet: what it is told next cannot be done there.
    fs::remove_file(p.tree("b").join("f")).unwrap();
    let unanswered = p.front.unlink(ROOT, b"f");
    let report = p.from_leader.recv_timeout(pair::DEADLINE);
    let fault = std::iter::once(report.unwrap())
        .chain(p.from_leader.try_iter())
        .find(|r| matches!(r, Report::PeerFault { .. }));
    assert!(fault.is_some_and(|f| format!("{f:?}").contains("unlink")));
    assert!(is_waiting(&unanswered), "held until the agent decides");
    let _ = file;
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    done(&unanswered);
}

#[test]
fn async_second_waits_for_the_peers_memory_only() {
    let mut p = Pair::with(|c| c.sync = AsyncPolicy::Second);
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    let begun = Instant::now();
    for i in 0..50u64 {
        let w = p.front.write(file, i * 10, b"0123456789");
        done(&p.front.fsync(file));
        done(&w);
    }
    println!("50 writes with fsync: {:?}", begun.elapsed());
    p.assert_equal();
}

#[test]
fn with_ack_commit_a_change_leaves_by_itself_and_close_waits_for_the_peer_but_not_for_its_disk() {
    let mut p = Pair::with(|c| c.ack = AckPolicy::Commit);
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    // Nobody asks for anything: it is there all the same, soon.
    let until = Instant::now() + pair::DEADLINE;
    while !p.tree("b").join("f").exists() {
        assert!(Instant::now() < until, "a change stayed where it was made");
        std::thread::yield_now();
    }
    for i in 0..50u64 {
        done(&p.front.write(file, i * 10_000, &[i as u8; 10_000]));
        done(&p.front.close(file));
        assert_eq!(fs::metadata(p.tree("b").join("f")).unwrap().len(), (i + 1) * 10_000, "closed");
    }
    done(&p.front.fsync(file));
    p.assert_equal();
    // More than the window holds, and nothing that is waited for: room is made as the peer takes it.
    for i in 0..200u64 {
        done(&p.front.write(file, i << 18, &[i as u8; 1 << 18]));
    }
    done(&p.front.close(file));
    p.assert_equal();
}

#[test]
fn a_session_lost_before_the_commit_goes_on_alone_and_forgets_nothing() {
    let mut p = Pair::new();
    fs::write(p.tree("a").join("old"), "old").unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    p.begin(pair::FULL);
    wait(&p.from_leader, "ResyncThrough", |r| matches!(r, Report::ResyncThrough { .. }));
    let (file, created) = p.front.create(ROOT, b"f", 0o600);
    let written = p.front.write(file, 0, b"while everything is through");
    let synced = p.front.fsync(file);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    [created, written, synced].iter().for_each(done);
    assert!(matches!(p.leader.situation(), Some(Situation::Alone { resync: None, .. })));
    assert!(p.leader.counters().dirty_zones > 0, "it is in the map");
    p.forget_reports();
    let session = p.begin(Begin::Resync { full: false, quarantine: false });
    p.commit(session);
    p.assert_equal();
}

#[test]
fn a_session_lost_after_the_commit_was_sent_holds_and_an_unconfirmed_copy_cannot_be_resumed() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    wait(&p.from_leader, "ResyncThrough", |r| matches!(r, Report::ResyncThrough { .. }));
    p.leader.send_commit(session);
    wait(&p.from_follower, "CommitReceived", |r| matches!(r, Report::CommitReceived { .. }));
    let (_, created) = p.front.create(ROOT, b"f", 0o600);
    p.follower.stop();
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    assert!(matches!(p.leader.situation(), Some(Situation::Holding { .. })), "never back to alone (R6)");
    assert!(is_waiting(&created));
    p.begin(Begin::Resume);
    wait(&p.from_leader, "CannotResume", |r| matches!(r, Report::CannotResume { .. }));
    assert!(is_waiting(&created));
    let next = model::ids::Epoch { counter: pair::EPOCH.counter + 1, ..pair::EPOCH };
    p.leader.serve_alone(next, true).unwrap();
    done(&created);
}

#[test]
fn what_never_got_its_own_name_goes_before_the_follower_can_serve() {
    let mut p = Pair::new();
    p.mirror();
    let names: [&[u8]; 2] = [b".stead-arriving-00000000000010ab", b".stead-arriving-00000000000010ac"];
    for name in names {
        done(&p.front.create(ROOT, name, 0o600).1);
    }
    done(&p.front.rename(ROOT, names[0], ROOT, b"arrived"));
    p.follower.stop();
    let there = || names.map(|name| p.tree("b").join(std::str::from_utf8(name).unwrap()).exists());
    assert_eq!(there(), [false, true], "the session could be resumed");
    p.follower.forget();
    assert_eq!(there(), [false, false]);
    assert!(p.tree("b").join("arrived").exists());
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().expect("sh").success(), "{script}");
}

/// To the block, also in a zone that has data as well, and where the other copy had data.
#[test]
fn a_resync_gives_room_to_data_and_to_nothing_else() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let mut p = Pair::new();
    let (a, b) = (p.tree("a"), p.tree("b"));
    let make = |name: &str, data: &[u64]| {
        let file = fs::File::create(a.join(name)).unwrap();
        file.set_len(8 << 20).unwrap();
        data.iter().for_each(|at| file.write_all_at(&[7; 4096], *at).unwrap());
        file.sync_all().unwrap();
    };
    make("new", &[0, 20 << 10, (1 << 20) + (60 << 10), (4 << 20) + (4 << 10)]);
    make("changed", &[8 << 10]);
    fs::write(b.join("changed"), [1; 100_000]).unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    p.commit(session);
    p.assert_equal();
    for (name, data) in [("new", 4), ("changed", 1)] {
        let room = |tree: &std::path::Path| {
            let file = fs::File::open(tree.join(name)).unwrap();
            file.sync_all().unwrap();
            file.metadata().unwrap().blocks() * 512
        };
        assert_eq!((room(&a), room(&b)), (data * 4096, data * 4096), "{name}");
    }
}
