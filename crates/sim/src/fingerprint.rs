//! How a situation is remembered: 64 bits, in which everything that only has an order or a distance is renamed.
//!
//! Tickets and sessions become their rank, counters of epochs their distance from the lowest that can still matter, boots "this one or
//! an earlier one". So a pair that is whole again after a failover is the pair it was before, and a search ends.
//! **Invariant:** what is left out can never be looked at again: `explore::exact` compares the futures of what is taken for one.

use crate::explore::TRIED;
use crate::world::{APART, Chosen, Node, World, bit};
use cluster::mirror::Timer;
use model::marks;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};

/// Start of every hash, and step of the random walks.
pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash by which a situation is remembered.
pub(crate) fn fingerprint(world: &World) -> u64 {
    TOKENS.with_borrow_mut(|tokens| {
        tokens.0.clear();
        record(world, tokens);
        let mut names = Names::default();
        for token in &tokens.0 {
            if let Token::Marked(value) = token {
                names.collect(*value & marks::ALL, *value & !marks::ALL);
            }
        }
        let mut folded = Folded::new(names.sorted(world.rules.chosen == Chosen::LastPrim));
        tokens.0.iter().for_each(|token| folded.take(*token));
        folded.finish()
    })
}

thread_local! {
    static TOKENS: RefCell<Tokens> = const { RefCell::new(Tokens(Vec::new())) };
}

fn record(world: &World, tokens: &mut Tokens) {
    for node in &world.nodes {
        record_node(node, tokens);
    }
    (&world.witness, &world.spare, world.cut, &world.ghost).hash(tokens);
    // They are sorted by what they carry before it is renamed: their order means nothing.
    tokens.0.push(Token::Packets(world.packets.len() as u64));
    for packet in &world.packets {
        packet.hash(tokens);
        tokens.0.push(Token::PacketEnds);
    }
    tokens.0.push(Token::PacketsEnd);
}

/// Everything of a node but the timers whose expiry no search tries, the number of its boots, and the number of a store
/// (only one is ever open).
fn record_node(node: &Node, tokens: &mut Tokens) {
    tokens.0.push(Token::Boot(node.boots.into()));
    (node.on, node.frozen, node.hung, node.app, node.vip, node.client_cut, node.witness_cut, node.wanted).hash(tokens);
    let storing = node.storing.as_ref().map(|(_, record)| record);
    (&node.agent, &node.disk_record, storing, &node.plane, &node.inbox, node.successor).hash(tokens);
    (node.tree, node.disk, node.dirty, node.hot, &node.scripts).hash(tokens);
    let tried = TRIED.iter().chain(&[Timer::Alone, Timer::Store]).fold(0, |set, timer| set | bit(*timer));
    (node.timers & tried).hash(tokens);
}

/// What a situation consists of, written down once: names are found in it, and given in a second look.
#[derive(Clone, Copy)]
enum Token {
    Word(u64),
    /// How long a list is.
    Length(u64),
    Marked(u128),
    /// The present boot of the node that follows.
    Boot(u128),
    /// So many packets follow.
    Packets(u64),
    PacketEnds,
    PacketsEnd,
}

struct Tokens(Vec<Token>);

/// An epoch as one word: counter, node, random (see [`marks::EPOCH`]).
type Word = u128;

const fn counter_of(epoch: Word) -> u64 {
    (epoch >> 48) as u64
}

/// What must be renamed, and to what.
#[derive(Default)]
struct Names {
    tickets: Vec<u64>,
    /// Every epoch, and whether it is anywhere but in a history.
    epochs: Vec<(Word, bool)>,
    /// The histories, as sets of places in `epochs`.
    histories: Vec<u64>,
    nonces: Vec<u32>,
    /// Lowest counter that can still matter.
    base: u64,
}

impl Names {
    fn epoch(&mut self, word: Word) -> usize {
        if let Some(place) = self.epochs.iter().position(|(known, _)| *known == word) {
            return place;
        }
        self.epochs.push((word, false));
        assert!(self.epochs.len() <= 64, "more epochs than a set of them holds");
        self.epochs.len() - 1
    }

    fn collect(&mut self, mark: u128, value: u128) {
        match mark {
            marks::TICKET => self.tickets.push(value as u64),
            marks::EPOCH => {
                let place = self.epoch(value);
                self.epochs[place].1 = true;
            }
            marks::HISTORY => self.histories.push(0),
            marks::ANCESTOR => {
                let place = self.epoch(value);
                if let Some(set) = self.histories.last_mut() {
                    *set |= 1 << place;
                }
            }
            marks::NONCE => self.nonces.push(value as u32),
            _ => {}
        }
    }

    /// Forgets the epochs that no copy is in and that do not tell two histories apart: of the trunk that all share the last
    /// one (who served it decides after a split brain), or the last two (`defaultprim="lastprim"` looks at the one before).
    fn sorted(mut self, two: bool) -> Self {
        let shared = self.histories.iter().filter(|set| **set != 0).fold(u64::MAX, |all, set| all & set);
        let mut trunk: Vec<Word> = self
            .epochs
            .iter()
            .enumerate()
            .filter(|(i, _)| shared & (1 << i) != 0)
            .map(|(_, (word, _))| *word)
            .collect();
        trunk.sort_unstable();
        trunk.truncate(trunk.len().saturating_sub(1 + usize::from(two)));
        self.epochs.retain(|(word, current)| *current || !trunk.contains(word));
        self.epochs.sort_unstable();
        self.base = self.epochs.first().map_or(0, |(word, _)| counter_of(*word));
        self.tickets.sort_unstable();
        self.tickets.dedup();
        let randoms: Vec<u32> = self.epochs.iter().map(|(word, _)| *word as u32).collect();
        self.nonces.retain(|nonce| !randoms.contains(nonce));
        self.nonces.sort_unstable();
        self.nonces.dedup();
        self
    }

    /// Distance of the counter, node, and a number that tells it from another one of both.
    fn new_epoch(&self, word: Word) -> Option<u64> {
        let place = self.epochs.iter().position(|(known, _)| *known == word)?;
        let twins = self.epochs[..place].iter().rev().take_while(|(known, _)| known >> 32 == word >> 32).count();
        let node = (word >> 32) as u16;
        Some((counter_of(word) - self.base) << 24 | u64::from(node) << 8 | twins as u64)
    }

    /// Its rank among those of its node; 0 stands for "none yet", which is no rank.
    fn new_ticket(&self, name: u64) -> u64 {
        if name == 0 {
            return 0;
        }
        let place = |name: u64| self.tickets.partition_point(|known| *known < name);
        let of = (name >> 32) / APART;
        (of << 32) | (place(name) - place((of * APART) << 32) + 1) as u64
    }

    /// The epoch it became already, or its rank among those that have not become one.
    fn new_nonce(&self, nonce: u32) -> u64 {
        match self.epochs.iter().find(|(word, _)| *word as u32 == nonce) {
            Some((word, _)) => self.new_epoch(*word).unwrap_or_default() | 1 << 63,
            None => self.nonces.partition_point(|known| *known < nonce) as u64,
        }
    }
}

/// 128-bit folded multiplication: fast, and good enough for hundreds of millions.
struct Folded {
    state: u64,
    /// A length that was announced: that of a history counts what is forgotten as well.
    length: Option<u64>,
    /// The present boot of the node whose turn it is.
    boot: u128,
    names: Names,
    /// Before the packets, and the sum of theirs.
    before: u64,
    sum: u64,
}

impl Folded {
    const fn new(names: Names) -> Self {
        Self { state: SEED, length: None, boot: 0, names, before: 0, sum: 0 }
    }

    fn take(&mut self, token: Token) {
        match token {
            Token::Word(word) => self.fold(word),
            Token::Length(length) => {
                if let Some(before) = self.length.take() {
                    self.fold(before);
                }
                self.length = Some(length);
            }
            Token::Marked(value) => self.rename(value & marks::ALL, value & !marks::ALL),
            Token::Boot(boot) => self.boot = boot,
            Token::Packets(count) => {
                (self.before, self.sum) = (self.finish(), count);
                (self.state, self.length) = (SEED, None);
            }
            Token::PacketEnds => {
                self.sum = self.sum.wrapping_add(self.finish());
                (self.state, self.length) = (SEED, None);
            }
            Token::PacketsEnd => {
                (self.state, self.length) = (self.before, None);
                self.fold(self.sum);
            }
        }
    }

    fn fold(&mut self, word: u64) {
        if let Some(length) = self.length.take() {
            self.mix(length);
        }
        self.mix(word);
    }

    const fn mix(&mut self, word: u64) {
        let product = ((self.state ^ word) as u128).wrapping_mul(0x9fb2_1c65_1e98_df25_9fb2_1c65_1e98_df25_u128 | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(29) ^ word.rotate_left(17);
    }

    fn rename(&mut self, mark: u128, value: u128) {
        if mark == marks::HISTORY {
            self.length = None;
        }
        let new = match mark {
            marks::TICKET => self.names.new_ticket(value as u64),
            marks::EPOCH => self.names.new_epoch(value).unwrap_or(u64::MAX),
            marks::ANCESTOR => match self.names.new_epoch(value) {
                Some(new) => new | 1 << 62,
                None => return,
            },
            // Not its length: that counts the forgotten ones.
            marks::HISTORY => 1 << 61,
            marks::COUNTER => (value as u64).wrapping_sub(self.names.base),
            marks::BOOT => u64::from(value == self.boot),
            marks::NONCE => self.names.new_nonce(value as u32),
            _ => value as u64,
        };
        self.fold(new);
    }

    fn finish(&self) -> u64 {
        let state = self.state ^ self.length.map_or(0, |length| (length + 1).wrapping_mul(SEED));
        let x = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 32)
    }
}

impl Hasher for Tokens {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }
    fn write_u8(&mut self, i: u8) {
        self.write_u64(u64::from(i));
    }
    fn write_u16(&mut self, i: u16) {
        self.write_u64(u64::from(i));
    }
    fn write_u32(&mut self, i: u32) {
        self.write_u64(u64::from(i));
    }
    fn write_u64(&mut self, i: u64) {
        self.0.push(Token::Word(i));
    }
    fn write_u128(&mut self, i: u128) {
        if i & marks::ALL == 0 {
            self.write_u64(i as u64);
            self.write_u64((i >> 64) as u64);
        } else {
            self.0.push(Token::Marked(i));
        }
    }
    /// Which of several an enumeration is.
    fn write_isize(&mut self, i: isize) {
        self.write_u64(i as u64);
    }
    fn write_usize(&mut self, i: usize) {
        self.0.push(Token::Length(i as u64));
    }
    /// Nobody asks: the tokens are what is looked at.
    fn finish(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Keys that are hashes already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, i: u64) {
        self.0 = i;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
