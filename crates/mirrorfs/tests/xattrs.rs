//! Extended attributes and ACLs: each node stores them in its own way, and both show the same.

mod common;

use common::pair::{CHANGES, FULL, Node, equal, join, pair_with, session};
use common::{be_mirrorfs_if_asked, sh};
use model::orders::{Order, Report};
use rustix::fs::{AtFlags, CWD, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// Names that end in `.tmp` stay local.
fn pair() -> (Node, Node) {
    let (mut a, b) = pair_with(64, |_, configuration| {
        configuration.dirs[0].notreplicated_names = vec![r"\.tmp$".into()];
    });
    a.alone(1, true);
    (a, b)
}

/// In this order, each as long as that.
fn set(path: impl AsRef<Path>, list: &[(&str, usize)]) -> Result<(), Errno> {
    let path = path.as_ref();
    list.iter().try_for_each(|(name, length)| {
        rustix::fs::setxattr(path, format!("user.{name}"), &vec![b'x'; *length], XattrFlags::empty())
    })
}

fn nameless(dir: &Path) -> File {
    File::options().read(true).write(true).mode(0o640).custom_flags(libc::O_TMPFILE).open(dir).expect("O_TMPFILE")
}

fn link(file: &File, to: &Path) {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW).expect("linkat");
}

/// ext4 has room for 4 KiB of them, and what little there is in the inode for one that came early.
#[test]
fn extended_attributes_that_fit_on_one_node_fit_on_the_other_in_whatever_order_they_come() {
    const FITS: [(&str, usize); 3] = [("q", 64), ("y", 3976), ("p", 36)];
    let (mut a, mut b) = pair();
    let d = a.bench.data();
    let new = |name: &str| {
        fs::write(d.join(name), name).expect("write");
        d.join(name)
    };
    set(new("packed"), &FITS).expect("they fit in this order");
    assert_eq!(set(new("sorted"), &[FITS[2], FITS[0], FITS[1]]), Err(Errno::NOSPC), "and not in that one");
    set(new("grows"), &[("a", 5), ("b", 3000)]).expect("room");
    set(new("shrinks"), &[("a", 3000), ("b", 5)]).expect("room");
    set(new("gone"), &[("b", 3000)]).expect("room");
    join(&mut a, &mut b, session(1, 1), FULL);
    equal("a full resync", &a, &b);

    let file = nameless(&d);
    set(format!("/proc/self/fd/{}", file.as_raw_fd()), &FITS).expect("they fit");
    link(&file, &d.join("named"));
    equal("a first name", &a, &b);

    b.agent.reach(&Order::Idle);
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::Sync { ticket: 2 });
    a.alone(2, false);
    set(d.join("grows"), &[("b", 5), ("a", 3000)]).expect("room");
    set(d.join("shrinks"), &[("a", 5), ("b", 3000)]).expect("room");
    rustix::fs::removexattr(d.join("gone"), "user.b").expect("removexattr");
    set(d.join("gone"), &[("a", 3000)]).expect("room");
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("a resync of changes", &a, &b);
}

/// A directory with a default ACL gives it to what is made in it, and to nothing that comes from elsewhere.
#[test]
fn what_comes_into_a_directory_with_a_default_acl_has_the_same_acls_on_both_nodes() {
    let (mut a, mut b) = pair();
    join(&mut a, &mut b, session(1, 1), FULL);
    let d = a.bench.data();
    let run = |script: &str| sh(&format!("cd {}; umask 027; {script}", d.display()));
    run("mkdir in set from; setfacl -d -m u:1000:rwx,g:70:r-x in; chgrp 70 set; chmod 2775 set; \
        setfacl -d -m u::rwx,g::r-x,o::- set");

    run(
        "for to in in set; do cd $to; echo x > file; mkdir -m 700 dir; mkdir dir/below; mkfifo fifo; mknod null c 1 3; \
        ln -s file symlink; ln file link; cd ..; done",
    );
    assert!(run("getfacl -cnpE in/file in/dir/below in/fifo").matches("user:1000:rwx").count() >= 4);
    equal("made there", &a, &b);

    run("cd from; echo x > file; mkdir dir; echo x > dir/file; ln file other; \
        mv file dir ../in/dir; mv other ../set; mkdir dir; setfacl -d -m u:1001:r dir; mv dir ../in/dir/own");
    equal("renamed and linked", &a, &b);

    for (name, acl) in [("none", None), ("own", Some("u:1002:rw")), ("mode", Some("u::rw,g::-,o::-"))] {
        let file = nameless(&d.join("from"));
        if let Some(acl) = acl {
            sh(&format!("setfacl -m {acl} /proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        }
        link(&file, &d.join("in").join(name));
        // Made by the caller in that directory, and given away before it has a name.
        let file = nameless(&d.join("in"));
        rustix::fs::fremovexattr(&file, "system.posix_acl_access").expect("it got one");
        link(&file, &d.join("set").join(name));
    }
    equal("first names", &a, &b);

    run("mkdir -p t.tmp/sub/deep; setfacl -d -m u:1003:rx t.tmp/sub/deep; echo x > t.tmp/sub/deep/got; \
        echo x > t.tmp/sub/deep/none; setfacl -b t.tmp/sub/deep/none; chmod 604 t.tmp/sub/deep/none; echo x > t.tmp/f; \
        chmod 6711 t.tmp/f; mkfifo t.tmp/p; ln -s p t.tmp/l; cp -a t.tmp f.tmp; cp -a t.tmp/f g.tmp; mkfifo p.tmp; mkdir s.tmp; \
        chmod 2701 s.tmp; mv t.tmp in/tree; mv f.tmp set/tree; mv g.tmp in/f; mv p.tmp in/p; mv s.tmp in/s");
    equal("arrived", &a, &b);

    let whiteout = |from: &str, to: &str| {
        rustix::fs::renameat_with(CWD, d.join(from), CWD, d.join(to), RenameFlags::WHITEOUT).expect("renameat2");
    };
    whiteout("in/fifo", "in/dir/fifo");
    whiteout("set/fifo", "from/fifo");
    equal("whiteouts", &a, &b);
    fs::set_permissions(d.join("in/file"), fs::Permissions::from_mode(0o604)).expect("chmod");
    equal("chmod", &a, &b);
}
