//! The witness: a third party that remembers, per module, which node holds which epoch.
//!
//! Pure. It is never needed while the pair is healthy. **Invariant:** what it answers is derived from a record that
//! is on its disk before the answer leaves; it grants nothing it could not defend after losing its memory (R15).

use crate::mirror::Ticket;
use alloc::vec::Vec;
use model::limits::{DEFER_MS, PREFER_MS, PULSE_MS, WITNESS_PULSE_MS};
use model::marks::Nonce;
use model::{DataState, Epoch, ModuleState, NodeId};
use serde::{Deserialize, Serialize};

/// Version of these messages and of the stored record.
pub const WITNESS_VERSION: u32 = 1;

/// Node → witness, about one module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// "May I serve alone?"
    Ask {
        /// Who asks.
        node: NodeId,
        /// The other node of the pair.
        peer: NodeId,
        /// The witness's memory the asker knows; `None` before the first answer of this boot.
        incarnation: Option<u64>,
        /// An answer counts only for the last open one of a boot (R10).
        ticket: Ticket,
        /// Epoch of the asker's copy.
        epoch: Option<Epoch>,
        /// Epochs it descends from.
        history: Vec<Epoch>,
        /// Full or crashed.
        data: DataState,
        /// The peer's questions up to here are closed, as it said itself with equal epochs (R11, R12).
        floor: Option<Ticket>,
        /// Random part of the epoch to grant.
        random: Nonce,
    },
    /// "I am here": registers with an empty witness, tells it what epochs are in use.
    Pulse {
        /// Who.
        node: NodeId,
        /// The other node of the pair.
        peer: NodeId,
        /// The witness's memory the sender knows; registering needs the right one.
        incarnation: Option<u64>,
        /// Epoch of the sender's copy.
        epoch: Option<Epoch>,
        /// Epochs it descends from.
        history: Vec<Epoch>,
        /// State of the data.
        data: DataState,
        /// Gave its word not to claim by itself.
        yielded: bool,
        /// Where the module is.
        state: ModuleState,
        /// In a session with the peer (PRIM or SECOND), with no question open and no grant being stored.
        in_session: bool,
        /// The epoch was made by an operator's force: it replaces what was granted.
        forced: bool,
    },
}

/// Witness → node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// This memory is not the one you know: register (pulse) with this one.
    Register {
        /// Of the memory.
        incarnation: u64,
    },
    /// Serve alone under this epoch.
    Grant {
        /// Of the memory.
        incarnation: u64,
        /// Of the question.
        ticket: Ticket,
        /// New epoch, granted once.
        epoch: Epoch,
    },
    /// Not now.
    Refuse {
        /// Of the memory.
        incarnation: u64,
        /// Of the question.
        ticket: Ticket,
        /// Why.
        why: Refusal,
        /// What the witness remembers as granted.
        granted: Option<Epoch>,
        /// When that was, by its clock: for people only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        granted_unix_ms: Option<u64>,
    },
    /// A pulse was taken.
    Noted {
        /// Of the memory.
        incarnation: u64,
    },
    /// No witness answered in time (made by the runtime, never sent).
    Unreachable,
}

/// Why a question was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The witness has no memory of this module, and not both nodes have registered.
    Empty,
    /// Another epoch is granted and not in the asker's history.
    Held,
    /// The asker lost power while mirrored; its complete peer comes first (R2).
    PeerFirst,
    /// The asker followed a primary that the witness hears: it goes on, if it asks soon. Only the network between them is cut.
    PrimaryFirst,
}

/// What the witness keeps of one module, on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Random, drawn when this record was first made.
    pub incarnation: u64,
    /// Nodes that registered with this incarnation.
    pub registered: Vec<NodeId>,
    /// Epoch granted, or learnt to be in use.
    pub granted: Option<Epoch>,
    /// Epoch of the asker when it was granted.
    pub base: Option<Epoch>,
    /// Ticket of the grant.
    pub ticket: Option<Ticket>,
    /// When it was granted, by the witness's clock: for people only. `None`: it was not granted, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_unix_ms: Option<u64>,
}

/// What the witness knows of the asker's peer right now (volatile).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Contact {
    /// For how long nothing was heard of it (from the start of the witness, when never).
    pub silent_ms: u64,
    /// What it said last, since the witness started.
    pub last: Option<PeerWord>,
}

/// The part of a node's last words that matters for its peer's question.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerWord {
    /// Complete, and may claim by itself.
    pub full_candidate: bool,
    /// Epochs it descends from.
    pub history: Vec<Epoch>,
    /// It is PRIM, with or without an answer from its peer.
    pub leads: bool,
}

/// The rules R10–R16, without time and memory: `None` as record means "unchanged".
#[must_use]
pub fn answer(record: &LedgerRecord, question: &Question, contact: &Contact) -> (Option<LedgerRecord>, Answer) {
    let incarnation = record.incarnation;
    match question {
        Question::Ask { node, peer, incarnation: known, ticket, epoch, history, data, floor, random } => {
            if *known != Some(incarnation) {
                return (None, Answer::Register { incarnation });
            }
            let LedgerRecord { granted, granted_unix_ms, .. } = *record;
            let refuse = |why| Answer::Refuse { incarnation, ticket: *ticket, why, granted, granted_unix_ms };
            if !(record.registered.contains(node) && record.registered.contains(peer)) {
                return (None, refuse(Refusal::Empty));
            }
            // Questions travel in any order. One older than the holder's grant is a late one: taken as "it never stored
            // the grant" it would void a grant that is in use (found by the explorer); the same one again is answered again.
            if let (Some(granted), Some(last)) = (record.granted, record.ticket)
                && granted.node == *node
                && *ticket <= last
            {
                return match *ticket == last {
                    true => (None, Answer::Grant { incarnation, ticket: *ticket, epoch: granted }),
                    false => (None, refuse(Refusal::Held)),
                };
            }
            let base_is_mine = record.base.is_none_or(|base| history.contains(&base));
            let in_history = record.granted.is_none_or(|granted| history.contains(&granted));
            let holder = record.granted.map(|granted| granted.node);
            // The holder asks and does not have it: it never stored the grant, which is therefore void (R11).
            let never_stored = !in_history && holder == Some(*node) && base_is_mine;
            let closed = holder == Some(*peer)
                && base_is_mine
                && matches!((record.ticket, floor), (Some(granted), Some(floor)) if granted <= *floor);
            let mut next = record.clone();
            if never_stored {
                next.granted = record.base;
            }
            if !(in_history || never_stored || closed) {
                return (None, refuse(Refusal::Held));
            }
            if *data == DataState::Crashed && peer_comes_first(&next, contact) {
                let changed = (next != *record).then_some(next);
                return (changed, refuse(Refusal::PeerFirst));
            }
            let counter = record.granted.iter().chain(history).map(|epoch| epoch.counter).max().unwrap_or(0) + 1;
            let granted = Epoch { counter, node: *node, random: random.0 };
            next.granted = Some(granted);
            next.base = *epoch;
            next.ticket = Some(*ticket);
            (Some(next), Answer::Grant { incarnation, ticket: *ticket, epoch: granted })
        }
        Question::Pulse { node, peer, incarnation: known, epoch, history, state, in_session, forced, .. } => {
            if *known != Some(incarnation) {
                return (None, Answer::Register { incarnation });
            }
            let mut next = record.clone();
            register(&mut next, *node);
            if *state == ModuleState::Alone {
                register(&mut next, *peer);
            }
            if let Some(epoch) = epoch {
                let in_history = record.granted.is_none_or(|granted| history.contains(&granted));
                let unused = *in_session
                    && record.granted.is_some_and(|granted| granted.node == *node)
                    && record.base.is_none_or(|base| history.contains(&base));
                if record.granted != Some(*epoch) && (in_history || unused || *forced) {
                    next.granted = Some(*epoch);
                    next.base = Some(*epoch);
                    next.ticket = None;
                }
            }
            let changed = (next != *record).then_some(next);
            (changed, Answer::Noted { incarnation })
        }
    }
}

fn register(record: &mut LedgerRecord, node: NodeId) {
    if !record.registered.contains(&node) {
        record.registered.push(node);
        record.registered.sort_unstable();
    }
}

/// R2: a crashed asker waits while its peer is complete and in contact, or may still come.
fn peer_comes_first(record: &LedgerRecord, contact: &Contact) -> bool {
    if contact.silent_ms < DEFER_MS {
        return match &contact.last {
            None => true,
            Some(word) => word.full_candidate && record.granted.is_none_or(|granted| word.history.contains(&granted)),
        };
    }
    false
}

/// One module's ledger: the rules, plus what is remembered of who was heard when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ledger {
    record: LedgerRecord,
    started_ms: u64,
    heard: Vec<(NodeId, u64, PeerWord)>,
    /// Who was told that its primary comes first, and since when.
    behind: Option<(NodeId, u64)>,
    /// Wall clock.
    unix_ms: Option<u64>,
}

/// What the witness process does with a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Make this durable before the answer leaves; `None`: nothing changed.
    pub store: Option<LedgerRecord>,
    /// The answer.
    pub answer: Answer,
}

impl Ledger {
    /// From what is on disk; an empty record carries a fresh random incarnation. `now_ms`: boot-time clock.
    #[must_use]
    pub const fn new(record: LedgerRecord, now_ms: u64) -> Self {
        Self { record, started_ms: now_ms, heard: Vec::new(), behind: None, unix_ms: None }
    }

    /// The wall clock shows this: what is granted next, was granted then.
    #[must_use]
    pub const fn at(&mut self, unix_ms: u64) -> &mut Self {
        self.unix_ms = Some(unix_ms);
        self
    }

    /// A memory that holds nothing yet.
    #[must_use]
    pub const fn empty(incarnation: u64) -> LedgerRecord {
        LedgerRecord {
            incarnation,
            registered: Vec::new(),
            granted: None,
            base: None,
            ticket: None,
            granted_unix_ms: None,
        }
    }

    /// What is (or must be) on disk.
    #[must_use]
    pub const fn record(&self) -> &LedgerRecord {
        &self.record
    }

    /// Decides. When the record cannot be stored, drop the answer and rebuild the ledger from what is on disk.
    /// `unheard_ms`: the asker followed a primary, and has not heard it for so long.
    pub fn handle(&mut self, question: &Question, unheard_ms: Option<u64>, now_ms: u64) -> Step {
        let (node, peer, full_candidate, history, leads) = match question {
            Question::Ask { node, peer, data, history, .. } => (*node, *peer, *data == DataState::Full, history, false),
            Question::Pulse { node, peer, data, yielded, history, state, .. } => {
                (*node, *peer, *data == DataState::Full && !yielded, history, *state == ModuleState::Prim)
            }
        };
        let word = PeerWord { full_candidate, history: history.clone(), leads };
        let of_peer = self.heard.iter().find(|(who, ..)| *who == peer);
        let contact = Contact {
            silent_ms: now_ms.saturating_sub(of_peer.map_or(self.started_ms, |(_, at, _)| *at)),
            last: of_peer.map(|(_, _, word)| word.clone()),
        };
        let (mut changed, mut answer) = answer(&self.record, question, &contact);
        if let Answer::Grant { incarnation, ticket, .. } = answer
            && unheard_ms.is_some_and(|unheard_ms| self.primary_comes_first(node, unheard_ms, &contact, now_ms))
        {
            // What would have been granted, and to whom, is decided anew at the next question.
            let LedgerRecord { granted, granted_unix_ms, .. } = self.record;
            answer = Answer::Refuse { incarnation, ticket, why: Refusal::PrimaryFirst, granted, granted_unix_ms };
            changed = None;
        }
        if let Some(next) = &mut changed
            && next.granted != self.record.granted
        {
            next.granted_unix_ms = self.unix_ms.filter(|_| matches!(answer, Answer::Grant { .. }));
        }
        self.heard.retain(|(who, ..)| *who != node);
        // A pair has two nodes; more names would be noise of a hostile one.
        if self.heard.len() < 2 {
            self.heard.push((node, now_ms, word));
        }
        if let Some(next) = &changed {
            self.record = next.clone();
        }
        Step { store: changed, answer }
    }

    /// Both nodes reach the witness, and only the network between them is cut: whoever asked first would serve. The primary's application
    /// runs, so it is let go first: as long as it is heard here and not for ever. **Refusing is always safe**, so this needs no proof.
    fn primary_comes_first(&mut self, node: NodeId, unheard_ms: u64, contact: &Contact, now_ms: u64) -> bool {
        let heard_since = contact.silent_ms + 2 * PULSE_MS <= unheard_ms;
        let heard_by_both = unheard_ms <= 3 * PULSE_MS && contact.silent_ms <= WITNESS_PULSE_MS + PULSE_MS;
        if !(contact.last.as_ref().is_some_and(|word| word.leads) && (heard_since || heard_by_both)) {
            return false;
        }
        let since = self.behind.filter(|(who, since)| *who == node && now_ms < since + 10 * PREFER_MS);
        let (_, since) = *self.behind.insert(since.unwrap_or((node, now_ms)));
        now_ms < since + PREFER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn epoch(counter: u64, node: NodeId) -> Epoch {
        Epoch { counter, node, random: 7 }
    }

    fn ask(node: NodeId, n: u32, history: &[Epoch], floor: Option<Ticket>) -> Question {
        Question::Ask {
            node,
            peer: if node == A { B } else { A },
            incarnation: Some(1),
            ticket: Ticket { boots: 1, n },
            epoch: history.last().copied(),
            history: history.to_vec(),
            data: DataState::Full,
            floor,
            random: Nonce(7),
        }
    }

    fn whole() -> Ledger {
        let record = LedgerRecord { registered: vec![A, B], granted: Some(epoch(1, A)), ..Ledger::empty(1) };
        Ledger::new(record, 0)
    }

    #[test]
    fn one_epoch_is_granted_once() {
        let mut ledger = whole();
        assert!(matches!(ledger.handle(&ask(A, 1, &[epoch(1, A)], None), None, 1).answer, Answer::Grant { .. }));
        let second = ledger.handle(&ask(B, 1, &[epoch(1, A)], None), None, 2).answer;
        assert!(matches!(second, Answer::Refuse { why: Refusal::Held, .. }), "{second:?}");
    }

    fn pulse(node: NodeId, state: ModuleState) -> Question {
        Question::Pulse {
            node,
            peer: if node == A { B } else { A },
            incarnation: Some(1),
            epoch: Some(epoch(1, A)),
            history: vec![epoch(1, A)],
            data: DataState::Full,
            yielded: false,
            state,
            in_session: true,
            forced: false,
        }
    }

    /// A leads and pulses every half second until it dies or only its network to B is cut; B asks as long after that as it lost A.
    fn b_asks(heard_ms: u64, cut_ms: u64, asks_ms: u64, state: ModuleState) -> (Ledger, Answer) {
        let mut ledger = whole();
        ledger.handle(&pulse(A, state), None, heard_ms);
        let step = ledger.handle(&ask(B, 1, &[epoch(1, A)], None), Some(asks_ms - cut_ms), asks_ms);
        (ledger, step.answer)
    }

    #[test]
    fn a_primary_that_the_witness_hears_comes_before_its_secondary() {
        let first = |answer: &Answer| matches!(answer, Answer::Refuse { why: Refusal::PrimaryFirst, .. });
        // Only the network between them is cut: the primary was heard here since then.
        let (mut ledger, answer) = b_asks(10_400, 10_000, 11_000, ModuleState::Prim);
        assert!(first(&answer), "{answer:?}");
        assert!(matches!(ledger.handle(&ask(A, 1, &[epoch(1, A)], None), None, 11_005).answer, Answer::Grant { .. }));
        let late = ledger.handle(&ask(B, 2, &[epoch(1, A)], None), Some(1_500), 11_500).answer;
        assert!(matches!(late, Answer::Refuse { why: Refusal::Held, .. }), "{late:?}");
        // The secondary hears the primary, which does not hear it.
        assert!(first(&b_asks(10_400, 10_950, 11_000, ModuleState::Prim).1));
        // The primary died with its networks: its last pulse is as old as its last heartbeat, or a little younger.
        for heard_ms in [9_500, 10_000, 10_100] {
            let (_, answer) = b_asks(heard_ms, 10_000, 11_000, ModuleState::Prim);
            assert!(matches!(answer, Answer::Grant { .. }), "{heard_ms}: {answer:?}");
        }
        // Who waits, or stepped aside, is no primary.
        assert!(matches!(b_asks(10_400, 10_000, 11_000, ModuleState::Wait).1, Answer::Grant { .. }));
    }

    #[test]
    fn a_primary_that_does_not_ask_is_not_waited_for_for_ever() {
        let (mut ledger, _) = b_asks(10_400, 10_000, 11_000, ModuleState::Prim);
        let mut asked = |n, now_ms| {
            ledger.handle(&pulse(A, ModuleState::Prim), None, now_ms - 50);
            ledger.handle(&ask(B, n, &[epoch(1, A)], None), Some(now_ms - 10_000), now_ms).answer
        };
        let second = asked(2, 11_500);
        assert!(matches!(second, Answer::Refuse { why: Refusal::PrimaryFirst, .. }), "{second:?}");
        let third = asked(3, 11_000 + PREFER_MS);
        assert!(matches!(third, Answer::Grant { .. }), "{third:?}");
    }

    #[test]
    fn a_late_question_does_not_void_the_grant_in_use() {
        let mut ledger = whole();
        let granted = ledger.handle(&ask(B, 5, &[epoch(1, A)], None), None, 1).answer;
        let late = ledger.handle(&ask(B, 4, &[epoch(1, A)], None), None, 2);
        assert!(matches!(late.answer, Answer::Refuse { why: Refusal::Held, .. }) && late.store.is_none());
        assert_eq!(
            ledger.handle(&ask(B, 5, &[epoch(1, A)], None), None, 3).answer,
            granted,
            "the same question, the same answer"
        );
        let floor = Some(Ticket { boots: 1, n: 4 });
        let peer = ledger.handle(&ask(A, 9, &[epoch(1, A)], floor), None, 4).answer;
        assert!(matches!(peer, Answer::Refuse { why: Refusal::Held, .. }), "{peer:?}");
    }

    #[test]
    fn an_empty_memory_grants_nothing_before_both_have_spoken_and_a_crashed_copy_waits() {
        let mut ledger = Ledger::new(Ledger::empty(1), 0);
        let answer = ledger.handle(&ask(A, 1, &[epoch(1, A)], None), None, 1).answer;
        assert!(matches!(answer, Answer::Refuse { why: Refusal::Empty, .. }), "{answer:?}");
        let mut ledger = whole();
        let mut crashed = ask(A, 1, &[epoch(1, A)], None);
        if let Question::Ask { data, .. } = &mut crashed {
            *data = DataState::Crashed;
        }
        let early = ledger.handle(&crashed, None, DEFER_MS - 1).answer;
        assert!(matches!(early, Answer::Refuse { why: Refusal::PeerFirst, .. }), "{early:?}");
        assert!(matches!(ledger.handle(&crashed, None, DEFER_MS).answer, Answer::Grant { .. }));
    }
}
