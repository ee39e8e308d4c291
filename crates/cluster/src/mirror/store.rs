//! One record at a time: nothing that depends on a record happens before it is on disk.
//!
//! **Invariant:** while a record is being stored nothing else is decided; messages are dropped (they may be lost),
//! everything else waits its turn.

use super::Out;
use super::action::{Action, Level, Timer, Vip};
use super::event::Event;
use super::message::{Answer, Message};
use super::reason::Reason;
use super::state::{Mirror, Pending, State, Then, Unopened};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use model::limits::DEFERRED_MAX;
use model::orders::{Begin, Order, Report};
use model::{Record, Right};

impl Mirror {
    pub(super) fn take(&mut self, event: Event, out: &mut Out) {
        let Some(pending) = self.pending.take() else {
            self.decide(event, out);
            return;
        };
        match event {
            Event::Stored { id } if id == self.store_id.0 => self.stored(*pending, out),
            Event::StoreFailed { id, reason } if id == self.store_id.0 => self.store_failed(*pending, reason, out),
            // What is ordered when the epoch is stored is ordered from the new one.
            Event::PlaneReplaced if matches!(pending.then, Then::Open { .. }) => {
                self.pending = Some(pending);
                return;
            }
            event => {
                self.pending = Some(pending);
                self.defer(event, out);
                return;
            }
        }
        while self.pending.is_none() && !self.deferred.is_empty() {
            let event = self.deferred.remove(0);
            self.decide(event, out);
        }
    }

    /// Makes `record` durable, then does `then`. What is on disk already needs no fsync.
    pub(super) fn store(&mut self, record: Record, then: Then, out: &mut Out) {
        if record == self.record {
            self.after(then, out);
            return;
        }
        self.store_id.0 ^= 1;
        out.push(Action::Store { id: self.store_id.0, record: Box::new(record.clone()) });
        self.pending = Some(Box::new(Pending { record, then }));
    }

    fn defer(&mut self, event: Event, out: &mut Out) {
        match &event {
            Event::Message(_) | Event::Witness(_) | Event::Stored { .. } | Event::StoreFailed { .. } => return,
            Event::Plane(Report::Progress { .. } | Report::Counters { .. }) => return,
            // Whatever is being stored: a thawed node answers nobody before it is confirmed.
            Event::Froze if self.is_mounted() => {
                self.vip = false;
                out.push(Action::Vip(Vip::Down));
                out.push(Action::Data(Order::Hold));
            }
            Event::PeerHeard(_) | Event::PeerSilent | Event::PeerLacks => {
                let is_older =
                    |kept: &Event| matches!(kept, Event::PeerHeard(_) | Event::PeerSilent | Event::PeerLacks);
                self.deferred.retain(|kept| !is_older(kept));
            }
            Event::WindowOpened | Event::WindowClosed => {
                self.deferred.retain(|kept| !matches!(kept, Event::WindowOpened | Event::WindowClosed));
            }
            _ => self.deferred.retain(|kept| *kept != event),
        }
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push(event);
        }
    }

    fn stored(&mut self, pending: Pending, out: &mut Out) {
        let before = core::mem::replace(&mut self.record, pending.record);
        if let (State::Claim(claim), Then::Open { .. }) = (&self.state, &pending.then)
            && claim.right == Right::Proof
            && let Some(reason) = self.proof_is_void()
        {
            // Never opened, so nobody may ever learn of this epoch: the former record is put back first.
            self.store(before, Then::Dropped { reason }, out);
            return;
        }
        if let (State::Claim(claim), Then::Open { .. }) = (&self.state, &pending.then)
            && claim.right == Right::Consent
        {
            self.unopened = Some(Box::new(Unopened { before, map_lost: self.map_lost }));
        }
        self.after(pending.then, out);
    }

    /// R18: the window and the silence are checked again before opening.
    fn proof_is_void(&self) -> Option<Reason> {
        self.deferred.iter().find_map(|event| match event {
            Event::Expired(Timer::Store) => Some(Reason::ClaimTooLate),
            Event::Froze => Some(Reason::Froze),
            Event::PeerHeard(_) => Some(Reason::PeerCameBack),
            _ => None,
        })
    }

    fn after(&mut self, then: Then, out: &mut Out) {
        match then {
            Then::Nothing => {}
            Then::Booted { adopted, application } => self.booted(adopted, application, out),
            Then::Yielded { to, facts } => self.welcome(to, facts, Answer::Yields, out),
            Then::Follow { to, facts, session, begin, target, data_id } => {
                let lost = self.record.epoch;
                // Nor is one that follows what it was when somebody looked.
                self.tree_empty = false;
                out.push(Action::Data(Order::Follow { session, begin, data_id, lost }));
                self.resumable = target.is_none();
                let why = match begin {
                    Begin::Resync { full, quarantine } => Reason::Resynchronising { full, quarantine },
                    Begin::Resume => Reason::Resuming,
                };
                self.note(Level::Info, why, out);
                out.push(Action::Arm(Timer::Link));
                self.state = State::Second { session, linked: false, target };
                self.welcome(to, facts, Answer::Follows { begin }, out);
            }
            Then::Open { fresh_map, stamp } => self.open(fresh_map, stamp, out),
            Then::Leave(goal) => self.leave(goal.end, goal.why, out),
            Then::Commit { session } => out.push(Action::Data(Order::SendCommit { session })),
            Then::Confirm { session } => {
                out.push(Action::Data(Order::ConfirmCommit { session }));
                self.resumable = true;
                self.wish = super::Wish::None;
                self.compare_all = false;
                self.may_prove = true;
                let linked = self.is_led();
                self.state = State::Second { session, linked, target: None };
                self.note(Level::State, Reason::Complete, out);
                if !linked {
                    out.push(Action::Arm(Timer::Link));
                }
            }
            Then::Exchanged { to } => self.exchange_stored(to, out),
            Then::Voting => self.new_witness_votes(out),
            Then::Left => self.left(out),
            Then::Dropped { reason } => self.claim_failed(reason, out),
        }
    }

    fn store_failed(&mut self, pending: Pending, why: String, out: &mut Out) {
        let reason =
            Reason::StoreFailed(format!("the record of module {} could not be stored: {why}", self.settings.module));
        match pending.then {
            // Not on disk, so not said: the peer asks again.
            Then::Yielded { .. } | Then::Follow { .. } | Then::Exchanged { .. } | Then::Voting => {
                self.note(Level::Error, reason, out)
            }
            // An epoch that is on disk and must not be used: this node is out until a person looks at its disk.
            Then::Booted { .. } | Then::Dropped { .. } => {
                self.state = State::Stop;
                self.leaves = None;
                self.note(Level::Error, reason, out);
            }
            // A right that comes again at once would fail again at once.
            Then::Open { .. } => {
                self.block(out);
                self.claim_failed(reason, out);
            }
            Then::Commit { .. } => self.enter_hold(reason, out),
            Then::Confirm { .. } => self.enter_wait(reason, out),
            Then::Left => {
                self.note(Level::Error, reason, out);
                self.left(out);
            }
            // The next resync compares more.
            Then::Leave(goal) => {
                self.note(Level::Error, reason, out);
                self.leave(goal.end, goal.why, out);
            }
            Then::Nothing => {
                self.note(Level::Error, reason, out);
                self.record.yielded |= pending.record.yielded;
            }
        }
    }

    /// Says why the node is where it is now; journalled when it is news (I6).
    pub(super) fn note(&mut self, level: Level, why: Reason, out: &mut Out) {
        if self.why != why {
            out.push(Action::Journal { level, sentence: why.sentence(&self.settings) });
            self.why = why;
        }
    }

    /// Says a thing that happened, without changing why the node is where it is.
    pub(super) fn tell(&self, level: Level, why: &Reason, out: &mut Out) {
        out.push(Action::Journal { level, sentence: why.sentence(&self.settings) });
    }

    pub(super) fn welcome(&mut self, to: super::Ticket, facts: Box<super::Facts>, answer: Answer, out: &mut Out) {
        let last = self.last_ticket();
        out.push(Action::Send(Message::Welcome { to, last, facts, answer }));
    }
}
