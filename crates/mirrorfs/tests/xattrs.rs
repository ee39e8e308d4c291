//! Extended attributes: each node stores them in its own way, and both show the same.

mod common;

use common::be_mirrorfs_if_asked;
use common::pair::{CHANGES, FULL, Node, equal, join, pair_with, session};
use model::orders::{Order, Report};
use rustix::fs::{AtFlags, CWD, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
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
