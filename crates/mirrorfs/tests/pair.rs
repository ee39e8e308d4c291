//! Two nodes on one machine: what the application was told is on both, whoever dies.

mod common;

use common::pair::{CHANGES, DATA, FULL, Mirror, Node, equal, join, pair, pair_with, port, session};
use common::play::play;
use common::{be_mirrorfs_if_asked, sh};
use model::orders::{AckPolicy, Begin, Order, Report, Situation};
use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

#[test]
fn what_is_written_while_mirrored_is_on_the_other_side_when_it_returns() {
    let (mut a, mut b) = pair(256);
    a.alone(1, true);
    fs::create_dir(a.bench.data().join("before")).expect("mkdir");
    fs::write(a.bench.data().join("before/f"), vec![7; 300_000]).expect("write");
    join(&mut a, &mut b, session(1, 1), FULL);
    equal("after the resync", &a, &b);
    for i in 0..200 {
        let name = format!("f{i}");
        fs::write(a.bench.data().join(&name), name.repeat(100)).expect("write");
        assert_eq!(fs::read(b.bench.lower().join(&name)).expect("there already"), name.repeat(100).as_bytes());
    }
    play(5, &a.bench.data().join("played"), &a.bench.path("lower/model"));
    equal("after random operations", &a, &b);
}

/// The test of the tests: a call that nobody answers fails with a story, and keeps no layer of them waiting.
#[test]
fn what_hangs_in_a_mirror_fails_in_its_time() {
    let mut mirror = Mirror::within(Duration::from_secs(1), 64, |_, _| {});
    mirror.b.agent.end();
    mirror.a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    // Nobody orders what is to become of it: it would wait for ever.
    let written = fs::write(mirror.a.bench.data().join("held"), "x");
    assert!(written.is_err() && mirror.is_late(), "{written:?}");
}

#[test]
fn a_full_resync_brings_over_whatever_a_tree_can_hold() {
    let (mut a, mut b) = pair(512);
    a.alone(1, true);
    play(6, &a.bench.data().join("before"), &a.bench.path("lower/model-before"));
    join(&mut a, &mut b, session(1, 1), FULL);
    equal("after a resync", &a, &b);
}

#[test]
fn a_target_joins_while_the_application_works_and_ends_up_equal() {
    let (mut a, mut b) = pair(512);
    a.alone(1, true);
    play(6, &a.bench.data().join("before"), &a.bench.path("lower/model-before"));
    let workers: Vec<_> = [7, 8]
        .map(|seed| {
            let (above, model) = (a.bench.data().join(format!("t{seed}")), a.bench.path(&format!("lower/model{seed}")));
            std::thread::spawn(move || play(seed, &above, &model))
        })
        .into();
    join(&mut a, &mut b, session(1, 1), FULL);
    assert!(workers.iter().any(|worker| !worker.is_finished()), "the work ended before the resync: make it longer");
    for worker in workers {
        worker.join().expect("the application saw a file system");
    }
    equal("after a resync under load", &a, &b);
}

#[test]
fn the_secondary_serves_what_was_acknowledged_when_the_primary_is_killed_and_takes_it_back_in() {
    let (mut a, mut b) = pair(128);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    let writer = sh_in_background(&format!(
        "i=0; while echo $i > {0}/f$i && echo $i >> {1}; do i=$((i+1)); done",
        a.bench.data().display(),
        a.bench.path("acknowledged").display()
    ));
    let acknowledged = |node: &Node| fs::read_to_string(node.bench.path("acknowledged")).unwrap_or_default();
    common::eventually("some writes", || acknowledged(&a).lines().count() > 200);
    a.agent.end();
    drop(writer);
    b.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    b.agent.reach(&Order::Idle);
    b.agent.reach(&Order::Sync { ticket: 1 });
    b.alone(2, false);
    for line in acknowledged(&a).lines() {
        assert_eq!(fs::read_to_string(b.bench.data().join(format!("f{line}"))).expect("acknowledged").trim(), line);
    }
    fs::write(b.bench.data().join("alone"), "on b").expect("write");
    a.restart();
    join(&mut b, &mut a, session(2, 2), FULL);
    equal("after the return of a", &b, &a);
    fs::write(b.bench.data().join("together"), "again").expect("write");
    equal("mirrored again", &b, &a);
}

/// Another machine took the peer's place, or this node's cluster gave the peer another address: the one that serves is told, and calls there.
#[test]
fn a_peer_that_is_elsewhere_now_is_called_there_by_who_serves_already() {
    let (mut a, mut b) = pair(128);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    b.agent.end();
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::Sync { ticket: 2 });
    a.alone(2, false);
    fs::write(a.bench.data().join("f"), "alone").expect("write");
    let there = vec![format!("127.0.0.1:{}", port())];
    b.configuration.listen_addrs.clone_from(&there);
    b.restart();
    a.configuration.peer_addrs = there;
    a.agent.reach(&Order::Configure { configuration: a.configuration.clone() });
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after the resync", &a, &b);
}

#[test]
fn a_cut_link_holds_until_the_order_and_the_changes_made_alone_are_brought_over() {
    let (mut a, mut b) = pair(128);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    fs::write(a.bench.data().join("f"), "one").expect("write");
    // The secondary leaves; the primary may not go on by itself.
    b.agent.reach(&Order::Idle);
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    let waiting = sh_in_background(&format!("echo two > {}/f", a.bench.data().display()));
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert!(waiting.is_running(), "a write was answered without the peer");
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::Sync { ticket: 3 });
    a.alone(2, false);
    assert!(waiting.ended_well(), "goes on alone");
    fs::write(a.bench.data().join("g"), "three").expect("write");
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after the resync of the changes", &a, &b);
}

#[test]
fn of_a_large_file_the_changed_blocks_are_sent_and_after_an_orderly_end_the_changed_zones_are_compared() {
    const MIB: u64 = 1 << 20;
    let (mut a, mut b) = pair(256);
    let file = |node: &Node| {
        fs::File::options().read(true).write(true).create(true).truncate(false).open(node.bench.data().join("large"))
    };
    a.alone(1, true);
    let content: Vec<u8> = (0..48 * MIB).map(|i| (i / 4096) as u8 | 1).collect();
    file(&a).expect("create").write_all_at(&content, 0).expect("write");
    join(&mut a, &mut b, session(1, 1), FULL);
    let go_alone = |a: &mut Node, b: &mut Node, counter: u64| {
        b.agent.reach(&Order::Idle);
        a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
        a.agent.reach(&Order::Hold);
        a.agent.reach(&Order::Sync { ticket: counter });
        a.alone(counter, false);
    };
    let scatter = |a: &Node, byte: u8| {
        let file = file(a).expect("open");
        for i in 0..200u64 {
            file.write_all_at(&[byte; 4096], (i * 53 % 11_000) * 4096).expect("write");
        }
        // A zone as a whole, bytes across the edge of two blocks, a hole, and an end.
        file.write_all_at(&[byte; 65_536], 44 * MIB).expect("write");
        file.write_all_at(&[byte; 20], 45 * MIB - 10).expect("write");
        sh(&format!("fallocate -p -o {} -l 8192 {}", 46 * MIB + 4096, a.bench.data().join("large").display()));
    };

    go_alone(&mut a, &mut b, 2);
    scatter(&a, 0xa1);
    let progress = join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after the changed blocks", &a, &b);
    let changed = 200 * 4096 + 65_536 + 2 * 4096;
    assert!((changed - 8_192..=changed + 65_536).contains(&progress.bytes_sent), "{progress:?}, changed {changed}");
    assert!(progress.bytes_compared <= 3 * 65_536, "{progress:?}");

    // The next process knows what the one before it ended with.
    go_alone(&mut a, &mut b, 3);
    scatter(&a, 0xa2);
    file(&a).expect("open").set_len(47 * MIB + 5).expect("truncate");
    a.agent.reach(&Order::Fence);
    a.restart();
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::ServeAlone { epoch: common::epoch(3), data_id: DATA, stamp: false, fresh_map: false });
    let progress = join(&mut a, &mut b, session(3, 3), CHANGES);
    equal("after an orderly end", &a, &b);
    let zones = 206 * 65_536 + MIB;
    assert!(progress.bytes_compared <= zones && progress.bytes_sent <= zones, "{progress:?}");

    // Of one that was killed only the extents.
    go_alone(&mut a, &mut b, 4);
    file(&a).expect("open").write_all_at(b"in one extent", 9 * MIB).expect("write");
    a.restart();
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::ServeAlone { epoch: common::epoch(4), data_id: DATA, stamp: false, fresh_map: false });
    let progress = join(&mut a, &mut b, session(4, 4), CHANGES);
    equal("after a kill", &a, &b);
    assert!(progress.bytes_compared <= 8 * MIB && progress.bytes_sent <= 65_536, "{progress:?}");
}

#[test]
fn an_agent_that_comes_later_is_told_that_the_link_stands() {
    let (mut a, mut b) = pair(64);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    let (socket, here) = (b.bench.path("socket"), session(1, 1));
    b.agent.follow(&socket);
    assert!(
        matches!(b.agent.adopted, Report::Adopted { situation: Situation::Following { session, complete: true }, .. } if session == here),
        "{:?}",
        b.agent.adopted
    );
    b.agent.wait("the link stands", |r| matches!(r, Report::LinkUp { session } if *session == here));
    a.agent.kill();
    b.agent.wait("it is lost", |r| matches!(r, Report::LinkLost { .. }));
    b.agent.follow(&socket);
    b.agent.reach(&Order::Idle);
    assert!(!b.agent.has_seen(|r| matches!(r, Report::LinkUp { .. })), "a link that is lost is not told");
}

#[test]
fn a_session_resumes_after_a_short_cut_and_the_application_only_waits() {
    let (mut a, mut b) = pair(128);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    b.agent.reach(&Order::Idle);
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    let waiting = sh_in_background(&format!("echo two > {0}/f && sync {0}/f", a.bench.data().display()));
    a.agent.reach(&Order::Hold);
    b.agent.reach(&Order::Follow { session: session(1, 2), begin: Begin::Resume, data_id: DATA, lost: None });
    a.agent.order(&Order::Lead { session: session(1, 2), begin: Begin::Resume });
    let mirrored = |r: &Report| matches!(r, Report::Reached { situation: Situation::Mirrored { .. } });
    a.agent.wait("mirrored again", mirrored);
    assert!(waiting.ended_well());
    equal("after the resumption", &a, &b);
}

#[test]
fn postgresql_is_the_same_on_both_sides() {
    let (mut a, mut b) = pair(512);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    let (h, d) = (a.bench.path("").display().to_string(), a.bench.data().display().to_string());
    let bin = "/usr/lib/postgresql/15/bin";
    let user = "setpriv --reuid postgres --regid postgres --init-groups env -C / LC_ALL=C.UTF-8";
    let pg = |command: &str| {
        sh(&format!("{user} {bin}/{command} >> {h}/run/out 2>&1 || {{ tail -20 {h}/run/* >&2; exit 1; }}"))
    };
    sh(&format!("chmod 755 {h} {h}/disk; mkdir {h}/run; chown postgres {h}/run; mkdir {d}/pg; chown postgres {d}/pg"));
    let _ended = common::AtEnd(format!("{user} {bin}/pg_ctl -D {d}/pg -m immediate -w stop"));
    pg(&format!("initdb -k -D {d}/pg"));
    pg(&format!(
        "pg_ctl -D {d}/pg -w -t 60 -l {h}/run/log -o '-k {h}/run -c listen_addresses= -c shared_buffers=32MB' start"
    ));
    pg(&format!("pgbench -h {h}/run -i -s 1 postgres"));
    pg(&format!("pgbench -h {h}/run -c 4 -j 2 -t 100 postgres"));
    pg(&format!("pg_ctl -D {d}/pg -m fast -w stop"));
    equal("after pgbench", &a, &b);
}

/// A shell in the background, ended with the test.
struct Background(std::cell::RefCell<std::process::Child>);

fn sh_in_background(command: &str) -> Background {
    let child = std::process::Command::new("sh").arg("-c").arg(command).stderr(std::process::Stdio::null()).spawn();
    Background(child.expect("sh").into())
}

impl Background {
    fn is_running(&self) -> bool {
        self.0.borrow_mut().try_wait().expect("wait").is_none()
    }
    fn ended_well(&self) -> bool {
        common::eventually("the application goes on", || !self.is_running());
        self.0.borrow_mut().wait().expect("wait").success()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Not waited for: it may be in a request that only the end of mirrorfs answers.
        let _ = self.0.get_mut().kill();
    }
}

/// Ends both in good order, without their covers: what a machine that boots without us does.
fn stop_bare(nodes: [&mut Node; 2]) {
    for node in nodes {
        node.agent.order(&Order::Stop);
        assert!(node.agent.child.wait().expect("wait").success());
        // The agent's last word: its record of a clean stop.
        fs::write(node.bench.path("state.a"), "").expect("write");
        mirrorfs::cover::uncover(&node.bench.data()).expect("uncover");
    }
}

#[test]
fn what_was_changed_while_the_module_was_stopped_and_bare_is_found_and_nothing_else_is_compared() {
    let (mut a, mut b) = pair(256);
    a.alone(1, true);
    let (d, of_b) = (a.bench.data(), b.bench.data());
    let make = "mkdir -p same/many one/x two/x base/deep; echo 1 > one/f; echo 2 > two/f; seq 9 > base/f; seq 9 > gone; \
        dd if=/dev/urandom of=same/big bs=1M count=32 2>/dev/null; \
        i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo $i > same/many/$i; done; sync";
    sh(&format!("cd {} && {make}", d.display()));
    join(&mut a, &mut b, session(1, 1), FULL);
    stop_bare([&mut a, &mut b]);
    // With the size and the time that it had; two directories that change places, one with a change inside; a link.
    let change = "touch -r base/f stamp; printf X | dd of=base/f bs=1 seek=2 conv=notrunc 2>/dev/null; touch -r stamp base/f; \
        rm stamp gone; mv one t; mv two one; mv t two; touch two/new; ln base/f base/deep/g; chmod 600 two/f; mkfifo p";
    sh(&format!("cd {} && {change}", d.display()));
    sh(&format!("cd {} && echo there >> same/many/7; rm same/many/8; mkdir -p base/deep/er", of_b.display()));
    for node in [&mut a, &mut b] {
        node.restart();
    }
    a.alone(2, false);
    let progress = join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after both were changed", &a, &b);
    assert!(progress.bytes_compared < 1 << 20, "{progress:?}");
    assert_eq!(fs::read_to_string(b.bench.lower().join("same/many/7")).expect("read"), "7\n");
    assert!(!b.bench.path("state/bare").exists() && !a.bench.path("state/bare").exists(), "it was looked once");
    // With their covers on, nothing is looked for.
    for node in [&mut a, &mut b] {
        node.agent.order(&Order::Stop);
        assert!(node.agent.child.wait().expect("wait").success());
        node.restart();
        assert!(!node.bench.path("state/bare").exists());
    }
}

#[test]
fn more_changes_than_can_be_told_one_by_one_have_everything_compared() {
    let (mut a, mut b) = pair(256);
    a.alone(1, true);
    fs::create_dir(a.bench.data().join("many")).expect("mkdir");
    join(&mut a, &mut b, session(1, 1), FULL);
    stop_bare([&mut a, &mut b]);
    let many = |node: &Node| {
        (0..12_000).for_each(|i| fs::write(node.bench.data().join(format!("many/{i}")), "x").expect("write"))
    };
    many(&a);
    sh(&format!("echo other > {}/f", b.bench.data().display()));
    for node in [&mut a, &mut b] {
        node.restart();
    }
    a.alone(2, false);
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after everything was compared", &a, &b);
}

#[test]
fn a_copy_that_was_seeded_from_a_backup_gets_only_what_differs() {
    let (mut a, mut b) = pair(256);
    a.alone(1, true);
    let make = "mkdir -p d/many; dd if=/dev/urandom of=d/big bs=1M count=48 2>/dev/null; \
        i=0; while [ $i -lt 300 ]; do i=$((i+1)); seq $i > d/many/$i; done";
    sh(&format!("cd {} && {make}", a.bench.data().display()));
    // The backup: what every such program keeps; then time goes on at the source.
    sh(&format!("tar -C {} -cf - . | tar -C {} -xpf -", a.bench.lower().display(), b.bench.lower().display()));
    let since = "for at in 3 17 40; do dd if=/dev/urandom of=d/big bs=64k seek=$((at * 16)) count=1 conv=notrunc 2>/dev/null; done; \
        echo new > d/new; rm d/many/5; seq 400 > d/many/6";
    sh(&format!("cd {} && {since}", a.bench.data().display()));
    let progress = join(&mut a, &mut b, session(1, 1), FULL);
    equal("after the resync", &a, &b);
    assert!(progress.bytes_compared >= 48 << 20, "{progress:?}");
    assert!(progress.bytes_sent <= 3 * 65_536 + 65_536, "{progress:?}");
}

#[test]
fn what_fails_on_a_full_disk_of_the_primary_leaves_equal_trees() {
    let (mut a, mut b) = pair(64);
    a.alone(1, true);
    std::fs::write(a.bench.data().join("full"), vec![7; 100_000]).expect("write");
    std::fs::write(a.bench.data().join("source"), vec![8; 100_000]).expect("write");
    join(&mut a, &mut b, session(1, 1), FULL);
    equal("before", &a, &b);
    // Beside the replicated directory: the peer's disk has room.
    // Again after each sync: what ext4 sets aside for blocks that it has not placed yet is free again when it has.
    sh(&format!(
        "cd {}/disk && mkdir filler && for n in $(seq 20); do dd if=/dev/zero of=filler/$n bs=4k status=none 2>/dev/null || true; sync -f .; [ -s filler/$n ] || exit 0; done; exit 1",
        a.bench.path("").display()
    ));
    let open =
        |name: &str| std::fs::File::options().read(true).write(true).open(a.bench.data().join(name)).expect("open");
    let (file, source) = (open("full"), open("source"));
    let no_space = |result: Result<(), rustix::io::Errno>| assert_eq!(result, Err(rustix::io::Errno::NOSPC));
    no_space(rustix::io::pwrite(&file, &[9; 4096], 1 << 20).map(drop));
    let mode = rustix::fs::FallocateFlags::KEEP_SIZE;
    no_space(rustix::fs::fallocate(&file, mode, 2 << 20, 1 << 20));
    let mut to = 3 << 20;
    no_space(rustix::fs::copy_file_range(&source, None, &file, Some(&mut to), 4096).map(drop));
    // Into mapped memory, over a hole: nobody sees for long what is on no disk.
    let holes = open("source");
    holes.set_len(1 << 20).expect("truncate");
    common::store_mapped(&holes, 512 << 10, b"on no disk");
    no_space(rustix::fs::fsync(&holes));
    common::eventually("the pages are dropped", || {
        let mut seen = [1; 10];
        holes.read_exact_at(&mut seen, 512 << 10).is_ok() && seen == [0; 10]
    });
    std::fs::remove_dir_all(a.bench.path("disk/filler")).expect("unlink");
    // In the stream behind whatever they told.
    file.sync_all().expect("fsync");
    equal("after", &a, &b);
}

#[test]
fn privileges_of_a_program_survive_every_way_its_content_takes() {
    /// `VFS_CAP_REVISION_2`, effective; `CAP_NET_BIND_SERVICE`.
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let give = |file: &fs::File| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(file, "security.capability", &CAPABILITY, flags).expect("setxattr");
    };
    let (mut a, mut b) = pair(64);
    a.alone(1, true);
    for name in ["compared", "known"] {
        fs::write(a.bench.data().join(name), vec![7; 3 << 20]).expect("write");
    }
    join(&mut a, &mut b, session(1, 1), FULL);
    // Without a name until it is whole.
    let nameless =
        fs::File::options().write(true).custom_flags(libc::O_TMPFILE).open(a.bench.data()).expect("O_TMPFILE");
    nameless.write_all_at(&[8; 100_000], 0).expect("write");
    give(&nameless);
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&nameless));
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(rustix::fs::CWD, from, rustix::fs::CWD, a.bench.data().join("program"), follow).expect("linkat");
    nameless.sync_all().expect("fsync");
    equal("a nameless file", &a, &b);

    part(&mut a, &mut b, 2);
    for name in ["compared", "known"] {
        let file = fs::File::options().write(true).open(a.bench.data().join(name)).expect("open");
        give(&file);
        file.write_all_at(&[9; 4096], 1 << 20).expect("write");
        give(&file);
    }
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("what the map named", &a, &b);

    // Compared byte by byte.
    let file = fs::File::options().write(true).open(b.bench.lower().join("compared")).expect("open");
    file.write_all_at(&[1; 4096], 2 << 20).expect("write");
    give(&file);
    drop(file);
    part(&mut a, &mut b, 3);
    join(&mut a, &mut b, session(3, 3), FULL);
    equal("blocks that differed", &a, &b);
}

#[test]
fn with_ack_commit_a_write_around_the_cache_waits_for_the_peer_and_others_do_not() {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let (mut a, mut b) = pair_with(64, |_, configuration| configuration.ack = AckPolicy::Commit);
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    let open = |name: &str, flags| {
        let mut options = fs::File::options();
        options.create(true).write(true).custom_flags(flags).open(a.bench.data().join(name)).expect("open")
    };
    let (direct, buffered) = (open("direct", libc::O_DIRECT), open("buffered", 0));
    // Both are hot, and known there.
    direct.write_all_at(&Page([1; 4096]).0, 0).expect("an O_DIRECT write");
    buffered.write_all_at(&[2; 4096], 0).expect("a write");
    // The peer gets nothing done from here on.
    let peer = rustix::process::Pid::from_raw(b.agent.group()).expect("a process group");
    rustix::process::kill_process_group(peer, rustix::process::Signal::STOP).expect("SIGSTOP");
    // A thread that runs on another processor stops when it gets there.
    common::eventually("every thread of the peer has stopped", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", b.agent.group())).expect("it is there");
        let stats = tasks.flatten().map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
        stats.into_iter().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    });
    let (begun, begins) = std::sync::mpsc::channel();
    let around = std::thread::spawn(move || {
        begun.send(()).expect("somebody waits");
        direct.write_all_at(&Page([7; 4096]).0, 0).expect("an O_DIRECT write");
        std::time::Instant::now()
    });
    begins.recv().expect("it begins");
    for block in 0..200 {
        buffered.write_all_at(&[8; 4096], block * 4096).expect("a write");
    }
    let goes_on = std::time::Instant::now();
    rustix::process::kill_process_group(peer, rustix::process::Signal::CONT).expect("SIGCONT");
    assert!(around.join().expect("it ends") >= goes_on, "it was answered while the peer did nothing");
    buffered.sync_all().expect("fsync");
    equal("after", &a, &b);
}

/// The secondary leaves, and the primary goes on alone.
fn part(a: &mut Node, b: &mut Node, counter: u64) {
    b.agent.reach(&Order::Idle);
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::Sync { ticket: counter });
    a.alone(counter, false);
}

#[test]
fn what_only_got_another_name_is_not_sent() {
    let (mut a, mut b) = pair(256);
    a.alone(1, true);
    let at = |node: &Node| node.bench.data();
    let file = "dd if=/dev/urandom bs=1M 2>/dev/null";
    let make = format!(
        "mkdir -p spool/new spool/cur tree/deep/er other; for n in 1 2 3; do {file} count=2 > log.$n; done; {file} count=2 > log; \
         {file} count=3 > tree/deep/er/file; {file} count=1 > tree/f; {file} count=1 > other/f; {file} count=1 > twice; {file} count=2 > out; \
         for n in $(seq 20); do {file} count=1 iflag=fullblock > spool/new/$n; done; ln log.3 linked"
    );
    sh(&format!("cd {} && {make}", at(&a).display()));
    join(&mut a, &mut b, session(1, 1), FULL);
    part(&mut a, &mut b, 2);
    // Logs that are rotated (the last one is lost, a new one begins), mail that is read, a directory that moves into one that was not there, with
    // a change inside and something taken out of it before, a file that moves twice, one that is overwritten by a rename.
    let change = "mv log.2 log.3; mv log.1 log.2; mv log log.1; echo new > log; for n in $(seq 20); do mv spool/new/$n spool/cur/$n:2,S; done; \
        mkdir -p archive/2026; mv tree/f f; mv tree archive/2026/tree; mv f archive/2026/tree/g; printf X | dd of=archive/2026/tree/deep/er/file bs=1 seek=70000 conv=notrunc 2>/dev/null; \
        mv twice once; mv once archive/twice; mv out other/f; mv archive/2026/tree/deep archive/2026/tree/low; mkdir tree";
    sh(&format!("cd {} && {change}", at(&a).display()));
    let inode = |node: &Node, name: &str| {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(node.bench.lower().join(name)).expect("stat"))
    };
    let before = [inode(&b, "log.1"), inode(&b, "spool/new/7"), inode(&b, "tree/deep")];
    let progress = join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after the moves", &a, &b);
    assert!(progress.bytes_sent < 200_000, "{progress:?}");
    let after = [inode(&b, "log.2"), inode(&b, "spool/cur/7:2,S"), inode(&b, "archive/2026/tree/low")];
    assert_eq!(before, after, "the same files as before");

    // Once more, and the process that knew it is killed: it is on the disk.
    part(&mut a, &mut b, 3);
    sh(&format!("cd {} && mv archive/2026 2026 && mv spool/cur mail && mv 2026/tree/g mail/", at(&a).display()));
    a.restart();
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::ServeAlone { epoch: common::epoch(3), data_id: DATA, stamp: false, fresh_map: false });
    let progress = join(&mut a, &mut b, session(3, 3), CHANGES);
    equal("after a kill", &a, &b);
    assert!(progress.bytes_sent < 200_000, "{progress:?}");

    // Two that change places go round in a circle, and a link is no move: sent, and right.
    part(&mut a, &mut b, 4);
    sh(&format!(
        "cd {} && mv log.1 t && mv log.2 log.1 && mv t log.2 && mv linked mail/l && mv mail/1:2,S mail/one",
        at(&a).display()
    ));
    join(&mut a, &mut b, session(4, 4), CHANGES);
    equal("after a circle", &a, &b);
}
