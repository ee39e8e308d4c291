//! Marks, in a hash, of numbers of which only the order, the equality or the distance means anything.
//!
//! Whoever compares situations by their hash (the explorer in `sim`) may rename what is marked: two situations that differ only in
//! how many epochs, boots and questions went before are one. To every other hasher a mark is a bit more to hash.
//! **Invariant:** what is marked is written as one 128-bit word whose upper eight bits are the mark.

use crate::ids::Epoch;
use core::hash::Hasher;

/// A number of a question or session: (agent boots, n). Order and equality, among those of one node.
pub const TICKET: u128 = 1 << 127;
/// An epoch in a place of its own: `counter`, `node` and `random` in 64, 16 and 32 bits. Equality, and the distance of counters.
pub const EPOCH: u128 = 1 << 126;
/// A list of epochs begins: so many [`ANCESTOR`]s follow.
pub const HISTORY: u128 = 1 << 125;
/// One of them, as [`EPOCH`].
pub const ANCESTOR: u128 = 1 << 124;
/// A counter of epochs: distance.
pub const COUNTER: u128 = 1 << 123;
/// A boot of a machine: whether it is the present one.
pub const BOOT: u128 = 1 << 122;
/// A random part of an epoch that is not there yet: equality.
pub const NONCE: u128 = 1 << 121;
/// All of them.
pub const ALL: u128 = TICKET | EPOCH | HISTORY | ANCESTOR | COUNTER | BOOT | NONCE;

const fn word(epoch: &Epoch) -> u128 {
    (epoch.counter as u128) << 48 | (epoch.node.0 as u128) << 32 | epoch.random as u128
}

impl core::hash::Hash for Epoch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(EPOCH | word(self));
    }

    /// A list of epochs is a history: what a copy descends from.
    fn hash_slice<H: Hasher>(history: &[Self], state: &mut H) {
        state.write_u128(HISTORY | history.len() as u128);
        for epoch in history {
            state.write_u128(ANCESTOR | word(epoch));
        }
    }
}

/// The random part of an epoch that somebody may grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub u32);

impl core::hash::Hash for Nonce {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(NONCE | u128::from(self.0));
    }
}

/// Counts epochs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Counter(pub u64);

impl core::hash::Hash for Counter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(COUNTER | u128::from(self.0));
    }
}
