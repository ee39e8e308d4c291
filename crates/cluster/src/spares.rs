//! Which of several witnesses should vote: the one that does, until it is silent and another is not.

use model::limits::{SPARE_AFTER_MS, WITNESS_ASKED_MS};
use model::{NodeId, Record, Witnesses};

/// The witness this node wants, which the pair goes over to while PRIM and SECOND (R16). `configured`: in the order of `cluster.xml`;
/// `silent_ms`: how long one has not answered. **Invariant:** where no vote has been agreed on yet, both nodes name the same one.
#[must_use]
pub fn wanted(configured: &[NodeId], record: &Record, silent_ms: impl Fn(NodeId) -> u64) -> Option<NodeId> {
    let voter = match record.witnesses {
        _ if record.epoch.is_none() => None,
        Witnesses::Configured => None,
        Witnesses::One { witness } => Some(witness),
        Witnesses::Exchange { new, .. } => Some(new),
    };
    // Agreed on by nobody: the file decides, which is the same on both.
    let Some(voter) = voter else { return configured.first().copied() };
    let stays = voter.filter(|voter| configured.contains(voter));
    if let Some(voter) = stays.filter(|voter| silent_ms(*voter) < SPARE_AFTER_MS) {
        return Some(voter);
    }
    let answers = |one: &&NodeId| Some(**one) != stays && silent_ms(**one) < 2 * WITNESS_ASKED_MS;
    configured.iter().find(answers).copied().or(stays).or_else(|| configured.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Epoch;

    const FIRST: NodeId = NodeId(3);
    const SPARE: NodeId = NodeId(4);

    fn record(witnesses: Witnesses) -> Record {
        let epoch = Epoch { counter: 1, node: NodeId(1), random: 7 };
        Record { epoch: Some(epoch), witnesses, ..Record::empty() }
    }

    fn by(voter: Option<NodeId>) -> Record {
        record(Witnesses::One { witness: voter })
    }

    /// Silence of the first, and of the spare.
    fn silent(first: u64, spare: u64) -> impl Fn(NodeId) -> u64 {
        move |one| if one == FIRST { first } else { spare }
    }

    #[test]
    fn a_spare_votes_only_when_the_other_is_silent_and_stays_when_it_comes_back() {
        let both = [FIRST, SPARE];
        assert_eq!(wanted(&both, &by(Some(FIRST)), silent(SPARE_AFTER_MS - 1, 0)), Some(FIRST));
        assert_eq!(wanted(&both, &by(Some(FIRST)), silent(SPARE_AFTER_MS, 0)), Some(SPARE));
        assert_eq!(wanted(&both, &by(Some(SPARE)), silent(0, 0)), Some(SPARE));
        assert_eq!(wanted(&both, &by(Some(SPARE)), silent(0, SPARE_AFTER_MS)), Some(FIRST));
        let exchange = Witnesses::Exchange { old: Some(FIRST), new: Some(SPARE) };
        assert_eq!(wanted(&both, &record(exchange), silent(SPARE_AFTER_MS, 0)), Some(SPARE));
    }

    #[test]
    fn nothing_changes_when_none_answers() {
        assert_eq!(wanted(&[FIRST, SPARE], &by(Some(SPARE)), silent(SPARE_AFTER_MS, SPARE_AFTER_MS)), Some(SPARE));
        assert_eq!(wanted(&[FIRST], &by(Some(FIRST)), silent(u64::MAX, 0)), Some(FIRST));
    }

    #[test]
    fn one_that_left_the_file_is_followed_by_one_that_answers() {
        assert_eq!(wanted(&[SPARE], &by(Some(FIRST)), silent(0, u64::MAX)), Some(SPARE));
        assert_eq!(wanted(&[], &by(Some(FIRST)), silent(0, 0)), None);
        assert_eq!(wanted(&[FIRST, SPARE], &by(None), silent(u64::MAX, 0)), Some(SPARE));
    }

    #[test]
    fn before_anything_was_agreed_on_both_nodes_name_the_first_whatever_they_hear() {
        let fresh = Record { epoch: None, ..by(Some(SPARE)) };
        for record in [record(Witnesses::Configured), fresh] {
            assert_eq!(wanted(&[FIRST, SPARE], &record, silent(u64::MAX, 0)), Some(FIRST));
        }
    }
}
