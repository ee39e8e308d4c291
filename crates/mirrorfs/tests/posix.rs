//! What Linux offers to applications works through a mirrored mount as in a plain directory, and arrives whole
//! on the other node. The rows are those of `docs/SEMANTICS.md`.

mod common;

use common::pair::{CHANGES, FULL, Log, Mirror, Node, as_user, equal, join, pair_with, session};
use common::{be_mirrorfs_if_asked, sh};
use model::orders::{Order, ReplicatedDir, Report};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// A pair is dear: what needs nothing special shares one.
#[test]
fn what_linux_offers_is_as_in_a_plain_directory_and_on_both_nodes() {
    let mirror = Mirror::new(256);
    mirror.like_plain("nameless", nameless);
    mirror.like_plain("rename flags", rename_flags);
    mirror.like_plain("allocation", allocation);
    mirror.like_plain("xattrs", extended_attributes);
    mirror.like_plain("acls", acls);
    mirror.like_plain("special", special_files);
    mirror.like_plain("unlinked", unlinked_but_open);
    mirror.like_plain("names", names);
    mirror.like_plain("deep", deep_paths);
    mirror.like_plain("listing", listing);
    mirror.like_plain("locks", locks);
    mirror.like_plain("mappings", mappings);
    mirror.like_plain("direct", direct_and_synchronous);
    mirror.like_plain("times", times);
    mirror.like_plain("privileges", privileges);
    mirror.like_plain("handles", file_handles);
    // Sparse here is sparse there.
    for name in ["allocation/holes", "nameless/kept"] {
        let blocks = |node: &Node| fs::metadata(node.bench.lower().join(name)).expect("stat").blocks();
        assert_eq!(blocks(&mirror.a), blocks(&mirror.b), "{name}");
    }
    mirror.done();
}

/// Beside the usual directory, one with spaces in its path and one that is a file system of its own.
#[test]
fn several_directories_spaces_and_mount_points_are_ordinary() {
    let names = ["data", "with some  space", "a mount point"];
    let (mut a, mut b) = pair_with(128, |bench, configuration| {
        let h = bench.path("").display().to_string();
        sh(&format!(
            "truncate -s 32M {h}/second; mkfs.ext4 -q {h}/second; cd {h}/disk; mkdir 'with some  space' 'a mount point' lower;
             mount -o loop {h}/second 'a mount point'; mount --bind 'a mount point' lower"
        ));
        configuration.dirs = names
            .iter()
            .map(|name| {
                let path = bench.path("disk").join(name).to_str().expect("UTF-8").into();
                ReplicatedDir { path, tocheck: vec![], notreplicated: vec![], notreplicated_names: vec![] }
            })
            .collect();
    });
    a.alone(1, true);
    fs::write(a.bench.path("disk").join(names[2]).join("before"), "x").expect("write");
    join(&mut a, &mut b, session(1, 1), FULL);
    let at = |node: &Node, name: &str| node.bench.path("disk").join(name);
    for name in names {
        let dir = at(&a, name);
        sh(&format!("cd '{}'; mkdir d; echo {name} > d/f; ln d/f g; mv d e; echo more >> g; rm -r e", dir.display()));
        assert_eq!(fs::read_to_string(dir.join("g")).expect("read").lines().count(), 2);
    }
    let between = fs::rename(at(&a, names[0]).join("g"), at(&a, names[1]).join("h"));
    assert_eq!(between.expect_err("another file system").raw_os_error(), Some(libc::EXDEV));
    sh(&format!("mv '{}/g' '{}/h'", at(&a, names[0]).display(), at(&a, names[1]).display()));
    let lower = |node: &Node, name: &str| {
        if name == names[2] { node.bench.path("disk/lower") } else { node.bench.path("lower").join(name) }
    };
    for name in names {
        let found = mirrorfs::tree_diff(&lower(&a, name), &lower(&b, name)).expect("readable");
        assert!(found.is_empty() && lower(&b, name).join("g").exists() != (name == names[0]), "{name}: {found:?}");
    }
}

/// Made while alone, all of it comes over: by a full resync and by one of the changes.
#[test]
fn a_resync_brings_over_whatever_linux_offers() {
    let (mut a, mut b) = pair_with(256, |_, _| {});
    let h = a.bench.path("").display().to_string();
    sh(&format!("chmod 755 {h} {h}/disk"));
    type Play = fn(&Path, &mut Log);
    let plays: [(&str, Play); 6] = [
        ("nameless", nameless),
        ("rename flags", rename_flags),
        ("allocation", allocation),
        ("xattrs", extended_attributes),
        ("acls", acls),
        ("special", special_files),
    ];
    let make = |a: &Node, round: &str| {
        for (name, play) in plays {
            let root = a.bench.data().join(format!("{round} {name}"));
            fs::create_dir(&root).expect("mkdir");
            play(&root, &mut Log::default());
        }
    };
    a.alone(1, true);
    make(&a, "before");
    join(&mut a, &mut b, session(1, 1), FULL);
    equal("after the full resync", &a, &b);
    b.agent.reach(&Order::Idle);
    a.agent.wait("the link is lost", |r| matches!(r, Report::LinkLost { .. }));
    a.agent.reach(&Order::Hold);
    a.agent.reach(&Order::Sync { ticket: 1 });
    a.alone(2, false);
    make(&a, "alone");
    join(&mut a, &mut b, session(2, 2), CHANGES);
    equal("after the resync of the changes", &a, &b);
    make(&a, "together");
    equal("mirrored again", &a, &b);
}

/// What the secondary has can be read there and changed by nobody, root included: the kernel refuses it.
#[test]
fn the_secondary_is_read_only() {
    let Mirror { a, b, .. } = Mirror::new(64);
    fs::write(a.bench.data().join("f"), "content").expect("write");
    fs::create_dir(a.bench.data().join("d")).expect("mkdir");
    let (f, dir) = (b.bench.data().join("f"), b.bench.data());
    assert_eq!(fs::read(&f).expect("read"), b"content");
    let refused = [
        fs::write(&f, "x"),
        fs::write(dir.join("new"), "x"),
        File::options().append(true).open(&f).map(drop),
        File::options().write(true).truncate(true).open(&f).map(drop),
        fs::remove_file(&f),
        fs::remove_dir(dir.join("d")),
        fs::create_dir(dir.join("e")),
        fs::rename(&f, dir.join("g")),
        fs::hard_link(&f, dir.join("g")),
        symlink("x", dir.join("s")),
        fs::set_permissions(&f, fs::Permissions::from_mode(0o600)),
        std::os::unix::fs::chown(&f, Some(1), None),
        File::open(&f).expect("open").set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)),
        rustix::fs::setxattr(&f, "user.x", b"1", XattrFlags::empty()).map_err(Into::into),
        rustix::fs::mknodat(CWD, dir.join("p"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(Into::into),
        open(&dir, OFlags::TMPFILE | OFlags::RDWR).map(drop).map_err(Into::into),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert_eq!(result.expect_err("refused").raw_os_error(), Some(libc::EROFS), "number {i}");
    }
    equal("after all that", &a, &b);
}

/// What the kernel's FUSE refuses by itself, or we for it, is refused in a way that applications know.
#[test]
fn what_is_not_offered_is_refused_cleanly() {
    let mirror = Mirror::new(64);
    let path = mirror.a.bench.data().join("f");
    fs::write(&path, vec![1; 100_000]).expect("write");
    let file = file(&path);
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 4096, 4096), Err(Errno::OPNOTSUPP), "{mode:?}");
    }
    let other = File::create(mirror.a.bench.data().join("g")).expect("create");
    let ioctl = |request: libc::c_ulong, argument: i64| {
        let mut value = argument;
        // SAFETY: each of these reads or writes at most a long, or takes a descriptor by value.
        let done = unsafe {
            if argument > 0 {
                libc::ioctl(other.as_raw_fd(), request, argument)
            } else {
                libc::ioctl(file.as_raw_fd(), request, &raw mut value)
            }
        };
        if done < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
    };
    const FICLONE: libc::c_ulong = 0x4004_9409;
    const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
    const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
    assert!(matches!(ioctl(FICLONE, i64::from(file.as_raw_fd())), Some(libc::EOPNOTSUPP | libc::ENOTTY)));
    assert!(matches!(ioctl(FS_IOC_GETFLAGS, 0), Some(libc::ENOTTY | libc::EOPNOTSUPP)));
    assert_eq!(ioctl(FS_IOC_GETVERSION, 0), Some(libc::ENOTTY));
    let tools = format!(
        "cd '{}'; lsattr f 2>&1 || true; cp --reflink=auto f h; cmp f h; chattr +i f 2>&1 || true",
        mirror.a.bench.data().display()
    );
    assert!(!sh(&tools).contains("differ"));
    equal("after all that", &mirror.a, &mirror.b);
    mirror.done();
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
}

fn file(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("create")
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn nameless(root: &Path, log: &mut Log) {
    let make = || open(root, OFlags::TMPFILE | OFlags::RDWR).expect("O_TMPFILE");
    let kept = make();
    log.got("write", rustix::io::pwrite(&kept, b"begin", 0));
    log.got("far", rustix::io::pwrite(&kept, b"end", 3 << 20));
    log.got("mode", rustix::fs::fchmod(&kept, Mode::from_raw_mode(0o2640)));
    log.got("owner", rustix::fs::fchown(&kept, Some(rustix::fs::Uid::from_raw(7)), None));
    log.got("xattr", rustix::fs::fsetxattr(&kept, "user.x", b"y", XattrFlags::empty()));
    log.got("fsync", rustix::fs::fsync(&kept));
    let stat = rustix::fs::fstat(&kept).expect("fstat");
    log.say(format!("{} names, {} bytes", stat.st_nlink, stat.st_size));
    let link =
        |fd: &OwnedFd, name| rustix::fs::linkat(CWD, proc_path(fd), CWD, root.join(name), AtFlags::SYMLINK_FOLLOW);
    log.got("link", link(&kept, "kept"));
    log.got("again", link(&kept, "kept"));
    log.got("another", link(&kept, "also"));
    log.look(&root.join("kept"));
    log.got("later", rustix::io::pwrite(&kept, b"later", 100));
    log.got("read", fs::read(root.join("also")).map(|data| (data.len(), data[..8].to_vec(), data[100..105].to_vec())));
    let lost = make();
    log.got("write", rustix::io::write(&lost, b"x"));
    log.got("size", rustix::fs::ftruncate(&lost, 100));
    drop(lost);
    let private = open(root, OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL).expect("O_TMPFILE");
    log.got("private", link(&private, "private"));
    log.got("no directory", open(&root.join("kept"), OFlags::TMPFILE | OFlags::RDWR));
    log.got("read only", open(root, OFlags::TMPFILE | OFlags::RDONLY));
    // Deleted as soon as named, and gone for good.
    let brief = make();
    log.got("brief", link(&brief, "brief"));
    log.got("unlink", fs::remove_file(root.join("brief")));
    log.got("write on", rustix::io::write(&brief, b"x"));
    log.got("no way back", link(&brief, "brief"));
}

fn rename_flags(root: &Path, log: &mut Log) {
    fs::write(root.join("a"), "a").expect("write");
    fs::write(root.join("b"), "b").expect("write");
    fs::create_dir(root.join("d")).expect("mkdir");
    fs::write(root.join("d/f"), "f").expect("write");
    let rename =
        |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, root.join(from), CWD, root.join(to), flags);
    log.got("taken", rename("a", "b", RenameFlags::NOREPLACE));
    log.got("free", rename("a", "c", RenameFlags::NOREPLACE));
    log.got("swap", rename("b", "c", RenameFlags::EXCHANGE));
    log.got("swap with a directory", rename("b", "d", RenameFlags::EXCHANGE));
    log.got("swap with nothing", rename("b", "x", RenameFlags::EXCHANGE));
    log.got("both", rename("b", "d", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE));
    log.got("white", rename("c", "white", RenameFlags::WHITEOUT));
    log.got("white over", rename("d", "white", RenameFlags::WHITEOUT));
    log.got("into itself", rename("b", "b/x", RenameFlags::empty()));
    for name in ["a", "b", "b/f", "c", "d", "white"] {
        log.look(&root.join(name));
    }
    fs::hard_link(root.join("white"), root.join("same")).expect("link");
    log.got("same file", rename("white", "same", RenameFlags::empty()));
    log.look(&root.join("white"));
    log.got("write", fs::write(root.join("same"), "new"));
    log.got("read", fs::read(root.join("white")));
    log.got("unlink", fs::remove_file(root.join("c")));
}

fn allocation(root: &Path, log: &mut Log) {
    let holes = file(&root.join("holes"));
    holes.write_all_at(&vec![7; 1 << 20], 0).expect("write");
    holes.write_all_at(b"end", 40 << 20).expect("write");
    let all = [
        ("keep", FallocateFlags::KEEP_SIZE, 50 << 20, 4096),
        ("punch", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 65_536, 131_072),
        ("punch a part of a block", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 300_000, 100),
        ("punch alone", FallocateFlags::PUNCH_HOLE, 0, 4096),
        ("zero", FallocateFlags::ZERO_RANGE, 400_001, 8192),
        ("zero past the end", FallocateFlags::ZERO_RANGE, (40 << 20) - 100, 8192),
        ("zero, keep", FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, (40 << 20) + 5000, 70_000),
        ("grow", FallocateFlags::empty(), (40 << 20) + 9000, 4096),
        ("nothing", FallocateFlags::empty(), 0, 0),
    ];
    for (what, mode, offset, length) in all {
        log.got(what, rustix::fs::fallocate(&holes, mode, offset, length));
        log.look(&root.join("holes"));
    }
    let sum =
        |path: &Path| fs::read(path).map(|data| data.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31) + u64::from(b)));
    log.got("content", sum(&root.join("holes")));
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&holes, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&holes, SeekFrom::Hole(data)).expect("a hole follows");
        log.say(format!("data {data}..{at}"));
    }
    let read_only = File::open(root.join("holes")).expect("open");
    log.got("read only", rustix::fs::fallocate(&read_only, FallocateFlags::empty(), 0, 1));
    let copy = file(&root.join("copy"));
    let (mut from, mut to) = (1000, 77);
    log.got("copy", rustix::fs::copy_file_range(&holes, Some(&mut from), &copy, Some(&mut to), 300_000));
    log.got("content", sum(&root.join("copy")));
    let (mut from, mut to) = (0, 10);
    log.got("overlapping", rustix::fs::copy_file_range(&copy, Some(&mut from), &copy, Some(&mut to), 100));
    let (mut from, mut to) = (1 << 40, 0);
    log.got("past the end", rustix::fs::copy_file_range(&copy, Some(&mut from), &holes, Some(&mut to), 100));
    log.got("content", sum(&root.join("copy")));
    log.got("huge", copy.set_len(1 << 60));
    log.got("negative seek", (&copy).seek(std::io::SeekFrom::Current(-1)));
}

fn extended_attributes(root: &Path, log: &mut Log) {
    fs::write(root.join("f"), "").expect("write");
    fs::create_dir(root.join("d")).expect("mkdir");
    symlink("f", root.join("s")).expect("symlink");
    sh(&format!("mkfifo '{}'", root.join("p").display()));
    for name in ["f", "d", "s", "p", "none"] {
        let path = root.join(name);
        let set = |key: &str, value: &[u8], flags| rustix::fs::lsetxattr(&path, key, value, flags);
        for key in ["user.a", "trusted.a", "security.a", "nonsense", "user.", "system.a"] {
            log.got(&format!("{name} {key}"), set(key, b"1", XattrFlags::empty()));
            log.got(&format!("{name} {key} is"), {
                let mut value = [0; 100];
                rustix::fs::lgetxattr(&path, key, &mut value[..]).map(|n| value[..n].to_vec())
            });
        }
        log.got(&format!("{name} new"), set("trusted.a", b"2", XattrFlags::CREATE));
        log.got(&format!("{name} old"), set("trusted.b", b"2", XattrFlags::REPLACE));
        log.got(&format!("{name} again"), set("trusted.a", &[b'x'; 2000], XattrFlags::REPLACE));
        log.got(&format!("{name} too much"), set("trusted.c", &vec![b'x'; 70_000], XattrFlags::empty()));
        log.got(&format!("{name} list"), {
            let mut list = [0; 1000];
            rustix::fs::llistxattr(&path, &mut list[..]).map(|n| {
                let mut keys: Vec<_> =
                    list[..n].split(|b| *b == 0).map(|key| String::from_utf8_lossy(key).into_owned()).collect();
                keys.sort();
                keys
            })
        });
        log.got(&format!("{name} small"), {
            let mut value = [0; 10];
            rustix::fs::lgetxattr(&path, "trusted.a", &mut value[..])
        });
        log.got(&format!("{name} remove"), rustix::fs::lremovexattr(&path, "security.a"));
        log.got(&format!("{name} remove none"), rustix::fs::lremovexattr(&path, "security.a"));
    }
    let f = root.join("f");
    let try_as_other = as_user(1000, 1000, &[], || {
        [
            rustix::fs::setxattr(&f, "user.b", b"1", XattrFlags::empty()),
            rustix::fs::setxattr(&f, "trusted.b", b"1", XattrFlags::empty()),
            rustix::fs::removexattr(&f, "user.a"),
        ]
    });
    log.say(format!("{try_as_other:?}"));
    // A write takes the capabilities of a file away.
    log.got(
        "capabilities",
        rustix::fs::setxattr(
            &f,
            "security.capability",
            &hex("0100000200040000000000000000000000000000"),
            XattrFlags::empty(),
        ),
    );
    log.got("write", fs::write(&f, "x"));
    log.got("capabilities", {
        let mut value = [0; 100];
        rustix::fs::getxattr(&f, "security.capability", &mut value[..])
    });
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

fn acls(root: &Path, log: &mut Log) {
    let d = root.display();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("chmod");
    let acl = |log: &mut Log, name: &str| log.say(sh(&format!("cd '{d}'; getfacl -npE {name}")));
    sh(&format!("cd '{d}'; echo x > f; chmod 600 f; setfacl -m u:1000:r,g:70:rw f; mkdir in; chmod 750 in"));
    acl(log, "f");
    log.look(&root.join("f"));
    let f = root.join("f");
    for (uid, gid, groups) in [(1000, 1000, &[][..]), (1001, 1001, &[70]), (1002, 70, &[]), (1003, 1003, &[])] {
        let seen = as_user(uid, gid, groups, || {
            [
                File::open(&f).map(drop).map_err(|e| e.to_string()),
                File::options().append(true).open(&f).map(drop).map_err(|e| e.to_string()),
            ]
        });
        log.say(format!("{uid}: {seen:?}"));
    }
    // The mask is the group's bits; chmod changes the mask.
    sh(&format!("cd '{d}'; chmod 640 f"));
    acl(log, "f");
    // What is made in a directory with a default ACL gets it instead of the umask.
    sh(&format!("cd '{d}'; setfacl -d -m u::rwx,u:1000:rwx,g::r-x,g:70:rwx,o::- in; setfacl -m u:1000:rwx in"));
    let made = root.join("in");
    as_user(1000, 1000, &[], || {
        // SAFETY: no pointers; as_user gave this thread a umask of its own.
        unsafe { libc::umask(0o077) };
        fs::write(made.join("file"), "x").expect("write");
        fs::create_dir(made.join("dir")).expect("mkdir");
        fs::write(made.join("dir/file"), "x").expect("write");
        symlink("x", made.join("symlink")).expect("symlink");
        rustix::fs::mknodat(CWD, made.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("fifo");
        drop(open(&made.join("0600"), OFlags::CREATE | OFlags::WRONLY));
        let nameless = open(&made, OFlags::TMPFILE | OFlags::RDWR).expect("O_TMPFILE");
        let linked = rustix::fs::linkat(CWD, proc_path(&nameless), CWD, made.join("linked"), AtFlags::SYMLINK_FOLLOW);
        linked.expect("link");
    });
    for name in ["in", "in/file", "in/dir", "in/dir/file", "in/fifo", "in/0600", "in/linked"] {
        acl(log, name);
        log.look(&root.join(name));
    }
    log.look(&root.join("in/symlink"));
    // Without a default ACL the umask counts.
    as_user(0, 0, &[], || sh(&format!("cd '{d}'; umask 027; echo x > plain; mkdir plaindir; mkfifo plainfifo")));
    for name in ["plain", "plaindir", "plainfifo"] {
        acl(log, name);
    }
    sh(&format!("cd '{d}'; setfacl -b f; setfacl -k in; cp -a in copied"));
    for name in ["f", "in", "copied", "copied/file"] {
        acl(log, name);
    }
    // Setting an ACL by an owner who is not in the group takes set-group-id away.
    sh(&format!("cd '{d}'; echo x > sg; chown 1000:70 sg; chmod 2775 sg"));
    let sg = root.join("sg");
    as_user(1000, 1000, &[], || sh(&format!("setfacl -m u:1001:rwx '{}'", sg.display())));
    log.look(&sg);
    log.got(
        "not the owner's",
        as_user(1002, 1002, &[], || rustix::fs::setxattr(&sg, "system.posix_acl_access", b"", XattrFlags::empty())),
    );
}

fn special_files(root: &Path, log: &mut Log) {
    let make = |name: &str, kind, mode, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(mode), device)
    };
    log.got("null", make("null", FileType::CharacterDevice, 0o666, rustix::fs::makedev(1, 3)));
    log.got("block", make("block", FileType::BlockDevice, 0o600, rustix::fs::makedev(259, 300_000)));
    log.got("socket", make("socket", FileType::Socket, 0o600, 0));
    log.got("fifo", make("fifo", FileType::Fifo, 0o622, 0));
    log.got("file", make("file", FileType::RegularFile, 0o4755, 0));
    for name in ["null", "block", "socket", "fifo", "file"] {
        log.look(&root.join(name));
    }
    log.got("read null", fs::read(root.join("null")));
    log.got(
        "not a device of mine",
        as_user(1000, 1000, &[], || {
            rustix::fs::mknodat(CWD, root.join("mine"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), 259)
        }),
    );
    let listener = std::os::unix::net::UnixListener::bind(root.join("bound")).expect("bind");
    let mut client = std::os::unix::net::UnixStream::connect(root.join("bound")).expect("connect");
    client.write_all(b"hello").expect("write");
    let mut hello = [0; 5];
    listener.accept().expect("accept").0.read_exact(&mut hello).expect("read");
    log.say(String::from_utf8_lossy(&hello));
    log.got("nobody listens", std::os::unix::net::UnixStream::connect(root.join("socket")).map(drop));
    log.say(sh(&format!("cd '{}'; (echo through > fifo &) ; cat fifo", root.display())));
    symlink("null", root.join("link")).expect("symlink");
    log.got("name of a symlink", rustix::fs::linkat(CWD, root.join("link"), CWD, root.join("link2"), AtFlags::empty()));
    log.got(
        "name of its target",
        rustix::fs::linkat(CWD, root.join("link"), CWD, root.join("link3"), AtFlags::SYMLINK_FOLLOW),
    );
    log.got("name of a socket", fs::hard_link(root.join("socket"), root.join("socket2")));
    for name in ["link", "link2", "link3", "socket2"] {
        log.look(&root.join(name));
    }
    log.got("long target", symlink("x".repeat(4000), root.join("long")));
    log.got("too long", symlink("x".repeat(4096), root.join("too long")));
    log.got("no target", symlink("", root.join("empty")));
}

fn unlinked_but_open(root: &Path, log: &mut Log) {
    let path = root.join("f");
    let open = file(&path);
    open.write_all_at(b"before", 0).expect("write");
    fs::remove_file(&path).expect("unlink");
    log.got("write", open.write_all_at(b"after", 3));
    log.got("grow", open.set_len(100));
    log.got("mode", open.set_permissions(fs::Permissions::from_mode(0o600)));
    log.got("owner", rustix::fs::fchown(&open, Some(rustix::fs::Uid::from_raw(5)), None));
    log.got("xattr", rustix::fs::fsetxattr(&open, "user.x", b"y", XattrFlags::empty()));
    log.got("times", open.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)));
    log.got("sync", open.sync_all());
    log.got("allocate", rustix::fs::fallocate(&open, FallocateFlags::empty(), 0, 8192));
    log.say(common::pair::attributes(&open.metadata().expect("fstat")));
    let mut read = vec![0; 10];
    log.got("read", open.read_at(&mut read, 0).map(|n| read[..n].to_vec()));
    // A new file of that name is another file.
    fs::write(&path, "new").expect("write");
    log.got("write", open.write_all_at(b"old", 0));
    log.got("new", fs::read(&path));
    // Through another name, renamed, replaced: what is open stays what it is.
    fs::write(root.join("a"), "a").expect("write");
    fs::hard_link(root.join("a"), root.join("b")).expect("link");
    let a = file(&root.join("a"));
    fs::remove_file(root.join("a")).expect("unlink");
    log.got("write", a.write_all_at(b"through b", 0));
    log.got("b", fs::read(root.join("b")));
    fs::write(root.join("c"), "c").expect("write");
    fs::rename(root.join("c"), root.join("b")).expect("replace");
    log.got("write", a.write_all_at(b"nowhere", 0));
    log.got("b", fs::read(root.join("b")));
    // A directory that is somebody's working directory.
    fs::create_dir(root.join("d")).expect("mkdir");
    let d = File::open(root.join("d")).expect("open");
    fs::remove_dir(root.join("d")).expect("rmdir");
    log.got("in it", rustix::fs::openat(&d, "x", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)));
    log.got("its entries", rustix::fs::Dir::read_from(&d).map(|dir| dir.count()));
    log.got("its mode", rustix::fs::fchmod(&d, Mode::from_raw_mode(0o700)));
}

fn names(root: &Path, log: &mut Log) {
    let every_byte: Vec<u8> = (1..=255u8).filter(|b| *b != b'/').collect();
    let all: [&[u8]; 9] = [
        &every_byte[..200],
        &every_byte[200..],
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"...",
        b"-rf",
        &[b'n'; 255],
        "é".as_bytes(),
    ];
    for name in all {
        let path = root.join(OsStr::from_bytes(name));
        log.got("write", fs::write(&path, name));
        log.got("read", fs::read(&path).map(|data| data == name));
    }
    log.got("256", fs::write(root.join("n".repeat(256)), ""));
    log.got("256", fs::read(root.join("n".repeat(256))));
    log.got("300", fs::create_dir(root.join("n".repeat(300))));
    let mut listed: Vec<_> = fs::read_dir(root).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    listed.sort();
    log.say(format!("{listed:?}"));
    fs::rename(root.join("..."), root.join(OsStr::from_bytes(&[0xc3; 255]))).expect("rename");
    log.got("empty", fs::write(root.join(""), ""));
    log.got("dot", fs::remove_dir(root.join(".")));
    log.got("dot dot", fs::remove_dir(root.join(".. ")));
    log.got("slash", fs::write(root.join("x/"), ""));
}

fn deep_paths(root: &Path, log: &mut Log) {
    // Sixty directories of 200 bytes: three times what a path can be.
    let name = "d".repeat(200);
    let mut dir: OwnedFd = File::open(root).expect("open").into();
    for depth in 0..60 {
        rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).expect("mkdir");
        dir = rustix::fs::openat(&dir, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("open");
        if depth % 20 == 19 {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let file = rustix::fs::openat(&dir, "f", flags, Mode::from_raw_mode(0o644)).expect("create");
            log.got("write", rustix::io::write(&file, name.as_bytes()));
        }
    }
    log.got("link", rustix::fs::linkat(&dir, "f", File::open(root).expect("open"), "short", AtFlags::empty()));
    log.got("read", fs::read(root.join("short")).map(|data| data.len()));
    log.got("too long", fs::read(root.join([name.as_str(); 25].join("/"))));
}

fn listing(root: &Path, log: &mut Log) {
    const COUNT: usize = 3_000;
    for i in 0..COUNT {
        fs::write(root.join(format!("{i:06}")), "").expect("write");
    }
    let dir = File::open(root).expect("open");
    let mut buffer = Vec::with_capacity(4096);
    let mut seen = std::collections::BTreeMap::new();
    let mut cookies = Vec::new();
    // Removed and added while it is read: what stays is seen exactly once.
    let mut reader = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut number = 0;
    while let Some(entry) = reader.next() {
        let entry = entry.expect("entry");
        *seen.entry(entry.file_name().to_string_lossy().into_owned()).or_insert(0) += 1;
        cookies.push((entry.next_entry_cookie(), entry.file_name().to_owned()));
        if number % 100 == 50 {
            let _ = fs::remove_file(root.join(format!("{:06}", number * 7 % COUNT)));
            fs::write(root.join(format!("new{number}")), "").expect("write");
        }
        number += 1;
    }
    let stayed = (0..COUNT).filter(|i| root.join(format!("{i:06}")).exists());
    let wrong: Vec<_> = stayed.filter(|i| seen.get(&format!("{i:06}")) != Some(&1)).collect();
    log.say(format!("not seen exactly once: {wrong:?}; . and ..: {:?} {:?}", seen.get("."), seen.get("..")));
    // A remembered position leads back to what followed it.
    let (at, _) = cookies[cookies.len() / 2];
    let after: Vec<_> = cookies[cookies.len() / 2 + 1..].iter().map(|(_, name)| name.clone()).collect();
    rustix::fs::seek(&dir, SeekFrom::Start(at)).expect("seekdir");
    let mut again = Vec::new();
    let mut reader = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = reader.next() {
        again.push(entry.expect("entry").file_name().to_owned());
    }
    let missing = after
        .iter()
        .filter(|name| !again.contains(name) && root.join(OsStr::from_bytes(name.to_bytes())).exists())
        .count();
    log.say(format!("missing after seekdir: {missing}"));
    // rm -r: unlink while reading from the start.
    sh(&format!("rm -r '{}'; mkdir '{}'", root.display(), root.display()));
    log.got("empty", fs::read_dir(root).map(Iterator::count));
}

fn locks(root: &Path, log: &mut Log) {
    let path = root.join("f");
    let (one, two) = (file(&path), file(&path));
    log.got("flock", rustix::fs::flock(&one, FlockOperation::NonBlockingLockExclusive));
    log.got("flock of another", rustix::fs::flock(&two, FlockOperation::NonBlockingLockShared));
    log.got("unlock", rustix::fs::flock(&one, FlockOperation::Unlock));
    log.got("flock of another", rustix::fs::flock(&two, FlockOperation::NonBlockingLockShared));
    let ofd = |file: &File, kind: i32| {
        let mut lock = libc::flock { l_type: kind as i16, l_whence: 0, l_start: 10, l_len: 10, l_pid: 0 };
        // SAFETY: the descriptor is open and the structure lives across the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    log.got("OFD", ofd(&one, libc::F_WRLCK));
    log.got("OFD of another", ofd(&two, libc::F_RDLCK));
    log.got("unlock", ofd(&one, libc::F_UNLCK));
    log.got("OFD of another", ofd(&two, libc::F_RDLCK));
    let python = format!(
        "python3 -c \"
import fcntl,os
f=open('{p}','r+b'); fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,5,100)
if os.fork()==0:
    g=open('{p}','r+b')
    try: fcntl.lockf(g,fcntl.LOCK_EX|fcntl.LOCK_NB,5,102); print('taken twice')
    except OSError as e: print('refused',e.errno)
    fcntl.lockf(g,fcntl.LOCK_EX|fcntl.LOCK_NB,5,200); print('elsewhere')
else: os.wait()
\"",
        p = path.display()
    );
    log.say(sh(&python));
}

fn mappings(root: &Path, log: &mut Log) {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    const SIZE: usize = 1 << 20;
    let file = file(&root.join("f"));
    file.set_len(SIZE as u64).expect("size");
    let map = |at: usize, byte: u8| {
        // SAFETY: a fresh shared mapping of a file of this size, unmapped at the end.
        unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let memory = mmap(std::ptr::null_mut(), SIZE, prot, MapFlags::SHARED, &file, 0).expect("mmap");
            std::slice::from_raw_parts_mut(memory.cast::<u8>(), SIZE)[at..at + 5000].fill(byte);
            munmap(memory, SIZE).expect("munmap");
        }
    };
    map(10_000, 1);
    let mut read = vec![0; 10];
    log.got("read", file.read_at(&mut read, 10_000).map(|_| read.clone()));
    file.write_all_at(&[2; 10], 12_000).expect("write");
    map(500_000, 3);
    file.set_len(11_000).expect("shrink");
    file.set_len(SIZE as u64).expect("grow");
    map(200_000, 4);
    file.sync_all().expect("fsync");
    let sum = fs::read(root.join("f")).map(|d| d.iter().map(|b| u64::from(*b)).sum::<u64>());
    log.got("sum", sum);
    // A program is mapped and run.
    log.say(sh(&format!("cp /bin/true '{r}/true'; '{r}/true'; echo $?", r = root.display())));
}

fn direct_and_synchronous(root: &Path, log: &mut Log) {
    let path = root.join("f");
    let layout = std::alloc::Layout::from_size_align(64 << 10, 4096).expect("layout");
    // SAFETY: a non-empty layout; freed at the end.
    let memory = unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout), layout.size()) };
    memory.fill(5);
    for flags in [OFlags::DIRECT, OFlags::DIRECT | OFlags::DSYNC, OFlags::SYNC, OFlags::DSYNC] {
        let file = open(&path, OFlags::CREATE | OFlags::RDWR | flags).expect("open");
        log.got("write", rustix::io::pwrite(&file, memory, 8192));
        log.got("read", rustix::io::pread(&file, &mut memory[..4096], 8192));
        log.got("past the end", rustix::io::pread(&file, &mut memory[..4096], 1 << 30));
        log.got("buffered", fs::read(&path).map(|data| (data.len(), data[8192])));
    }
    let append = open(&path, OFlags::WRONLY | OFlags::APPEND).expect("open");
    log.got("append", rustix::io::pwrite(&append, b"x", 0));
    log.look(&path);
    log.got("wrong way", rustix::io::read(&append, &mut memory[..10]));
    // SAFETY: allocated above with this layout.
    unsafe { std::alloc::dealloc(memory.as_mut_ptr(), layout) };
}

fn times(root: &Path, log: &mut Log) {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
    let path = root.join("f");
    fs::write(&path, "x").expect("write");
    symlink("f", root.join("s")).expect("symlink");
    let set = |name: &str, atime: (i64, i64), mtime: (i64, i64)| {
        let spec = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
        utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)
    };
    let is = |log: &mut Log, name: &str| {
        let stat = fs::symlink_metadata(root.join(name)).expect("stat");
        log.say(format!("{}.{} {}.{}", stat.atime(), stat.atime_nsec(), stat.mtime(), stat.mtime_nsec()));
    };
    let omit = (0, UTIME_OMIT);
    for (name, atime, mtime) in [
        ("f", (1, 999_999_999), (-5, 1)),
        ("s", (2, 3), (4, 5)),
        ("f", omit, (1 << 33, 7)),
        ("f", (1 << 31, 0), omit),
        ("f", omit, omit),
        ("f", (0, 1_000_000_000), omit),
        ("f", (15_032_385_535, 0), (-2_147_483_648, 0)),
    ] {
        log.got("set", set(name, atime, mtime));
        is(log, name);
    }
    log.got("now", set("f", (0, UTIME_NOW), omit));
    let age = |path: &Path| {
        fs::metadata(path).expect("stat").accessed().expect("atime").elapsed().map_or(0, |age| age.as_secs())
    };
    log.say(age(&path) < 60);
    let born = |path: &Path| {
        fs::metadata(path).expect("stat").created().map(|t| t.elapsed().map_or(0, |age| age.as_secs()) < 600)
    };
    log.got("birth", born(&path));
    // Which times a change changes.
    fs::create_dir(root.join("d")).expect("mkdir");
    for (what, change) in [
        ("write", "echo x > f"),
        ("append", "echo x >> f"),
        ("chmod", "chmod 600 f"),
        ("read", "cat f"),
        ("link", "ln f g"),
        ("rename", "mv f h; mv h f"),
        ("unlink", "rm g"),
        ("truncate", "truncate -s 1 f"),
        ("no truncation", "truncate -s 1 f"),
        ("create", "touch d/x"),
        ("away", "mv d/x d/y; rm d/y"),
        ("xattr", "setfattr -n user.x -v y f"),
        ("allocate", "fallocate -l 10000 f"),
    ] {
        set("f", omit, (1000, 0)).expect("utimensat");
        set("d", omit, (1000, 0)).expect("utimensat");
        sh(&format!("cd '{}'; {change} > /dev/null", root.display()));
        let mtime = |name: &str| fs::metadata(root.join(name)).expect("stat").mtime();
        log.say(format!("{what}: {} {}", mtime("f") == 1000, mtime("d") == 1000));
    }
}

fn privileges(root: &Path, log: &mut Log) {
    fs::set_permissions(root, fs::Permissions::from_mode(0o777)).expect("chmod");
    let path = root.join("f");
    for mode in [0o6777, 0o4777, 0o2767, 0o2777, 0o6767] {
        for uid in [0, 1000, 1001] {
            type Change = fn(&Path) -> std::io::Result<()>;
            let changes: [(&str, Change); 8] = [
                ("write", |p| File::options().write(true).open(p)?.write_all(b"x")),
                ("nothing", |p| File::options().write(true).open(p)?.write_all(b"")),
                ("truncate", |p| File::options().write(true).open(p)?.set_len(3)),
                ("O_TRUNC", |p| File::options().write(true).truncate(true).open(p).map(drop)),
                ("chgrp", |p| std::os::unix::fs::chown(p, None, Some(1000))),
                // (By neither owner nor writer: EPERM there, nothing at all here.)
                ("chown none", |p| std::os::unix::fs::chown(p, None, None)),
                ("allocate", |p| {
                    Ok(rustix::fs::fallocate(File::options().write(true).open(p)?, FallocateFlags::empty(), 0, 9)?)
                }),
                ("copy", |p| {
                    let to = File::options().write(true).open(p)?;
                    rustix::fs::copy_file_range(File::open("/etc/passwd")?, None, to, None, 10)?;
                    Ok(())
                }),
            ];
            for (what, change) in changes {
                if what == "chown none" && uid == 1001 {
                    continue;
                }
                let _ = fs::remove_file(&path);
                fs::write(&path, "content").expect("write");
                std::os::unix::fs::chown(&path, Some(1000), Some(70)).expect("chown");
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
                log.got(&format!("{mode:o} {what} by {uid}"), as_user(uid, uid, &[], || change(&path)));
                log.look(&path);
            }
        }
    }
    // chmod g+s by who is not in the group; set-group-id directories.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    for groups in [&[][..], &[70]] {
        log.got("g+s", as_user(1000, 1000, groups, || fs::set_permissions(&path, fs::Permissions::from_mode(0o2755))));
        log.look(&path);
        log.got("chgrp", as_user(1000, 1000, groups, || std::os::unix::fs::chown(&path, None, Some(70))));
    }
    let dir = root.join("sg");
    fs::create_dir(&dir).expect("mkdir");
    std::os::unix::fs::chown(&dir, None, Some(70)).expect("chown");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777)).expect("chmod");
    for (i, groups) in [&[][..], &[70]].into_iter().enumerate() {
        as_user(1000, 1000, groups, || {
            let at = |name: &str| dir.join(format!("{name}{i}"));
            fs::create_dir(at("d")).expect("mkdir");
            for mode in [0o644, 0o2755, 0o2745, 0o6755] {
                let made = rustix::fs::open(
                    at(&format!("{mode:o}")),
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
                    Mode::from_raw_mode(mode),
                );
                made.expect("create");
            }
            symlink("x", at("s")).expect("symlink");
        });
        for name in ["d", "644", "2755", "2745", "6755", "s"] {
            log.look(&dir.join(format!("{name}{i}")));
        }
    }
    // The sticky bit.
    let sticky = root.join("sticky");
    fs::create_dir(&sticky).expect("mkdir");
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).expect("chmod");
    as_user(1000, 1000, &[], || fs::write(sticky.join("f"), "x").expect("write"));
    log.got("unlink", as_user(1001, 1001, &[], || fs::remove_file(sticky.join("f"))));
    log.got("rename", as_user(1001, 1001, &[], || fs::rename(sticky.join("f"), sticky.join("g"))));
    log.got("own", as_user(1000, 1000, &[], || fs::remove_file(sticky.join("f"))));
}

fn file_handles(root: &Path, log: &mut Log) {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let path = root.join("f");
    fs::write(&path, "by handle").expect("write");
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount = 0i32;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let held = File::open(&path).expect("open");
    // SAFETY: pointers to live variables; the handle says how much room it has.
    let made = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, name.as_ptr(), &raw mut handle, &raw mut mount, 0)
    };
    log.say(made);
    let at = File::open(root).expect("open");
    // SAFETY: as above.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, at.as_raw_fd(), &raw mut handle, libc::O_RDONLY) };
    log.say(fd >= 0);
    if fd >= 0 {
        log.got("read", fs::read(format!("/proc/self/fd/{fd}")));
        // SAFETY: ours, opened above.
        unsafe { libc::close(fd as i32) };
    }
    drop(held);
}
