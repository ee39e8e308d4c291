//! See [`crate::hostile`]: what nodes ask a witness, what it remembers, and what it answers.

use super::ledgers::{Asked, Pulsed};
use cluster::mirror::Ticket;
use cluster::witness::{Answer, Ledger, LedgerRecord, Question};
use model::{DataState, Epoch, ModuleName, ModuleState, NodeId};

/// The first byte says what the rest is. What can be read is asked, of a witness that remembers and of an empty one.
pub fn open(bytes: &[u8]) -> bool {
    let Some((which, json)) = bytes.split_first() else { return false };
    match which & 3 {
        0 => serde_json::from_slice::<Asked>(json).is_ok_and(|asked| ask(&[asked])),
        1 => serde_json::from_slice::<Pulsed>(json).is_ok_and(|pulsed| ask(&pulsed.pulses)),
        2 => serde_json::from_slice::<Answer>(json).is_ok(),
        _ => serde_json::from_slice::<LedgerRecord>(json).is_ok_and(|record| {
            Ledger::new(record, 0).handle(&pulse(), None, 1_000);
            true
        }),
    }
}

fn ask(all: &[Asked]) -> bool {
    let mut ledger = Ledger::new(Ledger::empty(7), 0);
    ledger.handle(&pulse(), None, 10);
    all.iter()
        .zip(1_000_u64..)
        .for_each(|(asked, now_ms)| drop(ledger.handle(&asked.question, asked.unheard_ms, now_ms)));
    true
}

fn epoch() -> Epoch {
    Epoch { counter: 1, node: NodeId(1), random: 5 }
}

fn pulse() -> Question {
    Question::Pulse {
        node: NodeId(1),
        peer: NodeId(2),
        incarnation: Some(7),
        epoch: Some(epoch()),
        history: vec![epoch()],
        data: DataState::Full,
        yielded: false,
        state: ModuleState::Alone,
        in_session: false,
        forced: false,
    }
}

fn question() -> Question {
    Question::Ask {
        node: NodeId(2),
        peer: NodeId(1),
        incarnation: Some(7),
        ticket: Ticket { boots: 3, n: 4 },
        epoch: Some(epoch()),
        history: vec![epoch()],
        data: DataState::Crashed,
        floor: None,
        random: model::marks::Nonce(9),
    }
}

/// Asked, pulsed, answered, remembered.
pub fn samples() -> Vec<Vec<u8>> {
    let module = ModuleName::new("am").expect("a name");
    let asked = Asked { version: 1, module: module.clone(), question: pulse(), unheard_ms: None };
    let asks = Asked { version: 1, module, question: question(), unheard_ms: Some(1_000) };
    let mut ledger = Ledger::new(Ledger::empty(7), 0);
    let step = ledger.handle(&asked.question, None, 10);
    let json = |which: u8, json: serde_json::Result<Vec<u8>>| [vec![which], json.unwrap_or_default()].concat();
    vec![
        json(0, serde_json::to_vec(&asked)),
        json(0, serde_json::to_vec(&asks)),
        json(1, serde_json::to_vec(&Pulsed { version: 1, pulses: vec![asked, asks] })),
        json(2, serde_json::to_vec(&step.answer)),
        json(3, serde_json::to_vec(&step.store.unwrap_or_else(|| Ledger::empty(7)))),
    ]
}
