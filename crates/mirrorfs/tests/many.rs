//! More files than descriptors: what nobody uses is forgotten, and nothing is refused.

mod common;

use common::{Agent, Bench, be_mirrorfs_if_asked};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const DESCRIPTORS: u64 = 2_048;
const DIRECTORIES: usize = 12;
const FILES: usize = 500;

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

fn serving() -> (Agent, Bench) {
    let bench = Bench::new(256);
    for d in 0..DIRECTORIES {
        let dir = bench.data().join(format!("d{d}"));
        fs::create_dir(&dir).expect("mkdir");
        for f in 0..FILES {
            fs::write(dir.join(format!("f{f}")), format!("{d} {f}")).expect("write");
        }
    }
    let mut agent = Agent::start_with_descriptors(&bench.path("socket"), DESCRIPTORS);
    agent.serve(bench.configuration());
    (agent, bench)
}

/// Every file of the tree, by name and by listing.
fn read_all(data: &Path) {
    for d in 0..DIRECTORIES {
        let dir = data.join(format!("d{d}"));
        for f in 0..FILES {
            let text = fs::read_to_string(dir.join(format!("f{f}"))).unwrap_or_else(|e| panic!("d{d}/f{f}: {e}"));
            assert_eq!(text, format!("{d} {f}"));
        }
        let listed = fs::read_dir(&dir).expect("readdir").map(|e| e.expect("entry").metadata().expect("stat"));
        assert!(listed.filter(fs::Metadata::is_file).count() >= FILES);
    }
}

#[test]
fn a_tree_of_more_files_than_descriptors_is_read_written_and_kept_open() {
    let (_agent, bench) = serving();
    let data = bench.data();
    // Open, and a current directory of somebody: neither is forgotten.
    let open: Vec<_> = (0..200)
        .map(|f| fs::File::options().read(true).append(true).open(data.join(format!("d0/f{f}"))).expect("open"))
        .collect();
    let inode = open[0].metadata().expect("fstat").ino();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read_all(&data))).collect();
        for f in 0..FILES {
            fs::write(data.join(format!("d1/new{f}")), "new").unwrap_or_else(|e| panic!("new{f}: {e}"));
        }
        readers.into_iter().for_each(|reader| reader.join().expect("reads"));
    });
    for (f, mut file) in open.iter().enumerate() {
        file.write_all(b" more").expect("write to what stayed open");
        let mut text = [0; 16];
        let length = file.read_at(&mut text, 0).expect("read");
        assert_eq!(String::from_utf8_lossy(&text[..length]), format!("0 {f} more"));
        assert_eq!(fs::read(bench.lower().join(format!("d0/f{f}"))).expect("below"), text[..length]);
    }
    assert_eq!(fs::metadata(data.join("d0/f0")).expect("stat").ino(), inode);
    let links =
        fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open[0]))).expect("readlink");
    assert!(links.ends_with("d0/f0"), "an open file keeps its name: {links:?}");
}
