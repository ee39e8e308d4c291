//! The bytes of the link: what version 1 wrote is read for ever, what we write we read, and garbage is refused.

use model::ids::{Epoch, Lsn, NodeId};
use proptest::prelude::*;
use replica::wire::*;
use replica::{FileId, Op, Owner, Time};

const ENVELOPE: Envelope = Envelope { session: 0x1122_3344_5566_7788, epoch: 0xaabb_ccdd, lsn: 42 };

fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &ENVELOPE, crc32c::crc32c, &mut out);
    out
}

fn read(bytes: &[u8]) -> Result<(Header, Message<'_>), WireError> {
    let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(WireError::Short)?;
    let h = Header::decode(head)?;
    Ok((h, decode(&h, &bytes[HEADER_BYTES..], crc32c::crc32c)?))
}

fn samples(check: &mut dyn FnMut(Message<'_>)) {
    let (id, parent) = (FileId(2000), FileId(1));
    let (mtime, parent_mtime) = (Time { sec: 1_700_000_000, nsec: 5 }, Time { sec: -7, nsec: 999_999_999 });
    let owner = Owner { mode: 0o2750, uid: 1000, gid: 65534 };
    let name: &[u8] = b"caf\xe9 \n*";
    let ops = [
        Op::Bind { id, parent, name, kind: 0o100_000 },
        Op::Unbind { id },
        Op::Create { id, parent, name, owner, mtime, parent_mtime },
        Op::Mkdir { id, parent, name, owner, mtime, parent_mtime },
        Op::Mknod { id, parent, name, kind: 0o20_000, rdev: 0x501, owner, mtime, parent_mtime },
        Op::Symlink { id, parent, name, target: b"../elsewhere", owner, mtime, parent_mtime },
        Op::Link { id, parent, name, parent_mtime },
        Op::Unlink { parent, name, parent_mtime },
        Op::Rmdir { parent, name, parent_mtime },
        Op::Rename {
            from: parent,
            from_name: name,
            to: id,
            to_name: b"x",
            flags: 2,
            from_mtime: mtime,
            to_mtime: parent_mtime,
        },
        Op::Write { id, offset: 1 << 40, data: b"hello", mtime },
        Op::SetAttr { id, mode: Some(0o644), uid: None, gid: Some(5), size: Some(9), atime: None, mtime: Some(mtime) },
        Op::Fallocate { id, mode: 3, offset: 65536, len: 4096, mtime },
        Op::SetXattr { id, name: b"user.a", value: b"\0\x01" },
        Op::RemoveXattr { id, name: b"user.a" },
    ];
    for op in ops {
        check(Message::Op(op));
    }
    let mut entries = EntriesWriter::default();
    let dir = Entry {
        name: b"",
        mode: 0o40_755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime,
        rdev: 0,
        link: 0,
        xattrs: [0; 16],
        target: b"",
    };
    entries.push(&dir);
    entries.push(&Entry { name, mode: 0o120_777, size: 3, link: 77, xattrs: [9; 16], target: b"abc", ..dir });
    let mut xattrs = XattrsWriter::default();
    assert!(xattrs.push(b"user.k", b"v") && xattrs.push(b"trusted.t", b""));
    for message in [
        Message::Restore(Op::Link { id, parent, name, parent_mtime }),
        Message::Sync { id: EVERYTHING, data_only: false },
        Message::CheckEntries { dir: parent, part: Chunk { first: true, last: true }, entries: entries.entries() },
        Message::CheckBlocks { id, offset: 65536, len: 65537, last: true, hashes: &[7; 64] },
        Message::CheckHole { id, offset: 5, len: 6, last: false },
        Message::Purge { parent, name, parent_mtime },
        Message::Xattrs { id, list: xattrs.list() },
        Message::Commit,
        Message::Heartbeat,
        Message::Applied { lsn: Lsn(7) },
        Message::Synced { lsn: Lsn(8) },
        Message::Difference { lsn: Lsn(9), what: Difference::Blocks, id, offset: 1, len: 2, name: b"" },
        Message::Fault { lsn: Lsn(10), reason: b"disk full" },
        Message::Committed,
        Message::Space { available_bytes: 1, free_bytes: 2, free_inodes: 3 },
        Message::Hello(Hello {
            versions: (1, 1),
            features: 0,
            epoch: Epoch { counter: 3, node: NodeId(2), random: 0xdead_beef },
            session: 9,
            direction: Direction::Answers,
            resume: true,
            instance: 1,
            pair: 2,
            module: b"AM",
        }),
        Message::Welcome(Welcome {
            accepted: false,
            version: 1,
            features: 0,
            instance: 5,
            followed: 1,
            applied: Lsn(12),
            reason: b"no",
        }),
    ] {
        check(message);
    }
}

/// The bytes of version 1, one frame per line. Never edit a line: a new version adds a file.
#[test]
fn what_version_1_wrote_is_read_for_ever() {
    let stored = include_str!("golden/v1.hex");
    let mut lines = stored.lines();
    let mut now = String::new();
    let mut differs = false;
    samples(&mut |message| {
        let hex: String = frame(&message).iter().map(|b| format!("{b:02x}")).collect();
        now += &hex;
        now += "\n";
        let Some(line) = lines.next() else {
            differs = true;
            return;
        };
        let old: Vec<u8> =
            (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(read(&old).map(|(_, m)| m), Ok(message), "a node of version 1 said this");
        differs |= line != hex;
    });
    assert!(lines.next().is_none(), "a message of version 1 is not understood any more");
    assert!(!differs, "today's bytes differ from the stored ones of version 1; they would be:\n{now}");
}

/// A bit of the header that version 1 ignored from the beginning: an older peer makes everything durable.
#[test]
fn a_sync_of_data_alone_differs_by_one_ignored_bit() {
    let (all, data) = (false, true);
    let sync = |data_only| Message::Sync { id: FileId(7), data_only };
    assert_eq!(read(&frame(&sync(data))).map(|(_, m)| m), Ok(sync(data)));
    let differing: Vec<_> = frame(&sync(all)).into_iter().zip(frame(&sync(data))).filter(|(a, b)| a != b).collect();
    assert_eq!(differing, [(0, 1)]);
}

#[test]
fn every_message_survives_the_wire() {
    samples(&mut |message| {
        let bytes = frame(&message);
        let (h, back) = read(&bytes).unwrap();
        assert_eq!(back, message);
        assert_eq!((h.session, h.epoch, h.lsn), (ENVELOPE.session, ENVELOPE.epoch, ENVELOPE.lsn));
    });
}

#[test]
fn names_that_lead_out_of_their_directory_are_refused() {
    let long = [b'a'; 256];
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"../x", b"a\0", &long[..]] {
        let (parent, parent_mtime) = (FileId(1), Time::default());
        for op in [Op::Unlink { parent, name, parent_mtime }, Op::Bind { id: FileId(3), parent, name, kind: 0 }] {
            let bytes = frame(&Message::Op(op));
            assert_eq!(read(&bytes).unwrap_err(), WireError::Name, "{name:?}");
        }
        assert_eq!(read(&frame(&Message::Purge { parent, name, parent_mtime })).unwrap_err(), WireError::Name);
    }
}

#[test]
fn lengths_of_strangers_are_refused_before_anything_is_read() {
    let mut bytes = frame(&Message::Heartbeat);
    bytes[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Header::decode(bytes.first_chunk().unwrap()), Err(WireError::TooLong { length: u32::MAX }));
    let mut newer = frame(&Message::Heartbeat);
    newer[4] = VERSION + 1;
    assert!(matches!(read(&newer), Err(WireError::Version { .. })));
    assert_eq!(Header::decode(&[b'G'; 64]), Err(WireError::NotOurs));
}

/// Always the same numbers: what fails once fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// A few changes of the kinds that decoders stumble over.
    fn spoil(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, u32::MAX as u64, u64::MAX];
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, b'/', b'.', 0xff][self.below(4)],
                2 => {
                    // A number of any width, at its edges.
                    let number = EDGES[self.below(EDGES.len())].to_le_bytes();
                    let width = [2, 4, 8][self.below(3)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&number[..width]);
                }
                3 => bytes.truncate(at),
                4 => bytes.extend_from_slice(&[0, 0xff, b'.', b'/'][..self.below(5)]),
                5 => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => bytes.splice(at..at, [0; 8]).for_each(drop),
            }
        }
    }
}

/// Names of directory entries that a message brings.
fn names<'a>(message: &Message<'a>) -> Vec<&'a [u8]> {
    match *message {
        Message::Op(op) | Message::Restore(op) => match op {
            Op::Bind { name, .. }
            | Op::Create { name, .. }
            | Op::Mkdir { name, .. }
            | Op::Mknod { name, .. }
            | Op::Symlink { name, .. }
            | Op::Link { name, .. }
            | Op::Unlink { name, .. }
            | Op::Rmdir { name, .. } => vec![name],
            Op::Rename { from_name, to_name, .. } => vec![from_name, to_name],
            _ => vec![],
        },
        Message::Purge { name, .. } => vec![name],
        Message::CheckEntries { entries, .. } => entries.iter().map(|e| e.name).filter(|n| !n.is_empty()).collect(),
        _ => vec![],
    }
}

/// A peer that speaks with a right checksum and means harm: every message of the language, changed in every way, is
/// refused, or is a message that says the same when it is said again.
#[test]
fn spoilt_frames_of_every_kind_are_refused_or_harmless() {
    let mut frames = Vec::new();
    samples(&mut |message| frames.push(frame(&message)));
    let payloads: Vec<Vec<u8>> = frames.iter().map(|frame| frame[HEADER_BYTES..].to_vec()).collect();
    let mut random = Random(7);
    let (mut read_again, mut refused) = (0, 0);
    for round in 0..400 {
        for frame in &frames {
            let (mut head, mut payload) = (frame[..HEADER_BYTES].to_vec(), frame[HEADER_BYTES..].to_vec());
            if round % 4 == 0 {
                // What is behind the length and the checksum, which are made right below.
                let at = 4 + random.below(HEADER_BYTES - 4);
                head[at] = [0, 1, 0xff, head[at] ^ 1, head[at] ^ 0x80][random.below(5)];
            }
            random.spoil(&mut payload, &payloads);
            head[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            head[20..24].copy_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
            let bytes = [head, payload].concat();
            let Ok((header, message)) = read(&bytes) else {
                refused += 1;
                continue;
            };
            assert!(names(&message).iter().all(|name| replica::op::is_entry_name(name)), "{message:?}");
            let envelope = Envelope { session: header.session, epoch: header.epoch, lsn: header.lsn };
            let mut again = Vec::new();
            encode(&message, &envelope, crc32c::crc32c, &mut again);
            assert_eq!(read(&again).map(|(_, m)| m), Ok(message));
            read_again += 1;
        }
    }
    assert!(read_again > 1_000 && refused > 1_000, "{read_again} read, {refused} refused");
}

proptest! {
    #[test]
    fn writes_survive(id: u64, offset in 0u64..1 << 60, data: Vec<u8>, sec: i64, nsec in 0u32..1_000_000_000) {
        let message = Message::Op(Op::Write { id: FileId(id), offset, data: &data, mtime: Time { sec, nsec } });
        let bytes = frame(&message);
        prop_assert_eq!(read(&bytes).unwrap().1, message);
    }

    #[test]
    fn garbage_never_panics(kind in 0u8..90, flags: u16, offset: u64, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = frame(&Message::Heartbeat);
        bytes[5] = kind;
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[40..48].copy_from_slice(&offset.to_le_bytes());
        bytes[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        if let Ok((_, Message::CheckEntries { entries, .. })) = read(&bytes) {
            prop_assert!(entries.iter().all(|e| e.name.is_empty() || replica::op::is_entry_name(e.name)));
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_harmless(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = frame(&Message::Op(Op::Write { id: FileId(9), offset: 0, data: b"precious", mtime: Time::default() }));
        let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(read(&bytes).unwrap_err(), WireError::Checksum);
    }
}
