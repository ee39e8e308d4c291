//! Client → bucket. Written once more in `filter.c`: a change here is a change there, and of every running farm's tables.

use core::net::IpAddr;
use model::farm::BUCKETS;

const SEED: u64 = 0x53_5445_4144;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const LAST: u64 = 0xbf58_476d_1ce4_e5b9;

const fn mixed(hash: u64, value: u64) -> u64 {
    let hash = (hash ^ value).wrapping_mul(MIX);
    hash ^ hash >> 29
}

/// An address as both filters compare it: IPv4 in the form `::ffff:a.b.c.d`.
#[must_use]
pub fn bytes_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The bucket of a client; `extra` is what else the rule's filter hashes (0: nothing).
#[must_use]
pub fn bucket_of(client: [u8; 16], extra: u64) -> usize {
    let [low, high] = halves(client);
    let hash = mixed(mixed(mixed(SEED, low), high), extra).wrapping_mul(LAST);
    // The upper bits: a multiplication mixes upwards. The remainder is below BUCKETS, which fits.
    ((hash >> 40) % BUCKETS as u64) as usize
}

const fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

/// Chosen among 1500 for the most equal shares of the first 8 and 16 nodes, with all of them and with any one missing.
const LATTICE: u64 = 11_995;

/// A node's values for the buckets, uniform over 64 bits: what rendezvous compares, the highest wins.
///
/// The values of one bucket, over all nodes, are a point of a lattice, not random numbers: each node is the highest in nearly the
/// same number of buckets, whoever else serves. (Random scores of 16384 buckets leave a member of eight 5 % above its share.)
#[derive(Clone, Copy)]
pub(super) struct Scores {
    step: u64,
    shift: u64,
}

impl Scores {
    pub const fn of(node: u16) -> Self {
        let mut step = 1;
        let mut power = 0;
        while power < node {
            step = step * LATTICE % BUCKETS as u64;
            power += 1;
        }
        let shift = mixed(SEED.rotate_left(32), node as u64).wrapping_mul(LAST);
        Self { step, shift: shift ^ shift >> 32 }
    }

    pub const fn at(self, bucket: usize) -> u64 {
        // The lattice's places are multiples of 1/BUCKETS: in the upper bits, moved by something else for each node.
        ((bucket as u64).wrapping_mul(self.step) << (64 - BUCKETS.trailing_zeros())).wrapping_add(self.shift)
    }
}
