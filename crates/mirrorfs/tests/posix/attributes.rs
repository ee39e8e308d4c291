//! What belongs to an entry beside its bytes: extended attributes, ACLs, times, set-user-id.

use super::*;

pub fn extended_attributes(root: &Path, log: &mut Log) {
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
        log.got(&format!("{name} list"), list(&path));
        log.got(&format!("{name} list for another"), as_user(1000, 1000, &[], || list(&path)));
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

/// Names of extended attributes, sorted.
fn list(path: &Path) -> Result<Vec<String>, Errno> {
    let mut list = [0; 1000];
    let length = rustix::fs::llistxattr(path, &mut list[..])?;
    // Without a list, only the length.
    let mut keys = vec![format!("{:?}", rustix::fs::llistxattr_query(path))];
    keys.extend(list[..length].split(|b| *b == 0).map(|key| String::from_utf8_lossy(key).into_owned()));
    keys.sort();
    Ok(keys)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

pub fn acls(root: &Path, log: &mut Log) {
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

pub fn times(root: &Path, log: &mut Log) {
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

pub fn privileges(root: &Path, log: &mut Log) {
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
