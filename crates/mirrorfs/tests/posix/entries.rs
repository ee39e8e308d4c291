//! Names: renames with flags, special files, bytes in names, depth, listing.

use super::*;

pub fn rename_flags(root: &Path, log: &mut Log) {
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

pub fn special_files(root: &Path, log: &mut Log) {
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

pub fn names(root: &Path, log: &mut Log) {
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

pub fn deep_paths(root: &Path, log: &mut Log) {
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

pub fn listing(root: &Path, log: &mut Log) {
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
