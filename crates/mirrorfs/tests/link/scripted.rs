//! One side of a session, played word by word.
#![allow(dead_code)] // each test uses its part

use super::pair::{DEADLINE, FULL, Pair};
use mirrorfs::link::{Expecting, FrameReader, FrameWriter, Identity, Listener, accept_pair, dial};
use model::ids::Lsn;
use model::orders::Session;
use replica::op::FileId;
use replica::wire::{Difference, Direction, Envelope, Hello, Message, PAYLOAD_MAX, encode, fingerprint};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A leader with a good certificate that says what it likes.
pub struct Mad {
    pub writer: FrameWriter,
    pub reader: FrameReader,
    pub envelope: Envelope,
}

/// What a target found: what, whose id, in or under which name.
pub type Found = (Difference, FileId, String);

/// What a leader of the pair says first.
pub fn hello(session: Session, resume: bool) -> Hello<'static> {
    Hello {
        versions: (1, 1),
        features: 0,
        epoch: session.epoch,
        session: session.number,
        direction: Direction::Changes,
        resume,
        instance: 7,
        pair: 9,
        module: b"AM",
    }
}

/// What a target of a full resync expects.
pub fn expecting(session: Session) -> Expecting {
    Expecting { session, resume: false, module: "AM".into(), instance: 5, followed: 0, applied: Lsn(0) }
}

impl Mad {
    pub fn connect(p: &Pair, session: Session, resume: bool) -> Self {
        let identity = Identity::load(&p.configurations[0]).unwrap();
        let addr: SocketAddr = p.configurations[0].peer_addrs[0].parse().unwrap();
        let dialled = dial(&[addr], &identity, &hello(session, resume), &|| true).unwrap();
        let envelope = Envelope { session: session.number, epoch: fingerprint(session.epoch), lsn: 0 };
        let mut answers = dialled.answers;
        answers.set_silence(Duration::from_secs(5)).unwrap();
        Self { writer: FrameWriter::new(dialled.changes), reader: FrameReader::new(answers), envelope }
    }

    pub fn say(&mut self, message: &Message<'_>) {
        self.envelope.lsn += 1;
        let mut frame = Vec::new();
        encode(message, &self.envelope, crc32c::crc32c, &mut frame);
        self.raw(&frame);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        // The other side may have hung up already: that is its right.
        let _ = self.writer.put(bytes).and_then(|()| self.writer.flush());
    }

    /// Until the follower is past everything said, or hung up. What it found.
    pub fn settle(&mut self) -> Vec<Found> {
        let until = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        while Instant::now() < until {
            match self.reader.next(PAYLOAD_MAX) {
                Ok((_, Message::Applied { lsn })) if lsn.0 >= self.envelope.lsn => return found,
                Ok((_, Message::Difference { what, id, name, .. })) => {
                    found.push((what, id, String::from_utf8_lossy(name).into_owned()));
                }
                Ok(_) => {}
                Err(_) => return found,
            }
        }
        panic!("the follower neither went on nor hung up");
    }
}

/// A target that answers what it likes.
pub struct Target {
    pub writer: FrameWriter,
    pub reader: FrameReader,
    pub envelope: Envelope,
}

impl Target {
    /// The leader of the pair begins a full resync of this one.
    pub fn of(p: &mut Pair) -> Self {
        let session = p.next_session();
        let identity = Identity::load(&p.configurations[1]).unwrap();
        let addr: SocketAddr = p.configurations[1].listen_addrs[0].parse().unwrap();
        let listener = Listener::start(&[addr], &identity, expecting(session)).unwrap();
        p.leader.lead(session, FULL);
        let until = Instant::now() + DEADLINE;
        let (mut changes, answers, _) = accept_pair(&listener, &|| Instant::now() < until).unwrap();
        changes.set_silence(Duration::from_secs(5)).unwrap();
        let envelope = Envelope { session: session.number, epoch: fingerprint(session.epoch), lsn: 0 };
        Self { writer: FrameWriter::new(answers), reader: FrameReader::new(changes), envelope }
    }

    pub fn say(&mut self, message: &Message<'_>) {
        self.writer.send(message, &self.envelope).unwrap();
    }

    /// Something in the first directory differs.
    pub fn differs(&mut self, lsn: Lsn, what: Difference, name: &[u8]) {
        self.say(&Message::Difference { lsn, what, id: FileId::root(0), offset: 0, len: 0, name });
    }

    /// The next of the stream, and whether it `is_it`. Not acknowledged.
    pub fn next(&mut self, is_it: impl Fn(&Message<'_>) -> bool) -> (Lsn, bool) {
        loop {
            let (header, message) = self.reader.next(PAYLOAD_MAX).unwrap();
            if header.kind.is_ordered() {
                return (Lsn(header.lsn), is_it(&message));
            }
        }
    }

    /// Reads on, and acknowledges everything before the one that `is_it`. Gives its position.
    pub fn follow(&mut self, what: &str, is_it: impl Fn(&Message<'_>) -> bool) -> Lsn {
        loop {
            let (header, message) = self.reader.next(PAYLOAD_MAX).unwrap_or_else(|e| panic!("no {what} came: {e}"));
            if !header.kind.is_ordered() {
                continue;
            }
            let lsn = Lsn(header.lsn);
            if is_it(&message) {
                return lsn;
            }
            self.writer.send(&Message::Applied { lsn }, &self.envelope).unwrap();
        }
    }
}
