//! How many connections there may be. Strangers are bounded per source and in total, and when there are too many the
//! oldest of the greediest sources leaves, so a newcomer always gets in; members have seats of their own, which no
//! number of strangers can take: those who have proven who they are, and those who call from a member's address.

use model::NodeId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Connections that have not proven who they are, per source address.
pub(crate) const STRANGERS_PER_SOURCE: usize = 32;
/// And in total.
pub(crate) const STRANGERS_MAX: usize = 128;
/// Connections of one member.
pub(crate) const PER_MEMBER: usize = 32;

#[derive(Default)]
struct State {
    next: u64,
    strangers: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    members: HashMap<NodeId, usize>,
    /// Addresses of members: bounded each for itself, not with the crowd.
    known: HashSet<IpAddr>,
}

impl State {
    /// Who leaves because this source came.
    fn surplus(&self, source: IpAddr) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (from, _) in self.strangers.values() {
            *counts.entry(*from).or_default() += 1;
        }
        let oldest = |is_it: &dyn Fn(&IpAddr) -> bool| {
            self.strangers.iter().find(|(_, (from, _))| is_it(from)).map(|(number, _)| *number)
        };
        if counts.get(&source).is_some_and(|count| *count > STRANGERS_PER_SOURCE) {
            return oldest(&|from| *from == source);
        }
        counts.retain(|from, _| !self.known.contains(from));
        if counts.values().sum::<usize>() <= STRANGERS_MAX {
            return None;
        }
        // Of several that are as greedy, whoever came first: each newcomer has as long as all of them together.
        let most = counts.values().max().copied();
        oldest(&|from| counts.get(from).copied() == most)
    }
}

/// The table.
#[derive(Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<State>>);

/// A stranger's seat; leaving it frees it.
pub(crate) struct StrangerSeat {
    seats: Seats,
    number: u64,
    /// Told when somebody else needs the seat.
    pub evicted: Arc<Notify>,
}

/// A member's seat.
pub(crate) struct MemberSeat {
    seats: Seats,
    node: NodeId,
}

impl Seats {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose addresses are members' from now on.
    pub fn know(&self, members: HashSet<IpAddr>) {
        self.state().known = members;
    }

    /// Always succeeds: the oldest of the greediest sources leaves instead.
    pub fn stranger(&self, source: IpAddr) -> StrangerSeat {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let evicted = Arc::new(Notify::new());
        state.strangers.insert(number, (source, Arc::clone(&evicted)));
        let surplus = state.surplus(source);
        if let Some((_, notify)) = surplus.and_then(|number| state.strangers.remove(&number)) {
            notify.notify_one();
        }
        drop(state);
        StrangerSeat { seats: self.clone(), number, evicted }
    }

    /// A seat for a proven member, unless it has too many already.
    pub fn member(&self, node: NodeId) -> Option<MemberSeat> {
        let mut state = self.state();
        let taken = state.members.entry(node).or_default();
        if *taken >= PER_MEMBER {
            return None;
        }
        *taken += 1;
        drop(state);
        Some(MemberSeat { seats: self.clone(), node })
    }
}

impl Drop for StrangerSeat {
    fn drop(&mut self) {
        self.seats.state().strangers.remove(&self.number);
    }
}

impl Drop for MemberSeat {
    fn drop(&mut self) {
        if let Some(taken) = self.seats.state().members.get_mut(&self.node) {
            *taken = taken.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_from_one_source_pushes_itself_out_and_nobody_else() {
        let seats = Seats::default();
        let crowd: IpAddr = "10.0.0.66".parse().unwrap();
        let peer = seats.stranger("10.0.0.2".parse().unwrap());
        let held: Vec<_> = (0..200).map(|_| seats.stranger(crowd)).collect();
        assert_eq!(seats.state().strangers.len(), STRANGERS_PER_SOURCE + 1);
        held[0].evicted.notified().await;
        assert!(seats.state().strangers.contains_key(&peer.number), "the peer keeps its seat");
        drop(held);
        assert_eq!(seats.state().strangers.len(), 1);
    }

    fn crowd(seats: &Seats, many: u32) -> Vec<StrangerSeat> {
        (0..many).map(|i| seats.stranger(IpAddr::from((0x0a01_0000 + i).to_be_bytes()))).collect()
    }

    #[test]
    fn a_crowd_of_many_sources_takes_no_seat_of_a_members_address() {
        let seats = Seats::default();
        let peer: IpAddr = "10.250.0.2".parse().unwrap();
        seats.know([peer].into());
        let calls = [seats.stranger(peer), seats.stranger(peer)];
        let _held = crowd(&seats, 5_000);
        let state = seats.state();
        assert!(calls.iter().all(|call| state.strangers.contains_key(&call.number)), "the member's calls go on");
        assert_eq!(state.strangers.len(), STRANGERS_MAX + calls.len());
        drop(state);
        // It is bounded for itself all the same.
        let _more: Vec<_> = (0..200).map(|_| seats.stranger(peer)).collect();
        assert_eq!(seats.state().strangers.len(), STRANGERS_MAX + STRANGERS_PER_SOURCE);
    }

    #[test]
    fn who_comes_into_a_crowd_of_many_sources_is_not_the_first_to_leave() {
        let seats = Seats::default();
        let _held = crowd(&seats, 500);
        let newcomer = seats.stranger("10.250.0.2".parse().unwrap());
        let _after = crowd(&seats, STRANGERS_MAX as u32 - 1);
        assert!(seats.state().strangers.contains_key(&newcomer.number));
    }

    #[test]
    fn many_sources_are_bounded_in_total() {
        let seats = Seats::default();
        let _held: Vec<_> =
            (0..2_000_u32).map(|i| seats.stranger(IpAddr::from((0x0a00_0000 + i).to_be_bytes()))).collect();
        assert_eq!(seats.state().strangers.len(), STRANGERS_MAX);
    }

    #[test]
    fn a_member_has_a_bound_of_its_own() {
        let seats = Seats::default();
        let held: Vec<_> = (0..PER_MEMBER).map(|_| seats.member(NodeId(2)).expect("a free seat")).collect();
        assert!(seats.member(NodeId(2)).is_none());
        assert!(seats.member(NodeId(3)).is_some());
        drop(held);
        assert!(seats.member(NodeId(2)).is_some());
    }
}
