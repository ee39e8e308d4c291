//! A peer gone mad, and strangers at the door: nothing escapes the replicated directory, nobody dies, nothing
//! is promised that is not so.

#[path = "link/certificates.rs"]
mod certificates;
#[path = "link/front.rs"]
mod front;
#[path = "link/pair.rs"]
mod pair;
#[path = "link/scripted.rs"]
mod scripted;

use front::ROOT;
use mirrorfs::link::{FrameWriter, Identity, dial};
use model::ids::Lsn;
use model::orders::Report;
use pair::{Pair, done, is_waiting, wait};
use replica::op::{FileId, Op, Owner, Time};
use replica::wire::{Difference, Direction, Envelope, Hello, Message, XattrsWriter};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use scripted::{Mad, Target};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const T: Time = Time { sec: 1, nsec: 1 };
const O: Owner = Owner { mode: 0o644, uid: 0, gid: 0 };

fn bad_changes() -> Vec<Op<'static>> {
    let (parent, id) = (ROOT, FileId(5000));
    let names: [&[u8]; 12] = [
        b"..",
        b".",
        b"",
        b"/",
        b"/etc/passwd",
        b"../canary",
        b"a/../../canary",
        b"x\0y",
        b"../../canary",
        b"./x",
        b"a/",
        &[b'n'; 256],
    ];
    let mut ops = Vec::new();
    for name in names {
        ops.extend([
            Op::Create { id, parent, name, owner: O, mtime: T, parent_mtime: T },
            Op::Mkdir { id, parent, name, owner: O, mtime: T, parent_mtime: T },
            Op::Mknod { id, parent, name, kind: 0o010_000, rdev: 0, owner: O, mtime: T, parent_mtime: T },
            Op::Symlink { id, parent, name, target: b"t", owner: O, mtime: T, parent_mtime: T },
            Op::Link { id: ROOT, parent, name, parent_mtime: T },
            Op::Unlink { parent, name, parent_mtime: T },
            Op::Rmdir { parent, name, parent_mtime: T },
            Op::Rename {
                from: parent,
                from_name: name,
                to: parent,
                to_name: b"ok",
                flags: 0,
                from_mtime: T,
                to_mtime: T,
            },
            Op::Rename {
                from: parent,
                from_name: b"inside",
                to: parent,
                to_name: name,
                flags: 0,
                from_mtime: T,
                to_mtime: T,
            },
            Op::Bind { id, parent, name, kind: 0o040_000 },
        ]);
    }
    for id in [FileId(0), FileId(2), FileId(999_999), FileId(u64::MAX)] {
        ops.extend([
            Op::Write { id, offset: 0, data: b"x", mtime: T },
            Op::Write { id, offset: u64::MAX - 1, data: b"x", mtime: T },
            Op::SetAttr {
                id,
                mode: Some(0o777),
                uid: Some(1),
                gid: None,
                size: Some(u64::MAX),
                atime: None,
                mtime: None,
            },
            Op::Fallocate { id, mode: 0x77, offset: 1, len: u64::MAX, mtime: T },
            Op::Unlink { parent: id, name: b"canary", parent_mtime: T },
            Op::Bind { id: ROOT, parent: id, name: b"canary", kind: 0 },
        ]);
    }
    ops.extend([
        Op::SetXattr { id: ROOT, name: b"trusted.stead.data_id", value: b"forged" },
        Op::SetXattr { id: ROOT, name: b"nonsense", value: b"" },
        Op::RemoveXattr { id: ROOT, name: b"trusted.stead.data_id" },
        Op::SetAttr { id: ROOT, mode: None, uid: None, gid: None, size: Some(0), atime: None, mtime: None },
        Op::Rename {
            from: ROOT,
            from_name: b"inside",
            to: ROOT,
            to_name: b"z",
            flags: 0xff,
            from_mtime: T,
            to_mtime: T,
        },
        Op::Mknod { id, parent, name: b"weird", kind: 0o150_000, rdev: 0, owner: O, mtime: T, parent_mtime: T },
    ]);
    ops
}

/// Everything around the replicated directory, by name and content.
fn surroundings(p: &Pair) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(p.base.path().join("b"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_mad_leader_cannot_leave_the_directory_nor_kill_the_follower() {
    let mut p = Pair::new();
    fs::write(p.base.path().join("b/canary"), "sings").unwrap();
    let before = surroundings(&p);
    let mut count = 0;
    for op in bad_changes() {
        for kind in 0..2 {
            fs::write(p.tree("b").join("inside"), "x").unwrap();
            let session = p.next_session();
            p.follower.follow(session, pair::FULL).unwrap();
            let mut mad = Mad::connect(&p, session, false);
            mad.say(&if kind == 0 { Message::Op(op) } else { Message::Restore(op) });
            mad.settle();
            count += 1;
        }
    }
    println!("{count} bad changes");
    assert!(count >= 200);
    assert_eq!(surroundings(&p), before, "something escaped");
    // It is as good as new.
    p.forget_reports();
    p.mirror();
    p.assert_equal();
}

#[test]
fn links_lead_nowhere() {
    let mut p = Pair::new();
    fs::write(p.base.path().join("b/canary"), "sings").unwrap();
    let before = surroundings(&p);
    let outside = p.base.path().join("b");
    let target = outside.as_os_str().as_encoded_bytes().to_vec();
    let session = p.next_session();
    p.follower.follow(session, pair::FULL).unwrap();
    let mut mad = Mad::connect(&p, session, false);
    let (link, dir, file) = (FileId(3000), FileId(3001), FileId(3002));
    mad.say(&Message::Op(Op::Symlink {
        id: link,
        parent: ROOT,
        name: b"l",
        target: &target,
        owner: O,
        mtime: T,
        parent_mtime: T,
    }));
    mad.say(&Message::Op(Op::Bind { id: dir, parent: ROOT, name: b"l", kind: 0o040_000 }));
    mad.say(&Message::Op(Op::Bind { id: dir, parent: link, name: b"canary", kind: 0o100_000 }));
    for through in [link, dir] {
        mad.say(&Message::Op(Op::Unlink { parent: through, name: b"canary", parent_mtime: T }));
        mad.say(&Message::Op(Op::Create {
            id: file,
            parent: through,
            name: b"new",
            owner: O,
            mtime: T,
            parent_mtime: T,
        }));
        mad.say(&Message::Purge { parent: through, name: b"canary", parent_mtime: T });
        mad.say(&Message::Op(Op::Write { id: through, offset: 0, data: b"owned", mtime: T }));
        mad.say(&Message::Op(Op::SetAttr {
            id: through,
            mode: Some(0),
            uid: None,
            gid: None,
            size: Some(0),
            atime: None,
            mtime: None,
        }));
    }
    let mut list = XattrsWriter::default();
    assert!(list.push(b"trusted.stead.data_id", b"forged"));
    mad.say(&Message::Xattrs { id: ROOT, list: list.list() });
    mad.settle();
    assert_eq!(surroundings(&p), before);
    assert!(fs::read_link(p.tree("b").join("l")).is_ok());
    p.forget_reports();
    p.mirror();
}

#[test]
fn frames_out_of_turn_end_the_session_and_nothing_else() {
    let mut p = Pair::new();
    let garbage: Vec<Vec<u8>> = (0..40u64)
        .map(|i| (0..200u64).map(|j| (i.wrapping_mul(0x9e37_79b9).wrapping_add(j * j * 31) >> 3) as u8).collect())
        .collect();
    for (i, bytes) in garbage.iter().enumerate() {
        let session = p.next_session();
        p.follower.follow(session, pair::FULL).unwrap();
        let mut mad = Mad::connect(&p, session, false);
        match i % 8 {
            0 => mad.envelope.session += 1,
            1 => mad.envelope.epoch ^= 1,
            2 => mad.envelope.lsn = 41,
            3 => mad.say(&Message::Committed),
            4 => mad.say(&Message::Hello(Hello {
                versions: (1, 1),
                features: 0,
                epoch: session.epoch,
                session: 1,
                direction: Direction::Answers,
                resume: false,
                instance: 1,
                pair: 1,
                module: b"",
            })),
            5 => mad.say(&Message::CheckBlocks { id: ROOT, offset: 0, len: 65_536, last: true, hashes: &[0; 32] }),
            _ => mad.raw(bytes),
        }
        mad.say(&Message::Op(Op::Mkdir {
            id: FileId(2000),
            parent: ROOT,
            name: b"d",
            owner: O,
            mtime: T,
            parent_mtime: T,
        }));
        mad.settle();
        p.follower.stop();
        if i % 8 <= 2 {
            assert!(!p.tree("b").join("d").exists(), "a frame of another session was applied (case {})", i % 8);
        }
        let _ = fs::remove_dir(p.tree("b").join("d"));
    }
    p.forget_reports();
    p.mirror();
    p.assert_equal();
}

#[test]
fn strangers_at_the_port_do_not_keep_the_leader_out() {
    let mut p = Pair::new();
    let addr: SocketAddr = p.configurations[0].peer_addrs[0].parse().unwrap();
    let session = p.next_session();
    p.follower.follow(session, pair::FULL).unwrap();
    // Idle ones, loud ones.
    let idle: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for i in 0..20u8 {
        let mut s = TcpStream::connect(addr).unwrap();
        let _ = s.write_all(&vec![i; 3_000]);
    }
    // A certificate of another cluster, and one of this cluster with another name.
    let others = certificates::cluster(p.base.path(), &["a.c.stead"]);
    let mut foreign = p.configurations[0].clone();
    foreign.tls_cert = others[0].cert.display().to_string();
    foreign.tls_key = others[0].key.display().to_string();
    let mut renamed = p.configurations[0].clone();
    renamed.tls_cert = p.configurations[1].tls_cert.clone();
    renamed.tls_key = p.configurations[1].tls_key.clone();
    let hello = scripted::hello(session, false);
    for configuration in [foreign, renamed] {
        let identity = Identity::load(&configuration).unwrap();
        let begun = Instant::now();
        let outcome = dial(&[addr], &identity, &hello, &|| begun.elapsed() < Duration::from_millis(300));
        assert!(outcome.is_err(), "a stranger was welcomed");
    }
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    p.leader.lead(session, pair::FULL);
    p.commit(session);
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    done(&p.front.write(file, 0, b"x"));
    p.assert_equal();
    for mut s in idle {
        s.set_read_timeout(Some(pair::DEADLINE)).unwrap();
        // Hung up on, at the latest after the handshake's deadline.
        assert!(matches!(s.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
}

/// A stranger on another address, who says nothing and comes again as soon as he is let go.
#[test]
fn strangers_who_come_again_and_again_do_not_keep_the_leader_out() {
    let mut p = Pair::new();
    let addr: SocketAddr = p.configurations[0].peer_addrs[0].parse().unwrap();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = over.clone();
    let (full, is_full) = std::sync::mpsc::channel();
    let session = p.next_session();
    p.follower.follow(session, pair::FULL).unwrap();
    let crowd = std::thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            held.retain(|stream| {
                stream.set_nonblocking(true).unwrap();
                matches!(stream.peek(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
            });
            let room = 24 - held.len();
            for _ in 0..room {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                let own: SocketAddr = "127.0.0.66:0".parse().unwrap();
                socket.bind(&own.into()).unwrap();
                if socket.connect(&addr.into()).is_ok() {
                    held.push(socket.into());
                }
            }
            let _ = full.send(held.len());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    // More were let go than can be held: all places are taken.
    assert!(is_full.iter().take(100).count() == 100);
    p.leader.serve_alone(pair::EPOCH, true).unwrap();
    p.leader.lead(session, pair::FULL);
    p.commit(session);
    over.store(true, std::sync::atomic::Ordering::Release);
    crowd.join().unwrap();
    p.assert_equal();
}

/// `join --replace` gave the peer's name to another machine: the one that had it before is nobody's peer.
#[test]
fn a_machine_that_had_the_peers_name_before_is_not_the_peer() {
    let mut p = Pair::new();
    let session = p.next_session();
    let files = certificates::cluster(
        p.base.path(),
        &["a.c.stead,1.id.c.stead", "b.c.stead,2.id.c.stead", "a.c.stead,3.id.c.stead"],
    );
    let as_node = |node: usize, certificate: usize, peer_number: &str| {
        let mut c = p.configurations[node].clone();
        let text = |path: &std::path::Path| path.display().to_string();
        (c.tls_ca, c.tls_cert) = (text(&files[certificate].ca), text(&files[certificate].cert));
        c.tls_key = text(&files[certificate].key);
        c.peer_number = peer_number.into();
        Identity::load(&c).unwrap()
    };
    let addr: SocketAddr = p.configurations[0].peer_addrs[0].parse().unwrap();
    let hello = scripted::hello(session, false);
    let listening = as_node(1, 1, "1.id.c.stead");
    let expecting = scripted::expecting(session);
    let _listener = mirrorfs::link::Listener::start(&[addr], &listening, expecting).unwrap();
    let welcome = |identity: &Identity| {
        let begun = Instant::now();
        dial(&[addr], identity, &hello, &|| begun.elapsed() < Duration::from_millis(300)).map(drop)
    };
    let (node1, old, late) =
        (as_node(0, 0, "2.id.c.stead"), as_node(0, 2, "2.id.c.stead"), as_node(0, 0, "9.id.c.stead"));
    welcome(&node1).expect("the peer");
    assert!(welcome(&old).is_err(), "the name alone is believed by who listens");
    assert!(welcome(&late).is_err(), "the name alone is believed by who calls");
    // Another one takes its place, while this process runs.
    let mut now = p.configurations[1].clone();
    now.peer_number = "3.id.c.stead".into();
    listening.follow(&now).unwrap();
    welcome(&old).expect("it is the peer now");
    assert!(welcome(&node1).is_err());
}

/// Every node has the authority's key, also one that left: a certificate that the authority signed for the peer's name and number is
/// nothing, unless it is the one that the peer was admitted with.
#[test]
fn a_certificate_that_the_peer_was_not_admitted_with_is_not_the_peer() {
    let mut p = Pair::new();
    let session = p.next_session();
    // The third one carries what the first does (and a name more: their files are named by theirs).
    let files = certificates::cluster(
        p.base.path(),
        &["a.c.stead,1.id.c.stead", "b.c.stead,2.id.c.stead", "a.c.stead,1.id.c.stead,signed.later"],
    );
    let given = |certificate: usize| {
        let der = CertificateDer::from_pem_file(&files[certificate].cert).unwrap();
        blake3::Hash::from(blake3::derive_key(model::orders::CERTIFICATE_CONTEXT, &der)).to_hex().to_string()
    };
    let as_node = |node: usize, certificate: usize, believes: String| {
        let mut c = p.configurations[node].clone();
        let text = |path: &std::path::Path| path.display().to_string();
        (c.tls_ca, c.tls_cert) = (text(&files[certificate].ca), text(&files[certificate].cert));
        c.tls_key = text(&files[certificate].key);
        c.peer_number = if node == 0 { "2.id.c.stead".into() } else { "1.id.c.stead".into() };
        c.peer_certificate = believes;
        Identity::load(&c).unwrap()
    };
    let addr: SocketAddr = p.configurations[0].peer_addrs[0].parse().unwrap();
    let hello = scripted::hello(session, false);
    let listening = as_node(1, 1, given(0));
    let expecting = scripted::expecting(session);
    let _listener = mirrorfs::link::Listener::start(&[addr], &listening, expecting).unwrap();
    let welcome = |identity: &Identity| {
        let begun = Instant::now();
        dial(&[addr], identity, &hello, &|| begun.elapsed() < Duration::from_millis(300)).map(drop)
    };
    welcome(&as_node(0, 0, given(1))).expect("the peer");
    assert!(welcome(&as_node(0, 2, given(1))).is_err(), "another certificate of its name is believed by who listens");
    assert!(welcome(&as_node(0, 0, given(2))).is_err(), "another certificate than the peer's is believed by who calls");
}

#[test]
fn a_mad_follower_makes_the_leader_hold_and_nothing_is_promised() {
    type Madness = fn(&mut FrameWriter, &Envelope);
    let cases: [(&str, Madness); 5] = [
        ("acknowledges the future", |w, e| drop(w.send(&Message::Applied { lsn: Lsn(1 << 40) }, e))),
        ("talks of another session", |w, e| {
            drop(w.send(&Message::Applied { lsn: Lsn(1) }, &Envelope { session: 99, ..*e }))
        }),
        ("sends garbage", |w, _| drop(w.put(&[0xee; 4_000]).and_then(|()| w.flush()))),
        ("finds what nobody asked for", |w, e| {
            let (lsn, what, id, offset, len, name) = (Lsn(1), Difference::Extra, ROOT, 0, 0, &b"canary"[..]);
            drop(w.send(&Message::Difference { lsn, what, id, offset, len, name }, e));
        }),
        ("is full", |w, e| drop(w.send(&Message::Fault { lsn: Lsn(1), reason: b"no space left" }, e))),
    ];
    for (what, madness) in cases {
        let mut p = Pair::new();
        p.leader.serve_alone(pair::EPOCH, true).unwrap();
        let mut target = Target::of(&mut p);
        let envelope = target.envelope;
        madness(&mut target.writer, &envelope);
        let lost = |r: &Report| matches!(r, Report::LinkLost { .. } | Report::PeerFault { .. });
        let report = p.from_leader.iter().find(lost);
        println!("{what}: {report:?}");
        // It goes on alone, as before, with everything in its map.
        let (_, w) = p.front.create(ROOT, b"still serving", 0o600);
        done(&w);
        drop(target);
    }
}

#[test]
fn a_silent_peer_is_noticed_within_the_bound() {
    let mut p = Pair::new();
    p.mirror();
    let (file, w) = p.front.create(ROOT, b"f", 0o600);
    done(&w);
    p.follower.stop();
    let begun = Instant::now();
    let held = p.front.write(file, 0, b"x");
    wait(&p.from_leader, "LinkLost", |r| matches!(r, Report::LinkLost { .. }));
    println!("noticed after {:?}", begun.elapsed());
    assert!(is_waiting(&held));
}
