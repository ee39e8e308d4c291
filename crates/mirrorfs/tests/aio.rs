//! Asynchronous `O_DIRECT` writes (a database's, a virtual machine's) beside readers through the page cache (a backup).

mod common;

use common::{Agent, Bench, be_mirrorfs_if_asked};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

const SIZE: usize = 160 * 4096;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

#[repr(C, align(4096))]
struct Pages([u8; SIZE]);

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// One write by `io_submit`, waited for.
fn write(context: u64, file: &File, pages: &Pages) {
    const PWRITE: u16 = 1;
    let mut request = Request {
        opcode: PWRITE,
        fd: file.as_raw_fd() as u32,
        buffer: (&raw const pages.0) as u64,
        bytes: SIZE as u64,
        ..Request::default()
    };
    let mut requests = [&raw mut request];
    let mut event = [0u64; 4];
    // SAFETY: request, pages and event live until the one event has come.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_io_submit, context, 1, requests.as_mut_ptr()), 1);
        let none = std::ptr::null_mut::<libc::timespec>();
        assert_eq!(libc::syscall(libc::SYS_io_getevents, context, 1, 1, event.as_mut_ptr(), none), 1);
    }
    assert_eq!(event[2] as i64, SIZE as i64, "written");
}

#[test]
fn whoever_reads_through_the_cache_sees_what_was_written_beside_it() {
    let bench = Bench::new(64);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    let path = bench.data().join("file");
    std::fs::write(&path, vec![0; SIZE]).unwrap();
    let direct = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut context = 0u64;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::syscall(libc::SYS_io_setup, 8, &raw mut context) }, 0);
    let over = AtomicBool::new(false);
    let mut pages = Box::new(Pages([0; SIZE]));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (file, mut read) = (File::open(&path).unwrap(), vec![0; SIZE]);
                while !over.load(Ordering::Relaxed) {
                    let n = file.read_at(&mut read, 0).unwrap();
                    assert_eq!(n, SIZE);
                }
            });
        }
        let (file, mut read) = (File::open(&path).unwrap(), vec![0; SIZE]);
        for round in 0..1_000u32 {
            pages.0.fill(round as u8);
            write(context, &direct, &pages);
            file.read_exact_at(&mut read, 0).unwrap();
            let stale = read.iter().position(|byte| *byte != round as u8);
            if stale.is_some() {
                over.store(true, Ordering::Relaxed);
            }
            assert_eq!(stale, None, "round {round}: a page of before");
        }
        over.store(true, Ordering::Relaxed);
    });
}
