//! Bucket → owners: rendezvous hashing with weights, and the owners before.
//!
//! Every node has a fixed score for every bucket; the bucket belongs to the best node that serves. So who leaves gives away only its
//! own buckets, and who returns takes exactly those back. A power below a sixty-fourth of the largest that serves gets nothing:
//! that is the chain of priorities (SafeKit's steps of 64).

use super::hash::Scores;
use alloc::vec;
use alloc::vec::Vec;
use model::NodeId;
use model::farm::{BUCKETS, DEPTH, NOBODY, Owners};

/// A step of the chain of priorities.
const CHAIN: u64 = 64;

/// One group's nodes, ranked for each bucket. 16 KiB times the nodes: made once per configuration, so that a view costs little.
#[derive(Clone, Debug)]
pub struct Shares {
    nodes: Vec<(NodeId, u64)>,
    /// By bucket: indexes of `nodes`, the best first.
    ranks: Vec<u8>,
}

impl Shares {
    /// Of these nodes with these powers; power 0 owns nothing.
    #[must_use]
    pub fn new(powers: &[(NodeId, u64)]) -> Self {
        let mut nodes = powers.to_vec();
        nodes.sort_unstable();
        nodes.dedup_by_key(|(node, _)| *node);
        let scored: Vec<_> = nodes.iter().map(|(node, power)| (Scores::of(node.0), (*power).max(1) as f64)).collect();
        let mut ranks = Vec::with_capacity(BUCKETS * nodes.len());
        let mut ranked: Vec<(f64, u8)> = Vec::with_capacity(nodes.len());
        for bucket in 0..BUCKETS {
            ranked.clear();
            // Powers of one link of the chain differ by less than 64: they are compared within it. The smallest wins.
            ranked.extend(
                (0u8..).zip(&scored).map(|(index, (scores, power))| (minus_log2(scores.at(bucket)) / power, index)),
            );
            // Equal scores: the lower node.
            ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            ranks.extend(ranked.iter().map(|(_, index)| *index));
        }
        Self { nodes, ranks }
    }

    /// Who of this group owns traffic when these nodes serve: the last link of the chain that has a node among them. A bit per index.
    fn running(&self, serving: &[NodeId]) -> u128 {
        let serves = |node: &NodeId| serving.contains(node);
        let best = self.nodes.iter().filter(|(node, _)| serves(node)).map(|(_, power)| *power).max().unwrap_or(0);
        let runs = |(node, power): &(NodeId, u64)| *power > 0 && power.saturating_mul(CHAIN) > best && serves(node);
        let all = (0u32..).zip(&self.nodes).filter(|(_, node)| runs(node));
        all.fold(0, |set, (index, _)| set | 1 << index)
    }

    /// The table: for each bucket its owner today, then up to three distinct owners of `past` (newest first) that are still `present`.
    /// Indexes are positions in `present`, which is sorted.
    #[must_use]
    pub fn table(&self, present: &[NodeId], past: &[Vec<NodeId>]) -> Owners {
        let place: Vec<u8> = self
            .nodes
            .iter()
            .map(|(node, _)| present.binary_search(node).map_or(NOBODY, |at| u8::try_from(at).unwrap_or(NOBODY)))
            .collect();
        let sets: Vec<u128> = past.iter().map(|serving| self.running(serving)).collect();
        // By index of the node: the ages it served in, a bit each. Most buckets had one owner all the time, and no age is looked at twice.
        assert!(sets.len() <= 64, "a view remembers fewer");
        let ages =
            |index: usize| (0..sets.len()).fold(0u64, |ages, age| ages | ((sets[age] >> index & 1) as u64) << age);
        let served: Vec<u64> = (0..self.nodes.len()).map(ages).collect();
        let all = if sets.is_empty() { 0 } else { u64::MAX >> (64 - sets.len()) };
        let mut table = vec![[NOBODY; DEPTH]; BUCKETS];
        if self.nodes.is_empty() {
            return table;
        }
        // Each takes an age at least.
        let mut owned = [(0u64, NOBODY); 64];
        for (entry, ranks) in table.iter_mut().zip(self.ranks.chunks_exact(self.nodes.len())) {
            let mut known = 0;
            // The best node owns the bucket in every age it served in, the next one in those that are left, and so on.
            let (mut left, mut owners) = (all, 0);
            for index in ranks.iter().map(|index| usize::from(*index)) {
                let ages = left & served[index];
                if ages != 0 {
                    owned[owners] = (ages, place[index]);
                    owners += 1;
                    left &= !ages;
                    if left == 0 {
                        break;
                    }
                }
            }
            // A bucket without an owner today has no earlier ones either: what is in front is asked.
            if left & 1 != 0 || owned[..owners].iter().any(|(ages, at)| ages & 1 != 0 && *at == NOBODY) {
                continue;
            }
            // Whose last age is the newest comes first.
            owned[..owners].sort_unstable_by_key(|(ages, _)| ages.trailing_zeros());
            for (_, owner) in owned[..owners].iter().filter(|(_, at)| *at != NOBODY) {
                if known < DEPTH {
                    entry[known] = *owner;
                    known += 1;
                }
            }
        }
        table
    }

    /// Buckets of each node of `present` out of [`BUCKETS`].
    #[must_use]
    pub fn counts(table: &Owners, present: usize) -> Vec<usize> {
        let mut counts = vec![0; present];
        for entry in table {
            if let Some(count) = counts.get_mut(usize::from(entry[0])) {
                *count += 1;
            }
        }
        counts
    }
}

/// −log₂(u / 2⁶⁴), by squaring: no floating-point library, the same on every machine (IEEE division is exact).
fn minus_log2(u: u64) -> f64 {
    let u = u.max(1);
    let shift = u.leading_zeros();
    let mut mantissa = u << shift;
    let mut fraction = 0u64;
    for _ in 0..24 {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let is_two = square >> 127 == 1;
        fraction = fraction << 1 | u64::from(is_two);
        mantissa = (square >> if is_two { 64 } else { 63 }) as u64;
    }
    f64::from(shift) + 1.0 - fraction as f64 / f64::from(1 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    fn equal(count: u16) -> Shares {
        Shares::new(&nodes(count).into_iter().map(|node| (node, 1)).collect::<Vec<_>>())
    }

    /// The first owners, as nodes.
    fn owners(shares: &Shares, serving: &[NodeId]) -> Vec<NodeId> {
        let table = shares.table(serving, &[serving.to_vec()]);
        table.iter().map(|entry| serving[usize::from(entry[0])]).collect()
    }

    #[test]
    fn every_change_among_sixteen_moves_only_what_must_move() {
        let shares = equal(16);
        let all = nodes(16);
        // Every subset size, and from each every single leave and (read backwards) every single return.
        for count in 2..=16usize {
            for begin in 0..16usize {
                let mut set: Vec<NodeId> = (0..count).map(|step| all[(begin + step * 5) % 16]).collect();
                set.sort_unstable();
                set.dedup();
                let before = owners(&shares, &set);
                assert_eq!(before.len(), BUCKETS);
                for leaves in &set {
                    let rest: Vec<NodeId> = set.iter().copied().filter(|node| node != leaves).collect();
                    let after = owners(&shares, &rest);
                    for (was, is) in before.iter().zip(&after) {
                        assert!(rest.contains(is), "one owner, and it serves");
                        assert!(was == leaves || was == is, "{was:?} lost a bucket to {is:?} although {leaves:?} left");
                    }
                }
            }
        }
    }

    #[test]
    fn shares_follow_powers() {
        for count in 2..=16u16 {
            let set = nodes(count);
            let table = equal(count).table(&set, core::slice::from_ref(&set));
            let counts = Shares::counts(&table, set.len());
            assert_eq!(counts.iter().sum::<usize>(), BUCKETS);
            let fair = BUCKETS / usize::from(count);
            // Eight within 1.5 %, sixteen within 3 %.
            let most = if count <= 8 { 15 } else { 30 };
            for share in counts {
                assert!(share.abs_diff(fair) * 1000 <= fair * most, "{count} members: {share} buckets, fair is {fair}");
            }
            for gone in &set {
                let rest: Vec<NodeId> = set.iter().copied().filter(|node| node != gone).collect();
                let table = equal(count).table(&rest, core::slice::from_ref(&rest));
                let fair = BUCKETS / rest.len();
                for share in Shares::counts(&table, rest.len()) {
                    let off = share.abs_diff(fair) * 1000;
                    assert!(off <= fair * most, "{count} members without {gone:?}: {share} buckets, fair is {fair}");
                }
            }
        }
        let shares = Shares::new(&[(NodeId(1), 1), (NodeId(2), 3), (NodeId(3), 0)]);
        let set = nodes(3);
        let counts = Shares::counts(&shares.table(&set, core::slice::from_ref(&set)), 3);
        assert!(counts[0].abs_diff(BUCKETS / 4) * 100 <= BUCKETS / 4 * 4 && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn sixty_four_have_equal_shares_within_a_tenth() {
        for count in [32, 48, 64] {
            let set = nodes(count);
            let counts = Shares::counts(&equal(count).table(&set, core::slice::from_ref(&set)), set.len());
            let fair = BUCKETS / usize::from(count);
            assert_eq!(counts.iter().sum::<usize>(), BUCKETS);
            assert!(counts.iter().all(|share| share.abs_diff(fair) * 10 <= fair), "{count} members: {counts:?}");
        }
    }

    #[test]
    fn steps_of_sixty_four_are_a_chain() {
        let shares = Shares::new(&[(NodeId(1), 1), (NodeId(2), 64), (NodeId(3), 64 * 64)]);
        for (set, all) in [(vec![1, 2, 3], 3), (vec![1, 2], 2), (vec![1], 1), (vec![1, 3], 3)] {
            let set: Vec<NodeId> = set.into_iter().map(NodeId).collect();
            assert!(owners(&shares, &set).iter().all(|owner| *owner == NodeId(all)), "{set:?}");
        }
    }

    #[test]
    fn a_rolling_restart_of_all_keeps_the_earlier_owners_in_the_list() {
        let shares = equal(3);
        let all = nodes(3);
        let without = |gone: u16| all.iter().copied().filter(|node| node.0 != gone).collect::<Vec<_>>();
        let mut past = vec![all.clone()];
        for gone in 1..=3 {
            past.insert(0, without(gone));
            past.insert(0, all.clone());
        }
        let table = shares.table(&all, &past);
        for entry in &table {
            // The owner left once: whoever replaced it is next in the list.
            assert_ne!(entry[1], NOBODY);
            assert!(entry[3] == NOBODY, "three nodes are at most three distinct owners");
        }
        // Who is gone is nobody's second chance.
        let table = shares.table(&without(2), &past);
        assert!(table.iter().flatten().all(|at| *at == NOBODY || *at < 2));
    }

    /// The same, age by age, as it is said in words.
    fn said_in_words(shares: &Shares, present: &[NodeId], past: &[Vec<NodeId>]) -> Owners {
        let sets: Vec<u128> = past.iter().map(|serving| shares.running(serving)).collect();
        let mut table = vec![[NOBODY; DEPTH]; BUCKETS];
        for (entry, ranks) in table.iter_mut().zip(shares.ranks.chunks_exact(shares.nodes.len())) {
            let mut owners: Vec<u8> = Vec::new();
            for (age, set) in sets.iter().enumerate() {
                let owner =
                    ranks.iter().find(|index| set >> **index & 1 == 1).map(|it| shares.nodes[usize::from(*it)].0);
                let place = owner.and_then(|node| present.binary_search(&node).ok()).map(|at| at as u8);
                match place {
                    None if age == 0 => break,
                    Some(place) if !owners.contains(&place) => owners.push(place),
                    _ => {}
                }
            }
            owners.truncate(DEPTH);
            entry[..owners.len()].copy_from_slice(&owners);
        }
        table
    }

    #[test]
    fn the_table_is_what_it_is_said_to_be() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..40 {
            let count = 1 + next(if round % 4 == 0 { 64 } else { 9 }) as u16;
            let powers: Vec<(NodeId, u64)> =
                nodes(count).into_iter().map(|node| (node, [1, 1, 2, 0, 64][next(5) as usize])).collect();
            let shares = Shares::new(&powers);
            let mut subset = || nodes(count + 1).into_iter().filter(|_| next(4) != 0).collect::<Vec<_>>();
            let present = subset();
            let past: Vec<Vec<NodeId>> = (0..round % 17).map(|_| subset()).collect();
            assert!(
                shares.table(&present, &past) == said_in_words(&shares, &present, &past),
                "{powers:?} {present:?} {past:?}"
            );
        }
    }

    #[test]
    fn no_member_no_owner() {
        let table = equal(2).table(&nodes(2), &[vec![], nodes(2)]);
        assert!(table.iter().all(|entry| *entry == [NOBODY; DEPTH]));
    }
}
