//! Names that stay local: they are nobody else's business, and a rename across that edge makes or removes, whole.

mod common;

use common::pair::{CHANGES, FULL, Node, join, pair_with, session};
use common::{be_mirrorfs_if_asked, sh};
use model::orders::{Order, Report};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// Both nodes leave out `local` and every name that ends in `.tmp`.
fn pair() -> (Node, Node) {
    pair_with(256, |_, configuration| {
        configuration.dirs[0].notreplicated = vec!["local".into()];
        configuration.dirs[0].notreplicated_names = vec![r"\.tmp$".into()];
    })
}

fn joined() -> (Node, Node) {
    let (mut a, mut b) = pair();
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    (a, b)
}

/// What differs among the replicated names.
#[track_caller]
fn equal(what: &str, a: &Node, b: &Node) {
    let found = mirrorfs::tree_diff(&a.bench.lower(), &b.bench.lower()).expect("both trees can be read");
    let found: Vec<_> = found.iter().filter(|f| !f.contains(".tmp") && !f.contains("local")).collect();
    assert!(found.is_empty(), "{what}: {found:#?}");
}

/// What is answered is there: nobody went on alone, nobody holds.
#[track_caller]
fn still_mirrored(a: &Node, b: &Node) {
    fs::write(a.bench.data().join("sign"), "of life").expect("write");
    assert_eq!(fs::read(b.bench.lower().join("sign")).expect("there already"), b"of life");
    fs::remove_file(a.bench.data().join("sign")).expect("remove");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).expect("readable").map(|e| e.expect("entry").file_name().to_string_lossy().into()).collect();
    names.sort();
    names
}

fn exdev(result: std::io::Result<()>) {
    assert_eq!(result.expect_err("across the edge").raw_os_error(), Some(libc::EXDEV));
}

fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[test]
fn a_file_that_is_renamed_across_the_edge_is_made_or_goes_there() {
    let (a, b) = joined();
    let (d, there) = (a.bench.data(), b.bench.lower());
    fs::create_dir(d.join("dir")).expect("mkdir");
    // A hidden name comes and goes; its directory's time is the same on both.
    fs::write(d.join("dir/x.tmp"), "first").expect("write");
    fs::set_permissions(d.join("dir/x.tmp"), fs::Permissions::from_mode(0o4750)).expect("chmod");
    sh(&format!(
        "setfattr -n user.k -v v {0}; ln -s x {1}",
        d.join("dir/x.tmp").display(),
        d.join("dir/l.tmp").display()
    ));
    assert!(names(&there.join("dir")).is_empty());
    // What stays here is answered at once, and its directory's time is on its way: what is answered after it comes after it.
    still_mirrored(&a, &b);
    equal("hidden", &a, &b);
    // It arrives; what is written through a descriptor from before is replicated from here on.
    let mut open = File::options().append(true).open(d.join("dir/x.tmp")).expect("open");
    fs::rename(d.join("dir/x.tmp"), d.join("dir/x")).expect("arrive");
    fs::rename(d.join("dir/l.tmp"), d.join("dir/l")).expect("arrive");
    assert_eq!(fs::read(there.join("dir/x")).expect("whole"), b"first");
    assert_eq!(fs::metadata(there.join("dir/x")).expect("stat").mode() & 0o7777, 0o4750);
    open.write_all(b" and more").expect("write");
    equal("arrived", &a, &b);
    // Over one that is there, with holes; to another directory.
    sh(&format!("truncate -s 3M {0}; printf end >> {0}", d.join("y.tmp").display()));
    fs::rename(d.join("y.tmp"), d.join("dir/x")).expect("replace");
    assert!(fs::metadata(there.join("dir/x")).expect("stat").blocks() < 100, "sparse there as well");
    equal("replaced", &a, &b);
    // It leaves, over a hidden one; what is written then stays here; and it comes back as it is by then.
    let mut open = File::options().append(true).open(d.join("dir/x")).expect("open");
    fs::write(d.join("z.tmp"), "old").expect("write");
    fs::rename(d.join("dir/x"), d.join("z.tmp")).expect("leave");
    open.write_all(b", later").expect("write");
    assert_eq!(names(&there.join("dir")), ["l"]);
    assert_eq!(names(&there), ["dir"]);
    equal("left", &a, &b);
    fs::rename(d.join("z.tmp"), d.join("dir/back")).expect("arrive again");
    assert!(fs::read(there.join("dir/back")).expect("read").ends_with(b"end, later"));
    equal("back", &a, &b);
    // Nameless files get names on either side.
    for (dir, name) in [("dir", "dir/n.tmp"), ("local", "shown")] {
        let _ = fs::create_dir(d.join("local"));
        let file = rustix::fs::open(d.join(dir), rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR, 0o600.into());
        let file = File::from(file.expect("O_TMPFILE"));
        (&file).write_all(b"nameless").expect("write");
        sh(&format!(
            "ln -L /proc/{}/fd/{} {}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&file),
            d.join(name).display()
        ));
    }
    assert_eq!(fs::read(there.join("shown")).expect("read"), b"nameless");
    assert!(!there.join("dir/n.tmp").exists());
    equal("named", &a, &b);
    // What would have to be both, or to swap sides, is refused.
    fs::write(d.join("dir/one"), "1").expect("write");
    fs::hard_link(d.join("dir/one"), d.join("dir/two")).expect("link");
    exdev(fs::rename(d.join("dir/one"), d.join("one.tmp")));
    exdev(fs::hard_link(d.join("dir/one"), d.join("one.tmp")));
    exdev(exchange(&d.join("dir/n.tmp"), &d.join("shown")));
    equal("refused", &a, &b);
    still_mirrored(&a, &b);
}

#[test]
fn a_directory_crosses_with_all_that_is_below_it() {
    let (a, b) = joined();
    let (d, there) = (a.bench.data(), b.bench.lower());
    let tree = "mkdir -p local/t/sub/deep local/t/empty; echo f > local/t/sub/f; ln local/t/sub/f local/t/sub/deep/g; \
        ln -s nowhere local/t/l; mkfifo local/t/p; echo no > local/t/sub/h.tmp; chmod 2770 local/t/sub; \
        truncate -s 1M local/t/sub/deep/holes; setfattr -n user.k -v v local/t/empty; touch -d 2001-01-01 local/t/sub";
    sh(&format!("cd {} && {tree}", d.display()));
    let mut open = File::options().append(true).open(d.join("local/t/sub/f")).expect("open");
    fs::rename(d.join("local/t"), d.join("t")).expect("arrive");
    assert_eq!(names(&there), ["t"]);
    assert_eq!(names(&there.join("t/sub")), ["deep", "f"], "hidden ones stay");
    equal("arrived", &a, &b);
    open.write_all(b"more").expect("write");
    sh(&format!("cd {}/t && echo new > sub/deep/new && mv sub/f sub/e && chmod 700 empty && rm l", d.display()));
    equal("and changed", &a, &b);
    fs::rename(d.join("t"), d.join("local/back")).expect("leave");
    open.write_all(b"even more").expect("write");
    fs::write(d.join("local/back/sub/own"), "x").expect("write");
    assert!(names(&there).is_empty());
    equal("left", &a, &b);
    fs::rename(d.join("local/back"), d.join("t.d")).expect("arrive again");
    equal("back", &a, &b);
    // A file with a name inside and one outside keeps its directory where it is; so does a large one.
    fs::hard_link(d.join("t.d/sub/e"), d.join("outside")).expect("link");
    exdev(fs::rename(d.join("t.d"), d.join("local/t")));
    fs::create_dir(d.join("local/many")).expect("mkdir");
    (0..10_001).for_each(|i| drop(File::create(d.join(format!("local/many/{i}"))).expect("create")));
    exdev(fs::rename(d.join("local/many"), d.join("many")));
    equal("refused", &a, &b);
    still_mirrored(&a, &b);
}

#[test]
fn the_other_node_shows_the_old_file_or_the_new_one_and_nothing_between() {
    let (a, b) = joined();
    let (d, there) = (a.bench.data(), b.bench.lower().join("f"));
    let sizes = [3_000_000, 40_000_000];
    fs::write(d.join("f"), vec![1; sizes[0]]).expect("write");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let seen = fs::metadata(&there).expect("always there").len() as usize;
                assert!(sizes.contains(&seen), "{seen} bytes");
            }
        });
        for round in 0..6 {
            fs::write(d.join("f.tmp"), vec![2; sizes[(round + 1) % 2]]).expect("write");
            fs::rename(d.join("f.tmp"), d.join("f")).expect("replace");
        }
        over.store(true, Ordering::Relaxed);
    });
    equal("after", &a, &b);
    assert_eq!(names(&b.bench.lower()), ["f"]);
    still_mirrored(&a, &b);
}

#[test]
fn what_the_other_node_keeps_for_itself_survives_everything_but_the_end_of_its_directory() {
    let (mut a, mut b) = joined();
    let d = a.bench.data();
    // Behind every cover, and without a trace in the time of a directory that is replicated.
    let own = |b: &Node, at: &str| {
        let path: PathBuf = b.bench.lower().join(at);
        let shown =
            b.bench.lower().join(at.split_once('/').map_or("", |(dir, _)| if dir == "local" { "" } else { dir }));
        let stamp = b.bench.path("stamp").display().to_string();
        sh(&format!("touch -r {} {stamp}", shown.display()));
        fs::create_dir_all(path.parent().expect("below")).expect("mkdir");
        fs::write(path, "b's own").expect("write");
        sh(&format!("touch -r {stamp} {}", shown.display()));
    };
    for dir in ["d", "e", "f", "g"] {
        fs::create_dir(d.join(dir)).expect("mkdir");
    }
    own(&b, "local/kept");
    own(&b, "top.tmp");
    own(&b, "d/own.tmp");
    own(&b, "e/own.tmp/below");
    own(&b, "g/own.tmp");
    fs::remove_dir(d.join("d")).expect("empty here");
    fs::rename(d.join("f"), d.join("e")).expect("over an empty one");
    fs::rename(d.join("g"), d.join("h")).expect("rename");
    still_mirrored(&a, &b);
    assert_eq!(names(&b.bench.lower()), ["e", "h", "local", "top.tmp"]);
    assert_eq!(names(&b.bench.lower().join("h")), ["own.tmp"], "it moves along");
    assert!(names(&b.bench.lower().join("e")).is_empty());
    // Alone, across the edge in both directions; then a resync of changes, and a full one.
    let tear = |a: &mut Node, b: &mut Node, counter| {
        b.agent.reach(&Order::Idle);
        a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
        a.alone(counter, false);
    };
    tear(&mut a, &mut b, 2);
    let work = "mkdir -p local/in/sub out/sub; echo 1 > local/in/sub/f; echo 2 > out/sub/f; echo 3 > a.tmp; echo 4 > b";
    sh(&format!(
        "cd {} && {work} && mv local/in in && mv out local/ && mv a.tmp a && mv b b.tmp && mkdir i",
        d.display()
    ));
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after a resync of changes", &a, &b);
    assert_eq!(names(&b.bench.lower()), ["a", "e", "h", "i", "in", "local", "top.tmp"]);
    tear(&mut a, &mut b, 3);
    sh(&format!("cd {} && mv a a.tmp && mv local/out out", d.display()));
    join(&mut a, &mut b, session(3, 3), FULL);
    equal("after a full resync", &a, &b);
    assert_eq!(names(&b.bench.lower()), ["e", "h", "i", "in", "local", "out", "top.tmp"]);
    assert_eq!(fs::read(b.bench.lower().join("local/kept")).expect("read"), b"b's own");
    // The other node serves: what it has is its own.
    a.agent.reach(&Order::Idle);
    b.agent.wait("the leader is gone", |r| matches!(r, Report::LinkLost { .. }));
    b.agent.reach(&Order::ServeAlone {
        epoch: common::epoch(4),
        data_id: common::pair::DATA,
        stamp: false,
        fresh_map: true,
    });
    assert_eq!(fs::read(b.bench.data().join("top.tmp")).expect("read"), b"b's own");
    assert!(!b.bench.data().join("a.tmp").exists());
}

#[test]
fn a_file_with_a_name_on_each_side_from_before_is_replicated_by_all_of_them() {
    let (mut a, mut b) = pair();
    for dir in ["local", "d"] {
        fs::create_dir(a.bench.lower().join(dir)).expect("mkdir");
    }
    fs::write(a.bench.lower().join("d/f"), "begin").expect("write");
    fs::hard_link(a.bench.lower().join("d/f"), a.bench.lower().join("local/f")).expect("link");
    a.alone(1, true);
    join(&mut a, &mut b, session(1, 1), FULL);
    // By the hidden name, before anybody asked for the other one.
    let mut open = File::options().append(true).open(a.bench.data().join("local/f")).expect("open");
    open.write_all(b" and end").expect("write");
    assert_eq!(fs::read(b.bench.lower().join("d/f")).expect("read"), b"begin and end");
    let found = mirrorfs::tree_diff(&a.bench.lower(), &b.bench.lower()).expect("both trees can be read");
    assert!(found.iter().all(|f| f.contains("local") || f.contains("2 and 1 names")), "{found:#?}");
    still_mirrored(&a, &b);
}
