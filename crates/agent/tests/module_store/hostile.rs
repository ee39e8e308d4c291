//! Archives made to do harm: refused, with a sentence, before anything is written anywhere.

use crate::{name, store_in, temporary};
use agent::modules::{Package, PackageError};
use model::ids::ModuleId;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const CONFIGURATION: &[u8] = b"<safe><service mode=\"mirror\"><user/></service></safe>";

struct Entry<'a> {
    name: &'a str,
    content: &'a [u8],
    mode: u32,
}

fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { name, content, mode: 0o100_644 }
}

/// An archive with these names exactly as given: the writer would clean them, so they are patched in afterwards.
fn pack(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let plain = |entry: &Entry<'_>| entry.mode == 0o100_644 && agent_would_write(entry.name);
    let placeholder = |index: usize, entry: &Entry<'_>| match plain(entry) {
        true => entry.name.to_string(),
        false => format!("{:x<1$}", format!("{index:04}"), entry.name.len().max(4)),
    };
    for (index, entry) in entries.iter().enumerate() {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(entry.mode & 0o7777);
        writer.start_file(placeholder(index, entry), options).expect("started");
        writer.write_all(entry.content).expect("written");
    }
    let mut bytes = writer.finish().expect("finished").into_inner();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !plain(entry)) {
        assert!(entry.name.len() >= 4, "long enough to patch");
        let from = placeholder(index, entry).into_bytes();
        let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(&from)).collect();
        assert_eq!(places.len(), 2, "the local and the central record");
        for at in places {
            bytes[at..at + from.len()].copy_from_slice(entry.name.as_bytes());
        }
        // Upper half of the external attributes in the central record: type and mode.
        let central = (0..bytes.len() - 46)
            .find(|at| bytes[*at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(entry.name.as_bytes()))
            .expect("there");
        let mode = u16::try_from(entry.mode).expect("16 bits").to_le_bytes();
        bytes[central + 40..central + 42].copy_from_slice(&mode);
    }
    bytes
}

/// Names that any writer leaves as they are.
fn agent_would_write(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

fn refused(entries: &[Entry<'_>], because: &str) {
    let mut all = vec![file("conf/userconfig.xml", CONFIGURATION)];
    all.extend(entries.iter().map(|e| Entry { name: e.name, content: e.content, mode: e.mode }));
    refused_bytes(&pack(&all), because);
}

fn refused_bytes(bytes: &[u8], because: &str) {
    let root = temporary();
    let store = store_in(root.path());
    let error = store.install(&name("app"), bytes, ModuleId(1), false).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains(because), "{text}");
    assert!(text.contains("module 'app'") && !error.help().is_empty() && text.len() < 500, "{text}");
    assert!(std::fs::read_dir(root.path()).expect("readable").next().is_none(), "nothing was written");
}

#[test]
fn the_helper_makes_archives_that_are_read() {
    let package = Package::from_archive(&pack(&[
        file("conf/userconfig.xml", CONFIGURATION),
        file("bin/start_prim", b"#!/bin/sh\n"),
    ]))
    .expect("fine");
    assert!(package.has_script("start_prim"));
}

#[test]
fn names_that_leave_their_directory() {
    for evil in [
        "../../etc/cron.d/x",
        "bin/../../../etc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "bin/./x",
        "bin//x",
        "C:/windows",
        "bin\\..\\x",
        "..\\..\\x",
        "bin/a\nb",
        "bin/a\0b",
        "bin/\u{1b}[2J",
        "conf/../../x/",
    ] {
        refused(&[file(evil, b"x")], "entry");
    }
    refused(&[file(&"bin/a/".repeat(20), b"")], "nested too deep");
    refused(&[file(&format!("bin/{}", "x".repeat(2000)), b"x")], "entry");
}

#[test]
fn links_devices_and_secrets() {
    refused(&[Entry { name: "bin/start_prim", content: b"/etc/shadow", mode: 0o120_777 }], "symbolic link");
    refused(&[Entry { name: "bin/fifo", content: b"", mode: 0o010_644 }], "neither a file nor a folder");
    refused(&[Entry { name: "bin/device", content: b"", mode: 0o020_644 }], "neither a file nor a folder");
    let mut encrypted = pack(&[file("conf/userconfig.xml", CONFIGURATION)]);
    for at in 0..encrypted.len() - 8 {
        if encrypted[at..].starts_with(b"PK\x01\x02") {
            encrypted[at + 8] |= 1;
        } else if encrypted[at..].starts_with(b"PK\x03\x04") {
            encrypted[at + 6] |= 1;
        }
    }
    let error = Package::from_archive(&encrypted).expect_err("refused");
    assert!(matches!(error, PackageError::Kind { .. } | PackageError::NotAnArchive(_)), "{error}");
}

#[test]
fn bombs() {
    let zeros = vec![0_u8; 7 * 1024 * 1024];
    refused(&[file("bin/bomb", &zeros)], "too large");
    // Twelve that each pass, and together do not: half noise, half zeros shrinks well below the bound of a ratio.
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..2 * 1024 * 1024)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 64 == 0 { state.to_be_bytes()[0] } else { 0 }
        })
        .collect();
    let names: Vec<String> = (0..18).map(|n| format!("bin/n{n}")).collect();
    let many: Vec<Entry<'_>> = names.iter().map(|name| file(name, &noise)).collect();
    refused(&many, "unpacks to more than 33554432");
    let large = vec![b'x'; 9 * 1024 * 1024];
    refused(&[file("bin/large", &large)], "too large");
    let names: Vec<String> = (0..600).map(|n| format!("bin/f{n}")).collect();
    let many: Vec<Entry<'_>> = names.iter().map(|name| file(name, b"x")).collect();
    refused(&many, "too large");
    refused_bytes(&vec![0; 9 * 1024 * 1024], "too large");
    let flood = b"PK\x01\x02".repeat(100_000);
    refused_bytes(&flood, "too large");
    // A size that lies: small in the directory, large when unpacked.
    let mut lying = pack(&[file("conf/userconfig.xml", CONFIGURATION), file("bin/liar", &zeros)]);
    for at in 0..lying.len() - 46 {
        if lying[at..].starts_with(b"PK\x01\x02") && lying[at + 46..].starts_with(b"bin/liar") {
            lying[at + 24..at + 28].copy_from_slice(&10_u32.to_le_bytes());
        }
    }
    assert!(Package::from_archive(&lying).is_err());
}

#[test]
fn what_is_no_module() {
    refused_bytes(b"", "not a readable zip");
    refused_bytes(b"hello, I am a text", "not a readable zip");
    refused_bytes(&pack(&[file("bin/start_prim", b"#!/bin/sh\n")]), "no conf/userconfig.xml");
    refused_bytes(
        &pack(&[file("a/conf/userconfig.xml", CONFIGURATION), file("b/conf/userconfig.xml", CONFIGURATION)]),
        "several modules",
    );
    refused_bytes(&pack(&[file("a/b/conf/userconfig.xml", CONFIGURATION)]), "no conf/userconfig.xml");
    let good = pack(&[file("conf/userconfig.xml", CONFIGURATION), file("bin/x123", b"some content, some content")]);
    for cut in 0..good.len() {
        assert!(Package::from_archive(&good[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0xff;
        // Any outcome but a panic; a file that is read is read with its checksum.
        if let Ok(package) = Package::from_archive(&flipped) {
            assert_eq!(package.userconfig(), CONFIGURATION);
        }
    }
}

#[test]
fn an_old_archive_is_read_and_says_what_it_leaves_out() {
    let package = Package::from_archive(&pack(&[
        file("App/conf/userconfig.xml", CONFIGURATION),
        file("App/conf/userconfig.xml.template", b"old"),
        file("App/conf/modulekey.p12", b"key"),
        file("App/conf/extra.conf", b"kept"),
        file("App/start_prim", b"#!/bin/sh\n"),
        file("App/bin/stop_prim", b"#!/bin/sh\r\nexit 0\r\n"),
        file("App/bin/helper.ps1", b"Write-Host"),
        file("App/bin/prestart", b"echo no interpreter\n"),
        file("App/web/index.html", b"<html>"),
        file("App/manifest.xml", b"<m/>"),
        file("README", b"beside"),
    ]))
    .expect("readable");
    let files: Vec<&str> = package.files().map(|(path, _)| path).collect();
    assert_eq!(
        files,
        ["bin/helper.ps1", "bin/prestart", "bin/start_prim", "bin/stop_prim", "conf/extra.conf", "conf/userconfig.xml"]
    );
    let notes = package.notes.join("\n");
    for said in [
        "App/web/index.html is left out",
        "README is left out",
        "modulekey.p12 is left out",
        "template is left out",
        "helper.ps1 is for Windows",
        "bin/stop_prim has the line ends of Windows",
        "bin/prestart does not begin with #!",
    ] {
        assert!(notes.contains(said), "'{said}' is missing in:\n{notes}");
    }
    // Scripts at the root of an archive without folder, as the oldest have them.
    let oldest =
        Package::from_archive(&pack(&[file("userconfig.xml", CONFIGURATION), file("start_prim", b"#!/bin/sh\n")]))
            .expect("readable");
    assert!(oldest.has_script("start_prim"));
    // Packed on Windows: folders with a backslash, lines with their ends; a file that is no script stays as it is.
    let windows = Package::from_archive(&pack(&[
        file("App\\conf\\userconfig.xml", CONFIGURATION),
        file("App\\bin\\start_prim", b"#!/bin/sh\r\nexit 0\r\n"),
        file("App\\bin\\stop_prim", b"\xef\xbb\xbf#!/bin/sh\nexit 0\n"),
        file("App\\bin\\data.csv", b"a;b\r\n"),
    ]))
    .expect("readable");
    let files: Vec<(&str, &[u8])> = windows.files().filter(|(path, _)| path.starts_with("bin/")).collect();
    let script: &[u8] = b"#!/bin/sh\nexit 0\n";
    assert_eq!(files, [("bin/data.csv", &b"a;b\r\n"[..]), ("bin/start_prim", script), ("bin/stop_prim", script)]);
    assert_eq!(windows.notes.len(), 2, "{:?}", windows.notes);
    let twice = Package::from_archive(&pack(&[
        file("conf/userconfig.xml", CONFIGURATION),
        file("start_prim", b"#!a"),
        file("bin/start_prim", b"#!b"),
    ]));
    assert!(matches!(twice, Err(PackageError::Name { .. })));
}

/// The oldest have everything beside the configuration: programs that it names are the module's as its scripts are.
#[test]
fn programs_at_the_root_that_the_configuration_names_are_taken() {
    let xml = br#"<safe><macro name="CK" value="ck.sh"/><service mode="mirror"><user/>
        <errd><proc name="db" action="mend.sh"/></errd>
        <check><custom ident="c" when="prim" exec="%CK%" action="restart"/><custom ident="d" when="prim" exec="/opt/d" action="restart"/></check>
        </service></safe>"#;
    let names = |package: &Package| {
        let files = package.files().map(|(path, _)| path.to_string());
        files.filter(|path| path.starts_with("bin/")).collect::<Vec<_>>()
    };
    let script: &[u8] = b"#!/bin/sh\r\nexit 0\r\n";
    for prefix in ["", "App/"] {
        for conf in ["userconfig.xml", "conf/userconfig.xml"] {
            let path = |name: &str| format!("{prefix}{name}");
            let (conf, ck, mend, d, start) =
                (path(conf), path("ck.sh"), path("mend.sh"), path("d"), path("start_prim"));
            let package = Package::from_archive(&pack(&[
                file(&conf, xml),
                file(&ck, script),
                file(&mend, b"#!/bin/sh\n"),
                file(&d, b"beside"),
                file(&start, b"#!/bin/sh\n"),
            ]))
            .expect("readable");
            assert_eq!(names(&package), ["bin/ck.sh", "bin/mend.sh", "bin/start_prim"], "{conf}");
            let notes = package.notes.join("\n");
            assert!(notes.contains("d is left out") && !notes.contains("ck.sh is left out"), "{notes}");
            assert!(notes.contains("bin/ck.sh has the line ends of Windows"), "{notes}");
        }
    }
    let root = temporary();
    let folder = root.path().join("app");
    std::fs::create_dir_all(folder.join("conf")).expect("made");
    std::fs::write(folder.join("conf/userconfig.xml"), xml).expect("written");
    for program in ["ck.sh", "mend.sh", "else.sh"] {
        std::fs::write(folder.join(program), script).expect("written");
    }
    assert_eq!(names(&Package::from_folder(&folder).expect("a module")), ["bin/ck.sh", "bin/mend.sh"]);
}

#[test]
fn a_folder_with_links_is_refused() {
    let root = temporary();
    let folder = root.path().join("app");
    std::fs::create_dir_all(folder.join("conf")).expect("made");
    std::fs::create_dir_all(folder.join("bin")).expect("made");
    std::fs::write(folder.join("conf/userconfig.xml"), CONFIGURATION).expect("written");
    std::os::unix::fs::symlink("/etc/shadow", folder.join("bin/start_prim")).expect("linked");
    assert!(matches!(Package::from_folder(&folder), Err(PackageError::Kind { .. })));
}

#[test]
fn packing_is_reproducible() {
    let package = Package::from_archive(&pack(&[
        file("conf/userconfig.xml", CONFIGURATION),
        file("bin/start_prim", b"#!/bin/sh\n"),
    ]))
    .expect("fine");
    let once = package.to_archive("app").expect("packed");
    assert_eq!(once, package.to_archive("app").expect("packed"));
    assert_eq!(Package::from_archive(&once).expect("read back"), package);
}

/// A folder that somebody else wrote, and root installs: nothing of root's comes into the module.
#[test]
fn a_folder_with_links_and_pipes_in_it_is_refused() {
    use std::os::unix::fs::symlink;
    let secret = temporary();
    std::fs::write(secret.path().join("userconfig.xml"), CONFIGURATION).expect("written");
    std::fs::write(secret.path().join("shadow"), b"root:$y$").expect("written");
    let refused = |make: &dyn Fn(&std::path::Path), because: &str| {
        let folder = temporary();
        for dir in ["conf", "bin"] {
            std::fs::create_dir(folder.path().join(dir)).expect("made");
        }
        std::fs::write(folder.path().join("conf/userconfig.xml"), CONFIGURATION).expect("written");
        Package::from_folder(folder.path()).expect("a module so far");
        make(folder.path());
        let (done, result) = std::sync::mpsc::channel();
        let path = folder.path().to_path_buf();
        std::thread::spawn(move || done.send(Package::from_folder(&path)));
        let result = result.recv_timeout(std::time::Duration::from_secs(10)).expect("an answer, not a wait for ever");
        let error = result.expect_err(because).to_string();
        assert!(error.contains(because), "{error}");
    };
    let shadow = secret.path().join("shadow");
    refused(&|at| symlink(&shadow, at.join("prestart")).expect("linked"), "'prestart' is a symbolic link");
    refused(&|at| symlink(&shadow, at.join("bin/start_prim")).expect("linked"), "'bin/start_prim' is a symbolic link");
    for part in ["conf", "bin"] {
        let replace = |at: &std::path::Path| {
            std::fs::remove_dir_all(at.join(part)).expect("removed");
            symlink(secret.path(), at.join(part)).expect("linked");
        };
        refused(&replace, &format!("'{part}' is a symbolic link"));
    }
    refused(&|at| symlink(secret.path(), at.join("bin/more")).expect("linked"), "'bin/more' is a symbolic link");
    for pipe in ["start_prim", "bin/pipe"] {
        let make = |at: &std::path::Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mkfifoat(rustix::fs::CWD, at.join(pipe), mode).expect("a pipe");
        };
        refused(&make, &format!("'{pipe}' is neither a file nor a folder"));
    }
}

#[test]
fn what_is_private_stays_private_on_every_way() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, root) = (temporary(), temporary());
    let write = |name: &str, mode| {
        let path = folder.path().join("app").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, if name.ends_with(".xml") { CONFIGURATION } else { b"#!/bin/sh\n" }).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    let files = [
        ("conf/userconfig.xml", 0o644, 0o644),
        ("conf/password", 0o600, 0o600),
        ("conf/readable", 0o640, 0o644),
        ("bin/start_prim", 0o755, 0o755),
        ("bin/secretive", 0o700, 0o700),
        ("bin/stop_prim", 0o4755, 0o755),
    ];
    files.iter().for_each(|(name, mode, _)| write(name, *mode));
    let looked_at = |dir: &std::path::Path| {
        for (name, _, wanted) in files {
            let mode = std::fs::metadata(dir.join(name)).expect("there").permissions().mode() & 0o7777;
            assert_eq!(mode, wanted, "{name} in {}", dir.display());
        }
    };
    let store = store_in(root.path());
    let staged =
        agent::modules::stage(folder.path().join("app").to_str().expect("plain"), root.path()).expect("a module");
    store.install(&name("app"), &staged.archive, ModuleId(1), false).expect("installed");
    looked_at(&store.editable_dir(&name("app")));
    let package = store.package(&name("app")).expect("packed again, for the other nodes");
    let prepared = store.prepare(&name("app"), &package, ModuleId(1), agent::modules::Around::default());
    let active = store.commit(&prepared.expect("prepared").token).expect("in force");
    looked_at(&active.dir);
    assert!(store.is_in_force(&name("app"), &Package::from_archive(&package).expect("a module")));
    // Another mode of a file is another package, not the one in force.
    write("conf/password", 0o644);
    let open = Package::from_folder(&folder.path().join("app")).expect("a module");
    assert!(!store.is_in_force(&name("app"), &open));
}

#[test]
fn a_private_configuration_is_private_in_every_form() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = temporary();
    let store = store_in(root.path());
    let secret = Entry { name: "conf/userconfig.xml", content: CONFIGURATION, mode: 0o100_600 };
    let prepared = store.prepare(&name("app"), &pack(&[secret]), ModuleId(1), agent::modules::Around::default());
    let active = store.commit(&prepared.expect("prepared").token).expect("in force");
    for file in ["conf/userconfig.xml", "module.json"] {
        let mode = std::fs::metadata(active.dir.join(file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn names_that_read_as_others_are_refused() {
    for unseen in ["bin/start\u{202e}mirp", "bin/a\u{200b}b", "conf/\u{feff}x", "bin/\u{2066}y"] {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [("conf/userconfig.xml", CONFIGURATION), (unseen, b"x")] {
            writer.start_file(name, SimpleFileOptions::default()).expect("started");
            writer.write_all(content).expect("written");
        }
        refused_bytes(&writer.finish().expect("finished").into_inner(), "is not seen, or turns others round");
    }
}
