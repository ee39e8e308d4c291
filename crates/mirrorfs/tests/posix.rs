//! What Linux offers to applications works through a mirrored mount as in a plain directory, and arrives whole
//! on the other node. The rows are those of `docs/SEMANTICS.md`.

#[path = "posix/attributes.rs"]
mod attributes;
mod common;
#[path = "posix/entries.rs"]
mod entries;
#[path = "posix/files.rs"]
mod files;

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
    mirror.like_plain("nameless", files::nameless);
    mirror.like_plain("rename flags", entries::rename_flags);
    mirror.like_plain("allocation", files::allocation);
    mirror.like_plain("xattrs", attributes::extended_attributes);
    mirror.like_plain("acls", attributes::acls);
    mirror.like_plain("special", entries::special_files);
    mirror.like_plain("unlinked", files::unlinked_but_open);
    mirror.like_plain("names", entries::names);
    mirror.like_plain("deep", entries::deep_paths);
    mirror.like_plain("listing", entries::listing);
    mirror.like_plain("locks", files::locks);
    mirror.like_plain("mappings", files::mappings);
    mirror.like_plain("direct", files::direct_and_synchronous);
    mirror.like_plain("times", attributes::times);
    mirror.like_plain("privileges", attributes::privileges);
    mirror.like_plain("handles", files::file_handles);
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
        ("nameless", files::nameless),
        ("rename flags", entries::rename_flags),
        ("allocation", files::allocation),
        ("xattrs", attributes::extended_attributes),
        ("acls", attributes::acls),
        ("special", entries::special_files),
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
    let mirror = Mirror::new(64);
    let (a, b) = (&mirror.a, &mirror.b);
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
    equal("after all that", a, b);
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

/// Answers that are the kernel's own, for any FUSE: none of these requests reaches us.
#[test]
fn what_the_kernel_answers_for_every_fuse() {
    const FIBMAP: libc::c_ulong = 1;
    const FIOQSIZE: libc::c_ulong = 0x5460;
    const BEYOND: i64 = 17 << 40;
    let mirror = Mirror::new(64);
    let (data, plain) = (mirror.a.bench.data(), mirror.a.bench.path("disk"));
    let errno = |done: i64| (done < 0).then(|| std::io::Error::last_os_error().raw_os_error().expect("an errno"));
    for (place, is_mirrored) in [(&plain, false), (&data, true)] {
        let path = place.join("f");
        fs::write(&path, vec![1; 100_000]).expect("write");
        let file = file(&path);
        file.sync_all().expect("sync");
        let fd = file.as_raw_fd();
        let ext4_says = |number: i32| (!is_mirrored).then_some(number);
        // SAFETY: each reads or writes the local that it is given, or takes numbers and a C string that lives.
        unsafe {
            let mut block: libc::c_int = 0;
            assert_eq!(libc::ioctl(fd, FIBMAP, &raw mut block), 0);
            assert_eq!(block == 0, is_mirrored, "FIBMAP");
            let room = || {
                let mut room = 0i64;
                assert_eq!(libc::ioctl(fd, FIOQSIZE, &raw mut room), 0);
                room
            };
            assert_eq!(room(), if is_mirrored { 0 } else { 102_400 }, "FIOQSIZE: as of the last look at the file");
            assert_eq!((file.metadata().expect("stat").blocks() * 512, room()), (102_400, 102_400), "FIOQSIZE");
            assert_eq!(errno(libc::lseek(fd, BEYOND, libc::SEEK_SET)), ext4_says(libc::EINVAL), "lseek");
            assert_eq!(errno(libc::pwrite(fd, c"x".as_ptr().cast(), 1, BEYOND) as i64), Some(libc::EFBIG));
            assert_eq!(errno(libc::ftruncate(fd, BEYOND).into()), Some(libc::EFBIG));
            let mut byte = 0u8;
            let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            let read = libc::preadv2(fd, &raw const part, 1, 0, libc::RWF_NOWAIT);
            assert_eq!(errno(read as i64), is_mirrored.then_some(libc::EOPNOTSUPP), "RWF_NOWAIT");
            let written = libc::pwritev2(fd, &raw const part, 1, 0, libc::RWF_NOWAIT);
            assert!(!is_mirrored || errno(written as i64) == Some(libc::EOPNOTSUPP), "RWF_NOWAIT");
        }
        let told = |init: u32, flags: u32| fanotify(place, init, flags, || fs::write(&path, "again").expect("write"));
        for flags in [libc::FAN_MARK_MOUNT, libc::FAN_MARK_FILESYSTEM] {
            assert_eq!(told(libc::FAN_CLASS_NOTIF, flags), Ok(true), "fanotify, {is_mirrored}");
            let by_handle = if is_mirrored { Err(libc::ENODEV) } else { Ok(true) };
            assert_eq!(told(libc::FAN_REPORT_FID, flags), by_handle, "fanotify with handles, {is_mirrored}");
        }
    }
    sh(&format!("cd '{}'; head -c 1048576 /dev/zero > swap; chmod 600 swap; mkswap -q swap", data.display()));
    // SAFETY: a C string that lives, and a number.
    let swapped = unsafe { libc::swapon(c_path(&data.join("swap")).as_ptr(), 0) };
    assert_eq!(errno(swapped.into()), Some(libc::EINVAL), "swapon");
    // `df`: this node's size, and what the fuller of both has left.
    let [here, below] = [&data, &plain].map(|place| rustix::fs::statfs(place).expect("statfs"));
    assert_eq!((here.f_blocks, here.f_files, here.f_bsize), (below.f_blocks, below.f_files, below.f_bsize));
    assert!(here.f_bavail <= below.f_bavail && here.f_ffree <= below.f_ffree);
    assert!(sh(&format!("df '{}'", data.display())).contains("stead:test "));
    assert!(sh(&format!("stat -f -c %i '{}'", data.display())) == "0\n", "no identity of its own");
    mirror.done();
}

/// Is somebody told of what `does` makes below a mark on `place`? `Err`: the mark is refused.
fn fanotify(place: &Path, init: u32, flags: u32, does: impl FnOnce()) -> Result<bool, i32> {
    // SAFETY: numbers, a C string that lives, and a local of the length that is given; the group is closed once.
    unsafe {
        let group = libc::fanotify_init(init | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK, libc::O_RDONLY as u32);
        assert!(group >= 0, "{}", std::io::Error::last_os_error());
        let path = c_path(place);
        let wanted = libc::FAN_MODIFY | libc::FAN_OPEN;
        let marked = libc::fanotify_mark(group, libc::FAN_MARK_ADD | flags, wanted, libc::AT_FDCWD, path.as_ptr());
        let told = if marked < 0 {
            Err(std::io::Error::last_os_error().raw_os_error().expect("an errno"))
        } else {
            does();
            let mut events = [0u8; 4096];
            Ok(libc::read(group, events.as_mut_ptr().cast(), events.len()) > 0)
        };
        libc::close(group);
        told
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}
