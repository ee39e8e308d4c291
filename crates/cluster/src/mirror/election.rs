//! The election: who of two nodes leads, and how. A pure function of the two HELLOs, the same on both sides.
//!
//! **Invariant:** symmetric (`elect(a, b)` and `elect(b, a)` name the same leader), and counters of epochs are never
//! compared: only histories (R17).

use super::message::{Facts, Serving, Wish};
use model::orders::Begin;
use model::{DataState, NodeId, Relation, Right, Role};
use serde::{Deserialize, Serialize};

/// Outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This node leads.
    Leads(NodeId, How),
    /// Nobody may, now.
    Neither(Nobody),
}

/// What the other one does for the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Follows under the same epoch, nothing is compared.
    Resume,
    /// Yields: the leader stores a new epoch (or reopens the one it has alone).
    Yield,
    /// Becomes the target of a resync from the open leader.
    Join(Begin),
}

/// Why nobody leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nobody {
    /// Neither node ever had data.
    FirstStart,
    /// The one that shall lead is empty and the other is not.
    EmptyTree,
    /// No complete copy is here.
    NoCompleteCopy,
    /// The node with the newer (or only complete) copy is stopped.
    StoppedHasNewer,
    /// The node with the newer (or only complete) copy may not or shall not lead.
    NewerMayNotLead,
    /// Two lineages that never were one.
    Foreign,
    /// The asked node is stopped: there is nothing it could do.
    Stopped,
    /// The one that would follow has another configuration of the module.
    OtherConfiguration,
}

/// Who leads.
#[must_use]
pub fn elect(a: &Facts, b: &Facts) -> Verdict {
    match (is_open(a), is_open(b)) {
        (true, true) => both_serve(a, b),
        (true, false) => one_serves(a, b),
        (false, true) => one_serves(b, a),
        (false, false) => nobody_serves(a, b),
    }
}

/// Must `me`, which is mounted, be fenced because of what `other` has?
#[must_use]
pub fn must_step_down(me: &Facts, other: &Facts) -> bool {
    is_open(me)
        && match me.relation_to(other) {
            Relation::Older => true,
            Relation::Equal | Relation::Diverged => {
                is_open(other) && matches!(elect(me, other), Verdict::Leads(leader, _) if leader == other.node)
            }
            Relation::Newer | Relation::Unrelated => false,
        }
}

const fn is_open(facts: &Facts) -> bool {
    matches!(facts.serving, Serving::Hold | Serving::Alone)
}

fn both_serve(a: &Facts, b: &Facts) -> Verdict {
    let leader = match a.relation_to(b) {
        Relation::Newer => a,
        Relation::Older => b,
        Relation::Diverged => former_primary(a, b),
        // Cannot be by the rules; if it is, one of them must go.
        Relation::Equal | Relation::Unrelated => lower(a, b),
    };
    Verdict::Leads(leader.node, How::Yield)
}

fn one_serves(serving: &Facts, other: &Facts) -> Verdict {
    let leads = |how| Verdict::Leads(serving.node, how);
    let relation = other.relation_to(serving);
    if relation == Relation::Newer {
        return if other.serving == Serving::Stopped {
            Verdict::Neither(Nobody::StoppedHasNewer)
        } else if may_lead(other) {
            Verdict::Leads(other.node, How::Yield)
        } else {
            Verdict::Neither(Nobody::NewerMayNotLead)
        };
    }
    match serving.serving {
        Serving::Alone if other.serving == Serving::Stopped => Verdict::Neither(Nobody::Stopped),
        // Who serves goes on serving, and a pair that is one goes on being one; but none is made of two different modules.
        Serving::Alone if serving.is_configured_otherwise(other) => Verdict::Neither(Nobody::OtherConfiguration),
        Serving::Alone => leads(How::Join(begin(serving, other))),
        _ if relation == Relation::Equal
            && serving.data == DataState::Full
            && other.data == DataState::Full
            && other.serving == Serving::No
            && serving.resumable
            && other.resumable =>
        {
            leads(How::Resume)
        }
        _ => leads(How::Yield),
    }
}

fn nobody_serves(a: &Facts, b: &Facts) -> Verdict {
    let leader = match a.relation_to(b) {
        Relation::Equal => return equal(a, b),
        Relation::Newer => a,
        Relation::Older => b,
        Relation::Unrelated => return unrelated(a, b),
        Relation::Diverged if a.data_id != b.data_id => return Verdict::Neither(Nobody::Foreign),
        Relation::Diverged => match (may_lead(a), may_lead(b)) {
            (true, false) => a,
            (false, true) => b,
            _ => former_primary(a, b),
        },
    };
    lead_or_why_not(leader)
}

fn lead_or_why_not(leader: &Facts) -> Verdict {
    if may_lead(leader) {
        Verdict::Leads(leader.node, How::Yield)
    } else if !leader.is_usable() {
        Verdict::Neither(Nobody::NoCompleteCopy)
    } else if leader.serving == Serving::Stopped {
        Verdict::Neither(Nobody::StoppedHasNewer)
    } else {
        Verdict::Neither(Nobody::NewerMayNotLead)
    }
}

/// Both yields are void here: the winner of an earlier meeting never stored its epoch (R14).
fn equal(a: &Facts, b: &Facts) -> Verdict {
    let rank = |facts: &Facts| {
        (
            facts.data == DataState::Full,
            !facts.aside,
            matches!(facts.wish, Wish::Prim { .. }),
            match facts.role {
                Role::Alone => 2,
                Role::Primary => 1,
                Role::Second | Role::None => 0,
            },
            core::cmp::Reverse(facts.node),
        )
    };
    let able = |facts: &Facts| facts.is_usable() && !matches!(facts.wish, Wish::Second { .. });
    let (leader, other) = match (able(a), able(b)) {
        (false, false) if !a.is_usable() && !b.is_usable() => return Verdict::Neither(Nobody::NoCompleteCopy),
        (false, false) => return Verdict::Neither(Nobody::NewerMayNotLead),
        (true, false) if b.is_usable() && b.data == DataState::Full && a.data != DataState::Full => {
            return Verdict::Neither(Nobody::NewerMayNotLead);
        }
        (false, true) if a.is_usable() && a.data == DataState::Full && b.data != DataState::Full => {
            return Verdict::Neither(Nobody::NewerMayNotLead);
        }
        (true, false) => (a, b),
        (false, true) => (b, a),
        (true, true) if rank(a) > rank(b) => (a, b),
        (true, true) => (b, a),
    };
    let leader = match leader.serving {
        // A stopped node does not lead; the other one may when its copy is as good.
        Serving::Stopped if able(other) && other.data == leader.data && other.serving != Serving::Stopped => other,
        Serving::Stopped => return Verdict::Neither(Nobody::StoppedHasNewer),
        _ => leader,
    };
    // Not resumed even when both are full: a leader that waits is not mounted, so nothing of its session is left to resend.
    Verdict::Leads(leader.node, How::Yield)
}

fn unrelated(a: &Facts, b: &Facts) -> Verdict {
    let (leader, other) = match (a.epoch, b.epoch) {
        (Some(_), None) => (a, b),
        (None, Some(_)) => (b, a),
        _ => match (wants_prim(a), wants_prim(b)) {
            (true, false) => (a, b),
            (false, true) => (b, a),
            (true, true) => {
                let leader = lower(a, b);
                (leader, if leader.node == a.node { b } else { a })
            }
            (false, false) => return Verdict::Neither(Nobody::FirstStart),
        },
    };
    if leader.epoch.is_some() {
        return lead_or_why_not(leader);
    }
    if leader.tree_empty && !other.tree_empty && leader.wish != (Wish::Prim { force: true }) {
        return Verdict::Neither(Nobody::EmptyTree);
    }
    Verdict::Leads(leader.node, How::Yield)
}

const fn wants_prim(facts: &Facts) -> bool {
    matches!(facts.wish, Wish::Prim { .. }) && !matches!(facts.serving, Serving::Stopped)
}

/// A candidate of protocol.md §2 that runs and was not told to follow only.
fn may_lead(facts: &Facts) -> bool {
    facts.is_usable()
        && !facts.yielded
        && facts.serving != Serving::Stopped
        && !matches!(facts.wish, Wish::Second { .. })
}

/// After a split brain: what the witness granted, else the primary of the last common epoch, else the lower node.
fn former_primary<'a>(a: &'a Facts, b: &'a Facts) -> &'a Facts {
    match (a.right == Right::Witness, b.right == Right::Witness) {
        (true, false) => return a,
        (false, true) => return b,
        _ => {}
    }
    // The common epochs are one chain, so the highest counter is the last of them: not a comparison of two copies.
    let common =
        a.history.iter().filter(|epoch| b.history.contains(epoch)).max_by_key(|epoch| (epoch.counter, **epoch));
    match common {
        Some(epoch) if epoch.node == a.node => a,
        Some(epoch) if epoch.node == b.node => b,
        _ => lower(a, b),
    }
}

const fn lower<'a>(a: &'a Facts, b: &'a Facts) -> &'a Facts {
    if a.node.0 <= b.node.0 { a } else { b }
}

/// How a resync of `target` from `source` begins. The source's map holds everything since both were equal (what was hot
/// there included), the target's activity log everything that may differ there since, also after a crash, and through
/// a resync of changes that was cut: both together name every difference (R5). A log or map that cannot be read is the
/// data planes' to notice: they compare everything then.
#[must_use]
pub fn begin(source: &Facts, target: &Facts) -> Begin {
    // What was written into a released copy is in no log.
    let changes_only = !target.released
        && target.data != DataState::Unknown
        && target.epoch.is_some()
        && target.relation_to(source) == Relation::Older
        && source.map_since == target.epoch
        && target.wish != (Wish::Second { full: true });
    let foreign = matches!(target.relation_to(source), Relation::Diverged | Relation::Unrelated);
    let foreign = foreign && (target.epoch.is_some() || target.data == DataState::Unknown);
    // What somebody wrote while the tree was open exists nowhere else.
    let keep = (foreign || target.released) && !target.tree_empty;
    Begin::Resync { full: !changes_only, quarantine: keep }
}
