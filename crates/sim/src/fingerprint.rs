//! How a situation is remembered: 64 bits, in which numbers that only have an order are renamed.

use crate::explore::TRIED;
use crate::world::{Node, World, bit};
use cluster::mirror::Timer;
use std::hash::{Hash, Hasher};

/// Start of every hash, and step of the random walks.
pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash by which a situation is remembered.
pub(crate) fn fingerprint(world: &World, spent: &impl Hash) -> u64 {
    let all = |hasher: &mut dyn FnMut() -> Folded| {
        let mut hasher = hasher();
        for node in &world.nodes {
            hash_node(node, &mut hasher);
        }
        world.witness.hash(&mut hasher);
        world.spare.hash(&mut hasher);
        world.cut.hash(&mut hasher);
        world.packets.hash(&mut hasher);
        world.ghost.hash(&mut hasher);
        spent.hash(&mut hasher);
        hasher
    };
    // Tickets and sessions are renamed to their rank within a boot: only their order and equality mean anything.
    let mut names = all(&mut || Folded { state: SEED, names: Vec::with_capacity(24), renaming: false }).names;
    names.sort_unstable();
    names.dedup();
    let mut names = Some(names);
    all(&mut || Folded { state: SEED, names: names.take().unwrap_or_default(), renaming: true }).finish()
}

/// Everything of a node but the timers whose expiry no search tries.
fn hash_node(node: &Node, hasher: &mut Folded) {
    (node.on, node.frozen, node.hung, node.app, node.vip, node.client_cut, node.witness_cut, node.wanted).hash(hasher);
    node.successor.hash(hasher);
    (&node.agent, &node.disk_record, &node.storing, &node.plane, &node.inbox).hash(hasher);
    (node.tree, node.disk, node.dirty, node.hot, node.boots).hash(hasher);
    let tried = TRIED.iter().chain(&[Timer::Alone, Timer::Store]).fold(0, |set, timer| set | bit(*timer));
    (node.timers & tried).hash(hasher);
}

/// 128-bit folded multiplication: fast, and good enough for millions.
struct Folded {
    state: u64,
    /// First pass: collected. Second pass: sorted, for renaming.
    names: Vec<u64>,
    renaming: bool,
}

impl Folded {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25_9fb2_1c65_1e98_df25_u128 | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(29) ^ word.rotate_left(17);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(bytes.len() as u64);
    }
    fn write_u8(&mut self, i: u8) {
        self.fold(u64::from(i));
    }
    fn write_u16(&mut self, i: u16) {
        self.fold(u64::from(i));
    }
    fn write_u32(&mut self, i: u32) {
        self.fold(u64::from(i));
    }
    fn write_u64(&mut self, i: u64) {
        self.fold(i);
    }
    fn write_u128(&mut self, i: u128) {
        if i & model::orders::NAMED == 0 {
            self.fold(i as u64);
            self.fold((i >> 64) as u64);
        } else if self.renaming {
            let name = i as u64;
            let boot = name >> 32;
            let place = |name: u64| self.names.partition_point(|known| *known < name);
            // 0 stands for "none yet", which is no rank.
            let rank = if name as u32 == 0 { 0 } else { place(name) - place((boot << 32) | 1) + 1 };
            self.fold((boot << 32) | rank as u64);
        } else {
            self.names.push(i as u64);
        }
    }
    fn write_usize(&mut self, i: usize) {
        self.fold(i as u64);
    }
    fn finish(&self) -> u64 {
        let x = (self.state ^ (self.state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 32)
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
