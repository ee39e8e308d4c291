use super::*;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

const LONG: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(10);

fn passing(gate: &Arc<Gate>) -> Receiver<Result<(), Fenced>> {
    let (tx, rx) = channel();
    let gate = gate.clone();
    std::thread::spawn(move || tx.send(gate.pass()));
    rx
}

#[test]
fn without_a_lease_an_open_gate_lets_nothing_pass_and_the_lease_wakes() {
    let gate = Arc::new(Gate::new());
    gate.open();
    assert!(!gate.is_open());
    let rx = passing(&gate);
    assert!(rx.recv_timeout(Duration::from_millis(50)).is_err(), "passed without a lease");
    gate.lease(LONG);
    assert_eq!(rx.recv_timeout(DEADLINE), Ok(Ok(())));
}

#[test]
fn a_lapsed_lease_parks_answers_until_it_is_renewed() {
    let gate = Gate::new();
    gate.open();
    gate.lease(Duration::ZERO);
    let (tx, rx) = channel();
    gate.answer(Box::new(move |v| tx.send(v).expect("receiver lives")));
    assert!(rx.try_recv().is_err(), "answered under a lapsed lease");
    gate.lease(LONG);
    assert_eq!(rx.try_recv(), Ok(Verdict::Send));
}

#[test]
fn what_lapsed_is_told_of_an_open_gate_that_had_a_lease() {
    let gate = Gate::new();
    assert_eq!(gate.lapsed(), Duration::ZERO, "held");
    gate.open();
    assert_eq!(gate.lapsed(), Duration::ZERO, "no agent was there yet");
    gate.lease(LONG);
    assert_eq!(gate.lapsed(), Duration::ZERO, "it lasts");
    gate.lease(Duration::ZERO);
    std::iter::repeat_with(|| gate.lapsed()).find(|lapsed| !lapsed.is_zero());
    gate.hold();
    assert_eq!(gate.lapsed(), Duration::ZERO, "held again");
}

#[test]
fn fencing_refuses_the_waiting_the_parked_and_the_coming_and_is_final() {
    let gate = Arc::new(Gate::new());
    gate.lease(LONG);
    gate.hold();
    let waiting = passing(&gate);
    let (tx, rx) = channel();
    let parked = tx.clone();
    gate.answer(Box::new(move |v| parked.send(v).expect("receiver lives")));
    gate.fence();
    assert_eq!(waiting.recv_timeout(DEADLINE), Ok(Err(Fenced)));
    assert_eq!(rx.try_recv(), Ok(Verdict::Refuse));
    gate.open();
    gate.answer(Box::new(move |v| tx.send(v).expect("receiver lives")));
    assert_eq!(rx.try_recv(), Ok(Verdict::Refuse));
    assert_eq!(gate.pass(), Err(Fenced));
}
