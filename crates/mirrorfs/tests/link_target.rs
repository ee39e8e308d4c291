//! What a target does where its copy differs, and what the leader makes of it: nothing that it could not change may
//! leave a name that means another file, and nothing that it missed may go unnoticed.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;
#[path = "link/scripted.rs"]
mod scripted;

use front::ROOT;
use model::ids::Lsn;
use model::orders::Report;
use pair::{Pair, done, wait};
use replica::op::{FileId, Op, Owner, Time};
use replica::wire::{Chunk, Difference, EntriesWriter, Entry, LINKS_FROM, Message};
use scripted::{Mad, Target};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const T: Time = Time { sec: 1, nsec: 1 };
const EXCHANGE: u32 = 2;

fn begin(p: &mut Pair) -> Mad {
    let session = p.next_session();
    p.follower.follow(session, pair::FULL).unwrap();
    Mad::connect(p, session, false)
}

fn rename<'a>(from_name: &'a [u8], to_name: &'a [u8], flags: u32) -> Message<'a> {
    let (from, to, from_mtime, to_mtime) = (ROOT, ROOT, T, T);
    Message::Op(Op::Rename { from, from_name, to, to_name, flags, from_mtime, to_mtime })
}

/// The names of `found`, whatever it is.
fn names(found: &[scripted::Found]) -> Vec<&str> {
    found.iter().map(|(_, _, name)| name.as_str()).filter(|name| !name.is_empty()).collect()
}

/// A name that stayed would be bound to by what the leader has there, and writing to that changed the other file.
#[test]
fn a_name_that_could_not_be_changed_does_not_lead_to_another_file() {
    let mut p = Pair::new();
    let b = p.tree("b");
    fs::write(b.join("f"), "one").unwrap();
    for name in ["g", "h", "i"] {
        fs::hard_link(b.join("f"), b.join(name)).unwrap();
    }
    fs::create_dir_all(b.join("dir/below")).unwrap();
    let mut leader = begin(&mut p);
    // What is moved there is not here; nor is what is linked, nor one of two that change places.
    leader.say(&rename(b"missing", b"g", 0));
    assert_eq!(names(&leader.settle()), ["g", "missing"]);
    let id = FileId(5_000);
    leader.say(&Message::Op(Op::Bind { id, parent: ROOT, name: b"missing", kind: 0o100_000 }));
    leader.say(&Message::Op(Op::Link { id, parent: ROOT, name: b"h", parent_mtime: T }));
    assert_eq!(names(&leader.settle()), ["missing", "h"]);
    leader.say(&rename(b"missing", b"i", EXCHANGE));
    leader.say(&rename(b"dir", b"its new name", EXCHANGE));
    assert_eq!(names(&leader.settle()), ["i", "missing", "its new name", "dir"]);
    assert!(!b.join("g").exists() && !b.join("h").exists() && !b.join("i").exists());
    assert_eq!(fs::metadata(b.join("missing")).unwrap().ino(), fs::metadata(b.join("f")).unwrap().ino());
    assert!(b.join("its new name/below").is_dir() && !b.join("dir").exists());
    assert_eq!(fs::read(b.join("f")).unwrap(), b"one");
    // Two names of one file change nothing; there they may be two files.
    fs::hard_link(b.join("f"), b.join("j")).unwrap();
    leader.say(&rename(b"f", b"j", 0));
    assert_eq!(names(&leader.settle()), ["j", "f"]);
}

fn entry(tree: &Path, name: &str, link: u64) -> EntriesWriter {
    let m = fs::metadata(tree.join(name)).unwrap();
    let mut entries = EntriesWriter::default();
    entries.push(&Entry {
        name: name.as_bytes(),
        mode: m.mode(),
        uid: m.uid(),
        gid: m.gid(),
        size: m.len(),
        mtime: Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 },
        rdev: 0,
        link,
        xattrs: [0; 16],
        target: b"",
    });
    entries
}

/// Two files of the leader on one file here: each gets its own, also when one of the names has gone meanwhile.
#[test]
fn files_that_share_one_here_are_told_apart() {
    let mut p = Pair::new();
    let b = p.tree("b");
    fs::write(b.join("f"), "one").unwrap();
    for name in ["g", "h"] {
        fs::hard_link(b.join("f"), b.join(name)).unwrap();
    }
    let mut leader = begin(&mut p);
    let check = |leader: &mut Mad, name: &str, link: u64| {
        let entries = entry(&b, name, link);
        leader.say(&Message::CheckEntries { dir: ROOT, part: Chunk::ENTRIES, entries: entries.entries() });
        leader.settle()
    };
    // One name there, three here.
    assert_eq!(check(&mut leader, "h", 0), [(Difference::Link, ROOT, "h".into())]);
    // `f` is one of several names there; then it goes, and `h`: the one that is left here is the other's.
    assert_eq!(check(&mut leader, "f", LINKS_FROM + 1), []);
    for name in [&b"f"[..], b"h"] {
        leader.say(&Message::Op(Op::Unlink { parent: ROOT, name, parent_mtime: T }));
    }
    leader.settle();
    assert_eq!(check(&mut leader, "g", 0), [(Difference::Link, ROOT, "g".into())]);
    // The last name of the file that had several.
    assert_eq!(check(&mut leader, "g", LINKS_FROM + 1), []);
}

/// The front knew the file by the name that went; the target misses the change under the other.
#[test]
fn a_missed_change_is_compared_under_the_name_that_is_left() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let (file, w) = p.front.create(ROOT, b"goes", 0o600);
    done(&w);
    done(&p.front.write(file, 0, b"something"));
    done(&p.front.link(file, ROOT, b"stays"));
    let mut target = Target::of(&mut p);
    // Everything is found equal, up to the sync that comes before the commit.
    let sync = target.follow("sync", |m| matches!(m, Message::Sync { .. }));
    done(&p.front.write(file, 0, b"another"));
    done(&p.front.unlink(ROOT, b"goes"));
    let missed = target.follow("write", |m| matches!(m, Message::Op(Op::Write { .. })));
    target.say(&Message::Difference { lsn: missed, what: Difference::Absent, id: file, offset: 0, len: 0, name: b"" });
    target.say(&Message::Applied { lsn: missed });
    target.say(&Message::Synced { lsn: sync });
    target.follow("comparison of what is left", |m| matches!(m, Message::CheckBlocks { .. }));
}

/// On the target, each name may be another file: what is known by one that goes is not to be written to there.
#[test]
fn a_file_that_loses_a_name_is_bound_by_one_that_stays() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let (file, w) = p.front.create(ROOT, b"goes", 0o600);
    done(&w);
    done(&p.front.link(file, ROOT, b"stays"));
    let mut target = Target::of(&mut p);
    target.follow("sync", |m| matches!(m, Message::Sync { .. }));
    done(&p.front.write(file, 0, b"by the first name"));
    target.follow("bind", |m| matches!(m, Message::Op(Op::Bind { id, name: b"goes", .. }) if *id == file));
    done(&p.front.unlink_one(file, ROOT, b"goes", (ROOT, b"stays")));
    done(&p.front.write(file, 0, b"by the second"));
    target.follow("bind", |m| matches!(m, Message::Op(Op::Bind { id, name: b"stays", .. }) if *id == file));
    target.follow("write", |m| matches!(m, Message::Op(Op::Write { data: b"by the second", .. })));
}

/// The leader would wait for the commit until its time is up.
#[test]
fn a_commit_that_the_disk_of_the_target_does_not_take_is_told_at_once() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let session = p.begin(pair::FULL);
    wait(&p.from_leader, "ResyncThrough", |r| matches!(r, Report::ResyncThrough { .. }));
    let state = Path::new(&p.configurations[1].state_dir).to_owned();
    fs::rename(&state, state.with_extension("away")).unwrap();
    fs::write(&state, "not a directory").unwrap();
    p.leader.send_commit(session);
    wait(&p.from_follower, "CommitReceived", |r| matches!(r, Report::CommitReceived { .. }));
    p.follower.confirm_commit(session);
    let told = wait(&p.from_leader, "PeerFault", |r| matches!(r, Report::PeerFault { .. } | Report::LinkLost { .. }));
    assert!(matches!(&told, Report::PeerFault { reason, .. } if reason.contains("commit")), "{told:?}");
}

/// Restored under a name that goes while it has two: what is repaired then is the file of the other name.
#[test]
fn a_file_that_was_restored_with_several_names_is_bound_by_the_one_it_is_compared_by() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let (file, w) = p.front.create(ROOT, b"goes", 0o600);
    done(&w);
    done(&p.front.write(file, 0, b"something"));
    let mut target = Target::of(&mut p);
    let lists = |m: &Message<'_>, name: &[u8]| matches!(m, Message::CheckEntries { entries, .. } if entries.iter().any(|e| e.name == name));
    let check = target.follow("check", |m| lists(m, b"goes"));
    done(&p.front.link_before_the_resync(file, ROOT, b"stays", || {
        target.differs(check, Difference::Link, b"goes");
        target.say(&Message::Applied { lsn: check });
    }));
    let restored = target.follow("restore", |m| matches!(m, Message::Restore(Op::Create { name: b"goes", .. })));
    done(&p.front.unlink(ROOT, b"goes"));
    target.say(&Message::Applied { lsn: restored });
    let check = target.follow("check of the other name", |m| lists(m, b"stays"));
    target.differs(check, Difference::Attributes, b"stays");
    target.say(&Message::Applied { lsn: check });
    target.follow("bind by the other name", |m| {
        assert!(!matches!(m, Message::Sync { .. }), "it was repaired by an id of a name that has gone");
        matches!(m, Message::Op(Op::Bind { name: b"stays", .. }))
    });
}

/// It was empty when it was compared; what the target has instead is not where it is written to now.
#[test]
fn a_file_that_was_empty_is_compared_all_the_same() {
    let mut p = Pair::new();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    let mut target = Target::of(&mut p);
    let check = target.follow("check", |m| matches!(m, Message::CheckEntries { .. }));
    done(&p.front.write(file, 200_000, b"behind a hole"));
    target.differs(check, Difference::Attributes, b"f");
    target.say(&Message::Applied { lsn: check });
    target.follow("comparison of the hole", |m| {
        assert!(!matches!(m, Message::Sync { .. }), "what is in the hole there was not asked");
        matches!(m, Message::CheckHole { .. })
    });
}

/// The application writes faster than the target takes it in, and is answered at once: more than half of the window is never free.
#[test]
fn a_resync_has_its_turn_behind_an_application_that_fills_the_window() {
    const BEHIND: u64 = 5_000;
    const MOST: u64 = 60_000;
    let mut p = Pair::in_memory();
    fs::write(p.tree("a").join("lacking"), "here only").unwrap();
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    let (file, w) = p.front.create(ROOT, b"written", 0o600);
    done(&w);
    let mut target = Target::of(&mut p);
    let check = target.follow("check", |m| matches!(m, Message::CheckEntries { .. }));
    let over = AtomicBool::new(false);
    let front = p.front.clone();
    std::thread::scope(|scope| {
        let application = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                done(&front.write(file, 0, b"again and again"));
            }
        });
        // Answered is what is so far behind: the window stays more than half full.
        let mut told = false;
        let turn = (0..MOST).find(|_| {
            let (lsn, is_it) = target.next(|m| matches!(m, Message::Restore(Op::Create { name: b"lacking", .. })));
            let lsn = lsn.0.saturating_sub(BEHIND);
            if lsn >= check.0 && !std::mem::replace(&mut told, true) {
                target.differs(check, Difference::Missing, b"lacking");
            }
            if lsn >= check.0 && lsn % 64 == 0 {
                target.say(&Message::Applied { lsn: Lsn(lsn) });
            }
            is_it
        });
        over.store(true, Ordering::Relaxed);
        drop(target);
        application.join().unwrap();
        assert!(turn.is_some(), "{MOST} changes came, and nothing of the resync");
    });
}

/// Its directories may have other default ACLs than the leader's: what it makes gets what the leader says, and that is told apart.
#[test]
fn what_a_target_makes_gets_nothing_from_its_directory() {
    let mut p = Pair::new();
    let b = p.tree("b");
    let said = std::process::Command::new("setfacl").args(["-d", "-m", "u:1000:rwx"]).arg(&b).status();
    assert!(said.expect("setfacl").success());
    let mut leader = begin(&mut p);
    let owner = Owner { mode: 0o640, uid: 0, gid: 0 };
    let (id, parent, mtime, parent_mtime) = (FileId(5_000), ROOT, T, T);
    leader.say(&Message::Op(Op::Create { id, parent, name: b"file", owner, mtime, parent_mtime }));
    let (id, kind) = (FileId(5_001), 0o010_000);
    leader.say(&Message::Op(Op::Mknod { id, parent, name: b"fifo", kind, rdev: 0, owner, mtime, parent_mtime }));
    leader.say(&Message::Op(Op::Mkdir { id: FileId(5_002), parent, name: b"dir", owner, mtime, parent_mtime }));
    let restored = Op::Mkdir { id: FileId(5_003), parent, name: b"restored", owner, mtime, parent_mtime };
    leader.say(&Message::Restore(restored));
    assert_eq!(leader.settle(), []);
    for name in ["file", "fifo", "dir", "restored"] {
        assert_eq!(fs::metadata(b.join(name)).unwrap().mode() & 0o7777, 0o640, "{name}");
        for acl in ["access", "default"] {
            let there = rustix::fs::getxattr_query(b.join(name), format!("system.posix_acl_{acl}"));
            assert_eq!(there, Err(rustix::io::Errno::NODATA), "{name} has the {acl} ACL of its directory");
        }
    }
}
