//! One node, no peer: what an application sees through the mount is what a file system does.

mod common;

use common::pair::{DATA, as_user};
use common::{Agent, Bench, be_mirrorfs_if_asked, sh};
use model::orders::Order;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

fn serving(megabytes: u32) -> (Agent, Bench) {
    let bench = Bench::new(megabytes);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    (agent, bench)
}

/// Whoever gives orders here is as good as root; for a moment after it is made, a socket may be anybody's.
#[test]
fn only_root_gives_orders_and_nobody_else_opens_its_files() {
    let bench = Bench::new(16);
    let socket = bench.path("socket");
    let mut agent = Agent::start(&socket);
    agent.reach(&Order::Configure { configuration: bench.configuration() });
    agent.reach(&Order::ServeAlone { epoch: common::epoch(1), data_id: DATA, stamp: true, fresh_map: true });
    fs::write(bench.data().join("file"), "changed").unwrap();
    sh(&format!("chmod 711 {}; chmod 666 {}", bench.path("").display(), socket.display()));
    let heard = as_user(65_534, 65_534, &[], || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it may connect");
        let mut heard = Vec::new();
        // Closed at once; what was written into it is not read.
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    assert_eq!(String::from_utf8_lossy(&heard), "");
    let open: Vec<_> = walk(&bench.path("state")).into_iter().chain([socket.with_extension("lock")]).collect();
    assert!(open.iter().any(|path| path.ends_with("changes")), "{open:?}");
    for path in open {
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    // The agent's connection stands.
    agent.reach(&Order::Hold);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

#[test]
fn files_directories_links_and_attributes_are_what_was_asked_for_above_and_below() {
    let (_agent, bench) = serving(64);
    let (data, lower) = (bench.data(), bench.lower());
    assert!(sh(&format!("findmnt -n -o FSTYPE {}", data.display())).contains("fuse.stead"));

    fs::create_dir_all(data.join("a/b")).expect("mkdir");
    fs::write(data.join("a/b/f"), "hello").expect("write");
    assert_eq!(fs::read(lower.join("a/b/f")).expect("read below"), b"hello");
    assert_eq!(fs::read(data.join("a/b/f")).expect("read"), b"hello");

    fs::hard_link(data.join("a/b/f"), data.join("g")).expect("link");
    assert_eq!(fs::metadata(data.join("g")).expect("stat").nlink(), 2);
    fs::rename(data.join("a/b/f"), data.join("a/h")).expect("rename");
    assert!(!data.join("a/b/f").exists() && !lower.join("a/b/f").exists());
    fs::remove_file(data.join("g")).expect("unlink");
    assert_eq!(fs::metadata(data.join("a/h")).expect("stat").nlink(), 1);

    symlink("../a/h", data.join("a/s")).expect("symlink");
    assert_eq!(fs::read_link(data.join("a/s")).expect("readlink").to_str(), Some("../a/h"));

    fs::set_permissions(data.join("a/h"), fs::Permissions::from_mode(0o640)).expect("chmod");
    std::os::unix::fs::chown(data.join("a/h"), Some(1), Some(2)).expect("chown");
    let below = fs::metadata(lower.join("a/h")).expect("stat below");
    assert_eq!((below.mode() & 0o7777, below.uid(), below.gid()), (0o640, 1, 2));

    let mut names: Vec<_> =
        fs::read_dir(data.join("a")).expect("readdir").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["b", "h", "s"]);

    fs::remove_dir(data.join("a/b")).expect("rmdir");
    assert_eq!(fs::remove_dir(data.join("a")).expect_err("not empty").raw_os_error(), Some(libc::ENOTEMPTY));
}

/// `pjdfstest` asks for the error only; a kernel that lets the file system truncate with the open gives it too late.
#[test]
fn a_program_that_runs_is_neither_opened_for_writing_nor_truncated() {
    let (_agent, bench) = serving(64);
    let program = bench.data().join("program");
    fs::copy("/bin/sleep", &program).expect("copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let size = fs::metadata(&program).expect("stat").len();
    let mut running = std::process::Command::new(&program).arg("60").spawn().expect("runs");
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC, libc::O_RDWR | libc::O_TRUNC] {
        let path = std::ffi::CString::new(program.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: the path is a NUL-terminated string that lives across the call.
        let opened = unsafe { libc::open(path.as_ptr(), flags) };
        let error = std::io::Error::last_os_error();
        assert_eq!((opened, error.raw_os_error()), (-1, Some(libc::ETXTBSY)), "{flags:#o}");
        let sizes = [&program, &bench.lower().join("program")].map(|path| fs::metadata(path).expect("stat").len());
        assert_eq!(sizes, [size; 2], "{flags:#o}");
    }
    running.kill().expect("it runs to the end");
    running.wait().expect("ended");
    // Afterwards it is a file like any other.
    fs::File::create(&program).expect("truncate");
    assert_eq!(fs::metadata(bench.lower().join("program")).expect("stat").len(), 0);
}

#[test]
fn a_thousand_names_are_listed_once_each() {
    let (_agent, bench) = serving(64);
    let dir = bench.data().join("many");
    fs::create_dir(&dir).expect("mkdir");
    for i in 0..1_500 {
        fs::write(dir.join(format!("a rather long name, so that they do not fit one answer {i}")), "").expect("write");
    }
    for _cold_then_warm in 0..2 {
        let names: std::collections::BTreeSet<_> =
            fs::read_dir(&dir).expect("readdir").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 1_500);
        sh("echo 2 > /proc/sys/vm/drop_caches");
    }
    assert_eq!(sh(&format!("ls {} | wc -l", dir.display())).trim(), "1500");
}

#[test]
fn writes_anywhere_in_a_file_truncation_holes_and_mappings() {
    let (_agent, bench) = serving(128);
    let path = bench.data().join("f");
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("create");
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    file.write_all_at(&big, 12_345).expect("write");
    file.set_len(4_000_000).expect("extend");
    file.write_all_at(b"end", 3_999_997).expect("write");
    file.sync_all().expect("fsync");
    let read = fs::read(bench.lower().join("f")).expect("read below");
    assert_eq!(read.len(), 4_000_000);
    assert!(read[..12_345].iter().all(|&b| b == 0) && read[12_345..3_012_345] == big[..] && read.ends_with(b"end"));
    file.set_len(20_000).expect("truncate");
    assert_eq!(fs::read(&path).expect("read")[12_345..], big[..20_000 - 12_345]);
    sh(&format!("fallocate -p -o 0 -l 4096 {p}; fallocate -l 1M {p}; printf x >> {p}", p = path.display()));
    assert_eq!(fs::metadata(bench.lower().join("f")).expect("stat below").len(), (1 << 20) + 1);
    let mapped = "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); m[0:3]=b'abc'; m.flush()";
    sh(&format!("python3 -c \"{mapped}\" {}", path.display()));
    assert_eq!(&fs::read(bench.lower().join("f")).expect("read below")[..3], b"abc");
    sh(&format!(
        "cp {p} {p}2; cmp {p} {p}2; dd if=/dev/zero of={p} bs=4k count=3 oflag=direct,dsync status=none",
        p = path.display()
    ));
}

#[test]
fn users_groups_modes_and_acls_are_those_of_the_caller() {
    let (_agent, bench) = serving(64);
    let data = bench.data();
    let d = data.display();
    sh(&format!("chmod 755 {} {}; chmod 1777 {d}", bench.path("").display(), bench.path("disk").display()));
    sh(&format!(
        "cd {d}; umask 027; setpriv --reuid 1000 --regid 1001 --clear-groups sh -c 'umask 027; echo x > u; mkdir du; ln -s u su; mkfifo fu'"
    ));
    for (name, mode) in [("u", 0o640), ("du", 0o750), ("fu", 0o640)] {
        let stat = fs::symlink_metadata(bench.lower().join(name)).expect("stat below");
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (1000, 1001, mode), "{name}");
    }
    // A set-group-id directory gives its group on, also to somebody who is in it only by a supplementary group.
    sh(&format!(
        "cd {d}; mkdir sg; chown 0:1005 sg; chmod 2775 sg; setpriv --reuid 1000 --regid 1001 --groups 1005 sh -c 'umask 0; echo x > sg/f; mkdir sg/d'"
    ));
    let (f, dir) = (fs::metadata(data.join("sg/f")).expect("stat"), fs::metadata(data.join("sg/d")).expect("stat"));
    assert_eq!((f.uid(), f.gid()), (1000, 1005));
    assert_eq!((dir.gid(), dir.mode() & 0o7777), (1005, 0o2777));
    // Nobody else may, and a write by another clears suid and sgid.
    let denied = format!("cd {d}; chmod 600 u; ! setpriv --reuid 1002 --regid 1002 --clear-groups cat u 2>/dev/null");
    sh(&denied);
    sh(&format!("cd {d}; touch p; chmod 6777 p; setpriv --reuid 1002 --regid 1002 --clear-groups sh -c 'echo x > p'"));
    assert_eq!(fs::metadata(bench.lower().join("p")).expect("stat").mode() & 0o7777, 0o777);
    sh(&format!("cd {d}; touch q; chmod 6777 q; setpriv --reuid 1002 --regid 1002 --clear-groups sh -c 'echo x >> q'"));
    assert_eq!(fs::metadata(bench.lower().join("q")).expect("stat").mode() & 0o7777, 0o777);
    assert_eq!(fs::metadata(data.join("q")).expect("stat").mode() & 0o7777, 0o777);
}

#[test]
fn extended_attributes_are_kept_and_ours_are_hidden() {
    let (_agent, bench) = serving(64);
    let d = bench.data().display().to_string();
    let script = "import os,sys
d=sys.argv[1]; os.setxattr(d,'user.a/b',b'1'); assert os.getxattr(d,'user.a/b')==b'1'
f=d+'/f'; open(f,'w').close(); os.setxattr(f,'user.x',b'y'*1000); assert os.listxattr(f)==['user.x'], os.listxattr(f)
assert os.listxattr(d)==['user.a/b'], os.listxattr(d)
for call in (lambda: os.getxattr(d,'trusted.stead.data_id'), lambda: os.setxattr(d,'trusted.stead.data_id',b'x'), lambda: os.removexattr(d,'trusted.stead.data_id')):
    try: call(); sys.exit('our attribute was reached')
    except OSError: pass
os.removexattr(f,'user.x'); assert os.listxattr(f)==[]
";
    let file = bench.path("script.py");
    fs::write(&file, script).expect("write");
    sh(&format!("python3 {} {d}", file.display()));
    // Asked for the size alone.
    assert_eq!(rustix::fs::getxattr_query(bench.data(), "user.a/b"), Ok(1));
    assert_eq!(rustix::fs::listxattr_query(bench.data()), Ok("user.a/b".len() + 1));
    let read =
        format!("import os; print(os.getxattr('{}', 'trusted.stead.data_id').decode())", bench.lower().display());
    assert_eq!(sh(&format!("python3 -c \"{read}\"")).trim(), "000000000000002a");
}

/// The kernel asks for it before the first write to each file; of a new one it is answered from memory.
#[test]
fn a_new_file_has_no_capability_until_it_is_given_one_and_after_it_was_taken_away() {
    let (_agent, bench) = serving(16);
    let (above, below) = (bench.data().join("program"), bench.lower().join("program"));
    let capability = || {
        let mut value = [0; 64];
        let get = |path: &std::path::Path, value: &mut [u8]| rustix::fs::getxattr(path, "security.capability", value);
        let seen = get(&above, &mut value);
        assert_eq!(seen, get(&below, &mut [0; 64]), "the same above and below");
        seen.map(|length| value[..length].to_vec())
    };
    fs::write(&above, "new").unwrap();
    assert_eq!(capability(), Err(rustix::io::Errno::NODATA));
    // Version 2, cap_net_bind_service.
    let given: Vec<u8> = [0x0200_0001, 1 << 10, 0, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    let give = |name: &str| rustix::fs::setxattr(&above, name, &given, rustix::fs::XattrFlags::empty()).unwrap();
    give("security.capability");
    assert_eq!(capability().as_ref(), Ok(&given));
    fs::OpenOptions::new().append(true).open(&above).unwrap().write_all_at(b"changed", 0).unwrap();
    assert_eq!(capability(), Err(rustix::io::Errno::NODATA), "a write takes it away");
    give("user.other");
    give("security.capability");
    rustix::fs::removexattr(&above, "security.capability").unwrap();
    assert_eq!(capability(), Err(rustix::io::Errno::NODATA));
}
