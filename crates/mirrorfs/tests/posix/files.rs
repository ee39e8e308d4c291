//! The bytes of files and what holds them: without a name, unlinked, mapped, allocated, direct, locked, by handle.

use super::*;

pub fn nameless(root: &Path, log: &mut Log) {
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

pub fn allocation(root: &Path, log: &mut Log) {
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

pub fn unlinked_but_open(root: &Path, log: &mut Log) {
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

pub fn mappings(root: &Path, log: &mut Log) {
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

pub fn direct_and_synchronous(root: &Path, log: &mut Log) {
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

pub fn locks(root: &Path, log: &mut Log) {
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

pub fn file_handles(root: &Path, log: &mut Log) {
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
